"""LLaVA-1.5: one square view of the image, one visual token per patch of it.

The view is a resize with centre crop (the Hugging Face checkpoints), a padded square (the original
LLaVA, `do_pad`), or a plain squash, as the checkpoint's processor config says.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from ..errors import StudyError
from ..pixels.preprocess import (
    Plan,
    Size,
    Spec,
    centre_window,
    filter_name,
    shortest_edge,
    square_padding,
)
from .base import Adapter, Bound
from .geometry import Geometry, boxes_of, patch_edges, used_pixels

TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0}  # tokens before the first patch


class Llava(Adapter):
    """`LlavaForConditionalGeneration` with a CLIP or SigLIP encoder."""

    model_class = LlavaForConditionalGeneration
    several = True
    fallback = "USER: {image}\n{question} ASSISTANT:"

    def check(self) -> None:
        """The encoder must be a known one, and its side that of the processor."""
        vision = self.model.config.vision_config
        if vision.model_type not in TOWERS:
            raise StudyError(
                f"{self.name} has a {vision.model_type!r} vision encoder, which is not supported "
                f"here; supported: {', '.join(TOWERS)}."
            )
        if self.view_size() != (vision.image_size, vision.image_size):
            raise StudyError(
                f"The processor of {self.name} makes {self.view_size()} views but its encoder "
                f"reads {vision.image_size} pixels; preprocessor_config.json and config.json do "
                "not belong together."
            )

    def view_size(self) -> Size:
        """Size of the picture that the processor hands to the encoder."""
        p = self.processor
        box = p.crop_size if p.do_center_crop else p.size
        return edge_pair(box)

    def geometry_for(self, size: Size) -> Geometry:
        """One view; a token a patch, and one for the class token where the model keeps it."""
        plan = Plan(size, [self._spec(size)], **normalisation(self.processor))
        edges = self.patch_rows()
        boxes = boxes_of(plan.views[0], edges, edges).flatten(0, 1)
        used = used_pixels(plan.views[0].rows.length, edges)
        boxes = torch.cat([self._class_box(size), boxes])[self.dropped() :]
        return Geometry(plan, boxes, ((used, used),))

    def patch_rows(self, tiles: int = 1) -> np.ndarray:
        """Pixel edges of the patch rows (and columns) of `tiles` tiles."""
        vision = self.model.config.vision_config
        return patch_edges(vision.image_size, vision.patch_size, tiles)

    def dropped(self) -> int:
        """How many leading encoder tokens the model throws away."""
        return int(self.model.config.vision_feature_select_strategy == "default")

    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """The one view, (B, 3, side, side)."""
        return {"pixel_values": views[0][:, 0]}

    def _class_box(self, size: Size) -> Tensor:
        """The class token looks at the whole image; SigLIP has none."""
        whole = torch.tensor([[0.0, 0.0, size[1], size[0]]])
        return whole[: TOWERS[self.model.config.vision_config.model_type]]

    def _spec(self, size: Size) -> Spec:
        p = self.processor
        canvas, offset, colour = size, (0, 0), (0.0, 0.0, 0.0)
        if p.do_pad:  # also where the file names CLIP's processor, which pads only at the end
            canvas, offset = square_padding(size)
            colour = tuple(float(int(m * 255)) for m in p.image_mean)
        resized = target_size(canvas, p.size) if p.do_resize else canvas
        window = centre_window(resized, edge_pair(p.crop_size)) if p.do_center_crop else None
        return Spec(resized, filter_name(p.resample), window, canvas, offset, colour)

    def merged(self, bound: Bound, patches: Tensor) -> Tensor:
        """As in Adapter: a patch is a token; a class token comes first and may be dropped."""
        tokens = torch.cat([patches.new_zeros(1), patches[0]])
        return tokens[-len(bound.token_boxes) :]


def edge_pair(size) -> Size:
    """(height, width) of a processor's size entry; a shortest edge means a square."""
    if size.height and size.width:
        return size.height, size.width
    return size.shortest_edge, size.shortest_edge


def target_size(canvas: Size, size) -> Size:
    """What a picture of `canvas` pixels is resized to, by a processor's size entry."""
    if size.shortest_edge:
        return shortest_edge(canvas, size.shortest_edge)
    return size.height, size.width


def normalisation(processor) -> dict:
    """Mean, deviation and scale of a processor, as `Plan` takes them."""
    on = processor.do_normalize
    return {
        "mean": tuple(processor.image_mean) if on else (0.0,) * 3,
        "std": tuple(processor.image_std) if on else (1.0,) * 3,
        "scale": processor.rescale_factor if processor.do_rescale else 1.0,
    }
