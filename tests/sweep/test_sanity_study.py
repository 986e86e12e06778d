"""The sanity table: means by hand, failures left out with a word, a file that can be read back."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from refusals import refuses

from lvlm_study.chapters import ch02_methods, ch05_cost
from lvlm_study.errors import StudyError
from lvlm_study.sweep import provenance, results, sanity
from lvlm_study.sweep.tables import write

ITEMS = [(SimpleNamespace(id=f"i{n}", rgb=None, question="?"), None) for n in range(2)]


def rows() -> pd.DataFrame:
    """Two items: seeds 0.8 and 1.0, other words 0.1 and -0.1, weights 0.9 to 0, one map silent."""
    table = []
    for n, (seeds, logit) in enumerate([(0.8, 0.1), (1.0, -0.1)]):
        told = [("seeds", "", seeds), ("logit", "", logit), ("weights", "head", 0.9)]
        told += [("question", "", 0.5 + n), ("noise", "", 0.1), ("infidelity", "", 0.7)]
        told += [("alone", "head", 0.4)]
        told += [("weights", "vision", 0.2 * n if n == 0 else np.nan)]
        for check, stage, value in told:
            status = "ok" if np.isfinite(value) else "constant"
            row = {"item": f"i{n}", "method": "igos", "check": check, "stage": stage}
            table.append(row | {"value": value, "status": status})
    return pd.DataFrame(table)


def test_means_by_hand():
    told = sanity.summarise(rows())["igos"]
    assert told["seeds"].value == pytest.approx(0.9) and told["seeds"].n == 2
    assert told["logit"].value == pytest.approx(0.0)
    assert list(told["weights"]) == ["head", "vision"]
    assert told["forgotten"] is told["weights"]["vision"]
    assert told["forgotten"].json() == {"value": 0.0, "low": None, "high": None, "n": 1}
    assert told["silent"] == 1
    assert told["question"].value == 1.0 and told["noise"].value == pytest.approx(0.1)
    assert told["alone"]["head"].value == pytest.approx(0.4) and list(told["alone"]) == ["head"]


def test_another_question_is_one_that_differs():
    assert sanity.other_questions(["a", "a", "b"]) == ["b", "b", "a"]
    assert sanity.other_questions(["a"]) == ["a"]


def test_every_check_of_a_real_architecture(adapters):
    """Sobel never sees the model; Grad-CAM does, and takes no seed."""
    model, rgb = adapters("llava"), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    answer = model.answer(rgb, "What is this?", max_new_tokens=6)
    item = SimpleNamespace(id="i", rgb=rgb, question="What is this?")
    asked = [(item, answer), (SimpleNamespace(id="j", rgb=rgb, question="Why?"), answer)]
    found = sanity.measure(model, asked, ("sobel", "grad_cam"), lambda line: None)
    assert set(found.check) == set(sanity.CHECKS)
    told = sanity.summarise(found)
    assert told["sobel"]["question"].value == told["sobel"]["forgotten"].value == 1
    assert told["grad_cam"]["seeds"].value == pytest.approx(1)
    assert told["grad_cam"]["forgotten"].value < 0.99 and told["sobel"]["noise"].value > 0


def test_the_table_for_readers():
    table = ch05_cost.shown(rows())
    assert table.iloc[0][["method", "items", "no weight left"]].tolist() == [
        "iGOS",
        2,
        "0.00 (n = 1)",
    ]
    assert table.iloc[0]["another seed"] == "0.90"  # two items: no interval
    assert ch05_cost.shown(rows().iloc[:0]).iloc[0, 0] == "not yet run"
    assert table.iloc[0]["moved by noise"] == "0.10"
    assert ch05_cost.shown_alone(rows()).iloc[0]["head anew"] == "0.40"


def test_other_seeds_for_the_table_of_methods(tmp_path):
    """0.8 and 1.0 for one method; exactly 1 for another, which draws nothing."""
    about = {"model": ["mini/a"], "n": 2}
    both = pd.concat([rows(), rows().assign(method="gae", value=1.0)])
    write(tmp_path / "sanity.json", sanity.tree_of(both, about, 1.0, {}))
    found = ch02_methods.other_seeds(tmp_path)
    assert found["mini/a", "igos"] == "0.90" and len(found) == 2
    assert found["mini/a", "gae"] == "1, no chance"
    assert ch02_methods.other_seeds(tmp_path / "elsewhere") == {}


def test_methods_may_carry_options(adapters):
    model, rgb = adapters("llava"), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    answer = model.answer(rgb, "What is this?", max_new_tokens=6)
    asked = [(SimpleNamespace(id="i", rgb=rgb, question="What is this?"), answer)]
    few = "mask_size=8,iterations=1,steps=2"
    names = (f"igos[{few},noise=0]", f"igos[{few}]")
    found = sanity.measure(model, asked, names, lambda line: None)
    seeds = found[found.check == "seeds"].set_index("method").value
    assert seeds[names[0]] == pytest.approx(1) and seeds[names[1]] < 0.999


def test_a_method_that_refuses_is_left_out(monkeypatch):
    def checks(model, item, answer, method, other):
        if method == "tam" and item.id == "i1":
            raise StudyError("not this one.")
        return [{"check": "seeds", "stage": "", "value": 1.0, "status": "ok"}]

    monkeypatch.setattr(sanity, "_checks", checks)
    said = []
    found = sanity.measure(None, ITEMS, ("tam", "igos"), said.append)
    assert found.method.tolist() == ["igos", "igos"] and found.item.tolist() == ["i0", "i1"]
    assert "tam is left out: not this one." in said


def test_what_is_written_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lvlm_study.models.load_model", lambda name, **options: None)
    monkeypatch.setattr(sanity, "explainable", lambda *rest: ITEMS)
    monkeypatch.setattr(sanity, "measure", lambda *rest: rows())
    monkeypatch.setattr(provenance, "commit", lambda: "c")
    monkeypatch.setattr(provenance, "weights_checksum", lambda model: "w")
    sanity.study("mini/a", tmp_path / "mini", methods=["igos"], say=lambda text: None)
    tree = results.load(tmp_path / "mini" / "sanity.json")
    assert tree["provenance"]["n"] == 2 and tree["methods"]["igos"]["silent"] == 1
    assert tree["methods"]["igos"]["alone"]["head"]["value"] == pytest.approx(0.4)
    again = sanity.read_rows(tmp_path / "mini")
    pd.testing.assert_frame_equal(again, rows().assign(model="mini/a"))
    assert sanity.read_rows(tmp_path / "elsewhere").empty


def test_only_missing_methods_are_measured(tmp_path, monkeypatch):
    """A second run adds to the first; other weights or items start anew; each is saved at once."""
    weights, done, commits = ["w"], [], iter("abcdefg")
    monkeypatch.setattr(provenance, "commit", lambda: next(commits))
    monkeypatch.setattr("lvlm_study.models.load_model", lambda name, **options: None)
    monkeypatch.setattr(provenance, "weights_checksum", lambda model: weights[0])
    monkeypatch.setattr(sanity, "explainable", lambda *rest: ITEMS)

    def measure(model, asked, methods, say):
        if methods == ["tam"]:
            raise KeyboardInterrupt
        done.extend(methods)
        return rows().assign(method=methods[0])

    monkeypatch.setattr(sanity, "measure", measure)
    go = lambda *methods: sanity.study("mini/a", tmp_path, methods=methods, say=print)  # noqa: E731
    go("igos")
    with pytest.raises(KeyboardInterrupt):
        go("igos", "gae", "tam")
    assert done == ["igos", "gae"]
    assert set(go("igos")["methods"]) == {"igos", "gae"} and done == ["igos", "gae"]
    assert go("igos")["commits"] == {"igos": "a", "gae": "b"}  # of the run that measured each
    sanity.study("mini/a", tmp_path, methods=["gae"], fresh=True)  # and igos is left alone
    assert done == ["igos", "gae", "gae"] and done.pop()
    assert go("igos")["commits"] == {"igos": "a", "gae": "e"}
    weights[0] = "trained again"
    assert go("igos")["commits"] == {"igos": "g"} and done == ["igos", "gae", "igos"]


def test_a_file_without_commits_is_of_the_one_it_names(tmp_path):
    about = {"profile": "mini", "model": ["a"], "n": 2, "seed": 0, "versions": {}}
    about |= {"weights": "w", "benchmark": "sprites"}
    tree = sanity.tree_of(rows(), about | {"commit": "old"}, 1.0, {})
    tree.pop("commits")
    write(tmp_path / "sanity.json", tree)
    _, minutes, commits = sanity.earlier(tmp_path / "sanity.json", about, ["i0", "i1"])
    assert minutes == 1 and commits == dict.fromkeys(rows().method, "old")


@pytest.mark.parametrize("name, kept", [("lvlm-study", True), ("torch", False)])
def test_a_release_of_this_package_parts_no_rows(tmp_path, name, kept):
    """Only what computes the passes does: 132 minutes of rows were once dropped by a release."""
    about = {"profile": "mini", "model": ["a"], "n": 2, "seed": 0, "commit": "c"}
    about |= {"weights": "w", "benchmark": "sprites", "versions": {name: "1"}}
    write(tmp_path / "sanity.json", sanity.tree_of(rows(), about, 1.0, {}))
    later = about | {"versions": {name: "2"}}
    found = sanity.earlier(tmp_path / "sanity.json", later, ["i0", "i1"])[0]
    assert len(found) == (len(rows()) if kept else 0)


def test_unknown_methods_are_refused(tmp_path):
    refuses("igos", sanity.study, "mini/a", tmp_path, methods=["igoss"])
