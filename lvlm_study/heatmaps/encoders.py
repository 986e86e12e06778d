"""From visual tokens down to the patches they are made of, by each family's own rule."""

import torch
from torch import Tensor

from ..errors import StudyError
from ..models.encoders import Encoder


def single_encoder(bound, what: str) -> Encoder:
    """The encoder of a family in which a visual token is a fixed mixture of patches.

    Raises StudyError for Cambrian and Mini-Gemini, whose tokens are answers of queries to several
    encoders.
    """
    found = bound.adapter.encoders(bound)
    if len(found) > 1:
        raise StudyError(
            f"{what} cannot follow {bound.adapter.name} into its {len(found)} vision encoders: its "
            "visual tokens are queries to all of them, not mixtures of patches; leave vision=False."
        )
    return found[0]


def to_patches(bound, encoder: Encoder, amounts: Tensor) -> Tensor:
    """Hand amounts (N,) of the visual tokens down to the patches (V, n) they are made of.

    Each token is a weighted mean of patches and shares its amount by these weights, so the total
    is kept, but for what newline tokens hold.
    """
    boxes = torch.cat(encoder.boxes(None))
    patches = torch.zeros(boxes.shape[:2], dtype=amounts.dtype, requires_grad=True)
    with torch.enable_grad():  # it may be called while a backward pass runs
        tokens = bound.adapter.merged(bound, patches)  # (N,), linear in the patches
    (shares,) = torch.autograd.grad(tokens, patches, amounts.cpu())
    return shares.to(amounts.device)
