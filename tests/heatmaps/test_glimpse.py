"""GLIMPSE against its formula on transformers' own attention, on every family."""

import pytest
import torch
from test_white_box import eager_attentions, rows_of, span
from white_box import FAMILIES, SIZE, target_for

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS, watch
from lvlm_study.heatmaps.glimpse import prompt_relevance
from lvlm_study.heatmaps.token_maps import paint


def naive(target, temperature):
    """All matrices at once, in float64: rows of R at the answer, (S,)."""
    score, attentions, _ = eager_attentions(target, grad=True)
    gradients = torch.autograd.grad(score, attentions)
    fused = []
    for a, g in zip(attentions, gradients, strict=True):
        a, g = a[0].double(), g[0].double()
        positive = (a * g).clamp(min=0)
        up = torch.where(a > 0, g.clamp(min=0), 0)
        share = positive.sum((1, 2)) / up.sum((1, 2))
        fused.append(((share / temperature).softmax(0)[:, None, None] * positive).sum(0))
    R = torch.eye(len(fused[0]), dtype=torch.float64)
    mean = sum(e.sum() for e in fused) / len(fused)
    for e in fused:
        R = R + e.sum() / mean * e @ R
    return sum(R[p] for p in rows_of(target))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_formula(adapters, family, monkeypatch):
    monkeypatch.setattr(watch, "BLOCK", 1000)
    target = target_for(adapters, family)
    expected = naive(target, 0.1)
    found = prompt_relevance(target)
    assert torch.allclose(found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    drawn = METHODS["glimpse"](target)
    assert drawn.shape == SIZE and drawn.min() >= 0 and drawn.std() > 0
    assert torch.equal(drawn, paint(target.bound, found[span(target)], amount=True))
    assert METHODS["glimpse"](target).numpy().tobytes() == drawn.numpy().tobytes()


@pytest.mark.parametrize("family", ["llava", "llava_next", "gemma3", "cambrian"])
def test_alike_heads_and_layers_are_gae(adapters, family):
    target = target_for(adapters, family)
    found = METHODS["glimpse"](target, temperature=1e9, layers=False)
    assert torch.allclose(found, METHODS["gae"](target), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(METHODS["glimpse"](target), found, rtol=0.1)


def test_a_temperature_must_be_warm(adapters):
    with pytest.raises(StudyError, match="a temperature above 0, not 0"):
        METHODS["glimpse"](target_for(adapters, "llava"), temperature=0.0)
