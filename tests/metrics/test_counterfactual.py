"""Exact effects on drawn scenes: a reader whose worth of every object is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lvlm_study.answers import Target
from lvlm_study.benchmarks.base import Item
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain
from lvlm_study.metrics.counterfactual import counterfactual, object_effects, object_mass
from lvlm_study.models.base import Answer
from lvlm_study.models.planted import PlantedReader, planted
from lvlm_study.scenes import scenes
from lvlm_study.scenes.scenes import Scene, Sprite

OBJECTS = (
    Sprite("apple", "red", "small", 20, 20),
    Sprite("apple", "blue", "medium", 150, 40),
    Sprite("apple", "green", "large", 60, 200),
    Sprite("apple", "yellow", "small", 250, 250),
)
SCENE = Scene("road", False, 0, 0, 7, OBJECTS)  # all of it grey ground


class SceneBound:
    """f = the mean blueness of the picture, times a hundred: every pixel counts the same."""

    def __init__(self, size):
        self.size = size

    def log_probs(self, x, answer_ids):
        blue = x[:, 2] - x[:, :2].mean(1)
        return (100 * blue.mean((1, 2)))[:, None].expand(-1, len(answer_ids))


def target_of(scene):
    image = torch.from_numpy(scenes.draw(scene)).permute(2, 0, 1)[None] / 255
    said = Answer("blue", ("blue",), torch.tensor([2]), torch.zeros(1))
    return Target(SceneBound(image.shape[-2:]), image, image * 0, said, torch.ones(1).bool())


@pytest.fixture(scope="module")
def blank():
    ex = explain(planted("object"), scenes.draw(SCENE), "?", "center", tokens="all")
    return replace(ex, target=target_of(SCENE))


def blueness(scene):
    rgb = scenes.draw(scene) / 255
    return 100 * (rgb[..., 2] - rgb[..., :2].mean(-1)).mean()


def painted(values):
    out = np.zeros((scenes.SIDE, scenes.SIDE), np.float32)
    for i, value in enumerate(values):
        out[scenes.mask(SCENE, i)] = value
    return out


def test_effects_are_those_of_the_picture_drawn_again():
    found = object_effects(target_of(SCENE), SCENE)
    expected = [blueness(SCENE) - blueness(SCENE.without(i)) for i in range(4)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert found.argmax() == 1 and found[3] < 0  # blue speaks for it, yellow against it
    assert object_effects(target_of(SCENE), SCENE, batch=1) == pytest.approx(found, abs=1e-5)


def test_a_map_of_the_effects_is_right_and_its_reverse_is_wrong(blank):
    effects = object_effects(blank.target, SCENE)
    area = np.array([scenes.mask(SCENE, i).mean() for i in range(4)])
    told = (effects - effects.min() + 0.1) / area  # mass in the order of the effects
    right = counterfactual(replace(blank, saliency=painted(told)), SCENE)
    assert right.status == "ok" and right.spearman == pytest.approx(1) and right.top == 1
    assert right.effects == pytest.approx(effects) and right.area == pytest.approx(area)
    assert right.mass.sum() == pytest.approx(1)
    down = (effects.max() - effects + 0.1) / area
    wrong = counterfactual(replace(blank, saliency=painted(down)), SCENE)
    assert wrong.spearman == pytest.approx(-1) and wrong.top == 0


def test_correlations_by_hand(blank):
    """Ranks 4 3 2 1 against effects ranked 1 2 3 4, 1 2 4 3, ...: Spearman is 1 - 6 sum d² / 60."""
    area = np.array([scenes.mask(SCENE, i).mean() for i in range(4)])
    ex = replace(blank, saliency=painted([4, 3, 2, 1]))
    by_density = counterfactual(ex, SCENE, effects=np.array([3.0, 4.0, 2.0, 1.0]))
    assert by_density.spearman_density == pytest.approx(1 - 6 * 2 / 60)
    assert by_density.mass == pytest.approx([4, 3, 2, 1] * area / ([4, 3, 2, 1] * area).sum())
    ranks = by_density.mass.argsort().argsort()
    gap = ((ranks - np.array([2, 3, 1, 0])) ** 2).sum()
    assert by_density.spearman == pytest.approx(1 - 6 * gap / 60)


def test_a_flat_map_has_mass_by_size_alone(blank):
    flat = counterfactual(replace(blank, saliency=np.ones_like(blank.saliency)), SCENE)
    assert flat.mass == pytest.approx(flat.area)
    assert np.isnan(flat.spearman_density)
    assert np.isfinite(flat.spearman)  # size against effect: what density takes out


def test_statuses(blank):
    two = replace(SCENE, objects=OBJECTS[:2])
    few = counterfactual(replace(blank, target=target_of(two)), two)
    assert few.status == "few_objects" and np.isnan(few.spearman) and len(few.effects) == 2
    same = counterfactual(blank, SCENE, effects=np.full(4, 0.3))
    assert same.status == "constant_effects"
    zero = counterfactual(replace(blank, saliency=blank.saliency * 0), SCENE)
    assert zero.status == "constant_map" and zero.mass.tolist() == [0] * 4
    none = counterfactual(replace(blank, target=None), SCENE)
    assert none.status == "no_crucial_tokens" and np.isnan(none.effects).all()
    assert counterfactual(replace(blank, status="diverged"), SCENE).status == "diverged"


def test_negative_saliency_is_no_mass():
    saliency = np.array([[2.0, -5.0], [1.0, 1.0]])
    masks = [np.array([[1, 1], [0, 0]], bool), np.array([[0, 0], [0, 1]], bool)]
    assert object_mass(saliency, masks).tolist() == [0.5, 0.25]


def test_items_carry_their_scene_and_photographs_none(blank):
    item = Item("x", scenes.draw(SCENE), "?", "?", extra={"scene": SCENE})
    assert counterfactual(blank, item).effects == pytest.approx(object_effects(blank.target, SCENE))
    with pytest.raises(StudyError, match="photo/1 has no drawn scene"):
        counterfactual(blank, Item("photo/1", scenes.draw(SCENE), "?", "?"))


def test_another_scene_is_refused(blank):
    with pytest.raises(StudyError, match="does not draw the explained picture"):
        counterfactual(blank, SCENE.without(0))
    with pytest.raises(StudyError, match="336 x 336"):
        counterfactual(replace(blank, saliency=np.zeros((4, 4))), SCENE)


def test_a_planted_reader_needs_the_object_in_its_box():
    """The reader looks for red where the first of three apples is; it reads nothing else."""
    objects = (
        Sprite("apple", "red", "large", 20, 20),
        Sprite("apple", "red", "large", 200, 30),
        Sprite("apple", "green", "large", 60, 220),
    )
    scene = replace(SCENE, objects=objects)
    part, side = objects[0].side // 4, scenes.SIDE  # the middle of its cell, all apple
    box = tuple(v / side for v in (20 + part, 20 + part, 20 + 3 * part, 20 + 3 * part))
    reader = PlantedReader("apple", boxes=(box,), gain=8.0)
    ex = explain(reader, scenes.draw(scene), "?", "occlusion", baseline="gray", tokens="all")
    found = counterfactual(ex, scene)
    assert found.effects[0] > 0.5 and abs(found.effects[1:]).max() < 1e-6
    assert found.mass[0] > 0.5 and found.top == 1
    assert found.spearman == pytest.approx(1)  # the other two are tied, in mass and effect
