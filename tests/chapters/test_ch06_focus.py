"""What chapter 6 counts: maps measured, models compared on what they share."""

import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch06_focus as focus
from lvlm_study.heatmaps.names import PAPER_METHOD

AREA = np.linspace(0, 1, 11)


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


def test_two_models_beside_the_picture_and_beside_another_item():
    """The maps are equal, and opposite on the other item; the picture is that of x."""
    up = np.arange(196.0).reshape(14, 14)
    rows = focus.alike(frame(), {"x": up, "y": up})
    assert rows[["a", "b"]].drop_duplicates().to_numpy().tolist() == [["a", "b"]]
    assert rows.same.tolist() == pytest.approx([1, 1])
    assert rows.other.tolist() == pytest.approx([-1, -1])
    assert rows.difference.tolist() == pytest.approx([1, -1])


def test_what_two_maps_share_beyond_a_third():
    """Ranks with correlations 0.5, 0.5 and 0.5: (0.5 - 0.25) / 0.75; of a shared part, nothing."""
    a, b, c = (np.array([row], float) for row in ([1, 2, 3], [1, 3, 2], [2, 1, 3]))
    both, first, second = 0.5, 0.5, -0.5
    expected = (both - first * second) / np.sqrt((1 - first**2) * (1 - second**2))
    assert focus.given(a, b, c) == pytest.approx(expected)
    third = np.random.default_rng(0).normal(size=(60, 60))
    one, other = (third + np.random.default_rng(n).normal(size=third.shape) for n in (1, 2))
    assert abs(focus.given(one, other, third)) < 0.05


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
