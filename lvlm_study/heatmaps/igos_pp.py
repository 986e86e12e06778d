"""iGOS++ with separate masks: one for deletion, one for insertion, their product is the map.

The paper's Eq. 3 and its "Separate" ablation. The deletion mask alone must destroy the answer, the
insertion mask alone rebuild it, and their product do both.
"""

import math

import torch
from torch import Tensor

from ..answers import Target
from ..pixels import masks
from .igos import (
    ROOM,
    check_options,
    edges_of,
    nesterov,
    path_gradients,
    regulariser_gradient,
    with_preset,
)


def igos_pp(
    target: Target,
    *,
    seed: int = 0,
    mask_size: int | tuple[int, int] = 32,
    iterations: int = 5,
    steps: int | None = None,
    average: bool | None = None,
    lr: float = 10.0,
    momentum: float = 5.0,
    l1: float = 1.0,
    l2: float = 0.1,
    tv: float = 10.0,
    gamma: float = 1.0,
    noise: float = 0.2,
    batch: int = 20,
    compat: str | None = None,
    preset: str | None = None,
) -> Tensor:
    """Saliency (h, w) in [0, 1], high = important, from two masks.

    Minimises half of f(keep X) - f(keep 1 - Y) + f(keep XY) - f(keep 1 - XY), plus the regularisers
    of `igos` on XY; X deletes, Y inserts. Insertion images really start from the baseline, so both
    masks move. 4 x steps x iterations forward-backward passes (200). `average` (True) hands in the
    mean of the maps XY of all iterations (not the product of the masks' means, which no iteration
    had), False the last one. Presets and `compat="paper_code"` as in `igos`: `preset="paper"` is
    the last product after 200 passes, `preset="fast"` makes 80, "lean" 40. The released code's
    line search, which its commands do not use, is not offered.
    """
    steps, average = with_preset(preset, steps, average, compat)
    grid = check_options(mask_size, iterations, steps)
    edges = edges_of(target, compat)
    pair = torch.ones(2, 1, *grid, device=target.image.device)  # X and Y
    points = torch.zeros_like(pair)
    product_sum, points_sum = torch.zeros_like(pair[:1]), torch.zeros_like(pair[:1])
    for t in range(iterations):
        draw = (seed * iterations + t) * 4 * steps
        decayed = l2 * math.exp(-gamma * t)
        gradient = pair_gradient(target, pair, steps, noise, draw, batch, bool(compat))
        product = pair[:1] * pair[1:]
        both = regulariser_gradient(product, target, edges, l1, decayed, tv, compat=compat)
        gradient = gradient + both * pair.flip(0)  # the product rule: dR/dX = R'(XY) Y
        if not torch.isfinite(gradient).all():
            return torch.full(grid, math.nan)
        pair, points = nesterov(pair, points, gradient, t, lr, momentum)
        product, point = pair[:1] * pair[1:], points.sum(0, keepdim=True)
        product_sum, points_sum = product_sum + product, points_sum + point
    if average:
        product, point = product_sum / iterations, points_sum / iterations
    return 1 - masks.break_ties(product, point, seed, ROOM[compat])[0, 0].cpu()


def pair_gradient(
    target: Target, pair: Tensor, steps: int, noise: float, seed: int, batch: int, aligned=False
) -> Tensor:
    """Gradient (2, 1, h, w) of (F_del(XY) - F_ins(XY) + F_del(X) - F_ins(Y)) / 2 by X and Y."""
    way = target.image - target.baseline
    x, y = masks.render(pair, target.size, aligned).split(1)
    paths = [
        (target.baseline, x * y * way),
        (target.image, -x * y * way),
        (target.baseline, x * way),
        (target.image, -y * way),
    ]
    found = path_gradients(target, paths, steps, noise, seed, batch)
    both, alone_x, alone_y = found[0] + found[1], found[2], found[3]
    keep = torch.cat([both * y + alone_x, both * x + alone_y]) * way / 2
    return masks.render_adjoint(keep.sum(1, keepdim=True), tuple(pair.shape[-2:]), aligned)
