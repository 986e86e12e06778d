"""The fixed test set of SpriteVQA: drawn once from its own seed, balanced, committed, checksummed.

Within a kind of question every answer is asked for equally often, so that a blind guess earns
chance. Training streams use seeds from 1000 on; the test set is drawn from seed 7. What is chosen
for a method, such as a layer, is chosen on scenes of a third seed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from . import scenes
from .questions import CATEGORIES, NUMBERS, Question, all_questions, describe
from .scenes import COLORS, PLACES, Scene, names

SEED = 7
PER_CATEGORY = 96
DESCRIBED = 14  # seed of the scenes to be described
HELD_OUT = 21  # seed of scenes on which settings are chosen; no result is of them
DESCRIBE = "Describe the picture."
KINDS = {
    "attribute": ("color", "name"),
    "existence": ("existence",),
    "counting": ("counting",),
    "spatial": ("relation", "corner"),
    "global": ("place", "light"),
    "reasoning": ("bigger", "animal", "bigger", "fruit", "bigger", "vehicle"),
}


def answers_of(kind: str) -> tuple[str, ...]:
    """Every answer that a kind of question can have."""
    corners = ("top left", "top right", "bottom left", "bottom right")
    return {
        "color": tuple(COLORS),
        "existence": ("Yes", "No"),
        "counting": NUMBERS[1:],
        "relation": ("left", "right", "above", "below"),
        "corner": corners,
        "place": tuple(PLACES),
        "light": ("day", "night"),
        "animal": tuple(names("animal")),
        "fruit": tuple(names("fruit")),
        "vehicle": tuple(names("vehicle")),
    }.get(kind, tuple(names()))


def build(seed: int = SEED, per_category: int = PER_CATEGORY) -> Iterator[dict]:
    """The records of a test set, category by category."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for category, k, kind, answers in in_turn(per_category):
        scene, question = find(rng, kind, next(answers))
        yield record(f"{category}-{k:03d}", scene, question)


def in_turn(
    per_category: int, answers: Callable[[str], tuple[str, ...]] = answers_of
) -> Iterator[tuple[str, int, str, Iterator[str]]]:
    """(category, number in it, kind, answers yet to ask for): kinds and answers take turns."""
    for category in CATEGORIES:
        wanted = {kind: cycle(answers(kind)) for kind in KINDS[category]}
        for k, kind in enumerate(islice(cycle(KINDS[category]), per_category)):
            yield category, k, kind, wanted[kind]


def record(name: str, scene: Scene, question: Question, picture: np.ndarray | None = None) -> dict:
    """One line of the file: the item in words, its scene, and the checksum of its picture.

    `picture` is what is shown where that is more than the scene.
    """
    picture = scenes.draw(scene) if picture is None else picture
    return {
        "id": name,
        **described(question),
        "scene": scene.to_json(),
        "sha256": hashlib.sha256(picture.tobytes()).hexdigest(),
    }


def described(question: Question) -> dict:
    """What a line says about a question; `content_span` is where its answer has the content."""
    start = question.answer.index(question.content)
    return {
        "category": question.category,
        "kind": question.kind,
        "question": question.text,
        "answer": question.answer,
        "accept": list(question.accept),
        "content_span": [start, start + len(question.content)],
        "evidence": None if question.evidence is None else list(question.evidence),
    }


def build_descriptions(seed: int = DESCRIBED, n: int = 60) -> Iterator[dict]:
    """As many long answers as LLaVA-Bench has: "Describe the picture." for n scenes."""
    for k, scene in zip(range(n), scenes.stream(seed), strict=False):
        text = describe(scene)
        told = text.removeprefix("The picture shows a ").removesuffix(".")
        every = tuple(range(len(scene.objects)))
        question = Question("description", "description", DESCRIBE, text, (), told, every)
        yield record(f"{k:02d}", scene, question)


def write(path: Path, records: Iterable[dict]) -> str:
    """Write a subset as JSON lines; returns the checksum of the file."""
    lines = [json.dumps(line, separators=(",", ":")) for line in records]
    path.write_text("\n".join(lines) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find(rng: np.random.Generator, kind: str, answer: str) -> tuple[Scene, Question]:
    """A scene in which a question of this kind has this answer."""
    while True:
        repeat = NUMBERS.index(answer) if kind == "counting" else None
        scene = scenes.sample(rng, repeat)
        hits = [q for q in all_questions(scene, rng) if q.kind == kind and q.content == answer]
        if hits:
            return scene, hits[int(rng.integers(len(hits)))]
