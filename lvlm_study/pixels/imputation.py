"""Filling a hole from what is around it, so that its shape alone gives nothing away.

Noisy linear imputation of ROAD (Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy
for Attribution Methods", section 5.1): every missing pixel is the weighted mean of its eight
neighbours, 1/6 for those at its side and 1/12 for those at its corners, missing ones among them;
the equations are solved together, and a little noise hides the smoothness. At the picture's border
the weights of the neighbours that exist are scaled to sum to 1.
"""

import numpy as np
import torch
from torch import Tensor

from ..errors import StudyError

SIDE, CORNER = 1 / 6, 1 / 12
NOISE = 0.01  # standard deviation, of values in [0, 1]: the released code's
TOLERANCE = 2e-6  # root mean square of what the equations leave over: about one grey level
NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def impute(image: Tensor, gone: np.ndarray, seed: int = 0, noise: float = NOISE) -> Tensor:
    """`image` (1, 3, H, W) in [0, 1] with the pixels `gone` (H, W) bool filled in, same shape.

    Deterministic: the noise of a pixel depends on `seed` and its place alone. Raises StudyError
    where the whole picture is gone, for then nothing is left to fill it from.
    """
    gone = np.asarray(gone, bool)
    if gone.shape != tuple(image.shape[-2:]) or gone.all():
        raise StudyError(
            f"What is filled in is a part of the picture, bool {tuple(image.shape[-2:])}; this is "
            f"{'all of it' if gone.all() else gone.shape}."
        )
    values = image[0].cpu().double().numpy()  # (3, H, W)
    found = _solve(values, gone)
    rough = np.random.default_rng(seed).normal(0, noise, values.shape)[:, gone]
    values[:, gone] = np.clip(found + rough, 0, 1)
    return torch.from_numpy(values)[None].to(image)


def _solve(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The missing values (3, M), by conjugate gradients: the equations are symmetric.

    They start from the solution at half the size, which has the broad strokes right; without it a
    large hole takes hundreds of steps.
    """
    from scipy.sparse.linalg import cg  # here: half a second of every command's start-up

    matrix, known = _equations(values, gone)
    scale = np.abs(matrix.diagonal()).max() * np.sqrt(gone.sum())
    start = _coarse(values, gone)[:, gone]
    pairs = zip(known, start, strict=True)
    return np.stack([cg(matrix, b, x, rtol=0, atol=TOLERANCE * scale)[0] for b, x in pairs])


def _coarse(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """A first guess (3, H, W): blocks of 2 x 2, those that are gone filled in at that size."""
    height, width = gone.shape
    if min(height, width) < 8:
        return np.broadcast_to(values[:, ~gone].mean(1)[:, None, None], values.shape)
    odd = ((0, height % 2), (0, width % 2))
    kept = _blocks(np.pad(~gone, odd).astype(float))
    sums = _blocks(np.pad(np.where(gone, 0, values), ((0, 0), *odd)))
    small = sums / np.maximum(kept, 1)
    empty = kept == 0
    if empty.any():
        small[:, empty] = _solve(small, empty)
    return small.repeat(2, -2).repeat(2, -1)[:, :height, :width]


def _blocks(x: np.ndarray) -> np.ndarray:
    """Sums over blocks of 2 x 2, (..., H / 2, W / 2)."""
    return x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]


def _equations(values: np.ndarray, gone: np.ndarray):
    """Matrix (M, M) of the missing pixels among themselves, and what known ones bring (3, M)."""
    from scipy.sparse import coo_array

    number = np.cumsum(gone).reshape(gone.shape) - 1  # of every missing pixel
    y, x = np.nonzero(gone)
    known, total = np.zeros((len(values), len(y))), np.zeros(len(y))
    parts = []
    for dy, dx in NEIGHBOURS:
        weight = CORNER if dy and dx else SIDE
        v, u = y + dy, x + dx
        at = np.flatnonzero((v >= 0) & (v < gone.shape[0]) & (u >= 0) & (u < gone.shape[1]))
        v, u = v[at], u[at]
        total[at] += weight
        missing = gone[v, u]
        parts.append((at[missing], number[v, u][missing], np.full(missing.sum(), -weight)))
        known[:, at[~missing]] += weight * values[:, v[~missing], u[~missing]]
    every = np.arange(len(y))
    row, column, entry = map(np.concatenate, zip(*parts, (every, every, total), strict=True))
    return coo_array((entry, (row, column)), shape=(len(y), len(y))).tocsr(), known
