"""LLaVA-Bench (in the wild): 24 pictures, 60 questions that want a sentence or a paragraph.

Published layout (hub dataset liuhaotian/llava-bench-in-the-wild): `questions.jsonl` (question_id,
image, text, category), `context.jsonl` (image, caption), `answers_gpt4.jsonl`, `images/001.jpg`;
parquet mirrors hold question, image, caption, gpt_answer, category.

The reference is GPT-4's answer from a human caption. Long ones ("detail", "complex") are beyond
rules: the judge says undecided unless it has its second tier. Use "conv" for correctness, all for
deletion and insertion.
"""

from pathlib import Path

from .base import Item
from .sources import Row, image_source, open_source, pick, read_table

REPO = "liuhaotian/llava-bench-in-the-wild"
FILES = ["*.jsonl", "*.parquet", "images/*", "README.md"]


def llava_bench(source: str | Path | None = None, revision: str | None = None) -> list[Item]:
    """The 60 questions; `category` is the benchmark's own (conv, detail, complex).

    `source` and `revision` as in `mmvp`. `reference` is empty where the folder has no
    `answers_gpt4.jsonl`. `extra["caption"]` is the text that GPT-4 saw instead of the picture.
    """
    src = open_source(source, REPO, revision, FILES)
    table = src.need("LLaVA-Bench", "questions.jsonl", "*.parquet")[0]
    answers = _by(src.tables("answers_gpt4.jsonl"), "question_id", "text", "answer")
    captions = _by(src.tables("context.jsonl"), "image", "caption", "text")
    return [
        _item(number, row, table, src.provenance, answers, captions)
        for number, row in enumerate(read_table(table))
    ]


def _item(
    number: int, row: Row, table: Path, provenance: dict, answers: dict, captions: dict
) -> Item:
    name = row.get("question_id", number)
    picture = pick(row, "image", where=table)
    if isinstance(picture, str) and (table.parent / "images" / picture).exists():
        picture = f"images/{picture}"
    return Item(
        id=f"llava_bench/{name}",
        image=image_source(picture, table.parent, f"row {name} of {table}"),
        question=str(pick(row, "text", "question", where=table)).strip(),
        reference=str(answers.get(str(name)) or row.get("gpt_answer") or ""),
        category=str(row.get("category", "")),
        benchmark="llava_bench",
        extra={
            "caption": str(captions.get(str(row["image"])) or row.get("caption") or ""),
            "provenance": provenance,
        },
    )


def _by(tables: list[Path], key: str, *values: str) -> dict[str, str]:
    """{key: value} from an optional side table."""
    rows = read_table(tables[0]) if tables else []
    return {str(pick(r, key, where=tables[0])): pick(r, *values, where=tables[0]) for r in rows}
