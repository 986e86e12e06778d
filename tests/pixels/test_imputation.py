"""ROAD's fill: by hand, on pictures that it must give back, and the same twice."""

import numpy as np
import pytest
import torch
from refusals import refuses

from lvlm_study.pixels.imputation import impute

HOLE = np.zeros((20, 30), bool)
HOLE[5:12, 8:21] = True
BORDER = np.zeros((20, 30), bool)
BORDER[:, :25] = True


def ramp():
    y, x = np.mgrid[:20, :30]
    return torch.tensor(np.stack([y / 20, x / 30, (y + x) / 50]))[None].float()


def test_one_pixel_by_hand():
    image = torch.zeros(1, 3, 3, 3)
    image[0, 0] = torch.tensor([[1.0, 0, 0], [1, 0.3, 0], [0, 0, 0]])  # a corner and a side
    gone = np.zeros((3, 3), bool)
    gone[1, 1] = True
    assert impute(image, gone, noise=0)[0, :, 1, 1] == pytest.approx([1 / 12 + 1 / 6, 0, 0])
    gone[:] = False
    gone[0, 0] = True  # three neighbours: 0, 1 at the sides, 0.3 at the corner
    found = impute(image, gone, noise=0)[0, 0, 0, 0]
    assert found == pytest.approx((1 / 6 + 0.3 / 12) / (1 / 6 + 1 / 6 + 1 / 12), abs=1e-5)


@pytest.mark.parametrize("gone", [HOLE, BORDER])
def test_a_constant_picture_comes_back(gone):
    image = torch.full((1, 3, 20, 30), 0.4)
    assert torch.allclose(impute(image, gone, noise=0), image, atol=1e-5)


def test_a_ramp_is_continued_through_a_hole():
    broken = ramp()
    broken[..., torch.from_numpy(HOLE)] = 1
    assert torch.allclose(impute(broken, HOLE, noise=0), ramp(), atol=1e-4)


def test_noise_is_small_stays_inside_and_is_the_same_twice():
    found = impute(ramp(), HOLE, seed=3)
    assert torch.equal(found, impute(ramp(), HOLE, seed=3))
    assert not torch.equal(found, impute(ramp(), HOLE, seed=4))
    inside = torch.from_numpy(HOLE)
    assert torch.equal(found[..., ~inside], ramp()[..., ~inside])
    rough = (found - ramp())[..., inside]
    assert 0.008 < float(rough.std()) < 0.012
    white = impute(torch.ones(1, 3, 20, 30), HOLE)
    assert float(white.max()) <= 1


@pytest.mark.parametrize("gone", [np.ones((20, 30), bool), np.zeros((3, 3), bool)])
def test_nothing_to_fill_from(gone):
    refuses("a part of the picture", impute, ramp(), gone)
