"""Maps that know nothing of the model: what a real method must beat."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..answers import Target
from ..pixels.baselines import make_baseline
from ..pixels.images import to_tensor


def random(target: Target, *, seed: int = 0, cells: int = 32) -> Tensor:
    """Uniform noise on a `cells` x `cells` grid: chance level, insertion - deletion = 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(cells, cells, generator=generator)


def center(target: Target, *, seed: int = 0, spread: float = 0.25) -> Tensor:
    """A Gaussian on the middle, `spread` of each side wide: a habit of photographers."""
    rows, columns = (torch.linspace(-0.5, 0.5, n) for n in target.size)
    return torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * spread**2))  # (h, w)


def sobel(target: Target, *, seed: int = 0) -> Tensor:
    """Edge strength of the image; 1 is a straight edge from black to white, a corner up to 1.12."""
    grey = target.image.mean(1, keepdim=True).cpu()  # (1, 1, h, w)
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None] / 4
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = F.conv2d(padded, kernel), F.conv2d(padded, kernel.mT)
    return (across.square() + down.square()).sqrt()[0, 0]  # (h, w)


def difference(target: Target, *, seed: int = 0, cells: int = 32) -> Tensor:
    """How far the image is from its baseline, 0 to 1, averaged over `cells` x `cells` places.

    |image - baseline|, mean of the channels: where the two agree no mask can change the answer, so
    a method that searches for a mask sees this picture whatever the model makes of it.
    """
    gap = (target.image - target.baseline).abs().mean(1, keepdim=True).cpu()  # (1, 1, h, w)
    return F.adaptive_avg_pool2d(gap, cells)[0, 0]  # (cells, cells)


def control_map(name: str, rgb: np.ndarray, seed: int, baseline: str = "blur") -> np.ndarray:
    """A control's map (h, w) of a picture (H, W, 3) alone, the one that a sweep scores.

    Sweeps keep no maps of controls, since these take no model to be drawn again.
    """
    image = to_tensor(rgb) if name in ("sobel", "difference") else None  # slow, as is the blur
    filled = make_baseline(image, baseline) if name == "difference" else None
    seen = SimpleNamespace(size=rgb.shape[:2], image=image, baseline=filled)
    known = {control.__name__: control for control in (random, center, sobel, difference)}
    return known[name](seen, seed=seed).numpy()
