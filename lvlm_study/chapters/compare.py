"""Do two models look at the same place? Maps of the same item, compared pair by pair.

A similarity of two maps means little alone. Beside it stand what two maps of *different* items
have in common (a habit: objects in the middle, say) and, where results allow, what two maps of
one model made with slightly other settings have in common (no pair of models can be asked for
more). Everything here reads tables and runs no model.
"""

import re
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ..errors import StudyError, unknown
from ..heatmaps.names import PAPER_METHOD
from ..metrics.plausibility import GRAIN, rank_correlation, soft_iou
from ..metrics.statistics import Estimate, estimate
from ..sweep.stored import grids, one_way

OTHER_SEED, OTHER_SIZE, OTHER_ARCHITECTURE = "other training", "other size", "other architecture"
BOTH = "other size and architecture"
RELATIONS = (OTHER_SEED, OTHER_SIZE, OTHER_ARCHITECTURE, BOTH)
SIZES = ("s", "m", "l")
APART = ("joint", "llava-1.5-shortcut")  # members made for other questions
FEWEST = 8  # items; a model with fewer is not compared yet
RELEASED = (  # what a hub id says: (pattern, family)
    (r"llava-onevision-qwen2-(?P<size>[\d.]+b)", "llava-ov"),
    (r"llava-1\.5-(?P<size>\d+b)", "llava-1.5"),
    (r"cambrian-(?:phi3-)?(?P<size>\d+b)", "cambrian"),
    (r"MGM-(?P<size>\d+B)-HD", "mini-gemini-hd"),
    (r"MGM-(?P<size>\d+B)", "mini-gemini"),
)


@dataclass(frozen=True)
class Member:
    """What a model's name says about it: its architecture, its size, the number of its training."""

    family: str
    size: str
    seed: int = 0


def member(name: str) -> Member:
    """`"mini/llava-1.5-s-seed2"` -> `Member("llava-1.5", "s", 2)`; a plain zoo name has size l."""
    if not name.startswith("mini/"):
        found = [(f, re.search(p, name, re.I)) for p, f in RELEASED]
        family, size = next(((f, m["size"].lower()) for f, m in found if m), (name, "?"))
        return Member(family, size)
    short, mark, seed = name.removeprefix("mini/").rpartition("-seed")
    short, seed = (short, int(seed)) if mark and seed.isdigit() else (name[5:], 0)
    family, _, size = short.rpartition("-")
    return Member(family, size, seed) if size in SIZES else Member(short, "l", seed)


def relation(one: str, other: str) -> str:
    """What two models differ in: training, size, architecture, or the last two."""
    a, b = member(one), member(other)
    if a.family == b.family:
        return OTHER_SEED if a.size == b.size else OTHER_SIZE
    return OTHER_ARCHITECTURE if a.size == b.size else BOTH


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of models that take part in comparisons: enough items, and made for this purpose."""
    items = rows.groupby("model").item.nunique()
    return meant_to_compare(rows[rows.model.isin(items.index[items >= FEWEST])])


def meant_to_compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of models that were not made for another question."""
    return rows[~rows.model.isin([f"mini/{name}" for name in APART])]


def first_trainings(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of every model that is compared, without its further trainings."""
    rows = meant_to_compare(rows)
    return rows[np.array([member(name).seed == 0 for name in rows.model], bool)]


def one_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one model an architecture of the zoo, the largest size; all of released models."""
    rows = first_trainings(rows)
    zoo = rows.model.str.startswith("mini/").to_numpy()
    return rows[~zoo | np.array([member(name).size == "l" for name in rows.model], bool)]


# --- two maps


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of 14 x 14 cells; NaN when a map is constant."""
    return rank_correlation(one, other, GRAIN)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Soft intersection over union, both maps scaled to a maximum of 1; 1 for equal maps."""
    return soft_iou(one, other, "max")


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity in windows of 7 cells, both maps stretched to [0, 1] (Wang 2004)."""
    from skimage.metrics import structural_similarity  # slow to import

    a, b = (np.asarray(x, float) for x in (one, other))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    a, b = ((x - x.min()) / np.ptp(x) for x in (a, b))
    return float(structural_similarity(a, b, data_range=1.0, win_size=7))


MEASURES = {"spearman": spearman, "overlap": overlap, "ssim": ssim}


def similarity(one: np.ndarray, other: np.ndarray, measure: str = "spearman") -> float:
    """How alike two maps (h, w) of one size are. Raises StudyError for an unknown measure."""
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    if np.shape(one) != np.shape(other):
        raise StudyError(f"Maps must have one size, not {np.shape(one)} and {np.shape(other)}.")
    return MEASURES[measure](np.asarray(one, float), np.asarray(other, float))


# --- tables of maps


def studied(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows about drawn scenes where there are any, else all, items named with their benchmark."""
    drawn = frame[frame.benchmark == "sprites"]
    return drawn if len(drawn) else frame.assign(item=frame.benchmark + "/" + frame["item"])


def map_table(maps: pd.DataFrame, methods=(PAPER_METHOD,)) -> pd.DataFrame:
    """One row a stored map that explains something: model, item, method, saliency (h, w)."""
    rows = studied(one_way(maps))
    rows = rows[rows.method.isin(methods)]
    rows = rows[rows.status.isin(["ok", "no_gap"])].drop_duplicates(["model", "item", "method"])
    rows = rows.assign(saliency=grids(rows))
    rows = rows.loc[rows.saliency.notna(), ["model", "item", "method", "category", "saliency"]]
    return comparable(rows)


def pair_table(
    table: pd.DataFrame, answers: pd.Series | None = None, measure="spearman", by="model"
) -> pd.DataFrame:
    """Every two models (or methods) on every item that both have a map of.

    `table` as from `map_table`, one map an item and model. `answers` (indexed by model, item) adds
    whether both gave the same answer. Columns: a, b, item, value, and `chance`, the similarity of
    a's map of this item and b's map of the next item in the list.
    """
    kept = {name: dict(zip(p.item, p.saliency, strict=True)) for name, p in table.groupby(by)}
    rows = []
    for a, b in combinations(kept, 2):
        shared = sorted(kept[a].keys() & kept[b].keys())
        for place, item in enumerate(shared):
            one, after = kept[a][item], shared[(place + 1) % len(shared)]
            row = {"a": a, "b": b, "item": item, "value": similarity(one, kept[b][item], measure)}
            other = kept[b][after] if after != item else None
            row["chance"] = np.nan if other is None else similarity(one, other, measure)
            row["same_answer"] = None if answers is None else _same(answers, a, b, item)
            rows.append(row)
    return pd.DataFrame(rows, columns=["a", "b", "item", "value", "chance", "same_answer"])


def _same(answers: pd.Series, a: str, b: str, item: str) -> bool:
    one, other = answers.get((a, item)), answers.get((b, item))
    return one is not None and one == other


def answers_of(reliance: pd.DataFrame) -> pd.Series:
    """The answers, indexed by (model, item)."""
    rows = studied(reliance).drop_duplicates(["model", "item"])
    return rows.set_index(["model", "item"]).answer


def relations(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row a relation: mean similarity, its interval over items, chance, and how many.

    Items are drawn as a whole for the interval: a hard item is hard for every pair. `pairs` counts
    pairs of models; the interval does not know that they are few.
    """
    kinds = pairs.assign(kind=[relation(a, b) for a, b in zip(pairs.a, pairs.b, strict=True)])
    rows = []
    for kind in [k for k in RELATIONS if k in set(kinds.kind)]:
        part = kinds[kinds.kind == kind]
        found = estimate(part.value, clusters=part.item, draws=1000)
        same = part[part.same_answer.fillna(False).astype(bool)]
        row = {"relation": kind, "pairs": len(part[["a", "b"]].drop_duplicates())}
        row |= {"n": found.n, "value": found.value, "low": found.low, "high": found.high}
        row |= {"chance": part.chance.mean(), "same_answer": same.value.mean()}
        rows.append(row)
    columns = ["relation", "pairs", "n", "value", "low", "high", "chance", "same_answer"]
    return pd.DataFrame(rows, columns=columns)


def apart(pairs: pd.DataFrame, one: str, other: str) -> Estimate:
    """How much more alike maps are under relation `one` than under `other`, on the same items.

    An item with pairs of both kinds counts once, with the mean of each; NaN without such items.
    """
    kinds = pairs.assign(kind=[relation(a, b) for a, b in zip(pairs.a, pairs.b, strict=True)])
    means = kinds.pivot_table(index="item", columns="kind", values="value")
    means = means.reindex(columns=[one, other])
    return estimate((means[one] - means[other]).dropna())


def matrix(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean similarity of every two models, symmetric, 1 on the diagonal."""
    names = list(dict.fromkeys([*pairs.a, *pairs.b]))
    out = pd.DataFrame(np.eye(len(names)), names, names)
    for (a, b), part in pairs.groupby(["a", "b"]):
        out.loc[a, b] = out.loc[b, a] = part.value.mean()
    return out
