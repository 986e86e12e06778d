"""What a pass costs, counted instead of guessed: operations and memory, with or without weights.

A model can be built on torch's "meta" device, where tensors have shapes and no content. Passes
through it run the real transformers code and can be counted exactly, so the cost of a 72-billion
model is known on a laptop: multiplications by torch's own counter, memory by the tensors that a
forward pass keeps for its backward pass, and by those that live beside them at the worst moment.
"""

import weakref
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """One picture, forward and backward with respect to the picture (the weights are frozen).

    `forward` and `backward` in floating-point operations (a multiply-add is two), `saved` the
    bytes kept between the two, `weights` the bytes of the parameters, `working` the bytes of what
    lives for a moment only, where the most does: results on their way, gradients on theirs.
    """

    forward: float
    backward: float
    saved: int
    weights: int
    working: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """One module after the other: both keep, and one of them works at a time."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        *sums, _ = (a + b for a, b in pairs)
        return Cost(*sums, max(self.working, other.working))

    def __mul__(self, times: int) -> "Cost":
        """Several pictures (or views) at once with the same weights."""
        ways = self.forward * times, self.backward * times
        return Cost(*ways, self.saved * times, self.weights, self.working * times)

    def memory(self, batch: int) -> int:
        """Bytes for the weights and for the gradients of a batch, at the worst moment.

        What libraries take for themselves comes on top.
        """
        return self.weights + batch * (self.saved + self.working)


def counted(work: Callable[[], Tensor], module: nn.Module) -> Cost:
    """Count one forward and backward pass; `work` gives a tensor that depends on a leaf."""
    with Living(module) as living:
        with FlopCounterMode(display=False) as ahead, keeping(module) as kept:
            out = work()
        with FlopCounterMode(display=False) as back:
            out.sum().backward()
    ways, saved = (ahead.get_total_flops(), back.get_total_flops()), sum(kept)
    return Cost(*ways, saved, weight_bytes(module), max(0, living.most - saved))


class Living(TorchDispatchMode):
    """Bytes of the tensors that operations make while it is on: alive `now`, and the `most` ever.

    Without the module's own parameters and buffers, of which operations give views.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        own = [*module.parameters(), *module.buffers()]
        self.now = self.most = 0
        self._seen = dict.fromkeys(x.untyped_storage()._cdata for x in own)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen[key] = weakref.ref(storage, lambda _: self._end(key, size))
            self.now += size
            self.most = max(self.most, self.now)

    def _end(self, key: int, size: int) -> None:
        self.now -= size
        self._seen.pop(key)


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
