"""CV-Bench: 2,638 questions on counting, relative position, depth and distance.

Published layout (hub dataset nyu-visionx/CV-Bench): `test_2d.parquet` and `test_3d.parquet`, or the
same rows as `.jsonl` beside an `img/` folder (older copies: one `test.parquet` or `test.jsonl`),
with idx, type, task, question, choices, answer "(A)", source, image or filename.

Coloured boxes are drawn INTO many of the images ("annotated by the red box"). A heatmap on such an
outline follows the cue, not the object, so `extra["cue_boxes"]` names the colours and results must
report those items apart.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import StudyError
from .base import Item
from .sources import Row, image_source, open_source, pick, read_table

REPO = "nyu-visionx/CV-Bench"
KINDS = {"Count": "counting", "Relation": "spatial", "Depth": "spatial", "Distance": "spatial"}
CUE = re.compile(r"\b(red|blue|green|yellow|orange|purple|pink|white|black) (?:bounding )?box")
TABLES = ("test*.parquet", "test*.jsonl", "*.parquet", "*.jsonl", "*.csv")


def cv_bench(source: str | Path | None = None, revision: str | None = None) -> list[Item]:
    """All questions, asked without their choices (which stay in `options` for the judge).

    `source` and `revision` as in `mmvp`. `extra` holds task, type ("2D" or "3D"), source (the
    dataset of the image, for `cv_bench_score`), cue_boxes (colours drawn into the image, often
    empty) and bbox as published, where the copy has it.
    """
    src = open_source(source, REPO, revision, ["test*.parquet", "README.md"])
    src.need("CV-Bench", *TABLES)
    tables = next(found for pattern in TABLES if (found := src.tables(pattern)))
    return [_item(row, t, src.provenance) for t in tables for row in read_table(t)]


def cue_boxes(question: str) -> tuple[str, ...]:
    """Colours of the boxes that a question says are drawn: "the red box" -> ("red",)."""
    return tuple(dict.fromkeys(m[1] for m in CUE.finditer(question.lower())))


def cv_bench_score(items: Sequence[Item], verdicts: Sequence[str]) -> dict[str, float]:
    """CV-Bench's own score from verdicts; undecided counts as not correct and is reported.

    Accuracy per image source; 2D is the mean of ADE20K and COCO, 3D is Omni3D, `score` the mean of
    the two. A source without items gives NaN, which the means show.
    """
    if len(items) != len(verdicts) or not items:
        raise StudyError(f"{len(items)} items need as many verdicts, not {len(verdicts)}.")
    hits: dict[str, list[bool]] = {"ADE20K": [], "COCO": [], "Omni3D": []}
    for item, verdict in zip(items, verdicts, strict=True):
        hits.setdefault(str(item.extra["source"]), []).append(verdict == "correct")
    mean = {name: sum(h) / len(h) if h else float("nan") for name, h in hits.items()}
    flat = (mean["ADE20K"] + mean["COCO"]) / 2
    score = {"2D": flat, "3D": mean["Omni3D"], "score": (flat + mean["Omni3D"]) / 2}
    return mean | score | {"undecided": list(verdicts).count("undecided") / len(items)}


def _item(row: Row, table: Path, provenance: dict) -> Item:
    number = pick(row, "idx", "index", "id", where=table)
    question = str(pick(row, "question", where=table)).strip()
    options = _options(pick(row, "choices", "options", where=table))
    letter = str(pick(row, "answer", where=table)).strip(" ()").upper()
    place = ord(letter[:1] or "Z") - ord("A")
    if not 0 <= place < len(options):
        raise StudyError(
            f"Row {number} of {table} answers {letter!r} but has {len(options)} options."
        )
    task = str(row.get("task", ""))
    return Item(
        id=f"cv_bench/{number}",
        image=_picture(row, table, f"row {number} of {table}"),
        question=question,
        reference=options[place],
        category=KINDS.get(task, ""),
        options=options,
        benchmark="cv_bench",
        extra={
            "letter": letter,
            "task": task,
            "type": row.get("type", ""),
            "source": row.get("source", ""),
            "cue_boxes": cue_boxes(question),
            "bbox": row.get("bbox"),
            "provenance": provenance,
        },
    )


def _picture(row: Row, table: Path, where: str):
    """The image cell, else `filename` beside the table or in its img/ folder."""
    if row.get("image") is not None or not row.get("filename"):
        return image_source(row.get("image"), table.parent, where)
    beside, inside = table.parent / row["filename"], table.parent / "img" / row["filename"]
    return inside if inside.exists() and not beside.exists() else beside


def _options(choices) -> tuple[str, ...]:
    """A list, or the text of one as a CSV keeps it."""
    if isinstance(choices, str):
        return tuple(re.findall(r"""['"]([^'"]+)['"]""", choices))
    return tuple(str(choice) for choice in choices)
