"""SpriteVQA's controlled subsets, and the score that each was made for.

Pairs ask whether a model looks; the prior subset whether it looks when it need not; the shortcut
subset where it looks when the answer is written on the picture; the descriptions how much of a
picture a long answer tells. All counts need more items than these to rank models; they are made to
check methods and readings.
"""

import re
from collections.abc import Sequence

import numpy as np

from ..errors import StudyError
from ..scenes.scenes import COLORS, PLACES, names
from ..scenes.shortcut import ARMS
from .mmvp import pair_scores
from .sprites import SpriteItem, read

__all__ = [
    "description_score",
    "evidence_given",
    "pair_scores",
    "prior_scores",
    "says",
    "shortcut_scores",
    "sprites_describe",
    "sprites_pairs",
    "sprites_prior",
    "sprites_shortcut",
]
PRIOR_ARMS = ("P0", "P+", "P-")
OBJECT = re.compile(
    rf"\b({'|'.join(COLORS)}) ({'|'.join(names())}) in the ((?:top|bottom) (?:left|right))\b"
)


def sprites_pairs() -> tuple[SpriteItem, ...]:
    """144 pairs, 24 in each category: one edit, the same question, two answers.

    `extra` adds `pair` (which two items belong together, as `pair_scores` needs) and `edit`.
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


def prior_scores(items: Sequence[SpriteItem], reliance: Sequence[float]) -> dict[str, float]:
    """How much more the picture matters where it has to overrule a guess.

    `reliance`: one number per item, higher for more need of the picture (a summed log-likelihood
    ratio, in nats). Returns the mean of each arm, `ordered`, the share of triples with
    P0 < P+ < P-, and `conflict`, the share with P+ < P- (0.5 for a model without a prior; ties
    count half there and not at all in `ordered`).
    """
    table = _table(items, reliance, "triple", PRIOR_ARMS)  # (triples, 3)
    ordered = (np.diff(table, axis=1) > 0).all(1).mean()
    conflict = (table[:, 2] > table[:, 1]).mean() + (table[:, 2] == table[:, 1]).mean() / 2
    means = dict(zip(PRIOR_ARMS, table.mean(0).tolist(), strict=True))
    return {**means, "ordered": float(ordered), "conflict": float(conflict)}


def shortcut_scores(items: Sequence[SpriteItem], texts: Sequence[str]) -> dict[str, float]:
    """Answers under each arm: accuracy, and how often the strip's wrong word is followed.

    `follows` is the share of answers with the wrong word in the arm "wrong"; `by_chance` the same
    in the clean arm, where no strip says it. Whole words are compared.
    """
    right = _table(items, [says(t, *i.accept) for t, i in _both(items, texts)], "group", ARMS)
    wrong = [says(t, i.extra["wrong"]) for t, i in _both(items, texts)]
    wrong = _table(items, wrong, "group", ARMS)
    accuracy = dict(zip(ARMS, right.mean(0).tolist(), strict=True))
    return {
        **accuracy,
        "follows": float(wrong[:, ARMS.index("wrong")].mean()),
        "by_chance": float(wrong[:, ARMS.index("clean")].mean()),
    }


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
    return {(w,) for w in words if w in (*PLACES, "day", "night")} | set(OBJECT.findall(text))


def says(text: str, *answers: str) -> bool:
    """Whether a text has one of the answers in it as a whole word, in any case of letters."""
    return any(re.search(rf"\b{re.escape(a.lower())}\b", text.lower()) for a in answers)


def _both(items: Sequence[SpriteItem], texts: Sequence[str]):
    if len(items) != len(texts):
        raise StudyError(f"{len(items)} items need as many answers, not {len(texts)}.")
    return zip(texts, items, strict=True)


def _table(items, values, group: str, arms: Sequence[str]) -> np.ndarray:
    """Values as (groups, arms); every group must be complete."""
    if len(items) != len(values) or not items:
        raise StudyError(f"{len(items)} items need as many values, not {len(values)}.")
    rows: dict[str, dict[str, float]] = {}
    for item, value in zip(items, values, strict=True):
        rows.setdefault(item.extra[group], {})[item.extra["arm"]] = float(value)
    partial = [name for name, row in rows.items() if set(row) != set(arms)]
    if partial:
        raise StudyError(
            f"The {group} {partial[0]!r} has not all of its arms ({', '.join(arms)}); "
            "give the items of whole groups."
        )
    return np.array([[row[arm] for arm in arms] for row in rows.values()])
