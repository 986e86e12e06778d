"""What a method hands back: a map with its target, and what making it cost."""

import ctypes
import inspect
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ..answers import Reliance, Target
from ..errors import StudyError, named, unknown
from ..models import Answer
from ..pixels.arguments import matrix, number, whole
from ..pixels.baselines import weak_blur
from ..pixels.masks import render

MIN_GAP = 0.05  # least difference in mean probability between image and baseline worth explaining


@dataclass
class Cost:
    """What one heatmap cost: passes per image, wall time, memory.

    `forward` and `backward` count images, not calls: a batch of 16 is 16 passes. `peak_bytes` is
    how far memory rose above its level at the start: on CUDA the allocator's own peak, on Linux
    the high-water mark of resident memory (reset first, so that the figure is this call's, freed
    memory handed back first), elsewhere the rise of the process maximum. Answering and choosing
    tokens come before and are not counted; they are the same for every method. Waiting for another
    thread's turn with the model is no part of it; memory is that of all that runs in the process.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a model looked for an answer.

    `saliency` (H, W) is in pixels of the original image, high = important, never stretched to its
    own range. `grid` is the method's map before it was enlarged. `status` is "ok",
    "no_crucial_tokens" (zeros), "no_gap" (image and baseline give nearly the same
    probability, so the map has little to explain), "diverged" (zeros: the method returned
    non-finite values) or "constant" (the same value everywhere, so the map says nothing: it puts
    no place before another, and its scores would be chance; not said of controls).
    `dataclasses.replace(ex, saliency=...)` re-scores any map under the same target.
    """

    saliency: np.ndarray = field(repr=False)  # (H, W) float32
    grid: np.ndarray = field(repr=False)  # (h, w) float32
    method: str
    target: Target = field(repr=False)
    status: str
    cost: Cost
    seed: int
    options: dict

    def __post_init__(self):
        for name in ("saliency", "grid"):  # tensors and lists will do
            object.__setattr__(self, name, matrix(getattr(self, name), name))

    def _repr_html_(self) -> str:
        """What a notebook shows: the map over its picture, the answer below."""
        from .show import show  # only where somebody looks: drawing takes a second to import

        return str(show(self))

    @property
    def model(self) -> str:
        """The name of the model that was explained."""
        return self.target.bound.adapter.name

    @property
    def question(self) -> str:
        """What it was asked."""
        return self.target.bound.question

    @property
    def answer(self) -> Answer:
        """What it said, or was taken to say."""
        return self.target.answer

    @property
    def contrast(self) -> str:
        """What a contrast asks, "why 'red' and not 'blue'?"; "" without one."""
        if self.target.contrast is None or self.target.choice.contrast is None:
            return ""
        word = " ".join(self.reliance.words)
        return f"why {word!r} and not {self.target.choice.contrast!r}?"

    @property
    def notes(self) -> tuple[str, ...]:
        """What weakens this map and is nobody's choice: a blur too small for a large picture."""
        weak = self.target.choice.baseline == "blur" and weak_blur(tuple(self.target.bound.size))
        return (weak,) if weak else ()

    @property
    def reliance(self) -> Reliance:
        """How much each token of the answer depends on the image."""
        return self.target.reliance


def full_size(grid: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) at the size of its picture (H, W), bilinear between the middles of cells."""
    same = tuple(grid.shape) == tuple(size)
    return (grid if same else render(grid[None, None], size)[0, 0]).numpy()


TARGET_OPTIONS = ("answer", "threshold", "tokens", "word", "exclude", "contrast")


def check_options(name: str, function: Callable, options: dict) -> dict:
    """The options of a method as plain values.

    Raises StudyError for one that the method does not take, with near matches, and for a value of
    another type than its signature says.
    """
    known = dict(inspect.signature(function).parameters)
    for key in ("target", "seed"):
        known.pop(key, None)
    for key in options:
        if key not in known:
            raise unknown(f"option of {name}", key, [*known, *TARGET_OPTIONS])
    return {key: _option(f"{key} of {name}", known[key], options[key]) for key in options}


def _option(name: str, known: inspect.Parameter, value):
    """A value by its annotation; what is no plain type there is the method's own business."""
    kinds = get_args(known.annotation) or (known.annotation,)
    if value is None and type(None) in kinds:
        return None
    plain = [kind for kind in kinds if kind is not type(None)]
    if plain == [int]:
        return whole(value, name)
    if plain == [float]:
        return number(value, name)
    if plain in ([str], [bool]) and not isinstance(value, plain[0]):
        words = "text" if plain == [str] else "True or False"
        raise StudyError(f"{name} must be {words}, not {named(value)}.")
    return value


@contextmanager
def measure(model: torch.nn.Module):
    """Yield a `Cost` that is complete when the block ends; passes are counted at the logits.

    Memory is that of the GPUs which the model lies on, or of the process where it lies on none.
    """
    cost = Cost()
    hook = _counted_layer(model).register_forward_hook(_counter(cost))
    gpus = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    start_bytes, started = _start_memory(gpus), time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - started
        cost.peak_bytes = max(0, _peak_memory(gpus) - start_bytes)
        hook.remove()


def _counted_layer(model: torch.nn.Module) -> torch.nn.Module:
    """The layer that makes the logits: it runs once a pass, whatever the vision side does."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return model if head is None else head


def _counter(cost: Cost):
    def count(module, inputs, output):
        logits = output if isinstance(output, Tensor) else output.logits
        cost.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda g: _add_backward(cost, len(g)))

    return count


def _add_backward(cost: Cost, images: int) -> None:
    cost.backward += images


def _start_memory(gpus: list[int]) -> int:
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    if gpus:
        return sum(map(torch.cuda.memory_allocated, gpus))
    if not sys.platform.startswith("linux"):
        return _peak_memory(gpus)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give freed heap back, so that reuse is seen as growth
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    except (OSError, AttributeError):
        return _peak_memory(gpus)
    return _status_bytes("VmRSS")


def _peak_memory(gpus: list[int]) -> int:
    if gpus:
        return sum(map(torch.cuda.max_memory_allocated, gpus))
    if sys.platform.startswith("linux"):
        return _status_bytes("VmHWM")
    import resource  # absent on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0
