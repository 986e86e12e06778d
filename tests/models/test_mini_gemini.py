"""The Mini-Gemini port: released names, the high-resolution branch at work, HD order."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lvlm_study.errors import StudyError
from lvlm_study.models.mini_gemini import (
    MGMConfig,
    MGMLlamaForCausalLM,
    map_windows,
    quadrants,
    views,
)

IMAGE = 99
VICUNA_7B = dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
VICUNA_7B |= dict(num_attention_heads=32, num_key_value_heads=32, vocab_size=32000)
VICUNA_13B = dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40)
VICUNA_13B |= dict(num_attention_heads=40, num_key_value_heads=40, vocab_size=32000)


def small(hd=False, **changes) -> MGMConfig:
    grid = 2 if hd else 1
    settings = dict(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.1,
        vision_config=dict(
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=28,
            patch_size=7,
        ),
        vision_config_aux=dict(model_type="convnext_trunk", depths=[1, 1], dims=[8, 16], scale=1.0),
        image_size_aux=64 * grid,
        image_grid=grid,
        image_global=hd,
        image_token_index=IMAGE,
    )
    return MGMConfig(**settings | changes)


def build(hd=False, **changes) -> MGMLlamaForCausalLM:
    torch.manual_seed(0)
    return MGMLlamaForCausalLM(small(hd, **changes)).eval()


def prompt(model, batch=1) -> torch.Tensor:
    image = [IMAGE] * model.config.visual_tokens
    return torch.tensor([[1, 5, *image, 6, 7, 8, 9]]).repeat(batch, 1)


def picture(model, batch=1, seed=1) -> torch.Tensor:
    side = model.config.image_size_aux
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def see(model, image: torch.Tensor) -> torch.Tensor:
    return torch.stack(model.model.get_image_features(image).pooler_output)  # (B, N, D)


# ------------------------------------------------------------------ names of the release


def clip_names() -> dict[str, tuple[int, ...]]:
    """CLIP ViT-L/14-336 as its repository names it, without the `vision_model` nesting."""
    out = {"embeddings.class_embedding": (1024,)}
    out["embeddings.patch_embedding.weight"] = (1024, 3, 14, 14)
    out["embeddings.position_embedding.weight"] = (577, 1024)
    norms = ["pre_layrnorm", "post_layernorm"]
    for i in range(24):
        p = f"encoder.layers.{i}."
        norms += [p + "layer_norm1", p + "layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            out[p + f"self_attn.{name}.weight"] = (1024, 1024)
            out[p + f"self_attn.{name}.bias"] = (1024,)
        out |= {p + "mlp.fc1.weight": (4096, 1024), p + "mlp.fc1.bias": (4096,)}
        out |= {p + "mlp.fc2.weight": (1024, 4096), p + "mlp.fc2.bias": (1024,)}
    return out | {f"{n}.{leaf}": (1024,) for n in norms for leaf in ("weight", "bias")}


def convnext_names() -> dict[str, tuple[int, ...]]:
    """ConvNeXt-L as timm names it."""
    dims, out = (192, 384, 768, 1536), {"stem.0.weight": (192, 3, 4, 4), "stem.0.bias": (192,)}
    out |= {"stem.1.weight": (192,), "stem.1.bias": (192,)}
    for i, depth in enumerate((3, 3, 27, 3)):
        d = dims[i]
        if i:
            p = f"stages.{i}.downsample."
            out |= {p + "0.weight": (dims[i - 1],), p + "0.bias": (dims[i - 1],)}
            out |= {p + "1.weight": (d, dims[i - 1], 2, 2), p + "1.bias": (d,)}
        for j in range(depth):
            p = f"stages.{i}.blocks.{j}."
            out |= {p + "conv_dw.weight": (d, 1, 7, 7), p + "gamma": (d,)}
            out |= {p + n: (d,) for n in ("conv_dw.bias", "norm.weight", "norm.bias")}
            out |= {p + "mlp.fc1.weight": (4 * d, d), p + "mlp.fc1.bias": (4 * d,)}
            out |= {p + "mlp.fc2.weight": (d, 4 * d), p + "mlp.fc2.bias": (d,)}
    return out


@pytest.mark.parametrize("language, hd", [(VICUNA_7B, False), (VICUNA_13B, True)])
def test_names_and_shapes_are_those_of_the_release(language, hd):
    extra = dict(image_size_aux=1536, image_grid=2, image_global=True) if hd else {}
    config = MGMConfig(**language, **extra)
    with torch.device("meta"):
        model = MGMLlamaForCausalLM(config)
    width = config.hidden_size
    want = {f"model.vision_tower.vision_tower.{k}": v for k, v in clip_names().items()}
    want |= {f"model.vision_tower_aux.vision_{k}": v for k, v in convnext_names().items()}
    want |= {"model.mm_projector.0.weight": (width, 1024), "model.mm_projector.0.bias": (width,)}
    want |= {"model.mm_projector.2.weight": (width, width), "model.mm_projector.2.bias": (width,)}
    for name, channels in (("query", 1024), ("aux", 2880), ("val", 2880)):
        p = f"model.vlm_uni_{name}_projector."
        want |= {p + "0.weight": (channels,), p + "0.bias": (channels,)}
        want |= {p + "1.weight": (1024, channels), p + "1.bias": (1024,)}
    have = {k: tuple(p.shape) for k, p in model.state_dict().items()}
    language = [k for k in have if k not in want]
    assert {k: have.get(k) for k in want} == want
    assert len(language) == 9 * config.num_hidden_layers + 3
    known = ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")
    assert all(k.startswith(known) for k in language)
    assert config.visual_tokens == (2880 if hd else 576)


# ------------------------------------------------------------------ geometry by hand


def test_quadrants_are_row_major():
    grid = torch.arange(16.0).view(1, 1, 4, 4)
    assert [q.flatten().tolist() for q in quadrants(grid, 2)] == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_map_windows_lie_under_their_token():
    grid = torch.arange(16.0).view(1, 1, 4, 4)
    want = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert map_windows(grid, 2)[0, :, :, 0].tolist() == want


def test_views_are_bilinear_tiles_then_global():
    image = torch.zeros(1, 3, 64, 64)
    image[..., :32, 32:] = 1  # the top right quadrant
    tiles = views(image, size=16, grid=2, with_global=True)
    assert tiles.shape == (1, 5, 3, 16, 16)
    assert tiles[0, :4].mean((1, 2, 3)).tolist() == [0, 1, 0, 0]
    assert tiles[0, 4].mean() == 0.25 and tiles[0, 4, 0, 7, 7:9].tolist() == [0, 1]
    assert torch.equal(views(image, 64, 1, False)[:, 0], image)


@torch.no_grad()
def test_mining_equals_a_loop_over_tokens():
    model = build().model
    low, high = torch.randn(1, 16, 24), torch.randn(1, 24, 8, 8)
    have = model.mine(low, high)
    for y in range(4):
        for x in range(4):
            token = low[0, 4 * y + x]
            window = high[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].flatten(1).T  # (4, 24)
            keys = model.vlm_uni_aux_projector(window) @ model.vlm_uni_query_projector(token)
            found = (keys / 24**0.5).softmax(0) @ model.vlm_uni_val_projector(window)
            assert torch.allclose(have[0, 4 * y + x], token + found, atol=1e-5)


# ------------------------------------------------------------------ the high-resolution branch


def hidden_from_clip(model) -> torch.Tensor:
    """Pixels that the CLIP views never sample: bool (S, S). Shrinking without antialiasing skips
    most of them, so a change there reaches the answer through the ConvNeXt alone."""
    c = model.config
    x = torch.zeros(1, 3, c.image_size_aux, c.image_size_aux, requires_grad=True)
    size = c.clip_spec()["image_size"]
    views(x, size, c.image_grid, c.image_global).sum().backward()
    return x.grad[0, 0] == 0


@pytest.mark.parametrize("hd", [False, True])
@torch.no_grad()
def test_high_resolution_detail_changes_the_answer(hd):
    """The paper's released code never ran this branch."""
    model = build(hd)
    with torch.enable_grad():
        unseen = hidden_from_clip(model)
    assert unseen.float().mean() > 0.1
    before = picture(model)
    after = torch.where(unseen, -before, before)
    c = model.config
    shrink = (c.clip_spec()["image_size"], c.image_grid, c.image_global)
    assert torch.equal(views(before, *shrink), views(after, *shrink))
    ids = prompt(model)
    a, b = (model(ids, pixel_values=x).logits[0, -4:].log_softmax(-1) for x in (before, after))
    assert (a - b).abs().max() > 1e-2


def test_gradients_reach_every_pixel_and_both_towers():
    model = build(hd=True)
    image = picture(model).requires_grad_()
    model(prompt(model), pixel_values=image).logits.log_softmax(-1)[0, -2, 7].backward()
    assert (image.grad != 0).all()
    for tower in (model.model.vision_tower, model.model.vision_tower_aux):
        assert all(p.grad.abs().sum() > 0 for p in tower.parameters() if p.dim() == 4)


@pytest.mark.parametrize("corner", range(4))
@torch.no_grad()
def test_hd_order_is_global_then_row_major_tiles(corner):
    """Paint one quadrant: the global block and that quadrant's block move, nothing else."""
    model = build(hd=True)
    model.model.vlm_uni_val_projector[1].weight.zero_()  # CLIP alone: ConvNeXt sees over borders
    before = picture(model)
    after = before.clone()
    y, x = divmod(corner, 2)
    after[..., 64 * y : 64 * y + 64, 64 * x : 64 * x + 64] += 1
    change = (see(model, after) - see(model, before)).abs().sum(-1).view(5, 16).sum(1)
    assert [bool(c > 1e-3) for c in change] == [True] + [i == corner for i in range(4)]


@torch.no_grad()
def test_hd_tiles_mine_their_own_quadrant():
    """With CLIP silenced, a painted corner moves most the tokens that lie there, in both blocks."""
    model = build(hd=True)
    before, after = picture(model), picture(model)
    after[..., -16:, -16:] += 3  # bottom right: the last token of tile 3 and of the global view
    low = model.model.vision_tower
    low.forward = lambda x, layer: x.new_zeros(len(x), 16, 24)
    change = (see(model, after) - see(model, before)).norm(dim=-1).view(5, 16)
    assert change[0].argmax() == 15 and change[4].argmax() == 15
    assert change[1].max() == 0  # the opposite quadrant is out of the trunk's reach


# ------------------------------------------------------------------ the language model


@pytest.mark.parametrize("hd", [False, True])
@torch.no_grad()
def test_batch_size_changes_nothing(hd):
    model = build(hd)
    images = picture(model, 2)
    both = model(prompt(model, 2), pixel_values=images).logits
    for b in range(2):
        alone = model(prompt(model), pixel_values=images[b : b + 1]).logits
        assert torch.allclose(both[b], alone[0], atol=1e-5)
    assert (both[0] - both[1])[-1].abs().max() > 1e-3


@pytest.mark.parametrize("hd", [False, True])
@torch.no_grad()
def test_teacher_forcing_equals_generation(hd):
    model = build(hd)
    ids, image = prompt(model), picture(model)
    out = model.generate(
        ids,
        pixel_values=image,
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=None,
        output_scores=True,
        return_dict_in_generate=True,
    )
    logits = model(out.sequences, pixel_values=image).logits[0, ids.shape[1] - 1 : -1]
    scores = torch.stack(out.scores, 1)[0].log_softmax(-1)
    assert torch.allclose(scores, logits.log_softmax(-1), atol=1e-5)
    assert (logits.argmax(-1) == out.sequences[0, ids.shape[1] :]).all()


def test_training_moves_connector_and_language_model():
    model = build().train()
    ids = prompt(model, 2)
    labels = ids.masked_fill(ids == IMAGE, -100)
    model.model.vision_tower.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, pixel_values=picture(model, 2), labels=labels).loss
    loss.backward()
    still = {n for n, p in model.named_parameters() if p.grad is None}
    assert all(n.startswith("model.vision_tower.") for n in still) and still
    for name in ("vlm_uni_query_projector", "vlm_uni_aux_projector", "vlm_uni_val_projector"):
        assert getattr(model.model, name)[1].weight.grad.abs().sum() > 0


@torch.no_grad()
def test_features_may_be_given():
    model = build(hd=True)
    ids, image = prompt(model), picture(model)
    features = model.model.get_image_features(image)
    given = model(ids, mm_encoder_outputs={"image": features}).logits
    assert torch.equal(given, model(ids, pixel_values=image).logits)


# ------------------------------------------------------------------ files


@torch.no_grad()
def test_one_folder_holds_everything(tmp_path):
    model = build(hd=True)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is MGMLlamaForCausalLM and not any(info.values())
    ids, image = prompt(model), picture(model)
    assert torch.equal(again(ids, pixel_values=image).logits, model(ids, pixel_values=image).logits)


@torch.no_grad()
def test_released_clip_names_load(tmp_path):
    """Released files nest CLIP one level deeper, as older transformers did."""
    model = build()
    model.save_pretrained(tmp_path)
    old, new = "vision_tower.vision_tower.", "vision_tower.vision_tower.vision_model."
    state = load_file(tmp_path / "model.safetensors")
    state = {k.replace(old, new): v for k, v in state.items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    ids, image = prompt(model), picture(model)
    assert torch.equal(again(ids, pixel_values=image).logits, model(ids, pixel_values=image).logits)


@torch.no_grad()
def test_towers_may_come_from_their_own_folders(tmp_path):
    model, other = build(), build(initializer_range=0.05)
    inner = model.model
    inner.vision_tower.vision_tower.save_pretrained(tmp_path)
    trunk = {
        "visual.trunk." + k.removeprefix("vision_"): v
        for k, v in inner.vision_tower_aux.state_dict().items()
    }
    save_file(trunk, tmp_path / "open_clip_model.safetensors")
    other.load_towers(str(tmp_path), str(tmp_path))
    image = picture(model)
    assert torch.equal(
        other.model.vision_tower(views(image, 28, 1, False)[:, 0], -2),
        inner.vision_tower(views(image, 28, 1, False)[:, 0], -2),
    )
    maps = other.model.vision_tower_aux(image), inner.vision_tower_aux(image)
    assert all(torch.equal(a, b) for a, b in zip(*maps, strict=True))


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(image_size_aux=72), "multiple of 16"),
        (dict(image_global=True), "image_grid above 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        MGMLlamaForCausalLM(small(**changes))


def test_wrong_picture_or_prompt_is_told():
    model = build()
    with pytest.raises(StudyError, match="squares of 64 pixels"):
        model(prompt(model), pixel_values=torch.zeros(1, 3, 32, 32))
    with pytest.raises(StudyError, match="hold 15 image placeholders"):
        model(prompt(model)[:, 3:], pixel_values=picture(model))
