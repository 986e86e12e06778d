"""GLIMPSE: gradient-weighted attention in which heads and layers count as much as they matter.

As in GAE, every layer passes relevance on along the positive part of (gradient x attention), from
the answer down. But heads are not averaged alike: a head counts by how much of what would raise the
score it attends to, through a softmax; and a layer counts by how much relevance it passes on.
Shen 2025, "GLIMPSE", arXiv 2506.18985: heads and their fusion are the paper's. Its constants are
not known to us, nor its prior for deep layers: the temperature and the layers' weights here are
ours, and so is what stands in for its weights of answer words: crucial tokens count alike, others
not at all.
"""

import torch
from torch import Tensor, nn

from ..answers import Target
from ..errors import StudyError
from .gae import Relevance, heard, rows_at_answer
from .token_maps import paint
from .watch import Call, Listener, decoder_attention


def glimpse(
    target: Target, *, seed: int = 0, temperature: float = 0.1, layers: bool = True
) -> Tensor:
    """Saliency (H, W) >= 0: relevance of what each pixel shows for f, the crucial tokens' log p.

    With G = relu(dA * A) of head h in a layer, its weight is softmax over heads of
    (sum G / sum relu(dA)) / `temperature`; the layer's matrix is E = sum of weights times G; and
    r <- r + a E r with a = the sum of E by its mean over layers (`layers=False`: 1). A very high
    temperature and `layers=False` give GAE. `prompt_relevance` has the same for all tokens.
    Two forward and two backward passes of the language model; memory as for `gae`.
    """
    relevance = prompt_relevance(target, temperature, layers)
    span = target.bound.image_span.nonzero()[:, 0].cpu()
    return paint(target.bound, relevance[span], amount=True)


def prompt_relevance(target: Target, temperature: float = 0.1, layers: bool = True) -> Tensor:
    """Relevance (S,) of every token of prompt and answer; rows of the answer start with 1."""
    if temperature <= 0:
        raise StudyError(f"glimpse needs a temperature above 0, not {temperature}.")
    modules = decoder_attention(target.bound, "glimpse")
    weights = heard(target, lambda: _Sums(modules)).weights(temperature, layers)
    start = rows_at_answer(target)
    return heard(target, lambda: _Weighted(modules, start, weights)).state[0].cpu()


class _Sums(Listener):
    """Per head of every layer, (2, heads): the sums of relu(gradient x weight), relu(gradient)."""

    def __init__(self, modules):
        super().__init__(modules)
        self.found = dict.fromkeys(self.modules, 0.0)

    def backward(self, call: Call, start: int, weights: Tensor, gradient: Tensor) -> None:
        """Add one block of rows (1, heads, rows, S)."""
        up = torch.where(weights > 0, gradient.clamp(min=0), 0)  # the future is no attention
        both = torch.stack([up * weights, up])[:, 0].double().sum((-2, -1))
        self.found[call.module] = self.found[call.module] + both.cpu()

    def weights(self, temperature: float, layers: bool) -> dict[nn.Module, Tensor]:
        """Weights (heads,) of every layer's heads, the layer's own weight in them."""
        heads = {
            module: (passed / up.clamp(min=1e-30) / temperature).softmax(0)
            for module, (passed, up) in self.found.items()
        }
        if not layers:
            return heads
        strength = {m: float(heads[m] @ self.found[m][0]) for m in heads}
        mean = max(sum(strength.values()) / len(strength), 1e-30)
        return {m: heads[m] * strength[m] / mean for m in heads}


class _Weighted(Relevance):
    """The recursion of GAE with a weighted sum of heads."""

    def __init__(self, modules, state: Tensor, weights: dict[nn.Module, Tensor]):
        super().__init__(modules, state)
        self.weights = weights

    def fused(self, module, positive: Tensor) -> Tensor:
        """Heads (1, heads, rows, S) by their weights."""
        return torch.einsum("bhrs,h->brs", positive, self.weights[module].to(positive))
