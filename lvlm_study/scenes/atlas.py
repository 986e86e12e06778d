"""The sprites themselves: classes, colours, sizes, and the pixels that scenes are made of.

A cell is luminance and alpha, baked once by `tools/make_sprites.py`, which also drew a dark rim
around every sprite. Rims are an edge cue that no photograph has, so a cell can be had without.
"""

import json
from functools import cache

import numpy as np
from PIL import Image

from ..paths import data_dir

COLORS = {
    "red": (222, 40, 45),
    "orange": (250, 140, 20),
    "yellow": (252, 224, 40),
    "green": (45, 175, 75),
    "blue": (50, 105, 235),
    "purple": (155, 70, 200),
}
SIZES = ("small", "medium", "large")
DARKEST = 140  # the least luminance inside a sprite; what is darker is rim in part


@cache
def atlas() -> dict:
    """The sprite index with its pixels: `pixels` int32 (rows, columns, 2), luminance and alpha."""
    folder = data_dir() / "sprites"
    index = json.loads((folder / "atlas.json").read_text())
    with Image.open(folder / "atlas.png") as image:
        index["pixels"] = np.asarray(image).astype(np.int32)
    index["rows"] = {c["name"]: i for i, c in enumerate(index["classes"])}
    index["kinds"] = {c["name"]: c["kind"] for c in index["classes"]}
    return index


def names(kind: str | None = None) -> list[str]:
    """All sprite classes, or those of one kind (animal, vehicle, fruit, thing)."""
    return [n for n, k in atlas()["kinds"].items() if kind in (None, k)]


def shade(color: np.ndarray, light: np.ndarray) -> np.ndarray:
    """How a sprite is painted: its colour (3,) int32 times its light (s, s), int32 (s, s, 3)."""
    return color * light[..., None] // 255


@cache
def cell(name: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and alpha of a sprite with its dark rim, two int32 (s, s)."""
    index = atlas()
    y = index["rows"][name] * index["cell"]
    x = list(index["sizes"]).index(size) * index["cell"]
    side = index["sizes"][size]
    found = index["pixels"][y : y + side, x : x + side]
    return found[..., 0], found[..., 1]


@cache
def bare_cell(name: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    """The same without the rim: transparent where only the rim was."""
    light, _ = cell(name, size)
    alpha = (light * 255 // DARKEST).clip(max=255)
    return (light * 255 // alpha.clip(min=1)).clip(max=255), alpha
