"""Do a ranking of the picture and one of the question's words find what the two say *together*?

A model that can answer from either alone makes deletion and insertion of one of them misleading:
taking a decisive region away changes nothing while the words suffice. So the first k of both
rankings are put in, or taken out, at once, and what each does alone is subtracted. What is left is
the Harsanyi dividend of the two sets: positive where both are needed, negative where either does.
F_syn of Ky, Cordy and Ghamizi 2026, "Measuring Cross-Modal Synergy" (arXiv 2605.22168); the
constants are those of its released evaluation. Ours are the explained tokens (the crucial ones,
not chosen anew), the cells of the grid instead of single pixels, and words that are read as
padding instead of being hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from ..heatmaps.base import full_size
from ..heatmaps.token_maps import paint
from ..heatmaps.watch import require_inside
from ..models.alone import alone
from ..pixels.arguments import check_seed, whole
from .faithfulness import ranks_of, removal_order, token_log_probs
from .prompt import neutral_token, question_places

SHARES = np.linspace(0, 1, 11)  # of the units of either ranking
LEAST_SPAN = 0.05  # of probability; what is divided by


@dataclass(frozen=True, eq=False)
class Synergy:
    """F_syn and, from the same passes, insertion - deletion of each ranking alone.

    `insertion` and `deletion` are the dividends (S,) at every share, in probability. For `image`
    the whole question stays and for `words` the whole picture. The probability is the geometric
    mean over the explained tokens, with everything (`full`) and with nothing (`empty`).
    """

    insertion: np.ndarray = field(repr=False)  # (S,)
    deletion: np.ndarray = field(repr=False)  # (S,)
    shares: np.ndarray = field(repr=False)  # (S,)
    image: float
    words: float
    full: float
    empty: float

    @property
    def score(self) -> float:
        """F_syn, 0 .. 1, high is good: both curves' mean area, each clipped to [0, 1]."""
        return self._area(np.clip(self._curves(), 0, 1))

    @property
    def unclipped(self) -> float:
        """The same without clipping: below 0 where picture and question stand in for each other."""
        return self._area(self._curves())

    def _curves(self) -> np.ndarray:
        return np.stack([self.insertion, self.deletion]) / _span(self.full, self.empty)

    def _area(self, curves: np.ndarray) -> float:
        return float(np.trapezoid(curves.mean(0), self.shares))


def synergy(
    target: Target, relevance: Tensor, shares=SHARES, fill=None, batch: int = 32, seed: int = 0
) -> Synergy:
    """Score one ranking of all tokens of the prompt, of visual tokens and of the question's words.

    `relevance` (S,) is of every token, high = important, as `prompt.QUICK` gives it; noise in its
    place is the control. Its visual tokens are painted on the picture and ranked by cells; the
    first round(share x number) of cells and of words count as important. `fill` as in
    `deletion_insertion` ("road" apart). About 90 forward passes. Raises StudyError for a model that
    is no network of transformers, and for relevance of another prompt.
    """
    batch, seed, bound = whole(batch, "batch", 1), check_seed(seed), target.bound
    require_inside(bound, "synergy")
    if len(relevance) < bound.prompt_ids.shape[1]:
        raise StudyError(
            f"The prompt has {bound.prompt_ids.shape[1]} tokens and {len(relevance)} relevances; "
            "give those of the same target."
        )
    cells = paint(bound, relevance[bound.image_span.nonzero()[:, 0].cpu()], amount=True)
    rank, area = ranks_of(full_size(cells, tuple(bound.size)), target, seed=seed)
    place = torch.from_numpy(rank).to(target.image.device)
    empty = target.baseline if fill is None else target.fill(fill, seed)
    first = _counts(shares, len(area) - 1).to(place.device)[:, None, None, None]
    shown = torch.where(place < first, target.image, empty)  # (S, 3, h, w)
    hidden = torch.where(place < first, empty, target.image)
    at = question_places(bound)
    order = removal_order(relevance[at].numpy(), seed).argsort()  # (Q,) 0 = most important
    kept = torch.from_numpy(order) < _counts(shares, len(at))[:, None]  # (S, Q)

    def value(pictures: Tensor, words: Tensor) -> np.ndarray:
        ids = bound.prompt_ids.clone()
        ids[0, at[~words].to(ids.device)] = neutral_token(bound.adapter.tokenizer)
        heard = replace(target, bound=replace(bound, prompt_ids=ids))
        return token_log_probs(heard, pictures, batch).double().mean(-1).exp().numpy()

    with alone(bound.adapter):
        return joint(value, shown, hidden, kept, np.asarray(shares, float))


def joint(
    value: Callable[[Tensor, Tensor], np.ndarray],
    shown: Tensor,
    hidden: Tensor,
    kept: Tensor,
    shares: np.ndarray = SHARES,
) -> Synergy:
    """The scores from `value(pictures (B, ...), words (Q,) bool) -> probabilities (B,)`.

    `shown[s]` is the picture with the first share s of its units alone and `hidden[s]` without
    them; `kept[s]` marks the first share of the words. The shares run from 0 to 1.
    """
    asked = value(torch.cat([shown, hidden]), kept[-1]).reshape(2, -1)  # with the whole question
    silent = value(shown, kept[0])  # (S,)
    blank, whole_picture = shown[:1], shown[-1:]

    def beside(picture: Tensor, words: Tensor, others: Tensor) -> np.ndarray:
        return value(torch.cat([picture[None], others]), words)

    put = [
        beside(x, w, torch.cat([blank, whole_picture])) for x, w in zip(shown, kept, strict=True)
    ]
    out = [beside(x, ~w, whole_picture) for x, w in zip(hidden, kept, strict=True)]
    both, words, words_in = np.array(put).T
    left, words_out = np.array(out).T
    full, empty = both[-1], both[0]
    return Synergy(
        insertion=both - silent - words + empty,
        deletion=left - asked[1] - words_out + full,
        shares=shares,
        image=_gap(*asked, full, asked[0, 0], shares),
        words=_gap(words_in, words_out, full, words_in[0], shares),
        full=float(full),
        empty=float(empty),
    )


def _gap(insertion, deletion, full: float, empty: float, shares) -> float:
    """Insertion - deletion of one ranking: areas of curves scaled and clipped to 0 .. 1."""
    curves = (np.stack([insertion, deletion]) - empty) / _span(full, empty)
    return float(np.subtract(*np.trapezoid(np.clip(curves, 0, 1), shares)))


def _span(full: float, empty: float) -> float:
    return max(abs(full - empty), LEAST_SPAN)


def _counts(shares, number: int) -> Tensor:
    return torch.tensor([round(share * number) for share in shares])
