"""Do maps tell the truth? Scenes whose evidence is drawn, and objects that can be drawn away.

Two truths, and they differ. Evidence: the pixels that decide the *right* answer; a model may have
rested on others. Effect: how far the *model's* answer falls when an object is not drawn; this is
what a map claims to show. Both are set against the map, and against deletion and insertion, which
claim to know without either.
"""

import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..figures import WIDTH, dots, grid, when_run
from ..heatmaps.names import CONTROLS, NOBODY, in_order, listed, title
from ..metrics.counterfactual import LEAST_OBJECTS, LEAST_SPREAD, ranked_as, top
from ..metrics.plausibility import grid_energy_ratio
from ..metrics.ranks import rank_agreement, within_items, within_methods
from ..metrics.statistics import ENOUGH_TO_RESAMPLE, estimate, finite
from ..models.names import short
from ..sweep import profiles
from ..sweep.stored import stored_maps
from .compare import (
    AREA,
    AREA_TITLE,
    EVIDENCE,
    GROUNDS,
    GROUP,
    best_of,
    by_model,
    colour_of,
    control_map,
    counted,
    ground_table,
    method_panels,
    most_items_first,
    named,
    one_model,
    or_not_yet,
    ranked,
    rows_of,
    same_items,
    scored,
    shown,
    wide,
    with_evidence,
    with_rivals,
    without_controls,
)

NAMED = ("energy_ratio", "auc", "pointing", "rank_accuracy")  # measures whose winner is named
TRUE = ["spearman", "density", "top", "area_spearman", "area_top"]
DRAWS = 20  # random maps an item, averaged
AREA_IS_CHANCE = ("pointing", "rank_accuracy")


# --- the evidence


def chance_of(frame: pd.DataFrame, measure: str) -> float:
    """What a map that knows nothing gets: known, or the evidence's area, or the random map's."""
    known = EVIDENCE[measure][1]
    if known is not None:
        return known
    once = frame.drop_duplicates([*GROUP, "item"])
    if measure in AREA_IS_CHANCE:
        return float(once.evidence_area.mean())
    return float(frame.loc[frame.method == "random", measure].mean())


def evidence_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a method, best energy ratio first: every measure with its interval.

    `frame` are the rows of one model. Columns: method, title, n, then each measure with `_low` and
    `_high`.
    """
    rows = []
    for method, part in with_evidence(frame).groupby("method"):
        row = {"method": method, "title": title(method), "n": len(part)}
        for measure in EVIDENCE:
            row |= estimate(part[measure]).columns(measure)
        rows.append(row)
    names = [name for measure in EVIDENCE for name in estimate([]).columns(measure)]
    table = pd.DataFrame(rows, columns=["method", "title", "n", *names])
    return table.sort_values("energy_ratio", ascending=False, ignore_index=True)


def evidence_shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of the chapter: a row a method, and the row of chance."""
    table = evidence_scores(frame)
    names = {measure: label for measure, (label, _) in EVIDENCE.items()}
    columns = {"title": "method", "n": "n"} | names
    out = table[list(columns)].rename(columns=columns)
    good = with_evidence(frame)
    if good.empty:
        return or_not_yet(out)
    chance = {"method": "chance", "n": good.item.nunique()}
    chance |= {label: chance_of(good, measure) for measure, label in names.items()}
    return pd.concat([out, pd.DataFrame([chance])], ignore_index=True)


def on_own_grids(stored: pd.DataFrame, items: dict) -> pd.DataFrame:
    """Rows whose evidence is a place, with the energy ratio on each map's own grid.

    `stored` is `stored_maps` of one model; controls are drawn again, random as a mean of `DRAWS`.
    New columns `raw` and `ranked` (`grid_energy_ratio`); a constant map has 1.
    """
    good = with_evidence(stored)
    found = [_on_grid(row, items[row.item]) for row in good.itertuples()]
    return good.assign(**pd.DataFrame(found, columns=["raw", "ranked"], index=good.index))


def _on_grid(row, item) -> tuple[float, float]:
    if row.status == "constant":
        return 1.0, 1.0
    if row.method in CONTROLS:
        draws = DRAWS if row.method == "random" else 1
        maps = [control_map(row.method, item, seed) for seed in range(draws)]
    else:
        maps = [row.saliency]
    found = [[grid_energy_ratio(m, item.evidence, ranks) for ranks in (False, True)] for m in maps]
    return tuple(np.mean(found, axis=0))


def grid_scores(measured: pd.DataFrame) -> pd.DataFrame:
    """One row a method of `on_own_grids`: title, n, raw and ranked with their intervals."""
    rows = []
    for method, part in measured.groupby("method"):
        row = {"method": method, "title": title(method), "n": len(part)}
        rows.append(
            row | estimate(part.raw).columns("raw") | estimate(part.ranked).columns("ranked")
        )
    table = pd.DataFrame(rows)
    return table.sort_values("ranked", ascending=False, ignore_index=True) if rows else table


# --- exact effects


def with_effects(frame: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Scored rows joined with the exact effects of their scene's objects.

    Kept are scenes of at least three objects whose effects differ; a constant map tells no object
    from another and counts as 0. New columns: `spearman` (of mass on an object with its effect),
    `density` (of mass per area), `top` (the object with most mass has the greatest effect, ties in
    part), `area_spearman` and `area_top` (the same for the area).
    """
    if effects.empty or "mass" not in frame:
        return frame.iloc[:0].reindex(columns=[*frame.columns, *TRUE])
    keys = [*GROUP, "item"]
    good = scored(frame).merge(effects[[*keys, "effect", "area"]], on=keys, suffixes=("", "_of"))
    area = "area_of" if "area_of" in good else "area"  # the maps have an axis of that name
    silent = good.status == "constant"
    good["mass"] = good.mass.where(~silent, good.effect.map(np.zeros_like))
    good = good[[_usable(m, e) for m, e in zip(good.mass, good.effect, strict=True)]]
    every = zip(good.mass, good.effect, good[area], strict=True)
    found = [_against(*map(np.asarray, one)) for one in every]
    return good.assign(**pd.DataFrame(found, columns=TRUE, index=good.index))


def _usable(mass, effect) -> bool:
    if not isinstance(mass, np.ndarray | list) or not isinstance(effect, np.ndarray | list):
        return False
    enough = len(effect) >= LEAST_OBJECTS and len(mass) == len(effect)
    return bool(enough and np.isfinite(effect).all() and np.ptp(effect) >= LEAST_SPREAD)


def _against(mass: np.ndarray, effect: np.ndarray, area: np.ndarray) -> tuple[float, ...]:
    """The columns `TRUE` of one map."""
    every = mass, mass / np.maximum(area, 1e-12), area
    ranks = np.nan_to_num([ranked_as(x, effect) for x in every])  # what tells nothing is chance
    return (*ranks[:2], top(mass, effect), ranks[2], top(area, effect))


def effect_scores(frame: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """One row a method, best first, and one for the area of the objects, which needs no map.

    Columns: method, title, n, spearman, low, high, density, top.
    """
    good = with_effects(frame, effects)
    once = good.drop_duplicates([*GROUP, "item"])
    once = once.assign(spearman=once.area_spearman, density=np.nan, top=once.area_top)
    parts = [(str(m), title(m), part) for m, part in good.groupby("method")]
    rows = []
    for method, name, part in [*parts, (AREA, AREA_TITLE, once)] if parts else ():
        found = estimate(part.spearman).where_enough()
        row = {"method": method, "title": name, "n": len(part), "spearman": found.value}
        row |= {"low": found.low, "high": found.high}
        rows.append(row | {"density": part.density.mean(), "top": part.top.mean()})
    columns = ["method", "title", "n", "spearman", "low", "high", "density", "top"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("spearman", ascending=False, ignore_index=True)


# --- does insertion - deletion know?


def truths(frame: pd.DataFrame, effects: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What insertion - deletion is held against: {name for readers: (items, methods)}."""
    good, told = with_evidence(frame), with_effects(frame, effects)
    found = {EVIDENCE[m][0]: wide(good, m) for m in ("energy_ratio", "auc", "pointing")}
    found["effect of objects"] = wide(told, "spearman")
    return {name: table for name, table in found.items() if table.size}


def agreement(frame: pd.DataFrame, effects: pd.DataFrame) -> dict[str, dict]:
    """{truth: insertion - deletion against it, four times over}, each as JSON.

    `methods` ranks methods by their means (Spearman over methods, items resampled), `own` those
    that look at the model only, `items` ranks them within an item and averages over items, `maps`
    ranks items within a method and averages over methods.
    """
    gap, found = wide(scored(frame)), {}
    for name, truth in truths(frame, effects).items():
        own = without_controls(gap)
        found[name] = {
            "methods": rank_agreement(gap, truth),
            "own": rank_agreement(own, truth),
            "items": within_items(own, truth).json(),
            "maps": within_methods(own, truth).json(),
        }
    return found


def agreement_shown(frame: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """The same for readers: correlations with their intervals in one cell."""
    names = {"methods": "over methods and controls", "own": "over methods"}
    names |= {"items": "within a picture", "maps": "within a method"}
    rows = [
        {"truth": truth, "items": found["methods"]["n"]}
        | {label: shown(found[key]) for key, label in names.items()}
        for truth, found in agreement(frame, effects).items()
    ]
    return or_not_yet(pd.DataFrame(rows))


# --- figures


@when_run
def ground_figure(study: dict):
    """Both truths on busy ground and, beside it, on flat ground; `study` is `busy.json`.

    Above, whether maps of right answers lie on the evidence; below, whether they know which object
    counts. Methods in the order of the latter on busy ground.
    """
    measures = {"auc_right": 0.5, "effect": 0}  # and where chance is
    parts = []
    for name, chance in measures.items():
        for ground in GROUNDS:
            table = ground_table(study, ground, name)
            parts.append((ground, table, (name, f"{name}_low", f"{name}_high"), chance))
    order = parts[len(GROUNDS)][1].method.tolist()
    figure, axes = method_panels(parts, order, sharex="row", columns=len(GROUNDS))
    labels = ("ROC-AUC against the evidence", "rank correlation with exact effects")
    for ax, label in zip(axes, (x for x in labels for _ in GROUNDS), strict=True):
        ax.set_xlabel(label, fontsize="small")
    return figure


@when_run
def truth_figure(maps: pd.DataFrame, effects: pd.DataFrame, model: str, benchmark: str):
    """Left, whether maps lie on the evidence; right, whether they know which object counts.

    Hollow marks divide the mass on an object by its area.
    """
    frame = one_model(maps, model, benchmark)
    lies, knows = evidence_scores(frame), effect_scores(same_items(frame), effects)
    if lies.empty or knows.empty:
        return None
    order = knows.method.tolist()
    parts = [
        ("Does it lie on the evidence?", lies, ("auc", "auc_low", "auc_high"), 0.5),
        ("Does it know which object counts?", knows, ("spearman", "low", "high"), 0),
    ]
    figure, (left, right) = method_panels(parts, order, sharex=False)
    shades = [colour_of(name) for name in order]
    places = np.arange(len(order)) + 0.3
    means = [(density, np.nan, np.nan) for density in knows.density]
    dots(right, means, places=places, colour=shades, marker="D", hollow=True)
    left.set_xlabel("ROC-AUC", fontsize="small")
    right.set_xlabel("rank correlation with exact effects", fontsize="small")
    return figure


@when_run
def grid_figure(measured: pd.DataFrame):
    """Energy ratio on the map's own grid, raw and of ranks, and pointing."""
    table = grid_scores(measured)
    hits = [
        estimate(measured[measured.method == m].pointing).columns("pointing") for m in table.method
    ]
    table = pd.concat([table, pd.DataFrame(hits)], axis=1)
    area = chance_of(measured, "pointing")
    parts = [
        ("", table, (name, f"{name}_low", f"{name}_high"), chance)
        for name, chance in (("raw", 1), ("ranked", 1), ("pointing", area))
    ]
    figure, axes = method_panels(parts, table.method.tolist(), sharex=False)
    names = ("energy ratio, raw", "energy ratio of ranks", "pointing")
    for ax, name in zip(axes, names, strict=True):
        ax.set_xlabel(name, fontsize="small")
    return figure


@when_run
def effect_figure(maps: pd.DataFrame, effects: pd.DataFrame):
    """Rank correlation of a map's mass on objects with their exact effects, a panel a model.

    Models with rivals of iGOS and at least 20 scenes.
    """
    tables = [
        (model, effect_scores(same_items(part), effects))
        for (model, _), part in most_items_first(with_rivals(rows_of(maps)))
    ]
    tables = [
        (short(m), t, ("spearman", "low", "high"), 0)
        for m, t in tables
        if t.n.max() >= ENOUGH_TO_RESAMPLE
    ]
    if not tables:
        return None
    every = pd.concat([table for _, table, _, _ in tables])
    order = every.groupby("method").spearman.mean().sort_values(ascending=False).index.tolist()
    return method_panels(tables, order, "rank correlation of mass with effect, mean over scenes")[0]


@when_run
def agreement_figure(maps: pd.DataFrame, effects: pd.DataFrame, model: str, benchmark: str):
    """Methods by mean insertion - deletion (x) and by two truths (y): one dot a method."""
    frame = one_model(maps, model, benchmark)
    found = truths(frame, effects)
    found = {name: found[name] for name in ("ROC-AUC", "effect of objects") if name in found}
    if not found:
        return None
    gap = scored(frame).groupby("method").gap.mean()
    figure, axes = grid(len(found), 0.75 * WIDTH, 2, 1.2 * WIDTH, sharey=False)
    for ax, (name, truth) in zip(axes, found.items(), strict=True):
        means = truth.mean()
        for method, mean in means.items():
            ax.plot(gap[method], mean, "o", color=colour_of(method), markersize=5)
        ax.set_title(name, fontsize="medium")
        ax.set_xlim(-0.1, 1.55)
        ax.margins(y=0.2)
        label_dots(ax, gap[means.index].to_numpy(), means.to_numpy(), means.index)
    figure.supxlabel("insertion − deletion, mean of a method", fontsize="medium")
    return figure


def label_dots(ax, x: np.ndarray, y: np.ndarray, methods) -> None:
    """Every dot's name to the right of all dots near it, moved up where names would meet."""
    step, right = 0.052 * np.ptp(y), np.where(x > 0.5, 1.08, 0.3)
    for column in np.unique(right):
        mine = [n for n in np.argsort(y) if right[n] == column]
        heights = y[mine].copy()
        for n in range(1, len(mine)):
            heights[n] = max(heights[n], heights[n - 1] + step)
        heights -= (heights - y[mine]).mean()
        for n, height in zip(mine, heights, strict=True):
            ax.annotate(
                title(methods[n]), (x[n], y[n]), xytext=(column, height), fontsize="small",
                va="center", arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.6},
            )  # fmt: skip


# --- the numbers of the page


def summary(tables) -> dict:
    """`truth.json`, from the tables of a results folder (`compare.Tables`)."""
    models = by_model(rows_of(tables.maps), lambda part: of_model(part, tables.effects))
    return tables.tree(tables.maps, models, own_grid=own_grid(tables) if models else {})


def own_grid(tables) -> dict:
    """Energy ratios on the maps' own grids, of the model and benchmark that the page is about."""
    model, benchmark = profiles.model(tables.profile), profiles.benchmarks(tables.profile)[0]
    if benchmark != "sprites" or tables.reliance.empty:
        return {}
    stored = stored_maps(tables.results)
    stored = stored[(stored.model == model) & (stored.benchmark == benchmark)]
    items = {item.id: item for item in load_benchmark(benchmark)}
    measured = on_own_grids(stored, items)
    return {
        str(method): {name: counted(part[name]) for name in ("raw", "ranked")}
        for method, part in measured.groupby("method")
    }


def of_model(part: pd.DataFrame, effects: pd.DataFrame) -> dict:
    """Means, winners and correlations of one model on one benchmark; {} without evidence."""
    good = with_evidence(part)
    if good.empty:
        return {}
    return {
        "area": finite(good.drop_duplicates("item").evidence_area.mean()),
        "methods": {
            str(method): {measure: counted(rows[measure]) for measure in ("energy_ratio", "auc")}
            for method, rows in good.groupby("method")
        },
        "best": {measure: winner(good, measure) for measure in NAMED},
        "effects": effects_told(effect_scores(same_items(part), effects)),
        "agreement": {truth: _flat(found) for truth, found in agreement(part, effects).items()},
        "turned": turned(part),
    }


def _flat(found: dict) -> dict:
    """One truth's correlations side by side: `own`, `own_low`, `own_high` and so on.

    `few_low` and `few_high` are the ends for `own` if the methods, not the items, were drawn anew
    (Fisher's z): what other methods might have given.
    """
    told = {"n": found["methods"]["n"], "count": found["methods"]["methods"]}
    for key in ("own", "maps"):
        told |= {key: found[key]["value"]}
        told |= {f"{key}_{end}": found[key][end] for end in ("low", "high")}
    low, high = over_methods(found["own"]["value"], found["own"]["methods"])
    return told | {"methods": found["methods"]["value"], "few_low": low, "few_high": high}


def over_methods(value: float | None, count: int) -> tuple[float | None, float | None]:
    """95 % ends of a correlation over `count` methods, by Fisher's z; None where there are none."""
    if value is None or count < 4 or abs(value) >= 1:
        return None, None
    half = 1.96 / np.sqrt(count - 3)
    return float(np.tanh(np.arctanh(value) - half)), float(np.tanh(np.arctanh(value) + half))


def winner(good: pd.DataFrame, measure: str) -> dict:
    """The method with the highest mean of a measure, and those that do not beat a control.

    Over the items that all methods have; `lead` is the paired difference to the second.
    """
    told = best_of(good, measure)
    if not told:
        return {}
    means = {name: found["value"] for name, found in told["same"].items()}
    own = in_order(name for name in means if name not in CONTROLS)
    keep = ("title", "n", "second", "lead", "same")
    below = {}
    for control in ("sobel", "difference"):
        count = sum(means[name] <= means[control] for name in own) if control in means else 0
        below[f"below_{control}"] = {"count": count, "of": len(own)}
    return {key: told[key] for key in keep} | below


def effects_told(table: pd.DataFrame) -> dict:
    """Rank correlation of mass with effect, by method; the area of the objects as their rival."""
    if table.empty:
        return {}
    rows = table.set_index("method")
    own = rows.drop([AREA, *CONTROLS], errors="ignore")
    keep = ("spearman", "low", "high", "density", "top")
    return {
        "n": int(rows.n.max()),
        "best": title(own.index[0]) if len(own) else NOBODY,
        "methods": {m: {k: finite(row[k]) for k in keep} for m, row in rows.iterrows()},
        "around_chance": named(in_order(own.index[~(own.low > 0)])) | {"of": len(own)},
    }


def turned(part: pd.DataFrame) -> dict:
    """Methods whose maps avoid the evidence: upside down, or of a model that looks elsewhere."""
    table = evidence_scores(part).set_index("method")
    low = [n for n in ranked(part) if n in table.index and table.auc_high[n] < 0.5]
    return {"titles": listed(low)}
