"""What do maps still show when edges give nothing away? Methods and controls by level of clutter.

A level has a member of its own, trained for it, and a test set of its own; level 0 is flat ground.
Three questions share a picture, so whole pictures are drawn anew for every interval.

`lvlm-study run --benchmarks sprites_clutter-K --results RESULTS/busy` writes the tables, and
`lvlm-study summarise` the summary, `busy.json`, beside those of the other chapters:

    busy.levels[4].methods[igos].gap.value
    busy.levels[4].bars.share.value
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb

from ..benchmarks import load_benchmark
from ..errors import StudyError
from ..figures import (
    WIDTH,
    chance_line,
    dots,
    grid,
    outline,
    overlay,
    own_scale,
    picture,
)
from ..heatmaps.names import CONTROLS, in_order, title
from ..metrics.counterfactual import ranked_as
from ..metrics.ranks import means, spearman
from ..metrics.statistics import Estimate, ends
from ..sweep.stored import BUSY, Tables, enlarged, stored_maps
from .annotate import with_controls
from .compare import (
    FAST,
    LEVELS,
    by_level,
    mean,
    named,
    picture_of,
    ratio,
    rows_of,
    same_items,
    scored,
    shown,
    told,
    usable,
    wide,
    with_evidence,
)

METHODS = ("igos", FAST, "occlusion", "gae", "iia", "attention", "integrated_gradients")
BLIND = ("sobel", "difference")  # the controls that find objects on flat ground
MEASURES = {  # column -> (name for readers, what a map that knows nothing gets)
    "gap": ("insertion − deletion", 0.0),
    "auc": ("ROC-AUC against the evidence", 0.5),
    "auc_right": ("ROC-AUC against the evidence, right answers", 0.5),
    "pointing_right": ("pointing at the evidence, right answers", None),
    "effect": ("rank correlation with the effects of objects", 0.0),
}
GALLERY = ("igos", "occlusion", "gae", "difference")
SHORT = {FAST: "iGOS fast", "integrated_gradients": "Integrated grad.", "difference": "Difference"}


def read(results: Path) -> pd.DataFrame:
    """Stored maps of all levels, each with the answer that it explains."""
    return by_level(stored_maps(results / BUSY, ablations=True))


# --- tables of the page


def accuracy_table(zoo: dict, categories=("all", "attribute", "existence", "counting", "global")):
    """Members for busy ground by level: right word for word, and of all on the blurred picture."""
    rows = []
    for name, views in zoo["busy"].items():
        row = {"level": int(name.partition("clutter")[2][0]), "member": name}
        row |= {category: told(views["picture"][category]) for category in categories}
        rows.append(row | {"all, blurred": told(views["blurred"]["all"])})
    return pd.DataFrame(rows).sort_values("level", kind="stable", ignore_index=True)


def score_table(study: dict, measure: str) -> pd.DataFrame:
    """Methods by levels: one measure with its interval and n."""
    levels = study["levels"]
    names = in_order({name for level in levels.values() for name in level["methods"]})
    return pd.DataFrame([{"method": title(m)} | _cells(levels, m, measure) for m in names])


def _cells(levels: dict, name: str, measure: str) -> dict:
    found = {level: part["methods"].get(name) for level, part in levels.items()}
    return {
        f"level {level}" if level.isdigit() else level: part
        and f"{shown(part[measure])}, n = {part[measure]['n']}"
        for level, part in found.items()
    }


def bars_table(study: dict) -> pd.DataFrame:
    """By level: what of the best method's score a control has, and its ROC-AUC."""
    rows = []
    for level, part in study["levels"].items():
        bars = part["bars"]
        row = {"level": level, "answers": part["asked"], "items": bars["n"]}
        row |= {"best method": bars["best"], "better control": bars["control"]}
        row |= {"control ÷ method": shown(bars["share"])}
        row |= {"clearly ahead": f"{bars['ahead']['count']} of {bars['methods']}"}
        row |= {"ROC-AUC, control": f"{bars['auc_control']} {shown(bars['auc'])}"}
        rows.append(row | {"ROC-AUC, method": f"{bars['seer']} {shown(bars['auc_best'])}"})
    return pd.DataFrame(rows)


# --- figures


def level_figure(study: dict, measures=("gap", "auc_right")):
    """Score by level, a panel a measure: a line a method, controls grey and dashed."""
    levels = {int(k): part["methods"] for k, part in study["levels"].items() if k.isdigit()}
    shades = dict(zip(METHODS, sns.color_palette("colorblind"), strict=False))
    figure, axes = grid(len(measures), 3.7, 1, sharey=False, sharex=True)
    for ax, measure in zip(axes, measures, strict=True):
        for place, name in enumerate((*METHODS, *reversed(CONTROLS))):
            found = {k: part[name][measure] for k, part in levels.items() if name in part}
            _line(ax, found, shades.get(name), 0.012 * (place - 5))
        _name_lines(ax, levels[max(levels)], measure, shades)
        ax.set_title(MEASURES[measure][0])
        chance_line(ax, MEASURES[measure][1], upright=True)
    axes[-1].set_xticks(list(levels), [f"level {k}" for k in levels])
    axes[-1].set_xlim(-0.2, max(levels) + 1.25)
    return figure


def _line(ax, found: dict, shade, shift: float) -> None:
    """One method through the levels; without a shade it is a control."""
    look = {"color": shade, "lw": 1.8} if shade else {"color": "0.55", "ls": "--", "lw": 1.2}
    kept = {k + shift: one for k, one in found.items() if one["value"] is not None}
    ax.plot(list(kept), [one["value"] for one in kept.values()], **look)
    dots(ax, list(kept.values()), places=list(kept), colour=look["color"], upright=True)


def _name_lines(ax, methods: dict, measure: str, shades: dict) -> None:
    """Names at the right ends of the lines, moved apart where they would touch."""
    found = {n: part[measure]["value"] for n, part in methods.items() if n in (*METHODS, *CONTROLS)}
    found = {n: value for n, value in found.items() if value is not None}
    low, high = ax.get_ylim()
    for name, height in zip(found, spaced(list(found.values()), (high - low) / 19), strict=True):
        ink = [0.6 * part for part in to_rgb(shades.get(name, "0.4"))]  # pale on white is unread
        look = {"color": ink, "fontsize": "small", "va": "center", "zorder": 5}
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ax.text(4.15, height, SHORT.get(name, title(name)), bbox=clear, **look)


def spaced(heights: list[float], least: float) -> np.ndarray:
    """The heights, moved so that two neighbours are at least `least` apart; their mean stays."""
    heights = np.array(heights, float)
    order, out = np.argsort(heights, kind="stable"), heights.copy()
    for below, above in zip(order, order[1:], strict=False):
        out[above] = max(out[above], out[below] + least)
    return out + heights.mean() - out.mean()


def gallery(stored: pd.DataFrame, methods=GALLERY):
    """One question through the levels: a column a level, the picture and then a map a method.

    The item is the first about an attribute of which every level has all maps; level 4 has layouts
    of its own, so there it is another scene. Every map ends at its own scale, the evidence is
    outlined. StudyError when there is no such item.
    """
    chosen = through_levels(stored, methods)
    size = (WIDTH, WIDTH * (len(methods) + 1) / len(chosen) + 0.6)
    rows = len(methods) + 1
    figure, axes = plt.subplots(
        rows, len(chosen), figsize=size, squeeze=False, layout="constrained"
    )
    for column, (level, part) in zip(axes.T, chosen.items(), strict=True):
        _column(column, level, part, methods)
    names = ["picture", *(SHORT.get(name, title(name)) for name in methods)]
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.text(-0.06, 0.5, name, rotation=90, va="center", ha="right", fontsize="small",
                transform=ax.transAxes)  # fmt: skip
    return figure


def _column(axes, level: str, rows: pd.DataFrame, methods) -> None:
    """One level of the gallery: what was answered above the picture, maps below it."""
    first = rows.iloc[0]
    item = next(i for i in load_benchmark(first.benchmark) if i.id == first["item"])
    said = textwrap.fill(f"{'✓' if first.verdict == 'correct' else '✗'} {first.answer}", 20)
    picture(axes[0], item.rgb, f"level {level}\n{said}")
    maps = with_controls(rows, {item.id: item}).set_index("method").saliency
    for ax, method in zip(axes[1:], methods, strict=True):
        big = enlarged(maps[method], *item.rgb.shape[:2])
        overlay(ax, item.rgb, big, *(own_scale(big) or (0, 1)), bar=False)
        outline(ax, item.evidence)


def through_levels(stored: pd.DataFrame, methods=GALLERY) -> dict[str, pd.DataFrame]:
    """{level: the rows of one item, one a method}: the first attribute item with all maps."""
    rows = stored[stored.method.isin(methods) & (stored.status == "ok")]
    rows = rows[(rows.category == "attribute") & rows.level.str.isdigit().astype(bool)]
    whole = rows.groupby(["level", "picture"]).method.transform("nunique") == len(methods)
    rows = rows[whole]
    levels = sorted(rows.level.unique())
    spread = rows.groupby("picture")["level"].nunique()
    if spread.empty or spread.max() < len(levels):
        raise StudyError("No attribute item has all maps at every level; run more items.")
    found = rows[rows.picture == spread.index[spread == len(levels)].min()]
    return {level: found[found.level == level] for level in levels}


# --- the numbers of the page


def summary(tables: Tables) -> dict:
    """`busy.json`: scores and bars by level; {} before anything was run.

    `order` says how alike levels 0 and 4 order the methods, by a rank correlation of their means.
    """
    own = Tables(tables.results / BUSY, tables.profile, tables.seed)
    rows = by_level(rows_of(own.maps, variants=True))
    if rows.empty:
        return {}
    answers = by_level(own.reliance).drop_duplicates(["level", "item"])
    rows = with_effects(rows, own.effects).merge(answers[["level", "item", "verdict"]], how="left")
    parts = {level: rows[rows.level == level] for level in LEVELS if level in set(rows.level)}
    levels = {level: of_level(part) for level, part in parts.items()}
    for level, part in levels.items():
        part["asked"] = int((answers.level == level).sum())
    return {"provenance": own.origin(rows), "levels": levels, "order": order(parts)}


def with_effects(rows: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Rows with `effect`: how a map's mass on objects ranks them beside their exact effects.

    NaN where the scene has too few objects or their effects are alike; 0 for a map that tells none
    from another.
    """
    known = usable(effects).set_index(["model", "item"]).effect
    pairs = zip(rows.model, rows["item"], strict=True)
    true = [known.get(pair) for pair in pairs]
    values = [
        np.nan if one is None or mass is None else np.nan_to_num(ranked_as(np.asarray(mass), one))
        for mass, one in zip(rows.mass, true, strict=True)
    ]
    return rows.assign(effect=values)


def of_level(rows: pd.DataFrame) -> dict:
    """One level: every method's scores, and the bars.

    The evidence is what decides the right answer, so that a map of a wrong one may well lie
    elsewhere: scores against it are told for right answers too.
    """
    good, located = scored(rows), with_evidence(rows)
    right = located[located.verdict == "correct"]
    columns = {"gap": (good, "gap"), "auc": (located, "auc"), "auc_right": (right, "auc")}
    columns |= {"pointing_right": (right, "pointing"), "effect": (good, "effect")}
    return {
        "methods": {
            name: {
                measure: mean(part.loc[part.method == name, value], part.picture).json()
                for measure, (part, value) in columns.items()
            }
            for name in in_order(rows.method.unique())
        },
        "bars": bars(rows),
    }


def bars(rows: pd.DataFrame) -> dict:
    """The better control beside the best method, all on the same items.

    `share` is the control's mean insertion - deletion over the method's. `ahead` are methods whose
    lead over that control leaves out 0 in intervals widened for their number (Bonferroni). `auc`
    is that of the better control, which need not be the same one; `auc_best` the best method's.
    """
    good = same_items(rows[rows.method != "random"])
    gap, auc = wide(good), wide(same_items(with_evidence(good), "auc"), "auc")
    best, control = leading(gap)
    seer, blind = leading(auc)
    own = [name for name in gap if name not in CONTROLS]
    pictures, tail = gap.index.to_series().map(picture_of), 0.025 / len(own)
    leads = {m: mean(gap[m] - gap[control], pictures, tail) for m in own}
    places = auc.index.to_series().map(picture_of)
    return {
        "n": len(gap),
        "methods": len(own),
        "best": title(best),
        "control": title(control),
        "share": ratio(gap[control], gap[best], pictures).json(),
        "ahead": named([name for name in own if leads[name].low > 0]),
        "auc_control": title(blind),
        "auc": mean(auc[blind], places).json(),
        "seer": title(seer),
        "auc_best": mean(auc[seer], places).json(),
    }


def leading(table: pd.DataFrame) -> tuple[str, str]:
    """The method and the control of `BLIND` with the highest means of (items, methods)."""
    mean = table.mean()
    return mean.drop(list(CONTROLS), errors="ignore").idxmax(), mean[list(BLIND)].idxmax()


def order(parts: dict[str, pd.DataFrame]) -> dict:
    """Do flat ground and the busiest order the methods alike? Items of each drawn anew."""
    tables = [wide(scored(parts[k][parts[k].method.isin(METHODS)])).dropna()
              for k in "04" if k in parts]  # fmt: skip
    if len(tables) < 2 or list(tables[0]) != list(tables[1]):
        return {}
    found = spearman(means(tables[0]), means(tables[1], seed=1))
    items = min(map(len, tables))
    return Estimate(found[0], *ends(found[1:]), items).json()
