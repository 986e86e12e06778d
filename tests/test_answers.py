"""Crucial tokens: hand-computed ratios, both sides of each threshold, exclusion by what is read."""

import math
from dataclasses import replace

import pytest
import torch
from refusals import refuses

from lvlm_study.answers import (
    crucial_tokens,
    make_target,
    marked,
    retarget,
    visual_reliance,
)
from lvlm_study.models.base import Answer
from lvlm_study.models.planted import OBJECT, PARTNER, PlantedReader, planted, planted_scene

SCENE = planted_scene((64, 64))


def answer(tokens, text=None):
    ids = torch.arange(10, 10 + len(tokens))
    return Answer(text or "".join(tokens), tuple(tokens), ids, torch.zeros(len(tokens)))


def crucial(tokens, text=None, llr=None, **options):
    llr = torch.full((len(tokens),), 5.0) if llr is None else torch.tensor(llr)
    return crucial_tokens(answer(tokens, text), llr, **options).tolist()


def test_log_likelihood_ratio_by_hand():
    # e = 1 on the scene and 0 on black, so log p goes from log s(4) to log s(-4): a drop of 4 nats.
    found = visual_reliance(planted("object"), SCENE, "What colour?", baseline="black")
    assert found.answer.text == "The shape is red."
    assert torch.allclose(found.llr, torch.tensor([0.0, 0, 0, 4.0, 0]), atol=1e-5)
    assert found.crucial.tolist() == [False, False, False, True, False]
    assert found.words == ("red",)
    assert found.total_drop == pytest.approx(1 - math.exp(-4), abs=1e-5)
    assert found.per_token == pytest.approx(0.8, abs=1e-5)
    assert found.crucial_share == pytest.approx(0.2)
    sigmoid = 1 / (1 + math.exp(-4))
    assert found.gap == pytest.approx(sigmoid - (1 - sigmoid), abs=1e-5)


@pytest.mark.parametrize(("limit", "cut"), [(1, True), (5, True), (6, False), (64, False)])
def test_a_cut_answer_says_so(limit, cut):
    """Five tokens and the end, which takes a token of its own."""
    said = planted("object").answer(SCENE, "?", limit)
    assert len(said.token_ids) == min(limit, 5) and said.truncated is cut
    assert answer(["A", " hand", " made"]).truncated is False
    assert replace(said, text="x").truncated is cut


@pytest.mark.parametrize(("gain", "status"), [(0.99, "no_crucial_tokens"), (1.01, "ok")])
def test_threshold_is_one_nat(gain, status):
    reader = PlantedReader("edge", boxes=(OBJECT,), gain=gain)  # the ratio on black is the gain
    assert visual_reliance(reader, SCENE, "?", baseline="black").status == status


@pytest.mark.parametrize(("gain", "status"), [(0.69, "no_crucial_tokens"), (0.70, "ok")])
@pytest.mark.parametrize("sentence", [("{}",), ("{}", ".")])
def test_single_word_needs_half_the_probability(gain, status, sentence):
    reader = PlantedReader("short", boxes=(OBJECT,), gain=gain, sentence=sentence)
    assert visual_reliance(reader, SCENE, "?", baseline="black").status == status


def test_first_token_of_a_sentence_is_never_crucial():
    reader = PlantedReader("first", boxes=(OBJECT,), sentence=("{}", " it", " is", "."))
    found = visual_reliance(reader, SCENE, "?", baseline="black")
    assert found.llr[0] == pytest.approx(4, abs=1e-5)
    assert found.status == "no_crucial_tokens"
    target = make_target(reader, SCENE, "?", baseline="black")
    assert target.status == "no_crucial_tokens" and not target.crucial.any()
    assert target.reliance.llr[0] == found.llr[0]
    refuses("No token of .*is chosen, so it has no score", target.score, target.image)


def test_blind_reader_has_no_crucial_token():
    found = visual_reliance(planted("blind"), SCENE, "?")
    assert found.status == "no_crucial_tokens"
    assert found.total_drop == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.gap)


@pytest.mark.parametrize(
    "token", [" the", "▁The", "Ġis", " a", "▁AND", ".", "▁,", "Ċ", "<0x0A>", "▁"]
)
def test_excluded_by_what_is_read(token):
    readable = token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n").replace("<0x0A>", "\n")
    text = "It" + readable + " cat"
    assert crucial(["It", token, " cat"], text) == [False, False, True]


def test_stop_words_are_whole_words():
    assert crucial(["One", " pand", "a"], "One panda") == [False, True, True]
    assert crucial(["It", " is", "land"], "It island") == [False, True, True]
    assert crucial(["It", "is", "red"], "It is red") == [False, False, True]  # markers were dropped


def test_exclude_none_keeps_everything_but_the_first():
    assert crucial(["It", " is", "."], exclude=None) == [False, True, True]


def test_own_exclude_list_is_case_folded():
    assert crucial(["The", " Cat", " sat"], exclude={"cat"}) == [False, False, True]


def test_special_tokens_are_excluded():
    assert crucial(["It", " red", "<pad>"], "It red", special_ids=[12]) == [False, True, False]


def test_a_lone_option_letter_is_not_a_stop_word():
    assert crucial(["A"]) == [True]
    assert crucial(["A", "."]) == [True, False]


def test_marked_text():
    assert marked(answer(["A", " red", " dog"]), torch.tensor([False, True, False]), "[", "]") == (
        "A [red] dog"
    )
    assert marked(answer(["A", " red"]), torch.tensor([False, False])) == "A red"


def test_token_choices():
    reader = planted("object")
    every = make_target(reader, SCENE, "?", baseline="black", tokens="all")
    assert every.crucial.tolist() == [True] * 5
    word = make_target(reader, SCENE, "?", baseline="black", tokens="word", word="SHAPE")
    assert word.crucial.tolist() == [False, True, False, False, False]
    assert word.reliance.words == ("shape",)


@pytest.mark.parametrize(("tokens", "where"), [(3, [3]), (-2, [3]), ((1, 3), [1, 3]), ([0], [0])])
def test_tokens_by_number(tokens, where):
    target = make_target(planted("object"), SCENE, "?", baseline="black", tokens=tokens)
    assert target.crucial.nonzero()[:, 0].tolist() == where
    assert target.reliance.words == tuple(("The", "shape", "is", "red")[i] for i in where)


def test_keywords_choose_all_tokens_of_every_keyword():
    pytest.importorskip("yake", reason="the package yake is optional")
    sentence = ("It", " is", " vi", "olet", " and", "{}", ".")
    reader = PlantedReader("split", boxes=(OBJECT,), sentence=sentence)
    target = make_target(reader, SCENE, "?", tokens="keywords")
    assert target.answer.text == "It is violet and red."
    assert target.crucial.tolist() == [False, False, True, True, False, True, False]
    assert target.reliance.words == ("vi", "olet", "red")


def test_an_answer_without_keywords_has_a_status():
    pytest.importorskip("yake", reason="the package yake is optional")
    reader = planted("object")
    said = reader.answer(SCENE, "?")
    the = Answer("The", said.tokens[:1], said.token_ids[:1], said.log_probs[:1])
    target = make_target(reader, SCENE, "?", answer=the, tokens="keywords")
    assert target.status == "no_crucial_tokens"


def test_other_tokens_of_one_target_need_no_pass():
    reader = planted("object")
    target = make_target(reader, SCENE, "?", baseline="black", tokens="all")
    one = retarget(target, torch.arange(5) == 3)
    direct = make_target(reader, SCENE, "?", baseline="black", tokens=3)
    assert one.reliance.words == ("red",)
    assert one.reliance.gap == pytest.approx(0.964, abs=1e-3)
    assert torch.equal(one.score(one.image), direct.score(direct.image))
    assert target.reliance.words == ("The", "shape", "is", "red", ".")  # the first choice stands


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "word", "word": "green"}, "not in the answer"),
        ({"tokens": "word", "word": "hap"}, "not in the answer"),  # inside "shape", but no word
        ({"tokens": "word"}, "needs the word"),
        ({"tokens": "yake"}, "must be one of"),
        ({"tokens": "word", "word": "rde"}, "did you mean red"),
        ({"tokens": "word", "word": "zzz"}, "its words: The, shape, is, red"),
        ({"tokens": "all", "word": "red"}, "not both"),
        ({"tokens": 5}, "tokens 0 to 4"),
        ({"tokens": (0, -6)}, "tokens 0 to 4"),
        ({"tokens": ()}, "tokens 0 to 4"),
        ({"tokens": 1.5}, "whole numbers"),
        ({"baseline": "blurr"}, "did you mean blur"),
    ],
)
def test_bad_choices_are_told(options, message):
    refuses(message, make_target, planted("object"), SCENE, "?", **options)


def test_target_scores_by_hand_and_differentiably():
    reader = planted("conjunctive")
    target = make_target(reader, SCENE, "?", baseline="black")
    half = target.image.clone()
    x0, y0, x1, y1 = (round(v * 64) for v in PARTNER)
    half[..., y0:y1, x0:x1] = 0  # one of two needed boxes is gone: e = 0
    images = torch.cat([target.image, half]).requires_grad_()
    expected = torch.nn.functional.logsigmoid(torch.tensor([4.0, -4.0]))
    score = target.score(images)
    assert torch.allclose(score, expected, atol=1e-4)
    assert torch.allclose(target.probability(images), expected.exp(), atol=1e-4)
    score.sum().backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0
