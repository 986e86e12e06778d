"""Drawn scenes whose every pixel is known: the world in which the mini models live.

A scene is a place by day or night with tinted sprites on it. Drawing uses integers only, so the
same scene gives the same bytes on every machine; every object has an exact mask; and the scene can
be drawn again without one object, which is an exact counterfactual that no photograph offers.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np
from PIL import Image

from ..paths import data_dir

SIDE = 336
COLORS = {
    "red": (222, 40, 45),
    "orange": (250, 140, 20),
    "yellow": (252, 224, 40),
    "green": (45, 175, 75),
    "blue": (50, 105, 235),
    "purple": (155, 70, 200),
}
PLACES = {  # sky top, sky bottom, ground top, ground bottom
    "meadow": ((120, 180, 235), (190, 220, 240), (120, 175, 90), (70, 130, 60)),
    "beach": ((100, 190, 230), (160, 220, 235), (235, 215, 160), (215, 190, 130)),
    "snowfield": ((185, 200, 215), (215, 225, 235), (245, 248, 252), (225, 232, 242)),
    "road": ((150, 165, 180), (185, 195, 205), (115, 115, 120), (85, 85, 90)),
    "room": ((225, 200, 185), (215, 185, 170), (150, 105, 75), (120, 80, 55)),
}
SIZES = ("small", "medium", "large")
GAP = 4  # pixels kept free between sprites, and at the border


@dataclass(frozen=True)
class Sprite:
    """One object: class name, colour, size class, and its top-left corner in pixels."""

    name: str
    color: str
    size: str
    x: int
    y: int

    @property
    def side(self) -> int:
        """Side of its square cell, pixels."""
        return atlas()["sizes"][self.size]

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle of its cell, pixels."""
        return self.x + self.side / 2, self.y + self.side / 2


@dataclass(frozen=True)
class Scene:
    """A place, its light, and the objects on it, in drawing order."""

    place: str
    night: bool
    horizon: int
    brightness: int
    texture: int
    objects: tuple[Sprite, ...]

    def without(self, *drop: int) -> "Scene":
        """The same scene drawn as if objects `drop` had never been there."""
        kept = tuple(o for i, o in enumerate(self.objects) if i not in drop)
        return replace(self, objects=kept)

    def changed(self, i: int, **fields) -> "Scene":
        """The same scene with object `i` recoloured, moved or replaced."""
        objects = list(self.objects)
        objects[i] = replace(objects[i], **fields)
        return replace(self, objects=tuple(objects))

    def to_json(self) -> dict:
        """A plain dictionary; `from_json` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_json(record: dict) -> "Scene":
        """Rebuild a scene from what `to_json` gave."""
        return Scene(**{**record, "objects": tuple(Sprite(**o) for o in record["objects"])})


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


def draw(scene: Scene, paint: Callable[[np.ndarray, np.ndarray], np.ndarray] = shade) -> np.ndarray:
    """The scene as uint8 (336, 336, 3), the same bytes everywhere; `paint` as in `zoo.styles`."""
    canvas = _background(scene)
    for sprite in scene.objects:
        light, alpha = _cell(sprite)
        tint = paint(np.array(COLORS[sprite.color], np.int32), light)
        part = canvas[sprite.y : sprite.y + sprite.side, sprite.x : sprite.x + sprite.side]
        part[:] = (tint * alpha[..., None] + part * (255 - alpha[..., None]) + 127) // 255
    return canvas.astype(np.uint8)


def mask(scene: Scene, i: int) -> np.ndarray:
    """Exact boolean (336, 336) mask of object `i`: where its alpha exceeds one half."""
    sprite, out = scene.objects[i], np.zeros((SIDE, SIDE), bool)
    alpha = _cell(sprite)[1]
    out[sprite.y : sprite.y + sprite.side, sprite.x : sprite.x + sprite.side] = alpha > 127
    return out


def background_mask(scene: Scene) -> np.ndarray:
    """Boolean (336, 336): everything that is no object."""
    out = np.ones((SIDE, SIDE), bool)
    for i in range(len(scene.objects)):
        out &= ~mask(scene, i)
    return out


def sample(rng: np.random.Generator, repeat: int | None = None) -> Scene:
    """A random scene of 3 to 7 objects.

    One class may be repeated (`repeat` copies, drawn from 1 to 4 when None) so that counting has
    something to count; every other class appears once.
    """
    repeat = int(rng.integers(1, 5)) if repeat is None else repeat
    total = int(rng.integers(max(3, repeat), 8))
    classes = list(rng.permutation(names()))
    chosen = [classes[0]] * repeat + classes[1 : 1 + total - repeat]
    objects = _place(rng, [str(c) for c in rng.permutation(chosen)])
    return Scene(
        place=str(rng.choice(list(PLACES))),
        night=bool(rng.integers(2)),
        horizon=int(rng.integers(110, 230)),
        brightness=int(rng.integers(-14, 15)),
        texture=int(rng.integers(2**31)),
        objects=objects,
    )


def stream(seed: int) -> Iterator[Scene]:
    """Random scenes without end. Seeds below 1000 are kept for fixed test sets."""
    rng = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield sample(rng)


def _place(rng: np.random.Generator, classes: list[str]) -> tuple[Sprite, ...]:
    """Give each class a colour, a size and a free spot; sprites never touch."""
    placed: list[Sprite] = []
    for name in classes:
        color = str(rng.choice(list(COLORS)))
        for size in (str(rng.choice(SIZES)), "small", "small"):
            side = atlas()["sizes"][size]
            spots = rng.integers(GAP, SIDE - GAP - side, (40, 2))
            free = (s for s in spots.tolist() if is_free(placed, *s, side))
            if spot := next(free, None):
                placed.append(Sprite(name, color, size, *spot))
                break
    return tuple(placed)


def is_free(placed: Sequence[Sprite], x: int, y: int, side: int) -> bool:
    """Whether a cell of `side` pixels at (x, y) keeps its distance from every sprite placed."""
    return all(
        x + side + GAP <= o.x
        or o.x + o.side + GAP <= x
        or y + side + GAP <= o.y
        or o.y + o.side + GAP <= y
        for o in placed
    )


@cache
def _sprite_cell(name: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    index = atlas()
    y = index["rows"][name] * index["cell"]
    x = list(index["sizes"]).index(size) * index["cell"]
    side = index["sizes"][size]
    cell = index["pixels"][y : y + side, x : x + side]
    return cell[..., 0], cell[..., 1]


def _cell(sprite: Sprite) -> tuple[np.ndarray, np.ndarray]:
    return _sprite_cell(sprite.name, sprite.size)


def _background(scene: Scene) -> np.ndarray:
    """Sky and ground as two vertical gradients with a soft texture, int32 (336, 336, 3)."""
    colors = np.array(PLACES[scene.place], np.int32)
    rows = np.arange(SIDE)[:, None]
    sky = colors[0] + (colors[1] - colors[0]) * rows // SIDE
    ground = colors[2] + (colors[3] - colors[2]) * rows // SIDE
    canvas = np.where(rows < scene.horizon, sky, ground)[:, None] + _texture(scene.texture)
    canvas = canvas + scene.brightness
    if scene.night:
        canvas = canvas * 4 // 10 + np.array([-6, 0, 22], np.int32)
    return canvas.clip(0, 255).astype(np.int32)


def _texture(seed: int) -> np.ndarray:
    """Low-frequency noise in [-12, 12], int (336, 336, 1), by integer bilinear interpolation."""
    coarse = np.random.Generator(np.random.PCG64(seed)).integers(-12, 13, (13, 13))
    weights = _bilinear()
    return ((weights @ coarse @ weights.T) // 28**2)[..., None].astype(np.int32)


@cache
def _bilinear() -> np.ndarray:
    """Integer weights (336, 13) that sum to 28 a row: 12 spans of 28 pixels."""
    weights = np.zeros((SIDE, 13), np.int64)
    for y in range(SIDE):
        cell, step = divmod(y, 28)
        weights[y, cell], weights[y, cell + 1] = 28 - step, step
    return weights
