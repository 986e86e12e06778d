"""The zoo's manifest: the checksum of every committed weight file, so that none changes unseen.

A checkpoint that was cut short fails to load by itself. One whose numbers were altered loads and
answers, and nothing would tell; its checksum does.
"""

import hashlib
import json
import os
from pathlib import Path

from ..errors import StudyError
from .weights import WEIGHTS, whole

NAME = "manifest.json"
FILES = "config.json model.safetensors tokenizer.json chat_template.jinja preprocessor_config.json"


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint that decides about its answers.

    Weights that are shared with another training count as the one file that they stand for.
    """
    found = (folder / name for name in FILES.split())
    data = {p.name: p.read_bytes() for p in found if p.is_file()}
    together = whole(folder)
    data |= {} if together is None else {WEIGHTS: together}
    return {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}


def note(zoo: Path, name: str, **more) -> None:
    """Write one member's checksums, and `more` about it, into the manifest of a zoo folder."""
    members = read(zoo) | {name: {"sha256": checksums(zoo / name), **more}}
    text = json.dumps(dict(sorted(members.items())), indent=1)
    (zoo / f"{NAME}.tmp").write_text(text + "\n")
    os.replace(zoo / f"{NAME}.tmp", zoo / NAME)


def read(zoo: Path) -> dict[str, dict]:
    """The manifest as {member: {"sha256": {file: checksum}, ...}}; empty where there is none."""
    path = zoo / NAME
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise StudyError(f"{path} is no JSON ({error}); restore it from the repository.") from error


def is_whole(zoo: Path, name: str) -> bool:
    """Whether the manifest knows a member and its files are what it says."""
    wanted = read(zoo).get(name)
    return wanted is not None and checksums(zoo / name) == wanted["sha256"]


def check(folder: Path) -> None:
    """Refuse a checkpoint of a zoo whose files are not those in the manifest beside it.

    A folder that no manifest knows (a member just trained, a checkpoint from elsewhere) passes.
    """
    above = folder.parents[:2]  # a member may have twins in a folder below its own
    entries = (read(zoo).get(folder.relative_to(zoo).as_posix()) for zoo in above)
    wanted = next((entry for entry in entries if entry is not None), None)
    if wanted is None:
        return
    found = checksums(folder)
    for name, value in wanted["sha256"].items():
        if found.get(name) != value:
            what = "missing" if name not in found else "not the file that was committed"
            raise StudyError(
                f"{folder / name} is {what} (its checksum is not in {NAME}); restore it from the "
                f"repository, or train it again with 'lvlm-study train mini/{folder.name}'."
            )
