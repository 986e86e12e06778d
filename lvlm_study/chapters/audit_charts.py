"""Figures of the audit: one for each demonstration that a table would hide."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..figures import WIDTH, overlay
from ..heatmaps.names import title
from ..models.planted import planted_scene
from . import ch11_audit as audit

METHODS = ("Grad-CAM", "T-MM", "IIA", "Ours")


def table1_figure(table: pd.DataFrame):
    """Insertion - deletion of the paper's Table 1, a panel a model; crosses: T-MM turned over."""
    long = audit.table1_gaps(table).melt(["lvlm", "method"], var_name="data", value_name="gap")
    names = list(long.lvlm.unique())
    figure, axes = plt.subplots(
        1, len(names), figsize=(WIDTH, 0.36 * WIDTH), sharex=True, sharey=True, layout="constrained"
    )
    for ax, name in zip(axes, names, strict=True):
        part = long[long.lvlm == name]
        places = [METHODS.index(m) for m in part.method]
        ax.axvline(0, color="0.6", linewidth=1)
        ax.plot(part.gap, places, "o", alpha=0.8)
        turned = part[part.method == "T-MM"]
        ax.plot(-turned.gap, [METHODS.index("T-MM")] * len(turned), "x", color="0.3")
        ax.set(title=name, yticks=range(len(METHODS)), yticklabels=METHODS)
        ax.set_xlabel("insertion − deletion")
    axes[0].invert_yaxis()
    return figure


def tile_figure(reader: str = "object"):
    """A map as it is shown, and what the pixels receive when tiles are cut with sides swapped."""
    model, found = audit.explained(reader, audit.WIDE)
    picture, evidence = planted_scene(audit.WIDE), model.evidence(audit.WIDE)
    truth = model.expected(found.target).numpy()
    panels = {
        "the map, where it is shown": truth,
        "where its cells land, sides swapped": audit.scrambled(truth, 1, 2),
    }
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.3 * WIDTH), layout="constrained")
    for ax, (name, one) in zip(axes, panels.items(), strict=True):
        overlay(ax, picture, one, 0, 1, bar=False)
        ax.set_title(name, fontsize="small")
        ax.contour(evidence, [0.5], colors="white", linewidths=1.5)
        ax.axvline(audit.WIDE[1] / 2 - 0.5, color="white", linestyle=":", linewidth=1)
    return figure


def step_figure(weight: float = 0.02, l2s=(0.1, 1.0, 10.0), lrs=(10.0, 0.1)):
    """One mask cell, step by step, under three L2 weights and two step sizes."""
    figure, axes = plt.subplots(1, len(lrs), figsize=(WIDTH, 0.38 * WIDTH), layout="constrained")
    styles = zip(sns.color_palette("cividis", len(l2s)), ("o-", "s--", "^:"), strict=True)
    for (colour, style), l2 in zip(list(styles), l2s, strict=True):
        for ax, lr in zip(axes, lrs, strict=True):
            path = audit.cell_path(weight, l2, lr)
            ax.plot(path, style, color=colour, label=f"L2 weight {l2:g}")
    for ax, lr in zip(axes, lrs, strict=True):
        ax.set(xlabel="iteration", title=f"step size {lr:g}", xticks=range(6))
    axes[0].set_ylabel("cell of the mask (1 = kept)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=len(l2s))
    return figure


def rivals_figure(tree: dict):
    """Our own gaps of Table 1's methods and the controls, one panel a model, with intervals."""
    names = ["igos", "grad_cam", "gae", "iia", "sobel", "center", "random"]
    models = [m for m, of in tree["rivals"].items() if "igos" in of]
    models = [m for m in models if set(names[1:4]) & set(tree["rivals"][m])] or models
    columns = max(1, min(len(models), 3))
    lines = max(1, -(-len(models) // columns))
    figure, axes = plt.subplots(
        lines, columns, figsize=(WIDTH, 0.36 * WIDTH * lines), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax in axes.ravel()[len(models) :]:
        ax.remove()
    for ax, model in zip(axes.ravel(), models, strict=False):
        ax.axvline(0, color="0.6", linewidth=1)
        for place, name in enumerate(names):
            _point(ax, tree["rivals"][model].get(name, {}).get("gap"), place)
        ax.set(title=model.removeprefix("mini/"), yticks=range(len(names)))
        ax.set_yticklabels([title(name) for name in names])
    figure.supxlabel("insertion − deletion")
    axes[0, 0].invert_yaxis()
    return figure


def _point(ax, gap: dict | None, place: int) -> None:
    if gap is None or gap["value"] is None:
        return
    low, high = gap["low"], gap["high"]
    ends = [gap["value"]] * 2 if low is None else [low, high]
    around = np.abs(np.array(ends)[:, None] - gap["value"])
    ax.errorbar(gap["value"], place, xerr=around, fmt="o", color="C0")
