"""Where do models look, and do their answers need all of it together or any part of it?

`metrics.focus` has the measures. Planted readers say whether these measure what they claim; a
description, word by word, and wrong answers with the objects under their maps say what single maps
tell.

    focus.models[mini/llava-1.5].index_against_random.correlation
    focus.pairs[mini/llava-1.5 & mini/llava-ov].same.value
"""

import base64
import html
import io
import re
from dataclasses import dataclass
from itertools import combinations
from urllib.parse import quote

import numpy as np
import pandas as pd
from PIL import Image

from ..answers import make_target, retarget, tokens_within
from ..benchmarks.base import Item
from ..figures import (
    WIDTH,
    chance_line,
    dots,
    grid,
    legend_below,
    overlay,
    overlay_image,
    picture,
    scale_bar,
)
from ..heatmaps import explain, explain_target
from ..heatmaps.base import Explanation
from ..heatmaps.names import PAPER_METHOD
from ..metrics.counterfactual import object_mass
from ..metrics.faithfulness import Faithfulness, deletion_insertion
from ..metrics.focus import HALF, composition, half_points, normalised, regions, spread
from ..metrics.plausibility import GRAIN, area_means, rank_correlation
from ..metrics.statistics import compare, estimate, finite
from ..models.planted import OBJECT, PlantedReader, planted, planted_scene
from ..scenes import scenes
from ..scenes.questions import CATEGORIES
from ..sweep.stored import Tables, enlarged
from .compare import correlation, estimated, frames, interval

HALVES = (OBJECT[:2] + (0.75, 0.375), (0.75, 0.125) + OBJECT[2:])
THUMB = 84  # pixels a side on the contact sheet
COUNTS = ("none", "one", "two", "three or more")
EXPLORER = "../book/explorer.html"


# --- tables of results


def measured(maps: pd.DataFrame) -> pd.DataFrame:
    """Scored maps with columns spread, regions, needed, enough, composition.

    `maps` is `stored.stored_maps`, on grid units and blur. Controls have curves and no stored map,
    hence no spread and regions.
    """
    rows = maps[maps.status == "ok"].copy()
    for name, function in (("spread", spread), ("regions", regions)):
        rows[name] = rows.saliency.map(function, na_action="ignore").astype(float)
    found = [_curve_numbers(row) for row in rows.itertuples()]
    names = ["needed", "enough", "composition"]
    return rows.assign(**pd.DataFrame(found, columns=names, index=rows.index))


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

    Rank correlations of 14 x 14 cells. `same` is one value a shared item; `other` pairs each map of
    the first model with the second's map of the next item in a shuffled order: what two maps share
    because both are maps of drawn scenes.
    """
    kept = _with_map(maps, method)
    kept = kept.assign(cells=[area_means(m.astype(float), GRAIN) for m in kept.saliency])
    by_model = {name: part.set_index("item").cells for name, part in kept.groupby("model")}
    rows = []
    for a, b in combinations(by_model, 2):
        shared = [item for item in by_model[a].index if item in by_model[b].index]
        order = np.random.default_rng(seed).permutation(len(shared))
        if len(shared) < 2:
            continue
        after = {shared[i]: shared[j] for i, j in zip(order, np.roll(order, -1), strict=True)}
        for item in shared:
            one, two, third = by_model[a][item], by_model[b][item], by_model[b][after[item]]
            same, other = (rank_correlation(one, each, None) for each in (two, third))
            rows.append({"a": a, "b": b, "item": item, "same": same, "other": other})
    return pd.DataFrame(rows, columns=["a", "b", "item", "same", "other"])


def _with_map(maps: pd.DataFrame, method: str) -> pd.DataFrame:
    return maps[(maps.method == method) & (maps.status == "ok") & maps.saliency.notna()]


def between_models(rows: pd.DataFrame, method: str = PAPER_METHOD, control: str = "random"):
    """The index of every two models on the items that both have: paired differences.

    `rows` is `measured`. Columns a, b, difference (a - b), low, high, p_holm, n, and `random`: the
    same difference when both models are given random maps, which is what the answers alone do.
    """
    found = compare(rows[rows.method == method], "composition", by="model")
    both, noise = (
        rows[rows.method == name].pivot(index="item", columns="model", values="composition")
        for name in (method, control)
    )
    noise = noise.reindex(both.index, columns=both.columns)
    apart = [
        (noise[a] - noise[b])[both[[a, b]].notna().all(axis=1)].mean()
        for a, b in zip(found.a, found.b, strict=True)
    ]
    return found.assign(random=apart)[
        ["a", "b", "n", "difference", "low", "high", "p_holm", "random"]
    ]


# --- readers whose needs are known


@dataclass(frozen=True, eq=False)
class Case:
    """One reader whose needs are known, explained by iGOS and by noise, both scored."""

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
    readers = {
        "one object": planted("object"),
        "both objects": planted("conjunctive"),
        "either object": planted("disjunctive"),
        "both halves of one object": PlantedReader("planted/halves", HALVES, "all"),
    }
    cases = []
    for needs, reader in readers.items():
        ask = (reader, planted_scene(), "What colour is the shape?")
        found = explain(*ask, "igos", seed=seed, preset="paper")
        noise = explain(*ask, "random", seed=seed)
        cases.append(Case(needs, found, *(deletion_insertion(reader, m) for m in (found, noise))))
    return cases


def _curves(score: Faithfulness) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    deletion, insertion = score.deletion_curve, score.insertion_curve
    return deletion.fractions, deletion.normalised, insertion.normalised


# --- a long answer


def named_objects(text: str, scene: scenes.Scene) -> list[tuple[int, tuple[int, int]]]:
    """(object, where its name stands in the text) for names that the scene has once."""
    found, names = [], [thing.name for thing in scene.objects]
    for number, name in enumerate(names):
        hits = list(re.finditer(rf"\b{re.escape(name)}\b", text))
        if len(hits) == 1 and names.count(name) == 1:
            found.append((number, hits[0].span()))
    return sorted(found, key=lambda pair: pair[1])


def name_maps(model, item: Item, method: str = "igos", seed: int = 0) -> list[tuple]:
    """(object, map of the word that names it), in the order of the answer.

    Answer and picture are shared; only the explained word differs. Objects that the answer does
    not name, or that share their name with another, are left out.
    """
    target = make_target(model, item.rgb, item.question, tokens="all", seed=seed)
    named = named_objects(target.answer.text, item.extra["scene"])
    targets = (retarget(target, tokens_within(target.answer, [span])) for _, span in named)
    maps = [explain_target(method, target, seed=seed) for target in targets]
    return [(number, ex) for (number, _), ex in zip(named, maps, strict=True)]


def name_table(item: Item, maps: list[tuple[int, Explanation]]) -> pd.DataFrame:
    """One row a named object: the density of its word's map on it, and on the densest other.

    Density is share of the map over share of the picture; 1 is what an even map has anywhere.
    """
    scene, rows = item.extra["scene"], []
    masks = _masks(scene)
    area = np.array([mask.mean() for mask in masks])
    for number, explanation in maps:
        density = object_mass(explanation.saliency, masks) / area
        other = np.delete(density, number).max(initial=0.0)
        row = {"item": item.id, "word": scene.objects[number].name}
        row |= {"on its object": density[number], "on the densest other": other}
        rows.append(row | {"found": bool(density[number] > other)})
    return pd.DataFrame(rows)


def _masks(scene: scenes.Scene) -> list[np.ndarray]:
    return [scenes.mask(scene, n) for n in range(len(scene.objects))]


def shares_of(saliency: np.ndarray, scene: scenes.Scene) -> np.ndarray:
    """Share of a stored map's mass on each object of the scene."""
    return object_mass(enlarged(saliency, scenes.SIDE, scenes.SIDE), _masks(scene))


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
    shares = shares_of(saliency, scene)
    order = np.argsort(-shares, kind="stable")
    return [(described(scene.objects[n]), float(shares[n])) for n in order]


def wrong_answers(
    maps: pd.DataFrame, items: dict[str, Item], method: str = PAPER_METHOD
) -> pd.DataFrame:
    """Wrong answers that have a map: what was said, and what lies under the map.

    `off` is the share of the map's mass on objects that do not decide the right answer, of its
    mass on objects: near 1, the model looked at the wrong thing. NaN where no object decides.
    """
    rows, kept = [], _with_map(maps, method)
    for row in kept[kept.verdict == "wrong"].itertuples():
        item = items[row.item]
        things = under_the_map(row.saliency, item.extra["scene"])
        told = {"model": row.model, "item": row.item, "question": row.question}
        told |= {"said": row.answer, "right": item.reference}
        told |= {"under the map": ", ".join(name for name, _ in things[:4])}
        rows.append(told | {"off": off_the_evidence(row.saliency, item)})
    columns = ["model", "item", "question", "said", "right", "under the map", "off"]
    return pd.DataFrame(rows, columns=columns)


def off_the_evidence(saliency: np.ndarray, item: Item) -> float:
    """Of a map's mass on objects, the share on objects that the right answer does not need."""
    deciding, shares = item.extra["objects"], shares_of(saliency, item.extra["scene"])
    total = shares.sum() if deciding else 0.0
    return float(1 - shares[list(deciding)].sum() / total) if total > 0 else float("nan")


# --- tables of the page


def focus_table(rows: pd.DataFrame, methods=(PAPER_METHOD, "random")) -> pd.DataFrame:
    """One row a model and method: how spread its maps are, and the compositional index."""
    table = []
    for (model, method), part in rows[rows.method.isin(methods)].groupby(["model", "method"]):
        row = {"model": model, "map": method, "n": len(part)}
        row |= dict(part[["spread", "regions", "needed", "enough"]].mean())
        table.append(row | _index(part))
    return pd.DataFrame(table)


def _index(part: pd.DataFrame, clusters=None) -> dict:
    found = estimate(part.composition, clusters=clusters)
    return {"composition": found.value, "from": found.low, "to": found.high}


def category_table(rows: pd.DataFrame, method: str = PAPER_METHOD) -> pd.DataFrame:
    """Spread, regions and index by category over all models, a random map's index beside it.

    Intervals draw whole items: the models' maps of one item are not independent.
    """
    table = []
    for category in CATEGORIES:
        part = rows[(rows.method == method) & (rows.category == category)]
        noise = rows[(rows.method == "random") & (rows.category == category)]
        if len(part):
            row = {"category": category, "maps": len(part), "items": part.item.nunique()}
            row |= dict(part[["spread", "regions"]].mean()) | _index(part, part.item)
            table.append(row | {"random map": noise.composition.mean()})
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
    figure, axes = grid(len(cases), 0.42 * WIDTH, len(cases), 1.4 * WIDTH)
    for ax, case in zip(axes, cases, strict=True):
        area, deletion, insertion = _curves(case.score)
        ax.plot(area, deletion, label="deletion", marker=".")
        ax.plot(area, insertion, "--", label="insertion", marker=".")
        ax.axhline(HALF, color="0.6", linewidth=0.8)
        found = composition(area, deletion, insertion)
        ax.set_title(f"{case.needs}\n{found:+.2f}".replace("-", "−"), fontsize="small")
        ax.set_xlim(0, 0.25)
        ax.set_xlabel("area changed", fontsize="small")
    axes[0].set_ylabel("answer, 0 = blur, 1 = picture", fontsize="small")
    legend_below(figure, axes[0])
    return figure


def composition_figure(rows: pd.DataFrame, method: str = PAPER_METHOD, control: str = "random"):
    """The index by category of question, one panel a model: the map's own, and a random map's."""
    models = sorted(rows[rows.method == method].model.unique())
    columns = max(1, min(len(models), 3))
    figure, axes = grid(len(models), 0.48 * WIDTH, columns, max(1, columns / 2) * WIDTH)
    styles = ((method, "map", "C0", "o", -0.12), (control, "random map", "C1", "D", 0.12))
    for ax, model in zip(axes, models, strict=False):
        for name, said, colour, marker, shift in styles:
            part = rows[(rows.model == model) & (rows.method == name)]
            found = [estimate(part[part.category == each].composition) for each in CATEGORIES]
            places = np.arange(len(CATEGORIES)) + shift
            open_ = name == control
            dots(ax, found, CATEGORIES, places, colour, marker, hollow=open_, label=said)
        chance_line(ax, 0)
        ax.set(title=model, xlim=(-1.05, 1.05))
        ax.set_xlabel("← any part suffices      all is needed →", fontsize="small")
    legend_below(figure, axes[0])
    return figure


def names_figure(story: Story):
    """A long answer's picture, and the map of every word that names an object."""
    item, maps = story.item, story.maps
    figure, axes = grid(len(maps) + 1, 0.42 * WIDTH, len(maps) + 1, 1.4 * WIDTH)
    picture(axes[0], item.rgb, "the picture", "small")
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
    count = max(len(shown), 1)
    figure, axes = grid(2 * count, 0.375 * WIDTH, count, 1.4 * WIDTH)
    for ax in axes:
        ax.set_axis_off()
    for above, below, row in zip(axes, axes[count:], shown.itertuples(), strict=False):
        rgb = items[row.item].rgb
        same = (maps.model == row.model) & (maps.item == row.item) & (maps.method == PAPER_METHOD)
        saliency = enlarged(maps[same].saliency.iloc[0], *rgb.shape[:2])
        picture(above, rgb, f"{row.model}\n{row.question}")
        overlay(below, rgb, saliency, 0.0, 1.0, bar=False)
        below.set_title(f"said: {row.said}\nright: {row.right}", fontsize="x-small")
    return figure


def sheet_items(maps: pd.DataFrame, method: str = PAPER_METHOD, each: int = 3) -> list[str]:
    """Items for the sheet: `each` a category, first those that most models have a map of."""
    kept = _with_map(maps, method)
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
    kept = _with_map(maps, method)
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
    """`focus.json`: the index by model and category, and how alike models' maps are."""
    maps = frames(tables)
    if maps.empty:
        return {}
    rows, likeness = measured(maps), alike(maps)
    chosen, between = rows[rows.method == PAPER_METHOD], between_models(rows)
    pairs = {
        f"{a} & {b}": {"n": len(part), "same": interval(part.same), "other": interval(part.other)}
        for (a, b), part in likeness.groupby(["a", "b"])
    }
    return {
        "provenance": tables.origin(chosen),
        "models": {
            model: {"index_against_random": against_random(part)}
            for model, part in rows.groupby("model")
        },
        "categories": {name: over_models(part) for name, part in chosen.groupby("category")},
        "pairs": pairs,
        "between": {
            f"{row.a} - {row.b}": {"n": row.n, "difference": row.difference}
            | {"low": finite(row.low), "high": finite(row.high)}
            for row in between.itertuples()
        },
        "between_all": between_all(between),
    }


def between_all(between: pd.DataFrame, level: float = 0.05) -> dict:
    """How many pairs differ clearly, and for how many n the test could not have said so.

    Where all of n differences point one way a sign-flip test gives p = 2 / 2^n.
    """
    smallest = len(between) * 2.0 ** (1 - between.n)
    return {
        "pairs": len(between),
        "clear": int((between.p_holm < level).sum()),
        "least": finite(between.p_holm.min()),
        "hopeless": int((smallest >= level).sum()),
    }


def over_models(rows: pd.DataFrame) -> dict:
    """The index over all models' maps of a category; intervals draw items."""
    found = estimate(rows.composition, clusters=rows.item)
    return {"n": len(rows), "composition": estimated(found)}


def against_random(rows: pd.DataFrame) -> dict:
    """Spearman, over items, of the map's index with that of a random map of the same item."""
    wide = rows.pivot_table("composition", "item", "method")
    if not {PAPER_METHOD, "random"} <= set(wide):
        return {"n": 0, "correlation": None}
    both = wide[[PAPER_METHOD, "random"]].dropna()
    return {"n": len(both), "correlation": correlation(both[PAPER_METHOD], both.random)}
