"""How a map is spread, and whether an answer needs its parts together or any one of them.

Three numbers of a map: over what share of the picture it is spread (`spread`), in how many places
it is (`regions`), and, from its deletion and insertion curves, whether the answer behind it is
*compositional* (all that the map found is needed) or *disjunctive* (a part of it suffices). The
last follows from comparing two amounts of picture, both read along the map's own ranking:

    needed    the area that can be deleted before half of the answer's probability is lost
    enough    the area that must be inserted before half of it is there

An answer that needs everything at once loses it early and gains it late; one that is content with
any part loses it late and gains it early: `composition` = (enough - needed) / (enough + needed).
Nothing here knows a model.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.ndimage import label

from ..heatmaps.names import PAPER_METHOD
from ..metrics.plausibility import GRAIN, area_means, rank_correlation
from ..metrics.statistics import compare

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


# --- tables of results


def measured(maps: pd.DataFrame) -> pd.DataFrame:
    """Scored maps with columns spread, regions, needed, enough, composition.

    `maps` is `stored.stored_maps`, on grid units and blur. Controls have curves and no stored map,
    hence no spread and regions.
    """
    rows = maps[maps.status == "ok"].copy()
    kept = rows.saliency.notna()
    for name, function in (("spread", spread), ("regions", regions)):
        rows[name] = np.nan
        rows.loc[kept, name] = rows.saliency[kept].map(function).astype(float)
    found = [_curve_numbers(row) for row in rows.itertuples()]
    for place, name in enumerate(("needed", "enough", "composition")):
        rows[name] = [numbers[place] for numbers in found]
    return rows


def _curve_numbers(row) -> tuple[float, float, float]:
    deletion, insertion = (
        normalised(raw, row.image_score, row.fill_score)
        for raw in (row.deletion_curve, row.insertion_curve)
    )
    return *half_points(row.area, deletion, insertion), composition(row.area, deletion, insertion)


def needed_objects(effects: pd.DataFrame, least: float = 1.0) -> pd.DataFrame:
    """How many objects an answer cannot do without: those whose removal costs `least` nats.

    `effects` is the table of that kind; one row an item: model, benchmark, item, objects_needed.
    """
    if effects.empty:
        return pd.DataFrame(columns=["model", "benchmark", "item", "objects_needed"])
    rows = effects[effects.status == "ok"]
    counts = [int((np.asarray(effect, float) >= least).sum()) for effect in rows.effect]
    return rows[["model", "benchmark", "item"]].assign(objects_needed=counts)


def alike(maps: pd.DataFrame, method: str = PAPER_METHOD, seed: int = 0) -> pd.DataFrame:
    """How alike two models' maps are on the same item, and on different ones, pair by pair.

    Spearman over 14 x 14 cells. `same` is one value a shared item; `other` pairs each map of the
    first model with the second's map of the next item in a shuffled order: what two maps share
    because both are maps of drawn scenes.
    """
    kept = maps[(maps.method == method) & (maps.status == "ok") & maps.saliency.notna()]
    by_model = {name: part.set_index("item").saliency for name, part in kept.groupby("model")}
    rows = []
    for a, b in combinations(by_model, 2):
        shared = [item for item in by_model[a].index if item in by_model[b].index]
        order = np.random.default_rng(seed).permutation(len(shared))
        if len(shared) < 2:
            continue
        after = {shared[i]: shared[j] for i, j in zip(order, np.roll(order, -1), strict=True)}
        for item in shared:
            one, two, third = by_model[a][item], by_model[b][item], by_model[b][after[item]]
            same, other = (_correlated(one, each) for each in (two, third))
            rows.append({"a": a, "b": b, "item": item, "same": same, "other": other})
    return pd.DataFrame(rows, columns=["a", "b", "item", "same", "other"])


def _correlated(one: np.ndarray, two: np.ndarray) -> float:
    small = [area_means(np.asarray(each, float), GRAIN) for each in (one, two)]
    return rank_correlation(*small, cells=None)


def between_models(rows: pd.DataFrame, method: str = PAPER_METHOD, control: str = "random"):
    """The index of every two models on the items that both have: paired differences.

    `rows` is `measured`. Columns a, b, difference (a - b), low, high, p_holm, n, and `random`: the
    same difference when both models are given random maps, which is what the answers alone do.
    """
    found = compare(rows[rows.method == method], "composition", by="model")
    noise = rows[rows.method == control].pivot(index="item", columns="model", values="composition")
    both = rows[rows.method == method].pivot(index="item", columns="model", values="composition")
    found["random"] = [
        _shared_difference(noise, both, a, b) for a, b in zip(found.a, found.b, strict=True)
    ]
    return found[["a", "b", "n", "difference", "low", "high", "p_holm", "random"]]


def _shared_difference(noise: pd.DataFrame, both: pd.DataFrame, a: str, b: str) -> float:
    if not {a, b} <= set(noise):
        return np.nan
    items = both[[a, b]].dropna().index
    return float((noise[a] - noise[b]).reindex(items).mean())
