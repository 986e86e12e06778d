"""Simulated data whose truth is known, and cases that can be worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from refusals import refuses
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from lvlm_study.errors import StudyError
from lvlm_study.metrics import mixed


def simulated(trainings: int, effect: float = 0.3, items: int = 25, seed: int = 0) -> pd.DataFrame:
    """Two groups; items vary by 0.2, trainings by 0.1, the rest by 0.15."""
    draw = np.random.default_rng(seed)
    of_item = draw.normal(0, 0.2, items)
    rows = []
    for group in ("a", "b"):
        for k in range(trainings):
            level = effect * (group == "b") + draw.normal(0, 0.1)
            for i in range(items):
                score = level + of_item[i] + draw.normal(0, 0.15)
                rows.append({"group": group, "model": f"{group}{k}", "item": f"i{i}", "gap": score})
    return pd.DataFrame(rows)


def test_components_of_variance_are_found():
    found = mixed.mixed_effects(simulated(trainings=6), "gap", "group")
    assert found.converged and (found.n, found.items, found.trainings) == (300, 25, 12)
    assert found.item_sd == pytest.approx(0.2, abs=0.05)
    assert found.training_sd == pytest.approx(0.1, abs=0.05)
    assert found.residual_sd == pytest.approx(0.15, abs=0.02)
    row = found.effects.iloc[0]
    assert row.group == "b" and row.low < 0.3 < row.high and row.p < 0.05


def test_a_balanced_design_gives_the_difference_of_means():
    frame = simulated(trainings=1)
    found = mixed.mixed_effects(frame, "gap", "group")
    means = frame.groupby("group").gap.mean()
    assert found.effects.estimate[0] == pytest.approx(means.b - means.a, abs=1e-6)
    assert found.training_sd is None and found.trainings == 2
    refuses("two groups", mixed.mixed_effects, frame[frame.group == "a"], "gap", "group")


def test_ignoring_trainings_makes_the_interval_too_narrow():
    frame = simulated(trainings=3)
    honest = mixed.mixed_effects(frame, "gap", "group").effects.iloc[0]
    blind = mixed.mixed_effects(frame.assign(model=frame.group), "gap", "group").effects.iloc[0]
    assert honest.high - honest.low > 2 * (blind.high - blind.low)


def test_a_second_factor_is_allowed_for():
    """Only one architecture is there in both sizes, so means by size mix size with architecture."""
    frame = simulated(trainings=1, effect=0.0)
    rows = [frame.assign(family=f, gap=frame.gap + level) for f, level in (("x", 0.0), ("y", 1.0))]
    rows[1] = rows[1][rows[1].group == "b"]
    every = pd.concat(rows)
    plain = mixed.mixed_effects(every.assign(model="one"), "gap", "group").effects.estimate[0]
    fair = mixed.mixed_effects(every.assign(model="one"), "gap", "group", beside="family")
    raw = frame.groupby("group").gap.mean()
    assert fair.effects.estimate[0] == pytest.approx(raw.b - raw.a, abs=0.02)
    assert plain > fair.effects.estimate[0] + 0.3 and fair.converged


def test_intervals_at_the_boundary_and_by_hand():
    """Trainings that do not vary: their component is 0, and the interval is that of items paired.

    Two trainings of each of two groups share all items, so the effect is a mean of paired
    differences and its error residual x sqrt(1/n + 1/n).
    """
    frame = simulated(trainings=2, seed=3)
    level = frame.groupby("model").gap.transform("mean")
    frame["gap"] = frame.gap - level + 0.3 * (frame.group == "b")
    found = mixed.mixed_effects(frame, "gap", "group")
    row, half = found.effects.iloc[0], len(frame) / 2
    assert found.training_sd == pytest.approx(0, abs=1e-3)
    assert row.estimate == pytest.approx(0.3, abs=1e-6)
    error = found.residual_sd * math.sqrt(2 / half)
    assert row.high - row.low == pytest.approx(2 * 1.96 * error, rel=1e-2) and row.p < 1e-6


def test_exact_p_by_hand():
    """Two of four in the first group: 6 ways, of which 2 are the most extreme."""
    p, smallest = mixed.exact_p([0, 0, 1, 1], list("aabb"))
    assert p == smallest == pytest.approx(2 / 6)
    assert mixed.exact_p([0, 1, 0, 1], list("aabb"))[0] == 1
    # Two sizes of three architectures: 2 x 2 x 2 ways, and the best one has a mirror image.
    values, sizes = [0.1, 0.2, 0.5, 0.7, 0.2, 0.6], list("mlmlml")
    assert mixed.exact_p(values, sizes, blocks=list("aabbcc")) == (2 / 8, 2 / 8)
    assert mixed.exact_p([0, 1, 1, 0], list("mlml"), blocks=list("aabb"))[0] == 1
    free = mixed.exact_p(values, sizes)  # 20 ways without blocks
    assert free[1] == pytest.approx(2 / 20) and free[0] > 2 / 20
    assert all(math.isnan(p) for p in mixed.label_test(lambda dealt: np.nan, list("aabb")))


def test_drawn_ways_agree_with_all_of_them_within_their_blocks(monkeypatch):
    values, labels = [0.1, 0.5, 0.2, 0.9, 1.0, 0.4], list("aaabbb")

    def first(dealt):
        return sum(v for v, d in zip(values, dealt, strict=True) if d == "b")

    exact = mixed.label_test(first, labels)
    assert exact == pytest.approx((2 / 20, 1 / 20))  # 20 ways; the best is {0.5, 0.9, 1.0}
    monkeypatch.setattr(mixed, "EXACT", 2)
    assert mixed.label_test(first, labels, draws=3000) == pytest.approx(exact, abs=0.02)
    values, sizes = [0.1, 0.2, 0.5, 0.7, 0.2, 0.6], list("mlmlml")
    drawn = mixed.exact_p(values, sizes, blocks=list("aabbcc"))
    assert drawn == pytest.approx((2 / 8, 2 / 8), abs=0.02)


def test_equivalence_agrees_with_statsmodels():
    draw = np.random.default_rng(0)
    a = draw.normal(0, 1, 50)
    b = a + draw.normal(0.02, 0.2, 50)
    found = mixed.equivalence(a, b, 0.1)
    assert found.p == pytest.approx(ttost_paired(a, b, -0.1, 0.1)[0])
    assert found.low < found.difference < found.high and found.n == 50
    assert found.equivalent == (-0.1 < found.low and found.high < 0.1)


def test_not_significant_is_not_equivalent():
    """Few items and much noise: no difference is found, and none is excluded."""
    draw = np.random.default_rng(1)
    a, b = draw.normal(0, 1, 12), draw.normal(0, 1, 12)
    assert stats.ttest_rel(a, b).pvalue > 0.05
    assert not mixed.equivalence(a, b, 0.1).equivalent
    assert mixed.equivalence(a, b, 5.0).equivalent
    found = mixed.equivalence([1, 2, 3, np.nan], [1, 2, 3, 4], 0.01)
    assert found.equivalent and found.n == 3 and found.difference == 0


@pytest.mark.parametrize("arguments", [([1, 2], [1, 2], 0), ([1, 2], [1], 1), ([1], [1], 1)])
def test_equivalence_refuses(arguments):
    with pytest.raises(StudyError):
        mixed.equivalence(*arguments)
