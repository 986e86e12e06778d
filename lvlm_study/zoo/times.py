"""How long each stage of a training took, read from its log.

    python -m lvlm_study.zoo.times WORK      adds the stages of a work folder to zoo/stages.json

Counted are the steps that made it into the weights, each with its pace at the time; what a killed
run lost and made again is not counted.
"""

import json
import re
import sys
from pathlib import Path

from ..paths import data_dir

NAME = "stages.json"
STAGE = re.compile(r"(tower|language|member)-")


def minutes(lines: list[dict]) -> float:
    """Minutes behind the lines of a log: steps since the line before, times seconds a step."""
    total, reached = 0.0, 0
    for line in lines:
        total += max(0, line["step"] - reached) * line["seconds_per_step"]
        reached = max(reached, line["step"])
    return total / 60


def stages(work: Path) -> dict[str, dict[str, float]]:
    """{stage: {"steps", "minutes"}} of the logs in a work folder, as "member-cambrian-l-0/...".

    A log that is a copy of another is counted once, under the name that comes first.
    """
    logs = (p for p in sorted(Path(work).rglob("log.jsonl")) if STAGE.match(_stage(p, work)))
    out, seen = {}, set()
    for log in logs:
        text = log.read_text()
        if text not in seen:
            lines = [json.loads(line) for line in text.splitlines()]
            found = {"steps": lines[-1]["step"], "minutes": round(minutes(lines), 1)}
            out[_stage(log, work)] = found
        seen.add(text)
    return out


def _stage(log: Path, work: Path) -> str:
    return log.parent.relative_to(work).as_posix()


def note(work: Path, zoo: Path) -> Path:
    """Write the stages of `work` into zoo/stages.json, beside those that are there already."""
    path = zoo / NAME
    found = read(zoo) | stages(work)
    path.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
    return path


def read(zoo: Path) -> dict[str, dict[str, float]]:
    """The stages that are written down; empty where none are."""
    path = zoo / NAME
    return json.loads(path.read_text()) if path.is_file() else {}


if __name__ == "__main__":
    print(note(Path(sys.argv[1]), data_dir() / "zoo"))
