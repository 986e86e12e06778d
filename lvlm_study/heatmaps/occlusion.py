"""Occlusion: cover one window after another and see how much the answer loses."""

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError


@torch.no_grad()
def occlusion(
    target: Target, *, seed: int = 0, window: float = 1 / 8, stride: float = 1 / 16, batch: int = 32
) -> Tensor:
    """Saliency (h, w): mean loss of f, in nats, over the windows that cover a pixel.

    A window is `window` of each side and moves by `stride` of it; covered pixels show the baseline.
    Deterministic; one forward pass a window (225).
    """
    if not (0 < window <= 1 and 0 < stride <= window):
        raise StudyError(
            f"occlusion needs 0 < stride <= window <= 1, not stride={stride}, window={window}: "
            "with a longer stride some pixels would never be covered."
        )
    boxes = windows(target.size, window, stride)
    full = target.score(target.image)
    loss, times = (target.image.new_zeros(target.size) for _ in range(2))
    size = target.micro_batch(batch)
    for first in range(0, len(boxes), size):
        some = boxes[first : first + size]
        images = target.image.repeat(len(some), 1, 1, 1)
        for image, (rows, columns) in zip(images, some, strict=True):
            image[:, rows, columns] = target.baseline[0, :, rows, columns]
        for (rows, columns), drop in zip(some, full - target.score(images), strict=True):
            loss[rows, columns] += drop
            times[rows, columns] += 1
    return (loss / times).cpu()


def windows(size: tuple[int, int], window: float, stride: float) -> list[tuple[slice, slice]]:
    """Windows that cover every pixel, the last of each axis flush with the border."""
    axes = []
    for n in size:
        length, step = max(1, round(n * window)), max(1, int(n * stride))
        starts = list(range(0, n - length, step)) + [n - length]
        axes.append([slice(start, start + length) for start in starts])
    return [(rows, columns) for rows in axes[0] for columns in axes[1]]
