"""Which words of an answer come from the image: log-likelihood ratios and crucial tokens.

The answer is scored twice by teacher forcing, once on the image and once on a picture without
information. Words that become much less likely are the ones worth explaining (Eq. 4-7 of the
paper). A `Target` freezes that choice, so that every method explains, and every metric scores,
exactly the same thing.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from .errors import StudyError, named, short
from .models import Answer, with_model
from .models.alone import ordinary
from .models.forced import check_text
from .models.keywords import keyword_spans
from .models.several import among
from .models.token_places import places, readable
from .models.words import Span, folded, is_whole, occurrences, parts_like, stretches, whole_signs
from .pixels.arguments import asked, check_seed, number, whole, word_set
from .pixels.baselines import make_baseline
from .pixels.images import to_tensor

DEFAULT_STOP = frozenset({"the", "and", "of", "a", "an", "this", "that", "is", "with"})
THRESHOLD = 1.0  # nats; the paper gives no value, its released code uses a ratio of e
SINGLE_RATIO = math.log(2)  # nats; the released code keeps a lone token when p(baseline) <= p / 2
TOKEN_CHOICES = ("llr", "all", "keywords", "word")
LARGEST = 709.0  # nats; the exponential of more than this is no number any more
PIXELS_AT_ONCE = 6_000_000  # bound on a micro-batch, so that large photographs fit in memory


@dataclass(frozen=True, eq=False)
class Reliance:
    """How much each token of an answer depends on the image, in nats.

    `llr[t] = log p(a_t | image) - log p(a_t | baseline)` (Eq. 5, one summand), `crucial` marks the
    set K of Eq. 6, `status` is "ok" or "no_crucial_tokens". An answer can be crucial nowhere: it is
    then counted, never dropped.
    """

    answer: Answer
    llr: Tensor  # (A,) float32, nats
    crucial: Tensor  # (A,) bool
    log_probs: Tensor  # (A,) float32 on the image
    baseline_log_probs: Tensor  # (A,) float32 on the baseline
    status: str
    threshold: float = THRESHOLD
    words: tuple[str, ...] = field(default=())  # the crucial tokens, readable

    def __post_init__(self):
        object.__setattr__(self, "crucial", ordinary(self.crucial))

    @property
    def total_drop(self) -> float:
        """1 - P(a | baseline) / P(a | image): the drop behind Table 2, negative if it rises.

        Joint probabilities shrink with length, so long answers look more image-reliant; compare
        `per_token` and `crucial_share` too. Finite also where the answer rises beyond all bounds.
        """
        return -math.expm1(min(-float(self.llr.sum()), LARGEST))

    @property
    def per_token(self) -> float:
        """Mean log-likelihood ratio of a token, in nats: free of the length confound."""
        return float(self.llr.mean())

    @property
    def crucial_share(self) -> float:
        """|K| / l: the share of tokens that are crucial."""
        return float(self.crucial.float().mean())

    @property
    def gap(self) -> float:
        """Mean probability of the crucial tokens on the image minus that on the baseline.

        The range that deletion and insertion curves move in; NaN without crucial tokens.
        """
        on, off = self.log_probs[self.crucial].exp(), self.baseline_log_probs[self.crucial].exp()
        return float((on - off).mean())


@dataclass(frozen=True)
class Choice:
    """How a target was chosen, in the caller's words: for sentences about it, never for numbers."""

    baseline: str = "given"  # its name; "given": a picture of the caller's own
    tokens: str = "llr"  # one of TOKEN_CHOICES, or "numbers"
    contrast: str | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """What every method explains and every metric scores: one model, image, answer and token set.

    There always is one: where no token depends on the image, `crucial` marks none, `status` says
    "no_crucial_tokens", and asking for a score is an error. Images given to `score` and
    `probability` are (B, 3, h, w) in [0, 1], of the size of `image`.
    """

    bound: object
    image: Tensor = field(repr=False)  # (1, 3, h, w)
    baseline: Tensor = field(repr=False)  # (1, 3, h, w)
    reliance: Reliance  # the answer, its tokens' ratios and which are crucial
    original: np.ndarray | None = field(default=None, repr=False)  # (H, W, 3) where it was reduced
    contrast: int | None = None  # id of a word that the one explained token is held against
    choice: Choice = Choice()

    def __post_init__(self):
        for name in ("image", "baseline"):
            object.__setattr__(self, name, ordinary(getattr(self, name)))

    @property
    def answer(self) -> Answer:
        """The answer that is explained."""
        return self.reliance.answer

    @property
    def crucial(self) -> Tensor:
        """The set K of its tokens, bool (A,)."""
        return self.reliance.crucial

    @property
    def status(self) -> str:
        """ "ok", or "no_crucial_tokens": there is nothing to explain or to score."""
        return self.reliance.status

    def fill(self, kind: str | Tensor, seed: int = 0) -> Tensor:
        """Another baseline (1, 3, h, w) of the same picture, as `make_baseline`.

        It is made at full size and then reduced, as `baseline` was: a blur of a reduced picture
        would take a kernel for its smaller width and keep more.
        """
        if self.original is None or isinstance(kind, Tensor):
            return make_baseline(self.image, kind, seed)
        full = make_baseline(to_tensor(self.original), kind, seed)
        return self.bound.reduced(full).to(self.image.device)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the working images; (H, W) of the original is `bound.size`."""
        return tuple(self.image.shape[-2:])

    @property
    def exact(self) -> bool:
        """False when a very large image is worked on reduced (see `preprocess.Plan`)."""
        return self.size == tuple(self.bound.size)

    def micro_batch(self, batch: int) -> int:
        """At most `batch` images at once, fewer when they are large."""
        return max(1, min(batch, PIXELS_AT_ONCE // (self.size[0] * self.size[1])))

    def log_probs(self, images: Tensor, **options) -> Tensor:
        """Log-probability of every crucial token, (B, |K|), differentiable.

        Tokens after the last crucial one cannot change it (the decoder is causal) and are not run.
        """
        crucial = self.crucial.nonzero()[:, 0]
        if len(crucial) == 0:
            raise StudyError(f"No token of {self.answer.text!r} is chosen, so it has no score.")
        ids = self.answer.token_ids[: int(crucial[-1]) + 1]
        return self.bound.log_probs(images, ids, **options)[:, crucial]  # (B, K)

    def score(self, images: Tensor, **options) -> Tensor:
        """f of Eq. 7: the sum of the crucial tokens' log-probabilities, (B,), differentiable.

        With a contrast, the token's log-probability less that of the contrast in its place.
        """
        return self.log_probs(images, **self._against, **options).sum(-1)  # (B,)

    def score_from(self, features: Tensor) -> Tensor:
        """f from visual features (B, N, D) of `Adapter.encode`, the encoder left out, (B,)."""
        crucial = self.crucial.nonzero()[:, 0]
        ids = self.answer.token_ids[: int(crucial[-1]) + 1]
        return self.bound.log_probs_from(features, ids, **self._against)[:, crucial].sum(-1)

    @property
    def _against(self) -> dict[str, int]:
        return {} if self.contrast is None else {"contrast": self.contrast}

    def probability(self, images: Tensor) -> Tensor:
        """Mean probability of the crucial tokens, (B,): what deletion and insertion plot."""
        return self.log_probs(images).exp().mean(-1)  # (B,)


@with_model
def visual_reliance(
    model,
    image,
    question: str | None = None,
    answer: Answer | str | None = None,
    baseline: str | Tensor = "blur",
    threshold: float = THRESHOLD,
    exclude: frozenset[str] | None = DEFAULT_STOP,
    seed: int = 0,
) -> Reliance:
    """Score each token of the answer with and without the image, and choose the crucial ones.

    A token is crucial when its ratio exceeds `threshold` nats, it is not the first token, and it
    is no punctuation, whitespace, special token or word of `exclude` (whole words, case-folded;
    None excludes nothing). Where the first token is the only one with content, the first-token
    rule and `exclude` are waived and p(baseline) <= p(image) / 2 decides. A model in the paper's
    set-up chooses by the paper's own rule (`crucial_by_ids`). `answer` defaults to the
    model's own; a text is scored as if the model had said it. `image` may be a benchmark item,
    which brings its question.
    """
    rule = _rule(threshold, exclude)
    parts = _prepare(model, image, question, answer, baseline, seed)
    return _reliance(*parts, **rule)


@with_model
def make_target(
    model,
    image,
    question: str | None = None,
    baseline: str | Tensor = "blur",
    answer: Answer | str | None = None,
    threshold: float = THRESHOLD,
    tokens: str | int | Sequence[int] = "llr",
    word: str | None = None,
    exclude: frozenset[str] | None = DEFAULT_STOP,
    seed: int = 0,
    contrast: str | None = None,
) -> Target:
    """Choose what is to be explained; the target has the `reliance` that it was chosen by.

    `tokens`: "llr" (crucial tokens, Eq. 6), "all" (joint probability of the whole answer),
    "keywords" (every token of every YAKE keyword, see `keywords`), "word" (the tokens of the first
    occurrence of `word`, which may be a phrase), or the number of one token or of several, counted
    from 0. A `word` alone implies "word". An answer without a crucial token or keyword has the
    status "no_crucial_tokens". Raises StudyError for another choice, for a word that the answer
    does not contain, with near matches, and for a token number that it does not have. `answer` as
    in `visual_reliance`. `contrast` is a word that could stand in the place of the one explained
    token ("why red and not yellow"): scores are then the difference of the two log-probabilities;
    StudyError where several tokens are explained, or where the word is not one token there.
    """
    tokens, rule = _check_choice(tokens, word), _rule(threshold, exclude)
    model = among(model, image)
    image, question = asked(image, question)
    parts = _prepare(model, image, question, answer, baseline, seed)
    bound, picture, empty, answer = parts
    exact = tuple(picture.shape[-2:]) == tuple(bound.size)
    chosen = _named_tokens(answer, tokens, word)
    reliance = _reliance(*parts, **rule, chosen=chosen)
    original = None if exact else image
    other = None if contrast is None else _contrast_id(model, image, question, reliance, contrast)
    return Target(
        bound, picture, empty, reliance, original, other, _choice(baseline, tokens, contrast)
    )


def _choice(baseline, tokens, contrast: str | None) -> Choice:
    name = baseline if isinstance(baseline, str) else "given"
    return Choice(name, tokens if isinstance(tokens, str) else "numbers", contrast)


def _contrast_id(model, image, question: str, reliance: Reliance, word: str) -> int | None:
    """The id of a word in the place of the one crucial token; None where there is none."""
    answer, at = reliance.answer, reliance.crucial.nonzero()[:, 0].tolist()
    if not isinstance(word, str) or not folded(word):
        raise StudyError(f"contrast must be a word to hold the answer against, not {named(word)}.")
    if len(at) > 1:
        raise StudyError(
            f"A contrast stands in the place of one token, and {len(at)} are explained "
            f"({', '.join(map(repr, reliance.words))}); choose one with --word "
            "(in Python word= or tokens=)."
        )
    if not at:
        return None
    (place,), ids = at, answer.token_ids
    start, end = token_spans(answer)[place]
    said = model.forced(image, question, answer.text[:start] + word + answer.text[end:]).token_ids
    same = len(said) == len(ids) and bool((said == ids)[torch.arange(len(ids)) != place].all())
    if not same or said[place] == ids[place]:
        raise StudyError(
            f"The contrast {word!r} is not one other token of {model.name} in the place of "
            f"{answer.text[start:end]!r}; choose a word that is."
        )
    return int(said[place])


def retarget(target: Target, crucial: Tensor) -> Target:
    """The same picture, baseline and answer with other tokens, (A,) bool, at no further pass.

    Without a contrast, which stood in the place of the old one.
    """
    chosen = {"crucial": crucial, "words": _words(target.answer, crucial)}
    reliance = replace(target.reliance, **chosen, status=_status(crucial))
    choice = replace(target.choice, tokens="numbers", contrast=None)
    return replace(target, reliance=reliance, contrast=None, choice=choice)


def crucial_tokens(
    answer: Answer,
    llr: Tensor,
    threshold: float = THRESHOLD,
    exclude: frozenset[str] | None = DEFAULT_STOP,
    special_ids=(),
) -> Tensor:
    """The set K of Eq. 6 as a boolean (A,) mask."""
    content = _content(answer, special_ids)
    if int(content.sum()) == 1 and bool(content[0]):  # "Red", or "Red."
        return content & (llr.cpu() >= SINGLE_RATIO)
    keep = llr.cpu() > threshold
    keep[:1] = False
    if exclude is None:
        return keep
    return keep & content & ~_stop_words(answer, exclude)


def crucial_by_ids(answer: Answer, llr: Tensor, threshold: float, excluded) -> Tensor:
    """The set K as the paper's released code chooses it, (A,) bool: for its own set-up alone.

    Tokens are left out by their number, `excluded`, which means little beyond Llama's vocabulary;
    the answer's first token never counts, unless it is the whole answer.
    """
    ids = answer.token_ids.tolist()
    if len(ids) == 1:
        return llr.cpu() >= SINGLE_RATIO
    keep = llr.cpu() > threshold
    keep[:1] = False
    return keep & torch.tensor([i not in excluded for i in ids], dtype=torch.bool)


def token_spans(answer: Answer) -> list[tuple[int, int]]:
    """Where each token stands in `answer.text`: [start, end) in characters, without white space.

    All byte tokens of a character stand for the whole of it. A token without visible text gets an
    empty span. For an Answer built by hand the places are found by the tokens' names (see
    `token_places`): as "▁red", "Ġred", " red", "<0xE7>" or "çº¢".
    """
    spans = getattr(answer, "spans", ())
    if len(spans) != len(answer.tokens):
        spans = places(answer.text, answer.tokens)
    return [_shown(answer.text, span) for span in spans]


def _shown(text: str, span: Span) -> Span:
    """A span without the white space at its ends."""
    part = text[slice(*span)]
    start = span[0] + len(part) - len(part.lstrip())
    return start, start + len(part.strip())


def marked(answer: Answer, crucial: Tensor, left: str = "\033[1;31m", right: str = "\033[0m"):
    """The answer's text with crucial tokens between `left` and `right` (bold red in a terminal).

    A sign that has a crucial token is marked whole.
    """
    text, out, at = answer.text, [], 0
    for start, end in chosen_spans(answer, crucial):
        out += [text[at:start], left, text[start:end], right]
        at = end
    return "".join([*out, text[at:]])


def chosen_spans(answer: Answer, chosen: Tensor) -> list[Span]:
    """Where the chosen tokens stand, widened to whole signs; those that share a sign are one."""
    found: list[Span] = []
    for span, hot in zip(token_spans(answer), chosen.tolist(), strict=True):
        if not hot or span[0] == span[1]:
            continue
        start, end = whole_signs(answer.text, span)
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _prepare(model, image, question, answer, baseline, seed):
    """Bind the model to this image size and bring image and baseline to its working size."""
    seed = check_seed(seed)
    if not isinstance(answer, Answer | None):
        check_text(answer)
    rgb, question = asked(image, question)
    bound = model.bind(rgb.shape[:2], question)
    answer = _given(model, rgb, question, answer)
    if len(answer.token_ids) == 0:
        raise StudyError("The answer is empty, so there is nothing to explain; ask differently.")
    picture = to_tensor(rgb)
    empty = make_baseline(picture, baseline, seed=seed)
    reduced = getattr(bound, "reduced", lambda x: x)  # very large photographs are worked on smaller
    device = model.device
    return bound, reduced(picture).to(device), reduced(empty).to(device), answer


def _given(model, rgb, question: str, answer) -> Answer:
    """The Answer that is meant: the model's own, one that is ready, or one made of a text."""
    if answer is None:
        return model.answer(rgb, question)
    return answer if isinstance(answer, Answer) else model.forced(rgb, question, answer)


def _rule(threshold, exclude) -> dict:
    """What makes a token crucial, checked: a number of nats and a set of words."""
    return {"threshold": number(threshold, "threshold"), "exclude": word_set(exclude, "exclude")}


@torch.no_grad()
def _reliance(bound, picture, empty, answer, threshold, exclude, chosen=None) -> Reliance:
    ids = answer.token_ids
    on, off = (bound.log_probs(x, ids)[0].float().cpu() for x in (picture, empty))  # (A,)
    special = getattr(bound.adapter.tokenizer, "all_special_ids", ())
    left_out = getattr(bound.adapter, "excluded_ids", None)
    if chosen is None and left_out is not None and exclude == DEFAULT_STOP:
        chosen = crucial_by_ids(answer, on - off, threshold, left_out)
    elif chosen is None:
        chosen = crucial_tokens(answer, on - off, threshold, exclude, special)
    words, status = _words(answer, chosen), _status(chosen)
    return Reliance(answer, on - off, chosen, on, off, status, threshold, words)


def _status(chosen: Tensor) -> str:
    return "ok" if bool(chosen.any()) else "no_crucial_tokens"


def _words(answer: Answer, chosen: Tensor) -> tuple[str, ...]:
    return tuple(answer.text[start:end] for start, end in chosen_spans(answer, chosen))


def _check_choice(tokens, word: str | None):
    """The choice of tokens, or a StudyError; a word given without it says what is meant."""
    if not (word is None or isinstance(word, str)):
        raise StudyError(f"word must be a word or phrase of the answer, not {named(word)}.")
    if not isinstance(tokens, str):
        return tokens
    if tokens not in TOKEN_CHOICES:
        known = ", ".join(TOKEN_CHOICES)
        raise StudyError(f"tokens must be one of {known}, or token numbers, not {tokens!r}.")
    if word is None or tokens == "word":
        return tokens
    if tokens != "llr":
        raise StudyError(f"Give either word={word!r} or tokens={tokens!r}, not both.")
    return "word"


def _named_tokens(answer: Answer, tokens, word: str | None) -> Tensor | None:
    """The chosen tokens as a mask (A,), None where the log-likelihood ratios decide."""
    if not isinstance(tokens, str):
        return _numbered_tokens(answer, tokens)
    if tokens == "llr":
        return None
    if tokens == "all":
        return torch.ones(len(answer.token_ids), dtype=torch.bool)
    if tokens == "keywords":
        return tokens_within(answer, keyword_spans(answer.text))
    if not word or not folded(word):
        raise StudyError('tokens="word" needs the word to explain, for example word="red".')
    found = occurrences(answer.text, word)
    if not found:
        raise _absent(word, answer.text)
    return tokens_within(answer, found[:1])


def tokens_within(answer: Answer, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Bool (A,): the tokens that share a character with any [start, end) of the answer's text.

    White space between the words of a phrase belongs to it.
    """
    inside = [any(a < end and b > start for start, end in spans) for a, b in token_spans(answer)]
    return torch.tensor(inside)


def _numbered_tokens(answer: Answer, numbers) -> Tensor:
    count = len(answer.token_ids)
    numbers = numbers.tolist() if isinstance(numbers, np.ndarray | Tensor) else numbers
    wanted = numbers if isinstance(numbers, Sequence) else [numbers]
    try:
        wanted = [whole(n, "a token number") for n in wanted]
    except StudyError:
        raise StudyError(f"Token numbers are whole numbers, not {short(numbers)}.") from None
    if not wanted or not all(-count <= n < count for n in wanted):
        raise StudyError(
            f"The answer {answer.text!r} has tokens 0 to {count - 1}; "
            f"choose among them, not {short(numbers)}."
        )
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[wanted] = True
    return chosen


def _absent(word: str, text: str) -> StudyError:
    """The error for a word that the answer does not contain, with the nearest that it does."""
    known = list(dict.fromkeys(text[a:b] for a, b in stretches(text)))
    words = {folded(part): part for part in [*known, *parts_like(text, word)]}
    near = [words[key] for key in get_close_matches(folded(word), words, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"its words: {', '.join(known)}."
    return StudyError(f"The word {word!r} is not in the answer {text!r}; {hint}")


def _content(answer: Answer, special_ids) -> Tensor:
    """True for tokens that are no punctuation, whitespace or special token, (A,).

    A byte token is what its character is.
    """
    special, parts = set(special_ids), [answer.text[a:b] for a, b in token_spans(answer)]
    seen = [part or readable(token) for part, token in zip(parts, answer.tokens, strict=True)]
    words = [any(unicodedata.category(sign)[0] not in "PZC" for sign in part) for part in seen]
    ids = answer.token_ids.tolist()
    return torch.tensor([w and i not in special for w, i in zip(words, ids, strict=True)])


def _stop_words(answer: Answer, exclude) -> Tensor:
    """True for tokens that are a whole word of `exclude`; the "a" that ends "panda" is not."""
    stop, text = set(map(folded, exclude)) - {""}, answer.text
    spans = token_spans(answer)
    found = [folded(text[slice(*span)]) in stop and is_whole(text, span) for span in spans]
    return torch.tensor(found)
