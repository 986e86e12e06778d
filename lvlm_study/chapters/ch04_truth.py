"""Do maps tell the truth? Scenes whose evidence is drawn, and objects that can be drawn away.

Two truths, and they differ. Evidence: the pixels that decide the *right* answer; a model may have
rested on others. Effect: how far the *model's* answer falls when an object is not drawn; this is
what a map claims to show. Both are set against the map, and against deletion and insertion, which
claim to know without either.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..figures import WIDTH, chance_line, panels, when_run
from ..heatmaps.names import CONTROLS, in_order, listed, title
from ..metrics.counterfactual import LEAST_OBJECTS, LEAST_SPREAD
from .compare import (
    AREA,
    EVIDENCE,
    GROUP,
    LEAST,
    best_of,
    colour_of,
    complete,
    counted,
    dots,
    finite,
    groups,
    one_model,
    or_not_yet,
    rank_agreement,
    ranked,
    row_spearman,
    rows_of,
    same_items,
    scored,
    spread,
    wide,
    with_evidence,
    without_controls,
)

AREA_IS_CHANCE = ("pointing", "rank_accuracy")
AREA_TITLE = "Object's area"


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
            found = counted(part[measure])
            ends = {f"{measure}_{end}": found[end] for end in ("low", "high")}
            row |= {measure: found["value"]} | ends
        rows.append(row)
    ends = [f"{measure}{end}" for measure in EVIDENCE for end in ("", "_low", "_high")]
    table = pd.DataFrame(rows, columns=["method", "title", "n", *ends])
    table[ends] = table[ends].astype(float)  # an end that is not there is NaN
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
    from another and counts as 0. New columns: `spearman` (of mass
    on an object with its effect), `density` (of mass per area), `top` (the object with most mass
    has the greatest effect, ties in part), `area_spearman` and `area_top` (the same for the area).
    """
    if effects.empty or "mass" not in frame:
        extra = ["spearman", "density", "top", "area_spearman", "area_top"]
        return frame.iloc[:0].reindex(columns=[*frame.columns, *extra])
    keys = [*GROUP, "item"]
    good = scored(frame).merge(effects[[*keys, "effect", "area"]], on=keys, suffixes=("", "_of"))
    area = "area_of" if "area_of" in good else "area"  # the maps have an axis of that name
    silent = good.status == "constant"
    good["mass"] = good.mass.where(~silent, good.effect.map(np.zeros_like))
    keep = [_usable(m, e) for m, e in zip(good.mass, good.effect, strict=True)]
    good = good[keep]
    pairs = zip(good.mass, good.effect, good[area], strict=True)
    found = [_against(np.asarray(m), np.asarray(e), np.asarray(a)) for m, e, a in pairs]
    names = ["spearman", "density", "top", "area_spearman", "area_top"]
    return good.assign(**pd.DataFrame(found, columns=names, index=good.index))


def _usable(mass, effect) -> bool:
    if not isinstance(mass, np.ndarray | list) or not isinstance(effect, np.ndarray | list):
        return False
    enough = len(effect) >= LEAST_OBJECTS and len(mass) == len(effect)
    return bool(enough and np.isfinite(effect).all() and np.ptp(effect) >= LEAST_SPREAD)


def _against(mass: np.ndarray, effect: np.ndarray, area: np.ndarray) -> tuple[float, ...]:
    """(mass, density, top, area, largest) against the effects; nothing marked ranks as chance."""
    density = mass / np.maximum(area, 1e-12)
    ranks = [spearman(x, effect) for x in (mass, density)]
    return (*ranks, top(mass, effect), spearman(area, effect), top(area, effect))


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; 0 for a side that tells no object from another."""
    a, b = rankdata(one.round(12)), rankdata(other.round(6))
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0


def top(one: np.ndarray, effect: np.ndarray) -> float:
    """Whether the object marked most has the greatest effect; ties count in part."""
    return float((effect == effect.max())[one == one.max()].mean())


def effect_scores(frame: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """One row a method, best first, and one for the area of the objects, which needs no map.

    Columns: method, title, n, spearman, low, high, density, top.
    """
    good = with_effects(frame, effects)
    rows = []
    for method, part in good.groupby("method"):
        found = counted(part.spearman)
        row = {"method": method, "title": title(method), "n": len(part)}
        row |= {"spearman": found["value"], "low": found["low"], "high": found["high"]}
        rows.append(row | {"density": part.density.mean(), "top": part.top.mean()})
    if rows:
        once = good.drop_duplicates([*GROUP, "item"])
        found = counted(once.area_spearman)
        row = {"method": AREA, "title": AREA_TITLE, "n": len(once), "density": np.nan}
        row |= {"spearman": found["value"], "low": found["low"], "high": found["high"]}
        rows.append(row | {"top": once.area_top.mean()})
    columns = ["method", "title", "n", "spearman", "low", "high", "density", "top"]
    table = pd.DataFrame(rows, columns=columns)
    table[columns[3:]] = table[columns[3:]].astype(float)  # an end that is not there is NaN
    return table.sort_values("spearman", ascending=False, ignore_index=True)


# --- does insertion - deletion know?


def truths(frame: pd.DataFrame, effects: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What insertion - deletion is held against: {name for readers: (items, methods)}."""
    good, told = with_evidence(frame), with_effects(frame, effects)
    found = {EVIDENCE[m][0]: wide(good, m) for m in ("energy_ratio", "auc", "pointing")}
    found["effect of objects"] = wide(told, "spearman")
    return {name: table for name, table in found.items() if table.size}


def agreement(frame: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Insertion - deletion against each truth, three times over; one row a truth.

    `methods` ranks methods by their means (Spearman over methods, items resampled), `items` ranks
    methods within an item and averages over items, `maps` ranks items within a method and averages
    over methods (methods that look at the model only). Each with `_low` and `_high`; n items.
    """
    gap, rows = wide(scored(frame)), []
    for name, truth in truths(frame, effects).items():
        found = {
            "methods": rank_agreement(gap, truth),
            "own": rank_agreement(without_controls(gap), truth),
            "items": within_items(gap, truth),
            "maps": within_methods(gap, truth),
        }
        row = {"truth": name, "n": found["methods"]["n"], "count": found["methods"]["methods"]}
        for key, value in found.items():
            row |= {key: value["value"], f"{key}_low": value["low"], f"{key}_high": value["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def agreement_shown(frame: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """The same for readers: correlations with their intervals in one cell."""
    names = {"methods": "over methods and controls", "own": "over methods"}
    names |= {"items": "within a picture", "maps": "within a method"}
    rows = []
    for row in agreement(frame, effects).to_dict("records"):
        cells = {
            label: spread(
                *[np.nan if row[k] is None else row[k] for k in (key, f"{key}_low", f"{key}_high")]
            )
            for key, label in names.items()
        }
        rows.append({"truth": row["truth"], "items": row["n"]} | cells)
    return or_not_yet(pd.DataFrame(rows, columns=["truth", "items", *names.values()]))


def within_items(gap: pd.DataFrame, truth: pd.DataFrame) -> dict:
    """Of one picture's maps, is the better scored the truer? Mean Spearman over items."""
    a, b = complete(without_controls(gap), truth.reindex(gap.index))
    if a.shape[1] < 3 or a.empty:
        return counted([])
    return counted(row_spearman(a.to_numpy(float), b.to_numpy(float)))


def within_methods(gap: pd.DataFrame, truth: pd.DataFrame, draws: int = 200) -> dict:
    """Of one method's maps, is the better scored the truer? Mean over methods, items resampled."""
    a, b = complete(without_controls(gap), truth.reindex(gap.index))
    if len(a) < 3 or a.empty:
        return counted([])
    x, y = a.to_numpy(float).T, b.to_numpy(float).T  # (methods, items)
    picks = np.random.default_rng(0).integers(0, len(a), (draws, len(a)))
    found = [_mean(row_spearman(x[:, pick], y[:, pick])) for pick in [slice(None), *picks]]
    ends = {name: finite(end) for name, end in zip(("low", "high"), _ends(found[1:]), strict=True)}
    return {"value": finite(found[0])} | ends | {"n": len(a)}


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else np.nan


def _ends(values) -> tuple[float, float]:
    kept = np.array(values)[np.isfinite(values)]
    return tuple(np.quantile(kept, [0.025, 0.975])) if len(kept) else (np.nan, np.nan)


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
    order = table.method.tolist()
    figure, axes = panels(len(measures), len(order), sharex=False)
    for ax, measure in zip(axes, measures, strict=True):
        chance_line(ax, chance_of(with_evidence(frame), measure))
        dots(ax, table, measure, f"{measure}_low", f"{measure}_high", order)
        ax.set_xlabel(EVIDENCE[measure][0], fontsize="small")
    return figure


@when_run
def effect_figure(maps: pd.DataFrame, effects: pd.DataFrame):
    """Rank correlation of a map's mass on objects with their exact effects, a panel a model."""
    parts = groups(rows_of(maps), LEAST)
    parts = [(model, effect_scores(same_items(part), effects)) for (model, _), part in parts]
    parts = [(model, table) for model, table in parts if len(table)]
    if not parts:
        return None
    every = pd.concat([table for _, table in parts])
    order = every.groupby("method").spearman.mean().sort_values(ascending=False).index.tolist()
    figure, axes = panels(len(parts), len(order))
    for ax, (model, table) in zip(axes, parts, strict=True):
        chance_line(ax, 0)
        dots(ax, table, "spearman", "low", "high", order)
        ax.set_title(model, fontsize="small")
    labels = [title(name) if name != AREA else "Object's area" for name in order]
    for ax in axes:
        ax.set_yticks(range(len(order)), labels, fontsize="small")
    figure.supxlabel("rank correlation of mass with effect, mean over scenes", fontsize="small")
    return figure


@when_run
def agreement_figure(maps: pd.DataFrame, effects: pd.DataFrame, model: str, benchmark: str):
    """Methods by mean insertion - deletion (x) and by each truth (y): one dot a method."""
    frame = one_model(maps, model, benchmark)
    found = truths(frame, effects)
    if not found:
        return None
    gap, columns = scored(frame).groupby("method").gap.mean(), min(2, len(found))
    rows = -(-len(found) // columns)
    size = (WIDTH, 0.42 * WIDTH * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel()[len(found) :]:
        ax.set_axis_off()
    for ax, (name, truth) in zip(axes.ravel(), found.items(), strict=False):
        means = truth.mean()
        for method in means.index:
            ax.plot(gap[method], means[method], "o", color=colour_of(method), markersize=4)
            label_point(ax, gap[method], means[method], method)
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
    found = {} if tables.maps.empty else truth_summary(tables.maps, tables.effects)
    if not found:
        return {}
    about = tables.origin(tables.maps)
    return {"provenance": about, "models": found, "overall": overall(found)}


def truth_summary(maps: pd.DataFrame, effects: pd.DataFrame) -> dict:
    """{model: {benchmark: ...}}: what chapter 4 quotes."""
    out: dict = {}
    for (model, benchmark), part in groups(rows_of(maps)):
        if len(with_evidence(part)):
            out.setdefault(model, {})[benchmark] = of_model(part, effects)
    return out


def overall(models: dict) -> dict:
    """Over the models: whose maps lie most on the evidence, and where they follow the effects."""
    parts = [(m, part) for m, sets in models.items() for part in sets.values() if part["best"]]
    parts = [(m, p) for m, p in parts if p["best"]["energy_ratio"] and p["n"] >= LEAST]
    best = [f"{part['best']['energy_ratio']['title']} ({m})" for m, part in parts]
    effects = [f"{part['effects']['best']} ({m})" for m, part in parts if part["effects"]]
    return {
        "models": len({m for m, _ in parts}),
        "evidence": ", ".join(best) or "none",
        "effects": ", ".join(effects) or "none",
    }


def of_model(part: pd.DataFrame, effects: pd.DataFrame) -> dict:
    """Means, winners and verdicts of one model on one benchmark."""
    good = with_evidence(part)
    return {
        "n": int(good.item.nunique()),
        "area": finite(good.drop_duplicates("item").evidence_area.mean()),
        "methods": {str(m): of_method(rows) for m, rows in good.groupby("method")},
        "chance": {m: finite(chance_of(good, m)) for m in EVIDENCE},
        "best": {m: winner(good, m) for m in EVIDENCE},
        "effects": effects_told(effect_scores(same_items(part), effects)),
        "agreement": {
            row.truth: {k: finite(v) if k != "truth" else v for k, v in row._asdict().items()}
            for row in agreement(part, effects).itertuples(index=False)
        },
        "turned": turned(part),
    }


def of_method(rows: pd.DataFrame) -> dict:
    """All measures of one method."""
    out = {measure: counted(rows[measure]) for measure in EVIDENCE}
    return {"title": title(rows.method.iloc[0]), "n": len(rows)} | out


def winner(good: pd.DataFrame, measure: str) -> dict:
    """The method with the highest mean of a measure, and those that do not beat the Sobel edges.

    Over the items that all methods have; `lead` is the paired difference to the second.
    """
    told = best_of(good, measure)
    if not told:
        return {}
    means = {name: found["value"] for name, found in told["same"].items()}
    own = [name for name in means if name not in CONTROLS]
    below = [n for n in in_order(own) if "sobel" in means and means[n] <= means["sobel"]]
    keep = ("title", "second", "lead", "n", "same", "apart", "not_clearly_worse")
    return {
        **{key: told[key] for key in keep},
        **{end: told[measure][end] for end in ("value", "low", "high")},
        "below_sobel": {"count": len(below), "titles": listed(below), "of": len(own)},
    }


def effects_told(table: pd.DataFrame) -> dict:
    """Rank correlation of mass with effect, by method; the area of the objects as their rival."""
    if table.empty:
        return {}
    rows = table.set_index("method")
    own = rows.drop([AREA, *CONTROLS], errors="ignore")
    below = [name for name in own.index if own.spearman[name] <= rows.spearman[AREA]]
    unclear = [name for name in in_order(own.index) if not own.low[name] > 0]
    keep = ("spearman", "low", "high", "density", "top")
    return {
        "n": int(rows.n.max()),
        "best": title(own.index[0]) if len(own) else "none",
        "methods": {
            name: {k: finite(row[k]) for k in keep} | {"title": row["title"]}
            for name, row in rows.iterrows()
        },
        "below_area": {"count": len(below), "titles": listed(below), "of": len(own)},
        "around_chance": {"count": len(unclear), "titles": listed(unclear)},
    }


def turned(part: pd.DataFrame) -> dict:
    """Methods whose maps avoid the evidence: upside down, or of a model that looks elsewhere."""
    table = evidence_scores(part).set_index("method")
    own = [n for n in ranked(part) if n in table.index]
    low = [n for n in own if table.auc_high[n] < 0.5]
    return {"count": len(low), "titles": listed(low)}
