"""What chapters share: scores of methods, intervals, and whether two models look at one place.

Tables in, tables and plain numbers out; nothing here runs a model, and no chapter imports another.
A similarity of two maps means little alone. Beside it stand what two maps of *different* items
have in common (a habit: objects in the middle, say) and, where results allow, what two maps of
one model made with slightly other settings have in common (no pair of models can be asked for
more).
"""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats
from scipy.stats import rankdata

from ..benchmarks.base import Item
from ..errors import StudyError, unknown
from ..heatmaps import controls
from ..heatmaps.names import CONTROLS, PAPER_METHOD, REFERENCE, in_order, listed, title
from ..heatmaps.variants import is_ablation
from ..metrics import mixed
from ..metrics.mixed import exact_p
from ..metrics.plausibility import GRAIN, rank_correlation, soft_iou
from ..metrics.statistics import Estimate, compare, estimate, holm, paired_test
from ..pixels.images import to_tensor
from ..sweep.results import NOT_YET
from ..sweep.stored import grids, one_way, stored_maps, with_fill
from ..sweep.tables import made_with, read_table

GROUP = ["model", "benchmark"]
TEST = ("grid", "blur")  # what is taken away at a time, and what is put there instead
OTHER_TESTS = (("superpixels", "blur"), ("grid", "mean"))
SCORES = ("deletion", "insertion", "gap")
SCORED = ("ok", "constant")  # a map that says nothing is scored as chance
COLUMNS = [*GROUP, "item", "method", "units", "fill", "category", "status", *SCORES]
LEAST = 8  # a model with fewer items that could be scored is not shown beside others
ENOUGH = 0.75  # a method takes part in a ranking with this share of the usual number of items
LEVEL = 0.05
CLEAR, UNCLEAR = "more than chance explains", "not clear after correction"
EVIDENCE = {  # column -> (name for readers, chance level or None where it must be measured)
    "energy_ratio": ("energy ratio", 1.0),
    "auc": ("ROC-AUC", 0.5),
    "pointing": ("pointing", None),
    "rank_accuracy": ("rank accuracy", None),
    "iou_max": ("soft IoU, max", None),
    "iou_sum": ("soft IoU, sum", None),
    "correlation": ("rank correlation", 0.0),
}
LOCAL = 0.5  # evidence that covers more than this share of the picture is not a place in it
AREA = "area"  # a rival of every map: large objects matter most
DROPS = {"lt30": (-math.inf, 0.3), "30_70": (0.3, 0.7), "gt70": (0.7, math.inf)}
CEILING = tuple(  # nearly the same settings
    f"igos[{change},preset=paper]" for change in ("noise=0", "steps=20", "steps=5")
)
APART_BY = {  # differences in likeness that the pages quote, on items that have both
    "size_architecture": ("other size", "other architecture"),
    "training_architecture": ("other training", "other architecture"),
    "size_training": ("other size", "other training"),
}
RANK = {"s": 0, "m": 1, "l": 2}
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
OWN, CONTROL, SPECIAL = (
    sns.color_palette("colorblind")[0],
    "0.55",
    sns.color_palette("colorblind")[1],
)


# --- the tables of a results folder


@dataclass
class Tables:
    """The tables of a results folder, each read when first asked for."""

    results: Path
    profile: str = "mini"
    seed: int = 0

    @cached_property
    def reliance(self) -> pd.DataFrame:
        """One row a model, item and baseline."""
        return read_table(self.results, "reliance")

    @cached_property
    def maps(self) -> pd.DataFrame:
        """One row a model, item, method, units and fill."""
        frame = read_table(self.results, "maps")
        return frame if frame.empty else with_fill(frame)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row a model and item of drawn scenes."""
        return read_table(self.results, "effects")

    def origin(self, frame: pd.DataFrame) -> dict:
        """The "provenance" of a summary of these rows."""
        return origin(frame, self.profile, self.seed, self.versions)

    @cached_property
    def versions(self) -> dict[str, str]:
        """What the tables were made with, which need not be what summarises them."""
        return made_with(self.results)


def origin(frame: pd.DataFrame, profile: str, seed: int, versions: dict[str, str]) -> dict:
    """The provenance that `results.load` asks for; n counts different items, not rows."""
    commits = sorted(c for c in frame["commit"].dropna().unique() if c)
    return {
        "profile": profile,
        "model": sorted(frame.model.unique()),
        "n": int(frame.groupby("benchmark").item.nunique().sum()),
        "seed": seed,
        "commit": ", ".join(commits),
        "versions": versions,
        "date": str(frame.made.max())[:10],
    }


# --- numbers for files and cells


def finite(value) -> float | None:
    """A finite float, or None: JSON knows no NaN and a page shows none."""
    return float(value) if value is not None and math.isfinite(value) else None


def interval(values) -> dict:
    """Mean and 95 % bootstrap interval; null where there is nothing to average."""
    return estimated(estimate(np.asarray(values, float)))


def estimated(found: Estimate) -> dict:
    """An estimate and its ends for a JSON file; null for what is not there."""
    return {"value": finite(found.value), "low": finite(found.low), "high": finite(found.high)}


def counted(values) -> dict:
    """`interval` with the number of values that it rests on."""
    found = estimate(np.asarray(values, float))
    return estimated(found) | {"n": found.n}


def correlation(a: pd.Series, b: pd.Series) -> float | None:
    """Spearman's rank correlation; None where one side never changes."""
    if a.nunique() < 2 or b.nunique() < 2:
        return None
    return finite(a.corr(b, method="spearman"))


def plain(row: pd.Series) -> dict:
    """A row as JSON: whole numbers stay whole, NaN becomes null."""
    out = {}
    for key, value in row.items():
        if isinstance(value, str):
            out[key] = value
        else:
            whole = key in ("n", "pairs", "skipped") and np.isfinite(value)
            out[key] = int(value) if whole else finite(value)
    return out


def spread(value: float, low: float, high: float, digits: int = 2) -> str:
    """ "0.83 [0.78, 0.88]"; a dash for a number that is not there."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if np.isfinite(low):
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text.replace("-", "−")


def shown(found: dict) -> str:
    """An estimate for a table cell."""
    if found["value"] is None:
        return "–"
    text = f"{found['value']:.2f}"
    return text if found["low"] is None else f"{text} [{found['low']:.2f}, {found['high']:.2f}]"


def short(name: str) -> str:
    """A model's name without its shelf."""
    return name.removeprefix("mini/")


def or_not_yet(table: pd.DataFrame) -> pd.DataFrame:
    """The table; one line that says so where nothing has been run."""
    return pd.DataFrame({"": [NOT_YET]}) if table.empty else table


# --- the scores of methods


def rows_of(maps: pd.DataFrame, test=TEST, variants: bool = False) -> pd.DataFrame:
    """One row for each (model, benchmark, item, method): those of one test, and the failures.

    Ablations are left out unless `variants`. A map that says nothing gets what it is
    worth, chance: a method must not gain by keeping silent where it is hard.
    """
    if maps.empty:
        return pd.DataFrame(columns=COLUMNS)
    maps = one_way(maps, *test)
    if not variants:
        maps = maps[~maps.method.map(is_ablation).astype(bool)]
    return as_chance(maps.drop_duplicates([*GROUP, "item", "method"]))


def as_chance(frame: pd.DataFrame) -> pd.DataFrame:
    """Constant maps with the scores of chance; deletion and insertion by themselves have none.

    Their soft IoUs are those of a map with the same value everywhere.
    """
    silent = frame.status == "constant"
    worth = {"gap": 0.0, "gap_raw": 0.0, "energy_ratio": 1.0, "auc": 0.5, "correlation": 0.0}
    if "evidence_area" in frame:
        area = frame.evidence_area
        worth |= dict.fromkeys(("pointing", "pointing_near", "rank_accuracy", "iou_max"), area)
        worth |= {"iou_sum": area / (2 - area)}
    filled = {
        name: frame[name].mask(silent, value) for name, value in worth.items() if name in frame
    }
    return frame.assign(**filled)


def one_model(
    maps: pd.DataFrame, model: str, benchmark: str, variants: bool = False
) -> pd.DataFrame:
    """The rows of one model on one benchmark under the paper's test."""
    frame = rows_of(maps, variants=variants)
    return frame[(frame.model == model) & (frame.benchmark == benchmark)]


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a score."""
    return frame[frame.status.isin(SCORED) & frame.gap.notna()]


def groups(frame: pd.DataFrame, least: int = 1):
    """(model, benchmark), rows: for everything that is told for one model at a time.

    Models with fewer than `least` items that have a score are left out.
    """
    for keys, part in frame.groupby(GROUP, sort=True):
        if least <= 1 or scored(part).item.nunique() >= least:
            yield keys, part


def with_rivals(frame: pd.DataFrame) -> list[tuple]:
    """`groups` of `LEAST` items on which a method ran beside iGOS and the controls.

    Two settings of iGOS are no rivals. Where none has rivals, all of them.
    """
    parts = list(groups(frame, LEAST))
    rivals = [p for p in parts if set(p[1].method) - {REFERENCE, PAPER_METHOD, *CONTROLS}]
    return rivals or parts


def most_items_first(parts: list[tuple]) -> list[tuple]:
    """`groups` for a table that begins with the model that has most items."""
    return sorted(parts, key=lambda group: -group[1].item.nunique())


def wide(frame: pd.DataFrame, value: str = "gap") -> pd.DataFrame:
    """Items by methods; methods in reading order."""
    table = frame.pivot(index="item", columns="method", values=value)
    return table[in_order(table.columns)]


def method_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of one model, best first: means with intervals, and who was left out.

    Columns: method, title, n, skipped, silent (maps that say nothing), then `deletion`, `insertion`
    and `gap`, each with `_low` and `_high`.
    """
    rows = []
    for method, part in frame.groupby("method"):
        good = scored(part)
        row = {"method": method, "title": title(method), "n": len(good)}
        row |= {"skipped": len(part) - len(good), "silent": int((good.status == "constant").sum())}
        for score in SCORES:
            found = estimate(good[score])
            row |= {score: found.value, f"{score}_low": found.low, f"{score}_high": found.high}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("gap", ascending=False, ignore_index=True) if rows else table


def with_evidence(frame: pd.DataFrame) -> pd.DataFrame:
    """Scored rows of items whose evidence is a place in the picture."""
    if "evidence_area" not in frame:
        return frame.iloc[:0].reindex(
            columns=[*frame.columns, "evidence_area", *EVIDENCE, "pointing_near"]
        )
    good = scored(frame)
    return good[(good.evidence_area > 0) & (good.evidence_area <= LOCAL)]


def control_map(name: str, item: Item, seed: int) -> np.ndarray:
    """A map that knows nothing of the model, the one that the runner scores (h, w)."""
    rgb = item.rgb
    seen = SimpleNamespace(size=rgb.shape[:2], image=to_tensor(rgb))  # all that a control looks at
    return getattr(controls, name)(seen, seed=seed).numpy()


# --- who is better


def against(frame: pd.DataFrame, reference: str = REFERENCE, value: str = "gap") -> pd.DataFrame:
    """The reference minus every other method, on the items that both have scores for.

    Sign-flip tests, corrected by Holm for the number of other methods. Columns: method, title,
    difference, low, high, p, p_holm, n.
    """
    table = wide(scored(frame), value)
    names = [name for name in table.columns if name != reference]
    if reference not in table or not names:
        return pd.DataFrame(columns=["method", "title", "difference", "low", "high", "p", "p_holm"])
    rows = []
    for name in names:
        both = table[[reference, name]].dropna()
        found = vars(paired_test(both[reference], both[name]))
        rows.append({"method": name, "title": title(name)} | found)
    out = pd.DataFrame(rows).drop(columns="skipped")
    out.insert(out.columns.get_loc("p") + 1, "p_holm", holm(out.p))
    return out


def same_items(frame: pd.DataFrame, value: str = "gap") -> pd.DataFrame:
    """The scored rows that can be compared: for every method the same items.

    Pictures differ more than methods do, so that a mean over other items says nothing about who is
    better. Methods with far fewer items than usual (`complete`) are left out.
    """
    good = scored(frame)
    table = complete(wide(good, value))[0]
    return good[good.method.isin(table.columns) & good.item.isin(table.index)]


def ranked(frame: pd.DataFrame, controls: bool = False, value: str = "gap") -> list[str]:
    """Methods by their mean over the items that all of them have, best first."""
    means = wide(same_items(frame, value), value).mean().sort_values(ascending=False, kind="stable")
    return [name for name in means.index if controls or name not in CONTROLS]


def best_of(frame: pd.DataFrame, value: str = "gap") -> dict:
    """The best method, its lead over the second, and which others are not clearly worse.

    Everything on the same items; `apart` tells of methods that have too few of them. The best is
    found on the items that it is tested on, so p-values are corrected for every pair of methods
    and not for the pairs with the best alone: any of them might have come out on top.
    """
    names = ranked(frame, value=value)
    if len(names) < 2:
        return {}
    good = same_items(frame, value)
    rest = _against_best(good, names, value)
    second = rest.loc[names[1]]
    close = [name for name in names[1:] if not _clear(rest.loc[name])]
    lead = {k: finite(second[k]) for k in ("difference", "low", "high", "p_holm")}
    return {
        "best": names[0],
        "title": title(names[0]),
        "n": int(good.item.nunique()),
        "same": {str(name): counted(part[value]) for name, part in good.groupby("method")},
        value: counted(good[good.method == names[0]][value]),
        "place": names.index(REFERENCE) + 1 if REFERENCE in names else None,
        "second": title(names[1]),
        "lead": lead | {"n": int(second.n), "verdict": CLEAR if _clear(second) else UNCLEAR},
        "not_clearly_worse": listed(close),
        "apart": unranked(frame, names, value),
    }


def _against_best(good: pd.DataFrame, names: list[str], value: str) -> pd.DataFrame:
    """The first of `names` minus every other, as `against`, corrected over all pairs of them."""
    long = wide(good[good.method.isin(names)], value)[names].melt(ignore_index=False).reset_index()
    table = compare(long.dropna(), "value", by="method", item="item")
    return table[table.a == names[0]].rename(columns={"b": "method"}).set_index("method")


def unranked(frame: pd.DataFrame, names: list[str], value: str = "gap") -> str:
    """Methods that have too few items to be ranked, each beside the best on the items of both.

    "RISE (iGOS minus RISE: 0.02 [-0.01, 0.05], n = 20)"; `names` are the ranked ones, best first.
    """
    good = scored(frame)
    short = [n for n in in_order(good.method.unique()) if n not in (*names, *CONTROLS)]
    if not short:
        return listed([])
    rest = against(good[good.method.isin([names[0], *short])], names[0], value)
    return "; ".join(
        f"{row.title} ({title(names[0])} minus {row.title}: "
        f"{spread(row.difference, row.low, row.high)}, n = {row.n})"
        for row in rest.itertuples()
    )


def _clear(row) -> bool:
    """The difference is above 0 and survives the correction."""
    return bool(row.p_holm < LEVEL and row.difference > 0)


def complete(*tables: pd.DataFrame) -> list[pd.DataFrame]:
    """The same items and methods of several (items, methods) tables, nothing missing.

    A method with far fewer items than the middle one of all methods is left out first, so that one
    short row does not cost all others their items.
    """
    names = [n for n in tables[0].columns if all(n in t for t in tables)]
    both = sum(t[names].notna().astype(int) for t in tables) == len(tables)
    counts = both.sum()
    names = [n for n in names if counts[n] > 0 and counts[n] >= ENOUGH * counts[names].median()]
    items = both.index[both[names].all(axis=1)] if names else both.index[:0]
    return [t.loc[items, names] for t in tables]


def means(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """(1 + draws, methods): means over the items, then over resamples of the items."""
    values, count = table.to_numpy(float), len(table)
    picks = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    weights = np.vstack([np.ones(count), picks]) / count
    return weights @ values


def row_spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman correlation of each row of one (R, M) with that of the other; NaN where constant."""
    a, b = (rankdata(x, axis=1) for x in (one, other))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)


def rank_agreement(one: pd.DataFrame, other: pd.DataFrame) -> dict:
    """Do two measures order the methods alike? Spearman over methods, items resampled.

    Both are (items, methods). None with fewer than three methods.
    """
    a, b = complete(one, other.reindex(one.index))
    about = {"methods": a.shape[1], "n": len(a)}
    if a.shape[1] < 3 or len(a) < 2:
        return {"value": None, "low": None, "high": None} | about
    found = row_spearman(means(a), means(b))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return {"value": finite(found[0]), "low": finite(low), "high": finite(high)} | about


def without_controls(table: pd.DataFrame) -> pd.DataFrame:
    """(items, methods) of the methods that look at the model."""
    return table.drop(columns=list(CONTROLS), errors="ignore")


def other_tests(
    maps: pd.DataFrame, model: str, benchmark: str, value: str = "gap_raw"
) -> dict[str, pd.DataFrame]:
    """For each test that was run: its scores, (items, methods), by a name for readers.

    Raw, in probabilities: a fill on which the model is nearly as sure as on the picture leaves
    little to normalise by, and a few such items would decide the normalised means.
    """
    mine = maps[(maps.model == model) & (maps.benchmark == benchmark)]
    found = {f"{u}, {f}": scored(rows_of(mine, (u, f))) for u, f in (TEST, *OTHER_TESTS)}
    return {name: wide(rows, value) for name, rows in found.items() if len(rows)}


def by_reading_order(frame: pd.DataFrame, value: str = "gap") -> list[str]:
    """Methods by their mean over all models, best first."""
    means = scored(frame).groupby(["method", "model"])[value].mean().groupby("method").mean()
    return means.sort_values(ascending=False).index.tolist()


# --- dots for methods


def colour_of(method: str):
    """iGOS as we set it stands out, controls step back."""
    return SPECIAL if method == REFERENCE else CONTROL if method in (*CONTROLS, AREA) else OWN


def dots(ax, table: pd.DataFrame, value: str, low: str, high: str, order: list[str]) -> None:
    """A dot with its interval for every method of `order`, the first on top.

    Methods with too few items to be compared with the others are hollow.
    """
    rows = table.set_index("method").reindex(order)
    enough = ENOUGH * table.n.median()
    for place, (method, row) in enumerate(rows.iterrows()):
        if pd.isna(row[value]):
            continue
        colour = colour_of(method)
        if pd.notna(row[low]):
            ax.plot([row[low], row[high]], [place, place], color=colour, linewidth=1.6)
        face = colour if row.n >= enough else "white"
        ax.plot(row[value], place, "o", color=colour, mfc=face, markersize=5)
    ax.set_yticks(range(len(order)), [title(name) for name in order], fontsize="small")
    ax.set_ylim(len(order) - 0.4, -0.6)


# --- two models


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


# --- maps and scores of several models


def frames(tables: Tables, keep=one_each, benchmark: str = "sprites") -> pd.DataFrame:
    """Stored maps of the tables on grid units and blur, joined with their answers.

    `keep` chooses the models: one an architecture, unless said otherwise.
    """
    if tables.maps.empty or tables.reliance.empty:
        return pd.DataFrame()
    maps = stored_maps(tables.results)
    return keep(maps[(maps.benchmark == benchmark) & maps.method.isin((PAPER_METHOD, *CONTROLS))])


def gap_table(maps: pd.DataFrame) -> pd.DataFrame:
    """Insertion - deletion of the paper's method: model, family, size, seed, item, gap."""
    if maps.empty:
        return pd.DataFrame()
    rows = studied(one_way(maps))
    rows = rows[(rows.method == PAPER_METHOD) & rows.gap.notna()]
    rows = rows.drop_duplicates(["model", "item"])[["model", "item", "category", "gap"]]
    rows = comparable(rows)
    about = [vars(member(name)) for name in rows.model]
    return pd.concat([rows, pd.DataFrame(about, index=rows.index)], axis=1)


def permutation(part: pd.DataFrame, within_sizes: bool = False) -> dict:
    """Models as units, architecture as label, on items that all models have a map of.

    `within_sizes`: labels change hands only among models of one size.
    """
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    means, labels = wide.mean(), [member(name).family for name in wide.columns]
    if len(means) < 2 or not len(wide):
        return {"models": len(means), "n": len(wide), "p": None, "smallest": None}
    sizes = [member(name).size for name in wide.columns] if within_sizes else None
    p, smallest = mixed.exact_p(means.to_numpy(), labels, sizes)
    return {"models": len(means), "n": len(wide), "p": p, "smallest": smallest}


def mixed_numbers(part: pd.DataFrame) -> dict | None:
    """Architecture fixed, items and repeated trainings random; None with a single architecture."""
    if part.family.nunique() < 2:
        return None
    order = part.assign(first=part.family != "llava-1.5").sort_values(["first", "family", "model"])
    beside = "size" if part["size"].nunique() > 1 else None
    return as_numbers(mixed.mixed_effects(order, "gap", "family", beside=beside))


def as_numbers(found: mixed.Mixed | None) -> dict | None:
    """A fitted mixed model as JSON; None stays None."""
    if found is None:
        return None
    counts = {name: getattr(found, name) for name in ("n", "items", "trainings")}
    spreads = {k: finite(getattr(found, k)) for k in ("item_sd", "training_sd", "residual_sd")}
    effects = found.effects.set_index("group")
    about = {"converged": str(found.converged), "reference": str(found.reference)}
    about["effects"] = {str(group): plain(row) for group, row in effects.iterrows()}
    return counts | spreads | about


def shared_part(tables) -> dict:
    """Map similarity of every two models, by what they differ in, and the ceiling."""
    table = map_table(tables.maps, (PAPER_METHOD, *CEILING))
    own = table[table.method == PAPER_METHOD]
    pairs = pair_table(own, answers_of(tables.reliance))
    found = relations(pairs).set_index("relation")
    together = matrix(pairs)
    return {
        "pairs": pairs,
        "relations": {kind: plain(row) for kind, row in found.iterrows()},
        "matrix": {a: plain(row) for a, row in together.iterrows()},
        "apart": {
            key: likeness_apart(apart(pairs, one, other)) for key, (one, other) in APART_BY.items()
        },
        "ceiling": ceiling(table),
    }


def ceiling(table: pd.DataFrame) -> dict:
    """How alike two maps of one model are when the method's settings hardly differ."""
    out = {}
    for name in CEILING:
        part = table[table.method.isin([PAPER_METHOD, name])]
        values = [
            pair_table(rows, by="method").value
            for _, rows in part.groupby("model")
            if rows.method.nunique() == 2
        ]
        if values and len(joined := pd.concat(values)):
            out[name] = {"n": len(joined)} | interval(joined)
    return out


def likeness_apart(found) -> dict:
    """An estimate as {"n", "value", "low", "high"}; null where there was nothing to compare."""
    return {"n": found.n} | estimated(found)


def spanned(ceiling: dict) -> dict:
    """The least and the greatest mean likeness of `ceiling`; {} where it is empty."""
    values = [one["value"] for one in ceiling.values()]
    return {"least": min(values), "most": max(values)} if values else {}


def with_factors(table: pd.DataFrame) -> pd.DataFrame:
    """Table 4 with two more columns: `family`, and `step`, the place of a size in its family."""
    family = table.model.str.split("-").str[0]
    step = table.groupby(["group", family]).cumcount()
    return table.assign(family=family, step=step)


def table4_tests(table: pd.DataFrame, group: str, factor: str) -> pd.DataFrame:
    """Tests of one half of Table 4 with models as the unit: one row a score.

    `factor` is a column that tells the groups apart. "anova" and "rank" are the usual tests,
    "permutation" compares the spread of group means with that under every way of dealing the
    models to the groups; `smallest` is the least p-value that such a test can give at all.
    """
    part = table[table.group == group]
    rows = []
    for score in ("del", "ins"):
        values, labels = part[score].to_numpy(), pd.factorize(part[factor])[0]
        sets = [values[labels == k] for k in range(labels.max() + 1)]
        p, smallest = exact_p(values, labels)
        row = {"score": score, "models": len(values), "anova": stats.f_oneway(*sets).pvalue}
        row |= {"rank": stats.kruskal(*sets).pvalue, "permutation": p, "smallest": smallest}
        rows.append(row)
    return pd.DataFrame(rows)
