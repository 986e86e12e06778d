"""The figures of the chapters on where models look: each takes results, none runs a model.

The contact sheet is HTML, so that every small picture is a link into the explorer.
"""

import base64
import html
import io
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from ..figures import WIDTH, overlay, overlay_image, scale_bar
from ..heatmaps.names import PAPER_METHOD
from ..metrics.statistics import estimate, summarise
from ..sweep.stored import enlarged
from . import ch06_focus as focus
from .ch01_reliance import CATEGORIES
from .focus_cases import Case, Story, described, under_the_map

THUMB = 84  # pixels a side on the contact sheet
COUNTS = ("none", "one", "two", "three or more")
EXPLORER = "../book/explorer.html"


def known_figure(cases: list[Case]):
    """Deletion and insertion of every known reader, with the two areas that are compared."""
    figure, axes = plt.subplots(
        1, len(cases), figsize=(1.4 * WIDTH, 0.42 * WIDTH), sharey=True, layout="constrained"
    )
    for ax, case in zip(np.ravel(axes), cases, strict=True):
        deletion, insertion = case.score.deletion_curve, case.score.insertion_curve
        ax.plot(deletion.fractions, deletion.normalised, label="deletion", marker=".")
        ax.plot(insertion.fractions, insertion.normalised, "--", label="insertion", marker=".")
        ax.axhline(focus.HALF, color="0.6", linewidth=0.8)
        found = focus.composition(deletion.fractions, deletion.normalised, insertion.normalised)
        ax.set_title(f"{case.needs}\n{found:+.2f}".replace("-", "−"), fontsize="small")
        ax.set_xlim(0, 0.25)
        ax.set_xlabel("area changed", fontsize="small")
    np.ravel(axes)[0].set_ylabel("answer, 0 = blur, 1 = picture", fontsize="small")
    handles, labels = np.ravel(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2)
    return figure


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


# --- single pictures


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


# --- the contact sheet


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
