"""The zoo's table of results: counts become shares with intervals, and the book can read them."""

import json

import pytest

from lvlm_study import results
from lvlm_study.errors import StudyError
from lvlm_study.zoo import accuracy


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "zoo" / "tiny"
    folder.mkdir(parents=True)
    counts = {"picture": {"spatial": [3, 4], "global": [1, 4]}, "blurred": {"spatial": [0, 4]}}
    (folder / "accuracy.json").write_text(json.dumps(counts))
    return tmp_path


def test_shares_and_intervals_by_hand(data):
    found = accuracy.gather(data / "zoo")["mini/tiny"]
    assert found["picture"]["spatial"]["percent"] == 75 and found["picture"]["spatial"]["n"] == 4
    assert found["picture"]["all"]["percent"] == 50 and found["picture"]["all"]["n"] == 8
    cell = found["picture"]["all"]  # Wilson: 0.5 -+ 1.96 sqrt(1/32 + 1.96²/256) / (1 + 1.96²/8)
    assert cell["low"] == pytest.approx(21.52, abs=0.01)
    assert cell["high"] == pytest.approx(78.48, abs=0.01)
    assert found["blurred"]["all"]["percent"] == 0 == found["blurred"]["all"]["low"]


def test_the_book_reads_what_was_written(data):
    accuracy.write(data)
    key = "zoo.models[mini/tiny].picture.spatial.percent"
    assert results.read(key, data).value == 75


def test_bad_and_missing_counts_are_named(data, tmp_path):
    (data / "zoo" / "tiny" / "accuracy.json").write_text("{")
    with pytest.raises(StudyError, match="tiny/accuracy.json is no JSON"):
        accuracy.write(data)
    (data / "zoo" / "tiny" / "accuracy.json").unlink()
    with pytest.raises(StudyError, match="train a member first"):
        accuracy.write(data)


def test_a_detector_answers_no_questions(data):
    (data / "zoo" / "owl").mkdir()
    (data / "zoo" / "owl" / "accuracy.json").write_text('{"ap50": 0.5}')
    assert list(accuracy.gather(data / "zoo")) == ["mini/tiny"]
