"""Memory: batches halve and say so, two stages give the one gradient, devices can be many."""

import importlib.util
import inspect
import sys
import warnings

import numpy as np
import pytest
import tiny
import torch
from refusals import refuses
from tiny_joint import tiny_joint

from lvlm_study.answers import Target
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.igos import image_gradient, jitter
from lvlm_study.metrics.faithfulness import grid_labels, perturbation_curves, step_counts
from lvlm_study.models import checkpoint, load_model, memory
from lvlm_study.models.base import Answer
from lvlm_study.models.planted import planted
from lvlm_study.sweep import estimate

QUESTION = "What is the red thing?"
SIZE = (50, 40)
FAMILIES = [f for f in tiny.FAMILIES if f not in ("llava_pad", "onevision_shrunk", "gemma3_scan")]


QUICK = {  # options that keep more than two pictures at once
    "igos": {"iterations": 2, "steps": 3},
    "igos++": {"iterations": 1, "steps": 2},
    "rise": {"masks": 12},
    "occlusion": {"window": 0.5, "stride": 0.25},
    "integrated_gradients": {"steps": 5},
    "smoothgrad": {"samples": 5},
    "llava_cam": {"samples": 5, "layer": 0},
    "iia": {"steps": 2},
    "shapley": {"regions": 6},
    "eagle": {"regions": 6},
    "eagle_lazy": {"regions": 6},
}


def make(model, ids=(65, 66, 67)):
    """A target with two crucial tokens on a random picture."""
    draw = torch.Generator().manual_seed(0)
    image, empty = torch.rand(2, 1, 3, *SIZE, generator=draw)
    answer = Answer("abc", ("a", "b", "c"), torch.tensor(ids), torch.zeros(3))
    crucial = torch.tensor([False, True, True])
    return tiny.target_by_hand(model.bind(SIZE, QUESTION), image, 0.5 * empty, answer, crucial)


@pytest.fixture
def small(monkeypatch):
    """`small(model, n)`: from now on the model runs out of memory above n pictures at once."""

    def limit(model, most, error=torch.OutOfMemoryError):
        calls = []

        def full(module, args, kwargs):
            given = [kwargs.get("input_ids"), *args, kwargs.get("pixel_values")]
            batch = len(next(x for x in given if x is not None))
            if module is model.model:
                calls.append(batch)
            if batch > most:
                raise error("CUDA out of memory. Tried to allocate 2.00 GiB.")

        for part in (model.model, model.vision):  # both see one view of every picture
            hooks.append(part.register_forward_pre_hook(full, with_kwargs=True, prepend=True))
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


@pytest.fixture(scope="session")
def joint(tmp_path_factory):
    return load_model(tiny_joint(tmp_path_factory.mktemp("joint")))


@pytest.mark.filterwarnings("ignore:Memory ran out")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_fits_a_device_that_holds_two_pictures(tiny_llava, joint, small, name):
    model = joint if name == "ga" else tiny_llava
    target, options = make(model), QUICK.get(name, {})
    whole = METHODS[name](target, **options)
    calls = small(model, 2)
    found = METHODS[name](target, **options)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)
    batched = "batch" in inspect.signature(METHODS[name]).parameters
    assert (max(calls, default=0) > 2) == batched  # it was tried, and refused


@pytest.mark.parametrize("name", METHODS)
def test_a_model_that_no_gradient_passes_is_looked_at_forward_alone(tiny_llava, joint, name):
    """As kernels for quantised weights without a derivative."""
    model = joint if name == "ga" else tiny_llava
    target, options = make(model), QUICK.get(name, {})
    head = model.model.get_output_embeddings()
    cut = head.register_forward_hook(lambda module, args, out: out.detach())
    try:
        if estimate.passes_of(name, target)[1]:
            refuses("Gradients do not pass through", METHODS[name], target, **options)
        else:
            assert METHODS[name](target, **options).isfinite().all()
    finally:
        cut.remove()


def test_a_smaller_or_larger_picture_starts_where_others_ended(tiny_llava, small):
    """Every size would repeat the failures of the last one; an octave apart, at most one more."""
    small(tiny_llava, 3)
    tries = []
    for size in [(60, 40), (64, 44), (66, 40), (480, 640), (481, 640), (400, 300), (60, 41)]:
        bound = tiny_llava.bind(size, QUESTION)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            bound.log_probs(torch.rand(8, 3, *size), torch.tensor([65]))
        tries.append(len(told))
    assert tries[0] == 2 and sum(tries[1:]) == 0
    assert memory.fits({}, 9) > 1000 and memory.fits({9: 3.0}, 9) == memory.fits({9: 3.0}, 12) == 3
    assert memory.fits({9: 3.0}, 8) == 6 and memory.fits({9: 0.5}, 9) == 0
    assert memory.fits({9: 0.5}, 8) == 1 and memory.fits({9: 3.0, 7: 2.0}, 10) == 2


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
    """Layers computed twice are tried before; what failed is not tried again."""
    model = adapters("llava")
    target = make(model)
    whole = image_gradient(target, target.image)
    real, full = Target.score, torch.OutOfMemoryError("CUDA out of memory")

    def score(self, images):
        if images.requires_grad:
            raise full
        return real(self, images)

    monkeypatch.setattr(Target, "score", score)
    small(model, 9)
    with pytest.warns(UserWarning) as told:
        staged = memory.gradient(target, target.image.repeat(2, 1, 1, 1))
    said = [str(w.message) for w in told if "One picture" in str(w.message)]
    assert ["with checkpointed" in said[0], "with checkpointed two-st" in said[1]] == [True, True]
    torch.testing.assert_close(staged[:1], whole, atol=1e-5, rtol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(memory.gradient(target, target.image), staged[:1])


def test_a_model_without_stages_says_that_it_is_full(monkeypatch):
    reader = planted("object")
    target = make(reader, ids=(3, 4, 5))
    monkeypatch.setattr(Target, "score", lambda *a: (_ for _ in ()).throw(MemoryError()))
    refuses("single picture of 50 x 40", memory.gradient, target, target.image)
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
