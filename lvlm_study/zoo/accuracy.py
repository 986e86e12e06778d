"""What the members can do, gathered from their folders into one table of results for the book.

    python -m lvlm_study.zoo.accuracy        writes data/results/mini/zoo.json

Keys look like `zoo.models[mini/llava-1.5].picture.counting.percent`; see `lvlm_study.results`.
"""

import json
from pathlib import Path

from statsmodels.stats.proportion import proportion_confint

from .. import provenance
from ..errors import StudyError
from ..paths import data_dir


def gather(zoo: Path) -> dict[str, dict]:
    """{member: {view: {category: share}}} from every accuracy.json; "all" counts all categories.

    A detector, which answers no questions, has other numbers in its file and is left out.
    """
    out = {}
    for file in sorted(zoo.glob("*/accuracy.json")):
        try:
            views = json.loads(file.read_text())
        except ValueError as error:
            raise StudyError(f"{file} is no JSON ({error}); train its member again.") from error
        if "picture" not in views:
            continue
        out[f"mini/{file.parent.name}"] = {
            view: {c: share(*cell) for c, cell in (counts | {"all": _total(counts)}).items()}
            for view, counts in views.items()
        }
    return out


def share(right: int, n: int) -> dict[str, float]:
    """Per cent of right answers with a 95 % Wilson interval, and n."""
    low, high = proportion_confint(right, n, method="wilson")
    return {"percent": 100 * right / n, "low": 100 * low, "high": 100 * high, "n": n}


def _total(counts: dict[str, list[int]]) -> tuple[int, int]:
    right, n = zip(*counts.values(), strict=True)
    return sum(right), sum(n)


def write(data: Path | None = None) -> Path:
    """Write the table of all members that are there; StudyError when there is none."""
    data = data or data_dir()
    models = gather(data / "zoo")
    if not models:
        raise StudyError(f"There is no accuracy.json under {data / 'zoo'}; train a member first.")
    about = {
        "profile": "mini",
        "model": list(models),
        "n": max(m["picture"]["all"]["n"] for m in models.values()),
        "seed": 0,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "date": provenance.now()[:10],
    }
    path = data / "results" / "mini" / "zoo.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"provenance": about, "models": models}, indent=1) + "\n")
    return path


if __name__ == "__main__":
    print(write())
