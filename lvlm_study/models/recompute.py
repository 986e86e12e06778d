"""Activation checkpointing: layers keep what enters them, and are computed again on the way back.

What a layer keeps for its backward pass is some thirty times what enters it, so a gradient takes a
fraction of the memory, for one more forward pass through the layers. transformers offers it in
training mode alone; here models are in evaluation mode and stay there.
Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

again: ContextVar = ContextVar("again", default=False)  # set while a layer is computed again


def possible(bound) -> bool:
    """Whether the model has layers to compute twice; a planted reader has none."""
    return hasattr(bound.adapter.model, "get_decoder")


def layers(bound) -> list[nn.Module]:
    """The layers of the language model and of the vision encoders."""
    adapter = bound.adapter
    seen = [block for encoder in adapter.encoders(bound) for block in encoder.blocks]
    return [*getattr(adapter.model.get_decoder(), "layers", ()), *seen]


@contextmanager
def checkpointed(bound):
    """For a while, no layer keeps more than what enters it; the model is then as it was."""
    chosen = layers(bound)
    before = [vars(layer).get("forward") for layer in chosen]
    for layer in chosen:
        layer.forward = partial(_once, layer.forward)
    try:
        yield
    finally:
        for layer, own in zip(chosen, before, strict=True):
            vars(layer).pop("forward")
            if own is not None:  # accelerate puts its own in the place of a layer's forward
                layer.forward = own


def _once(forward, *args, **options):
    """One call of a layer, to be repeated in the context in which it was first made.

    The backward pass of a GPU runs in a thread of its own, which knows no context variables.
    """
    context, calls = copy_context(), []

    def run(*args, **options):
        calls.append(1)
        return context.copy().run(_marked, len(calls) > 1, forward, *args, **options)

    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **options)


def _marked(repeated: bool, forward, *args, **options):
    again.set(repeated)
    return forward(*args, **options)
