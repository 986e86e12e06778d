"""Where views and visual tokens lie on the picture: edges, boxes, what is read of a view."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..pixels.preprocess import Plan, Size

Used = tuple[np.ndarray, np.ndarray]  # view rows, view columns that reach a visual token (bool)


@dataclass(frozen=True, eq=False)
class Geometry:
    """What an image size alone decides: the plan, and where each visual token looks.

    `boxes` (N, 4) x0 y0 x1 y1 in image pixels, in prompt order; NaN for newline tokens. They are
    whole: where a view is padded they reach beyond the image. `used` lists, per view, the rows and
    columns that any token reads (a patch grid may leave a rim unread).
    """

    plan: Plan
    boxes: Tensor
    used: tuple[Used, ...]


def patch_edges(side: int, patch: int, tiles: int = 1) -> np.ndarray:
    """Pixel edges (tiles * g, 2) of the patches along one axis of `tiles` tiles side by side.

    g = side // patch whole patches fit a tile; what remains at its end is read by none.
    """
    first = np.arange(tiles)[:, None] * side + np.arange(side // patch) * patch
    return np.stack([first.ravel(), first.ravel() + patch], 1)


def used_pixels(length: int, edges: np.ndarray) -> np.ndarray:
    """View pixels (length,) bool that lie in any patch."""
    used = np.zeros(length, bool)
    for low, high in edges:
        used[low:high] = True
    return used


def boxes_of(view, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Boxes (R, C, 4) in image pixels of the cells rows (R, 2) x columns (C, 2) of a view.

    They reach beyond the image where the view is padded.
    """
    y, x = view.to_source(rows, columns)
    R, C = len(y), len(x)
    box = np.empty((R, C, 4), np.float32)
    box[..., 0], box[..., 2] = x[None, :, 0], x[None, :, 1]
    box[..., 1], box[..., 3] = y[:, None, 0], y[:, None, 1]
    return torch.from_numpy(box)


def clipped(boxes: Tensor, size: Size) -> Tensor:
    """What of boxes (..., 4) lies on an image of `size`."""
    most = torch.tensor([size[1], size[0]] * 2, dtype=boxes.dtype, device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), most)


def tile_boxes(view, cell: int) -> Tensor:
    """Boxes of the tokens of a tiled view, tile by tile and in reading order within: (N, 4)."""
    down, across = (n // view.tile for n in view.size)
    edges = [patch_edges(view.tile, cell, n) for n in (down, across)]
    grid = boxes_of(view, *edges)  # (down * n, across * n, 4)
    grid = grid.unflatten(1, (across, -1)).unflatten(0, (down, -1))
    return grid.transpose(1, 2).flatten(0, 3)
