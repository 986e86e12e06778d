"""What does a map cost, when has it failed, and could anybody have known without the truth?

Passes are exact; seconds were measured while the sweep shared its machine and are rough.

Whether a map is stable, and whether it depends on the model at all, was measured by `sweep.sanity`.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..figures import ROW, WIDTH, chance_line, dots, grid, when_run
from ..heatmaps.names import CONTROLS, PAPER_METHOD, REFERENCE, in_order, title
from ..metrics.flags import BAD, FLAGS, flag_scores, flagged, luck
from ..metrics.statistics import estimate, finite
from ..models.names import short
from ..sweep.results import load
from ..sweep.sanity import summarise
from ..sweep.stored import BUSY, Tables
from .compare import (
    OTHERS,
    by_model,
    colour_of,
    differences,
    groups,
    likeness,
    method_panels,
    method_scores,
    most_items_first,
    named,
    one_model,
    or_not_yet,
    picture_of,
    rows_of,
    same_items,
    scored,
    spread,
    variant_title,
    with_evidence,
    with_rivals,
)

RELEASED = "igos[compat=paper_code]"
SHORT = ("igos[preset=lean]", "igos[steps=1]")  # 20 and 10 passes of each kind, the last untold
INSTEAD = {  # rows of `make bench` whose names are not those of methods
    "igos_fast": title("igos[preset=fast]"),
    "igos_lean": title("igos[preset=lean]"),
    "igos_paper": title(PAPER_METHOD),
    "plain_loop": "iGOS, a loop from its formulas",
    "captum_integrated_gradients": "integrated gradients (captum)",
    "captum_occlusion": "occlusion (captum)",
}
MARGIN = 0.02  # what a short setting may lose to the released loop
MIB = 2**20
PAUSE = 600  # seconds without a new row: nothing was running
RATES = ("base", "precision", "recall", "lift", "lift_low", "lift_high")
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
    """A row a method, cheapest first: passes, memory and score of one model, seconds of all.

    The models are those on which several methods ran; the one with most items comes first.
    """
    parts = most_items_first(with_rivals(rows_of(maps)))
    tables = {
        short(model): costs(part[~part.method.isin(CONTROLS)]).set_index("method")
        for (model, _), part in parts
    }
    if not tables:
        return or_not_yet(pd.DataFrame())
    table = next(iter(tables.values()))
    out = pd.DataFrame({"method": table.title, "n": table.n})
    out = out.assign(forward=table.forward, backward=table.backward, MiB=table.mib.round())
    out["ins − del"] = [spread(*row) for row in table[["gap", "gap_low", "gap_high"]].to_numpy()]
    out["time / iGOS"] = table.times
    for name, one in tables.items():
        out[f"s, {name}"] = one.seconds
    return out.astype({"MiB": int}).reset_index(drop=True)


def pareto(table: pd.DataFrame, by: str = "seconds") -> list[str]:
    """Methods that none of the same cost or less beats, cheapest first; controls do not count."""
    own = table[~table.method.isin(CONTROLS)].sort_values([by, "gap"], ascending=[True, False])
    best, names = -np.inf, []
    for row in own.itertuples():
        if row.gap > best:
            best = row.gap
            names.append(row.method)
    return names


def beside_released(rows: pd.DataFrame, name: str = SHORT[0]) -> pd.DataFrame:
    """A short setting of iGOS minus the released loop on the same items, a row a model.

    `rows` with variants. Columns: model, benchmark, n, gap of both, value (the difference) with its
    interval over pictures, which busy ground asks three questions of, and times (seconds).
    """
    out = []
    for (model, benchmark), part in groups(rows[rows.method.isin([name, RELEASED])]):
        table = (
            scored(part).pivot(index="item", columns="method", values=["gap", "seconds"]).dropna()
        )
        if table.empty or {name, RELEASED} - set(part.method):
            continue
        gap, took = table["gap"], table["seconds"].median()
        moved = gap[name] - gap[RELEASED]
        told = estimate(moved, clusters=gap.index.map(_picture))
        row = {"model": model, "benchmark": benchmark, "short": gap[name].mean()}
        row |= {"released": gap[RELEASED].mean(), "times": took[RELEASED] / took[name]}
        out.append(row | told.json())
    return pd.DataFrame(out)


def _picture(item: str) -> str:
    """What an item shares with others: on busy ground its picture."""
    return picture_of(item) if item.startswith("sprites_clutter") else item


def released_shown(rows: pd.DataFrame) -> pd.DataFrame:
    """`beside_released` of both short settings, a row a model and world."""
    parts = [beside_released(rows, name).assign(setting=title(name)) for name in SHORT]
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        return or_not_yet(table)
    table["minus"] = [spread(r.value, r.low, r.high) for r in table.itertuples()]
    names = {"model": "model", "benchmark": "scenes", "n": "n", "setting": "setting"}
    names |= {"released": "released loop", "short": "short", "minus": "short − released"}
    names |= {"times": "times as fast"}
    table = table.assign(model=table.model.map(short)).sort_values(
        ["benchmark", "model", "setting"]
    )
    return table[list(names)].rename(columns=names).reset_index(drop=True)


def instead_shown(results: Path) -> pd.DataFrame:
    """Ours beside what one would pick instead, of `make bench`, a row a method."""
    path = results / "bench.json"
    found = load(path).get("instead", {}) if path.is_file() else {}
    rows = pd.DataFrame(found.get("rows", {})).T
    if rows.empty:
        return or_not_yet(rows)
    names = {"forward": "forward", "backward": "backward", "seconds": "s"}
    names |= {"mib": "memory (MiB)", "gap": "ins − del"}
    table = rows.round({"mib": 0}).astype({"forward": int, "backward": int, "mib": int})
    table = table.rename(columns=names)
    others = rows.index.str.startswith(("plain", "captum"))
    table.insert(0, "", np.where(others, "instead", "ours"))
    table.insert(1, "method", [INSTEAD.get(name) or title(name) for name in rows.index])
    table.insert(2, "n", found["n"])
    return table.reset_index(drop=True)


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
    """A row a method: means over the items, noise and infidelity beside the likenesses."""
    labels = {"another seed": "seeds", "other words": "logit"}
    labels |= {"another question": "question", "no weight left": "forgotten"}
    labels |= {"moved by noise": "noise", "infidelity": "infidelity"}
    return _told(rows, lambda told: {label: told[name] for label, name in labels.items()})


def shown_alone(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a method: the likeness to the first map with one stage alone drawn anew."""
    return _told(rows, lambda told: {f"{k} anew": found for k, found in told["alone"].items()})


def _told(rows: pd.DataFrame, cells_of: Callable) -> pd.DataFrame:
    items, out = rows.groupby("method").item.nunique(), []
    for method, told in summarise(rows).items():
        cells = {label: _cell(found, items[method]) for label, found in cells_of(told).items()}
        out.append({"method": told["title"], "items": items[method]} | cells)
    return or_not_yet(pd.DataFrame(out))


def _cell(found, items: int) -> str:
    """The mean; with n where a constant map, which is like nothing, left fewer items."""
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


@when_run
def cost_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Seconds of a map beside its insertion - deletion, cheapest first; controls run no model."""
    table = costs(one_model(maps, model, benchmark))
    if table[~table.method.isin(CONTROLS)].empty:
        return None
    free = table.method.isin(CONTROLS)
    table = table.assign(seconds=table.seconds.mask(free), none=np.nan)
    table = pd.concat([table[free].sort_values("gap"), table[~free]])
    parts = [
        ("", table, ("seconds", "none", "none"), None),
        ("", table, ("gap", "gap_low", "gap_high"), 0),
    ]
    figure, (left, right) = method_panels(parts, table.method.tolist(), sharex=False)
    left.set(xscale="log")
    left.set_xlabel("seconds for one map (log scale)", fontsize="small")
    right.set_xlabel("insertion − deletion", fontsize="small")
    if (table.method == "difference").any():
        chance_line(right, table.set_index("method").gap["difference"])
    return figure


@when_run
def frontier_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Passes of every setting of iGOS against its insertion - deletion; the best are joined.

    All on the same items; settings with far fewer than the others are left out.
    """
    rows = one_model(maps, model, benchmark, variants=True)
    rows = rows[rows.method.str.startswith(REFERENCE)]
    if scored(rows).empty:
        return None
    table = costs(same_items(rows)).set_index("method", drop=False)
    best = table.loc[pareto(table, "forward")]
    figure, ax = plt.subplots(figsize=(0.85 * WIDTH, 0.45 * WIDTH), layout="constrained")
    ax.plot(table.forward, table.gap, "o", color="0.6", ms=4)
    ax.plot(best.forward, best.gap, "o-", color=colour_of(REFERENCE), ms=5)
    for name in {*best.index, PAPER_METHOD} & {*table.index}:
        own = name.partition("[")[2].rstrip("]").removeprefix("preset=").replace("=", " ")
        how = {"ha": "center", "xytext": (0, 6)} if name in best.index else {"xytext": (7, -3)}
        place = table.forward[name], table.gap[name]
        ax.annotate(own or title(name), place, textcoords="offset points", fontsize="small", **how)
    if PAPER_METHOD in table.index:
        chance_line(ax, table.gap[PAPER_METHOD], upright=True)
    ax.set(xscale="log", xlabel="forward passes of one map, as many backward (log scale)")
    ax.set_xticks(counts := sorted({*table.forward}), counts)
    ax.minorticks_off()
    ax.set_ylabel("insertion − deletion")
    return figure


@when_run
def flag_figure(maps: pd.DataFrame, model: str, benchmark: str, fault: str = "below_half"):
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


SHOULD_BE = {"seeds": ("another seed", 1), "forgotten": ("no weight of the model left", 0)}


@when_run
def stability_figure(rows: pd.DataFrame):
    """Likeness to the first map, a small dot an item and a large one for the mean.

    Left another seed, which should give 1; right no weight left, which should give 0.
    """
    told = summarise(rows)
    if not told:
        return None
    order = sorted(told, key=lambda name: -np.nan_to_num(told[name]["forgotten"].value, nan=-1))
    figure, axes = grid(len(SHOULD_BE), ROW * len(order) + 0.8, 2)
    shades = [colour_of(name) for name in order]
    for ax, (check, (label, ideal)) in zip(axes, SHOULD_BE.items(), strict=True):
        for place, name in enumerate(order):
            values = of_items(rows[rows.method == name], check)
            ax.plot(values, [place] * len(values), "o", color=shades[place], alpha=0.3, ms=3)
        means = [(told[name][check].value, np.nan, np.nan) for name in order]
        dots(ax, means, [title(name) for name in order], colour=shades)
        chance_line(ax, ideal)
        ax.set_xlabel(f"{label}: should be {ideal}", fontsize="small")
    return figure


def of_items(part: pd.DataFrame, check: str) -> np.ndarray:
    """One value an item of a check of one method; `forgotten` is the last stage of "weights"."""
    if check == "forgotten":
        part = part[part.check == "weights"]
        part = part[part.stage == part.stage.iloc[-1]] if len(part) else part
    else:
        part = part[part.check == check]
    return part.value.to_numpy(float)


# --- the numbers of the page


def summary(tables) -> dict:
    """`cost.json`, from the tables of a results folder (`compare.Tables`)."""
    if tables.maps.empty:
        return {}
    hours = hours_taken(tables.maps, tables.reliance, tables.effects)
    lean = released_told(both_worlds(tables))
    return tables.tree(
        tables.maps, by_model(rows_of(tables.maps), of_model), hours=hours, lean=lean
    )


def both_worlds(tables) -> pd.DataFrame:
    """Rows of flat and of busy ground, with variants."""
    busy = Tables(tables.results / BUSY, tables.profile, tables.seed)
    rows = [rows_of(table.maps, variants=True) for table in (tables, busy)]
    return pd.concat([part for part in rows if len(part)])


def released_told(rows: pd.DataFrame) -> dict:
    """{model: the short setting minus the released loop}, and on how many its bar is met."""
    table = beside_released(rows)
    if table.empty:
        return {}
    told = {row.pop("model"): row for row in table.to_dict("records")}
    return told | {"met": int((table.low >= -MARGIN).sum()), "of": len(table), "bar": MARGIN}


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
    """What is worth its time, which methods beat the difference picture, flags."""
    same, good = same_items(part), with_evidence(part)
    front = pareto(costs(same))
    return {
        "worth_it": {"titles": ", ".join(map(title, front)), "n": int(same.item.nunique())},
        "above_difference": above(same, "difference"),
        "flags": {fault: flags_told(good, fault) for fault in BAD if len(flagged(good))},
        "luck": finite(luck(good)),
        "reference_flag": reference_flag(good),
    }


def above(same: pd.DataFrame, control: str) -> dict:
    """How many methods have a higher mean insertion - deletion than a control, and which."""
    means = same.groupby("method").gap.mean()
    own = means.drop([name for name in CONTROLS if name in means])
    if control not in means:
        return {}
    higher = in_order(own.index[own > means[control]])
    return named(higher) | {"of": len(own), "control": finite(means[control])}


def flags_told(good: pd.DataFrame, fault: str) -> dict:
    """Rates of every flag in per cent."""
    return {row["flag"]: _percent(row) for row in flag_scores(good, fault).to_dict("records")}


def _percent(rates: dict) -> dict:
    counts = {name: int(rates[name]) for name in ("n", "items")}
    return counts | {name: finite(100 * rates[name]) for name in RATES}


def reference_flag(good: pd.DataFrame) -> dict:
    """The maps of iGOS alone: how many, and per cent that are bad."""
    maps = flagged(good)
    maps = maps[maps.method == REFERENCE]
    return {"n": len(maps), "base": finite(100 * maps.below_half.mean())} if len(maps) else {}
