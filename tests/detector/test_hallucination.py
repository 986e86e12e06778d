"""Presence questions, what the detector knows about the answers, and steps in feature space."""

import copy
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_joint import tiny_joint

from lvlm_study.benchmarks.pope import pope
from lvlm_study.benchmarks.sprites import sprites
from lvlm_study.detector.hallucination import (
    COLUMNS,
    Presence,
    agreement,
    ask_presence,
    auc_estimate,
    confidence_figure,
    pope_presence,
    sprite_presence,
    yes_or_no,
)
from lvlm_study.detector.perturbation import (
    likelihood_shift,
    portraits,
    read_number,
    shift,
    step_towards,
)
from lvlm_study.errors import StudyError
from lvlm_study.models import load_model
from lvlm_study.models.planted import planted
from lvlm_study.pixels.images import load_image

IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return load_model(tiny_joint(tmp_path_factory.mktemp("joint")))


# --- asking ----------------------------------------------------------------------------------


def test_yes_or_no():
    found = [
        yes_or_no(t) for t in ("Yes.", " no, there is none", "'No'", "Nothing", "", "maybe yes")
    ]
    assert found == ["yes", "no", "no", "", "", ""]


def test_one_row_a_question(joint, monkeypatch):
    """The tiny model babbles; what it says is put in its mouth, what the detector sees is real."""
    said = {"cat": "Yes", "dog": "No, there is no dog.", "bus": "Yes, a bus."}
    asked = []

    def generate(bound, x, most):
        asked.append(bound.question)
        word = next(n for n in said if n in bound.question)
        return joint.tokenizer(said[word], return_tensors="pt").input_ids[0]

    monkeypatch.setattr(joint, "generate", generate)
    table = ask_presence(joint, [Presence("p", IMAGE, ("cat", "dog"), ("bus",))])
    assert asked[0] == "Is there a cat in the image? Only answer with 'yes' or 'no'."
    assert list(table.columns) == COLUMNS
    assert table.said.tolist() == ["yes", "no", "yes"]
    assert table.correct.tolist() == [True, False, False]
    x = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 255
    shared = joint.shared(joint.bind((40, 60), "?"), x)
    logits, _ = joint.detector.predict(shared, joint.detector.queries(["cat", "dog", "bus"]))
    assert np.allclose(table.confidence, logits.sigmoid().amax(1)[0].tolist(), atol=1e-5)


def test_a_model_without_a_detector():
    with pytest.raises(StudyError, match="has no detector to compare with"):
        ask_presence(planted("object"), [])


# --- what it tells ---------------------------------------------------------------------------


def answers(rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def test_agreement_by_hand():
    rows = [
        ("a", "cat", True, "yes", True, 0.9),
        ("a", "dog", True, "no", False, 0.8),  # overlooked: the detector is sure
        ("a", "bus", False, "no", True, 0.1),
        ("b", "cat", False, "yes", False, 0.2),  # hallucinated: the detector sees none
        ("b", "dog", False, "no", True, 0.3),
        ("b", "key", True, "", False, 0.5),
    ]
    found = agreement(answers(rows))
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.yes.value == pytest.approx(0.55) and found.no.value == pytest.approx(0.4)
    assert found.said_auc.value == pytest.approx(4 / 6)  # .9 > all three, .2 > .1 only
    assert found.truth_auc.value == 1
    assert found.wrong_auc.value == 1  # disagreement .8 and .8 against .1, .1, .3
    assert (found.wrong, found.undecided) == (2, 1)
    assert found.wrong_auc.low <= 1 <= found.wrong_auc.high


def test_no_wrong_answer_no_flag():
    rows = [("a", "cat", True, "yes", True, 0.9), ("b", "dog", False, "no", True, 0.2)]
    found = agreement(answers(rows))
    assert np.isnan(found.wrong_auc.value) and found.said_auc.value == 1
    with pytest.raises(StudyError, match="no answers to summarise"):
        agreement(answers([]))


def test_auc_intervals_cover_chance_for_noise():
    random = np.random.default_rng(0)
    values, marks, groups = random.random(200), random.random(200) < 0.5, np.arange(200) // 4
    found = auc_estimate(values, marks, groups, draws=300)
    assert found.low < 0.5 < found.high and 0.05 < found.high - found.low < 0.3
    assert auc_estimate(marks.astype(float), marks, groups, draws=50).low == 1


def test_histogram():
    rows = [("a", "cat", True, "yes", True, 0.9), ("b", "dog", False, "no", True, 0.2)]
    ax = confidence_figure(answers(rows))
    assert ax.get_legend().get_texts()[0].get_text() == '"yes", n = 1'


def test_sprite_scenes_know_what_they_show():
    found = sprite_presence(sprites()[:40], absent=5)
    assert 1 < len(found) <= 40 and len({p.id for p in found}) == len(found)
    for p in found:
        assert p.present and len(p.absent) == 5 and not set(p.present) & set(p.absent)


# --- POPE ------------------------------------------------------------------------------------


@pytest.fixture
def pope_files(tmp_path):
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (8, 6), "red").save(tmp_path / "val2014" / "COCO_1.jpg")
    rows = [
        {
            "question_id": 1,
            "image": "COCO_1.jpg",
            "text": "Is there a snowboard in the image?",
            "label": "yes",
        },
        {
            "question_id": 2,
            "image": "COCO_1.jpg",
            "text": "Is there an apple in the imange?",
            "label": "no",
        },
    ]
    text = "\n".join(map(json.dumps, rows))
    (tmp_path / "coco_pope_popular.json").write_text(text)
    return tmp_path


def test_pope_layout(pope_files):
    items = pope(pope_files)
    assert [i.id for i in items] == ["pope/popular/1", "pope/popular/2"]
    assert [i.extra["object"] for i in items] == ["snowboard", "apple"]
    assert [i.extra["present"] for i in items] == [True, False]
    assert items[1].reference == "no" and items[0].category == "popular"
    assert items[0].rgb.shape == (6, 8, 3)
    one = pope(pope_files / "coco_pope_popular.json", images=pope_files / "val2014")
    assert [i.id for i in one] == [i.id for i in items]


def test_pope_questions_are_gathered_by_picture(pope_files):
    (found,) = pope_presence(pope(pope_files))
    assert (found.id, found.present, found.absent) == ("COCO_1.jpg", ("snowboard",), ("apple",))
    assert load_image(found.image).shape == (6, 8, 3)


def test_pope_damage(pope_files):
    path = pope_files / "coco_pope_popular.json"
    good = json.loads(path.read_text().splitlines()[0])
    for change, message in [
        ({"label": "maybe"}, "label 'maybe'"),
        ({"text": "What is this?"}, "does not ask whether something is there"),
    ]:
        path.write_text(json.dumps(good | change))
        with pytest.raises(StudyError, match=message):
            pope(pope_files)


# --- steps in feature space ------------------------------------------------------------------


def margins(joint, tokens, detector=None):
    """Logits of "cat" less those of "red bus", summed over the picture."""
    queries = joint.detector.queries(["cat", "red bus"]).to(tokens)
    logits, _ = (detector or joint.detector).predict(tokens, queries)
    return (logits[..., 0] - logits[..., 1]).sum()


@pytest.fixture(scope="module")
def shared(joint):
    x = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 255
    return joint.shared(joint.bind((40, 60), "?"), x).detach()


def test_a_step_raises_one_name_over_the_other(joint, shared):
    with torch.no_grad():
        before = margins(joint, shared)
        there = margins(joint, step_towards(joint, shared, "cat", "red bus", 0.001))
        back = margins(joint, step_towards(joint, shared, "red bus", "cat", 0.001))
    assert there > before + 1e-3 and back < before - 1e-3


def test_shift_tells_both_sides(joint, shared):
    still = shift(joint, IMAGE, "What?", "cat", "red bus", size=0.0)
    assert still.nats == 0 and still.before == still.after
    found = shift(joint, IMAGE, "What?", "cat", "red bus", size=3.0)
    queries = joint.detector.queries(["cat", "red bus"])
    with torch.no_grad():
        moved = step_towards(joint, shared, "cat", "red bus", 3.0)
        sure = joint.detector.predict(moved, queries)[0].sigmoid().amax(1)[0]
    assert found.before == still.before and found.nats != 0
    assert (found.more[1], found.less[1]) == pytest.approx(sure.tolist(), abs=1e-5)


def test_the_step_is_the_seeds(joint, shared):
    """Squared error to targets of a million, in float64: the same step."""
    detector = copy.copy(joint.detector)
    detector.model = copy.deepcopy(joint.detector.model).double()
    leaf = shared.double().requires_grad_()
    queries = joint.detector.queries(["cat", "red bus"]).double()
    logits, _ = detector.predict(leaf, queries)
    goal = torch.tensor([1e6, -1e6], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits - goal).square().mean(), leaf)
    moved = step_towards(joint, shared, "cat", "red bus", 0.5) - shared
    clear = gradient.abs() > 1e-3 * gradient.abs().max()
    assert torch.equal(moved[clear].sign().double(), -gradient[clear].sign())
    assert moved.abs().max() == pytest.approx(0.5, abs=1e-5) and clear.float().mean() > 0.5


def test_a_step_needs_two_names(joint):
    with pytest.raises(StudyError, match="two different ones"):
        shift(joint, IMAGE, "What?", "cat", "cat")


def test_numbers_in_answers():
    texts = ["7", "I would say 8.", "seven of ten", "0", "11 or 3", "no idea"]
    found = [read_number(t) for t in texts]
    assert found[:3] == [7, 8, 7] and np.isnan(found[3]) and found[4] == 3 and np.isnan(found[5])


@dataclass
class Speaker:
    """Stands in for `shift`: says 3 before, 5 after, and once nothing."""

    calls: int = 0

    def __call__(self, *args):
        self.calls += 1
        after = "unclear" if self.calls == 3 else "5"
        return type("S", (), {"before": "three", "after": after})


def test_likelihoods_are_averaged_and_gaps_counted(monkeypatch, joint):
    monkeypatch.setattr("lvlm_study.detector.perturbation.shift", Speaker())
    found = likelihood_shift(joint, [IMAGE] * 4, "a doctor", "woman", "man")
    assert (found.value, found.n, found.skipped) == (2.0, 3, 1)


def test_portraits(tmp_path):
    with pytest.raises(StudyError, match="at least two sub-folders"):
        portraits(tmp_path)
    for group in ("a", "b"):
        (tmp_path / group).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / group / "x.png")
    (tmp_path / "empty").mkdir()
    assert {k: len(v) for k, v in portraits(tmp_path).items()} == {"a": 1, "b": 1}
