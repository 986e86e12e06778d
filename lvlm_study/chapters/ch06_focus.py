"""Where do models look, and do their answers need all of it together or any part of it?

Two models' maps of one picture are held against the picture's difference from its blur, which has
seen neither model nor question. `metrics.focus` has the measures of how much an answer needs;
planted readers say whether these measure what they claim, and a description, word by word, says
what single maps tell.

    focus.pairs[mini/llava-1.5 & mini/llava-ov].given.value
    focus.models[mini/llava-1.5].index_against.random
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

from ..answers import make_target, retarget, tokens_within
from ..benchmarks import load_benchmark
from ..benchmarks.base import Item
from ..figures import (
    ROW,
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
from ..heatmaps.names import PAPER_METHOD, title
from ..metrics.counterfactual import object_mass
from ..metrics.faithfulness import Faithfulness, deletion_insertion
from ..metrics.focus import HALF, composition, half_points, normalised, regions, spread
from ..metrics.plausibility import GRAIN, area_means, rank_correlation
from ..metrics.statistics import ENOUGH_TO_RESAMPLE, Estimate, compare, estimate, finite
from ..models.names import short
from ..models.planted import OBJECT, PlantedReader, planted, planted_scene
from ..scenes import scenes
from ..scenes.questions import CATEGORIES
from ..sweep.stored import Tables, enlarged, stored_maps
from .compare import control_map, correlation, estimated, interval, one_each

HALVES = (OBJECT[:2] + (0.75, 0.375), (0.75, 0.125) + OBJECT[2:])
THUMB = 84  # pixels a side on the contact sheet
PAIR = ("mini/llava-1.5", "mini/llava-ov")  # two architectures that most methods ran on
SHOWN = (PAPER_METHOD, "random", "difference")
LIKENESSES = ("same", "difference", "given", "other")
LIKENESS_TITLES = (
    "the two models' maps", "a map and the difference picture",
    "the two maps given that picture", "maps of different pictures",
)  # fmt: skip
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


def difference_cells(items: dict[str, Item]) -> dict[str, np.ndarray]:
    """{item: the picture's difference from its blur on 14 x 14 cells}, which needs no model."""
    drawn = {name: control_map("difference", item, 0) for name, item in items.items()}
    return {name: area_means(one.astype(float), GRAIN) for name, one in drawn.items()}


def given(one: np.ndarray, other: np.ndarray, third: np.ndarray) -> float:
    """Partial rank correlation: of two maps, without what either shares with a third.

    NaN where a map is constant or has the third one's order.
    """
    pairs = ((one, other), (one, third), (other, third))
    both, first, second = (rank_correlation(a, b, None) for a, b in pairs)
    rest = (1 - first**2) * (1 - second**2)
    return (both - first * second) / np.sqrt(rest) if rest > 1e-12 else np.nan


def alike(
    maps: pd.DataFrame, pictures: dict[str, np.ndarray], method: str = PAPER_METHOD, seed: int = 0
) -> pd.DataFrame:
    """How alike two models' maps are, one row a pair of models and item that both have a map of.

    Rank correlations on 14 x 14 cells: `same` of the two maps, `difference` of a map with the
    item's `pictures` (mean of the two), `given` the two maps given that picture (partial), `other`
    of the first model's map with the second's of another item, in a shuffled order.
    """
    kept = _with_map(maps, method)
    kept = kept.assign(cells=[area_means(m.astype(float), GRAIN) for m in kept.saliency])
    by_model = {name: part.set_index("item").cells for name, part in kept.groupby("model")}
    rows = []
    for a, b in combinations(by_model, 2):
        one, two = by_model[a], by_model[b]
        shared = [item for item in one.index if item in two.index]
        order = np.random.default_rng(seed).permutation(len(shared))
        after = {shared[i]: shared[j] for i, j in zip(order, np.roll(order, -1), strict=True)}
        for item in shared if len(shared) > 1 else ():
            row = _alike(one[item], two[item], pictures[item])
            other = rank_correlation(one[item], two[after[item]], None)
            rows.append({"a": a, "b": b, "item": item} | row | {"other": other})
    return pd.DataFrame(rows, columns=["a", "b", "item", *LIKENESSES])


def _alike(one: np.ndarray, two: np.ndarray, picture: np.ndarray) -> dict:
    same, *seen = (
        rank_correlation(*pair, None) for pair in ((one, two), (one, picture), (two, picture))
    )
    return {"same": same, "difference": np.mean(seen), "given": given(one, two, picture)}


def alike_by_method(
    maps: pd.DataFrame, pictures: dict[str, np.ndarray], pair: tuple[str, str] = PAIR
) -> dict[str, pd.DataFrame]:
    """{method: `alike` of two models}, most alike first; methods with enough items alone."""
    both = maps[maps.model.isin(pair)]
    found = {name: alike(both, pictures, name) for name in both.method.unique()}
    found = {name: rows for name, rows in found.items() if len(rows) >= ENOUGH_TO_RESAMPLE}
    return dict(sorted(found.items(), key=lambda named: -named[1].same.mean()))


def _with_map(maps: pd.DataFrame, method: str) -> pd.DataFrame:
    return maps[(maps.method == method) & (maps.status == "ok") & maps.saliency.notna()]


def between_models(rows: pd.DataFrame, method: str = PAPER_METHOD, control: str = "random"):
    """The index of every two models on the items that both have: paired differences.

    `rows` is `measured`. Columns a, b, n, difference (a - b), low, high, p_holm, and `random`: the
    same difference when both models are given random maps, which is what the answers alone do.
    """
    found = compare(rows[rows.method == method], "composition", by="model")
    few = found.n < ENOUGH_TO_RESAMPLE
    found[["low", "high"]] = found[["low", "high"]].mask(few)
    both, noise = (
        rows[rows.method == name].pivot(index="item", columns="model", values="composition")
        for name in (method, control)
    )
    noise = noise.reindex(both.index, columns=both.columns)
    apart = [
        (noise[a] - noise[b])[both[[a, b]].notna().all(axis=1)].mean()
        for a, b in zip(found.a, found.b, strict=True)
    ]
    columns = ["a", "b", "n", "difference", "low", "high", "p_holm", "random"]
    return found.assign(random=apart)[columns]


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


# --- tables of the page


def pair_rows(likeness: pd.DataFrame) -> pd.DataFrame:
    """One row a pair of models, most items first; intervals where items are enough."""
    names = dict(zip(LIKENESSES, LIKENESS_TITLES, strict=True))
    rows = [
        {"models": f"{short(a)}, {short(b)}", "n": len(part)}
        | {label: f"{estimate(part[name]).where_enough():.2f}" for name, label in names.items()}
        for (a, b), part in likeness.groupby(["a", "b"])
    ]
    return pd.DataFrame(rows).sort_values("n", ascending=False, ignore_index=True)


def of_items(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """The index of one method by category and item, a mean over the models that have it."""
    part = rows[rows.method == method]
    return part.groupby(["category", "item"], as_index=False).composition.mean()


def index_of(rows: pd.DataFrame, method: str, category: str) -> Estimate:
    """The index of a category's answers; items are the units."""
    part = of_items(rows, method)
    return estimate(part.composition[part.category == category]).where_enough()


def focus_table(rows: pd.DataFrame, methods=SHOWN) -> pd.DataFrame:
    """One row a model and method: how spread its maps are, and the compositional index."""
    table = []
    for (model, method), part in rows[rows.method.isin(methods)].groupby(["model", "method"]):
        row = {"model": short(model), "map": title(method), "n": len(part)}
        row |= dict(part[["spread", "regions", "needed", "enough"]].mean())
        found = estimate(part.composition).where_enough()
        table.append(row | {"composition": f"{found:.2f}"})
    return pd.DataFrame(table)


def category_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Spread, regions and index by category over all models, the controls' index beside it."""
    table = []
    for category in [c for c in CATEGORIES if c in set(rows.category)]:
        part = rows[(rows.method == PAPER_METHOD) & (rows.category == category)]
        row = {"category": category, "items": part.item.nunique(), "maps": len(part)}
        row |= dict(part[["spread", "regions"]].mean())
        found = {title(name): f"{index_of(rows, name, category):.2f}" for name in SHOWN}
        table.append(row | found)
    return pd.DataFrame(table)


def needs_table(rows: pd.DataFrame, needed: pd.DataFrame) -> pd.DataFrame:
    """Regions of the map and index, by how many objects the answer cannot do without."""
    joined = rows[rows.method == PAPER_METHOD].merge(needed, on=["model", "benchmark", "item"])
    part = joined.groupby(joined.objects_needed.astype(int).clip(upper=len(COUNTS) - 1))
    table = part[["regions", "spread", "composition"]].mean().assign(n=part.size())
    table.insert(0, "objects needed", [COUNTS[n] for n in table.index])
    return table


# --- figures


def likeness_figure(found: dict[str, pd.DataFrame]):
    """Two models' maps beside the difference picture, a line a method (`alike_by_method`)."""
    size = (WIDTH, 1.35 * ROW * len(found) + 0.9)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    looks = (("C0", "o", False, 0), ("C1", "D", False, -0.22), ("C0", "o", True, 0.22))
    names = [title(name) for name in found]
    for name, label, look in zip(LIKENESSES, LIKENESS_TITLES, looks, strict=False):
        colour, marker, hollow, shift = look
        values = [estimate(rows[name]) for rows in found.values()]
        places = np.arange(len(found)) + shift
        dots(ax, values, names, places, colour, marker, hollow, label=label)
    chance_line(ax, 0)
    ax.set_xlabel("rank correlation")
    legend_below(figure, ax, fontsize="small")
    return figure


def known_figure(cases: list[Case]):
    """Deletion and insertion of every known reader, with the two areas that are compared."""
    figure, axes = grid(len(cases), 0.4 * WIDTH, 2)
    for ax, case in zip(axes, cases, strict=True):
        area, deletion, insertion = _curves(case.score)
        ax.plot(area, deletion, label="deletion", marker=".")
        ax.plot(area, insertion, "--", label="insertion", marker=".")
        ax.axhline(HALF, color="0.6", linewidth=0.8)
        found = composition(area, deletion, insertion)
        ax.set_title(f"needs {case.needs}: {found:+.2f}".replace("-", "−"), fontsize="small")
        ax.set_xlim(0, 0.25)
        ax.set_xlabel("share of the picture changed", fontsize="small")
    for ax in axes[::2]:
        ax.set_ylabel("0 = blur, 1 = picture", fontsize="small")
    legend_below(figure, axes[0])
    return figure


def composition_figure(rows: pd.DataFrame):
    """The index by category of question: of the maps, of random maps, of the difference picture."""
    names = [c for c in CATEGORIES if c in set(rows.category)]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.55 * len(names) + 1.1), layout="constrained")
    looks = (("C0", "o", False, -0.2), ("C1", "D", True, 0.05), ("0.4", "s", True, 0.27))
    for method, (colour, marker, hollow, shift) in zip(SHOWN, looks, strict=True):
        found = [index_of(rows, method, each) for each in names]
        places = np.arange(len(names)) + shift
        dots(ax, found, names, places, colour, marker, hollow, label=title(method))
    part = of_items(rows, PAPER_METHOD)
    height = part.category.map({name: n - 0.2 for n, name in enumerate(names)})
    ax.plot(part.composition, height, "o", color="C0", alpha=0.25, ms=3, zorder=0)
    chance_line(ax, 0)
    ax.set(xlim=(-1.05, 1.05), xlabel="composition:  ← any part suffices      all is needed →")
    legend_below(figure, ax)
    return figure


def names_figure(story: Story):
    """A long answer's picture, and the map of every word that names an object."""
    item, maps = story.item, story.maps
    figure, axes = grid(len(maps) + 1, 0.4 * WIDTH, 3)
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


def sheet_items(maps: pd.DataFrame, method: str = PAPER_METHOD, each: int = 1) -> list[str]:
    """Items for the sheet: `each` a category, first those that most models have a map of."""
    kept = _with_map(maps, method)
    counts = kept.groupby(["category", "item"], sort=False).model.nunique().reset_index()
    counts = counts.sort_values("model", ascending=False, kind="stable")
    found = counts.groupby("category", sort=False).head(each)
    order = {name: place for place, name in enumerate(CATEGORIES)}
    found = found.assign(place=found.category.map(order)).sort_values("place", kind="stable")
    return list(found.item)


def contact_sheet(
    maps: pd.DataFrame, items: dict, method: str = PAPER_METHOD, each: int = 1
) -> str:
    """HTML: one line an item, its difference picture, and one small map a model, each a link."""
    models = sorted(maps[maps.method == method].model.unique())
    kept = _with_map(maps, method)
    cells = {(row.item, row.model): row for row in kept.itertuples()}
    names = ["question", "picture", title("difference"), *map(short, models)]
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in names)
    lines = [f"<tr>{head}</tr>"]
    for name in sheet_items(maps, method, each):
        item = items[name]
        rgb = item.rgb
        tiles = [_tile(cells.get((name, model)), item, rgb, method) for model in models]
        picture = f"<td>{_img(rgb, _scene_in_words(item))}</td>"
        question = f"<th scope='row'>{html.escape(item.question)}</th>"
        lines.append(f"<tr>{question}{picture}{_difference_tile(item, rgb)}{''.join(tiles)}</tr>")
    style = "font-size:.75em;line-height:1.25;text-align:left;vertical-align:top"
    table = f"<table class='table' style='{style}'>{''.join(lines)}</table>"
    return f"<div class='contact-sheet' style='overflow-x:auto' tabindex='0'>{table}</div>"


def _difference_tile(item, rgb: np.ndarray) -> str:
    one = enlarged(control_map("difference", item, 0), *rgb.shape[:2])
    alt = f"Difference of the picture from its blur. {_scene_in_words(item)}"
    return f"<td>{_img(overlay_image(rgb, one, 0.0, float(one.max())), alt)}<br>no model</td>"


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
    if tables.maps.empty or tables.reliance.empty:
        return {}
    maps = stored_maps(tables.results)
    maps = one_each(maps[maps.benchmark == "sprites"])
    asked = set(maps.item)
    pictures = difference_cells({i.id: i for i in load_benchmark("sprites") if i.id in asked})
    rows = measured(maps[maps.method.isin(SHOWN)])
    between = between_models(rows)
    return {
        "provenance": tables.origin(rows[rows.method == PAPER_METHOD]),
        "models": {
            model: {"index_against": index_against(part)} for model, part in rows.groupby("model")
        },
        "categories": {
            name: {
                "n": part.item.nunique(),
                "composition": estimated(index_of(rows, PAPER_METHOD, name)),
            }
            for name, part in rows.groupby("category")
        },
        "pairs": {
            f"{a} & {b}": likenesses(part)
            for (a, b), part in alike(maps, pictures).groupby(["a", "b"])
        },
        "methods": {
            name: {"n": len(one), "same": interval(one.same)}
            for name, one in alike_by_method(maps, pictures).items()
        },
        "between": {
            f"{row.a} - {row.b}": {"n": row.n, "difference": row.difference, "random": row.random}
            | {"low": finite(row.low), "high": finite(row.high)}
            for row in between.itertuples()
        },
        "between_all": between_all(between),
    }


def likenesses(rows: pd.DataFrame) -> dict:
    """`alike` of one pair of models in numbers."""
    told = {name: estimated(estimate(rows[name]).where_enough()) for name in LIKENESSES}
    return {"n": len(rows)} | told


def between_all(between: pd.DataFrame, level: float = 0.05) -> dict:
    """How many pairs there are, and for how many n the test could not have told them apart.

    Where all of n differences point one way a sign-flip test gives p = 2 / 2^n.
    """
    smallest = len(between) * 2.0 ** (1 - between.n)
    return {"pairs": len(between), "hopeless": int((smallest >= level).sum())}


def index_against(rows: pd.DataFrame) -> dict:
    """Spearman, over items, of the map's index with that of each control's map of the same item."""
    wide = rows.pivot_table("composition", "item", "method").reindex(columns=list(SHOWN)).dropna()
    own, controls = wide[PAPER_METHOD], wide[list(SHOWN[1:])]
    return {"n": len(wide)} | {name: correlation(own, controls[name]) for name in controls}
