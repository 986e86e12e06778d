"""Lengths of a detector's gradients at its shared tokens, all of them, without a pass for each.

OWL-ViT gives (classes + 4 coordinates) outputs a patch, thousands together, and gradient alignment
needs how long the gradient of every one is. Patch i's outputs read the last layer at two tokens
only, i and the class token, so each gradient is two vectors there, pushed back through one
attention layer. What arrives at token j lies in the span of a few vectors a head, with attention
weights as coordinates; its length is then a small quadratic form, and no gradient is ever written
out. `loop` does the same with one backward pass an output, to check against.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev, jvp, vmap

from ..models.owl import Detector, heads, merge

BUDGET = 20_000_000  # numbers in the largest table at once


def cosines(detector: Detector, shared: Tensor, direction: Tensor, queries: Tensor) -> Tensor:
    """Cosine of `direction` (1 + N, C) with the gradient of every output, (N, Q + 4).

    Outputs are class logits of the Q queries, then cx cy w h; gradients are with respect to the
    shared tokens (1 + N, C). An output (or a direction) without gradient gives 0. All numerators
    come from one forward-mode pass along the direction.
    """
    unit = direction / direction.norm().clamp(min=1e-30)
    with eager(detector), torch.no_grad():
        slopes = jvp(lambda h: outputs(detector, h, queries), (shared,), (unit,))[1]  # (N, M)
        lengths = gradient_lengths(detector, shared, queries)
    return torch.where(lengths > 0, slopes / lengths.clamp(min=1e-30), 0.0)


def loop(detector: Detector, shared: Tensor, direction: Tensor, queries: Tensor) -> Tensor:
    """`cosines` by definition, one backward pass an output: slow, and an oracle."""
    leaf = shared.detach().requires_grad_()
    with eager(detector):
        found = outputs(detector, leaf, queries)
        rows = []
        for value in found.flatten():
            (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
            rows.append(torch.cosine_similarity(gradient.flatten(), direction.flatten(), 0, 1e-30))
    return torch.stack(rows).view(found.shape)


def race(detector: Detector, shared: Tensor, direction: Tensor, queries: Tensor) -> dict:
    """Seconds of `cosines` and `loop`, how many times faster, how far apart they are at most."""
    cosines(detector, shared, direction, queries)  # the first call builds what later ones reuse
    seconds, found = {}, {}
    for name, way in (("cosines", cosines), ("loop", loop)):
        start = time.perf_counter()
        found[name] = way(detector, shared, direction, queries)
        seconds[name] = time.perf_counter() - start
    apart = (found["cosines"] - found["loop"]).abs().max().item()
    return seconds | {"faster": seconds["loop"] / seconds["cosines"], "apart": apart}


def outputs(detector: Detector, shared: Tensor, queries: Tensor) -> Tensor:
    """All outputs of the patches, (N, Q + 4), of the shared tokens (1 + N, C) of one picture."""
    logits, boxes = detector.predict(shared[None], queries)
    return torch.cat([logits, boxes], -1)[0]


class eager:
    """Inside, the detector's attention is computed step by step: only that has a forward mode."""

    def __init__(self, detector: Detector):
        self.config = detector.model.config.vision_config

    def __enter__(self):
        self.usual = self.config._attn_implementation
        self.config._attn_implementation = "eager"

    def __exit__(self, *error):
        self.config._attn_implementation = self.usual


@dataclass
class Attention:
    """One attention layer at work on S tokens; H heads of width d, C = H d."""

    weights: Tensor  # (H, S, S)
    q: Tensor  # (H, S, d)
    k: Tensor  # (H, S, d)
    v: Tensor  # (H, S, d)
    to_q: Tensor  # (H, d, C)
    to_k: Tensor  # (H, d, C)
    to_v: Tensor  # (H, d, C)
    out: Tensor  # (C, H, d)
    scale: float


def gradient_lengths(detector: Detector, shared: Tensor, queries: Tensor) -> Tensor:
    """Euclidean length of the gradient of every output with respect to `shared`: (N, Q + 4)."""
    layer = detector.vision.encoder.layers[-1]
    norm = layer.layer_norm1
    attention = _attention(layer, norm(shared))
    after = shared + _mix(attention) + layer.self_attn.out_proj.bias  # (S, C)
    own, first = _jacobians(detector, layer, after, queries)  # (N, M, C) each
    n, m, c = own.shape
    wide = m * (4 * len(attention.q) + 4) * max(c, len(shared))
    chunk = max(1, BUDGET // wide)
    parts = []
    for start in range(0, n, chunk):
        at = torch.arange(start, min(start + chunk, n), device=shared.device)
        parts.append(_squares(attention, norm, shared, own[at], first[at], at + 1))
    return torch.cat(parts).clamp(min=0).sqrt()


def _attention(layer, tokens: Tensor) -> Attention:
    a = layer.self_attn
    h, c = a.num_heads, tokens.shape[-1]
    q, k, v = (
        linear(tokens).view(len(tokens), h, -1).transpose(0, 1)
        for linear in (a.q_proj, a.k_proj, a.v_proj)
    )
    to_q, to_k, to_v = (x.weight.view(h, -1, c) for x in (a.q_proj, a.k_proj, a.v_proj))
    scale = (c // h) ** -0.5
    weights = (q @ k.mT * scale).softmax(-1)
    return Attention(weights, q, k, v, to_q, to_k, to_v, a.out_proj.weight.view(c, h, -1), scale)


def _mix(a: Attention) -> Tensor:
    """What attention adds to every token, before its bias: (S, C)."""
    return torch.einsum("hst,htd,chd->sc", a.weights, a.v, a.out)


def _jacobians(detector: Detector, layer, after: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """d(outputs of patch i)/d(token i), and /d(class token), both behind attention: (N, M, C)."""
    owl = detector.model

    def of_patch(own: Tensor, first: Tensor, bias: Tensor) -> Tensor:
        """Logits and box of one patch, from its own token and the class token."""
        two = torch.stack([first, own])
        two = two + layer.mlp(layer.layer_norm2(two))
        read = merge(owl, detector.vision.post_layernorm(two)[None])[0]  # (1, C)
        logits, box = heads(owl, read, queries, bias)
        return torch.cat([logits, box], -1)[0]

    each = vmap(jacrev(of_patch, (0, 1)), (0, None, 0))
    return each(after[1:], after[0], owl.box_bias.to(after))


def _squares(a: Attention, norm, shared: Tensor, own: Tensor, first: Tensor, at: Tensor) -> Tensor:
    """Squared gradient lengths (n, M) of the outputs of the patches at sequence places `at` (n,).

    `own` and `first` (n, M, C) are what comes back at the patch and at the class token.
    """
    places = [(at, own), (torch.zeros_like(at), first)]
    sides = [_through(a, place, back) for place, back in places]
    basis = torch.cat([s[0] for s in sides], 2)  # (n, M, K, C)
    share = torch.cat([s[1] for s in sides], 2)  # (n, M, K, S)
    squares = _normed_squares(norm, shared, basis, share)  # (n, M, S)
    total = squares.sum(-1)
    for (place, back), side in zip(places, sides, strict=True):
        total = total + _direct(norm, shared, basis, share, squares, place, back, side[2])
    return total


def _through(a: Attention, place: Tensor, back: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What attention hands back from its outputs at `place` (n,) given `back` (n, M, C).

    Basis vectors (n, M, 2H, C) and their share at every token (n, M, 2H, S), by way of keys and
    values; and the vector (n, M, C) that goes back to `place` itself by way of its query.
    """
    weights, q = a.weights[:, place].transpose(0, 1), a.q[:, place].transpose(0, 1)  # (n, H, .)
    e = torch.einsum("nmc,chd->nmhd", back, a.out)
    by_value = torch.einsum("nmhd,hdc->nmhc", e, a.to_v)
    slope = torch.einsum("nmhd,htd->nmht", e, a.v)  # d/d(weight)
    slope = weights[:, None] * (slope - (weights[:, None] * slope).sum(-1, keepdim=True))
    by_key = a.scale * torch.einsum("nhd,hdc->nhc", q, a.to_k)[:, None].expand_as(by_value)
    by_query = a.scale * torch.einsum("nmht,htd,hdc->nmc", slope, a.k, a.to_q)
    basis = torch.cat([by_value, by_key], 2)
    return basis, torch.cat([weights[:, None].expand_as(slope), slope], 2), by_query


def _normed_squares(norm, shared: Tensor, basis: Tensor, share: Tensor) -> Tensor:
    """Squared length of sum_k share[k, j] basis[k], pulled back through the layer norm at every j.

    The pull-back of y is (p - mean(p) - z mean(p z)) / s with p = weight * y, z the normalised
    token and s its deviation, whose square is |p|^2 - C mean(p)^2 - (2C - |z|^2) mean(p z)^2 over
    s^2.
    """
    z, s = _standard(norm, shared)
    c, p = shared.shape[-1], basis * norm.weight
    gram = p @ p.mT  # (n, M, K, K)
    long = ((gram @ share) * share).sum(2)  # (n, M, S)
    mean = (p.mean(-1)[..., None] * share).sum(2)
    along = ((p @ z.T) * share).sum(2) / c
    bent = 2 * c - z.square().sum(-1)
    return (long - c * mean.square() - bent * along.square()) / s.square()


def _direct(norm, shared, basis, share, squares, place, back, by_query) -> Tensor:
    """What the token at `place` itself changes: its query and the way around attention, (n, M)."""
    z, s = _standard(norm, shared)
    row = torch.arange(len(place), device=place.device)
    there = share[row, :, :, place]  # (n, M, K)
    p = ((there[..., None] * basis).sum(2) + by_query) * norm.weight  # (n, M, C)
    z, s = z[place][:, None], s[place][:, None, None]
    pulled = (p - p.mean(-1, keepdim=True) - z * (p * z).mean(-1, keepdim=True)) / s
    return (pulled + back).square().sum(-1) - squares[row, :, place]


def _standard(norm, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised tokens (S, C) and their deviations (S,), as the layer norm has them."""
    s = (shared.var(-1, unbiased=False) + norm.eps).sqrt()
    return (shared - shared.mean(-1, keepdim=True)) / s[:, None], s
