"""Mini-Gemini (MGM): low-resolution CLIP tokens fetch detail from a high-resolution ConvNeXt map.

The image comes as ONE high-resolution square; the CLIP views are shrunk from it inside the model.
Every CLIP token is a query and attends to the window of the ConvNeXt map that covers the same
square of the image ("patch info mining"); what it finds is added to it. The HD variant cuts the
CLIP view into 2×2 tiles, mines each in its quadrant, and puts a global view before them.
Source: Li et al. 2024, "Mini-Gemini", arXiv 2403.18814, section 3.
"""

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..errors import StudyError
from ..pixels.preprocess import Plan, Size
from .base import Bound
from .convnext import multi_stage, resize_map
from .encoders import Encoder, SquareGrid, blocks, even_edges, stages
from .geometry import Geometry, boxes_of
from .splice import SeesOnce, Spliced, image_positions, splice, square_spec
from .towers import (
    CLIP_MEAN,
    CLIP_STD,
    RELEASED,
    build_encoder,
    feature_width,
    load_encoder,
    open_clip_file,
)

CLIP_SOURCE = "openai/clip-vit-large-patch14-336"
CONVNEXT_SOURCE = "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"
CONVNEXT_LARGE = {
    "model_type": "convnext_trunk",
    "depths": [3, 3, 27, 3],
    "dims": [192, 384, 768, 1536],
    "eps": 1e-6,
}


class MGMConfig(LlamaConfig):
    """Llama's configuration with the two towers, the projector and the tiling.

    `vision_config` and `vision_config_aux` describe the towers of a self-contained checkpoint;
    None means the released CLIP-L/14-336 and ConvNeXt-L.
    """

    model_type = "mgm"
    attribute_map = {"image_token_id": "image_token_index"}
    vision_config: dict | None = None
    vision_config_aux: dict | None = None
    image_size_aux: int = 768
    image_grid: int = 1
    image_global: bool = False
    image_token_index: int = -200
    mm_vision_select_layer: int = -2

    def clip_spec(self) -> dict:
        """Settings of the low-resolution tower."""
        return self.vision_config or RELEASED[CLIP_SOURCE][1]

    def convnext_spec(self) -> dict:
        """Settings of the high-resolution tower."""
        return self.vision_config_aux or CONVNEXT_LARGE

    @property
    def released(self) -> bool:
        """Whether this is an official checkpoint: known towers, no chat template."""
        return self.vision_config is None

    @property
    def view_side(self) -> int:
        """CLIP tokens along one side of a view."""
        return self.clip_spec()["image_size"] // self.clip_spec()["patch_size"]

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one image, the same for every image size."""
        return (self.image_grid**2 + bool(self.image_global)) * self.view_side**2

    def check(self) -> None:
        """Refuse sizes whose windows would not tile the high-resolution map."""
        cells = self.view_side * self.image_grid
        if self.image_size_aux % (4 * cells):
            raise StudyError(
                f"Mini-Gemini needs image_size_aux to be a multiple of {4 * cells} (four pixels "
                f"per ConvNeXt cell, {cells} CLIP tokens a side), not {self.image_size_aux}."
            )
        if self.image_global and self.image_grid == 1:
            raise StudyError("Mini-Gemini's image_global needs image_grid above 1.")


def views(image: Tensor, size: int, grid: int, with_global: bool) -> Tensor:
    """CLIP views of a normalised square: (B, 3, S, S) to (B, T, 3, size, size).

    Plain bilinear shrinking without antialiasing, as the model was trained; tiles are row-major
    and the global view, shrunk from the tiled one, comes last.
    """
    low = resize_map(image, (size * grid, size * grid))
    tiles = quadrants(low, grid)
    if with_global:
        tiles.append(resize_map(low, (size, size)))
    return torch.stack(tiles, dim=1)


def quadrants(x: Tensor, grid: int) -> list[Tensor]:
    """Cut (B, C, g*s, g*s) into g² tiles (B, C, s, s), row-major."""
    return [tile for row in x.chunk(grid, dim=-2) for tile in row.chunk(grid, dim=-1)]


def map_windows(x: Tensor, side: int) -> Tensor:
    """Group a map (B, C, H, H) by CLIP token: (B, side², (H/side)², C), row-major."""
    r = x.shape[-1] // side
    cells = x.unflatten(3, (side, r)).unflatten(2, (side, r))  # (B, C, side, r, side, r)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


class ClipHolder(nn.Module):
    """Keeps the released nesting `vision_tower.vision_tower.*` around CLIP."""

    def __init__(self, spec: dict):
        super().__init__()
        self.vision_tower = build_encoder({**spec, "model_type": "clip_vision_model"})

    def forward(self, x: Tensor, layer: int) -> Tensor:
        """Tokens (B, n², C) of hidden state `layer`, without the class token."""
        return self.vision_tower(x, output_hidden_states=True).hidden_states[layer][:, 1:]


class MGMLlamaModel(LlamaModel):
    """Llama with the two towers, patch info mining and the projector."""

    config_class = MGMConfig
    _no_split_modules = ("LlamaDecoderLayer", "ClipHolder", "ConvNeXt")

    def __init__(self, config: MGMConfig):
        super().__init__(config)
        config.check()
        clip, convnext = config.clip_spec(), config.convnext_spec()
        dim, width = clip["hidden_size"], config.hidden_size
        self.vision_tower = ClipHolder(clip)
        self.vision_tower_aux = build_encoder({**convnext, "prefix": "vision_"})
        self.mm_projector = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        self.vlm_uni_query_projector = _norm_linear(dim, dim)
        self.vlm_uni_aux_projector = _norm_linear(feature_width(convnext), dim)
        self.vlm_uni_val_projector = _norm_linear(feature_width(convnext), dim)
        self.post_init()

    def mine(self, low: Tensor, high: Tensor) -> Tensor:
        """Patch info mining: CLIP tokens (B, n², C), map (B, C', H, H) to enriched (B, n², C)."""
        window = map_windows(high, int(low.shape[1] ** 0.5))  # (B, n², r², C')
        query = self.vlm_uni_query_projector(low).to(low.device)[:, :, None]  # (B, n², 1, C)
        projectors = (self.vlm_uni_aux_projector, self.vlm_uni_val_projector)
        keys, values = (part(window).to(low.device) for part in projectors)  # maybe other GPUs
        weights = ((query * keys).sum(-1) * low.shape[-1] ** -0.5).softmax(-1)  # (B, n², r²)
        return low + (weights[..., None] * values).sum(2)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both towers on normalised squares (B, 3, S, S), S = image_size_aux.

        CLIP tokens of every view (B, T, n², C) and the ConvNeXt's stages as one map (B, C', H, H).
        Frozen towers can be run once and kept; `combine` does the rest.
        """
        c = self.config
        tiles = views(image, c.clip_spec()["image_size"], c.image_grid, c.image_global)
        low = self.vision_tower(tiles.flatten(0, 1), c.mm_vision_select_layer)
        maps = self.vision_tower_aux(image)
        return low.unflatten(0, tiles.shape[:2]), multi_stage(maps, tuple(maps[0].shape[-2:]))

    def combine(self, low: Tensor, high: Tensor) -> Tensor:
        """Mine and project: visual tokens (B, N, D), global view first, then row-major tiles."""
        parts = quadrants(high, self.config.image_grid)
        mined = [self.mine(low[:, i], part) for i, part in enumerate(parts)]
        if self.config.image_global:
            mined.insert(0, self.mine(low[:, -1], resize_map(high, tuple(parts[0].shape[-2:]))))
        return self.mm_projector(torch.cat(mined, dim=1))

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """Visual tokens in transformers' form: `pooler_output` lists (N, D) per image."""
        side = self.config.image_size_aux
        if tuple(pixel_values.shape[-2:]) != (side, side):
            raise StudyError(
                f"This Mini-Gemini takes squares of {side} pixels, "
                f"not {tuple(pixel_values.shape[-2:])}."
            )
        tokens = self.combine(*self.encode(pixel_values))
        return BaseModelOutputWithPooling(pooler_output=list(tokens))


def _norm_linear(dim_in: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim_in), nn.Linear(dim_in, dim))


class MGMLlamaForCausalLM(SeesOnce, LlamaForCausalLM):
    """Mini-Gemini 7b, 13b (one view) and 7b-HD, 13b-HD (tiles and global view)."""

    config_class = MGMConfig

    def __init__(self, config: MGMConfig):
        super().__init__(config)
        self.model = MGMLlamaModel(config)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **kwargs):
        """As in transformers; a released checkpoint without its towers gets them from the hub."""
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        towers = {k for k in info["missing_keys"] if k.startswith("model.vision_tower")}
        if towers and model.config.released:
            model.load_towers()
            info["missing_keys"] = set(info["missing_keys"]) - towers
        return (model, info) if output_loading_info else model

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        mm_encoder_outputs: dict | None = None,
        attention_mask: Tensor | None = None,
        **kwargs,
    ):
        """Logits of the prompt `input_ids` (B, S), one placeholder id per visual token.

        pixel_values: normalised squares (B, 3, S, S), S = image_size_aux. Or
        `mm_encoder_outputs={"image": ...}` with the output of `get_image_features`. Everything
        else is Llama's own: attention_mask (2-D or 4-D), position_ids, labels, ...
        """
        kwargs["attention_mask"] = attention_mask
        if mm_encoder_outputs is None and pixel_values is not None:
            mm_encoder_outputs = {"image": self.model.get_image_features(pixel_values)}
        if mm_encoder_outputs is None:
            return super().forward(input_ids=input_ids, **kwargs)
        tokens = torch.cat(list(mm_encoder_outputs["image"].pooler_output))  # (B*N, D)
        where = image_positions(input_ids, self.config.image_token_id, len(tokens))
        embeds = splice(self.get_input_embeddings(), input_ids, where, tokens)
        return super().forward(inputs_embeds=embeds, **kwargs)

    def load_towers(self, clip: str = CLIP_SOURCE, convnext: str = CONVNEXT_SOURCE) -> None:
        """Fetch both towers from their own repositories, for checkpoints that lack them."""
        spec = {**self.config.clip_spec(), "model_type": "clip_vision_model"}
        holder = self.model.vision_tower
        holder.vision_tower = load_encoder(spec, clip, self.dtype).to(self.device)
        self.model.vision_tower_aux.load_open_clip(load_file(open_clip_file(convnext)))


AutoConfig.register(MGMConfig.model_type, MGMConfig)
AutoModelForCausalLM.register(MGMConfig, MGMLlamaForCausalLM)
AutoModelForImageTextToText.register(MGMConfig, MGMLlamaForCausalLM)


class MiniGemini(Spliced):
    """Mini-Gemini: the padded square once, at high resolution; the model cuts its own views."""

    def geometry_for(self, size: Size) -> Geometry:
        """One square at high resolution, from which the model shrinks its other views itself."""
        c = self.model.config
        clip = c.clip_spec()
        mean, std = clip.get("image_mean", CLIP_MEAN), clip.get("image_std", CLIP_STD)
        spec = square_spec(size, {**clip, "image_size": c.image_size_aux})
        plan = Plan(size, [spec], tuple(mean), tuple(std))
        boxes = [self._grid_boxes(plan, c.view_side)] if c.image_global else []
        boxes += _quadrant_boxes(self._grid_boxes(plan, c.view_side * c.image_grid), c)
        used = np.ones(c.image_size_aux, bool)
        flat = torch.cat([b.flatten(0, 1) for b in boxes])
        return Geometry(plan, flat, ((used, used),))

    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """The one square, (B, 3, side, side)."""
        return {"pixel_values": views[0][:, 0]}

    def _grid_boxes(self, plan: Plan, n: int) -> Tensor:
        edges = np.linspace(0, self.model.config.image_size_aux, n + 1)
        edges = np.stack([edges[:-1], edges[1:]], 1)
        return boxes_of(plan.views[0], edges, edges)  # (n, n, 4)

    def encoders(self, bound: Bound) -> list[Encoder]:
        """As in Adapter: CLIP, which sees the tiles too, and the ConvNeXt of the large view."""
        inner, view = self.model.model, bound.geometry.plan.views[0]
        return [
            Encoder("clip", blocks(inner.vision_tower), lambda n: self._clip_boxes(view)),
            Encoder("convnext", stages(inner.vision_tower_aux), SquareGrid(view)),
        ]

    def _clip_boxes(self, view) -> list[Tensor]:
        """The tiles row by row as one picture, then the global view, as the encoder gets them."""
        n, g = self.model.config.view_side, self.model.config.image_grid
        tiled, whole = (
            boxes_of(view, edges, edges)
            for edges in (even_edges(view.size[0], n * g), even_edges(view.size[0], n))
        )
        tiles = tiled.unflatten(1, (g, n)).unflatten(0, (g, n)).transpose(1, 2)  # (g, g, n, n, 4)
        found = [tiles.flatten(2, 3).flatten(0, 1)]
        return [*found, whole.flatten(0, 1)[None]] if self.model.config.image_global else found


def _quadrant_boxes(boxes: Tensor, config: MGMConfig) -> list[Tensor]:
    """(n, n, 4) to one (n/g, n/g, 4) per tile, row-major."""
    tiles = quadrants(boxes.permute(2, 0, 1)[None], config.image_grid)
    return [tile[0].permute(1, 2, 0) for tile in tiles]
