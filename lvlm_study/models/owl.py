"""OWL-ViT in two halves: an encoder up to its last layer but one, and what follows it.

The cut is where a language model can share the detector's sight: `shared` gives the tokens that
enter the last layer, `predict` resumes from them and gives what the whole detector would give.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import OwlViTForObjectDetection

from ..errors import StudyError
from ..pixels.preprocess import Size
from . import checkpoint

TEMPLATE = "a photo of a {}"  # how OWL-ViT's authors phrase a class name


def resume(owl: nn.Module, shared: Tensor) -> Tensor:
    """Tokens that enter the last layer (B, 1 + N, C) to what the heads read (B, N, C)."""
    vision = owl.owlvit.vision_model
    last = vision.encoder.layers[-1](shared, None)
    return merge(owl, vision.post_layernorm(last))


def merge(owl: nn.Module, embeds: Tensor) -> Tensor:
    """Each patch token times the class token, normalised: (B, 1 + N, C) to (B, N, C)."""
    return owl.layer_norm(embeds[:, 1:] * embeds[:, :1])


def heads(owl: nn.Module, read: Tensor, queries: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Class logits (..., N, Q) and boxes (..., N, 4), cx cy w h in [0, 1], of (..., N, C)."""
    logits = owl.class_head(read, queries, None)[0]
    return logits, (owl.box_head(read) + bias).sigmoid()


def embed_queries(owl: nn.Module, tokenizer, texts: Sequence[str]) -> Tensor:
    """Text queries as unit vectors (Q, D), read as they stand. StudyError for one too long."""
    length = owl.config.text_config.max_position_embeddings
    for text in texts:
        if (found := len(tokenizer(text).input_ids)) > length:
            raise StudyError(
                f"The query {text!r} has {found} tokens but the detector reads {length}; say it "
                "in fewer words."
            )
    tokens = tokenizer(
        list(texts), padding="max_length", max_length=length, return_tensors="pt"
    ).to(owl.device)
    found = owl.owlvit.get_text_features(
        input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
    ).pooler_output
    return found / found.norm(dim=-1, keepdim=True)


class Detector:
    """A loaded OWL-ViT with its tokenizer and the settings of its image processor."""

    def __init__(self, name: str, model: OwlViTForObjectDetection, tokenizer, processor):
        self.name, self.model, self.tokenizer, self.processor = name, model, tokenizer, processor
        model.set_attn_implementation("eager")  # the fast kernels have no forward-mode derivative
        if getattr(processor, "do_center_crop", False):
            raise StudyError(
                f"The processor of {name} crops pictures, so its boxes would not be in image "
                "coordinates; set do_center_crop to false in its preprocessor_config.json."
            )

    @property
    def vision(self) -> nn.Module:
        """The vision encoder."""
        return self.model.owlvit.vision_model

    @property
    def side(self) -> int:
        """Patches along one side of the picture."""
        config = self.model.config.vision_config
        return config.image_size // config.patch_size

    @property
    def view_size(self) -> Size:
        """Size of the squashed picture that the encoder reads."""
        side = self.model.config.vision_config.image_size
        return side, side

    @torch.no_grad()
    def queries(self, names: Sequence[str], template: str = TEMPLATE) -> Tensor:
        """Names to query vectors (Q, D), each put into `template`. StudyError without a name."""
        names = [names] if isinstance(names, str) else list(names)
        if not names or not all(isinstance(n, str) and n.strip() for n in names):
            raise StudyError(
                "A detector needs at least one query, and no empty one; name the "
                'objects to look for, for example ["cat", "dog"].'
            )
        return embed_queries(self.model, self.tokenizer, [template.format(n) for n in names])

    def shared(self, pixel_values: Tensor) -> Tensor:
        """The tokens that enter the last layer, class token first: (B, 1 + N, C)."""
        return self.vision(pixel_values=pixel_values, output_hidden_states=True).hidden_states[-2]

    def predict(self, shared: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, N, Q) and boxes (B, N, 4), cx cy w h as shares of the picture."""
        return heads(self.model, resume(self.model, shared), queries, self.model.box_bias)


def load_detector(folder: Path, name: str, dtype, device) -> Detector:
    """Load an `OwlViTForObjectDetection` checkpoint from a folder. Raises StudyError."""
    config = checkpoint.read_json(
        folder / "config.json", "a detector's folder needs the Hugging Face layout"
    )
    if config.get("model_type") != "owlvit":
        raise StudyError(
            f"{folder} holds a {config.get('model_type')!r} model, not an OWL-ViT detector; give "
            'one whose config.json says model_type "owlvit".'
        )
    tokenizer = checkpoint.load_tokenizer(folder)
    processor = checkpoint.load_processor(folder)
    model = checkpoint.load_weights(OwlViTForObjectDetection, folder, dtype).to(device)
    return Detector(name, model, tokenizer, processor)


def corners(boxes: Tensor) -> Tensor:
    """cx cy w h to x0 y0 x1 y1 (..., 4)."""
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half], -1)
