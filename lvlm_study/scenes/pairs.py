"""Minimal-edit pairs: two scenes that differ in one thing, one question, two different answers.

As in MMVP, only both answers right count: a model that does not look gives the same answer twice
and earns nothing. Unlike MMVP, the edit is known to the pixel.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from .questions import Question, again
from .scenes import COLORS, GAP, PLACES, SIDE, Scene, atlas, is_free, names
from .testset import answers_of, find, in_turn, record

SEED = 11
PER_CATEGORY = 24
TRIES = 20

Edit = Callable[[np.random.Generator, Scene, Question], Scene]


def recolored(rng: np.random.Generator, scene: Scene, question: Question) -> Scene:
    """The object that decides in another colour."""
    i = question.evidence[0]
    others = [c for c in COLORS if c != scene.objects[i].color]
    return scene.changed(i, color=str(rng.choice(others)))


def replaced(rng: np.random.Generator, scene: Scene, question: Question) -> Scene:
    """Another class in its place; of the same kind where the question is about the kind."""
    i = question.evidence[0]
    shown = {o.name for o in scene.objects}
    kind = atlas()["kinds"][scene.objects[i].name] if question.kind != "name" else None
    return scene.changed(i, name=str(rng.choice([n for n in names(kind) if n not in shown])))


def removed(rng: np.random.Generator, scene: Scene, question: Question) -> Scene:
    """One deciding object less."""
    return scene.without(int(rng.choice(question.evidence)))


def moved(rng: np.random.Generator, scene: Scene, question: Question) -> Scene:
    """The object that is asked about on another free spot."""
    i = question.evidence[0]
    side, others = scene.objects[i].side, scene.without(i).objects
    spots = rng.integers(GAP, SIDE - GAP - side, (40, 2)).tolist()
    x, y = next((s for s in spots if is_free(others, *s, side)), spots[0])
    return scene.changed(i, x=x, y=y) if is_free(others, x, y, side) else scene


def shrunk(rng: np.random.Generator, scene: Scene, question: Question) -> Scene:
    """The bigger of two objects as a small one about the same middle."""
    i = next(i for i in question.evidence if scene.objects[i].name == question.content)
    o = scene.objects[i]
    shift = (o.side - atlas()["sizes"]["small"]) // 2
    return scene.changed(i, size="small", x=o.x + shift, y=o.y + shift)


def elsewhere(rng: np.random.Generator, scene: Scene, question: Question) -> Scene:
    """The same objects in another place."""
    return replace(scene, place=str(rng.choice([p for p in PLACES if p != scene.place])))


def night_and_day(rng: np.random.Generator, scene: Scene, question: Question) -> Scene:
    """Night for day, day for night."""
    return replace(scene, night=not scene.night)


EDITS: dict[str, Edit] = {
    "color": recolored,
    "name": replaced,
    "existence": removed,
    "counting": removed,
    "relation": moved,
    "corner": moved,
    "place": elsewhere,
    "light": night_and_day,
    "bigger": shrunk,
    "animal": replaced,
    "fruit": replaced,
    "vehicle": replaced,
}


def build(seed: int = SEED, per_category: int = PER_CATEGORY) -> Iterator[dict]:
    """The records of all pairs, two lines each; which of the two comes first is drawn by lot."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for category, k, kind, answers in in_turn(per_category, _first_answers):
        pair = _pair(rng, kind, answers)
        order = pair if rng.integers(2) else pair[::-1]
        name = f"{category}-{k:02d}"
        edit = {"pair": name, "edit": EDITS[kind].__name__}
        for letter, (scene, question) in zip("ab", order, strict=True):
            yield record(f"{name}{letter}", scene, question) | edit


def _first_answers(kind: str) -> tuple[str, ...]:
    """Answers to start from: an object that is not there cannot be taken away."""
    return ("Yes",) if kind == "existence" else answers_of(kind)


def _pair(rng: np.random.Generator, kind: str, answers: Iterator[str]) -> list:
    """A scene and its edited twin with the same question and different answers."""
    answer = next(answers)
    while True:
        scene, question = find(rng, kind, answer)
        for _ in range(TRIES):
            twin = EDITS[kind](rng, scene, question)
            other = again(twin, kind, question.text)
            if other and other.content != question.content:
                return [(scene, question), (twin, other)]
