"""Masks: rendering against torch, its transpose, regularisers by hand, ties."""

import pytest
import torch
import torch.nn.functional as F

from lvlm_study.pixels import masks


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(40, 57), (32, 32), (9, 300)])
def test_render_is_bilinear(align, size):
    mask = torch.rand(2, 1, 8, 12)
    expected = F.interpolate(mask, size, mode="bilinear", align_corners=align)
    assert torch.allclose(masks.render(mask, size, align), expected, atol=1e-5)


@pytest.mark.parametrize("align", [False, True])
def test_adjoint_is_the_transpose(align):
    mask, gradient = torch.rand(1, 1, 5, 7).double(), torch.rand(1, 1, 31, 44).double()
    one = (masks.render(mask, (31, 44), align) * gradient).sum()
    other = (mask * masks.render_adjoint(gradient, (5, 7), align)).sum()
    assert torch.allclose(one, other)


def test_a_cell_is_a_box_of_the_image():
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1, 2] = 1
    keep = masks.render(mask, (80, 120))[0, 0]
    assert keep.sum() == pytest.approx(80 * 120 / 16, rel=1e-4)  # mass is the cell's area
    y, x = divmod(int(keep.argmax()), 120)
    assert (y * 4 // 80, x * 4 // 120) == (1, 2)


def test_norms_by_hand():
    mask = torch.tensor([[[[1.0, 0.5], [0.0, 1.0]]]])
    assert masks.l1(mask) == pytest.approx(1.5 / 4)
    assert masks.l2(mask) == pytest.approx(1.25)
    assert masks.l2(mask, "mean") == pytest.approx(1.25 / 4)


def test_total_variation_by_hand():
    mask = torch.tensor([[[[1.0, 0.5], [0.0, 1.0]]]])
    flat = torch.full((1, 3, 2, 2), 0.3)
    weights = masks.edge_weights(flat)
    steps = (1.0**2 + 0.5**2) + (0.5**2 + 1.0**2)  # down: 1, 0.5; right: 0.5, 1
    assert masks.btv(mask, mask, weights) == pytest.approx(0.5 * (steps / 4 + steps / 4))
    image = torch.zeros(1, 3, 2, 2)
    image[..., 1] = 1  # black beside white
    down, right = masks.edge_weights(image)
    assert torch.equal(down, torch.ones(1, 1, 1, 2))
    assert right.max() < 1e-6


def test_edge_weights_treat_rows_and_columns_alike_and_compat_does_not():
    image = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.1
    down, right = masks.edge_weights(image)
    turned_down, turned_right = masks.edge_weights(image.mT)
    assert torch.allclose(down, turned_right.mT) and torch.allclose(right, turned_down.mT)
    down, right = masks.edge_weights(image, compat="paper_code")
    assert not torch.allclose(down, masks.edge_weights(image.mT, compat="paper_code")[1].mT)


def test_ties_follow_the_unclamped_value():
    mask = torch.tensor([[[[0.0, 0.0, 0.4, 1.0, 1.0]]]])
    free = torch.tensor([[[[-3.0, -1.0, 0.4, 5.0, 1.2]]]])
    found = masks.break_ties(mask, free, seed=0).flatten()
    assert found.argsort().tolist() == [0, 1, 2, 4, 3]
    assert 0 <= found.min() and found.max() <= 1
    assert (found - mask.flatten()).abs().max() <= 1e-3


def test_what_is_still_tied_is_drawn_from_the_seed():
    mask = free = torch.ones(1, 1, 16, 16)
    one, same, other = (masks.break_ties(mask, free, s).flatten() for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one.argsort(), other.argsort())
    assert len(one.unique()) == 256
