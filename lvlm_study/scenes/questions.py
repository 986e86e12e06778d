"""What can be asked about a scene, the sentence that answers it, and the pixels that decide it.

Six categories, three wordings each. A question is generated only where its answer is unambiguous:
one umbrella, two sizes that differ, two objects that clearly lie side by side.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .scenes import SIDE, SIZES, Scene, atlas, names

NUMBERS = ("zero", "one", "two", "three", "four")
PLURALS = {"fish": "fish", "cherry": "cherries", "bus": "buses", "strawberry": "strawberries"}
CATEGORIES = ("attribute", "existence", "counting", "spatial", "global", "reasoning")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
PHRASE = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}

WORDINGS = {
    "color": (
        "What color is the {n}?",
        "Which color does the {n} have?",
        "Tell me the color of the {n}.",
    ),
    "name": ("What is the {c} object?", "Which object is {c}?", "Name the {c} object."),
    "existence": (
        "Is there {a} in the picture?",
        "Can you see {a}?",
        "Is there {a}? Answer yes or no.",
    ),
    "counting": ("How many {p} are there?", "Count the {p}.", "What is the number of {p}?"),
    "place": (
        "What place is this?",
        "Where was this picture made?",
        "What kind of place is shown?",
    ),
    "light": (
        "Is it day or night?",
        "What time of day is it?",
        "Is this picture made by day or by night?",
    ),
    "relation": (
        "Where is the {n} relative to the {m}?",
        "On which side of the {m} is the {n}?",
        "How does the {n} lie relative to the {m}?",
    ),
    "corner": ("Where is the {n}?", "In which corner is the {n}?", "Where can I find the {n}?"),
    "bigger": (
        "Which is bigger, the {n} or the {m}?",
        "Which one is larger, the {n} or the {m}?",
        "Compare the sizes of the {n} and the {m}.",
    ),
    "animal": ("What is alive in this picture?", "Which animal is shown?", "Name the animal."),
    "fruit": ("What could you eat here?", "Which fruit is shown?", "Name the fruit."),
    "vehicle": ("What could you travel with?", "Which vehicle is shown?", "Name the vehicle."),
}
KIND_ANSWERS = {
    "animal": "The animal is {a}.",
    "fruit": "The fruit is {a}.",
    "vehicle": "The vehicle is {a}.",
}


@dataclass(frozen=True)
class Question:
    """One question, its answer sentence, and what decides it.

    `content` is the word (or words) of the answer that only the picture tells. `evidence` lists the
    objects that decide the answer; None means the whole background does.
    """

    category: str
    kind: str
    text: str
    answer: str
    accept: tuple[str, ...]
    content: str
    evidence: tuple[int, ...] | None


def article(name: str) -> str:
    """ "an apple", "a bus"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """ "cherries", "fish", "apples"."""
    return PLURALS.get(name, name + "s")


def all_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Every question the scene can answer, each in a random wording."""
    makers = (
        _color,
        _name,
        _existence,
        _counting,
        _place,
        _light,
        _relation,
        _corner,
        _bigger,
        _kind,
    )
    return [q for make in makers for q in make(scene, rng)]


def again(scene: Scene, kind: str, text: str) -> Question | None:
    """The question of this kind in these words, as this scene answers it; None if it cannot.

    A question keeps its words when its scene is edited, and gets the answer of the new scene.
    """
    for which in range(3):
        for question in all_questions(scene, _SameWords(which, text)):
            if (question.kind, question.text) == (kind, text):
                return question
    gone = next((n for n in names() if plural(n) in re.findall(r"\w+", text)), None)
    if kind != "counting" or gone is None or gone in [o.name for o in scene.objects]:
        return None
    return Question(
        kind, kind, text, f"There are zero {plural(gone)}.", ("zero", "0"), "zero", None
    )


@dataclass(frozen=True)
class _SameWords:
    """In a generator's place: always wording `which`, and the words of `text` before all others."""

    which: int
    text: str

    def integers(self, n: int) -> int:
        """`which`, whatever `n` is."""
        return self.which

    def permutation(self, values: list[str]) -> np.ndarray:
        """The words of `text` first, otherwise in their order."""
        words = re.findall(r"\w+", self.text)
        return np.array(sorted(values, key=lambda v: v not in words))


def describe(scene: Scene, order: np.ndarray | None = None, style: str = "color") -> str:
    """A caption that names every object with its colour and its quarter of the picture."""
    order = reading_order(scene) if order is None else order
    light = "night" if scene.night else "day"
    parts = ", ".join(_phrase(scene, int(i), style) for i in order)
    return f"The picture shows a {scene.place} by {light} with {parts}."


def reading_order(scene: Scene) -> np.ndarray:
    """Top row first, left to right: the one order of the descriptive answer."""
    centers = np.array([o.center for o in scene.objects])
    return np.lexsort((centers[:, 0], centers[:, 1] // (SIDE / 2)))


def corner(scene: Scene, i: int) -> str:
    """ "top left" and so on, by the middle of the object."""
    x, y = scene.objects[i].center
    return f"{'top' if y < SIDE / 2 else 'bottom'} {'left' if x < SIDE / 2 else 'right'}"


def relation(scene: Scene, i: int, j: int) -> str | None:
    """Where object i lies as seen from j, or None when no direction clearly wins."""
    (xi, yi), (xj, yj) = scene.objects[i].center, scene.objects[j].center
    dx, dy = xi - xj, yi - yj
    if max(abs(dx), abs(dy)) < 70 or min(abs(dx), abs(dy)) > 0.6 * max(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _phrase(scene: Scene, i: int, style: str) -> str:
    o, where = scene.objects[i], corner(scene, i)
    if style == "color":
        return f"{article(o.color)} {o.name} in the {where}"
    if style == "name":
        return f"{article(o.name)} that is {o.color} in the {where}"
    return f"in the {where} {article(o.color)} {o.name}"


def _single(scene: Scene) -> list[int]:
    """Objects whose class appears once, so that "the umbrella" names one thing."""
    every = [o.name for o in scene.objects]
    return [i for i, n in enumerate(every) if every.count(n) == 1]


def _wording(kind: str, rng: np.random.Generator, **words) -> str:
    return WORDINGS[kind][rng.integers(3)].format(**words)


def _color(scene: Scene, rng) -> Iterator[Question]:
    for i in _single(scene):
        o = scene.objects[i]
        text = _wording("color", rng, n=o.name)
        answer = f"The {o.name} is {o.color}."
        yield Question("attribute", "color", text, answer, (o.color,), o.color, (i,))


def _name(scene: Scene, rng) -> Iterator[Question]:
    colors = [o.color for o in scene.objects]
    for i, o in enumerate(scene.objects):
        if colors.count(o.color) == 1:
            text = _wording("name", rng, c=o.color)
            answer = f"The {o.color} object is {article(o.name)}."
            yield Question("attribute", "name", text, answer, (o.name,), o.name, (i,))


def _existence(scene: Scene, rng) -> Iterator[Question]:
    """As many absent classes as present ones: a blind guess is right half the time."""
    present = sorted({o.name for o in scene.objects})
    absent = rng.permutation([n for n in names() if n not in present])
    absent = absent[: max(1, len(present))]
    for name in [*present, *absent.tolist()]:
        which, there = int(rng.integers(3)), name in present
        text = WORDINGS["existence"][which].format(a=article(name))
        short = "Yes" if there else "No"
        sentence = f"Yes, there is {article(name)}." if there else f"No, there is no {name}."
        hits = tuple(i for i, o in enumerate(scene.objects) if o.name == name)
        answer = short if which == 2 else sentence
        yield Question(
            "existence", "existence", text, answer, (short.lower(),), short, hits if there else None
        )


def _counting(scene: Scene, rng) -> Iterator[Question]:
    every = [o.name for o in scene.objects]
    for name in sorted(set(every)):
        n = every.count(name)
        if n <= 4:
            verb, noun = ("is", name) if n == 1 else ("are", plural(name))
            text = _wording("counting", rng, p=plural(name))
            answer = f"There {verb} {NUMBERS[n]} {noun}."
            hits = tuple(i for i, o in enumerate(every) if o == name)
            yield Question(
                "counting", "counting", text, answer, (NUMBERS[n], str(n)), NUMBERS[n], hits
            )


def _place(scene: Scene, rng) -> Iterator[Question]:
    text = _wording("place", rng)
    answer = f"It is a {scene.place}."
    yield Question("global", "place", text, answer, (scene.place,), scene.place, None)


def _light(scene: Scene, rng) -> Iterator[Question]:
    word = "night" if scene.night else "day"
    yield Question("global", "light", _wording("light", rng), f"It is {word}.", (word,), word, None)


def _relation(scene: Scene, rng) -> Iterator[Question]:
    single = _single(scene)
    for i in single:
        for j in single:
            if i != j and (where := relation(scene, i, j)):
                n, m = scene.objects[i].name, scene.objects[j].name
                text = _wording("relation", rng, n=n, m=m)
                answer = f"The {n} is {PHRASE[where]} the {m}."
                yield Question("spatial", "relation", text, answer, (where,), where, (i, j))


def _corner(scene: Scene, rng) -> Iterator[Question]:
    for i in _single(scene):
        x, y = scene.objects[i].center
        if min(abs(x - SIDE / 2), abs(y - SIDE / 2)) >= 24:
            n, where = scene.objects[i].name, corner(scene, i)
            text, answer = _wording("corner", rng, n=n), f"The {n} is in the {where}."
            yield Question("spatial", "corner", text, answer, (where,), where, (i,))


def _bigger(scene: Scene, rng) -> Iterator[Question]:
    single = _single(scene)
    for i in single:
        for j in single:
            a, b = scene.objects[i], scene.objects[j]
            if i != j and a.size != b.size:
                big = a if SIZES.index(a.size) > SIZES.index(b.size) else b
                text = _wording("bigger", rng, n=a.name, m=b.name)
                answer = f"The {big.name} is bigger."
                yield Question("reasoning", "bigger", text, answer, (big.name,), big.name, (i, j))


def _kind(scene: Scene, rng) -> Iterator[Question]:
    """What could you eat here? Needs to know what is a fruit, then to find the one shown."""
    kinds = atlas()["kinds"]
    for kind, form in KIND_ANSWERS.items():
        hits = [i for i, o in enumerate(scene.objects) if kinds[o.name] == kind]
        if len({scene.objects[i].name for i in hits}) == 1:
            name = scene.objects[hits[0]].name
            text, answer = _wording(kind, rng), form.format(a=article(name))
            yield Question("reasoning", kind, text, answer, (name,), name, tuple(hits))
