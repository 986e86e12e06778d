"""Exact worth of objects: hand-computed games, and a planted reader whose answer is known."""

from itertools import permutations

import numpy as np
import pytest
from refusals import refuses

from lvlm_study.metrics.coalitions import (
    interactions,
    object_curves,
    object_gap,
    shapley_values,
)

EITHER = np.array([0.0, 1, 1, 1])  # one of two suffices
BOTH = np.array([0.0, 0, 0, 1])  # both are needed
ALONE = np.array([0.0, 2, 0, 2])  # only object 0 counts


def by_orders(values: np.ndarray) -> np.ndarray:
    """Shapley values as the mean gain over all orders, the definition itself."""
    count = len(values).bit_length() - 1
    total, orders = np.zeros(count), list(permutations(range(count)))
    for order in orders:
        there = 0
        for i in order:
            total[i] += values[there | 1 << i] - values[there]
            there |= 1 << i
    return total / len(orders)


@pytest.mark.parametrize(
    ("values", "worth", "pair"),
    [(EITHER, [0.5, 0.5], -1), (BOTH, [0.5, 0.5], 1), (ALONE, [2, 0], 0)],
)
def test_two_objects(values, worth, pair):
    assert shapley_values(values) == pytest.approx(worth)
    assert interactions(values) == pytest.approx(np.array([[0, pair], [pair, 0]]))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_shapley_values_are_mean_gains_over_all_orders(count):
    values = np.random.default_rng(count).normal(size=2**count)
    worth = shapley_values(values)
    assert worth == pytest.approx(by_orders(values))
    assert worth.sum() == pytest.approx(values[-1] - values[0])  # nothing is lost


def test_an_interaction_is_the_worth_of_a_pair_with_the_other_there_less_without():
    values = np.random.default_rng(0).normal(size=2**4)
    places = np.arange(16)
    with_0, without_0 = places[places & 1 > 0], places[places & 1 == 0]
    # dropping object 0 from the game leaves objects 1 to 3 in the same order
    apart = shapley_values(values[with_0]) - shapley_values(values[without_0])
    assert interactions(values)[0, 1:] == pytest.approx(apart)


def test_curves_follow_the_map():
    deletion, insertion = object_curves(ALONE, [0.9, 0.1])
    assert deletion.tolist() == [2, 0, 0] and insertion.tolist() == [0, 2, 2]
    deletion, insertion = object_curves(ALONE, [0.1, 0.9])
    assert deletion.tolist() == [2, 2, 0] and insertion.tolist() == [0, 0, 2]
    assert object_gap(ALONE, [0.9, 0.1]) == pytest.approx(0.5)
    assert object_gap(ALONE, [0.1, 0.9]) == pytest.approx(-0.5)
    assert object_gap(ALONE, [1, 1]) == pytest.approx(0)  # says nothing: chance


def test_what_changes_nothing_has_no_gap_and_odd_numbers_are_told():
    assert np.isnan(object_gap(np.ones(4), [1, 2]))
    refuses("1, 2, 4, 8", shapley_values, np.zeros(5))
