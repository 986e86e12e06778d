"""Drawn scenes whose every pixel is known: the world in which the mini models live.

A scene is a place by day or night with tinted sprites on it. Drawing uses integers only, so the
same scene gives the same bytes on every machine; every object has an exact mask; and the scene can
be drawn again without one object, which is an exact counterfactual that no photograph offers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from . import backgrounds
from .atlas import COLORS, SIZES, atlas, bare_cell, cell, names, shade
from .backgrounds import BARE, HARDEST, HIDDEN, PLACES, SIDE

__all__ = ["COLORS", "PLACES", "SIDE", "SIZES", "Scene", "Sprite", "atlas", "names", "shade"]
GAP = 4  # pixels kept free between sprites, and at the border
SMALL = ("small", "small", "medium", "large")  # sizes at the hardest level


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
    """A place, its light, and the objects on it, in drawing order.

    `clutter` (0 to 4) says how busy its ground is, `ground` with what: see `scenes.backgrounds`.
    StudyError for a level or a ground that does not exist.
    """

    place: str
    night: bool
    horizon: int
    brightness: int
    texture: int
    objects: tuple[Sprite, ...]
    clutter: int = 0
    ground: str = "leaves"

    def __post_init__(self):
        backgrounds.check(self.clutter, self.ground)

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
        """A plain dictionary; `from_json` is its inverse. Even ground is not mentioned."""
        record = asdict(self)
        usual = {"clutter": 0, "ground": "leaves"}
        return {k: v for k, v in record.items() if k not in usual or v != usual[k]}

    @staticmethod
    def from_json(record: dict) -> "Scene":
        """Rebuild a scene from what `to_json` gave."""
        return Scene(**{**record, "objects": tuple(Sprite(**o) for o in record["objects"])})


def draw(scene: Scene, paint: Callable[[np.ndarray, np.ndarray], np.ndarray] = shade) -> np.ndarray:
    """The scene as uint8 (336, 336, 3), same bytes everywhere; `paint` as in `scenes.styles`."""
    canvas = backgrounds.background(scene)
    for sprite in scene.objects:
        light, alpha = _cell(sprite, scene.clutter)
        tint = paint(np.array(COLORS[sprite.color], np.int32), light)
        part = canvas[sprite.y : sprite.y + sprite.side, sprite.x : sprite.x + sprite.side]
        backgrounds.blend(part, tint, alpha)
    return backgrounds.covered(canvas, scene).astype(np.uint8)


def mask(scene: Scene, i: int) -> np.ndarray:
    """Exact boolean (336, 336) mask of what is seen of object `i`.

    Its alpha exceeds one half there, and no leaf lies in front.
    """
    return _whole(scene, i) & ~backgrounds.in_front(scene)


def too_hidden(scene: Scene, i: int) -> bool:
    """Whether leaves hide more of object `i` than `HIDDEN` per cent."""
    whole = _whole(scene, i)
    hidden = int((whole & backgrounds.in_front(scene)).sum())
    return 100 * hidden > HIDDEN * int(whole.sum())


def _whole(scene: Scene, i: int) -> np.ndarray:
    """`mask` as if nothing lay in front."""
    sprite, out = scene.objects[i], np.zeros((SIDE, SIDE), bool)
    alpha = _cell(sprite, scene.clutter)[1]
    out[sprite.y : sprite.y + sprite.side, sprite.x : sprite.x + sprite.side] = alpha > 127
    return out


def _cell(sprite: Sprite, clutter: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and alpha of a sprite, as it is drawn at a level."""
    return (cell if clutter < BARE else bare_cell)(sprite.name, sprite.size)


def background_mask(scene: Scene) -> np.ndarray:
    """Boolean (336, 336): everything that is no object."""
    out = np.ones((SIDE, SIDE), bool)
    for i in range(len(scene.objects)):
        out &= ~mask(scene, i)
    return out


def sample(rng: np.random.Generator, repeat: int | None = None, clutter: int = 0) -> Scene:
    """A random scene of 3 to 7 objects.

    One class may be repeated (`repeat` copies, drawn from 1 to 4 when None) so that counting has
    something to count; every other class appears once. Up to level 3 of `clutter` the same dice
    give the same scene on other ground; level 4 has more small objects, and its leaves come first.
    """
    repeat = int(rng.integers(1, 5)) if repeat is None else repeat
    total = int(rng.integers(max(3, repeat), 8))
    classes = list(rng.permutation(names()))
    chosen = [classes[0]] * repeat + classes[1 : 1 + total - repeat]
    chosen = [str(c) for c in rng.permutation(chosen)]
    if clutter < HARDEST:
        return _furnished(rng, _place(rng, chosen), clutter)
    texture = int(rng.integers(2**31))
    empty = Scene("road", False, 0, 0, texture, (), clutter)
    return replace(_furnished(rng, _place(rng, chosen, SMALL, empty), clutter), texture=texture)


def _furnished(rng: np.random.Generator, objects: tuple[Sprite, ...], clutter: int) -> Scene:
    """Objects in a random place and light."""
    return Scene(
        place=str(rng.choice(list(PLACES))),
        night=bool(rng.integers(2)),
        horizon=int(rng.integers(110, 230)),
        brightness=int(rng.integers(-14, 15)),
        texture=int(rng.integers(2**31)),
        objects=objects,
        clutter=clutter,
    )


def stream(seed: int, clutter: int = 0) -> Iterator[Scene]:
    """Random scenes without end. Seeds below 1000 are kept for fixed test sets."""
    rng = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield sample(rng, clutter=clutter)


def _place(
    rng: np.random.Generator,
    classes: list[str],
    sizes: Sequence[str] = SIZES,
    empty: Scene | None = None,
) -> tuple[Sprite, ...]:
    """Give each class a colour, a size and a free spot; sprites never touch.

    In the scene `empty`, where one is given, nothing hides too much of them.
    """
    placed: list[Sprite] = []
    for name in classes:
        color = str(rng.choice(list(COLORS)))
        for size in (str(rng.choice(sizes)), "small", "small"):
            side = atlas()["sizes"][size]
            spots = rng.integers(GAP, SIDE - GAP - side, (40, 2)).tolist()
            free = (Sprite(name, color, size, *s) for s in spots if is_free(placed, *s, side))
            if sprite := next((o for o in free if _shows(empty, o)), None):
                placed.append(sprite)
                break
    return tuple(placed)


def _shows(empty: Scene | None, sprite: Sprite) -> bool:
    return empty is None or not too_hidden(replace(empty, objects=(sprite,)), 0)


def is_free(placed: Sequence[Sprite], x: int, y: int, side: int) -> bool:
    """Whether a cell of `side` pixels at (x, y) keeps its distance from every sprite placed."""
    return all(
        x + side + GAP <= o.x
        or o.x + o.side + GAP <= x
        or y + side + GAP <= o.y
        or o.y + o.side + GAP <= y
        for o in placed
    )
