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
        "within": within(rows),
    }


def within(rows: pd.DataFrame) -> float:
    """Mantel and Haenszel's risk difference: on minus off, within categories, weighted by size."""
    parts = []
    for _, part in rows.groupby("category"):
        one, other = part.right[part.on], part.right[~part.on]
        if len(one) and len(other):
            parts.append((one.mean() - other.mean(), len(one) * len(other) / len(part)))
    if not parts:
        return float("nan")
    difference, weight = np.array(parts, float).T
    return float(np.average(difference, weights=weight))


def on_share(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of maps on the evidence by model and method, of the items with a region and a map."""
    rows = rows[rows.quadrant.isin(QUADRANTS)]
    found = rows.groupby(["model", "method"], sort=False).on.agg(["mean", "size"])
    return found.rename(columns={"mean": "on", "size": "n"}).reset_index()


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def apart(on: np.ndarray, right: np.ndarray, items, seed: int = 0) -> Estimate:
    """Share of `right` (bool) where `on`, minus that where not, with its 95 % interval.

    Whole items are drawn anew. NaN where one side is empty.
    """
    item = pd.factorize(items)[0]
    count = item.max(initial=-1) + 1
    cells = np.zeros((count, 4))  # per item: on and right, on, off and right, off
    for place, mask in enumerate((on & right, on, ~on & right, ~on)):
        np.add.at(cells[:, place], item[mask], 1)
    picks = resample(int(count), seed=seed) if count > 1 else np.zeros((0, count), int)
    a, b, c, d = cells[picks].sum(1).T
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = ends(a / b - c / d)
    found = Estimate(_mean(right[on]) - _mean(right[~on]), low, high, len(on))
    return found.where_enough(int(count))
