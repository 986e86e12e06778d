"""Two pictures in one prompt: inputs and scores of transformers' own call, one map a picture."""

import numpy as np
import planted_network
import pytest
import tiny
import torch
import transformers as T
from PIL import Image
from planted_network import WORD, red_corner
from refusals import refuses
from test_program_use import FEW
from white_box import photo

from lvlm_study.answers import make_target
from lvlm_study.heatmaps import explain
from lvlm_study.heatmaps.igos import image_gradient
from lvlm_study.heatmaps.methods import SEVERAL
from lvlm_study.metrics.faithfulness import deletion_insertion
from lvlm_study.metrics.plausibility import auc
from lvlm_study.models.planted import planted
from lvlm_study.models.several import one_by_one
from lvlm_study.pixels.images import to_tensor

QUESTION, IDS = "Which is red?", torch.tensor([65, 66, 67])
PAIR = photo((50, 40)), photo((30, 71))[::-1].copy()
FAMILIES = ("llava", "llava_pad", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def bounds(model, pictures=PAIR):
    """The Bound of each picture, and the pictures (1, 3, H, W)."""
    found = one_by_one(model, pictures, QUESTION)
    return [(one.bind(rgb.shape[:2], asked), to_tensor(rgb)) for one, rgb, asked in found]


def by_transformers(model, pictures=PAIR) -> dict:
    """Inputs of two pictures as transformers' own processors make them."""
    messages = [{"type": "image"}] * 2 + [{"type": "text", "text": QUESTION}]
    text = tiny.tokenizer().apply_chat_template(
        [{"role": "user", "content": messages}],
        chat_template=model.template,
        tokenize=False,
        add_generation_prompt=True,
    )
    pictures = [Image.fromarray(rgb) for rgb in pictures]
    how = {"images": pictures, "text": text, "return_tensors": "pt", "add_special_tokens": False}
    if model.model.config.model_type == "llava":
        processor = T.LlavaProcessor(model.processor, model.tokenizer, tiny.PATCH, "default")
        processor.num_additional_image_tokens = 1  # the class token
        return processor(**how)
    found = model.processor(pictures, return_tensors="pt")
    cells = (found["image_grid_thw"].prod(1) // model.processor.merge_size**2).tolist()
    for count in cells:  # one by one, under another name: the text comes to hold more of them
        text = text.replace(model.placeholder, "#" * count, 1)
    text = text.replace("#", model.image_token)
    ids = tiny.tokenizer()(text, add_special_tokens=False, return_tensors="pt").input_ids
    return {**found, "input_ids": ids, "mm_token_type_ids": (ids == model.image_token_id).int()}


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_and_logits_are_those_of_transformers_own_call(adapters, family):
    model = adapters(family)
    theirs = by_transformers(model)
    with torch.no_grad():
        wanted = model.model(**theirs).logits[0, -1]
    for bound, x in bounds(model):
        ours = bound.pixels(x) | bound.extras(1, 0)
        assert torch.equal(bound.prompt_ids, theirs["input_ids"])
        assert (ours.pop("pixel_values") - theirs["pixel_values"]).abs().max() < 1e-5
        assert all(torch.equal(value, theirs[key].to(value)) for key, value in ours.items())
        assert (bound.logits(x, IDS[:1])[0, 0] - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_each_bound_is_a_function_of_its_picture(adapters, family):
    """Batches agree, the other picture matters, and each token belongs to one picture."""
    model, others = adapters(family), [1 - to_tensor(rgb) for rgb in PAIR]
    (first, a), (second, b) = bounds(model)
    both = torch.stack([first.image_span, second.image_span]).sum(0)
    assert torch.equal(both == 1, first.prompt_ids[0] == model.image_token_id) and both.max() == 1
    assert first.image_span.nonzero().max() < second.image_span.nonzero().min()
    assert [len(x.token_boxes) for x in (first, second)] == [
        int(x.image_span.sum()) for x in (first, second)
    ]
    changed = [PAIR[0], (others[1][0].permute(1, 2, 0) * 255).round().byte().numpy()]
    for (bound, x), other in zip(((first, a), (second, b)), others, strict=True):
        rows = bound.log_probs(torch.cat([other, x]), IDS)
        assert torch.allclose(rows[1], first.log_probs(a, IDS)[0], atol=1e-5)
        assert (rows[0] - rows[1]).abs().max() > 1e-4
    again = bounds(model, changed)[0][0].log_probs(a, IDS)[0]
    assert torch.allclose(again, rows[0], atol=1e-5)  # the second picture changed, either way


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_in_one_stage_and_in_two(adapters, family, monkeypatch):
    model = adapters(family)
    one, rgb, asked = list(one_by_one(model, PAIR, QUESTION))[1]
    target = make_target(one, rgb, asked, answer="red", tokens="all")
    whole = image_gradient(target, target.image)
    monkeypatch.setattr(model, "two_stage", True)
    parts = image_gradient(target, target.image)
    assert whole.abs().max() > 0
    assert torch.allclose(whole, parts, atol=1e-4 * float(whole.abs().max()))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return planted_network.planted_network("llava", tmp_path_factory.mktemp("llava"))


def red_in(corner: str) -> np.ndarray:
    """A grey picture (56, 56, 3), one quarter red."""
    rgb = np.full((56, 56, 3), 128, np.uint8)
    rgb[red_corner((56, 56), corner).numpy()] = (230, 25, 25)
    return rgb


def only(network, place: int):
    """While it stands, the language model is given nothing of the picture that is not `place`."""

    def blind(projector, args, features):  # (2 B, N, D): the pictures of a prompt take turns
        kept = torch.arange(len(features)) % 2 == place
        return features * kept[:, None, None]

    return network.model.model.multi_modal_projector.register_forward_hook(blind)


CORNERS = ("left upper", "right lower")
SAID = {"answer": chr(WORD + 33) * 2, "baseline": "gray", "exclude": None}
QUICK = {
    "rise": {"masks": 500},
    "occlusion": {"window": 1 / 4, "stride": 1 / 8},
    "shapley": {"regions": 16},
    "eagle": {"regions": 24},
    "eagle_lazy": {"regions": 24},
}


@pytest.mark.parametrize("reads", [0, 1])
@pytest.mark.parametrize("method", SEVERAL)
def test_a_network_that_reads_one_picture_gets_no_map_of_the_other(network, method, reads):
    how = SAID | QUICK.get(method, FEW.get(method, {}))
    hook = only(network, reads)
    try:
        found = explain(network, [red_in(c) for c in CORNERS], QUESTION, method, **how)
    finally:
        hook.remove()
    assert found[1 - reads].status == "no_crucial_tokens" and not found[1 - reads].saliency.any()
    assert not found[1 - reads].reliance.llr.any()
    assert found[reads].status == "ok"
    assert auc(found[reads].saliency, red_corner((56, 56), CORNERS[reads]).numpy()) > 0.95


def test_one_answer_and_a_map_a_picture(network):
    """Either red quarter goes far to say the word: a word rests little on each of two."""
    pair = tuple(red_in(corner) for corner in CORNERS)
    assert {ex.status for ex in explain(network, pair, QUESTION, "sobel", **SAID)} == {
        "no_crucial_tokens"
    }
    found = explain(network, pair, QUESTION, "occlusion", threshold=0.3, **SAID)
    assert found[0].answer is found[1].answer and found[0].question == QUESTION
    assert found[0].model == network.name
    for ex, corner in zip(found, CORNERS, strict=True):
        faith = deletion_insertion(network, ex, steps=8)
        assert faith.insertion > faith.deletion
        assert auc(ex.saliency, red_corner((56, 56), corner).numpy()) > 0.95


def test_what_does_not_take_several_says_so(adapters, network):
    pair = [red_in(c) for c in CORNERS]
    refuses("one picture at a time", explain, adapters("llava_next"), pair, QUESTION)
    refuses("one picture at a time", explain, planted("object"), pair, QUESTION)
    refuses("two or more, or one by itself", explain, network, pair[:1], QUESTION)
    refuses("image must be", explain, network, [pair[0], 7], QUESTION)
    refuses("attention is for one picture", explain, network, pair, QUESTION, "attention")
    ex = explain(network, pair, QUESTION, "center", threshold=0.3, **SAID)[0]
    refuses("explain the pictures with", deletion_insertion, adapters("llava"), ex)
