"""Weakly supervised localisation: does a map's outline hold the object it explains?

MaxBoxAccV2 (Choe et al. 2020, "Evaluating Weakly Supervised Object Localization Methods Right"): a
map is cut at a threshold, a box is drawn around each connected part, and the picture counts as
found if one of them overlaps a true box well enough. One threshold serves all pictures, the best
one, and the score is the mean over three overlaps. It asks for no calibrated maps, and it favours
methods whose best threshold is the same everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import StudyError
from .statistics import Estimate, estimate

OVERLAPS = (0.3, 0.5, 0.7)
STEPS = 100  # thresholds tried


@dataclass(frozen=True, eq=False)
class Localisation:
    """`max_box_acc` in [0, 1], mean over overlaps; and where it was reached.

    `best` maps an overlap to (share of pictures found, threshold); `found` (pictures, overlaps)
    says which pictures are found there. `interval` is a bootstrap over pictures with thresholds
    kept, so it does not know that they were chosen to be the best.
    """

    max_box_acc: float
    best: dict[float, tuple[float, float]]
    interval: Estimate
    found: np.ndarray = field(repr=False)


def max_box_acc(
    maps: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    overlaps: Sequence[float] = OVERLAPS,
    steps: int = STEPS,
) -> Localisation:
    """MaxBoxAccV2 of maps (H, W) against true boxes (m, 4) x0 y0 x1 y1 in their pixels.

    Every map is stretched to [0, 1] first, as the measure says; a constant map finds nothing but
    the whole picture. Raises StudyError if maps and boxes do not match or a picture has no box.
    """
    if len(maps) != len(boxes) or not len(maps):
        raise StudyError(f"{len(maps)} maps need as many sets of boxes, not {len(boxes)}.")
    best_iou = np.stack([best_overlaps(m, b, steps) for m, b in zip(maps, boxes, strict=True)])
    best, found = {}, []
    for overlap in overlaps:
        share = (best_iou >= overlap).mean(0)  # (steps,)
        at = int(share.argmax())
        best[overlap] = (float(share[at]), at / steps)
        found.append(best_iou[:, at] >= overlap)
    found = np.stack(found, 1)
    value = float(np.mean([share for share, _ in best.values()]))
    return Localisation(value, best, estimate(found.mean(1)), found)


def best_overlaps(saliency: np.ndarray, boxes: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """For each threshold 0, 1/steps, ... the best IoU of any part's box with any true one."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    if len(boxes) == 0:
        raise StudyError("A picture without a true box cannot be localised; leave it out.")
    scaled = stretched(saliency)
    return np.array(
        [pairwise_iou(part_boxes(scaled >= t / steps), boxes).max() for t in range(steps)]
    )


def part_boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) x0 y0 x1 y1 around the connected parts (8 neighbours) of a mask (H, W)."""
    labelled, _ = ndimage.label(mask, np.ones((3, 3)))
    found = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labelled)]
    return np.array(found, float).reshape(-1, 4)


def stretched(saliency: np.ndarray) -> np.ndarray:
    """A map stretched to [0, 1]; a constant one becomes 1 everywhere. StudyError for NaN."""
    saliency = np.asarray(saliency, float)
    if saliency.ndim != 2 or not np.isfinite(saliency).all():
        raise StudyError(f"A map must be (H, W) and finite, not {saliency.shape}.")
    low, high = saliency.min(), saliency.max()
    return (saliency - low) / (high - low) if high > low else np.ones_like(saliency)


def evidence_boxes(evidence: np.ndarray) -> np.ndarray:
    """Boxes around the parts of an evidence mask (H, W): the truth where an item has no boxes."""
    return part_boxes(np.asarray(evidence, bool))


def two_choice(
    map_a: np.ndarray, map_b: np.ndarray, evidence_a: np.ndarray, evidence_b: np.ndarray
) -> float:
    """The seed's user study without users: which map explains A and which B?

    1 if the maps as labelled put more mean saliency on the right evidence than swapped ones, 0 if
    less, 0.5 if it is equal (as for one map shown twice). Every map is stretched to [0, 1] first,
    as people see it. Chance is 0.5.
    """
    a, b = stretched(map_a), stretched(map_b)
    for name, evidence in (("A", evidence_a), ("B", evidence_b)):
        if not np.any(evidence):
            raise StudyError(
                f"The evidence of {name} is empty, so nothing can tell the maps apart."
            )
    right = a[evidence_a].mean() + b[evidence_b].mean()
    swapped = a[evidence_b].mean() + b[evidence_a].mean()
    return 0.5 if np.isclose(right, swapped) else float(right > swapped)


def pairwise_iou(a, b):
    """Intersection over union of every box in `a` (n, 4) with every one in `b` (m, 4): (n, m).

    Corners x0 y0 x1 y1, both arrays or both tensors; boxes of zero area overlap nothing.
    """
    kind = torch if isinstance(a, Tensor) else np
    low = kind.maximum(a[:, None, :2], b[None, :, :2])
    high = kind.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clip(0).prod(-1)
    area = [(x[:, 2:] - x[:, :2]).clip(0).prod(-1) for x in (a, b)]
    either = area[0][:, None] + area[1][None] - both
    return both / either.clip(1e-12)
