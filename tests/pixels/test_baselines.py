"""Baselines against an independent blur, hand-computed colours, and the seed."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from lvlm_study.errors import StudyError
from lvlm_study.pixels.baselines import (
    baselines,
    blur,
    gaussian_blur,
    gaussian_kernel,
    kernel_size,
    make_baseline,
)

IMAGE = torch.rand(1, 3, 45, 70, generator=torch.Generator().manual_seed(0))


def oracle(image, kernel, sigma):
    at = np.arange(kernel) - kernel // 2
    taps = np.exp(-0.5 * (at / sigma) ** 2)
    taps /= taps.sum()
    x = image.double().numpy()
    for axis in (-1, -2):
        x = correlate1d(x, taps, axis=axis, mode="mirror")
    return x


@pytest.mark.parametrize("kernel", [3, 21, 101, 301])  # the last two are larger than the image
def test_blur_equals_scipy(kernel):
    found = gaussian_blur(IMAGE, kernel).numpy()
    assert np.abs(found - oracle(IMAGE, kernel, kernel - 1.0)).max() < 2e-6


def test_blur_with_its_own_sigma():
    assert np.abs(gaussian_blur(IMAGE, 11, 2.0).numpy() - oracle(IMAGE, 11, 2.0)).max() < 2e-6


def test_kernel_weights_by_hand():
    side = np.exp(-1 / 8)  # sigma = 2
    assert gaussian_kernel(3, 2.0) == pytest.approx(np.array([side, 1, side]) / (1 + 2 * side))


@pytest.mark.parametrize(
    ("width", "side"), [(1, 101), (499, 101), (500, 201), (799, 201), (800, 301), (2000, 501)]
)
def test_kernel_follows_the_width(width, side):
    assert kernel_size(width) == side


def test_blur_is_an_8_bit_picture_of_the_width_rule():
    found = make_baseline(IMAGE, "blur")
    assert torch.equal(found, blur(IMAGE, kernel=101))
    levels = found * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert np.abs(found.numpy() - oracle(IMAGE, 101, 100.0)).max() <= 0.5 / 255 + 1e-6


def test_blur_of_one_pixel_and_of_one_row():
    assert torch.allclose(gaussian_blur(IMAGE[..., :1, :1], 101), IMAGE[..., :1, :1], atol=1e-6)
    row = gaussian_blur(IMAGE[..., :1, :], 5)
    assert np.abs(row.numpy() - oracle(IMAGE[..., :1, :], 5, 4.0)).max() < 2e-6


def test_flat_baselines_by_hand():
    assert make_baseline(IMAGE, "black").abs().max() == 0
    assert torch.equal(make_baseline(IMAGE, "gray"), torch.full_like(IMAGE, 0.5))
    tint = make_baseline(IMAGE, "mean")
    assert tint.shape == IMAGE.shape
    assert torch.allclose(tint[0, 1, 3, 4], IMAGE[0, 1].mean())
    assert tint.std((-2, -1)).max() < 1e-6


def test_noise_follows_its_seed():
    once, twice = make_baseline(IMAGE, "noise", seed=3), make_baseline(IMAGE, "noise", seed=3)
    assert torch.equal(once, twice)
    assert not torch.equal(once, make_baseline(IMAGE, "noise", seed=4))
    assert once.mean() == pytest.approx(0.5, abs=0.01)
    assert once.std() == pytest.approx(1 / 12**0.5, abs=0.01)


def test_every_baseline_is_a_picture_of_the_same_shape():
    for name in baselines():
        found = make_baseline(IMAGE, name)
        assert found.shape == IMAGE.shape and found.dtype == torch.float32
        assert 0 <= found.min() and found.max() <= 1


def test_a_tensor_is_taken_as_it_is():
    assert torch.equal(make_baseline(IMAGE, 1 - IMAGE), 1 - IMAGE)
    with pytest.raises(StudyError, match="shape"):
        make_baseline(IMAGE, IMAGE[..., :-1])


def test_unknown_name_and_even_kernel():
    with pytest.raises(StudyError, match="did you mean black"):
        make_baseline(IMAGE, "blakc")
    with pytest.raises(StudyError, match="odd"):
        gaussian_blur(IMAGE, 10)
