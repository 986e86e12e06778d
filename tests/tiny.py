"""Tiny random checkpoints in the Hugging Face layout: real classes, a hundred thousand weights.

`tiny_checkpoint(family, folder)` writes what a hub download would hold, so that tests go through
`load_model` like a reader does. The tokenizer knows bytes and a few words; the language model
babbles. Weights are drawn large enough that answers depend on the picture.
"""

import json
from pathlib import Path

import torch
import transformers as T
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models

SIDE, PATCH = 28, 7  # the encoder reads 28x28 pixels as 4x4 patches
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
WIDE_PINPOINTS = [[28 * i, 28 * j] for i in range(1, 4) for j in range(1, 4)]
MERGES = [("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("r", "e"), ("re", "d")]
SPECIALS = ["<pad>", "<s>", "</s>", "<image>", "<video>"]
SPECIALS += ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]  # Qwen
SPECIALS += ["<IMG_CONTEXT>", "<img>", "</img>"]  # InternVL
SPECIALS += ["<image_soft_token>", "<start_of_image>", "<end_of_image>"]  # Gemma 3
SPECIALS += ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]  # Idefics3
SPECIALS += [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
IDS = {token: 256 + len(MERGES) + i for i, token in enumerate(SPECIALS)}
VOCAB = 256 + len(MERGES) + len(SPECIALS)
PAD, BOS, EOS, IMAGE, VIDEO = (IDS[token] for token in SPECIALS[:5])


def template(image: str = "<image>\n") -> str:
    """A chat template that writes `image` where the picture goes."""
    return (
        "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: "
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + image
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
    )


TEMPLATE = template()
TEMPLATES = {  # by family, where it is not TEMPLATE
    "qwen": template("<|vision_start|><|image_pad|><|vision_end|>"),
    "internvl": template("<IMG_CONTEXT>\n"),
    "gemma3": template("<start_of_image>"),
    "idefics3": template("<image>"),
    "smolvlm": template("<image>"),
}

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
    "initializer_range": 0.2,
    "initializer_factor": 5.0,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
CLIP = VISION | {"model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = VISION | {"model_type": "siglip_vision_model"}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CROP = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}


def tokenizer():
    """Byte-level BPE with five merges: ' the' and 'red' are single tokens."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for pair in MERGES:
        vocab["".join(pair)] = len(vocab)
    tok = Tokenizer(token_models.BPE(vocab=vocab, merges=MERGES))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(SPECIALS)
    return T.PreTrainedTokenizerFast(
        tokenizer_object=tok,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIALS[3:],
    )


def _llava():
    config = T.LlavaConfig(
        vision_config=CLIP,
        text_config=TEXT,
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    return T.LlavaForConditionalGeneration(config), T.CLIPImageProcessorPil(**CROP)


def _llava_pad():
    model, _ = _llava()
    return model, T.LlavaImageProcessorPil(do_pad=True, **CROP)


def _llava_next():
    config = T.LlavaNextConfig(
        vision_config=CLIP,
        text_config=TEXT,
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = T.LlavaNextImageProcessorPil(image_grid_pinpoints=PINPOINTS, **CROP)
    return T.LlavaNextForConditionalGeneration(config), processor


def _llava_onevision(aspect="anyres_max_9", pinpoints=None, vision=None):
    pinpoints, vision = pinpoints or PINPOINTS, SIGLIP | (vision or {})
    side = vision["image_size"]
    config = T.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=TEXT | {"model_type": "qwen2"},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=aspect,
    )
    processor = T.LlavaOnevisionImageProcessorPil(
        size={"height": side, "width": side}, image_grid_pinpoints=pinpoints, **HALF
    )
    return T.LlavaOnevisionForConditionalGeneration(config), processor


def _onevision_shrunk():
    return _llava_onevision("anyres_max_2", WIDE_PINPOINTS)


def _onevision_rim():
    """Patches that do not fill the tile, like SigLIP-SO400M's 27 x 14 = 378 of 384 pixels."""
    pinpoints = [[30 * i, 30 * j] for i in range(1, 3) for j in range(1, 3)]
    return _llava_onevision(pinpoints=pinpoints, vision={"image_size": 30})


QWEN_TEXT = {k: v for k, v in TEXT.items() if k != "model_type"} | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 4,
    "patch_size": 7,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "initializer_range": 0.2,
}


def _qwen(kind, vision, text=None, size=None):
    config = getattr(T, f"{kind}Config")(
        text_config=QWEN_TEXT | (text or {}),
        vision_config=QWEN_VISION | vision,
        image_token_id=IDS["<|image_pad|>"],
        video_token_id=IDS["<|video_pad|>"],
        vision_start_token_id=IDS["<|vision_start|>"],
        vision_end_token_id=IDS["<|vision_end|>"],
    )
    size = size or {"shortest_edge": 28 * 28, "longest_edge": 56 * 84}
    processor = T.Qwen2VLImageProcessorPil(
        patch_size=(QWEN_VISION | vision)["patch_size"], size=size
    )
    return getattr(T, f"{kind}ForConditionalGeneration")(config), processor


def _qwen2(**more):
    return _qwen("Qwen2VL", {"embed_dim": 32, "mlp_ratio": 2} | more.pop("vision", {}), **more)


def _qwen25(**more):
    vision = {"out_hidden_size": 32, "window_size": 28, "fullatt_block_indexes": [1]}
    return _qwen("Qwen2_5_VL", vision | more.pop("vision", {}), **more)


def _qwen3(**more):
    vision = {"out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return _qwen("Qwen3VL", vision | more.pop("vision", {}), {"head_dim": 8}, **more)


def _internvl(vision=None, text=None, tokens=4, **more):
    vision = VISION | {"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]} | (vision or {})
    config = T.InternVLConfig(
        vision_config=vision,
        text_config=TEXT | {"model_type": "qwen2"} | (text or {}),
        image_token_id=IDS["<IMG_CONTEXT>"],
        downsample_ratio=0.5,
        image_seq_length=tokens,
    )
    side = vision["image_size"][0]
    more = {"max_patches": 6} | more
    processor = T.GotOcr2ImageProcessorPil(size={"height": side, "width": side}, **more)
    return T.InternVLForConditionalGeneration(config), processor


def _gemma3(vision=None, text=None, tokens=4, **more):
    vision = VISION | {"vision_use_head": False} | (vision or {})
    config = T.Gemma3Config(
        vision_config=vision,
        text_config={k: v for k, v in TEXT.items() if k != "model_type"}
        | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}
        | {"layer_types": ["sliding_attention", "full_attention"]}
        | (text or {}),
        image_token_index=IDS["<image_soft_token>"],
        boi_token_index=IDS["<start_of_image>"],
        eoi_token_index=IDS["<end_of_image>"],
        mm_tokens_per_image=tokens,
    )
    model = T.Gemma3ForConditionalGeneration(config)
    # transformers starts this matrix at zero, which would hide the image from the model
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    side = vision["image_size"]
    return model, T.Gemma3ImageProcessorPil(size={"height": side, "width": side}, **more)


PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 16,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}


def _idefics3(kind="Idefics3", vision=None, text=None, scale=2, longest=2 * SIDE):
    vision = VISION | (vision or {})
    config = getattr(T, f"{kind}Config")(
        vision_config=vision,
        text_config=TEXT | (text or {}),
        image_token_id=IMAGE,
        scale_factor=scale,
        pad_token_id=PAD,
    )
    processor = getattr(T, f"{kind}ImageProcessorPil")(
        size={"longest_edge": longest}, max_image_size={"longest_edge": vision["image_size"]}
    )
    return getattr(T, f"{kind}ForConditionalGeneration")(config), processor


LLAVAS = {
    "llava": _llava,
    "llava_pad": _llava_pad,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "onevision_shrunk": _onevision_shrunk,
    "onevision_rim": _onevision_rim,
}
OTHERS = {
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen25,
    "qwen3_vl": _qwen3,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "gemma3_scan": lambda: _gemma3(**PAN_AND_SCAN),
    "idefics3": _idefics3,
    "smolvlm": lambda: _idefics3("SmolVLM"),
}
FAMILIES = LLAVAS | OTHERS


def template_of(family: str) -> str:
    """The chat template of a family, by the longest matching start of its name."""
    return next((t for start, t in TEMPLATES.items() if family.startswith(start)), TEMPLATE)


def tiny_checkpoint(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a random checkpoint of `family` into `folder`; same seed, same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = FAMILIES[family]()
    model.generation_config = T.GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template_of(family))
    return folder


def edit_json(path: Path, **changes) -> None:
    """Change entries of a JSON file; None removes one."""
    found = json.loads(path.read_text())
    found.update(changes)
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))


def real_size(family: str):
    """An adapter with the real processors and sizes (336 or 384 pixels) but one tiny layer."""
    from lvlm_study.models.registry import FAMILIES as ADAPTERS

    name, model, processor = REAL[family]()
    return ADAPTERS[name](family, model.eval(), tokenizer(), processor, template_of(name))


SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
CLIP_336 = CLIP | SMALL | {"image_size": 336, "patch_size": 14}
SIGLIP_384 = SIGLIP | SMALL | {"image_size": 384, "patch_size": 14}
REAL_TEXT = TEXT | SMALL | {"num_key_value_heads": 1}
CROP_336 = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}


def _real_llava(processor):
    config = T.LlavaConfig(
        vision_config=CLIP_336,
        text_config=REAL_TEXT,
        image_token_index=IMAGE,
        vision_feature_layer=-1,
    )
    return "llava", T.LlavaForConditionalGeneration(config), processor


def _real_next():
    processor = T.LlavaNextImageProcessorPil(**CROP_336)
    config = T.LlavaNextConfig(
        vision_config=CLIP_336,
        text_config=REAL_TEXT,
        image_token_index=IMAGE,
        image_grid_pinpoints=processor.image_grid_pinpoints,
        vision_feature_layer=-1,
    )
    return "llava_next", T.LlavaNextForConditionalGeneration(config), processor


def _real_onevision():
    processor = T.LlavaOnevisionImageProcessorPil(**HALF)
    config = T.LlavaOnevisionConfig(
        vision_config=SIGLIP_384,
        text_config=REAL_TEXT | {"model_type": "qwen2"},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=processor.image_grid_pinpoints,
        vision_aspect_ratio="anyres_max_9",
    )
    return "llava_onevision", T.LlavaOnevisionForConditionalGeneration(config), processor


def _named(name, made):
    return name, *made


REAL_LLAVAS = {
    "llava crop": lambda: _real_llava(T.CLIPImageProcessorPil(**CROP_336)),
    "llava pad": lambda: _real_llava(T.LlavaImageProcessorPil(do_pad=True, **CROP_336)),
    "llava_next": _real_next,
    "llava_onevision": _real_onevision,
}
QWEN_SIZE = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
REAL_OTHERS = {
    "qwen2_5_vl": lambda: _named("qwen2_5_vl", _qwen25(vision={"patch_size": 14}, size=QWEN_SIZE)),
    "qwen3_vl": lambda: _named("qwen3_vl", _qwen3(vision={"patch_size": 16}, size=QWEN_SIZE)),
    "internvl": lambda: _named(
        "internvl",
        _internvl(SMALL | {"image_size": [448] * 2, "patch_size": [14] * 2}, max_patches=12),
    ),
    "gemma3": lambda: _named("gemma3", _gemma3(SMALL | {"image_size": 896, "patch_size": 14})),
    "gemma3 scan": lambda: _named(
        "gemma3", _gemma3(SMALL | {"image_size": 896, "patch_size": 14}, **PAN_AND_SCAN)
    ),
    "idefics3": lambda: _named(
        "idefics3", _idefics3(vision=SMALL | {"image_size": 364, "patch_size": 14}, longest=1456)
    ),
    "smolvlm": lambda: _named(
        "smolvlm",
        _idefics3("SmolVLM", SMALL | {"image_size": 512, "patch_size": 16}, None, 4, 2048),
    ),
}
REAL = REAL_LLAVAS | REAL_OTHERS
