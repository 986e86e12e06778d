"""The image without information: what stands in where a region is taken away.

Log-likelihood ratios, mask optimisation and metrics must share one baseline, because each of them
measures the way from it to the image.
"""

import numpy as np
import torch
from torch import Tensor

from .errors import StudyError, unknown


def make_baseline(image: Tensor, kind: str | Tensor = "blur", seed: int = 0) -> Tensor:
    """The baseline of `image` (1, 3, H, W), same shape, float32 in [0, 1].

    `kind` is one of `baselines()`, or a tensor of the image's shape to be used as it is. `seed`
    matters for "noise" alone. Raises StudyError for an unknown name or another shape.
    """
    if isinstance(kind, Tensor):
        if kind.shape != image.shape:
            raise StudyError(
                f"The baseline must have the image's shape {tuple(image.shape)}, "
                f"not {tuple(kind.shape)}."
            )
        return kind.detach().float().clone()  # the caller's may be of inference mode, or change
    if kind not in BASELINES:
        raise unknown("baseline", kind, BASELINES)
    return BASELINES[kind](image, seed)


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


BASELINES = {"blur": blur, "black": black, "mean": mean, "noise": noise, "gray": gray}


def kernel_size(width: int) -> int:
    """Side of the blur kernel in pixels by image width, as in the paper's released code.

    The height is not looked at: a portrait of 400 x 2000 gets 101.
    """
    for least, side in ((2000, 501), (800, 301), (500, 201)):
        if width >= least:
            return side
    return 101


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
