"""What the members are and can do, gathered into one table of results for the book.

    python -m lvlm_study.zoo.accuracy        writes data/results/mini/zoo.json and amends the cards

Keys look like `zoo.models[mini/llava-1.5].picture.counting.percent`; see
`lvlm_study.sweep.results`. Beside `models` stand `about` (architecture, parameters, minutes of
training, learning curve), `stages` (minutes of every stage), `range` (lowest and highest member)
and, when the tables of reliance are there, `small` and `mistakes`.
"""

import json
from pathlib import Path

from ..benchmarks.sprites import sprites
from ..chapters import ch14_zoo
from ..errors import StudyError
from ..metrics.statistics import share
from ..models.weights import parameters, weight_files
from ..paths import data_dir
from ..sweep import provenance
from ..sweep.tables import read_table
from . import small, times
from .card import VIEWS, amend, tell
from .families import FAMILIES
from .members import BUSY, RECIPES


def gather(zoo: Path) -> dict[str, dict]:
    """{member: {view: {category: share}}} from every accuracy.json; "all" counts all categories.

    Left out are the detector, which answers no questions and has other numbers in its file, the
    joint model, which was put together and not trained as a member, and members for busy ground,
    which were measured on another test set.
    """
    out = {}
    for file in sorted(zoo.glob("*/accuracy.json")):
        try:
            views = json.loads(file.read_text())
        except ValueError as error:
            raise StudyError(f"{file} is no JSON ({error}); train its member again.") from error
        if "picture" not in views or (file.parent / "alignment.json").exists():
            continue
        if file.parent.name.partition("-seed")[0] in BUSY:
            continue
        out[f"mini/{file.parent.name}"] = {
            view: {c: share(*cell) for c, cell in (counts | {"all": _total(counts)}).items()}
            for view, counts in views.items()
        }
    return out


def _total(counts: dict[str, list[int]]) -> tuple[int, int]:
    right, n = zip(*counts.values(), strict=True)
    return sum(right), sum(n)


def extremes(models: dict) -> dict:
    """Per view, the lowest and highest share of right answers over the members, and how many."""
    shares = {v: [m[v]["all"]["percent"] for m in models.values()] for v in VIEWS}
    ends = {v.replace(" ", "_"): {"low": min(s), "high": max(s)} for v, s in shares.items()}
    return ends | {"members": len(models)}


def facts(folder: Path, stages: dict) -> dict:
    """What a member is: architecture, parameters, size of its language model, training, curve.

    `minutes` are of all its own stages: reading where it has one, connector, courses.
    """
    curve_file, (name, _, seed) = folder / "curve.json", folder.name.partition("-seed")
    curve = json.loads(curve_file.read_text()) if curve_file.is_file() else []
    config, plan = json.loads((folder / "config.json").read_text()), RECIPES.get(name)
    own = [s for stage, s in stages.items() if stage.startswith(f"member-{name}-{seed or 0}/")]
    return {
        "architecture": config["architectures"][0],
        "parameters": parameters(weight_files(folder)),
        "size": plan and plan.size,
        "first": plan and plan.first,
        "steps": curve[-1]["step"] if curve else None,
        "pictures": plan and FAMILIES[plan.family].batch,
        "minutes": sum(s["minutes"] for s in own) if own else None,
        "curve": curve,
    }


def write(data: Path | None = None) -> Path:
    """Write the table of all members that are there; StudyError when there is none."""
    data = data or data_dir()
    zoo, path = data / "zoo", data / "results" / "mini" / "zoo.json"
    models = gather(zoo)
    if not models:
        raise StudyError(f"There is no accuracy.json under {zoo}; train a member first.")
    origin = {
        "profile": "mini",
        "model": list(models),
        "n": max(m["picture"]["all"]["n"] for m in models.values()),
        "seed": 0,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "date": provenance.now()[:10],
    }
    stages = times.read(zoo)
    about = {name: facts(zoo / name.removeprefix("mini/"), stages) for name in models}
    table = {"provenance": origin, "models": models, "about": about, "stages": stages}
    table["range"] = extremes(models)
    rows = read_table(path.parent, "reliance")
    rows = rows[rows.model.isin(list(models))] if len(rows) else rows
    if len(rows):
        table["small"] = small.compare(rows)
        table["mistakes"] = ch14_zoo.mistakes_summary(ch14_zoo.wrong(rows, sprites()))
    for name in models:
        short = name.removeprefix("mini/")
        if about[name]["size"]:
            tell(short, zoo / short)
        amend(zoo / short, told(name, table))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n")
    return path


def told(name: str, table: dict) -> str:
    """What the card of a member says beyond its own measurement: time, and small objects."""
    spent = table["about"][name]["minutes"]
    parts = []
    if spent is not None:
        parts.append(
            f"Wall time: what was trained for it alone took about {spent:.0f} minutes on one CPU "
            "core; towers and language model that it shares with others are not counted."
        )
    if "small" in table:
        parts.append(small.sentence(name, table["small"]))
    return "\n\n".join(part for part in parts if part) or "Nothing yet."


if __name__ == "__main__":
    print(write())
