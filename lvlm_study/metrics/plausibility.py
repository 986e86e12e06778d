"""Plausibility: does a map lie on the evidence, or where people look?

Not the same as faithfulness: a model may look elsewhere and still be right. On scenes whose
evidence is known, and on planted readers, plausibility is ground truth.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.stats import rankdata

from ..errors import StudyError
from ..pixels.masks import settled

TOLERANCE = 15  # pixels, the usual allowance of the pointing game
GRAIN = 14  # cells a side at which maps are compared with human attention


@dataclass(frozen=True)
class Plausibility:
    """How well a map finds an evidence region of area share `area`; chance level in brackets.

    NaN marks what is undefined: everything for a map with NaN, ranks for evidence that is empty or
    the whole image, energies for a map without positive values, correlation for a constant map.
    """

    pointing: float  # share of the map's maxima inside [area]
    pointing_near: float  # the same, a few pixels outside still counting
    energy: float  # share of positive saliency inside [area]
    energy_ratio: float  # energy / area [1]
    rank_accuracy: float  # share of the |G| highest pixels that lie inside [area]
    auc: float  # probability that an inside pixel outranks an outside one [0.5]
    iou_sum: float  # soft overlap, both scaled to sum 1
    iou_max: float  # soft overlap, both scaled to maximum 1
    correlation: float  # Spearman with the evidence's share of each of 14 x 14 cells [0]
    area: float


def plausibility(
    saliency: np.ndarray, evidence: np.ndarray, tolerance: int = TOLERANCE
) -> Plausibility:
    """Compare a map (H, W), high = important, with a boolean evidence mask (H, W).

    Ties are shared, not decided by reading order: a constant map scores chance. Raises StudyError
    if the shapes differ.
    """
    saliency, evidence = np.asarray(saliency, float), np.asarray(evidence, bool)
    _same_shape(saliency, evidence)
    area = float(evidence.mean())
    if not np.isfinite(saliency).all():
        return Plausibility(*[np.nan] * 9, area)
    mass = energy(saliency, evidence)
    return Plausibility(
        pointing=pointing(saliency, evidence),
        pointing_near=pointing(saliency, evidence, tolerance),
        energy=mass,
        energy_ratio=mass / area if area else np.nan,
        rank_accuracy=rank_accuracy(saliency, evidence),
        auc=auc(saliency, evidence),
        iou_sum=soft_iou(saliency, evidence, "sum"),
        iou_max=soft_iou(saliency, evidence, "max"),
        correlation=rank_correlation(saliency, evidence),
        area=area,
    )


def pointing(saliency: np.ndarray, evidence: np.ndarray, tolerance: int = 0) -> float:
    """Share of the maximal pixels inside the evidence, or within `tolerance` pixels of it.

    Counting any tied hit as a full one, as is common, favours maps with large flat regions.
    """
    return float(widened(evidence, tolerance)[saliency == saliency.max()].mean())


def widened(evidence: np.ndarray, tolerance: int = TOLERANCE) -> np.ndarray:
    """The evidence (H, W) and all within `tolerance` pixels of it; none stays none."""
    if not tolerance or not evidence.any():
        return evidence
    return distance_transform_edt(~evidence) <= tolerance


def energy(saliency: np.ndarray, evidence: np.ndarray) -> float:
    """Share of the positive saliency that lies inside (relevance mass accuracy)."""
    positive = np.clip(saliency, 0, None)
    total = positive.sum()
    return float(positive[evidence].sum() / total) if total > 0 else np.nan


def grid_energy_ratio(saliency: np.ndarray, evidence: np.ndarray, ranks: bool = False) -> float:
    """Energy ratio on the map's own grid: saliency (h, w), evidence bool (H, W) [1].

    Enlarging smears a coarse map over the border of small evidence and leaves a fine one as it is.
    With `ranks` the cells' ranks stand for their values (ties shared, at most 2): methods whose
    values are on other scales, or partly negative, can then be compared.
    """
    saliency, evidence = np.asarray(saliency, float), np.asarray(evidence, float)
    rows, columns = (_shares(*n) for n in zip(evidence.shape, saliency.shape, strict=True))
    inside = rows @ evidence @ columns.T  # (h, w): the share of each cell that is evidence
    mass = np.clip(saliency, 0, None)
    if ranks:
        mass = rankdata(saliency.ravel()).reshape(saliency.shape) - 0.5
    total = mass.sum() * inside.mean()
    return float((mass * inside).sum() / total) if total > 0 else np.nan


def rank_accuracy(saliency: np.ndarray, evidence: np.ndarray) -> float:
    """Share of the |G| highest pixels inside the evidence G; ties at the cut count in part."""
    n = int(evidence.sum())
    if n == 0:
        return np.nan
    cut = np.partition(saliency.ravel(), -n)[-n]
    above, tied = saliency > cut, saliency == cut
    part = (n - above.sum()) / tied.sum()
    return float((above & evidence).sum() + part * (tied & evidence).sum()) / n


def auc(saliency: np.ndarray, evidence: np.ndarray) -> float:
    """Area under the ROC curve: how often an inside pixel is above an outside one, ties half."""
    inside, outside = int(evidence.sum()), int((~evidence).sum())
    if not inside or not outside:
        return np.nan
    ranks = rankdata(saliency.ravel())[evidence.ravel()].sum()
    return float((ranks - inside * (inside + 1) / 2) / (inside * outside))


def soft_iou(one: np.ndarray, other: np.ndarray, scale: str = "sum") -> float:
    """Sum of minima over sum of maxima of two maps, positive parts, scaled to sum or maximum 1.

    With `scale="sum"` a small region in a large image gives tiny values; with "max" a flat map is
    rewarded. The paper does not say which it used.
    """
    if scale not in ("sum", "max"):
        raise StudyError(f"scale is 'sum' or 'max', not {scale!r}.")
    a, b = (_scaled(np.clip(np.asarray(x, float), 0, None), scale) for x in (one, other))
    if a is None or b is None:
        return np.nan
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def rank_correlation(one: np.ndarray, other: np.ndarray, cells: int | None = GRAIN) -> float:
    """Spearman correlation of two maps (H, W), averaged to `cells` x `cells` first (None: not).

    At full size neighbouring pixels repeat each other, so the number of cells belongs to the
    result. NaN if either map is constant.
    """
    one, other = np.asarray(one, float), np.asarray(other, float)
    _same_shape(one, other)
    if cells is not None:
        one, other = (settled(area_means(x, cells)) for x in (one, other))
    a, b = (rankdata(x.ravel()) for x in (one, other))
    if a.std() == 0 or b.std() == 0 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def area_means(values: np.ndarray, cells: int) -> np.ndarray:
    """Exact means over a division into `cells` x `cells`, pixels on a border shared by area."""
    rows, columns = (_shares(n, cells) for n in values.shape)
    return rows @ values @ columns.T


def _shares(pixels: int, cells: int) -> np.ndarray:
    """(cells, pixels): the share of each cell that each pixel covers."""
    edge = np.arange(cells + 1) * pixels / cells
    at = np.arange(pixels)
    low = np.maximum(edge[:-1, None], at)
    high = np.minimum(edge[1:, None], at + 1)
    return np.clip(high - low, 0, None) * cells / pixels


def _scaled(x: np.ndarray, scale: str) -> np.ndarray | None:
    size = x.sum() if scale == "sum" else x.max()
    return x / size if size > 0 else None


def _same_shape(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape or one.ndim != 2:
        raise StudyError(f"Both maps must be (H, W) of one size, not {one.shape}, {other.shape}.")
