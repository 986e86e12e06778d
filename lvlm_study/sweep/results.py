"""Numbers for prose: one key names one number in `data/`, with where it comes from.

The book never types a result. It says `{result}`q1.deletion:.3f`` and the number is looked up here:

    q1.deletion                       data/results/mini/q1.json -> "deletion"
    mini/q1.deletion                  the same, said in full
    paper/q1.deletion                 data/results/paper/q1.json: our run on the real checkpoints
    q1.models[mini/llava-1.5].n       square brackets hold a name that contains dots
    q1.methods[igos[l2=1]].n          also one that has brackets itself
    q1.curve[3]                       or the place in a list
    paper/table2[LLaVA-1.5].cv_lt30   data/paper/table2.csv, the row that starts with LLaVA-1.5
    paper/table1[Cambrian-8b,Ours].mmvp_del   as many leading cells as it takes to name one row

Every JSON file under `data/results` carries a "provenance" entry with the fields of `PROVENANCE`,
so that a number can always be shown with its profile and its n (`q1.provenance.n`).
"""

import csv
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import StudyError, unknown
from ..paths import data_dir

PROFILES = ("mini", "paper", "hub", "rehearsal")  # the last: tools/rehearse.py
COLUMNS = ("paper", "mini profile", "paper profile")
NOT_YET, NOTHING = "not yet run", "-"
ESTIMATED = ("value", "difference", "percent")  # what the ends "low" and "high" beside it belong to
PROVENANCE = ("profile", "model", "n", "seed", "commit", "versions")
_PART = re.compile(r"\.?([^.\[\]]+)|\[((?:[^\[\]]|\[[^\[\]]*\])+)\]")


@dataclass(frozen=True)
class Result:
    """One number (or word) of the study, the file that holds it and a line on how it was made."""

    value: float | int | str
    file: Path
    origin: str


def read(key: str, data: Path | None = None) -> Result:
    """Look one number up by its key (see the module's text); StudyError names what is missing."""
    data = data or data_dir()
    name, parts = _split(key)
    file = _file(key, name, data)
    if file.suffix == ".csv":
        return Result(_cell(key, file, parts), file, f"the paper's own figure, {file.name}")
    tree = load(file)
    origin = _interval(tree, parts) + _origin(tree["provenance"], file)
    return Result(_scalar(key, _walk(key, tree, parts)), file, origin)


def optional(key: str | None, data: Path | None = None) -> float | int | str:
    """The value of one of our results, "not yet run" where nobody has computed it, "-" for None.

    Not yet run is a file that is not there, or a model or benchmark that a file does not have.
    Raises StudyError for a key that is written wrongly, names no profile or the paper's own tables,
    or asks a file for what it says of no model.
    """
    if key is None:
        return NOTHING
    data = data or data_dir()
    name, parts = _split(key)
    profile = name.rpartition("/")[0] or "mini"
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    stem = name.rpartition("/")[2]
    file = data / "results" / profile / f"{stem}.json"
    if not file.is_file() or _waits(load(file), parts):
        return NOT_YET
    return read(key, data).value


def beside(rows, data: Path | None = None, digits: int = 1) -> list[dict[str, str]]:
    """The paper's figure, ours on the mini profile and ours on the paper profile, side by side.

    `rows`: (label, paper key, mini key, paper-profile key), a key None where there is no such
    number. A number of ours that nobody has computed yet reads "not yet run"; one of the paper
    must exist. Returns rows for a table.
    """
    out = []
    for label, paper, *ours in rows:
        values = [NOTHING if paper is None else read(paper, data).value]
        values += [optional(key, data) for key in ours]
        shown = [v if isinstance(v, str) else f"{v:.{digits}f}" for v in values]
        out.append({"": label} | dict(zip(COLUMNS, shown, strict=True)))
    return out


def load(file: Path) -> dict:
    """One results file, refused unless it says which run made it."""
    tree = json.loads(file.read_text(encoding="utf-8"))
    missing = [field for field in PROVENANCE if field not in tree.get("provenance", {})]
    if missing:
        raise StudyError(f"{file} has no provenance field {missing[0]!r}; write the file again.")
    return tree


def _waits(tree, parts: list[str]) -> bool:
    """Whether a key leads to a model or benchmark that is not there, or to a number that is null.

    The rest of the key has to be known of another model or benchmark, if there is any.
    """
    for at, part in enumerate(parts):
        if not isinstance(tree, dict) or part in tree:
            tree = tree.get(part) if isinstance(tree, dict) else False
            continue
        rest, above = parts[at + 1 :], [None, None, *parts][at : at + 2]
        if above[1] not in ("models", "benchmarks") and not (rest and above[0] == "models"):
            return False
        return not tree or any(_has(one, rest) for one in tree.values())
    return tree is None


def _has(tree, parts: list[str]) -> bool:
    """Whether a path leads somewhere, the first name on it left open where it has no entry."""
    for at, part in enumerate(parts):
        if not isinstance(tree, dict):
            return False
        if part not in tree:
            return at == 0 < len(parts[1:]) and any(_has(one, parts[1:]) for one in tree.values())
        tree = tree[part]
    return True


def _split(key: str) -> tuple[str, list[str]]:
    """'paper/table2[a,b].c' -> ('paper/table2', ['a,b', 'c'])."""
    name = re.match(r"[^.\[]*", key).group()
    rest = key[len(name) :]
    parts = [plain or bracketed for plain, bracketed in _PART.findall(rest)]
    if not name or not parts or _PART.sub("", rest):
        raise StudyError(f"{key!r} is no result key; write it like q1.deletion or q1[a.b].n.")
    return name, parts


def _file(key: str, name: str, data: Path) -> Path:
    profile, _, stem = name.rpartition("/")
    profile = profile or "mini"
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    known = {p.stem: p for p in sorted((data / "results" / profile).glob("*.json"))}
    if profile == "paper":
        tables = {p.stem: p for p in sorted((data / "paper").glob("*.csv"))}
        if stem in known and stem in tables:
            raise StudyError(f"{key!r} could be {known[stem]} or {tables[stem]}; rename the first.")
        known |= tables
    if stem not in known:
        raise unknown("results file", stem, known)
    return known[stem]


def _walk(key: str, tree, parts: list[str]):
    for part in parts:
        if isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict) and part in tree:
            tree = tree[part]
        else:
            known = tree if isinstance(tree, dict) else ()
            raise unknown(f"result {key!r}: no entry", part, known)
    return tree


def _scalar(key: str, value) -> float | int | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise StudyError(f"The result {key!r} is no single number; add the name of an entry.")
    if isinstance(value, float) and not math.isfinite(value):
        raise StudyError(f"The result {key!r} is {value}; a page shows finite numbers only.")
    return value


def _cell(key: str, file: Path, parts: list[str]) -> float | int | str:
    if len(parts) != 2:
        raise StudyError(f"{key!r} must name a row and a column, like table2[LLaVA-1.5].cv_lt30.")
    labels, column = parts[0].split(","), parts[1]
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    found = [row for row in rows if list(row.values())[: len(labels)] == labels]
    if len(found) != 1:
        raise StudyError(f"{key!r}: {len(found)} rows of {file.name} start with {parts[0]!r}.")
    if column not in found[0]:
        raise unknown(f"column of {file.name}", column, found[0])
    return _number(found[0][column])


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _interval(tree, parts: list[str]) -> str:
    """The interval that stands beside a value, with its own n: "95 % interval 0.84 to 0.92; "."""
    beside = _walk("", tree, parts[:-1]) if parts[-1] in ESTIMATED else None
    if not isinstance(beside, dict) or not {"low", "high"} <= set(beside):
        return ""
    low, high, n = (beside.get(name) for name in ("low", "high", "n"))
    ends = f"95 % interval {low:.3g} to {high:.3g}" if None not in (low, high) else "no interval"
    return f"{ends}, n = {n}; " if n is not None else f"{ends}; "


def _origin(provenance: dict, file: Path) -> str:
    model = provenance["model"]
    if not isinstance(model, str):
        model = ", ".join(model) if len(model) <= 3 else f"{len(model)} models"
    profile, n, seed = provenance["profile"], provenance["n"], provenance["seed"]
    return f"{profile} profile, {model}, n = {n}, seed {seed}, {file.name}"
