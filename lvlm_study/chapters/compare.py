"""What chapters share: scores of methods, intervals, and whether two models look at one place.

Tables in, tables and plain numbers out; nothing here runs a model, and no chapter imports another.
A similarity of two maps means little alone: both see the same picture, and much of a map is that
picture. So it is told *given* the difference picture, which has seen no model, and beside what two
maps of one model made with slightly other settings have in common, where results allow (no pair of
models can be asked for more).
"""

import math
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats
from scipy.stats import rankdata

from ..benchmarks import load_benchmark
from ..benchmarks.base import Item
from ..figures import chance_line, dots, panels
from ..heatmaps import controls
from ..heatmaps.names import (
    CONTROLS,
    PAPER_METHOD,
    REFERENCE,
    in_order,
    listed,
    title,
    without_preset,
)
from ..heatmaps.variants import ABLATIONS, is_ablation
from ..metrics import mixed
from ..metrics.counterfactual import LEAST_OBJECTS, LEAST_SPREAD
from ..metrics.mixed import exact_p
from ..metrics.plausibility import GRAIN, area_means, rank_correlation
from ..metrics.ranks import ENOUGH, complete
from ..metrics.statistics import (
    ENOUGH_TO_RESAMPLE,
    Estimate,
    compare,
    ends,
    estimate,
    finite,
    holm,
    paired_test,
    resample,
)
from ..models.names import member
from ..pixels.masks import settled
from ..sweep.results import NOT_YET
from ..sweep.stored import Tables, grids, one_way, stored_maps

GROUP = ["model", "benchmark"]
TEST = ("grid", "blur")  # what is taken away at a time, and what is put there instead
OTHER_TESTS = (("superpixels", "blur"), ("grid", "mean"))
SCORES = ("deletion", "insertion", "gap")
SCORED = ("ok", "constant")  # a map that says nothing is scored as chance
COLUMNS = [*GROUP, "item", "method", "units", "fill", "category", "status", *SCORES]
LEAST = 8  # a model with fewer items that could be scored is not shown beside others
LEVEL = 0.05
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
GROUNDS = {"busy ground": "4", "flat ground": "0"}  # of `busy.json`: its hardest level, its easiest
OTHERS = "others"  # maps of two different items
AREA, AREA_TITLE = "area", "Object's area"  # a rival of every map: large objects matter most
DROPS = {"lt30": (-math.inf, 0.3), "30_70": (0.3, 0.7), "gt70": (0.7, math.inf)}
CEILING = tuple(  # nearly the same settings
    f"igos[{change},preset=paper]" for change in ("noise=0", "steps=20", "steps=5")
)
RANK = {"s": 0, "m": 1, "l": 2}
OTHER_SEED, OTHER_SIZE, OTHER_ARCHITECTURE = "other training", "other size", "other architecture"
BOTH = "other size and architecture"
RELATIONS = (OTHER_SEED, OTHER_SIZE, OTHER_ARCHITECTURE, BOTH)
APART = ("joint", "llava-1.5-shortcut", "llava-1.5-s-apart")  # members made for other questions
FEWEST = 8  # items; a model with fewer is not compared yet
FAST = "igos[preset=fast]"  # what iGOS was run with on every answer on busy ground
SMALL = "mini/llava-1.5-s"  # of level 0; those of the other levels are named after it
LEVELS = {  # level -> (member, benchmark)
    "0": (SMALL, "sprites_clutter-0"),
    **{k: (f"{SMALL}-clutter{k}", f"sprites_clutter-{k}") for k in "1234"},
    "large": ("mini/llava-1.5-clutter4", "sprites_clutter-4"),  # a larger language model
    "cambrian": ("mini/cambrian-l-clutter4", "sprites_clutter-4"),  # and four encoders
    "mini-gemini": ("mini/mini-gemini-l-clutter4", "sprites_clutter-4"),  # and a fine view
}
OWN, CONTROL, SPECIAL = (
    sns.color_palette("colorblind")[0],
    "0.55",
    sns.color_palette("colorblind")[1],
)


# --- numbers for files and cells


def interval(values) -> dict:
    """Mean and 95 % bootstrap interval; null where there is nothing to average."""
    return estimated(estimate(np.asarray(values, float)))


def estimated(found: Estimate) -> dict:
    """An estimate and its ends for a JSON file; null for what is not there."""
    return {name: found.json()[name] for name in ("value", "low", "high")}


def counted(values) -> dict:
    """`interval` with the number of values that it rests on."""
    return estimate(np.asarray(values, float)).json()


def correlation(a: pd.Series, b: pd.Series) -> float | None:
    """Spearman's rank correlation; None where one side never changes."""
    if a.nunique() < 2 or b.nunique() < 2:
        return None
    return finite(a.corr(b, method="spearman"))


def plain(row: pd.Series) -> dict:
    """A row as JSON: whole numbers stay whole, NaN becomes null."""
    out = {}
    for key, value in row.items():
        if isinstance(value, int | str):
            out[key] = value
        else:
            whole = key in ("n", "pairs", "skipped") and np.isfinite(value)
            out[key] = int(value) if whole else finite(value)
    return out


def named(methods) -> dict:
    """How many methods, and which, for readers."""
    return {"count": len(methods), "titles": listed(methods)}


def spread(value: float, low: float = np.nan, high: float = np.nan, digits: int = 2) -> str:
    """ "0.83 [0.78, 0.88]" from columns of a table; a dash for a number that is not there."""
    return format(Estimate(value, low, high, 0), f".{digits}f")


def shown(found: dict, digits: int = 2) -> str:
    """An estimate of a tree for a table cell."""
    return format(Estimate.of_json(found), f".{digits}f")


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
    return as_chance(over_draws(maps.drop_duplicates([*GROUP, "item", "method"])))


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


def over_draws(frame: pd.DataFrame) -> pd.DataFrame:
    """Random maps with their means over all draws, which one draw an item only estimates.

    A map of noise is as likely as its inverse, which swaps deletion and insertion exactly and turns
    ROC-AUC and correlation around: their means need no further draw. Every place has the same share
    of the mass and is as often the maximum. Soft IoUs stay those of the draws that were stored.
    `stored_gap` keeps the gap of every row as it was: what luck reaches is told by single draws.
    """
    drawn = (frame.method == "random") & frame.gap.notna()
    worth = {"gap": 0.0, "gap_raw": 0.0, "gap_log": 0.0, "energy_ratio": 1.0, "auc": 0.5}
    worth |= {"correlation": 0.0}
    for kind in ("", "_raw", "_log"):
        ends = [f"deletion{kind}", f"insertion{kind}"]
        if set(ends) <= set(frame):
            worth |= dict.fromkeys(ends, frame[ends].mean(axis=1))
    if "evidence_area" in frame:
        worth |= dict.fromkeys(("pointing", "rank_accuracy"), frame.evidence_area)
    told = {  # a measure that an item does not have stays without
        name: frame[name].mask(drawn & frame[name].notna(), value)
        for name, value in worth.items()
        if name in frame
    }
    return frame.assign(**told, stored_gap=frame.gap)


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


def by_model(frame: pd.DataFrame, tell: Callable) -> dict:
    """{model: {benchmark: `tell` of its rows}}; where it tells nothing, no entry."""
    out: dict = {}
    for (model, benchmark), part in groups(frame):
        if told := tell(part):
            out.setdefault(model, {})[benchmark] = told
    return out


def with_rivals(frame: pd.DataFrame) -> list[tuple]:
    """`groups` of `LEAST` items on which methods ran beside iGOS and the controls.

    Two settings of iGOS are no rivals, and one method alone makes no race: it was run for another
    question. Where none has rivals, all of them.
    """
    parts = list(groups(frame, LEAST))
    rivals = [part for part in parts if a_race(part[1].method)]
    return rivals or parts


def a_race(methods: Iterable[str]) -> bool:
    """Whether at least two methods ran beside iGOS and the controls."""
    return len(set(methods) - {REFERENCE, PAPER_METHOD, *CONTROLS}) > 1


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
            row |= estimate(good[score]).columns(score)
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
    return controls.control_map(name, item.rgb, seed)


# --- who is better


def against(frame: pd.DataFrame, reference: str = REFERENCE, value: str = "gap") -> pd.DataFrame:
    """The reference minus every other method, on the items that both have scores for.

    Sign-flip tests, corrected by Holm for the number of other methods. Columns: method, title,
    difference, low, high (NaN below 20 pairs), p, p_holm, n.
    """
    table = wide(scored(frame), value)
    names = [name for name in table.columns if name != reference]
    if reference not in table or not names:
        return pd.DataFrame(columns=["method", "title", "difference", "low", "high", "p", "p_holm"])
    rows = []
    for name in names:
        both = table[[reference, name]].dropna()
        found = vars(paired_test(both[reference], both[name]).where_enough())
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

    Everything on the same items; `apart` are methods that have too few of them. The best is found
    on the items that it is tested on, so p-values are corrected for every pair of methods and not
    for the pairs with the best alone: any of them might have come out on top.
    """
    names = ranked(frame, value=value)
    if len(names) < 2:
        return {}
    good = same_items(frame, value)
    rest = _against_best(good, names, value)
    clear = [name for name in names[1:] if _clear(rest.loc[name])]
    own = set(scored(frame).method) - {*names, *CONTROLS}
    return {
        "best": names[0],
        "title": title(names[0]),
        "n": int(good.item.nunique()),
        "same": {str(name): counted(part[value]) for name, part in good.groupby("method")},
        value: counted(good[good.method == names[0]][value]),
        "place": names.index(REFERENCE) + 1 if REFERENCE in names else None,
        "second": title(names[1]),
        "lead": {k: finite(rest.loc[names[1]][k]) for k in ("difference", "low", "high", "p_holm")},
        "not_clearly_worse": listed([name for name in names[1:] if name not in clear]),
        "apart": listed(in_order(own)),
    }


def _against_best(good: pd.DataFrame, names: list[str], value: str) -> pd.DataFrame:
    """The first of `names` minus every other, as `against`, corrected over all pairs of them."""
    long = wide(good[good.method.isin(names)], value)[names].melt(ignore_index=False).reset_index()
    table = compare(long.dropna(), "value", by="method", item="item")
    table[["low", "high"]] = table[["low", "high"]].mask(table.n < ENOUGH_TO_RESAMPLE)
    return table[table.a == names[0]].rename(columns={"b": "method"}).set_index("method")


def _clear(row) -> bool:
    """The difference is above 0 and survives the correction."""
    return bool(row.p_holm < LEVEL and row.difference > 0)


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


# --- the variants of iGOS


def variant_names() -> list[str]:
    """Every variant of every table of `ABLATIONS`, once, the paper's setting first."""
    every = [name for names in ABLATIONS.values() for name in names]
    return [PAPER_METHOD, *[n for n in dict.fromkeys(every) if n != PAPER_METHOD]]


def variant_title(name: str) -> str:
    """`title` without the preset that nearly all variants share; our default says what it is."""
    if name == REFERENCE:
        return f"{title(name)}, mean of the masks"
    return title(without_preset(name))


def differences(frame: pd.DataFrame) -> pd.DataFrame:
    """Every variant against the paper's setting, on the items that both have: one row a variant.

    Columns: method, difference (variant - paper's setting), low, high, p, p_holm, n, clear.
    Variants with too few items to say anything are left out.
    """
    table, rows = wide(scored(frame)), []
    for name in variant_names() if PAPER_METHOD in table else ():
        both = table[[name, PAPER_METHOD]].dropna() if name in table else ()
        if name != PAPER_METHOD and len(both) >= LEAST:
            test = paired_test(both[name], both[PAPER_METHOD]).where_enough()
            rows.append({"method": name} | vars(test))
    columns = ["method", "difference", "low", "high", "p", "n"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(p_holm=holm(found.p), clear=lambda t: t.p_holm < LEVEL)


def likeness(frame: pd.DataFrame) -> pd.DataFrame:
    """How much each variant's maps are like the paper's setting's: one row a variant.

    Rank correlations on 14 x 14 cells, means with 95 % intervals over the items that both have.
    Columns: method, value, low, high, n. The last row, `OTHERS`, is the floor: the maps of the
    paper's setting of two different items, each with the next one.
    """
    rows, columns = [], ["method", "value", "low", "high", "n"]
    if "heatmap" not in frame:
        return pd.DataFrame(columns=columns)
    frame = frame.assign(cells=[None if m is None else area_means(m, GRAIN) for m in grids(frame)])
    told = frame[frame.status.isin(["ok", "no_gap"]) & frame.cells.notna()]
    maps = {name: part.set_index("item").cells for name, part in told.groupby("method")}
    own = maps.pop(PAPER_METHOD, pd.Series(dtype=object))
    maps = {n: maps[n] for n in variant_names() if n in maps}
    maps[OTHERS] = pd.Series(np.roll(own.to_numpy(), 1), own.index)
    for name, other in maps.items():
        both = own.index.intersection(other.index)
        if len(both) >= LEAST:
            pairs = [rank_correlation(own[i], other[i], None) for i in both]
            rows.append({"method": name} | counted(pairs))
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})


# --- dots for methods


def colour_of(method: str):
    """iGOS as we set it stands out, controls step back."""
    return SPECIAL if method == REFERENCE else CONTROL if method in (*CONTROLS, AREA) else OWN


def method_panels(
    parts: list[tuple], order: list[str], label: str = "", sharex: bool | str = True, **layout
):
    """A panel a part, a line a method of `order`: (figure, axes).

    A part is (its title, table, columns of value and ends, where chance is or None). Methods with
    too few items to be compared with the others are hollow. `layout` is for `figures.panels`.
    """
    figure, axes = panels(len(parts), len(order), sharex, **layout)
    names = [AREA_TITLE if name == AREA else title(name) for name in order]
    for ax, (head, table, columns, chance) in zip(axes, parts, strict=True):
        rows = table.set_index("method").reindex(order)
        found, few = rows[list(columns)].to_numpy(float), rows.n < ENOUGH * table.n.median()
        if chance is not None:
            chance_line(ax, chance)
        dots(ax, found, names, colour=[colour_of(name) for name in order], hollow=list(few))
        ax.set_title(head, fontsize="small")
    figure.supxlabel(label, fontsize="small")
    return figure, axes


def summary_table(found: dict[str, dict], measure: str) -> pd.DataFrame:
    """Estimates of a summary, one a method, as a table with the highest first.

    Columns: method, n, the measure, and its ends with `_low` and `_high`. The random map is left
    out: its score is chance, which figures draw as a line.
    """
    rows = [
        {"method": name, "n": one["n"]} | Estimate.of_json(one).columns(measure)
        for name, one in found.items()
        if name != "random"
    ]
    return pd.DataFrame(rows).sort_values(measure, ascending=False, ignore_index=True)


def ground_table(study: dict, ground: str, measure: str) -> pd.DataFrame:
    """One measure of the methods on a ground of `GROUNDS`; `study` is `busy.json`."""
    methods = study["levels"][GROUNDS[ground]]["methods"]
    return summary_table({name: part[measure] for name, part in methods.items()}, measure)


# --- two models


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


# --- tables of maps


def studied(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows about drawn scenes where there are any, else all, items named with their benchmark."""
    drawn = frame[frame.benchmark == "sprites"]
    return drawn if len(drawn) else frame.assign(item=frame.benchmark + "/" + frame["item"])


def map_table(maps: pd.DataFrame, methods=(PAPER_METHOD,)) -> pd.DataFrame:
    """`every_map` of the models that take part in comparisons."""
    return comparable(every_map(maps, methods))


def every_map(maps: pd.DataFrame, methods=(PAPER_METHOD,)) -> pd.DataFrame:
    """One row a stored map that explains something: model, item, method, saliency (h, w)."""
    rows = studied(one_way(maps))
    rows = rows[rows.method.isin(methods)]
    rows = rows[rows.status.isin(["ok", "no_gap"])].drop_duplicates(["model", "item", "method"])
    rows = rows.assign(saliency=grids(rows))
    return rows.loc[rows.saliency.notna(), ["model", "item", "method", "category", "saliency"]]


def pair_table(
    table: pd.DataFrame,
    answers: pd.Series | None = None,
    by: str = "model",
    known: dict[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Every two models (or methods) on every item that both have a map of.

    `table` as from `map_table`, one map an item and model. `answers` (indexed by model, item) adds
    whether both gave the same answer; `known` has a map of each item that owes nothing to a model.
    Columns: a, b, item, value (rank correlation of 14 x 14 cells), and `given`, the same with what
    both share with the known map taken out (partial rank correlation); NaN without one.
    """
    ranks = [unit_ranks(one) for one in table.saliency]
    kept = {
        name: dict(zip(part["item"], part.ranks, strict=True))
        for name, part in table.assign(ranks=ranks).groupby(by)
    }
    known = {item: unit_ranks(one) for item, one in (known or {}).items()}
    rows = []
    for a, b in combinations(kept, 2):
        for item in sorted(kept[a].keys() & kept[b].keys()):
            one, other = kept[a][item], kept[b][item]
            row = {"a": a, "b": b, "item": item, "value": float(one @ other)}
            row["given"] = partial_correlation(one, other, known.get(item))
            row["same_answer"] = None if answers is None else _same(answers, a, b, item)
            rows.append(row)
    return pd.DataFrame(rows, columns=["a", "b", "item", "value", "given", "same_answer"])


def unit_ranks(saliency: np.ndarray) -> np.ndarray:
    """Ranks of a map's 14 x 14 cells, mean 0 and length 1 (196,): products are correlations.

    NaN for a map with the same value everywhere.
    """
    ranks = rankdata(settled(area_means(np.asarray(saliency, float), GRAIN)).ravel())
    ranks -= ranks.mean()
    length = np.linalg.norm(ranks)
    return ranks / length if length > 0 else np.full(ranks.shape, np.nan)


def partial_correlation(one: np.ndarray, other: np.ndarray, known: np.ndarray | None) -> float:
    """Correlation of two `unit_ranks` beyond what a third explains of each; NaN without it."""
    if known is None:
        return math.nan
    one, other = (x - (x @ known) * known for x in (one, other))
    length = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / length) if length > 1e-9 else math.nan


def pictures(names) -> dict[str, np.ndarray]:
    """{item: its difference picture (32, 32)}, of the drawn scenes among these items."""
    drawn = {name for name in names if name.startswith("sprites/")}
    items = load_benchmark("sprites") if drawn else ()
    return {item.id: control_map("difference", item, 0) for item in items if item.id in drawn}


def _same(answers: pd.Series, a: str, b: str, item: str) -> bool:
    one, other = answers.get((a, item)), answers.get((b, item))
    return one is not None and one == other


def answers_of(reliance: pd.DataFrame) -> pd.Series:
    """The answers, indexed by (model, item)."""
    rows = studied(reliance).drop_duplicates(["model", "item"])
    return rows.set_index(["model", "item"]).answer


def relations(pairs: pd.DataFrame) -> dict:
    """{relation: how alike maps are, raw and given the picture, and of how many pairs of models}.

    Items are drawn as a whole for the interval: a hard item is hard for every pair. `pairs` counts
    pairs of models; the interval does not know that they are few.
    """
    kinds, out = with_relation(pairs), {}
    for kind in [k for k in RELATIONS if k in set(kinds.kind)]:
        part = kinds[kinds.kind == kind]
        raw, given = (
            estimate(part[value], clusters=part["item"], draws=1000) for value in ("value", "given")
        )
        same = part.given[part.same_answer.fillna(False).astype(bool)]
        about = {"pairs": len(part[["a", "b"]].drop_duplicates()), "n": len(part)}
        out[kind] = about | {"raw": estimated(raw), "given": estimated(given)}
        out[kind]["same_answer"] = finite(same.mean())
    return out


def with_relation(pairs: pd.DataFrame) -> pd.DataFrame:
    """`pairs` with what the two models differ in, column kind."""
    return pairs.assign(kind=[relation(a, b) for a, b in zip(pairs.a, pairs.b, strict=True)])


def apart(pairs: pd.DataFrame, one: str, other: str, value: str = "given") -> Estimate:
    """How much more alike maps are under relation `one` than under `other`, on the same items.

    An item with pairs of both kinds counts once, with the mean of each; NaN without such items.
    """
    means = with_relation(pairs).pivot_table(index="item", columns="kind", values=value)
    means = means.reindex(columns=[one, other])
    return estimate((means[one] - means[other]).dropna())


def matrix(pairs: pd.DataFrame, value: str = "given") -> pd.DataFrame:
    """Mean similarity of every two models, symmetric, 1 on the diagonal."""
    names = list(dict.fromkeys([*pairs.a, *pairs.b]))
    out = pd.DataFrame(np.eye(len(names)), names, names)
    for (a, b), part in pairs.groupby(["a", "b"]):
        out.loc[a, b] = out.loc[b, a] = part[value].mean()
    return out


# --- busy ground: a member a level, three questions a picture


def by_level(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the levels' own members, with `level` and `picture`, which three items share."""
    if rows.empty:
        return rows.assign(level=None, picture=None)
    known = {pair: level for level, pair in LEVELS.items()}
    found = [known.get(pair) for pair in zip(rows.model, rows.benchmark, strict=True)]
    rows = rows.assign(level=pd.array(found, "object"), picture=rows["item"].map(picture_of))
    return rows[rows.level.notna()]


def picture_of(item: str) -> str:
    """ "sprites_clutter-3/017-counting" -> "017"."""
    return item.rpartition("/")[2].partition("-")[0]


def usable(effects: pd.DataFrame) -> pd.DataFrame:
    """Scenes of enough objects whose effects on the answer differ."""
    if effects.empty:
        return effects.reindex(columns=["model", "benchmark", "item", "effect"])
    good = effects[effects.status == "ok"]
    enough = [len(e) >= LEAST_OBJECTS and np.ptp(e) >= LEAST_SPREAD for e in good.effect]
    return good[np.array(enough, bool)]


def mean(values: pd.Series, pictures: pd.Series, tail: float = 0.025) -> Estimate:
    """Mean of the values that are there, and its interval over pictures."""
    values = values.dropna().astype(float)
    return ratio(values, pd.Series(1.0, values.index), pictures[values.index], tail)


def ratio(one: pd.Series, other: pd.Series, pictures: pd.Series, tail: float = 0.025) -> Estimate:
    """Sum of `one` over the sum of `other`, whole pictures drawn anew; NaN without rows."""
    if one.empty:
        return estimate([])
    sums = pd.DataFrame({"one": one, "other": other}).groupby(pictures).sum().to_numpy()  # (P, 2)
    drawn = sums[resample(len(sums))].sum(1) if len(sums) > 1 else np.zeros((0, 2))  # (draws, 2)
    low, high = ends(drawn[:, 0] / drawn[:, 1], tail)
    found = Estimate(float(one.sum() / other.sum()), low, high, len(one))
    return found.where_enough(len(sums))


# --- maps and scores of several models


def frames(tables: Tables, keep=one_each, benchmark: str = "sprites") -> pd.DataFrame:
    """Stored maps of the tables on grid units and blur, joined with their answers.

    `keep` chooses the models: one an architecture, unless said otherwise.
    """
    if tables.maps.empty or tables.reliance.empty:
        return pd.DataFrame()
    maps = stored_maps(tables.results)
    return keep(maps[(maps.benchmark == benchmark) & maps.method.isin((PAPER_METHOD, *CONTROLS))])


def gap_table(maps: pd.DataFrame, method: str = PAPER_METHOD) -> pd.DataFrame:
    """Insertion - deletion of one method: model, family, size, seed, item, gap."""
    if maps.empty:
        return pd.DataFrame()
    rows = studied(one_way(maps))
    rows = rows[(rows.method == method) & rows.gap.notna()]
    rows = rows.drop_duplicates(["model", "item"])[["model", "item", "category", "gap"]]
    rows = comparable(rows)
    about = [vars(member(name)) for name in rows.model]
    return pd.concat([rows, pd.DataFrame(about, index=rows.index)], axis=1)


def permutation(part: pd.DataFrame, label: str = "family", within: str | None = None) -> dict:
    """Models as units, `label` ("family" or "size") shuffled, on items that all have a map of.

    `within`: labels change hands only among models of one size, or of one family.
    """
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    means, about = wide.mean(), [member(name) for name in wide.columns]
    if len(means) < 2 or not len(wide):
        return {"models": len(means), "n": len(wide), "p": None, "smallest": None}
    blocks = [getattr(one, within) for one in about] if within else None
    labels = [getattr(one, label) for one in about]
    p, smallest = mixed.exact_p(means.to_numpy(), labels, blocks)
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
    spreads = {k: finite(getattr(found, k)) for k in ("item_sd", "training_sd", "residual_sd")}
    effects = found.effects.set_index("group")[["estimate", "low", "high"]]
    about = {"converged": str(found.converged), "reference": str(found.reference)}
    about["effects"] = {str(group): plain(row) for group, row in effects.iterrows()}
    return spreads | about


def shared_part(tables) -> dict:
    """Map similarity of every two models, by what they differ in, and the ceiling."""
    table = map_table(tables.maps, (PAPER_METHOD, *CEILING))
    known = pictures(table["item"].unique())
    own = table[table.method == PAPER_METHOD]
    pairs = pair_table(own, answers_of(tables.reliance), known=known)
    return {"pairs": pairs, "relations": relations(pairs), "ceiling": ceiling(table, known)}


def ceiling(table: pd.DataFrame, known: dict[str, np.ndarray]) -> dict:
    """How alike two maps of one model are when the method's settings hardly differ."""
    out = {}
    for name in CEILING:
        part = table[table.method.isin([PAPER_METHOD, name])]
        found = [
            pair_table(rows, by="method", known=known)
            for _, rows in part.groupby("model")
            if rows.method.nunique() == 2
        ]
        if found and len(pairs := pd.concat(found)):
            likeness = {"raw": interval(pairs.value), "given": interval(pairs.given)}
            out[name] = {"n": len(pairs)} | likeness
    return out


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


def told(cell: dict | None) -> str | None:
    """A share in per cent (`statistics.share`) for a table cell, "98 [93, 99]"; None for none.

    Its ends are Wilson's, which hold for few too.
    """
    return cell and shown(cell | {"value": cell["percent"], "n": 0}, digits=0)
