"""What the objects of a scene stand on: even ground as in v1, or ground as busy as a photograph.

`clutter` 0 is v1. 1 and 2 mix a quarter and a half of busy ground into it, 3 shows busy ground
alone and sprites without their dark rims. 4 adds pieces of other sprites behind the objects and
leaves in front of them, which hide at most `HIDDEN` per cent of an object. Busy ground is dead
leaves by default (Lee, Mumford & Huang 2001: discs that cover one another, radii by r⁻³), whose
edges are as frequent as those of natural pictures: five in eight have the colour of an object, the
others a colour of the place in its light, so that place and light can still be told. Every ground
comes from the scene's `texture` seed alone and from no object, so a scene that loses an object
changes in that object's visible pixels and nowhere else. Whole numbers from raw bits throughout:
the same bytes on every machine (a photograph's are those of its JPEG decoder).
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image

from ..errors import StudyError
from ..paths import data_dir
from .atlas import COLORS, SIZES, atlas, bare_cell, names, shade

SIDE = 336
PLACES = {  # sky top, sky bottom, ground top, ground bottom
    "meadow": ((120, 180, 235), (190, 220, 240), (120, 175, 90), (70, 130, 60)),
    "beach": ((100, 190, 230), (160, 220, 235), (235, 215, 160), (215, 190, 130)),
    "snowfield": ((185, 200, 215), (215, 225, 235), (245, 248, 252), (225, 232, 242)),
    "road": ((150, 165, 180), (185, 195, 205), (115, 115, 120), (85, 85, 90)),
    "room": ((225, 200, 185), (215, 185, 170), (150, 105, 75), (120, 80, 55)),
}
CONTRAST = {0: 0, 1: 1, 2: 2, 3: 4, 4: 4}  # quarters of busy ground, by level
BARE, HARDEST = 3, 4  # levels from which sprites have no rim, and leaves lie in front
HIDDEN = 30  # per cent of an object that leaves may hide
PHOTOS = {  # the two CC BY photographs are in no test picture (data/photos/LICENSES.md)
    "photo": ("astronaut", "chelsea", "coffee", "coins", "rocket"),
    "photo-train": ("camera", "clock", "flower", "galaxies", "officer", "pavilion", "retina"),
}


class Dice:
    """Whole numbers from the raw bits of PCG64, a stream that numpy promises never to change."""

    def __init__(self, *seed: int):
        self.bits = np.random.PCG64(list(seed))

    def below(self, n: int, *shape: int) -> np.ndarray:
        """Numbers from 0 to n - 1, int64 of this shape."""
        raw = self.bits.random_raw(int(np.prod(shape))) >> np.uint64(33)  # 31 bits
        return (raw * np.uint64(n) >> np.uint64(31)).astype(np.int64).reshape(shape)

    def around(self, n: int, *shape: int) -> np.ndarray:
        """Numbers from -n to n."""
        return self.below(2 * n + 1, *shape) - n


def check(clutter: int, ground: str) -> None:
    """StudyError unless there is such a level and such a ground."""
    if clutter not in CONTRAST:
        levels = ", ".join(map(str, CONTRAST))
        raise StudyError(f"There is no clutter level {clutter!r}; the levels are {levels}.")
    if ground not in GROUNDS:
        known = ", ".join(GROUNDS)
        raise StudyError(f"There is no ground named {ground!r}; the grounds are {known}.")


def background(scene) -> np.ndarray:
    """All that lies behind the objects of a scene, int32 (336, 336, 3)."""
    canvas, busy = flat(scene), CONTRAST[scene.clutter]
    if busy:
        canvas = (canvas * (4 - busy) + GROUNDS[scene.ground](scene, canvas) * busy) // 4
    return _pieces(canvas, scene.texture) if scene.clutter == HARDEST else canvas


def covered(canvas: np.ndarray, scene) -> np.ndarray:
    """A picture under the leaves that lie in front of its objects, if the level has such."""
    if scene.clutter != HARDEST:
        return canvas
    leaves = _front(scene.texture)
    return np.where(leaves.labels[..., None] > 0, leaves.painted(scene), canvas)


def in_front(scene) -> np.ndarray:
    """Boolean (336, 336): where a leaf lies in front of whatever is there."""
    if scene.clutter != HARDEST:
        return np.zeros((SIDE, SIDE), bool)
    return _front(scene.texture).labels > 0


# --- even ground -----------------------------------------------------------------------------


def flat(scene) -> np.ndarray:
    """Sky and ground as two vertical gradients with a soft texture, int32 (336, 336, 3)."""
    colors = np.array(PLACES[scene.place], np.int32)
    rows = np.arange(SIDE)[:, None]
    sky = colors[0] + (colors[1] - colors[0]) * rows // SIDE
    ground = colors[2] + (colors[3] - colors[2]) * rows // SIDE
    canvas = np.where(rows < scene.horizon, sky, ground)[:, None] + _texture(scene.texture)
    return _lit(canvas, scene).clip(0, 255).astype(np.int32)


def _lit(colors: np.ndarray, scene) -> np.ndarray:
    """Colours of a place in the scene's light."""
    colors = colors + scene.brightness
    return colors * 4 // 10 + np.array([-6, 0, 22], np.int32) if scene.night else colors


def _texture(seed: int) -> np.ndarray:
    """Low-frequency noise in [-12, 12], int (336, 336, 1), by integer bilinear interpolation."""
    coarse = np.random.Generator(np.random.PCG64(seed)).integers(-12, 13, (13, 13))
    weights = _bilinear(28)
    return ((weights @ coarse @ weights.T) // 28**2)[..., None].astype(np.int32)


@cache
def _bilinear(span: int) -> np.ndarray:
    """Integer weights (336, 336 // span + 1) that sum to `span` a row."""
    weights = np.zeros((SIDE, SIDE // span + 1), np.int64)
    for y in range(SIDE):
        cell, step = divmod(y, span)
        weights[y, cell], weights[y, cell + 1] = span - step, step
    return weights


# --- dead leaves -----------------------------------------------------------------------------

EDGE = 40  # pixels outside the picture in which leaves are thrown too
BEHIND = dict(count=700, low=7, high=70)  # leaves behind the objects, radii in pixels
AHEAD = dict(count=48, low=9, high=28)  # in front of them


@dataclass(frozen=True, eq=False)
class Leaves:
    """Thrown leaves: `labels` int16 (336, 336) of which leaf is on top (from 1; 0 where none is),
    their middles `x`, `y` and radii `r` (n,), and the dice that go on to colour them."""

    labels: np.ndarray
    x: np.ndarray
    y: np.ndarray
    r: np.ndarray
    seed: tuple[int, ...]

    def painted(self, scene) -> np.ndarray:
        """Their colours, int32 (336, 336, 3) in [0, 255]; anything where no leaf lies."""
        dice = Dice(*self.seed, 1)
        colors = _leaf_colors(dice, scene, len(self.r))
        colors = np.concatenate([np.zeros((1, 3), np.int32), colors])
        return (colors[self.labels] + self._shading(dice)[..., None]).clip(0, 255)

    def _shading(self, dice: Dice) -> np.ndarray:
        """A gradient on every leaf and stripes on most, int32 (336, 336): a sprite has both."""
        n, rows = len(self.r), np.arange(SIDE, dtype=np.int32)
        gx, gy, slope = dice.around(8, n), dice.around(8, n), dice.around(40, n)
        width, depth = 8 * (4 + dice.below(8, n)), dice.below(61, n) * (dice.below(4, n) < 3)
        offset = self._each(gx * self.x + gy * self.y)
        along = self._each(gx) * rows + self._each(gy) * rows[:, None] - offset
        gradient = self._each(slope) * along // self._each(8 * self.r, 1)
        return gradient - (along // self._each(width, 1) & 1) * self._each(depth)

    def _each(self, values: np.ndarray, none: int = 0) -> np.ndarray:
        """One number a leaf as one a pixel, int32 (336, 336)."""
        return np.concatenate([[none], values]).astype(np.int32)[self.labels]


def _dead_leaves(scene, canvas: np.ndarray) -> np.ndarray:
    """Leaves that cover nearly all of the picture; the even ground in the gaps."""
    leaves = _thrown((scene.texture, 1), **BEHIND)
    return np.where(leaves.labels[..., None] > 0, leaves.painted(scene), canvas)


@lru_cache(maxsize=64)  # asked for once a mask
def _front(texture: int) -> Leaves:
    return _thrown((texture, 3), **AHEAD)


def _thrown(seed: tuple[int, ...], count: int, low: int, high: int) -> Leaves:
    """`count` leaves thrown one upon the other; P(radius > r) falls by r⁻² from `low` to `high`."""
    dice = Dice(*seed)
    r = low + np.searchsorted(_radii(low, high), dice.below(2**31, count), side="right")
    x, y = dice.below(SIDE + 2 * EDGE, count), dice.below(SIDE + 2 * EDGE, count)
    wide = np.zeros((SIDE + 2 * (EDGE + high),) * 2, np.int16)
    where = zip((x + high).tolist(), (y + high).tolist(), r.tolist(), strict=True)
    for k, (a, b, c) in enumerate(where, 1):
        np.copyto(wide[b - c : b + c + 1, a - c : a + c + 1], k, where=_disc(c))
    inner = slice(EDGE + high, EDGE + high + SIDE)
    return Leaves(wide[inner, inner].copy(), x - EDGE, y - EDGE, r, seed)


@cache
def _disc(radius: int) -> np.ndarray:
    """Boolean (2r + 1, 2r + 1)."""
    k = np.arange(-radius, radius + 1)
    return k[:, None] ** 2 + k**2 <= radius * (radius + 1)


@cache
def _radii(low: int, high: int) -> np.ndarray:
    """Of 2³¹ throws, how many have a radius below low + 1, low + 2, ..., high."""
    a, b = low**2, high**2
    squares = [r * r for r in range(low + 1, high + 1)]
    return np.array([2**31 * (s - a) * b // (s * (b - a)) for s in squares])


def _leaf_colors(dice: Dice, scene, n: int) -> np.ndarray:
    """A colour a leaf, int32 (n, 3): five in eight the objects', three the place's."""
    tints = np.array(list(COLORS.values()))[dice.below(len(COLORS), n)]
    tints = tints * (160 + dice.below(96, n))[:, None] // 255
    own = _lit(np.array(PLACES[scene.place])[dice.below(4, n)], scene) + dice.around(70, n)[:, None]
    mixed = np.where(dice.below(8, n)[:, None] < 5, tints, own)
    return (mixed + dice.around(30, n, 3)).astype(np.int32)


# --- photographs and noise -------------------------------------------------------------------


def _photo(scene, canvas: np.ndarray) -> np.ndarray:
    """A square crop of a photograph whose mean colour is that of the even ground."""
    dice, chosen = Dice(scene.texture, 4), PHOTOS[scene.ground]
    photo = _photograph(chosen[int(dice.below(len(chosen), 1)[0])])
    short = min(photo.shape[:2])
    side = int(short * (40 + dice.below(61, 1)[0]) // 100)
    y, x = (int(dice.below(size - side + 1, 1)[0]) for size in photo.shape[:2])
    crop = _enlarged(photo[y : y + side, x : x + side])
    area = SIDE * SIDE
    shift = canvas.sum((0, 1)) // area - crop.sum((0, 1)) // area
    return (crop + shift.astype(np.int32)).clip(0, 255)


@cache
def _photograph(name: str) -> np.ndarray:
    """One of the study's photographs, int32 (H, W, 3)."""
    folder = data_dir() / "photos"
    with Image.open(folder / f"{name}.jpg") as image:
        return np.asarray(image.convert("RGB")).astype(np.int32)


def _enlarged(crop: np.ndarray) -> np.ndarray:
    """A square (k, k, 3) as (336, 336, 3), bilinear in steps of 1/256."""
    at = np.arange(SIDE) * (len(crop) - 1) * 256 // (SIDE - 1)
    cell = np.minimum(at >> 8, len(crop) - 2)
    part = (at - (cell << 8)).astype(np.int32)
    down = crop[cell] * (256 - part)[:, None, None] + crop[cell + 1] * part[:, None, None] >> 8
    return down[:, cell] * (256 - part)[:, None] + down[:, cell + 1] * part[:, None] >> 8


SPANS = (1, 2, 4, 8, 16, 42, 84, 168)  # pixels of an octave's cells


def _pink(scene, canvas: np.ndarray) -> np.ndarray:
    """The even ground under 1/f noise: octaves of equal strength, three correlated channels."""
    dice, total = Dice(scene.texture, 5), 0
    for span in SPANS:
        weights = _bilinear(span).astype(float)  # products of small whole numbers are exact
        n = weights.shape[1]
        coarse = dice.around(28, 4, n, n).astype(float)
        total = total + (weights @ coarse @ weights.T).astype(np.int64) // span**2  # (4, 336, 336)
    common, own = total[:1], total[1:]
    return (canvas + np.moveaxis(common + own // 2, 0, -1).astype(np.int32)).clip(0, 255)


GROUNDS = {"leaves": _dead_leaves, "photo": _photo, "photo-train": _photo, "pink": _pink}


# --- pieces of sprites -----------------------------------------------------------------------

PIECES = 24


def _pieces(canvas: np.ndarray, texture: int) -> np.ndarray:
    """Round pieces cut out of sprites, none of which shows two thirds of one."""
    dice, out = Dice(texture, 2), canvas.copy()
    classes, tints = names(), list(COLORS.values())
    rolled = zip(
        dice.below(len(classes), PIECES).tolist(),
        dice.below(len(tints), PIECES).tolist(),
        dice.below(len(SIZES), PIECES).tolist(),
        dice.below(2**16, PIECES, 4),
        strict=True,
    )
    for name, tint, size, spot in rolled:
        light, alpha = bare_cell(classes[name], SIZES[size])
        side = atlas()["sizes"][SIZES[size]]
        radius = side // 5
        cut = _disc(radius)
        room = [side - len(cut), side - len(cut), SIDE - len(cut), SIDE - len(cut)]
        v, u, y, x = (int(s) * (r + 1) >> 16 for s, r in zip(spot, room, strict=True))
        inner = slice(v, v + len(cut)), slice(u, u + len(cut))
        colors = shade(np.array(tints[tint], np.int32), light[inner])
        blend(out[y : y + len(cut), x : x + len(cut)], colors, alpha[inner] * cut)
    return out


def blend(part: np.ndarray, colors: np.ndarray, alpha: np.ndarray) -> None:
    """Paint colours (h, w, 3) over a part of a canvas, in place; alpha (h, w) in [0, 255]."""
    part[:] = (colors * alpha[..., None] + part * (255 - alpha[..., None]) + 127) // 255
