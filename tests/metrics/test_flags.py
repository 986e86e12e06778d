"""Flags against faults, counted by hand."""

import method_frames as frames
import pytest

from lvlm_study.chapters.compare import with_evidence
from lvlm_study.metrics import flags


def not_positive(frame):
    """How often that flag is right about the raw share of mass."""
    table = flags.flag_scores(with_evidence(frame), "off_evidence")
    return table.set_index("flag").loc["not_positive"]


def test_flags_by_hand():
    """Ten maps of one method: 4 bad, 3 flagged, 2 of those bad."""
    gaps = {"tam": [-1.0, -1, -1] + [1.0] * 7, "random": [0.0] * 10, "sobel": [0.5] * 10}
    ratio = [0.5, 0.5, 2, 0.5, 0.5] + [2.0] * 5
    frame = frames.maps(
        gaps, evidence_area=0.1, pointing_near=1.0,
        energy_ratio={"tam": ratio, "random": [1.0] * 10, "sobel": [2.0] * 10}, auc=0.9,
    )  # fmt: skip
    row = not_positive(frame)
    assert (row.n, row["items"]) == (10, 10)
    assert row.flagged == pytest.approx(0.3) and row.base == pytest.approx(0.4)
    assert row.precision == pytest.approx(2 / 3) and row.recall == pytest.approx(0.5)
    assert row.lift == pytest.approx(2 / 3 - 0.4) and row.lift_low < row.lift < row.lift_high
    every = flags.flagged(with_evidence(frame))
    assert every.below_sobel.sum() == 3 and not every.below_half.any()
    assert not every.below_difference.any(), "a control that was not scored flags nothing"
    assert row.within == pytest.approx(row.lift)  # one method only


def test_a_flag_that_only_knows_the_method_knows_nothing_within_it():
    """All maps of tam are bad and flagged, none of igos: a perfect flag, and no help with a map."""
    gaps = {"tam": [-1.0] * 6, "igos": [1.0] * 6, "random": [0.0] * 6}
    ratio = {"tam": [0.5] * 6, "igos": [2.0] * 6, "random": [1.0] * 6}
    frame = frames.maps(gaps, evidence_area=0.1, pointing_near=1.0, energy_ratio=ratio, auc=0.9)
    row = not_positive(frame)
    assert (row.precision, row.recall, row.lift, row.within) == (1.0, 1.0, 0.5, 0.0)
