"""Figures and tables of the chapter on the planted shortcut; none of them runs a model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..errors import StudyError
from ..figures import WIDTH, overlay, scale_bar
from ..heatmaps.names import in_order, title
from ..scenes.shortcut import ARMS
from ..sweep.stored import enlarged, scales

HUES = {"read": "#d55e00", "seen": "#0072b2"}  # told apart by their markers too
MARKS = {"read": "s", "seen": "o"}
SAID = {
    "read": "read: the answer is the strip's wrong word",
    "seen": "seen: the answer is right, the strip says something else",
}


def arms_table(study: dict) -> pd.DataFrame:
    """A row a model and arm: per cent right, and per cent that say the wrong word."""
    rows = []
    for model, about in study["models"].items():
        for arm in ARMS:
            cells = about["arms"][arm]
            row = {"model": model, "strip": arm, "n": cells["right"]["n"]}
            row |= {"right (%)": _told(cells["right"])}
            rows.append(row | {"says the wrong word (%)": _told(cells["follows"])})
    return pd.DataFrame(rows)


def _told(cell: dict) -> str:
    return f"{cell['percent']:.0f} [{cell['low']:.0f}, {cell['high']:.0f}]"


def example_figure(stored: pd.DataFrame, said: pd.DataFrame, items, model: str, methods):
    """One scene under two strips, a row a method: the wrong word was read, the neutral one not.

    The scene is the first with maps of both, of a question about an attribute if there is one.
    Raises StudyError when there is none.
    """
    known, arms = {item.id: item for item in items}, {"wrong": "read", "neutral": "seen"}
    mine = said[(said.model == model) & (said.arm.map(arms) == said.source)]
    own = stored[(stored.model == model) & (stored.status == "ok")]
    rows = own[own.method.isin(methods)].drop(columns="answer").merge(mine, on=["model", "item"])
    full = rows.groupby("group", sort=False).size() == len(arms) * len(methods)
    if not full.any():
        raise StudyError(f"{model} has no scene with maps under both strips; run more items.")
    found = sorted(full.index[full], key=lambda name: not name.startswith("attribute"))
    rows = rows[rows.group == found[0]].set_index(["method", "arm"])
    figure, axes = plt.subplots(
        len(methods),
        len(arms),
        figsize=(WIDTH, 0.5 * WIDTH * len(methods)),
        squeeze=False,
        layout="constrained",
    )
    top = scales(own)
    for line, method in zip(axes, methods, strict=True):
        for ax, arm in zip(line, arms, strict=True):
            row = rows.loc[(method, arm)]
            _one(ax, row, known[row["item"]].rgb, method, top[method])
    scale_bar(list(axes.ravel()), 0, 1, "saliency, part of the method's scale")
    figure.suptitle(rows.question.iloc[0], fontsize="medium")
    return figure


def _one(ax, row, rgb: np.ndarray, method: str, top: float) -> None:
    big = enlarged(row.saliency, *rgb.shape[:2]) / top
    overlay(ax, rgb, big, 0, 1, bar=False)
    ax.set_title(f"{title(method)}: {row.answer}\n({row.source})", fontsize="small")


def ratio_figure(methods: dict):
    """Per method the share of the map on the word, read and seen answers apart; chance is 1."""
    names = in_order(methods)[::-1]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 + 0.34 * len(names)), layout="constrained")
    for kind, shift in (("read", 0.14), ("seen", -0.14)):
        values = np.array([methods[n][kind] for n in names])
        ends = [[methods[n][f"{kind}_{end}"] for n in names] for end in ("low", "high")]
        spread = np.abs(np.array(ends, float) - values)
        ax.errorbar(
            values, np.arange(len(names)) + shift, xerr=spread, fmt=MARKS[kind],
            color=HUES[kind], label=SAID[kind], capsize=2,
        )  # fmt: skip
    ax.axvline(1, color="0.6", lw=1, ls="--")
    ax.set(xlabel="share of the map on the word, over the word's share of the picture")
    ax.set_yticks(range(len(names)), [title(n) for n in names])
    ax.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncol=1, fontsize="small")
    return figure


def apart_table(methods: dict) -> pd.DataFrame:
    """A row a method, the best first: how well its share on the word tells read from seen."""
    rows = [
        {
            "method": title(name),
            "read, on the word (× chance)": found["read"],
            "seen, on the word (× chance)": found["seen"],
            "told apart (AUC)": found["auc"],
            "95 % interval": f"[{found['low']:.2f}, {found['high']:.2f}]",
        }
        for name, found in methods.items()
    ]
    return pd.DataFrame(rows).sort_values("told apart (AUC)", ascending=False, ignore_index=True)
