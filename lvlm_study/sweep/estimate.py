"""What a run will cost, from a handful of passes: `lvlm-study estimate`.

The model answers one question and goes backward twice, once with its layers kept and once with
them computed twice (activation checkpointing). Times and memory of everything else are multiples
of these; the passes of a method are counted on a planted reader, or known from its options.
"""

import ctypes
import inspect
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..answers import Reliance, Target
from ..errors import StudyError
from ..heatmaps import METHODS
from ..heatmaps.base import measure
from ..heatmaps.gradient_alignment import require_detector
from ..heatmaps.knockout import token_cuts
from ..heatmaps.names import draws_of
from ..heatmaps.watch import require_inside
from ..models import Answer, memory
from ..models.alone import exclusive
from ..models.recompute import checkpointed, possible
from ..pixels.baselines import make_baseline
from ..pixels.images import to_tensor
from .bench import method_passes, scoring_passes
from .costs import keeping, weight_bytes
from .runner import Sweep

CARDS = (24, 48, 80, 141)  # GB of a GPU
CUDA = 1.0  # GB of each that the driver and its libraries take
ASKING = 1 + 2 * len(Sweep.baselines)  # forward passes beside the answer: it, and its reliance
INSIDE = {"attention": (1, 0), "rollout": (1, 0), "tam": (1, 0), "grad_cam": (1, 1)}
INSIDE |= {"gae": (1, 1), "ga": (1, 1), "attnlrp": (1, 1), "glimpse": (2, 2)}
INSIDE |= {"logit_lens": (1, 0), "relative_attention": (2, 0)}
OPTIONS = ("iia", "llava_cam", "knockout")  # these look inside too; their options say how often
MMAP_THRESHOLD, MMAP_MAX = -3, -4  # numbers that glibc's mallopt knows


@dataclass
class Measured:
    """Seconds, bytes and operations of one picture; `kept` and `twice` None where it did not fit.

    `forward` and `both` are of one pass, `answering` of a whole answer. `kept` is what a gradient
    takes beside the `weights`, `twice` the same with layers computed twice.
    """

    weights: int
    answering: float = 0.0
    forward: float = 0.0
    both: float = 0.0
    flops: float = 0.0
    kept: float | None = None
    twice: float | None = None

    def seconds(self, forward: int, backward: int) -> float:
        """Seconds of so many passes, of which those backward follow one forward each."""
        return backward * self.both + max(forward - backward, 0) * self.forward


def estimate_table(model, item, methods: list[str], items: int) -> str:
    """Times, memory and passes of every method, and the hours of `items` items on this machine.

    Three forward passes and two backward ones, of one picture. Scores are those that `lvlm-study
    run` makes unasked, under every unit and fill. Raises StudyError where no gradient fits.
    """
    target, found = measured(model, item)
    asking = found.answering + ASKING * found.forward
    lines = [
        f"{model.name} on {item.id}: {found.forward:.3f} s a forward pass, {found.both:.3f} s "
        "forward and backward, measured here, one picture at a time.",
        *memory_lines(found),
        f"{'method':<23} {'map: forward':>13} {'backward':>9} {'scores: forward':>16}"
        f"{'s an item':>11}{f'h for {items}':>14}",
        f"{'answer and reliance':<65}{asking:>11.1f}{asking * items / 3600:>14.2f}",
    ]
    total, scoring = asking, scoring_passes()
    for name in methods:
        try:
            there, back = passes_of(name, target)
        except StudyError as refusal:  # a method that this model cannot have
            lines.append(f"{name:<23} not counted: {refusal}")
            continue
        scores = scoring * draws_of(name)
        seconds = found.seconds(there + scores, back)
        total += seconds
        passes_made = f"{name:<23} {there:>13} {back:>9} {scores:>16}"
        lines.append(f"{passes_made} {seconds:>10.1f} {seconds * items / 3600:>13.2f}")
    lines.append(f"{'together':<24}{total:>52.1f}{total * items / 3600:>14.2f}")
    return "\n".join(lines)


def passes_of(name: str, target: Target) -> tuple[int, int]:
    """(forward, backward) passes of one map with the method's defaults, without running it here.

    Raises StudyError for a method that looks inside a model where this one has nothing to see.
    """
    known = {key: p.default for key, p in inspect.signature(METHODS[name]).parameters.items()}
    if name not in (*INSIDE, *OPTIONS):
        return method_passes(name)
    require_detector(target) if name == "ga" else require_inside(target.bound, name)
    if name == "iia":
        return ((known["steps"] + 1) ** 2,) * 2
    if name == "knockout":
        return 1 + len(token_cuts(target.bound, known["window"], known["stride"])), 0
    return INSIDE.get(name) or (known["samples"],) * 2


def give_back() -> None:
    """From now on memory that a tensor leaves goes back to the system at once, on Linux.

    The C library keeps it otherwise, and often finds no place in it for the next tensor: on the
    small models the peak of a pass was twice what its tensors took, which no GPU shows. It helps
    where it is called before a model is loaded.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc
        libc.mallopt(MMAP_THRESHOLD, 2**16)  # bytes
        libc.mallopt(MMAP_MAX, 2**20)


@exclusive
def measured(model, item) -> tuple[Target, Measured]:
    """Answer once, and go backward with layers kept and with layers computed twice."""
    x = to_tensor(item.rgb).to(model.device)
    bound, found = model.bind(x.shape[-2:], item.question), Measured(weight_bytes(model.model))
    started = time.perf_counter()
    ids = model.generate(bound, x)
    _wait(model)
    found.answering = time.perf_counter() - started
    target = _target(model, bound, x, ids)
    for twice in (False, True) if possible(bound) else (False,):
        _go(target, found, twice)
    if found.both == 0:
        raise memory.OnePictureTooLarge(
            f"Not even one gradient of {model.name} fits into the memory of {model.device}; use "
            "a smaller picture, --dtype bfloat16, or --device auto to spread it over several GPUs."
        )
    return target, found


def _target(model, bound, x: Tensor, ids: Tensor) -> Target:
    """All of the answer, or its end alone where the model says nothing."""
    ids = ids.cpu() if len(ids) else torch.tensor([model.tokenizer.eos_token_id])
    unknown, every = torch.zeros(len(ids)), torch.ones(len(ids), dtype=torch.bool)
    answer = Answer("", ("",) * len(ids), ids, unknown)
    reduced = getattr(bound, "reduced", lambda image: image)
    pictures = (reduced(x), reduced(make_baseline(x, "mean")))
    return Target(bound, *pictures, Reliance(answer, unknown, every, unknown, unknown, "ok"))


def _go(target: Target, found: Measured, twice: bool) -> None:
    """One forward and one backward pass, told to `found`; nothing where it does not fit."""
    bound, model = target.bound, target.bound.adapter
    context = checkpointed(bound) if twice else nullcontext()
    work = "checkpointed gradient" if twice else "gradient"
    try:
        with context, measure(model.model) as cost:
            ((forward, both, flops, saved),) = memory.each_part(
                bound, work, lambda image: _timed(target, image, twice), target.image
            )
    except memory.OnePictureTooLarge:
        return
    found.flops = found.flops or flops
    setattr(found, "twice" if twice else "kept", max(cost.peak_bytes, saved))
    if found.both == 0:
        found.forward, found.both = forward, both


def _timed(target: Target, image: Tensor, count: bool) -> tuple[float, float, float, int]:
    """Seconds forward, seconds both ways, operations forward if asked to count, bytes kept."""
    model, started = target.bound.adapter, time.perf_counter()
    counter = FlopCounterMode(display=False) if count else nullcontext()
    image = image.detach().clone().requires_grad_()
    with counter, keeping(model.model) as kept:
        score = target.score(image)
    _wait(model)
    ahead = time.perf_counter() - started
    times = memory.steepness(score)
    torch.autograd.grad((score * times).sum(), image)
    _wait(model)
    flops = counter.get_total_flops() if count else 0.0
    return ahead, time.perf_counter() - started, flops, sum(kept)


def _wait(model) -> None:
    """Until the GPU has done what it was told."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def memory_lines(found: Measured) -> list[str]:
    """What a picture takes, and how many fit at once on usual GPUs, both ways."""
    ways = {"layers kept": found.kept, "layers computed twice": found.twice}
    taken = [f"{_gib(size)} ({name})" for name, size in ways.items() if size is not None]
    counted = f"; {found.flops / 1e9:.2f} GFLOP a picture forward" if found.flops else ""
    return [
        f"Memory: {_gib(found.weights)} of weights, and a gradient takes {', '.join(taken)} a "
        f"picture, measured here{counted}.",
        f"{'pictures at once on':<24}" + "".join(f"{f'{card} GB':>9}" for card in CARDS),
        *[
            f"  {name:<22}" + "".join(f"{fitting(card, found.weights, size):>9}" for card in CARDS)
            for name, size in ways.items()
        ],
    ]


def fitting(card: float, weights: int, picture: float | None) -> str:
    """How many pictures with gradients a GPU of `card` GB holds beside the weights."""
    if picture is None:
        return "-"
    room = (card - CUDA) * 1e9 - weights
    count = int(room // max(picture, 1))
    return "none" if count < 1 else str(count) if count < 1000 else "> 999"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
