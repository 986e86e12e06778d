"""Other ways to paint the same scenes, for domain shift: same places, same masks, other pixels.

A model that was trained on shaded sprites meets silhouettes ("flat") or line drawings ("outline").
Both come from the same atlas by integer operations, so they are the same bytes everywhere, and
every question keeps its answer and its evidence mask.
"""

import numpy as np

from ..errors import unknown
from .scenes import Scene, shade
from .scenes import draw as draw_painted

BODY = 70  # light above this is the sprite itself, below it the dark rim that the atlas baked
LINE = 3  # width of a contour in pixels


def flat(color: np.ndarray, light: np.ndarray) -> np.ndarray:
    """A silhouette: one tone of the colour, and the dark rim. int32 (s, s, 3)."""
    return np.where(light[..., None] >= BODY, color * 200 // 255, 0)


def outline(color: np.ndarray, light: np.ndarray) -> np.ndarray:
    """A line drawing: white paper inside a contour in the colour, and the dark rim."""
    body = light >= BODY
    paper = body
    for _ in range(LINE):
        paper = _eroded(paper)
    drawn = np.where(body[..., None], color, 0)
    return np.where(paper[..., None], 245, drawn)


STYLES = {"shaded": shade, "flat": flat, "outline": outline}


def draw(scene: Scene, style: str = "shaded") -> np.ndarray:
    """The scene in one of `STYLES` as uint8 (336, 336, 3). StudyError for an unknown style."""
    if style not in STYLES:
        raise unknown("sprite style", style, STYLES)
    return draw_painted(scene, STYLES[style])


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Where a pixel and its four neighbours are set; outside the cell nothing is."""
    m = np.pad(mask, 1)
    return mask & m[:-2, 1:-1] & m[2:, 1:-1] & m[1:-1, :-2] & m[1:-1, 2:]
