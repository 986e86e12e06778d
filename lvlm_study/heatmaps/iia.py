"""IIA: attention times its gradient, averaged along two paths, then followed down to the image.

One path leads the picture from the baseline to the image. The other, inside each of those pictures,
leads the last decoder layer's attention from nothing to what it is. What a layer passes on is the
mean over both of the positive part of (attention times its gradient); the layers are chained by
rollout.

Along its path the last layer's attention is held fixed, as in the released code: it is a given
times 0, 1/n, .. 1. So no gradient goes through its queries and keys, and what lies below is
credited with what it brings to its values alone.

Barkan et al. 2023, "Visual Explanations via Iterated Integrated Attributions", describe it for
classifiers, there with the attention of a vision transformer (gradient rollout). The reading for an
answer of several words is ours: the layers are those of the language model, the rows start at the
positions that predict the crucial tokens, f is their log-probability, and the path of the image
starts at the target's baseline, where theirs starts at zero.
"""

from contextlib import contextmanager

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from ..models import memory
from .token_maps import paint
from .watch import Call, Listener, answer_rows, decoder_attention, watched

PATHS = ("both", "input", "attention")


def iia(
    target: Target, *, seed: int = 0, steps: int = 5, path: str = "both", batch: int = 12
) -> Tensor:
    """Saliency (H, W): what the rows of the crucial tokens draw from each place, high = important.

    `steps` n gives the points 0, 1/n, .. 1 of each path, ends included. `path="both"` costs
    (n + 1)^2 forward and as many backward passes of the language model (36) and n + 1 of the
    encoder; "input" keeps the attention whole and "attention" keeps the image, n + 1 passes each.
    On every path the last layer's weights are held: the gradient reaches its values only.
    `batch` passes run at once. Besides, one matrix of length x length numbers is kept for every
    decoder layer, whatever the number of passes. Deterministic.

    f is a log-probability, whose gradient is largest where the answer is unlikely: pictures near
    the baseline weigh most in "both" and "input".
    """
    modules = decoder_attention(target.bound, "iia")
    kept = mean_products(target, modules, pairs(steps, path), batch)
    at = answer_rows(target)
    start = torch.zeros(int(at.max()) + 1, dtype=torch.float64).index_fill(0, at, 1.0)
    row = roll(start, kept)
    span = target.bound.image_span.nonzero()[:, 0].cpu()
    return paint(target.bound, row[span], amount=True)


def pairs(steps: int, path: str) -> list[tuple[float, float]]:
    """(share of the image, share of the attention) of every pass, the image's share rising."""
    if steps < 1 or path not in PATHS:
        raise StudyError(
            f"iia needs at least 1 step and a path of {', '.join(PATHS)}, not {steps}, {path!r}."
        )
    points = [k / steps for k in range(steps + 1)]
    image = [1.0] if path == "attention" else points
    attention = [1.0] if path == "input" else points
    return [(a, b) for a in image for b in attention]


def mean_products(target: Target, modules, points, batch: int) -> list[Tensor]:
    """Mean over points and heads of (A * gradient)+, (S, S) a layer, first layer first."""
    projection, size = out_projection(modules[-1]), target.micro_batch(batch)

    def one_part(some) -> list[Tensor]:
        listener = Products(modules)  # a new one: an attempt that failed has heard a part
        with watched(target.bound.adapter, listener), scaled(projection) as scale:
            _run(target, some, scale, listener)
        return [listener.total[module].cpu() for module in modules]

    total = [0.0] * len(modules)
    for first in range(0, len(points), size):
        some = points[first : first + size]
        for found in memory.backward(target.bound, "gradient", one_part, some):
            total = [a + b for a, b in zip(total, found, strict=True)]
    return [x / len(points) for x in total]


def roll(row: Tensor, kept: list[Tensor]) -> Tensor:
    """row (S,) times the product of the layers' (G + I), rows scaled to sum 1, from the top down.

    Only the row is carried, not the product; first layer first in `kept`.
    """
    for products in reversed(kept):
        products = products.to(row)
        row = row / (1 + products.sum(1))
        row = row + row @ products
    return row


class Products(Listener):
    """Sum over passes of the heads' mean of (A * gradient)+, (S, S) float32 for every layer.

    The last layer's A is held fixed.
    """

    def __init__(self, modules):
        super().__init__(modules)
        self.held = tuple(self.modules[-1:])
        self.total: dict = {}

    def backward(self, call: Call, start: int, weights: Tensor, gradient: Tensor) -> None:
        """Add one block of rows: weights times gradient, positive part, mean over heads."""
        length = weights.shape[-1]
        if call.module not in self.total:
            self.total[call.module] = weights.new_zeros(length, length)
        found = (weights * gradient).clamp(min=0).mean(1).sum(0)  # (rows, S)
        self.total[call.module][start : start + len(found)] += found


def out_projection(module: torch.nn.Module) -> torch.nn.Module:
    """The layer behind a layer's attention: what reaches it is linear in the attention weights."""
    if not hasattr(module, "o_proj"):
        raise StudyError(
            f"iia scales what enters the output projection `o_proj` of an attention layer, and "
            f"{type(module).__name__} has none; choose another method, such as gae."
        )
    return module.o_proj


@contextmanager
def scaled(projection: torch.nn.Module):
    """Yield a list; while open, what enters `projection` is multiplied by the factors (B,) in it.

    Attention output is linear in the weights, so this is the same as scaling the weights.
    """
    factors: list[float] = []

    def scale(module, args):
        factor = args[0].new_tensor(factors).view(-1, *[1] * (args[0].dim() - 1))
        return (args[0] * factor, *args[1:])

    handle = projection.register_forward_pre_hook(scale)
    try:
        yield factors
    finally:
        handle.remove()


def _run(target: Target, points, scale: list[float], listener: Products) -> None:
    """One forward and backward pass of the decoder for each point, pictures encoded once each."""
    bound, way = target.bound, target.image - target.baseline
    shares = list(dict.fromkeys(a for a, _ in points))
    with torch.no_grad():
        images = torch.cat([torch.add(target.baseline, way, alpha=a) for a in shares])
        features = bound.adapter.encode(bound, images)  # (shares, N, D)
    which = torch.tensor([shares.index(a) for a, _ in points], device=features.device)
    features = features[which].requires_grad_()
    scale[:] = [b for _, b in points]
    score = target.score_from(features)  # (points,)
    listener.scale = memory.steepness(score, target.contrast).view(-1, 1, 1, 1)
    torch.autograd.grad((score * listener.scale.flatten()).sum(), features)
