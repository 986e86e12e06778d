"""Does the answer rest on the picture at all, and on which of its words can that be seen?

Figures here read an explanation, a score, or a table of results; they never run a model.
"""

import numpy as np
import pandas as pd
import seaborn as sns

from ..benchmarks import load_benchmark
from ..figures import WIDTH, grid, legend_below, overlay, picture, stacked
from ..metrics.content_words import RULES, rated
from ..scenes.questions import CATEGORIES
from ..sweep.stored import Tables
from .compare import DROPS, first_trainings, interval, one_each, shown

BANDS = {"lt30": "below 30 %", "30_70": "30 to 70 %", "gt70": "above 70 %"}
EMPTY = ["blur", "black", "mean", "noise"]  # pictures without information


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


# --- the words that only the picture can tell


def table(tree: dict, model: str) -> pd.DataFrame:
    """The page's table for one model of `tokens.json`: a row a rule and category, per cent."""
    rows = []
    for rule, title in RULES.items():
        for category, found in tree["models"][model].get(rule, {}).items():
            row = {"words chosen by": title, "category": category, "answers": found["n"]}
            row |= {name: shown(found[name], 0) for name in ("recall", "precision")}
            rows.append(row | {"words": found["words"]})
    return pd.DataFrame(rows)


# --- figures


def explanation_figure(rgb, explanation, vmin: float = 0.0, vmax: float = 1.0):
    """The picture, and the map over it; a mask method's saliency lies in [0, 1] by itself."""
    figure, (left, right) = grid(2, 0.5 * WIDTH)
    picture(left, rgb, explanation.question, "small")
    title = explanation.answer.text if len(explanation.answer.text) < 60 else "the answer's words"
    overlay(right, rgb, explanation.saliency, vmin, vmax, title=title)
    right.title.set_fontsize("small")
    return figure


def curve_figure(faith, controls: dict):
    """Deletion and insertion of one map beside random maps (band) and the difference picture."""
    figure, axes = grid(2, 0.42 * WIDTH)
    for ax, name in zip(axes, ("deletion", "insertion"), strict=True):
        curve = getattr(faith, f"{name}_curve")
        every = [getattr(f, f"{name}_curve") for f in controls["random"]]
        lines = np.stack([np.interp(curve.fractions, c.fractions, c.normalised) for c in every])
        ax.fill_between(
            curve.fractions, lines.min(0), lines.max(0), color="0.8", label="random maps"
        )
        for null in controls["difference"]:
            other = getattr(null, f"{name}_curve")
            look = {"color": "0.2", "linestyle": "--", "zorder": 3, "label": "difference picture"}
            ax.plot(other.fractions, other.normalised, **look)
        ax.plot(curve.fractions, curve.normalised, label="this map")
        ax.set(xlabel="share of the picture changed", title=f"{name}: {getattr(faith, name):.2f}")
    axes[0].set_ylabel("answer, 0 = blur, 1 = picture")
    legend_below(figure, axes[0])
    return figure


def drop_bands(frame: pd.DataFrame):
    """Bars per category and model: how much of the answer's probability the blur takes away."""
    shares = band_shares(frame[frame.baseline == "blur"], ["model", "category"])
    models = list(shares.model.unique())
    figure, axes = grid(len(models), 0.45 * WIDTH)
    shades = sns.color_palette("cividis", len(BANDS))
    styles = {band: (shade, "") for band, shade in zip(BANDS.values(), shades, strict=True)}
    for ax, model in zip(axes, models, strict=True):
        part = shares[shares.model == model].set_index("category").reindex(CATEGORIES)
        stacked(ax, part.rename(columns=BANDS), styles)
        ax.set_title(model)
    legend_below(figure, axes[0], title="drop in probability")
    return figure


def leak_figure(frame: pd.DataFrame, model: str):
    """Items that keep over 70 % of their probability, by empty picture.

    Left: of one model, a row a category; right: questions about the whole place, a row a model.
    """
    figure, axes = grid(2, 0.45 * WIDTH, sharey=False)
    mine = band_shares(frame[frame.model == model], ["category", "baseline"])
    others = band_shares(one_each(frame[frame.category == "global"]), ["model", "baseline"])
    rows = (("category", mine, CATEGORIES), ("model", others, sorted(set(others.model))))
    heads = (f"{model}, by kind of question", "questions about the whole place")
    for ax, (by, shares, names), head in zip(axes, rows, heads, strict=True):
        kept = shares.pivot(index=by, columns="baseline", values="lt30").reindex(names)[EMPTY]
        kept.index = [name.removeprefix("mini/") for name in kept.index]
        sns.heatmap(
            kept, annot=True, fmt=".0f", vmin=0, vmax=100, cmap="cividis", cbar=False, ax=ax
        )
        ax.set(xlabel="", ylabel="")
        ax.tick_params(labelsize="small", axis="both")
        ax.tick_params(axis="y", rotation=0)
        ax.set_title(head, fontsize="small", loc="right")
    figure.supxlabel("% of answers that lose less than 30 % of their probability", fontsize="small")
    return figure


# --- the numbers of the page


def summary(tables: Tables) -> dict:
    """`tokens.json`: {model: {rule: {category or "all": {n, words, recall, precision}}}}."""
    rows = tables.reliance
    rows = rows[rows.benchmark == "sprites"] if len(rows) else rows
    if rows.empty:
        return {}
    found = rated(first_trainings(rows), load_benchmark("sprites"))
    models: dict = {}
    for (model, rule), part in found.groupby(["model", "rule"]):
        by = {"all": part} | dict(list(part.groupby("category")))
        models.setdefault(model, {})[rule] = {name: _told(some) for name, some in by.items()}
    return tables.tree(rows, models)


def _told(part: pd.DataFrame) -> dict:
    shares = {name: interval(100 * part[name]) for name in ("recall", "precision")}
    return {"n": len(part), "words": float(part.words.mean())} | shares
