"""ConvNeXt trunk (Liu et al. 2022) under timm's parameter names, with every stage's map as output.

Cambrian and Mini-Gemini read all four stages of an open_clip ConvNeXt. The trunk is written out
here because transformers' ConvNeXt fixes the LayerNorm epsilon that the XXL model changes.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPEN_CLIP_PREFIX = "visual.trunk."


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over channels: (B, C, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Depthwise 7×7, LayerNorm, MLP, per-channel scale `gamma`, residual."""

    def __init__(self, dim: int, eps: float, scale: float):
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y = self.conv_dw(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        return x + (self.mlp(self.norm(y)) * self.gamma).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Optional 2× down-sampling, then `depth` blocks."""

    def __init__(self, dim_in: int, dim: int, depth: int, eps: float, scale: float, down: bool):
        super().__init__()
        self.downsample = nn.Identity()
        if down:
            self.downsample = nn.Sequential(
                ChannelNorm(dim_in, eps=eps), nn.Conv2d(dim_in, dim, 2, stride=2)
            )
        self.blocks = nn.Sequential(*[Block(dim, eps, scale) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to this stage's width, at half the resolution or the same."""
        return self.blocks(self.downsample(x))


class ConvNeXt(nn.Module):
    """Image (B, 3, H, W) to one map per stage, at H/4, H/8, H/16, ...

    Parameters are named `{prefix}stem.*` and `{prefix}stages.*`; Mini-Gemini's checkpoints use the
    prefix `vision_`. `scale` is the initial layer scale: 1e-6 suits deep nets, small nets trained
    here start from a larger one.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        eps: float = 1e-6,
        scale: float = 1e-6,
        prefix: str = "",
    ):
        super().__init__()
        self.dims, self.prefix = tuple(dims), prefix
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), ChannelNorm(dims[0], eps=eps))
        stages = [
            Stage(dims[max(i - 1, 0)], dims[i], depth, eps, scale, down=i > 0)
            for i, depth in enumerate(depths)
        ]
        self.add_module(f"{prefix}stem", stem)
        self.add_module(f"{prefix}stages", nn.Sequential(*stages))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) to the maps of all stages, finest first."""
        x = getattr(self, f"{self.prefix}stem")(x)
        maps = []
        for stage in getattr(self, f"{self.prefix}stages"):
            x = stage(x)
            maps.append(x)
        return maps

    def load_open_clip(self, state: Mapping[str, Tensor]) -> None:
        """Load an open_clip checkpoint: keep `visual.trunk.{stem,stages}`, drop the rest."""
        own = {}
        for key, value in state.items():
            name = key.removeprefix(OPEN_CLIP_PREFIX)
            if key != name and name.startswith(("stem.", "stages.")):
                own[self.prefix + name] = value
        self.load_state_dict(own)


def resize_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of a feature map (B, C, h, w), in fp32, without antialiasing.

    This is how both model families bring maps of different sides together.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    out = F.interpolate(x.float(), size=tuple(size), mode="bilinear", align_corners=False)
    return out.to(x.dtype)


def multi_stage(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """All stages at one side, channels behind each other: (B, sum C, *size)."""
    return torch.cat([resize_map(m, size) for m in maps], dim=1)
