"""Idefics3 and SmolVLM: resized three times, cut into tiles, the whole image last.

Lanczos to a longest edge, Lanczos up to whole tiles, and for the last view Lanczos down to one
tile. The prompt names each tile by row and column. The model drops tiles whose values are all
exactly zero, taking them for padding, and then stops because tokens are missing; such tiles get
a millionth added here.
"""

import math

import torch
from torch import Tensor
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration

from ..errors import StudyError
from ..pixels.preprocess import Plan, Size, Spec, filter_name
from .base import Adapter, Bound
from .geometry import Geometry, patch_edges, tile_boxes, used_pixels
from .llava import normalisation

FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"
LONGEST = 4096  # no picture is made larger, whatever the processor's size says


class Idefics3(Adapter):
    """`Idefics3ForConditionalGeneration`."""

    model_class = Idefics3ForConditionalGeneration
    fallback = "User:{image}{question}<end_of_utterance>\nAssistant:"

    def check(self) -> None:
        """Processor and encoder must agree on the side of a tile."""
        side = self.model.config.vision_config.image_size
        if self.tile_side() != side:
            raise StudyError(
                f"The processor of {self.name} makes tiles of {self.tile_side()} pixels but its "
                f"encoder reads {side}; preprocessor_config.json and config.json do not belong "
                "together."
            )

    def tile_side(self) -> int:
        """Side of a tile in pixels."""
        return self.processor.max_image_size["longest_edge"]

    def image_text(self, geometry: Geometry) -> str:
        """Tiles row by row, each behind its place, then the whole image."""
        side, tiled = self.tile_side(), geometry.plan.views[0]
        tokens = self.image_token * (side // self.cell()) ** 2
        whole = f"{FAKE}{GLOBAL}{tokens}{FAKE}"
        if len(geometry.plan.views) == 1:
            return whole
        down, across = (n // side for n in tiled.size)
        rows = (
            "".join(f"{FAKE}<row_{r + 1}_col_{c + 1}>{tokens}" for c in range(across)) + "\n"
            for r in range(down)
        )
        return "".join(rows) + "\n" + whole

    def geometry_for(self, size: Size) -> Geometry:
        """Tiles and the whole image, with the boxes of all their tokens."""
        plan = Plan(size, self._specs(size), **normalisation(self.processor))
        boxes = torch.cat([tile_boxes(view, self.cell()) for view in plan.views])
        return Geometry(plan, boxes, tuple(self._used(view) for view in plan.views))

    def cell(self) -> int:
        """Side of a token in view pixels: a patch, times the connector's merging factor."""
        return self.model.config.vision_config.patch_size * self.model.config.scale_factor

    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """All tiles, with a mask that shows everything.

        The model drops tiles that are zero all over, as padding. One that is black by chance must
        stay, so it gets a value that no one can see.
        """
        tiles = torch.cat(views, 1)  # (B, T, 3, side, side)
        blank = (tiles == 0).flatten(2).all(-1)[..., None, None, None]
        mask = torch.ones_like(tiles[:, :, 0], dtype=torch.long)
        return {"pixel_values": tiles + 1e-6 * blank, "pixel_attention_mask": mask}

    def _specs(self, size: Size) -> list[Spec]:
        p, side = self.processor, self.tile_side()
        name = filter_name(p.resample)
        first = Spec(fit_longest(size, p.size.longest_edge), name)
        if not p.do_image_splitting:
            return [Spec((side, side), name, tile=side, first=first)]
        whole = Spec(whole_tiles(first.resized, side), name, tile=side, first=first)
        if whole.resized == (side, side):
            return [whole]
        return [whole, Spec((side, side), name, tile=side, first=whole)]

    def _used(self, view):
        edges = (patch_edges(view.tile, self.cell(), n // view.tile) for n in view.size)
        return tuple(used_pixels(n, e) for n, e in zip(view.size, edges, strict=True))

    def merged(self, bound: Bound, patches: Tensor) -> Tensor:
        """As in Adapter: the patches of a cell become the channels of one token."""
        connector = self.model.model.connector
        shuffled = connector.pixel_shuffle(patches[..., None], connector.scale_factor)
        return shuffled.mean(-1).flatten()


class SmolVLM(Idefics3):
    """`SmolVLMForConditionalGeneration`."""

    model_class = SmolVLMForConditionalGeneration
    fallback = "<|im_start|>User:{image}{question}<end_of_utterance>\nAssistant:"


def fit_longest(size: Size, edge: int) -> Size:
    """Resize so that the longer side becomes `edge` and the other an even number, rounded up."""
    height, width = size
    ratio = width / height
    short = int(edge / ratio) if width >= height else int(edge * ratio)
    short = max(short + short % 2, 1)
    if edge > LONGEST:
        ratio = edge / short
        edge, short = LONGEST, max(int(LONGEST / ratio), 1)
    return (short, edge) if width >= height else (edge, short)


def whole_tiles(size: Size, side: int) -> Size:
    """The next size up that whole tiles fill; the shorter side follows the longer one first."""
    height, width = size
    ratio = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / ratio) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * ratio) / side) * side
