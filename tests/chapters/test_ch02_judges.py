"""Three more judges: tables and the summary of ROAD from hand-made rows."""

from types import SimpleNamespace

import method_frames as frames
import pandas as pd
import pytest

from lvlm_study.chapters import ch02_judges as judges


def told(value, low=None, high=None, n=24):
    return {"value": value, "low": low, "high": high, "n": n}


def test_the_smallest_region_comes_first():
    share = {"percent": 12.5, "low": 4.3, "high": 31.0, "n": 24}
    less = {"random": told(-0.1, -0.2, 0.0), "difference": told(0.2, 0.1, 0.3)}
    gae = {"amcr": told(0.7, 0.6, 0.8), "less": less, "csr": share}
    chance = {"amcr": told(0.6, 0.5, 0.7), "less": {"random": told(None)}, "csr": share}
    chance["less"]["difference"] = told(0.0, -0.1, 0.1)
    table = judges.correction_table({"methods": {"gae": gae, "random": chance}}).astype(str)
    assert table.to_numpy().tolist() == [
        ["Random map", "0.60 [0.50, 0.70]", "–", "0.00 [−0.10, 0.10]", "12 [4, 31]"],
        ["T-MM", "0.70 [0.60, 0.80]", "−0.10 [−0.20, 0.00]", "0.20 [0.10, 0.30]", "12 [4, 31]"],
    ]
    assert list(table)[2:4] == ["less than random map", "less than difference picture"]


def test_the_highest_synergy_comes_first():
    low = dict.fromkeys(("score", "unclipped", "image", "words"), told(0.1)) | {"above": told(None)}
    high = low | {"score": told(0.3, 0.2, 0.4), "above": told(0.2, 0.1, 0.3)}
    table = judges.synergy_table({"methods": {"noise": low, "attnlrp": high}})
    assert table.ranking.tolist() == ["AttnLRP", "Noise"]
    assert table["F_syn"].tolist() == ["0.30 [0.20, 0.40]", "0.10"]
    assert table["minus noise"].tolist() == ["0.20 [0.10, 0.30]", "–"]


BLUR = {"igos[preset=lean]": 0.9, "difference": 0.8, "occlusion": 0.7, "gae": 0.4, "center": 0.1}
ROAD = {"igos[preset=lean]": 0.5, "difference": 0.2, "occlusion": 0.7, "gae": 0.1, "center": 0.0}


def rows(n: int = 24) -> pd.DataFrame:
    """The same score on every item; the normalised one, which must not count, is nonsense."""
    parts = [
        frames.maps({name: [value] * n for name, value in scores.items()}, fill=fill)
        for fill, scores in (("blur", BLUR), ("road", ROAD))
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole.assign(gap=whole.gap.where(whole.fill == "blur", -9.0))


@pytest.fixture
def tables(monkeypatch, tmp_path):
    """A results folder whose ROAD rows are `rows()`."""
    monkeypatch.setattr(judges.Tables, "maps", rows())
    monkeypatch.setattr(judges.Tables, "versions", {})
    return judges.Tables(tmp_path)


def test_road_by_hand(tables):
    """Of five maps ROAD moves the first three by one, one and two places: 1 - 6 * 6 / 120."""
    found = judges.summary(tables)
    assert [found["agreement"][end] for end in ("value", "low", "high")] == pytest.approx([0.7] * 3)
    assert (found["agreement"]["n"], found["agreement"]["methods"]) == (24, 5)
    assert (found["provenance"]["n"], found["provenance"]["model"]) == (24, ["mini/a"])


def test_the_table_of_road(tables):
    table = judges.road_table(tables).set_index("method")
    assert table.index[0] == "iGOS (preset lean)" and set(table.n) == {24}
    assert table.loc["Occlusion", "ROAD"] == "0.70 [0.70, 0.70]"
    assert table.loc["Occlusion", "minus difference picture, blur"] == "−0.10 [−0.10, −0.10]"
    assert table.loc["Difference picture", "minus difference picture, ROAD"] == "–"


def test_without_rows_of_road_nothing_is_told(tmp_path):
    none = SimpleNamespace(maps=frames.maps({"gae": [0.1] * 3}))
    assert judges.road_table(none).iloc[0, 0] == "not yet run"
    assert judges.summary(judges.Tables(tmp_path)) == {}
