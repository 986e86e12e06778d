"""Where do models look, and do their answers need all of it together or any part of it?

Three numbers of a map: over what share of the picture it is spread (`spread`), in how many places
it is (`regions`), and, from its deletion and insertion curves, whether the answer behind it is
*compositional* (all that the map found is needed) or *disjunctive* (a part of it suffices). The
last follows from comparing two amounts of picture, both read along the map's own ranking:

    needed    the area that can be deleted before half of the answer's probability is lost
    enough    the area that must be inserted before half of it is there

An answer that needs everything at once loses it early and gains it late; one that is content with
any part loses it late and gains it early: `composition` = (enough - needed) / (enough + needed).
Planted readers say whether these measure what they claim; a description, word by word, and wrong
answers with the objects under their maps say what single maps tell.

    focus.models[mini/llava-1.5].igos.all.composition.value
    focus.pairs[mini/llava-1.5 & mini/llava-ov].same.value
"""

import base64
import html
import io
import re
from dataclasses import dataclass
from itertools import combinations
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import label

from ..answers import make_target, retarget, tokens_within
from ..benchmarks.base import Item
from ..figures import WIDTH, overlay, overlay_image, scale_bar
from ..heatmaps import METHODS, explain
from ..heatmaps.base import Explanation, explain_target
from ..heatmaps.names import PAPER_METHOD
from ..metrics.counterfactual import object_mass
from ..metrics.faithfulness import Faithfulness, deletion_insertion
from ..metrics.plausibility import GRAIN, area_means, rank_correlation
from ..metrics.statistics import compare, estimate, summarise
from ..models.planted import OBJECT, PlantedReader, planted, planted_scene
from ..scenes import scenes
from ..scenes.questions import CATEGORIES
from ..sweep.stored import enlarged
from .compare import Tables, correlation, estimated, finite, frames, interval

CORE = 0.5  # of the map's mass: what counts as where the map is
LEAST_REGION = 0.1  # of the core's mass: below this a region is a speck
HALF = 0.5
HALVES = (OBJECT[:2] + (0.75, 0.375), (0.75, 0.125) + OBJECT[2:])
THUMB = 84  # pixels a side on the contact sheet
COUNTS = ("none", "one", "two", "three or more")
EXPLORER = "../book/explorer.html"
MEASURES = ("spread", "regions", "needed", "enough", "composition")


def mass(saliency: np.ndarray, cells: int | None = GRAIN) -> np.ndarray:
    """The map's positive part as shares that sum to 1, averaged to `cells` x `cells` first.

    float64; NaN everywhere for a map without positive values. `cells` None leaves the map's size.
    """
    positive = np.clip(np.asarray(saliency, float), 0, None)
    positive = positive if cells is None else area_means(positive, cells)
    total = positive.sum()
    return positive / total if total > 0 else np.full(positive.shape, np.nan)


def entropy(saliency: np.ndarray, cells: int | None = GRAIN) -> float:
    """Shannon entropy of the map's mass over cells, nats: 0 in one cell, log(cells^2) if even."""
    p = mass(saliency, cells)
    return float(-(p * np.log(np.where(p > 0, p, 1))).sum())


def spread(saliency: np.ndarray, cells: int | None = GRAIN) -> float:
    """The share of the picture over which the map is effectively spread, in (0, 1].

    The exponential of the entropy is the number of cells that an even map of the same entropy
    would fill (Hill's number); divided by all cells it can be compared with an area.
    """
    count = cells**2 if cells is not None else np.size(saliency)
    return float(np.exp(entropy(saliency, cells)) / count)


def core(saliency: np.ndarray, share: float = CORE, cells: int | None = GRAIN) -> np.ndarray:
    """The smallest set of cells that holds `share` of the map's mass, bool (cells, cells)."""
    p = mass(saliency, cells)
    if np.isnan(p).any():
        return np.zeros(p.shape, bool)
    order = np.argsort(-p, axis=None, kind="stable")
    before = np.cumsum(p.ravel()[order]) - p.ravel()[order]
    inside = np.zeros(p.size, bool)
    inside[order] = before < share - 1e-9  # a sum that falls short by rounding is no cell short
    return inside.reshape(p.shape)


def regions(
    saliency: np.ndarray,
    share: float = CORE,
    least: float = LEAST_REGION,
    cells: int | None = GRAIN,
) -> int:
    """In how many separate places the core lies; cells that touch at a corner are one place.

    Places with less than `least` of the core's mass do not count; 0 for a map without mass.
    """
    inside, p = core(saliency, share, cells), mass(saliency, cells)
    marked, count = label(inside, np.ones((3, 3)))
    held = np.array([p[marked == n].sum() for n in range(1, count + 1)])
    return int((held >= least * p[inside].sum()).sum()) if count else 0


# --- compositional or disjunctive


def half_points(area, deletion, insertion) -> tuple[float, float]:
    """(needed, enough): changed area (S,) at which normalised curves (S,) first pass one half.

    Deletion starts near 1, insertion near 0; between two steps the curve is a straight line.
    NaN where a curve never passes.
    """
    return _passes_half(area, 1 - np.asarray(deletion, float)), _passes_half(area, insertion)


def _passes_half(area, curve) -> float:
    area, curve = np.asarray(area, float), np.asarray(curve, float)
    reached = curve >= HALF
    if not reached.any() or not np.isfinite(curve).all():
        return np.nan
    at = int(reached.argmax())
    if at == 0:
        return float(area[0])
    part = (HALF - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(area[at - 1] + part * (area[at] - area[at - 1]))


def composition(area, deletion, insertion) -> float:
    """Compositional (towards 1) or disjunctive (towards -1), from a map's two curves; see above.

    0 for a reader whose probability grows evenly with what it sees. The number is about what the
    map ranked first: a map that found one of two alternatives makes them look like one. It does not
    tell parts of an object from several objects; `regions` does.
    """
    needed, enough = half_points(area, deletion, insertion)
    total = needed + enough
    return float((enough - needed) / total) if total > 0 else np.nan


def normalised(raw, image: float, fill: float) -> np.ndarray:
    """A stored curve on the scale from the fill's probability (0) to the picture's (1)."""
    return (np.asarray(raw, float) - fill) / (image - fill)


# --- tables of results


def measured(maps: pd.DataFrame) -> pd.DataFrame:
    """Scored maps with columns spread, regions, needed, enough, composition.

    `maps` is `stored.stored_maps`, on grid units and blur. Controls have curves and no stored map,
    hence no spread and regions.
    """
    rows = maps[maps.status == "ok"].copy()
    kept = rows.saliency.notna()
    for name, function in (("spread", spread), ("regions", regions)):
        rows[name] = np.nan
        rows.loc[kept, name] = rows.saliency[kept].map(function).astype(float)
    found = [_curve_numbers(row) for row in rows.itertuples()]
    for place, name in enumerate(("needed", "enough", "composition")):
        rows[name] = [numbers[place] for numbers in found]
    return rows


def _curve_numbers(row) -> tuple[float, float, float]:
    deletion, insertion = (
        normalised(raw, row.image_score, row.fill_score)
        for raw in (row.deletion_curve, row.insertion_curve)
    )
    return *half_points(row.area, deletion, insertion), composition(row.area, deletion, insertion)


def needed_objects(effects: pd.DataFrame, least: float = 1.0) -> pd.DataFrame:
    """How many objects an answer cannot do without: those whose removal costs `least` nats.

    `effects` is the table of that kind; one row an item: model, benchmark, item, objects_needed.
    """
    if effects.empty:
        return pd.DataFrame(columns=["model", "benchmark", "item", "objects_needed"])
    rows = effects[effects.status == "ok"]
    counts = [int((np.asarray(effect, float) >= least).sum()) for effect in rows.effect]
    return rows[["model", "benchmark", "item"]].assign(objects_needed=counts)


def alike(maps: pd.DataFrame, method: str = PAPER_METHOD, seed: int = 0) -> pd.DataFrame:
    """How alike two models' maps are on the same item, and on different ones, pair by pair.

    Spearman over 14 x 14 cells. `same` is one value a shared item; `other` pairs each map of the
    first model with the second's map of the next item in a shuffled order: what two maps share
    because both are maps of drawn scenes.
    """
    kept = maps[(maps.method == method) & (maps.status == "ok") & maps.saliency.notna()]
    by_model = {name: part.set_index("item").saliency for name, part in kept.groupby("model")}
    rows = []
    for a, b in combinations(by_model, 2):
        shared = [item for item in by_model[a].index if item in by_model[b].index]
        order = np.random.default_rng(seed).permutation(len(shared))
        if len(shared) < 2:
            continue
        after = {shared[i]: shared[j] for i, j in zip(order, np.roll(order, -1), strict=True)}
        for item in shared:
            one, two, third = by_model[a][item], by_model[b][item], by_model[b][after[item]]
            same, other = (_correlated(one, each) for each in (two, third))
            rows.append({"a": a, "b": b, "item": item, "same": same, "other": other})
    return pd.DataFrame(rows, columns=["a", "b", "item", "same", "other"])


def _correlated(one: np.ndarray, two: np.ndarray) -> float:
    small = [area_means(np.asarray(each, float), GRAIN) for each in (one, two)]
    return rank_correlation(*small, cells=None)


def between_models(rows: pd.DataFrame, method: str = PAPER_METHOD, control: str = "random"):
    """The index of every two models on the items that both have: paired differences.

    `rows` is `measured`. Columns a, b, difference (a - b), low, high, p_holm, n, and `random`: the
    same difference when both models are given random maps, which is what the answers alone do.
    """
    found = compare(rows[rows.method == method], "composition", by="model")
    noise = rows[rows.method == control].pivot(index="item", columns="model", values="composition")
    both = rows[rows.method == method].pivot(index="item", columns="model", values="composition")
    found["random"] = [
        _shared_difference(noise, both, a, b) for a, b in zip(found.a, found.b, strict=True)
    ]
    return found[["a", "b", "n", "difference", "low", "high", "p_holm", "random"]]


def _shared_difference(noise: pd.DataFrame, both: pd.DataFrame, a: str, b: str) -> float:
    if not {a, b} <= set(noise):
        return np.nan
    items = both[[a, b]].dropna().index
    return float((noise[a] - noise[b]).reindex(items).mean())


# --- readers whose needs are known


def known_readers() -> dict[str, PlantedReader]:
    """Readers whose needs are known, by what they need of the picture."""
    return {
        "one object": planted("object"),
        "both objects": planted("conjunctive"),
        "either object": planted("disjunctive"),
        "both halves of one object": PlantedReader("planted/halves", HALVES, "all"),
    }


@dataclass(frozen=True, eq=False)
class Case:
    """One known reader, explained by iGOS and by noise, both scored."""

    needs: str
    explanation: Explanation
    score: Faithfulness
    noise: Faithfulness

    @property
    def row(self) -> dict:
        """What the measures say, as one row of a table."""
        needed, enough = half_points(*_curves(self.score))
        return {
            "the reader needs": self.needs,
            "insertion − deletion": self.score.gap,
            "needed": needed,
            "enough": enough,
            "composition": composition(*_curves(self.score)),
            "the same, random map": composition(*_curves(self.noise)),
            "regions": regions(self.explanation.saliency),
        }


def known_cases(seed: int = 0) -> list[Case]:
    """Every known reader on the planted scene; a few seconds."""
    picture, cases = planted_scene(), []
    for needs, reader in known_readers().items():
        question = "What colour is the shape?"
        ask = (reader, picture, question)
        maps = [
            explain(*ask, "igos", seed=seed, preset="paper"),
            explain(*ask, "random", seed=seed),
        ]
        scores = [deletion_insertion(reader, each) for each in maps]
        cases.append(Case(needs, maps[0], *scores))
    return cases


def _curves(score: Faithfulness) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    deletion, insertion = score.deletion_curve, score.insertion_curve
    return deletion.fractions, deletion.normalised, insertion.normalised


# --- a long answer


def named_objects(text: str, scene: scenes.Scene) -> list[tuple[int, tuple[int, int]]]:
    """(object, where its name stands in the text) for names that the scene has once."""
    found = []
    all_names = [thing.name for thing in scene.objects]
    for number, thing in enumerate(scene.objects):
        hits = list(re.finditer(rf"\b{re.escape(thing.name)}\b", text))
        if len(hits) == 1 and all_names.count(thing.name) == 1:
            found.append((number, hits[0].span()))
    return sorted(found, key=lambda pair: pair[1])


def name_maps(
    model, item: Item, method: str = "igos", seed: int = 0
) -> list[tuple[int, Explanation]]:
    """(object, map of the word that names it), in the order of the answer.

    Answer and picture are shared; only the explained word differs. Objects that the answer does
    not name, or that share their name with another, are left out.
    """
    target, reliance = make_target(model, item.rgb, item.question, tokens="all", seed=seed)
    about = {"name": method, "model": model.name, "question": item.question}
    about["size"] = item.rgb.shape[:2]
    return [
        (
            number,
            explain_target(
                METHODS[method],
                *retarget(target, reliance, tokens_within(reliance.answer, [span])),
                seed=seed,
                options={},
                **about,
            ),
        )
        for number, span in named_objects(reliance.answer.text, item.extra["scene"])
    ]


def name_table(item: Item, maps: list[tuple[int, Explanation]]) -> pd.DataFrame:
    """One row a named object: the density of its word's map on it, and on the densest other.

    Density is share of the map over share of the picture; 1 is what an even map has anywhere.
    """
    scene, rows = item.extra["scene"], []
    masks = [scenes.mask(scene, n) for n in range(len(scene.objects))]
    area = np.array([mask.mean() for mask in masks])
    for number, explanation in maps:
        density = object_mass(explanation.saliency, masks) / area
        others = np.delete(density, number)
        rows.append(
            {
                "item": item.id,
                "word": scene.objects[number].name,
                "on its object": density[number],
                "on the densest other": others.max(initial=0.0),
                "found": bool(density[number] > others.max(initial=0.0)),
            }
        )
    return pd.DataFrame(rows)


def distinct(items: list[Item], most: int = 5) -> list[Item]:
    """Items whose scene has at most `most` objects, no two with one name."""
    names = [[thing.name for thing in item.extra["scene"].objects] for item in items]
    good = [len(each) == len(set(each)) <= most for each in names]
    return [item for item, fits in zip(items, good, strict=True) if fits]


@dataclass(frozen=True, eq=False)
class Story:
    """A description, with one map for every word that names an object of its own."""

    item: Item
    maps: list[tuple[int, Explanation]]  # (object, map of the word that names it)

    @property
    def text(self) -> str:
        """What the model wrote."""
        return self.maps[0][1].answer.text if self.maps else ""

    @property
    def table(self) -> pd.DataFrame:
        """`name_table` of this item."""
        return name_table(self.item, self.maps)


def told(model, items: list[Item], method: str = "gae") -> list[Story]:
    """Long answers name by name."""
    return [Story(item, name_maps(model, item, method)) for item in items]


# --- answers and the objects under their maps


def described(thing: scenes.Sprite) -> str:
    """ "red cat"."""
    return f"{thing.color} {thing.name}"


def under_the_map(saliency: np.ndarray, scene: scenes.Scene) -> list[tuple[str, float]]:
    """The scene's objects with their share of a stored map's mass, heaviest first."""
    big = enlarged(saliency, scenes.SIDE, scenes.SIDE)
    masks = [scenes.mask(scene, n) for n in range(len(scene.objects))]
    shares = object_mass(big, masks)
    order = np.argsort(-shares, kind="stable")
    return [(described(scene.objects[n]), float(shares[n])) for n in order]


def wrong_answers(
    maps: pd.DataFrame, items: dict[str, Item], method: str = PAPER_METHOD
) -> pd.DataFrame:
    """Wrong answers that have a map: what was said, and what lies under the map.

    `off` is the share of the map's mass on objects that do not decide the right answer, of its
    mass on objects: near 1, the model looked at the wrong thing. NaN where no object decides.
    """
    chosen = (maps.method == method) & (maps.verdict == "wrong") & (maps.status == "ok")
    rows = []
    for row in maps[chosen & maps.saliency.notna()].itertuples():
        item = items[row.item]
        things = under_the_map(row.saliency, item.extra["scene"])
        rows.append(
            {
                "model": row.model,
                "item": row.item,
                "question": row.question,
                "said": row.answer,
                "right": item.reference,
                "under the map": ", ".join(name for name, _ in things[:4]),
                "off": off_the_evidence(row.saliency, item),
            }
        )
    columns = ["model", "item", "question", "said", "right", "under the map", "off"]
    return pd.DataFrame(rows, columns=columns)


def off_the_evidence(saliency: np.ndarray, item: Item) -> float:
    """Of a map's mass on objects, the share on objects that the right answer does not need."""
    scene, deciding = item.extra["scene"], item.extra["objects"]
    if not deciding:
        return float("nan")
    masks = [scenes.mask(scene, n) for n in range(len(scene.objects))]
    shares = object_mass(enlarged(saliency, scenes.SIDE, scenes.SIDE), masks)
    total = shares.sum()
    return float(1 - shares[list(deciding)].sum() / total) if total > 0 else float("nan")


# --- tables of the page


def focus_table(rows: pd.DataFrame, methods=(PAPER_METHOD, "random")) -> pd.DataFrame:
    """One row a model and method: how spread its maps are, and the compositional index."""
    table = []
    for (model, method), part in rows[rows.method.isin(methods)].groupby(["model", "method"]):
        mean = part[["spread", "regions", "needed", "enough"]].mean()
        found = estimate(part.composition)
        table.append(
            {
                "model": model,
                "map": method,
                "n": len(part),
                "spread": mean.spread,
                "regions": mean.regions,
                "needed": mean.needed,
                "enough": mean.enough,
                "composition": found.value,
                "from": found.low,
                "to": found.high,
            }
        )
    return pd.DataFrame(table)


def category_table(rows: pd.DataFrame, method: str = PAPER_METHOD) -> pd.DataFrame:
    """Spread, regions and index by category over all models, a random map's index beside it.

    Intervals draw whole items: the models' maps of one item are not independent.
    """
    table = []
    for category in CATEGORIES:
        part = rows[(rows.method == method) & (rows.category == category)]
        noise = rows[(rows.method == "random") & (rows.category == category)]
        if part.empty:
            continue
        found = estimate(part.composition, clusters=part.item)
        table.append(
            {
                "category": category,
                "maps": len(part),
                "items": part.item.nunique(),
                "spread": part.spread.mean(),
                "regions": part.regions.mean(),
                "composition": found.value,
                "from": found.low,
                "to": found.high,
                "random map": noise.composition.mean(),
            }
        )
    return pd.DataFrame(table)


def needs_table(rows: pd.DataFrame, needed: pd.DataFrame) -> pd.DataFrame:
    """Regions of the map and index, by how many objects the answer cannot do without."""
    joined = rows[rows.method == PAPER_METHOD].merge(needed, on=["model", "benchmark", "item"])
    part = joined.groupby(joined.objects_needed.astype(int).clip(upper=len(COUNTS) - 1))
    table = part[["regions", "spread", "composition"]].mean().assign(n=part.size())
    table.insert(0, "objects needed", [COUNTS[n] for n in table.index])
    return table


# --- figures


def known_figure(cases: list[Case]):
    """Deletion and insertion of every known reader, with the two areas that are compared."""
    figure, axes = plt.subplots(
        1, len(cases), figsize=(1.4 * WIDTH, 0.42 * WIDTH), sharey=True, layout="constrained"
    )
    for ax, case in zip(np.ravel(axes), cases, strict=True):
        deletion, insertion = case.score.deletion_curve, case.score.insertion_curve
        ax.plot(deletion.fractions, deletion.normalised, label="deletion", marker=".")
        ax.plot(insertion.fractions, insertion.normalised, "--", label="insertion", marker=".")
        ax.axhline(HALF, color="0.6", linewidth=0.8)
        found = composition(deletion.fractions, deletion.normalised, insertion.normalised)
        ax.set_title(f"{case.needs}\n{found:+.2f}".replace("-", "−"), fontsize="small")
        ax.set_xlim(0, 0.25)
        ax.set_xlabel("area changed", fontsize="small")
    np.ravel(axes)[0].set_ylabel("answer, 0 = blur, 1 = picture", fontsize="small")
    handles, labels = np.ravel(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2)
    return figure


def composition_figure(rows: pd.DataFrame, method: str = PAPER_METHOD, control: str = "random"):
    """The index by category of question, one panel a model: the map's own, and a random map's."""
    models = sorted(rows[rows.method == method].model.unique())
    figure, axes = _panels(len(models))
    for ax, model in zip(axes, models, strict=False):
        for name, marker, shift in ((method, "o", -0.12), (control, "D", 0.12)):
            part = rows[(rows.model == model) & (rows.method == name)]
            _points(ax, part, marker, shift, "map" if name == method else "random map")
        ax.axvline(0, color="0.6", linewidth=0.8)
        ax.set(title=model, xlim=(-1.05, 1.05), yticks=range(len(CATEGORIES)))
        ax.set_yticklabels(CATEGORIES)
        ax.set_xlabel("← any part suffices      all is needed →", fontsize="small")
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2)
    return figure


def _points(ax, rows: pd.DataFrame, marker: str, shift: float, name: str) -> None:
    found = summarise(rows, "composition", "category").set_index("category").reindex(CATEGORIES)
    place = np.arange(len(CATEGORIES)) + shift
    lower, upper = found.value - found.low, found.high - found.value
    bars = np.nan_to_num([lower, upper]).clip(min=0)
    fill = None if name == "map" else "white"
    ax.errorbar(
        found.value, place, xerr=bars, fmt=marker, label=name, capsize=2, markerfacecolor=fill
    )


def _panels(count: int, columns: int = 3, height: float = 0.48):
    """(figure, array of `count` axes), at most `columns` a row; those left over are removed."""
    columns = max(1, min(count, columns))
    lines = max(1, -(-count // columns))
    size = (max(1, columns / 2) * WIDTH, height * WIDTH * lines)
    figure, axes = plt.subplots(
        lines, columns, figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.ravel()[count:]:
        ax.remove()
    return figure, axes.ravel()[: max(count, 1)]


def names_figure(story: Story):
    """A long answer's picture, and the map of every word that names an object."""
    item, maps = story.item, story.maps
    figure, axes = plt.subplots(
        1, len(maps) + 1, figsize=(1.4 * WIDTH, 0.42 * WIDTH), layout="constrained"
    )
    axes[0].imshow(item.rgb)
    axes[0].set_axis_off()
    axes[0].set_title("the picture", fontsize="small")
    densities = [density(each.saliency) for _, each in maps]
    top = min(float(each.max()) for each in densities)  # one scale, on which every map is seen
    for ax, (number, _), each in zip(axes[1:], maps, densities, strict=True):
        overlay(ax, item.rgb, each, 0.0, top, bar=False)
        ax.set_title(f"“{item.extra['scene'].objects[number].name}”", fontsize="small")
    scale_bar(list(axes[1:]), 0.0, top, "times an even map")
    return figure


def density(saliency: np.ndarray) -> np.ndarray:
    """A map's positive part divided by its mean: how many times an even map, pixel by pixel."""
    positive = np.clip(np.asarray(saliency, float), 0, None)
    return positive / max(positive.mean(), 1e-12)


def wrong_figure(found: pd.DataFrame, maps: pd.DataFrame, items: dict, most: int = 4):
    """Wrong answers: picture and map, with what was asked, said, and right."""
    shown = found.head(most)
    figure, axes = plt.subplots(
        2, max(len(shown), 1), figsize=(1.4 * WIDTH, 0.75 * WIDTH), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, row in zip(axes.T, shown.itertuples(), strict=False):
        rgb = items[row.item].rgb
        same = (maps.model == row.model) & (maps.item == row.item) & (maps.method == PAPER_METHOD)
        saliency = enlarged(maps[same].saliency.iloc[0], *rgb.shape[:2])
        column[0].imshow(rgb)
        column[0].set_title(f"{row.model}\n{row.question}", fontsize="x-small")
        overlay(column[1], rgb, saliency, 0.0, 1.0, bar=False)
        column[1].set_title(f"said: {row.said}\nright: {row.right}", fontsize="x-small")
    for ax in axes.ravel():
        ax.set_axis_off()
    return figure


def sheet_items(maps: pd.DataFrame, method: str = PAPER_METHOD, each: int = 3) -> list[str]:
    """Items for the sheet: `each` a category, first those that most models have a map of."""
    kept = maps[(maps.method == method) & (maps.status == "ok") & maps.saliency.notna()]
    counts = kept.groupby(["category", "item"], sort=False).model.nunique().reset_index()
    counts = counts.sort_values("model", ascending=False, kind="stable")
    found = counts.groupby("category", sort=False).head(each)
    order = {name: place for place, name in enumerate(CATEGORIES)}
    found = found.assign(place=found.category.map(order)).sort_values("place", kind="stable")
    return list(found.item)


def contact_sheet(
    maps: pd.DataFrame, items: dict, method: str = PAPER_METHOD, each: int = 3
) -> str:
    """HTML: one line an item, one small map a model, every map a link into the explorer."""
    models = sorted(maps[maps.method == method].model.unique())
    kept = maps[(maps.method == method) & (maps.status == "ok") & maps.saliency.notna()]
    cells = {(row.item, row.model): row for row in kept.itertuples()}
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in models)
    lines = [f"<tr><th scope='col'>question</th><th scope='col'>picture</th>{head}</tr>"]
    for name in sheet_items(maps, method, each):
        item = items[name]
        rgb = item.rgb
        tiles = [_tile(cells.get((name, model)), item, rgb, method) for model in models]
        picture = f"<td>{_img(rgb, _scene_in_words(item))}</td>"
        question = f"<th scope='row'>{html.escape(item.question)}</th>"
        lines.append(f"<tr>{question}{picture}{''.join(tiles)}</tr>")
    style = "font-size:.75em;line-height:1.25;text-align:left;vertical-align:top"
    table = f"<table class='table' style='{style}'>{''.join(lines)}</table>"
    return f"<div class='contact-sheet' style='overflow-x:auto' tabindex='0'>{table}</div>"


def _tile(row, item, rgb: np.ndarray, method: str) -> str:
    """One map with the answer below it; a dash where there is none."""
    if row is None:
        return "<td>no map</td>"
    picture = overlay_image(rgb, enlarged(row.saliency, *rgb.shape[:2]), 0.0, 1.0)
    scene = item.extra.get("scene")
    first = under_the_map(row.saliency, scene)[0][0] if scene and scene.objects else ""
    alt = f"Map of {row.model}: {row.answer}" + (f" Most of it on the {first}." if first else "")
    words = {"model": row.model, "method": method, "item": row.item}
    link = "&amp;".join(f"{key}={quote(value, safe='')}" for key, value in words.items())
    said = html.escape(row.answer) + ("" if row.verdict == "correct" else f" ({row.verdict})")
    return f"<td><a href='{EXPLORER}?{link}'>{_img(picture, alt)}</a><br>{said}</td>"


def _img(rgb: np.ndarray, alt: str) -> str:
    file = io.BytesIO()
    Image.fromarray(rgb).resize((THUMB, THUMB), Image.Resampling.BILINEAR).save(
        file, "WEBP", quality=80, method=4
    )
    data = base64.b64encode(file.getvalue()).decode()
    alt = html.escape(alt, quote=True)
    return f"<img alt='{alt}' width='{THUMB}' height='{THUMB}' src='data:image/webp;base64,{data}'>"


def _scene_in_words(item) -> str:
    scene = item.extra.get("scene")
    if scene is None:
        return f"Picture {item.id}"
    things = ", ".join(described(thing) for thing in scene.objects)
    return f"A {scene.place} {'at night' if scene.night else 'by day'} with {things}."


# --- the numbers of the page


def focus_summary(tables: Tables) -> dict:
    """Spread, regions and index of every model, by category; and how alike models' maps are."""
    maps = frames(tables)
    if maps.empty:
        return {}
    rows = measured(maps)
    models = {
        model: {name: by_category(each) for name, each in part.groupby("method")}
        | {"index_against_random": against_random(part)}
        for model, part in rows.groupby("model")
    }
    likeness = alike(maps, PAPER_METHOD)
    pairs = {
        f"{a} & {b}": {"n": len(part), "same": interval(part.same), "other": interval(part.other)}
        for (a, b), part in likeness.groupby(["a", "b"])
    }
    chosen = rows[rows.method == PAPER_METHOD]
    overall = {name: over_models(part) for name, part in chosen.groupby("category")}
    differences = between(rows)
    return {
        "provenance": tables.origin(chosen),
        "models": models,
        "categories": overall,
        "pairs": pairs,
        "between": differences,
        "between_all": between_all(differences),
    }


def between(rows: pd.DataFrame) -> dict:
    """{"a - b": paired difference of the index, its interval, corrected p, the random maps'}."""
    table = between_models(rows)
    names = ("difference", "low", "high", "p_holm", "random")
    return {
        f"{row['a']} - {row['b']}": {"n": int(row["n"])} | {k: finite(row[k]) for k in names}
        for row in table.to_dict("records")
    }


def between_all(between: dict, level: float = 0.05) -> dict:
    """How many pairs differ clearly, and for how many n the test could not have said so.

    Where all of n differences point one way a sign-flip test gives p = 2 / 2^n.
    """
    if not between:
        return {"pairs": 0, "clear": 0, "least": None, "hopeless": 0}
    corrected = [pair["p_holm"] for pair in between.values() if pair["p_holm"] is not None]
    smallest = [len(between) * 2.0 ** (1 - pair["n"]) for pair in between.values()]
    return {
        "pairs": len(between),
        "clear": sum(p < level for p in corrected),
        "least": min(corrected, default=None),
        "hopeless": sum(p >= level for p in smallest),
    }


def by_category(rows: pd.DataFrame) -> dict:
    """{"all" or category: {measure: interval, "n"}}."""
    parts = {"all": rows} | dict(list(rows.groupby("category")))
    return {
        name: {"n": len(part)} | {m: interval(part[m]) for m in MEASURES}
        for name, part in parts.items()
    }


def over_models(rows: pd.DataFrame) -> dict:
    """The index over all models' maps of a category; intervals draw items."""
    found = estimate(rows.composition, clusters=rows.item)
    about = {"n": len(rows), "items": int(rows.item.nunique())}
    return about | {"composition": estimated(found)}


def against_random(rows: pd.DataFrame) -> dict:
    """Spearman, over items, of the map's index with that of a random map of the same item."""
    wide = rows.pivot_table("composition", "item", "method")
    if not {PAPER_METHOD, "random"} <= set(wide):
        return {"n": 0, "correlation": None}
    both = wide[[PAPER_METHOD, "random"]].dropna()
    return {"n": len(both), "correlation": correlation(both[PAPER_METHOD], both.random)}
