"""Attention weights of a running model, a block of rows at a time.

The fast kernels keep no attention weights, and keeping all of them takes layers x heads x length²
numbers: hundreds of gigabytes for a seven-billion model on a tiled image. A watched layer keeps its
queries, keys and values instead, which grow with the length only, and works out rows of weights
(and, in the backward pass, their gradients) when a listener is to see them. Numbers are those of
transformers' eager attention, up to rounding.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..errors import StudyError
from ..models.alone import attention_by, lock_of
from ..models.base import Adapter
from ..models.recompute import again

NAME = "watched"
BLOCK = 1 << 22  # weights worked out at once (heads x rows x length): 16 MB in float32
_listener: ContextVar = ContextVar("listener", default=None)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one attention layer; `offset` is where its rows begin in the layer's sequence.

    Encoders that attend within windows call their layer once a window.
    """

    module: nn.Module
    query: Tensor  # (B, H, S, d)
    key: Tensor  # (B, G, S, d), G groups of heads share a key
    mask: Tensor | None  # (B or 1, 1, S, S), bool or added
    scaling: float
    causal: bool
    offset: int

    def blocks(self):
        """Row ranges (start, stop) small enough to be worked out at once."""
        B, H, S, _ = self.query.shape
        step = max(1, BLOCK // (B * H * S))
        return [(start, min(start + step, S)) for start in range(0, S, step)]

    def weights(self, start: int, stop: int) -> Tensor:
        """Rows `start:stop` of the attention weights in float32: (B, H, stop - start, S)."""
        key = self.shared(self.key).float()
        scores = self.query[:, :, start:stop].float() @ key.mT * self.scaling
        if self.mask is not None:
            rows = self.mask[..., start:stop, : scores.shape[-1]]
            scores = scores.masked_fill(~rows, -torch.inf) if _bool(rows) else scores + rows
        elif self.causal:
            position = torch.arange(scores.shape[-1], device=scores.device)
            scores = scores.masked_fill(position > position[start:stop, None], -torch.inf)
        return scores.softmax(-1)

    def shared(self, x: Tensor) -> Tensor:
        """Keys or values (B, G, S, d) repeated for all heads: (B, H, S, d)."""
        return x.repeat_interleave(self.query.shape[1] // x.shape[1], 1)


class Listener:
    """What looks at attention: override `forward` or `backward`, or both.

    The weights of the modules in `held` are taken as given: no gradient goes into what made them.
    """

    held: tuple[nn.Module, ...] = ()
    scale: float | Tensor = 1.0  # what the score was multiplied by; see `memory.steepness`

    def __init__(self, modules):
        self.modules = list(modules)
        self.lengths = dict.fromkeys(self.modules, 0)

    def inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """What a watched layer is about to attend with; gradients may be hooked here."""

    def forward(self, call: Call) -> None:
        """A watched layer was run, in the order of the network."""

    def attend(self, call: Call, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What a watched layer gives, (B, H, S, d): ordinary attention, seen on the way back."""
        return _Attend.apply(query, key, value, call, self)

    def backward(self, call: Call, start: int, weights: Tensor, gradient: Tensor) -> None:
        """Rows from `start` of the weights and of the score's gradient by them, top layer first."""


@contextmanager
def watched(adapter, listener: Listener):
    """While open, the listener sees every call of its attention modules."""
    token = _listener.set(listener)
    try:
        with lock_of(adapter), attention_by(adapter.model, NAME):
            yield listener
    finally:
        _listener.reset(token)


def decoder_attention(bound, method: str) -> list[nn.Module]:
    """The self-attention modules of the language model, first layer first.

    Raises StudyError for models without attention, as planted readers are.
    """
    require_inside(bound, method)
    layers = getattr(bound.adapter.model.get_decoder(), "layers", ())
    found = [layer.self_attn for layer in layers if hasattr(layer, "self_attn")]
    if not found or len(found) < len(layers):
        raise StudyError(
            f"{method} needs self-attention in every layer of the language model, and "
            f"{bound.adapter.name} has {len(layers)} layers of which {len(found)} have it; choose "
            "a method that only perturbs the image, as igos or rise."
        )
    return found


def require_inside(bound, method: str) -> None:
    """Raise StudyError if the model behind `bound` is no network of transformers."""
    if not isinstance(bound.adapter, Adapter):
        raise StudyError(
            f"{method} looks inside a transformers model, and {bound.adapter.name} has neither "
            "encoder layers nor attention; choose a method that only perturbs the image, as igos "
            "or rise."
        )


def checked(layer: int, count: int, method: str) -> int:
    """A layer number made non-negative. Raises StudyError if there is no such layer."""
    if not -count <= layer < count:
        raise StudyError(
            f"{method} was asked for layer {layer}, but the model has {count}: 0 to {count - 1}, "
            "or -1 for the last."
        )
    return layer % count


def answer_rows(target) -> Tensor:
    """Positions (K,) in prompt + answer that predict the crucial tokens.

    The token before predicts: the last prompt token for the first answer token, and so on.
    """
    return target.bound.prompt_ids.shape[1] - 1 + target.crucial.nonzero()[:, 0].cpu()


class _Attend(torch.autograd.Function):
    """Attention whose backward pass shows weights and their gradients, block by block."""

    @staticmethod
    def forward(ctx, query, key, value, call, listener):
        """Ordinary attention, (B, H, S, d)."""
        ctx.listener, ctx.call = listener, replace(call, query=None, key=None)
        ctx.save_for_backward(call.query, call.key, value)  # so that checkpointing drops them
        shared = [call.shared(x) for x in (key, value)]
        return F.scaled_dot_product_attention(
            query, *shared, call.mask, is_causal=call.causal, scale=call.scaling
        )

    @staticmethod
    def backward(ctx, g):  # g (B, H, S, d)
        """Show each block of weights to the listener; g and the gradients are (B, H, S, d)."""
        query, key, value = ctx.saved_tensors
        call, scale = replace(ctx.call, query=query, key=key), ctx.listener.scale
        query, key = call.query.float(), call.shared(call.key).float()
        value, g = call.shared(value).float(), g.float()
        dq, dk, dv = (torch.zeros_like(x) for x in (query, key, value))
        for start, stop in call.blocks():
            weights = call.weights(start, stop)  # (B, H, rows, S)
            gradient = g[:, :, start:stop] @ value.mT
            ctx.listener.backward(call, start, weights, gradient / scale)
            dv += weights.mT @ g[:, :, start:stop]
            inner = (weights * gradient).sum(-1, keepdim=True)
            scores = weights * (gradient - inner) * call.scaling
            dq[:, :, start:stop] = scores @ key
            dk += scores.mT @ query[:, :, start:stop]
        like = call.key
        dk, dv = (x.unflatten(1, (like.shape[1], -1)).sum(2).to(like.dtype) for x in (dk, dv))
        return dq.to(like.dtype), dk, dv, None, None


def _attention(module, query, key, value, attention_mask, scaling=None, is_causal=None, **kwargs):
    """transformers' interface of an attention kernel; modules nobody listens to run as usual."""
    listener = _listener.get()
    if listener is None or module not in listener.lengths:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            is_causal=is_causal,
            **kwargs,
        )
    odd = [k for k in ("softcap", "position_bias", "s_aux") if kwargs.get(k) is not None]
    if odd:
        raise StudyError(
            f"{type(module).__name__} computes its attention with {odd[0]}, which cannot be looked "
            "into here; choose a method that only perturbs the image, as igos or rise."
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[2] > 1
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    offset = listener.lengths[module]
    parts = (query.detach(), key.detach(), attention_mask, scaling, causal, offset)
    call = Call(module, *parts)
    if not again.get():  # a layer that is computed a second time was heard before
        listener.lengths[module] += query.shape[2]
        listener.forward(call)
        listener.inputs(query, key, value)
    if module in listener.held:
        query, key = call.query, call.key  # cut off from the graph
    out = listener.attend(call, query, key, value)
    return out.transpose(1, 2).contiguous(), None


def _bool(mask: Tensor) -> bool:
    return mask.dtype == torch.bool


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
