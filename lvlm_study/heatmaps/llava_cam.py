"""LLaVA-CAM: Grad-CAM inside the language model, smoothed over noisy copies of the image.

Source: Zhang et al. 2024, "From Redundancy to Relevance: Information Flow in LVLMs Across
Reasoning Tasks", arXiv 2406.06579; here for f, the crucial tokens' log p, and every visual token.
"""

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from ..models import memory
from .layers import at_depth, depth_of
from .token_maps import paint
from .watch import checked, require_inside

DEPTH = 13 / 32  # the layer shown in the paper, of LLaVA-1.5-7B's 32


def llava_cam(
    target: Target,
    *,
    seed: int = 0,
    layer: int | str | None = None,
    depth: float | None = None,
    samples: int = 50,
    noise: float = 0.1,
    batch: int = 8,
) -> Tensor:
    """Saliency (H, W): mean over noisy copies of relu(mean over channels of weight x feature).

    Features are what enters the feed-forward part of decoder layer `layer` (None: 13/32 of all;
    "auto": the one chosen for this model on held-out scenes, see `layers`; or at `depth`, a share
    of the way from the first to the last but one) at the visual tokens, after its norm; a channel's
    weight is the mean over all visual tokens of the positive part of its gradient. `noise` is the
    standard deviation in [0, 1] pixel units of the Gaussian added to the image (clipped back);
    copies are drawn from `seed`, each by its own number, so `batch` changes nothing. `samples`
    forward and backward passes; `samples=1, noise=0` is plain Grad-CAM on that layer with positive
    weights.
    """
    require_inside(target.bound, "llava_cam")
    if samples < 1 or noise < 0:
        raise StudyError(
            f"llava_cam needs at least 1 sample and noise >= 0, not {samples} and {noise}."
        )
    depth = depth_of("llava_cam", target.bound.adapter, layer, depth)
    module = _norm(target.bound, layer, depth)
    span = target.bound.image_span.nonzero()[:, 0]
    total, size = torch.zeros(len(span)), target.micro_batch(batch)

    def one_part(images: Tensor) -> Tensor:
        return channel_cam(*_at(target, module, images, span)).cpu()  # (b, N)

    for first in range(0, samples, size):
        numbers = range(first, min(first + size, samples))
        images = torch.cat([noisy(target.image, noise, seed * samples + n) for n in numbers])
        parts = memory.backward(target.bound, "gradient", one_part, images)
        total += torch.cat(parts).sum(0)
    return paint(target.bound, total / samples)


def channel_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Scores (B, N) from features and gradients (B, N, C), positive gradients only."""
    weight = gradient.clamp(min=0).mean(1, keepdim=True)  # (B, 1, C)
    return (weight * features).mean(-1).clamp(min=0)


def noisy(image: Tensor, noise: float, number: int) -> Tensor:
    """The image with Gaussian noise of its own number, clipped to [0, 1]."""
    if noise == 0:
        return image
    generator = torch.Generator().manual_seed(number)
    draw = torch.randn(image.shape, generator=generator).to(image)
    return (image + noise * draw).clamp(0, 1)


def _norm(bound, layer: int | str | None, depth: float | None) -> torch.nn.Module:
    """The norm between attention and feed-forward part; Gemma gives it another name."""
    layers = bound.adapter.model.get_decoder().layers
    if depth is not None:
        index = at_depth(list(range(max(len(layers) - 1, 1))), depth)
    elif layer is None:
        index = int(DEPTH * len(layers))
    else:
        index = checked(layer, len(layers), "llava_cam")
    if index == len(layers) - 1:
        raise StudyError(
            f"In the last decoder layer ({index}) the visual tokens no longer reach the answer, so "
            "llava_cam has no gradient there; name an earlier layer."
        )
    block = layers[index]
    return getattr(block, "pre_feedforward_layernorm", None) or block.post_attention_layernorm


def _at(target: Target, module: torch.nn.Module, images: Tensor, span: Tensor):
    """Output of `module` at the visual tokens and the gradient of f by it: (B, N, C) each."""
    kept = []
    hook = module.register_forward_hook(lambda m, i, output: kept.append(output))
    try:
        score = target.score(images.detach().requires_grad_())
    finally:
        hook.remove()
    times = memory.steepness(score, target.contrast)  # (B,)
    (gradient,) = torch.autograd.grad((score * times).sum(), kept)
    span, times = span.to(gradient.device), times.to(gradient.device).view(-1, 1, 1)
    return kept[0].detach()[:, span].float(), gradient[:, span].float() / times
