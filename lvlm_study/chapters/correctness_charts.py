"""The figures and tables of the chapter on focus and correctness; none of them runs a model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..figures import WIDTH, overlay
from ..heatmaps.names import title
from ..sweep.stored import enlarged
from . import ch07_correctness as correctness
from .ch01_reliance import CATEGORIES

SHADES = {  # told apart by lightness and by hatching, not by hue alone
    "right, on": ("#0072b2", ""),
    "right, off": ("#9ecae1", ""),
    "wrong, on": ("#d55e00", "//"),
    "wrong, off": ("#fdc89b", "//"),
    "no map": ("0.75", ""),
    "no region": ("0.9", ""),
}


def quadrant_figure(rows: pd.DataFrame):
    """Bars of quadrants by category, one panel a model; grey is what cannot be placed."""
    models = sorted(rows.model.unique())
    columns = max(1, min(len(models), 3))
    lines = max(1, -(-len(models) // columns))
    size = (max(1, columns / 2) * WIDTH, 0.45 * WIDTH * lines)
    figure, axes = plt.subplots(
        lines, columns, figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, model in zip(axes.ravel(), models, strict=False):
        _bars(ax, correctness.quadrants(rows[rows.model == model], ["category"]))
        ax.set(title=model, xlabel="% of items", xlim=(0, 100))
    for ax in axes.ravel()[len(models) :]:
        ax.remove()
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3)
    return figure


def _bars(ax, counted: pd.DataFrame) -> None:
    part = counted.set_index("category").reindex(CATEGORIES).fillna(0)
    total, left = part.n.clip(lower=1), np.zeros(len(part))
    for name, (shade, hatch) in SHADES.items():
        share = (100 * part[name] / total).to_numpy()
        ax.barh(
            part.index, share, left=left, color=shade, hatch=hatch, edgecolor="white", label=name
        )
        left = left + share


def quadrant_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts of every quadrant by model, and over all of them."""
    table = correctness.quadrants(rows, ["model"])
    if len(table) > 1:
        total = table.drop(columns="model").sum().to_frame().T.assign(model="all")
        table = pd.concat([table, total], ignore_index=True)
    return table[["model", *SHADES, "n"]]


def lift_table(maps: pd.DataFrame) -> pd.DataFrame:
    """What a map on the evidence says about the answer, by rule and model."""
    table = []
    for rule in correctness.RULES:
        rows = correctness.sorted_rows(maps, rule)
        parts = [(name, rows[rows.model == name]) for name in sorted(rows.model.unique())]
        for name, part in [*parts, *([("all", rows)] if len(parts) > 1 else [])]:
            found = correctness.lift(part)
            table.append({"rule": rule, "model": name} | {NAMES[k]: found[k] for k in NAMES})
    return pd.DataFrame(table)


NAMES = {
    "n_on": "maps on",
    "n_off": "off",
    "wrong": "wrong answers",
    "on_right": "right if on",
    "off_right": "right if off",
    "difference": "difference",
    "low": "from",
    "high": "to",
    "within": "within categories",
    "p": "p (Fisher)",
}


def chance_figure(maps: pd.DataFrame, rule: str = "pointing"):
    """Share of maps on the evidence: the method's, and that of maps that know nothing."""
    shares = correctness.on_share(correctness.sorted_rows(maps, rule))
    shares = shares.sort_values("model", kind="stable")
    size = (WIDTH, max(0.5 * WIDTH, 0.6 * shares.model.nunique()))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    order = [name for name in correctness.METHODS if name in set(shares.method)]
    sns.barplot(shares, x="on", y="model", hue="method", hue_order=order, ax=ax, errorbar=None)
    for bars, hatch in zip(ax.containers, ("", "//", "..", "xx"), strict=False):
        for bar in bars:
            bar.set_hatch(hatch)
            bar.set_edgecolor("white")
    ax.set(xlabel="share of maps on the evidence", ylabel="", xlim=(0, 1))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def examples_figure(rows: pd.DataFrame, items: dict):
    """One picture a quadrant, the first of each: the map, the answer, the evidence outlined."""
    figure, axes = plt.subplots(
        1, 4, figsize=(1.4 * WIDTH, 0.45 * WIDTH), squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], correctness.QUADRANTS, strict=True):
        part = rows[(rows.quadrant == name) & rows.saliency.notna()]
        ax.set_axis_off()
        if part.empty:
            ax.set_title(f"{name}\nnone", fontsize="x-small")
            continue
        row = part.iloc[0]
        item = items[row["item"]]
        rgb = item.rgb
        title = f"{name}\n{row.question}\n{row.answer}"
        overlay(ax, rgb, enlarged(row.saliency, *rgb.shape[:2]), 0.0, 1.0, bar=False)
        ax.set_title(title, fontsize="x-small")
        ax.contour(item.evidence, [0.5], colors=["white"], linewidths=3)
        ax.contour(item.evidence, [0.5], colors=["black"], linewidths=1.2)
    return figure


def eyes_figure(table: pd.DataFrame):
    """`judged_maps.by_method`: what lookers called covering, with interval, and what rules did."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 * WIDTH), layout="constrained")
    y = np.arange(len(table))
    ends = [table.eye - table.low, table.high - table.eye]
    ax.barh(y - 0.27, table.eye, 0.27, xerr=ends, color="#0072b2", label="to the eye", ecolor="0.2")
    for place, (rule, shade, hatch) in enumerate(
        (("pointing", "#e69f00", "//"), ("mass", "#999999", ".."))
    ):
        style = dict(color=shade, hatch=hatch, edgecolor="white")
        ax.barh(y + 0.27 * place, table[rule], 0.27, label=f"rule: {rule}", **style)
    ax.set_yticks(y, [f"{title(row.method)} (n = {row.pictures})" for row in table.itertuples()])
    ax.set(xlabel="share of maps that cover what is needed", xlim=(0, 1))
    ax.invert_yaxis()
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
