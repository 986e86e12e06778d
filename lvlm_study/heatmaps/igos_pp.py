"""iGOS++ with separate masks: one for deletion, one for insertion, their product is the map.

The paper's Eq. 3 and its "Separate" ablation. The deletion mask alone must destroy the answer, the
insertion mask alone rebuild it, and their product do both.
"""

import math

import torch
from torch import Tensor

from .. import masks
from ..answers import Target
from ..errors import StudyError
from .igos import check_options, nesterov, path_gradients, regulariser_gradient

SHRINK, SLOPE, LEAST = 0.2, 1e-4, 1e-5  # line search: factor, Armijo's constant, smallest step


def igos_pp(
    target: Target,
    *,
    seed: int = 0,
    mask_size: int | tuple[int, int] = 32,
    iterations: int = 5,
    steps: int = 10,
    lr: float = 10.0,
    momentum: float = 5.0,
    l1: float = 1.0,
    l2: float = 0.1,
    tv: float = 10.0,
    gamma: float = 1.0,
    noise: float = 0.2,
    optimiser: str = "nag",
    batch: int = 20,
) -> Tensor:
    """Saliency (h, w) in [0, 1], high = important, from two masks.

    Minimises half of f(keep X) - f(keep 1 - Y) + f(keep XY) - f(keep 1 - XY), plus the regularisers
    of `igos` on XY; X deletes, Y inserts. Insertion images really start from the baseline, so both
    masks move. 4 x steps x iterations forward-backward passes (200). `optimiser="line_search"`
    replaces Nesterov's steps: from `lr` down by factors of 5 until the objective at the masks
    themselves falls enough (Armijo), at 4 forward passes a trial.
    """
    grid = check_options(mask_size, iterations, steps)
    if optimiser not in ("nag", "line_search"):
        raise StudyError(f"optimiser is 'nag' or 'line_search', not {optimiser!r}.")
    edges = masks.edge_weights(target.image)
    pair = torch.ones(2, 1, *grid, device=target.image.device)  # X and Y
    points = torch.zeros_like(pair)
    for t in range(iterations):
        draw = (seed * iterations + t) * 4 * steps
        weights = (l1, l2 * math.exp(-gamma * t), tv)
        gradient = pair_gradient(target, pair, steps, noise, draw, batch)
        both = regulariser_gradient(pair[:1] * pair[1:], target, edges, *weights)
        gradient = gradient + both * pair.flip(0)  # the product rule: dR/dX = R'(XY) Y
        if not torch.isfinite(gradient).all():
            return torch.full(grid, math.nan)
        if optimiser == "nag":
            pair, points = nesterov(pair, points, gradient, t, lr, momentum)
        else:
            pair, points = line_search(target, pair, gradient, edges, weights, lr)
    product = pair[:1] * pair[1:]
    return 1 - masks.break_ties(product, points.sum(0, keepdim=True), seed)[0, 0].cpu()


def pair_gradient(
    target: Target, pair: Tensor, steps: int, noise: float, seed: int, batch: int
) -> Tensor:
    """Gradient (2, 1, h, w) of (F_del(XY) - F_ins(XY) + F_del(X) - F_ins(Y)) / 2 by X and Y."""
    way = target.image - target.baseline
    x, y = masks.render(pair, target.size).split(1)
    paths = [
        (target.baseline, x * y * way),
        (target.image, -x * y * way),
        (target.baseline, x * way),
        (target.image, -y * way),
    ]
    found = path_gradients(target, paths, steps, noise, seed, batch)
    both, alone_x, alone_y = found[0] + found[1], found[2], found[3]
    keep = torch.cat([both * y + alone_x, both * x + alone_y]) * way / 2
    return masks.render_adjoint(keep.sum(1, keepdim=True), tuple(pair.shape[-2:]))


def line_search(target, pair, gradient, edges, weights, lr):
    """The first step of lr, lr / 5, ... that lowers the objective enough: `(pair, points)`.

    The masks stay where they are when none does.
    """
    now, size = objective(target, pair, edges, weights), lr
    while size >= LEAST:
        points = pair - size * gradient
        trial = points.clamp(0, 1)
        fall = SLOPE * (gradient * (pair - trial)).sum()
        if objective(target, trial, edges, weights) <= now - fall:
            return trial, points
        size *= SHRINK
    return pair, points


@torch.no_grad()
def objective(target: Target, pair: Tensor, edges, weights) -> Tensor:
    """The objective at the masks themselves (no integration), a scalar."""
    x, y = masks.render(pair, target.size).split(1)
    keeps = torch.cat([x * y, 1 - x * y, x, 1 - y])
    images = masks.blend(target.image, target.baseline, keeps)
    f = torch.cat([target.score(part) for part in images.split(target.micro_batch(4))])
    product, (l1, l2, tv) = pair[:1] * pair[1:], weights
    rules = l1 * masks.l1(product) + l2 * masks.l2(product)
    rules = rules + tv * masks.btv(product, masks.render(product, target.size), edges)
    return (f[0] - f[1] + f[2] - f[3]) / 2 + rules
