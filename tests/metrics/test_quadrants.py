"""Quadrants and what they say, on tables small enough to count by hand."""

import numpy as np
import pandas as pd
import pytest

from lvlm_study.heatmaps.names import PAPER_METHOD
from lvlm_study.metrics import quadrants


def row(verdict, near, ratio=1.0, area=0.05, status="ok", item="a", category="attribute"):
    return {
        "model": "m", "method": PAPER_METHOD, "item": item, "category": category,
        "verdict": verdict,
        "pointing_near": near, "energy_ratio": ratio, "evidence_area": area, "status": status,
    }  # fmt: skip


def test_every_row_has_one_place():
    rows = quadrants.sorted_rows(
        pd.DataFrame(
            [
                row("correct", 1.0),
                row("correct", 0.4),
                row("wrong", 0.5),
                row("wrong", 0.0),
                row("correct", None, area=None),
                row("correct", 1.0, area=0.9),
                row("correct", None, status="no_crucial_tokens"),
                row("undecided", 1.0),
            ]
        )
    )
    names = [*quadrants.QUADRANTS, "no region", "no region", "no map"]
    assert rows.quadrant.tolist() == names
    assert rows.on.tolist() == [True, False, True, False, False, False, False]
    counted = quadrants.quadrants(rows, ["model"]).iloc[0]
    assert counted["right, on"] == 1 and counted["no region"] == 2 and counted.n == 7


def test_the_rule_of_mass_asks_for_twice_the_share():
    frame = pd.DataFrame([row("correct", 0.0, 2.0), row("correct", 1.0, 1.99)])
    assert quadrants.sorted_rows(frame, "mass").on.tolist() == [True, False]


def table(*groups):
    """Rows from (right, wrong) on the evidence and (right, wrong) off it, by category."""
    rows = []
    for category, *counts in groups:
        kinds = (("correct", 1.0), ("wrong", 1.0), ("correct", 0.0), ("wrong", 0.0))
        for (verdict, near), count in zip(kinds, counts, strict=True):
            rows += [row(verdict, near, category=category)] * count
    frame = pd.DataFrame(rows)
    frame["item"] = [f"i{n}" for n in range(len(frame))]
    return quadrants.sorted_rows(frame)


def test_lift_by_hand():
    """9 of 10 right on, 6 of 10 off: difference 0.3; Fisher's p of [[9, 1], [6, 4]] is 0.303."""
    found = quadrants.lift(table(("x", 9, 1, 6, 4)))
    assert found["on_right"] == pytest.approx(0.9) and found["off_right"] == pytest.approx(0.6)
    assert found["difference"] == pytest.approx(0.3) == pytest.approx(found["within"])
    assert found["p"] == pytest.approx(0.3034, abs=1e-3)
    assert found["low"] < 0 < 0.3 < found["high"] and found["wrong"] == 5


def test_categories_can_make_the_whole_difference():
    """Both categories: no difference inside; pooled, the easy one is mostly on the evidence."""
    found = quadrants.lift(table(("easy", 18, 2, 9, 1), ("hard", 1, 1, 10, 10)))
    assert found["within"] == pytest.approx(0)
    assert found["difference"] == pytest.approx(19 / 22 - 19 / 30)


def test_one_empty_side_has_no_difference():
    found = quadrants.lift(table(("x", 3, 1, 0, 0)))
    assert np.isnan(found["difference"]) and np.isnan(found["within"])


def test_shares_within_strata_by_hand():
    """In x 1/2 - 1/2 of 4 rows, in y 1/1 - 0/3 of 4: weights 1 and 3/4. Stratum z has one side."""
    on = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1], bool)
    value = np.array([1, 0, 1, 0, 1, 0, 0, 0, 0.5])
    strata, items = list("xxxxyyyyz"), list("abcdefghi")
    found = quadrants.apart(on, value, items, strata)
    assert found.value == pytest.approx((0 * 1 + 1 * 0.75) / 1.75) and found.n == 9
    assert quadrants.apart(on, value, items).value == pytest.approx(2.5 / 4 - 1 / 5)
    assert np.isnan(found.low), "nine pictures are too few for an interval"
    many = quadrants.apart(np.tile(on, 4), np.tile(value, 4), range(36), strata * 4)
    assert many.value == pytest.approx(found.value) and many.low < many.value < many.high


def test_pictures_and_not_rows_are_drawn_anew():
    """Forty pictures, ten rows of each all alike: the interval is that of forty rows."""
    on, value = np.arange(40) % 2 == 0, np.arange(40) % 3 == 0
    one = quadrants.apart(on, value, range(40))
    ten = quadrants.apart(np.tile(on, 10), np.tile(value, 10), list(range(40)) * 10)
    assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))
    assert np.isnan(quadrants.apart(np.zeros(0, bool), np.zeros(0), []).value)
