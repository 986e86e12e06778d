"""One question about one image: the unit that every benchmark yields."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import StudyError, named
from ..pixels.images import load_image

ImageSource = np.ndarray | Image.Image | Path | str | Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Item:
    """An image, a question about it, and what counts as a right answer.

    `image` is given as a path, an array, a PIL image, or a function that draws it (sprite scenes
    are drawn, not stored), which `source` keeps; `item.image` is the picture itself, a PIL image in
    RGB, opened when it is looked at. `evidence` is a boolean (H, W) mask of the pixels that decide
    the answer, or None where nobody knows. `accept` holds short answers that also count; `options`
    the choices of a multiple-choice origin. `extra` carries what one benchmark alone knows (its
    scene, say).
    """

    id: str
    image: ImageSource = field(repr=False)
    question: str
    reference: str
    accept: tuple[str, ...] = ()
    category: str = ""
    evidence: np.ndarray | None = field(default=None, repr=False)
    options: tuple[str, ...] | None = None
    benchmark: str = ""
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        for name in ("question", "reference", "category", "benchmark"):
            if not isinstance(getattr(self, name), str):
                raise StudyError(f"An item's {name} is text, not {named(getattr(self, name))}.")
        for name in ("accept", "options"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        object.__setattr__(self, "evidence", _mask(self.evidence))
        if not isinstance(self.extra, dict):
            raise StudyError(f"An item's extra is a dict, not {named(self.extra)}.")

    @property
    def source(self) -> ImageSource:
        """What `image` was given as: a path, an array, or a function that draws it."""
        return vars(self)["image"]

    @property
    def rgb(self) -> np.ndarray:
        """The picture as uint8 (H, W, 3)."""
        return load_image(self.source() if callable(self.source) else self.source)


def _picture(item: Item) -> Image.Image:
    """The item's picture; it remembers its source, which `dataclasses.replace` then hands on."""
    picture = Image.fromarray(item.rgb)
    picture.readonly, picture.source = 1, item.source  # Pillow clears the flag on a first change
    return picture


def _keep(item: Item, image: ImageSource) -> None:
    untouched = isinstance(image, Image.Image) and image.readonly
    vars(item)["image"] = getattr(image, "source", image) if untouched else image


Item.image = property(_picture, _keep)  # after the class is made: its fields know no default


def _texts(name: str, value) -> tuple[str, ...] | None:
    if value is None and name == "options":
        return None
    if not isinstance(value, tuple | list) or not all(isinstance(text, str) for text in value):
        raise StudyError(f"An item's {name} are a tuple of texts, not {named(value)}.")
    return tuple(value)


def _mask(evidence) -> np.ndarray | None:
    if evidence is None:
        return None
    try:
        found = np.asarray(evidence)
    except ValueError:  # rows of different lengths
        raise StudyError("An item's evidence is a mask (H, W), no list of uneven rows.") from None
    if found.ndim != 2 or found.dtype != bool:
        raise StudyError(
            "An item's evidence is a mask of truth values (H, W) or None, not "
            f"{found.dtype} {found.shape}."
        )
    return found
