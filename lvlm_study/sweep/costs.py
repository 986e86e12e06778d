"""What a pass costs, counted instead of guessed: operations and memory, with or without weights.

A model can be built on torch's "meta" device, where tensors have shapes and no content. Passes
through it run the real transformers code and can be counted exactly, so the cost of a 72-billion
model is known on a laptop: multiplications by torch's own counter, memory by the tensors that a
forward pass keeps for its backward pass.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """One picture, forward and backward with respect to the picture (the weights are frozen).

    `forward` and `backward` in floating-point operations (a multiply-add is two), `saved` the
    bytes kept between the two, `weights` the bytes of the parameters.
    """

    forward: float
    backward: float
    saved: int
    weights: int

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Cost(*(a + b for a, b in pairs))

    def __mul__(self, times: int) -> "Cost":
        """Several pictures (or views) with the same weights."""
        return Cost(self.forward * times, self.backward * times, self.saved * times, self.weights)

    def memory(self, batch: int, gradient: bool = True) -> int:
        """Bytes for the weights and, with gradients, what a batch keeps for its backward pass.

        A lower estimate: what an operation needs for itself while it runs comes on top.
        """
        return self.weights + batch * self.saved * gradient


def counted(work: Callable[[], Tensor], module: nn.Module) -> Cost:
    """Count one forward and backward pass; `work` gives a tensor that depends on a leaf."""
    with FlopCounterMode(display=False) as ahead, keeping(module) as kept:
        out = work()
    with FlopCounterMode(display=False) as back:
        out.sum().backward()
    ways = ahead.get_total_flops(), back.get_total_flops()
    return Cost(*ways, sum(kept), weight_bytes(module))


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


@contextmanager
def keeping(module: nn.Module):
    """Yield a list that holds, once the block has ended, the bytes of each tensor that is kept.

    Kept for a backward pass, that is; the module's own parameters and buffers do not count.
    """
    own = [*module.parameters(), *module.buffers()]
    fixed = {p.untyped_storage()._cdata for p in own}
    kept: dict[int, tuple] = {}
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in fixed:
            kept[storage._cdata] = (storage.nbytes(), storage)  # held, so that no number is reused
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield sizes
    finally:
        sizes += [size for size, _ in kept.values()]
        kept.clear()  # or they would be held all the way back


def of_target(target) -> Cost:
    """One picture of a real target, from its pixels to the score of its crucial tokens."""
    image = target.image.detach().clone().requires_grad_()
    return counted(lambda: target.score(image), target.bound.adapter.model)


def on_paper(build: Callable[[], nn.Module], inputs: Callable[[], dict], dtype=torch.bfloat16):
    """The cost of a module that exists on paper only: built, fed and counted without content.

    `inputs` gives its keyword arguments, on the meta device; those that are floats are the leaves.
    """
    with torch.device("meta"):
        module = build().to(dtype).eval().requires_grad_(False)
        fed = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs().items()}
    for value in fed.values():
        value.requires_grad_(value.is_floating_point())

    def work() -> Tensor:
        out = module(**fed)
        return out if isinstance(out, Tensor) else out[0]

    with fused_attention():
        return counted(work, module)


@contextmanager
def fused_attention():
    """Attention as GPUs do it, which keeps no weights; without content torch would spell it out."""
    usual = functional.scaled_dot_product_attention

    def fused(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **gqa):
        if k.shape[1] != q.shape[1]:  # grouped keys are repeated; the mask changes no count
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[0]

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = usual


def language(build: Callable[[], nn.Module], width: int, tokens: int) -> Cost:
    """A causal language model without its head reading `tokens` embeddings."""

    def inputs() -> dict:
        mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool)  # its content is never looked at
        return {"inputs_embeds": torch.rand(1, tokens, width), "attention_mask": mask}

    return on_paper(build, inputs)


def vision(build: Callable[[], nn.Module], side: int, views: int = 1) -> Cost:
    """A vision encoder reading `views` square views, one after the other."""
    one = on_paper(build, lambda: {"pixel_values": torch.rand(1, 3, side, side)})
    return one * views
