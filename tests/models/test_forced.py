"""Any text as an answer: the tokens that the model itself would have said it with."""

import numpy as np
import pytest
import scripts
import tiny
import torch
from refusals import refuses
from white_box import photo

import lvlm_study as ls
from lvlm_study.answers import make_target, visual_reliance
from lvlm_study.errors import StudyError
from lvlm_study.models.forced import spelled
from lvlm_study.models.planted import planted, planted_scene

QUESTION = "What is the red thing?"
PHOTO = photo()
SCENE = planted_scene((64, 64))
THE = tiny.tokenizer().convert_tokens_to_ids("Ġthe")
LETTERS = tiny.tokenizer().convert_tokens_to_ids(list("abcos.,"))


def alike(one, two):
    assert (one.text, one.tokens) == (two.text, two.tokens)
    assert torch.equal(one.token_ids, two.token_ids) and torch.equal(one.log_probs, two.log_probs)


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_what_the_model_said_is_the_same_answer_given_back(adapters, family, spaced):
    with scripts.saying(adapters(family), [*LETTERS, THE], THE if spaced else None) as model:
        own = model.answer(PHOTO, QUESTION, 5)
        assert own.text.startswith("the the") is spaced and len(own.token_ids) == 5
        alike(model.forced(PHOTO, QUESTION, own.text), own)
        told = [visual_reliance(model, PHOTO, QUESTION, a) for a in (own, own.text)]
        assert torch.equal(told[0].llr, told[1].llr)
        assert spaced or told[0].llr.abs().max() > 0  # a word that is sure depends on nothing
        how = {"method": "occlusion", "tokens": "all", "window": 0.5, "stride": 0.5}
        maps = [ls.explain(model, PHOTO, QUESTION, answer=a, **how) for a in (own, own.text)]
        assert np.array_equal(maps[0].saliency, maps[1].saliency)
        assert maps[1].answer.truncated is False


@pytest.mark.parametrize("name", ["llava-1.5", "llava-ov", "cambrian", "mini-gemini-l", "joint"])
def test_trained_models_say_the_same_again(name):
    model = ls.load_model(f"mini/{name}")
    for item in ls.load_benchmark("sprites")[:2]:
        own = model.answer(item.rgb, item.question)
        assert own.text and not own.truncated
        alike(model.forced(item.rgb, item.question, own.text), own)
        other = model.forced(item.rgb, item.question, "There are three apples.")
        assert other.token_ids[0] == model.tokenizer.encode(" There")[0]


@pytest.mark.parametrize("spaced", [True, False])
def test_a_text_opens_as_the_model_would(adapters, spaced):
    """Not what the text begins with decides, but what the model does."""
    with scripts.saying(adapters("llava"), [*LETTERS, THE], THE if spaced else LETTERS[0]) as model:
        for text in ("été, 红", "  été, 红", "\nété, 红"):
            found = model.forced(PHOTO, QUESTION, text)
            assert found.text == "été, 红" == "".join(found.tokens)
            wanted = tiny.tokenizer().encode(" " * spaced + "été, 红", add_special_tokens=False)
            assert found.token_ids.tolist() == wanted


CASES = [  # tokenizer, end of the prompt, the model's first token, text, tokens
    ("sentencepiece", " ASSISTANT:", "▁The", "The red.", ["▁The", "▁red", "."]),
    ("sentencepiece", " ASSISTANT:", "▁", "ab", ["▁", "a", "b"]),
    ("sentencepiece", " ASSISTANT:", "a", "red", ["red"]),
    ("sentencepiece", "<end>", "▁The", "The red.", ["▁The", "▁red", "."]),
    ("sentencepiece", "<end>\n", "a", "red a", ["red", "▁", "a"]),
    ("sentencepiece, first part only", " ASSISTANT:", "▁The", "The é", ["▁The", "▁", "é"]),
    ("sentencepiece, first part only", "<end>", "▁The", "The", ["▁The"]),
    ("sentencepiece, first part only", "<end>", "a", "red", ["red"]),
    ("sentencepiece, first part only", "<end>\n", "a", "红ü", ["红", "<0xC3>", "<0xBC>"]),
    ("byte level", " ASSISTANT:", "ĠThe", "The red", ["ĠThe", "Ġred"]),
    ("byte level", "<end>\n", "a", "a red", ["a", "Ġred"]),
    ("byte level", " ASSISTANT:", "Ġ", "日 a", ["Ġæ", "Ĺ", "¥", "Ġ", "a"]),
    ("byte level", "<end>\n", "a", "日", ["æĹ¥"]),
]


@pytest.mark.parametrize(("kind", "end", "first", "text", "tokens"), CASES)
def test_a_text_follows_the_prompt(kind, end, first, text, tokens):
    tok = scripts.TOKENIZERS[kind]()
    first = tok.convert_tokens_to_ids(first)
    with scripts.saying(scripts.model(tok, end), [first], first) as model:
        found = model.forced(PHOTO, QUESTION, text)
    assert tok.convert_ids_to_tokens(found.token_ids.tolist()) == tokens
    assert found.text == text and not set(found.token_ids.tolist()) & set(tok.all_special_ids)


def test_a_text_that_would_melt_into_the_prompt_stays_apart():
    """ ":)" is one token, but the colon was there before the answer began."""
    tok = scripts.byte_level((":)",))
    assert tok.tokenize("T:)") == ["T", ":)"]
    first = tok.convert_tokens_to_ids(")")
    with scripts.saying(scripts.model(tok), [first], first) as model:
        assert tok.convert_ids_to_tokens(model.forced(PHOTO, "?", ")").token_ids.tolist()) == [")"]


def test_a_model_that_would_say_nothing_is_asked_for_its_first_word(adapters):
    with scripts.saying(adapters("llava"), [THE, tiny.EOS], tiny.EOS) as model:
        assert model.answer(PHOTO, QUESTION).tokens == ()
        assert model.forced(PHOTO, QUESTION, "the").token_ids.tolist() == [THE]


def test_a_given_text_on_a_reader_that_is_known():
    """The planted reader says "red"; "blue" gains what "red" loses without its evidence."""
    said = ls.explain(planted("object"), SCENE, "?", "occlusion", answer="The shape is blue.")
    assert said.answer.text == "The shape is blue." and said.status == "no_crucial_tokens"
    assert said.reliance.llr[3] < -3
    own = make_target(planted("object"), SCENE, "?", answer="The shape is red.")
    alike(own.answer, planted("object").answer(SCENE, "?"))
    words = ls.explain_tokens(planted("object"), SCENE, "?", "center", answer="red shape")
    assert [ex.reliance.words for ex in words] == [("red",), ("shape",)]


BAD = [
    ("", "answer is empty"),
    (" \n\t\u200b", "answer is empty"),
    (5, "a text or what model.answer gives, not 5"),
    (["The", "red"], "a text or what model.answer gives"),
    (b"red", "a text or what model.answer gives"),
    (0, "a text or what model.answer gives, not 0"),
    ("a\udcff", "no UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_no_text_is_told(adapters, text, message):
    for model in (adapters("llava"), planted("object")):
        for call in (ls.explain, ls.explain_tokens, ls.visual_reliance, make_target):
            refuses(message, call, model, SCENE, "What?", answer=text)


@pytest.mark.parametrize("text", ["red</s>", "<image>", "a <s> b"])
def test_control_tokens_are_refused(adapters, text):
    refuses("answer contains .* control token", adapters("llava").forced, PHOTO, QUESTION, text)


def test_signs_and_words_that_cannot_be_written_are_refused():
    tok = scripts.sentencepiece()
    tok.backend_tokenizer.model.byte_fallback = False
    with pytest.raises(StudyError, match="cannot write all signs of 'red ☂'"):
        scripts.model(tok).forced(PHOTO, QUESTION, "red ☂")
    refuses("no word for 'cat'", planted("object").forced, SCENE, "?", "The cat")


def test_a_text_that_is_too_long(adapters):
    model = adapters("llava")
    bound = model.bind(PHOTO.shape[:2], QUESTION)
    room = 4096 - bound.prompt_ids.shape[1]
    x = torch.zeros(1, 3, *PHOTO.shape[:2])
    assert len(spelled(bound, x, "a" * (room - 1))) in (room - 1, room)
    refuses(f"has room for {room}", spelled, bound, x, "a" * (room + 1))
