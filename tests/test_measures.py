"""tools/measures.py: what it tells of rows by hand, which answers it takes, and how it goes on."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import measures
import numpy as np
import pandas as pd
import pytest

from lvlm_study.benchmarks.base import Item
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import results


def corrected(area: float, drawn: list[float]) -> dict:
    return dict.fromkeys(measures.MAPS, area) | {"random": drawn}


def test_what_corrects_by_hand():
    """Of two answers a map corrects one with 5 %, and neither with random maps on the average."""
    told = measures.tell_correction([corrected(0.05, [0.1, 0.5]), corrected(0.45, [1.0, 1.0])])
    igos, chance = told["igos[preset=lean]"], told["random"]
    assert igos["amcr"] == {"value": 0.25, "low": None, "high": None, "n": 2}
    assert igos["less"]["random"]["value"] == pytest.approx((0.3 - 0.05 + 1 - 0.45) / 2)
    assert igos["less"]["difference"]["value"] == 0, "the same areas here"
    assert chance["less"]["difference"]["value"] == pytest.approx(0.25 - 0.65)
    assert (igos["csr"]["percent"], igos["csr"]["n"]) == (50, 2)
    assert chance["amcr"]["value"] == pytest.approx(0.65)
    assert chance["csr"]["percent"] == pytest.approx(25), "one of the two draws of one answer"
    assert chance["less"]["random"]["value"] is None
    many = measures.tell_correction([corrected(0.05, [1.0, 1.0])] * 20)["occlusion"]
    assert [many["amcr"][end] for end in ("value", "low", "high")] == pytest.approx([0.05] * 3)
    assert many["csr"]["low"] == pytest.approx(83.9, abs=0.1), "Wilson, 20 of 20"


def ranked(score: float, noise: float) -> dict:
    own = {"score": score, "unclipped": -score, "image": 0.5, "words": 0.25}
    return dict.fromkeys(measures.QUICK, own) | {"noise": own | {"score": noise}}


def test_picture_and_words_by_hand():
    told = measures.tell_synergy([ranked(0.5, 0.1), ranked(0.3, 0.2)])
    assert list(told) == [*measures.QUICK, "noise"]
    assert told["glimpse"]["score"]["value"] == pytest.approx(0.4)
    assert told["glimpse"]["above"]["value"] == pytest.approx(0.25)
    assert told["glimpse"]["unclipped"]["value"] == pytest.approx(-0.4)
    assert told["noise"]["score"]["value"] == pytest.approx(0.15)
    assert told["noise"]["above"]["value"] is None


def test_wrong_answers_are_those_of_the_stored_rows(monkeypatch):
    row = {"model": "mini/a", "baseline": "blur", "status": "ok", "verdict": "wrong", "item": "yes"}
    other = [{"model": "mini/b"}, {"verdict": "correct"}, {"status": "no_crucial_tokens"}]
    rows = [row, *(row | change | {"item": "no"} for change in other)]
    monkeypatch.setattr(measures, "read_table", lambda folder, kind: pd.DataFrame(rows))
    assert measures.wrong_items(Path("anywhere"), "mini/a") == {"yes"}


def test_without_stored_rows_it_says_so(tmp_path, capsys):
    assert measures.main(["--results", str(tmp_path), "--only", "correction"]) == 2
    assert "run that first" in capsys.readouterr().err


def test_one_answer_of_a_planted_reader(monkeypatch):
    """It says red, misled by the red box; a map that finds the box takes less than noise."""
    monkeypatch.setattr(measures, "MAPS", ("occlusion", "difference", "sobel", "center"))
    scene, reader = planted_scene((64, 96)), planted("object")
    item = Item("x", scene, "Which colour?", "The shape is blue.", ("blue",))
    found = measures.correction_row(reader, item, 0)
    assert list(found) == [*measures.MAPS, "random"] and len(found["random"]) == measures.DRAWS
    areas = [found[name] for name in measures.MAPS] + found["random"]
    assert all(0 < area <= 1 for area in areas)
    assert found["occlusion"] < np.mean(found["random"])
    right = replace(item, reference="The shape is red.", accept=("red",))
    assert measures.correction_row(reader, right, 0) is None


@pytest.fixture
def part(monkeypatch):
    """Three items, the second of which has nothing to explain; counts how often one is measured."""
    asked = []

    def row(model, item, seed):
        asked.append(item.id)
        return None if item.id == "b" else ranked(0.5, 0.1)

    items = [SimpleNamespace(id=name, extra={}) for name in "abc"]
    one = measures.Part("mini/a", "sprites", row, measures.tell_synergy)
    monkeypatch.setattr(measures, "PARTS", {"synergy": one})
    monkeypatch.setattr(measures, "load_benchmark", lambda name: items)
    monkeypatch.setattr(measures, "shuffled", lambda items, count: items)
    monkeypatch.setattr(measures, "load_model", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(measures.provenance, "weights_checksum", lambda model: "w")
    return asked


def test_a_later_run_goes_on(part, tmp_path, capsys):
    measures.measure("synergy", tmp_path, 1)
    measures.measure("synergy", tmp_path, 2)
    assert part == ["a", "b", "c"]
    tree = results.load(tmp_path / "measures.json")
    assert (tree["provenance"]["n"], tree["provenance"]["model"]) == (2, ["mini/a"])
    assert [row["item"] for row in tree["synergy"]["rows"]] == ["a", "c"]
    assert tree["synergy"]["n"] == 2
    assert tree["synergy"]["methods"]["glimpse"]["above"]["value"] == pytest.approx(0.4)


def test_other_weights_begin_anew(part, tmp_path, monkeypatch, capsys):
    measures.measure("synergy", tmp_path, 1)
    monkeypatch.setattr(measures.provenance, "weights_checksum", lambda model: "other")
    measures.measure("synergy", tmp_path, 2)
    assert part == ["a", "a", "b", "c"]
