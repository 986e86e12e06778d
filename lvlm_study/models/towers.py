"""Vision encoders of Cambrian and Mini-Gemini: a normalised square in, a square grid of tokens out.

A tower is described by a small dict: `model_type` (clip_vision_model, siglip_vision_model, dinov2
or convnext_trunk) with that model's own settings, plus `image_size`, `image_mean`, `image_std` and
`pad_mean` for preprocessing. The released checkpoints name their towers instead and do not hold
the weights; `RELEASED` says what those names mean and `load_towers` fetches them.
Source: Tong et al. 2024, arXiv 2406.16860.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from ..errors import StudyError, unknown
from ..paths import data_dir
from .checkpoint import one_line
from .convnext import ConvNeXt, multi_stage, resize_map
from .geometry import patch_edges, used_pixels
from .pickles import OPEN_CLIP_FILE, has_pickles
from .trouble import out_of_memory

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
PREPROCESSING = ("image_mean", "image_std", "pad_mean")

TRANSFORMERS = {
    "clip_vision_model": (CLIPVisionConfig, CLIPVisionModel),
    "siglip_vision_model": (SiglipVisionConfig, SiglipVisionModel),
    "dinov2": (Dinov2Config, Dinov2Model),
}

# Name in a released config.json -> (repository of the weights, description).
RELEASED = {
    "siglip/CLIP-ViT-SO400M-14-384": (
        "google/siglip-so400m-patch14-384",
        {
            "model_type": "siglip_vision_model",
            "image_size": 384,
            "patch_size": 14,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "hidden_act": "gelu",  # Cambrian ran timm's copy, which uses the exact GELU
            "vision_use_head": False,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "pad_mean": CLIP_MEAN,
        },
    ),
    "openai/clip-vit-large-patch14-336": (
        "openai/clip-vit-large-patch14-336",
        {
            "model_type": "clip_vision_model",
            "image_size": 336,
            "patch_size": 14,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "projection_dim": 768,
        },
    ),
    "facebook/dinov2-giant-res378": (
        "facebook/dinov2-giant",
        {
            "model_type": "dinov2",
            "image_size": 378,
            "patch_size": 14,
            "hidden_size": 1536,
            "num_hidden_layers": 40,
            "num_attention_heads": 24,
            "use_swiglu_ffn": True,
            "image_mean": IMAGENET_MEAN,
            "image_std": IMAGENET_STD,
            "pad_mean": IMAGENET_MEAN,
        },
    ),
    "clip-convnext-XXL-multi-stage": (
        "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup",
        {
            "model_type": "convnext_trunk",
            "image_size": 1024,
            "depths": [3, 4, 30, 3],
            "dims": [384, 768, 1536, 3072],
            "eps": 1e-5,
        },
    ),
}


def released_spec(name: str) -> dict:
    """The description of a tower that a released config.json names."""
    if name not in RELEASED:
        raise unknown("Cambrian vision tower", name, RELEASED)
    return RELEASED[name][1]


def feature_width(spec: dict) -> int:
    """Channels of a tower's tokens."""
    return sum(spec["dims"]) if spec["model_type"] == "convnext_trunk" else spec["hidden_size"]


def tower_used(spec: dict) -> np.ndarray:
    """View pixels along one axis that the encoder reads: whole patches only, (S,) bool."""
    side, patch = spec["image_size"], spec.get("patch_size", 4)
    return used_pixels(side, patch_edges(side, patch))


def build_encoder(spec: dict) -> nn.Module:
    """The bare encoder of a description, with random weights."""
    kind = spec["model_type"]
    if kind == "convnext_trunk":
        keys = ("depths", "dims", "eps", "scale", "prefix")
        return ConvNeXt(**{k: spec[k] for k in keys if k in spec})
    if kind not in TRANSFORMERS:
        raise unknown("vision tower type", kind, [*TRANSFORMERS, "convnext_trunk"])
    config_class, model_class = TRANSFORMERS[kind]
    return model_class(config_class(**_own_settings(spec)))


def _own_settings(spec: dict) -> dict:
    return {k: v for k, v in spec.items() if k not in (*PREPROCESSING, "model_type")}


class Tower(nn.Module):
    """One encoder: normalised square (B, 3, S, S) to tokens (B, side², C), row-major.

    CLIP gives the hidden state `select_layer` without the class token, SigLIP and DINOv2 their
    normalised last state, ConvNeXt all stages behind each other; whatever grid comes out is
    brought to `side` × `side` bilinearly.
    """

    def __init__(self, spec: dict, tokens: int, select_layer: int = -2, encoder=None):
        super().__init__()
        self.kind, self.side, self.select_layer = spec["model_type"], _root(tokens), select_layer
        self.encoder = build_encoder(spec) if encoder is None else encoder

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, H, W) to tokens (B, side * side, C), row by row."""
        size = (self.side, self.side)
        if self.kind == "convnext_trunk":
            grid = multi_stage(self.encoder(x), size)
        else:
            tokens = self._tokens(x)  # (B, n*n, C)
            n = _root(tokens.shape[1])
            grid = resize_map(tokens.transpose(1, 2).unflatten(2, (n, n)), size)
        return grid.flatten(2).transpose(1, 2)

    def _tokens(self, x: Tensor) -> Tensor:
        if self.kind == "clip_vision_model":
            out = self.encoder(x, output_hidden_states=True)
            return out.hidden_states[self.select_layer][:, 1:]
        out = self.encoder(x).last_hidden_state
        return out[:, 1:] if self.kind == "dinov2" else out  # SigLIP has no class token


def _root(tokens: int) -> int:
    side = int(tokens**0.5)
    if side * side != tokens:
        raise StudyError(f"A tower must give a square grid of tokens, not {tokens} tokens.")
    return side


def load_towers(config, sources: Sequence[str] | None = None, dtype=None) -> nn.ModuleList:
    """The pretrained towers of a released checkpoint, from their own repositories.

    `sources` replaces the repositories by local folders, in the order of the config. Safetensors
    only; the ConvNeXt folder must hold open_clip's `open_clip_model.safetensors`.
    """
    names = config.mm_vision_tower_aux_list
    sources = sources or [RELEASED[name][0] for name in names]
    towers = nn.ModuleList()
    for spec, source, tokens in zip(
        config.tower_specs(), sources, config.mm_vision_tower_aux_token_len_list, strict=True
    ):
        encoder = load_encoder(spec, str(source), dtype)
        towers.append(Tower(spec, tokens, config.mm_vision_select_layer, encoder))
    return towers.eval()


def load_encoder(spec: dict, source: str, dtype=None) -> nn.Module:
    """One pretrained encoder from a hub repository or a local folder.

    Raises StudyError for one that is not there, or is kept as pickles alone.
    """
    source = at_hand(source)
    if spec["model_type"] != "convnext_trunk":
        config_class, model_class = TRANSFORMERS[spec["model_type"]]
        overrides = {k: spec[k] for k in ("hidden_act", "vision_use_head") if k in spec}
        try:
            config = config_class.from_pretrained(source, **overrides)
            _check_tower(spec, source, config)
            how = {"config": config, "dtype": dtype, "use_safetensors": True}
            return model_class.from_pretrained(source, **how)
        except (OSError, ValueError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            raise _not_there(source, one_line(error)) from error
    encoder = build_encoder(spec)
    encoder.load_open_clip(load_file(open_clip_file(source)))
    return encoder.to(dtype or torch.float32)


def _check_tower(spec: dict, source: str, config) -> None:
    """Raise StudyError for an encoder of other sizes than the checkpoint was trained with."""
    keys = [k for k in ("hidden_size", "num_hidden_layers", "patch_size") if k in spec]
    differ = [k for k in keys if getattr(config, k, None) != spec[k]]
    if differ:
        raise StudyError(
            f"The vision tower {source} has {differ[0]} {getattr(config, differ[0], None)} where "
            f"the checkpoint was trained with {spec[differ[0]]}; name the right one."
        )


def at_hand(source: str) -> str:
    """The folder in `data/towers` that stands for a hub repository, where there is one."""
    try:
        own = _own_place(source)
    except StudyError:  # without a data folder there is none
        return source
    return str(own) if own.is_dir() and not Path(source).is_dir() else source


def _own_place(source: str) -> Path:
    return data_dir() / "towers" / source.replace("/", "--")


def _not_there(source: str, why: str) -> StudyError:
    """What to do about a tower that cannot be loaded: fetch it, or convert it."""
    folder = Path(source)
    if folder.is_dir() and has_pickles(folder):
        return StudyError(
            f"The vision tower {source} is kept as a pickle, which can run code when loaded; make "
            f"safetensors of it with 'lvlm-study convert {source} NEW_FOLDER'."
        )
    if folder.is_dir():
        return StudyError(f"The vision tower {source} cannot be loaded ({why}); download it again.")
    return StudyError(
        f"The vision tower {source} cannot be loaded ({why}); check the network, or put its folder "
        f"at data/towers/{source.replace('/', '--')}, where it is looked for first ('lvlm-study "
        "convert' makes safetensors of a repository that has pickles, .bin, alone)."
    )


def open_clip_file(source: str) -> str:
    """Path of open_clip's safetensors file in a local folder, else fetched from the hub."""
    folder = Path(at_hand(source))
    if folder.is_dir():
        if not (folder / OPEN_CLIP_FILE).exists():
            raise _not_there(str(folder), f"no {OPEN_CLIP_FILE}")
        return str(folder / OPEN_CLIP_FILE)
    try:
        return hf_hub_download(source, OPEN_CLIP_FILE)
    except (OSError, ValueError) as error:
        raise _not_there(source, type(error).__name__) from error
