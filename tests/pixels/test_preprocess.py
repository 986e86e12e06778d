"""Preprocessing: Pillow's arithmetic bit by bit, the processors' pictures, and honest gradients."""

import math
from functools import lru_cache

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from lvlm_study.errors import StudyError
from lvlm_study.pixels import preprocess
from lvlm_study.pixels.images import to_tensor
from lvlm_study.pixels.preprocess import FILTERS, Axis, Plan, Spec, View, resize_weights

SIZES = [
    ((213, 320), (210, 322)),
    ((320, 213), (251, 168)),
    ((100, 300), (336, 1008)),
    ((448, 448), (224, 224)),
    ((300, 420), (100, 140)),  # a factor of three: sums of 0 and 255 tie at one half
    ((333, 500), (333, 250)),
    ((64, 64), (128, 128)),
    ((1, 50), (336, 400)),
    ((50, 1), (20, 30)),
    ((3, 700), (336, 336)),
]
ODD_SIZES = [(427, 640), (640, 427), (333, 333), (101, 57), (97, 512), (700, 90), (1, 40), (30, 1)]


def picture(height, width, kind="noise"):
    """A test card (H, W, 3) uint8: noise, hard black-and-white noise, or waves with flat parts."""
    rng = np.random.default_rng(height * 1000 + width)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "binary":
        return (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 160 * np.sin(x / 17 + y / 31), 255 * (x % 40 < 20), (x + 2 * y) % 256]
    return np.stack(waves, -1).clip(0, 255).astype(np.uint8)


def levels(rgb):
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float()


def pillow(rgb, target, name):
    code = Image.Resampling[name.upper()]
    return np.asarray(Image.fromarray(rgb).resize(target[::-1], code))


def view(size, target, name="bicubic", vertical_first=False, **axis):
    return View(
        Axis(size[0], target[0], name, **axis),
        Axis(size[1], target[1], name, **axis),
        vertical_first,
    )


def test_weights_by_hand():
    # halving four pixels: the triangle reaches 2 pixels each way from centres at 1 and 3
    expected = [[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]]
    np.testing.assert_allclose(resize_weights(4, 2, "bilinear"), expected, atol=2**-22)
    # doubling: bicubic at distances 1.75, .75, .25, 1.25 (a = -1/2), with both ends cut off
    row = resize_weights(8, 16, "bicubic")[8]
    expected = [-0.0234375, 0.2265625, 0.8671875, -0.0703125]
    np.testing.assert_allclose(row[2:6], expected, atol=2**-22)
    assert row[[0, 1, 6, 7]].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", FILTERS)
def test_weights_are_cut_rows_that_sum_to_one(name):
    whole = resize_weights(37, 11, name)
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(resize_weights(37, 11, name, 3, 7), whole[3:7])


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size,target", SIZES)
def test_resize_is_pillow_bit_by_bit(size, target, name):
    for kind in ("noise", "binary"):
        rgb = picture(*size, kind)
        ours = Spec(target, name).view(size).render(levels(rgb))
        np.testing.assert_array_equal(ours[0].permute(1, 2, 0), pillow(rgb, target, name))


@pytest.mark.parametrize("vertical_first", [False, True])
def test_either_pass_order(vertical_first):
    size, target = (61, 83), (40, 30)
    rgb = picture(*size)
    middle = (target[0], size[1]) if vertical_first else (size[0], target[1])
    steps = pillow(pillow(rgb, middle, "bicubic"), target, "bicubic")
    ours = view(size, target, vertical_first=vertical_first).render(levels(rgb))
    np.testing.assert_array_equal(ours[0].permute(1, 2, 0), steps)
    other = view(size, target, vertical_first=not vertical_first).render(levels(rgb))
    assert (other != ours).float().mean() > 0.01  # so the order must be known


@pytest.mark.parametrize("vertical_first", [False, True])
def test_the_order_is_asked_of_pillow(monkeypatch, vertical_first):
    real = Image.Image.resize

    def fixed_order(self, target, code):
        middle = (self.width, target[1]) if vertical_first else (target[0], self.height)
        return real(real(self, middle, code), target, code)

    monkeypatch.setattr(Image.Image, "resize", fixed_order)
    ask = preprocess.vertical_first.__wrapped__  # past the cache
    assert ask((61, 83), (40, 30), "bicubic") is vertical_first
    assert ask((300, 200), (77, 90), "lanczos") is vertical_first


def test_an_unknown_pillow_is_reported(monkeypatch):
    def nearest(self, target, code):
        return Image.fromarray(np.zeros(target[::-1], np.uint8))

    monkeypatch.setattr(Image.Image, "resize", nearest)
    with pytest.warns(UserWarning, match="Pillow resizes .* differently"):
        preprocess.vertical_first.__wrapped__((61, 83), (40, 30), "bicubic")


@lru_cache
def adapter(family):
    return tiny.real_size(family)


def compare(family, rgb, x):
    """Largest difference from the processor in grey levels, and the share of pixels that differ."""
    model = adapter(family)
    more = {"crop_to_patches": True} if family == "internvl" else {}  # as its processor asks
    wanted = model.processor(images=Image.fromarray(rgb), return_tensors="pt", **more)
    wanted = wanted["pixel_values"]
    ours = model.pack(model.geometry_for(rgb.shape[:2]).plan.render(x))["pixel_values"]
    assert ours.shape == wanted.shape
    if ours.dim() == 2:  # Qwen's flat patches: colour is the slowest index
        ours, wanted = (v.unflatten(1, (3, -1, 1)) for v in (ours, wanted))
    std = torch.tensor(model.processor.image_std).view(3, 1, 1) * 255
    off = (ours - wanted).abs() * std
    return off.max().item(), (off > 0.01).float().mean().item()


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("family", tiny.REAL_LLAVAS)
def test_parity_with_the_processors(family, size):
    for kind in ("noise", "waves"):
        rgb = picture(*size, kind)
        worst, share = compare(family, rgb, to_tensor(rgb))
        assert worst < 1.01 and share <= 0.001


@pytest.mark.slow
@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("family", tiny.REAL_OTHERS)
def test_parity_with_the_other_processors(family, size):
    rgb = picture(*size, "noise")
    worst, share = compare(family, rgb, to_tensor(rgb))
    assert worst < 1.01 and share <= 0.001


@pytest.mark.parametrize("family", tiny.REAL_LLAVAS)
def test_parity_of_blended_pictures(family):
    """A perturbed picture reaches the model as if it had been saved and opened by the processor."""
    rgb = picture(150, 211, "waves")
    mask = torch.linspace(0, 1, 211).expand(150, 211)
    x = to_tensor(rgb) * mask + 0.4 * (1 - mask)
    saved = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    worst, share = compare(family, saved, x)
    assert worst < 1.01 and share <= 0.001


def test_adjoint_is_the_transpose():
    axis = Axis(200, 77, "lanczos", window=(5, 70))
    for dim, shape in ((-1, (2, 3, 4, 200)), (-2, (2, 3, 200, 4))):
        x = torch.randn(shape, dtype=torch.float64)
        y = axis.forward(x, dim)
        g = torch.randn_like(y)
        assert math.isclose((y * g).sum(), (x * axis.adjoint(g, dim)).sum(), rel_tol=1e-9)


def test_gradient_passes_straight_through_rounding_and_white():
    matrix = torch.from_numpy(resize_weights(20, 8, "bicubic")).float()
    for value in (0.0, 0.5, 1.0):  # white and black must not cut the gradient
        x = torch.full((1, 3, 20, 20), value, requires_grad=True)
        (out,) = Plan((20, 20), [Spec((8, 8))], (0.0,) * 3, (1.0,) * 3).render(x)
        weight = torch.randn_like(out)
        out.mul(weight).sum().backward()
        expected = matrix.T @ weight[0, 0] @ matrix
        torch.testing.assert_close(x.grad[0], expected, atol=1e-5, rtol=1e-4)


def test_gradient_is_zero_where_pillow_clips():
    x = torch.zeros(1, 1, 1, 16)
    x[..., 8:] = 1  # an edge: bicubic overshoots on both sides when enlarging
    x = x.expand(1, 3, 16, 16).clone().requires_grad_()
    spec = Spec((16, 32))
    (out,) = Plan((16, 16), [spec], (0.0,) * 3, (1.0,) * 3).render(x)
    raw = Axis(16, 32).forward(x.detach() * 255, -1)[0, 0, 0]
    clipped = (raw < -0.5) | (raw > 255.5)
    assert clipped.sum() >= 2
    out[0, 0, 0, 0, :][clipped].sum().backward()
    assert x.grad.abs().max() == 0


def test_margin_padding_and_tiles_by_hand():
    # 2x4 image, unresized, set into a 4x4 canvas two ways
    x = torch.arange(8.0).view(1, 1, 2, 4).expand(1, 3, 2, 4)
    zeros = Spec((2, 4), window=((-1, 3), (0, 4)), tile=2).view((2, 4))
    cut = zeros.tiles(zeros.render(x))
    assert cut.shape == (1, 4, 3, 2, 2)
    expected = [[[0, 0], [0, 1]], [[0, 0], [2, 3]], [[4, 5], [0, 0]], [[6, 7], [0, 0]]]
    assert cut[0, :, 0].tolist() == expected
    padded = Spec((4, 4), canvas=(4, 4), offset=(1, 0), colour=(9.0, 8.0, 7.0)).view((2, 4))
    out = padded.render(x)[0]
    assert out[1].tolist() == [[8] * 4, [0, 1, 2, 3], [4, 5, 6, 7], [8] * 4]
    assert padded.rows.to_source(np.array([0, 4])).tolist() == [-1, 3]


def test_seen_by_a_centre_crop():
    spec = Spec((28, 56), window=((0, 28), (14, 42)))
    plan = Plan((28, 56), [spec], (0.0,) * 3, (1.0,) * 3)
    seen = plan.seen([(np.ones(28, bool), np.ones(28, bool))])
    expected = torch.zeros(28, 56, dtype=torch.bool)
    expected[:, 14:42] = True
    assert torch.equal(seen, expected)


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(preprocess, "WORK_PIXELS", 10_000)
    return Plan((300, 401), [Spec((40, 53)), Spec((32, 32))], (0.5,) * 3, (0.5,) * 3)


def test_reduction_keeps_two_pixels_per_view_pixel(large):
    assert (
        large.factor == 3 and large.work_size == (100, 134) and not large.exact
    )  # 300/40/2 = 3.75
    small = Plan((90, 100), [Spec((40, 53))], (0.5,) * 3, (0.5,) * 3)
    assert small.factor == 1 and small.exact
    x = torch.rand(1, 3, 90, 100)
    assert small.reduced(x) is x


def test_reduction_averages_whole_runs(large):
    x = torch.rand(1, 1, 300, 401)
    small = large.reduced(x)
    assert small.shape == (1, 1, 100, 134)
    torch.testing.assert_close(small[0, 0, 5, 7], x[0, 0, 15:18, 21:24].mean())
    torch.testing.assert_close(small[0, 0, 5, 133], x[0, 0, 15:18, 399:401].mean())


def test_reduced_views_are_exact_on_blocky_pictures(large):
    """Weights are summed over each run, so a picture that is constant there loses nothing."""
    small = torch.randint(0, 256, (1, 3, 100, 134)) / 255
    x = small.repeat_interleave(3, 2).repeat_interleave(3, 3)[..., :300, :401]
    for exact, quick in zip(large.render(x), large.render(large.reduced(x)), strict=True):
        torch.testing.assert_close(exact, quick, atol=1.01 / 127.5, rtol=0)
        assert ((exact - quick).abs() > 1e-3).float().mean() < 0.001


def test_reduced_views_are_close_on_any_picture(large):
    x = to_tensor(picture(300, 401, "waves"))
    for exact, quick in zip(large.render(x), large.render(large.reduced(x)), strict=True):
        assert (exact - quick).abs().mean() * 127.5 < 1.5


def test_wrong_size_and_filter(large):
    with pytest.raises(StudyError, match=r"images of \(300, 401\).*not \(300, 400\)"):
        large.render(torch.rand(1, 3, 300, 400))
    with pytest.raises(StudyError, match="no resampling filter named 'nearest'"):
        preprocess.filter_name(0)
    assert [preprocess.filter_name(code) for code in (1, 2, 3)] == [
        "lanczos",
        "bilinear",
        "bicubic",
    ]
