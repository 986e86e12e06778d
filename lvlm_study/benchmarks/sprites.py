"""SpriteVQA: questions about drawn scenes whose evidence is known to the pixel."""

import json
from functools import cache, partial
from pathlib import Path

import numpy as np

from ..errors import StudyError
from ..paths import data_dir
from ..zoo import scenes
from ..zoo.scenes import Scene
from .base import Item


def sprites() -> tuple[Item, ...]:
    """The fixed test set: 576 items, 96 in each of six categories.

    `evidence` is the exact mask of the objects that decide the answer; for questions about the
    whole place it is the background, and None where nothing decides ("No, there is no cat.").
    `extra` holds the scene (it can be drawn again without an object), the kind of question, the
    numbers of the deciding objects, and `content_span`, the part of the reference answer that
    only the picture tells.
    """
    return _read(data_dir() / "sprites" / "test.jsonl")


@cache
def _read(path: Path) -> tuple[Item, ...]:
    if not path.is_file():
        raise StudyError(f"The test set is missing: {path}; restore it from the repository.")
    return tuple(item_of(json.loads(line)) for line in path.read_text().splitlines())


def item_of(record: dict) -> Item:
    """An Item from one line of a SpriteVQA file (see `zoo.testset`)."""
    scene = Scene.from_json(record["scene"])
    return Item(
        id=f"sprites/{record['id']}",
        image=partial(scenes.draw, scene),
        question=record["question"],
        reference=record["answer"],
        accept=tuple(record["accept"]),
        category=record["category"],
        evidence=evidence_mask(scene, record["evidence"], record["category"]),
        benchmark="sprites",
        extra={
            "scene": scene,
            "kind": record["kind"],
            "objects": record["evidence"],
            "content_span": tuple(record["content_span"]),
            "sha256": record["sha256"],
        },
    )


def evidence_mask(scene: Scene, objects: list[int] | None, category: str) -> np.ndarray | None:
    """Union of the objects' masks; the background for global questions; None if nothing decides."""
    if objects is None:
        return scenes.background_mask(scene) if category == "global" else None
    return np.logical_or.reduce([scenes.mask(scene, i) for i in objects])
