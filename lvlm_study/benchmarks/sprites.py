"""SpriteVQA: questions about drawn scenes whose evidence is known to the pixel."""

import json
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from ..errors import StudyError, unknown
from ..paths import data_dir
from ..scenes import backgrounds, clutter, scenes, styles
from ..scenes.backgrounds import HIDDEN
from ..scenes.questions import again
from ..scenes.scenes import COLORS, GAP, SIDE, Scene
from ..scenes.shortcut import Strip
from .base import Item


@dataclass(frozen=True, eq=False)
class SpriteItem(Item):
    """An item whose picture can be drawn again with one thing changed: an exact counterfactual.

    Each method returns a new item with the same question. Its reference is the answer of the new
    picture, "" where the question has none any more (its object is gone). No pixel elsewhere
    changes, which neither blur nor inpainting can promise.
    """

    def without(self, *objects: int) -> "SpriteItem":
        """As if these objects (numbers in `extra["scene"].objects`) had never been there."""
        for i in objects:
            self._object(i)
        names = "-".join(map(str, objects))
        return self._with(f"without-{names}", self.extra["scene"].without(*objects))

    def recolored(self, i: int, color: str) -> "SpriteItem":
        """Object `i` in another of the six colours."""
        self._object(i)
        if color not in COLORS:
            raise unknown("colour", color, COLORS)
        return self._with(f"{i}-{color}", self.extra["scene"].changed(i, color=color))

    def moved(self, i: int, x: int, y: int) -> "SpriteItem":
        """Object `i` with its upper left corner at pixel (x, y), where it must have room."""
        side, scene = self._object(i).side, self.extra["scene"]
        inside = GAP <= min(x, y) and max(x, y) + side <= SIDE - GAP
        if not inside or not scenes.is_free(scene.without(i).objects, x, y, side):
            raise StudyError(
                f"Object {i} of {self.id} ({side} pixels) cannot stand at ({x}, {y}): it must stay "
                f"{GAP} pixels away from the border and from the others; choose a free spot."
            )
        moved = scene.changed(i, x=x, y=y)
        if scenes.too_hidden(moved, i):
            raise StudyError(
                f"Object {i} of {self.id} cannot stand at ({x}, {y}): leaves would hide more than "
                f"{HIDDEN} % of it; choose another spot."
            )
        return self._with(f"{i}-at-{x}-{y}", moved)

    def without_text(self) -> "SpriteItem":
        """As if no strip of text had been put on the picture."""
        return self._with("without-text", self.extra["scene"], strip=None)

    def _object(self, i: int) -> scenes.Sprite:
        objects = self.extra["scene"].objects
        if not 0 <= i < len(objects):
            raise StudyError(f"{self.id} has objects 0 to {len(objects) - 1}, and no object {i}.")
        return objects[i]

    def _with(self, change: str, scene: Scene, **extra) -> "SpriteItem":
        extra = {**self.extra, "scene": scene, "sha256": None, **extra}
        found = again(scene, extra["kind"], self.question)
        objects = found.evidence if found else None
        start = found.answer.index(found.content) if found else 0
        span = (start, start + len(found.content)) if found else (0, 0)
        return replace(
            self,
            id=f"{self.id}~{change}",
            image=partial(render, scene, extra["style"], extra["strip"]),
            reference=found.answer if found else "",
            accept=found.accept if found else (),
            evidence=evidence_mask(scene, objects, self.category) if found else None,
            extra={**extra, "objects": objects, "content_span": span},
        )


def sprites() -> tuple[SpriteItem, ...]:
    """The fixed test set: 576 items, 96 in each of six categories.

    `evidence` is the exact mask of the objects that decide the answer; for questions about the
    whole place it is the background, and None where nothing decides ("No, there is no cat.").
    `extra` holds the scene (it can be drawn again without an object), the kind of question, the
    numbers of the deciding objects, and `content_span`, the part of the reference answer that
    only the picture tells.
    """
    return read("test", "sprites")


def sprites_flat() -> tuple[SpriteItem, ...]:
    """The test set drawn as silhouettes: domain shift with the same questions and evidence."""
    return read("test", "sprites_flat", "flat")


def sprites_outline() -> tuple[SpriteItem, ...]:
    """The test set as line drawings: a stronger domain shift than `sprites_flat`."""
    return read("test", "sprites_outline", "outline")


def sprites_clutter(level: int = 3, ground: str = "leaves") -> tuple[SpriteItem, ...]:
    """The test set on busy ground: 576 items, three questions about each of 192 pictures.

    `level` 0 is even ground, 4 the busiest; `ground` is "leaves", "photo" (crops of photographs
    that no training shows) or "pink" (1/f noise): see `scenes.backgrounds`. Levels 0 to 3 and all
    grounds have the same layouts and questions, level 4 its own. `extra["picture"]` says which
    items share a picture; `evidence` is what is seen of the deciding objects. StudyError for an
    unknown level or ground.
    """
    backgrounds.check(level, ground)
    file = "clutter4" if level == backgrounds.HARDEST else "clutter"
    return _read_clutter(_path(file), level, ground)


@cache
def _read_clutter(path: Path, level: int, ground: str) -> tuple[SpriteItem, ...]:
    shown = {where: key for key, where in clutter.SHOWN[path.stem].items()}
    key = shown.get((level, ground), f"{level}-{ground}")
    records = (
        {
            **question,
            "id": f"{line['id']}-{question['category']}",
            "picture": line["id"],
            "scene": line["scene"] | {"clutter": level, "ground": ground},
            "sha256": line["sha256"].get(key),
        }
        for line in map(json.loads, path.read_text().splitlines())
        for question in line["questions"]
    )
    return tuple(item_of(record, f"sprites_clutter-{key}") for record in records)


def read(file: str, benchmark: str, style: str = "shaded") -> tuple[SpriteItem, ...]:
    """The items of one file of data/sprites, under the name of a benchmark, in one style."""
    return _read(_path(file), benchmark, style)


def _path(file: str) -> Path:
    path = data_dir() / "sprites" / f"{file}.jsonl"
    if not path.is_file():
        raise StudyError(f"The test set is missing: {path}; restore it from the repository.")
    return path


@cache
def _read(path: Path, benchmark: str, style: str) -> tuple[SpriteItem, ...]:
    return tuple(
        item_of(json.loads(line), benchmark, style) for line in path.read_text().splitlines()
    )


KNOWN = ("id", "category", "question", "answer", "accept", "evidence", "content_span", "scene")


def item_of(record: dict, benchmark: str = "sprites", style: str = "shaded") -> SpriteItem:
    """An item from one line of a SpriteVQA file (see `scenes.testset`).

    What a subset adds to its lines (pair, arm, ...) goes to `extra` as it is.
    """
    scene = Scene.from_json(record["scene"])
    strip = Strip(**record["strip"]) if record.get("strip") else None
    more = {k: v for k, v in record.items() if k not in KNOWN}
    if style != "shaded":
        more["sha256"] = None  # of the shaded picture
    return SpriteItem(
        id=f"{benchmark}/{record['id']}",
        image=partial(render, scene, style, strip),
        question=record["question"],
        reference=record["answer"],
        accept=tuple(record["accept"]),
        category=record["category"],
        evidence=evidence_mask(scene, record["evidence"], record["category"]),
        benchmark=benchmark,
        extra={
            **more,
            "scene": scene,
            "objects": record["evidence"],
            "content_span": tuple(record["content_span"]),
            "style": style,
            "strip": strip,
        },
    )


def render(scene: Scene, style: str, strip: Strip | None) -> np.ndarray:
    """The picture of an item, uint8 (336, 336, 3)."""
    picture = styles.draw(scene, style)
    return strip.stamp(picture) if strip else picture


def evidence_mask(scene: Scene, objects: list[int] | None, category: str) -> np.ndarray | None:
    """Union of the objects' masks; the background for global questions; None if nothing decides."""
    if objects is None:
        return scenes.background_mask(scene) if category == "global" else None
    return np.logical_or.reduce([scenes.mask(scene, i) for i in objects])
