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
from itertools import permutations, product

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import StudyError

EXACT = 8  # up to so many models every way of dealing the labels is looked at


@dataclass(frozen=True, eq=False)
class Mixed:
    """A fitted model: effects against the first group, and how much the rest varies.

    `effects` has one row a group but the first: group, estimate, low, high, p (Wald, 95 %).
    `training_sd` is None when no group has two trainings: nothing can then tell a group from its
    only training, and the effects are those of single models. `reference` is the first group.
    `converged` False: do not quote it.
    """

    effects: pd.DataFrame = field(repr=False)
    reference: str
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
    frame: pd.DataFrame,
    value: str,
    group: str,
    item: str = "item",
    training: str = "model",
    beside: str | None = None,
) -> Mixed:
    """`value` by `group`, items and trainings as random effects (restricted maximum likelihood).

    `beside` names a second fixed factor to allow for (sizes by architecture, say); its effects are
    not reported. Trainings are a random effect only where some group has several. Raises
    StudyError for fewer than two groups or items.
    """
    columns = {"y": value, "group": group, "item": item, "training": training}
    columns |= {"beside": beside} if beside else {}
    data = pd.DataFrame({name: frame[column] for name, column in columns.items()})
    data = data.dropna().reset_index(drop=True)
    groups = list(dict.fromkeys(data.group))
    if len(groups) < 2 or data.item.nunique() < 2:
        raise StudyError("A mixed model needs at least two groups and two items.")
    several = bool((data.groupby("group").training.nunique() > 1).any())
    fitted, converged = _fit(data.assign(group=pd.Categorical(data.group, groups)), several)
    parts = dict(zip(fitted.model.exog_vc.names, fitted.vcomp, strict=True))
    sd = {name: math.sqrt(max(v, 0.0)) for name, v in parts.items()}
    return Mixed(
        effects=_effects(fitted, groups),
        reference=str(groups[0]),
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
    formula = "y ~ group" + " + C(beside)" * ("beside" in data and data.beside.nunique() > 1)
    model = smf.mixedlm(formula, data, groups=np.ones(len(data)), vc_formula=kinds, re_formula="0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a component at zero is a finding, told by its value
        fits = [model.fit(reml=True, method=name) for name in ("lbfgs", "powell")]
    fitted = max(fits, key=lambda fit: fit.llf)  # either may stop short, and say that it did not
    return fitted, bool(fitted.converged)


def _effects(fitted, groups: list) -> pd.DataFrame:
    names = [f"group[T.{g}]" for g in groups[1:]]
    places = [fitted.model.exog_names.index(name) for name in names]
    value = fitted.fe_params[names].to_numpy()
    error = np.sqrt(np.diag(_covariance(fitted)))[places]
    reach = stats.norm.ppf(0.975) * error
    columns = {"group": groups[1:], "estimate": value, "low": value - reach, "high": value + reach}
    return pd.DataFrame(columns | {"p": 2 * stats.norm.sf(np.abs(value) / error)})


def _covariance(fitted) -> np.ndarray:
    """Of the fixed effects (k, k), by generalised least squares with the estimated components.

    The fit's own takes the curvature in the components too, which has no inverse at zero.
    """
    design, kinds = np.asarray(fitted.model.exog), fitted.model.exog_vc.mats
    spread = fitted.scale * np.eye(len(design))
    for variance, (levels,) in zip(fitted.vcomp, kinds, strict=True):
        levels = np.asarray(levels.todense() if hasattr(levels, "todense") else levels)
        spread += variance * levels @ levels.T
    return np.linalg.inv(design.T @ np.linalg.solve(spread, design))


# --- labels of models


def exact_p(values, labels, blocks=None) -> tuple[float, float]:
    """(p, smallest possible p) of a permutation test that some group's mean differs.

    The statistic is the sum of squares between groups. Models are the units. With `blocks` labels
    are dealt only among models of one block: sizes within an architecture, say.
    """
    values, labels = np.asarray(values, float), np.asarray(labels)

    def between(dealt):
        return sum(values[dealt == k].sum() ** 2 / (dealt == k).sum() for k in set(labels))

    return label_test(between, labels, blocks=blocks)


def label_test(
    statistic: Callable, labels, draws: int = 20_000, seed: int = 0, blocks=None
) -> tuple[float, float]:
    """(p, smallest possible p) of a statistic of labels, under every way of dealing them.

    Each different way counts once; with more than `EXACT` labels `draws` random ways stand for
    all. The smallest p is the share of ways that tie with the most extreme one. Both are NaN where
    the statistic is, for any way of dealing.
    """
    labels = np.asarray(labels)
    blocks = np.zeros(len(labels), int) if blocks is None else pd.factorize(np.asarray(blocks))[0]
    if len(labels) <= EXACT:
        dealt = _every_way(labels, blocks)
    else:
        random = np.random.default_rng(seed)
        dealt = [labels, *(_random_way(labels, blocks, random) for _ in range(draws - 1))]
    found = np.array([statistic(way) for way in dealt], float)
    if np.isnan(found).any():
        return np.nan, np.nan
    slack = 1e-12 + 1e-9 * np.abs(found).max()
    p = float((found >= statistic(labels) - slack).mean())
    return p, float((found >= found.max() - slack).mean())


def _every_way(labels: np.ndarray, blocks: np.ndarray) -> list[np.ndarray]:
    """Each different way of dealing labels within their blocks, once."""
    codes, names = pd.factorize(labels)
    places = [np.flatnonzero(blocks == k) for k in range(blocks.max() + 1)]
    hands = [sorted(set(permutations(codes[here].tolist()))) for here in places]
    ways = []
    for hand in product(*hands):
        way = np.empty(len(codes), int)
        for here, codes_here in zip(places, hand, strict=True):
            way[here] = codes_here
        ways.append(names[way])
    return ways


def _random_way(labels: np.ndarray, blocks: np.ndarray, random) -> np.ndarray:
    way = labels.copy()
    for k in range(blocks.max() + 1):
        way[blocks == k] = random.permutation(labels[blocks == k])
    return way


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
