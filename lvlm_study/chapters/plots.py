"""The figures of the chapters on methods: each takes results and draws one finding.

Functions here read tables of results; they never run a model. Where nothing has been run yet, the
figure says so instead of failing, so that a chapter can be opened on any profile.
"""

import functools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..figures import CMAP, WIDTH, scale_bar
from ..heatmaps.names import CONTROLS, PAPER_METHOD, REFERENCE, in_order, title
from ..sweep.results import NOT_YET
from ..sweep.stored import enlarged
from .ch02_methods import (
    ENOUGH,
    LEAST,
    against,
    complete,
    groups,
    method_scores,
    other_tests,
    rows_of,
    same_items,
    scored,
    wide,
)
from .ch03_ablations import CHOICES, choice_table, differences, variant_rows, weight_grid
from .ch03_ablations import label as variant_label
from .ch04_truth import (
    AREA,
    MEASURES,
    chance_of,
    effect_scores,
    evidence_scores,
    truths,
    with_evidence,
)
from .ch05_cost import BAD, FLAGS, costs, flag_scores, flags_by_method

OWN, CONTROL, SPECIAL = (
    sns.color_palette("colorblind")[0],
    "0.55",
    sns.color_palette("colorblind")[1],
)
ROW = 0.24  # inches for one line of a dot plot
PANELS = 4  # dot plots beside each other
SHEET = 6  # pictures beside each other on a contact sheet


def nothing_yet():
    """An empty figure that says that nothing has been run."""
    figure, ax = plt.subplots(figsize=(0.6 * WIDTH, 0.8), layout="constrained")
    ax.text(0.5, 0.5, NOT_YET, ha="center", va="center")
    ax.set_axis_off()
    return figure


def when_run(draw):
    """Draw if the first table has rows, else say that nothing has been run."""

    @functools.wraps(draw)
    def or_not(frame, *args, **options):
        if frame is None or len(frame) == 0:
            return nothing_yet()
        figure = draw(frame, *args, **options)
        return nothing_yet() if figure is None else figure

    return or_not


def colour_of(method: str):
    """iGOS as we set it stands out, controls step back."""
    return SPECIAL if method == REFERENCE else CONTROL if method in (*CONTROLS, AREA) else OWN


def dots(ax, table: pd.DataFrame, value: str, low: str, high: str, order: list[str]) -> None:
    """A dot with its interval for every method of `order`, the first on top.

    Methods with too few items to be compared with the others are hollow.
    """
    rows = table.set_index("method").reindex(order)
    enough = ENOUGH * table.n.median()
    for place, (method, row) in enumerate(rows.iterrows()):
        if pd.isna(row[value]):
            continue
        colour = colour_of(method)
        if pd.notna(row[low]):
            ax.plot([row[low], row[high]], [place, place], color=colour, linewidth=1.6)
        face = colour if row.n >= enough else "white"
        ax.plot(row[value], place, "o", color=colour, mfc=face, markersize=5)
    ax.set_yticks(range(len(order)), [title(name) for name in order], fontsize="small")
    ax.set_ylim(len(order) - 0.4, -0.6)


def panels(count: int, lines: int, sharex: bool = True):
    """`count` dot plots for `lines` methods, at most `PANELS` beside each other: (figure, axes)."""
    columns = min(count, PANELS)
    rows = -(-count // columns)
    size = (WIDTH, rows * (ROW * lines + 0.7) + 0.2)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, sharey=True, sharex=sharex, squeeze=False, layout="constrained"
    )
    for ax in axes.ravel()[count:]:
        ax.set_axis_off()
    return figure, axes.ravel()[:count]


def chance_line(ax, at: float) -> None:
    """Where a map that knows nothing would be."""
    ax.axvline(at, color="0.3", linestyle=":", linewidth=1)


def by_reading_order(frame: pd.DataFrame, value: str = "gap") -> list[str]:
    """Methods by their mean over all models, best first."""
    means = scored(frame).groupby(["method", "model"])[value].mean().groupby("method").mean()
    return means.sort_values(ascending=False).index.tolist()


# --- chapter 2


@when_run
def gap_figure(maps: pd.DataFrame):
    """Insertion - deletion by method, a panel a model; small rings are the maps turned over."""
    frame = rows_of(maps)
    order, parts = by_reading_order(frame), with_rivals(frame)
    if not parts:
        return None
    figure, axes = panels(len(parts), len(order))
    for ax, ((model, _), part) in zip(axes, parts, strict=True):
        table = method_scores(part)
        chance_line(ax, 0)
        dots(ax, table, "gap", "gap_low", "gap_high", order)
        turned = -table.set_index("method").gap.reindex(order)
        ax.plot(turned, range(len(order)), "o", mfc="none", mec="0.6", markersize=3.5)
        ax.set_title(model, fontsize="small")
    figure.supxlabel(
        "insertion − deletion (0 = chance; rings: the map turned over)", fontsize="small"
    )
    return figure


def with_rivals(frame: pd.DataFrame) -> list:
    """`groups` that have a method beside iGOS and the controls; all of them if none has."""
    parts = list(groups(frame, LEAST))
    rivals = [p for p in parts if set(p[1].method) - {REFERENCE, PAPER_METHOD, *CONTROLS}]
    return rivals or parts


@when_run
def difference_figure(maps: pd.DataFrame):
    """iGOS minus every other method, item by item, a panel a model; right of 0 iGOS is better."""
    parts = [(keys, against(part)) for keys, part in with_rivals(rows_of(maps))]
    parts = [(keys, table) for keys, table in parts if len(table)]
    if not parts:
        return None
    every = pd.concat([table for _, table in parts])
    order = every.groupby("method").difference.mean().sort_values().index.tolist()
    figure, axes = panels(len(parts), len(order))
    for ax, ((model, _), table) in zip(axes, parts, strict=True):
        chance_line(ax, 0)
        dots(ax, table, "difference", "low", "high", order)
        ax.set_title(model, fontsize="small")
    figure.supxlabel(
        "iGOS minus the method, insertion − deletion of the same item", fontsize="small"
    )
    return figure


@when_run
def tests_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Mean gap of every method under every test that was run, on the same items: is the order one?

    In probabilities, see `other_tests`.
    """
    tables = other_tests(maps, model, benchmark)
    if not tables:
        return None
    same = zip(tables, complete(*tables.values()), strict=True)
    means = pd.DataFrame({name: table.mean() for name, table in same})
    means = means.sort_values(means.columns[0], ascending=False)
    names = [title(name) for name in means.index]
    size = (0.72 * WIDTH, ROW * len(means) + 1)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    heat(ax, means.set_axis(names), "insertion − deletion, raw probability")
    labels = [name.replace(", ", "\n") for name in means]
    ax.set_xticklabels(labels, rotation=0, fontsize="small")
    return figure


def heat(ax, table: pd.DataFrame, label: str, form: str = ".2f") -> None:
    """A table of numbers on the colours of the maps, each number written in."""
    sns.heatmap(
        table.astype(float), annot=True, fmt=form, cmap="cividis", ax=ax, cbar_kws={"label": label},
        annot_kws={"fontsize": "small"},
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)


def shared_item(stored: pd.DataFrame, model: str, category: str) -> str | None:
    """The first item of a category that the most methods have a map of."""
    mine = stored[(stored.model == model) & (stored.category == category)]
    mine = mine[mine.saliency.notna() & (mine.status == "ok")]
    counts = mine.groupby("item").method.nunique()
    return None if counts.empty else str(counts.index[counts == counts.max()].min())


@when_run
def contact_sheet(stored: pd.DataFrame, model: str, items: dict, category: str):
    """One picture, its evidence outlined, and every method's stored map of it.

    The item is `shared_item`, so that nobody picks it; `items` finds items by their id. All maps on
    one scale that has a meaning: the share of pixels that the map puts below a place. Deletion and
    insertion read nothing else, and the units of different methods have nothing in common.
    """
    name = shared_item(stored, model, category)
    if name is None:
        return None
    mine = stored[(stored.model == model) & (stored.item == name) & stored.saliency.notna()]
    item, maps = items[name], mine.set_index("method").saliency
    rgb, names = item.rgb, in_order(maps.index)
    figure, axes = sheet(len(names) + 1)
    axes[0].imshow(rgb)
    axes[0].set_title("the picture", fontsize=6)
    for ax, method in zip(axes[1:], names, strict=False):
        below = share_below(enlarged(maps[method], *rgb.shape[:2]))
        ax.imshow(below, cmap=CMAP, vmin=0, vmax=1)
        ax.set_title(title(method), fontsize=6)
    for ax in axes[: len(names) + 1] if item.evidence is not None else ():
        ax.contour(item.evidence, levels=[0.5], colors="white", linewidths=0.8)
    scale_bar(list(axes), 0, 1, label="share of the picture below")
    figure.suptitle(f"{mine.iloc[0].question}  {mine.iloc[0].answer}", fontsize="small")
    return figure


def sheet(count: int):
    """Empty panels for `count` pictures, `SHEET` a row: (figure, axes in reading order)."""
    rows = -(-count // SHEET)
    size = (WIDTH, 1.32 * rows + 0.3)
    figure, axes = plt.subplots(rows, SHEET, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel():
        ax.set_axis_off()
    return figure, axes.ravel()


def share_below(saliency: np.ndarray) -> np.ndarray:
    """For each pixel the share of pixels with less saliency: 0 for the lowest, 1 for the top."""
    largest = max(float(abs(saliency).max()), np.finfo(np.float32).tiny)
    values = (saliency.astype(np.float64) / largest).round(6)  # equal up to rounding is equal
    below = np.searchsorted(np.sort(values.ravel()), values, side="left")
    return below / max(1, saliency.size - 1)


# --- chapter 3


@when_run
def ablation_figure(maps: pd.DataFrame, model: str, benchmark: str, choices=tuple(CHOICES)):
    """Every variant of iGOS minus the paper's setting, with intervals, by what it changes."""
    frame = variant_rows(one(maps, model, benchmark, variants=True))
    parts = [(c, choice_table(frame, c)) for c in choices]
    parts = [(c, t[t.difference.notna()]) for c, t in parts if len(t)]
    parts = [(c, t) for c, t in parts if len(t)]
    if not parts:
        return None
    lines = sum(len(t) + 1 for _, t in parts)
    figure, ax = plt.subplots(figsize=(0.85 * WIDTH, ROW * lines + 0.8), layout="constrained")
    chance_line(ax, 0)
    place, ticks, labels, heads = 0, [], [], set()
    for choice, table in parts:
        heads.add(place)
        ticks, labels, place = ticks + [place], [*labels, CHOICES[choice]], place + 1
        for row in table.itertuples():
            colour = SPECIAL if row.clear else CONTROL
            ax.plot([row.diff_low, row.diff_high], [place, place], color=colour, linewidth=1.6)
            ax.plot(row.difference, place, "o" if row.clear else "s", color=colour, markersize=5)
            ticks, labels, place = ticks + [place], [*labels, row.value], place + 1
    ax.set_yticks(ticks, labels, fontsize="small")
    for where, tick in zip(ticks, ax.get_yticklabels(), strict=True):
        tick.set_fontweight("bold" if where in heads else "normal")
    ax.set(
        ylim=(place - 0.4, -0.6), xlabel="variant minus the paper's setting, insertion − deletion"
    )
    return figure


@when_run
def weights_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Mean gap over the weight of the L2 term and its decay."""
    grid = weight_grid(variant_rows(one(maps, model, benchmark, variants=True)))
    if grid.size < 2:
        return None
    figure, ax = plt.subplots(figsize=(0.55 * WIDTH, 0.4 * WIDTH), layout="constrained")
    heat(ax, grid, "insertion − deletion", ".3f")
    ax.set(xlabel="decay γ", ylabel="weight λ₂")
    return figure


@when_run
def before_after_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """How far single items move under each variant: the spread that a mean hides."""
    frame = variant_rows(one(maps, model, benchmark, variants=True))
    names = differences(frame).method.tolist()
    table = wide(scored(frame))
    if not names:
        return None
    moved = table[names].sub(table[PAPER_METHOD], axis=0).dropna(how="all")
    order = moved.mean().sort_values(ascending=False).index
    long = moved[order].rename(columns=variant_label).melt(var_name="variant", value_name="moved")
    figure, ax = plt.subplots(figsize=(WIDTH, ROW * len(names) + 0.8), layout="constrained")
    sns.boxplot(long, x="moved", y="variant", ax=ax, color="0.85", fliersize=1.5, linewidth=0.8)
    chance_line(ax, 0)
    ax.set(xlabel="variant minus the paper's setting, one item", ylabel="")
    ax.tick_params(axis="y", labelsize="small")
    return figure


# --- chapter 4


@when_run
def evidence_figure(
    maps: pd.DataFrame, model: str, benchmark: str, measures=("energy_ratio", "auc", "pointing")
):
    """Each method against the evidence by several measures, with chance and the controls."""
    frame = one(maps, model, benchmark)
    table = evidence_scores(frame)
    if table.empty:
        return None
    order = table.method.tolist()
    figure, axes = panels(len(measures), len(order), sharex=False)
    for ax, measure in zip(axes, measures, strict=True):
        chance_line(ax, chance_of(with_evidence(frame), measure))
        dots(ax, table, measure, f"{measure}_low", f"{measure}_high", order)
        ax.set_xlabel(MEASURES[measure][0], fontsize="small")
    return figure


@when_run
def effect_figure(maps: pd.DataFrame, effects: pd.DataFrame):
    """Rank correlation of a map's mass on objects with their exact effects, a panel a model."""
    parts = groups(rows_of(maps), LEAST)
    parts = [(model, effect_scores(same_items(part), effects)) for (model, _), part in parts]
    parts = [(model, table) for model, table in parts if len(table)]
    if not parts:
        return None
    every = pd.concat([table for _, table in parts])
    order = every.groupby("method").spearman.mean().sort_values(ascending=False).index.tolist()
    figure, axes = panels(len(parts), len(order))
    for ax, (model, table) in zip(axes, parts, strict=True):
        chance_line(ax, 0)
        dots(ax, table, "spearman", "low", "high", order)
        ax.set_title(model, fontsize="small")
    labels = [title(name) if name != AREA else "Object's area" for name in order]
    for ax in axes:
        ax.set_yticks(range(len(order)), labels, fontsize="small")
    figure.supxlabel("rank correlation of mass with effect, mean over scenes", fontsize="small")
    return figure


@when_run
def agreement_figure(maps: pd.DataFrame, effects: pd.DataFrame, model: str, benchmark: str):
    """Methods by mean insertion - deletion (x) and by each truth (y): one dot a method."""
    frame = one(maps, model, benchmark)
    found = truths(frame, effects)
    if not found:
        return None
    gap, columns = scored(frame).groupby("method").gap.mean(), min(2, len(found))
    rows = -(-len(found) // columns)
    size = (WIDTH, 0.42 * WIDTH * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel()[len(found) :]:
        ax.set_axis_off()
    for ax, (name, truth) in zip(axes.ravel(), found.items(), strict=False):
        means = truth.mean()
        for method in means.index:
            ax.plot(gap[method], means[method], "o", color=colour_of(method), markersize=4)
            label_point(ax, gap[method], means[method], method)
        ax.set_title(name, fontsize="small")
        ax.margins(x=0.15)
        ax.tick_params(labelsize="x-small")
    figure.supxlabel("insertion − deletion, mean of a method", fontsize="small")
    return figure


def label_point(ax, x: float, y: float, method: str) -> None:
    """A method's name beside its dot."""
    ax.annotate(
        title(method), (x, y), xytext=(2, 2), textcoords="offset points", fontsize=6, color="0.25"
    )


def one(maps: pd.DataFrame, model: str, benchmark: str, variants: bool = False) -> pd.DataFrame:
    """The rows of one model on one benchmark under the paper's test."""
    frame = rows_of(maps, variants=variants)
    return frame[(frame.model == model) & (frame.benchmark == benchmark)]


# --- chapter 5


def free_height(row, taken: list[tuple[float, float]], dots: pd.DataFrame) -> int:
    """Points above the dot at which a name runs into no other and no dot to its right.

    `taken` are the names so far, (seconds, height), which it joins.
    """
    ahead = dots[(dots.seconds > row.seconds) & (np.log10(dots.seconds / row.seconds) < 0.35)]
    for points in (3, -10, 13, -20, 23, -30):
        height = row.gap + points / 250  # about 250 points for a difference of 1
        near = [y for x, y in taken if abs(np.log10(row.seconds / x)) < 0.6]
        if all(abs(height - y) > 0.034 for y in (*near, *ahead.gap)):
            break
    taken.append((row.seconds, height))
    return points


@when_run
def cost_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Seconds a map against insertion - deletion: up and to the left is better."""
    table = costs(one(maps, model, benchmark))
    table = table[~table.method.isin(CONTROLS)]
    if table.empty:
        return None
    figure, ax = plt.subplots(figsize=(WIDTH, 0.75 * WIDTH), layout="constrained")
    taken = []
    for row in table.sort_values("seconds").itertuples():
        colour = colour_of(row.method)
        ax.plot([row.seconds] * 2, [row.gap_low, row.gap_high], color=colour, linewidth=1.2)
        ax.plot(row.seconds, row.gap, "o", color=colour, markersize=5)
        ax.annotate(
            row.title, (row.seconds, row.gap), xytext=(4, free_height(row, taken, table)),
            textcoords="offset points", fontsize="x-small",
        )  # fmt: skip
    ax.axhline(0, color="0.3", linestyle=":", linewidth=1)
    ax.set(xscale="log", xlabel="seconds for one map (log scale)", ylabel="insertion − deletion")
    return figure


@when_run
def flag_figure(maps: pd.DataFrame, model: str, benchmark: str, fault: str = "off_evidence"):
    """Share of bad maps among all, among those that a flag picks out, and how many it finds."""
    table = flag_scores(one(maps, model, benchmark), fault)
    if table.empty:
        return None
    figure, ax = plt.subplots(figsize=(0.85 * WIDTH, 0.36 * WIDTH), layout="constrained")
    names = {
        "base": "bad among all maps",
        "precision": "bad among flagged",
        "recall": "flagged among bad",
    }
    colours = sns.color_palette("cividis", len(names))
    for n, (column, label) in enumerate(names.items()):
        places = np.arange(len(table)) + 0.26 * (n - 1)
        ax.barh(places, 100 * table[column], height=0.24, color=colours[n], label=label)
    ax.set_yticks(range(len(table)), [FLAGS[f] for f in table.flag], fontsize="small")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel=f"% of maps (bad: {BAD[fault]})")
    figure.legend(loc="outside lower center", ncol=3, fontsize="small")
    return figure


@when_run
def flag_by_method_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Per method: the share of bad maps, and of those the share that the flag finds."""
    table = flags_by_method(one(maps, model, benchmark))
    if table.empty:
        return None
    order = table.method.tolist()
    figure, axes = panels(2, len(order))
    for ax, column, label in zip(
        axes, ("base", "recall"), ("bad maps", "bad maps that are flagged"), strict=True
    ):
        values = table.assign(none=np.nan)
        dots(ax, values, column, "none", "none", order)
        ax.set(xlim=(-0.02, 1.02), xlabel=label)
    return figure


@when_run
def cascade_figure(rows: pd.DataFrame):
    """Likeness to the first map while weights are drawn anew from the top: it should fall to 0."""
    rows = rows[(rows.check == "weights") & rows.value.notna()]
    if rows.empty:
        return None
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 * WIDTH), layout="constrained")
    stages = list(dict.fromkeys(rows.stage))
    styles, markers = sns.color_palette("colorblind"), "osD^vPX*<>hdp"
    for n, method in enumerate(in_order(rows.method.unique())):
        means = rows[rows.method == method].groupby("stage").value.mean().reindex(stages)
        line = {"color": styles[n % len(styles)], "marker": markers[n % len(markers)]}
        line |= {"linestyle": "--" if n >= len(styles) else "-", "markersize": 4}
        ax.plot(range(len(stages)), means, label=title(method), **line)
    chance_line_y(ax)
    ax.set_xticks(range(len(stages)), stages, rotation=20, fontsize="small")
    ax.set(ylabel="rank correlation with the first map", xlabel="drawn anew up to and including")
    figure.legend(loc="outside right upper", fontsize="x-small")
    return figure


def chance_line_y(ax) -> None:
    """The height of unrelated maps."""
    ax.axhline(0, color="0.3", linestyle=":", linewidth=1)
