"""GA: boxes of a detector that shares the model's sight, weighted by how far both want the same.

A detector's output and an answer's score both have a gradient at the shared tokens. Where the two
point the same way, what would make the model surer of its answer would make the detector surer of
that box. The map shows at each pixel the most aligned box that covers it.
Source: Giulivi and Boracchi, "Explaining Multi-modal Large Language Models by Analyzing their
Vision Perception" (arXiv 2405.14612); written from its text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..answers import DEFAULT_STOP, Target
from ..errors import StudyError, unknown
from ..models import memory
from ..models.owl import corners
from .detector_gradients import cosines

WEIGHTS = ("class", "coord", "any")
SCALES = ("minmax", "cosine")
SCORES = ("log_prob", "logit")


@dataclass(frozen=True, eq=False)
class Alignments:
    """How far each box of the detector is aligned with an answer; N patches, Q queries.

    `classes` (N, Q) and `coords` (N, 4) are cosines in [-1, 1]; `boxes` (N, 4) x0 y0 x1 y1 and
    `confidence` (N, Q) in [0, 1] are the detector's own, boxes as shares of the picture.
    """

    queries: tuple[str, ...]
    classes: Tensor = field(repr=False)
    coords: Tensor = field(repr=False)
    boxes: Tensor = field(repr=False)
    confidence: Tensor = field(repr=False)

    def weights(self, weight: str = "class", scale: str = "minmax") -> Tensor:
        """One weight a box (N,): its best class cosine, coordinate cosine, or either.

        `scale`: "minmax" stretches classes and coordinates each to [0, 1] over all boxes, as
        published; "cosine" keeps the cosines, negative ones as 0.
        """
        if weight not in WEIGHTS:
            raise unknown("weight of ga", weight, WEIGHTS)
        if scale not in SCALES:
            raise unknown("scale of ga", scale, SCALES)
        tables = {"class": self.classes, "coord": self.coords}
        wanted = list(tables.values()) if weight == "any" else [tables[weight]]
        return torch.cat([_scaled(t, scale) for t in wanted], -1).amax(-1)


def ga(
    target: Target,
    *,
    seed: int = 0,
    queries: Sequence[str] | None = None,
    weight: str = "class",
    scale: str = "cosine",
    of: str = "log_prob",
) -> Tensor:
    """Saliency (H, W) in [0, 1]: the weight of the most aligned box over each pixel; 0 in none.

    Works on joint models only. `queries` name what the detector looks for (default: what the model
    lists, else the words of question and answer). `weight` takes class outputs, box coordinates or
    any. `scale`: "cosine" keeps the cosines, comparable between images; "minmax" stretches them to
    [0, 1] over all boxes, as published, which lifts every box that is not aligned at all to the
    middle of the scale. The answer's gradient is that of f, the crucial tokens' summed
    log-probabilities, so several tokens count together; `of="logit"` takes their summed logits, as
    published. One forward and one backward pass of the language model; all cosines by one
    forward-mode pass of the detector's last layer.
    """
    found = alignments(target, queries, of)
    return paint_boxes(found.boxes, found.weights(weight, scale), tuple(target.bound.size))


def alignments(
    target: Target, queries: Sequence[str] | None = None, of: str = "log_prob"
) -> Alignments:
    """Cosine of the answer's gradient with that of every detector output, at the shared tokens."""
    require_detector(target)
    model = target.bound.adapter
    names = tuple(usual_queries(target) if queries is None else _listed(queries))
    vectors = model.detector.queries(names)
    with torch.no_grad():
        shared = model.shared(target.bound, target.image)
        logits, boxes = model.detector.predict(shared, vectors)
    direction = answer_gradient(target, shared, of)
    found = cosines(model.detector, shared[0], direction, vectors).float().cpu()
    return Alignments(
        names,
        found[:, :-4],
        found[:, -4:],
        corners(boxes[0].float().cpu()).clamp(0, 1),
        logits[0].float().sigmoid().cpu(),
    )


def require_detector(target: Target) -> None:
    """Raise StudyError for a model that is no joint one."""
    model = target.bound.adapter
    if getattr(model, "detector", None) is None:
        raise StudyError(
            f"ga needs a model that shares its sight with a detector, and {model.name} has none; "
            "use a joint model such as mini/joint, or another method."
        )


@torch.enable_grad()
def answer_gradient(target: Target, shared: Tensor, of: str = "log_prob") -> Tensor:
    """d f / d shared tokens (1 + N, C); zero at the class token, which LLaVA never reads."""
    if of not in SCORES:
        raise unknown("score of ga", of, SCORES)
    (slope,) = memory.backward(target.bound, "gradient", partial(_slope, target, of), shared)
    return slope[0]


def _slope(target: Target, of: str, shared: Tensor) -> Tensor:
    leaf = shared.detach().requires_grad_()
    crucial = target.crucial.nonzero()[:, 0]
    ids = target.answer.token_ids[: int(crucial[-1]) + 1].to(leaf.device)
    logits = target.bound.adapter.logits_from(target.bound, leaf, ids)[0]  # (A, V)
    table = logits if of == "logit" else logits.log_softmax(-1)
    score = table.gather(-1, ids[:, None])[crucial, 0].sum()
    times = memory.steepness(score) if of == "log_prob" else 1.0
    return torch.autograd.grad(score * times, leaf)[0] / times


def usual_queries(target: Target) -> list[str]:
    """What to look for when nobody says: the model's own list, else the words that were used."""
    model = target.bound.adapter
    if model.names:
        return list(model.names)
    said = re.findall(r"[^\W\d_]+", f"{target.answer.text} {target.bound.question}".casefold())
    words = [w for w in dict.fromkeys(said) if len(w) > 2 and w not in DEFAULT_STOP]
    if not words:
        raise StudyError('Neither question nor answer names anything; give ga queries=["..."].')
    return words


def paint_boxes(boxes: Tensor, weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Map (H, W): the largest weight among the boxes (N, 4), shares of the picture, on a pixel.

    A pixel is in a box if its middle is.
    """
    height, width = size
    edges = boxes * boxes.new_tensor([width, height, width, height])
    edges = (edges - 0.5).ceil().long().clamp(min=0).tolist()
    out = torch.zeros(height, width)
    for i in weights.argsort().tolist():  # the heavier is painted over the lighter
        x0, y0, x1, y1 = edges[i]
        out[y0:y1, x0:x1] = weights[i]
    return out.clamp(min=0)


def _scaled(table: Tensor, scale: str) -> Tensor:
    if scale == "cosine":
        return table.clamp(min=0)
    low, high = table.min(), table.max()
    return (table - low) / (high - low).clamp(min=1e-12)


def _listed(queries) -> list[str]:
    return [queries] if isinstance(queries, str) else list(queries)
