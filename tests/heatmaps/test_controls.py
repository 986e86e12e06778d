"""Maps that know no model: their values by hand, and the same map from the picture alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lvlm_study.heatmaps import METHODS, explain
from lvlm_study.heatmaps.controls import control_map, difference
from lvlm_study.heatmaps.names import CONTROLS
from lvlm_study.models.planted import planted, planted_scene

SCENE = planted_scene((64, 96))


def test_difference_is_the_mean_distance_from_the_baseline_in_every_cell():
    """4 x 4 pixels, 2 x 2 cells: one red pixel of a quarter, a darker half, a cell left alone."""
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0, 0, 0] = 1.0  # a third of full brightness in one of the cell's four pixels
    baseline = torch.zeros(1, 3, 4, 4)
    baseline[..., 2:] = 0.5
    image[..., 2:, 2:] = 0.5
    found = difference(SimpleNamespace(image=image, baseline=baseline), cells=2)
    assert torch.allclose(found, torch.tensor([[1 / 12, 0.5], [0.0, 0.0]]))


def test_difference_at_the_default_grid():
    """On 64 x 96 pixels a cell is 2 x 3 of them."""
    ex = explain(planted("object"), SCENE, "Which colour?", method="difference", baseline="gray")
    gap = np.abs(SCENE / 255 - 0.5).mean(-1)  # (64, 96)
    assert ex.grid.shape == (32, 32) and ex.status == "ok" and ex.cost.forward == 0
    assert ex.grid == pytest.approx(gap.reshape(32, 2, 32, 3).mean((1, 3)), abs=1e-6)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_drawn_again_from_the_picture_alone(name):
    ex = explain(planted("object"), SCENE, "Which colour?", method=name, seed=7)
    assert np.array_equal(control_map(name, SCENE, 7), METHODS[name](ex.target, seed=7).numpy())
    assert np.array_equal(control_map(name, SCENE, 7), ex.grid)
