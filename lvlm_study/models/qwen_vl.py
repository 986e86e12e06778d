"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL: the image at (nearly) its own size, 2 x 2 patches a token.

The image is squashed to multiples of the merged patch, within a pixel budget, and handed over as a
flat list of patches ordered block by block. Positions are two-dimensional: the language model
learns from `mm_token_type_ids` which tokens form the image. Qwen2.5-VL accepts their absence
without a word and then reads the image as plain text, so they are always given here.
"""

import warnings

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.vision_utils import get_vision_window_index

from ..errors import StudyError
from ..pixels.preprocess import Plan, Size, Spec, filter_name
from .alone import locked
from .base import Adapter, Bound
from .encoders import Encoder, blocks
from .geometry import Geometry, boxes_of, patch_edges, used_pixels
from .llava import normalisation

MANY = 4096  # visual tokens, of some 3 megapixels, beyond which a picture is remarked on
CHAT = "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"


class Qwen2VL(Adapter):
    """`Qwen2VLForConditionalGeneration`."""

    model_class = Qwen2VLForConditionalGeneration
    several = True
    fallback = SYSTEM + CHAT + ASSISTANT

    def check(self) -> None:
        """Processor and encoder must cut the same patches."""
        p, vision = self.processor, self.model.config.vision_config
        ours = (p.patch_size, p.merge_size, p.temporal_patch_size)
        theirs = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        if ours != theirs:
            raise StudyError(
                f"The processor of {self.name} cuts patches {ours} (side, merge, frames) but its "
                f"encoder reads {theirs}; preprocessor_config.json and config.json do not belong "
                "together."
            )

    def geometry_for(self, size: Size) -> Geometry:
        """One view near the image's own size; a token is a block of merged patches."""
        p = self.processor
        cell = p.patch_size * p.merge_size
        try:
            resized = smart_resize(*size, cell, p.size.shortest_edge, p.size.longest_edge)
        except ValueError as error:
            raise StudyError(
                f"An image of {size} pixels is too elongated for {self.name} ({error}); crop it."
            ) from error
        self._say_many(size, resized[0] * resized[1] // cell**2)
        plan = Plan(size, [Spec(resized, filter_name(p.resample))], **normalisation(p))
        rows, columns = (patch_edges(n, cell) for n in resized)
        boxes = boxes_of(plan.views[0], rows, columns).flatten(0, 1)
        used = tuple(used_pixels(n, e) for n, e in zip(resized, (rows, columns), strict=True))
        return Geometry(plan, boxes, (used,))

    def _say_many(self, size: Size, tokens: int) -> None:
        """The released processors let a photograph of 12 megapixels through as it is."""
        if tokens > MANY:
            warnings.warn(
                f"A picture of {' x '.join(map(str, size))} pixels makes {tokens} visual tokens in "
                f"{self.name}, and memory grows with them; for fewer, reduce the picture or lower "
                "size.longest_edge (in pixels of the whole) in preprocessor_config.json.",
                stacklevel=7,
            )

    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Patches in blocks, (B * patches, 3 * frames * side * side)."""
        p, picture = self.processor, views[0][:, 0]  # (B, 3, h, w)
        patch, merge = p.patch_size, p.merge_size
        cut = picture.unflatten(3, (-1, merge, patch)).unflatten(2, (-1, merge, patch))
        # (B, 3, rows, mr, py, columns, mc, px) -> blocks in reading order, patches within a block
        cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(0, 4)  # (patches, 3, py, px)
        frames = cut[:, :, None].expand(-1, -1, p.temporal_patch_size, -1, -1)
        return {"pixel_values": frames.flatten(1)}  # a still image is a film of equal frames

    def extras(self, bound: Bound, B: int, A: int) -> dict[str, Tensor]:
        """Which tokens are an image's, and the grid of patches."""
        image = (bound.prompt_ids[0] == self.image_token_id).int()
        kinds = torch.cat([image, image.new_zeros(A)]).repeat(B, 1)  # (B, P + A), 1 = image
        return {"mm_token_type_ids": kinds.to(self.device)} | self.encoder_extras(bound, B)

    def encoder_extras(self, bound: Bound, B: int) -> dict[str, Tensor]:
        """The grid of patches as (frames, rows, columns), once a picture."""
        height, width = bound.geometry.plan.views[0].size
        grid = [1, height // self.processor.patch_size, width // self.processor.patch_size]
        return {"image_grid_thw": torch.tensor([grid] * B, device=self.device)}

    def encoders(self, bound: Bound) -> list[Encoder]:
        """As in Adapter; patches come merged cell by merged cell, and in Qwen2.5 by window."""
        patch, merge = self.processor.patch_size, self.processor.merge_size
        view = bound.geometry.plan.views[0]
        grid = boxes_of(view, *(patch_edges(n, patch) for n in view.size))
        cells = grid.unflatten(1, (-1, merge)).unflatten(0, (-1, merge)).transpose(1, 2)
        cells = cells.flatten(0, 1).flatten(1, 2)  # (cells, merge², 4)
        boxes = [cells[self.cell_order(bound)].flatten(0, 1)[None]]
        return [Encoder("vision", blocks(self.vision), lambda n: boxes)]

    def merged(self, bound: Bound, patches: Tensor) -> Tensor:
        """As in Adapter: the mean of each merged cell."""
        cells = patches.view(-1, self.processor.merge_size**2).mean(1)
        return cells[self.cell_order(bound).argsort()]

    def cell_order(self, bound: Bound) -> Tensor:
        """The order in which the encoder's blocks read the merged cells: as they come."""
        return torch.arange(len(bound.token_boxes))


class Qwen25VL(Qwen2VL):
    """`Qwen2_5_VLForConditionalGeneration`: windowed attention in the encoder, same interface."""

    model_class = Qwen2_5_VLForConditionalGeneration

    def cell_order(self, bound: Bound) -> Tensor:
        """As in Qwen2VL; here window by window."""
        grid = self.encoder_extras(bound, 1)["image_grid_thw"].cpu()
        config = self.model.config.vision_config
        size = (config.spatial_merge_size, config.window_size, config.patch_size)
        return get_vision_window_index(grid, *size)[0].cpu()


class Qwen3VL(Qwen2VL):
    """`Qwen3VLForConditionalGeneration`: features also enter the language model's early layers.

    `encode` returns these deeper features beside the first ones, along the last dimension, so that
    the features are all that the language model knows about the image.
    """

    model_class = Qwen3VLForConditionalGeneration
    fallback = CHAT + ASSISTANT

    @locked
    def encode(self, bound: Bound, x: Tensor) -> Tensor:
        """As in Adapter; features for deeper layers follow in the last dimension."""
        inputs = bound.pixels(x) | bound.encoder_extras(len(x))
        out = self.model.model.get_image_features(**inputs)
        levels = [out.pooler_output, *out.deepstack_features]
        levels = torch.cat([torch.cat(list(level)) for level in levels], -1)
        return levels.unflatten(0, (len(x), -1))  # (B, N, D * levels)

    def wrap(self, features: Tensor) -> dict:
        """Features taken apart again: those of the prompt, and those of each deeper layer."""
        width = self.model.config.text_config.hidden_size
        first, *deeper = features.split(width, -1)
        return {
            "image": BaseModelOutputWithDeepstackFeatures(
                pooler_output=list(first), deepstack_features=[list(level) for level in deeper]
            )
        }
