"""Memory: batches halve and say so, two stages give the one gradient, devices can be many."""

import importlib.util
import sys
import warnings

import numpy as np
import pytest
import tiny
import torch

from lvlm_study.answers import Target
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.igos import image_gradient, jitter
from lvlm_study.metrics.faithfulness import grid_labels, perturbation_curves, step_counts
from lvlm_study.models import checkpoint, load_model, memory
from lvlm_study.models.base import Answer
from lvlm_study.models.planted import planted

QUESTION = "What is the red thing?"
SIZE = (50, 40)
FAMILIES = [f for f in tiny.FAMILIES if f not in ("llava_pad", "onevision_shrunk", "gemma3_scan")]


def make(model, ids=(65, 66, 67)):
    """A target with two crucial tokens on a random picture."""
    draw = torch.Generator().manual_seed(0)
    image, empty = torch.rand(2, 1, 3, *SIZE, generator=draw)
    answer = Answer("abc", ("a", "b", "c"), torch.tensor(ids), torch.zeros(3))
    crucial = torch.tensor([False, True, True])
    return Target(model.bind(SIZE, QUESTION), image, 0.5 * empty, answer, crucial)


@pytest.fixture
def small(monkeypatch):
    """`small(model, n)`: from now on the model runs out of memory above n pictures at once."""

    def limit(model, most, error=torch.OutOfMemoryError):
        calls = []

        def full(module, args, kwargs):
            batch = len(kwargs["input_ids"]) if "input_ids" in kwargs else len(args[0])
            calls.append(batch)
            if batch > most:
                raise error("CUDA out of memory. Tried to allocate 2.00 GiB.")

        hooks.append(model.model.register_forward_pre_hook(full, with_kwargs=True, prepend=True))
        memory._limits.clear()
        return calls

    hooks = []
    yield limit
    memory._limits.clear()
    for hook in hooks:
        hook.remove()


def test_what_counts_as_full():
    full = [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("MPS backend out of memory")]
    full += [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")]
    assert all(map(memory.out_of_memory, full))
    others = [RuntimeError("shapes do not match"), ValueError("out of memory"), StudyError("x")]
    assert not any(map(memory.out_of_memory, others))


def test_a_forward_batch_halves_until_it_fits_and_says_so(tiny_llava, small):
    target, images = make(tiny_llava), torch.rand(11, 3, *SIZE)
    with torch.no_grad():
        whole = target.score(images)
        calls = small(tiny_llava, 3)
        with pytest.warns(UserWarning, match="with 11 pictures at once; going on with 5") as told:
            parts = target.score(images)
        assert [w.message.args[0].split("going on with ")[1] for w in told] == ["5.", "2."]
        assert calls == [11, 5, 2, 2, 2, 2, 2, 1]
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
        calls.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what was learnt is not said, nor tried, again
            target.score(images[:6])
    assert calls == [2, 2, 2]


def test_one_picture_too_many_is_one_sentence(tiny_llava, small):
    small(tiny_llava, 0)
    with pytest.raises(StudyError, match="a single picture of 50 x 40 pixels; use a smaller"):
        with torch.no_grad():
            make(tiny_llava).score(torch.rand(1, 3, *SIZE))


def test_another_error_is_not_taken_for_a_full_memory(tiny_llava, small):
    calls = small(tiny_llava, 3, ValueError)
    with pytest.raises(ValueError, match="Tried to allocate"), torch.no_grad():
        make(tiny_llava).score(torch.rand(8, 3, *SIZE))
    assert calls == [8]


@pytest.mark.filterwarnings("ignore:Memory ran out")
@pytest.mark.parametrize("method", ["occlusion", "rise"])
def test_methods_that_only_look_fit_themselves_in(tiny_llava, small, method):
    target, options = make(tiny_llava), {"masks": 20} if method == "rise" else {"stride": 1 / 8}
    whole = METHODS[method](target, batch=16, **options)
    small(tiny_llava, 5)
    torch.testing.assert_close(METHODS[method](target, batch=16, **options), whole)


@pytest.mark.filterwarnings("ignore:Memory ran out")
def test_deletion_and_insertion_fit_themselves_in(tiny_llava, small):
    target = make(tiny_llava)
    labels = grid_labels(target, 4)
    order = np.random.default_rng(0).permutation(16)
    work = (target, labels, order, step_counts(16, 16), target.baseline)
    whole = perturbation_curves(*work)
    small(tiny_llava, 3)
    for one, two in zip(whole, perturbation_curves(*work), strict=True):
        np.testing.assert_allclose(one.raw, two.raw, atol=1e-6)


# --- gradients -----------------------------------------------------------------------------


def noisy(target, std):
    """What igos puts around its passes."""
    return lambda seeds: jitter(target.bound.adapter.model, std, seeds)


@pytest.mark.parametrize("std", [0.0, 0.2])
def test_a_gradient_batch_halves_and_keeps_each_pictures_noise(tiny_llava, small, std):
    target, images = make(tiny_llava), torch.rand(7, 3, *SIZE)
    seeds = range(100, 107)
    whole = image_gradient(target, images, std, seeds)
    same = memory.gradient(target, images, noisy(target, std), seeds)
    assert torch.equal(same, whole)
    calls = small(tiny_llava, 2)
    with pytest.warns(UserWarning, match="gradient pass of .* with 7 pictures.* on with 3"):
        parts = memory.gradient(target, images, noisy(target, std), seeds)
    assert calls == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_stages_give_the_same_gradient(adapters, family):
    target, images = make(adapters(family)), 0.3 + 0.4 * torch.rand(2, 3, *SIZE)
    seeds = [5, 9]
    one = image_gradient(target, images, 0.1, seeds)
    two = memory._two_stage(target, noisy(target, 0.1))(images, seeds)
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def test_two_stages_hold_one_graph_at_a_time(tiny_llava):
    """While the language model goes backward, no graph of the encoder is alive, and the reverse."""
    model, target, alive = tiny_llava.model, make(tiny_llava), []
    tower = model.model.vision_tower.register_forward_hook(
        lambda module, args, out: alive.append(("tower", out.last_hidden_state.requires_grad))
    )
    words = model.model.language_model.register_forward_hook(
        lambda module, args, out: alive.append(("words", out.last_hidden_state.requires_grad))
    )
    memory._two_stage(target, memory.nullcontext_of)(target.image)
    tower.remove()
    words.remove()
    assert alive == [("tower", False), ("words", True), ("tower", True)]


def test_when_one_picture_is_too_much_the_stages_part(adapters, small, monkeypatch):
    model = adapters("llava")
    target = make(model)
    whole = image_gradient(target, target.image)
    monkeypatch.setattr(model, "two_stage", False, raising=False)
    real, full = Target.score, torch.OutOfMemoryError("CUDA out of memory")

    def score(self, images):
        if images.requires_grad:
            raise full
        return real(self, images)

    monkeypatch.setattr(Target, "score", score)
    with pytest.warns(UserWarning, match="going on with|Going on with gradients in two stages"):
        staged = memory.gradient(target, target.image.repeat(2, 1, 1, 1))
    assert model.two_stage
    torch.testing.assert_close(staged[:1], whole, atol=1e-5, rtol=1e-5)
    memory._limits.clear()


def test_a_model_without_stages_says_that_it_is_full(monkeypatch):
    reader = planted("object")
    target = make(reader, ids=(3, 4, 5))
    monkeypatch.setattr(Target, "score", lambda *a: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(StudyError, match="single picture of 50 x 40"):
        memory.gradient(target, target.image)
    memory._limits.clear()


# --- devices -------------------------------------------------------------------------------

needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is an optional extra"
)


@needs_accelerate
@pytest.mark.parametrize("spread", ["auto", {"": "cpu"}])
def test_a_device_map_changes_nothing(checkpoints, tiny_llava, spread):
    model = load_model(checkpoints("llava"), device=spread)
    one, two = (make(m) for m in (model, tiny_llava))
    assert torch.equal(image_gradient(one, one.image), image_gradient(two, two.image))


@needs_accelerate
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_parts_with_hooks_of_their_own_give_the_same(checkpoints, adapters, family):
    """As on several GPUs, accelerate moves what enters each part; here every part is on the CPU."""
    from accelerate import dispatch_model

    model = load_model(checkpoints(family))
    parts = {name: "cpu" for name, _ in model.model.model.named_children()}
    spread = {f"model.{name}": place for name, place in parts.items()} | {"lm_head": "cpu"}
    dispatch_model(model.model, spread, main_device="cpu", force_hooks=True)
    assert hasattr(model.model.model.language_model, "_hf_hook")
    one, two = make(model), make(adapters(family))
    assert torch.equal(image_gradient(one, one.image), image_gradient(two, two.image))


def test_without_accelerate_it_is_named(checkpoints, monkeypatch):
    monkeypatch.setattr(checkpoint, "installed", lambda name: False)
    with pytest.raises(StudyError, match="needs one more package; run 'pip install accelerate'"):
        load_model(checkpoints("llava"), device="auto")
    assert "lvlm_study.models" in sys.modules
