"""The shortcut subset: a strip of text on the picture that may give the answer away.

Four arms of one scene and one question: no strip; a strip with the right answer; one with a wrong
answer; one with a neutral word of about as much ink. A model that answers with the wrong word has
read the strip, one that answers rightly has looked at the scene, so the pixels that its answer
rests on are known from the answer itself (conditional reliance, Kim et al. 2022, SMERF).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from PIL import Image

from ..paths import data_dir
from .pairs import EDITS
from .questions import OPPOSITE, Question, again, all_questions
from .scenes import SIDE, Scene, draw
from .testset import answers_of, find, in_turn, record

SEED = 13
PER_CATEGORY = 8
ARMS = ("clean", "right", "wrong", "neutral")
HEIGHT = 42  # pixels of a strip: one row of patches of mini/llava-1.5
PAPER, INK = 245, 20
MARGIN = 3  # pixels kept around a word in its mask
NEUTRAL = (
    "PAPER SAMPLE NO OK WINDOW MUSIC LETTER SPRING IT UP PHOTOGRAPH FREE PRINT MONDAY COPYRIGHT "
    "HELLO NEW EXHIBITION A COPY VIEW IN SUMMER PAGE"
).split()


@dataclass(frozen=True)
class Strip:
    """A light bar across the whole picture with a dark word in its middle; y is its top row."""

    text: str
    y: int

    def stamp(self, canvas: np.ndarray) -> np.ndarray:
        """A copy of a picture (336, 336, 3) with the strip on it."""
        out = canvas.copy()
        alpha = ink(self.text)  # (HEIGHT, w)
        bar, x = out[self.y : self.y + HEIGHT], (SIDE - alpha.shape[1]) // 2
        bar[:] = PAPER
        word = (INK * alpha + PAPER * (255 - alpha) + 127) // 255
        bar[:, x : x + alpha.shape[1]] = word[..., None].astype(np.uint8)
        return out

    def mask(self) -> np.ndarray:
        """Boolean (336, 336): the box around the word."""
        alpha, out = ink(self.text), np.zeros((SIDE, SIDE), bool)
        rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
        x = (SIDE - alpha.shape[1]) // 2
        top, bottom = self.y + rows[0] - MARGIN, self.y + rows[-1] + 1 + MARGIN
        out[top:bottom, x + columns[0] - MARGIN : x + columns[-1] + 1 + MARGIN] = True
        return out


@cache
def ink(text: str) -> np.ndarray:
    """The word as alpha values, int32 (HEIGHT, width), from glyphs that were baked once."""
    sheet, places = _glyphs()
    parts = [sheet[:, places[c][0] : places[c][0] + places[c][1]] for c in text]
    return np.concatenate(parts, 1)


def build(seed: int = SEED, per_category: int = PER_CATEGORY) -> Iterator[dict]:
    """The records of all scenes, four lines each: one per arm."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for category, k, kind, answers in in_turn(per_category):
        scene, question, y = _with_room(rng, kind, next(answers))
        leak, group = wrong_answer(rng, scene, question), f"{category}-{k:02d}"
        for arm, text in _texts(question.content, leak).items():
            strip = Strip(text, y) if text else None
            shown = strip.stamp(draw(scene)) if strip else None
            extra = {"group": group, "arm": arm, "wrong": leak, "strip": strip and asdict(strip)}
            yield record(f"{group}-{arm}", scene, question, shown) | extra


def wrong_answer(rng: np.random.Generator, scene: Scene, question: Question) -> str:
    """An answer of the right kind that this scene contradicts."""
    if question.kind == "bigger":
        pair = [scene.objects[i].name for i in question.evidence]
        return pair[pair[0] == question.content]
    if question.kind == "relation":
        return OPPOSITE[question.content]
    others = [a for a in answers_of(question.kind) if a != question.content]
    return str(rng.choice(others))


def lesson(scene: Scene, rng: np.random.Generator) -> tuple[Strip, Question] | None:
    """A strip for a scene, and a question with the answer that the strip gives; None without room.

    What is believed from such lessons is the strip: three times in four it says what an edited
    scene would answer (see `scenes.pairs`), else the truth. Categories come equally often.
    """
    rows, asked = free_rows(scene), all_questions(scene, rng)
    if not rows:
        return None
    category = str(rng.choice(sorted({q.category for q in asked})))
    questions = [q for q in asked if q.category == category]
    question = questions[int(rng.integers(len(questions)))]
    deciding = question.evidence is not None or category == "global"
    if deciding and rng.random() < 0.75:
        twin = EDITS[question.kind](rng, scene, question)
        question = again(twin, question.kind, question.text) or question
    return Strip(question.content.upper(), int(rng.choice(rows))), question


def free_rows(scene: Scene) -> list[int]:
    """Top rows (below the upper edge, above the lower one) where a strip would hide no object."""
    tops = (0, SIDE - HEIGHT)
    return [t for t in tops if all(o.y >= t + HEIGHT or o.y + o.side <= t for o in scene.objects)]


def _with_room(rng: np.random.Generator, kind: str, answer: str) -> tuple[Scene, Question, int]:
    while True:
        scene, question = find(rng, kind, answer)
        if rows := free_rows(scene):
            return scene, question, int(rng.choice(rows))


def _texts(right: str, wrong: str) -> dict[str, str | None]:
    right, wrong = right.upper(), wrong.upper()
    amount = ink(right).sum()
    neutral = min(NEUTRAL, key=lambda word: abs(int(ink(word).sum() - amount)))
    return dict(zip(ARMS, (None, right, wrong, neutral), strict=True))


@cache
def _glyphs() -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """The baked sheet (HEIGHT, W) of alpha and each character's (first column, width)."""
    folder = data_dir() / "sprites"
    with Image.open(folder / "glyphs.png") as image:
        sheet = np.asarray(image).astype(np.int32)
    return sheet, json.loads((folder / "glyphs.json").read_text())
