"""Vision towers of the zoo, trained to say for every patch what it shows.

Dense labels from exact masks replace the web-scale pretraining of a real CLIP: after some minutes
each patch token tells class, colour, size, and whether an object's middle lies there, and every
token knows place and light. The heads are then thrown away and the tower is frozen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from ..models.convnext import multi_stage
from ..models.mini_gemini import views as mined_views
from ..models.towers import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, build_encoder
from ..scenes import scenes
from .fit import fit
from .pool import HELD, HIGH, VIEWS, Pool, globals_of, load_pool

WIDTH, LAYERS, HEADS, PATCH = 160, 6, 5, 14
HALF = (0.5, 0.5, 0.5)
CONVNEXT = {  # at 256 pixels; a layer scale of 1e-6 would keep so small a net from learning
    "model_type": "convnext_trunk",
    "image_size": 256,
    "depths": [1, 1, 2],
    "dims": [32, 64, 128],
    "scale": 0.1,
}


def clip_tower() -> CLIPVisionModel:
    """A CLIP tower for 112-pixel pictures: 8 x 8 patches and a class token."""
    return CLIPVisionModel(CLIPVisionConfig(**clip_sizes()))


def siglip_tower() -> SiglipVisionModel:
    """A SigLIP tower for 84-pixel tiles: 6 x 6 patches, no class token."""
    return SiglipVisionModel(SiglipVisionConfig(image_size=84, vision_use_head=False, **_sizes()))


def dino_tower() -> Dinov2Model:
    """A smaller DINOv2 tower for 112-pixel pictures."""
    return Dinov2Model(Dinov2Config(**dino_sizes()))


def clip_sizes() -> dict:
    """Settings of the CLIP tower."""
    return dict(image_size=112, hidden_act="gelu", **_sizes())


def dino_sizes() -> dict:
    """Settings of the DINOv2 tower."""
    return dict(
        image_size=112,
        patch_size=PATCH,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=3,
        layerscale_value=0.1,
    )


def _sizes() -> dict:
    return dict(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        patch_size=PATCH,
    )


def normalise(pixels: np.ndarray, mean=CLIP_MEAN, std=CLIP_STD) -> torch.Tensor:
    """uint8 (B, S, S, 3) to float32 (B, 3, S, S) as the tower's image processor gives it."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


class DenseReader(nn.Module):
    """A tower with throw-away heads on the layer that the language model will read."""

    def __init__(self, tower: nn.Module, kind: "Kind"):
        super().__init__()
        self.tower, self.kind = tower, kind
        if hasattr(tower, "set_attn_implementation"):
            tower.set_attn_implementation("eager")  # much faster to train on a CPU than sdpa
        classes = len(scenes.names()) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1, 2
        self.sizes = (*classes, len(scenes.PLACES), 2)
        self.head = nn.Linear(kind.width, sum(self.sizes))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """pixels (B, 3, S, S) to six logits (B, patches, classes): name, colour, size, middle,
        place, light."""
        return self.head(self.kind.read(self.tower, pixels)).split(self.sizes, -1)


# What a tower is shown: pixels (B, 3, S, S), and labels (B, patches, 4) with globals (B, 2).


def _whole(side: int, mean=CLIP_MEAN, std=CLIP_STD) -> Callable:
    return lambda pool, rows: normalise(pool.views[side][rows], mean, std)


def _whole_labels(grid: int) -> Callable:
    def labels(pool: Pool, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels of every patch, and globals."""
        return _long(pool.labels[grid][rows]), _globals(pool, rows)

    return labels


def siglip_views(pool: Pool, rows: np.ndarray) -> torch.Tensor:
    """The base view and the four tiles of each scene, as LLaVA-OneVision cuts them."""
    base, canvas = pool.views[84][rows], pool.views[168][rows]
    pixels = np.concatenate([base[:, None], _tiles(canvas, 84)], 1)  # (B, 5, 84, 84, 3)
    return normalise(pixels.reshape(-1, 84, 84, 3), HALF, HALF)


def _siglip_labels(pool: Pool, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    labels = np.concatenate([pool.labels[6][rows][:, None], _tiles(pool.labels[12][rows], 6)], 1)
    return _long(labels.reshape(-1, 6, 6, 4)), _globals(pool, rows).repeat_interleave(5, 0)


def _mined_views(grid: int) -> Callable:
    """The CLIP views that Mini-Gemini shrinks from its 256-pixel square, the whole one last."""

    def pixels(pool: Pool, rows: np.ndarray) -> torch.Tensor:
        """Views of some scenes, one after the other."""
        square = normalise(pool.views[256][rows])
        return mined_views(square, 112, grid, grid > 1).flatten(0, 1)

    return pixels


def _tile_labels(pool: Pool, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    labels = [_tiles(pool.labels[16][rows], 8), pool.labels[8][rows][:, None]]
    labels = np.concatenate(labels, 1).reshape(-1, 8, 8, 4)
    return _long(labels), _globals(pool, rows).repeat_interleave(5, 0)


def _long(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64)).flatten(1, 2)


def _tiles(x: np.ndarray, side: int) -> np.ndarray:
    """(B, 2s, 2s, C) to (B, 4, s, s, C), row by row."""
    b, c = len(x), x.shape[-1]
    return (
        x.reshape(b, 2, side, 2, side, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, 4, side, side, c)
    )


def _globals(pool: Pool, rows: np.ndarray) -> torch.Tensor:
    return torch.tensor([globals_of(pool.scenes[i]) for i in rows])


# How a tower is read: pixels to the tokens (B, patches, C) that a language model will get.


def _read_clip(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:]


def _read_siglip(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]


def _read_dino(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return tower(pixel_values=pixels).last_hidden_state[:, 1:]


def _read_convnext(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return multi_stage(tower(pixels), (16, 16)).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Kind:
    """A tower: how it is made, what it is shown, how it is read.

    `batch` scenes make a training step. `start` names the tower whose blocks it begins with;
    `same_as` the one whose weights it is, shown differently. `whole` is the view that shows the
    whole scene where there are five.
    """

    make: Callable[[], nn.Module]
    pixels: Callable[[Pool, np.ndarray], torch.Tensor]
    labels: Callable[[Pool, np.ndarray], tuple[torch.Tensor, torch.Tensor]]
    read: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    width: int = WIDTH
    batch: int = 40
    start: str | None = None
    same_as: str | None = None
    whole: int = 0
    sides: tuple = tuple(VIEWS.items())


HIGHER = tuple((VIEWS | HIGH).items())
TOWERS = {
    "clip": Kind(clip_tower, _whole(112), _whole_labels(8), _read_clip),
    "siglip": Kind(
        siglip_tower, siglip_views, _siglip_labels, _read_siglip, batch=12, start="clip"
    ),
    "dino": Kind(
        dino_tower, _whole(112, IMAGENET_MEAN, IMAGENET_STD), _whole_labels(8), _read_dino, width=96
    ),
    "convnext": Kind(
        lambda: build_encoder(CONVNEXT),
        _whole(256),
        _whole_labels(16),
        _read_convnext,
        width=sum(CONVNEXT["dims"]),
        batch=16,
        sides=HIGHER,
    ),
    "clip-low": Kind(
        clip_tower, _mined_views(1), _whole_labels(8), _read_clip, same_as="clip", sides=HIGHER
    ),
    "clip-hd": Kind(
        clip_tower,
        _mined_views(2),
        _tile_labels,
        _read_clip,
        batch=12,
        start="clip",
        whole=4,
        sides=HIGHER,
    ),
}


def _encoder(tower: nn.Module) -> nn.Module:
    return getattr(tower, "vision_model", tower).encoder


def dense_loss(logits: tuple[torch.Tensor, ...], labels: torch.Tensor, extra: torch.Tensor):
    """Mean cross-entropy over the six heads; colour and size count on object patches only."""
    every = [logits[k].flatten(0, 1) for k in range(6)]
    patch = labels.flatten(0, 1)  # (B * patches, 4)
    shown = patch[:, 0] > 0
    losses = [nn.functional.cross_entropy(every[k].float(), patch[:, k]) for k in (0, 3)]
    losses += [
        nn.functional.cross_entropy(every[k][shown].float(), patch[shown, k]) for k in (0, 1, 2)
    ]
    spread = extra.repeat_interleave(labels.shape[1], 0)
    losses += [nn.functional.cross_entropy(every[4 + k].float(), spread[:, k]) for k in range(2)]
    return sum(losses)


def dense_accuracy(logits: tuple[torch.Tensor, ...], labels: torch.Tensor, extra: torch.Tensor):
    """Share of object patches read rightly, and of centres found."""
    shown, out = labels[..., 0] > 0, {}
    for k, name in enumerate(("name", "color", "size")):
        right = logits[k].argmax(-1)[shown] == labels[..., k][shown]
        out[name] = round(right.float().mean().item(), 4)
    found, true = logits[3].argmax(-1) == 1, labels[..., 3] == 1
    out["center_f1"] = round((2 * (found & true).sum() / (found.sum() + true.sum())).item(), 4)
    out["place"] = round((logits[4].argmax(-1) == extra[:, None, 0]).float().mean().item(), 4)
    return out


def train_tower(
    name: str,
    work: Path,
    *,
    steps: int,
    batch: int | None = None,
    start: nn.Module | None = None,
    seed: int = 0,
    pool_size: int = 24576,
    world: str = "even",
    ready: nn.Module | None = None,
    rate: float = 1e-3,
    say=print,
) -> nn.Module:
    """Train one tower from nothing (or from its last save) and return it, frozen.

    `start`: another trained tower whose transformer blocks this one begins with. `ready`: a tower
    of its own kind whose weights it begins with. `world`: whose scenes it learns (`zoo.pool`).
    """
    kind = TOWERS[name]
    torch.manual_seed(seed)
    tower, batch, sides = kind.make(), batch or kind.batch, dict(kind.sides)
    if start is not None:
        _encoder(tower).load_state_dict(_encoder(start).state_dict())
    if ready is not None:
        tower.load_state_dict(ready.state_dict())
    reader = DenseReader(tower, kind)
    pool, held = (load_pool(work, n, k, sides, world) for n, k in ((pool_size, 1000), (HELD, 1001)))
    test = np.arange(HELD)

    def loss_at(step):
        """Loss of one step on dense labels."""
        rows = np.random.default_rng([seed, step]).integers(0, len(pool.scenes), batch)
        return dense_loss(reader(kind.pixels(pool, rows)), *kind.labels(pool, rows)), {}

    def evaluate():
        """How much of the labels is right on held-out scenes."""
        with torch.no_grad():
            return dense_accuracy(reader(kind.pixels(held, test)), *kind.labels(held, test))

    folder = work / f"tower-{'' if world == 'even' else world + '-'}{name}-{seed}"
    fit(reader, loss_at, folder, steps=steps, rate=rate, evaluate=evaluate, say=say)
    return reader.tower.eval().requires_grad_(False)
