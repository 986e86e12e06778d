"""GAE (T-MM): relevance handed from the answer down to the image, layer by layer.

Every decoder layer passes relevance on along its attention weights, as far as raising a weight
would raise the score: Ā = mean over heads of the positive part of (gradient of A times A). The
relevance matrix R = (I + Ā_L) ... (I + Ā_1) is never formed: only its rows at the answer matter,
and r <- r + r Ā_l from the top layer down gives exactly these. The backward pass visits the layers
in that order, so the recursion runs inside it.
Source: Chefer, Gur, Wolf 2021, "Generic Attention-model Explainability for Interpreting Bi-Modal
and Encoder-Decoder Transformers", equations 5 and 6 (single-stream: rules 7 to 11 do not apply).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..answers import Target
from ..models import memory
from .encoders import Encoder, single_encoder, to_patches
from .token_maps import paint, paint_boxes
from .watch import Call, Listener, answer_rows, checked, decoder_attention, watched


def gae(target: Target, *, seed: int = 0, vision: bool = False, start_layer: int = 0) -> Tensor:
    """Saliency (H, W): relevance of what each pixel shows for f, the crucial tokens' log p.

    Rows that predict the crucial tokens start with relevance 1; layers from `start_layer` up take
    part. What arrives at the visual tokens is spread over their boxes. With `vision=True` it first
    goes on through the vision encoder: each visual token's relevance is handed to the patches it is
    made of, the class token starts at 0, the encoder's layers follow the same rule, and the patches
    are painted. Families in which a visual token is no fixed mixture of patches (Cambrian,
    Mini-Gemini) refuse that leg. Paths beside self-attention are not followed: Cambrian's second
    look at the image inside the decoder, the deeper features of Qwen3-VL.

    One forward and one backward pass. Memory: queries, keys, values and activations of all layers,
    linear in the sequence length, and one block of weights at a time (`watch.BLOCK`).
    """
    bound = target.bound
    modules = decoder_attention(bound, "gae")
    modules = modules[checked(start_layer, len(modules), "gae") :]
    start = rows_at_answer(target)
    if not vision:
        state = heard(target, lambda: Relevance(modules, start)).state
        return paint(bound, state[0, _span(bound)].cpu(), amount=True)
    encoder = single_encoder(bound, "gae with vision=True")
    boxes = torch.cat(encoder.boxes(None))  # (V, n, 4)
    ends = (encoder.attention, _HandOver(bound, encoder))
    listener = heard(target, lambda: Relevance(modules, start, *ends), encoder=True)
    rows = listener.arrived().reshape(len(boxes), -1)[:, -boxes.shape[1] :].cpu()
    return paint_boxes(boxes.flatten(0, 1), rows.flatten(), bound.size, amount=True)


class Relevance(Listener):
    """The row vector r, carried along by the backward pass: r <- r + r Ā of each watched layer.

    `state` (V, n): one row over the decoder's sequence; from the first watched encoder layer on,
    what `hand_over` makes of it, one row per view.
    """

    def __init__(self, decoder, state: Tensor, encoder=(), hand_over: Callable | None = None):
        super().__init__([*decoder, *encoder])
        self.state, self.decoder, self.hand_over = state.clone(), set(decoder), hand_over

    def backward(self, call: Call, start: int, weights: Tensor, gradient: Tensor) -> None:
        """Take in one block of rows of one attention layer, from the deepest layer up.

        `weights` and `gradient` (V, heads, rows, n) are what the layer gave and what came back; the
        last block of a layer adds what was passed on to the relevance so far.
        """
        if call.module not in self.decoder and self.hand_over is not None:
            self.state, self.hand_over = self.hand_over(self.state, self.lengths[call.module]), None
        if start == 0:
            self.passed = self.state.new_zeros(len(self.state), weights.shape[-1])
        first, stop = call.offset + start, start + weights.shape[2]
        r = self.state[:, first : call.offset + stop]  # (V, rows)
        kept = self.fused(call.module, (gradient * weights).clamp(min=0))  # (V, rows, n)
        self.passed += (r[:, None] @ kept.to(r))[:, 0]
        if stop == weights.shape[-1]:
            self.state[:, call.offset : call.offset + stop] += self.passed

    def fused(self, module, positive: Tensor) -> Tensor:
        """Heads (V, heads, rows, n) to one matrix (V, rows, n): their mean."""
        return positive.mean(1)

    def arrived(self) -> Tensor:
        """The state after the pass; handed over now if no encoder layer has attention."""
        return self.state if self.hand_over is None else self.hand_over(self.state, 0)


class _HandOver:
    """From visual tokens to the encoder's tokens (V, n), the class token with nothing."""

    def __init__(self, bound, encoder: Encoder):
        self.bound, self.encoder = bound, encoder

    def __call__(self, state: Tensor, length: int) -> Tensor:
        shares = to_patches(self.bound, self.encoder, state[0, _span(self.bound)])  # (V, n)
        lead = max(length - shares.shape[1], 0)  # class token, registers
        return torch.nn.functional.pad(shares, (lead, 0))


def rows_at_answer(target: Target) -> Tensor:
    """Relevance 1 at every row that predicts a crucial token, (1, S), on the model's device."""
    at = answer_rows(target)
    start = torch.zeros(1, int(at.max()) + 1).index_fill(1, at, 1.0)
    return start.to(target.bound.adapter.device)


def _span(bound) -> Tensor:
    return bound.image_span.nonzero()[:, 0].cpu()


def heard(target: Target, listening: Callable[[], Listener], encoder: bool = False) -> Listener:
    """A listener to one forward and one backward pass of f; with the `encoder`, or without it.

    `listening` makes it anew for every attempt: one that ran out of memory has heard a part.
    """
    bound = target.bound

    def listen(image: Tensor) -> Listener:
        """One attempt on an image (1, 3, H, W), with a listener of its own."""
        listener = listening()
        with watched(bound.adapter, listener):
            start = image if encoder else bound.adapter.encode(bound, image)
            start = start.detach().requires_grad_()
            score = target.score(start) if encoder else target.score_from(start)
            listener.scale = float(memory.steepness(score, target.contrast))
            torch.autograd.grad(score.sum() * listener.scale, start)
        return listener

    return memory.backward(bound, "gradient", listen, target.image)[0]
