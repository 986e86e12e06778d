"""Opening pictures: exact values for every oddity, one sentence for every failure."""

import io
import os
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import odd_images
import pytest
import torch
from PIL import Image
from refusals import refuses

from lvlm_study.errors import StudyError
from lvlm_study.pixels.images import load_image, to_tensor, to_uint8

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return odd_images.readable(tmp_path_factory.mktemp("readable"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return odd_images.unreadable(tmp_path_factory.mktemp("unreadable"))


refused = partial(refuses, r"\.$", load_image)  # the one sentence about a picture


# --- files that open ------------------------------------------------------------------------
def test_every_readable_oddity_opens_as_rgb_without_a_warning(good):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, path in good.items():
            rgb = load_image(path)
            assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3, name
            assert rgb.flags.writeable and rgb.flags.c_contiguous, name
            assert np.array_equal(rgb, load_image(str(path))), name


FILES = {  # file -> (height, width), tolerance, colours at (row, column)
    "rgb.png": ((32, 48), 0, {(0, 0): GREEN, (-1, 0): RED, (0, -1): BLUE}),
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    "grey.png": ((32, 48), 0, {(-1, 0): (76,) * 3, (0, 0): (150,) * 3, (0, -1): (29,) * 3}),
    "cmyk.jpg": ((32, 48), 8, {(-1, 0): RED, (-1, -1): BLUE}),
    # orientation 6, a quarter clockwise: the green corner goes from top left to top right
    "rotated.jpg": ((48, 32), 8, {(2, -3): GREEN, (2, 2): RED, (-3, 2): BLUE}),
    "one_pixel.png": ((1, 1), 0, {(0, 0): GREEN}),
    "strip.png": ((1, 2000), 0, {}),
    "animation.gif": ((32, 48), 0, {(0, 0): GREEN, (-1, 0): RED}),  # its first frame
}


@pytest.mark.parametrize("name", FILES)
def test_colours_stand_where_they_should(good, name):
    size, tolerance, colours = FILES[name]
    rgb = load_image(good[name]).astype(int)
    assert rgb.shape == (*size, 3)
    for place, colour in colours.items():
        assert np.abs(rgb[place] - colour).max() <= tolerance, place


EVEN = {  # file -> the one level of all its pixels
    "alpha.png": 255,  # fully transparent is white
    "grey_alpha.png": 255,
    "dark_16_bit.png": 1,  # 200 / 257 = 0.78, not 200
    "dark_16_bit.tif": 1,
    "float.tif": 128,  # 0.5 * 255 = 127.5, to even
}


@pytest.mark.parametrize("name", EVEN)
def test_levels_of_unusual_files(good, name):
    assert set(load_image(good[name]).ravel()) == {EVEN[name]}


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA"])
def test_rarer_alpha_modes_are_laid_on_white_too(mode):
    clear = Image.new({"RGBa": "RGBA", "La": "LA", "PA": "P"}[mode], (2, 2))
    clear = clear.convert(mode)
    if mode == "PA":
        clear.putalpha(0)
    assert clear.mode == mode and tuple(load_image(clear)[0, 0]) == WHITE


def test_palette_with_a_transparent_entry_is_laid_on_white(good):
    rgb = load_image(good["palette.png"])
    with Image.open(good["palette.png"]) as image:
        index = np.asarray(image)
    assert image.mode == "P" and 0 < (index == 0).mean() < 1
    assert (rgb[index == 0] == 255).all()
    assert set(map(tuple, rgb[index != 0])) < {RED, GREEN, BLUE}


def test_twelve_megapixels_open(tmp_path):
    assert load_image(odd_images.large(tmp_path)).shape == (3000, 4000, 3)


# --- files that do not ----------------------------------------------------------------------

REASONS = {
    "empty.png": "is empty",
    "text.jpg": "known format",
    "cut.jpg": "damaged",
    "cut.png": "damaged",
    "header_only.png": "damaged|known format",
    "huge.png": "more than 150 megapixels",
    "large.png": "more than 150 megapixels",
    "zero.png": "known format",
    "nan.tif": "nan.tif holds NaN",
    "folder.png": "is a folder",
    "missing.png": "no image file",
}


@pytest.mark.parametrize("name", REASONS)
def test_an_unreadable_file_is_told_in_one_sentence(bad, name):
    assert set(bad) == set(REASONS)
    refuses(REASONS[name], load_image, bad[name])
    refused(bad[name])


def test_paths_that_are_none():
    refused("two\nlines.png")  # one line all the same
    refused("x" * 5000 + ".png")
    assert "path of the image is empty" in refused("")


def test_a_pipe_and_a_device_are_told_as_what_they_are(tmp_path):
    """They have no size, and are not empty for that; nor may a reader wait for them for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        assert "a pipe or a device" in refused(path)


def test_damaged_bytes_never_give_anything_but_an_image_or_a_sentence(good, tmp_path):
    """Every fifth cut and forty overwritten bytes of four formats."""
    path, rng = tmp_path / "damaged", np.random.default_rng(0)
    for name in ("rgb.png", "cmyk.jpg", "animation.gif", "dark_16_bit.tif"):
        raw = good[name].read_bytes()
        damaged = [raw[:n] for n in range(1, min(len(raw), 400), 5)]
        for place in rng.integers(0, len(raw), 40):
            damaged.append(raw[:place] + bytes([rng.integers(256)]) + raw[place + 1 :])
        for data in damaged:
            path.write_bytes(data)
            try:
                assert load_image(path).shape[2] == 3
            except StudyError as error:
                assert "\n" not in str(error)


# --- PIL images, arrays, tensors --------------------------------------------------------------
def test_a_truncated_file_handed_over_as_a_lazy_pil_image(bad):
    with Image.open(bad["cut.jpg"]) as image:
        assert "damaged" in refused(image)


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr", "RGBX", "1"])
def test_other_modes_convert_without_being_taken_for_alpha(mode):
    image = Image.new(mode, (2, 2))
    np.testing.assert_array_equal(load_image(image), np.asarray(image.convert("RGB")))


# uint16 always divides by 257: 0, 257 k and 65535 are exact, the largest value plays no part
DEEP = np.array([[0, 128, 129, 257, 200 * 257, 65535]], np.uint16)
HALF_RED = np.full((1, 1, 4), (255, 0, 0, 128), np.uint8)  # on white: 255 * 127/255 = 127
FIFTH = torch.tensor([1.0, 0.2, 0.0])[:, None, None].requires_grad_()  # (3, 1, 1)
LEVELS = {  # what is given -> red of its first row, or all of its first pixel
    "uint16": (DEEP, [0, 0, 1, 1, 200, 255]),
    "dark uint16": (DEEP[:, :3], [0, 0, 1]),
    "PIL uint16": (Image.fromarray(DEEP), [0, 0, 1, 1, 200, 255]),
    "PIL int32": (Image.fromarray(DEEP.astype(np.int32)), [0, 0, 1, 1, 200, 255]),
    "int64 of 0 to 255": (np.array([[0, 7, 255]], np.int64), [0, 7, 255]),
    "float16": (np.array([[0, 0.2, 1]], np.float16), [0, 51, 255]),
    "float32": (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),
    "float64": (np.array([[0, 0.2, 1]]), [0, 51, 255]),
    "rounding error beyond the range": (np.array([[-1e-6, 1 + 1e-6]]), [0, 255]),
    "bool": (np.array([[False, True]]), [0, 255]),
    "one channel": (np.full((2, 1, 1), 9, np.uint8), [9]),
    "PIL half transparent": (Image.new("RGBA", (1, 1), (255, 0, 0, 128)), (255, 127, 127)),
    "four channels": (HALF_RED, (255, 127, 127)),
    "four float channels": (HALF_RED / 255, (255, 127, 127)),
    "tensor": (FIFTH, (255, 51, 0)),
    "batch of one": (FIFTH[None], (255, 51, 0)),
    "tensor of doubles": (FIFTH.double(), (255, 51, 0)),
    "tensor of bfloat16": (FIFTH.bfloat16(), (255, 51, 0)),
    "tensor of bytes": (torch.tensor([1, 51, 0], dtype=torch.uint8)[:, None, None], (1, 51, 0)),
}


@pytest.mark.parametrize("kind", LEVELS)
def test_levels_by_hand(kind):
    given, wanted = LEVELS[kind]
    rgb = load_image(given)
    found = rgb[0, 0] if isinstance(wanted, tuple) else rgb[0, :, 0]
    assert found.tolist() == list(wanted)


REFUSED = [
    (Image.new("RGB", (0, 5)), "0 x 5"),
    (np.array([[0, 256]]), "[0, 256]"),
    (np.array([[-1, 3]], np.int8), "[-1, 3]"),
    *((np.array([[0, 1.5]], dtype), "[0, 1.5]") for dtype in (np.float16, np.float32, np.float64)),
    (np.array([[-0.5, 1]]), "[-0.5, 1]"),
    *((np.full((2, 2), value), "NaN or infinite") for value in (np.nan, np.inf, -np.inf)),
    (torch.full((3, 2, 2), torch.nan), "NaN or infinite"),
    *((np.zeros(s), str(s)) for s in ((3,), (4, 4, 2), (2, 4, 5), (2, 4, 4, 3), (5, 4, 6))),
    *((np.zeros(s), "no pixels") for s in ((0, 4), (4, 0, 3), (0, 0, 3))),
    *((a, "numbers") for a in (np.array([["a"]]), np.array([[1j]]), np.array([[None]]))),
    *((torch.zeros(s), str(s)) for s in ((2, 3, 4, 4), (4,), (2, 5, 6), (1, 1, 3, 4, 4))),
    *((x, type(x).__name__) for x in (None, 3, {"bytes": b""}, [[0, 1]], object())),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_is_no_picture_is_refused(given, message):
    assert message in refused(given)


def test_other_arrays_and_copies():
    a = np.zeros((2, 2, 3), np.uint8)
    load_image(a)[:] = 7
    assert (a == 0).all()
    np.testing.assert_array_equal(load_image(Foreign()), PICTURE)


# --- either order of the axes, bytes, open files, addresses --------------------------------------

PICTURE = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(PICTURE)
SAME = {
    "array": PICTURE,
    "array, channels first": PICTURE.transpose(2, 0, 1),
    "batch of one array": PICTURE[None],
    "unit range, channels first": PICTURE.transpose(2, 0, 1) / 255,
    "read only": np.broadcast_to(PICTURE, PICTURE.shape),
    "tensor (H, W, 3) of bytes": TENSOR,
    "tensor (3, H, W) of bytes": TENSOR.permute(2, 0, 1),
    "tensor (3, H, W) in [0, 1]": TENSOR.permute(2, 0, 1) / 255,
    "tensor (1, H, W, 3) in [0, 1]": TENSOR[None] / 255,
    "tensor with a gradient": (TENSOR.permute(2, 0, 1) / 255).requires_grad_(),
    "opaque tensor (4, H, W)": torch.cat([TENSOR, torch.full((5, 7, 1), 255)], 2).permute(2, 0, 1),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_axes_are_understood_in_either_order(kind):
    rgb = load_image(SAME[kind])
    np.testing.assert_array_equal(rgb, PICTURE)
    assert rgb.flags.writeable and rgb.flags.c_contiguous


@pytest.mark.parametrize("n", [3, 4, 1])
def test_where_both_orders_would_do_each_kind_keeps_its_own(n):
    """Three or four pixels high and wide: arrays have their channels last, tensors first."""
    a = np.random.default_rng(2).integers(0, 256, (3, n, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load_image(a), a)
    x = torch.from_numpy(a)
    np.testing.assert_array_equal(load_image(x), a.transpose(1, 2, 0))


def test_grey_in_every_shape():
    grey = PICTURE[..., 0]
    want = np.repeat(grey[..., None], 3, axis=2)
    for one in (grey, grey[None], grey[..., None], grey[None, ..., None]):
        np.testing.assert_array_equal(load_image(one), want)
        np.testing.assert_array_equal(load_image(torch.from_numpy(one.copy())), want)


class Foreign:
    """As arrays of other libraries: they say how to become one of numpy."""

    def __array__(self, dtype=None, copy=None):
        return PICTURE


@pytest.mark.parametrize("name", ["rgb.png", "rotated.jpg", "animation.gif", "dark_16_bit.tif"])
def test_bytes_and_open_files_give_what_the_path_gives(good, name):
    raw, want = good[name].read_bytes(), load_image(good[name])
    for data in (raw, bytearray(raw), memoryview(raw)):
        np.testing.assert_array_equal(load_image(data), want)
    stream = io.BytesIO(raw)
    stream.seek(11)
    np.testing.assert_array_equal(load_image(stream), want)
    assert stream.tell() == 11 and not stream.closed
    with good[name].open("rb") as file:
        np.testing.assert_array_equal(load_image(file), want)
        np.testing.assert_array_equal(load_image(file), want)  # a second time too
        assert not file.closed


def test_a_stream_that_cannot_go_back(good):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    rgb = load_image(Pipe(good["rgb.png"].read_bytes()))
    np.testing.assert_array_equal(rgb, load_image(good["rgb.png"]))


def test_bytes_and_files_that_hold_no_picture(good, bad, tmp_path):
    raw = good["rgb.png"].read_bytes()
    assert "in the given bytes is empty" in refused(b"")
    assert "in the file BytesIO is empty" in refused(io.BytesIO())
    assert "in the given bytes is not an image in a known format" in refused(b"GIF or so")
    assert "in the given bytes is damaged" in refused(raw[: len(raw) // 2])
    assert "150 megapixels" in refused(bad["huge.png"].read_bytes())
    closed = io.BytesIO(raw)
    closed.close()
    assert "closed file" in refused(closed)
    (tmp_path / "a.txt").write_text("words")
    with (tmp_path / "a.txt").open() as file:
        assert "a.txt is read as text; open it with 'rb'" in refused(file)
    with (tmp_path / "b.png").open("wb") as file:
        assert "b.png cannot be read" in refused(file)


@pytest.mark.parametrize(
    "url", ["https://a.org/b.png?c=d//e", "http://localhost:80/x", "S3://bucket/x.jpg", "file:///x"]
)
def test_an_address_is_told_as_it_is(url):
    assert refused(url).startswith(f"{url} is an address, and nothing is downloaded here; save")
    assert len(refused("data:image/png;base64," + "A" * 10**5)) < 100  # is not printed
    path = Path("https://a.org/b.png")  # gets its slash back
    assert refused(path).startswith("https://a.org/b.png is an address")


def test_a_path_with_a_colon_is_a_path(tmp_path):
    folder = tmp_path / "odd:" / "x"
    folder.mkdir(parents=True)
    Image.fromarray(PICTURE).save(folder / "a.png")
    np.testing.assert_array_equal(load_image(folder / "a.png"), PICTURE)
    assert "no image file" in refused(folder / "b.png") and "no image file" in refused("C:/x.png")


def test_to_tensor_and_back_is_the_identity():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    x = to_tensor(rgb)
    assert x.shape == (1, 3, 5, 7) and x.dtype == torch.float32 and float(x.max()) <= 1
    assert float(x[0, 1, 2, 3]) == pytest.approx(rgb[2, 3, 1] / 255)
    np.testing.assert_array_equal(to_uint8(x), rgb)
    np.testing.assert_array_equal(to_uint8(x[0]), rgb)
    np.testing.assert_array_equal(load_image(x), rgb)
