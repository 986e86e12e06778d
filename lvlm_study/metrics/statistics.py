"""Numbers with their uncertainty: an estimate never travels without its interval.

Everything here reads tables of results and knows no model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ..errors import StudyError

ENOUGH_TO_RESAMPLE = 20  # units; of fewer the percentiles of a bootstrap cover less than they say


@dataclass(frozen=True)
class Estimate:
    """A statistic, its bootstrap interval, how many values it rests on and how many were NaN.

    Its forms: `f"{e:.2f}"` for a page, "0.83 [0.78, 0.88]"; `json()` for a results file;
    `columns("gap")` for a table; none has ends that rest on fewer than 20 units. `100 * e` is the
    same in per cent, ends and all.
    """

    value: float
    low: float
    high: float
    n: int
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], n={self.n}"

    def __format__(self, spec: str) -> str:
        """Value and ends, each by `spec`; no ends where there are none, a dash for no value."""
        if not spec:
            return str(self)
        if not np.isfinite(self.value):
            return "–"
        told = self.where_enough()
        ends = f" [{told.low:{spec}}, {told.high:{spec}}]" if np.isfinite(told.low) else ""
        return f"{self.value:{spec}}{ends}".replace("-", "−")

    def __mul__(self, factor: float) -> "Estimate":
        low, high = sorted((factor * self.low, factor * self.high))
        return replace(self, value=factor * self.value, low=low, high=high)

    __rmul__ = __mul__

    def json(self) -> dict[str, float | int | None]:
        """`{"value", "low", "high", "n"}`, null for what is not there."""
        told = self.where_enough()
        found = {name: finite(getattr(told, name)) for name in ("value", "low", "high")}
        return found | {"n": self.n}

    @classmethod
    def of_json(cls, found: dict) -> "Estimate":
        """The estimate of a results file again; one without `n` has n = 0, which is not told."""
        ends = (found[name] for name in ("value", "low", "high"))
        return cls(*(np.nan if end is None else end for end in ends), found.get("n", 0))

    def where_enough(self, units: int | None = None) -> "Estimate":
        """The same, without ends if it rests on fewer than 20 units (default: its n, if told)."""
        few = 0 < (self.n if units is None else units) < ENOUGH_TO_RESAMPLE
        return replace(self, low=np.nan, high=np.nan) if few else self

    def columns(self, name: str) -> dict[str, float]:
        """`{name, name_low, name_high}`: three columns of a table."""
        told = self.where_enough()
        return {name: told.value, f"{name}_low": told.low, f"{name}_high": told.high}


@dataclass(frozen=True)
class Paired:
    """Mean difference of paired values with its interval, and the p-value of a sign-flip test."""

    difference: float
    low: float
    high: float
    p: float
    n: int
    skipped: int = 0

    @property
    def estimate(self) -> Estimate:
        """The difference and its interval, for the forms of an estimate."""
        return Estimate(self.difference, self.low, self.high, self.n, self.skipped)

    def where_enough(self) -> "Paired":
        """The same, without ends if it rests on fewer than 20 pairs."""
        told = self.estimate.where_enough()
        return replace(self, low=told.low, high=told.high)


def estimate(
    values,
    statistic: Callable = np.mean,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    clusters=None,
) -> Estimate:
    """`statistic` of the values and its percentile bootstrap interval.

    NaN values are left out and counted. With `clusters` (one label a value, for example the item
    behind several questions) whole clusters are drawn, so dependent values do not pose as
    independent. `statistic` must take `axis=-1`, or `axis` is not used when clusters are given.
    An interval needs two values; with fewer its ends are NaN.
    """
    values = np.asarray(values, dtype=float).ravel()
    keep = ~np.isnan(values)
    kept = values[keep]
    if len(kept) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, len(values))
    value = float(statistic(kept))
    groups = None if clusters is None else np.asarray(clusters).ravel()[keep]
    if groups is not None and pd.isna(groups).any():
        count = int(pd.isna(groups).sum())
        raise StudyError(f"{count} of {len(kept)} values have no cluster; give every value one.")
    low, high = _interval(kept, statistic, confidence, draws, seed, groups)
    return Estimate(value, low, high, len(kept), int((~keep).sum()))


def summarise(
    frame: pd.DataFrame, value: str, by: str | list[str], clusters: str | None = None, **options
) -> pd.DataFrame:
    """One row a group: the columns of `by`, then value, low, high, n, skipped."""
    by = [by] if isinstance(by, str) else list(by)
    for column in [value, *by, *([clusters] if clusters else [])]:
        if column not in frame:
            raise StudyError(f"The table has no column {column!r}; it has {list(frame.columns)}.")
    rows = []
    for key, part in frame.groupby(by, sort=False, dropna=False):
        groups = part[clusters] if clusters else None
        found = estimate(part[value], clusters=groups, **options)
        rows.append(dict(zip(by, key, strict=True)) | vars(found))
    return pd.DataFrame(rows, columns=[*by, "value", "low", "high", "n", "skipped"])


def paired_test(a, b, confidence: float = 0.95, draws: int = 10_000, seed: int = 0) -> Paired:
    """Is the mean of a - b zero? Two-sided sign-flip permutation test, bootstrap interval.

    `a[i]` and `b[i]` belong to the same item. Under the null hypothesis each difference is as
    likely to have the other sign; all 2^n signings are used up to n = 13, `draws` random ones
    beyond. The smallest p-value possible is 2 / 2^n up to n = 13, 1 / draws beyond.
    """
    a, b = (np.asarray(x, dtype=float).ravel() for x in (a, b))
    if len(a) != len(b):
        raise StudyError(f"Paired values must match item by item: {len(a)} against {len(b)}.")
    difference = a - b
    found = estimate(difference, confidence=confidence, draws=draws, seed=seed)
    kept = difference[~np.isnan(difference)]
    p = _sign_flip(kept, draws, seed) if len(kept) else np.nan
    return Paired(found.value, found.low, found.high, p, found.n, found.skipped)


def compare(
    frame: pd.DataFrame, value: str, by: str = "method", item: str = "item", **options
) -> pd.DataFrame:
    """Every group of `by` against every other, paired by `item`, corrected for how many pairs.

    One row a pair in the order in which the groups appear: a, b, difference (mean of a - b), low,
    high, p, p_holm, n, skipped (items that only one of the two has a number for). Raises StudyError
    for a missing column or an item with two numbers in one group.
    """
    for column in (value, by, item):
        if column not in frame:
            raise StudyError(f"The table has no column {column!r}; it has {list(frame.columns)}.")
    if frame.duplicated([by, item]).any():
        raise StudyError(f"A pair of {by} and {item} has several values of {value}; average first.")
    wide = frame.pivot(index=item, columns=by, values=value)
    names = list(frame[by].unique())
    rows = []
    for a, b in combinations(names, 2):
        both = wide[[a, b]].dropna(how="all")
        rows.append({"a": a, "b": b} | vars(paired_test(both[a], both[b], **options)))
    columns = ["a", "b", "difference", "low", "high", "p", "n", "skipped"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "p_holm", holm(table["p"]))
    return table


def holm(p_values) -> np.ndarray:
    """p-values adjusted for how many were looked at (Holm's step-down method).

    NaN, a test that could not be made, stays NaN and does not count.
    """
    p = np.array(p_values, dtype=float)
    known = ~np.isnan(p)
    if known.any():
        p[known] = multipletests(p[known], method="holm")[1]
    return p


def _interval(values, statistic, confidence, draws, seed, groups) -> tuple[float, float]:
    if len(values if groups is None else set(groups)) < 2:
        return np.nan, np.nan
    if groups is not None:
        found = [statistic(values[some]) for some in resample(groups, draws, seed)]
        return ends(found, (1 - confidence) / 2)
    random = np.random.default_rng(seed)
    thousands = (min(1000, draws - first) for first in range(0, draws, 1000))  # to bound memory
    picks = (resample(len(values), some, random) for some in thousands)
    found = np.concatenate([statistic(values[some], axis=-1) for some in picks])
    return ends(found, (1 - confidence) / 2)


def resample(groups, draws: int = 2000, seed: int | np.random.Generator = 0):
    """Bootstrap samples as row numbers: an iterable of `draws` integer arrays.

    `groups` is a number of rows, each drawn for itself: then an array (draws, rows). Or it has a
    label for every row, and whole groups are drawn: then arrays of different lengths.
    """
    random = np.random.default_rng(seed)
    if isinstance(groups, int | np.integer):
        return random.integers(0, groups, (draws, groups))
    labels, names = pd.factorize(np.asarray(groups))
    members = [np.flatnonzero(labels == g) for g in range(len(names))]
    picks = random.integers(0, len(names), (draws, len(names)))
    return (np.concatenate([members[g] for g in pick]) for pick in picks)


def ends(found, tail: float = 0.025) -> tuple[float, float]:
    """(low, high) of bootstrapped values that leave `tail` out at each side; NaN do not count."""
    found = np.asarray(found, float)
    found = found[~np.isnan(found)]
    if len(found) == 0:
        return np.nan, np.nan
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def finite(value) -> float | None:
    """A finite float, or None: JSON knows no NaN and a page shows none."""
    return float(value) if value is not None and np.isfinite(value) else None


def _sign_flip(difference: np.ndarray, draws: int, seed: int) -> float:
    n, seen = len(difference), abs(difference.mean())
    if n <= 13:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1, 1], (draws - 1, n))
        signs = np.vstack([np.ones((1, n)), signs])  # the data themselves are one signing
    return float((abs(signs @ difference) / n >= seen - 1e-12).mean())


def share(right: int, n: int) -> dict[str, float | None]:
    """Per cent of right answers with a 95 % Wilson interval, and n; null where n is 0."""
    if n == 0:
        return {"percent": None, "low": None, "high": None, "n": 0}
    low, high = proportion_confint(right, n, method="wilson")
    return {"percent": 100 * right / n, "low": 100 * low, "high": 100 * high, "n": n}
