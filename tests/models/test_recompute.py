"""Layers computed twice: the same numbers from less memory, and a model that is left as it was."""

import threading
import warnings

import pytest
import torch
import white_box
from refusals import refuses
from tiny_joint import tiny_joint

from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.igos import image_gradient
from lvlm_study.models import load_model, memory, recompute
from lvlm_study.models.alone import configs_of
from lvlm_study.models.planted import planted

FAMILIES = ["llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "gemma3", "smolvlm"]
FAMILIES += white_box.PORTS
QUICK = {
    "igos": {"iterations": 1, "steps": 2},
    "igos++": {"iterations": 1, "steps": 1},
    "integrated_gradients": {"steps": 2},
    "smoothgrad": {"samples": 2},
    "grad_cam": {},
    "gae": {},
    "glimpse": {},
    "attnlrp": {},
    "llava_cam": {"samples": 2, "layer": 0},
    "iia": {"steps": 1},
}
CASES = [(f, m) for f in FAMILIES for m in ("integrated_gradients", "grad_cam", "gae")]
CASES += [(f, m) for f in ("llava", "qwen2_5_vl", "cambrian") for m in QUICK]


@pytest.fixture
def twice(monkeypatch):
    """`twice(model)`: from now on its layers are computed twice."""

    def ask(model, how=True):
        monkeypatch.setattr(model, "checkpointing", how)
        memory._limits.clear()

    return ask


@pytest.mark.parametrize(("family", "method"), dict.fromkeys(CASES))
def test_every_gradient_method_gives_the_same_map(adapters, twice, family, method):
    target = white_box.target_for(adapters, family)
    kept = METHODS[method](target, **QUICK[method])
    twice(target.bound.adapter)
    again, calls = METHODS[method](target, **QUICK[method]), []
    torch.testing.assert_close(again, kept, atol=1e-5, rtol=1e-5)
    assert kept.abs().max() > 0
    layer = recompute.layers(target.bound)[0]
    hook = next(layer.children()).register_forward_hook(lambda *a: calls.append(1))
    image_gradient(target, target.image)
    hook.remove()
    assert len(calls) == 2  # it was really computed twice


@pytest.mark.parametrize("option", [{"vision": True}, {"start_layer": 1}])
def test_relevance_goes_on_through_encoder_layers_that_are_computed_twice(adapters, twice, option):
    """What was heard at the first time is not counted again at the second."""
    target = white_box.target_for(adapters, "llava_onevision")
    kept = METHODS["gae"](target, **option)
    twice(target.bound.adapter)
    torch.testing.assert_close(METHODS["gae"](target, **option), kept, atol=1e-6, rtol=1e-5)


def test_ga_gives_the_same_map(tmp_path, twice):
    target = white_box.target_of(load_model(tiny_joint(tmp_path)), size=(50, 40))
    kept = METHODS["ga"](target)
    twice(target.bound.adapter)
    torch.testing.assert_close(METHODS["ga"](target), kept, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llava", "llava_onevision", "qwen2_5_vl", "cambrian"])
def test_two_stages_and_layers_computed_twice_go_together(adapters, twice, monkeypatch, family):
    target = white_box.target_for(adapters, family)
    kept = image_gradient(target, target.image)
    monkeypatch.setattr(target.bound.adapter, "two_stage", True, raising=False)
    twice(target.bound.adapter)
    torch.testing.assert_close(image_gradient(target, target.image), kept, atol=1e-5, rtol=1e-4)


def bytes_kept(target) -> int:
    """Bytes that a forward pass keeps for its backward pass, besides the weights."""
    own = {p.untyped_storage()._cdata for p in target.bound.adapter.model.parameters()}
    kept = {}

    def keep(x):
        storage = x.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), storage)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        target.score(target.image.clone().requires_grad_())
    return sum(size for size, _ in kept.values())


def test_less_is_kept(adapters):
    target = white_box.target_for(adapters, "llava_onevision", size=(60, 80))
    kept = bytes_kept(target)
    with recompute.checkpointed(target.bound):
        assert bytes_kept(target) < kept / 2


def state(model) -> tuple:
    """What a call must leave alone: modes, flags, kernels, forwards and hooks of every part."""
    parts = list(model.model.modules())
    hooks = [len(p._forward_hooks) + len(p._forward_pre_hooks) for p in parts]
    own = [sorted(vars(p)) for p in parts]
    flags = [(p.training, getattr(p, "gradient_checkpointing", None)) for p in parts]
    kernels = [c._attn_implementation for c in configs_of(model.model)]
    return hooks, own, flags, kernels, [c.to_json_string() for c in configs_of(model.model)]


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(adapters, twice, monkeypatch, method, fails):
    target = white_box.target_for(adapters, "llava")
    twice(target.bound.adapter)
    before = state(target.bound.adapter)
    if fails:
        monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            METHODS[method](target, **QUICK[method])
    else:
        METHODS[method](target, **QUICK[method])
    assert state(target.bound.adapter) == before


def test_a_forward_of_its_own_is_given_back(adapters):
    """accelerate puts a forward of its own on the layers that it moves about."""
    target = white_box.target_for(adapters, "llava")
    layer = recompute.layers(target.bound)[0]
    layer.forward = own = lambda *a, **k: type(layer).forward(layer, *a, **k)
    try:
        with recompute.checkpointed(target.bound):
            assert layer.forward is not own
        assert layer.forward is own
    finally:
        del layer.forward


@pytest.mark.parametrize("method", QUICK)
def test_it_turns_itself_on_where_a_gradient_does_not_fit(adapters, twice, method):
    """A device that is full as soon as a layer is to keep what it computes."""
    target = white_box.target_for(adapters, "llava")
    twice(target.bound.adapter, "auto")
    kept = METHODS[method](target, **QUICK[method])
    layer, counts = target.bound.adapter.model.get_decoder().layers[-1], []

    def full(module, args):
        if torch.is_grad_enabled() and args[0].requires_grad and "forward" not in vars(module):
            counts.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = layer.register_forward_pre_hook(full)
    try:
        with pytest.warns(UserWarning, match="going on with checkpointed gradient passes"):
            found = METHODS[method](target, **QUICK[method])
        first = len(counts)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            METHODS[method](target, **QUICK[method])
        twice(target.bound.adapter, False)
        image = target.image.clone().requires_grad_()
        refuses("single picture", memory.backward, target.bound, "gradient", target.score, image)
    finally:
        hook.remove()
        memory._limits.clear()
    torch.testing.assert_close(found, kept, atol=1e-5, rtol=1e-4)
    assert first <= len(counts) and first > 0


def test_a_layer_is_computed_again_in_the_context_of_its_first_call(adapters):
    """The backward pass of a GPU runs in another thread, which knows no listener."""
    target, seen = white_box.target_for(adapters, "llava"), []
    token = recompute.again.set("told")
    layer = target.bound.adapter.model.get_decoder().layers[0]
    hook = layer.self_attn.register_forward_hook(lambda *a: seen.append(recompute.again.get()))
    with recompute.checkpointed(target.bound):
        image = target.image.clone().requires_grad_()
        score = target.score(image).sum()
    recompute.again.reset(token)
    worker = threading.Thread(target=lambda: torch.autograd.grad(score, image))
    worker.start()
    worker.join()
    hook.remove()
    assert seen == [False, True]


def test_planted_readers_have_no_layers():
    reader = planted("object")
    assert [w.work for w in memory.ways(reader.bind((32, 48), "?"), "gradient", None)] == [
        "gradient"
    ]
