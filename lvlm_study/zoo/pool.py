"""A pool of drawn scenes, reduced to the sizes that the vision towers see, with dense labels.

Drawing a scene takes longer than a training step on it, so a pool is drawn once, kept in a work
folder, and read by every member. It can be deleted at any time: the seed makes it again.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from ..scenes import scenes
from ..scenes.scenes import COLORS, PLACES, SIDE, SIZES, Scene

LABELS = ("name", "color", "size", "center")  # per patch; zero means "no object here"
COVER = 0.15  # share of a patch that an object must fill to be its label


@dataclass(frozen=True)
class Pool:
    """Scenes with their views: `views[s]` uint8 (n, s, s, 3), `labels[g]` uint8 (n, g, g, 4)."""

    scenes: list[Scene]
    views: dict[int, np.ndarray]
    labels: dict[int, np.ndarray]


VIEWS = {112: 8, 84: 6, 168: 12}  # view side: label grid side
HELD = 256  # scenes of the pool, drawn from seed 1001, that is never trained on
HIGH = {256: 16}  # what ConvNeXt sees; drawn only for members that have one


MIX = (4, 3, 4, 2, 4, 3, 1, 0)  # levels of clutter by turns
PHOTO = 4  # every fourth round of them on photographs


def busy_stream(seed: int) -> Iterator[Scene]:
    """Scenes of all levels, half of them of the hardest two, a quarter on photographs."""
    streams = {level: scenes.stream(seed + 2 * level, level) for level in set(MIX)}
    for k in count():
        scene, turn = next(streams[MIX[k % len(MIX)]]), k // len(MIX)
        shown = "photo-train" if turn % PHOTO == PHOTO - 1 and scene.clutter else "leaves"
        yield replace(scene, ground=shown)


def _cleared(seed: int) -> Iterator[Scene]:
    """The scenes of `busy_stream` on even ground, with nothing in front: what there is to see."""
    return (replace(scene, clutter=0, ground="leaves") for scene in busy_stream(seed))


WORLDS = {"even": scenes.stream, "busy": busy_stream, "cleared": _cleared}


def load_pool(folder: Path, n: int, seed: int, sides: dict[int, int], world: str = "even") -> Pool:
    """Read the pool of `n` scenes from `folder`, drawing first what is not there.

    `sides` maps the side of a view in pixels to the side of its label grid in patches. `world` is
    one of `WORLDS`.
    """
    folder = folder / f"pool-{'' if world == 'even' else world + '-'}{seed}-{n}"
    folder.mkdir(parents=True, exist_ok=True)
    found = _scenes(folder, n, WORLDS[world](seed))
    missing = {s: g for s, g in sides.items() if not (folder / f"view-{s}.npy").exists()}
    if missing:
        _draw(folder, found, missing)
    return Pool(
        scenes=found,
        views={s: np.load(folder / f"view-{s}.npy", mmap_mode="r") for s in sides},
        labels={g: np.load(folder / f"label-{g}.npy", mmap_mode="r") for g in sides.values()},
    )


def _scenes(folder: Path, n: int, stream: Iterator[Scene]) -> list[Scene]:
    path = folder / "scenes.jsonl"
    if not path.exists():
        drawn = (s for _, s in zip(range(n), stream, strict=False))
        path.with_suffix(".tmp").write_text(
            "".join(json.dumps(scene.to_json()) + "\n" for scene in drawn)
        )
        os.replace(path.with_suffix(".tmp"), path)
    return [Scene.from_json(json.loads(line)) for line in path.read_text().splitlines()]


def _draw(folder: Path, found: list[Scene], sides: dict[int, int]) -> None:
    """Views and labels straight to disk; each takes its name only when it is complete."""
    create, n = np.lib.format.open_memmap, len(found)
    shapes = {f"label-{g}": (n, g, g, 4) for g in sides.values()}
    shapes |= {f"view-{s}": (n, s, s, 3) for s in sides}
    arrays = {k: create(folder / f"{k}.tmp", "w+", np.uint8, v) for k, v in shapes.items()}
    for i, scene in enumerate(found):
        image = Image.fromarray(scenes.draw(scene))
        for side, grid in sides.items():
            arrays[f"view-{side}"][i] = np.asarray(image.resize((side, side), Image.BICUBIC))
            arrays[f"label-{grid}"][i] = patch_labels(scene, grid)
    for name, array in arrays.items():  # labels first: a view says that both are there
        array.flush()
        os.replace(folder / f"{name}.tmp", folder / f"{name}.npy")


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
