"""Do two measures order the same things alike? Spearman over methods, items resampled.

Tables are (items, methods): a number for each map of each picture.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .statistics import Estimate, ends, estimate, resample

ENOUGH = 0.75  # a method takes part in a ranking with this share of the usual number of items


def complete(*tables: pd.DataFrame) -> list[pd.DataFrame]:
    """The same items and methods of several (items, methods) tables, nothing missing.

    A method with far fewer items than the middle one of all methods is left out first, so that one
    short row does not cost all others their items.
    """
    names = [n for n in tables[0].columns if all(n in t for t in tables)]
    both = sum(t[names].notna().astype(int) for t in tables) == len(tables)
    counts = both.sum()
    names = [n for n in names if counts[n] > 0 and counts[n] >= ENOUGH * counts[names].median()]
    items = both.index[both[names].all(axis=1)] if names else both.index[:0]
    return [t.loc[items, names] for t in tables]


def means(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """(1 + draws, methods): means over the items, then over resamples of the items."""
    values, count = table.to_numpy(float), len(table)
    picks = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    weights = np.vstack([np.ones(count), picks]) / count
    return weights @ values


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rank correlation of each row of one (R, M) with that of the other; NaN where constant."""
    a, b = (rankdata(x, axis=-1) for x in (one, other))
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), size, out=np.full_like(size, np.nan), where=size > 0)


def rank_agreement(one: pd.DataFrame, other: pd.DataFrame) -> dict:
    """Do two measures order the methods alike? Spearman over methods, items resampled.

    Both are (items, methods). None with fewer than three methods.
    """
    a, b = complete(one, other.reindex(one.index))
    found = [np.nan]
    if a.shape[1] > 2 and len(a) > 1:
        found = spearman(means(a), means(b))
    return Estimate(found[0], *ends(found), len(a)).json() | {"methods": a.shape[1]}


def within_items(gap: pd.DataFrame, truth: pd.DataFrame) -> Estimate:
    """Of one picture's maps, is the better scored the truer? Mean Spearman over items."""
    a, b = complete(gap, truth.reindex(gap.index))
    enough = a.shape[1] > 2 and len(a)
    return estimate(spearman(a.to_numpy(float), b.to_numpy(float)) if enough else [])


def within_methods(gap: pd.DataFrame, truth: pd.DataFrame, draws: int = 200) -> Estimate:
    """Of one method's maps, is the better scored the truer? Mean over methods, items resampled."""
    a, b = complete(gap, truth.reindex(gap.index))
    if len(a) < 3 or a.empty:
        return estimate([])
    x, y = a.to_numpy(float).T, b.to_numpy(float).T  # (methods, items)
    picks = [np.arange(len(a)), *resample(len(a), draws)]
    every = [spearman(x[:, pick], y[:, pick]) for pick in picks]
    found = [np.mean(kept) if len(kept := one[np.isfinite(one)]) else np.nan for one in every]
    return Estimate(found[0], *ends(found[1:]), len(a))
