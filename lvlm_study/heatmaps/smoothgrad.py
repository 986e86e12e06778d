"""SmoothGrad: the gradient of the score by the pixels, averaged over noisy copies of the image."""

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from .igos import image_gradient


def smoothgrad(
    target: Target, *, seed: int = 0, samples: int = 25, noise: float = 0.5, batch: int = 20
) -> Tensor:
    """Saliency (h, w): strength of the gradient of f by each pixel, averaged over noisy copies.

    `noise` is the standard deviation in the model's normalised units, where a picture spans 3.6 to
    3.9 (CLIP) or 2 (SigLIP): 0.5 is 13 to 25 % of that. Absolute values of the mean gradient are
    summed over colours: the map says where f is sensitive, not in which direction. `noise=0` with
    one sample is the plain gradient.
    """
    if samples < 1:
        raise StudyError(f"smoothgrad needs at least 1 sample, not {samples}.")
    total = torch.zeros_like(target.image)
    size = target.micro_batch(batch)
    for first in range(0, samples, size):
        n = min(size, samples - first)
        seeds = range(seed * samples + first, seed * samples + first + n)
        images = target.image.repeat(n, 1, 1, 1)
        total += image_gradient(target, images, noise, seeds).sum(0, keepdim=True)
    return (total / samples).abs().sum(1)[0].cpu()
