"""Does the answer rest on the picture at all, and on which of its words can that be seen?

Figures here read an explanation, a score, or a table of results; they never run a model. In
SpriteVQA every reference answer has a stretch that only the picture can tell, its content span:
*three* in "There are three apples.". An answer that equals its reference is therefore a test of the
rule that chose its words: of Eq. 6, of the same rule with the first token allowed, and of YAKE's
keywords, which never look at the picture. Words are compared, not tokens: after the first token of
a word the others follow from the text.
"""

import re
from functools import cache
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..answers import THRESHOLD, token_spans
from ..benchmarks import load_benchmark
from ..errors import StudyError
from ..figures import WIDTH, overlay
from ..models.keywords import keyword_spans
from ..scenes.questions import CATEGORIES
from .compare import DROPS, Tables, first_trainings, interval

BANDS = {"lt30": "below 30 %", "30_70": "30 to 70 %", "gt70": "above 70 %"}
RULES = {
    "llr": "crucial tokens (Eq. 6)",
    "first": "the same, the first token too",
    "keywords": "YAKE keywords",
}
Span = tuple[int, int]
COLUMNS = ["model", "item", "category", "rule", "words", "recall", "precision"]
known_keywords = cache(keyword_spans)  # models give the same answers, and YAKE is slow


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


def words_of(text: str) -> list[Span]:
    """Where the words of a text stand, [start, end) in characters."""
    return [hit.span() for hit in re.finditer(r"\w+", text)]


def touched(words: list[Span], spans: list[Span]) -> set[Span]:
    """The words that share a character with one of the spans."""
    return {w for w in words if any(a < w[1] and w[0] < b for a, b in spans)}


def chosen(row) -> dict[str, list[Span]]:
    """The spans that each rule of `RULES` picks in one answer, given its row of reliance.

    Keywords are left out where the package for them is not installed.
    """
    spans = token_spans(SimpleNamespace(text=row.answer, tokens=list(row.tokens)))
    picked = [span for span, hot in zip(spans, row.crucial, strict=True) if hot]
    first = [spans[0]] if row.llr[0] > THRESHOLD else []
    found = {"llr": picked, "first": picked + first}
    try:
        return found | {"keywords": known_keywords(row.answer)}
    except StudyError:
        return found


def rated(reliance: pd.DataFrame, items) -> pd.DataFrame:
    """One row an answer that equals its reference (under blur) and rule: what was found.

    `recall`: whether every word of the content span was chosen (1 or 0); `precision`: the share of
    the chosen words that belong to it, NaN where no word was chosen; `words`: how many were.
    """
    known, rows = {item.id: item for item in items}, []
    for row in reliance[(reliance.baseline == "blur") & (reliance.status != "error")].itertuples():
        item = known[row.item]
        if row.answer != item.reference:
            continue
        words = words_of(row.answer)
        wanted = touched(words, [item.extra["content_span"]])
        for rule, spans in chosen(row).items():
            found = touched(words, spans)
            rows.append(
                {
                    "model": row.model,
                    "item": row.item,
                    "category": row.category,
                    "rule": rule,
                    "words": len(found),
                    "recall": float(wanted <= found),
                    "precision": len(wanted & found) / len(found) if found else float("nan"),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def table(tree: dict, model: str) -> pd.DataFrame:
    """The page's table for one model of `tokens.json`: a row a rule and category, per cent."""
    rows = []
    for rule, title in RULES.items():
        for category, found in tree["models"][model].get(rule, {}).items():
            row = {"words chosen by": title, "category": category, "answers": found["n"]}
            row |= {name: _spread(found[name]) for name in ("recall", "precision")}
            rows.append(row | {"words": found["words"]})
    return pd.DataFrame(rows)


def _spread(found: dict) -> str:
    if found["low"] is None:
        return "-" if found["value"] is None else f"{found['value']:.0f}"
    return f"{found['value']:.0f} [{found['low']:.0f}, {found['high']:.0f}]"


# --- figures


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
    return {"provenance": tables.origin(rows), "models": models}


def _told(part: pd.DataFrame) -> dict:
    shares = {name: interval(100 * part[name]) for name in ("recall", "precision")}
    return {"n": len(part), "words": float(part.words.mean())} | shares
