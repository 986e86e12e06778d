"""The mask: a coarse grid on the original image, rendered once to a full-size keep-map.

Inside the optimisation a mask is low where the image matters (1 keeps the pixel, 0 replaces it by
the baseline). It lives in the coordinates of the original image; the blended picture then passes
through the model's own preprocessing, which makes crops, tiles and several encoders right by
construction.
"""

from functools import lru_cache

import torch
from torch import Tensor

PIXEL_STD = 0.27  # one normalised unit in [0, 1] pixel units: CLIP's mean channel deviation


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


def blend(image: Tensor, baseline: Tensor, keep: Tensor) -> Tensor:
    """Phi of Eq. 2: the image where `keep` is 1, the baseline where it is 0, mixed between."""
    return baseline + keep * (image - baseline)


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


def edge_weights(image: Tensor, sigma: float = 0.01, compat: str | None = None):
    """Weights (1, 1, H-1, W) and (1, 1, H, W-1) that allow a mask to jump where the image does.

    exp(-d^2 / sigma), d the difference of neighbouring pixels in normalised units, d^2 averaged
    over channels. `compat="paper_code"` averages d over channels before squaring along rows and
    averages the exponentials along columns, an asymmetry of the released code.
    """
    down = image.diff(dim=-2) / PIXEL_STD
    right = image.diff(dim=-1) / PIXEL_STD
    if compat == "paper_code":
        vertical = (-(down.mean(1, keepdim=True) ** 2) / sigma).exp()
        return vertical, (-(right**2) / sigma).exp().mean(1, keepdim=True)
    return tuple((-(d**2).mean(1, keepdim=True) / sigma).exp() for d in (down, right))


def btv(mask: Tensor, keep: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """Bilateral total variation: smooth, except across the image's own edges.

    Half the sum of the squared steps of the coarse mask and of the rendered keep-map, the latter
    weighted by `edge_weights`; each direction a mean over the grid.
    """
    coarse = sum(mask.diff(dim=d).square().sum() for d in (-2, -1)) / mask[0, 0].numel()
    fine = sum(
        (w * keep.diff(dim=d).square()).sum() for w, d in zip(weights, (-2, -1), strict=True)
    )
    return 0.5 * (coarse + fine / keep[0, 0].numel())


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
