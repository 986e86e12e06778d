"""A map for every word: the same target but for its tokens, no pass repeated, nothing mixed up."""

import numpy as np
import pytest

import lvlm_study as ls
from lvlm_study.errors import StudyError
from lvlm_study.models.base import Answer
from lvlm_study.models.planted import OBJECT, PlantedReader, planted, planted_scene

SCENE = planted_scene((64, 96))


def test_one_map_a_word():
    found = ls.explain_tokens(planted("object"), SCENE, "?", "occlusion", baseline="black")
    assert [ex.reliance.words for ex in found] == [("The",), ("shape",), ("is",), ("red",)]
    assert [ex.status for ex in found] == ["no_gap"] * 3 + ["ok"]
    assert all(np.abs(ex.saliency).max() < 1e-6 for ex in found[:3])
    alone = ls.explain(planted("object"), SCENE, "?", "occlusion", baseline="black", word="red")
    assert np.array_equal(found[3].saliency, alone.saliency)
    assert found[3].reliance.gap == alone.reliance.gap
    assert found[3].cost.forward == alone.cost.forward


def test_a_word_has_the_map_of_all_its_tokens():
    reader = PlantedReader("split", boxes=(OBJECT,), sentence=("It", " is", "{}", "dish", "."))
    words = ls.explain_tokens(reader, SCENE, "?", "integrated_gradients", baseline="black")
    tokens = ls.explain_tokens(reader, SCENE, "?", "integrated_gradients", "token", 0, "black")
    assert [ex.reliance.words for ex in words] == [("It",), ("is",), ("red", "dish")]
    assert [ex.reliance.words[0] for ex in tokens] == ["It", "is", "red", "dish", "."]
    parts = tokens[2].saliency + tokens[3].saliency  # log-probabilities, and so gradients, add up
    assert words[2].saliency == pytest.approx(parts, abs=1e-7)
    assert words[2].saliency.sum() == pytest.approx(4, rel=0.01)  # nats, complete
    gaps = [ex.reliance.gap for ex in tokens[2:4]]
    assert words[2].reliance.gap == pytest.approx(sum(gaps) / 2)  # the mean over its tokens


def test_options_and_answer_are_handed_on():
    reader = planted("object")
    said = reader.answer(SCENE, "?")
    found = ls.explain_tokens(reader, SCENE, "?", "occlusion", answer=said, window=0.5, stride=0.5)
    assert found[0].options == {"window": 0.5, "stride": 0.5} and found[0].cost.forward == 5
    assert all(ex.answer is said for ex in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "igoss"}, "did you mean igos"),
        ({"by": "wrod"}, "did you mean word"),
        ({"widnow": 1}, "did you mean window"),
    ],
)
def test_bad_choices_are_told(options, message):
    options = {"method": "occlusion"} | options
    with pytest.raises(StudyError, match=message):
        ls.explain_tokens(planted("object"), SCENE, "?", **options)


def test_an_answer_of_punctuation_alone():
    said = planted("object").answer(SCENE, "?")
    dot = Answer(".", said.tokens[4:], said.token_ids[4:], said.log_probs[4:])
    with pytest.raises(StudyError, match="no word to explain"):
        ls.explain_tokens(planted("object"), SCENE, "?", "occlusion", answer=dot)
