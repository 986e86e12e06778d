"""Several pictures in one prompt, video frames among them: each asked about with the others shown.

Methods, metrics and figures know one picture. So a prompt with several is taken as a function of
one of them: a Bound with that picture's size, token boxes and place in the prompt, which shows the
model all others as they are. A pass of the model reads all pictures; a map each takes as many
times the passes of one map as there are pictures. What either of two pictures suffices for is
found in neither, as it survives the loss of one.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import StudyError
from ..pixels.arguments import asked
from ..pixels.images import to_tensor
from .base import Adapter, Bound
from .geometry import Geometry

Inputs = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Among(Bound):
    """A Bound for picture number `place` of a prompt; `shown` holds the inputs of all as they are.

    `parts` has a plain Bound for each picture, which marks that picture's tokens in the prompt.
    """

    parts: Sequence[Bound] = field(repr=False)
    shown: Sequence[Inputs] = field(repr=False)
    place: int

    @property
    def geometries(self) -> list[Geometry]:
        """Those of all pictures, in the order of the prompt."""
        return [part.geometry for part in self.parts]

    def pixels(self, x: Tensor) -> Inputs:
        """Model inputs for B prompts that differ in one picture (B, 3, H, W)."""
        B = len(x)
        every = [{key: torch.cat([value] * B) for key, value in one.items()} for one in self.shown]
        every[self.place] = super().pixels(x)
        return _woven(every, B)

    def extras(self, B: int, A: int) -> Inputs:
        """As in Bound, for the pictures of B prompts."""
        return super().extras(B, A) | self.encoder_extras(B)

    def encoder_extras(self, B: int) -> Inputs:
        """As in Bound, for the pictures of B prompts."""
        return _woven([part.encoder_extras(B) for part in self.parts], B)


def one_by_one(model, images: Sequence, question: str | None) -> Iterator[tuple]:
    """(model asked about this picture among all, picture (H, W, 3), question) for every picture.

    Raises StudyError for fewer than two pictures and for a model that takes one at a time.
    """
    if len(images) < 2:
        raise StudyError(
            f"A list of {len(images)} pictures is not several; give two or more, or one by itself."
        )
    if not getattr(model, "several", False) or model.template is None:
        raise StudyError(
            f"{model.name} is asked about one picture at a time here; several go to a LLaVA-1.5 or "
            "a Qwen-VL with a chat template."
        )
    pictures = []
    for image in images:
        rgb, question = asked(image, question)
        pictures.append(rgb)
    for place, rgb in enumerate(pictures):
        yield _one_of(model, pictures, place), rgb, question


def among(model, image):
    """The model as it is asked about this item; itself where the item has one picture.

    An item of a prompt with several (`extra["among"]`, in order) is explained in the picture at its
    `extra["place"]`, with the others shown.
    """
    extra = getattr(image, "extra", {})
    if "among" not in extra:
        return model
    models = [one for one, *_ in one_by_one(model, extra["among"], image.question)]
    return models[extra["place"]]


def _one_of(model: Adapter, pictures: Sequence[np.ndarray], place: int) -> Adapter:
    """The same network, its prompts being those of all pictures."""
    one = copy(model)
    one.bind = lambda size, question: _among(model, pictures, place, question)
    return one


@torch.no_grad()
def _among(model: Adapter, pictures: Sequence[np.ndarray], place: int, question: str) -> Among:
    parts = model.bind_all([rgb.shape[:2] for rgb in pictures], question)
    shown = [part.pixels(to_tensor(rgb)) for part, rgb in zip(parts, pictures, strict=True)]
    return Among(**vars(parts[place]), parts=parts, shown=shown, place=place)


def _woven(parts: Sequence[Inputs], B: int) -> Inputs:
    """Inputs (B * n, ...) of each of several pictures as one: prompt by prompt, picture by picture.

    A picture may be one row of a prompt's inputs or several: n differs.
    """
    rows = {key: [part[key].unflatten(0, (B, -1)) for part in parts] for key in parts[0]}
    return {key: torch.cat(value, 1).flatten(0, 1) for key, value in rows.items()}
