"""Real vocabularies: prompts token by token, crucial tokens, bytes, signs of other scripts.

Skipped where nobody has fetched them (`make vocabularies`).
"""

import unicodedata

import pytest
import test_cambrian_adapter as cambrian
import test_mini_gemini_adapter as mgm
import tiny
import torch
from test_cambrian_adapter import small_release  # noqa: F401 - a fixture
from vocabularies import NAMES, shared, vocabulary

from lvlm_study.answers import crucial_tokens
from lvlm_study.models import Answer, setups
from lvlm_study.models.base import located
from lvlm_study.models.registry import FAMILIES
from lvlm_study.models.splice import VICUNA

pytestmark = pytest.mark.slow  # Gemma's file alone has 33 MB
QUESTION, SIZE = "Is it red?", (28, 28)
CHATML = (  # Qwen2.5-VL's template with its usual system turn; InternVL3's has none
    "{{ system }}<|im_start|>user\n{% for part in messages[0]['content'] %}"
    "{% if part['type'] == 'image' %}{{ image }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{{ '<|im_start|>assistant\n' }}"
)
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ONEVISION = (  # llava-hf's
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA = "USER: <image>\n{{ messages[0]['content'][1]['text'] }} ASSISTANT:"  # llava-hf's


def chatml(system: str, image: str) -> str:
    return CHATML.replace("{{ system }}", system).replace("{{ image }}", image)


def adapter(family, tokenizer, image, template):
    """A tiny model of a family behind a real tokenizer."""
    tokenizer.add_tokens([image, "<img>", "</img>"], special_tokens=True)
    model, processor = tiny.FAMILIES[family]()
    model.config.image_token_id = tokenizer.convert_tokens_to_ids(image)
    if family == "gemma3":
        names = ["<start_of_image>", "<end_of_image>"]
        begin, end = tokenizer.convert_tokens_to_ids(names)
        model.config.boi_token_index, model.config.eoi_token_index = begin, end
    return FAMILIES[family](family, model.eval(), tokenizer, processor, template)


CASES = {  # name: (family, vocabulary, image token, template, set-up, head, tail)
    "LLaVA-1.5, hub": (
        *("llava", "llama2", "<image>", LLAVA, None),
        ["<s>", "▁US", "ER", ":", "▁"],
        ["▁", "<0x0A>", "Is", "▁it", "▁red", "?", "▁A", "SS", "IST", "ANT", ":"],
    ),
    "OneVision, hub": (
        *("llava_onevision", "qwen3", "<image>", ONEVISION, None),
        ["<|im_start|>", "user", "Ġ"],
        ["Ċ", "Is", "Ġit", "Ġred", "?", "<|im_end|>", "<|im_start|>", "assistant", "Ċ"],
    ),
    "OneVision, paper": (
        *("llava_onevision", "qwen3", "<image>", ONEVISION, "paper"),
        ["<|im_start|>", "system", "Ċ", "You", "Ġare", "Ġa", "Ġhelpful", "Ġassistant", "."]
        + ["<|im_end|>", "Ċ", "<|im_start|>", "user", "Ċ"],
        ["Ċ", "Is", "Ġit", "Ġred", "?", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"],
    ),
    "Qwen2.5-VL": (
        *("qwen2_5_vl", "qwen3", "<|image_pad|>"),
        *(chatml(SYSTEM, "<|vision_start|><|image_pad|><|vision_end|>"), None),
        ["<|im_start|>", "system", "Ċ", "You", "Ġare", "Ġa", "Ġhelpful", "Ġassistant", "."]
        + ["<|im_end|>", "Ċ", "<|im_start|>", "user", "Ċ", "<|vision_start|>"],
        ["<|vision_end|>", "Is", "Ġit", "Ġred", "?", "<|im_end|>", "Ċ", "<|im_start|>"]
        + ["assistant", "Ċ"],
    ),
    "InternVL3": (
        *("internvl", "qwen3", "<IMG_CONTEXT>", chatml("", "<IMG_CONTEXT>\n"), None),
        ["<|im_start|>", "user", "Ċ", "<img>"],
        ["</img>", "Ċ", "Is", "Ġit", "Ġred", "?", "<|im_end|>", "Ċ", "<|im_start|>"]
        + ["assistant", "Ċ"],
    ),
    "Gemma 3": (
        *("gemma3", "gemma3", "<image_soft_token>", "its own", None),
        ["<bos>", "<start_of_turn>", "user", "\n\n\n", "<start_of_image>"],
        ["<end_of_image>", "\n\n", "Is", "▁it", "▁red", "?", "<end_of_turn>", "\n"]
        + ["<start_of_turn>", "model", "\n"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_token_by_token(case):
    family, name, image, template, setup, head, tail = CASES[case]
    tokenizer = vocabulary(name)
    template = tokenizer.chat_template if template == "its own" else template
    bound = setups.use(adapter(family, tokenizer, image, template), setup).bind(SIZE, QUESTION)
    names, at = tokenizer.convert_ids_to_tokens(bound.prompt_ids[0]), bound.image_span.nonzero()
    assert names[: at[0]] == head and names[at[-1] + 1 :] == tail
    assert set(names[at[0] : at[-1] + 1]) == {image}


def begins(model) -> int:
    """How many tokens stand before the image."""
    return int(model.bind((96, 128), QUESTION).image_span.int().argmax())


def test_vicunas_head_has_35_tokens(small_release):  # noqa: F811
    """As `image_position` of Cambrian-13b says; LLaVA-1.5 and Mini-Gemini read the same head."""
    ids = [1, 319, 13563, 1546, 263, 12758, 1404, 322, 385, 23116, 21082, 20255, 29889, 450]
    ids += [20255, 4076, 8444, 29892, 13173, 29892, 322, 1248, 568, 6089, 304, 278, 1404]
    ids += [29915, 29879, 5155, 29889, 3148, 1001, 29901, 29871]
    assert len(ids) == 35
    models = [cambrian.released(vocabulary("llama2"), image_position=35)]
    llava = adapter("llava", vocabulary("llama2"), "<image>", LLAVA)
    models += [setups.use(llava, "paper"), setups.use(mgm.adapter(), "paper")]
    models[2].tokenizer, models[2].template, models[2].fallback = vocabulary("llama2"), None, VICUNA
    models[2].image_token_id = models[2].tokenizer.convert_tokens_to_ids("<image>")
    for model in models:
        bound = model.bind(SIZE, QUESTION)
        prompt, at = bound.prompt_ids[0].tolist(), bound.image_span.nonzero()[:, 0].tolist()
        assert prompt[:35] == ids and at[0] == 35
        tail = [29871, 13, 3624, 372, 2654, 29973, 319, 1799, 9047, 13566, 29901]
        assert prompt[at[-1] + 1 :] == tail


def test_llama_3s_head_has_91_tokens(small_release):  # noqa: F811
    model = cambrian.released(vocabulary("llama3"), image_position=91)
    bound = model.bind(SIZE, QUESTION)
    names = model.tokenizer.convert_ids_to_tokens(bound.prompt_ids[0])
    assert begins(model) == 91
    assert names[:3] == ["<|begin_of_text|>", "<|start_header_id|>", "system"]
    assert names[87:91] == ["<|eot_id|>", "<|start_header_id|>", "user", "<|end_header_id|>"]
    behind = ["Ċ", "Is", "Ġit", "Ġred", "?", "<|eot_id|>"]
    behind += ["<|start_header_id|>", "assistant", "<|end_header_id|>"]
    assert names[-9:] == behind


def test_the_papers_numbers_are_these_pieces_of_llamas():
    names = vocabulary("llama2").convert_ids_to_tokens(sorted(setups.EXCLUDED_IDS))
    words = {"▁the", "▁and", "▁of", "▁a", "▁an", "▁this", "▁that", "▁is", "▁with"}
    marks = {"<0x09>", "<0x0A>", "▁", ".", ",", "▁,", "▁.", "-", ")", "("}
    assert set(names) == words | marks
    other = vocabulary("qwen3").convert_ids_to_tokens(sorted(setups.EXCLUDED_IDS))
    assert other[:2] == ["-", "."] and not set(other[2:]) & {",", "Ġthe", "Ġof", "Ġa", "Ġis"}


# --- answers -----------------------------------------------------------------------------------


def said(tokenizer, text: str) -> Answer:
    """A text as an answer, in a tokenizer's own pieces."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    whole, tokens, spans = located(tokenizer, ids)
    return Answer(whole, tokens, torch.tensor(ids), torch.zeros(len(ids)), spans=spans)


@pytest.mark.parametrize("name", NAMES)
def test_crucial_tokens_are_known_by_their_text(name):
    """The same words in every vocabulary, whatever their numbers and however they are written."""
    tokenizer = shared(name)
    answer = said(tokenizer, "The cat is on THE mat, and a dog (brown) with this.")
    hot = crucial_tokens(
        answer, torch.full((len(answer.tokens),), 2.0), special_ids=tokenizer.all_special_ids
    )
    kept = "".join(t for t, h in zip(answer.tokens, hot.tolist(), strict=True) if h)
    assert kept.split() == ["cat", "on", "mat", "dog", "brown"] or kept == " cat on mat dogbrown"


SENTENCES = {
    "words": "The red car, the blue one.",
    "scripts": "日本語 und 红色 и красный",
    "emoji": "A 🙂🏽 and 👩‍🚀!",
    "rare": "𝔊 ꙮ ᚠ",
    "spaces": "a\n\n  b   c",
    "accents": "É ü ß e\u0301",
}


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("name", NAMES)
def test_pieces_make_the_text_again(name, text):
    """Also from bytes: no sign is lost, none is said twice, every token knows its place."""
    tokenizer, text = shared(name), SENTENCES[text]
    text = unicodedata.normalize("NFC", text) if name == "qwen3" else text  # as it does itself
    ids = tokenizer(text, add_special_tokens=False).input_ids
    whole, tokens, _ = located(tokenizer, ids)
    assert whole == text and "".join(tokens) == text and len(tokens) == len(ids)
    assert "\ufffd" not in whole
    covered = {i for a, b in said(tokenizer, text).spans for i in range(a, b)}
    assert covered == set(range(len(text)))


def test_llamas_bytes_belong_to_their_sign():
    """🙂 is four bytes there: each of them stands for the whole sign, the last one is its text."""
    answer = said(shared("llama2"), "A 🙂.")
    at = answer.text.index("🙂")
    byte_spans = [s for s in answer.spans if s == (at, at + 1)]
    assert len(byte_spans) == 4 and answer.tokens[-2] == "🙂" and answer.tokens[-3] == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_leading_space_is_no_part_of_an_answer(name):
    tokenizer = shared(name)
    for opening in ("", " "):
        assert said(tokenizer, opening + "red").text == "red"
