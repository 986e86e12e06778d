"""The test sets on busy ground: the same questions at every level, several about one picture.

Each picture is asked three questions of three categories, so that a map can be held against the
map of another question about the very same pixels. The layouts of levels 0 to 3 and of the other
grounds are one and the same: what changes from level to level is the ground alone. Level 4 has
layouts of its own (more small objects, leaves in front). Categories, kinds and answers are
balanced as in `scenes.testset`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, cycle, islice

import numpy as np

from . import scenes
from .backgrounds import HARDEST
from .questions import CATEGORIES, NUMBERS, Question, all_questions
from .scenes import Scene, Sprite, atlas, names
from .testset import KINDS, answers_of, described

SEEDS = {"clutter": 31, "clutter4": 32}  # of the two files
PICTURES = 192
SHOWN = {  # which grounds a file's scenes stand on: {key: (level, ground)}
    "clutter": {
        **{str(level): (level, "leaves") for level in range(HARDEST)},
        "photo": (3, "photo"),
        "pink": (3, "pink"),
    },
    "clutter4": {str(HARDEST): (HARDEST, "leaves")},
}


def build(file: str, pictures: int = PICTURES) -> Iterator[dict]:
    """The records of a file, one a picture: its scene, its questions, its checksums by ground."""
    rng = np.random.Generator(np.random.PCG64(SEEDS[file]))
    level = HARDEST if file == "clutter4" else 0
    wanted = {category: _turns(category) for category in CATEGORIES}
    for k, categories in zip(range(pictures), _triples(), strict=False):
        asked: list[tuple[str, str]] = []
        for category in categories:
            asked.append(_next(wanted[category], asked))
        scene, questions = find(rng, asked, level)
        yield {
            "id": f"{k:03d}",
            "scene": scene.to_json(),
            "questions": [described(q) for q in questions],
            "sha256": {key: _checksum(scene, *where) for key, where in SHOWN[file].items()},
        }


def find(
    rng: np.random.Generator, asked: list[tuple[str, str]], clutter: int = 0
) -> tuple[Scene, list[Question]]:
    """A scene in which a question of each kind has the answer wanted; `asked` are such pairs.

    No question is taken whose deciding object is hidden by more than the limit.
    """
    counted = [NUMBERS.index(answer) for kind, answer in asked if kind == "counting"]
    while True:
        scene = _likely(rng, scenes.sample(rng, *counted, clutter=clutter), asked)
        every = all_questions(scene, rng)
        hits = [[q for q in every if (q.kind, q.content) == pair] for pair in asked]
        chosen = [of_one[int(rng.integers(len(of_one)))] for of_one in hits if of_one]
        if len(chosen) == len(asked) and all(shows(scene, q) for q in chosen):
            return scene, chosen


def shows(scene: Scene, question: Question) -> bool:
    """Whether enough is seen of every object that decides a question."""
    return not any(scenes.too_hidden(scene, i) for i in question.evidence or ())


def _likely(rng: np.random.Generator, scene: Scene, asked: list[tuple[str, str]]) -> Scene:
    """A scene in the place and light, and with the classes, that the answers name.

    A class that is missing takes the place of another one, so that few scenes are drawn in vain.
    """
    answers = [answer for _, answer in asked]
    for kind, answer in asked:
        present = sorted({o.name for o in scene.objects})
        if kind == "place":
            scene = replace(scene, place=answer)
        elif kind == "light":
            scene = replace(scene, night=answer == "night")
        elif answer in names() and answer not in present:
            out = str(rng.choice([n for n in present if n not in answers] or present))
            scene = replace(scene, objects=tuple(_renamed(o, out, answer) for o in scene.objects))
    return scene


def _renamed(sprite: Sprite, old: str, new: str) -> Sprite:
    return replace(sprite, name=new) if sprite.name == old else sprite


def _turns(category: str, n: int = PICTURES // 2) -> list[tuple[str, str]]:
    """The `n` (kind, answer) of one category; every answer of a kind comes equally often."""
    answers = {kind: cycle(answers_of(kind)) for kind in KINDS[category]}
    return [(kind, next(answers[kind])) for kind in islice(cycle(KINDS[category]), n)]


def _next(wanted: list[tuple[str, str]], asked: list[tuple[str, str]]) -> tuple[str, str]:
    """Take the first pair that goes with those already asked of a picture.

    "Which animal is shown?" cannot be asked beside a question whose answer is another animal.
    """
    kinds = atlas()["kinds"]

    def apart(one: tuple[str, str], other: tuple[str, str]) -> bool:
        return one[0] == kinds.get(other[1]) and one[1] != other[1]

    fits = (p for p in wanted if not any(apart(p, q) or apart(q, p) for q in asked))
    found = next(fits)
    wanted.remove(found)
    return found


def _triples() -> Iterator[tuple[str, ...]]:
    """Three categories and then the other three, every way of halving them by turns."""
    for half in cycle(c for c in combinations(CATEGORIES, 3) if CATEGORIES[0] in c):
        yield half
        yield tuple(c for c in CATEGORIES if c not in half)


def _checksum(scene: Scene, clutter: int, ground: str) -> str:
    shown = replace(scene, clutter=clutter, ground=ground)
    return hashlib.sha256(scenes.draw(shown).tobytes()).hexdigest()
