"""One user of a model at a time, in one state, which is left as it was found.

Methods hang hooks on a model, switch its attention kernel and count its passes, and a model cannot
tell whose hooks they are. So whoever works with it holds its lock meanwhile: threads that share a
model take turns and get the maps of one thread; different models do not wait for each other.
"""

from contextlib import contextmanager
from functools import wraps
from threading import Lock, RLock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from .trouble import told

_locks: WeakKeyDictionary = WeakKeyDictionary()  # network -> its lock, for as long as it lives
_making = Lock()


def lock_of(adapter):
    """The lock of the network behind `adapter`; a thread that has it may take it again."""
    network = getattr(adapter, "model", None)
    network = network if isinstance(network, nn.Module) else adapter
    with _making:
        return _locks.setdefault(network, RLock())


@contextmanager
def alone(adapter):
    """The model to oneself: evaluation mode and gradients inside, whatever the caller's modes are.

    Works within `torch.no_grad()` and `torch.inference_mode()`, and for a model in training mode;
    all three are the caller's again afterwards, also when something raises. A device that is full
    or lost is told in one sentence (see `trouble`).
    """
    name = getattr(adapter, "name", "the model")
    with lock_of(adapter), torch.inference_mode(False), torch.enable_grad():
        with evaluating(getattr(adapter, "model", None)), told(f"working with {name}"):
            yield


def exclusive(function):
    """A function whose first argument is a model, run `alone` with it."""

    @wraps(function)
    def run(model, *args, **options):
        with alone(model):
            return function(model, *args, **options)

    return run


def locked(method):
    """A method of an adapter that holds the model's lock, and leaves modes to the caller."""

    @wraps(method)
    def run(adapter, *args, **options):
        with lock_of(adapter):
            return method(adapter, *args, **options)

    return run


@contextmanager
def evaluating(network):
    """No dropout for a while; every part gets its own mode back."""
    parts = network.modules() if isinstance(network, nn.Module) else ()
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def attention_by(network: nn.Module, kernel: str):
    """Attention computed by one of transformers' kernels for a while, in every part.

    Every part gets its own kernel back, where parts differ too.
    """
    usual = [(config, config._attn_implementation_internal) for config in configs_of(network)]
    try:
        network.set_attn_implementation(kernel)
        yield
    finally:
        for config, own in usual:
            config._attn_implementation_internal = own


def configs_of(network: nn.Module) -> list[PretrainedConfig]:
    """Every configuration in a network, those within others too, each once."""
    found: dict[int, PretrainedConfig] = {}
    waiting = [getattr(part, "config", None) for part in network.modules()]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PretrainedConfig) and id(config) not in found:
            found[id(config)] = config
            waiting += [getattr(config, name, None) for name in config.sub_configs]
    return list(found.values())


def ordinary(x: Tensor) -> Tensor:
    """The tensor itself; a copy that gradients may pass of one made in inference mode."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()
