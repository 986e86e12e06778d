"""Relative attention: where the answer attends more than the answer to any question would.

Attention goes to some places whatever is asked. The same picture with a question about nothing in
particular shows which; dividing by it leaves what this question added.
Source: Zhang et al. 2025, "MLLMs Know Where to Look", arXiv 2502.17422, section 4 (Rel-Att).
"""

import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from .heads import localisation_heads, looks
from .token_maps import paint
from .watch import answer_rows, checked, decoder_attention

NEUTRAL = "Write a general description of the image."  # the paper's
FLOOR = 1e-3  # of an even share: what a token gets at least from the neutral question
HEADS = ("mean", "localisation")


def relative_attention(
    target: Target,
    *,
    seed: int = 0,
    layer: int | None = None,
    heads: str = "mean",
    count: int = 3,
    sinks: float | None = None,
) -> Tensor:
    """Saliency (H, W): attention of the answer's rows over that of a neutral question's answer.

    1 means as much of the attention that the image gets as without a question. Rows are those that
    predict the crucial tokens; for the neutral question, the one that predicts its first word.
    `layer` is one decoder layer (negative: from the top), None the mean of all. `heads` is "mean",
    or "localisation": the `count` heads that look at one place (see `heads.localisation_heads`),
    chosen under the question and taken under both. `sinks=20` first takes visual sinks out (see
    `heads.looks`). A model that attends alike whatever is asked has a map of 1. Two forward passes.
    """
    bound = target.bound
    modules = decoder_attention(bound, "relative_attention")
    if layer is not None:
        modules = [modules[checked(layer, len(modules), "relative_attention")]]
    if heads not in HEADS or count < 1 or (sinks is not None and sinks <= 0):
        raise StudyError(
            f"relative_attention takes heads of {', '.join(HEADS)}, count >= 1 and sinks > 0, not "
            f"{heads!r}, {count} and {sinks}."
        )
    ids = target.answer.token_ids[: int(target.crucial.nonzero()[-1]) + 1]
    neutral = bound.adapter.bind(bound.size, NEUTRAL)
    last = torch.tensor([neutral.prompt_ids.shape[1] - 1])
    asked = looks(bound, modules, target.image, ids, answer_rows(target), sinks)
    general = looks(neutral, modules, target.image, ids[:1], last, sinks)
    asked, general = asked.flatten(0, 1), general.flatten(0, 1)  # (heads of all layers, N)
    if heads == "localisation":
        chosen = localisation_heads(asked, bound.token_boxes, count)
        asked, general = asked[chosen], general[chosen]
    return paint(bound, ratio(asked.mean(0), general.mean(0)))


def ratio(asked: Tensor, general: Tensor) -> Tensor:
    """Shares of the image's attention (N,), one over the other.

    StudyError where the rows cannot see the image.
    """
    if asked.sum() <= 0 or general.sum() <= 0:
        raise StudyError(
            "In the layers that relative_attention was asked for, the answer attends to no visual "
            "token that is no sink; name other layers, or none for all."
        )
    even = 1 / len(general)
    return (asked / asked.sum()) / (general / general.sum()).clamp(min=FLOOR * even)
