"""The figures of the chapters: each takes results and draws one finding.

Functions here read an explanation, a score, or a data frame of results; they never run a model.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..figures import WIDTH, overlay
from .summaries import DROPS

BANDS = {"lt30": "below 30 %", "30_70": "30 to 70 %", "gt70": "above 70 %"}
CATEGORIES = ("attribute", "existence", "counting", "spatial", "global", "reasoning")


def explanation_figure(rgb, explanation, vmin: float = 0.0, vmax: float = 1.0):
    """The picture, and the map over it; a mask method's saliency lies in [0, 1] by itself."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.5 * WIDTH), layout="constrained")
    left.imshow(rgb)
    left.set_axis_off()
    left.set_title(explanation.question, fontsize="small")
    title = explanation.answer.text if len(explanation.answer.text) < 60 else "the answer's words"
    overlay(right, rgb, explanation.saliency, vmin, vmax, title=title)
    right.title.set_fontsize("small")
    return figure


def curve_figure(faith, controls: dict):
    """Deletion and insertion of one map (line) beside random maps (grey band) and chance."""
    figure, axes = plt.subplots(
        1, 2, figsize=(WIDTH, 0.42 * WIDTH), sharey=True, layout="constrained"
    )
    for ax, name in zip(axes, ("deletion", "insertion"), strict=True):
        curve = getattr(faith, f"{name}_curve")
        every = [getattr(f, f"{name}_curve") for f in controls["random"]]
        lines = np.stack([np.interp(curve.fractions, c.fractions, c.normalised) for c in every])
        ax.fill_between(
            curve.fractions, lines.min(0), lines.max(0), color="0.8", label="random maps"
        )
        ax.plot(curve.fractions, curve.normalised, label="this map")
        ax.set(xlabel="share of the picture changed", title=f"{name}: {getattr(faith, name):.2f}")
    axes[0].set_ylabel("answer, 0 = blur, 1 = picture")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2)
    return figure


def band_shares(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Share of items (%) whose answer loses less than 30 %, 30 to 70 %, more, of its probability.

    One row per group of `by`, with its number of items `n`.
    """
    rows = []
    for keys, part in frame[frame.total_drop.notna()].groupby(by, sort=False):
        drop = part.total_drop
        shares = {k: 100 * ((drop >= a) & (drop < b)).mean() for k, (a, b) in DROPS.items()}
        keys = keys if isinstance(keys, tuple) else (keys,)
        rows.append(dict(zip(by, keys, strict=True)) | shares | {"n": len(part)})
    return pd.DataFrame(rows)


def reliance_table(frame: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Our shares per model beside the paper's Table 2: one row per model and data set."""
    ours = band_shares(frame[frame.baseline == "blur"], ["model", "benchmark"])
    rows = [
        {"model": r.model, "source": "ours, mini", "data": r.benchmark, "n": r.n}
        | {label: r[band] for band, label in BANDS.items()}
        for _, r in ours.iterrows()
    ]
    names = {"cv": "CV-Bench", "mmstar": "MMStar", "mmvp": "MMVP"}
    rows += [
        {"model": r.model, "source": "the paper", "data": label, "n": None}
        | _paper_bands(r[f"{key}_lt30"], r[f"{key}_30_70"])
        for _, r in paper.iterrows()
        for key, label in names.items()
    ]
    return pd.DataFrame(rows).assign(n=pd.Series([row["n"] for row in rows], dtype=object))


def _paper_bands(low: float, middle: float) -> dict[str, float]:
    """The paper prints two shares; the third is what is left of 100."""
    return dict(zip(BANDS.values(), (low, middle, 100 - low - middle), strict=True))


def range_of(table: pd.DataFrame, column: str) -> tuple[float, float]:
    """Least and most of a column of `reliance_table`, over our models."""
    ours = table[table.source != "the paper"][column]
    return ours.min(), ours.max()


def drop_bands(frame: pd.DataFrame):
    """Bars per category and model: how much of the answer's probability the blur takes away."""
    shares = band_shares(frame[frame.baseline == "blur"], ["model", "category"])
    models = list(shares.model.unique())
    columns = min(len(models), 3)
    lines = -(-len(models) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(WIDTH, 0.45 * WIDTH * lines), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax in axes.ravel()[len(models) :]:
        ax.remove()
    colours = sns.color_palette("cividis", len(BANDS))
    for ax, model in zip(axes.ravel(), models, strict=False):
        part = shares[shares.model == model].set_index("category").reindex(CATEGORIES)
        left = np.zeros(len(part))
        for (band, label), colour in zip(BANDS.items(), colours, strict=True):
            ax.barh(part.index, part[band], left=left, color=colour, label=label)
            left = left + part[band].to_numpy()
        ax.set(title=model, xlabel="% of items", xlim=(0, 100))
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="drop in probability", loc="outside lower center", ncol=3)
    return figure


def length_figure(frame: pd.DataFrame):
    """Total drop and ratio per token against the length of the answer, under blur."""
    part = frame[(frame.baseline == "blur") & frame.total_drop.notna()]
    part = part.assign(length=part.tokens.map(len))
    count = part.model.nunique()
    size = (WIDTH, (0.42 + 0.03 * count) * WIDTH)
    figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained")
    names = {"total_drop": "drop in probability", "per_token": "ratio per token (nats)"}
    apart = min(0.2 * count, 0.7) if count > 1 else False
    for ax, (column, label) in zip(axes, names.items(), strict=True):
        sns.pointplot(
            part, x="length", y=column, hue="model", ax=ax, linestyle="none", dodge=apart,
            markersize=4, err_kws={"linewidth": 1.2}, seed=0, legend=ax is axes[0],
        )  # fmt: skip
        ax.set(xlabel="tokens in the answer", ylabel=label)
    inside = axes[0].get_legend()
    handles, labels = inside.legend_handles, [text.get_text() for text in inside.texts]
    inside.remove()  # several models would cover the points
    figure.legend(handles, labels, loc="outside lower center", ncol=min(count, 3))
    return figure


def leak_figure(frame: pd.DataFrame, model: str):
    """For each kind of empty picture and category: items that keep over 70 % of the probability."""
    shares = band_shares(frame[frame.model == model], ["baseline", "category"])
    kept = shares.pivot(index="category", columns="baseline", values="lt30").reindex(CATEGORIES)
    figure, ax = plt.subplots(figsize=(0.8 * WIDTH, 0.5 * WIDTH), layout="constrained")
    sns.heatmap(
        kept[["blur", "black", "mean", "noise"]], annot=True, fmt=".0f", vmin=0, vmax=100,
        cmap="cividis", ax=ax, cbar_kws={"label": "% of items with a drop below 30 %"},
    )  # fmt: skip
    ax.set(xlabel="picture without information", ylabel="")
    return figure
