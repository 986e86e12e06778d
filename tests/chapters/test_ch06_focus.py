"""The measures of focus have the values that they must have where these are known."""

import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch06_focus as focus
from lvlm_study.heatmaps import explain
from lvlm_study.heatmaps.names import PAPER_METHOD
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


def frame():
    """Two models on two items; the maps of an item are equal, those of the items opposite."""
    up = np.arange(196.0).reshape(14, 14)
    rows = [
        {"model": m, "method": PAPER_METHOD, "item": i, "status": "ok", "saliency": s}
        for m in ("a", "b")
        for i, s in (("x", up), ("y", -up))
    ]
    curve = {"area": AREA, "deletion_curve": 1 - AREA, "insertion_curve": AREA**2}
    rows = [row | curve | {"image_score": 1.0, "fill_score": 0.0} for row in rows]
    rows.append(rows[0] | {"method": "random", "saliency": None})
    rows.append(rows[0] | {"status": "no_crucial_tokens", "saliency": None})
    return pd.DataFrame(rows)


def test_measured_rows():
    rows = focus.measured(frame())
    assert len(rows) == 5 and rows[rows.method == "random"].spread.isna().all()
    assert rows.needed.tolist() == pytest.approx([0.5] * 5)
    root = 0.7 + (0.5 - 0.49) / (0.64 - 0.49) * 0.1
    assert rows.composition.iloc[0] == pytest.approx((root - 0.5) / (root + 0.5))


def test_alike_compares_the_same_item_with_another():
    rows = focus.alike(frame())
    assert rows[["a", "b"]].drop_duplicates().to_numpy().tolist() == [["a", "b"]]
    assert rows.same.tolist() == pytest.approx([1, 1])
    assert rows.other.tolist() == pytest.approx([-1, -1])


def test_objects_that_an_answer_needs():
    effects = pd.DataFrame(
        {"model": "a", "benchmark": "s", "item": ["x", "y"], "status": ["ok", "no_gap"]}
        | {"effect": [np.array([2.0, 0.1, 1.0]), np.array([9.0])]}
    )
    assert focus.needed_objects(effects).objects_needed.tolist() == [2]


def test_models_are_compared_on_shared_items():
    """a - b is 0.2 on both items that they share; with random maps it is 0.1."""
    rows = [
        {
            "model": m,
            "method": k,
            "item": i,
            "composition": value + (0.2 if k == PAPER_METHOD else 0.1),
        }
        for m, value in (("a", 0.3), ("b", 0.1))
        for k in (PAPER_METHOD, "random")
        for i in ("x", "y", "z")
    ]
    frame = pd.DataFrame([row for row in rows if (row["model"], row["item"]) != ("b", "z")])
    frame.loc[(frame.model == "b") & (frame.method == "random"), "composition"] = 0.3
    found = focus.between_models(frame).iloc[0]
    assert (found.a, found.b, found.n) == ("a", "b", 2)
    assert found.difference == pytest.approx(0.2) and found.random == pytest.approx(0.1)
