"""RISE: random masks, and how the score goes with each part of them being shown.

Needs forward passes only. The mean score under masks that show a place is biased by how much every
mask shows; here the estimate is the slope of the score on how far a place is shown, covariance by
variance, and masks come in opposite pairs, which removes the constant part of the score exactly.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..answers import Target
from ..errors import StudyError


@torch.no_grad()
def rise(
    target: Target, *, seed: int = 0, masks: int = 1000, cells: int = 7, batch: int = 32
) -> Tensor:
    """Saliency (h, w): the estimated effect on f of showing a place, in nats; high = important.

    `masks` random masks (rounded up to even) of `cells` x `cells`, each cell shown with
    probability 1/2, enlarged bilinearly and shifted at random; what is not shown is the baseline.
    Enlarging smooths, so that a place varies by about 1/9 and not by the 1/4 of a hard mask; the
    slope is by what it did vary, and a map is smooth to about one cell. After Petsiuk et al. 2018.
    """
    if masks < 2 or cells < 1:
        raise StudyError(f"rise needs at least 2 masks and 1 cell, not {masks} and {cells}.")
    generator = torch.Generator().manual_seed(seed)
    pairs = math.ceil(masks / 2)
    grids = (torch.rand(pairs, 1, cells + 2, cells + 2, generator=generator) < 0.5).float()
    shifts = torch.rand(pairs, 2, generator=generator)
    total, varied = target.image.new_zeros(2, *target.size)  # (h, w) each
    for part in torch.arange(pairs).split(max(1, target.micro_batch(batch) // 2)):
        shown = place(grids[part], shifts[part], target.size, cells).to(target.image)
        images = torch.cat([_show(target, shown), _show(target, 1 - shown)])
        with_part, without = target.score(images).chunk(2)
        off = shown[:, 0] - 0.5
        total += torch.tensordot(with_part - without, off, dims=1)
        varied += off.square().sum(0)
    return (total / (2 * varied).clamp_min(1e-6)).cpu()


def place(grids: Tensor, shifts: Tensor, size: tuple[int, int], cells: int) -> Tensor:
    """Enlarge masks (n, 1, cells + 2, cells + 2) and cut out (n, 1, h, w) at `shifts` (n, 2).

    The outer half of the outer cells is never cut out: nothing is smoothed there.
    """
    step = [math.ceil(n / cells) for n in size]
    large = F.interpolate(grids, [(cells + 2) * s for s in step], mode="bilinear")
    corner = (shifts * torch.tensor(step) + torch.tensor(step) / 2).long().tolist()
    return torch.stack(
        [
            one[:, y : y + size[0], x : x + size[1]]
            for one, (y, x) in zip(large, corner, strict=True)
        ]
    )


def _show(target: Target, keep: Tensor) -> Tensor:
    return target.baseline + keep * (target.image - target.baseline)
