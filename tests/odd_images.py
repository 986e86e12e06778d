"""Odd image files, made in a temporary folder: what people really pass to a program.

`readable(folder)` and `unreadable(folder)` give {name: path}; every program that takes an image
must show something for the first and say one sentence for the second.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 32)  # width, height


def scene() -> Image.Image:
    """Red left half and blue right half with one green corner: wrong turns and colours show."""
    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    rgb[:, :24], rgb[:, 24:] = (255, 0, 0), (0, 0, 255)
    rgb[:8, :8] = (0, 255, 0)
    return Image.fromarray(rgb)


def readable(folder: Path) -> dict[str, Path]:
    """Unusual files that must open, one per oddity."""
    picture, exif = scene(), Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned, show it a quarter clockwise
    clear = picture.copy()
    clear.putalpha(Image.new("L", SIZE, 0))
    dark = np.full((SIZE[1], SIZE[0]), 200, np.uint16)  # of 65535: nearly black
    save = {
        "rgb.png": (picture, {}),
        "grey.png": (picture.convert("L"), {}),
        "bilevel.png": (picture.convert("1"), {}),
        "alpha.png": (clear, {}),
        "grey_alpha.png": (clear.convert("LA"), {}),
        "palette.png": (picture.quantize(4), {"transparency": 0}),
        "cmyk.jpg": (picture.convert("CMYK"), {"quality": 95}),
        "rotated.jpg": (picture, {"exif": exif, "quality": 95, "subsampling": 0}),
        "one_pixel.png": (picture.crop((0, 0, 1, 1)), {}),
        "strip.png": (picture.resize((2000, 1)), {}),
        "dark_16_bit.png": (Image.fromarray(dark), {}),
        "dark_16_bit.tif": (Image.fromarray(dark), {}),
        "float.tif": (Image.fromarray(dark.astype(np.float32) / 400), {}),
        "animation.gif": (picture, {"save_all": True, "append_images": [picture.rotate(180)]}),
        "name with spaces, ümläut.png": (picture, {}),
        "png_inside.jpg": (picture, {"format": "PNG"}),
    }
    for name, (image, options) in save.items():
        image.save(folder / name, **options)
    return {name: folder / name for name in save}


def unreadable(folder: Path) -> dict[str, Path]:
    """Files that hold no picture, one per reason."""
    scene().resize((480, 320)).save(folder / "whole.jpg")
    scene().save(folder / "whole.png")
    jpeg, png = (folder / "whole.jpg").read_bytes(), (folder / "whole.png").read_bytes()
    not_a_number = np.full((4, 4), np.nan, np.float32)
    Image.fromarray(not_a_number).save(folder / "nan.tif")
    contents = {
        "empty.png": b"",
        "text.jpg": b"This is not a picture.\n",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) - 30],
        "header_only.png": png[:20],
        "huge.png": _png_claiming(60_000, 60_000),
        "large.png": _png_claiming(13_000, 13_000),
        "zero.png": _png_claiming(0, 32),
    }
    for name, raw in contents.items():
        (folder / name).write_bytes(raw)
    (folder / "folder.png").mkdir()
    return {name: folder / name for name in [*contents, "nan.tif", "folder.png", "missing.png"]}


def large(folder: Path, width: int = 4000, height: int = 3000) -> Path:
    """A 12-megapixel photograph-like JPEG: smooth colours, quick to write."""
    path = folder / f"large_{width}x{height}.jpg"
    scene().resize((width, height), Image.Resampling.BILINEAR).save(path, quality=70)
    return path


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header declares any size while its data hold next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
