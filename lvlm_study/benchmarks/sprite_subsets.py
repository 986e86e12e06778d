"""SpriteVQA's controlled subsets.

Pairs ask whether a model looks; the prior subset whether it looks when it need not; the shortcut
subset where it looks when the answer is written on the picture; the descriptions how much of a
picture a long answer tells. All counts need more items than these to rank models; they are made to
check methods and readings.
"""

import re
from functools import cache

import numpy as np

from ..scenes.scenes import COLORS, PLACES, names
from .sprites import SpriteItem, read

PRIOR_ARMS = ("P0", "P+", "P-")


def sprites_pairs() -> tuple[SpriteItem, ...]:
    """144 pairs, 24 in each category: one edit, the same question, two answers.

    `extra` adds `pair` (which two items belong together, as `mmvp.pair_scores` needs) and `edit`.
    """
    return read("pairs", "sprites_pairs")


def sprites_prior() -> tuple[SpriteItem, ...]:
    """40 triples: no picture needed (P0), as everybody would guess (P+), against the guess (P-).

    `extra` adds `triple`, `arm` and `prior`, the answer of a model that only guesses. P0 has no
    evidence: a good method has nothing to show there. Mini models were never asked such questions
    and cannot answer them; P0 is for real ones.
    """
    return read("prior", "sprites_prior")


def sprites_shortcut() -> tuple[SpriteItem, ...]:
    """48 scenes in four arms: clean, and with the right, a wrong or a neutral word on a strip.

    `evidence` is where the scene decides; `extra` adds `group`, `arm`, `wrong` (the wrong word as
    an answer) and `strip` (a `scenes.shortcut.Strip`, with its mask). See `evidence_given`.
    """
    return read("shortcut", "sprites_shortcut")


def sprites_describe() -> tuple[SpriteItem, ...]:
    """60 scenes to describe in full: the counterpart of LLaVA-Bench's long answers.

    The judge of short answers does not apply; use `description_score`.
    """
    return read("describe", "sprites_describe")


def evidence_given(item: SpriteItem, text: str) -> np.ndarray | None:
    """The pixels that an answer in the shortcut subset must have come from, bool (336, 336).

    The strip's word if the answer follows a wrong strip; the scene's evidence if it is right
    without help; None where it cannot be told (a right strip, another wrong answer).
    """
    if says(text, *item.accept):
        return None if item.extra["arm"] == "right" else item.evidence
    if item.extra["arm"] == "wrong" and says(text, item.extra["wrong"]):
        return item.extra["strip"].mask()
    return None


def description_score(item: SpriteItem, text: str) -> dict[str, float]:
    """What a description tells of its scene: facts found, and facts that are true.

    Facts are place, light, and every object as colour, class and quarter of the picture. `recall`
    is the share of the scene's facts that the text states, `precision` the share of stated facts
    that hold (NaN when it states none), `objects` the recall over objects alone.
    """
    true, said = facts(item.reference), facts(text)
    hits = true & said
    objects = {f for f in true if len(f) == 3}
    return {
        "recall": len(hits) / len(true),
        "precision": len(hits) / len(said) if said else float("nan"),
        "objects": len(hits & objects) / len(objects),
    }


def facts(text: str) -> set[tuple[str, ...]]:
    """The statements of a description: ("beach",), ("night",), ("red", "cat", "top left")."""
    text = text.lower()
    words = re.findall(r"[a-z]+", text)
    return {(w,) for w in words if w in (*PLACES, "day", "night")} | set(_objects().findall(text))


@cache
def _objects() -> re.Pattern:
    """Colour, class and quarter of an object; the classes are read when first asked for."""
    where = "((?:top|bottom) (?:left|right))"
    return re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(names())}) in the {where}\b")


def says(text: str, *answers: str) -> bool:
    """Whether a text has one of the answers in it as a whole word, in any case of letters."""
    return any(re.search(rf"\b{re.escape(a.lower())}\b", text.lower()) for a in answers)
