"""What a detector sees: boxes with names, how good they are, and a picture of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import StudyError
from ..metrics.localisation import pairwise_iou
from ..models import with_model
from ..models.owl import corners
from ..pixels.images import load_image, to_tensor


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found, surest first: boxes (n, 4) x0 y0 x1 y1 in image pixels."""

    boxes: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)  # (n,) in [0, 1]
    labels: tuple[str, ...]


@with_model
def detect(model, image, queries: Sequence[str] | None = None, threshold: float = 0.3):
    """Boxes of a joint model's detector whose best query scores at least `threshold`.

    `queries` default to the names that the model lists. Raises StudyError without any.
    """
    names = query_names(model, queries)
    x = to_tensor(load_image(image))
    with torch.no_grad():
        shared = model.shared(model.bind(x.shape[-2:], "What is shown?"), x)
        logits, boxes = model.detector.predict(shared, model.detector.queries(names))
    best, label = logits[0].float().sigmoid().cpu().max(-1)
    order = best.argsort(descending=True)
    order = order[best[order] >= threshold]
    scale = torch.tensor([x.shape[-1], x.shape[-2]] * 2)
    found = corners(boxes[0].float().cpu()).clamp(0, 1)[order] * scale
    labels = tuple(names[i] for i in label[order].tolist())
    return Detections(found.numpy(), best[order].numpy(), labels)


def query_names(model, queries: Sequence[str] | None) -> list[str]:
    """The names to look for: given, or the model's own. StudyError if there are none."""
    if getattr(model, "detector", None) is None:
        raise StudyError(
            f"{model.name} has no detector; use a joint model such as mini/joint, made by "
            "'lvlm-study train joint'."
        )
    names = [queries] if isinstance(queries, str) else list(queries or model.names)
    if not names:
        raise StudyError(f'{model.name} lists no names to look for; give queries=["cat", ...].')
    return names


def confidences(model, shared: Tensor, queries: Tensor) -> Tensor:
    """The detector's highest score for each query anywhere in the picture: (B, Q) in [0, 1]."""
    logits, _ = model.detector.predict(shared, queries)
    return logits.float().sigmoid().amax(1)


def box_picture(image, found, threshold: float = 0.5, ax=None):
    """Draw a detector's boxes by how far they are aligned with an answer; returns the axes.

    `found` is what `gradient_alignment.alignments` gives. The line is the thicker the more the
    box's class is aligned; its colour mixes red for the alignment of its width with blue for that
    of its height. Only boxes with a detector score of `threshold` or more are drawn, each with its
    best query and its cosine. Raises StudyError if there is none.
    """
    import matplotlib.pyplot as plt

    score, label = found.confidence.max(-1)
    if not (score >= threshold).any():
        raise StudyError(
            f"The detector has no box for {', '.join(found.queries[:5])} with a score of "
            f"{threshold:g} or more (the highest is {float(score.max()):.2f}); lower the threshold "
            "or name what is shown."
        )
    rgb = load_image(image)
    ax = ax or plt.subplots(figsize=(4, 4 * rgb.shape[0] / rgb.shape[1]))[1]
    ax.imshow(rgb)
    ax.set_axis_off()
    thick = found.weights("class")
    size = (found.coords[:, 2:] - found.coords.min()) / np.ptp(found.coords.numpy()).clip(1e-12)
    for i in (score >= threshold).nonzero()[:, 0].tolist():
        x0, y0, x1, y1 = (found.boxes[i].numpy() * np.tile(rgb.shape[1::-1], 2)).tolist()
        wide, high = size[i].clamp(0, 1).tolist()
        line = 0.5 + 4 * float(thick[i])
        box = plt.Rectangle(
            (x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=line, edgecolor=(wide, 0.1, high)
        )
        ax.add_patch(box)
        cosine = float(found.classes[i, label[i]])
        text = f"{found.queries[label[i]]} {cosine:+.2f}"
        behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        ax.text(x0, y0 - 8, text, fontsize=8, color=(wide, 0.1, high), bbox=behind)
    return ax


def average_precision(pictures: Sequence[tuple], overlap: float = 0.5) -> float:
    """Area under the precision-recall curve of one class over pictures; NaN if it never occurs.

    Each picture gives scores (n,), boxes (n, 4) and true boxes (m, 4). From the highest score on, a
    box is right if it overlaps a true one that no earlier box has claimed. Precision is made
    monotone first, as is usual (area under all points, not at eleven).
    """
    marks, total = [], 0
    for scores, boxes, true in pictures:
        total += len(true)
        marks += _marks(np.asarray(scores), np.asarray(boxes), np.asarray(true), overlap)
    if total == 0:
        return float("nan")
    right = np.array([hit for _, hit in sorted(marks, key=lambda m: -m[0])], float)
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * right).sum() / total)


def _marks(scores, boxes, true, overlap) -> list[tuple[float, bool]]:
    """(score, right or wrong) of every box of one picture."""
    iou = pairwise_iou(boxes, true) if len(true) else np.zeros((len(boxes), 0))
    free, out = np.ones(len(true), bool), []
    for i in np.argsort(-scores, kind="stable"):
        best = int(np.argmax(np.where(free, iou[i], -1))) if free.any() else -1
        hit = best >= 0 and iou[i, best] >= overlap
        if hit:
            free[best] = False
        out.append((float(scores[i]), bool(hit)))
    return out
