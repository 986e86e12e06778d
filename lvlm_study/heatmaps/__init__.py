"""Heatmaps: every method answers the same call and speaks the same orientation, high = important.

A method is one function in one file and one row in `methods.TABLE`.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..answers import Target, make_target
from ..errors import StudyError
from ..models import with_model
from ..models.alone import alone
from ..models.several import Among, one_by_one
from ..pixels.arguments import check_seed, choice
from .base import MIN_GAP, TARGET_OPTIONS, Cost, Explanation, check_options, full_size, measure
from .methods import BY_NAME, METHODS, SEVERAL
from .names import CONTROLS
from .rise import rise_with_error
from .shapley import shapley_with_error

__all__ = [
    "METHODS",
    "Cost",
    "Explanation",
    "explain",
    "explain_target",
    "list_methods",
    "rise_with_error",
    "shapley_with_error",
]


def list_methods() -> list[str]:
    """Names that `explain(method=...)` knows."""
    return list(METHODS)


@with_model
def explain(
    model,
    image,
    question: str | None = None,
    method: str = "igos",
    seed: int = 0,
    baseline="blur",
    **options,
) -> Explanation | tuple[Explanation, ...]:
    """Explain a model's answer to `question` about `image` as a heatmap over its pixels.

    `model` may be the name of one: it is loaded, and the last two named are kept. `image` is
    anything that `load_image` opens, or a benchmark item, which brings its question. `baseline` is
    the picture without information: a name of `baselines()`, or a picture of the image's size.
    `options` go to the method (see its function), or choose the target: `answer` (any text, by
    default what the model says), `threshold`, `tokens` ("llr", "all", "keywords", "word" or token
    numbers), `word`, `exclude`, `contrast` (why not this word? See `answers.make_target`). Raises
    StudyError for unknown names and values that make no sense; an answer without crucial tokens is
    no error but a status.

    A list of pictures (or frames of a video) is one prompt for a LLaVA-1.5 or a Qwen-VL, and gives
    an Explanation a picture, all of one answer: each by its own baseline, the others shown as they
    are, by methods that ask for scores alone. "no_crucial_tokens" then means that no word rests on
    this picture; two pictures take the passes of two maps. See `models.several`.
    """
    if isinstance(image, list | tuple):
        options |= {"method": method, "seed": seed, "baseline": baseline}
        return tuple(_explain_each(model, image, question, options))
    method, seed = check_method(method), check_seed(seed)
    about = {key: options.pop(key) for key in TARGET_OPTIONS if key in options}
    options = check_options(method, METHODS[method], options)
    target = make_target(model, image, question, baseline=baseline, seed=seed, **about)
    return explain_target(method, target, seed=seed, **options)


def _explain_each(model, images, question, options: dict) -> Iterator[Explanation]:
    """A map for each picture of one prompt; what the model says is asked once."""
    answer = options.pop("answer", None)
    for one, rgb, asked in one_by_one(model, images, question):
        found = explain(one, rgb, asked, answer=answer, **options)
        answer = found.answer
        yield found


def explain_target(
    method: str | Callable[..., Tensor], target: Target, *, seed: int = 0, **options
) -> Explanation:
    """Run a method, by its name or as a function, on a ready target; see `explain`.

    A target without crucial tokens gives a map of zeros.
    """
    name, function = _named(method)
    if target.contrast is not None and name in METHODS and not BY_NAME[name].contrast:
        raise StudyError(
            f"{name} cannot tell a word from a contrast; leave contrast out, or choose a method "
            "that explains a score, as igos, attnlrp or rise."
        )
    if isinstance(target.bound, Among) and name in METHODS and name not in (*SEVERAL, *CONTROLS):
        raise StudyError(
            f"{name} is for one picture here; to several, methods apply that ask for scores alone: "
            f"{', '.join(SEVERAL)}."
        )
    size, status, cost = tuple(target.bound.size), target.status, Cost()
    grid = torch.zeros(size)
    if status == "ok":
        with alone(target.bound.adapter), measure(target.bound.adapter.model) as cost:
            grid = function(target, seed=seed, **options).detach().float().cpu()
        status = "ok" if abs(target.reliance.gap) >= MIN_GAP else "no_gap"
    if not torch.isfinite(grid).all():
        grid, status = torch.zeros_like(grid), "diverged"
    elif status == "ok" and name not in CONTROLS and bool((grid == grid.flatten()[0]).all()):
        status = "constant"
    full = full_size(grid, size)
    return Explanation(full, grid.numpy(), name, target, status, cost, seed, options)


def check_method(method) -> str:
    """The name of a method. Raises StudyError, also for options in it, as commands take them."""
    if isinstance(method, str) and "[" in method:
        from .variants import parse  # which knows the methods

        name, options = parse(method)
        options = {"method": name, **options}
        wanted = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise StudyError(f"In Python options are arguments: instead of {method!r} write {wanted}.")
    return choice(method, "method", METHODS)


def _named(method: str | Callable) -> tuple[str, Callable]:
    """A method's name and its function; one that is in no table goes by its function's name."""
    if isinstance(method, str):
        return method, METHODS[check_method(method)]
    names = [name for name, function in METHODS.items() if function is method]
    return (names[0] if names else method.__name__), method
