"""How spread a map is, in how many places, and whether an answer needs all of what it found.

`spread` is the share of the picture over which a map is spread, `regions` the number of places.
From its deletion and insertion curves follows whether the answer behind a map is *compositional*
(all that the map found is needed) or *disjunctive* (a part of it suffices), by comparing two
amounts of picture, both read along the map's own ranking:

    needed    the area that can be deleted before half of the answer's probability is lost
    enough    the area that must be inserted before half of it is there

An answer that needs everything at once loses it early and gains it late; one that is content with
any part loses it late and gains it early: `composition` = (enough - needed) / (enough + needed).
"""

import numpy as np
from scipy.ndimage import label

from .plausibility import GRAIN, area_means

CORE = 0.5  # of the map's mass: what counts as where the map is
LEAST_REGION = 0.1  # of the core's mass: below this a region is a speck
HALF = 0.5


def mass(saliency: np.ndarray, cells: int | None = GRAIN) -> np.ndarray:
    """The map's positive part as shares that sum to 1, averaged to `cells` x `cells` first.

    float64; NaN everywhere for a map without positive values. `cells` None leaves the map's size.
    """
    positive = np.clip(np.asarray(saliency, float), 0, None)
    positive = positive if cells is None else area_means(positive, cells)
    total = positive.sum()
    return positive / total if total > 0 else np.full(positive.shape, np.nan)


def entropy(saliency: np.ndarray, cells: int | None = GRAIN) -> float:
    """Shannon entropy of the map's mass over cells, nats: 0 in one cell, log(cells^2) if even."""
    p = mass(saliency, cells)
    return float(-(p * np.log(np.where(p > 0, p, 1))).sum())


def spread(saliency: np.ndarray, cells: int | None = GRAIN) -> float:
    """The share of the picture over which the map is effectively spread, in (0, 1].

    The exponential of the entropy is the number of cells that an even map of the same entropy
    would fill (Hill's number); divided by all cells it can be compared with an area.
    """
    count = cells**2 if cells is not None else np.size(saliency)
    return float(np.exp(entropy(saliency, cells)) / count)


def core(saliency: np.ndarray, share: float = CORE, cells: int | None = GRAIN) -> np.ndarray:
    """The smallest set of cells that holds `share` of the map's mass, bool (cells, cells)."""
    p = mass(saliency, cells)
    if np.isnan(p).any():
        return np.zeros(p.shape, bool)
    order = np.argsort(-p, axis=None, kind="stable")
    before = np.cumsum(p.ravel()[order]) - p.ravel()[order]
    inside = np.zeros(p.size, bool)
    inside[order] = before < share - 1e-9  # a sum that falls short by rounding is no cell short
    return inside.reshape(p.shape)


def regions(
    saliency: np.ndarray,
    share: float = CORE,
    least: float = LEAST_REGION,
    cells: int | None = GRAIN,
) -> int:
    """In how many separate places the core lies; cells that touch at a corner are one place.

    Places with less than `least` of the core's mass do not count; 0 for a map without mass.
    """
    inside, p = core(saliency, share, cells), mass(saliency, cells)
    marked, count = label(inside, np.ones((3, 3)))
    held = np.array([p[marked == n].sum() for n in range(1, count + 1)])
    return int((held >= least * p[inside].sum()).sum()) if count else 0


# --- compositional or disjunctive


def half_points(area, deletion, insertion) -> tuple[float, float]:
    """(needed, enough): changed area (S,) at which normalised curves (S,) first pass one half.

    Deletion starts near 1, insertion near 0; between two steps the curve is a straight line.
    NaN where a curve never passes.
    """
    return _passes_half(area, 1 - np.asarray(deletion, float)), _passes_half(area, insertion)


def _passes_half(area, curve) -> float:
    area, curve = np.asarray(area, float), np.asarray(curve, float)
    reached = curve >= HALF
    if not reached.any() or not np.isfinite(curve).all():
        return np.nan
    at = int(reached.argmax())
    if at == 0:
        return float(area[0])
    part = (HALF - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(area[at - 1] + part * (area[at] - area[at - 1]))


def composition(area, deletion, insertion) -> float:
    """Compositional (towards 1) or disjunctive (towards -1), from a map's two curves; see above.

    0 for a reader whose probability grows evenly with what it sees. The number is about what the
    map ranked first: a map that found one of two alternatives makes them look like one. It does not
    tell parts of an object from several objects; `regions` does.
    """
    needed, enough = half_points(area, deletion, insertion)
    total = needed + enough
    return float((enough - needed) / total) if total > 0 else np.nan


def normalised(raw, image: float, fill: float) -> np.ndarray:
    """A stored curve on the scale from the fill's probability (0) to the picture's (1)."""
    return (np.asarray(raw, float) - fill) / (image - fill)
