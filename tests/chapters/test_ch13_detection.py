"""`lvlm-study detect`: each part writes numbers that can be checked, and goes on where it was."""

import json
from unittest.mock import ANY

import numpy as np
import pandas as pd
import pytest
from refusals import refuses
from tiny_joint import tiny_joint

from lvlm_study import cli
from lvlm_study.chapters import annotate
from lvlm_study.chapters import ch13_detection as joint_study
from lvlm_study.metrics.statistics import Estimate
from lvlm_study.models import load_model
from lvlm_study.scenes.scenes import Scene, Sprite
from lvlm_study.sweep.results import read


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_joint(tmp_path_factory.mktemp("joint"), names=("cat", "dog"))


def test_shares_are_pooled_and_their_interval_draws_captions():
    found = joint_study.share_estimate([2, 0, 4], [4, 1, 5])
    assert found.value == pytest.approx(0.6) and found.n == 3
    assert found.low == 0 and found.high == pytest.approx(0.8)
    assert np.isnan(joint_study.share_estimate([0, 0], [0, 0]).value)


@pytest.mark.usefixtures("few_have_ends")
def test_plain_numbers():
    tree = {"a": Estimate(1.0, np.nan, 2.0, 3), 0.5: [np.int64(4), np.float64(np.inf)], "b": "x"}
    want = {"value": 1.0, "low": None, "high": 2.0, "n": 3}
    assert joint_study.plain(tree) == {"a": want, "0.5": [4, None], "b": "x"}


@pytest.mark.usefixtures("few_have_ends")
def test_what_w_keeps(tmp_path, monkeypatch):
    row = {"precision": 0.75, "recall": 0.5, "answers": 0.9, "n_answers": 20}
    row |= {"captions": [[2, 3, 2], [2, 3, 1]], "error": 0.1}
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "alignment.json").write_text(json.dumps({"deep": row}))
    joint_study.study(str(tmp_path / "j"), tmp_path / "mini", ["joint"], say=lambda line: None)
    tree = json.loads((tmp_path / "mini" / "joint.json").read_text())
    kept = tree["kinds"]["deep"]
    assert kept["precision"]["value"] == 0.75 and kept["recall"]["value"] == 0.5
    assert kept["precision"]["low"] == 0.5 and kept["precision"]["high"] == 1
    assert kept["answers"]["low"] == pytest.approx(0.699, abs=1e-3)  # Wilson, 18 of 20
    assert kept["error"] == 0.1 and tree["provenance"]["n"] == 20


def test_two_objects_of_their_own_class():
    def shown(*names):
        return Scene("road", True, 1, 0, 0, tuple(Sprite(n, "red", "small", 0, 0) for n in names))

    assert joint_study.two_objects(shown("cat", "key", "cat", "bus")) == [1, 3]
    assert joint_study.two_objects(shown("cat", "cat", "bus")) == []


def test_presence_of_a_tiny_model(folder, tmp_path):
    joint_study.study(str(folder), tmp_path / "mini", ["presence"], 2, say=lambda line: None)
    asked = pd.read_parquet(tmp_path / "mini" / "detection" / "presence.parquet")
    tree = json.loads((tmp_path / "mini" / "joint_presence.json").read_text())
    assert asked.id.nunique() == 2 == tree["provenance"]["n"]
    assert tree["questions"] == len(asked)
    assert (asked.groupby("id").present.sum() + joint_study.ABSENT).sum() == len(asked)


def test_pairs_of_a_tiny_model_are_kept_and_not_made_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(joint_study, "METHODS", ("ga", "center"))
    results, quiet = tmp_path / "results" / "mini", lambda line: None
    joint_study.study(str(folder), results, ["pairs"], 2, say=quiet)
    frame = pd.read_parquet(results / "detection" / "pairs.parquet")
    assert frame.groupby("method").pair.nunique().to_dict() == {"ga": 2, "center": 2}
    alike = frame[(frame.method == "center") & (frame.status == "ok")]
    assert (alike.score == 0.5).all(), "the same map twice explains nothing"
    n = read("joint_pairs.provenance.n", tmp_path).value
    assert n == 2
    again = []
    monkeypatch.setattr(joint_study, "pair_rows", lambda *a: again.append(a[1].id) or [])
    joint_study.study(str(folder), results, ["pairs"], 2, say=quiet)
    assert again == []
    joint_study.study(str(folder), results, ["pairs"], 2, seed=1, say=quiet)
    assert len(again) == 2  # another seed, or other weights, are another table
    frame.assign(weights="of another model").to_parquet(results / "detection" / "pairs.parquet")
    joint_study.study(str(folder), results, ["pairs"], 2, say=quiet)
    assert len(again) == 4


def test_pairs_become_tasks_for_people(tmp_path):
    item = joint_study.shuffled(joint_study.load_benchmark("sprites"), 1)[0]
    maps = {"map_a": np.arange(4.0), "shape_a": [2, 2], "map_b": np.ones(4), "shape_b": [2, 2]}
    row = {"pair": item.id, "method": "ga", "a": "Cat? Red.", "b": "Bus? Blue."} | maps
    path = tmp_path / "detection" / "pairs.parquet"
    refuses("detect --parts pairs", joint_study.pair_tasks, tmp_path)
    joint_study.save(path, pd.DataFrame([row]))
    (task,) = joint_study.pair_tasks(tmp_path, ("ga",))
    assert isinstance(task, annotate.PairTask) and (task.question, task.answer) == (
        row["a"],
        row["b"],
    )
    refuses("method with stored pairs", joint_study.pair_tasks, tmp_path, ("igos",))


def stored(item, method: str, saliency: np.ndarray, energy: float, gap: float) -> dict:
    row = {"item": item.id, "method": method, "saliency": saliency, "energy": energy, "gap": gap}
    return row | {"energy_ratio": 10 * energy, "auc": energy, "pointing": 1.0}


def test_maps_are_scored_on_the_items_of_all_methods(tmp_path, monkeypatch):
    """ga is the evidence itself, center knows nothing; igos was stopped early and is left out."""
    items = [i for i in joint_study.load_benchmark("sprites") if i.category == "attribute"][:3]
    rows = [stored(i, "ga", i.evidence.astype(np.float32), 0.9, 0.5) for i in items]
    rows += [stored(i, "center", None, 0.2, 0.1) for i in items[:2]]
    rows += [stored(items[0], "igos", items[0].evidence.astype(np.float32), 0.5, 0.4)]
    frame = pd.DataFrame(rows).assign(
        model="mini/joint", benchmark="sprites", status="ok", category="attribute"
    )
    monkeypatch.setattr(joint_study, "stored_maps", lambda results: frame)
    joint_study.study("mini/joint", tmp_path, ["maps"], say=lambda line: None)
    tree = json.loads((tmp_path / "joint_maps.json").read_text())
    assert set(tree["methods"]) == {"ga", "center"} and tree["provenance"]["n"] == 2
    ga, center = tree["methods"]["ga"], tree["methods"]["center"]
    assert ga["energy_ratio"]["value"] == 9 and ga["max_box_acc"]["value"] == 1
    assert center["max_box_acc"]["value"] < 1 and center["gap"]["value"] == pytest.approx(0.1)
    assert tree["ga_minus"] == {}
    apart = joint_study._against_ga(frame[frame.item.isin([i.id for i in items[:2]])], "center")
    assert apart["energy_ratio"]["difference"] == pytest.approx(7)
    frame.model = "mini/other"
    refuses("no maps of mini/joint by ga", joint_study.study, "mini/joint", tmp_path, ["maps"])


def test_what_is_missing_or_wrong(folder, tmp_path, capsys):
    refuses("did you mean pairs", joint_study.study, str(folder), tmp_path, ["pair"])
    refuses("no maps", joint_study.study, str(folder), tmp_path, ["maps"])
    results = ["--results", str(tmp_path)]
    assert cli.main(["detect", "--items", "1", *results]) == 2
    assert cli.main(["detect", "--parts", "joint", "--model", str(folder), *results]) == 2
    assert "alignment.json is missing" in capsys.readouterr().err


def test_a_model_without_a_detector_is_one_sentence(checkpoints, tmp_path, capsys):
    folder = checkpoints("llava")
    capsys.readouterr()  # making it may have shown a bar
    assert cli.main(["detect", "--model", str(folder), "--results", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "has no detector" in told.err


def test_a_joint_model_is_not_spread(folder):
    refuses("goes on one device", load_model, folder, device="auto")


def test_training_the_joint_model_takes_pictures_and_kinds(tmp_path, monkeypatch, capsys):
    from lvlm_study.zoo import train

    calls = []
    joint = lambda work, **options: calls.append(options)  # noqa: E731
    monkeypatch.setitem(train.DETECTION, "joint", joint)
    monkeypatch.setattr(train, "note", lambda *a, **k: None)  # the zoo's own manifest stays
    call = ["train", "joint", "--work", str(tmp_path), "--steps", "9", "--compare"]
    assert cli.main([*call, "--images", str(tmp_path)]) == 0
    assert calls == [{"out": None, "say": ANY, "images": tmp_path, "compare": True, "steps": 9}]
    assert cli.main(["train", "llava-1.5", "--images", str(tmp_path)]) == 2
    assert cli.main(["train", "owl", "--steps", "9"]) == 2
    told = capsys.readouterr().err
    assert "--images is for 'lvlm-study train joint' alone" in told
    assert "number of steps is fixed" in told
