"""Do models look where people look? The protocol of VQA-HAT, and what its numbers can mean.

Das et al. (2016) bring a map and a person's map to 14 x 14 cells, rank the 196 cells and correlate
the ranks. The paper adds a soft overlap. Both are computed here in both orientations of the map,
and the overlap under three scalings, since the paper says neither. Where no people were asked, the
evidence of a drawn scene stands in for them: it says what one must see, not where anyone looked.

    attention.rows[mini/llava-1.5][turned over].correlation.value

`gaze.json` has the same protocol where people did look: freely, at photographs (OSIE). It holds
numbers alone and is written by `write_gaze` from a folder that cannot be shipped.

    gaze.rows[one viewer][high is important].correlation.value
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.ndimage import find_objects, gaussian_filter, label
from scipy.stats import rankdata

from ..benchmarks import load_benchmark
from ..benchmarks.base import Item
from ..benchmarks.eye_tracking import osie
from ..figures import CMAP, WIDTH, dots, ends, legend_below
from ..heatmaps.names import CONTROLS, PAPER_METHOD, title
from ..metrics.plausibility import GRAIN, area_means, rank_correlation, soft_iou
from ..metrics.statistics import estimate, finite
from ..pixels.masks import settled
from ..sweep import provenance
from ..sweep.stored import Tables
from ..sweep.tables import write
from .compare import control_map, frames

LARGE = 0.5  # evidence above this share of the picture is the whole place: no place to look at
ORIENTATIONS = ("high is important", "turned over")
LABELS = {"high is important": "high is important", "turned over": "inverted"}
SHIFT = 15  # pixels: about the care with which people paint
BOUNDS = ("the same, as boxes", "the same, moved")
BYTE = 255
CELL, DEGREE = 8, 24  # pixels: the grid that gaze is counted on, and one degree of OSIE's screen
RANK = ("rank correlation", "from", "to")
OVERLAPS = {"iou_sum": "IoU, sum", "iou_max": "IoU, max", "iou_bytes": "IoU, bytes"}


# --- tables of the page


def attention_table(tree: dict, paper: pd.DataFrame) -> pd.DataFrame:
    """One row a model, control, bound and orientation; the paper's two models last.

    The correlation has its 95 % interval; overlaps are means.
    """
    table = []
    for who in everyone(tree):
        for way, found in tree["rows"][who].items():
            row = {"who": title(who), "read as": LABELS[way], "n": found["n"]}
            row |= dict(zip(RANK, ends(found["correlation"]), strict=True))
            table.append(row | {label: found[name]["value"] for name, label in OVERLAPS.items()})
    for row in paper.itertuples():
        low, high = row.rank_corr - row.rank_corr_pm, row.rank_corr + row.rank_corr_pm
        about = {"who": f"{row.model}, the paper", "read as": "not said", "n": None}
        about |= dict(zip(RANK, (row.rank_corr, low, high), strict=True))
        table.append(about | {"IoU, scale not said": row.soft_iou})
    frame = pd.DataFrame(table)
    return frame.assign(n=pd.Series([row["n"] for row in table], dtype=object))


def everyone(tree: dict) -> list[str]:
    """Models, controls and bounds of `attention.json`, in this order."""
    return sorted(tree["rows"], key=lambda who: ((who in CONTROLS) + 2 * (who in BOUNDS), who))


def placements_table(found: dict) -> pd.DataFrame:
    """What looking at another place gives, from `placed_elsewhere`."""
    columns = {
        "regions": "regions",
        "n": "placements",
        "area": "mean area",
        "correlation": "rank correlation",
        "lowest": "lowest",
        "at_most_02": "share at −0.2 or below",
        "iou_sum": "IoU, sum",
        "iou_max": "IoU, max",
    }
    return pd.DataFrame([{label: found[key] for key, label in columns.items()}])


# --- figures


def attention_figure(tree: dict, paper: pd.DataFrame, whom: str = "the evidence"):
    """Rank correlation of everyone with a reference, read both ways; the paper's as lines."""
    names = everyone(tree)
    size = (WIDTH, (0.09 * len(names) + 0.2) * WIDTH)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for way, look in zip(ORIENTATIONS, (("C0", "o", False), ("C1", "D", True)), strict=True):
        found = [tree["rows"][who][way]["correlation"] for who in names]
        dots(ax, found, [title(name) for name in names], None, *look, label=LABELS[way])
    for place, row in enumerate(paper.itertuples()):
        ax.axvline(row.rank_corr, color="0.4", linestyle=("--", ":")[place % 2], linewidth=1.2)
        ax.text(row.rank_corr, -0.7 - 0.6 * place, f" {row.model}, the paper", fontsize="x-small")
    ax.axvline(0, color="0.7", linewidth=0.8)
    ax.set(xlabel=f"rank correlation with {whom}, 14 × 14 cells", xlim=(-1.05, 1.05))
    ax.set_ylim(len(names) - 0.5, -1.8)
    legend_below(figure, ax)
    return figure


def needed_auc_figure(correlation: float = -0.2):
    """How seldom a cell of the evidence may outrank another, for a given correlation, by area."""
    area = np.linspace(0.005, 0.6, 200)
    auc = np.array([auc_of(correlation, a) for a in area])
    figure, ax = plt.subplots(figsize=(0.8 * WIDTH, 0.45 * WIDTH), layout="constrained")
    ax.plot(area[auc >= 0], auc[auc >= 0], label=f"correlation {correlation:.2f}".replace("-", "−"))
    ax.plot(area, np.full_like(area, 0.5), "--", color="0.5", label="chance")
    reach = area[np.array([furthest(a) for a in area]) >= abs(correlation)].min()
    ax.axvspan(0, reach, color="0.85", label="out of reach")
    ax.set(
        xlabel="evidence, share of the picture", ylabel="evidence outranks the rest",
        xlim=(0, 0.6), ylim=(0, 1),
    )  # fmt: skip
    ax.legend(loc="upper right")
    return figure


def constructed_figure(evidence: np.ndarray, saliency: np.ndarray, aim: float = 0.2):
    """Ways to have, and not to have, a correlation of -`aim` with one item's evidence (14 x 14)."""
    pairs = {
        "the evidence": evidence,
        f"noise pushed to +{aim}": built(evidence, aim),
        f"noise pushed to −{aim}": built(evidence, -aim),
        "the region elsewhere": elsewhere(evidence, 0),
        "a model's map": saliency,
        "that map inverted": turned_over(saliency),
    }
    pairs = {name: each for name, each in pairs.items() if each is not None}
    columns = -(-len(pairs) // 2)
    figure, axes = plt.subplots(2, columns, figsize=(WIDTH, 0.8 * WIDTH), layout="constrained")
    for ax in axes.ravel():
        ax.set_axis_off()
    for ax, (name, each) in zip(axes.ravel(), pairs.items(), strict=False):
        found = compared(each, evidence)
        small = area_means(np.asarray(each, float), GRAIN)
        ax.imshow(small / max(small.max(), 1e-12), cmap=CMAP, vmin=0, vmax=1)
        told = f"{name}\ncorrelation {found['correlation']:+.2f}, IoU {found['iou_sum']:.3f}"
        ax.set_title(told.replace("-", "−"), fontsize="x-small")
    return figure


# --- the protocol


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
    """`compared` for the map as it is and for the inverted map."""
    pairs = zip(ORIENTATIONS, (saliency, turned_over(saliency)), strict=True)
    return [{"orientation": way} | compared(each, reference) for way, each in pairs]


def attention_rows(maps: pd.DataFrame, items: dict[str, Item]) -> pd.DataFrame:
    """One row a map and orientation: every model's stored maps, controls and bounds.

    `who` is a model, a control, or a bound. Only items whose evidence is a region (less than half
    of the picture) take part; controls and bounds see each item once.
    """
    usable = {name for name in maps.item.unique() if has_region(items[name])}
    kept = maps[maps.item.isin(usable) & (maps.status == "ok") & maps.saliency.notna()]
    rows = []
    for row in kept.itertuples():
        rows += _told(row.model, items[row.item], row.saliency)
    seeds = kept.drop_duplicates("item").set_index("item").item_seed
    for name, seed in seeds.items():
        rows += _beside(items[name], int(seed))
    return pd.DataFrame(rows, columns=None if rows else ["who", "orientation", "item"])


def has_region(item: Item) -> bool:
    """Whether some region, and not the whole place, decides the answer."""
    return item.evidence is not None and 0 < item.evidence.mean() < LARGE


def _beside(item: Item, seed: int) -> list[dict]:
    """Controls and bounds of one item."""
    others = {name: control_map(name, item, seed) for name in CONTROLS}
    others |= zip(BOUNDS, (as_boxes(item.evidence), moved(item.evidence)), strict=True)
    return [row for who, each in others.items() for row in _told(who, item, each)]


def _told(who: str, item: Item, saliency: np.ndarray) -> list[dict]:
    about = {"who": who, "item": item.id}
    return [about | found for found in both_ways(saliency, item.evidence)]


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


# --- where people did look


def gaze_rows(items) -> pd.DataFrame:
    """One row a control or viewer, orientation and photograph, against where people looked.

    `items` as from `benchmarks.eye_tracking.osie`. A viewer is compared with all others, and the
    mean over viewers counts as one row; controls are compared with everyone.
    """
    rows = []
    for seed, item in enumerate(items):
        each = [gaze_map(points, item.rgb.shape[:2]) for points in item.extra["fixations"]]
        everyone_there = sum(each)
        about = {"who": "one viewer", "item": item.id}
        found = [pd.DataFrame(both_ways(one, everyone_there - one)) for one in each]
        means = pd.concat(found).groupby("orientation").mean().reset_index()
        rows += [about | row for row in means.to_dict("records")]
        for name in CONTROLS:
            told = both_ways(control_map(name, item, seed), everyone_there)
            rows += [{"who": name, "item": item.id} | row for row in told]
    return pd.DataFrame(rows)


def gaze_map(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fixations (n, 2), x and y pixels, as a map of `CELL`-pixel cells blurred by one degree."""
    edges = [np.arange(0, side + CELL, CELL) for side in shape]
    counts = np.histogram2d(points[:, 1], points[:, 0], bins=edges)[0]
    return gaussian_filter(counts, DEGREE / CELL)


def write_gaze(folder: Path, out: Path) -> dict:
    """`gaze.json` from OSIE's folder: numbers alone, no picture and no fixation."""
    items = osie(folder)
    rows = gaze_rows(items)
    about = {"profile": out.parent.name, "model": "none (OSIE)", "n": len(items), "seed": 0}
    about |= {"commit": provenance.commit(), "versions": provenance.versions()}
    about["date"] = provenance.now()[:10]
    tree = {"provenance": about, "viewers": len(items[0].extra["fixations"])}
    tree |= {"rows": {who: by_orientation(part) for who, part in rows.groupby("who")}}
    write(out, tree)
    return tree


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
    means = table[["correlation", "iou_sum", "iou_max"]].mean()
    return {
        "n": len(table),
        "regions": len(regions),
        "area": float(np.mean([region.mean() for region in regions])),
        "lowest": float(table.correlation.min()),
        "at_most_02": float((table.correlation <= -0.2).mean()),
    } | {name: float(value) for name, value in means.items()}


# --- the numbers of the page


def attention_summary(tables: Tables) -> dict:
    """The protocol of human attention with evidence in the place of people."""
    maps = frames(tables)
    maps = maps[maps.method == PAPER_METHOD] if len(maps) else maps
    if maps.empty:
        return {}
    items = {item.id: item for item in load_benchmark("sprites")}
    rows = attention_rows(maps, items)
    references = [items[name].evidence for name in sorted(rows.item.unique())]
    return {
        "provenance": tables.origin(maps),
        "rows": {who: by_orientation(part) for who, part in rows.groupby("who")},
        "elsewhere": placed_elsewhere(references),
    }


def by_orientation(rows: pd.DataFrame) -> dict:
    """{orientation: n, rank correlation with its interval, mean overlaps}."""
    return {
        way: {"n": len(part), "correlation": estimate(part.correlation).json()}
        | {name: {"value": finite(part[name].mean())} for name in OVERLAPS}
        for way, part in rows.groupby("orientation")
    }
