"""The protocol of human attention: exact values on cells, and what each correlation must mean."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch10_attention as ha
from lvlm_study.metrics.plausibility import auc


def cells(count, size=14):
    out = np.zeros((size, size))
    out.ravel()[:count] = 1
    return out


def test_a_region_with_itself_is_perfect_and_turned_over_the_opposite():
    same, over = ha.both_ways(cells(49), cells(49))
    assert same["correlation"] == pytest.approx(1) and same["iou_sum"] == pytest.approx(1)
    assert over["correlation"] == pytest.approx(-1) and over["iou_max"] == 0
    assert same["iou_bytes"] == pytest.approx(1 / 255)


def test_disjoint_regions_by_hand():
    """Two disjoint regions of share a and b correlate by -sqrt(ab / ((1 - a)(1 - b)))."""
    one, other = cells(49), cells(14)[::-1]
    a, b = 49 / 196, 14 / 196
    expected = -np.sqrt(a * b / ((1 - a) * (1 - b)))
    assert ha.compared(other, one)["correlation"] == pytest.approx(expected)
    assert ha.compared(other, one)["iou_sum"] == 0


@pytest.mark.parametrize("count", [7, 49, 98])
def test_correlation_and_auc_are_one_number(count):
    """Without ties in the map the closed form is exact, at its end and in between."""
    region, area = cells(count), count / 196
    up = -np.arange(196.0).reshape(14, 14)
    assert ha.compared(up, region)["correlation"] == pytest.approx(ha.furthest(area))
    noise = np.random.default_rng(0).random((14, 14))
    found = ha.auc_of(ha.compared(noise, region)["correlation"], area)
    assert found == pytest.approx(auc(noise, region.astype(bool)))


def test_out_of_reach_is_seen():
    assert ha.furthest(0.5) == pytest.approx(np.sqrt(0.75), rel=1e-4)
    assert ha.auc_of(-0.5, 0.02) < 0


@pytest.mark.parametrize("wanted", [-0.2, 0.0, 0.2])
def test_built_maps_have_the_correlation_that_was_asked_for(wanted):
    region = np.zeros((336, 336), bool)
    region[40:120, 200:290] = True
    made = ha.built(region, wanted, seed=3)
    assert ha.compared(made, region)["correlation"] == pytest.approx(wanted, abs=0.01)
    assert made.min() == 0


def test_boxes_and_shift():
    region = np.zeros((30, 40), bool)
    region[2, 2:5] = region[4, 2] = region[2:5, 2] = True
    assert ha.as_boxes(region).sum() == 9
    assert ha.moved(region, 3).sum() == region.sum() and ha.moved(region, 3)[5, 5]
    assert ha.moved(np.ones((4, 4), bool), 1).sum() == 9


def test_elsewhere_is_as_large_and_apart():
    region = np.zeros((60, 60), bool)
    region[10:20, 10:30] = True
    other = ha.elsewhere(region, seed=0)
    assert other.sum() == 200 and not (other & region).any()
    assert ha.elsewhere(np.ones((9, 9), bool), seed=0) is None
    found = ha.placed_elsewhere([region], draws=3)
    assert found["n"] == 3 and found["correlation"] < 0 and found["iou_sum"] < 0.2


def test_rows_of_models_controls_and_bounds():
    """One usable item of two: five rows beside each model's, all in both orientations."""
    rgb = np.zeros((336, 336, 3), np.uint8)
    region = np.zeros((336, 336), bool)
    region[24:72, 24:72] = True
    items = {
        "a": SimpleNamespace(id="a", rgb=rgb, evidence=region),
        "b": SimpleNamespace(id="b", rgb=rgb, evidence=~region),
    }
    good = np.zeros((14, 14), np.float32)
    good[1:3, 1:3] = 1
    maps = pd.DataFrame(
        [
            {"model": m, "item": i, "status": "ok", "saliency": good, "item_seed": 1}
            for m in ("one", "two")
            for i in ("a", "b")
        ]
    )
    rows = ha.attention_rows(maps, items)
    assert set(rows.item) == {"a"} and len(rows) == 2 * (2 + 3 + 2)
    table = rows.set_index(["who", "orientation"]).correlation
    assert table["one", "high is important"] == pytest.approx(1)
    assert table["one", "turned over"] == pytest.approx(-1)
    assert abs(table["random", "high is important"]) < 0.25
    assert np.isnan(table["sobel", "high is important"])  # a black picture has no edges
