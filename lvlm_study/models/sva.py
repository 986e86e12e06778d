"""The Spatial Vision Aggregator: queries on a small grid attend to their window in every encoder.

The image, padded to a square, is cut into `side` × `side` cells. Each encoder's token grid is cut
the same way, so that a cell owns r² tokens of it; a query for the cell attends to these tokens of
all encoders at once and to nothing else. Cells and tokens on the padding are left out.
Source: Tong et al. 2024, "Cambrian-1", arXiv 2406.16860, section 4.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unpadded(side: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows y0:y1 and columns x0:x1 of a `side`² grid that the image (H, W) covers.

    The grid lies on the image padded to a square; as many cells are cut on one side as on the
    other, and a cell that the image only touches is kept.
    """
    height, width = size
    if width > height:
        cut = (side - int(height * (side / width))) // 2
        return cut, side - cut, 0, side
    cut = (side - int(width * (side / height))) // 2
    return 0, side, cut, side - cut


def windows(x: Tensor, side: int) -> Tensor:
    """Group a square grid of tokens (B, n², C) by cell: (B, side², (n/side)², C), row-major."""
    n = int(x.shape[1] ** 0.5)
    r = n // side
    cells = x.unflatten(1, (side, r, side, r)).transpose(2, 3)  # (B, side, side, r, r, C)
    return cells.flatten(3, 4).flatten(1, 2)


def window_mask(size: tuple[int, int], side: int, window_sides: Sequence[int]) -> Tensor:
    """Which keys each cell may attend to: bool (side², sum of window areas).

    Keys on the padding are shut out, tower by tower; a window that lies on padding altogether is
    opened again, since attention needs a key (such cells never reach the prompt).
    """
    masks = []
    for r in window_sides:
        y0, y1, x0, x1 = unpadded(side * r, size)
        keep = torch.zeros(1, side * r, side * r, 1, dtype=torch.bool)
        keep[:, y0:y1, x0:x1] = True
        mask = windows(keep.flatten(1, 2), side)[0, :, :, 0]  # (side², r²)
        masks.append(mask | ~mask.any(-1, keepdim=True))
    return torch.cat(masks, dim=-1)


def token_cells(size: tuple[int, int], side: int) -> Tensor:
    """The cell of every visual token in prompt order, -1 for newlines: int64 (N,)."""
    y0, y1, x0, x1 = unpadded(side, size)
    cells = torch.arange(side * side).view(side, side)[y0:y1, x0:x1]
    return F.pad(cells, (0, 1), value=-1).flatten()


def _norm_linear(dim_in: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim_in), nn.Linear(dim_in, dim, bias=False))


class OutputMlp(nn.Module):
    """Two linear layers without bias; names as in the release."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim, dim, bias=False)
        self.linear_2 = nn.Linear(dim, dim_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim_out)."""
        return self.linear_2(F.gelu(self.linear_1(x)))


class CrossAttention(nn.Module):
    """Queries attend to the keys of all encoders at once; each encoder has its own projections."""

    def __init__(self, dim: int, encoders: int, heads: int):
        super().__init__()
        self.heads, self.encoders = heads, encoders
        self.q_proj = _norm_linear(dim, dim)
        for i in range(encoders):
            self.add_module(f"k_proj_{i}", _norm_linear(dim, dim))
            self.add_module(f"v_proj_{i}", _norm_linear(dim, dim))
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, q: Tensor, sources: Sequence[Tensor], mask: Tensor) -> Tensor:
        """q (M, 1, d), one source (M, r², d) per encoder, mask bool (M, K)."""
        keys = [getattr(self, f"k_proj_{i}")(x) for i, x in enumerate(sources)]
        values = [getattr(self, f"v_proj_{i}")(x) for i, x in enumerate(sources)]
        out = F.scaled_dot_product_attention(
            self._split(self.q_proj(q)),
            self._split(torch.cat(keys, 1)),
            self._split(torch.cat(values, 1)),
            attn_mask=mask[:, None, None],
        )
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (M, heads, K, d/heads)


class SamplerLayer(nn.Module):
    """One step of aggregation: mix in the image's context, attend to the window, add."""

    def __init__(self, dim_query: int, dim: int, window_sides: Sequence[int], heads: int):
        super().__init__()
        self.proj_context = nn.Linear(dim, dim, bias=False)
        self.proj_in = nn.Linear(dim_query + dim, dim, bias=False)
        self.proj_out = OutputMlp(dim, dim_query)
        self.norm = nn.LayerNorm(dim)
        self.cross_attn = CrossAttention(dim, len(window_sides), heads)
        for i, r in enumerate(window_sides):
            if r > 1:
                self.register_parameter(f"pos_embed_{i}", nn.Parameter(torch.randn(r * r, dim)))

    def forward(self, q: Tensor, context: Tensor, sources: Sequence[Tensor], mask: Tensor):
        """q (M, 1, dim_query), context (M, 1, d), sources and mask as in CrossAttention."""
        hidden = self.proj_in(torch.cat([q, self.proj_context(context)], dim=-1))
        placed = [x + getattr(self, f"pos_embed_{i}", 0) for i, x in enumerate(sources)]
        return q + self.proj_out(self.norm(hidden + self.cross_attn(hidden, placed, mask)))


class Sampler(nn.Module):
    """Aggregation layers one behind the other: each gives the queries of the next."""

    def __init__(self, dim_query: int, dim: int, window_sides: Sequence[int], heads: int, depth=1):
        super().__init__()
        self.layers = nn.ModuleList(
            [SamplerLayer(dim_query, dim, window_sides, heads) for _ in range(depth)]
        )

    def forward(self, q: Tensor, context: Tensor, sources: Sequence[Tensor], mask: Tensor):
        """Queries after all layers, in the shape in which they came."""
        for layer in self.layers:
            q = layer(q, context, sources, mask)
        return q
