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
VOCAB = 256 + len(MERGES) + len(SPECIALS)
PAD, BOS, EOS, IMAGE, VIDEO = range(VOCAB - len(SPECIALS), VOCAB)

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)

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
        additional_special_tokens=["<image>", "<video>"],
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


FAMILIES = {
    "llava": _llava,
    "llava_pad": _llava_pad,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "onevision_shrunk": _onevision_shrunk,
    "onevision_rim": _onevision_rim,
}


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
    (folder / "chat_template.jinja").write_text(TEMPLATE)
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
    return ADAPTERS[name](family, model.eval(), tokenizer(), processor, TEMPLATE)


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


REAL = {
    "llava crop": lambda: _real_llava(T.CLIPImageProcessorPil(**CROP_336)),
    "llava pad": lambda: _real_llava(T.LlavaImageProcessorPil(do_pad=True, **CROP_336)),
    "llava_next": _real_next,
    "llava_onevision": _real_onevision,
}
