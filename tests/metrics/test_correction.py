"""AMCR and CSR: by hand, on a reader misled by one box, and against asking at every step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from refusals import refuses

from lvlm_study.heatmaps import explain
from lvlm_study.metrics.correction import amcr, correction_region, csr
from lvlm_study.metrics.faithfulness import ranks_of
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.pixels.images import to_tensor

SCENE = planted_scene((64, 96))


def blue(text: str) -> bool:
    """What is right here: the red box misleads."""
    return "blue" in text


@pytest.fixture(scope="module")
def misled():
    ex = explain(planted("object"), SCENE, "?", method="random", baseline="black")
    truth = planted("object").evidence(SCENE.shape[:2])
    return replace(ex, saliency=truth.astype(np.float32)), truth.astype(int)


def test_the_box_that_misleads_is_the_region(misled):
    ex, units = misled
    assert correction_region(ex, blue, units=units) == pytest.approx(1 / 16)
    turned = replace(ex, saliency=-ex.saliency)
    assert correction_region(turned, blue, units=units) == 1, "all but the box corrects nothing"
    assert correction_region(ex, lambda text: False) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_first_step_at_which_the_model_says_so(misled, seed):
    """Oracle: each of 64 steps of a random map answered by itself."""
    ex = explain(planted("object"), SCENE, "?", method="random", baseline="black", seed=seed)
    rank, area = ranks_of(ex.saliency, ex.target, seed=seed)
    reader, image = planted("object"), to_tensor(SCENE)
    for n in range(16, 1024, 16):
        picture = image.clone()
        picture[..., torch.from_numpy(rank < n)] = 0
        ids = reader.generate(ex.target.bound, picture)
        if blue(reader.tokenizer.decode(ids)):
            break
    found = correction_region(ex, blue, seed=seed, batch=5)
    assert found == pytest.approx(n / 1024) == pytest.approx(area[n])
    assert 0.1 < found < 0.9


def test_only_other_answers_are_judged(misled):
    heard = []
    correction_region(misled[0], lambda text: heard.append(text), units=misled[1])
    assert heard == ["The shape is red.", "The shape is blue."]


def test_the_two_measures_by_hand():
    regions = [0.05, 0.1, 0.5, 1.0, np.nan]
    assert amcr(regions).value == pytest.approx(1.65 / 4) and amcr(regions).n == 4
    assert (csr(regions)["percent"], csr(regions)["n"]) == (50, 4)
    assert csr(regions, compat="paper_code")["percent"] == pytest.approx(200 / 3)
    assert csr(regions, budget=0.5)["percent"] == 75


def test_a_right_answer_has_no_region(misled):
    refuses("nothing to correct", correction_region, misled[0], lambda text: "red" in text)
    silent = replace(misled[0], saliency=np.full(SCENE.shape[:2], np.nan, np.float32))
    assert np.isnan(correction_region(silent, blue))
