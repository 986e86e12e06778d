"""fp16 and bf16 keep the gradient of an answer that the model is sure of, in every method."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn.functional import cosine_similarity

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.igos import image_gradient
from lvlm_study.models import list_models, load_model, memory
from lvlm_study.sweep import estimate
from lvlm_study.sweep.bench import target_of

LIKE = {"float16": 0.999, "bfloat16": 0.995}  # 8 bits, and processors sum them differently
NAME, SURE = "mini/llava-1.5", "sprites/attribute-004"  # "yellow" with p = 0.9999
JOINT = "mini/joint"  # for `ga`, which works on it alone; it is as sure of the same
QUICK = {
    "image": None,
    "two stages": None,
    "grad_cam": {},
    "gae": {},
    "glimpse": {},
    "attnlrp": {},
    "llava_cam": {"samples": 2},
    "iia": {"steps": 1},
    "integrated_gradients": {"steps": 4},
    "smoothgrad": {"samples": 4},
    "igos": {"iterations": 1, "steps": 4},
    "igos++": {"iterations": 1, "steps": 4},
    "ga": {},
}
pytestmark = pytest.mark.skipif(NAME not in list_models(), reason=f"{NAME} is not here")


@pytest.fixture(scope="module")
def sure():
    """`sure(dtype, method)`: a target of which the model is sure, the same in all formats."""
    item = next(item for item in load_benchmark("sprites") if item.id == SURE)

    @cache
    def first(name):
        return target_of(load_model(name), item)

    @cache
    def find(dtype, name):
        target, model = first(name), load_model(name, dtype=dtype)
        return replace(target, bound=model.bind(target.bound.size, target.bound.question))

    return lambda dtype, method="image": find(dtype, JOINT if method == "ga" else NAME)


def found(target, method) -> torch.Tensor:
    if QUICK[method] is not None:
        return METHODS[method](target, **QUICK[method]).flatten().double()
    target.bound.adapter.two_stage = method == "two stages"
    try:
        return image_gradient(target, target.image).flatten().double()
    finally:
        target.bound.adapter.two_stage = False


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("method", QUICK)
def test_every_gradient_method_agrees_with_float32(sure, method, dtype):
    """At p = 0.9999, where the slope at the logits is 0.0001 and fp16 would lose parts of it."""
    target = sure("float32", method)
    with torch.no_grad():
        assert target.score(target.image).exp() == pytest.approx(0.9999, abs=5e-5)
    whole, half = found(target, method), found(sure(dtype, method), method)
    assert half.isfinite().all() and cosine_similarity(half, whole, dim=0) >= LIKE[dtype]


def test_no_gradient_method_is_left_out(sure):
    """Those that go backward, by their counted passes; `ga` on a model that it takes."""
    targets = {name: sure("float32", name) for name in METHODS}
    backward = {name for name in METHODS if estimate.passes_of(name, targets[name])[1]}
    assert backward == set(QUICK) & set(METHODS) and len(backward) == len(QUICK) - 2


def test_without_it_parts_of_the_gradient_are_rounded_to_nothing(sure, monkeypatch):
    whole = found(sure("float32"), "image")
    monkeypatch.setattr(memory, "steepness", lambda score, contrast: torch.ones_like(score))
    lost = found(sure("float16"), "image")
    assert torch.equal(found(sure("float32"), "image"), whole)  # a power of two changes nothing
    assert cosine_similarity(lost, whole, dim=0) < 0.995
    assert ((lost == 0) & (whole != 0)).double().mean() > 0.05


def test_a_sure_word_held_against_another_overflows_nowhere(sure):
    whole, *halves = (
        found(replace(sure(dtype), contrast=7), "image")
        for dtype in ("float32", "float16", "bfloat16")
    )
    for half in halves:
        assert half.isfinite().all() and cosine_similarity(half, whole, dim=0) >= 0.999


def test_a_difference_of_two_words_is_as_steep_whatever_its_value():
    """Its slope is 1 at both logits: nothing of the probability, and nothing to overflow."""
    gap = torch.tensor([-30.0, -1e-4, 0.0, 2.5, 30.0])
    assert memory.steepness(gap, contrast=7).tolist() == [2.0**memory.STEEP] * 5


def test_the_steeper_the_less_sure_and_always_a_power_of_two():
    p = torch.tensor([1.0, 0.9999, 0.5, 1e-9, 0.0])
    times = memory.steepness(p.log())
    assert times.tolist() == [2.0**24, 2.0**16, 2.0**4, 2.0**3, 2.0**3]
    assert ((1 - p[1:4]) * times[1:4] <= 8.01).all() and times.dtype == torch.float32
