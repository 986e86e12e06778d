"""Questions about images, one dataset a file; each yields `Item`s and knows no model."""

import inspect
from collections.abc import Sequence

from ..errors import StudyError, unknown
from .base import Item
from .cub import cub
from .cv_bench import cv_bench
from .eye_tracking import osie, salicon
from .llava_bench import llava_bench
from .mmstar import mmstar
from .mmvp import mmvp
from .nlvr import nlvr
from .paper_sets import paper_sets
from .photos import photos
from .pope import pope
from .sprite_subsets import sprites_describe, sprites_pairs, sprites_prior, sprites_shortcut
from .sprites import sprites, sprites_flat, sprites_outline
from .vqa_hat import vqa_hat

LOADERS = {
    "sprites": sprites,
    "sprites_pairs": sprites_pairs,
    "sprites_prior": sprites_prior,
    "sprites_shortcut": sprites_shortcut,
    "sprites_describe": sprites_describe,
    "sprites_flat": sprites_flat,
    "sprites_outline": sprites_outline,
    "photos": photos,
    "mmvp": mmvp,
    "mmstar": mmstar,
    "cv_bench": cv_bench,
    "llava_bench": llava_bench,
    "vqa_hat": vqa_hat,
    "paper_sets": paper_sets,
    "osie": osie,
    "salicon": salicon,
    "nlvr": nlvr,
    "pope": pope,
    "cub": cub,
}

__all__ = ["Item", "benchmarks", "load_benchmark"]


def benchmarks() -> list[str]:
    """The names that `load_benchmark` knows."""
    return list(LOADERS)


def load_benchmark(name: str, **options) -> Sequence[Item]:
    """The items of a benchmark; "mmvp@REVISION" pins a branch, tag or commit of its hub dataset.

    `options` go to its loader. StudyError for an unknown name, or a revision where there is no hub
    dataset.
    """
    short, _, revision = name.partition("@")
    if short not in LOADERS:
        raise unknown("benchmark", name, LOADERS)
    if revision:
        options["revision"] = revision
        if "revision" not in inspect.signature(LOADERS[short]).parameters:
            raise StudyError(f"{short} is no dataset of the hub and has no revisions; leave out @.")
    return LOADERS[short](**options)
