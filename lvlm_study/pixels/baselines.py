"""The image without information: what stands in where a region is taken away.

Log-likelihood ratios, mask optimisation and metrics must share one baseline, because each of them
measures the way from it to the image.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import StudyError
from .arguments import check_seed, choice
from .images import load_image, to_tensor


def make_baseline(image: Tensor, kind="blur", seed: int = 0) -> Tensor:
    """The baseline of `image` (1, 3, H, W), same shape, float32 in [0, 1].

    `kind` is one of `baselines()`, or a picture of the image's size: a PIL image, or an array or
    tensor whose integers are 8-bit levels and whose floats, in [0, 1], are used as they are.
    `seed` matters for "noise" alone. Raises StudyError for an unknown name and for a picture of
    another size.
    """
    if isinstance(kind, Tensor | np.ndarray | Image.Image):
        return _given(kind, image).to(image.device)
    return BASELINES[choice(kind, "baseline", BASELINES)](image, check_seed(seed))


def _given(picture, image: Tensor) -> Tensor:
    """A picture of the caller's own in the image's shape; a copy, for theirs may change."""
    if isinstance(picture, np.ndarray) and picture.dtype.kind == "f":
        picture = torch.tensor(picture)
    if not (isinstance(picture, Tensor) and picture.is_floating_point()):
        picture = to_tensor(load_image(picture))
    x = picture.detach().float().clone()
    x = x[None] if x.ndim == 3 else x
    if x.ndim == 4 and x.shape != image.shape:
        x = x.permute(0, 3, 1, 2)  # (1, H, W, 3), as pictures are in arrays
    if x.shape != image.shape:
        raise StudyError(
            f"The baseline must have the image's shape {tuple(image.shape)}, "
            f"not {tuple(picture.shape)}."
        )
    if not bool(((x >= -1e-3) & (x <= 1 + 1e-3)).all()):
        raise StudyError("The values of a baseline of floats lie in [0, 1]; scale them first.")
    return x


def baselines() -> list[str]:
    """Names that `make_baseline` knows."""
    return list(BASELINES)


def blur(image: Tensor, seed: int = 0, kernel: int | None = None) -> Tensor:
    """A heavy Gaussian blur, the paper's default, rounded to 8-bit grey levels.

    The side of the kernel follows the width alone (`kernel_size`), sigma is that side minus one, so
    the kernel is nearly a box. What is left are the large colour fields.
    """
    soft = gaussian_blur(image, kernel or kernel_size(image.shape[-1]))
    return (soft * 255).round().clamp(0, 255) / 255


def black(image: Tensor, seed: int = 0) -> Tensor:
    """Black pixels, the paper's "blank": an unusual input for a model trained on photographs."""
    return torch.zeros_like(image)


def mean(image: Tensor, seed: int = 0) -> Tensor:
    """Every pixel the picture's own mean colour: keeps the tint, drops all structure."""
    return image.mean((-2, -1), keepdim=True).expand_as(image).clone()


def noise(image: Tensor, seed: int = 0) -> Tensor:
    """Independent uniform 8-bit levels for every pixel and channel, from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, image.shape, generator=generator).to(image) / 255


def gray(image: Tensor, seed: int = 0) -> Tensor:
    """Middle grey, the same for every picture."""
    return torch.full_like(image, 0.5)


LARGE = 2000  # pixels of the longer side: the largest picture that the kernels were made for
BASELINES = {"blur": blur, "black": black, "mean": mean, "noise": noise, "gray": gray}


def kernel_size(width: int) -> int:
    """Side of the blur kernel in pixels by image width, as in the paper's released code.

    The height is not looked at: a portrait of 400 x 2000 gets 101.
    """
    for least, side in ((2000, 501), (800, 301), (500, 201)):
        if width >= least:
            return side
    return 101


def weak_blur(size: tuple[int, int]) -> str:
    """What to know of the blur of a picture of `size` (H, W); "" where it takes away enough.

    The paper's kernel grows with the width to 501 pixels and no further: on a larger photograph the
    blur leaves so much that no word of an answer may seem to need the picture.
    """
    height, width = size
    if max(size) <= LARGE:
        return ""
    return (
        f"the blur is the paper's, {kernel_size(width)} px here and 501 px at most, and weak on a "
        f"picture of {width} x {height}; make it smaller or use --baseline mean"
    )


def gaussian_blur(image: Tensor, kernel: int, sigma: float | None = None) -> Tensor:
    """Gaussian blur as OpenCV defines it: square odd `kernel`, mirrored borders without repeat.

    sigma defaults to kernel - 1. Each axis is one product of spectra, as fast for 501 taps as for
    3; the kernel may be larger than the image, whose mirror images then repeat.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise StudyError(f"The blur kernel must be a positive odd number, not {kernel}.")
    sigma = float(kernel - 1 if sigma is None else sigma)
    taps = torch.from_numpy(gaussian_kernel(kernel, sigma)).to(image)
    across = _blur_rows(image, taps).mT.contiguous()
    return _blur_rows(across, taps).mT.contiguous()


def gaussian_kernel(side: int, sigma: float) -> np.ndarray:
    """`side` weights of a sampled Gaussian that sum to 1, float64."""
    if side == 1:
        return np.ones(1)
    at = np.arange(side) - (side - 1) / 2
    weights = np.exp(-(at**2) / (2 * sigma**2))
    return weights / weights.sum()


def _blur_rows(x: Tensor, taps: Tensor) -> Tensor:
    """Convolve the last axis with symmetric `taps`, borders mirrored about the outermost pixels."""
    from scipy.fft import next_fast_len  # here: half a second of every command's start-up

    n, reach = x.shape[-1], len(taps) // 2
    padded = x.index_select(-1, _mirror(n, reach).to(x.device))
    length = next_fast_len(padded.shape[-1], real=True)
    spectrum = torch.fft.rfft(padded, n=length) * torch.fft.rfft(taps, n=length)
    return torch.fft.irfft(spectrum, n=length)[..., 2 * reach : 2 * reach + n]


def _mirror(n: int, reach: int) -> Tensor:
    """Indices -reach .. n - 1 + reach folded into 0 .. n - 1 like light between two mirrors."""
    period = max(2 * (n - 1), 1)
    at = torch.arange(-reach, n + reach) % period
    return torch.minimum(at, period - at) if n > 1 else torch.zeros_like(at)
