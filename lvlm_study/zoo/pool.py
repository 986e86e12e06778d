"""A pool of drawn scenes, reduced to the sizes that the vision towers see, with dense labels.

Drawing a scene takes longer than a training step on it, so a pool is drawn once, kept in a work
folder, and read by every member. It can be deleted at any time: the seed makes it again.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from . import scenes
from .scenes import COLORS, PLACES, SIDE, SIZES, Scene

LABELS = ("name", "color", "size", "center")  # per patch; zero means "no object here"
COVER = 0.15  # share of a patch that an object must fill to be its label


@dataclass(frozen=True)
class Pool:
    """Scenes with their views: `views[s]` uint8 (n, s, s, 3), `labels[g]` uint8 (n, g, g, 4)."""

    scenes: list[Scene]
    views: dict[int, np.ndarray]
    labels: dict[int, np.ndarray]


def load_pool(folder: Path, n: int, seed: int, sides: dict[int, int]) -> Pool:
    """Read the pool of `n` scenes from `folder`, drawing it first if it is not there.

    `sides` maps the side of a view in pixels to the side of its label grid in patches.
    """
    folder = folder / f"pool-{seed}-{n}"
    if not (folder / "done").exists():
        _draw_pool(folder, n, seed)
    records = (folder / "scenes.jsonl").read_text().splitlines()
    return Pool(
        scenes=[Scene.from_json(json.loads(line)) for line in records],
        views={s: np.load(folder / f"view-{s}.npy", mmap_mode="r") for s in sides},
        labels={g: np.load(folder / f"label-{g}.npy", mmap_mode="r") for g in sides.values()},
    )


VIEWS = {112: 8, 84: 6, 168: 12}  # view side: label grid side


def _draw_pool(folder: Path, n: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    views = {s: np.zeros((n, s, s, 3), np.uint8) for s in VIEWS}
    labels = {g: np.zeros((n, g, g, 4), np.uint8) for g in VIEWS.values()}
    source, lines = scenes.stream(seed), []
    for i in range(n):
        scene = next(source)
        image = Image.fromarray(scenes.draw(scene))
        for side, grid in VIEWS.items():
            views[side][i] = np.asarray(image.resize((side, side), Image.BICUBIC))
            labels[grid][i] = patch_labels(scene, grid)
        lines.append(json.dumps(scene.to_json()))
    (folder / "scenes.jsonl").write_text("\n".join(lines) + "\n")
    for name, arrays in (("view", views), ("label", labels)):
        for side, array in arrays.items():
            np.save(folder / f"{name}-{side}.npy", array)
    (folder / "done").write_text("")


def patch_labels(scene: Scene, grid: int) -> np.ndarray:
    """Which object each patch shows: uint8 (grid, grid, 4) of name, colour, size, centre.

    Name, colour and size count from 1 (0 is background); centre is 1 in the one patch that holds an
    object's middle, which makes objects countable.
    """
    out = np.zeros((grid, grid, 4), np.uint8)
    best = np.full((grid, grid), COVER)
    step = SIDE // grid
    for i, o in enumerate(scene.objects):
        cover = scenes.mask(scene, i).reshape(grid, step, grid, step).mean((1, 3))
        wins = cover > best
        label = (scenes.atlas()["rows"][o.name] + 1, _index(COLORS, o.color), _index(SIZES, o.size))
        out[wins, :3] = label
        best[wins] = cover[wins]
    for o in scene.objects:
        x, y = (int(c // step) for c in o.center)
        out[y, x] = (
            scenes.atlas()["rows"][o.name] + 1,
            _index(COLORS, o.color),
            _index(SIZES, o.size),
            1,
        )
    return out


def globals_of(scene: Scene) -> tuple[int, int]:
    """(place, light) as class numbers from 0."""
    return list(PLACES).index(scene.place), int(scene.night)


def _index(values, name: str) -> int:
    return list(values).index(name) + 1
