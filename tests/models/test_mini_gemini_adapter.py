"""Mini-Gemini through the public door: pictures in, answers and their probabilities out."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_mini_gemini import build
from tiny_ports import IMAGE_ID, VOCABULARY, paint_inside, tokenizer
from transformers import CLIPImageProcessorPil

from lvlm_study.models import load_model, mini_gemini, registry
from lvlm_study.models.mini_gemini import MGMLlamaForCausalLM, MiniGemini
from lvlm_study.models.towers import CLIP_MEAN, CLIP_STD

SIZE = (96, 128)
QUESTION = "Is it red?"
LANGUAGE = dict(vocab_size=VOCABULARY, image_token_index=IMAGE_ID, max_position_embeddings=4096)


def adapter(hd=False, **changes) -> MiniGemini:
    model = build(hd, **LANGUAGE | changes).requires_grad_(False)
    return MiniGemini("tiny/mgm", model, tokenizer(), None, tokenizer().chat_template)


def picture(size=SIZE, seed=0) -> torch.Tensor:
    levels = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(seed))
    return levels / 255


def local() -> dict:
    """Towers in which no patch sees another: CLIP's embeddings and ConvNeXt's stem."""
    clip = dict(hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    clip |= dict(image_size=28, patch_size=7)
    trunk = dict(model_type="convnext_trunk", depths=[0], dims=[8])
    return dict(vision_config=clip, vision_config_aux=trunk, mm_vision_select_layer=0)


@pytest.mark.parametrize("hd", [False, True])
@torch.no_grad()
def test_painting_a_box_moves_exactly_the_tokens_that_hold_it(hd):
    adapt = adapter(hd, **local())
    size = (224, 256) if hd else SIZE  # the image's edges lie inside cells
    bound, x = adapt.bind(size, QUESTION), picture(size)
    boxes, before = bound.token_boxes, adapt.encode(bound, x)[0]
    assert len(boxes) == (5 * 16 if hd else 16)
    for token in range(16, 80, 7) if hd else range(16):  # HD: tokens of the four tiles
        x0, y0, x1, y1 = boxes[token].tolist()
        painted = paint_inside(x, boxes[token], margin=10)
        moved = (adapt.encode(bound, painted)[0] - before).abs().amax(1) > 1e-4
        inside = (boxes[:, 0] <= x0) & (boxes[:, 1] <= y0) & (boxes[:, 2] >= x1)
        inside &= boxes[:, 3] >= y1
        assert moved.nonzero()[:, 0].tolist() == inside.nonzero()[:, 0].tolist()
        assert inside.sum() == (2 if hd else 1)  # in HD the global view holds it too


def test_boxes_by_hand():
    boxes = adapter(hd=True).bind((128, 128), QUESTION).token_boxes
    assert boxes[0].tolist() == [0, 0, 32, 32] and boxes[15].tolist() == [96, 96, 128, 128]
    assert boxes[16].tolist() == [0, 0, 16, 16]  # first of the top left tile
    assert boxes[32].tolist() == [64, 0, 80, 16]  # first of the top right tile
    assert boxes[48].tolist() == [0, 64, 16, 80] and boxes[79].tolist() == [112, 112, 128, 128]
    wide = adapter().bind((64, 128), QUESTION).token_boxes  # 32 rows of padding above and below
    assert wide[0].tolist() == [0, 0, 32, 0] and wide[4].tolist() == [0, 0, 32, 32]


@pytest.mark.parametrize("size", [(96, 128), (211, 97)])
@torch.no_grad()
def test_view_equals_pillow(size):
    adapt, x = adapter(), picture(size)
    have = adapt.bind(size, QUESTION).pixels(x)["pixel_values"][0].permute(1, 2, 0).numpy()
    side, (h, w) = max(size), size
    square = Image.new("RGB", (side, side), (122, 116, 104))
    image = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    square.paste(image, ((side - w) // 2, (side - h) // 2))
    want = np.asarray(square.resize((64, 64), Image.Resampling.BICUBIC))
    wrong = np.abs((have * CLIP_STD + CLIP_MEAN) * 255 - want)
    assert wrong.max() < 1.01 and (wrong > 0.5).mean() <= 1e-3


@pytest.mark.parametrize("hd", [False, True])
def test_answer_scores_equal_generation_and_batches_agree(hd):
    adapt = adapter(hd)
    answer = adapt.answer((picture()[0].permute(1, 2, 0) * 255).byte().numpy(), QUESTION, 6)
    bound = adapt.bind(SIZE, QUESTION)
    assert len(answer.token_ids) == 6 and bound.image_span.sum() == (80 if hd else 16)
    both = torch.cat([picture(), picture(seed=1)])
    together = bound.log_probs(both, answer.token_ids)
    assert torch.allclose(together[0], answer.log_probs, atol=1e-5)
    assert torch.allclose(together[1:], bound.log_probs(both[1:], answer.token_ids), atol=1e-5)
    assert (bound.logits(picture(), answer.token_ids).argmax(-1)[0] == answer.token_ids).all()
    features = adapt.encode(bound, both)
    assert torch.allclose(bound.log_probs_from(features, answer.token_ids), together, atol=1e-6)


def test_gradient_reaches_every_pixel():
    adapt = adapter(hd=True)
    bound, x = adapt.bind(SIZE, QUESTION), picture().requires_grad_()
    bound.log_probs(x, torch.tensor([70, 71])).sum().backward()
    assert (x.grad != 0).any(1).float().mean() > 0.98 and bound.seen().all()


def test_a_folder_loads_by_the_registry(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "mgm", MiniGemini)
    adapt = adapter(hd=True)
    for part in (adapt.model, adapt.tokenizer, CLIPImageProcessorPil()):
        part.save_pretrained(tmp_path)
    again = load_model(tmp_path, device="cpu")
    ids = torch.tensor([70, 71, 72])
    want, have = (a.bind(SIZE, QUESTION).log_probs(picture(), ids) for a in (adapt, again))
    assert torch.equal(want, have) and not any(p.requires_grad for p in again.model.parameters())


# ------------------------------------------------------------------ released checkpoints


@pytest.mark.parametrize("in_file", [True, False])
@torch.no_grad()
def test_a_release_takes_its_own_towers_first(tmp_path, monkeypatch, in_file):
    """Towers in the checkpoint are used; without them, both come from their own folders."""
    tok = tokenizer(image=False)
    model = build(**LANGUAGE | dict(image_token_index=-200, vocab_size=len(tok)))
    config = model.config
    spec = {**config.vision_config, "model_type": "clip_vision_model"}
    monkeypatch.setitem(mini_gemini.RELEASED, mini_gemini.CLIP_SOURCE, ("nowhere", spec))
    monkeypatch.setattr(mini_gemini, "CONVNEXT_LARGE", config.vision_config_aux)
    towers = tmp_path / "towers"
    model.model.vision_tower.vision_tower.save_pretrained(towers)
    trunk = model.model.vision_tower_aux.state_dict().items()
    trunk = {"visual.trunk." + k.removeprefix("vision_"): v for k, v in trunk}
    save_file(trunk, towers / "open_clip_model.safetensors")
    load = MGMLlamaForCausalLM.load_towers
    monkeypatch.setattr(
        MGMLlamaForCausalLM, "load_towers", lambda self: load(self, str(towers), str(towers))
    )
    folder = tmp_path / "release"
    model.config.vision_config = model.config.vision_config_aux = None
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    if not in_file:
        file = folder / "model.safetensors"
        kept = {k: v for k, v in load_file(file).items() if "vision_tower" not in k}
        save_file(kept, file, metadata={"format": "pt"})
    monkeypatch.setitem(registry.FAMILIES, "mgm", MiniGemini)
    adapt = load_model(folder, device="cpu")
    bound = adapt.bind(SIZE, QUESTION)
    text = adapt.tokenizer.decode(bound.prompt_ids[0][~bound.image_span])
    assert text.startswith("A chat between") and text.endswith("USER: \nIs it red? ASSISTANT:")
    images = bound.pixels(picture())["pixel_values"]
    want = model.model.get_image_features(images).pooler_output[0]
    assert torch.equal(adapt.encode(bound, picture())[0], want)
