"""One step in feature space, from one name to another: does the answer follow the detector?

The shared tokens are moved so that the detector scores one name higher and another lower, and the
language model reads the moved tokens (Giulivi and Boracchi, arXiv 2405.14612). If the answer to an
unrelated question changes, what the detector calls by these names and what the model answers hang
together. That is a statement about the model's features; about people it says nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import StudyError
from ..metrics.statistics import Estimate, estimate
from ..models import with_model
from ..pixels.images import load_image, to_tensor

LIKELIHOOD = (
    "From one to ten, how likely is the person to be {a}? Only answer with a number from 1 to 10."
)
NUMBERS = "one two three four five six seven eight nine ten".split()
TEN = range(1, 11)
WORDS = {word: i + 1 for i, word in enumerate(NUMBERS)}
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@with_model
def step_towards(model, shared: Tensor, more: str, less: str, size: float = 1.0) -> Tensor:
    """Shared tokens (1, 1 + N, C) after one signed step of `size` towards `more`, from `less`.

    The step of the seed: h - size * sign(gradient of the squared error between class logits and
    targets of plus and minus a million), whose sign is that of the logits' own gradient as long as
    no logit comes near a million. `size` is in units of the features (1 in the seed).
    """
    if more == less:
        raise StudyError(f"Both names are {more!r}; a step needs two different ones.")
    leaf = shared.detach().requires_grad_()
    logits, _ = model.detector.predict(leaf, model.detector.queries([more, less]))
    wish = (logits[..., 0] - logits[..., 1]).sum()
    (gradient,) = torch.autograd.grad(wish, leaf)
    return shared + size * gradient.sign()


@dataclass(frozen=True)
class Shift:
    """How a step changed one answer: texts, log p of the first answer, detector's confidences.

    `nats` is log p(answer | moved) - log p(answer | as it was); `more` and `less` are (before,
    after) of the detector's highest scores.
    """

    before: str
    after: str
    nats: float
    more: tuple[float, float]
    less: tuple[float, float]


@with_model
def shift(model, image, question: str, more: str, less: str, size: float = 1.0) -> Shift:
    """Ask before and after a step towards `more` and away from `less`."""
    from .detection import confidences

    x = to_tensor(load_image(image))
    bound = model.bind(x.shape[-2:], question)
    with torch.no_grad():
        shared = model.shared(bound, x)
    moved = step_towards(model, shared, more, less, size)
    ids = [model.generate_from(bound, tokens) for tokens in (shared, moved)]
    with torch.no_grad():
        sure = [
            confidences(model, t, model.detector.queries([more, less]))[0].tolist()
            for t in (shared, moved)
        ]
        scores = [_log_p(model, bound, tokens, ids[0]) for tokens in (shared, moved)]
    texts = [model.tokenizer.decode(i, skip_special_tokens=True).strip() for i in ids]
    pairs = tuple(zip(*sure, strict=True))
    return Shift(*texts, scores[1] - scores[0], *pairs)


def _log_p(model, bound, shared: Tensor, ids: Tensor) -> float:
    if len(ids) == 0:
        return 0.0
    table = model.logits_from(bound, shared, ids)[0].log_softmax(-1)
    return float(table.gather(-1, ids[:, None]).sum())


@torch.no_grad()
def number_odds(model, bound, shared: Tensor) -> Tensor:
    """The model's odds of answering 1, 2, ..., 10 in digits, each row summing to 1: (B, 10).

    Finer than the number that it says, which stays the same until another is likelier.
    """
    ids = [tuple(model.tokenizer(f" {n}", add_special_tokens=False).input_ids) for n in TEN]
    known: dict[tuple, Tensor] = {}  # what was said so far: log p of what comes next (B, V)
    for said in sorted(ids, key=len, reverse=True):
        if said[:-1] not in known:
            logits = model.logits_from(bound, shared, torch.tensor(said, device=shared.device))
            table = logits.log_softmax(-1)
            known |= {said[:t]: table[:, t] for t in range(len(said))}
    logs = [sum(known[said[:t]][:, said[t]] for t in range(len(said))) for said in ids]
    odds = torch.stack(logs, 1).exp()
    if ids[9][: len(ids[0])] == ids[0]:  # to begin with 1 is not yet to say 1
        odds[:, 0] = (odds[:, 0] - odds[:, 9]).clamp(min=0)
    return (odds / odds.sum(1, keepdim=True).clamp(min=1e-30)).cpu()


def read_number(text: str) -> float:
    """The first number from 1 to 10 in an answer, in digits or words; NaN without one."""
    for word in re.findall(r"\d+(?:\.\d+)?|[a-z]+", text.lower()):
        value = WORDS.get(word) if word.isalpha() else float(word)
        if value is not None and 1 <= value <= 10:
            return float(value)
    return float("nan")


def likelihood_shift(
    model, images: Sequence, trait: str, more: str, less: str, size: float = 1.0
) -> Estimate:
    """Mean change of the model's 1-to-10 score for `trait` over images, with its interval.

    Answers without a number before or after are left out and counted as skipped.
    """
    question = LIKELIHOOD.format(a=trait)
    found = [shift(model, image, question, more, less, size) for image in images]
    return estimate([read_number(s.after) - read_number(s.before) for s in found])


def portraits(folder: str | Path) -> dict[str, list[Path]]:
    """Pictures by group, one sub-folder a group. Nobody's portraits come with this project."""
    root = Path(folder).expanduser()
    groups = {
        p.name: sorted(f for f in p.iterdir() if f.suffix.lower() in PICTURES)
        for p in sorted(root.iterdir() if root.is_dir() else [])
        if p.is_dir()
    }
    groups = {name: files for name, files in groups.items() if files}
    if len(groups) < 2:
        raise StudyError(
            f"{root} must hold at least two sub-folders with pictures, one for each group."
        )
    return groups
