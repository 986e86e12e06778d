"""Attention knockout against a masked softmax by hand, on every family."""

import pytest
import torch
from test_white_box import span
from white_box import FAMILIES, SIZE, target_for, target_of

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.knockout import _Cut, losses, token_cuts
from lvlm_study.heatmaps.token_maps import has_area
from lvlm_study.heatmaps.watch import decoder_attention


def masked_loss(target, cut, first):
    """transformers' own eager attention with the mask changed: rows from `first`, columns `cut`."""
    bound, modules = target.bound, decoder_attention(target.bound, "test")
    columns = span(target)[cut]

    def block(module, args, kwargs):
        mask = kwargs["attention_mask"]
        length = args[0].shape[1] if args else kwargs["hidden_states"].shape[1]
        if mask is None:
            mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
        elif mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        mask = mask.clone()
        mask[..., first:, columns] = -torch.inf
        return args, kwargs | {"attention_mask": mask}

    full = target.score(target.image)
    hooks = [m.register_forward_pre_hook(block, with_kwargs=True) for m in modules]
    try:
        with bound.adapter.eager():
            return full - target.score(target.image)
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_cut_is_a_masked_softmax(adapters, family):
    target = target_for(adapters, family)
    modules = decoder_attention(target.bound, "test")
    seen = has_area(target.bound.token_boxes).nonzero()[:, 0]
    cuts = torch.zeros(2, len(target.bound.token_boxes), dtype=torch.bool)
    cuts[0, seen[:1]], cuts[1, seen[1:]] = True, True
    for first in (target.bound.prompt_ids.shape[1] - 1, int(span(target)[-1]) + 1):
        found = losses(target, modules, cuts, first, 2)
        expected = torch.cat([masked_loss(target, cut, first) for cut in cuts])
        assert torch.allclose(found, expected, atol=2e-3)
        assert found.abs().max() > 1e-3 or family.startswith("gemma3")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(adapters, family):
    target = target_for(adapters, family)
    before = target.score(target.image)
    found = METHODS["knockout"](target, rows="text", window=1 / 2, stride=1 / 2)
    assert found.shape == SIZE and found.isfinite().all() and found.std() > 0
    again = METHODS["knockout"](target, rows="text", window=1 / 2, stride=1 / 2, batch=1)
    assert torch.allclose(found, again, atol=1e-4)
    assert torch.equal(target.score(target.image), before)


def test_cuts_hold_the_tokens_in_their_windows(adapters):
    """4 x 4 patches, windows of a quarter of each side moved by half a window."""
    bound = adapters("llava").bind((28, 28), "?")
    apart = token_cuts(bound, 1 / 4, 1 / 4)
    assert torch.equal(apart.sum(0), torch.ones(16)) and torch.equal(apart.sum(1), torch.ones(16))
    halves = token_cuts(bound, 1 / 2, 1 / 2)
    assert sorted(c.nonzero()[:, 0].tolist() for c in halves)[0] == [0, 1, 4, 5]
    assert token_cuts(bound, 1, 1).all() and len(token_cuts(bound, 1, 1)) == 1


def test_memory_is_told_when_it_runs_out(adapters, monkeypatch):
    """The batch is halved, and the map stays."""
    target = target_of(adapters("llava"), size=(28, 28))
    own, seen = _Cut.attend, []

    def attend(self, call, *qkv):
        seen.append(len(qkv[0]))
        if len(qkv[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return own(self, call, *qkv)

    whole = METHODS["knockout"](target)
    monkeypatch.setattr(_Cut, "attend", attend)
    with pytest.warns(UserWarning, match="knockout pass"):
        halved = METHODS["knockout"](target)
    assert max(seen) > 2 and seen[-1] <= 2
    assert torch.allclose(halved, whole, atol=1e-5)


@pytest.mark.parametrize("bad", [{"rows": "all"}, {"stride": 0.5}, {"window": 2.0}, {"batch": 0}])
def test_bad_options(adapters, bad):
    with pytest.raises(StudyError, match="knockout needs 0 < stride <= window <= 1"):
        METHODS["knockout"](target_for(adapters, "llava"), **bad)
