"""AttnLRP: a logit shared out over the tokens that made it, layer by layer, in one backward pass.

Layer-wise relevance propagation keeps what it shares out: what arrives at a layer's output is
handed to its inputs. With the rules below that is gradient times input under changed gradients:

- a sum or a linear layer: in proportion to the summands (the plain gradient; biases keep theirs);
- a norm: its statistics are constants, so each channel keeps its own;
- an activation: the input gets what the output has (gradient f(x) / x);
- a product of two (weights times values, queries times keys, gate times up): half to each;
- softmax: the plain gradient, its Taylor expansion, whose constant term keeps the rest.

Achtibat et al. 2024, "AttnLRP", arXiv 2402.05602, propositions 3.1 to 3.4; epsilon is 0.
"""

from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..answers import Target
from ..errors import StudyError
from ..models import memory
from ..models.recompute import again
from .token_maps import paint
from .watch import Listener, decoder_attention, watched

ACTIVATIONS = ("act_fn", "activation_fn")
GATES = ("gate_proj", "gate_up_proj")  # an MLP with one of these multiplies two branches


def attnlrp(target: Target, *, seed: int = 0, softmax: bool = True) -> Tensor:
    """Saliency (H, W), signed: how much of the crucial tokens' logits each place accounts for.

    With a contrast, of the difference between the two words' logits.

    Relevance of the visual tokens, painted as an amount: without padding the mean over pixels is
    the sum of all visual tokens that have a box. `softmax=False` takes attention weights as
    constants and gives values the whole product: then relevance at all tokens of prompt and answer
    sums to the logits exactly where layers have no bias (CP-LRP, Ali et al. 2022); with it, what
    softmax keeps is missing. What enters the decoder beside its input (deeper features of Qwen3-VL,
    Cambrian's second look) counts for the token that it enters at. Deterministic. One forward and
    one backward pass of the language model; memory linear in the sequence length.
    """
    bound = target.bound
    relevance = token_relevance(target, softmax)
    return paint(bound, relevance[bound.image_span.nonzero()[:, 0].cpu()], amount=True)


def token_relevance(target: Target, softmax: bool = True) -> Tensor:
    """Relevance (S,) float32 of every token of prompt and answer, in nats of the logits' sum."""
    modules = decoder_attention(target.bound, "attnlrp")
    shared_out = partial(_shared_out, target, modules, softmax)
    return memory.backward(target.bound, "gradient", shared_out, target.image)[0]


def _shared_out(target: Target, modules, softmax: bool, image: Tensor) -> Tensor:
    """One forward pass, and one backward by the rules."""
    bound, adapter = target.bound, target.bound.adapter
    at = target.crucial.nonzero()[:, 0]
    ids = target.answer.token_ids[: int(at[-1]) + 1]
    with torch.no_grad():
        features = adapter.encode(bound, image)
    decoder, listener = adapter.model.get_decoder(), _Products(modules, softmax)
    with watched(adapter, listener), rules(decoder, adapter.name), entering(decoder) as sources:
        logits = bound.logits_from(features, ids)[0]  # (A, V)
        score = logits[at, ids[at]].sum()
        if target.contrast is not None:
            score = score - logits[-1, target.contrast]
        return _times_input(score, sources)


def gradient_times_input(target: Target) -> Tensor:
    """The same under plain gradients of f, (S,): the quick view, which need not sum to anything."""
    decoder_attention(target.bound, "gradient times input")  # says what is no network
    plain = partial(_plain, target)
    return memory.backward(target.bound, "gradient", plain, target.image)[0]


def _plain(target: Target, image: Tensor) -> Tensor:
    adapter = target.bound.adapter
    with torch.no_grad():
        features = adapter.encode(target.bound, image)
    with entering(adapter.model.get_decoder()) as sources:
        score = target.score_from(features).sum()
        return _times_input(score, sources, float(memory.steepness(score, target.contrast)))


def _times_input(score: Tensor, sources: list[tuple[Tensor, Tensor]], times: float = 1) -> Tensor:
    """Slope times value at every source, summed over channels (S,); the score is sent back `times`
    as large, which half precision may need."""
    gradients = torch.autograd.grad(score * times, [place for place, _ in sources])
    parts = [
        (slope.float() / times * value.float()).sum(-1)[0].cpu()
        for slope, (_, value) in zip(gradients, sources, strict=True)
    ]
    return torch.stack(parts).sum(0)


class _Products(Listener):
    """Halves relevance at the two products of attention, or gives it all to the values."""

    def __init__(self, modules, softmax: bool):
        super().__init__(modules)
        self.softmax, self.held = softmax, () if softmax else tuple(modules)

    def inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Queries and keys: half of the half that the weights got."""
        if self.softmax:
            for x, share in ((query, 1 / 4), (key, 1 / 4), (value, 1 / 2)):
                _scaled(x, share)


@contextmanager
def rules(decoder: nn.Module, name: str):
    """While open, the decoder's backward pass follows the rules."""
    with ExitStack() as stack:
        for layer in decoder.layers:
            gated, activation = _feed_forward(layer, name)
            stack.callback(activation.register_forward_hook(_alongside).remove)
            if gated is not None:
                stack.callback(gated.register_forward_pre_hook(_halved).remove)
        for norm in _norms(decoder, name):
            stack.callback(norm.register_forward_hook(_alongside).remove)
        yield


@contextmanager
def entering(decoder: nn.Module):
    """Yield what enters the decoder: (tensor of the graph, what was put in there), (1, S, D) each.

    The list is filled by a forward pass: the input of the first layer, and what is added between
    or within layers. Nothing before the first layer is in the graph.
    """
    entries = _Entries()
    with ExitStack() as stack:
        for layer in decoder.layers:
            stack.callback(layer.register_forward_pre_hook(entries.before, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(entries.after).remove)
        yield entries.found


class _Entries:
    """What enters a decoder: at its first layer, and where something is added to the stream."""

    def __init__(self):
        self.found, self.last = [], None

    def before(self, module, args, kwargs):
        """The first layer's input becomes a leaf; later ones are compared with the last output."""
        hidden, *rest = args
        if self.last is None:
            hidden = hidden.detach().requires_grad_()
            self.found.append((hidden, hidden.detach()))
        else:
            hidden = self.joined(self.last, hidden)
        look = kwargs.get("look")  # Cambrian's layers look at the image again at their end
        if look is not None:
            kwargs = kwargs | {"look": lambda index, x: self.joined(x, look(index, x))}
        return (hidden, *rest), kwargs

    def after(self, module, args, output) -> None:
        """Remember what a layer gave."""
        self.last = output[0] if isinstance(output, tuple) else output

    def joined(self, stream: Tensor, other: Tensor) -> Tensor:
        """`other` as the stream and a constant that was added to it."""
        if other is stream:
            return stream
        added = (other - stream.to(other.device)).detach()
        joined = stream.to(other.device) + added
        if not again.get():  # a layer that is computed a second time has been here before
            self.found.append((joined, added))
        return joined


class _Ratio(torch.autograd.Function):
    """y of x, with y / x for a derivative: what y has of relevance is x's."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:
        """The values of y."""
        ctx.save_for_backward(torch.where(x == 0, 0, y / x))
        return y.clone()

    @staticmethod
    def backward(ctx, g: Tensor):
        """g y / x; y itself is a constant."""
        return g * ctx.saved_tensors[0], None


def _alongside(module, inputs, output: Tensor) -> Tensor:
    return _Ratio.apply(inputs[0], output.detach())


def _halved(module, inputs) -> None:
    _scaled(inputs[0], 1 / 2)


def _scaled(x: Tensor, share: float) -> None:
    if x.requires_grad:
        x.register_hook(lambda g: g * share)


def _feed_forward(layer: nn.Module, name: str) -> tuple[nn.Module | None, nn.Module]:
    """(the projection that reads the product of two branches, or None; the activation)."""
    mlp = getattr(layer, "mlp", None)
    activation = next((getattr(mlp, a) for a in ACTIVATIONS if hasattr(mlp, a)), None)
    if not isinstance(activation, nn.Module) or not hasattr(mlp, "down_proj"):
        raise StudyError(
            f"attnlrp has no rule for the feed-forward part {type(mlp).__name__} of {name}; choose "
            "another method, as gae."
        )
    return (mlp.down_proj if any(hasattr(mlp, g) for g in GATES) else None), activation


def _norms(decoder: nn.Module, name: str) -> list[nn.Module]:
    """Every norm of the layers, and the last. StudyError for one that subtracts a mean."""
    inside = [m for layer in decoder.layers for m in layer.modules()]
    found = [m for m in (*inside, *decoder.children()) if "norm" in type(m).__name__.lower()]
    odd = [m for m in found if "rmsnorm" not in type(m).__name__.lower()]
    if odd:
        raise StudyError(
            f"attnlrp has a rule for norms by the root mean square alone, and {name} has a "
            f"{type(odd[0]).__name__}; choose another method, as gae."
        )
    return found
