"""Fitting into memory: batches that halve when it runs out, and gradients in two stages.

Nobody knows beforehand how many pictures a GPU takes at once. So a batch is tried whole; when
memory runs out it is halved, which is said once and remembered for pictures of that size. When not
even one picture's gradient fits, the language model and the vision encoder go backward one after
the other, and only one of the two graphs is ever held (about the larger half of the memory, one
more encoder pass).
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import StudyError

_FULL = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
_limits: WeakKeyDictionary = WeakKeyDictionary()  # adapter -> {(work, shape): pictures at once}


class OnePictureTooLarge(StudyError):
    """Not even a batch of one fits."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL)


def in_parts(adapter, work: str, function: Callable[..., Tensor], *columns) -> Tensor:
    """`function(*columns)` over a batch, in parts of the batch when memory runs out.

    `columns` are tensors or sequences with one entry a picture (an empty one stays empty), the
    first of them the pictures; the results are put behind each other. `work` names what is done,
    in the messages and for the memory of how much fits. Raises StudyError when one is too many.
    """
    limits, batch = _limits.setdefault(adapter, {}), len(columns[0])
    key, done, parts = (work, tuple(columns[0].shape[1:])), 0, []
    while done < batch or not parts:
        size = min(limits.get(key, batch), batch - done)
        found = _attempt(function, [column[done : done + size] for column in columns])
        if found is None:
            limits[key] = _half(adapter, work, key[1], size)
        else:
            parts.append(found)
            done += size
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attempt(function: Callable, columns: list) -> Tensor | None:
    """The result, or None when memory ran out; what the attempt held is free again by then."""
    try:
        return function(*columns)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _half(adapter, work: str, shape: tuple, size: int) -> int:
    where = f"{getattr(adapter, 'name', 'the model')} on {adapter.device}"
    if size <= 1:
        raise OnePictureTooLarge(
            f"Memory ran out in a {work} pass of {where} with a single picture of "
            f"{' x '.join(map(str, shape[-2:]))} pixels; use a smaller picture, --dtype bfloat16, "
            "or --device auto to spread the model over several GPUs."
        )
    half = size // 2
    warnings.warn(
        f"Memory ran out in a {work} pass of {where} with {size} pictures at once; "
        f"going on with {half}.",
        stacklevel=4,
    )
    return half


def gradient(
    target, images: Tensor, around: Callable[..., AbstractContextManager] | None = None, *columns
) -> Tensor:
    """d score / d image of every picture of a batch (b, 3, h, w), in as many parts as needed.

    `around(*columns)` gives the context of the passes (noise, say), with the entries of `columns`
    that belong to the pictures of that part. `adapter.two_stage = True` asks for two stages from
    the start; otherwise they are the last resort, and are said.
    """
    around, adapter = around or nullcontext_of, target.bound.adapter
    if not getattr(adapter, "two_stage", False):
        try:
            return in_parts(adapter, "gradient", _one_stage(target, around), images, *columns)
        except OnePictureTooLarge:
            if not hasattr(target.bound, "log_probs_from"):
                raise
        adapter.two_stage = True
        warnings.warn(
            f"Going on with gradients in two stages, language model and vision encoder of "
            f"{adapter.name} apart.",
            stacklevel=2,
        )
    return in_parts(adapter, "two-stage gradient", _two_stage(target, around), images, *columns)


def nullcontext_of(*columns) -> AbstractContextManager:
    """Nothing around the passes."""
    return nullcontext()


def _one_stage(target, around: Callable) -> Callable:
    def whole(images: Tensor, *columns) -> Tensor:
        images = images.detach().requires_grad_()
        with around(*columns):
            score = target.score(images).sum()
        return torch.autograd.grad(score, images)[0]

    return whole


def _two_stage(target, around: Callable) -> Callable:
    """The same gradient by the chain rule cut at the visual features: equal up to rounding."""
    bound, adapter = _Entering(target.bound), target.bound.adapter

    def staged(images: Tensor, *columns) -> Tensor:
        """Gradient of the summed score at (B, 3, H, W), one graph at a time."""
        images = images.detach().requires_grad_()
        with around(*columns):
            with torch.no_grad():
                features = adapter.encode(bound, images)
            features.requires_grad_()
            score = target.score_from(features).sum()
            pull = torch.autograd.grad(score, features)[0]
            del features, score  # the language model's graph is gone before the encoder's is built
            return torch.autograd.grad(adapter.encode(bound, images), images, pull)[0]

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
