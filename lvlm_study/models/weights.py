"""Weight files of the zoo: shared between trainings of a member, and known by their checksums.

A further training keeps only the tensors that are not those of the first one: its vision towers
are frozen and the same number for number, so one copy serves all trainings. The folder stays an
ordinary checkpoint in two files: `own.safetensors`, and an index that looks for the rest in the
first training's folder beside it.

The manifest has the checksum of every committed file, so that none changes unseen. A checkpoint
that was cut short fails to load by itself. One whose numbers were altered loads and answers, and
nothing would tell; its checksum does.
"""

import hashlib
import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from ..errors import StudyError
from ..paths import replacing

WEIGHTS, OWN, INDEX = "model.safetensors", "own.safetensors", "model.safetensors.index.json"
NAME = "manifest.json"
FILES = "config.json model.safetensors tokenizer.json chat_template.jinja preprocessor_config.json"
FORMAT = {"format": "pt"}  # as transformers marks the files that it writes


def share(folder: Path, base: str) -> bool:
    """Keep in `folder` what is not in the checkpoint `base` beside it; whether that was possible.

    Nothing is done where `base` is not there or has other tensors.
    """
    first, mine = folder.parent / base / WEIGHTS, load_file(folder / WEIGHTS)
    theirs = load_file(first) if first.is_file() else {}
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in theirs.items()}:
        return False
    own = {k: v for k, v in mine.items() if not torch.equal(v, theirs[k])}
    where = {k: OWN if k in own else f"../{base}/{WEIGHTS}" for k in sorted(mine)}
    total = sum(v.nbytes for v in mine.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    save_file(own, folder / OWN, metadata=FORMAT)
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    (folder / WEIGHTS).unlink()
    return True


def first_of(folder: Path) -> Path | None:
    """The weight file that a shared checkpoint leans on; None for a folder that has its own."""
    if not (folder / OWN).is_file():
        return None
    files = set(json.loads((folder / INDEX).read_text())["weight_map"].values()) - {OWN}
    path = (folder / files.pop()).resolve()
    if not path.is_file():
        raise StudyError(
            f"{folder} holds only what differs from another training, and {path} is missing; "
            "restore it from the repository."
        )
    return path


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, behind the one that it leans on if it leans on one."""
    first = first_of(folder)
    return [first] * (first is not None) + sorted(folder.glob("*.safetensors"))


def parameters(files: list[Path]) -> int:
    """Numbers in some weight files; a tensor that is in two of them counts once."""
    return sum(math.prod(shape) for shape in shapes(files).values())


def shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in some weight files, by their headers alone."""
    found = {}
    for path in files:
        with safe_open(path, "pt") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    return found


def whole(folder: Path) -> bytes | None:
    """The single weight file that a shared checkpoint stands for; None for any other folder.

    Byte for byte what `share` was given, so its checksum does not tell how the weights lie on disc.
    """
    first = first_of(folder)
    return None if first is None else save(load_file(first) | load_file(folder / OWN), FORMAT)


# --- the manifest


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
    with replacing(zoo / NAME) as part:
        part.write_text(text + "\n")


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
