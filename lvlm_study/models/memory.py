"""Fitting into memory: batches that halve when it runs out, gradients that keep less.

Nobody knows beforehand how many pictures a GPU takes at once. So a batch is tried whole; when
memory runs out it is halved, which is said once and remembered for pictures of about that size.
When not even one picture's gradient fits, its layers are computed twice instead of kept (see
`recompute`), and when that does not fit either, the language model and the vision encoder go
backward one after the other, so that only one of the two graphs is ever held.
"""

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .alone import lock_of
from .recompute import checkpointed, possible
from .trouble import OutOfMemory, out_of_memory, passable

CHECKPOINTING = ("auto", True, False)
PATCH = 28 * 28  # pixels of the picture that cost about as much as one token of the prompt
STEEP, STEEPEST = 3, 21  # the slope at the logits is brought to 2^3; by 2^24 at most
_limits: WeakKeyDictionary = WeakKeyDictionary()  # adapter -> {work: {octave: pictures at once}}


class OnePictureTooLarge(OutOfMemory):
    """Not even a batch of one fits."""


def in_parts(bound, work: str, function: Callable[..., Tensor], *columns) -> Tensor:
    """`function(*columns)` over a batch, in parts of the batch when memory runs out.

    As `each_part`, the results put behind each other.
    """
    parts = each_part(bound, work, function, *columns)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def each_part(bound, work: str, function: Callable, *columns) -> list:
    """What `function(*columns)` gives for every part of a batch; one part where it fits whole.

    `columns` are tensors or sequences with one entry a picture (an empty one stays empty). `work`
    names what is done, in the messages and for the memory of how much fits. Raises
    OnePictureTooLarge, a StudyError, when one is too many.
    """
    limits, size_class = limits_of(bound, work), octave(bound)
    batch, done, parts = len(columns[0]), 0, []
    while done < batch or not parts:
        size = min(max(1, fits(limits, size_class)), batch - done)
        found = _attempt(function, [column[done : done + size] for column in columns])
        if found is None:
            limits[size_class] = max(size, 1) / 2
            _say_halved(bound, work, size)
        else:
            parts.append(found[0])
            done += size
    return parts


def limits_of(bound, work: str) -> dict[int, float]:
    """What is known of a kind of work: pictures at once, by the octave of their size."""
    return _limits.setdefault(bound.adapter, {}).setdefault(work, {})


def octave(bound) -> int:
    """The size of a picture in steps of two: tokens that it brings, and pixels to resize."""
    height, width = bound.size
    return round(math.log2(bound.prompt_ids.shape[1] + height * width / PATCH))


def fits(limits: dict[int, float], size_class: int) -> int:
    """How many pictures of a size may fit, by what did of others; a picture twice as large counts
    as two, a smaller one never for less than it was found to take."""
    known = [most * 2.0 ** max(other - size_class, 0) for other, most in limits.items()]
    return int(min(known, default=2**20))


def _attempt(function: Callable, columns: list) -> tuple | None:
    """(result,), or None when memory ran out; what the attempt held is free again by then."""
    try:
        return (function(*columns),)
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        if not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _say_halved(bound, work: str, size: int) -> None:
    """Raise OnePictureTooLarge for a batch of one; warn that a larger one is halved."""
    where = f"{getattr(bound.adapter, 'name', 'the model')} on {bound.adapter.device}"
    if size <= 1:
        raise OnePictureTooLarge(
            f"Memory ran out in a {work} pass of {where} with a single picture of "
            f"{' x '.join(map(str, bound.size))} pixels; use a smaller picture, --dtype bfloat16, "
            "or --device auto to spread the model over several GPUs."
        )
    warnings.warn(
        f"Memory ran out in a {work} pass of {where} with {size} pictures at once; "
        f"going on with {size // 2}.",
        stacklevel=4,
    )


# --- gradients -----------------------------------------------------------------------------


class Way(NamedTuple):
    """One way to a gradient: its name, whether layers are computed twice, and the passes."""

    work: str
    twice: bool
    function: Callable


def backward(bound, work: str, function: Callable, *columns) -> list:
    """What `function(*columns)`, which goes backward through the model, gives for every part.

    As `each_part`; with activation checkpointing where not even one picture fits without, unless
    the model's `checkpointing` says otherwise. The function must start afresh at every call.
    """
    return _first_that_fits(bound, ways(bound, work, function), columns)


def ways(bound, work: str, function: Callable) -> list[Way]:
    """With layers kept, then with layers computed twice, as the model's `checkpointing` allows."""
    asked = getattr(bound.adapter, "checkpointing", "auto")
    kept, twice = Way(work, False, function), Way(f"checkpointed {work}", True, function)
    if not asked or not possible(bound):
        return [kept]
    return [twice] if asked is True else [kept, twice]


def _first_that_fits(bound, ways: list[Way], columns) -> list:
    size_class = octave(bound)
    open_ = [way for way in ways if fits(limits_of(bound, way.work), size_class)] or ways[-1:]
    for way, following in zip(open_, [*open_[1:], None], strict=True):
        context = checkpointed(bound) if way.twice else nullcontext()
        try:
            with lock_of(bound.adapter), context, passable(bound.adapter.name):
                return each_part(bound, way.work, way.function, *columns)
        except OnePictureTooLarge:
            if following is None:
                raise
        warnings.warn(
            f"One picture does not fit into a {way.work} pass of {bound.adapter.name}; going on "
            f"with {following.work} passes, which take longer and less memory.",
            stacklevel=3,
        )
    raise AssertionError("there is always a way")


def steepness(score: Tensor, contrast: int | None = None) -> Tensor:
    """Powers of two (B,) to multiply scores (B,) by before they go backward, and slopes to divide.

    A score is the logarithm of a probability p, and its slope is 1 - p: at p = 0.9999 so small that
    half precision rounds parts of it to nothing on the way down. This brings it to about 2^3 at
    the logits, where nothing can overflow either. Exact, since it is a power of two. The slope of
    a score with a `contrast` is 1, whatever its value: it is a difference of two logits.
    """
    score = score.detach().float()
    slope = -torch.expm1(score) if contrast is None else torch.ones_like(score)  # 1 - p
    return torch.exp2((STEEP - slope.clamp(min=2.0**-STEEPEST).log2()).floor())


def gradient(
    target, images: Tensor, around: Callable[..., AbstractContextManager] | None = None, *columns
) -> Tensor:
    """d score / d image of every picture of a batch (b, 3, h, w), in as many parts as needed.

    `around(*columns)` gives the context of the passes (noise, say), with the entries of `columns`
    that belong to the pictures of that part. `adapter.two_stage = True` asks for two stages from
    the start; otherwise they are the last resort, and are said.
    """
    around, bound = around or nullcontext_of, target.bound
    found = ways(bound, "gradient", _one_stage(target, around))
    staged = ways(bound, "two-stage gradient", _two_stage(target, around))
    if getattr(bound.adapter, "two_stage", False):
        found = staged
    elif hasattr(bound, "log_probs_from"):
        found = [*found, staged[-1]]
    parts = _first_that_fits(bound, found, (images, *columns))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def nullcontext_of(*columns) -> AbstractContextManager:
    """Nothing around the passes."""
    return nullcontext()


def _one_stage(target, around: Callable) -> Callable:
    """The gradient in one backward pass, through language model and encoder together."""

    def whole(images: Tensor, *columns) -> Tensor:
        """Gradient of f at images (B, 3, H, W), of their shape."""
        images = images.detach().requires_grad_()
        with around(*columns):
            score = target.score(images)
        times = steepness(score, target.contrast)  # (B,)
        slope = torch.autograd.grad((score * times).sum(), images)[0]
        return slope / times.view(-1, 1, 1, 1)

    return whole


def _two_stage(target, around: Callable) -> Callable:
    """The same gradient by the chain rule cut at the visual features: equal up to rounding."""
    bound = target.bound

    def staged(images: Tensor, *columns) -> Tensor:
        """Gradient of the summed score at (B, 3, H, W), one graph at a time."""
        entering, adapter = _Entering(bound), bound.adapter
        images = images.detach().requires_grad_()
        with around(*columns):
            with torch.no_grad():
                features = adapter.encode(entering, images)
            features.requires_grad_()
            score = target.score_from(features)
            times = steepness(score, target.contrast)  # (B,)
            pull = torch.autograd.grad((score * times).sum(), features)[0]
            del features, score  # the language model's graph is gone before the encoder's is built
            slope = torch.autograd.grad(adapter.encode(entering, images), images, pull)[0]
        return slope / times.to(slope.device).view(-1, 1, 1, 1)

    return staged


class _Entering:
    """A Bound whose pictures pass the model's pre-forward hooks, as in a whole forward pass.

    `Adapter.encode` calls a part of the model, which such hooks (noise on the inputs) do not see.
    """

    def __init__(self, bound):
        self._bound = bound

    def __getattr__(self, name: str):
        return getattr(self._bound, name)

    def pixels(self, x: Tensor) -> dict:
        """The model's inputs after its hooks."""
        inputs, model = self._bound.pixels(x), self._bound.adapter.model
        for key, hook in model._forward_pre_hooks.items():
            if key in model._forward_pre_hooks_with_kwargs:
                changed = hook(model, (), inputs)
                inputs = inputs if changed is None else changed[1]
        return inputs
