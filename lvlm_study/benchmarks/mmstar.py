r"""MMStar: 1,500 multiple-choice questions that need their image, here asked without the choices.

Published layout (hub dataset Lin-Chen/MMStar): `mmstar.parquet` with index, question, image,
answer (A-D), category, l2_category, meta_info. A CSV with the same columns and no image works for
everything but looking.

Dropping the choices is less simple than it sounds. The paper's code keeps what stands before the
first question mark and adds one. But 195 questions have no question mark and keep their option list
that way, and 345 begin with an instruction ("Hint: ... provide the correct option letter") that
stays: together 434 of the 1,500 (29 %). `relax="clean"` removes lists and instructions.
"""

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import unknown
from .base import Item
from .sources import Row, image_source, open_source, pick, read_table, split_options

REPO = "Lin-Chen/MMStar"
# "Hint: ...\nQuestion: "; one row spells it H+B53int.
HINT = re.compile(r"^\s*H\S*:[^\n]*(?:option letter|final value)[^\n]*\n\s*(?:Question:)?")
CHOICES = re.compile(r"\s*(?:Options|Choices):|\s*\n(?=\(A\))")
# The paper's five kinds of question, by MMStar's l2_category, else by its category.
KINDS = {
    "coarse perception": "global",
    "object counting": "counting",
    "localization": "spatial",
    "cross-instance relation reasoning": "spatial",
    "recognition": "attribute",
    "single-instance reasoning": "attribute",
    "cross-instance attribute reasoning": "attribute",
    "logical reasoning": "reasoning",
    "science & technology": "reasoning",
    "math": "reasoning",
}


def mmstar(
    source: str | Path | None = None, revision: str | None = None, relax: str = "clean"
) -> list[Item]:
    """The 1,500 questions without their choices; the choices stay in `options` for the judge.

    `relax`: "clean" drops the instruction and the option list; "paper" does what the paper's code
    does, for reproduction. `source` and `revision` as in `mmvp`. `extra` holds letter, category and
    l2_category as published, and the raw question.
    """
    if relax not in RELAX:
        raise unknown("relax", relax, RELAX)
    src = open_source(source, REPO, revision, ["mmstar.parquet", "README.md"])
    table = src.need("MMStar", "*.parquet", "*.csv", "*.tsv", "*.jsonl")[0]
    rows = read_table(table)
    return [_item(row, table, src.provenance, RELAX[relax]) for row in rows]


def clean(question: str) -> str:
    """The question alone: no instruction before it, no option list after it."""
    return CHOICES.split(HINT.sub("", question))[0].strip()


def as_in_the_paper(question: str) -> str:
    """The released code's rule, kept with its flaw: all before the first "?", and a "?"."""
    return question.split("?")[0] + "?"


RELAX: dict[str, Callable[[str], str]] = {"clean": clean, "paper": as_in_the_paper}


def _item(row: Row, table: Path, provenance: dict, relax: Callable[[str], str]) -> Item:
    number = pick(row, "index", where=table)
    raw = str(pick(row, "question", where=table))
    letter = str(pick(row, "answer", where=table)).strip().upper()
    category, fine = str(row.get("category", "")), str(row.get("l2_category", ""))
    options = choices(raw)
    place = ord(letter[:1] or "Z") - ord("A")
    return Item(
        id=f"mmstar/{number}",
        image=image_source(row.get("image"), table.parent, f"row {number} of {table}"),
        question=relax(raw),
        reference=options[place] if 0 <= place < len(options) else letter,
        category=KINDS.get(fine, KINDS.get(category, "")),
        options=options or None,
        benchmark="mmstar",
        extra={
            "letter": letter,
            "category": category,
            "l2_category": fine,
            "raw_question": raw,
            "provenance": provenance,
        },
    )


def choices(question: str) -> tuple[str, ...]:
    """The option texts of a raw question; fillers "nan" at the end are dropped."""
    parts = CHOICES.split(question, maxsplit=1)
    options = list(split_options(parts[1])) if len(parts) == 2 else []
    while options and options[-1].lower() in ("nan", ""):
        options.pop()
    return tuple(options)
