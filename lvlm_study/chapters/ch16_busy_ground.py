"""What do maps still show when edges give nothing away? Methods and controls by level of clutter.

A level has a member of its own, trained for it, and a test set of its own; level 0 is flat ground.
Three questions share a picture, so whole pictures are drawn anew for every interval.

`lvlm-study run --benchmarks sprites_clutter-K --results RESULTS/busy` writes the tables, and
`lvlm-study summarise` the summary, `busy.json`, beside those of the other chapters:

    busy.levels[4].methods[igos].gap.value
    busy.levels[4].bars.share.value
    busy.wrong[4].methods[occlusion].pointing.wrong.value
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
    legend_below,
    outline,
    overlay,
    own_scale,
    picture,
)
from ..heatmaps.names import CONTROLS, in_order, title
from ..metrics.counterfactual import LEAST_OBJECTS, LEAST_SPREAD, ranked_as
from ..metrics.quadrants import QUADRANTS, RULES, apart, sorted_rows, within
from ..metrics.ranks import means, spearman
from ..metrics.statistics import Estimate, ends, estimate, finite, resample
from ..sweep.stored import BUSY, Tables, enlarged, stored_maps
from .annotate import with_controls
from .compare import named, rows_of, same_items, scored, shown, told, wide, with_evidence

MEMBER = "mini/llava-1.5-s"  # of level 0; those of the other levels are named after it
LEVELS = {  # level -> (member, benchmark)
    "0": (MEMBER, "sprites_clutter-0"),
    **{k: (f"{MEMBER}-clutter{k}", f"sprites_clutter-{k}") for k in "1234"},
    "large": ("mini/llava-1.5-clutter4", "sprites_clutter-4"),  # a larger language model
    "cambrian": ("mini/cambrian-l-clutter4", "sprites_clutter-4"),  # and four encoders
    "mini-gemini": ("mini/mini-gemini-l-clutter4", "sprites_clutter-4"),  # and a fine view
}
HARD = ("3", "4")  # half of the answers are wrong: told together too, as `POOLED`
POOLED = "both"
FAST = "igos[preset=fast]"
METHODS = ("igos", FAST, "occlusion", "gae", "iia", "attention", "integrated_gradients")
BLIND = ("sobel", "difference")  # the controls that find objects on flat ground
MEASURES = {  # column -> (name for readers, what a map that knows nothing gets)
    "gap": ("insertion − deletion", 0.0),
    "auc": ("ROC-AUC against the evidence", 0.5),
    "auc_right": ("ROC-AUC against the evidence, right answers", 0.5),
    "pointing_right": ("pointing at the evidence, right answers", None),
    "effect": ("rank correlation with the effects of objects", 0.0),
}
JUDGED = (FAST, "occlusion")  # methods that were run on every answer of the last two levels
ANSWERS = {"right": ("#0072b2", "o", -0.14), "wrong": ("#d55e00", "s", 0.14)}
GALLERY = ("igos", "occlusion", "gae", "difference")
SHORT = {FAST: "iGOS fast", "integrated_gradients": "Integrated grad.", "difference": "Difference"}


def by_level(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the levels' own members, with `level` and `picture`, which three items share."""
    if rows.empty:
        return rows.assign(level=None, picture=None)
    known = {pair: level for level, pair in LEVELS.items()}
    found = [known.get(pair) for pair in zip(rows.model, rows.benchmark, strict=True)]
    rows = rows.assign(level=pd.array(found, "object"), picture=rows["item"].map(picture_of))
    return rows[rows.level.notna()]


def picture_of(item: str) -> str:
    """ "sprites_clutter-3/017-counting" -> "017"."""
    return item.rpartition("/")[2].partition("-")[0]


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


def wrong_table(study: dict) -> pd.DataFrame:
    """By level, rule and method: maps on the evidence, of right and of wrong answers."""
    rows = []
    for level, part in study["wrong"].items():
        for method in in_order(part["methods"]):
            for rule, found in part["methods"][method].items():
                row = {"level": level, "method": title(method), "rule": rule}
                row |= {f"n {k}": found[k]["n"] for k in ANSWERS}
                row |= {k: shown(found[k]) for k in (*ANSWERS, "apart")}
                rows.append(row | {"within": found["within"]})
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


def wrong_figure(study: dict, level: str = POOLED):
    """Share of maps on the evidence, of right and of wrong answers, a panel a rule."""
    methods = study["wrong"][level]["methods"]
    names = in_order(methods)
    figure, axes = grid(len(RULES), 0.8 + 0.5 * len(names), 2)
    for ax, rule in zip(axes, RULES, strict=True):
        for kind, (shade, marker, shift) in ANSWERS.items():
            found = [methods[name][rule][kind] for name in names]
            places = np.arange(len(names)) + shift
            dots(ax, found, _counted(methods, names, rule), places, shade, marker,
                 label=f"{kind} answers")  # fmt: skip
        ax.set(title=f"rule: {rule}", xlabel="share of maps on the evidence", xlim=(0, 1))
    legend_below(figure, axes[0])
    return figure


def _counted(methods: dict, names: list[str], rule: str) -> list[str]:
    """Names with the number of right and of wrong answers behind them."""
    counts = [[methods[name][rule][kind]["n"] for kind in ANSWERS] for name in names]
    return [
        f"{SHORT.get(n, title(n))}\n({a} + {b})" for n, (a, b) in zip(names, counts, strict=True)
    ]


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
    """`busy.json`: scores and bars by level, right and wrong answers; {} before anything was run.

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
    told_ = {"levels": levels, "order": order(parts), "wrong": judged(own)}
    return {"provenance": own.origin(rows)} | told_ | {"deciding": deciding(own.effects, answers)}


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


def usable(effects: pd.DataFrame) -> pd.DataFrame:
    """Scenes of enough objects whose effects on the answer differ."""
    if effects.empty:
        return effects.reindex(columns=["model", "benchmark", "item", "effect"])
    good = effects[effects.status == "ok"]
    enough = [len(e) >= LEAST_OBJECTS and np.ptp(e) >= LEAST_SPREAD for e in good.effect]
    return good[np.array(enough, bool)]


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


def mean(values: pd.Series, pictures: pd.Series, tail: float = 0.025) -> Estimate:
    """Mean of the values that are there, and its interval over pictures."""
    values = values.dropna().astype(float)
    return ratio(values, pd.Series(1.0, values.index), pictures[values.index], tail)


def ratio(one: pd.Series, other: pd.Series, pictures: pd.Series, tail: float = 0.025) -> Estimate:
    """Sum of `one` over the sum of `other`, whole pictures drawn anew; NaN without rows."""
    if one.empty:
        return estimate([])
    sums = pd.DataFrame({"one": one, "other": other}).groupby(pictures).sum().to_numpy()  # (P, 2)
    drawn = sums[resample(len(sums))].sum(1) if len(sums) > 1 else np.zeros((0, 2))  # (draws, 2)
    low, high = ends(drawn[:, 0] / drawn[:, 1], tail)
    found = Estimate(float(one.sum() / other.sum()), low, high, len(one))
    return found.where_enough(len(sums))


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


# --- right and wrong answers


def judged(own: Tables) -> dict:
    """{level, or `HARD` together: maps on the evidence, of right and of wrong answers}."""
    stored = by_level(stored_maps(own.results, ablations=True))
    parts = {level: stored[stored.level == level] for level in LEVELS if level != "0"}
    parts[POOLED] = stored[stored.level.isin(HARD)]
    return {level: of_answers(part) for level, part in parts.items() if len(part)}


def of_answers(stored: pd.DataFrame) -> dict:
    """Per method and rule, the share of maps on the evidence; and how many answers are wrong.

    `answers` counts wrong answers, `mapped` those that have crucial tokens and so a map.
    """
    wrong = stored[(stored.verdict == "wrong")].drop_duplicates(["level", "item"])
    mapped = stored[(stored.method == FAST) & (stored.verdict == "wrong")]
    methods = in_order(set(stored.method) & {*JUDGED, *CONTROLS})
    return {
        "answers": len(wrong),
        "mapped": int((mapped.status == "ok").sum()),
        "methods": {
            name: {rule: placed(stored[stored.method == name], rule) for rule in RULES}
            for name in methods
        },
    }


def placed(stored: pd.DataFrame, rule: str) -> dict:
    """Share of one method's maps on the evidence, of right and of wrong answers.

    `apart` is right minus wrong, `within` the same within categories and levels (Mantel and
    Haenszel), since they differ in how hard they are and in how large their evidence is.
    """
    rows = sorted_rows(stored, rule)
    rows = rows[rows.quadrant.isin(QUADRANTS)]
    parts = {kind: rows[rows.right == (kind == "right")] for kind in ANSWERS}
    found = {kind: mean(part.on, part.picture) for kind, part in parts.items()}
    found["apart"] = apart(rows.right.to_numpy(bool), rows.on.to_numpy(bool), rows.picture)
    strata = rows.assign(on=rows.right, right=rows.on, category=rows.level + rows.category)
    return {k: one.json() for k, one in found.items()} | {"within": finite(within(strata))}


def deciding(effects: pd.DataFrame, answers: pd.DataFrame) -> dict:
    """Is the object that an answer rests on most one that decides the question? No map is asked.

    Over the levels of `HARD`: share of right and of wrong answers whose greatest exact effect is of
    a deciding object, and `chance`, that of any object of the scene.
    """
    rows = by_level(usable(effects))
    rows = rows[rows.level.isin(HARD)].merge(answers[["level", "item", "verdict"]])
    known = {item.id: item.extra["objects"] for item in _items(rows.benchmark.unique())}
    rows = rows[rows["item"].map(known).notna()]
    rows = rows.assign(needed=rows["item"].map(known))
    hits = [float(np.argmax(e) in some) for e, some in zip(rows.effect, rows.needed, strict=True)]
    luck = [len(n) / len(e) for n, e in zip(rows.needed, rows.effect, strict=True)]
    rows = rows.assign(hit=hits, luck=luck)
    parts = {"right": rows[rows.verdict == "correct"], "wrong": rows[rows.verdict == "wrong"]}
    found = {kind: mean(part.hit, part.picture).json() for kind, part in parts.items()}
    return found | {"chance": finite(rows.luck.mean())}


def _items(benchmarks) -> list:
    return [item for name in benchmarks for item in load_benchmark(name)]
