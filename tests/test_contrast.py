"""Why this word and not that one: scores are differences of log-probabilities, for every method."""

import html
from dataclasses import replace

import numpy as np
import pytest
import torch
from refusals import refuses
from test_program_use import FEW
from white_box import photo, target_of

from lvlm_study.answers import make_target, retarget
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS, explain, explain_target
from lvlm_study.heatmaps.attn_lrp import token_relevance
from lvlm_study.heatmaps.igos import image_gradient
from lvlm_study.heatmaps.methods import TABLE
from lvlm_study.heatmaps.show import show
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import explain_files
from lvlm_study.sweep.explain_text import report

OTHER = 7  # an id
ASK = {"answer": "a red hat", "word": "red"}  # "red" is one token of the tiny tokenizer


@pytest.fixture
def held(tiny_llava):
    return replace(target_of(tiny_llava, crucial=(2,), size=(28, 28)), contrast=OTHER)


def difference(target) -> torch.Tensor:
    """The logit of the word less that of the other, where both are said."""
    at = int(target.crucial.nonzero()[0])
    ids = target.answer.token_ids
    row = target.bound.logits(target.image, ids)[0, at]
    return row[ids[at]] - row[OTHER]


def test_a_score_is_the_difference_of_two_logits(held):
    expected = difference(held).item()
    features = held.bound.adapter.encode(held.bound, held.image)
    assert held.score(held.image).item() == pytest.approx(expected, abs=1e-4)
    assert held.score_from(features).item() == pytest.approx(expected, abs=1e-4)
    plain = replace(held, contrast=None)
    assert torch.equal(held.probability(held.image), plain.probability(held.image))
    assert held.score(held.image) != plain.score(held.image)
    assert retarget(held, torch.tensor([True] * 5)).contrast is None


@pytest.mark.parametrize("two_stage", [False, True])
def test_gradients_are_those_of_the_difference(held, two_stage, monkeypatch):
    monkeypatch.setattr(held.bound.adapter, "two_stage", two_stage, raising=False)
    x = held.image.clone().requires_grad_()
    at = int(held.crucial.nonzero()[0])
    ids = held.answer.token_ids
    row = held.bound.logits(x, ids)[0, at]
    (expected,) = torch.autograd.grad(row[ids[at]] - row[OTHER], x)
    assert torch.allclose(image_gradient(held, held.image), expected, atol=1e-5)


def test_relevance_sums_to_the_difference(held):
    found = token_relevance(held, softmax=False).sum().item()
    assert found == pytest.approx(difference(held).item(), abs=1e-3)


def test_a_lens_shows_the_difference(held):
    one, other = (replace(held, contrast=None) for _ in range(2))
    ids = held.answer.token_ids.clone()
    ids[2] = OTHER
    other = replace(
        other, reliance=replace(other.reliance, answer=replace(other.answer, token_ids=ids))
    )
    lens = METHODS["logit_lens"]
    assert torch.allclose(lens(held), lens(one) - lens(other), atol=1e-4)


KNOWN = [row.name for row in TABLE if row.contrast and not row.control]
UNABLE = [row.name for row in TABLE if not row.contrast]


@pytest.mark.parametrize("method", KNOWN)
def test_every_other_method_hears_of_it(held, method):
    found = METHODS[method](held, **FEW.get(method, {}))
    plain = METHODS[method](replace(held, contrast=None), **FEW.get(method, {}))
    assert found.isfinite().all()
    assert not torch.allclose(found, plain, rtol=1e-3) or not plain.any()


@pytest.mark.parametrize("method", UNABLE)
def test_methods_that_cannot_are_refused(held, method):
    refuses(f"{method} cannot tell a word from a contrast", explain_target, method, held)


def test_the_contrast_is_found_by_its_word(tiny_llava):
    target = make_target(tiny_llava, photo(), "?", contrast="x", **ASK)
    assert tiny_llava.tokenizer.decode([target.contrast]) == "x"
    ex = explain(tiny_llava, photo(), "?", method="attnlrp", contrast="x", **ASK)
    assert ex.target.contrast == target.contrast


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": "yellow"}, "'yellow' is not one other token of .* in the place of 'red'"),
        ({"contrast": "red"}, "'red' is not one other token"),
        ({"contrast": "x", "word": "hat"}, r"place of one token, and 3 are explained"),
        ({"contrast": ""}, r"must be a word to hold the answer against, not '' \(str\)"),
        ({"contrast": 5}, "must be a word to hold the answer against, not 5"),
    ],
)
def test_what_is_no_contrast(tiny_llava, options, message):
    with pytest.raises(StudyError, match=message) as error:
        make_target(tiny_llava, photo(), "?", **ASK | options)
    assert "\n" not in str(error.value)


def test_a_contrast_is_told_wherever_its_map_is_shown():
    """The other colour in the report, over the overlay's map and below the page's."""
    reader, scene = planted("object"), planted_scene((48, 64))
    ex = explain(reader, scene, "?", method="occlusion", word="red", contrast="blue")
    asked = "why 'red' and not 'blue'?"
    said = (report(ex, {"map": {}}), explain_files._map_title(ex), html.unescape(str(show(ex))))
    assert all(asked in text for text in said)
    plain = explain(reader, scene, "?", method="occlusion", word="red")
    said = (report(plain, {"map": {}}), explain_files._map_title(plain), str(show(plain)))
    assert not any("and not" in text for text in said)


def test_a_planted_reader_tells_its_two_colours_apart():
    """log p(first) - log p(second) is the difference of their logits, 2 z."""
    reader, scene = planted("object"), planted_scene((48, 64))
    said = reader.answer(scene, "?")
    word = next(w for w in ("red", "green", "blue") if w in said.text)
    other = reader.tokenizer.words[reader.model.colours[1]].strip()
    target = make_target(reader, scene, "?", word=word, contrast=other)
    z = reader.model.gain * (
        reader.model.evidence(target.bound.pixels(target.image)["pixel_values"]) - 0.5
    )
    assert target.score(target.image).item() == pytest.approx(2 * float(z), abs=1e-4)
    found = explain(reader, scene, "?", method="occlusion", word=word, contrast=other)
    assert np.ptp(found.saliency) > 0
