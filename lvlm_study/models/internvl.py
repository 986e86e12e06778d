"""InternVL: the image squashed onto a grid of square tiles, and a thumbnail of all of it last.

The grid (columns x rows, at most 12 tiles) is the one nearest in aspect ratio. Each tile's patches
are merged two by two into tokens; tokens follow tile by tile. A single tile has no thumbnail.
"""

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from ..errors import StudyError
from ..pixels.preprocess import Plan, Size, Spec, filter_name
from .alone import locked
from .base import Adapter, Bound
from .geometry import Geometry, patch_edges, tile_boxes, used_pixels
from .llava import edge_pair, normalisation


class InternVL(Adapter):
    """`InternVLForConditionalGeneration` (InternVL2.5, InternVL3 in the `-hf` layout)."""

    model_class = InternVLForConditionalGeneration
    fallback = "<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def check(self) -> None:
        """Processor and encoder must agree on the side of a tile, a square."""
        sides = list(self.model.config.vision_config.image_size)
        if list(edge_pair(self.processor.size)) != sides or sides[0] != sides[1]:
            raise StudyError(
                f"The processor of {self.name} makes tiles of {edge_pair(self.processor.size)} "
                f"pixels but its encoder reads {sides}; preprocessor_config.json and config.json "
                "do not belong together."
            )

    def image_text(self, geometry: Geometry) -> str:
        """The image's tokens between the two words that mark its ends."""
        tokenizer = self.tokenizer
        start = getattr(tokenizer, "start_image_token", "<img>")
        end = getattr(tokenizer, "end_image_token", "</img>")
        return start + super().image_text(geometry) + end

    def geometry_for(self, size: Size) -> Geometry:
        """The tiles of the best canvas, and a view of the whole where there are several."""
        p, side = self.processor, self.processor.size.height
        # The processor class leaves tiling off; InternVL's own processor switches it on.
        columns, rows = get_optimal_tiled_canvas(size, (side, side), p.min_patches, p.max_patches)
        name = filter_name(p.resample)
        specs = [Spec((rows * side, columns * side), name, tile=side)]
        if rows * columns > 1:
            specs.append(Spec((side, side), name, tile=side))
        plan = Plan(size, specs, **normalisation(p))
        boxes = [self.tile_boxes(view) for view in plan.views]
        used = tuple(self.used(view) for view in plan.views)
        return Geometry(plan, torch.cat(boxes), used)

    def cell(self) -> int:
        """Side of a token in view pixels: a patch, times the merging factor."""
        config = self.model.config
        return int(config.vision_config.patch_size[0] / config.downsample_ratio)

    def tile_boxes(self, view) -> Tensor:
        """Token boxes of a tiled view, tile by tile: (T * n * n, 4)."""
        return tile_boxes(view, self.cell())

    def used(self, view):
        """Rows and columns of a view that its tokens read."""
        edges = (patch_edges(view.tile, self.cell(), n // view.tile) for n in view.size)
        return tuple(used_pixels(n, e) for n, e in zip(view.size, edges, strict=True))

    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """All tiles of all pictures in one batch, (B * T, 3, side, side)."""
        return {"pixel_values": torch.cat(views, 1).flatten(0, 1)}  # (B * T, 3, side, side)

    @locked
    def encode(self, bound: Bound, x: Tensor) -> Tensor:
        """As in Adapter; the tokens of a picture's tiles stand behind each other."""
        out = self.model.model.get_image_features(**bound.pixels(x)).pooler_output
        return out.unflatten(0, (len(x), -1)).flatten(1, 2)  # (B, N, D)

    def wrap(self, features: Tensor) -> dict:
        """Features as the encoder would return them, tile by tile."""
        per_tile = (self.processor.size.height // self.cell()) ** 2
        tiles = features.unflatten(1, (-1, per_tile)).flatten(0, 1)
        return {"image": BaseModelOutputWithPooling(pooler_output=tiles)}

    def merged(self, bound: Bound, patches: Tensor) -> Tensor:
        """As in Adapter: the patches of a cell become the channels of one token."""
        side = int(patches.shape[1] ** 0.5)
        grid = patches.view(len(patches), side, side, 1)
        factor = self.model.config.downsample_ratio
        return self.model.model.pixel_shuffle(grid, scale_factor=factor).mean(-1).flatten()
