"""A whole sentence, word by word: where the model looked for each part of its answer.

The picture, the answer and the two scored passes are shared; each word then gets a map of its own
from the same method, so the maps differ by the word alone.
"""

from collections.abc import Callable

from torch import Tensor, eye

from ..answers import make_target, retarget, token_spans, tokens_within
from ..errors import StudyError
from ..models import Answer, with_model
from ..models.words import word_spans
from ..pixels.arguments import check_seed, choice
from . import METHODS, check_method, explain_target
from .base import Explanation, check_options


@with_model
def explain_tokens(
    model,
    image,
    question: str | None = None,
    method: str = "igos",
    by: str = "word",
    seed: int = 0,
    baseline="blur",
    answer: Answer | str | None = None,
    **options,
) -> tuple[Explanation, ...]:
    """One Explanation for every word of the answer, in reading order; or for every token.

    `by="word"` takes words with all their tokens and leaves punctuation out (an emoji is a word;
    without spaces, as in Chinese, the tokenizer's pieces are), `by="token"` takes each token that
    shows. `reliance.words` of each names it. Words that the picture hardly changes
    ("is") have the status "no_gap": their maps show little but noise. `answer` may be any text; by
    default it is the model's own. `options` go to the method,
    which runs once a word. Raises StudyError for unknown names and an answer without words.
    """
    method, by = check_method(method), choice(by, "part of an answer", PARTS)
    options, seed = check_options(method, METHODS[method], options), check_seed(seed)
    ask = {"baseline": baseline, "answer": answer, "tokens": "all", "seed": seed}
    target = make_target(model, image, question, **ask)
    parts = PARTS[by](target.answer)
    if not parts:
        raise StudyError(f"The answer {target.answer.text!r} has no {by} to explain.")
    targets = (retarget(target, part) for part in parts)
    return tuple(explain_target(method, target, seed=seed, **options) for target in targets)


def word_masks(answer: Answer) -> list[Tensor]:
    """The tokens (A,) bool of every word (see `words.word_spans`).

    Words that share a token are taken together: so where a script has no spaces, the tokenizer's
    own pieces part it, but never inside a sign.
    """
    masks: list[Tensor] = []
    for span in word_spans(answer.text):
        mask = tokens_within(answer, [span])
        if masks and bool((masks[-1] & mask).any()):
            masks[-1] = masks[-1] | mask
        else:
            masks.append(mask)
    return [mask for mask in masks if mask.any()]


def token_masks(answer: Answer) -> list[Tensor]:
    """Every token that has visible text, alone, (A,) bool."""
    single = eye(len(answer.token_ids)).bool()
    spans = token_spans(answer)
    return [one for one, (start, end) in zip(single, spans, strict=True) if end > start]


PARTS: dict[str, Callable[[Answer], list[Tensor]]] = {"word": word_masks, "token": token_masks}
