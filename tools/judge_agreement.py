"""How often the judge agrees with a person: run it again and the number is made again.

    python tools/judge_agreement.py --answers FOLDER [--out data/judge/agreement.json]

`data/judge/mmvp_labels.csv` holds our reading of 250 free-form MMVP answers of two models: the file
name, the row, our label, and whether the row was open while the rules were written. The rows were
split by image pair before any rule existed; the held-out answers were read and labelled after the
rules were fixed and before the judge saw them. Two later edits (paragraph references, "it is not
true that there are no ...") came from other tests and left these numbers as they were. One reader
labelled everything and also wrote the rules; rows of a pair, and the two models' answers to one
question, are not independent, so the interval is a little too narrow. The answers themselves are
not ours to publish (FOLDER holds the EAGLE repository's MMVP files, *.jsonl).
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lvlm_study.benchmarks.base import Item
from lvlm_study.benchmarks.mmvp import mended
from lvlm_study.benchmarks.sources import Row, read_table
from lvlm_study.errors import StudyError
from lvlm_study.judging import VERDICTS, judge
from lvlm_study.paths import data_dir

LABELS = "judge/mmvp_labels.csv"


def agreement(answers: Path, labels: Path, split: str = "held-out") -> dict:
    """Judge against person on one split: n, agreement with its 95 % Wilson interval, the table.

    `confusion[label][verdict]` counts rows. `decided` is the share of rows on which the judge does
    not say undecided, `agreement_decided` the agreement among those.
    """
    pairs = [
        (row["label"], _verdict(_answer(answers, row["answers"], int(row["row"]))))
        for row in read_table(labels)
        if row["split"] == split
    ]
    if not pairs:
        raise StudyError(f"{labels} has no rows of the split {split!r}.")
    decided = [p for p in pairs if p[1] != "undecided"]
    same, same_decided = (sum(a == b for a, b in rows) for rows in (pairs, decided))
    counts = Counter(pairs)
    return {
        "split": split,
        "n": len(pairs),
        "agreement": same / len(pairs),
        "interval95": wilson(same, len(pairs)),
        "decided": len(decided) / len(pairs),
        "agreement_decided": same_decided / len(decided) if decided else None,
        "confusion": {a: {b: counts[a, b] for b in VERDICTS} for a in VERDICTS},
    }


def wilson(hits: int, n: int, z: float = 1.959963984540054) -> list[float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927): honest near 0 and 1."""
    p, middle = hits / n, z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(p + middle - half) / (1 + 2 * middle), (p + middle + half) / (1 + 2 * middle)]


def _verdict(row: Row) -> str:
    options = tuple(row["options"])
    right = mended(int(row["question_id"]), options, options["ab".index(row["answer"])])
    item = Item(row["question_id"], Path(), row["question"], right, options=options)
    return judge(row["generate_sentence"], item)


_tables: dict[Path, dict[int, Row]] = {}


def _answer(folder: Path, name: str, number: int) -> Row:
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        raise StudyError(f"There is no {path}; --answers takes the folder of MMVP answers.")
    if path not in _tables:
        _tables[path] = {int(r["question_id"]): r for r in read_table(path)}
    if number not in _tables[path]:
        raise StudyError(f"{path} has no question_id {number}, which our labels name.")
    return _tables[path][number]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the held-out agreement and, with --out, write it with the file that it came from."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--answers", type=Path, required=True, help="folder of MMVP answers")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    try:
        found = agreement(args.answers, data_dir() / LABELS)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    found["labels"] = f"data/{LABELS}"
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
