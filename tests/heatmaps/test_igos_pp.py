"""iGOS++: both masks move, insertion images really start from the baseline, presets and compat."""

import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_igos import SCENE, target_of

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain
from lvlm_study.heatmaps.igos_pp import igos_pp, pair_gradient
from lvlm_study.metrics.faithfulness import deletion_insertion
from lvlm_study.models.planted import planted
from lvlm_study.pixels import masks

module = importlib.import_module("lvlm_study.heatmaps.igos_pp")


@pytest.mark.parametrize("name", ["object", "watermark", "conjunctive", "disjunctive"])
@pytest.mark.parametrize("preset", [None, "paper"])
def test_planted_evidence_is_found(name, preset):
    reader = planted(name)
    found = explain(reader, SCENE, "?", method="igos++", preset=preset, steps=5)
    truth = reader.evidence(SCENE.shape[:2])
    best = found.saliency >= np.sort(found.saliency.ravel())[-truth.sum()]
    assert (best & truth).sum() / (best | truth).sum() > 0.7
    score = deletion_insertion(reader, found)
    assert score.insertion > 0.8 > 0.2 > score.deletion


def test_gradient_equals_the_written_out_objective():
    target, steps = target_of("conjunctive"), 4
    draw = torch.Generator().manual_seed(0)
    pair = torch.rand(2, 1, 8, 8, generator=draw).requires_grad_()
    x, y = F.interpolate(pair, target.size, mode="bilinear", align_corners=False).split(1)
    image, empty, loss = target.image, target.baseline, 0
    for k in range(1, steps + 1):
        s = k / steps

        def keep(m, s=s):
            return target.score(image * (s * m) + empty * (1 - s * m)).sum()

        def put(m, s=s):
            return target.score(empty * (s * m) + image * (1 - s * m)).sum()

        loss = loss + (keep(x * y) - put(x * y) + keep(x) - put(y)) / (2 * steps)
    (expected,) = torch.autograd.grad(loss, pair)
    found = pair_gradient(target, pair.detach(), steps, 0.0, 0, 7)
    assert torch.allclose(found, expected, atol=1e-6, rtol=1e-4)
    assert expected.abs().amax((1, 2, 3)).min() > 1e-4  # both masks are pulled


def test_both_masks_move(monkeypatch):
    """A port with unswapped insertion images leaves the insertion mask at 1 everywhere."""
    seen = []

    def record(mask, free, seed):
        seen.append((mask, free))
        return masks.break_ties(mask, free, seed)

    steps = []
    nesterov = module.nesterov

    def follow(pair, *rest):
        out = nesterov(pair, *rest)
        steps.append(out[0])
        return out

    monkeypatch.setattr(module, "nesterov", follow)
    igos_pp(target_of(), steps=4, noise=0.0)
    x, y = steps[-1]
    truth = torch.from_numpy(planted("object").evidence((32, 32)))
    for mask in (x[0], y[0]):
        assert mask[truth].mean() < 0.6 < 0.9 < mask[~truth].mean()


def test_seed_batch_and_passes():
    target = target_of()
    once, twice = (igos_pp(target, seed=1, steps=3).numpy().tobytes() for _ in range(2))
    assert once == twice
    one, other = (igos_pp(target, steps=3, batch=b) for b in (5, 20))
    assert torch.allclose(one, other, atol=1e-5)
    found = explain(planted("object"), SCENE, "?", method="igos++")
    assert (found.cost.forward, found.cost.backward) == (200, 200)


def test_the_map_is_the_mean_of_the_products_of_all_iterations(monkeypatch):
    target, few = target_of(), {"steps": 2, "noise": 0.0}
    monkeypatch.setattr(module.masks, "break_ties", lambda mask, *rest: mask)
    last = [igos_pp(target, preset="paper", iterations=n, **few) for n in (1, 2, 3)]
    found = igos_pp(target, iterations=3, **few)
    assert torch.allclose(found, sum(last) / 3, atol=1e-6)
    assert not torch.allclose(found, last[-1], atol=1e-2)


def test_presets():
    target = target_of()
    last = igos_pp(target, average=False, steps=10)
    assert torch.equal(igos_pp(target, preset="paper"), last)
    assert torch.equal(igos_pp(target, preset="fast"), igos_pp(target, steps=4))
    assert torch.equal(igos_pp(target, preset="paper", average=True), igos_pp(target))
    assert not torch.equal(igos_pp(target), last)


def test_the_search_that_was_not_the_published_one_is_gone():
    with pytest.raises(StudyError, match="no option of igos\\+\\+ named 'optimiser'"):
        explain(planted("object"), SCENE, "?", method="igos++", optimiser="line_search")
