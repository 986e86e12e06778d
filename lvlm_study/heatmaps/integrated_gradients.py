"""Integrated gradients: what each pixel adds on the straight way from the baseline to the image.

Exact to the pixel, complete, and noisy for the same reason: nothing ties neighbours together.
"""

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from .igos import image_gradient


def integrated_gradients(
    target: Target, *, seed: int = 0, steps: int = 50, batch: int = 20
) -> Tensor:
    """Saliency (h, w), signed, in nats: what each pixel adds to f on the way from the baseline.

    (image - baseline) times the mean gradient on the straight line between them (midpoint rule),
    summed over colours. The map sums to f(image) - f(baseline), up to the rule's error.
    """
    if steps < 1:
        raise StudyError(f"integrated_gradients needs at least 1 step, not {steps}.")
    way = target.image - target.baseline
    total = torch.zeros_like(way)
    at = [(k + 0.5) / steps for k in range(steps)]
    size = target.micro_batch(batch)
    for first in range(0, steps, size):
        some = at[first : first + size]
        images = torch.cat([torch.add(target.baseline, way, alpha=s) for s in some])
        total += image_gradient(target, images).sum(0, keepdim=True)
    return (way * total / steps).sum(1)[0].cpu()
