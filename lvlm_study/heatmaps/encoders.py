"""The vision encoders of a model, from outside: their blocks, and where each patch looks.

Visual tokens are what the language model reads; patches are what an encoder works on. A token may
be a patch (LLaVA), several merged patches (Qwen-VL, InternVL, Gemma 3, Idefics3), a blend of
patches (OneVision's shrunk grid), or the answer of a query (Cambrian, Mini-Gemini).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from ..errors import StudyError
from ..models.anyres import LlavaNext
from ..models.base import boxes_of, patch_edges
from ..models.cambrian import Cambrian
from ..models.gemma3 import Gemma3
from ..models.idefics3 import Idefics3
from ..models.internvl import InternVL, tile_boxes
from ..models.mini_gemini import MiniGemini
from ..models.qwen_vl import Qwen2VL, Qwen25VL


@dataclass(frozen=True, eq=False)
class Encoder:
    """One vision encoder.

    `blocks` are its layers, first to last. `boxes(n)` gives, for every picture it is shown, the
    boxes (V, n, 4) of the patches of its V views in the order in which the encoder reads them, in
    image pixels; n patches a view matters only to encoders whose grid changes from block to block.
    """

    name: str
    blocks: list[nn.Module]
    boxes: Callable[[int | None], list[Tensor]]

    @property
    def attention(self) -> list[nn.Module]:
        """The self-attention module of every block."""
        names = ("self_attn", "attn", "attention")
        return [next(getattr(b, n) for n in names if hasattr(b, n)) for b in self.blocks]


def encoders(bound) -> list[Encoder]:
    """All vision encoders of the model behind `bound`, in the model's own order."""
    adapter = bound.adapter
    if isinstance(adapter, Cambrian):
        return _cambrian(bound)
    if isinstance(adapter, MiniGemini):
        return _mini_gemini(bound)
    boxes = _qwen_boxes(bound) if isinstance(adapter, Qwen2VL) else _view_boxes(bound)
    return [Encoder("vision", blocks(adapter.vision), lambda n: boxes)]


def single_encoder(bound, what: str) -> Encoder:
    """The encoder of a family in which a visual token is a fixed mixture of patches.

    Raises StudyError for Cambrian and Mini-Gemini, whose tokens are answers of queries to several
    encoders.
    """
    found = encoders(bound)
    if len(found) > 1:
        raise StudyError(
            f"{what} cannot follow {bound.adapter.name} into its {len(found)} vision encoders: its "
            "visual tokens are queries to all of them, not mixtures of patches; leave vision=False."
        )
    return found[0]


def blocks(module: nn.Module) -> list[nn.Module]:
    """The layers of a transformer encoder: its longest list of modules of one class."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m)]
    alike = [m for m in lists if len({type(x) for x in m}) == 1]
    return list(max(alike, key=len))


def to_patches(bound, encoder: Encoder, amounts: Tensor) -> Tensor:
    """Hand amounts (N,) of the visual tokens down to the patches (V, n) they are made of.

    Each token is a weighted mean of patches and shares its amount by these weights, so the total
    is kept, but for what newline tokens hold.
    """
    boxes = torch.cat(encoder.boxes(None))
    patches = torch.zeros(boxes.shape[:2], dtype=amounts.dtype, requires_grad=True)
    with torch.enable_grad():  # it may be called while a backward pass runs
        tokens = _merged(bound, patches)  # (N,), linear in the patches
    (shares,) = torch.autograd.grad(tokens, patches, amounts.cpu())
    return shares.to(amounts.device)


# --- how patches become tokens, as one value per patch ------------------------------------------


def _merged(bound, patches: Tensor) -> Tensor:
    """Visual tokens (N,) as the mean of their patches (V, n), by the model's own rule."""
    adapter, inner = bound.adapter, bound.adapter.model.model
    if isinstance(adapter, LlavaNext):
        return _packed(bound, patches)
    if isinstance(adapter, Qwen2VL):
        cells = patches.view(-1, adapter.processor.merge_size**2).mean(1)
        return cells[_windows(bound).argsort()]
    side = int(patches.shape[1] ** 0.5)
    grid = patches.view(len(patches), side, side, 1)
    if isinstance(adapter, InternVL):
        shuffled = inner.pixel_shuffle(grid, scale_factor=adapter.model.config.downsample_ratio)
        return shuffled.mean(-1).flatten()
    if isinstance(adapter, Idefics3):
        connector = inner.connector
        shuffled = connector.pixel_shuffle(patches[..., None], connector.scale_factor)
        return shuffled.mean(-1).flatten()
    if isinstance(adapter, Gemma3):
        pool = inner.multi_modal_projector.avg_pool
        return pool(grid.permute(0, 3, 1, 2)).flatten()
    tokens = torch.cat([patches.new_zeros(1), patches[0]])  # a class token comes first
    return tokens[-len(bound.token_boxes) :]


def _packed(bound, patches: Tensor) -> Tensor:
    """LLaVA-NeXT's and OneVision's own packing of base view, tiles and newlines (zero here)."""
    config = bound.adapter.model.config
    options = {"image_newline": patches.new_zeros(1)}
    if hasattr(config, "vision_aspect_ratio"):
        options["vision_aspect_ratio"] = config.vision_aspect_ratio
    else:
        options["vision_feature_select_strategy"] = config.vision_feature_select_strategy
    pack = bound.adapter.model.model.pack_image_features
    packed, _ = pack([patches[..., None]], torch.tensor([bound.size]), **options)
    return packed[0][:, 0]


# --- where patches look ------------------------------------------------------------------------


def _view_boxes(bound) -> list[Tensor]:
    """Patch boxes of every view of the plan, tile by tile: one (V, n, 4) per view."""
    adapter = bound.adapter
    patch = adapter.model.config.vision_config.patch_size
    patch = patch if isinstance(patch, int) else patch[0]
    found = []
    for view in bound.geometry.plan.views:
        if view.tile is None:
            grid = boxes_of(view, *(patch_edges(n, patch) for n in view.size))
            found.append(grid.flatten(0, 1)[None])
        else:
            tiles = (view.size[0] // view.tile) * (view.size[1] // view.tile)
            found.append(tile_boxes(view, patch).unflatten(0, (tiles, -1)))
    return found


def _qwen_boxes(bound) -> list[Tensor]:
    """Qwen's patches come merged cell by merged cell, and in Qwen2.5 window by window."""
    processor = bound.adapter.processor
    patch, merge = processor.patch_size, processor.merge_size
    view = bound.geometry.plan.views[0]
    grid = boxes_of(view, *(patch_edges(n, patch) for n in view.size))
    cells = grid.unflatten(1, (-1, merge)).unflatten(0, (-1, merge)).transpose(1, 2)
    cells = cells.flatten(0, 1).flatten(1, 2)  # (cells, merge², 4)
    return [cells[_windows(bound)].flatten(0, 1)[None]]


def _windows(bound) -> Tensor:
    """The order in which the encoder's blocks read the merged cells."""
    adapter = bound.adapter
    grid = adapter.encoder_extras(bound, 1)["image_grid_thw"].cpu()
    config = adapter.model.config.vision_config
    if not isinstance(adapter, Qwen25VL):
        return torch.arange(int(grid.prod()) // config.spatial_merge_size**2)
    size = (config.spatial_merge_size, config.window_size, config.patch_size)
    return get_vision_window_index(grid, *size)[0].cpu()


def _cambrian(bound) -> list[Encoder]:
    towers = bound.adapter.model.model.vision_towers
    found = []
    for i, (tower, view) in enumerate(zip(towers, bound.geometry.plan.views, strict=True)):
        layers = _stages(tower.encoder) or blocks(tower.encoder)
        patch = bound.adapter.model.config.tower_specs()[i].get("patch_size")
        found.append(Encoder(f"{i}:{tower.kind}", layers, _SquareGrid(bound, view, patch)))
    return found


def _mini_gemini(bound) -> list[Encoder]:
    inner, view = bound.adapter.model.model, bound.geometry.plan.views[0]
    high = _stages(inner.vision_tower_aux)
    return [
        Encoder("clip", blocks(inner.vision_tower), lambda n: _mini_gemini_views(bound)),
        Encoder("convnext", high, _SquareGrid(bound, view, None)),
    ]


def _stages(module: nn.Module) -> list[nn.Module]:
    """The stages of a ConvNeXt trunk; nothing for a transformer."""
    return [stage for name, m in module.named_children() if name.endswith("stages") for stage in m]


@dataclass(frozen=True, eq=False)
class _SquareGrid:
    """n patches of a square view; whole patches of `patch` pixels, or the view cut evenly."""

    bound: object
    view: object
    patch: int | None

    def __call__(self, n: int) -> list[Tensor]:
        edges = even_edges(self.view.size[0], int(n**0.5))
        if self.patch is not None:
            edges = patch_edges(self.view.size[0], self.patch)
        return [boxes_of(self.view, edges, edges).flatten(0, 1)[None]]


def even_edges(length: int, count: int) -> np.ndarray:
    """Edges (count, 2) of `count` equal parts of a length."""
    edges = np.linspace(0, length, count + 1)
    return np.stack([edges[:-1], edges[1:]], 1)


def _mini_gemini_views(bound) -> list[Tensor]:
    """CLIP's tiles row by row as one picture, then the global view, as the encoder gets them."""
    config, view = bound.adapter.model.config, bound.geometry.plan.views[0]
    n, g = config.view_side, config.image_grid
    tiled, whole = (
        boxes_of(view, edges, edges)
        for edges in (even_edges(view.size[0], n * g), even_edges(view.size[0], n))
    )
    tiles = tiled.unflatten(1, (g, n)).unflatten(0, (g, n)).transpose(1, 2)  # (g, g, n, n, 4)
    found = [tiles.flatten(2, 3).flatten(0, 1)]
    return [*found, whole.flatten(0, 1)[None]] if config.image_global else found
