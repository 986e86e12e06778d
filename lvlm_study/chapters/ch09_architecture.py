"""Figures for questions about pairs of models: how alike their maps are, what their scores are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..errors import StudyError
from ..figures import WIDTH, overlay
from ..heatmaps.names import without_preset
from ..sweep.stored import enlarged
from .ch08_scale import short


def relation_figure(tree: dict):
    """Similarity of maps by what they differ in (dots), of different items (crosses), ceiling."""
    rows = [(kind, one, one["chance"]) for kind, one in tree["relations"].items()]
    rows += [
        (f"settings ({without_preset(k)[5:-1]})", one, None) for k, one in tree["ceiling"].items()
    ]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.8 + 0.35 * max(len(rows), 2)), layout="constrained")
    for place, (_, one, chance) in enumerate(rows):
        _interval(ax, one, place)
        if chance is not None:
            ax.plot(chance, place, "x", color="0.4")
    ax.set(yticks=range(len(rows)), yticklabels=[kind for kind, _, _ in rows])
    ax.set(xlabel="rank correlation of two maps", xlim=(-0.1, 1.02))
    ax.invert_yaxis()
    return figure


def matrix_figure(tree: dict):
    """Mean similarity of every two models' maps on the items that both have; first trainings."""
    table = pd.DataFrame(tree["matrix"]).rename(short, axis=0).rename(short, axis=1)
    first = [name for name in table if "-seed" not in name]
    table = table.loc[first, first]
    side = min(WIDTH, 2.2 + 0.7 * max(len(table), 2))
    figure, ax = plt.subplots(figsize=(side, 0.8 * side), layout="constrained")
    if len(table):
        sns.heatmap(
            table.astype(float), annot=True, fmt=".2f", vmin=0, vmax=1, cmap="cividis", ax=ax,
            cbar_kws={"label": "rank correlation of maps"},
        )  # fmt: skip
    ax.tick_params(axis="x", rotation=30)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def gap_figure(tree: dict):
    """Insertion - deletion of every model of one size, with intervals."""
    figure, ax = plt.subplots(
        figsize=(WIDTH, 0.8 + 0.35 * max(len(tree["gaps"]), 2)), layout="constrained"
    )
    for place, one in enumerate(tree["gaps"].values()):
        _interval(ax, one, place)
    names = [f"{short(m)} (n = {one['n']})" for m, one in tree["gaps"].items()]
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="insertion − deletion")
    ax.axvline(0, color="0.6", linewidth=1)
    ax.invert_yaxis()
    return figure


def paper_figure(table4: pd.DataFrame, group: str):
    """The paper's Table 4, one half: deletion and insertion of every model."""
    part = table4[table4.group == group]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.38 * WIDTH), layout="constrained")
    for place, ends in enumerate(zip(part["del"], part.ins, strict=True)):
        ax.plot(ends, [place, place], color="0.8", zorder=0)
    ax.plot(part["del"], range(len(part)), "o", label="deletion")
    ax.plot(part.ins, range(len(part)), "s", label="insertion")
    names = [f"{m} ({llm})" for m, llm in zip(part.model, part.llm, strict=True)]
    ax.set(yticks=range(len(part)), yticklabels=names, xlabel="score in the paper", xlim=(0, 1))
    ax.invert_yaxis()
    figure.legend(loc="outside lower center", ncol=2)
    return figure


def side_by_side(table: pd.DataFrame, items: dict, count: int = 3):
    """The maps of every model over the same pictures: a row an item, a column a model.

    `table` as from `compare.map_table`; `items` maps ids to benchmark items. Items that all
    models have a map of come first in their given order; one scale, 0 to 1, for all.
    """
    models = list(dict.fromkeys(table.model))
    have = table.groupby("item").model.nunique()
    chosen = [name for name in sorted(have[have == have.max()].index) if name in items][:count]
    if not chosen:
        raise StudyError("None of these maps belongs to an item that was given.")
    columns = len(models) + 1
    wide = WIDTH * max(1, columns / 6)
    high = 0.25 + (wide / columns + 0.45) * len(chosen)
    figure, axes = plt.subplots(
        len(chosen), columns, figsize=(wide, high), squeeze=False, layout="constrained"
    )
    kept = table.set_index(["item", "model"]).saliency
    for row, name in zip(axes, chosen, strict=True):
        rgb = items[name].rgb
        row[0].imshow(rgb)
        row[0].set_title(
            _wrapped(items[name].question, max(12, 100 // columns)), fontsize="x-small"
        )
        for ax, model in zip(row[1:], models, strict=True):
            if (name, model) in kept.index:
                one = enlarged(kept[name, model], *rgb.shape[:2])
                overlay(ax, rgb, one, 0, 1, bar=False)
                ax.set_title(short(model).replace("-seed", "\nseed "), fontsize="x-small")
        for ax in row:
            ax.set_axis_off()
    return figure


def _wrapped(text: str, width: int = 26) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _interval(ax, one: dict, place: int) -> None:
    if one["value"] is None:
        return
    ends = [one["value"] if one[k] is None else one[k] for k in ("low", "high")]
    around = np.abs(np.array(ends)[:, None] - one["value"])
    ax.errorbar(one["value"], place, xerr=around, fmt="o", color="C0")
