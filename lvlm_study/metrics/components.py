"""How much of a map is the picture's, the question's, the model's and the method's.

Every map is ranked on one grid and standardised, so that the mean product of two maps is their rank
correlation. Under crossed random effects (picture, question, model, method and all their
combinations) the expected correlation of two maps of one picture is the sum of the variances of
what they share. So the mean correlations of pairs that share exactly this or that give every part,
by inclusion and exclusion (the method of moments; Searle, Casella and McCulloch 1992, chapter 5).
The parts of one map sum to 1; an estimate can be a little below 0 where a part is 0.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from skimage.transform import resize

from ..errors import StudyError
from .statistics import Estimate, ends, resample

FACTORS = ("question", "model", "method")
GRID = 8  # cells a side: the coarsest token grid of the models that are compared


def standardised(maps: Sequence[np.ndarray], grid: int = GRID) -> np.ndarray:
    """Maps (h, w) of any sizes as ranks on one grid, mean 0 and length 1: float64 (N, grid²).

    A map with the same value everywhere becomes NaN: it has no order.
    """
    rows = [resize(np.asarray(m, float), (grid, grid), anti_aliasing=False, order=1) for m in maps]
    ranks = np.stack([rankdata(row.round(9)) for row in rows])  # (N, G)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)


def without(maps: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What standardised maps (N, G) have beyond `known` maps of the same picture (C, G).

    The part that a least-squares fit on them explains is taken away; the rest keeps its length, so
    that shares of the whole stay shares of the whole.
    """
    basis, _ = np.linalg.qr(known.T)  # (G, C)
    return maps - maps @ basis @ basis.T


def shared_correlations(maps: np.ndarray, about: pd.DataFrame) -> pd.DataFrame:
    """Mean correlation of pairs of maps of one picture, by what the two share.

    `maps` (N, G) standardised, `about` one row a map with "picture" and `FACTORS`. One row for each
    picture and subset of the factors that some of its pairs share exactly: picture, shared (the
    factors' names, joined by commas), value, pairs.
    """
    for column in ("picture", *FACTORS):
        if column not in about:
            raise StudyError(f"The maps' table has no column {column!r}.")
    return pd.DataFrame(_rows(maps, about), columns=["picture", "shared", "value", "pairs"])


def _rows(maps: np.ndarray, about: pd.DataFrame) -> Iterator[tuple]:
    for picture, places in about.groupby("picture", sort=True).indices.items():
        own, some = maps[places], about.iloc[places]
        products = own @ own.T  # (n, n)
        same = [_equal(some[factor]) for factor in FACTORS]
        upper = np.triu(np.ones_like(products, bool), 1) & np.isfinite(products)
        for subset in subsets(FACTORS):
            exact = [mask if f in subset else ~mask for f, mask in zip(FACTORS, same, strict=True)]
            found = products[np.logical_and.reduce([upper, *exact])]
            if len(found):
                yield picture, ",".join(subset), float(found.mean()), len(found)


def _equal(column: pd.Series) -> np.ndarray:
    values = column.to_numpy()
    return values[:, None] == values[None, :]


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All subsets, the empty one first."""
    return list(chain.from_iterable(combinations(names, k) for k in range(len(names) + 1)))


def parts(shared: pd.Series, whole: float = 1.0) -> pd.Series:
    """The share of every combination of factors in one map, from mean correlations by subset.

    `shared` has one value for each proper subset of `FACTORS` (its index as in
    `shared_correlations`); `whole` is the product of a map with itself. The index of the result
    names what belongs to the picture alone "picture", and the rest by the factors; the last,
    "rest", is the combination of all with the noise of the method.
    """
    value = {tuple(filter(None, key.split(","))): v for key, v in shared.items()}
    missing = [s for s in subsets(FACTORS)[:-1] if s not in value]
    if missing:
        raise StudyError(f"No two maps share exactly {', '.join(missing[0]) or 'the picture'}.")
    found: dict[tuple, float] = {}
    for subset in subsets(FACTORS)[:-1]:
        found[subset] = value[subset] - sum(v for s, v in found.items() if set(s) < set(subset))
    found[("rest",)] = whole - sum(found.values())
    return pd.Series({",".join(s) or "picture": v for s, v in found.items()})


def partition(
    maps: np.ndarray, about: pd.DataFrame, draws: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """`parts` of the maps with intervals over pictures, which are drawn whole."""
    table = shared_correlations(maps, about).pivot(
        index="picture", columns="shared", values="value"
    )
    whole = pd.Series((maps**2).sum(1)).groupby(about.picture.to_numpy()).mean()
    whole = whole.reindex(table.index).to_numpy()
    rows = table.to_numpy()  # (pictures, subsets), NaN where a picture has no such pair

    def of(some) -> pd.Series:
        return parts(pd.Series(np.nanmean(rows[some], 0), table.columns), np.nanmean(whole[some]))

    every = of(np.arange(len(rows)))
    drawn = pd.DataFrame([of(some) for some in resample(len(rows), draws, seed)])
    return {
        name: Estimate(value, *ends(drawn[name], 0.025), len(rows)) for name, value in every.items()
    }
