"""Questions about images, one dataset a file; each yields `Item`s and knows no model."""

import inspect
from collections.abc import Sequence
from functools import partial
from os import PathLike

from ..errors import StudyError, named, unknown
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
from .sprites import sprites, sprites_clutter, sprites_flat, sprites_outline
from .sprites_two import sprites_two
from .vqa_hat import vqa_hat

LOADERS = {
    "sprites": sprites,
    "sprites_pairs": sprites_pairs,
    "sprites_prior": sprites_prior,
    "sprites_shortcut": sprites_shortcut,
    "sprites_describe": sprites_describe,
    "sprites_two": sprites_two,
    "sprites_flat": sprites_flat,
    "sprites_outline": sprites_outline,
    "sprites_clutter": sprites_clutter,
    **{f"sprites_clutter-{level}": partial(sprites_clutter, level) for level in range(5)},
    **{f"sprites_clutter-{g}": partial(sprites_clutter, ground=g) for g in ("photo", "pink")},
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

NO_DEFAULT = inspect.Parameter.empty

__all__ = ["Item", "list_benchmarks", "load_benchmark"]


def list_benchmarks() -> list[str]:
    """The names that `load_benchmark` knows."""
    return list(LOADERS)


def load_benchmark(name: str, **options) -> Sequence[Item]:
    """The items of a benchmark; "mmvp@REVISION" pins a branch, tag or commit of its hub dataset.

    `options` go to its loader, `source=FOLDER` among them. StudyError for an unknown name, a
    revision where there is no hub dataset, and a folder that is missing or of no use.
    """
    if not isinstance(name, str):
        raise unknown("benchmark", name, LOADERS)
    short, _, revision = name.partition("@")
    if short not in LOADERS:
        raise unknown("benchmark", name, LOADERS)
    takes = inspect.signature(LOADERS[short]).parameters
    if revision:
        options["revision"] = revision
        if "revision" not in takes:
            raise StudyError(f"{short} is no dataset of the hub and has no revisions; leave out @.")
    if "source" in options and "source" not in takes:
        raise StudyError(f"{short} is made here and reads no folder; leave the folder out.")
    if "source" not in options and "source" in takes and takes["source"].default is NO_DEFAULT:
        raise StudyError(f"{short} cannot be downloaded; give its folder, --data {short}=FOLDER.")
    for key, value in options.items():
        if key not in takes:
            raise unknown(f"option of {short}", key, takes or ["none"])
        if key in ("source", "revision") and not isinstance(value, str | PathLike | None):
            raise StudyError(f"{key} of {short} is text or a path, not {named(value)}.")
    return LOADERS[short](**options)
