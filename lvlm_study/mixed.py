"""Comparing models honestly: items and trainings vary too, and no difference has to be shown.

Three tools. A mixed-effects model splits a score into what belongs to a group of models, to the
item, to the single training, and to nothing. A permutation test asks what the labels of the models
are worth, with models, not items, as units. An equivalence test turns the question round: is the
difference surely smaller than a margin that was named before?
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import stats

from .errors import StudyError

EXACT = 8  # up to so many models every way of dealing the labels is looked at


@dataclass(frozen=True, eq=False)
class Mixed:
    """A fitted model: effects against the first group, and how much the rest varies.

    `effects` has one row a group but the first: group, estimate, low, high, p (Wald, 95 %).
    `training_sd` is None when no group has two trainings: nothing can then tell a group from its
    only training, and the effects are those of single models. `converged` False: do not quote it.
    """

    effects: pd.DataFrame = field(repr=False)
    item_sd: float
    training_sd: float | None
    residual_sd: float
    n: int
    items: int
    trainings: int
    converged: bool


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: `p` is the larger of the two, `equivalent` if it is below the level.

    `low`, `high` is the interval of 1 - 2 level (90 % at 0.05): it lies within the margin exactly
    when the difference is declared equivalent.
    """

    difference: float
    low: float
    high: float
    p: float
    margin: float
    n: int
    equivalent: bool


def mixed_effects(
    frame: pd.DataFrame, value: str, group: str, item: str = "item", training: str = "model"
) -> Mixed:
    """`value` by `group`, items and trainings as random effects (restricted maximum likelihood).

    Trainings are a random effect only where some group has several. Raises StudyError for fewer
    than two groups or items.
    """
    data = frame[[value, group, item, training]].dropna()
    data.columns = ["y", "group", "item", "training"]
    groups = list(dict.fromkeys(data.group))
    if len(groups) < 2 or data.item.nunique() < 2:
        raise StudyError("A mixed model needs at least two groups and two items.")
    several = bool((data.groupby("group").training.nunique() > 1).any())
    fitted, converged = _fit(data.assign(group=pd.Categorical(data.group, groups)), several)
    parts = dict(zip(fitted.model.exog_vc.names, fitted.vcomp, strict=True))
    sd = {name: math.sqrt(max(v, 0.0)) for name, v in parts.items()}
    return Mixed(
        effects=_effects(fitted, groups),
        item_sd=sd["item"],
        training_sd=sd.get("training"),
        residual_sd=math.sqrt(fitted.scale),
        n=len(data),
        items=data.item.nunique(),
        trainings=data.training.nunique(),
        converged=converged,
    )


def _fit(data: pd.DataFrame, several: bool):
    """Items and trainings cross, so both are variance components of one single group."""
    import statsmodels.formula.api as smf  # seconds to import

    kinds = {"item": "0 + C(item)"} | ({"training": "0 + C(training)"} if several else {})
    model = smf.mixedlm(
        "y ~ group", data, groups=np.ones(len(data)), vc_formula=kinds, re_formula="0"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a component at zero is a finding, told by its value
        fitted = model.fit(reml=True, method=["lbfgs"])
    return fitted, bool(fitted.converged)


def _effects(fitted, groups: list) -> pd.DataFrame:
    names = [f"group[T.{g}]" for g in groups[1:]]
    ends = fitted.conf_int().loc[names]
    columns = {"group": groups[1:], "estimate": fitted.params[names].to_numpy()}
    columns |= {"low": ends[0].to_numpy(), "high": ends[1].to_numpy()}
    return pd.DataFrame(columns | {"p": fitted.pvalues[names].to_numpy()})


# --- labels of models


def exact_p(values, labels) -> tuple[float, float]:
    """(p, smallest possible p) of a permutation test that some group's mean differs.

    The statistic is the sum of squares between groups. Models are the units.
    """
    values, labels = np.asarray(values, float), np.asarray(labels)

    def between(dealt):
        return sum(values[dealt == k].sum() ** 2 / (dealt == k).sum() for k in set(labels))

    return label_test(between, labels)


def alike_p(similar, labels) -> tuple[float, float]:
    """(p, smallest possible p): are models of one group more alike than models of different ones?

    `similar` (n, n) is a symmetric table; the statistic is the mean within groups minus the mean
    across. (NaN, NaN) when no group has two models.
    """
    similar, labels = np.asarray(similar, float), np.asarray(labels)
    upper = np.triu(np.ones_like(similar, bool), 1)
    if not (upper & (labels[:, None] == labels)).any():
        return math.nan, math.nan

    def apart(dealt):
        same = dealt[:, None] == dealt
        across = similar[upper & ~same]
        return similar[upper & same].mean() - (across.mean() if len(across) else 0.0)

    return label_test(apart, labels)


def label_test(
    statistic: Callable, labels, draws: int = 20_000, seed: int = 0
) -> tuple[float, float]:
    """(p, smallest possible p) of a statistic of labels, under every way of dealing them.

    Each different way counts once; with more than `EXACT` labels `draws` random ways stand for
    all. The smallest p is the share of ways that tie with the most extreme one.
    """
    labels = np.asarray(labels)
    if len(labels) <= EXACT:
        codes, names = pd.factorize(labels)
        ways = sorted(set(permutations(codes.tolist())))
        found = np.array([statistic(names[list(way)]) for way in ways])
    else:
        random = np.random.default_rng(seed)
        dealt = [labels, *(random.permutation(labels) for _ in range(draws - 1))]
        found = np.array([statistic(way) for way in dealt])
    slack = 1e-12 + 1e-9 * np.abs(found).max()
    p = float((found >= statistic(labels) - slack).mean())
    return p, float((found >= found.max() - slack).mean())


# --- no difference


def equivalence(a, b, margin: float, level: float = 0.05) -> Equivalence:
    """Is the mean of a - b surely within +-margin? Two one-sided paired t-tests (Schuirmann 1987).

    `a[i]` and `b[i]` belong to one item; pairs with a NaN are left out. The margin must be named
    before looking: a wide enough one makes anything equivalent. Raises StudyError for a margin
    that is not positive, unequal lengths, or fewer than two pairs.
    """
    a, b = (np.asarray(x, float).ravel() for x in (a, b))
    if margin <= 0 or len(a) != len(b):
        raise StudyError("An equivalence test needs a margin above 0 and values in pairs.")
    apart = (a - b)[~np.isnan(a - b)]
    if len(apart) < 2:
        raise StudyError(f"An equivalence test needs two pairs, not {len(apart)}.")
    mean, error = apart.mean(), apart.std(ddof=1) / math.sqrt(len(apart))
    error = max(error, 1e-300)
    student = stats.t(len(apart) - 1)
    p = max(student.sf((mean + margin) / error), student.cdf((mean - margin) / error))
    reach = student.ppf(1 - level) * error
    ends = float(mean - reach), float(mean + reach)
    return Equivalence(float(mean), *ends, float(p), margin, len(apart), bool(p < level))
