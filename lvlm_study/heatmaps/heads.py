"""What every attention head looks at, and which heads look at one place.

Most heads of a decoder spread over the image or do not look at it; a few point. Kang et al. 2025,
"Your Large Vision-Language Model Only Needs A Few Attention Heads For Visual Grounding"
(arXiv 2503.06287), find them by two numbers: how much of a head's attention goes to the image, and
how scattered it is there. Kang et al. 2025, "See What You Are Told" (arXiv 2503.03321), find visual
sinks, tokens that draw attention whatever was asked, by their huge activations.
"""

import math
from contextlib import ExitStack

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor

from .tam import grids
from .watch import Call, Listener, watched

TOUCHING = np.ones((3, 3), int)  # places that meet at a corner are connected
ROUNDING = 1 + 1e-4  # even attention has no place above its mean


@torch.no_grad()
def looks(bound, modules, image: Tensor, ids: Tensor, rows: Tensor, sinks: float | None) -> Tensor:
    """Attention (L, H, N) from `rows` (K,) to the visual tokens, their mean, in every head.

    `modules` are the layers; `ids` the answer, teacher-forced. With `sinks`, attention to visual
    sinks is 0: tokens that reach `sinks` times their root mean square in a channel in which the
    prompt's first token does, in what enters the layer (20 in the paper).
    """
    listener = _Looks(bound, modules, rows, sinks)
    with ExitStack() as stack:
        for layer in bound.adapter.model.get_decoder().layers if sinks is not None else ():
            stack.callback(layer.register_forward_pre_hook(listener.enters).remove)
        stack.enter_context(watched(bound.adapter, listener))
        bound.log_probs(image, ids)
    return torch.stack(listener.found)


class _Looks(Listener):
    """Keeps the mean rows of every head, the image's columns alone."""

    def __init__(self, bound, modules, rows: Tensor, sinks: float | None):
        super().__init__(modules)
        self.rows, self.sinks, self.found = rows.tolist(), sinks, []
        self.span = bound.image_span.nonzero()[:, 0].cpu()
        self.usual = torch.ones(len(self.span))  # 0 at sinks

    def enters(self, layer, args) -> None:
        """Which visual tokens are sinks in this layer, by what enters it."""
        hidden = args[0][0].float().cpu()  # (S, D)
        strong = hidden.abs() / hidden.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
        channels = strong[0] >= self.sinks
        self.usual = (~(strong[self.span] >= self.sinks)[:, channels].any(1)).float()

    def forward(self, call: Call) -> None:
        """One layer's rows, a row at a time."""
        seen = [call.weights(p, p + 1)[0, :, 0].cpu()[:, self.span] for p in self.rows]  # (H, N)
        self.found.append(torch.stack(seen).mean(0) * self.usual)


def localisation_heads(maps: Tensor, boxes: Tensor, count: int) -> Tensor:
    """Numbers of the `count` heads, of maps (heads, N), that look at one place of the image.

    Of those that look at the image more than the elbow of all heads' sums, the least scattered. The
    choice is made for this picture and question; the paper makes it once for a model.
    """
    sums = maps.sum(1)
    some = (sums >= elbow(sums)).nonzero()[:, 0]
    views = grids(boxes)
    scatter = torch.tensor([spatial_entropy(maps[n], views) for n in some.tolist()])
    return some[scatter.argsort(stable=True)[:count]]


def elbow(values: Tensor) -> float:
    """Where sorted values turn: the point farthest from the straight line between their ends."""
    up = values.double().sort().values
    line = torch.linspace(0, 1, len(up), dtype=up.dtype) * (up[-1] - up[0]) + up[0]
    return float(up[(up - line).abs().argmax()])


def spatial_entropy(scores: Tensor, views: list[Tensor]) -> float:
    """How scattered scores (N,) >= 0 are, in nats; 0 where all lies in one connected patch.

    Places above the mean form patches in every view; the entropy is that of the patches' sums,
    infinite where no place stands out.
    """
    high, masses = float(scores.mean()) * ROUNDING, []
    for view in views:
        grid = scores[view].numpy()
        patches, found = label(grid > high, TOUCHING)
        masses += [float(grid[patches == n + 1].sum()) for n in range(found)]
    if not masses:
        return math.inf
    return float(torch.special.entr(torch.tensor(masses) / sum(masses)).sum())
