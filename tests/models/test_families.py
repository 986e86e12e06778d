"""Traps of single families: inputs that a model misses in silence, prompts, tiles, crops."""

import shutil

import pytest
import tiny
import torch
import transformers as T
import white_box
from PIL import Image
from refusals import refuses
from test_program_use import FEW
from white_box import photo

from lvlm_study.heatmaps import METHODS
from lvlm_study.models import load_model
from lvlm_study.pixels.images import to_tensor

QUESTION, SIZE = "What is the red thing?", (50, 40)
IDS = torch.tensor([65, 66, 67])


def changed(folder, tmp_path, name="preprocessor_config.json", **changes):
    """A copy of a checkpoint with other settings."""
    copy = shutil.copytree(folder, tmp_path / "changed")
    tiny.edit_json(copy / name, **changes)
    return copy


@pytest.mark.parametrize(
    "family,name",
    [
        ("qwen2_vl", "mm_token_type_ids"),
        ("qwen2_5_vl", "mm_token_type_ids"),
        ("qwen3_vl", "mm_token_type_ids"),
        ("gemma3", "token_type_ids"),
    ],
)
def test_type_ids_mark_the_image_and_matter(adapters, family, name, monkeypatch):
    model, x = adapters(family), to_tensor(photo())
    bound = model.bind(SIZE, QUESTION)
    kinds = bound.extras(2, 3)[name]
    assert kinds.shape == (2, len(bound.image_span) + 3)
    assert torch.equal(kinds[1, :-3] == 1, bound.image_span) and not kinds[:, -3:].any()
    whole = bound.log_probs(x, IDS)
    honest = type(model).extras

    def forgetful(self, *args):
        return {k: v for k, v in honest(self, *args).items() if k != name}

    monkeypatch.setattr(type(model), "extras", forgetful)
    if family in ("qwen2_vl", "qwen3_vl"):
        with pytest.raises(ValueError, match=name):  # these two say so
            bound.log_probs(x, IDS)
    else:
        assert (bound.log_probs(x, IDS) - whole).abs().max() > 1e-3  # these two do not


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_blank_tiles_are_not_dropped(checkpoints, tmp_path, family):
    """Values that are exactly zero look like padding to the model; ours must survive it."""
    model = load_model(changed(checkpoints(family), tmp_path, image_mean=[0.0] * 3))
    bound = model.bind(SIZE, QUESTION)
    black = torch.zeros(1, 3, *SIZE, requires_grad=True)
    values = bound.pixels(black)["pixel_values"]
    assert 0 < values.abs().max() < 1e-5
    bound.log_probs(black, IDS).sum().backward()
    assert black.grad.isfinite().all()
    with pytest.raises((ValueError, RuntimeError)):  # the trap is real
        model.model(
            input_ids=bound.prompt_ids,
            pixel_values=torch.zeros_like(values),
            pixel_attention_mask=torch.ones_like(values[:, :, 0], dtype=torch.long),
        )


def test_deep_features_belong_to_the_features(adapters):
    """Qwen3-VL feeds features into later layers too; without them the answer differs."""
    model, x = adapters("qwen3_vl"), to_tensor(photo())
    bound = model.bind(SIZE, QUESTION)
    features = model.encode(bound, x)
    assert features.shape == (1, len(bound.token_boxes), 64)
    shallow = torch.cat([features[..., :32], torch.zeros_like(features[..., 32:])], -1)
    whole, part = (bound.log_probs_from(f, IDS) for f in (features, shallow))
    assert (whole - part).abs().max() > 1e-3


@pytest.mark.parametrize("size", [SIZE, (28, 28), (30, 110)])
def test_idefics_prompt_equals_the_processors(adapters, size):
    model = adapters("idefics3")
    processor = T.Idefics3Processor(model.processor, tiny.tokenizer(), image_seq_len=4)
    text = f"USER: <image>{QUESTION} ASSISTANT:"
    wanted = processor(
        images=Image.fromarray(photo(size)), text=text, images_kwargs={"return_row_col_info": True}
    )
    ours = model.bind(size, QUESTION).prompt_ids[0].tolist()
    assert ours == [tiny.BOS, *wanted["input_ids"][0]]


@pytest.mark.parametrize("family", ["gemma3", "gemma3_scan"])
@pytest.mark.parametrize("size", [SIZE, (20, 90)])
def test_gemma_prompt_equals_the_processors(adapters, family, size):
    tok, model = tiny.tokenizer(), adapters(family)
    tok.image_token, tok.image_token_id = "<image_soft_token>", tiny.IDS["<image_soft_token>"]
    tok.boi_token, tok.boi_token_id = "<start_of_image>", tiny.IDS["<start_of_image>"]
    tok.eoi_token = "<end_of_image>"
    processor = T.Gemma3Processor(model.processor, tok, image_seq_length=4)
    text = f"USER: <start_of_image>{QUESTION} ASSISTANT:"
    wanted = processor(
        images=Image.fromarray(photo(size)),
        text=text,
        images_kwargs=tiny.PAN_AND_SCAN if family == "gemma3_scan" else {},
    )
    ours = model.bind(size, QUESTION).prompt_ids[0].tolist()
    assert ours == [tiny.BOS, *wanted["input_ids"][0]]


def test_internvl_and_qwen_prompts_by_hand(adapters):
    model = adapters("internvl")
    bound = model.bind((28, 56), QUESTION)  # two tiles and a thumbnail of four tokens each
    start, end = tiny.IDS["<img>"], tiny.IDS["</img>"]
    ids, span = bound.prompt_ids[0].tolist(), bound.image_span.nonzero()[:, 0].tolist()
    assert span == list(range(span[0], span[0] + 12))
    assert (ids[span[0] - 1], ids[span[-1] + 1]) == (start, end)
    bound = adapters("qwen2_5_vl").bind((28, 56), QUESTION)  # two by four blocks of 14 pixels
    ids, span = bound.prompt_ids[0].tolist(), bound.image_span.nonzero()[:, 0].tolist()
    assert span == list(range(span[0], span[0] + 8))
    borders = (ids[span[0] - 1], ids[span[-1] + 1])
    assert borders == (tiny.IDS["<|vision_start|>"], tiny.IDS["<|vision_end|>"])


@pytest.mark.parametrize(
    "family,start",
    [
        ("qwen2_5_vl", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>u"),
        ("llava", "USER: <image>\nQ?"),
        ("llava_next", "USER: <image>\nQ?"),
        ("llava_onevision", "<|im_start|>user <image>\nQ?"),
        ("qwen3_vl", "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Q?"),
        ("internvl", "<|im_start|>user\n<IMG_CONTEXT>\nQ?"),
        ("gemma3", "<start_of_turn>user\n<start_of_image>Q?"),
        ("idefics3", "User:<image>Q?<end_of_utterance>\nAssistant:"),
    ],
)
def test_fallback_prompts(checkpoints, tmp_path, family, start):
    folder = shutil.copytree(checkpoints(family), tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    with pytest.warns(UserWarning, match="has no chat template; using the usual prompt"):
        model = load_model(folder)
    assert model.prompt("Q?").startswith(start)
    assert model.bind(SIZE, "Q?").image_span.sum() == len(model.bind(SIZE, "Q?").token_boxes)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (300, 301), (1200, 100), (97, 512)])
@pytest.mark.parametrize(
    "family,per_tile", [("internvl", 256), ("idefics3", 169), ("smolvlm", 64), ("qwen2_5_vl", None)]
)
def test_token_counts_as_the_processors_promise(family, per_tile, size):
    model = tiny.real_size(family)
    options = {"crop_to_patches": True} if family == "internvl" else {}
    count = model.processor.get_number_of_image_patches(*size, options)
    count = count[0] if isinstance(count, tuple) else count
    wanted = max(count, 1) * per_tile if per_tile else count // 4
    assert len(model.geometry_for(size).boxes) == wanted


def test_boxes_of_a_thumbnail_and_tiles_by_hand(adapters):
    boxes = adapters("internvl").bind((28, 56), QUESTION).token_boxes
    first = [[0, 0, 14, 14], [14, 0, 28, 14], [0, 14, 14, 28], [14, 14, 28, 28]]
    assert boxes[:4].tolist() == first
    assert boxes[4].tolist() == [28, 0, 42, 14]  # the second tile
    assert boxes[8].tolist() == [0, 0, 28, 14]  # the thumbnail
    assert len(adapters("internvl").bind((28, 28), QUESTION).token_boxes) == 4  # no thumbnail


def test_pan_and_scan_crops(adapters):
    crops = adapters("gemma3_scan").crops
    assert crops((50, 50)) == []
    assert crops((32, 64)) == [((0, 0), (32, 32)), ((0, 32), (32, 32))]
    assert crops((65, 32)) == [((0, 0), (33, 32)), ((33, 0), (32, 32))]
    assert crops((10, 40)) == []  # crops would be too small
    assert adapters("gemma3").crops((32, 64)) == []
    refuses("too elongated", adapters("qwen2_vl").bind, (1, 500), QUESTION)


@pytest.mark.parametrize(
    "family,changes",
    [
        ("qwen2_5_vl", {"patch_size": 14}),
        ("internvl", {"size": {"height": 14, "width": 14}}),
        ("gemma3", {"size": {"height": 14, "width": 14}}),
        ("idefics3", {"max_image_size": {"longest_edge": 14}}),
    ],
)
def test_settings_must_fit_the_encoder(checkpoints, tmp_path, family, changes):
    refuses("do not belong together", load_model, changed(checkpoints(family), tmp_path, **changes))


def test_image_splitting_may_be_off(checkpoints, tmp_path):
    model = load_model(changed(checkpoints("idefics3"), tmp_path, do_image_splitting=False))
    bound = model.bind(SIZE, QUESTION)
    assert bound.image_span.sum() == len(bound.token_boxes) == 4
    wanted = model.processor(images=Image.fromarray(photo()), return_tensors="pt")["pixel_values"]
    ours = bound.pixels(to_tensor(photo()))["pixel_values"]
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)


# --- every method on every family -------------------------------------------------------------

# the methods that look inside a model have such tests of their own
LITTLE = ("igos", "igos++", "rise", "occlusion", "integrated_gradients", "smoothgrad")


@pytest.mark.slow
@pytest.mark.parametrize("family", white_box.FAMILIES)
def test_methods_that_ask_for_scores_run_on_every_family(adapters, family):
    """The same map twice, of numbers that differ; `ga` says why it cannot."""
    target = white_box.target_for(adapters, family)
    for method in LITTLE:
        one, two = (METHODS[method](target, **FEW[method]) for _ in range(2))
        assert one.std() > 0 and torch.equal(one, two), method
    refuses("ga needs a model that shares its sight", METHODS["ga"], target)
