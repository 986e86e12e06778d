"""The paper's set-up: its prompt, its padding, its length of answers, its rule for tokens."""

import shutil

import numpy as np
import pytest
import test_mini_gemini_adapter as mgm
import tiny
import torch
import transformers as T
from PIL import Image

import lvlm_study as ls
from lvlm_study import answers
from lvlm_study.errors import StudyError
from lvlm_study.models import Answer, load_model, setups
from lvlm_study.pixels.images import to_tensor

QUESTION, SIZE = "What is the red thing?", (40, 90)
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)


def photo(size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "family,prompt",
    [
        ("llava", SYSTEM + "USER: <image>\nWhat is the red thing? ASSISTANT:"),
        (
            "llava_onevision",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<image>\nWhat is the red thing?<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_the_papers_prompt_has_a_system_turn(checkpoints, adapters, family, prompt):
    model = load_model(checkpoints(family), setup="paper")
    assert model.prompt(QUESTION) == prompt and model.setup == "paper"
    bound = model.bind(SIZE, QUESTION)
    before, behind = prompt.split("<image>")
    image = [model.image_token_id] * len(bound.token_boxes)
    ids = model.tokenizer(before).input_ids + image
    ids += model.tokenizer(behind, add_special_tokens=False).input_ids
    assert bound.prompt_ids[0].tolist() == ids
    plain = load_model(checkpoints(family), setup="hub")
    assert plain.prompt(QUESTION) == adapters(family).prompt(QUESTION) and plain.setup is None
    assert torch.equal(
        plain.bind(SIZE, QUESTION).prompt_ids, adapters(family).bind(SIZE, QUESTION).prompt_ids
    )


def test_braces_in_a_question_are_words(checkpoints):
    model = load_model(checkpoints("llava"), setup="paper")
    assert "{image} {0} ASSISTANT" in model.prompt("{image} {0}")


def test_the_papers_llava_sees_all_and_the_hubs_a_square(checkpoints, adapters):
    paper = load_model(checkpoints("llava"), setup="paper").bind((28, 56), QUESTION)
    hub = adapters("llava").bind((28, 56), QUESTION)
    assert paper.seen().all() and hub.seen().float().mean() == 0.5
    x, padded = to_tensor(photo((28, 56))), adapters("llava_pad").bind((28, 56), QUESTION)
    assert torch.equal(paper.pixels(x)["pixel_values"], padded.pixels(x)["pixel_values"])
    assert not adapters("llava").processor.do_pad


@pytest.mark.parametrize("size", [(50, 40), (33, 97), (61, 61), (7, 200)])
def test_do_pad_in_a_file_of_clips_processor_pads(adapters, checkpoints, tmp_path, size):
    """`do_pad: true` beside `CLIPImageProcessor` means LLaVA's padding, and is no dead letter."""
    folder = shutil.copytree(checkpoints("llava"), tmp_path / "padded")
    tiny.edit_json(folder / "preprocessor_config.json", do_pad=True)
    model = load_model(folder)
    assert type(model.processor).__name__ == "CLIPImageProcessorPil"
    theirs = T.LlavaImageProcessorPil(do_pad=True, **tiny.CROP)
    wanted = theirs(images=Image.fromarray(photo(size)), return_tensors="pt")["pixel_values"]
    ours = model.bind(size, QUESTION).pixels(to_tensor(photo(size)))["pixel_values"]
    std = torch.tensor(theirs.image_std).view(3, 1, 1) * 255
    off = (ours - wanted).abs() * std
    assert off.max() < 1.01 and (off > 0.01).float().mean() <= 0.001
    assert model.bind(size, QUESTION).seen().all()


def test_answers_may_be_as_long_as_the_papers(checkpoints, monkeypatch):
    asked = {}
    for setup in (None, "hub", "paper"):
        model = load_model(checkpoints("llava"), setup=setup)
        prompt = model.bind(SIZE, QUESTION).prompt_ids

        def generate(max_new_tokens, setup=setup, prompt=prompt, **inputs):
            asked[setup] = max_new_tokens
            return torch.cat([prompt, torch.full((1, 64), 65)], 1)

        monkeypatch.setattr(model.model, "generate", generate)
        assert model.answer(photo(), QUESTION).truncated == (setup != "paper")  # 64 tokens, no end
    assert asked == {None: 64, "hub": 64, "paper": 1024}


def spoken(*ids):
    words = tuple(f"w{i} " for i in ids)
    return Answer("".join(words), words, torch.tensor(ids), torch.zeros(len(ids)))


@pytest.mark.parametrize(
    "ids,llr,crucial",
    [
        ((5, 278, 70, 80), (9, 9, 1.1, 0.9), (0, 0, 1, 0)),  # first, "the", above 1, below
        ((5, 29973), (0, 9), (0, 1)),  # a question mark has no number there
        ((5,), (0.70,), (1,)),  # a lone token: p(blur) below half, log 2 = 0.693
        ((5,), (0.68,), (0,)),
        ((278,), (0.70,), (1,)),
    ],
)
def test_the_papers_rule_counts_by_token_numbers(ids, llr, crucial):
    found = answers.crucial_by_ids(spoken(*ids), torch.tensor(llr), 1.0, setups.EXCLUDED_IDS)
    assert found.tolist() == [bool(c) for c in crucial]


def test_the_rule_goes_with_the_setup(checkpoints, adapters, monkeypatch):
    hub = adapters("llava")
    red = hub.tokenizer.convert_tokens_to_ids("red")
    monkeypatch.setattr(setups, "EXCLUDED_IDS", frozenset({red}))
    paper = load_model(checkpoints("llava"), setup="paper")
    how = {"answer": hub.forced(photo(), QUESTION, "a red!"), "threshold": -100.0}  # all are above
    assert how["answer"].tokens == ("a", " ", "red", "!")

    def crucial(model, **more):
        return ls.visual_reliance(model, photo(), QUESTION, **how, **more).crucial.int().tolist()

    assert crucial(hub) == [0, 0, 1, 0] and crucial(paper) == [0, 1, 0, 1]
    assert crucial(paper, exclude=frozenset({"a"})) == [0, 0, 1, 0]  # words that are named win


def test_other_models_keep_their_defaults_and_that_is_said(checkpoints):
    with pytest.warns(UserWarning, match="The paper asks no .*it is asked as its own files say"):
        model = load_model(checkpoints("qwen2_5_vl"), setup="paper")
    assert (model.setup, model.max_new_tokens, model.excluded_ids) == (None, 64, None)
    with pytest.raises(StudyError, match="no setup named 'papre'; did you mean paper"):
        load_model(checkpoints("llava"), setup="papre")


def test_mini_gemini_is_asked_as_released():
    model = setups.use(mgm.adapter(), "paper")
    assert model.prompt(QUESTION) == mgm.adapter().prompt(QUESTION) and model.apart
    assert (model.setup, model.max_new_tokens) == ("paper", 1024)
