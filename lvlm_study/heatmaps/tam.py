"""TAM: what the visual tokens would say, less what the text before the word explains.

Read the language model's last hidden state at every visual token with the word's row of the output
matrix: how strongly would this token say that word? Earlier words light up the same places; their
maps, weighted by how strongly the text at them would say the word, are fitted to it by least
squares and taken away. Li et al. 2025, "Token Activation Map", arXiv 2506.23270.

As in the released code, an earlier word of the answer is heard at the position that predicts it,
one before its own, and a word of the prompt at its own. At the position that predicts the explained
word stands that word's own score, which belongs to no earlier word of the answer. Otherwise than
there: every word of the prompt counts that is no special token; the first word of an answer gets
its own map (there that of the first word of the prompt); maps are not rounded to 1/255; and those
of several words are joined, as one target of several tokens needs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from .token_maps import has_area, paint
from .watch import require_inside

COMBINE = ("sum", "mean")


@torch.no_grad()
def tam(
    target: Target, *, seed: int = 0, causal: bool = True, kernel: int = 3, combine: str = "mean"
) -> Tensor:
    """Saliency (H, W) >= 0, high = important, by one forward pass over prompt and answer.

    For a crucial token i: A_i = ReLU(h_v . W[i]) over visual tokens v, likewise A_j for every
    earlier word j of prompt and answer that is no special token and reads differently;
    T_i = ReLU(A_i - s A), A the mean of the A_j weighted by ReLU(h_n . W[i]), s the least-squares
    scale; n is j for a word of the prompt and j - 1, where it is predicted, for one of the answer.
    T_i is stretched to [0, 1] together with those weights and each view is smoothed by a
    rank-Gaussian filter of side `kernel` (1: none). `causal=False` leaves out the subtraction.
    The crucial tokens' maps are joined by their mean, or sum. Deterministic; no gradient.

    In the paper's words: estimated causal inference (A, s, T_i) and the rank Gaussian filter.

    The filter takes away single tokens, and with them objects no larger than one token's box. A
    word that no visual token would say, by its logit, leaves a map of zeros.
    """
    bound = target.bound
    require_inside(bound, "tam")
    if kernel < 1 or kernel % 2 == 0 or combine not in COMBINE:
        raise StudyError(
            f"tam needs an odd kernel and combine of {', '.join(COMBINE)}, "
            f"not {kernel} and {combine!r}."
        )
    reading = Reading(target)
    scores = torch.stack([_one_map(reading, k, causal, kernel) for k in reading.places])
    scores = scores.sum(0) if combine == "sum" else scores.mean(0)
    return paint(bound, scores)


class Reading:
    """Hidden states of one teacher-forced pass, and the rows of the output matrix of its words."""

    def __init__(self, target: Target):
        bound, adapter = target.bound, target.bound.adapter
        last = int(target.crucial.nonzero()[-1])
        answer = target.answer.token_ids[: last + 1]
        hidden = bound.run(target.image, answer, output_hidden_states=True).hidden_states[-1][0]
        self.boxes = bound.token_boxes
        length = self.length = bound.prompt_ids.shape[1]  # P
        self.ids = torch.cat([bound.prompt_ids[0].cpu(), answer.cpu()])  # (P + A,)
        self.places = (length + target.crucial.nonzero()[:, 0]).tolist()
        span = bound.image_span.cpu()
        self.words = adapter.tokenizer.convert_ids_to_tokens(self.ids.tolist())
        special = set(adapter.tokenizer.all_special_ids) | {adapter.image_token_id}
        text = [n for n, i in enumerate(self.ids.tolist()) if i not in special]
        self.text = torch.tensor(text)  # positions of words, prompt and answer
        self.visual = hidden[: len(span)][span.to(hidden.device)]  # (N, D)
        self.hidden, self.head = hidden, adapter.model.get_output_embeddings()

    def says(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """ReLU of the logits of `ids` (T,) at hidden states (n, D): (n, T) float32."""
        weight, bias = self.head.weight, self.head.bias
        bias = None if bias is None else bias[ids.to(bias.device)]
        rows = weight[ids.to(weight.device)]
        return F.linear(hidden.to(rows.device), rows, bias).float().relu()

    def context(self, place: int) -> Tensor:
        """Positions of the words before `place` that read differently, first occurrence or not."""
        word = _plain(self.words[place])
        earlier = [n for n in self.text.tolist() if n < place and _plain(self.words[n]) != word]
        return torch.tensor(earlier, dtype=torch.long)

    def heard(self, words: Tensor) -> Tensor:
        """Hidden states (C, D) of `words` (C,): of the answer's where they are predicted."""
        return self.hidden[words - (words >= self.length).long()]


def _one_map(reading: Reading, place: int, causal: bool, kernel: int) -> Tensor:
    """Scores (N,) of one answer token, in [0, 1] before smoothing."""
    own = reading.ids[place : place + 1]
    found = reading.says(reading.visual, own)[:, 0]  # (N,)
    context = reading.context(place)
    weights = reading.says(reading.heard(context), own)[:, 0]  # (C,)
    if causal:
        maps = reading.says(reading.visual, reading.ids[context])  # (N, C)
        found = subtract(found, maps, weights)
    found = joint_range(found, weights)
    return smooth(found.cpu(), reading.boxes, kernel)


def subtract(found: Tensor, maps: Tensor, weights: Tensor) -> Tensor:
    """ReLU(A - s B): A (N,) less what B, the mean of `maps` (N, C) by `weights` (C,), explains.

    s = <A, B> / <B, B> makes the rest as small as a multiple of B can.
    """
    if weights.sum() <= 0:
        return found
    mean = maps @ (weights / weights.sum())  # (N,)
    square = mean @ mean
    return found if square <= 0 else (found - (found @ mean) / square * mean).relu()


def joint_range(found: Tensor, text: Tensor) -> Tensor:
    """Visual scores (N,) stretched so that they and the text scores together span [0, 1]."""
    both = torch.cat([found, text])
    low, width = both.min(), both.max() - both.min()
    return (found - low) / width if width > 0 else torch.zeros_like(found)


def smooth(scores: Tensor, boxes: Tensor, kernel: int) -> Tensor:
    """Filter every view's grid of scores (N,) on its own; tokens without a box keep theirs."""
    out = scores.clone()
    for grid in grids(boxes):  # (r, c) token numbers
        out[grid] = rank_gaussian(scores[grid], kernel)
    return out


def rank_gaussian(grid: Tensor, kernel: int) -> Tensor:
    """Filter (r, c): every value becomes a mean of its window, weighted by rank, not by place.

    The window's sorted values get weights exp(-r^2 / 2 s^2), r the rank counted from the median
    and s = standard deviation / mean of the window: a median where values agree or are alike, a
    broader mean where they scatter. Edges are mirrored (repeated where the grid is too small).
    """
    if kernel == 1:
        return grid
    side = kernel // 2
    mode = "reflect" if min(grid.shape) > side else "replicate"
    padded = F.pad(grid[None, None].double(), [side] * 4, mode=mode)
    windows = F.unfold(padded, kernel)[0].sort(0).values  # (k * k, r * c)
    spread = windows.std(0, correction=0) / windows.mean(0).clamp(min=1e-12)
    rank = torch.arange(len(windows), dtype=torch.float64)[:, None] - len(windows) // 2
    weight = (-(rank**2) / (2 * spread.clamp(min=1e-6) ** 2)).exp()  # 1 at the median
    return ((windows * weight).sum(0) / weight.sum(0)).view_as(grid).to(grid)


def grids(boxes: Tensor) -> list[Tensor]:
    """Token numbers (r, c) of every view, read off the boxes (N, 4) in prompt order.

    A row goes on while boxes move right; a view goes on while rows move down between the same
    columns. Newline tokens and tokens that see only padding belong to none.
    """
    rows: list[list[int]] = []
    for n in has_area(boxes).nonzero()[:, 0].tolist():
        last = boxes[rows[-1][-1]] if rows else None
        right = rows and boxes[n, 0] > last[0] and boxes[n, 1] == last[1]
        rows[-1].append(n) if right else rows.append([n])
    views: list[list[list[int]]] = []
    for row in rows:
        below = views and _continues(boxes[views[-1][-1]], boxes[row])
        views[-1].append(row) if below else views.append([row])
    return [torch.tensor(view) for view in views]


def _continues(above: Tensor, row: Tensor) -> bool:
    """Whether a row of boxes (c, 4) stands below another, between the same columns."""
    same = above.shape == row.shape and torch.equal(above[:, [0, 2]], row[:, [0, 2]])
    return bool(same and row[0, 1] > above[0, 1])


def _plain(token: str) -> str:
    """A vocabulary entry without its word-start mark."""
    return token.strip("▁Ġ ").strip()
