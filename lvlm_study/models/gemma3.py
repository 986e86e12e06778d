"""Gemma 3: the whole image squashed to one square, 256 pooled tokens that see one another.

With pan-and-scan, if preprocessor_config.json switches it on, elongated images also come as a few
crops after the whole (transformers' own processor ignores that switch unless asked in the call).
Image tokens attend to each other in both directions only if `token_type_ids` mark them; without
these the model runs on silently with other numbers, so they are always given here.
"""

import itertools
import math

import torch
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..errors import StudyError
from ..pixels.preprocess import Plan, Size, Spec, filter_name
from .alone import locked
from .base import Adapter, Bound
from .geometry import Geometry, boxes_of, patch_edges, used_pixels
from .llava import edge_pair, normalisation


class Gemma3(Adapter):
    """`Gemma3ForConditionalGeneration` (4b, 12b, 27b)."""

    model_class = Gemma3ForConditionalGeneration
    fallback = "<start_of_turn>user\n{image}{question}<end_of_turn>\n<start_of_turn>model\n"

    def check(self) -> None:
        """Processor and encoder must agree on the side of a view."""
        side = self.model.config.vision_config.image_size
        if edge_pair(self.processor.size) != (side, side):
            raise StudyError(
                f"The processor of {self.name} makes {edge_pair(self.processor.size)} views but "
                f"its encoder reads {side} pixels; preprocessor_config.json and config.json do "
                "not belong together."
            )

    @property
    def placeholder(self) -> str:
        """The token that begins an image, which Gemma's template writes for it."""
        return self.tokenizer.convert_ids_to_tokens(self.model.config.boi_token_index)

    def image_text(self, geometry: Geometry) -> str:
        """The whole image, and the words that introduce its crops if there are any."""
        end = self.tokenizer.convert_ids_to_tokens(self.model.config.eoi_token_index)
        tokens = self.image_token * self.model.config.mm_tokens_per_image
        whole = f"\n\n{self.placeholder}{tokens}{end}\n\n"
        crops = len(geometry.plan.views) - 1
        if not crops:
            return whole
        return (
            f"Here is the original image {whole} and here are some crops to help you see better "
            + " ".join([whole] * crops)
        )

    def geometry_for(self, size: Size) -> Geometry:
        """One view of the whole image, and one a crop where pan-and-scan asks for crops."""
        side, name = edge_pair(self.processor.size), filter_name(self.processor.resample)
        specs = [Spec(side, name)]
        for (top, left), crop in self.crops(size):
            specs.append(Spec(side, name, canvas=crop, offset=(-top, -left)))
        plan = Plan(size, specs, **normalisation(self.processor))
        edges = patch_edges(side[0], self.cell())
        boxes = [boxes_of(view, edges, edges).flatten(0, 1) for view in plan.views]
        used = (used_pixels(side[0], edges),) * 2
        return Geometry(plan, torch.cat(boxes), (used,) * len(specs))

    def cell(self) -> int:
        """Side of a token in view pixels: the patches that are pooled into it."""
        config = self.model.config
        patches = config.vision_config.image_size // config.vision_config.patch_size
        return patches // math.isqrt(config.mm_tokens_per_image) * config.vision_config.patch_size

    def crops(self, size: Size) -> list[tuple[tuple[int, int], Size]]:
        """Pan-and-scan crops as ((top, left), (height, width)); none if switched off or square."""
        p = self.processor
        long, short = max(size), min(size)
        if not p.do_pan_and_scan or long / short < p.pan_and_scan_min_ratio_to_activate:
            return []
        count = min(long // p.pan_and_scan_min_crop_size, math.floor(long / short + 0.5))
        count = min(p.pan_and_scan_max_num_crops, max(2, count))
        length = math.ceil(long / count)
        if min(length, short) < p.pan_and_scan_min_crop_size:
            return []
        starts = itertools.takewhile(lambda s: s < long, range(0, length * count, length))
        spans = [(s, min(length, long - s)) for s in starts]  # the last may be shorter
        if size[1] >= size[0]:
            return [((0, s), (short, n)) for s, n in spans]
        return [((s, 0), (n, short)) for s, n in spans]

    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """All views of all pictures in one batch, (B * views, 3, side, side)."""
        return {"pixel_values": torch.cat(views, 1).flatten(0, 1)}  # (B * views, 3, side, side)

    def extras(self, bound: Bound, B: int, A: int) -> dict[str, Tensor]:
        """Which tokens are an image's: those attend to each other in both directions."""
        image = bound.image_span.long()
        kinds = torch.cat([image, image.new_zeros(A)]).repeat(B, 1)  # (B, P + A), 1 = image
        return {"token_type_ids": kinds.to(self.device)}

    @locked
    def encode(self, bound: Bound, x: Tensor) -> Tensor:
        """As in Adapter; the tokens of a picture's views stand behind each other."""
        out = self.model.model.get_image_features(**bound.pixels(x)).pooler_output
        return out.unflatten(0, (len(x), -1)).flatten(1, 2)  # (B, N, D)

    def wrap(self, features: Tensor) -> dict:
        """Features as the encoder would return them, view by view."""
        views = features.unflatten(1, (-1, self.model.config.mm_tokens_per_image)).flatten(0, 1)
        return {"image": BaseModelOutputWithPooling(pooler_output=views)}

    def merged(self, bound: Bound, patches: Tensor) -> Tensor:
        """As in Adapter: the projector's average pooling."""
        side = int(patches.shape[1] ** 0.5)
        grid = patches.view(len(patches), 1, side, side)
        return self.model.model.multi_modal_projector.avg_pool(grid).flatten()
