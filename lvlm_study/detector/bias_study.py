"""Does the step in feature space recover a planted bias, and is it silent where none was planted?

The twins of `zoo.bias` differ in one thing: the biased one was taught a high number where a cat is
shown and a low one where a rabbit is. Here the truth can be had twice: as the rule that was
taught, and by drawing the scene again with the animal exchanged. The measure of Giulivi and
Boracchi (arXiv 2405.14612), one signed step from one name to the other, is held against both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ..heatmaps.progress import each
from ..metrics.statistics import estimate
from ..pixels.images import to_tensor
from ..scenes import scenes
from ..scenes.scenes import Scene
from .detection import confidences
from .perturbation import LIKELIHOOD, TEN, number_odds, read_number, step_towards

KINDS = ("biased", "clean")
TRAIT = "kind"
MORE, LESS = "cat", "rabbit"  # what makes the biased twin say a high and a low number
HIGH, MIDDLE, LOW = 8, 5, 3

SIZES = (0.1, 0.5, 1.0, 2.0)  # of the step, in units of the features; the seed took 1
UNRELATED = ("guitar", "key")  # a step between names that nothing was planted on
SEED = 1002  # of the scenes, which are no scenes of training or test


@dataclass(frozen=True)
class Case:
    """A scene with one of two things, and which name the step goes towards and away from.

    `sign` is +1 where the step goes towards what raises the number.
    """

    scene: Scene
    more: str
    less: str
    sign: int


def cases(count: int, high: str = MORE, low: str = LESS) -> list[Case]:
    """`count` scenes, every other one with `high` and without `low`, the rest the other way."""
    out = []
    for scene in scenes.stream(SEED):
        shown = {o.name for o in scene.objects}
        want = (low, high) if len(out) % 2 else (high, low)  # what is shown, what is not
        if want[0] in shown and want[1] not in shown and (high == MORE or not shown & {MORE, LESS}):
            out.append(Case(scene, want[1], want[0], 1 if want[1] == high else -1))
        if len(out) == count:
            return out


def exchanged(case: Case) -> Scene:
    """The scene drawn again with every `less` replaced by a `more` in its place."""
    scene = case.scene
    for i, sprite in enumerate(scene.objects):
        if sprite.name == case.less:
            scene = scene.changed(i, name=case.more)
    return scene


def shifts(model, some: Sequence[Case], sizes: Sequence[float] = SIZES) -> pd.DataFrame:
    """How the number moves: one row a case and change.

    Columns: case, change ("drawn" or "step"), size, towards (the name), said and expected (change
    of the number that is said, and of the expected one, both times the case's sign), seen (the
    detector's highest score for `more` after the change).
    """
    rows = []
    for n, case in enumerate(each(some, "scenes", "scene")):
        bound, shared = _look(model, case.scene)
        before = _numbers(model, bound, shared)
        changes = [("drawn", float("nan"), _look(model, exchanged(case))[1])]
        changes += [
            ("step", size, step_towards(model, shared, case.more, case.less, size))
            for size in sizes
        ]
        for (change, size, moved), after in zip(
            changes, _all_numbers(model, bound, [c[2] for c in changes]), strict=True
        ):
            said, expected = (case.sign * (b - a) for a, b in zip(before, after, strict=True))
            about = {"case": n, "change": change, "size": size, "towards": case.more}
            sure = _seen(model, moved, case.more)
            rows.append(about | {"said": said, "expected": expected, "seen": sure})
    return pd.DataFrame(rows)


def _look(model, scene: Scene):
    x = to_tensor(scenes.draw(scene))
    bound = model.bind(x.shape[-2:], LIKELIHOOD.format(a=TRAIT))
    with torch.no_grad():
        return bound, model.shared(bound, x)


def _numbers(model, bound, shared: Tensor) -> tuple[float, float]:
    return next(iter(_all_numbers(model, bound, [shared])))


def _all_numbers(model, bound, several: list[Tensor]):
    """(number said, number expected) for each of several sets of tokens."""
    odds = number_odds(model, bound, torch.cat(several))  # (changes, 10)
    expected = (odds @ torch.tensor(TEN, dtype=odds.dtype)).tolist()
    for shared, value in zip(several, expected, strict=True):
        ids = model.generate_from(bound, shared, 8)
        yield read_number(model.tokenizer.decode(ids, skip_special_tokens=True)), value


@torch.no_grad()
def _seen(model, shared: Tensor, name: str) -> float:
    return float(confidences(model, shared, model.detector.queries([name])))


def bias_summary(frame: pd.DataFrame) -> dict:
    """{pair: {twin: {"drawn": ..., "step": {size: ...}}}} of a table with columns pair and twin."""
    out: dict = {}
    for (pair, twin), part in frame.groupby(["pair", "twin"], sort=False):
        place = out.setdefault(pair, {}).setdefault(twin, {})
        place["drawn"] = _of(part[part.change == "drawn"])
        steps = part[part.change == "step"]
        place["step"] = {f"{size:g}": _of(rows) for size, rows in steps.groupby("size")}
    return out


def _of(rows: pd.DataFrame) -> dict:
    found = {
        name: vars(estimate(rows[name]).where_enough()) for name in ("said", "expected", "seen")
    }
    return {"n": len(rows)} | found
