"""Is there a cat? What a model says, beside how sure the detector is that shares its sight.

If both read the same tokens, a "yes" about something that the detector sees nowhere was not read
from the picture, and a "no" about something that it sees plainly overlooked it. Protocol after
Giulivi and Boracchi (arXiv 2405.14612): ask about present and absent objects, compare the
detector's highest confidence behind both answers.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..errors import StudyError
from ..heatmaps.progress import each
from ..metrics.plausibility import auc
from ..metrics.statistics import Estimate, estimate
from ..models import with_model
from ..pixels.images import load_image, to_tensor
from .detection import confidences

QUESTION = "Is there {a} in the image? Only answer with 'yes' or 'no'."
ZOO_QUESTION = "Is there {a}? Answer yes or no."  # the wording that the zoo was taught
COLUMNS = ["id", "name", "present", "said", "correct", "confidence"]


@dataclass(frozen=True)
class Presence:
    """One picture and the objects to ask for: those that are there, and others that are not."""

    id: str
    image: object
    present: tuple[str, ...]
    absent: tuple[str, ...]


@with_model
def ask_presence(
    model, pictures: Iterable[Presence], question: str = QUESTION, max_new_tokens: int = 8
) -> pd.DataFrame:
    """Ask a joint model for every object; one row a question.

    Columns: id, name, present (bool), said ("yes", "no" or "" for anything else), correct (bool),
    confidence (the detector's highest score for the name, in [0, 1]). `question` holds {a} where
    "a cat" goes, or {name} for "cat" alone.
    """
    if getattr(model, "detector", None) is None:
        raise StudyError(f"{model.name} has no detector to compare with; use a joint model.")
    asked = each(pictures, "presence", "picture")
    rows = [row for p in asked for row in _rows(model, p, question, max_new_tokens)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(model, picture: Presence, question: str, most: int):
    x = to_tensor(load_image(picture.image() if callable(picture.image) else picture.image))
    names = [*picture.present, *picture.absent]
    seen = None
    for name in names:
        bound = model.bind(x.shape[-2:], question.format(a=_article(name), name=name))
        if seen is None:
            with torch.no_grad():
                shared = model.shared(bound, x)
                seen = confidences(model, shared, model.detector.queries(names))[0].tolist()
        ids = model.generate(bound, x, most)
        said = yes_or_no(model.tokenizer.decode(ids, skip_special_tokens=True))
        there = name in picture.present
        right = said == ("yes" if there else "no")
        yield picture.id, name, there, said, right, seen[names.index(name)]


def yes_or_no(text: str) -> str:
    """ "yes" or "no" if the text opens with it, else ""."""
    first = re.match(r"\W*(yes|no)\b", text.strip(), re.IGNORECASE)
    return first[1].lower() if first else ""


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


@dataclass(frozen=True)
class Agreement:
    """What the detector's confidence knows about the answers; intervals draw whole pictures.

    `yes`, `no`: mean confidence behind each answer. `said_auc`: how often it is higher behind a
    "yes" than behind a "no". `truth_auc`: the same for present against absent objects, which is how
    good the detector is. `wrong_auc`: how often disagreement (a "yes" at low, a "no" at high
    confidence) is greater for a wrong answer than for a right one, 0.5 is chance; NaN when no
    answer is wrong. `undecided` answers, neither yes nor no, are counted and left out.
    """

    accuracy: Estimate
    yes: Estimate
    no: Estimate
    said_auc: Estimate
    truth_auc: Estimate
    wrong_auc: Estimate
    wrong: int
    undecided: int


def agreement(asked: pd.DataFrame, draws: int = 1000, seed: int = 0) -> Agreement:
    """Summarise the table of `ask_presence`."""
    if asked.empty:
        raise StudyError("There are no answers to summarise; ask about at least one picture.")
    decided = asked[asked.said != ""]
    yes = (decided.said == "yes").to_numpy()
    sure, wrong = decided.confidence.to_numpy(), ~decided.correct.to_numpy(bool)
    groups = decided.id.to_numpy()
    about = dict(draws=draws, seed=seed)
    means = [estimate(sure[m], clusters=groups[m], **about) for m in (yes, ~yes)]
    odd = np.where(yes, 1 - sure, sure)
    pairs = [(sure, yes), (sure, decided.present.to_numpy(bool)), (odd, wrong)]
    return Agreement(
        estimate(decided.correct, clusters=groups, **about),
        *means,
        *(auc_estimate(values, marks, groups, **about) for values, marks in pairs),
        wrong=int(wrong.sum()),
        undecided=len(asked) - len(decided),
    )


def auc_estimate(
    values: Sequence[float],
    marks: Sequence[bool],
    groups: Sequence,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve of `values` for `marks`, with a bootstrap over whole groups.

    0.5 is chance. NaN if all marks are alike; draws in which they are do not count.
    """
    values, marks = np.asarray(values, float), np.asarray(marks, bool)
    labels = pd.factorize(np.asarray(groups))[0]
    if len(values) == 0 or marks.all() or not marks.any():
        return Estimate(np.nan, np.nan, np.nan, len(values))
    members = [np.flatnonzero(labels == g) for g in range(labels.max() + 1)]
    random, found = np.random.default_rng(seed), []
    for _ in range(draws):
        some = np.concatenate([members[g] for g in random.integers(0, len(members), len(members))])
        found.append(auc(values[some], marks[some]))
    found = np.array(found)[~np.isnan(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(members) > 1 else (np.nan, np.nan)
    return Estimate(auc(values, marks), float(low), float(high), len(values))


def confidence_figure(asked: pd.DataFrame, ax=None):
    """Histograms of the detector's confidence behind "yes" and behind "no"; returns the axes."""
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(4.5, 2.6))[1]
    for said, colour in (("yes", "C0"), ("no", "C1")):
        values = asked.confidence[asked.said == said]
        ax.hist(
            values,
            np.linspace(0, 1, 21),
            density=True,
            alpha=0.6,
            color=colour,
            label=f'"{said}", n = {len(values)}',
        )
    ax.set(xlabel="highest score of the detector", ylabel="density")
    ax.legend(frameon=False)
    return ax


def sprite_presence(items, absent: int | None = None, seed: int = 0) -> list[Presence]:
    """The scenes of sprite items: all classes shown, and `absent` others (default: all)."""
    from ..scenes import scenes

    random, out, known = np.random.default_rng(seed), [], set()
    for item in items:
        scene = item.extra["scene"]
        if scene in known:
            continue
        known.add(scene)
        shown = tuple(sorted({o.name for o in scene.objects}))
        others = random.permutation([n for n in scenes.names() if n not in shown]).tolist()
        out.append(Presence(item.id, item.source, shown, tuple(others[:absent])))
    return out


def pope_presence(items) -> list[Presence]:
    """The pictures of POPE's questions, each with all objects that any question asks for."""
    asked: dict[str, list] = {}
    for item in items:
        asked.setdefault(item.extra["picture"], []).append(item)
    out = []
    for picture, some in asked.items():
        known = {item.extra["object"]: item.extra["present"] for item in some}
        there, absent = (tuple(n for n, p in known.items() if p == want) for want in (True, False))
        out.append(Presence(Path(picture).name, some[0].source, there, absent))
    return out
