"""Quadrants and what they say, on tables small enough to count by hand."""

import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch07_correctness as correctness
from lvlm_study.heatmaps.names import PAPER_METHOD


def row(verdict, near, ratio=1.0, area=0.05, status="ok", item="a", category="attribute"):
    return {
        "model": "m", "method": PAPER_METHOD, "item": item, "category": category,
        "verdict": verdict,
        "pointing_near": near, "energy_ratio": ratio, "evidence_area": area, "status": status,
    }  # fmt: skip


def test_every_row_has_one_place():
    rows = correctness.sorted_rows(
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
    names = [*correctness.QUADRANTS, "no region", "no region", "no map"]
    assert rows.quadrant.tolist() == names
    assert rows.on.tolist() == [True, False, True, False, False, False, False]
    counted = correctness.quadrants(rows, ["model"]).iloc[0]
    assert counted["right, on"] == 1 and counted["no region"] == 2 and counted.n == 7


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (-0.1, 0.2, "No difference can be told from none"),
        (0.01, 0.2, "It makes it likelier"),
        (-0.3, -0.01, "It makes it less likely"),
        (None, None, "It cannot be told yet"),
        (float("nan"), 0.1, "It cannot be told yet"),
    ],
)
def test_the_verdict_follows_the_interval(low, high, want):
    assert correctness.said({"low": low, "high": high}) == want


def test_the_rule_of_mass_asks_for_twice_the_share():
    frame = pd.DataFrame([row("correct", 0.0, 2.0), row("correct", 1.0, 1.99)])
    assert correctness.sorted_rows(frame, "mass").on.tolist() == [True, False]


def table(*groups):
    """Rows from (right, wrong) on the evidence and (right, wrong) off it, by category."""
    rows = []
    for category, *counts in groups:
        kinds = (("correct", 1.0), ("wrong", 1.0), ("correct", 0.0), ("wrong", 0.0))
        for (verdict, near), count in zip(kinds, counts, strict=True):
            rows += [row(verdict, near, category=category)] * count
    frame = pd.DataFrame(rows)
    frame["item"] = [f"i{n}" for n in range(len(frame))]
    return correctness.sorted_rows(frame)


def test_lift_by_hand():
    """9 of 10 right on, 6 of 10 off: difference 0.3; Fisher's p of [[9, 1], [6, 4]] is 0.303."""
    found = correctness.lift(table(("x", 9, 1, 6, 4)))
    assert found["on_right"] == pytest.approx(0.9) and found["off_right"] == pytest.approx(0.6)
    assert found["difference"] == pytest.approx(0.3) == pytest.approx(found["within"])
    assert found["p"] == pytest.approx(0.3034, abs=1e-3)
    assert found["low"] < 0 < 0.3 < found["high"] and found["wrong"] == 5


def test_categories_can_make_the_whole_difference():
    """Both categories: no difference inside; pooled, the easy one is mostly on the evidence."""
    found = correctness.lift(table(("easy", 18, 2, 9, 1), ("hard", 1, 1, 10, 10)))
    assert found["within"] == pytest.approx(0)
    assert found["difference"] == pytest.approx(19 / 22 - 19 / 30)


def test_one_empty_side_has_no_difference():
    found = correctness.lift(table(("x", 3, 1, 0, 0)))
    assert np.isnan(found["difference"]) and np.isnan(found["within"])


def test_share_on_the_evidence():
    frame = correctness.on_share(table(("x", 3, 0, 1, 0)))
    assert frame.on.tolist() == [0.75] and frame.n.tolist() == [4]
