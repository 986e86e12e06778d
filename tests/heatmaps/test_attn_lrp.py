"""AttnLRP: relevance is kept but for what softmax keeps, on every family; its rules by hand."""

import pytest
import torch
from refusals import refuses
from torch import nn
from white_box import FAMILIES, SIZE, target_for, target_of

from lvlm_study.heatmaps import METHODS, attn_lrp
from lvlm_study.heatmaps.attn_lrp import token_relevance


def logits(target) -> float:
    """The crucial tokens' logits, summed, of an ordinary pass."""
    at = target.crucial.nonzero()[:, 0]
    ids = target.answer.token_ids
    return float(target.bound.logits(target.image, ids)[0, at, ids[at]].sum())


class Ledger(attn_lrp._Products):
    """Adds up what softmax does not hand on: half of sum(A dA) comes in, half of sum(z dz) out."""

    kept = 0.0

    def backward(self, call, start, weights, gradient):
        key = call.shared(call.key)
        scores = call.query[:, :, start : start + weights.shape[2]] @ key.mT * call.scaling
        inner = (weights * gradient).sum(-1, keepdim=True)
        passed = weights * (gradient - inner) * scores
        Ledger.kept += float((weights * gradient - passed).double().sum()) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_lost_without_softmax(adapters, family):
    """No layer of the tiny decoders has a bias: relevance at the input is the logit."""
    target = target_for(adapters, family)
    found = token_relevance(target, softmax=False)
    assert found.abs().sum() > 0.1
    assert float(found.sum()) == pytest.approx(logits(target), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_missing_is_what_softmax_keeps(adapters, family, monkeypatch):
    target = target_for(adapters, family)
    monkeypatch.setattr(attn_lrp, "_Products", Ledger)
    monkeypatch.setattr(Ledger, "kept", 0.0)
    found = token_relevance(target)
    assert abs(Ledger.kept) > 1e-3
    assert float(found.sum()) + Ledger.kept == pytest.approx(logits(target), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(adapters, family):
    """The same bytes twice, on what is seen alone, and nothing is left on the model."""
    target = target_for(adapters, family)
    before = target.score(target.image)
    found = METHODS["attnlrp"](target)
    assert found.shape == SIZE and found.isfinite().all()
    assert found.numpy().tobytes() == METHODS["attnlrp"](target).numpy().tobytes()
    unseen = ~target.bound.seen()
    assert (found[unseen] != 0).sum() <= 0.1 * unseen.sum()
    assert torch.equal(target.score(target.image), before)


def test_only_what_comes_before_the_word_has_relevance(adapters):
    target = target_of(adapters("llava"), crucial=(1,))
    prompt = target.bound.prompt_ids.shape[1]
    assert len(token_relevance(target)) == prompt + 1
    both = token_relevance(target_of(adapters("llava"), crucial=(1, 3)))
    alone = token_relevance(target_of(adapters("llava"), crucial=(3,)))
    both[: prompt + 1] -= token_relevance(target)
    assert torch.allclose(both, alone, atol=1e-4)


def test_the_ratio_rule_by_hand():
    x = torch.tensor([2.0, -1.0, 0.0], requires_grad=True)
    (slope,) = torch.autograd.grad(attn_lrp._Ratio.apply(x, x.detach() ** 2).sum(), x)
    assert slope.tolist() == [2.0, -1.0, 0.0]


def test_parts_without_a_rule_are_refused():
    decoder, layer = nn.Module(), nn.Module()
    decoder.layers, decoder.norm = nn.ModuleList(), nn.LayerNorm(4)
    refuses("root mean square alone, and toy has a LayerNorm", attn_lrp._norms, decoder, "toy")
    layer.mlp = nn.Linear(4, 4)
    refuses("no rule for the feed-forward part Linear of toy", attn_lrp._feed_forward, layer, "toy")
