"""Raw attention and rollout: where the words that predict the answer attend.

No gradient, so neither map knows which answer it explains except through the row that predicts it;
they are baselines. Both show where attention goes, not whether what was found there mattered.
"""

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from .heads import localisation_heads, looks
from .token_maps import paint
from .watch import Call, Listener, answer_rows, checked, decoder_attention, watched

HEADS = ("mean", "max", "localisation")
POINTING = 3  # heads, as in Kang et al. 2025


def attention(
    target: Target, *, seed: int = 0, layer: int | None = None, heads: str = "mean"
) -> Tensor:
    """Saliency (H, W): attention from the rows that predict the crucial tokens to the image.

    `layer` is one decoder layer (negative: from the top), None the mean of all; `heads` is "mean",
    "max", or "localisation": the three heads of those layers that look at one place, each scaled to
    sum to 1 (see `heads.localisation_heads`). Otherwise each crucial token's row is scaled to sum
    to 1 over the visual tokens before the mean over rows, so that rows which mostly attend to the
    first token of the prompt count as much.
    Rows that do not reach the image at all (a sliding layer, as in Gemma 3, after a long text) are
    left out; StudyError if none does.
    One forward pass; of the weights only |K| rows of a layer are ever worked out.
    """
    modules = decoder_attention(target.bound, "attention")
    if layer is not None:
        modules = [modules[checked(layer, len(modules), "attention")]]
    if heads not in HEADS:
        raise StudyError(f"attention takes heads=mean, max or localisation, not {heads!r}.")
    if heads == "localisation":
        return _localised(target, modules)
    listener = _Rows(modules, answer_rows(target), heads)
    _run(target, listener)
    return _painted(target, torch.stack(listener.rows).mean(0), "attention")


def rollout(target: Target, *, seed: int = 0, start_layer: int = 0) -> Tensor:
    """Saliency (H, W): attention followed from the answer down through the layers to the image.

    With A the head mean of a layer, every layer passes on (A + I) / 2, half of it along the
    residual; the product of all layers from `start_layer` up, at the rows that predict the crucial
    tokens, is worked out as row vectors from the top, so no product matrix is formed. Rows are
    scaled as in `attention`. One forward pass; memory grows with the length, not its square.
    Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.
    """
    modules = decoder_attention(target.bound, "rollout")
    start = checked(start_layer, len(modules), "rollout")
    listener = _Kept(modules[start:])
    _run(target, listener)
    at = answer_rows(target)
    rows = torch.eye(listener.calls[0].query.shape[2])[at]  # (K, S)
    for call in reversed(listener.calls):
        rows = (rows + follow(rows.to(call.query.device), call).cpu()) / 2
    return _painted(target, rows, "rollout")


def _localised(target: Target, modules) -> Tensor:
    """The map of the heads that point, each as a share."""
    ids = target.answer.token_ids[: int(target.crucial.nonzero()[-1]) + 1]
    maps = looks(target.bound, modules, target.image, ids, answer_rows(target), None).flatten(0, 1)
    chosen = maps[localisation_heads(maps, target.bound.token_boxes, POINTING)]
    shares = chosen / chosen.sum(1, keepdim=True).clamp(min=1e-12)
    return paint(target.bound, shares.mean(0), amount=True)


def follow(rows: Tensor, call: Call) -> Tensor:
    """rows (K, S) times the head mean of a layer's attention weights, block by block: (K, S)."""
    out = torch.zeros_like(rows)
    for start, stop in call.blocks():
        out += rows[:, start:stop] @ call.weights(start, stop)[0].mean(0)
    return out


class _Rows(Listener):
    """Keeps the rows (K, S) of every watched layer, heads already pooled."""

    def __init__(self, modules, at: Tensor, heads: str):
        super().__init__(modules)
        self.at, self.heads, self.rows = at, heads, []

    def forward(self, call: Call) -> None:
        """Pool one layer's rows over its heads."""
        found = torch.cat([call.weights(int(p), int(p) + 1)[0] for p in self.at], 1)  # (H, K, S)
        self.rows.append((found.mean(0) if self.heads == "mean" else found.amax(0)).cpu())


class _Kept(Listener):
    """Keeps every call: queries and keys, from which weights can be worked out again."""

    def __init__(self, modules):
        super().__init__(modules)
        self.calls = []

    def forward(self, call: Call) -> None:
        """Keep one layer's call."""
        self.calls.append(call)


@torch.no_grad()
def _run(target: Target, listener: Listener) -> None:
    with watched(target.bound.adapter, listener):
        target.score(target.image)


def _painted(target: Target, rows: Tensor, method: str) -> Tensor:
    """Rows (K, S) to a map: the image's columns, each row scaled to sum to 1, their mean."""
    span = target.bound.image_span.nonzero()[:, 0].cpu()
    seen = rows[:, span].double()
    seen = seen[seen.sum(1) > 0]  # a sliding window may end before the image
    if not len(seen):
        raise StudyError(
            f"In the layers that {method} was asked for, {target.bound.adapter.name} cannot look "
            "back from the answer to the image (their attention window is too short); name other "
            "layers, or none for all."
        )
    share = (seen / seen.sum(1, keepdim=True)).mean(0)
    return paint(target.bound, share, amount=True)
