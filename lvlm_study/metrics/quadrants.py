"""Right or wrong answers, maps on or off the evidence: the four quadrants, and what they share.

A rule says whether a map lies on the evidence. Items without a map, and items on which nothing in
particular decides, are counted apart and never dropped.
"""

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from .statistics import Estimate, ends, resample

RULES = {
    "pointing": "the map's highest point lies on the evidence, or within 15 pixels of it",
    "mass": "the evidence gets at least twice its share of the map",
}
LARGE = 0.5  # evidence above this share of the picture is the whole place: nothing can miss it
QUADRANTS = ("right, on", "right, off", "wrong, on", "wrong, off")
APART = ("no map", "no region")
FOLD = 2.0


def sorted_rows(maps: pd.DataFrame, rule: str = "pointing") -> pd.DataFrame:
    """Judged rows of a maps table with `right` (bool), `on` (bool) and `quadrant`.

    `quadrant` is one of `QUADRANTS`; "no map" where the method had nothing to explain or failed,
    "no region" where no small region decides (a question about the place, an absent object). `on`
    is False in both. Undecided answers are left out: no rule calls them right or wrong.
    """
    rows = maps[maps.verdict.isin(["correct", "wrong"])].copy()
    rows["right"] = rows.verdict == "correct"
    found = rows.pointing_near >= 0.5 if rule == "pointing" else rows.energy_ratio >= FOLD
    region = rows.evidence_area.notna() & (rows.evidence_area < LARGE)
    mapped = rows.status == "ok"
    rows["on"] = found.fillna(False).astype(bool) & region & mapped
    names = [
        f"{'right' if right else 'wrong'}, {'on' if on else 'off'}"
        for right, on in zip(rows.right, rows.on, strict=True)
    ]
    rows["quadrant"] = np.where(~mapped, "no map", np.where(region, names, "no region"))
    return rows


def quadrants(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Counts of every quadrant, one row a group; `n` is all of them together."""
    counts = rows.groupby(by, sort=False).quadrant.value_counts().unstack(fill_value=0)
    table = counts.reindex(columns=[*QUADRANTS, *APART], fill_value=0)
    return table.assign(n=table.sum(axis=1)).reset_index()


def lift(rows: pd.DataFrame) -> dict:
    """How much oftener an answer is right when its map is on the evidence.

    `on_right` and `off_right` are shares of right answers, `difference` theirs; `low` and `high`
    its 95 % bootstrap interval over items; `p` Fisher's exact test over the rows, which takes the
    maps of different models for independent; `within` the difference within categories (Mantel and
    Haenszel 1959), since categories differ both in how hard they are and in how large their
    evidence is. NaN where one side is empty.
    """
    rows = rows[rows.quadrant.isin(QUADRANTS)]
    on, right = rows.on.to_numpy(bool), rows.right.to_numpy(bool)
    table = [[(on & right).sum(), (on & ~right).sum()], [(~on & right).sum(), (~on & ~right).sum()]]
    found = apart(on, right, rows.item)
    return {
        "n_on": int(on.sum()),
        "n_off": int((~on).sum()),
        "wrong": int((~right).sum()),
        "on_right": _mean(right[on]),
        "off_right": _mean(right[~on]),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": float(fisher_exact(table).pvalue),
        "within": apart(on, right, rows.item, rows.category).value,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def apart(on: np.ndarray, value: np.ndarray, items, strata=None, seed: int = 0) -> Estimate:
    """Mean `value` (N,) where `on` (bool), minus that where not, with its 95 % interval.

    With `strata`, a label a row, it is the difference within them, weighted by their size (Mantel
    and Haenszel 1959). Whole items are drawn anew. NaN where one side is empty.
    """
    item = pd.factorize(np.asarray(items))[0]
    stratum = 0 if strata is None else pd.factorize(np.asarray(strata))[0]
    count, parts = item.max(initial=-1) + 1, np.max(stratum, initial=-1) + 1
    cells = np.zeros((4, count, parts))  # of an item: sum and number where on, and where not
    for place, weight in enumerate((on * value, on, ~on * value, ~on)):
        np.add.at(cells[place], (item, stratum), weight)
    picks = resample(int(count), seed=seed) if count > 1 else ()
    times = np.array([np.bincount(pick, minlength=count) for pick in picks])
    times = times.reshape(len(picks), count)
    found = Estimate(_difference(cells.sum(1)), *ends(_difference(times @ cells)), len(on))
    return found.where_enough(int(count))


def _difference(cells: np.ndarray) -> np.ndarray:
    """Weighted mean over strata, the last axis, of differences between two means."""
    a, b, c, d = cells
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = np.nan_to_num(b * d / (b + d))  # a stratum with one side alone says nothing
        return (weight * np.nan_to_num(a / b - c / d)).sum(-1) / weight.sum(-1)
