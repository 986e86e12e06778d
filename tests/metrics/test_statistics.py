"""Intervals and tests against hand counts and scipy."""

import numpy as np
import pandas as pd
import pytest
from refusals import refuses
from scipy import stats

from lvlm_study.errors import StudyError
from lvlm_study.metrics.statistics import (
    Estimate,
    compare,
    ends,
    estimate,
    holm,
    paired_test,
    resample,
    summarise,
)


def test_estimates_by_hand():
    found = estimate([2.0] * 5)
    assert (found.value, found.low, found.high, found.n, found.skipped) == (2, 2, 2, 5, 0)
    found = estimate([1.0, np.nan, 3.0])
    assert (found.value, found.n, found.skipped) == (2, 2, 1)
    empty = estimate([np.nan])
    assert np.isnan(empty.value) and (empty.n, empty.skipped) == (0, 1)
    assert np.isnan(estimate([1.0]).low)
    with pytest.raises(StudyError, match="1 of 2 values have no cluster"):
        estimate([1.0, np.nan, 2.0], clusters=["a", "b", None])


def test_forms_of_an_estimate():
    found = Estimate(0.125, -0.06, 0.5, 20, 1)
    assert f"{found:.2f}" == "0.12 [−0.06, 0.50]" and f"{-100 * found:.0f}" == "−12 [−50, 6]"
    assert f"{Estimate(0.5, np.nan, np.nan, 1):.1f}" == "0.5"
    assert f"{Estimate(np.nan, np.nan, np.nan, 0):.1f}" == "–"
    assert found.json() == {"value": 0.125, "low": -0.06, "high": 0.5, "n": 20}
    assert Estimate.of_json(found.json()) == Estimate(0.125, -0.06, 0.5, 20)
    assert Estimate(np.nan, np.nan, np.nan, 0).json()["low"] is None
    assert np.isnan(Estimate.of_json({"value": 1.0, "low": None, "high": None}).high)
    assert found.columns("gap") == {"gap": 0.125, "gap_low": -0.06, "gap_high": 0.5}
    assert paired_test([2.0, 3, 4], [1.0, 1, 1]).estimate.value == 2


def test_no_form_has_the_ends_of_too_few():
    """A percentile bootstrap of 19 items covers too little; of how many, 0, nothing is known."""
    few = Estimate(0.125, -0.06, 0.5, 19)
    assert f"{few:.2f}" == "0.12" and few.low == -0.06
    assert few.json() == {"value": 0.125, "low": None, "high": None, "n": 19}
    assert np.isnan(few.columns("gap")["gap_high"])
    assert f"{Estimate.of_json({'value': 1, 'low': 0, 'high': 2}):.0f}" == "1 [0, 2]"
    test = paired_test(np.arange(19.0), np.zeros(19)).where_enough()
    assert np.isnan(test.low) and test.difference == 9


def test_whole_groups_are_drawn_again():
    samples = list(resample(["a", "b", "a", "c"], draws=200))
    assert len(samples) == 200
    for rows in samples:  # "a" is rows 0 and 2, together or not at all; three groups a draw
        assert (rows == 0).sum() == (rows == 2).sum()
        assert (rows != 2).sum() == 3
    assert len({tuple(rows) for rows in samples}) > 20
    plain = resample(5, draws=300, seed=1)
    assert plain.shape == (300, 5) and set(plain.ravel()) == set(range(5))
    assert np.array_equal(plain, resample(5, draws=300, seed=np.random.default_rng(1)))


def test_ends_leave_out_what_is_not_a_number():
    assert ends([*range(101), np.nan], tail=0.1) == pytest.approx((10, 90))
    assert np.isnan(ends([np.nan])).all()


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    found = estimate(values, draws=20_000)
    other = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    assert found.low == pytest.approx(other.low, abs=0.01)
    assert found.high == pytest.approx(other.high, abs=0.01)


def test_interval_covers_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = 0
    for n in range(300):
        found = estimate(draw.normal(size=40), draws=400, seed=n)
        hits += found.low <= 0 <= found.high
    assert 0.89 <= hits / 300 <= 0.98


def test_other_statistics_and_levels():
    values = np.arange(101.0)
    found = estimate(values, statistic=np.median)
    assert found.value == 50
    wide, narrow = estimate(values), estimate(values, confidence=0.5)
    assert wide.low < narrow.low < 50 < narrow.high < wide.high


def test_dependent_values_do_not_pose_as_independent():
    draw = np.random.default_rng(0)
    values = np.repeat(draw.normal(size=20), 10)  # twenty items, ten equal questions each
    items = np.repeat(np.arange(20), 10)
    plain, grouped = estimate(values), estimate(values, clusters=items)
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)
    assert np.isnan(estimate([1.0, 2.0], clusters=["a", "a"]).low)


def test_summary_has_one_row_a_group():
    frame = pd.DataFrame({"method": ["a", "a", "b"], "gap": [1.0, 3.0, np.nan], "item": [1, 2, 1]})
    found = summarise(frame, "gap", "method")
    assert list(found.columns) == ["method", "value", "low", "high", "n", "skipped"]
    assert found.value[0] == 2 and found.n.tolist() == [2, 0] and found.skipped.tolist() == [0, 1]
    refuses("no column 'gpa'", summarise, frame, "gpa", "method")


def test_sign_flips_by_hand():
    found = paired_test([2.0, 3, 4], [1.0, 1, 1])
    assert found.difference == 2
    assert found.p == pytest.approx(2 / 8)  # all plus or all minus, of eight signings
    assert paired_test([1.0, 2], [2.0, 1]).p == 1
    refuses("item by item", paired_test, [1.0, 2], [1.0])
    found = paired_test([1.0, np.nan, 3], [0.0, 1, 1])
    assert (found.n, found.skipped) == (2, 1)


def test_sign_flips_agree_with_scipy():
    draw = np.random.default_rng(1)
    a, b = draw.normal(0.4, 1, 10), draw.normal(size=10)
    other = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert paired_test(a, b).p == pytest.approx(other.pvalue, abs=1e-9)
    a, b = draw.normal(0.3, 1, 60), draw.normal(size=60)
    assert paired_test(a, b).p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.03)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([0.01, np.nan, 0.04])[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(holm([0.01, np.nan])[1]) and np.isnan(holm([np.nan])).all()


def test_every_pair_of_methods_is_compared_and_corrected():
    rows = [("a", i, v) for i, v in enumerate([3.0, 4, 5, np.nan])]
    rows += [("b", i, v) for i, v in enumerate([1.0, 1, 1, 7])]
    rows += [("c", i, v) for i, v in [(0, 1.0), (1, 1.0), (9, np.nan)]]
    frame = pd.DataFrame(rows, columns=["method", "item", "gap"])
    found = compare(frame, "gap")
    assert list(zip(found.a, found.b, strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found.difference.tolist() == [3, 2.5, 0]
    assert found.n.tolist() == [3, 2, 2] and found.skipped.tolist() == [1, 1, 2]
    assert found.p.tolist() == [2 / 8, 2 / 4, 1]
    assert found.p_holm.tolist() == [3 / 4, 1, 1]
    assert found.low[0] <= 3 <= found.high[0]
    frame = pd.DataFrame({"method": ["a", "a"], "item": [1, 1], "gap": [1.0, 2.0]})
    refuses("average first", compare, frame, "gap")
    refuses("no column 'itm'", compare, frame, "gap", item="itm")
