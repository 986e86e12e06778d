"""Opening pictures: every oddity of real files becomes one RGB array, or one clear sentence.

The scale of the values follows from the type alone, never from the values: a dark 16-bit scan must
not turn bright because no pixel of it happens to pass 255.
"""

import os
import re
import struct
import warnings
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import StudyError

MAX_PIXELS = 150_000_000  # below Pillow's own refusal; no laptop explains more than that anyway
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/(.+)", re.I)
CHANNELS = (1, 3, 4)
WITH_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
_filters = Lock()  # Python keeps one list of warning filters for all threads
# What Pillow raises on damaged files of a dozen formats: found by cutting and overwriting bytes.
BROKEN = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, MemoryError, struct.error)


def load_image(source) -> np.ndarray:
    """Open `source` as uint8 (H, W, 3) RGB.

    Takes a path, the bytes of a file or a file opened for reading them, a PIL image, an array
    (H, W) or (H, W, C), or a tensor (C, H, W), C being 1, 3 or 4; the other order is understood
    where the shape allows no doubt, a batch of one is unpacked. Arrays and tensors hold floats in
    [0, 1], integers in [0, 255], uint16 in [0, 65535] or booleans. EXIF rotation is applied; alpha
    is laid on white; grey, palette and CMYK become RGB; 16 bits become 8 by dividing by 257; of an
    animation the first frame counts. Colour profiles are ignored, as the models' own processors
    do. Nothing is downloaded. Raises StudyError for anything else.
    """
    if isinstance(source, str | os.PathLike):
        return _from_path(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), "in the given bytes")
    if isinstance(source, Image.Image):
        return _from_pil(source, "the given image")
    if isinstance(source, torch.Tensor):
        return _from_tensor(source)
    if hasattr(source, "read"):
        return _from_file(source)
    if hasattr(source, "__array__"):  # numpy's own, and what other libraries hold
        return _from_array(_channels_last(np.asarray(source)))
    raise StudyError(
        "An image must be a path, bytes, an open file, a PIL image, an array or a tensor, not "
        f"{type(source).__name__}."
    )


def to_tensor(rgb: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) in [0, 1] back to uint8 (H, W, 3), rounded."""
    x = x[0] if x.dim() == 4 else x
    return (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _from_path(source: str | os.PathLike) -> np.ndarray:
    text = os.fsdecode(source)
    path, name = Path(text), _one_line(text)
    if not text:
        raise StudyError("The path of the image is empty; give the path of one image file.")
    try:
        _check_address(path, name)
        _check_file(path, name)
    except BROKEN as error:  # a name that no system accepts
        raise _undecodable(name, error) from error
    return _opened(path, name)


def _from_bytes(data: bytes, name: str) -> np.ndarray:
    if not data:
        raise StudyError(f"The image {name} is empty; read the file again.")
    return _opened(BytesIO(data), name)


def _from_file(file) -> np.ndarray:
    """From its beginning, wherever it was read to; the file stays open, and where it was."""
    name = f"in the file {_one_line(getattr(file, 'name', '')) or type(file).__name__}"
    try:
        place = file.tell() if file.seekable() else None
        if place is not None:
            file.seek(0)
        data = file.read()
        if place is not None:
            file.seek(place)
    except (OSError, ValueError, AttributeError) as error:  # closed, or written to only
        raise StudyError(
            f"The image {name} cannot be read ({_one_line(error).rstrip('.')}); open it with 'rb'."
        ) from error
    if not isinstance(data, bytes):
        raise StudyError(f"The image {name} is read as text; open it with 'rb'.")
    return _from_bytes(data, name)


def _opened(source: Path | BytesIO, name: str) -> np.ndarray:
    try:
        with _filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large or slightly odd files
            with Image.open(source) as image:
                _check_pixels(image, name)
                image.load()
                return _from_pil(image, name)
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        what = f"file {name}" if isinstance(source, Path) else f"image {name}"
        raise StudyError(
            f"The {what} is not an image in a known format; save it as PNG or JPEG."
        ) from error
    except BROKEN as error:
        raise _undecodable(name, error) from error


def _check_address(path: Path, name: str) -> None:
    if name.lower().startswith("data:image/"):
        raise StudyError("A data: address is no file; decode it, and give the bytes.")
    found = ADDRESS.fullmatch(name)
    if found and not path.exists():
        shown = name if "://" in name else f"{found[1]}://{found[2]}"  # a Path drops one slash
        raise StudyError(
            f"{shown} is an address, and nothing is downloaded here; save the picture and give "
            "the path of its file."
        )


def _check_file(path: Path, name: str) -> None:
    if path.is_dir():
        raise StudyError(f"{name} is a folder; give the path of one image file.")
    if not path.exists():
        raise StudyError(f"There is no image file at {name}; check the path.")
    if not path.is_file():  # it could be read only once, or never ends
        raise StudyError(f"{name} is a pipe or a device; save the picture, and give its file.")
    if path.stat().st_size == 0:
        raise StudyError(f"The image file {name} is empty; download or save it again.")


def _check_pixels(image: Image.Image, name: str) -> None:
    if 0 in image.size:
        raise StudyError(f"The image {name} has no pixels: its size is {_by(image.size)}.")
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)


def _too_large(name: str) -> StudyError:
    return StudyError(
        f"The image {name} has more than {MAX_PIXELS // 10**6} megapixels; make it smaller first."
    )


def _undecodable(name: str, error: BaseException) -> StudyError:
    why = _one_line(error).rstrip(".") or type(error).__name__
    return StudyError(f"The image {name} is damaged or unsupported ({why}); save it again as PNG.")


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    """The current frame, upright, without alpha, as RGB."""
    _check_pixels(image, name)
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            return _from_array(_as_uint16(np.asarray(image), name), name)
        if image.mode == "F":
            return _from_array(np.asarray(image), name)
        if image.mode in WITH_ALPHA or "transparency" in image.info:
            image = _on_white(image)
        return np.array(image.convert("RGB"))
    except BROKEN as error:
        raise _undecodable(name, error) from error


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("LA") if image.mode == "La" else image  # no direct way to RGBA
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _as_uint16(a: np.ndarray, name: str) -> np.ndarray:
    """Pillow's integer modes carry 16-bit files, some of them in 32-bit numbers."""
    _check_range(a, 0, 65535, "hold 16-bit values", name)
    return a.astype(np.uint16)


def _from_tensor(x: torch.Tensor) -> np.ndarray:
    x = x.float() if x.is_floating_point() else x  # numpy knows no bfloat16
    return _from_array(_channels_last(x.detach().cpu().numpy(), first=True))


def _channels_last(a: np.ndarray, first: bool = False) -> np.ndarray:
    """(H, W, C) whichever end the channels are at; `first`: where they are, as a rule."""
    one = a[0] if a.ndim == 4 and len(a) == 1 else a
    if one.ndim != 3:
        return one if one.ndim == 2 else a
    lead, last = one.shape[0], one.shape[2]
    if first:  # three channels are likelier than three pixels
        ahead = lead == 3 or (lead in CHANNELS and last != 3)
    else:
        ahead = lead in (1, 3) and last not in CHANNELS
    return one.transpose(1, 2, 0) if ahead else one


def _from_array(a: np.ndarray, name: str = "the given array") -> np.ndarray:
    if a.ndim not in (2, 3) or (a.ndim == 3 and a.shape[2] not in CHANNELS):
        raise StudyError(
            "An image array must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, not "
            f"{a.shape}."
        )
    if 0 in a.shape:
        raise StudyError(f"The image array has no pixels: its shape is {a.shape}.")
    a = _to_uint8_scale(a, name)
    if a.ndim == 2 or a.shape[2] == 1:
        a = np.repeat(a.reshape(*a.shape[:2], 1), 3, axis=2)
    if a.shape[2] == 4:
        return _from_pil(Image.fromarray(a), "array")
    return a.copy()


def _to_uint8_scale(a: np.ndarray, name: str) -> np.ndarray:
    """Floats are [0, 1], booleans black and white, uint16 [0, 65535], other integers [0, 255]."""
    if a.dtype.kind not in "fbui":
        raise StudyError(f"An image array must hold numbers, not {a.dtype}.")
    if a.dtype.kind == "f":
        if not np.isfinite(a).all():
            raise StudyError(f"The image {name} holds NaN or infinite values; replace them first.")
        _check_range(a, -1e-3, 1 + 1e-3, "lie in [0, 1] if it holds floats", name)
        return (a.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)
    if a.dtype.kind == "b":
        return a.astype(np.uint8) * 255
    if a.dtype.itemsize == 2 and a.dtype.kind == "u":
        return ((a.astype(np.uint32) + 128) // 257).astype(np.uint8)
    _check_range(a, 0, 255, "lie in [0, 255] if it holds integers", name)
    return a.astype(np.uint8)


def _check_range(a: np.ndarray, low: float, high: float, must: str, name: str) -> None:
    least, most = a.min(), a.max()
    if least < low or most > high:
        raise StudyError(
            f"An image must {must}, but the values of {name} span [{least:.6g}, {most:.6g}]."
        )


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _one_line(text) -> str:
    return " ".join(str(text).split())
