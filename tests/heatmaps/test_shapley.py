"""Shapley values: against all orders by brute force, in expectation, and on pictures."""

from itertools import permutations

import numpy as np
import pytest
import torch

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS, explain, shapley_with_error
from lvlm_study.heatmaps.shapley import exact_values, sampled_values, shapley_values
from lvlm_study.models.planted import planted, planted_scene

WEIGHTS = {"a": 1.0, "b": -2.0, "c": 0.5, "d": 0.0, "e": 3.0}


def game(sets):
    """a and b together add 4; c takes half of what e adds; d does nothing."""
    found = []
    for s in sets:
        value = sum(WEIGHTS[p] for p in s) + 4.0 * ("a" in s and "b" in s)
        found.append(value - 1.5 * ("c" in s and "e" in s))
    return torch.tensor(found, dtype=torch.float64)


def threes(sets):
    """The same, and a, b and e together add 3 more."""
    return game(sets) + torch.tensor([3.0 * ({"a", "b", "e"} <= s) for s in sets])


def brute_force(score, players):
    """The mean over all orders of what each adds, one set at a time."""
    total = dict.fromkeys(players, 0.0)
    orders = list(permutations(players))
    for order in orders:
        for k, player in enumerate(order):
            with_it, without = (score([frozenset(order[:n])]).item() for n in (k + 1, k))
            total[player] += (with_it - without) / len(orders)
    return [total[p] for p in players]


@pytest.mark.parametrize("players", ["abcd", "abcde", "a"])
def test_exact_values_are_the_mean_over_all_orders(players):
    players = tuple(players)
    found = exact_values(game, players)
    assert found.tolist() == pytest.approx(brute_force(game, players))
    assert found.sum().item() == pytest.approx(game([frozenset(players)]).item())


def test_few_players_are_valued_exactly_and_many_by_lot():
    assert shapley_values(threes, tuple("abcd"), 4)[1].tolist() == [0] * 4
    lots = [shapley_values(threes, tuple("abcde"), 6, seed)[1] for seed in range(5)]
    assert max(error.sum() for error in lots) > 0


def test_samples_lie_within_their_errors():
    players, exact = tuple("abcde"), exact_values(threes, tuple("abcde"))
    off = []
    for seed in range(100):
        found, error = sampled_values(threes, players, 60, seed)
        assert found.sum().item() == pytest.approx(threes([frozenset(players)]).item())
        assert found[3] == 0 and error[3] == 0, "a player without effect"
        off.append(((found - exact) / error)[[0, 1]])
    off = torch.stack(off)
    assert 0.9 < (off.abs() < 2).float().mean() < 0.99, "about 95 %"
    assert off.mean().abs() < 0.2


def test_where_players_meet_two_by_two_pairs_are_exact():
    found, error = sampled_values(game, tuple("abcde"), 4)
    assert torch.allclose(found, exact_values(game, tuple("abcde")))
    assert error.max() < 1e-6


def exact_on_pixels(target, labels):
    """Brute force on four regions of a picture, one picture at a time."""

    def score(sets):
        out = []
        for s in sets:
            keep = torch.from_numpy(np.isin(labels, list(s)))
            out.append(target.score(torch.where(keep, target.image, target.baseline)).item())
        return torch.tensor(out, dtype=torch.float64)

    return brute_force(score, [0, 1, 2, 3])


def test_four_regions_of_a_picture_by_brute_force(tiny_llava):
    from white_box import target_of

    target = target_of(tiny_llava, size=(28, 28))
    labels = np.kron([[0, 1], [2, 3]], np.ones((14, 14), int))
    found, error = shapley_with_error(target, regions=4, cut="grid")
    expected = exact_on_pixels(target, labels)
    assert found[[0, 0, 27, 27], [0, 27, 0, 27]].tolist() == pytest.approx(expected, abs=1e-4)
    assert error.max() == 0
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("cut", ["grid", "superpixels"])
def test_values_sum_to_the_gap_and_regions_that_do_nothing_have_none(cut):
    """A planted reader sees its object alone."""
    reader, scene = planted("object"), planted_scene((48, 64))
    found = explain(reader, scene, "?", method="shapley", cut=cut, regions=16, tokens="all")
    target = found.target
    gap = float(target.score(target.image) - target.score(target.baseline))
    value, error = shapley_with_error(target, cut=cut, regions=16)
    assert torch.equal(value, torch.from_numpy(found.grid))
    levels = np.unique(found.saliency)
    assert 0 in levels and found.saliency.max() > 0.1 * gap
    assert (error[value == 0] == 0).all()


def test_passes_and_memory_follow_the_options(tiny_llava, monkeypatch):
    from white_box import target_of

    target, largest = target_of(tiny_llava, size=(28, 28)), []
    own = type(target).score
    monkeypatch.setattr(
        type(target), "score", lambda self, x, **o: largest.append(len(x)) or own(self, x, **o)
    )
    METHODS["shapley"](target, regions=9, cut="grid", orders=6, batch=5)
    assert max(largest) == 5 and sum(largest) == 2 + 6 * 8


@pytest.mark.parametrize("bad", [{"regions": 1}, {"orders": 2}, {"batch": 0}, {"cut": "squares"}])
def test_bad_options(tiny_llava, bad):
    from white_box import target_of

    with pytest.raises(StudyError, match="shapley needs at least 2 regions, 4 orders"):
        METHODS["shapley"](target_of(tiny_llava, size=(28, 28)), **bad)
