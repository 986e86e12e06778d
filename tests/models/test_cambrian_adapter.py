"""Cambrian through the public door: pictures in, answers and their probabilities out."""

import numpy as np
import pytest
import torch
from test_cambrian import build, small, small_towers
from tiny_ports import LANGUAGE, SIZE, paint_inside, picture, same_from_folder, squared, tokenizer

from lvlm_study.errors import StudyError
from lvlm_study.models import registry, towers
from lvlm_study.models.cambrian import (
    SYSTEM_8B,
    Cambrian,
    CambrianLlamaForCausalLM,
    CambrianPhi3ForCausalLM,
)

QUESTION = "Is it red?"


def adapter(model_class=CambrianLlamaForCausalLM, **changes) -> Cambrian:
    model = build(model_class, **LANGUAGE | changes).requires_grad_(False)
    return Cambrian("tiny/cambrian", model, tokenizer(), None, tokenizer().chat_template)


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
    for view, spec in zip(have, adapt.model.config.tower_specs(), strict=True):
        pad = spec.get("pad_mean", towers.CLIP_MEAN)
        want = squared(x, spec["image_size"], tuple(int(m * 255) for m in pad))
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
    assert same_from_folder(adapter(model_class), tmp_path)


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
    said = adapt.generate(bound, picture(), 3)
    assert torch.equal(bound.logits(picture(), said).argmax(-1)[0], said)


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


# ------------------------------------------------------------------ several GPUs


@pytest.mark.parametrize("kind", [CambrianLlamaForCausalLM, CambrianPhi3ForCausalLM])
def test_layers_towers_and_samplers_stay_whole_when_spread(kind):
    """accelerate cuts a model anywhere between the modules that are named."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is an optional extra")
    model = adapter(kind).model
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    found = accelerate.infer_auto_device_map(
        model,
        max_memory={n: size // 3 for n in range(4)},
        no_split_module_classes=model._no_split_modules,
    )
    assert set(found.values()) > {0, 1}
    inside = [n for n, m in model.named_modules() if type(m).__name__ in model._no_split_modules]
    assert len(inside) > 4 and {type(model.model.layers[0]).__name__} <= set(
        model._no_split_modules
    )
    assert not [name for name in found for part in inside if name.startswith(part + ".")]


def test_the_second_look_reaches_layers_on_another_device():
    """Content is here, the later layers are on a device that has shapes alone (meta)."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is an optional extra")
    adapt = adapter()
    net, bound = adapt.model, adapt.bind(SIZE, QUESTION)
    names = [f"model.{n}" for n, _ in net.model.named_children()]
    names += ["model.vision_query", "model.image_newline", "lm_head"]
    places = dict.fromkeys(names, "cpu")
    layers, samplers = places.pop("model.layers"), places.pop("model.vision_sampler_layers")
    places |= {f"model.layers.{i}": "meta" if i else layers for i in range(len(net.model.layers))}
    later = net.model.config.aggregating_layers()
    places |= {
        f"model.vision_sampler_layers.{k}": "meta" if at else samplers for k, at in enumerate(later)
    }
    assert later[0] == 0 and len(later) > 1
    places |= {"model.norm": "meta", "lm_head": "meta"}
    accelerate.dispatch_model(net, places, main_device="cpu", force_hooks=True)
    accelerate.hooks.remove_hook_from_module(net)  # it would bring the answer back
    out = bound.run(picture(), torch.tensor([70, 71]))
    assert out.logits.device.type == "meta" and out.logits.shape[:2] == (1, 2)
