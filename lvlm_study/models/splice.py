"""Visual tokens into the prompt: what Cambrian and Mini-Gemini share around their language model.

The prompt carries one placeholder id per visual token, so that masks, positions and caches of the
language model need no change; the placeholders' embeddings are replaced by the visual tokens.
"""

import torch
from torch import Tensor, nn
from transformers import AddedToken, AutoModelForCausalLM

from ..errors import StudyError
from ..pixels.preprocess import Size, Spec, square_padding
from .base import Adapter
from .towers import CLIP_MEAN, CLIP_STD

IMAGE = "<image>"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
    "USER: {image}\n{question} ASSISTANT:"
)


def image_positions(input_ids: Tensor, image_id: int, expected: int) -> Tensor:
    """Where the placeholders are, bool (B, S); their number must be `expected` over the batch."""
    where = input_ids == image_id
    found = int(where.sum())
    if found != expected:
        raise StudyError(
            f"The prompts hold {found} image placeholders (id {image_id}) but the images give "
            f"{expected} visual tokens; expand the placeholder once per visual token."
        )
    return where


def splice(embedding: nn.Module, input_ids: Tensor, where: Tensor, tokens: Tensor) -> Tensor:
    """Embed the prompt (B, S) and put `tokens` (N, D) at `where`, in order: (B, S, D)."""
    embeds = embedding(input_ids.masked_fill(where, 0))  # the placeholder id may be no real id
    return embeds.masked_scatter(where[..., None], tokens.to(embeds))


class SeesOnce:
    """Mixin for generation: with a cache, only the first step looks at the image."""

    vision_inputs = ("pixel_values", "image_sizes", "mm_encoder_outputs")

    def prepare_inputs_for_generation(self, input_ids, is_first_iteration=False, **kwargs):
        """As in transformers, without the picture once its keys and values are cached."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and inputs.get("use_cache", True):
            for name in self.vision_inputs:
                inputs.pop(name, None)
        return inputs


class Spliced(Adapter):
    """What the adapters of Cambrian and Mini-Gemini share.

    Released checkpoints have neither an image token nor their training prompt in the tokenizer:
    the token is added behind the vocabulary (it is never embedded), the prompt is ours to know.
    Checkpoints made here carry both, like any Hugging Face model.
    """

    model_class = AutoModelForCausalLM
    fallback = VICUNA
    needs_processor = False  # config.json says all about preprocessing

    def __init__(self, name, model, tokenizer, processor, template):
        self.released = model.config.released
        if self.released:
            template = None
            tokenizer.add_tokens([AddedToken(IMAGE, special=True)], special_tokens=True)
            model.config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
        super().__init__(name, model, tokenizer, processor, template)
        if self.released:
            self.fallback = self.official_prompt

    @property
    def official_prompt(self) -> str:
        """The prompt, with {image} and {question}, that the released model was trained with."""
        return VICUNA

    def _warn_fallback(self) -> None:
        if not self.released:
            super()._warn_fallback()

    def _tokenize(self, text: str, image_text: str) -> Tensor:
        """The text before and behind the image is tokenized apart, as in training."""
        before, _, behind = text.partition(self.image_token)
        bos = self.tokenizer.bos_token
        special = not (bos and text.startswith(bos))
        head = self.tokenizer(before, add_special_tokens=special).input_ids
        tail = self.tokenizer(behind, add_special_tokens=False).input_ids
        image = [self.image_token_id] * (len(image_text) // len(self.image_token))
        return torch.tensor([[*head, *image, *tail]])


def square_spec(size: Size, tower: dict) -> Spec:
    """Pad to a square in the tower's mean colour, then one bicubic resize to its side."""
    canvas, offset = square_padding(size)
    colour = tuple(float(int(m * 255)) for m in tower.get("pad_mean", CLIP_MEAN))
    side = tower["image_size"]
    return Spec((side, side), canvas=canvas, offset=offset, colour=colour)


def normalise(view: Tensor, tower: dict) -> Tensor:
    """Pictures (..., 3, h, w) in [0, 1] by the tower's mean and deviation, CLIP's by default."""
    mean = view.new_tensor(tower.get("image_mean", CLIP_MEAN)).view(3, 1, 1)
    std = view.new_tensor(tower.get("image_std", CLIP_STD)).view(3, 1, 1)
    return (view - mean) / std
