"""Do models look where people look? The protocol of VQA-HAT, and what its numbers can mean.

Das et al. (2016) bring a map and a person's map to 14 x 14 cells, rank the 196 cells and correlate
the ranks. The paper adds a soft overlap. Both are computed here in both orientations of the map,
and the overlap under three scalings, since the paper says neither. Where no people were asked, the
evidence of a drawn scene stands in for them: it says what one must see, not where anyone looked.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects, label
from scipy.stats import rankdata

from ..benchmarks.base import Item
from ..heatmaps import controls
from ..metrics.plausibility import GRAIN, area_means, rank_correlation, soft_iou
from ..pixels.images import to_tensor
from ..pixels.masks import settled

LARGE = 0.5  # evidence above this share of the picture is the whole place: no place to look at
ORIENTATIONS = ("high is important", "turned over")
SHIFT = 15  # pixels: about the care with which people paint
CONTROLS = ("center", "random", "sobel")
BOUNDS = ("the same, as boxes", "the same, moved")
BYTE = 255


def compared(saliency: np.ndarray, reference: np.ndarray) -> dict:
    """A map against a reference, both (h, w) of any sizes, high = important, on 14 x 14 cells.

    `correlation` is Spearman's; `iou_sum` and `iou_max` the soft overlap with both scaled to sum or
    maximum 1; `iou_bytes` the overlap when the reference is read as bytes, 0 to 255, and the map as
    0 to 1: a slip of units.
    """
    small, aim = (area_means(np.asarray(x, float), GRAIN) for x in (saliency, reference))
    return {
        "correlation": rank_correlation(settled(small), settled(aim), cells=None),
        "iou_sum": soft_iou(small, aim, "sum"),
        "iou_max": soft_iou(small, aim, "max"),
        "iou_bytes": bytes_iou(small, aim),
    }


def bytes_iou(small: np.ndarray, aim: np.ndarray) -> float:
    """Soft overlap of a map scaled to [0, 1] with a reference scaled to [0, 255]."""
    top, height = small.max(), aim.max()
    if not (top > 0 and height > 0):
        return float("nan")
    one, other = np.clip(small, 0, None) / top, BYTE * np.clip(aim, 0, None) / height
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def turned_over(saliency: np.ndarray) -> np.ndarray:
    """The map read the wrong way round: its highest value minus itself."""
    saliency = np.asarray(saliency, float)
    return saliency.max() - saliency


def both_ways(saliency: np.ndarray, reference: np.ndarray) -> list[dict]:
    """`compared` for the map as it is and for the map turned over."""
    pairs = zip(ORIENTATIONS, (saliency, turned_over(saliency)), strict=True)
    return [{"orientation": way} | compared(each, reference) for way, each in pairs]


def attention_rows(maps: pd.DataFrame, items: dict[str, Item]) -> pd.DataFrame:
    """One row a map and orientation: every model's stored maps, controls and bounds.

    `who` is a model, a control, or a bound; `kind` says which. Only items whose evidence is a
    region (less than half of the picture) take part; controls and bounds see each item once.
    """
    usable = {name for name in maps.item.unique() if has_region(items[name])}
    kept = maps[maps.item.isin(usable) & (maps.status == "ok") & maps.saliency.notna()]
    rows = []
    for row in kept.itertuples():
        about = {"who": row.model, "kind": "model", "item": row.item}
        found = both_ways(row.saliency, items[row.item].evidence)
        rows += [about | each for each in found]
    seeds = kept.drop_duplicates("item").set_index("item").item_seed
    for name, seed in seeds.items():
        rows += _beside(items[name], int(seed))
    return pd.DataFrame(rows, columns=None if rows else ["who", "orientation", "item"])


def has_region(item: Item) -> bool:
    """Whether some region, and not the whole place, decides the answer."""
    return item.evidence is not None and 0 < item.evidence.mean() < LARGE


def _beside(item: Item, seed: int) -> list[dict]:
    """Controls and bounds of one item."""
    rows = []
    others = {name: ("control", control_map(name, item, seed)) for name in CONTROLS}
    boxed, shifted = as_boxes(item.evidence), moved(item.evidence)
    others |= dict(zip(BOUNDS, (("bound", boxed), ("bound", shifted)), strict=True))
    for who, (kind, each) in others.items():
        about = {"who": who, "kind": kind, "item": item.id}
        rows += [about | found for found in both_ways(each, item.evidence)]
    return rows


def control_map(name: str, item: Item, seed: int) -> np.ndarray:
    """A map that knows nothing of the model, the one that the runner scores (h, w)."""
    rgb = item.rgb
    seen = SimpleNamespace(size=rgb.shape[:2], image=to_tensor(rgb))  # all that a control looks at
    return getattr(controls, name)(seen, seed=seed).numpy()


def as_boxes(evidence: np.ndarray) -> np.ndarray:
    """The evidence as a hasty annotator gives it: a box around every part of it."""
    out = np.zeros(evidence.shape, bool)
    for box in find_objects(label(evidence)[0]):
        out[box] = True
    return out


def moved(evidence: np.ndarray, pixels: int = SHIFT) -> np.ndarray:
    """The evidence moved to the right and down; what leaves the picture is gone."""
    out = np.zeros(evidence.shape, bool)
    out[pixels:, pixels:] = evidence[:-pixels, :-pixels]
    return out


# --- what a correlation must mean


def furthest(area: float, cells: int = GRAIN**2) -> float:
    """The largest rank correlation, of either sign, with a region of this share of the cells.

    A region gives the reference two values only, so even a perfect map stays below 1:
    sqrt(3 a (1 - a)), a little more for few cells. The map is taken to have no ties.
    """
    return float(np.sqrt(3 * area * (1 - area)) * cells / np.sqrt(cells**2 - 1))


def auc_of(correlation: float, area: float, cells: int = GRAIN**2) -> float:
    """How often a cell of the region outranks another cell, given the rank correlation.

    With a two-valued reference Spearman's correlation is (2 auc - 1) furthest(area), exactly.
    Above 1 or below 0 no map can have that correlation.
    """
    return 0.5 * (correlation / furthest(area, cells) + 1)


def built(reference: np.ndarray, correlation: float, seed: int = 0) -> np.ndarray:
    """A map (14, 14) with a chosen rank correlation to a reference (H, W): noise pushed until so.

    Ranks of the reference are added to, or taken from, uniform noise; the weight is found by
    bisection. The reachable end is returned when the correlation is out of reach.
    """
    aim = settled(area_means(np.asarray(reference, float), GRAIN))
    ranks = rankdata(aim.ravel()).reshape(aim.shape) / aim.size
    noise = np.random.default_rng(seed).random(aim.shape)
    low, high = -1.0, 1.0
    for _ in range(60):
        weight = (low + high) / 2
        mixed = (1 - abs(weight)) * noise + weight * ranks
        if rank_correlation(mixed, aim, cells=None) < correlation:
            low = weight
        else:
            high = weight
    return mixed - mixed.min()


def elsewhere(evidence: np.ndarray, seed: int, tries: int = 200) -> np.ndarray | None:
    """The region moved to a random place that it does not touch; None when none was found.

    This is what looking at the wrong thing is: as compact as before, and somewhere else.
    """
    draw = np.random.default_rng(seed)
    rows, columns = np.nonzero(evidence)
    tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    h, w = evidence.shape
    for _ in range(tries):
        y, x = draw.integers(0, h - tall + 1), draw.integers(0, w - wide + 1)
        out = np.zeros(evidence.shape, bool)
        out[rows - rows.min() + y, columns - columns.min() + x] = True
        if not (out & evidence).any():
            return out
    return None


def placed_elsewhere(regions: list[np.ndarray], seed: int = 0, draws: int = 5) -> dict:
    """Rank correlation and overlaps of regions with themselves, moved to other places.

    {n, correlation: mean, lowest, at_most_02: share of placements at -0.2 or below, iou_sum, ...}.
    """
    found = [
        compared(other, region)
        for number, region in enumerate(regions)
        for draw in range(draws)
        if (other := elsewhere(region, seed + draws * number + draw)) is not None
    ]
    if not found:
        return {"n": 0}
    table = pd.DataFrame(found)
    low = table.correlation
    return {
        "n": len(table),
        "regions": len(regions),
        "area": float(np.mean([region.mean() for region in regions])),
        "correlation": float(low.mean()),
        "lowest": float(low.min()),
        "at_most_02": float((low <= -0.2).mean()),
        "iou_sum": float(table.iou_sum.mean()),
        "iou_max": float(table.iou_max.mean()),
        "iou_bytes": float(table.iou_bytes.mean()),
    }
