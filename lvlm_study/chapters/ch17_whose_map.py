"""Whose is a map: the picture's, the question's, the model's or the method's?

Several questions about one picture, several models and several methods give maps that share one of
these and differ in the others. `metrics.components` splits a map's variance by what is shared; the
part of the picture alone is split once more, by what three controls that never saw a model explain.

The second half holds maps, and the controls, against a truth that needs no fill: the exact Shapley
value of every object, from the scene drawn again with every subset of its objects.

    whose.methods[igos[preset=fast]].parts.question.value
    whose.truth[mini/llava-1.5].methods.difference.density.value
"""

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..answers import make_target
from ..benchmarks import load_benchmark
from ..benchmarks.base import Item
from ..errors import StudyError
from ..figures import QUANTILE, WIDTH, dots, grid, overlay, picture, when_run
from ..heatmaps import explain_target
from ..heatmaps.names import NOBODY, title
from ..heatmaps.variants import parse
from ..metrics.coalitions import interactions, object_gap, shapley_values
from ..metrics.components import FACTORS, GRID, picture_parts, standardised, unit, without
from ..metrics.counterfactual import LEAST_OBJECTS, LEAST_SPREAD, ranked_as
from ..metrics.ranks import rank_agreement
from ..metrics.sanity import randomised_copies
from ..metrics.statistics import estimate, share
from ..models.names import short
from ..sweep.stored import BUSY, Tables, enlarged, grids, one_way
from ..sweep.tables import read_table
from .compare import (
    AREA,
    LEAST,
    OTHER_ARCHITECTURE,
    OTHER_SEED,
    OTHER_SIZE,
    control_map,
    method_panels,
    relation,
    rows_of,
    scored,
    shown,
    told,
    wide,
)

BENCHMARK = "sprites_clutter-0"  # several questions about every picture
METHODS = ("igos[preset=fast]", "occlusion", "gae", "attention")
ARCHITECTURES = ("mini/llava-1.5", "mini/llava-ov", "mini/cambrian-l")  # of one size
MODELS = (*ARCHITECTURES, "mini/llava-1.5-m", "mini/llava-1.5-s", "mini/llava-1.5-s-seed1")
FURTHER = {  # models that differ in less than the architecture
    OTHER_SIZE: ("mini/llava-1.5", "mini/llava-1.5-m", "mini/llava-1.5-s"),
    OTHER_SEED: ("mini/llava-1.5-s", "mini/llava-1.5-s-seed1"),
}
KNOWN = ("difference", "sobel", "center")  # maps of the picture that saw no model
OTHER_QUESTION, NEITHER = "other question", "other question and architecture"
OTHER_PICTURE = "other picture"
NULLS = (OTHER_SEED, OTHER_SIZE, OTHER_ARCHITECTURE, OTHER_QUESTION, NEITHER, OTHER_PICTURE)
FINE = 14  # cells a side of a second, finer grid: do the parts depend on it?
TOGETHER = "together"
PARTS = {  # name -> (what the figure calls it, colour); light text on the dark ones
    "known": ("picture: difference,\nedges, centre", "#0072b2"),
    "picture": ("picture:\nother", "#56b4e9"),
    "method": ("method", "#999999"),
    "question": ("question", "#e69f00"),
    "model": ("model", "#cc79a7"),
    "rest": ("combined,\nand noise", "#dddddd"),
}
SCENE = ("shapley", "size", "probability")
EXACT = "exact"  # the order of the Shapley values themselves
SMALL = 7  # points, above a small map
LEGIBLE = 3.5  # per cent of a bar that can hold a number
PLACES = (0, 34, 54, 72, 84)  # per cent: where the names of a bar's parts stand
NATS = 1.0  # an interaction of objects below or above this is told: a factor e in the odds


# --- maps


def kept_maps(stored: pd.DataFrame, items: list[Item]) -> pd.DataFrame:
    """The stored maps (`stored.stored_maps`, with ablations) that this page compares.

    One row a map: picture, question (the item), model, method, saliency (h, w), and what it had.
    """
    pictures = {item.id: item.extra["picture"] for item in items}
    rows = stored[(stored.benchmark == BENCHMARK) & stored.model.isin(MODELS)]
    rows = rows[rows.method.isin(METHODS) & rows.status.isin(["ok", "no_gap"])]
    rows = rows[rows.saliency.notna() & (rows.saliency.map(_range) > 0)]
    rows = rows.assign(picture=rows.item.map(pictures), question=rows.item)
    return rows.drop_duplicates(["item", "model", "method"]).reset_index(drop=True)


def _range(saliency) -> float:
    return 0.0 if saliency is None else float(np.ptp(saliency))


def known_maps(rows: pd.DataFrame, items: list[Item], size: int = GRID) -> dict[str, np.ndarray]:
    """{picture: (3, G)}: the difference picture, edges and centre of every picture in `rows`."""
    one = {item.extra["picture"]: item for item in items}
    return {
        name: standardised([control_map(k, one[name], 0) for k in KNOWN], size)
        for name in sorted(rows.picture.unique())
    }


def beyond(maps: np.ndarray, rows: pd.DataFrame, known: dict[str, np.ndarray]) -> np.ndarray:
    """What the maps (N, G) have beyond the known maps of their own picture."""
    out = np.empty_like(maps)
    for name, places in rows.groupby("picture").indices.items():
        out[places] = without(maps[places], known[name])
    return out


def random_weights(model, rows: pd.DataFrame, items: list[Item], count: int = 8) -> pd.DataFrame:
    """The same answers explained by a model whose weights have all been drawn anew.

    `count` answers of `model` that have a map in `rows`, at most one a picture. One row a method
    and answer: method, item, and rank correlations: of the new map with that of the trained model
    (`kept`) and with the difference picture (`difference`), and of the trained model's with the
    latter (`trained`) and with one more of its own by another seed (`seed`).
    """
    mine, known = rows[rows.model == model.name], {item.id: item for item in items}
    chosen = mine[mine.method == METHODS[0]].drop_duplicates("picture").item[:count]
    stored = mine.set_index(["item", "method"]).saliency
    *_, (_, empty) = randomised_copies(model, "cascading")
    return pd.DataFrame(
        {"method": method, "item": name} | _redrawn(model, empty, known[name], method, old)
        for name in chosen
        for method in METHODS
        if (old := stored.get((name, method))) is not None
    )


def _redrawn(model, empty, item: Item, method: str, old: np.ndarray) -> dict[str, float]:
    name, options = parse(method)
    target = make_target(model, item.rgb, item.question)
    other = replace(target, bound=empty.bind(target.bound.size, item.question))
    again = explain_target(name, target, seed=1, **options).saliency
    new = explain_target(name, other, **options).saliency
    maps = standardised([old, again, new, control_map("difference", item, 0)])
    seed, kept, trained = maps[0] @ maps[1:].T
    return {"seed": seed, "kept": kept, "trained": trained, "difference": maps[2] @ maps[3]}


# --- tables of the page


def random_table(found: pd.DataFrame) -> pd.DataFrame:
    """A row a method of `random_weights`: means with intervals over pictures."""
    columns = {"trained": "trained ~ difference", "difference": "random ~ difference"}
    columns |= {"kept": "random ~ trained", "seed": "two seeds"}
    return pd.DataFrame(
        {"method": name_of(method), "n": len(part)}
        | {said: f"{estimate(part[name]):.2f}" for name, said in columns.items()}
        for method, part in found.groupby("method", sort=False)
    )


def likeness_table(tree: dict) -> pd.DataFrame:
    """A row a method: maps of two models, as they are and given the difference picture."""
    rows, nothing = [], estimate([]).json()
    for method, found in tree["methods"].items():
        row = {"method": name_of(method)}
        for null in (OTHER_SEED, OTHER_SIZE, OTHER_ARCHITECTURE):
            row[null] = shown(found["nulls"].get(null, nothing))
            row[f"{null}, given"] = shown(found["given"].get(null, nothing))
        rows.append(row)
    return pd.DataFrame(rows)


def kind_table(tree: dict) -> pd.DataFrame:
    """A row a method: what its maps owe to the model, and the rest, by what models differ in."""
    rows = []
    for method, found in tree["methods"].items():
        row = {"method": name_of(method)}
        for kind, parts in ({OTHER_ARCHITECTURE: found["parts"]} | found["kinds"]).items():
            row |= {f"{kind}: {part}": shown(parts[part]) for part in ("model", "rest")}
        rows.append(row)
    return pd.DataFrame(rows)


def truth_table(tree: dict) -> pd.DataFrame:
    """A row a method and model, the closest to the Shapley values per area first."""
    rows = [
        {"model": short(model), "method": title(method) if method != AREA else "object's area"}
        | {"n": row["density"]["n"] or row["mass"]["n"]}
        | {"blur": shown(row["blur"]), "objects": shown(row["objects"])}
        | {"mass": shown(row["mass"]), "per area": shown(row["density"])}
        | {"order": -1.0 if row["density"]["value"] is None else row["density"]["value"]}
        for model, found in tree["truth"].items()
        for method, row in found["methods"].items()
    ]
    table = pd.DataFrame(rows).sort_values(["model", "order"], ascending=[True, False])
    return table.drop(columns="order")


def pair_table(tree: dict) -> pd.DataFrame:
    """A row a model: scenes with two objects that stand in for, or need, each other (%)."""
    return pd.DataFrame(
        {"model": short(model), "scenes": found["scenes"]["redundant"]["n"]}
        | {name: told(found["scenes"][name]) for name in ("redundant", "complementary", "both")}
        for model, found in tree["truth"].items()
    )


def name_of(method: str) -> str:
    """A method of this page for readers: all maps of iGOS here are of one preset."""
    return "All four methods" if method == TOGETHER else title(method.partition("[")[0])


# --- figures


def share_figure(tree: dict):
    """A bar a method, cut into what its maps owe to picture, question, model and the rest."""
    bars = {name: found["parts"] for name, found in tree["methods"].items()}
    bars |= {TOGETHER: tree["together"]} if tree["together"] else {}
    size = (WIDTH, 0.9 + 0.62 * len(bars))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for place, found in enumerate(bars.values()):
        _bar(ax, place, found)
    _name_parts(ax, next(iter(bars.values())))
    ax.set_yticks(range(len(bars)), [name_of(name) for name in bars])
    ax.set(xlim=(0, 100), ylim=(len(bars) - 0.5, -1.15))
    ax.set_xlabel("% of the variance of a map's ranks")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def _cut(found: dict) -> Iterator[tuple[str, float, float]]:
    """(part, where it begins, how wide it is) in per cent; what is below 0 has no width."""
    left = 0.0
    for name in PARTS:
        if name in found:
            width = 100 * max(found[name]["value"], 0.0)
            yield name, left, width
            left += width


def _bar(ax, place: int, found: dict) -> None:
    for name, left, width in _cut(found):
        ax.barh(place, width, left=left, color=PARTS[name][1], edgecolor="white", height=0.72)
        ink, middle = "white" if name == "known" else "black", left + width / 2
        if width > LEGIBLE:
            look = {"ha": "center", "va": "center", "color": ink, "fontsize": "small"}
            ax.text(middle, place, f"{width:.0f}", **look)
        if name == "method":  # the bar of all methods alone has it
            ax.text(middle, place - 0.38, name, ha="center", va="bottom", fontsize="x-small")


def _name_parts(ax, found: dict) -> None:
    """The names of the parts in a line above the bars, in their order, each with its colour."""
    names = [name for name in PARTS if name in found]
    for at, name in zip(PLACES, names, strict=True):
        label, colour = PARTS[name]
        ax.text(at, -0.56, label, va="bottom", fontsize="x-small")
        ax.plot([at, at + 6], [-0.48] * 2, color=colour, lw=4, solid_capstyle="butt")


@when_run
def null_figure(tree: dict):
    """How alike two maps of one method are that differ in one thing; a panel a method.

    Filled as they are, hollow given the difference picture; below, the controls themselves.
    """
    methods = tree["methods"]
    figure, axes = grid(len(methods), 0.3 * (len(NULLS) + len(KNOWN)) + 0.6, 4, sharex=True)
    names = [*NULLS, *map(title, KNOWN)]
    for ax, (method, found) in zip(axes, methods.items(), strict=True):
        ax.axvline(0, color="0.3", linestyle=":", linewidth=1)
        raw = [found["nulls"].get(null) for null in (*NULLS, *KNOWN)]
        own, colours = len(NULLS), ["#0072b2"] * len(NULLS) + ["0.45"] * len(KNOWN)
        dots(ax, raw, names, colour=colours, label="as they are")
        given = [found["given"].get(null) for null in NULLS]
        look = {"colour": "#d55e00", "marker": "D", "hollow": True}
        dots(ax, given, places=np.arange(own) + 0.28, label="given the difference picture", **look)
        ax.set_title(name_of(method), fontsize="small")
    figure.supxlabel("rank correlation", fontsize="small")
    marks = axes[0].get_legend_handles_labels()
    figure.legend(*marks, loc="outside upper center", ncol=2, fontsize="small")
    return figure


def gallery_figure(
    rows: pd.DataFrame,
    items: list[Item],
    models=ARCHITECTURES[:2],
    methods=("igos[preset=fast]", "occlusion"),
):
    """One picture: three questions in rows, two models by two methods in columns, and the controls.

    The first of the pictures that have most questions with all maps. Raises StudyError when no
    question has them.
    """
    known = {item.id: item for item in items}
    rows = rows[rows.model.isin(models) & rows.method.isin(methods)]
    columns = [(method, model) for method in methods for model in models]
    counts = rows.groupby(["picture", "question"]).size() == len(columns)
    full = counts[counts].groupby("picture").size()
    if full.empty:
        raise StudyError("No question has maps of both models by both methods; run more items.")
    questions = list(counts[full.idxmax()].loc[lambda has: has].index)
    cells = rows.set_index(["question", "method", "model"])
    figure = plt.figure(figsize=(WIDTH, 0.3 * WIDTH * len(questions)), layout="constrained")
    lines = np.atleast_1d(figure.subfigures(len(questions), 1))
    for line, question, control in zip(lines, questions, (None, *KNOWN), strict=False):
        axes, rgb = line.subplots(1, 1 + len(columns)), known[question].rgb
        _control(axes[0], known[question], control)
        for ax, (method, model) in zip(axes[1:], columns, strict=True):
            row = cells.loc[(question, method, model)]
            _over(ax, rgb, row.saliency)
            said = textwrap.fill(row.answer, 24)
            ax.set_title(f"{name_of(method)}, {short(model)}\n{said}", fontsize=SMALL)
        line.suptitle(known[question].question, fontsize="small")
    return figure


def _over(ax, rgb: np.ndarray, saliency: np.ndarray) -> None:
    """A map on a scale of its own: what is compared is the order of places, not the strength."""
    big = enlarged(saliency, *rgb.shape[:2])
    overlay(ax, rgb, big, 0, max(float(np.quantile(big, QUANTILE)), 1e-12), bar=False)


def _control(ax, item: Item, name: str | None) -> None:
    """The picture of an item; a control's map of it where one is named."""
    if name is None:
        return picture(ax, item.rgb, "the picture\n", SMALL)
    _over(ax, item.rgb, control_map(name, item, 0))
    ax.set_title(f"{title(name)}\n", fontsize=SMALL)


@when_run
def truth_figure(tree: dict):
    """Insertion − deletion by blur beside the agreement with exact Shapley values, by model."""
    parts, order = [], []
    for model, found in tree["truth"].items():
        rows = {k: v for k, v in found["methods"].items() if k not in (AREA, EXACT)}
        order = order or sorted(rows, key=lambda m: -(rows[m]["blur"]["value"] or 0))
        for measure, head in (("blur", "blur: ins. − del."), ("density", "Shapley values")):
            table = pd.DataFrame(
                [{"method": m} | row[measure] for m, row in rows.items()], dtype=object
            )
            table = table.astype({k: float for k in ("value", "low", "high", "n")})
            parts.append((f"{short(model)}\n{head}", table, ("value", "low", "high"), 0.0))
    figure, axes = method_panels(parts, order, sharex=False)
    for ax in axes:
        ax.set_xlim(-0.25, 1.05)
    return figure


# --- the numbers of the page


def summary(tables: Tables) -> dict:
    """`whose.json`: parts and likeness of maps, and methods against Shapley values."""
    asked = Tables(tables.results / BUSY, tables.profile, tables.seed).maps
    if tables.maps.empty or asked.empty or BENCHMARK not in set(asked.benchmark):
        return {}
    items = load_benchmark(BENCHMARK)
    maps = one_way(asked[asked.benchmark == BENCHMARK])
    rows = kept_maps(maps.assign(saliency=grids(maps)), items)
    truth = truth_summary(rows_of(tables.maps), subset_table(tables.results))
    found = map_summary(rows, items)
    return {"provenance": tables.origin(rows)} | found | {"truth": truth} if found else {}


def map_summary(rows: pd.DataFrame, items: list[Item]) -> dict:
    """Parts and likeness, method by method; {} where no picture has all kinds of pairs."""
    maps, known = standardised(rows.saliency, GRID), known_maps(rows, items)
    methods = {}
    for method in METHODS:
        mine = (rows.method == method).to_numpy()
        own, some = maps[mine], rows[mine].reset_index(drop=True)
        found = parts_of(own, some, known)
        if found:
            kinds = {k: parts_of(own, some, known, models=m) for k, m in FURTHER.items()}
            kinds = {k: {n: p[n] for n in ("model", "rest")} for k, p in kinds.items() if p}
            methods[method] = {"parts": found, "kinds": kinds, **likeness(own, some, known)}
    if not methods:
        return {}
    return {
        "maps": len(rows),
        "architectures": models_of(rows, ARCHITECTURES),
        "further": models_of(rows, MODELS[len(ARCHITECTURES) :]),
        "methods": methods,
        "together": parts_of(maps, rows, known, FACTORS),
        "finer": finer(rows, items, methods),
    }


def models_of(rows: pd.DataFrame, among) -> dict:
    """How many of some models have maps, and which."""
    names = [short(name) for name in among if name in set(rows.model)]
    return {"count": len(names), "names": ", ".join(names) or NOBODY}


def parts_of(
    maps: np.ndarray,
    rows: pd.DataFrame,
    known: dict,
    factors=("question", "model"),
    models=ARCHITECTURES,
) -> dict:
    """{part: estimate} of the maps of some models; `PARTS` says what they are.

    All combinations of factors are in "rest". {} with fewer than `LEAST` pictures.
    """
    mine = rows.model.isin(models).to_numpy()
    maps, rows = maps[mine], rows[mine].reset_index(drop=True)
    try:
        whole = picture_parts(maps, rows, factors)
        left = picture_parts(beyond(maps, rows, known), rows, factors)
    except StudyError:  # too few maps so far: no two that differ in this and share that
        return {}
    if len(whole) < LEAST:
        return {}
    table = whole[list(factors)].assign(known=whole.picture - left.picture, picture=left.picture)
    table["rest"] = 1 - table.sum(axis=1)
    return {name: estimate(table[name]).json() for name in PARTS if name in table}


def finer(rows: pd.DataFrame, items: list[Item], methods: dict) -> dict:
    """The greatest change of a part on a grid of `FINE` cells a side, in shares of the whole."""
    maps, known = standardised(rows.saliency, FINE), known_maps(rows, items, FINE)
    changes = []
    for method, found in methods.items():
        mine = (rows.method == method).to_numpy()
        other = parts_of(maps[mine], rows[mine].reset_index(drop=True), known)
        changes += [abs(other[k]["value"] - found["parts"][k]["value"]) for k in other]
    return {"cells": FINE, "change": max(changes, default=0.0)}


def likeness(maps: np.ndarray, rows: pd.DataFrame, known: dict) -> dict:
    """Rank correlations of one method's maps, by what two differ in, means over pictures.

    "nulls" as they are, and with the controls themselves; "given" what two maps of one picture
    still share when what the difference picture explains is taken from both (partial correlation).
    """
    found = pd.DataFrame(pair_rows(maps, rows, known))
    kinds = {"nulls": "value", "given": "partial"}
    return {
        name: {
            null: estimate(part[column]).json()
            for null, part in found.groupby("null")
            if part[column].notna().any()
        }
        for name, column in kinds.items()
    }


def pair_rows(maps: np.ndarray, rows: pd.DataFrame, known: dict) -> Iterator[dict]:
    """One row a picture and null: picture, null, value, partial (see `likeness`)."""
    groups = rows.groupby("picture", sort=True).indices
    apart = unit(beyond(maps, rows, {name: known[name][:1] for name in groups}))
    names = list(groups)
    for name, after in zip(names, names[1:] + names[:1], strict=True):
        own, others = groups[name], groups[after] if after != name else []
        for control, value in zip(KNOWN, _mean(maps[own] @ known[name].T), strict=True):
            yield {"picture": name, "null": control, "value": value, "partial": np.nan}
        for null, one, other in _pairs(rows, own, others):
            value, partial = (_mean((x[one] * x[other]).sum(1)) for x in (maps, apart))
            yield {"picture": name, "null": null, "value": value, "partial": partial}


def _mean(values: np.ndarray):
    """Over the first axis, NaN left out; NaN for nothing."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(0)
    return total / np.where(known.any(0), known.sum(0), np.nan)


def _pairs(rows: pd.DataFrame, own, others) -> Iterator[tuple[str, list[int], list[int]]]:
    """(null, maps, partners) of every null that some of a picture's maps can be paired for."""
    model, question = rows.model.to_numpy(), rows.question.to_numpy()
    found: dict[str, list] = {null: [] for null in NULLS}
    for one, other in combinations(own, 2):
        null = _null(model[one], model[other], question[one] == question[other])
        if null in found:
            found[null].append((one, other))
    found[OTHER_PICTURE] = [(i, j) for i in own for j in others if model[i] == model[j]]
    for null, pairs in found.items():
        if pairs:
            yield null, *map(list, zip(*pairs, strict=True))


def _null(one: str, other: str, same_question: bool) -> str:
    """What two maps of one picture and method differ in."""
    if one == other:
        return OTHER_QUESTION
    kind = relation(one, other)
    return kind if same_question else NEITHER if kind == OTHER_ARCHITECTURE else ""


# --- exact Shapley values


def subset_table(results) -> pd.DataFrame:
    """Scores of scenes drawn with every subset of their objects, one row a model and item."""
    frame = read_table(results, "subsets")
    return frame[frame.score.notna()] if len(frame) else frame


def scene_rows(subsets: pd.DataFrame) -> pd.DataFrame:
    """One row a scene with its exact `shapley` values (O,), and what pairs of objects do.

    `redundant` where two objects are worth at least `NATS` less together than each adds alone,
    `complementary` where they are worth as much more; `alone` is the rank correlation of the
    Shapley values with what is lost when one object is taken away from the whole scene.
    """
    rows = []
    for row in subsets.itertuples():
        score = np.asarray(row.score, float)
        value, pairs = shapley_values(score), interactions(score)
        alone = score[-1] - score[[len(score) - 1 - (1 << i) for i in range(len(value))]]
        rows.append(
            {"model": row.model, "benchmark": row.benchmark, "item": row.item, "shapley": value}
            | {"probability": np.asarray(row.probability, float), "size": np.asarray(row.area)}
            | {"redundant": pairs.min() <= -NATS, "complementary": pairs.max() >= NATS}
            | {"alone": ranked_as(alone, value) if told_apart(value) else np.nan}
        )
    return pd.DataFrame(rows)


def told_apart(values: np.ndarray) -> bool:
    """Whether there are enough objects, and different values, to be ranked."""
    return len(values) >= LEAST_OBJECTS and np.ptp(values) >= LEAST_SPREAD


def held_against(maps: pd.DataFrame, scenes: pd.DataFrame) -> pd.DataFrame:
    """Scored maps (`rows_of`) joined with the Shapley values of their scene's objects.

    New columns: `by_mass` and `by_density`, rank correlations of the map's mass on every object,
    and of mass per area, with the values; `objects`, deletion and insertion of whole objects in the
    order of the density, in probability. A map that says nothing counts as chance, 0.
    """
    if scenes.empty or "mass" not in maps:
        return maps.iloc[:0]
    good = scored(maps).merge(scenes, on=["model", "benchmark", "item"])
    good = good[good.shapley.map(told_apart)]
    good["mass"] = [
        np.zeros(len(v)) if s == "constant" or m is None else np.asarray(m, float)
        for m, v, s in zip(good.mass, good.shapley, good.status, strict=True)
    ]
    found = [_against(*one) for one in good[["mass", *SCENE]].itertuples(index=False)]
    return good.assign(
        **pd.DataFrame(found, columns=["by_mass", "by_density", "objects"], index=good.index)
    )


def _against(mass, shapley, size, probability) -> tuple[float, float, float]:
    density = mass / np.maximum(size, 1e-12)
    span = probability[-1] - probability[0]
    ranks = np.nan_to_num([ranked_as(x, shapley) for x in (mass, density)])
    return *ranks, object_gap(probability, density) * span if span else 0.0


def truth_summary(maps: pd.DataFrame, subsets: pd.DataFrame) -> dict:
    """{model: scenes, methods against Shapley values, and how far blur's score orders them so}."""
    if subsets.empty:
        return {}
    scenes = scene_rows(subsets)
    joined = held_against(maps, scenes)
    return {
        model: {
            "scenes": of_scenes(scenes[scenes.model == model]),
            "methods": of_methods(part),
            "agreement": rank_agreement(wide(part), wide(part, "by_density")),
        }
        for model, part in joined.groupby("model")
    }


def of_scenes(scenes: pd.DataFrame) -> dict:
    """Shares of scenes with such pairs, and whether one object at a time tells as much."""
    both = scenes.redundant & scenes.complementary
    found = {"redundant": scenes.redundant, "complementary": scenes.complementary, "both": both}
    shares = {name: share(int(kind.sum()), len(scenes)) for name, kind in found.items()}
    return shares | {"alone": estimate(scenes.alone).json()}


def of_methods(part: pd.DataFrame) -> dict:
    """{method: mass, density, objects, blur}, and the objects' area as a rival of every map."""
    columns = {"mass": "by_mass", "density": "by_density", "objects": "objects", "blur": "gap"}
    found = {
        str(method): {name: estimate(rows[column]).json() for name, column in columns.items()}
        for method, rows in part.groupby("method")
    }
    once = part.drop_duplicates("item")
    area = [ranked_as(a, v) for a, v in zip(once["size"], once.shapley, strict=True)]
    perfect = [_against(v * a, v, a, p)[2] for v, a, p in once[list(SCENE)].itertuples(index=False)]
    nothing = estimate([]).json()
    found[AREA] = dict.fromkeys(columns, nothing) | {"mass": estimate(np.nan_to_num(area)).json()}
    found[EXACT] = dict.fromkeys(columns, nothing) | {"objects": estimate(perfect).json()}
    return found
