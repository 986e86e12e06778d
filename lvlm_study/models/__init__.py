"""Vision-language models as functions of pixels: load one, ask it, score its answer."""

from .base import Adapter, Answer, Bound
from .registry import list_models, load_model, models, opened, with_model

__all__ = [
    "Adapter",
    "Answer",
    "Bound",
    "list_models",
    "load_model",
    "models",
    "opened",
    "with_model",
]
