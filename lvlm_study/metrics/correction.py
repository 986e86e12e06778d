"""How much must be taken away until a wrong answer comes right? EAGLE's two measures.

A map of a wrong answer should point at what misled the model. Its units are taken away from the
most important down and the model is asked again each time; the smallest removed area after which
the answer is right is the map's correction region, 1 where there is none. AMCR is the mean of these
areas, CSR@10 % the share of answers that come right within a tenth of the picture.
Chen et al. 2025, "Where MLLMs Attend and What They Rely On" (EAGLE, arXiv 2509.22496), as its
released evaluation computes them: 64 steps, at least one of them left. It fills with black and
ranks single pixels (its own maps: superpixels); fill and units are here those of deletion.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from ..heatmaps.base import Explanation
from ..models.alone import alone
from ..pixels.arguments import check_seed, whole
from .faithfulness import MOST_STEPS, ranks_of, step_counts
from .statistics import Estimate, estimate, share

STEPS = 64
BUDGET = 0.1  # of the picture


def correction_region(
    explanation: Explanation,
    right: Callable[[str], bool],
    steps: int = STEPS,
    units: str | np.ndarray = "grid",
    fill=None,
    batch: int = 16,
    seed: int = 0,
) -> float:
    """The smallest area, 0 .. 1, that the map takes away and the answer is right; 1 for none.

    `right(text)` judges an answer, as `lambda text: judge(text, item) == "correct"`. `units`,
    `fill` and `seed` as in `deletion_insertion` ("road" apart). One forward pass a step finds the
    pictures on which the model no longer says the same, and one of each other answer is generated.
    NaN without a map or a token to explain. Raises StudyError for an answer that is right as it is.
    """
    steps, batch, seed = (
        whole(steps, "steps", 1, MOST_STEPS),
        whole(batch, "batch", 1),
        check_seed(seed),
    )
    target = explanation.target
    if right(target.answer.text):
        raise StudyError(
            f"The answer {target.answer.text!r} is right; there is nothing to correct."
        )
    if target.status != "ok" or not np.isfinite(explanation.saliency).all():
        return np.nan
    rank, area = ranks_of(explanation.saliency, target, units, seed)
    empty = target.baseline if fill is None else target.fill(fill, seed)
    place = torch.from_numpy(rank).to(target.image.device)
    counts = torch.from_numpy(step_counts(len(area) - 1, steps)[1:-1])  # a part always stays
    with alone(target.bound.adapter):
        for some in counts.split(target.micro_batch(batch)):
            gone = place < some.to(place.device)[:, None, None, None]  # (B, 1, h, w)
            pictures = torch.where(gone, empty, target.image)
            found = _first_right(target, pictures, right)
            if found is not None:
                return float(area[some[found]])
    return 1.0


def amcr(regions: Sequence[float]) -> Estimate:
    """Average minimal correction region with its interval; low is good, NaN is left out."""
    return estimate(regions)


def csr(regions: Sequence[float], budget: float = BUDGET, compat: str | None = None) -> dict:
    """Per cent of answers corrected within `budget` of the area (see `share`); high is good.

    `compat="paper_code"` leaves out answers that nothing corrects, as the released evaluation does:
    a map that corrects one answer of a hundred, with little, then has 100 %.
    """
    found = np.asarray(regions, float)
    found = found[found < 1 if compat == "paper_code" else ~np.isnan(found)]
    return share(int((found <= budget + 1e-9).sum()), len(found))


def _first_right(target: Target, pictures: Tensor, right: Callable[[str], bool]) -> int | None:
    """The number of the first picture whose answer is right; None for none.

    A pass is cheaper than an answer, so pictures that say what was already judged are not asked.
    """
    waiting = _says_other(target, pictures, target.answer.token_ids).nonzero()[:, 0]
    while len(waiting):
        first, rest = int(waiting[0]), waiting[1:]
        ids = target.bound.adapter.generate(target.bound, pictures[first : first + 1]).cpu()
        if right(target.bound.adapter.tokenizer.decode(ids).strip()):
            return first
        waiting = rest[_says_other(target, pictures[rest], ids)] if len(rest) else rest
    return None


@torch.no_grad()
def _says_other(target: Target, pictures: Tensor, ids: Tensor) -> Tensor:
    """(B,) bool: whether the greedy answer is another one than these tokens (A,) and its end."""
    ids = torch.cat([ids, ids.new_tensor([target.bound.adapter.tokenizer.eos_token_id])])
    said = target.bound.logits(pictures, ids).argmax(-1).cpu()  # (B, A + 1)
    return (said != ids).any(1)
