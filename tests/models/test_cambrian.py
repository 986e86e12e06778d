"""The Cambrian port: released names, windows by hand, an independent oracle, no state."""

import pytest
import torch
from refusals import refuses
from safetensors.torch import save_file
from tiny_ports import SMALL
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lvlm_study.errors import StudyError
from lvlm_study.models import towers
from lvlm_study.models.cambrian import (
    CambrianLlamaConfig,
    CambrianLlamaForCausalLM,
    CambrianPhi3ForCausalLM,
)
from lvlm_study.models.sva import token_cells, unpadded, window_mask, windows
from lvlm_study.models.towers import Tower

IMAGE = 99  # placeholder id of the small models
SIDES = (28, 28, 35, 64)  # input sides of the small towers
RELEASED_TOWERS = [
    "siglip/CLIP-ViT-SO400M-14-384",
    "openai/clip-vit-large-patch14-336",
    "facebook/dinov2-giant-res378",
    "clip-convnext-XXL-multi-stage",
]


def small_towers() -> list[dict]:
    vit = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 7}
    clip = {**vit, "intermediate_size": 48, "image_size": 28}
    return [
        {**clip, "model_type": "siglip_vision_model", "vision_use_head": False},
        {**clip, "model_type": "clip_vision_model"},
        {**vit, "model_type": "dinov2", "mlp_ratio": 2, "image_size": 35},
        {"model_type": "convnext_trunk", "image_size": 64, "depths": [1, 1], "dims": [8, 16]}
        | {"scale": 1.0},
    ]


def small(config_class=CambrianLlamaConfig, **changes):
    settings = SMALL | dict(num_hidden_layers=4, vision_configs=small_towers())
    settings |= dict(image_token_len=16, query_num_list=[16], vision_hidden_size=32)
    settings |= dict(mm_vision_tower_aux_token_len_list=[16, 16, 16, 256], connector_heads=4)
    settings |= dict(num_of_vision_sampler_layers=2, start_of_vision_sampler_layers=0)
    settings |= dict(stride_of_vision_sampler_layers=2, image_token_index=IMAGE)
    return config_class(**settings | changes)


def build(model_class=CambrianLlamaForCausalLM, **changes):
    torch.manual_seed(0)
    return model_class(small(model_class.config_class, **changes)).eval()


def prompt(size, batch=1) -> torch.Tensor:
    image = [IMAGE] * len(token_cells(size, 4))
    return torch.tensor([[1, 5, *image, 6, 7, 8, 9]]).repeat(batch, 1)


def pixels(batch=1, seed=1, grad=False) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, s, s, generator=g).requires_grad_(grad) for s in SIDES]


# ------------------------------------------------------------------ names of the release
def sampler_names(prefix: str, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Written out from the specification, for d = 1024 and windows of 1, 1, 1, 4x4."""
    out = {}
    for n in range(layers):
        p = f"{prefix}.layers.{n}."
        out[p + "proj_context.weight"] = (1024, 1024)
        out[p + "proj_in.weight"] = (1024, width + 1024)
        out[p + "proj_out.linear_1.weight"] = (1024, 1024)
        out[p + "proj_out.linear_2.weight"] = (width, 1024)
        out[p + "norm.weight"] = out[p + "norm.bias"] = (1024,)
        out[p + "pos_embed_3"] = (16, 1024)
        projections = ["q_proj"] + [f"{kv}_proj_{i}" for kv in "kv" for i in range(4)]
        for name in projections:
            out[p + f"cross_attn.{name}.0.weight"] = (1024,)
            out[p + f"cross_attn.{name}.0.bias"] = (1024,)
            out[p + f"cross_attn.{name}.1.weight"] = (1024, 1024)
        out[p + "cross_attn.o_proj.weight"] = (1024, 1024)
    return out


def released_names(width: int) -> dict[str, tuple[int, ...]]:
    out = {"model.vision_query": (1, 1024), "model.image_newline": (width,)}
    out |= {"model.mm_projector.0.weight": (width, 1024), "model.mm_projector.0.bias": (width,)}
    out |= {"model.mm_projector.2.weight": (width, width), "model.mm_projector.2.bias": (width,)}
    for i, channels in enumerate((1152, 1024, 1536, 5760)):
        p = f"model.mm_projector_aux_{i}."
        out |= {p + "0.weight": (1024, channels), p + "2.weight": (1024, 1024)}
        out |= {p + name: (1024,) for name in ("0.bias", "2.bias", "3.weight", "3.bias")}
    out |= sampler_names("model.vision_sampler_0", 1024, layers=3)
    for k in range(10):
        out |= sampler_names(f"model.vision_sampler_layers.{k}", width, layers=1)
    return out


def llama_names(c) -> dict[str, tuple[int, ...]]:
    kv = c.hidden_size // c.num_attention_heads * c.num_key_value_heads
    out = {"model.embed_tokens.weight": (c.vocab_size, c.hidden_size)}
    out |= {"lm_head.weight": (c.vocab_size, c.hidden_size), "model.norm.weight": (c.hidden_size,)}
    for i in range(c.num_hidden_layers):
        p = f"model.layers.{i}."
        out |= {p + f"self_attn.{n}_proj.weight": (c.hidden_size, c.hidden_size) for n in "qo"}
        out |= {p + f"self_attn.{n}_proj.weight": (kv, c.hidden_size) for n in "kv"}
        out |= {
            p + f"mlp.{n}_proj.weight": (c.intermediate_size, c.hidden_size) for n in ("gate", "up")
        }
        out[p + "mlp.down_proj.weight"] = (c.hidden_size, c.intermediate_size)
        out |= {p + f"{n}_layernorm.weight": (c.hidden_size,) for n in ("input", "post_attention")}
    return out


LLAMA_8B = dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32)
LLAMA_8B |= dict(num_attention_heads=32, num_key_value_heads=8, vocab_size=128256)
VICUNA_13B = dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40)
VICUNA_13B |= dict(num_attention_heads=40, num_key_value_heads=40, vocab_size=32000)


@pytest.mark.parametrize(
    "language, stride, layers",
    [(LLAMA_8B, 3, list(range(0, 30, 3))), (VICUNA_13B, 4, list(range(0, 40, 4)))],
    ids=["8b", "13b"],
)
def test_names_and_shapes_are_those_of_the_release(language, stride, layers):
    config = CambrianLlamaConfig(
        **language,
        mm_vision_tower_aux_list=RELEASED_TOWERS,
        stride_of_vision_sampler_layers=stride,
        mm_projector_type="sva",
    )
    with torch.device("meta"):
        model = CambrianLlamaForCausalLM(config)
    have = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    assert have == released_names(config.hidden_size) | llama_names(config)
    assert config.aggregating_layers() == layers


def test_phi3_keeps_its_fused_projections():
    names = set(build(CambrianPhi3ForCausalLM).state_dict())
    assert "model.layers.0.self_attn.qkv_proj.weight" in names
    assert "model.layers.3.mlp.gate_up_proj.weight" in names
    assert "model.vision_sampler_layers.1.layers.0.cross_attn.k_proj_2.1.weight" in names
    assert "model.vision_towers.3.encoder.stages.1.downsample.1.weight" in names


@pytest.mark.parametrize(
    "name, width", list(zip(RELEASED_TOWERS, (1152, 1024, 1536, 5760), strict=True))
)
def test_released_towers_have_the_published_width(name, width):
    spec = towers.released_spec(name)
    assert towers.feature_width(spec) == width
    with torch.device("meta"):
        tower = Tower(spec, tokens=576)
        side = spec["image_size"]
        assert tower(torch.zeros(1, 3, side, side)).shape == (1, 576, width)


def test_what_is_missing_is_named(tmp_path):
    refuses("clip-convnext-XXL-multi-stage", towers.released_spec, "clip-convnext-XXL")
    refuses("no open_clip_model.safetensors", towers.open_clip_file, str(tmp_path))
    with pytest.raises(StudyError, match="hold 10 image placeholders .* give 20 visual tokens"):
        build()(prompt((40, 64)), pixel_values=pixels(), image_sizes=[(64, 64)])


# ------------------------------------------------------------------ windows and padding by hand
@pytest.mark.parametrize(
    "size, box, tokens",
    [  # (height, width) -> rows and columns of the 24 x 24 grid, visual tokens with newlines
        ((480, 480), (0, 24, 0, 24), 24 * 25),
        ((360, 640), (5, 19, 0, 24), 14 * 25),  # 13.5 rows: 13, so 5 are cut on either side
        ((640, 360), (0, 24, 5, 19), 24 * 15),
        ((427, 640), (4, 20, 0, 24), 16 * 25),  # 16.01 rows
        ((600, 400), (0, 24, 4, 20), 24 * 17),
        ((100, 800), (10, 14, 0, 24), 4 * 25),  # 3 rows; an even number stays: 4
    ],
)
def test_cells_of_six_aspect_ratios(size, box, tokens):
    assert unpadded(24, size) == box
    cells = token_cells(size, 24)
    y0, y1, x0, x1 = box
    assert len(cells) == tokens
    assert cells[0] == 24 * y0 + x0 and cells[-2] == 24 * (y1 - 1) + x1 - 1
    assert (cells.view(y1 - y0, -1)[:, -1] == -1).all() and (cells < 0).sum() == y1 - y0


def test_windows_and_their_masks_by_hand():
    grid = torch.arange(16.0).view(1, 16, 1)  # 0..15 in a 4 x 4 grid
    want = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert windows(grid, 2)[0, :, :, 0].tolist() == want
    mask = window_mask((10, 20), 2, [1, 2])  # (4 cells, 1 + 4 keys)
    assert mask.tolist() == [[T, F, F, T, T]] * 2 + [[T, T, T, F, F]] * 2


T, F = True, False
ALL = [T] * 4


@pytest.mark.parametrize(
    "size, rows",
    [  # side 4, one encoder with 2 x 2 windows (an 8 x 8 grid); the mask of each row or column
        ((40, 40), [ALL, ALL, ALL, ALL]),
        ((20, 40), [ALL, ALL, ALL, ALL]),  # 4 of 8 rows stay: outer cells lie on padding only
        ((10, 40), [ALL, [F, F, T, T], [T, T, F, F], ALL]),  # 2 of 8 rows stay
        ((30, 40), [[F, F, T, T], ALL, ALL, [T, T, F, F]]),  # 6 of 8 rows stay
        ((40, 30), [[F, T, F, T], ALL, ALL, [T, F, T, F]]),  # the same, columns
        ((40, 10), [ALL, [F, T, F, T], [T, F, T, F], ALL]),
    ],
)
def test_window_mask_of_six_aspect_ratios(size, rows):
    mask = window_mask(size, 4, [2]).view(4, 4, 4)
    mask = mask.transpose(0, 1) if size[0] > size[1] else mask
    for cells, want in zip(mask, rows, strict=True):
        assert (cells == torch.tensor(want)).all()


# ------------------------------------------------------------------ the model
def oracle(model, ids, features, size):
    """The same answer by another road: per-cell loops and hooks on a plain Llama."""
    core, side = model.model, 4
    y0, y1, x0, x1 = unpadded(side, size)
    aux = [getattr(core, f"mm_projector_aux_{i}")(x) for i, x in enumerate(features)]
    context = aux[0].mean(1, keepdim=True)  # (1, 1, d)
    mask = window_mask(size, side, model.config.window_sides)

    def sources(y, x):
        grids = [(a.view(1, int(a.shape[1] ** 0.5), -1, a.shape[-1])) for a in aux]
        steps = [g.shape[1] // side for g in grids]
        cut = [g[:, y * r :, x * r :][:, :r, :r] for g, r in zip(grids, steps, strict=True)]
        return [c.flatten(1, 2) for c in cut]

    def sample(sampler, query, y, x):
        return sampler(query, context, sources(y, x), mask[None, side * y + x])

    rows = []
    for y in range(y0, y1):
        for x in range(x0, x1):
            cell = sample(core.vision_sampler_0, core.vision_query[None], y, x)
            rows.append(core.mm_projector(cell))
        rows.append(core.image_newline[None, None])
    tokens = torch.cat(rows, 1)
    first = ids[0].tolist().index(IMAGE)
    text = core.embed_tokens(ids.masked_fill(ids == IMAGE, 0))
    embeds = torch.cat([text[:, :first], tokens, text[:, first + tokens.shape[1] :]], 1)

    plain = LlamaForCausalLM(model.config).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})

    def hook(k):
        def rewrite(_module, _inputs, out):
            out = out.clone()
            for y in range(y0, y1):
                for x in range(x0, x1):
                    at = first + (y - y0) * (x1 - x0 + 1) + x - x0
                    query = out[:, at : at + 1].clone()
                    out[:, at : at + 1] = sample(core.vision_sampler_layers[k], query, y, x)
            return out

        return rewrite

    for k, index in enumerate(model.config.aggregating_layers()):
        plain.model.layers[index].register_forward_hook(hook(k))
    return plain(inputs_embeds=embeds).logits


@pytest.mark.parametrize("size", [(40, 64), (64, 30), (50, 50)])
@torch.no_grad()
def test_logits_equal_a_slow_oracle(size):
    model, ids = build(), prompt(size)
    features = model.model.encode(pixels())
    have = model(ids, pixel_values=pixels(), image_sizes=[size]).logits
    assert torch.allclose(have, oracle(model, ids, features, size), atol=1e-5)


@torch.no_grad()
def test_images_of_different_shapes_share_a_batch():
    model, images, sizes = build(), pixels(2), [(40, 64), (64, 64)]
    rows = [prompt(size)[0] for size in sizes]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    seen = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
    both = model(ids, pixel_values=images, image_sizes=sizes, attention_mask=seen).logits
    for b, row in enumerate(rows):
        one = [x[b : b + 1] for x in images]
        alone = model(row[None], pixel_values=one, image_sizes=[sizes[b]]).logits
        assert torch.allclose(both[b, : len(row)], alone[0], atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients():
    model, size, ids = build(), (40, 64), prompt((40, 64))
    model.train()
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(ids, pixel_values=pixels(), image_sizes=[size], labels=ids).loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert "model.vision_sampler_layers.1.layers.0.pos_embed_3" in found[0]
    for name, grad in found[0].items():
        assert torch.allclose(grad, found[1][name], atol=1e-6), name


@torch.no_grad()
def test_nothing_stays_on_the_model_between_calls():
    model, size, ids = build(), (40, 64), prompt((40, 64))
    text = torch.tensor([[1, 5, 6, 7]])
    plain = LlamaForCausalLM(model.config).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})
    first = model(ids, pixel_values=pixels(), image_sizes=[size]).logits
    model(ids, pixel_values=pixels(seed=2), image_sizes=[size])
    assert torch.equal(model(text).logits, plain(text).logits)
    assert torch.equal(model(ids, pixel_values=pixels(), image_sizes=[size]).logits, first)


def test_two_stage_gradient_equals_the_direct_one():
    model, size, ids, images = build(), (40, 64), prompt((40, 64)), pixels(grad=True)
    direct = model(ids, pixel_values=images, image_sizes=[size]).logits[0, -2].log_softmax(-1)[7]
    want = torch.autograd.grad(direct, images)
    (features,) = model.model.get_image_features(images, [size]).pooler_output
    leaf = features.detach().requires_grad_()
    output = BaseModelOutputWithPooling(pooler_output=[leaf])
    score = model(ids, mm_encoder_outputs={"image": output}).logits[0, -2].log_softmax(-1)[7]
    (at_leaf,) = torch.autograd.grad(score, leaf)
    for a, b in zip(torch.autograd.grad(features, images, at_leaf), want, strict=True):
        assert torch.allclose(a, b, atol=1e-7) and b.abs().max() > 0  # every encoder has a share
    assert (at_leaf[0, 32:] != 0).any()  # the second look has its share


@torch.no_grad()
def test_a_block_mask_keeps_packed_texts_apart():
    """Two questions behind one image, each blind to the other: as if asked alone."""
    model, size = build(), (40, 64)
    head = prompt(size)[:, :-4]
    a, b = torch.tensor([[6, 7, 8]]), torch.tensor([[9, 10, 11]])
    n, ids = head.shape[1], torch.cat([head, a, b], 1)
    mask = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
    mask[n + 3 :, n : n + 3] = False
    places = torch.cat([torch.arange(n + 3), torch.arange(n, n + 3)])[None]
    images = dict(pixel_values=pixels(), image_sizes=[size])
    packed = model(ids, attention_mask=mask[None, None], position_ids=places, **images).logits
    alone = model(torch.cat([head, b], 1), **images).logits
    assert torch.allclose(packed[:, n + 3 :], alone[:, n:], atol=1e-5)


# ------------------------------------------------------------------ released layout and bad input
@torch.no_grad()
def test_towers_of_a_released_checkpoint_come_from_their_own_folders(tmp_path, monkeypatch):
    """The same small model, once self-contained, once as released: language model and towers
    apart, the ConvNeXt in open_clip's file."""
    model, size, ids = build(), (40, 64), prompt((40, 64))
    sources, table = [], {}
    for i, (spec, tower) in enumerate(zip(small_towers(), model.model.vision_towers, strict=True)):
        folder = tmp_path / str(i)
        if spec["model_type"] == "convnext_trunk":
            folder.mkdir()
            state = {"visual.trunk." + k: v for k, v in tower.encoder.state_dict().items()}
            extra = {"visual.head.proj.weight": torch.zeros(2, 2), "logit_scale": torch.zeros(())}
            save_file(state | extra, folder / "open_clip_model.safetensors")
        else:
            tower.encoder.save_pretrained(folder)
        sources.append(str(folder))
        table[f"tower-{i}"] = (sources[-1], spec)
    monkeypatch.setattr(towers, "RELEASED", table)
    config = small(vision_configs=None, mm_vision_tower_aux_list=list(table))
    released = CambrianLlamaForCausalLM(config).eval()
    own = released.state_dict()
    released.load_state_dict({k: v for k, v in model.state_dict().items() if k in own})
    assert not any("towers" in name for name in own)
    images = dict(pixel_values=pixels(), image_sizes=[size])
    refuses("needs load_towers first", released, ids, **images)
    released.load_towers()
    assert torch.equal(released(ids, **images).logits, model(ids, **images).logits)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(num_query_group=2), "num_query_group 1"),
        (dict(mm_vision_tower_aux_token_len_list=[16, 16, 16, 200]), "multiple of 4"),
        (dict(mm_vision_tower_aux_token_len_list=[16, 16, 16]), "4 vision towers but gives 3"),
        (dict(num_of_vision_sampler_layers=3), "has 4 layers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    refuses(message, CambrianLlamaForCausalLM, small(**changes))
