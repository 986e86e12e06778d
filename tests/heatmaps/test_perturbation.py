"""RISE, occlusion, integrated gradients, SmoothGrad: exact where the score is linear."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from lvlm_study.answers import make_target
from lvlm_study.heatmaps import explain
from lvlm_study.heatmaps.integrated_gradients import integrated_gradients
from lvlm_study.heatmaps.occlusion import occlusion, windows
from lvlm_study.heatmaps.rise import drawn, place, rise, rise_with_error, together
from lvlm_study.heatmaps.smoothgrad import smoothgrad
from lvlm_study.metrics.faithfulness import deletion_insertion
from lvlm_study.metrics.plausibility import plausibility
from lvlm_study.models.planted import PlantedBound, planted, planted_scene

SCENE = planted_scene((48, 64))
METHODS = ["rise", "occlusion", "integrated_gradients", "smoothgrad"]


class Linear(PlantedBound):
    """f(x) = <weights, x> for every token: additive, so the right maps are known exactly."""

    def log_probs(self, x, answer_ids):
        generator = torch.Generator().manual_seed(5)
        weights = torch.randn(3, *x.shape[-2:], generator=generator)
        value = (x * weights).sum((1, 2, 3))
        return value[:, None].expand(-1, len(answer_ids))


def linear_target():
    target = make_target(planted("object"), SCENE, "?")
    bound = target.bound
    return replace(target, bound=Linear(bound.adapter, bound.size, bound.question))


def exact_share(target):
    """What each pixel adds: weight x (image - baseline), summed over colours."""
    x = target.image.clone().requires_grad_()
    (weight,) = torch.autograd.grad(target.score(x).sum(), x)
    return (weight * (target.image - target.baseline)).sum(1)[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["object", "watermark", "multi_crop"])
def test_planted_evidence_is_found(method, name):
    reader = planted(name)
    found = explain(reader, SCENE, "?", method=method, baseline="black")
    score = plausibility(found.saliency, reader.evidence(SCENE.shape[:2]))
    assert found.status == "ok"
    assert found.saliency.shape == SCENE.shape[:2]
    assert score.pointing == 1 and score.auc > 0.9
    assert deletion_insertion(reader, found).gap > 0.4


def test_integrated_gradients_are_complete():
    target = make_target(planted("conjunctive"), SCENE, "?", baseline="black")
    total = (target.score(target.image) - target.score(target.baseline)).item()
    assert integrated_gradients(target, steps=100).sum().item() == pytest.approx(total, abs=1e-2)
    target = linear_target()
    assert torch.allclose(integrated_gradients(target, steps=1), exact_share(target), atol=1e-5)


def test_occlusion_of_a_linear_score():
    target = linear_target()
    share = exact_share(target)
    found = occlusion(target, window=1 / 4, stride=1 / 4)
    blocks = share.unflatten(0, (4, 12)).unflatten(2, (4, 16)).sum((1, 3))
    assert torch.allclose(found[::12, ::16], blocks, atol=1e-3)
    assert torch.equal(found[:12, :16], found[0, 0].expand(12, 16))


def test_windows_cover_the_image():
    for size in ((48, 64), (7, 5), (1, 1), (33, 100)):
        covered = np.zeros(size, int)
        for rows, columns in windows(size, 1 / 8, 1 / 16):
            covered[rows, columns] += 1
        assert covered.min() >= 1
    assert len(windows((64, 64), 1 / 8, 1 / 16)) == 225


def test_rise_is_unbiased_on_a_linear_score(monkeypatch):
    """Cells without shift or blur: the mean estimate of a cell tends to what the cell adds."""
    import importlib

    module = importlib.import_module("lvlm_study.heatmaps.rise")
    monkeypatch.setattr(
        module,
        "place",
        lambda grids, shifts, size, cells: (
            grids[..., :4, :4].repeat_interleave(12, 2).repeat_interleave(16, 3)
        ),
    )
    target = linear_target()
    blocks = exact_share(target).unflatten(0, (4, 12)).unflatten(2, (4, 16)).sum((1, 3))
    found = rise(target, masks=4000, cells=4, control=False)[::12, ::16]
    spread = 2 * blocks.square().sum().sqrt() / 2000**0.5
    assert (found - blocks).abs().max() < 4 * spread
    assert (found - blocks).mean().abs() < spread


class OnePixel(PlantedBound):
    """f(x) = the red of one pixel: the slope there is what that pixel adds, whatever the masks."""

    at = (0, 0)

    def log_probs(self, x, answer_ids):
        return x[:, 0, self.at[0], self.at[1]][:, None].expand(-1, len(answer_ids))


@pytest.mark.parametrize("at", [(0, 0), (24, 32), (47, 63), (0, 40)])
def test_rise_of_one_pixel_is_exact_everywhere(at):
    """With the variance of a hard mask, 1/4, in the place of what varied it was off by half."""
    target = make_target(planted("object"), SCENE, "?", baseline="black")
    bound = OnePixel(target.bound.adapter, target.bound.size, target.bound.question)
    bound.at = at
    target = replace(target, bound=bound)
    image = torch.full_like(target.image, 0.7)
    target = replace(target, image=image, baseline=torch.zeros_like(image))
    found = rise(target, masks=60, cells=7, control=False)
    assert found[at].item() == pytest.approx(0.7, abs=1e-5)
    far = ((at[0] + 24) % 48, (at[1] + 32) % 64)
    assert abs(found[far].item()) < 0.35


def test_rise_masks():
    grids, shifts = torch.ones(2, 1, 9, 9), torch.tensor([[0.0, 0.0], [0.99, 0.99]])
    assert torch.equal(place(grids, shifts, (48, 64), 7), torch.ones(2, 1, 48, 64))
    generator = torch.Generator().manual_seed(0)
    grids = (torch.rand(4000, 1, 9, 9, generator=generator) < 0.5).float()
    shown = place(grids, torch.rand(4000, 2, generator=generator), (48, 64), 7)
    assert shown.mean() == pytest.approx(0.5, abs=0.01)
    assert shown.mean((0, 1)).std() < 0.015  # no place is shown more often
    varied = (shown - 0.5).square().mean((0, 1))  # 1/4 (2/3)^2, at an edge as in the middle
    assert (varied - 1 / 9).abs().max() < 0.012


def test_places_are_shown_together_as_the_spline_says():
    """The overlap of two hats: 2/3 at the same place, 23/48 half a cell apart, 1/6 a cell apart."""
    found = together(64, 32)  # two pixels a cell, a pixel a block
    row = found[32, 32:37] * 2 / 3
    assert row.tolist() == pytest.approx([2 / 3, 23 / 48, 1 / 6, 1 / 48, 0], abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    grids = (torch.rand(4000, 1, 6, 6, generator=generator) < 0.5).float()
    shown = place(grids, torch.rand(4000, 2, generator=generator), (64, 64), 4)[:, 0, 31] - 0.5
    slope = (shown.T @ shown / shown.square().sum(0)[:, None]).unflatten(1, (8, 8)).mean(-1)
    assert (slope - together(64, 4)).abs().max() < 0.08


def test_a_linear_score_is_foretold_nearly_whole():
    """Its slope at a place is the share of all places, each by how far it is shown together."""
    target = linear_target()
    hats = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)  # the overlap of two hats

    def pull(pixels, step):
        apart = (np.arange(pixels)[:, None] - np.arange(pixels)[None]) / step
        return torch.from_numpy(np.nan_to_num(hats(apart)) / hats(0)).float()

    exact = pull(48, 12) @ exact_share(target) @ pull(64, 16).T
    found, error = rise_with_error(target, masks=400, cells=4, control=True)
    plain, more = rise_with_error(target, masks=400, cells=4, control=False)
    assert (found - exact).abs().mean() < 0.3 * (plain - exact).abs().mean()
    assert error.mean() < 0.3 * more.mean()


def seeds_of(count: int, **options):
    """Maps and errors (count, h, w) of a reader that needs two objects at once."""
    target = make_target(planted("conjunctive"), SCENE, "?", baseline="black")
    found = [rise_with_error(target, seed=s, **options) for s in range(count)]
    return torch.stack([m for m, _ in found]), torch.stack([e for _, e in found])


@pytest.mark.parametrize("control", [False, True])
def test_the_standard_error_is_the_spread_over_seeds(control):
    maps, errors = seeds_of(12, masks=300, cells=4, control=control)
    ratio = maps.var(0).mean() / errors.square().mean()
    assert 0.7 < ratio < 1.4


def test_what_is_foretold_changes_the_noise_and_not_what_is_estimated():
    """Against 20,000 masks that were read plainly: no further off than their own error allows."""
    maps, errors = seeds_of(6, masks=400, cells=4, control=True)
    (truth,), (error,) = seeds_of(1, masks=20_000, cells=4, control=False)
    _, plain = seeds_of(2, masks=400, cells=4, control=False)
    assert errors.mean() < 0.3 * plain.mean()
    assert (maps.mean(0) - truth).square().mean() < 2 * error.square().mean()


def test_masks_are_of_seed_and_model():
    target = make_target(planted("object"), SCENE, "?")
    other = make_target(planted("watermark"), SCENE, "?")
    assert target.bound.adapter.name != other.bound.adapter.name
    same, again, model, seed = (
        drawn(t, s, 50, 4) for t, s in ((target, 0), (target, 0), (other, 0), (target, 1))
    )
    for one in (0, 1):
        assert torch.equal(same[one], again[one])
        assert not torch.equal(same[one], model[one]) and not torch.equal(same[one], seed[one])


def test_smoothgrad_without_noise_is_the_gradient():
    target = linear_target()
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(3, 48, 64, generator=generator)
    found = smoothgrad(target, samples=1, noise=0.0)
    assert torch.allclose(found, weights.abs().sum(0), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "forward", "backward"),
    [
        ("rise", 2000, 0),
        ("occlusion", 226, 0),
        ("integrated_gradients", 50, 50),
        ("smoothgrad", 25, 25),
    ],
)
def test_passes(method, forward, backward):
    cost = explain(planted("object"), SCENE, "?", method=method).cost
    assert (cost.forward, cost.backward) == (forward, backward)
