"""Checkpoints kept as pickles (.bin) made into safetensors, once, before anything loads them.

A pickle can run code when it is loaded, so models are never read from one. Here only tensors are
unpickled (`weights_only=True`), and what is written holds nothing else.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from ..errors import StudyError
from .alignment import read_tensors
from .weights import FORMAT

WEIGHTS = "*model*.bin"  # pytorch_model.bin, its shards, open_clip_pytorch_model.bin
BESIDES = ("*.json", "*.txt", "*.model", "*.jinja")
OPEN_CLIP_FILE = "open_clip_model.safetensors"


def has_pickles(folder: Path) -> bool:
    """Whether a folder keeps its weights as pickles alone."""
    return any(folder.glob(WEIGHTS)) and not any(folder.glob("*.safetensors"))


def unpickled(folder: Path, out: Path, step: Callable = lambda: None) -> Path:
    """Write a checkpoint folder again with safetensors in the place of its pickles; returns `out`.

    One file is in memory at a time; `step` is called after each. Raises StudyError.
    """
    files = sorted(folder.glob(WEIGHTS))
    if not files:
        raise StudyError(f"There is no {WEIGHTS} in {folder}; name the folder that holds it.")
    out.mkdir(parents=True, exist_ok=True)
    table = {}
    for number, file in enumerate(files):
        state = {key: value.clone().contiguous() for key, value in read_tensors(file).items()}
        name = _name(file, number, len(files))
        save_file(state, out / name, metadata=FORMAT)
        table |= dict.fromkeys(state, name)
        step()
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": table}
        (out / "model.safetensors.index.json").write_text(json.dumps(index))
    for pattern in BESIDES:
        for file in folder.glob(pattern):
            if not file.name.endswith(".index.json"):
                shutil.copyfile(file, out / file.name)
    return out


def _name(file: Path, number: int, count: int) -> str:
    if count > 1:
        return f"model-{number + 1:05d}-of-{count:05d}.safetensors"
    return OPEN_CLIP_FILE if "open_clip" in file.name else "model.safetensors"
