"""What a caller may say: plain meaning becomes the value, anything else one sentence."""

import math
import unicodedata
from collections.abc import Iterable, Sequence, Set
from numbers import Real
from operator import index

import numpy as np
import torch

from ..errors import StudyError, named, unknown
from .images import load_image

MOST_SEED = 2**32 - 1  # as numpy's; methods multiply a seed by the number of their draws


def asked(image, question=None) -> tuple[np.ndarray, str]:
    """(uint8 picture (H, W, 3), question) of a benchmark item, or of a picture and a question.

    An item brings its own question; one given besides wins. Raises StudyError.
    """
    item = hasattr(image, "rgb") and hasattr(image, "question")
    question = check_question(image.question if item and question is None else question)
    return (image.rgb if item else load_image(image)), question


def check_question(question) -> str:
    """The question, if it is text that asks something. Raises StudyError."""
    if question is None:
        raise StudyError("The question is empty; give one after the image, or a benchmark item.")
    if not isinstance(question, str):
        raise StudyError(f"A question is text, not {named(question)}.")
    if shows_nothing(question):
        raise StudyError("The question is empty; ask something about the image.")
    return question


def shows_nothing(text: str) -> bool:
    """Whether a text has nothing but space and signs that nobody sees."""
    kinds = map(unicodedata.category, text)
    return all(kind[0] in "ZC" and kind != "Cs" for kind in kinds)  # Cs: bytes that are no UTF-8


def check_seed(seed) -> int:
    """A seed as a plain number. Raises StudyError."""
    return whole(seed, "seed", 0, MOST_SEED)


def whole(value, name: str, least: int | None = None, most: int | None = None) -> int:
    """A whole number of any kind (numpy's too, but no truth value) within its limits."""
    try:
        if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == torch.bool:
            raise TypeError
        found = index(value)
    except (TypeError, RuntimeError):
        raise StudyError(f"{name} must be a whole number, not {named(value)}.") from None
    if (least is not None and found < least) or (most is not None and found > most):
        raise StudyError(f"{name} must be {_range(least, most)}, not {found}.")
    return found


def number(value, name: str, least: float | None = None, most: float | None = None) -> float:
    """A finite number of any kind, but no truth value, within its limits."""
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        raise StudyError(f"{name} must be a number, not {named(value)}.")
    found = float(value)
    low, high = (least is not None and found < least), (most is not None and found > most)
    if not math.isfinite(found) or low or high:
        raise StudyError(f"{name} must be {_range(least, most)}, not {found}.")
    return found


def choice(value, kind: str, known: Iterable[str]) -> str:
    """One of the known names. Raises StudyError with near matches."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise unknown(kind, value, known)
    return value


def word_set(value, name: str) -> frozenset[str] | None:
    """A set of words from any collection of them; None stays None. Raises StudyError."""
    if value is None:
        return None
    several = isinstance(value, Set | Sequence) and not isinstance(value, str | bytes)
    if not several or not all(isinstance(word, str) for word in value):
        raise StudyError(f'{name} must be a set of words, {{"red"}}, or None, not {named(value)}.')
    return frozenset(value)


def matrix(value, name: str) -> np.ndarray:
    """A table of numbers (H, W) from an array, a tensor or lists, float32. Raises StudyError."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    try:
        found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise StudyError(f"{name} must hold numbers (H, W), not {named(value)}.") from None
    if found.ndim != 2 or found.size == 0:
        raise StudyError(f"{name} must be (H, W), not {found.shape}.")
    return found


def _range(least, most) -> str:
    low = [] if least is None else [f"at least {least}"]
    high = [] if most is None else [f"at most {most}"]
    return " and ".join(low + high) or "finite"
