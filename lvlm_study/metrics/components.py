"""How much of a map is the picture's, the question's, the model's and the method's.

Every map is ranked on one grid and standardised, so that the mean product of two maps is their rank
correlation. Under crossed random effects (picture, question, model, method and all their
combinations) the expected correlation of two maps of one picture is the sum of the variances of
what they share. So the mean correlations of pairs that share exactly this or that give every part,
by inclusion and exclusion (the method of moments; Searle, Casella and McCulloch 1992, chapter 5).
The parts of one map sum to 1; an estimate can be a little below 0 where a part is 0.
Every picture gives parts of its own, so that intervals draw pictures, the unit of analysis.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..errors import StudyError
from ..pixels.masks import settled
from .plausibility import area_means

FACTORS = ("question", "model", "method")
GRID = 8  # cells a side: the coarsest token grid of the models that are compared


def standardised(maps: Sequence[np.ndarray], grid: int = GRID) -> np.ndarray:
    """Maps (h, w) of any sizes as ranks of means over one grid: float64 (N, grid²).

    Mean 0 and length 1: the product of two is their `plausibility.rank_correlation`. A map with the
    same value everywhere becomes NaN: it has no order.
    """
    cells = [settled(area_means(np.asarray(m, float), grid)).ravel() for m in maps]
    ranks = rankdata(np.stack(cells), axis=1)  # (N, G)
    ranks -= ranks.mean(1, keepdims=True)
    return unit(ranks)


def unit(maps: np.ndarray) -> np.ndarray:
    """Maps (N, G) of mean 0, brought to length 1; NaN where there is nothing left."""
    length = np.linalg.norm(maps, axis=-1, keepdims=True)
    return np.divide(maps, length, out=np.full_like(maps, np.nan), where=length > 1e-12)


def without(maps: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What standardised maps (N, G) have beyond `known` maps of the same picture (C, G).

    The part that a least-squares fit on them explains is taken away; the rest keeps its length, so
    that shares of the whole stay shares of the whole.
    """
    basis, _ = np.linalg.qr(known.T)  # (G, C)
    return maps - maps @ basis @ basis.T


def shared_correlations(
    maps: np.ndarray, about: pd.DataFrame, factors: Sequence[str] = FACTORS
) -> pd.DataFrame:
    """Mean correlation of pairs of maps of one picture, by what the two share.

    `maps` (N, G) standardised, `about` one row a map with "picture" and `factors`. One row for each
    picture and subset of the factors that some of its pairs share exactly: picture, shared (the
    factors' names, joined by commas), value, pairs.
    """
    for column in ("picture", *factors):
        if column not in about:
            raise StudyError(f"The maps' table has no column {column!r}.")
    rows = _rows(maps, about, factors)
    return pd.DataFrame(rows, columns=["picture", "shared", "value", "pairs"])


def _rows(maps: np.ndarray, about: pd.DataFrame, factors: Sequence[str]) -> Iterator[tuple]:
    for picture, places in about.groupby("picture", sort=True).indices.items():
        own, some = maps[places], about.iloc[places]
        products = own @ own.T  # (n, n)
        same = [_equal(some[factor]) for factor in factors]
        upper = np.triu(np.ones_like(products, bool), 1) & np.isfinite(products)
        for subset in subsets(factors):
            exact = [mask if f in subset else ~mask for f, mask in zip(factors, same, strict=True)]
            found = products[np.logical_and.reduce([upper, *exact])]
            if len(found):
                yield picture, ",".join(subset), float(found.mean()), len(found)


def _equal(column: pd.Series) -> np.ndarray:
    values = column.to_numpy()
    return values[:, None] == values[None, :]


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All subsets, the empty one first."""
    return list(chain.from_iterable(combinations(names, k) for k in range(len(names) + 1)))


def parts(shared, whole=1.0, factors: Sequence[str] = FACTORS) -> dict:
    """The share of every combination of factors in one map, from mean correlations by subset.

    `shared` has one entry for each proper subset of `factors`, named as in `shared_correlations`: a
    number, or a column with one a picture; `whole` is the product of a map with itself. The result
    names what belongs to the picture alone "picture", and the rest by the factors; the last,
    "rest", is the combination of all with the noise of the method.
    """
    value = {tuple(filter(None, key.split(","))): shared[key] for key in shared.keys()}
    missing = [s for s in subsets(factors)[:-1] if s not in value]
    if missing:
        raise StudyError(f"No two maps share exactly {', '.join(missing[0]) or 'the picture'}.")
    found: dict[tuple, float] = {}
    for subset in subsets(factors)[:-1]:
        found[subset] = value[subset] - sum(v for s, v in found.items() if set(s) < set(subset))
    found[("rest",)] = whole - sum(found.values())
    return {",".join(s) or "picture": v for s, v in found.items()}


def picture_parts(
    maps: np.ndarray, about: pd.DataFrame, factors: Sequence[str] = FACTORS
) -> pd.DataFrame:
    """`parts` of every picture that has pairs of all kinds: one row a picture, one column a part.

    Each is linear in the products of maps, so that the parts of `without(maps, known)` and those of
    what was taken away add up to those of `maps`.
    """
    table = shared_correlations(maps, about, factors)
    table = table.pivot(index="picture", columns="shared", values="value").dropna()
    whole = pd.Series((maps**2).sum(1)).groupby(about.picture.to_numpy()).mean()
    return pd.DataFrame(parts(table, whole.reindex(table.index), factors))
