"""The mask: a coarse grid on the original image, rendered once to a full-size keep-map.

Inside the optimisation a mask is low where the image matters (1 keeps the pixel, 0 replaces it by
the baseline). It lives in the coordinates of the original image; the blended picture then passes
through the model's own preprocessing, which makes crops, tiles and several encoders right by
construction.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

PIXEL_STD = 0.27  # one normalised unit in [0, 1] pixel units: CLIP's mean channel deviation
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def render(mask: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear keep-map (B, C, H, W) of a coarse mask (B, C, h, w).

    By default cell (i, j) is the box [i, i+1) x [j, j+1) of an h x w division of the image, so
    cells and picture regions agree. `align_corners=True` puts the outer cells' centres on the
    image's corners instead, as the paper's released code does.
    """
    rows = _weights(mask.shape[-2], size[0], align_corners).to(mask)
    columns = _weights(mask.shape[-1], size[1], align_corners).to(mask)
    return rows @ mask @ columns.T  # (B, C, H, W)


def render_adjoint(gradient: Tensor, grid: tuple[int, int], align_corners: bool = False) -> Tensor:
    """The transpose of `render`: a gradient (B, C, H, W) of the keep-map brought to the mask."""
    rows = _weights(grid[0], gradient.shape[-2], align_corners).to(gradient)
    columns = _weights(grid[1], gradient.shape[-1], align_corners).to(gradient)
    return rows.T @ gradient @ columns  # (B, C, h, w)


def l1(mask: Tensor) -> Tensor:
    """Mean of |1 - mask|: pushes the mask to keep pixels, so that little is called important."""
    return (1 - mask).abs().mean()


def l2(mask: Tensor, unit: str = "sum") -> Tensor:
    """Squared distance from the empty explanation, the convex term of graduated non-convexity.

    The released code sums the squares while its L1 is a mean, so the two weights differ in scale by
    the number of cells; `unit="mean"` puts both on one scale.
    """
    square = (1 - mask).square()
    return square.sum() if unit == "sum" else square.mean()


def edge_weights(
    image: Tensor, sigma: float = 0.01, compat: str | None = None, deviations=CLIP_STD
) -> tuple[Tensor, Tensor]:
    """Weights (1, 1, H-1, W) and (1, 1, H, W-1) that allow a mask to jump where the image does.

    exp(-d^2 / sigma), d the difference of neighbouring pixels in normalised units, d^2 averaged
    over channels. `compat="paper_code"` measures d in each channel's own `deviations`, averages it
    over channels before squaring along rows, and averages the exponentials along columns, an
    asymmetry of the released code.
    """
    down, right = image.diff(dim=-2), image.diff(dim=-1)
    if compat == "paper_code":
        std = image.new_tensor(deviations).view(3, 1, 1)
        vertical = (-((down / std).mean(1, keepdim=True) ** 2) / sigma).exp()
        return vertical, (-((right / std) ** 2) / sigma).exp().mean(1, keepdim=True)
    steps = (d / PIXEL_STD for d in (down, right))
    return tuple((-(d**2).mean(1, keepdim=True) / sigma).exp() for d in steps)


def btv(
    mask: Tensor, keep: Tensor, weights: tuple[Tensor, Tensor], compat: str | None = None
) -> Tensor:
    """Bilateral total variation: smooth, except across the image's own edges.

    Half the sum of the squared steps of the coarse mask and of the rendered keep-map, the latter
    weighted by `edge_weights`; each direction summed and divided by the number of cells or pixels.
    `compat="paper_code"` divides by the number of steps instead, (h - 1) w and h (w - 1).
    """
    coarse = [mask.diff(dim=d).square() for d in (-2, -1)]
    fine = [w * keep.diff(dim=d).square() for w, d in zip(weights, (-2, -1), strict=True)]
    if compat == "paper_code":
        return 0.5 * sum(steps.mean() for steps in (*coarse, *fine))
    sums = [sum(steps.sum() for steps in part) for part in (coarse, fine)]
    return 0.5 * (sums[0] / mask[0, 0].numel() + sums[1] / keep[0, 0].numel())


def break_ties(mask: Tensor, free: Tensor, seed: int, room: float = 1e-3) -> Tensor:
    """Order cells that clamping made equal, without changing the order of any that differ.

    All cells are ranked by their value, then by their unclamped value `free`, then by a seeded
    draw; the rank is added at the scale of `room` and the whole squeezed back into [0, 1]. The
    saliency itself then carries the order, whoever sorts it.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(mask.numel(), generator=generator).argsort()
    for key in (free, mask):
        order = order[key.flatten().cpu()[order].argsort(stable=True)]
    rank = torch.empty(mask.numel())
    rank[order] = torch.arange(mask.numel()) / mask.numel()
    return (mask + room * rank.view_as(mask).to(mask)) / (1 + room)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept serves later calls, with gradients too
def _weights(cells: int, pixels: int, align_corners: bool) -> Tensor:
    """(pixels, cells) bilinear interpolation matrix, rows sum to 1."""
    at = torch.arange(pixels, dtype=torch.float64)
    if align_corners:
        at = at * ((cells - 1) / max(pixels - 1, 1))
    else:
        at = ((at + 0.5) * (cells / pixels) - 0.5).clamp(0, cells - 1)
    cell = torch.arange(cells, dtype=torch.float64)
    return (1 - (at[:, None] - cell[None]).abs()).clamp(min=0).float()


def settled(values: np.ndarray) -> np.ndarray:
    """Values relative to the largest, to 12 decimals: what is equal up to rounding is a tie.

    Some methods' maps are of the order of 1e-9, where 12 decimals of the values would keep nothing.
    """
    largest = np.abs(values).max()
    return (values / largest).round(12) if largest > 0 else values
