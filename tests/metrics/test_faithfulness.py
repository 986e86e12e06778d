"""Deletion and insertion: areas by hand, the flip identity, chance level, honest statuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from refusals import refuses

from lvlm_study.answers import make_target
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain
from lvlm_study.metrics import faithfulness
from lvlm_study.metrics.faithfulness import (
    Curve,
    beats_random,
    controls,
    deletion_insertion,
    perturbation_curves,
    removal_order,
    step_counts,
    unit_labels,
    unit_means,
)
from lvlm_study.metrics.statistics import estimate
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.pixels.baselines import make_baseline

SCENE = planted_scene((64, 96))


@pytest.fixture(scope="module")
def found():
    return explain(planted("conjunctive"), SCENE, "What colour?", method="igos", baseline="black")


def test_two_units_by_hand():
    reader = planted("object")
    ex = explain(reader, SCENE, "?", method="random", baseline="black")
    truth = reader.evidence(SCENE.shape[:2])
    ex = replace(ex, saliency=truth.astype(np.float32))
    score = deletion_insertion(reader, ex, steps=2, units=truth.astype(int))
    # The box is 1/16 of the area. Deleting it first leaves nothing: a triangle of base 1/16.
    assert score.deletion == pytest.approx(1 / 32, abs=1e-6)
    assert score.insertion == pytest.approx(1 - 1 / 32, abs=1e-6)
    assert score.gap == pytest.approx(1 - 1 / 16, abs=1e-6)
    sigmoid = 1 / (1 + np.exp(-4.0))
    assert score.image_score == pytest.approx(sigmoid, abs=1e-5)
    assert score.fill_score == pytest.approx(1 - sigmoid, abs=1e-5)
    span = 2 * sigmoid - 1
    assert score.deletion_raw == pytest.approx(1 - sigmoid + span / 32, abs=1e-5)
    assert score.deletion_log == pytest.approx(1 / 32, abs=1e-5)
    assert score.deletion_curve.fractions == pytest.approx([0, 1 / 16, 1])
    assert score.deletion_curve.normalised == pytest.approx([1, 0, 0], abs=1e-6)


def test_road_fills_from_what_is_left():
    """By hand: without its box the scene is its grey; where only the box is left, all is red."""
    reader = planted("object")
    ex = explain(reader, SCENE, "?", method="random", baseline="black")
    truth = reader.evidence(SCENE.shape[:2])
    ex = replace(ex, saliency=truth.astype(np.float32))
    score = deletion_insertion(reader, ex, steps=2, units=truth.astype(int), fill="road")
    sigmoid, none = score.image_score, 1 - score.image_score
    assert score.fill == "road" and score.deletion_curve.fractions == pytest.approx([0, 1 / 16, 1])
    assert score.deletion_curve.raw[:2] == pytest.approx([sigmoid, none], abs=0.01)
    assert score.insertion_curve.raw[1:] == pytest.approx([sigmoid, sigmoid], abs=0.01)
    again = deletion_insertion(reader, ex, steps=2, units=truth.astype(int), fill="road")
    assert again.gap == score.gap
    turned = replace(ex, saliency=-ex.saliency)
    flipped = deletion_insertion(reader, turned, steps=2, units=truth.astype(int), fill="road")
    assert flipped.deletion == pytest.approx(score.insertion, abs=1e-6)


def test_trapezoid_has_both_ends():
    curve = Curve(np.array([0, 0.5, 1]), np.array([1, 0.5, 0]), np.array([1, 1, 0]), np.zeros(3))
    assert curve.area("raw") == pytest.approx(0.5)
    assert curve.area() == pytest.approx(0.75)


@pytest.mark.parametrize("units", ["grid", "patches", "superpixels"])
def test_flipping_a_map_swaps_the_scores(found, units):
    draw = np.random.default_rng(0)
    ex = replace(found, saliency=draw.normal(size=SCENE.shape[:2]).astype(np.float32))
    one = deletion_insertion(None, ex, units=units)
    other = deletion_insertion(None, replace(ex, saliency=-ex.saliency), units=units)
    assert one.deletion != pytest.approx(one.insertion, abs=1e-3)
    assert other.deletion == pytest.approx(one.insertion, abs=1e-6)
    assert other.insertion == pytest.approx(one.deletion, abs=1e-6)
    assert other.gap == pytest.approx(-one.gap, abs=1e-6)


def test_flip_with_ties_needs_the_tie_order_flipped_too(found):
    labels = unit_labels(found.target, "grid")
    order = removal_order(np.round(unit_means(found.saliency, labels), 1))
    fill = found.target.baseline
    counts = step_counts(1024, 50)
    one = perturbation_curves(found.target, labels, order, counts, fill)
    other = perturbation_curves(found.target, labels, order[::-1], counts, fill)
    assert one[0].raw == pytest.approx(other[1].raw[::-1], abs=1e-6)
    assert one[1].raw == pytest.approx(other[0].raw[::-1], abs=1e-6)


@pytest.mark.parametrize("name", ["object", "conjunctive", "disjunctive"])
def test_random_maps_score_zero(name):
    ex = explain(planted(name), SCENE, "?", method="random")
    draw = np.random.default_rng(0)
    gaps = []
    for n in range(60):
        noise = np.kron(draw.random((16, 24)), np.ones((4, 4))).astype(np.float32)
        gaps.append(deletion_insertion(None, replace(ex, saliency=noise), steps=12, seed=n).gap)
    mean = estimate(gaps)
    assert mean.low <= 0 <= mean.high
    assert mean.high - mean.low < 0.1  # narrow enough to notice a bias


def test_a_constant_map_is_chance_not_reading_order():
    ex = explain(planted("object"), SCENE, "?", method="random")
    flat = replace(ex, saliency=np.zeros(SCENE.shape[:2], np.float32))
    gaps = [deletion_insertion(None, flat, steps=12, seed=n).gap for n in range(30)]
    assert np.std(gaps) > 0.01
    assert estimate(gaps).low <= 0 <= estimate(gaps).high


def test_the_released_sum_flatters_both_scores():
    """On a straight curve the area is 1/2; the released code has .494 falling and .510 rising."""
    counts = step_counts(1024, 50, "paper_code")
    assert len(counts) == 53 and counts[1] == 20 and counts[-1] - counts[-2] == 4
    x = counts / 1024
    falling, rising = Curve(x, 1 - x, 1 - x, 1 - x), Curve(x, x, x, x)
    assert falling.area() == pytest.approx(0.5) and rising.area() == pytest.approx(0.5)
    assert falling.area(compat="paper_code") == pytest.approx(0.494, abs=1e-3)
    assert rising.area(compat="paper_code") == pytest.approx(0.510, abs=1e-3)


def test_igos_beats_its_controls_in_the_right_direction(found):
    score = deletion_insertion(None, found)
    assert score.status == "ok"
    assert score.insertion > 0.85 > 0.15 > score.deletion  # fails if the two were swapped
    beside = controls(None, found, draws=3)
    assert len(beside["random"]) == 3 and len(beside["center"]) == 1
    assert all(score.gap > other.gap + 0.5 for other in beside["random"] + beside["center"])
    assert len({other.gap for other in beside["random"]}) == 3
    assert len(beside["difference"]) == 1


def test_batch_size_and_seed_change_nothing(found):
    one, two = (deletion_insertion(None, found, batch=b) for b in (1, 32))
    assert one.deletion == pytest.approx(two.deletion, abs=1e-5)
    assert one.insertion == pytest.approx(two.insertion, abs=1e-5)
    assert deletion_insertion(None, found).gap == two.gap


def test_fills(found):
    black = deletion_insertion(None, found)
    gray = deletion_insertion(None, found, fill="gray")
    own = deletion_insertion(None, found, fill=torch.full_like(found.target.image, 0.5))
    assert (black.fill, gray.fill, own.fill) == ("baseline", "gray", "tensor")
    assert gray.insertion == own.insertion
    assert gray.fill_score == pytest.approx(black.fill_score, abs=1e-5)  # no red in either
    refuses("did you mean gray", deletion_insertion, None, found, fill="grey")


def test_a_map_of_another_shape_is_refused(found):
    with pytest.raises(StudyError, match="the image's shape"):
        deletion_insertion(None, replace(found, saliency=found.saliency[:-1]))


def test_a_fill_of_a_large_picture_is_made_at_full_size(adapters):
    """By name it is the target's own baseline; a blur of the reduced picture would be weaker."""
    model = adapters("llava")
    picture = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    target = make_target(model, picture, "Which?", tokens="all")
    assert not target.exact and target.original.shape == picture.shape
    assert torch.equal(target.fill("blur"), target.baseline)
    assert (make_baseline(target.image, "blur") - target.baseline).abs().max() > 1 / 255
    small = make_target(model, picture[:60, :80], "Which?", tokens="all")
    assert small.original is None and torch.equal(small.fill("blur"), small.baseline)


def test_statuses(found):
    score = deletion_insertion(None, found, fill=found.target.image)
    assert score.status == "no_gap"
    assert np.isnan(score.deletion) and np.isnan(score.gap)
    assert score.deletion_raw == pytest.approx(score.image_score)
    blind = explain(planted("blind"), SCENE, "?", method="random")
    assert deletion_insertion(None, blind).status == "no_crucial_tokens"
    assert controls(None, blind) == {"random": [], "center": [], "difference": []}
    broken = replace(found, saliency=np.full(SCENE.shape[:2], np.nan, np.float32))
    score = deletion_insertion(None, broken)
    assert score.status == "diverged" and np.isnan(score.insertion)


@pytest.mark.parametrize(("units", "steps"), [(1024, 50), (7, 50), (61, 50), (64, 7)])
def test_step_counts_are_symmetric(units, steps):
    counts = step_counts(units, steps)
    assert counts[0] == 0 and counts[-1] == units
    assert np.array_equal(counts, units - counts[::-1])
    assert len(counts) >= min(units, steps)


def test_default_grid_has_51_points():
    assert len(step_counts(1024, 50)) == 51


def test_units_and_cells_by_hand(found):
    """Every unit covers the picture; cells are even and in place."""
    for units, number in (("grid", 1024), ("patches", 24)):
        labels = unit_labels(found.target, units)
        assert labels.shape == (64, 96) and labels.max() + 1 == number
    regions = unit_labels(found.target, "superpixels")
    assert np.array_equal(np.unique(regions), np.arange(regions.max() + 1))
    assert np.array_equal(regions, unit_labels(found.target, "superpixels"))
    assert 16 <= regions.max() + 1 <= 100
    labels = unit_labels(found.target, "grid")
    assert set(np.bincount(labels.ravel())) == {6}  # 2 x 3 pixels
    assert labels[0, 0] == 0 and labels[0, 3] == 1 and labels[2, 0] == 32
    labels = np.array([[0, 0, 1], [1, 1, 1]])
    saliency = np.array([[1, 3, 0], [0, 2, 2]], np.float32)
    assert unit_means(saliency, labels) == pytest.approx([2, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": "gird"}, "did you mean grid"),
        ({"units": np.zeros((3, 3), int)}, "image's shape"),
        ({"steps": 0}, "at least 1"),
        ({"compat": "other"}, "compat is"),
    ],
)
def test_bad_options_are_told(found, options, message):
    refuses(message, deletion_insertion, None, found, **options)


def test_a_map_that_beats_random_ones():
    """Gaps 0, .01, .., .19: 95 % of them lie below .1805, by linear interpolation."""
    empty = faithfulness._empty("ok", 5, "grid", "blur")
    score = lambda gap: replace(empty, insertion=gap, deletion=0.0)  # noqa: E731
    noise = [score(n / 100) for n in range(20)]
    assert beats_random(score(0.181), noise) and not beats_random(score(0.18), noise)
    assert not beats_random(score(float("nan")), noise)
    with pytest.raises(StudyError, match="at least 20 of them with a score, not 19"):
        beats_random(score(1.0), noise[:-1] + [score(float("nan"))])


def test_the_flag_knows_a_map_from_its_negative():
    ex = explain(planted("object"), SCENE, "?", method="occlusion")
    noise = controls(ex.target.bound.adapter, ex, draws=20, steps=10)["random"]
    for saliency, good in ((ex.saliency, True), (-ex.saliency, False)):
        score = deletion_insertion(
            ex.target.bound.adapter, replace(ex, saliency=saliency), steps=10
        )
        assert beats_random(score, noise) is good
