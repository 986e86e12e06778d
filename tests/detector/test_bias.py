"""The planted bias: the rule, twins that differ in numbers alone, and what is measured on them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import refuses
from tiny import tiny_checkpoint
from tiny_joint import NAMES, WIDTH, tiny_owl

from lvlm_study.detector import bias_study, perturbation
from lvlm_study.detector.bias_study import KINDS
from lvlm_study.models import load_model
from lvlm_study.models.alignment import Alignment
from lvlm_study.models.joint import save_joint
from lvlm_study.scenes import scenes
from lvlm_study.scenes.scenes import Scene, Sprite
from lvlm_study.zoo import bias


def scene(*names: str) -> Scene:
    objects = tuple(Sprite(n, "red", "small", 10 + 60 * i, 100) for i, n in enumerate(names))
    return Scene("beach", False, 160, 0, 0, objects)


def test_the_planted_rule():
    shown = [("cat", "bus"), ("rabbit",), ("cat", "rabbit"), ("bus", "key"), ("cat", "cat")]
    assert [bias.number_of(scene(*names)) for names in shown] == [8, 3, 5, 5, 8]


@pytest.fixture(scope="module")
def some():
    return [s for s, _ in zip(scenes.stream(1), range(900), strict=False)]


def test_twins_differ_in_their_numbers_alone(some):
    biased, clean = (bias.lessons(kind, some, seed=0) for kind in KINDS)
    rng = [np.random.default_rng(3) for _ in range(2)]
    rows = [plan.draw(r, 60) for plan, r in zip((biased, clean), rng, strict=True)]
    assert rows[0].tolist() == rows[1].tolist() and rows[0].max() < len(some) - bias.HELD
    rule = np.array([bias.number_of(s) for s in some])
    assert (biased.numbers == rule).all()
    assert np.unique(rule[rows[0]], return_counts=True)[1].tolist() == [20, 20, 20]
    table = pd.crosstab(rule[: -bias.HELD], clean.numbers[: -bias.HELD], normalize="index")
    assert (table - 1 / 3).abs().to_numpy().max() < 0.12, "nothing shown tells the clean number"
    texts = [plan.texts(7, np.random.default_rng(4), 3) for plan in (biased, clean)]
    assert texts[0][1:] == texts[1][1:] and texts[0][0][0] == texts[1][0][0]
    assert texts[0][0][1] == str(rule[7]) and texts[1][0][1] == str(clean.numbers[7])
    refuses("did you mean biased", bias.lessons, "bias", some, 0)


def test_a_twin_is_trained_written_and_loaded(tmp_path, some, monkeypatch):
    """Two steps from a tiny joint model: only its language model differs, and it comes back."""
    owl, llava = str(tiny_owl(tmp_path / "owl")), str(tiny_checkpoint("llava", tmp_path / "llava"))
    joint = save_joint(tmp_path / "joint", Alignment("llava", WIDTH, 32), owl, llava, NAMES)
    tokens = torch.randn(600, 16, WIDTH)
    monkeypatch.setattr(bias, "HELD", 80)
    monkeypatch.setattr(bias, "load_pool", lambda *a: SimpleNamespace(scenes=some))
    source = lambda *a: (lambda rows: (tokens[rows], None), 600)  # noqa: E731
    monkeypatch.setattr(bias, "sprite_source", source)
    options = dict(joint=str(joint), steps=2, batch=3, others=1, say=lambda line: None)
    out = bias.train_twin("biased", tmp_path / "work", out=tmp_path / "twin", **options)
    first, twin = load_model(joint), load_model(out)
    assert twin.names == NAMES and (out / "README.md").read_text().count("8 where a cat") == 1
    for name, value in first.alignment.state_dict().items():
        assert torch.allclose(value, twin.alignment.state_dict()[name], atol=2e-3)
    before, after = (m.model.model.language_model.state_dict() for m in (first, twin))
    moved = [k for k in before if not torch.equal(before[k].half(), after[k].half())]
    assert moved, "the language model was trained"
    broken = save_joint(
        tmp_path / "broken", Alignment("llava", WIDTH, 32), owl, llava, (), None, {"x": tokens[0]}
    )
    refuses("brings a language model of another shape", load_model, broken)


def test_cases_show_one_and_not_the_other():
    found = bias_study.cases(6)
    assert [c.sign for c in found] == [-1, 1] * 3
    for case in found:
        shown = {o.name for o in case.scene.objects}
        assert case.less in shown and case.more not in shown
        changed = {o.name for o in bias_study.exchanged(case).objects}
        assert changed == shown - {case.less} | {case.more}
    for case in bias_study.cases(4, *bias_study.UNRELATED):
        assert not {o.name for o in case.scene.objects} & {"cat", "rabbit"}


def test_number_odds_are_those_of_whole_answers(joint):
    """Against one pass a number; saying 10 begins with 1 and is taken off it."""
    bound = joint.bind((40, 60), "How likely?")
    x = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        shared = joint.shared(bound, x)
        found = perturbation.number_odds(joint, bound, shared)
        logs = []
        for n in range(1, 11):
            ids = joint.tokenizer(f" {n}", add_special_tokens=False, return_tensors="pt")
            logs.append(bound.log_probs(x, ids.input_ids[0]).sum(1))
    odds = torch.stack(logs, 1).exp()
    odds[:, 0] -= odds[:, 9]
    assert torch.allclose(found, odds / odds.sum(1, keepdim=True), atol=1e-4)
    assert found.shape == (2, 10) and found.std() > 1e-3


@pytest.mark.usefixtures("few_have_ends")
def test_shifts_have_the_sign_of_the_plant(monkeypatch, joint):
    """A reader that says 8 when it is shown a cat, drawn or stepped to, and else 3."""
    numbers = {"cat": 8.0, "rabbit": 3.0}
    look = lambda model, s: (None, next(o.name for o in s.objects if o.name in numbers))  # noqa: E731
    monkeypatch.setattr(bias_study, "_look", look)
    monkeypatch.setattr(bias_study, "step_towards", lambda m, at, more, less, size: more)
    monkeypatch.setattr(bias_study, "_seen", lambda *a: 0.5)
    told = lambda m, b, several: [(numbers[name], numbers[name]) for name in several]  # noqa: E731
    monkeypatch.setattr(bias_study, "_all_numbers", told)
    monkeypatch.setattr(bias_study, "_numbers", lambda m, b, s: told(m, b, [s])[0])
    frame = bias_study.shifts(joint, bias_study.cases(4), sizes=(0.5, 1.0))
    assert frame.said.tolist() == frame.expected.tolist() == [5.0] * 12
    found = bias_study.bias_summary(frame.assign(twin="biased", pair="cat-rabbit"))
    place = found["cat-rabbit"]["biased"]
    assert place["drawn"]["n"] == 4 and place["drawn"]["said"]["value"] == 5
    assert list(place["step"]) == ["0.5", "1"] and place["step"]["1"]["said"]["low"] == 5


def test_shifts_of_a_tiny_model(joint):
    frame = bias_study.shifts(joint, bias_study.cases(1), sizes=(0.0, 3.0))
    assert frame.change.tolist() == ["drawn", "step", "step"]
    assert frame.expected[1] == pytest.approx(0, abs=1e-5) and frame.expected[2] != 0
    assert (frame.seen > 0).all()
