"""Which methods give faithful maps: Table 1 with intervals, chance, paired tests, other tests.

Tables in, tables and plain numbers out. `maps` is what the runner writes under that name: one row
for each (model, benchmark, item, method, units, fill). Unless said otherwise a score is measured
on the grid with blur put in, the paper's test.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..heatmaps.names import CONTROLS, NOBODY, REFERENCE, in_order, listed, title
from ..heatmaps.variants import is_ablation
from ..metrics.statistics import compare, estimate, holm, paired_test
from ..sweep.results import NOT_YET
from ..sweep.stored import one_way

GROUP = ["model", "benchmark"]
TEST = ("grid", "blur")  # what is taken away at a time, and what is put there instead
OTHER_TESTS = (("superpixels", "blur"), ("grid", "mean"))
SCORES = ("deletion", "insertion", "gap")
SCORED = ("ok", "constant")  # a map that says nothing is scored as chance
SKIPPED = ("no_crucial_tokens", "no_gap", "diverged", "empty_answer", "error")
COLUMNS = [*GROUP, "item", "method", "units", "fill", "category", "status", *SCORES]
LEAST = 8  # a model with fewer items that could be scored is not shown beside others
ENOUGH = 0.75  # a method takes part in a ranking with this share of the usual number of items
LEVEL = 0.05
CLEAR, UNCLEAR = "more than chance explains", "not clear after correction"


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
    """`groups` of at least `LEAST` items on which several methods ran, most items first.

    Where none has rivals, all of them.
    """
    found = list(groups(frame, LEAST))
    own = [(keys, part) for keys, part in found if len(set(part.method) - set(CONTROLS)) > 1]
    return sorted(own or found, key=lambda group: -group[1].item.nunique())


def number(value) -> float | None:
    """A finite float, or None: JSON knows no NaN."""
    return float(value) if value is not None and np.isfinite(value) else None


def interval(values) -> dict:
    """Mean, 95 % bootstrap interval and number of values, for a JSON file."""
    found = estimate(np.asarray(values, float))
    ends = {name: number(getattr(found, name)) for name in ("value", "low", "high")}
    return ends | {"n": found.n}


def wide(frame: pd.DataFrame, value: str = "gap") -> pd.DataFrame:
    """Items by methods; methods in reading order."""
    table = frame.pivot(index="item", columns="method", values=value)
    return table[in_order(table.columns)]


# --- Table 1


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


def both_ways(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows for the maps turned over: deletion and insertion change places.

    An image that keeps the k least important units of a map keeps the k most important ones of the
    map turned over, so one curve is the other read backwards (`faithfulness.step_counts` is
    symmetric, and a test holds the identity to 1e-6). Units of equal saliency are the exception:
    their order is drawn, and a map turned over would have them drawn anew.
    """
    swapped = {"deletion": "insertion", "insertion": "deletion"}
    ends = {f"{a}_{end}": f"{b}_{end}" for a, b in swapped.items() for end in ("low", "high")}
    turned = table.rename(columns=swapped | ends)
    low, high = -table.gap_high, -table.gap_low
    return turned.assign(gap=-table.gap, gap_low=low, gap_high=high)[table.columns]


def paper_table1(paper: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1, a row a model and method: its four benchmarks, insertion - deletion.

    `turned` is the mean over the benchmarks if the map had been handed in upside down.
    """
    names = {"mmvp": "MMVP", "mmstar": "MMStar", "cvbench": "CV-Bench", "llavabench": "LLaVA-Bench"}
    gaps = pd.DataFrame({n: paper[f"{k}_ins"] - paper[f"{k}_del"] for k, n in names.items()})
    deletion = paper[[f"{k}_del" for k in names]].mean(axis=1)
    insertion = paper[[f"{k}_ins" for k in names]].mean(axis=1)
    about = pd.DataFrame({"model": paper.lvlm, "method": paper.method})
    means = {"deletion": deletion, "insertion": insertion, "gap": insertion - deletion}
    return about.assign(**means, turned=deletion - insertion, **gaps)


def in_rank(part: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of one model in the order of its means on the same items, `same`; short rows last."""
    table = method_scores(part)
    means = wide(same_items(part)).mean()
    table = table.assign(same=table.method.map(means))
    return table.sort_values("same", ascending=False, kind="stable", ignore_index=True)


def table1(maps: pd.DataFrame, paper: pd.DataFrame, seeds: dict | None = None) -> pd.DataFrame:
    """Ours and the paper's in one table for readers: models with rivals, methods both ways up.

    `seeds` {(model, method): text} is the column on other seeds (`stability.seeds_said`).
    """
    rows, seeds = [], seeds or {}
    for (model, benchmark), part in with_rivals(rows_of(maps)):
        for row in in_rank(part).itertuples():
            rows.append(
                {"model": model, "data": benchmark, "method": row.title, "n": row.n}
                | {"skipped": row.skipped, "deletion": row.deletion, "insertion": row.insertion}
                | {"insertion − deletion": spread(row.gap, row.gap_low, row.gap_high)}
                | {"same items": spread(row.same, np.nan, np.nan), "turned over": -row.gap}
                | {"another seed": seeds.get((model, row.method), "–")}
            )
    for row in paper_table1(paper).itertuples():
        rows.append(
            {"model": row.model, "data": "the paper, 4 sets", "method": row.method, "n": None}
            | {"skipped": None, "deletion": row.deletion, "insertion": row.insertion}
            | {
                "insertion − deletion": f"{row.gap:.2f}".replace("-", "−"),
                "same items": "–",
                "turned over": row.turned,
                "another seed": "–",
            }
        )
    whole = {name: pd.Series([r[name] for r in rows], dtype=object) for name in ("n", "skipped")}
    return pd.DataFrame(rows).assign(**whole)


def or_not_yet(table: pd.DataFrame) -> pd.DataFrame:
    """The table; one line that says so where nothing has been run."""
    return pd.DataFrame({"": [NOT_YET]}) if table.empty else table


def spread(value: float, low: float, high: float, digits: int = 2) -> str:
    """ "0.83 [0.78, 0.88]"; a dash for a number that is not there."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if np.isfinite(low):
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text.replace("-", "−")


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
    lead = {k: number(second[k]) for k in ("difference", "low", "high", "p_holm")}
    return {
        "best": names[0],
        "title": title(names[0]),
        "n": int(good.item.nunique()),
        "same": {str(name): interval(part[value]) for name, part in good.groupby("method")},
        value: interval(good[good.method == names[0]][value]),
        "place": names.index(REFERENCE) + 1 if REFERENCE in names else None,
        "second": title(names[1]),
        "lead": lead | {"n": int(second.n), "verdict": CLEAR if _clear(second) else UNCLEAR},
        "not_clearly_worse": listed(close),
        "apart": apart(frame, names, value),
    }


def _against_best(good: pd.DataFrame, names: list[str], value: str) -> pd.DataFrame:
    """The first of `names` minus every other, as `against`, corrected over all pairs of them."""
    long = wide(good[good.method.isin(names)], value)[names].melt(ignore_index=False).reset_index()
    table = compare(long.dropna(), "value", by="method", item="item")
    return table[table.a == names[0]].rename(columns={"b": "method"}).set_index("method")


def apart(frame: pd.DataFrame, names: list[str], value: str = "gap") -> str:
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


def beaten_by(frame: pd.DataFrame, control: str) -> list[str]:
    """Methods (not controls) that are not clearly better than a control, best first."""
    names = ranked(frame)
    if control not in set(frame.method) or not names:
        return []
    table = against(frame[frame.method.isin([*names, control])], control).set_index("method")
    better = [n for n in names if table.p_holm[n] < LEVEL and table.difference[n] < 0]
    return [name for name in names if name not in better]


# --- other tests


def means(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """(1 + draws, methods): means over the items, then over resamples of the items."""
    values, count = table.to_numpy(float), len(table)
    picks = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    weights = np.vstack([np.ones(count), picks]) / count
    return weights @ values


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
    return {"value": number(found[0]), "low": number(low), "high": number(high)} | about


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


# --- the numbers of the chapter


def summary(tables) -> dict:
    """`methods.json`, from the tables of a results folder (`summaries.Tables`)."""
    if tables.maps.empty:
        return {}
    found = methods_summary(tables.maps)
    about = tables.origin(tables.maps)
    return {"provenance": about, "models": found, "overall": overall(found)}


def methods_summary(maps: pd.DataFrame) -> dict:
    """{model: {benchmark: ...}}: what chapter 2 quotes."""
    out: dict = {}
    for (model, benchmark), part in groups(rows_of(maps)):
        out.setdefault(model, {})[benchmark] = of_model(maps, part, model, benchmark)
    return out


def overall(models: dict) -> dict:
    """What holds over the models: who wins where, and where iGOS beats the edges."""
    parts = [(m, part) for m, sets in models.items() for part in sets.values() if part["winner"]]
    parts = [(m, part) for m, part in parts if part["scored"] >= LEAST]
    wins = [f"{p['winner']['title']} ({model}, n = {p['winner']['n']})" for model, p in parts]
    clear = [m for m, part in parts if part["winner"]["not_clearly_worse"] == NOBODY]
    ahead = [m for m, part in parts if part["winner"]["best"] == REFERENCE]
    beaten = [m for m, p in parts if _edges_first(p["winner"]["same"])]
    close = [m for m, p in parts if title(REFERENCE) in _names(p["winner"]["not_clearly_worse"])]
    above = [m for m, part in parts if title(REFERENCE) not in _names(_below(part))]
    return {
        "models": len({m for m, _ in parts}),
        "winners": ", ".join(wins) or "none",
        "clear_leads": len(clear),
        "reference_first": len(ahead),
        "reference_not_clearly_worse": len(ahead) + len(close),
        "reference_above_sobel": len(above),
        "edges_first": {"count": len(beaten), "models": ", ".join(beaten) or NOBODY},
    }


def _edges_first(same: dict) -> bool:
    """Whether the edges have the highest mean on the items that all share."""
    return "sobel" in same and max(same, key=lambda name: same[name]["value"]) == "sobel"


def _names(titles: str) -> list[str]:
    """The titles that `listed` joined."""
    return titles.replace(" and ", ", ").split(", ")


def _below(part: dict) -> str:
    """The titles of the methods that are not clearly above the edges."""
    return part["not_above"]["sobel"]["titles"]


def of_model(maps: pd.DataFrame, part: pd.DataFrame, model: str, benchmark: str) -> dict:
    """Scores, tests and verdicts for one model on one benchmark."""
    names, low = ranked(part), ["random", "center", "sobel"]
    best = best_of(part)
    table = method_scores(part).set_index("method")
    chance = [n for n in names if not table.gap_low[n] > 0]
    tests = other_tests(maps, model, benchmark)
    plain = other_tests(maps, model, benchmark, "gap")
    first = tests.pop(", ".join(TEST), None)
    return {
        "items": int(part.item.nunique()),
        "scored": int(scored(part).item.nunique()),
        "count": len(names),
        "methods": {name: of_method(rows) for name, rows in part.groupby("method")},
        "winner": best | {"weak": weak_spots(part, best["best"])} if best else {},
        "reference": _differences(part),
        "weak": weak_spots(part),
        "at_chance": {"titles": listed(chance), "count": len(chance)},
        "not_above": {
            name: {"titles": listed(found), "count": len(found)}
            for name in low
            for found in [beaten_by(part, name)]
        },
        "tests": {
            name: rank_agreement(first, other)
            | {"own": rank_agreement(without_controls(first), other)}
            | about_test(other, plain[name])
            for name, other in tests.items()
            if first is not None
        },
    }


def of_method(frame: pd.DataFrame) -> dict:
    """One row of Table 1, with the skipped counted by reason."""
    good, counts = scored(frame), frame.status.value_counts()
    return {
        "title": title(frame.method.iloc[0]),
        "n": len(good),
        "silent": int((good.status == "constant").sum()),
        "skipped": {name: int(counts.get(name, 0)) for name in SKIPPED},
        **{score: interval(good[score]) for score in SCORES},
    }


def _differences(part: pd.DataFrame) -> dict:
    keep = ("difference", "low", "high", "p", "p_holm")
    rows = against(part).set_index("method") if len(part) else pd.DataFrame()
    return {
        name: {k: number(row[k]) for k in keep} | {"n": int(row.n)} for name, row in rows.iterrows()
    }


def about_test(raw: pd.DataFrame, normalised: pd.DataFrame) -> dict:
    """Who leads under another test, what the random map gets, and the tail of the normalised gap.

    `largest` is the normalised gap of one map that is furthest from 0.
    """
    random = interval(raw["random"].dropna() if "random" in raw else [])
    return {"best": _leader(raw), "random": random, "largest": number(normalised.abs().max().max())}


def weak_spots(part: pd.DataFrame, method: str = REFERENCE) -> dict:
    """Where a method fails: items on which edges do better, or chance, and its scores by category.

    `categories` is a sentence, the weakest first: "spatial 0.71 (n = 10), counting 0.82 (n = 9)".
    """
    rows = scored(part[part.method == method])
    edges = scored(part[part.method == "sobel"]).set_index("item").gap
    both = rows[rows.item.isin(edges.index)]
    kinds = rows.groupby("category").gap.agg(["mean", "size"]).sort_values("mean")
    told = [
        f"{kind} {spread(*row[:1], np.nan, np.nan)} (n = {row[1]:.0f})"
        for kind, *row in kinds.itertuples()
    ]
    return {
        "n": len(rows),
        "pairs": len(both),
        "below_edges": int((both.gap < both.item.map(edges).to_numpy(float)).sum()),
        "at_chance": int((rows.gap <= 0).sum()),
        "categories": ", ".join(told) or "none",
    }


def _leader(table: pd.DataFrame) -> str:
    """Title of the method with the highest mean, controls not counted."""
    own = complete(table)[0].mean().drop(list(CONTROLS), errors="ignore")
    return title(own.idxmax()) if len(own) else title("")
