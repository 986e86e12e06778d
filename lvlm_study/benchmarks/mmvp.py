"""MMVP: 150 pairs of photographs that CLIP finds alike, one question each, opposite answers.

Published layout (hub dataset MMVP/MMVP): `Questions.csv` with the columns Index (older copies spell
it lndex), Question, Options "(a) Open (b) Closed", Correct Answer "(a)", beside
`MMVP Images/{1..300}.jpg`. The copy lmms-lab-eval/MMVP is one parquet with the images inside.

In the original, the answers of the pairs 99/100 and 279/280 are swapped (issues 14 and 30 there).
They are mended here by what the right answer is, so that a corrected copy passes unchanged;
`item.extra["mended"]` and `published` say what was done.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import StudyError
from .base import Item
from .sources import Row, image_source, open_source, pick, read_table, split_options

REPO = "MMVP/MMVP"
MENDED = {99: "Short", 100: "Long", 279: "Sitting", 280: "Standing"}
# The paper's five kinds of question, assigned to the pairs by us (the benchmark publishes none).
PAIRS = {
    "spatial": "3 4 30 32 40 52 55 56 58 62 65 66 72 75 78 82 83 89 92 93 95 96 97 98 102 105 106 "
    "109 110 111 115 116 118 120 122 125 128 129 130 134 144 147",
    "counting": "7 21 24 27 59 60 68 77 80 90 94 138",
    "global": "12 38 53 73 76 121 150",
    "reasoning": "5 31 33 46 51 67 101 139",
}
CATEGORY = dict.fromkeys(range(1, 151), "attribute") | {
    int(pair): category for category, pairs in PAIRS.items() for pair in pairs.split()
}


def mmvp(
    source: str | Path | None = None, revision: str | None = None, mend: bool = True
) -> list[Item]:
    """The 300 questions of MMVP, asked as they stand (open-ended), options kept for the judge.

    `source` is a folder in either layout or a hub dataset; `revision` its branch or commit (None:
    main, the commit is recorded). `extra` holds pair (1..150), index, letter, mended, published.
    """
    src = open_source(source, REPO, revision, ["*.csv", "*.parquet", "*.jpg", "README.md"])
    table = src.need("MMVP", "Questions.csv", "*.parquet")[0]
    rows = read_table(table)
    return [_item(row, table, src.provenance, mend) for row in rows]


def mended(index: int, options: Sequence[str], published: str) -> str:
    """The right option of a row: the published one, except in the four swapped rows."""
    right = MENDED.get(index)
    return right if right in options else published


def _item(row: Row, table: Path, provenance: dict, mend: bool) -> Item:
    index = int(pick(row, "Index", "lndex", "index", where=table))
    options = split_options(str(pick(row, "Options", "options", where=table)))
    letter = str(pick(row, "Correct Answer", "correct answer", "answer", where=table))
    published = _option(letter, options, index, table)
    right = mended(index, options, published) if mend else published
    picture = row.get("image", f"MMVP Images/{index}.jpg")
    return Item(
        id=f"mmvp/{index}",
        image=image_source(picture, table.parent, f"row {index} of {table}"),
        question=str(pick(row, "Question", "question", where=table)).strip(),
        reference=right,
        category=CATEGORY.get((index + 1) // 2, ""),
        options=options,
        benchmark="mmvp",
        extra={
            "pair": (index + 1) // 2,
            "index": index,
            "letter": "abcdefgh"[options.index(right)],
            "published": published,
            "mended": right != published,
            "provenance": provenance,
        },
    )


def _option(letter: str, options: Sequence[str], index: int, table: Path) -> str:
    found = re.match(r"\s*\(?([a-hA-H])\)?", letter)
    place = ord(found[1].lower()) - ord("a") if found else len(options)
    if place >= len(options):
        raise StudyError(
            f"Row {index} of {table} has the answer {letter!r} but the options {list(options)}; "
            "the file is not MMVP's Questions.csv or it is damaged."
        )
    return options[place]


def pair_scores(items: Sequence[Item], verdicts: Sequence[str]) -> dict[str, float]:
    """Shares of rows and of whole pairs judged correct, with the undecided rows counted apart.

    `pairs` is MMVP's own score (both rows correct, of all complete pairs). `rows_low` and
    `rows_high` bracket the row accuracy: undecided as wrong, undecided left out.
    """
    if len(items) != len(verdicts) or not items:
        raise StudyError(f"{len(items)} items need as many verdicts, not {len(verdicts)}.")
    pairs: dict[int, list[bool]] = {}
    for item, verdict in zip(items, verdicts, strict=True):
        pairs.setdefault(item.extra["pair"], []).append(verdict == "correct")
    whole = [all(p) for p in pairs.values() if len(p) == 2]
    right, open_ = verdicts.count("correct"), verdicts.count("undecided")
    return {
        "pairs": sum(whole) / len(whole) if whole else float("nan"),
        "rows_low": right / len(items),
        "rows_high": right / (len(items) - open_) if open_ < len(items) else float("nan"),
        "undecided": open_ / len(items),
    }
