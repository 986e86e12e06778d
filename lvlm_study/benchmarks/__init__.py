"""Questions about images, one dataset a file; each yields `Item`s and knows no model."""

from collections.abc import Sequence

from ..errors import unknown
from .base import Item
from .photos import photos
from .sprites import sprites

LOADERS = {"sprites": sprites, "photos": photos}

__all__ = ["Item", "benchmarks", "load_benchmark"]


def benchmarks() -> list[str]:
    """The names that `load_benchmark` knows."""
    return list(LOADERS)


def load_benchmark(name: str, **options) -> Sequence[Item]:
    """The items of a benchmark. `options` go to its loader. StudyError for an unknown name."""
    if name not in LOADERS:
        raise unknown("benchmark", name, LOADERS)
    return LOADERS[name](**options)
