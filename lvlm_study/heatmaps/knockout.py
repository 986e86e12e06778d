"""Attention knockout: forbid the answer to look at a part of the image, and see what it loses.

Occlusion covers pixels, which also changes what the model sees elsewhere. Here the picture stays
whole; only the way from some visual tokens to the answer is cut, inside the language model.
Source: Geva et al. 2023, "Dissecting Recall of Factual Associations in Auto-Regressive Language
Models", section 4; over images Neo et al. 2025 and Zhang et al. 2024, "Cross-modal Information Flow
in Multimodal Large Language Models".
"""

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from ..models.memory import in_parts
from .occlusion import windows
from .token_maps import has_area, paint
from .watch import Call, Listener, checked, decoder_attention, watched

ROWS = ("answer", "text")


@torch.no_grad()
def knockout(
    target: Target,
    *,
    seed: int = 0,
    window: float = 1 / 4,
    stride: float = 1 / 8,
    rows: str = "answer",
    start_layer: int = 0,
    batch: int = 16,
) -> Tensor:
    """Saliency (H, W), signed: mean loss of f, in nats, over the cuts that a visual token was in.

    A cut takes all visual tokens whose box has its middle in a window (`window` of each side, moved
    by `stride` of it). In the layers from `start_layer` up, rows that predict the answer do not
    attend to them; with `rows="text"` no row behind the image does, so that the question cannot
    hand on what it saw either. Attention to the rest is scaled to sum to 1, as a masked softmax is.
    Deterministic. One forward pass of the language model a cut (49 windows, those alike once); the
    encoder runs once. Memory: rows of weights one at a time.
    """
    if not (0 < window <= 1 and 0 < stride <= window) or rows not in ROWS or batch < 1:
        raise StudyError(
            f"knockout needs 0 < stride <= window <= 1, rows of {', '.join(ROWS)} and a batch of "
            f"1, not {stride}, {window}, {rows!r} and {batch}."
        )
    bound = target.bound
    modules = decoder_attention(bound, "knockout")
    modules = modules[checked(start_layer, len(modules), "knockout") :]
    cuts = token_cuts(bound, window, stride)  # (C, N)
    drops = losses(target, modules, cuts, _first_row(bound, rows), batch)
    times = cuts.sum(0).clamp(min=1)
    return paint(bound, drops @ cuts.float() / times)


def token_cuts(bound, window: float, stride: float) -> Tensor:
    """Sets of visual tokens (C, N) bool, one a window; empty ones and repetitions left out."""
    boxes = bound.token_boxes.cpu()
    x, y = (boxes[:, :2] + boxes[:, 2:]).mT / 2
    inside = [
        (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
        for rows, columns in windows(tuple(bound.size), window, stride)
    ]
    cuts = torch.stack(inside) & has_area(boxes)
    return torch.unique(cuts[cuts.any(1)], dim=0)


def losses(target: Target, modules, cuts: Tensor, first: int, batch: int) -> Tensor:
    """What f loses (C,) by each of the cuts (C, N), for rows from `first` on; float32."""
    bound, adapter = target.bound, target.bound.adapter
    features = adapter.encode(bound, target.image)  # (1, N, D)

    def cut(images: Tensor, some: Tensor) -> Tensor:
        listener = _Cut(modules, bound, some, first)
        with watched(adapter, listener):
            return target.score_from(features.expand(len(images), -1, -1))

    full, found = target.score_from(features).cpu(), []
    for some in cuts.split(target.micro_batch(batch)):
        images = target.image.expand(len(some), -1, -1, -1)
        found.append(full - in_parts(bound, "knockout", cut, images, some).cpu())
    return torch.cat(found).float()


def _first_row(bound, rows: str) -> int:
    """The first position that may not look: it predicts the answer, or follows the image."""
    if rows == "answer":
        return bound.prompt_ids.shape[1] - 1
    return int(bound.image_span.nonzero()[-1]) + 1


class _Cut(Listener):
    """Takes attention of rows from `first` to some visual tokens (B, N) away."""

    def __init__(self, modules, bound, cut: Tensor, first: int):
        super().__init__(modules)
        self.first, self.columns = first, bound.image_span.nonzero()[:, 0].cpu()
        self.open = (~cut).float()  # (B, N)

    def attend(self, call: Call, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Ordinary attention, then the rows in question anew, one at a time."""
        out, value = super().attend(call, query, key, value), call.shared(value).float()
        keep = torch.ones(len(value), value.shape[2], device=value.device)
        keep[:, self.columns.to(value.device)] = self.open.to(value.device)
        for row in range(self.first, value.shape[2]):
            weights = call.weights(row, row + 1) * keep[:, None, None]  # (B, H, 1, S)
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
            out[:, :, row : row + 1] = (weights @ value).to(out)
        return out
