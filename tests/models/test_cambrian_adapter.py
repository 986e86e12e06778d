"""Cambrian through the public door: pictures in, answers and their probabilities out."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_cambrian import build, small, small_towers
from tiny_ports import IMAGE_ID, VOCABULARY, paint_inside, tokenizer
from transformers import CLIPImageProcessorPil

from lvlm_study.errors import StudyError
from lvlm_study.models import load_model, registry, towers
from lvlm_study.models.cambrian import (
    SYSTEM_8B,
    Cambrian,
    CambrianLlamaForCausalLM,
    CambrianPhi3ForCausalLM,
)

SIZE = (96, 128)  # 3 x 4 cells of 32 pixels stay
QUESTION = "Is it red?"
LANGUAGE = dict(vocab_size=VOCABULARY, image_token_index=IMAGE_ID, max_position_embeddings=4096)


def adapter(model_class=CambrianLlamaForCausalLM, **changes) -> Cambrian:
    model = build(model_class, **LANGUAGE | changes).requires_grad_(False)
    return Cambrian("tiny/cambrian", model, tokenizer(), None, tokenizer().chat_template)


def picture(size=SIZE, seed=0) -> torch.Tensor:
    levels = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(seed))
    return levels / 255


def local_towers() -> list[dict]:
    """Four encoders in which no patch sees another."""
    vit = dict(hidden_size=24, num_attention_heads=4, patch_size=7, image_size=28)
    vit |= dict(intermediate_size=48)
    return [
        dict(vit, model_type="siglip_vision_model", num_hidden_layers=0, vision_use_head=False),
        dict(vit, model_type="clip_vision_model", num_hidden_layers=1),
        dict(vit, model_type="dinov2", num_hidden_layers=0),
        dict(model_type="convnext_trunk", image_size=64, depths=[0], dims=[8]),
    ]


@pytest.mark.parametrize("size", [(96, 128), (128, 96), (100, 100)])
@torch.no_grad()
def test_painting_inside_a_box_moves_exactly_that_token(size):
    adapt = adapter(vision_configs=local_towers(), mm_vision_select_layer=0)
    core = adapt.model.model
    for layer in core.vision_sampler_0.layers:
        layer.proj_context.weight.zero_()  # the context is the mean over the image
    bound, x = adapt.bind(size, QUESTION), picture(size)
    dim = core.config.hidden_size + core.config.vision_hidden_size
    before = adapt.encode(bound, x)[0]
    for token, box in enumerate(bound.token_boxes):
        if box.isnan().any():
            assert (before[token] == before[bound.token_boxes[:, 0].isnan()]).all()
            continue
        painted = paint_inside(x, box, margin=9)  # the reach of bicubic shrinking
        change = (adapt.encode(bound, painted)[0] - before).abs()
        change[:, core.config.hidden_size : dim] = 0  # the context row again
        assert change.amax(1).gt(1e-4).nonzero()[:, 0].tolist() == [token]


def test_boxes_by_hand():
    boxes = adapter().bind((96, 128), QUESTION).token_boxes
    assert boxes.shape == (4 * 5, 4)  # 3 rows of 4 are an odd number: one more is kept
    assert boxes[0].tolist() == [0, 0, 32, 16] and boxes[5].tolist() == [0, 16, 32, 48]
    assert boxes[18].tolist() == [96, 80, 128, 96] and boxes[4::5].isnan().all()
    assert not boxes[:4].isnan().any()


@pytest.mark.parametrize("size", [(96, 128), (211, 97)])
@torch.no_grad()
def test_views_equal_pillow(size):
    adapt = adapter(vision_configs=_different(small_towers()))
    x = picture(size)
    have = adapt.bind(size, QUESTION).pixels(x)["pixel_values"]
    image = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    for view, spec in zip(have, adapt.model.config.tower_specs(), strict=True):
        pad = spec.get("pad_mean", towers.CLIP_MEAN)
        side, (h, w) = max(size), size
        square = Image.new("RGB", (side, side), tuple(int(m * 255) for m in pad))
        square.paste(image, ((side - w) // 2, (side - h) // 2))
        want = np.asarray(square.resize((spec["image_size"],) * 2, Image.Resampling.BICUBIC))
        mean, std = (spec.get(k, getattr(towers, d)) for k, d in STATISTICS)
        levels = (view[0].permute(1, 2, 0).numpy() * std + mean) * 255
        wrong = np.abs(levels - want)
        assert wrong.max() < 1.01 and (wrong > 0.5).mean() <= 1e-3


STATISTICS = (("image_mean", "CLIP_MEAN"), ("image_std", "CLIP_STD"))


def _different(specs: list[dict]) -> list[dict]:
    half = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    net = dict(image_mean=towers.IMAGENET_MEAN, image_std=towers.IMAGENET_STD)
    net |= dict(pad_mean=towers.IMAGENET_MEAN)
    return [specs[0] | half, specs[1], specs[2] | net, specs[3]]


def test_answer_scores_equal_generation_and_batches_agree():
    adapt = adapter(image_position=7)  # <s>, then the six bytes of "USER: "
    answer = adapt.answer((picture()[0].permute(1, 2, 0) * 255).byte().numpy(), QUESTION, 6)
    bound = adapt.bind(SIZE, QUESTION)
    assert len(answer.token_ids) == 6 and bound.image_span.sum() == 20
    both = torch.cat([picture(), picture(seed=1)])
    together = bound.log_probs(both, answer.token_ids)
    assert torch.allclose(together[0], answer.log_probs, atol=1e-5)
    assert torch.allclose(together[1:], bound.log_probs(both[1:], answer.token_ids), atol=1e-5)
    assert (bound.logits(picture(), answer.token_ids).argmax(-1)[0] == answer.token_ids).all()
    features = adapt.encode(bound, both)
    assert torch.allclose(bound.log_probs_from(features, answer.token_ids), together, atol=1e-6)


def test_gradient_reaches_every_pixel():
    adapt = adapter()
    bound, x = adapt.bind(SIZE, QUESTION), picture().requires_grad_()
    bound.log_probs(x, torch.tensor([70, 71])).sum().backward()
    assert (x.grad != 0).any(1).float().mean() > 0.98 and bound.seen().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_close(dtype):
    adapt, ids = adapter(), torch.tensor([70, 71])
    want = adapt.bind(SIZE, QUESTION).log_probs(picture(), ids)
    adapt.model.to(dtype)
    bound = adapt.bind(SIZE, QUESTION)
    have = bound.log_probs(picture(), ids)
    assert have.dtype == torch.float32 and torch.allclose(have, want, atol=0.05)
    assert torch.equal(bound.log_probs_from(adapt.encode(bound, picture()), ids), have)


def test_another_template_is_refused():
    with pytest.raises(StudyError, match="begins at token 7 of the prompt .* trained with it at 9"):
        adapter(image_position=9).bind(SIZE, QUESTION)


@pytest.mark.parametrize("model_class", [CambrianLlamaForCausalLM, CambrianPhi3ForCausalLM])
def test_a_folder_loads_by_the_registry(tmp_path, monkeypatch, model_class):
    monkeypatch.setitem(registry.FAMILIES, model_class.config_class.model_type, Cambrian)
    adapt = adapter(model_class)
    for part in (adapt.model, adapt.tokenizer, CLIPImageProcessorPil()):
        part.save_pretrained(tmp_path)
    again = load_model(tmp_path, device="cpu")
    ids = torch.tensor([70, 71, 72])
    want, have = (a.bind(SIZE, QUESTION).log_probs(picture(), ids) for a in (adapt, again))
    assert torch.equal(want, have) and not any(p.requires_grad for p in again.model.parameters())


# ------------------------------------------------------------------ released checkpoints


def released(tok, **changes) -> Cambrian:
    """As from the hub: no image token, no towers in the file, no template of ours."""
    torch.manual_seed(0)
    changes |= dict(vision_configs=None, image_token_index=-200, vocab_size=len(tok))
    config = small(**LANGUAGE | changes)
    config.mm_vision_tower_aux_list = list(towers.RELEASED)
    model = CambrianLlamaForCausalLM(config).eval()
    model.model.vision_towers = build(**LANGUAGE).model.vision_towers
    return Cambrian("tiny/released", model, tok, None, "{{ a template of the base model }}")


@pytest.fixture
def small_release(monkeypatch):
    table = {f"tower-{i}": ("nowhere", spec) for i, spec in enumerate(small_towers())}
    monkeypatch.setattr(towers, "RELEASED", table)


VICUNA_HEAD = len(
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: "
)


def test_13b_gets_the_vicuna_prompt(small_release):
    adapt = released(tokenizer(image=False), image_position=VICUNA_HEAD)
    bound = adapt.bind(SIZE, QUESTION)
    text = adapt.tokenizer.decode(bound.prompt_ids[0][~bound.image_span])
    assert text.startswith("A chat between") and text.endswith("USER: \nIs it red? ASSISTANT:")
    assert int(bound.prompt_ids.max()) == adapt.vocabulary  # the added token is never embedded
    assert bound.log_probs(picture(), torch.tensor([70])).isfinite().all()
    assert len(adapt.generate(bound, picture(), 3)) <= 3


@pytest.mark.parametrize("doubled", [False, True])
def test_8b_gets_its_own_prompt_with_one_or_two_start_tokens(small_release, doubled):
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tok = tokenizer(image=False, specials=tuple(names))
    tok.bos_token = "<|begin_of_text|>"
    at = 1 + 3 + len("system") - 1 + len(SYSTEM_8B) + 1 + 2 + len("user") + doubled
    adapt = released(tok, image_position=at)
    bound = adapt.bind(SIZE, QUESTION)
    start = [tok.bos_token_id] * (1 + doubled)
    assert bound.prompt_ids[0, : 1 + doubled].tolist() == start
    assert bound.prompt_ids[0, 1 + doubled] == tok.convert_tokens_to_ids("<|start_header_id|>")
    assert int(bound.image_span.int().argmax()) == at


@pytest.mark.parametrize("port", ["cambrian", "cambrian_phi3", "mini_gemini", "mini_gemini_hd"])
def test_asking_for_attention_changes_no_score(port):
    """transformers installs its recording hooks twice where a tower was called before the model."""
    from white_box import PORTS, target_of

    target = target_of(PORTS[port]())
    with torch.no_grad():
        before = target.score(target.image)
        target.bound.run(target.image, target.answer.token_ids, output_attentions=True)
        assert torch.equal(target.score(target.image), before)
