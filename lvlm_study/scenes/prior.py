"""The prior subset: what can be answered without looking, and what looking has to overrule.

Three items on one scene: P0 needs no picture at all ("Is a banana a fruit or a vehicle?"), P+ asks
for a colour that everybody would guess (a yellow banana), P- asks the same of a scene where the
guess is wrong (a blue banana). A model with such a prior should lean on the picture least in P0
and most in P-. Models of the zoo saw every colour equally often: for them P+ and P- should be the
same.
"""

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np

from . import scenes
from .questions import Question, again, article
from .scenes import COLORS, atlas, names
from .testset import find, record

SEED = 12
TRIPLES = 40
TYPICAL = {
    "banana": "yellow",
    "pineapple": "yellow",
    "apple": "red",
    "cherry": "red",
    "strawberry": "red",
}
KINDS = ("animal", "vehicle", "fruit")


def build(seed: int = SEED, triples: int = TRIPLES) -> Iterator[dict]:
    """The records of all triples, three lines each: P0, P+, P-."""
    rng = np.random.Generator(np.random.PCG64(seed))
    by_turns = zip(*map(names, KINDS), strict=True)
    known = cycle([name for three in by_turns for name in three])
    for k, name in enumerate(islice(cycle(TYPICAL), triples)):
        scene, question = _typical(rng, name)
        odd = scene.changed(question.evidence[0], color=_odd(rng, TYPICAL[name]))
        three = {
            "P0": (scene, knowledge(next(known), rng)),
            "P+": (scene, question),
            "P-": (odd, again(odd, "color", question.text)),
        }
        for arm, (shown, asked) in three.items():
            extra = {"triple": f"{k:02d}", "arm": arm, "prior": _prior(arm, asked, name)}
            yield record(f"{k:02d}-{arm}", shown, asked) | extra


def knowledge(name: str, rng: np.random.Generator) -> Question:
    """A question about a class that needs no picture; the right kind comes first or last."""
    kind = atlas()["kinds"][name]
    other = str(rng.choice([k for k in KINDS if k != kind]))
    first, last = (kind, other) if rng.integers(2) else (other, kind)
    subject = article(name)
    text = f"Is {subject} {article(first)} or {article(last)}?"
    answer = f"{subject[0].upper()}{subject[1:]} is {article(kind)}."
    return Question("prior", "knowledge", text, answer, (kind,), kind, None)


def _typical(rng: np.random.Generator, name: str) -> tuple[scenes.Scene, Question]:
    """A scene with one fruit of this class in its usual colour, and the question for its colour."""
    while True:
        scene, question = find(rng, "color", TYPICAL[name])
        if scene.objects[question.evidence[0]].name == name:
            return scene, question


def _odd(rng: np.random.Generator, typical: str) -> str:
    return str(rng.choice([c for c in COLORS if c not in (typical, "orange", "green")]))


def _prior(arm: str, asked: Question, name: str) -> str:
    return asked.content if arm == "P0" else TYPICAL[name]
