"""The vision encoders of a model, from outside: their blocks, and where each patch looks.

Visual tokens are what the language model reads; patches are what an encoder works on. A token may
be a patch (LLaVA), several merged patches (Qwen-VL, InternVL, Gemma 3, Idefics3), a blend of
patches (OneVision's shrunk grid), or the answer of a query (Cambrian, Mini-Gemini).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from .geometry import boxes_of, patch_edges, tile_boxes


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


def blocks(module: nn.Module) -> list[nn.Module]:
    """The layers of a transformer encoder: its longest list of modules of one class."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m)]
    alike = [m for m in lists if len({type(x) for x in m}) == 1]
    return list(max(alike, key=len))


def view_boxes(bound) -> list[Tensor]:
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


def stages(module: nn.Module) -> list[nn.Module]:
    """The stages of a ConvNeXt trunk; nothing for a transformer."""
    return [stage for name, m in module.named_children() if name.endswith("stages") for stage in m]


@dataclass(frozen=True, eq=False)
class SquareGrid:
    """n patches of a square view; whole patches of `patch` pixels, or the view cut evenly."""

    view: object
    patch: int | None = None

    def __call__(self, n: int) -> list[Tensor]:
        edges = even_edges(self.view.size[0], int(n**0.5))
        if self.patch is not None:
            edges = patch_edges(self.view.size[0], self.patch)
        return [boxes_of(self.view, edges, edges).flatten(0, 1)[None]]


def even_edges(length: int, count: int) -> np.ndarray:
    """Edges (count, 2) of `count` equal parts of a length."""
    edges = np.linspace(0, length, count + 1)
    return np.stack([edges[:-1], edges[1:]], 1)
