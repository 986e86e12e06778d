"""The paper's own filtered question sets (hub dataset xiaoying0505/LVLM_Interpretation).

Only its size was seen when this was written (1.73 thousand rows: 35 % of MMVP, 47 % of MMStar, 34 %
of CV-Bench, and LLaVA-Bench), not its files. So the loader takes any tables it finds, one set each,
and knows the spellings that the paper's code reads. Pickles are refused: they can run code.
"""

from pathlib import Path

from ..errors import StudyError, unknown
from .base import Item
from .mmvp import mended
from .sources import TABLES, Row, image_source, open_source, pick, read_table, split_options

REPO = "xiaoying0505/LVLM_Interpretation"
QUESTION = ("question", "Question", "text", "prompt", "qs")
ANSWER = ("answer", "Correct Answer", "gt_answer", "answers", "label", "gpt_answer")
IMAGE = ("image", "image_path", "image_file", "filename", "img", "img_path")
NUMBER = ("Index", "lndex", "index", "idx", "question_id", "id")


def paper_sets(
    source: str | Path | None = None, revision: str | None = None, subset: str | None = None
) -> list[Item]:
    """Every row of every table (or of the table whose name contains `subset`).

    `source` and `revision` as in `mmvp`. `category` is the row's own, if it has one;
    `extra["subset"]` is the table's name. Where a row has options and a letter, `reference` is the
    option's text; MMVP's four swapped answers are mended here too.
    """
    src = open_source(source, REPO, revision)
    tables = [t for t in src.tables(*(f"*{ending}" for ending in TABLES)) if _has_questions(t)]
    if not tables:
        pickles = ", ".join(p.name for p in src.tables("*.pkl", "*.pickle"))
        raise StudyError(
            f"{src.folder} holds no table with a question column"
            + (
                f", only pickles ({pickles}), which we do not open; convert them."
                if pickles
                else "."
            )
        )
    names = [t.stem for t in tables]
    if subset is not None and not any(subset.lower() in name.lower() for name in names):
        raise unknown("subset", subset, names)
    chosen = [t for t in tables if subset is None or subset.lower() in t.stem.lower()]
    return [
        _item(place, row, t, src.provenance)
        for t in chosen
        for place, row in enumerate(read_table(t))
    ]


def _has_questions(table: Path) -> bool:
    """Whether it is a table of questions; a side file (captions, dataset card) is not."""
    try:
        return any(name in read_table(table)[0] for name in QUESTION)
    except StudyError:
        if table.suffix == ".json":
            return False  # configuration, not a table
        raise


def _item(place: int, row: Row, table: Path, provenance: dict) -> Item:
    number = next((row[name] for name in NUMBER if row.get(name) not in (None, "")), place)
    options, reference = _reference(row, number)
    picture = next((row[name] for name in IMAGE if row.get(name)), None)
    return Item(
        id=f"paper_sets/{table.stem}/{number}",
        image=image_source(picture, table.parent, f"row {number} of {table}"),
        question=str(pick(row, *QUESTION, where=table)).strip(),
        reference=reference,
        category=str(row.get("category") or ""),
        options=options or None,
        benchmark="paper_sets",
        extra={"subset": table.stem, "provenance": provenance},
    )


def _reference(row: Row, number) -> tuple[tuple[str, ...], str]:
    """(options, right answer): a letter becomes its option's text, other answers stay."""
    said = next((str(row[name]).strip() for name in ANSWER if row.get(name)), "")
    options = row.get("options") or row.get("Options") or row.get("choices") or ()
    options = split_options(options) if isinstance(options, str) else tuple(map(str, options))
    letter = said.strip("().: ").upper()
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    right = options[place] if 0 <= place < len(options) else said
    if str(number).isdigit() and len(options) == 2 and ("Index" in row or "lndex" in row):
        right = mended(int(number), options, right)
    return options, right
