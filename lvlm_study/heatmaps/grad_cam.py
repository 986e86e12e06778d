"""Grad-CAM: channels of the vision encoder, weighted by how the answer depends on each.

Defined for any encoder whose patches keep their place. The layer must feed the projector: LLaVA
reads the last but one block, so the last one has no gradient at all, and a map of it would be noise
or zeros. The default is therefore the last block that the score depends on, whatever the family.
Source: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2, with patches in the place of a feature
map; their sums over classes become f, the crucial tokens' log p.
"""

from functools import partial

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from ..models import memory
from ..models.encoders import Encoder
from .layers import at_depth, depth_of
from .token_maps import paint_boxes
from .watch import checked, require_inside


def grad_cam(
    target: Target,
    *,
    seed: int = 0,
    layer: int | str | None = None,
    depth: float | None = None,
    encoder: int | str | None = None,
    positive: bool = True,
) -> Tensor:
    """Saliency (H, W): relu of the channel sum of (mean gradient of f) times (patch features).

    `layer` is a block of the encoder (negative: from its end), None the last that the score depends
    on, "auto" the one chosen for this model on held-out scenes (see `layers`); `depth` names it as
    a share of the way through those that the score depends on. Each picture an encoder is shown
    (base view, all tiles of the large picture, thumbnail) has its own mean gradient; patches are
    painted as amounts, so pictures add up. With several encoders (Cambrian, Mini-Gemini) the maps
    are averaged, or `encoder` names one by number or name. `positive=False` keeps the sign. One
    forward and one backward pass.
    """
    require_inside(target.bound, "grad_cam")
    depth = depth_of("grad_cam", target.bound.adapter, layer, depth)
    chosen = _chosen(target.bound.adapter.encoders(target.bound), encoder)
    look = partial(_features, target, chosen)
    ((layers, gradients),) = memory.backward(target.bound, "gradient", look, target.image)
    maps = [
        _map(target.bound, e, *_used(e, outputs, slopes, layer, depth), positive)
        for e, outputs, slopes in zip(chosen, layers, gradients, strict=True)
    ]
    return torch.stack(maps).mean(0)


def cam(features: Tensor, gradient: Tensor, positive: bool = True) -> Tensor:
    """Scores (V, n) of one picture's patches from features and gradients (V, n, C)."""
    weight = gradient.mean((0, 1))  # (C,)
    scores = features @ weight
    return scores.clamp(min=0) if positive else scores


def _map(bound, encoder: Encoder, features: Tensor, gradient: Tensor, positive: bool) -> Tensor:
    features, gradient = _patches(features), _patches(gradient)
    pictures = encoder.boxes(features.shape[1])
    counts, n = [len(p) for p in pictures], pictures[0].shape[1]
    parts = (x[:, -n:].float().cpu().split(counts) for x in (features, gradient))  # class token off
    scores = torch.cat([cam(*part, positive) for part in zip(*parts, strict=True)])  # (V, n)
    return paint_boxes(torch.cat(pictures).flatten(0, 1), scores.flatten(), bound.size, amount=True)


def _patches(x: Tensor) -> Tensor:
    """A block's output as (V, n, C): maps (V, C, h, w) flattened, flat lists (n, C) as one view."""
    if x.ndim == 4:
        return x.flatten(2).mT
    return x[None] if x.ndim == 2 else x


def _features(target: Target, chosen: list[Encoder], image: Tensor):
    """Outputs of all blocks of the chosen encoders, and the gradient of f by each or None."""
    outputs = [[None] * len(e.blocks) for e in chosen]
    hooks = [
        block.register_forward_hook(_keep(outputs[i], k))
        for i, e in enumerate(chosen)
        for k, block in enumerate(e.blocks)
    ]
    try:
        score = target.score(image.clone().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    flat = [x for kept in outputs for x in kept]
    times = float(memory.steepness(score, target.contrast))
    slopes = torch.autograd.grad(score.sum() * times, flat, allow_unused=True)
    slopes = iter([slope if slope is None else slope.float() / times for slope in slopes])
    return outputs, [[next(slopes) for _ in kept] for kept in outputs]


def _keep(kept: list, index: int):
    def hook(module, inputs, output):
        kept[index] = output[0] if isinstance(output, tuple) else output

    return hook


def _used(encoder: Encoder, outputs, slopes, layer, depth) -> tuple[Tensor, Tensor]:
    """Features and gradient of the asked layer, or of the last with a gradient."""
    alive = [k for k, slope in enumerate(slopes) if slope is not None and bool(slope.any())]
    if not alive:
        raise StudyError(
            f"The answer does not depend on the vision encoder {encoder.name!r}, so grad_cam has "
            "no gradient to show."
        )
    if depth is not None:
        index = at_depth(alive, depth)
    else:
        index = alive[-1] if layer is None else checked(layer, len(slopes), "grad_cam")
    if index not in alive:
        raise StudyError(
            f"Layer {index} of the vision encoder {encoder.name!r} does not feed the projector, so "
            f"its gradient is zero; the last that does is layer {alive[-1]}."
        )
    return outputs[index].detach(), slopes[index]


def _chosen(found: list[Encoder], encoder: int | str | None) -> list[Encoder]:
    if encoder is None:
        return found
    names = [e.name for e in found]
    if isinstance(encoder, int) and 0 <= encoder < len(found):
        return [found[encoder]]
    if encoder in names:
        return [found[names.index(encoder)]]
    raise StudyError(
        f"There is no vision encoder {encoder!r}; this model has {', '.join(map(repr, names))}, "
        f"also 0 to {len(found) - 1}."
    )
