"""Do maps tell the truth? Scenes whose evidence is drawn, and objects that can be drawn away.

Two truths, and they differ. Evidence: the pixels that decide the *right* answer; a model may have
rested on others. Effect: how far the *model's* answer falls when an object is not drawn; this is
what a map claims to show. Both are set against the map, and against deletion and insertion, which
claim to know without either.
"""

import numpy as np
import pandas as pd

from ..figures import WIDTH, grid, when_run
from ..heatmaps.names import CONTROLS, NOBODY, in_order, listed, title
from ..metrics.counterfactual import LEAST_OBJECTS, LEAST_SPREAD, ranked_as, top
from ..metrics.ranks import rank_agreement, within_items, within_methods
from ..metrics.statistics import estimate, finite
from .compare import (
    AREA,
    AREA_TITLE,
    EVIDENCE,
    GROUP,
    LEAST,
    best_of,
    by_model,
    colour_of,
    counted,
    groups,
    method_panels,
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
    without_controls,
)

NAMED = ("energy_ratio", "auc", "pointing", "rank_accuracy")  # measures whose winner is named
TRUE = ["spearman", "density", "top", "area_spearman", "area_top"]
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
        found = estimate(part.spearman)
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
def evidence_figure(
    maps: pd.DataFrame, model: str, benchmark: str, measures=("energy_ratio", "auc", "pointing")
):
    """Each method against the evidence by several measures, with chance and the controls."""
    frame = one_model(maps, model, benchmark)
    table = evidence_scores(frame)
    if table.empty:
        return None
    good = with_evidence(frame)
    parts = [("", table, (m, f"{m}_low", f"{m}_high"), chance_of(good, m)) for m in measures]
    figure, axes = method_panels(parts, table.method.tolist(), sharex=False)
    for ax, measure in zip(axes, measures, strict=True):
        ax.set_xlabel(EVIDENCE[measure][0], fontsize="small")
    return figure


@when_run
def effect_figure(maps: pd.DataFrame, effects: pd.DataFrame):
    """Rank correlation of a map's mass on objects with their exact effects, a panel a model."""
    parts = groups(rows_of(maps), LEAST)
    tables = [(model, effect_scores(same_items(part), effects)) for (model, _), part in parts]
    tables = [(*part, ("spearman", "low", "high"), 0) for part in tables if len(part[1])]
    if not tables:
        return None
    every = pd.concat([table for _, table, _, _ in tables])
    order = every.groupby("method").spearman.mean().sort_values(ascending=False).index.tolist()
    label = "rank correlation of mass with effect, mean over scenes"
    return method_panels(tables, order, label)[0]


@when_run
def agreement_figure(maps: pd.DataFrame, effects: pd.DataFrame, model: str, benchmark: str):
    """Methods by mean insertion - deletion (x) and by each truth (y): one dot a method."""
    frame = one_model(maps, model, benchmark)
    found = truths(frame, effects)
    if not found:
        return None
    gap = scored(frame).groupby("method").gap.mean()
    figure, axes = grid(len(found), 0.42 * WIDTH, 2, sharey=False)
    for ax, (name, truth) in zip(axes, found.items(), strict=True):
        for method, mean in truth.mean().items():
            ax.plot(gap[method], mean, "o", color=colour_of(method), markersize=4)
            label_point(ax, gap[method], mean, method)
        ax.set_title(name, fontsize="small")
        ax.margins(x=0.15)
        ax.tick_params(labelsize="x-small")
    figure.supxlabel("insertion − deletion, mean of a method", fontsize="small")
    return figure


def label_point(ax, x: float, y: float, method: str) -> None:
    """A method's name beside its dot."""
    ax.annotate(
        title(method), (x, y), xytext=(2, 2), textcoords="offset points", fontsize=6, color="0.25"
    )


# --- the numbers of the page


def summary(tables) -> dict:
    """`truth.json`, from the tables of a results folder (`compare.Tables`)."""
    models = by_model(rows_of(tables.maps), lambda part: of_model(part, tables.effects))
    return tables.tree(tables.maps, models, overall=overall(models))


def overall(models: dict) -> dict:
    """Over the models: whose maps lie most on the evidence, and where they follow the effects."""
    parts = [(m, part) for m, sets in models.items() for part in sets.values()]
    parts = [(m, part) for m, part in parts if part["best"]["energy_ratio"].get("n", 0) >= LEAST]
    best = [f"{part['best']['energy_ratio']['title']} ({m})" for m, part in parts]
    effects = [f"{part['effects']['best']} ({m})" for m, part in parts if part["effects"]]
    return {
        "models": len({m for m, _ in parts}),
        "evidence": ", ".join(best) or NOBODY,
        "effects": ", ".join(effects) or NOBODY,
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
    """One truth's correlations side by side: `own`, `own_low`, `own_high` and so on."""
    told = {"n": found["methods"]["n"], "count": found["methods"]["methods"]}
    for key in ("own", "maps"):
        told |= {key: found[key]["value"]}
        told |= {f"{key}_{end}": found[key][end] for end in ("low", "high")}
    return told | {"methods": found["methods"]["value"]}


def winner(good: pd.DataFrame, measure: str) -> dict:
    """The method with the highest mean of a measure, and those that do not beat the Sobel edges.

    Over the items that all methods have; `lead` is the paired difference to the second.
    """
    told = best_of(good, measure)
    if not told:
        return {}
    means = {name: found["value"] for name, found in told["same"].items()}
    own = in_order(name for name in means if name not in CONTROLS)
    below = [name for name in own if "sobel" in means and means[name] <= means["sobel"]]
    keep = ("title", "second", "lead", "same", "apart", "not_clearly_worse")
    edges = {"below_sobel": {"count": len(below), "of": len(own)}}
    return {key: told[key] for key in keep} | told[measure] | edges


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
