"""The measures of focus have the values that they must have where these are known."""

import numpy as np
import pytest

from lvlm_study.heatmaps import explain
from lvlm_study.metrics import focus
from lvlm_study.metrics.faithfulness import deletion_insertion
from lvlm_study.models.planted import OBJECT, PlantedReader, planted, planted_scene


def grid(*cells, size=14):
    out = np.zeros((size, size))
    for row, column, value in cells:
        out[row, column] = value
    return out


def test_spread_is_the_number_of_even_cells():
    """Four even cells are four cells; 1/2, 1/4, 1/4 has entropy 1.5 log 2."""
    assert focus.spread(grid((0, 0, 2), (0, 5, 2), (9, 9, 2), (3, 3, 2))) == pytest.approx(4 / 196)
    uneven = grid((0, 0, 2), (0, 5, 1), (9, 9, 1))
    assert focus.entropy(uneven) == pytest.approx(1.5 * np.log(2))
    assert focus.spread(np.full((28, 28), 7.0)) == pytest.approx(1)
    assert focus.entropy(grid((4, 4, 1))) == 0


def test_negative_saliency_has_no_mass():
    assert focus.spread(grid((0, 0, 1), (5, 5, -3))) == pytest.approx(1 / 196)
    assert np.isnan(focus.spread(-np.ones((14, 14)))) and focus.regions(-np.ones((14, 14))) == 0


def test_core_is_the_smallest_set_with_half_of_the_mass():
    """5 of 10 is half by itself; 4 of 10 is not and takes the next."""
    assert focus.core(grid((0, 0, 5), (0, 1, 3), (0, 2, 2))).sum() == 1
    assert focus.core(grid((0, 0, 4), (0, 1, 3), (0, 2, 3))).sum() == 2


def test_regions_touch_at_corners_and_specks_do_not_count():
    diagonal = grid((3, 3, 1), (4, 4, 1), (5, 5, 1), (6, 6, 1))
    assert focus.regions(diagonal, share=1) == 1
    apart = grid((2, 2, 1), (2, 9, 1))
    assert focus.regions(apart, share=1) == 2
    speck = grid((2, 2, 10), (2, 9, 10), (12, 5, 2))
    assert focus.regions(speck, share=1) == 2
    assert focus.regions(speck, share=1, least=0.05) == 3


AREA = np.linspace(0, 1, 11)


def test_half_points_by_hand():
    """Deletion falls by 0.25 a step from 1: half after 2 steps; insertion is half at 0.55."""
    deletion = np.clip(1 - 2.5 * AREA, 0, 1)
    insertion = np.where(AREA < 0.6, 0.0, 1.0)
    needed, enough = focus.half_points(AREA, deletion, insertion)
    assert needed == pytest.approx(0.2) and enough == pytest.approx(0.55)
    assert focus.composition(AREA, deletion, insertion) == pytest.approx(0.35 / 0.75)
    assert focus.composition(AREA, 1 - insertion, 1 - deletion) == pytest.approx(-0.35 / 0.75)


def test_a_curve_that_never_passes_half_has_no_number():
    flat = np.full(11, 0.3)
    assert np.isnan(focus.composition(AREA, 1 - AREA, flat))


def test_normalised_curves():
    assert focus.normalised([0.1, 0.5, 0.9], 0.9, 0.1) == pytest.approx([0, 0.5, 1])


def reader_curves(reader, method):
    explanation = explain(reader, planted_scene(), "What colour?", method=method, seed=0)
    faith = deletion_insertion(reader, explanation)
    curves = faith.deletion_curve, faith.insertion_curve
    found = focus.composition(curves[0].fractions, *(c.normalised for c in curves))
    return found, explanation.saliency


@pytest.mark.parametrize("method", ["igos", "random"])
def test_planted_readers_are_told_apart(method):
    """All boxes needed: positive. Any suffices: negative. One box: between, and nearer to zero."""
    both, _ = reader_curves(planted("conjunctive"), method)
    either, _ = reader_curves(planted("disjunctive"), method)
    one, _ = reader_curves(planted("object"), method)
    assert both > 0.2 and either < -0.5 and abs(one) < 0.2


def test_halves_of_one_object_are_compositional_in_one_place():
    x0, y0, x1, y1 = OBJECT
    middle = (x0 + x1) / 2
    halves = PlantedReader("planted/halves", ((x0, y0, middle, y1), (middle, y0, x1, y1)), "all")
    found, saliency = reader_curves(halves, "igos")
    assert found > 0.2 and focus.regions(saliency) == 1
    assert focus.regions(reader_curves(planted("conjunctive"), "igos")[1]) == 2
