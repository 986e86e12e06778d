"""Vision-language models as functions of pixels: load one, ask it, score its answer."""

from .base import Adapter, Answer, Bound
from .registry import load_model, models, with_model

__all__ = ["Adapter", "Answer", "Bound", "load_model", "models", "with_model"]
