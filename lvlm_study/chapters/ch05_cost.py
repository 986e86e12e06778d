"""What does a map cost, when has it failed, and could anybody have known without the truth?

Passes are exact; seconds were measured while the sweep shared its machine and are rough.

Whether a map is stable, and whether it depends on the model at all, was measured by `sweep.sanity`.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..figures import WIDTH, chance_line, dots, when_run
from ..heatmaps.names import CONTROLS, REFERENCE, in_order, title
from ..metrics.flags import BAD, FLAGS, flag_scores, flagged, flags_by_method, luck, rates
from ..metrics.statistics import finite
from ..sweep.sanity import summarise
from .compare import (
    OTHERS,
    by_model,
    colour_of,
    counted,
    differences,
    likeness,
    method_panels,
    method_scores,
    most_items_first,
    one_model,
    or_not_yet,
    rows_of,
    same_items,
    scored,
    spread,
    variant_title,
    with_evidence,
    with_rivals,
)

MIB = 2**20
PAUSE = 600  # seconds without a new row: nothing was running
RATES = ("flagged", "base", "precision", "recall", "lift", "lift_low", "lift_high")
RATES += ("within", "within_low", "within_high")


# --- cost


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a method, cheapest first: medians over the maps that were made.

    Columns: method, title, n, forward, backward, seconds, mib (peak memory above the start), times
    (seconds relative to iGOS, on the same items), gap with `gap_low` and `gap_high`.
    """
    good = scored(frame)
    rows = [_cost(part, good) for _, part in good.groupby("method")]
    columns = ["method", "title", "n", "forward", "backward", "seconds", "mib", "times"]
    table = pd.DataFrame(rows, columns=columns)
    if table.empty:
        return table.assign(gap=[], gap_low=[], gap_high=[])
    gaps = method_scores(frame)[["method", "gap", "gap_low", "gap_high"]]
    return table.merge(gaps, on="method").sort_values("seconds", ignore_index=True)


def _cost(part: pd.DataFrame, good: pd.DataFrame) -> dict:
    method = part.method.iloc[0]
    seconds = part.set_index("item").seconds
    other = good[(good.method == REFERENCE) & good.item.isin(part.item)].set_index("item").seconds
    counts = {name: round(part[name].median()) for name in ("forward", "backward")}
    return {
        "method": method,
        "title": title(method),
        "n": len(part),
        **counts,
        "seconds": seconds.median(),
        "mib": part.peak_bytes.median() / MIB,
        "times": (seconds / other).median() if len(other) else np.nan,
    }


def cost_shown(maps: pd.DataFrame) -> pd.DataFrame:
    """The table of the chapter: models on which several methods ran, cheapest first in each."""
    rows = []
    for (model, _), part in most_items_first(with_rivals(rows_of(maps))):
        for row in costs(part[~part.method.isin(CONTROLS)]).itertuples():
            rows.append(
                {"model": model, "method": row.title, "n": row.n, "seconds": row.seconds}
                | {"ins − del": row.gap, "forward": row.forward, "backward": row.backward}
                | {"time / iGOS": row.times, "MiB": round(row.mib)}
            )
    return or_not_yet(pd.DataFrame(rows))


def pareto(table: pd.DataFrame) -> list[str]:
    """Methods that no other beats in both time and gap, cheapest first; controls do not count."""
    own = table[~table.method.isin(CONTROLS)].sort_values(["seconds", "gap"])
    best, names = -np.inf, []
    for row in own.itertuples():
        if row.gap > best:
            best = row.gap
            names.append(row.method)
    return names


# --- what happened to the items


def statuses(frame: pd.DataFrame) -> pd.DataFrame:
    """Items by status, a row a method (all rows of one model)."""
    if frame.empty:
        return or_not_yet(frame)
    table = frame.groupby(["method", "status"]).size().unstack(fill_value=0)
    table = table.loc[in_order(table.index)].rename(index=title)
    return or_not_yet(table.rename_axis(index="method", columns=None).reset_index())


# --- does a map change with the model, and with nothing else?


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of the chapter: a row a method, means with intervals."""
    labels = {"another seed": "seeds", "other words": "logit"}
    labels |= {"another question": "question", "no weight left": "forgotten"}
    items, out = rows.groupby("method").item.nunique(), []
    for method, told in summarise(rows).items():
        cells = {label: _cell(told[name], items[method]) for label, name in labels.items()}
        out.append({"method": told["title"], "items": items[method]} | cells)
    return or_not_yet(pd.DataFrame(out))


def shown_alone(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a method: noise and infidelity, and the likeness with one stage alone drawn anew."""
    items, out = rows.groupby("method").item.nunique(), []
    for method, told in summarise(rows).items():
        cells = {"moved by noise": told["noise"], "infidelity": told["infidelity"]}
        cells |= {f"{stage} anew": found for stage, found in told["alone"].items()}
        row = {label: _cell(found, items[method]) for label, found in cells.items()}
        out.append({"method": told["title"]} | row)
    return or_not_yet(pd.DataFrame(out))


def _cell(found, items: int) -> str:
    """Mean and interval; with n where a constant map, which is like nothing, left fewer items."""
    return f"{found:.2f}" if found.n == items else f"{found:.2f} (n = {found.n})"


def settings_shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Settings of iGOS by how much they leave of the map, least first; two items' is the floor."""
    moved = differences(frame).set_index("method").difference
    floor = {OTHERS: "(two different items)"}
    rows = [
        {
            "setting": floor.get(row.method) or variant_title(row.method),
            "like the paper's setting": spread(row.value, row.low, row.high),
            "ins − del, minus that": moved.get(row.method, np.nan),
            "n": row.n,
        }
        for row in likeness(frame).sort_values("value").itertuples()
    ]
    return or_not_yet(pd.DataFrame(rows))


# --- figures


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
    table = costs(one_model(maps, model, benchmark))
    table = table[~table.method.isin(CONTROLS)]
    if table.empty:
        return None
    figure, ax = plt.subplots(figsize=(WIDTH, 0.75 * WIDTH), layout="constrained")
    taken = []
    shades = [colour_of(name) for name in table.method]
    gaps = table[["gap", "gap_low", "gap_high"]].to_numpy(float)
    dots(ax, gaps, places=table.seconds, colour=shades, upright=True)
    for row in table.itertuples():
        ax.annotate(
            row.title, (row.seconds, row.gap), xytext=(4, free_height(row, taken, table)),
            textcoords="offset points", fontsize="x-small",
        )  # fmt: skip
    chance_line(ax, 0, upright=True)
    ax.set(xscale="log", xlabel="seconds for one map (log scale)", ylabel="insertion − deletion")
    return figure


@when_run
def flag_figure(maps: pd.DataFrame, model: str, benchmark: str, fault: str = "off_evidence"):
    """Share of bad maps among all, among those that a flag picks out, and how many it finds."""
    table = flag_scores(with_evidence(one_model(maps, model, benchmark)), fault)
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
    table = flags_by_method(with_evidence(one_model(maps, model, benchmark)))
    if table.empty:
        return None
    table = table.assign(none=np.nan)
    heads = {"base": "bad maps", "recall": "bad maps that are flagged"}
    parts = [("", table, (column, "none", "none"), None) for column in heads]
    figure, axes = method_panels(parts, table.method.tolist())
    for ax, name in zip(axes, heads.values(), strict=True):
        ax.set(xlim=(-0.02, 1.02), xlabel=name)
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
    chance_line(ax, 0, upright=True)
    ax.set_xticks(range(len(stages)), stages, rotation=20, fontsize="small")
    ax.set(ylabel="rank correlation with the first map", xlabel="drawn anew up to and including")
    figure.legend(loc="outside right upper", fontsize="x-small")
    return figure


# --- the numbers of the page


def summary(tables) -> dict:
    """`cost.json`, from the tables of a results folder (`compare.Tables`)."""
    if tables.maps.empty:
        return {}
    hours = hours_taken(tables.maps, tables.reliance, tables.effects)
    return tables.tree(tables.maps, by_model(rows_of(tables.maps), of_model), hours=hours)


def hours_taken(*tables: pd.DataFrame) -> dict[str, float]:
    """Hours of wall time that the rows took, by model and in "all", from when each was made.

    Times between one row of a model and its next are summed; longer ones than `PAUSE` are pauses.
    Models that shared the machine count one after the other, two workers on one model count once.
    """
    made = pd.concat([t[["model", "made"]] for t in tables if len(t)]).drop_duplicates()
    made = made.assign(made=pd.to_datetime(made.made)).sort_values(["model", "made"])
    gaps = made.groupby("model").made.diff().dt.total_seconds()
    taken = gaps.where(gaps <= PAUSE, 0.0).groupby(made.model).sum() / 3600
    return {str(k): float(v) for k, v in taken.items()} | {"all": float(taken.sum())}


def of_model(part: pd.DataFrame) -> dict:
    """Cost by method, what is worth its time, flags."""
    same, good = same_items(part), with_evidence(part)
    front = pareto(costs(same))
    return {
        "methods": {
            row.method: {k: finite(getattr(row, k)) for k in ("forward", "backward", "seconds")}
            for row in costs(part).itertuples()
        },
        "worth_it": {"titles": ", ".join(map(title, front)), "n": int(same.item.nunique())},
        "flags": {fault: flags_told(good, fault) for fault in BAD if len(flagged(good))},
        "luck": finite(luck(good)),
        "reference_flag": reference_flag(good),
    }


def flags_told(good: pd.DataFrame, fault: str) -> dict:
    """Rates of every flag in per cent."""
    return {row["flag"]: _percent(row) for row in flag_scores(good, fault).to_dict("records")}


def _percent(rates: dict) -> dict:
    counts = {name: int(rates[name]) for name in ("n", "items")}
    return counts | {name: finite(100 * rates[name]) for name in RATES}


def reference_flag(good: pd.DataFrame) -> dict:
    """The flag of the random maps for iGOS alone, and its gap on the evidence."""
    maps = flagged(good)
    maps = maps[maps.method == REFERENCE]
    if maps.empty:
        return {}
    found = rates(maps, "like_random", "off_evidence")
    told = {"n": len(maps)} | {k: finite(100 * found[k]) for k in ("base", "flagged")}
    return told | {"good_gap": counted(maps[~maps.off_evidence].gap)}
