"""What an answer rests on: the image, the question's words, or the words it has already said.

Three players, eight ways to have or not to have them, all of them run: the Shapley values of each
answer token's log-probability are exact. Without the image the model sees the baseline; without
words it reads a neutral token in the place of each, so that lengths and positions stay. The
template around the question always stays. A row of padding is no sentence that the model knows: the
shares are those of this choice, and another neutral token gives others, most of all for what was
said before. Read them beside each other, not as amounts.
After MM-SHAP (Parcalabescu and Frank 2023, arXiv 2212.08158), which samples single tokens and
patches; here each modality is one player, which needs no sampling and no choice of patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..answers import Target, make_target
from ..heatmaps.attn_lrp import gradient_times_input, token_relevance
from ..heatmaps.glimpse import prompt_relevance
from ..heatmaps.shapley import exact_values
from ..heatmaps.watch import require_inside
from ..models import Answer, with_model
from ..models.alone import alone
from ..models.base import gather_log_probs
from ..models.memory import in_parts
from ..pixels.arguments import choice
from .statistics import Estimate, estimate

PLAYERS = ("image", "question", "earlier")
QUICK: dict[str, Callable[[Target], Tensor]] = {  # relevance (S,) of every token of the prompt
    "gradient": gradient_times_input,
    "attnlrp": token_relevance,
    "glimpse": prompt_relevance,
}


@dataclass(frozen=True, eq=False)
class PromptShares:
    """What each token of an answer owes to image, question and earlier words (see `PLAYERS`).

    `values` (A, 3) float64 are Shapley values in nats; a row sums to how much likelier the token is
    with everything than with nothing. The first token has no earlier words: 0.
    """

    answer: Answer
    values: Tensor = field(repr=False)  # (A, 3)

    @property
    def shares(self) -> Tensor:
        """|value| by the sum of a token's three, (A, 3); NaN for a token that owes nothing."""
        size = self.values.abs()
        return size / size.sum(1, keepdim=True)

    def mean(self, tokens: Tensor | None = None) -> dict[str, Estimate]:
        """Mean share of each player over the tokens, or over those marked (A,) bool.

        The interval is that of drawing tokens anew.
        """
        return _estimates(self.shares if tokens is None else self.shares[tokens])


@with_model
def prompt_shares(
    model, image, question: str | None = None, answer=None, baseline="blur", seed: int = 0
) -> PromptShares:
    """Shapley values of image, question and earlier answer words for every token of the answer.

    `answer` may be any text, by default what the model says; `image` may be a benchmark item, which
    brings its question. Without the image the model sees `baseline` (see `make_baseline`); without
    words it reads its padding token. Eight forward passes. Raises StudyError for a model that is no
    network of transformers.
    """
    target = make_target(model, image, question, baseline, answer, tokens="all", seed=seed)
    require_inside(target.bound, "prompt_shares")
    with alone(target.bound.adapter), torch.no_grad():
        values = exact_values(lambda sets: _scores(target, sets), PLAYERS)  # (3, A)
    return PromptShares(target.answer, values.mT)


def quick_shares(target: Target, by: str = "gradient") -> dict[str, float]:
    """Share of each player for f, from one or two backward passes: a quick view.

    Sizes of relevance are summed over a player's tokens: "gradient" times input, "attnlrp" or
    "glimpse". It is not the same question: many small relevances count here that cancel there.
    """
    by = choice(by, "way to share", QUICK)
    require_inside(target.bound, "quick_shares")
    with alone(target.bound.adapter):
        size = QUICK[by](target).abs()  # (S,)
    prompt = target.bound.prompt_ids.shape[1]
    places = (target.bound.image_span.nonzero()[:, 0].cpu(), question_places(target.bound))
    sums = [float(size[at].sum()) for at in places] + [float(size[prompt:].sum())]
    return {name: x / max(sum(sums), 1e-30) for name, x in zip(PLAYERS, sums, strict=True)}


def average(found: Sequence[PromptShares]) -> dict[str, Estimate]:
    """Mean share of each player over answers, each the mean over its tokens.

    The interval is that of drawing answers anew. Tokens that owe nothing are left out.
    """
    rows = [np.nanmean(one.shares.numpy(), axis=0) for one in found if one.values.any()]
    return _estimates(torch.tensor(np.array(rows).reshape(-1, len(PLAYERS))))


def question_places(bound) -> Tensor:
    """Positions (Q,) of the question's words in the prompt: what changes with the question."""
    own, adapter = bound.prompt_ids[0].tolist(), bound.adapter
    others = [adapter.bind(bound.size, q).prompt_ids[0].tolist() for q in ("0", "#")]
    start = min(_shared(own, other) for other in others)
    end = min(_shared(own[::-1], other[::-1]) for other in others)
    at = torch.arange(start, len(own) - end)
    return at[~bound.image_span.cpu()[at]]


def _shared(one: list[int], other: list[int]) -> int:
    """How many ids two prompts share at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def neutral_token(tokenizer) -> int:
    """A token that says nothing: padding, or what stands in for it."""
    known = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id)
    return next(i for i in known if i is not None)


def _scores(target: Target, sets: Sequence[frozenset]) -> Tensor:
    """Log-probabilities (n, A) of the answer's tokens with the players of each set, float64."""
    bound, ids = target.bound, target.answer.token_ids
    neutral, pictures = neutral_token(bound.adapter.tokenizer), (target.baseline, target.image)
    silent = bound.prompt_ids.clone()
    silent[0, question_places(bound).to(silent.device)] = neutral
    known = {}
    for asked in (False, True):
        heard = replace(bound, prompt_ids=bound.prompt_ids if asked else silent)
        for said in (False, True):
            shown = ids if said else torch.full_like(ids, neutral)
            found = in_parts(
                bound,
                "forward",
                lambda x, heard=heard, shown=shown: gather_log_probs(heard.logits(x, shown), ids),
                torch.cat(pictures),
            )
            known |= {(bool(k), asked, said): found[k] for k in (0, 1)}
    return torch.stack([known[tuple(p in s for p in PLAYERS)] for s in sets]).double().cpu()


def _estimates(shares: Tensor) -> dict[str, Estimate]:
    return {name: estimate(x.numpy()) for name, x in zip(PLAYERS, shares.mT, strict=True)}
