"""Plausibility by hand, at chance, and against scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lvlm_study.errors import StudyError
from lvlm_study.metrics.plausibility import (
    area_means,
    auc,
    energy,
    plausibility,
    pointing,
    rank_accuracy,
    rank_correlation,
    soft_iou,
)

MAP = np.array([[4.0, 1.0, 0.0], [3.0, 2.0, -1.0]])
TRUTH = np.array([[1, 0, 0], [1, 0, 1]], bool)


def test_by_hand():
    found = plausibility(MAP, TRUTH, tolerance=1)
    assert found.area == 0.5
    assert found.pointing == 1 and found.pointing_near == 1
    assert found.energy == pytest.approx(7 / 10)
    assert found.energy_ratio == pytest.approx(1.4)
    assert found.rank_accuracy == pytest.approx(2 / 3)  # 4, 3, 2 are highest; 2 is outside
    assert found.auc == pytest.approx(6 / 9)  # 4 and 3 beat all three, -1 none
    assert found.iou_max == pytest.approx((1 + 0.75) / (1 + 1 + 1 + 0.25 + 0.5))
    minima = min(0.4, 1 / 3) + min(0.3, 1 / 3)
    assert found.iou_sum == pytest.approx(minima / (2 - minima))


def test_a_constant_map_scores_chance():
    truth = np.zeros((20, 30), bool)
    truth[3:9, 4:14] = True
    found = plausibility(np.ones((20, 30)), truth)
    assert found.pointing == pytest.approx(found.area)
    assert found.energy == pytest.approx(found.area)
    assert found.energy_ratio == pytest.approx(1)
    assert found.rank_accuracy == pytest.approx(found.area)
    assert found.auc == 0.5


def test_the_evidence_itself_is_perfect_and_its_flip_is_not():
    truth = np.zeros((20, 30), bool)
    truth[3:9, 4:14] = True
    found = plausibility(truth, truth)
    assert (found.pointing, found.energy, found.rank_accuracy, found.auc) == (1, 1, 1, 1)
    assert found.iou_sum == found.iou_max == pytest.approx(1)
    flipped = plausibility(~truth, truth)
    assert (flipped.pointing, flipped.energy, flipped.rank_accuracy, flipped.auc) == (0, 0, 0, 0)


def test_correlation_with_the_evidence_is_that_of_cells():
    truth = np.zeros((28, 42), bool)
    truth[4:10, 9:21] = True
    draw = np.random.default_rng(0)
    noise = draw.random((28, 42))
    cells = [x.reshape(14, 2, 14, 3).mean((1, 3)).round(9).ravel() for x in (noise, truth)]
    expected = stats.spearmanr(*cells).statistic
    assert plausibility(noise, truth).correlation == pytest.approx(expected)
    assert plausibility(truth, truth).correlation == pytest.approx(1)
    assert plausibility(~truth, truth).correlation == pytest.approx(-1)
    assert np.isnan(plausibility(np.ones((28, 42)), truth).correlation)


def test_ties_are_shared():
    saliency = np.array([[2.0, 2.0, 2.0, 0.0]])
    truth = np.array([[1, 0, 0, 0]], bool)
    assert pointing(saliency, truth) == pytest.approx(1 / 3)
    assert rank_accuracy(saliency, truth) == pytest.approx(1 / 3)


def test_pointing_tolerance_is_a_distance():
    truth, saliency = np.zeros((40, 40), bool), np.zeros((40, 40))
    truth[20, 10], saliency[20, 25] = True, 1
    assert pointing(saliency, truth) == 0
    assert pointing(saliency, truth, 15) == 1
    assert pointing(saliency, truth, 14) == 0


def test_auc_and_correlation_agree_with_scipy():
    draw = np.random.default_rng(0)
    saliency, truth = draw.integers(0, 9, (12, 15)).astype(float), draw.random((12, 15)) < 0.3
    u = stats.mannwhitneyu(saliency[truth], saliency[~truth]).statistic
    assert auc(saliency, truth) == pytest.approx(u / (truth.sum() * (~truth).sum()))
    other = draw.random((12, 15))
    expected = stats.spearmanr(saliency.ravel(), other.ravel()).statistic
    assert rank_correlation(saliency, other, cells=None) == pytest.approx(expected)
    assert rank_correlation(saliency, -saliency) == pytest.approx(-1)


@pytest.mark.parametrize("scale", [1e-13, 1e-9, 1e9])
def test_the_scale_of_a_map_does_not_matter(scale):
    """Rounded to 12 decimals of its own, a map of 1e-13 was all ties."""
    random = np.random.default_rng(3)
    one, other = random.random((2, 56, 70))
    kept = rank_correlation(one, other)
    assert rank_correlation(scale * one, other) == pytest.approx(kept, abs=1e-9)
    tied = one + 1e-14 * random.random(one.shape)
    assert rank_correlation(tied, one) == pytest.approx(1, abs=1e-12)


def test_area_means_share_border_pixels():
    assert area_means(np.array([[1.0, 2.0, 6.0]] * 3), 2) == pytest.approx(
        np.array([[4 / 3, 14 / 3]] * 2)
    )
    flat = area_means(np.full((33, 47), 2.0), 14)
    assert flat.shape == (14, 14) and flat == pytest.approx(np.full((14, 14), 2.0))


def test_undefined_is_nan():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    saliency = np.arange(16.0).reshape(4, 4)
    assert np.isnan(plausibility(saliency, empty).auc)
    assert np.isnan(plausibility(saliency, full).auc)
    assert np.isnan(plausibility(saliency, empty).energy_ratio)
    assert np.isnan(energy(-saliency, full)) and np.isnan(soft_iou(-saliency, full))
    assert np.isnan(rank_correlation(np.ones((4, 4)), saliency))
    assert np.isnan(plausibility(saliency * np.nan, full).pointing)


def test_shapes_must_agree():
    with pytest.raises(StudyError, match="one size"):
        plausibility(np.ones((3, 4)), np.ones((4, 3), bool))
    with pytest.raises(StudyError, match="'sum' or 'max'"):
        soft_iou(MAP, TRUTH, "mean")


# --- Quantus

QUANTUS = Path(__file__).with_name("quantus.json")  # its numbers, so that this runs without it
METRICS = {
    "PointingGame": pointing,
    "AttributionLocalisation": energy,
    "RelevanceMassAccuracy": energy,
    "RelevanceRankAccuracy": rank_accuracy,
    "AUC": auc,
}


def six_maps() -> tuple[np.ndarray, np.ndarray]:
    """Maps without ties, which Quantus decides by reading order, and truths, (6, 1, 24, 32)."""
    draw = np.random.default_rng(0)
    saliency, truth = draw.random((6, 1, 24, 32)), np.zeros((6, 1, 24, 32), bool)
    for n, (y, x) in enumerate(draw.integers(0, 14, (6, 2))):
        truth[n, 0, y : y + 7, x : x + 9] = True
        if n % 2:  # the highest pixel of every second map lies inside
            truth[n, 0].flat[saliency[n].argmax()] = True
    return saliency, truth


def by_quantus(name: str) -> list[float]:
    """What the installed Quantus says of `six_maps`."""
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed: see 'make parity'")
    torch = pytest.importorskip("torch")
    saliency, truth = six_maps()
    metric = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True)
    found = metric(
        model=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2)),
        x_batch=saliency.astype(np.float32),
        y_batch=np.zeros(6, int),
        a_batch=saliency.copy(),
        s_batch=truth.copy(),
        channel_first=True,
    )
    return [float(value) for value in np.asarray(found, float)]


@pytest.mark.parametrize("name", METRICS)
def test_agrees_with_the_numbers_of_quantus(name):
    kept = json.loads(QUANTUS.read_text())
    own = [METRICS[name](s[0], g[0]) for s, g in zip(*six_maps(), strict=True)]
    assert own == pytest.approx(kept[name], abs=1e-6) and kept["version"] == "0.6.0"


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.filterwarnings("ignore")
def test_the_numbers_of_quantus_are_its_own(name):
    """Makes sure of the file above wherever Quantus is there."""
    found = by_quantus(name)
    assert json.loads(QUANTUS.read_text())[name] == pytest.approx(found, abs=1e-9)
