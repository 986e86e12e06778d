"""A further training of a member keeps only the tensors that are not those of the first one.

Its vision towers are frozen and the same number for number, so one copy serves all trainings. The
folder stays an ordinary checkpoint in two files: `own.safetensors`, and an index that looks for
the rest in the first training's folder beside it.
"""

import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from ..errors import StudyError

WEIGHTS, OWN, INDEX = "model.safetensors", "own.safetensors", "model.safetensors.index.json"
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
    shapes = {}
    for path in files:
        with safe_open(path, "pt") as file:
            shapes |= {key: file.get_slice(key).get_shape() for key in file.keys()}
    return sum(math.prod(shape) for shape in shapes.values())


def whole(folder: Path) -> bytes | None:
    """The single weight file that a shared checkpoint stands for; None for any other folder.

    Byte for byte what `share` was given, so its checksum does not tell how the weights lie on disc.
    """
    first = first_of(folder)
    return None if first is None else save(load_file(first) | load_file(folder / OWN), FORMAT)
