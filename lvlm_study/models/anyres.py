"""LLaVA-NeXT and LLaVA-OneVision: the whole image small, then the same image large, in tiles.

The prompt order is: the small view's patches, then the large picture read row by row *across* tiles
(not tile by tile), without the rows or columns that are only padding, each row closed by a newline
token. OneVision shrinks a feature grid that is too large, so one token may blend several patches.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration, LlavaOnevisionForConditionalGeneration
from transformers.image_processing_utils import select_best_resolution

from ..errors import StudyError
from ..pixels.preprocess import Plan, Size, Spec, filter_name
from .base import Bound
from .geometry import Geometry, boxes_of, used_pixels
from .llava import Llava, edge_pair, normalisation


class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration` (LLaVA-1.6): a base view and up to four tiles."""

    model_class = LlavaNextForConditionalGeneration
    several = False  # OneVision cuts no tiles then, and NeXT's differ in number
    fallback = "USER: {image}\n{question} ASSISTANT:"

    def check(self) -> None:
        """Tiles must have the encoder's size, and both files must list the same resolutions."""
        super().check()
        p, config = self.processor, self.model.config
        tile = self.view_size()
        if edge_pair(p.size) != tile or any(s % tile[0] for r in p.image_grid_pinpoints for s in r):
            raise StudyError(
                f"The tiles of {self.name} do not fit its processor: size {edge_pair(p.size)}, "
                f"tile {tile}; correct preprocessor_config.json."
            )
        if [list(r) for r in p.image_grid_pinpoints] != [
            list(r) for r in config.image_grid_pinpoints
        ]:
            raise StudyError(
                f"image_grid_pinpoints differ between config.json and preprocessor_config.json of "
                f"{self.name}; make them agree."
            )

    def geometry_for(self, size: Size) -> Geometry:
        """A base view and the tiles of the best resolution, with the boxes of all their tokens."""
        large = select_best_resolution(size, self.processor.image_grid_pinpoints)
        plan = Plan(size, self._specs(size, large), **normalisation(self.processor))
        base, tiled = plan.views
        side = self.view_size()[0]
        edges = self.patch_rows()
        rows, columns = (self.patch_rows(n // side) for n in large)
        boxes = [boxes_of(base, edges, edges).flatten(0, 1)]
        boxes.append(self._large_boxes(tiled, rows, columns, size))
        used = ((used_pixels(side, edges),) * 2, _used(large, rows, columns))
        return Geometry(plan, torch.cat(boxes), used)

    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Base view and tiles in one tensor, (B, 1 + T, 3, side, side)."""
        return {"pixel_values": torch.cat(views, 1)}  # (B, 1 + T, 3, side, side)

    def extras(self, bound: Bound, B: int, A: int) -> dict[str, Tensor]:
        """The image's size, from which the model works out its tiling again."""
        return self.encoder_extras(bound, B)

    def encoder_extras(self, bound: Bound, B: int) -> dict[str, Tensor]:
        """The image's size, (B, 2) as height and width."""
        return {"image_sizes": torch.tensor([bound.size] * B, device=self.device)}

    def shrunk(self, rows: int, columns: int) -> tuple[int, int]:
        """Size of the feature grid after the model's own shrinking; NeXT keeps it."""
        return rows, columns

    def _specs(self, size: Size, large: Size) -> list[Spec]:
        name, side = filter_name(self.processor.resample), self.view_size()
        inner = fit_inside(size, large)
        # the extra pixel of an odd border goes below and to the right
        window = tuple(
            (-((b - i) // 2), b - (b - i) // 2) for i, b in zip(inner, large, strict=True)
        )
        return [Spec(side, name), Spec(inner, name, window, tile=side[0])]

    def _large_boxes(self, view, rows: np.ndarray, columns: np.ndarray, size: Size) -> Tensor:
        top, left = unpadded(size, (len(rows), len(columns)))
        rows, columns = rows[top : len(rows) - top], columns[left : len(columns) - left]
        R, C = self.shrunk(len(rows), len(columns))
        grid = boxes_of(view, blended(rows, R), blended(columns, C))  # (R, C, 4)
        newline = torch.full((R, 1, 4), float("nan"))
        return torch.cat([grid, newline], 1).flatten(0, 1)

    def merged(self, bound: Bound, patches: Tensor) -> Tensor:
        """As in Adapter: the model's own packing of base view, tiles and newlines (zero here)."""
        config = self.model.config
        options = {"image_newline": patches.new_zeros(1)}
        if hasattr(config, "vision_aspect_ratio"):
            options["vision_aspect_ratio"] = config.vision_aspect_ratio
        else:
            options["vision_feature_select_strategy"] = config.vision_feature_select_strategy
        pack = self.model.model.pack_image_features
        packed, _ = pack([patches[..., None]], torch.tensor([bound.size]), **options)
        return packed[0][:, 0]


class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`: up to 36 tiles, the feature grid shrunk to fit."""

    model_class = LlavaOnevisionForConditionalGeneration
    fallback = "<|im_start|>user {image}\n{question}<|im_end|><|im_start|>assistant\n"

    def shrunk(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of tile features after the limit of `anyres_max_N`."""
        # `anyres_max_N`: no more features than N tiles hold, if that is a reduction worth making
        most = int(self.model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        side = len(self.patch_rows())
        ratio = math.sqrt(rows * columns / (most * side**2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


def fit_inside(size: Size, canvas: Size) -> Size:
    """The largest size of the same aspect ratio inside `canvas`, rounded up."""
    across, down = canvas[1] / size[1], canvas[0] / size[0]
    if across < down:
        return min(math.ceil(size[0] * across), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(size[1] * down), canvas[1])


def unpadded(size: Size, grid: tuple[int, int]) -> tuple[int, int]:
    """Feature rows dropped at top and bottom, columns dropped left and right, as pure padding."""
    (height, width), (rows, columns) = size, grid
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


def blended(edges: np.ndarray, count: int) -> np.ndarray:
    """Pixel edges (count, 2) when patches (n, 2) are shrunk to `count` by linear interpolation.

    Asks torch which patches carry weight, so the box is exactly what the token is made of.
    """
    if count == len(edges):
        return edges
    unit = torch.eye(len(edges))[None]  # (1, n, n): one channel per patch
    weight = F.interpolate(unit, size=count, mode="linear")[0].numpy() != 0  # (n, count)
    first = weight.argmax(0)
    last = len(edges) - 1 - weight[::-1].argmax(0)
    return np.stack([edges[first, 0], edges[last, 1]], 1)


def _used(large: Size, rows: np.ndarray, columns: np.ndarray):
    return used_pixels(large[0], rows), used_pixels(large[1], columns)
