"""iGOS with a single mask and graduated non-convexity: the paper's objective (Eq. 8).

A coarse mask M is sought whose removal from the image destroys the answer while its complement,
put on the baseline, rebuilds it. Both scores are integrated along the way from the baseline to
the mask, which gives a gradient where a single step would be flat.

The paper hands in the last mask. Its steps are so large that masks jump, and two seeds end in two
maps; the mean of the masks costs the same and is steadier, so it is the default here and the
paper's own setting is the preset "paper".
"""

import math
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError, unknown
from ..models import memory
from ..pixels import masks
from ..pixels.baselines import baselines

PRESETS = {
    None: {"steps": 10, "average": True},
    "fast": {"steps": 4, "average": True},
    "lean": {"steps": 2, "average": True},
    "paper": {"steps": 10, "average": False},
}
ROOM = {None: 1e-3, "paper_code": 1e-4}  # how far ties may be pulled apart


def igos(
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
    l2_unit: str = "sum",
    reduce: str = "sum",
    batch: int = 20,
    compat: str | None = None,
    preset: str | None = None,
    fills: str | None = None,
    even: float | None = None,
) -> Tensor:
    """Saliency (h, w) in [0, 1], high = important, by minimising Eq. 8 over one mask.

    min_M f(keep M) - f(keep 1 - M) + l1 |1-M| + l2 exp(-gamma t) |1-M|^2 + tv BTV(M), f the summed
    log-probability of the crucial tokens. `steps` (10) integration points for each of the two
    scores and `iterations` Nesterov steps of size `lr` make 2 x steps x iterations forward-backward
    passes (100), run `batch` at a time: memory follows the batch, not the number of steps. `noise`
    is the standard deviation of Gaussian noise on what enters the model, drawn from `seed`.
    `average` (True) takes the mean of the masks of all iterations, so that the order of the cells
    rests on every gradient; False takes the last one. `preset="paper"` is the paper's method,
    `steps=10, average=False`; "fast" means `steps=4` (40 passes) and "lean" `steps=2` (20), both
    with the mean. What is given beside a preset stands. `reduce="mean"` divides f by the number of
    crucial tokens, so that steps do not grow with the answer; `l2_unit="mean"`: L2 over cells.
    `compat="paper_code"` computes what the released code does: the last mask, aligned corners, its
    edge weights and smoothing means (see `masks`). Where the picture is as large as the model's
    view, masks agree with its loop to 1e-3 under the same noise; elsewhere our mask is blended
    before the picture is resized, theirs after. `fills="mean+noise"` averages f over these too;
    `even`: see `evened`. Returns NaN ("diverged" in `explain`) when the score is not finite.
    """
    steps, average = with_preset(preset, steps, average, compat)
    grid = check_options(mask_size, iterations, steps)
    _check_choices(l2_unit, reduce, even)
    edges, targets = edges_of(target, compat), filled(target, fills, seed)
    scale = 1 / int(target.crucial.sum()) if reduce == "mean" else 1.0
    mask = torch.ones(1, 1, *grid, device=target.image.device)
    point, masks_sum, points_sum = (torch.zeros_like(mask) for _ in range(3))
    for t in range(iterations):
        draw = (seed * iterations + t) * 2 * steps  # a stream of its own for every image
        gradient = scale * mean_gradient(targets, mask, even, steps, noise, draw, batch, compat)
        decayed = l2 * math.exp(-gamma * t)
        gradient += regulariser_gradient(mask, target, edges, l1, decayed, tv, l2_unit, compat)
        if not torch.isfinite(gradient).all():
            return torch.full(grid, math.nan)
        mask, point = nesterov(mask, point, gradient, t, lr, momentum)
        masks_sum, points_sum = masks_sum + mask, points_sum + point
    if average:
        mask, point = masks_sum / iterations, points_sum / iterations
    return 1 - masks.break_ties(mask, point, seed, ROOM[compat])[0, 0].cpu()


def with_preset(
    preset: str | None, steps: int | None, average: bool | None, compat: str | None = None
) -> tuple[int, bool]:
    """`(steps, average)`: what is given stands, the rest comes from the preset.

    Without a preset, `compat` has that of the paper.
    """
    if preset not in PRESETS:
        raise unknown("preset of igos", preset, [name for name in PRESETS if name])
    if compat not in ROOM:
        raise StudyError(f"compat is None or 'paper_code', not {compat!r}.")
    own = PRESETS["paper" if compat and preset is None else preset]
    return own["steps"] if steps is None else steps, own["average"] if average is None else average


def edges_of(target: Target, compat: str | None):
    """`masks.edge_weights` of the picture; as released, with the deviations of the model's view."""
    plan = getattr(getattr(target.bound, "geometry", None), "plan", None)
    deviations = masks.CLIP_STD if plan is None else plan.std
    return masks.edge_weights(target.image, compat=compat, deviations=deviations)


def nesterov(mask: Tensor, last: Tensor, gradient: Tensor, t: int, lr: float, momentum: float):
    """One accelerated projected step: `(mask, point)`, the point being the unclamped descent.

    point_t = mask - lr gradient;  mask = clamp(point_t + t / (t + momentum) (point_t - point_t-1)).
    """
    point = mask - lr * gradient
    pull = t / (t + momentum) if t else 0.0
    return (point + pull * (point - last)).clamp(0, 1), point


def score_gradient(
    target: Target, mask: Tensor, steps: int, noise: float, seed: int, batch: int, aligned=False
) -> Tensor:
    """Gradient of F_del(M) - F_ins(M) with respect to the mask, (1, 1, h, w).

    F_del averages f over the images that keep (k / steps) of the mask, k = 1..steps, F_ins over
    those that keep 1 - (k / steps) of it.
    """
    part = masks.render(mask, target.size, aligned) * (target.image - target.baseline)
    paths = [(target.baseline, part), (target.image, -part)]
    deletion, insertion = path_gradients(target, paths, steps, noise, seed, batch)
    # The insertion score counts negatively, and its images move against (image - baseline).
    inner = (deletion + insertion) * (target.image - target.baseline)
    keep = inner.sum(1, keepdim=True)  # (1, 1, H, W)
    return masks.render_adjoint(keep, tuple(mask.shape[-2:]), aligned)


def mean_gradient(targets: list[Target], mask: Tensor, even, *how) -> Tensor:
    """`score_gradient` by each of the baselines, evened, and their mean."""
    found = [evened(score_gradient(one, mask, *how), one, even) for one in targets]
    return sum(found) / len(found)


def filled(target: Target, fills: str | None, seed: int) -> list[Target]:
    """The target, and the same with every other baseline of "mean+noise"."""
    names = fills.split("+") if fills else []
    for name in names:
        if name not in baselines():
            raise unknown("fill of igos", name, baselines())
    return [target, *(replace(target, baseline=target.fill(name, seed)) for name in names)]


def evened(gradient: Tensor, target: Target, floor: float | None) -> Tensor:
    """A gradient (1, 1, h, w) as if picture and fill lay equally far apart in every cell.

    It is (df/dx)(image - baseline), summed over a cell: 0 where the two agree, whatever the model.
    Each cell is divided by its share of |image - baseline|, 1 on average; `floor` is added to the
    share, so that cells with next to nothing to change are not all noise. None leaves it as it is.
    """
    if floor is None:
        return gradient
    gap = (target.image - target.baseline).abs().mean(1, keepdim=True)  # (1, 1, H, W)
    share = masks.render_adjoint(gap, tuple(gradient.shape[-2:]))
    return gradient / (share / share.mean() + floor) if share.any() else gradient


def path_gradients(
    target: Target, paths, steps: int, noise: float, seed: int, batch: int
) -> list[Tensor]:
    """For every path (start, way): gradient of mean_k f(start + (k / steps) way) by `way`.

    Blending is linear, so the images themselves are the leaves of the graph and the way back is
    written out: one backward pass for each micro-batch, nothing retained, whatever `steps` is.
    Returns (1, 3, H, W) for each path. Image i draws its noise from seed + i.
    """
    plan = [(n, k / steps) for n in range(len(paths)) for k in range(1, steps + 1)]
    totals = [torch.zeros_like(way) for _, way in paths]
    buffer = target.image.repeat(min(target.micro_batch(batch), len(plan)), 1, 1, 1)
    for first in range(0, len(plan), len(buffer)):
        some = plan[first : first + len(buffer)]
        for image, (n, s) in zip(buffer, some, strict=False):
            torch.add(paths[n][0][0], paths[n][1][0], alpha=s, out=image)
        seeds = range(seed + first, seed + first + len(some))
        gradient = image_gradient(target, buffer[: len(some)], noise, seeds)
        for (n, s), one in zip(some, gradient, strict=True):
            totals[n].add_(one, alpha=s / steps)
    return totals


def image_gradient(target: Target, images: Tensor, noise: float = 0.0, seeds=()) -> Tensor:
    """d score / d image for every image of a batch (b, 3, h, w), each under its own noise."""
    model = target.bound.adapter.model
    return memory.gradient(target, images, lambda some: jitter(model, noise, some), seeds)


@contextmanager
def jitter(model: torch.nn.Module, noise: float, seeds):
    """Add Gaussian noise to the pictures that enter `model`, behind all resizing and cropping.

    `noise` is in the model's own normalised units, as in the paper; noise on the image's pixels
    would be averaged away when the image is reduced. The pictures are the model's floating-point
    inputs; picture i of a batch draws from `seeds[i]`, so the batch size changes nothing.
    """

    def add(module, args, kwargs):
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        return args, {key: _noisy(value, noise, draws) for key, value in kwargs.items()}

    handle = model.register_forward_pre_hook(add, with_kwargs=True) if noise else None
    try:
        yield
    finally:
        if handle:
            handle.remove()


def _noisy(value, noise: float, draws: list):
    """A floating tensor, or those in a list, with noise of deviation `noise` for each map's draw.

    Qwen-VL gives every picture twice, as two frames with one patch embedding over both: the noise
    that reaches a token is then weaker than elsewhere, by up to the square root of two.
    """
    if isinstance(value, list | tuple):
        return type(value)(_noisy(item, noise, draws) for item in value)
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        return value
    shape = value.unflatten(0, (len(draws), -1)).shape[1:]  # some families pack B x n rows
    field = torch.stack([torch.randn(shape, generator=draw) for draw in draws])
    return value + noise * field.view_as(value).to(value)


def regulariser_gradient(mask, target, edges, l1, l2, tv, l2_unit="sum", compat=None) -> Tensor:
    """Gradient of l1 |1-M| + l2 |1-M|^2 + tv BTV(M), (1, 1, h, w)."""
    leaf = mask.detach().requires_grad_()
    keep = masks.render(leaf, target.size, bool(compat))
    loss = l1 * masks.l1(leaf) + l2 * masks.l2(leaf, l2_unit)
    loss = loss + tv * masks.btv(leaf, keep, edges, compat)
    return torch.autograd.grad(loss, leaf)[0]


def check_options(mask_size, iterations: int, steps: int) -> tuple[int, int]:
    """The mask's (h, w), or a StudyError when there is nothing to optimise."""
    grid = mask_size if isinstance(mask_size, tuple | list) else (mask_size, mask_size)
    if not all(isinstance(n, Integral) for n in (*grid, iterations, steps)):
        raise StudyError(
            "mask_size (one number or height and width), iterations and steps must be whole "
            f"numbers, not {mask_size!r}, {iterations!r}, {steps!r}."
        )
    if len(grid) != 2 or min(grid) < 2 or iterations < 1 or steps < 1:
        raise StudyError(
            "igos needs a mask of at least 2 x 2 cells and at least one iteration and step, "
            f"not mask_size={grid}, iterations={iterations}, steps={steps}."
        )
    return tuple(grid)


def _check_choices(l2_unit: str, reduce: str, even: float | None) -> None:
    if even is not None and not even > 0:
        raise StudyError(f"even is a floor above 0, such as 0.1, not {even!r}.")
    if l2_unit not in ("sum", "mean") or reduce not in ("sum", "mean"):
        raise StudyError(f"l2_unit and reduce are 'sum' or 'mean', not {l2_unit!r}, {reduce!r}.")
