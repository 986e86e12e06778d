"""One question about one image: the unit that every benchmark yields."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..images import load_image

ImageSource = np.ndarray | Path | str | Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Item:
    """An image, a question about it, and what counts as a right answer.

    `image` is a path, an array, or a function that draws the picture when asked (sprite scenes are
    drawn, not stored). `evidence` is a boolean (H, W) mask of the pixels that decide the answer, or
    None where nobody knows. `accept` holds short answers that also count; `options` the choices
    of a multiple-choice origin. `extra` carries what one benchmark alone knows (its scene, say).
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

    @property
    def rgb(self) -> np.ndarray:
        """The picture as uint8 (H, W, 3)."""
        return load_image(self.image() if callable(self.image) else self.image)
