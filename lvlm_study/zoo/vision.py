"""Vision towers of the zoo, trained to say for every patch what it shows.

Dense labels from exact masks replace the web-scale pretraining of a real CLIP: after some minutes
each patch token tells class, colour, size, and whether an object's middle lies there, and every
token knows place and light. The heads are then thrown away and the tower is frozen.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from . import scenes
from .fit import fit
from .pool import VIEWS, Pool, globals_of, load_pool

WIDTH, LAYERS, HEADS, PATCH = 160, 6, 5, 14
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


def clip_tower() -> CLIPVisionModel:
    """A CLIP tower for 112-pixel pictures: 8 x 8 patches and a class token."""
    return CLIPVisionModel(CLIPVisionConfig(image_size=112, hidden_act="gelu", **_sizes()))


def siglip_tower() -> SiglipVisionModel:
    """A SigLIP tower for 84-pixel tiles: 6 x 6 patches, no class token."""
    return SiglipVisionModel(SiglipVisionConfig(image_size=84, vision_use_head=False, **_sizes()))


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

    def __init__(self, tower: nn.Module, layer: int, skip: int):
        super().__init__()
        self.tower, self.layer, self.skip = tower, layer, skip
        tower.set_attn_implementation("eager")  # much faster to train on a CPU than sdpa
        classes = len(scenes.names()) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1, 2
        self.sizes = (*classes, len(scenes.PLACES), 2)
        self.head = nn.Linear(WIDTH, sum(self.sizes))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """pixels (B, 3, S, S) to six logits (B, patches, classes): name, colour, size, middle,
        place, light."""
        hidden = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        return self.head(hidden[self.layer][:, self.skip :]).split(self.sizes, -1)


def clip_views(pool: Pool, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels (B, 3, 112, 112), patch labels (B, 64, 4) and global labels (B, 2)."""
    labels = torch.from_numpy(pool.labels[8][rows].astype(np.int64)).flatten(1, 2)
    return normalise(pool.views[112][rows]), labels, _globals(pool, rows)


def siglip_views(pool: Pool, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The base view and the four tiles of each scene, as LLaVA-OneVision cuts them."""
    base, canvas = pool.views[84][rows], pool.views[168][rows]
    pixels = np.concatenate([base[:, None], _tiles(canvas, 84)], 1)  # (B, 5, 84, 84, 3)
    labels = np.concatenate([pool.labels[6][rows][:, None], _tiles(pool.labels[12][rows], 6)], 1)
    flat = torch.from_numpy(labels.astype(np.int64)).flatten(0, 1).flatten(1, 2)
    extra = _globals(pool, rows).repeat_interleave(5, 0)
    return normalise(pixels.reshape(-1, 84, 84, 3), HALF, HALF), flat, extra


def _tiles(x: np.ndarray, side: int) -> np.ndarray:
    """(B, 2s, 2s, C) to (B, 4, s, s, C), row by row."""
    b, c = len(x), x.shape[-1]
    return (
        x.reshape(b, 2, side, 2, side, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, 4, side, side, c)
    )


def _globals(pool: Pool, rows: np.ndarray) -> torch.Tensor:
    return torch.tensor([globals_of(pool.scenes[i]) for i in rows])


def _encoder(tower: nn.Module) -> nn.Module:
    return getattr(tower, "vision_model", tower).encoder


TOWERS = {  # name: (tower, views, layer read by the language model, tokens to skip)
    "clip": (clip_tower, clip_views, -2, 1),
    "siglip": (siglip_tower, siglip_views, -1, 0),
}


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
    kind: str,
    work: Path,
    *,
    steps: int,
    batch: int,
    start: nn.Module | None = None,
    seed: int = 0,
    pool_size: int = 24576,
    say=print,
) -> nn.Module:
    """Train one tower from nothing (or from its last save) and return it, frozen.

    `start`: another trained tower whose transformer blocks this one begins with.
    """
    make, views, layer, skip = TOWERS[kind]
    torch.manual_seed(seed)
    tower = make()
    if start is not None:
        _encoder(tower).load_state_dict(_encoder(start).state_dict())
    reader = DenseReader(tower, layer, skip)
    pool = load_pool(work, pool_size, 1000, VIEWS)
    held = views(load_pool(work, 1024, 1001, VIEWS), np.arange(256))

    def loss_at(step):
        rows = np.random.default_rng([seed, step]).integers(0, len(pool.scenes), batch)
        pixels, labels, extra = views(pool, rows)
        return dense_loss(reader(pixels), labels, extra), {}

    def evaluate():
        with torch.no_grad():
            return dense_accuracy(reader(held[0]), *held[1:])

    fit(reader, loss_at, work / f"tower-{kind}-{seed}", steps=steps, evaluate=evaluate, say=say)
    return reader.tower.eval().requires_grad_(False)
