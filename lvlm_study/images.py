"""Opening pictures: every oddity of real files becomes one RGB array, or one clear sentence.

The scale of the values follows from the type alone, never from the values: a dark 16-bit scan must
not turn bright because no pixel of it happens to pass 255.
"""

import os
import struct
import warnings
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import StudyError

MAX_PIXELS = 150_000_000  # below Pillow's own refusal; no laptop explains more than that anyway
WITH_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
_filters = Lock()  # Python keeps one list of warning filters for all threads
# What Pillow raises on damaged files of a dozen formats: found by cutting and overwriting bytes.
BROKEN = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, MemoryError, struct.error)


def load_image(source) -> np.ndarray:
    """Open `source` as uint8 (H, W, 3) RGB.

    Takes a path, a PIL image, an array (H, W) or (H, W, 1|3|4), or a tensor (3, H, W) or
    (1, 3, H, W). Arrays and tensors hold floats in [0, 1], integers in [0, 255], uint16 in
    [0, 65535] or booleans. EXIF rotation is applied; alpha is laid on white; grey, palette and CMYK
    become RGB; 16 bits become 8 by dividing by 257; of an animation the first frame counts. Colour
    profiles are ignored, as the models' own processors do. Raises StudyError for anything else.
    """
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source))
    if isinstance(source, Image.Image):
        return _from_pil(source, "the given image")
    if isinstance(source, torch.Tensor):
        return _from_tensor(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    raise StudyError(
        f"An image must be a path, a PIL image, an array or a tensor, not {type(source).__name__}."
    )


def to_tensor(rgb: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) in [0, 1] back to uint8 (H, W, 3), rounded."""
    x = x[0] if x.dim() == 4 else x
    return (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _from_path(path: Path) -> np.ndarray:
    name = _one_line(path)
    try:
        _check_file(path, name)
        with _filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large or slightly odd files
            with Image.open(path) as image:
                _check_pixels(image, name)
                image.load()
                return _from_pil(image, name)
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise StudyError(
            f"The file {name} is not an image in a known format; save it as PNG or JPEG."
        ) from error
    except BROKEN as error:
        raise _undecodable(name, error) from error


def _check_file(path: Path, name: str) -> None:
    if path.is_dir():
        raise StudyError(f"{name} is a folder; give the path of one image file.")
    if not path.exists():
        raise StudyError(f"There is no image file at {name}; check the path.")
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
    x = x[0] if x.dim() == 4 and len(x) == 1 else x
    if x.dim() != 3 or x.shape[0] != 3:
        raise StudyError(f"An image tensor must be (3, H, W), not {tuple(x.shape)}.")
    x = x.float() if x.is_floating_point() else x  # numpy knows no bfloat16
    return _from_array(x.detach().cpu().permute(1, 2, 0).numpy())


def _from_array(a: np.ndarray, name: str = "the given array") -> np.ndarray:
    if a.ndim not in (2, 3) or (a.ndim == 3 and a.shape[2] not in (1, 3, 4)):
        raise StudyError(f"An image array must be (H, W) or (H, W, 1|3|4), not {a.shape}.")
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
