"""What a map costs, when it fails, and whether anybody could have known without the truth.

Passes are exact; seconds were measured while the sweep shared its machine and are rough.
"""

import numpy as np
import pandas as pd

from ..heatmaps.names import CONTROLS, REFERENCE, in_order, title
from ..metrics.statistics import estimate
from .ch02_methods import (
    groups,
    method_scores,
    number,
    or_not_yet,
    rows_of,
    same_items,
    scored,
    spread,
    with_rivals,
)
from .ch04_truth import with_evidence

MIB = 2**20
PAUSE = 600  # seconds without a new row: nothing was running
QUANTILE = 0.95  # of the random maps' gaps: what luck reaches once in twenty items
FLAGS = {  # a sign that needs no truth -> how readers call it
    "not_positive": "insertion − deletion at most 0",
    "like_random": "does not beat 95 % of random maps",
    "below_sobel": "worse than the picture's edges",
}
RATES = ("flagged", "base", "precision", "recall", "lift", "lift_low", "lift_high")
RATES += ("within", "within_low", "within_high")
BAD = {  # what makes a map bad, where the truth is known -> how readers call it
    "off_evidence": "less on the evidence than chance",
    "missed": "peak outside the evidence",
}


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
    other = good[(good.method == REFERENCE) & good.item.isin(part.item)].set_index("item").seconds
    times = (part.set_index("item").seconds / other).median() if len(other) else np.nan
    counts = {name: round(part[name].median()) for name in ("forward", "backward")}
    return {
        "method": method,
        "title": title(method),
        "n": len(part),
        **counts,
        "seconds": part.seconds.median(),
        "mib": part.peak_bytes.median() / MIB,
        "times": times,
    }


def cost_shown(maps: pd.DataFrame) -> pd.DataFrame:
    """The table of the chapter: models on which several methods ran, cheapest first in each."""
    rows = []
    for (model, _), part in with_rivals(rows_of(maps)):
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


# --- flags


def flagged(frame: pd.DataFrame) -> pd.DataFrame:
    """Maps of real methods with known evidence: every flag and every fault as a column of booleans.

    One model's rows. A flag reads the item's scores and those of its controls only.
    """
    good = with_evidence(frame)
    edges = good[good.method == "sobel"].drop_duplicates("item").set_index("item").gap
    own = good[~good.method.isin(CONTROLS)]
    return own.assign(
        not_positive=own.gap <= 0,
        like_random=own.gap <= luck(good),
        below_sobel=own.gap.to_numpy() < own.item.map(edges).to_numpy(float),
        off_evidence=own.energy_ratio < 1,
        missed=own.pointing_near < 0.5,
    )


def luck(good: pd.DataFrame) -> float:
    """What a random map reaches once in twenty items: the level of the flag `like_random`."""
    random = good[good.method == "random"].gap
    return random.quantile(QUANTILE) if len(random) else np.nan


def flag_scores(frame: pd.DataFrame, fault: str = "off_evidence") -> pd.DataFrame:
    """How often each flag is right, over all methods' maps of one model.

    Columns: flag, title, n (maps), flagged (share), base (share of bad maps), precision, recall,
    lift (precision - base: above 0 the flag knows something) with `lift_low` and `lift_high`;
    whole items are resampled, since the maps of one picture fail together.
    """
    maps = flagged(frame)
    rows = [{"flag": f, "title": t} | _rates(maps, f, fault) for f, t in FLAGS.items() if len(maps)]
    return pd.DataFrame(rows, columns=None if rows else ["flag", "title", "n"])


def _rates(maps: pd.DataFrame, flag: str, fault: str) -> dict:
    """Counts an item, then ratios of sums: of the data, and of resamples of the items.

    `within` is the lift against the share of bad maps of the *same method*: what a flag knows about
    a map beyond which method made it.
    """
    usual = maps.groupby("method")[fault].transform("mean")
    table = pd.DataFrame(
        {
            "item": maps.item,
            "all": 1,
            "bad": maps[fault],
            "flag": maps[flag],
            "both": maps[fault] & maps[flag],
            "rest": (maps[fault] - usual) * maps[flag],
        }
    )
    sums = table.groupby("item").sum().to_numpy(float)  # (items, 5)
    count = len(sums)
    picks = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 2000)
    every, bad, flags, both, rest = (np.vstack([np.ones(count), picks]) @ sums).T
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall, base = both / flags, both / bad, bad / every
        lift, within = precision - base, rest / flags
    ends = {}
    for name, values in (("lift", lift), ("within", within)):
        low, high = np.nanquantile(values, [0.025, 0.975]) if flags[0] else (np.nan, np.nan)
        ends |= {name: values[0], f"{name}_low": low, f"{name}_high": high}
    return {
        "n": int(every[0]),
        "items": count,
        "flagged": flags[0] / every[0],
        "base": base[0],
        "precision": precision[0],
        "recall": recall[0],
        **ends,
    }


def flags_by_method(frame: pd.DataFrame, flag: str = "like_random", fault: str = "off_evidence"):
    """One row a method: title, n, flagged, base, precision, recall."""
    rows = [
        {"method": method, "title": title(method)} | _rates(part, flag, fault)
        for method, part in flagged(frame).groupby("method")
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["method", "title", "n", "base"])
    return table.sort_values("base", ignore_index=True)


# --- the numbers of the chapter


def summary(tables) -> dict:
    """`cost.json`, from the tables of a results folder (`summaries.Tables`)."""
    found = {} if tables.maps.empty else cost_summary(tables.maps)
    if not found:
        return {}
    hours = hours_taken(tables.maps, tables.reliance, tables.effects)
    return {"provenance": tables.origin(tables.maps), "models": found, "hours": hours}


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


def cost_summary(maps: pd.DataFrame) -> dict:
    """{model: {benchmark: ...}}: what chapter 5 quotes."""
    out: dict = {}
    for (model, benchmark), part in groups(rows_of(maps)):
        out.setdefault(model, {})[benchmark] = of_model(part)
    return out


def of_model(part: pd.DataFrame) -> dict:
    """Cost by method, statuses, flags."""
    table, same = costs(part), same_items(part)
    front = pareto(costs(same))
    keep = ("forward", "backward", "seconds", "mib", "times", "gap")
    return {
        "methods": {
            row["method"]: {"title": row["title"], "n": int(row["n"])}
            | {name: number(row[name]) for name in keep}
            for _, row in table.iterrows()
        },
        "worth_it": {"titles": ", ".join(map(title, front)), "count": len(front)}
        | {"n": int(same.item.nunique())},
        "statuses": {str(k): int(v) for k, v in part.status.value_counts().items()},
        "cells": len(part),
        "flags": {fault: flags_told(part, fault) for fault in BAD if len(flagged(part))},
        "luck": number(luck(with_evidence(part))),
        "reference_flag": reference_flag(part),
    }


def flags_told(part: pd.DataFrame, fault: str) -> dict:
    """Rates of every flag in per cent, with a verdict in words."""
    out = {}
    for row in flag_scores(part, fault).itertuples():
        told = {name: number(100 * getattr(row, name)) for name in RATES}
        known, verdicts = ("knows something", "knows no more than a guess"), {}
        for name, key in (("lift", "verdict"), ("within", "verdict_within")):
            verdicts[key] = known[0] if getattr(row, f"{name}_low") > 0 else known[1]
        out[row.flag] = told | verdicts | {"n": row.n, "items": row.items}
    return out


def reference_flag(part: pd.DataFrame) -> dict:
    """The same for iGOS alone, the flag of the random maps."""
    maps = flagged(part)
    maps = maps[maps.method == REFERENCE]
    if maps.empty:
        return {}
    rates = _rates(maps, "like_random", "off_evidence")
    counts = {"n": rates.pop("n"), "items": rates.pop("items")}
    kinds = {"good_gap": maps[~maps.off_evidence], "bad_gap": maps[maps.off_evidence]}
    gaps = {name: _said(estimate(rows.gap)) for name, rows in kinds.items()}
    return counts | {k: number(100 * v) for k, v in rates.items()} | gaps


def _said(found) -> str:
    return f"{spread(found.value, found.low, found.high)} (n = {found.n})"
