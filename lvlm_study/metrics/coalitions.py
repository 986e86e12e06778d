"""What objects are worth together: the scene drawn again with every subset of its objects.

No blur, no inpainting, no order: an object that is not there was never drawn. From the answer's
score under all 2^O subsets follow the exact Shapley value of every object, the exact interaction of
every pair (negative where either of two suffices), and deletion and insertion by whole objects.
It is the truth without a fill that maps are held against.
"""

from functools import lru_cache
from itertools import combinations
from math import factorial

import numpy as np
import torch

from ..answers import Target
from ..benchmarks.base import Item
from ..errors import StudyError
from ..models.alone import alone
from ..pixels.images import to_tensor
from ..scenes.scenes import Scene
from .counterfactual import drawing, scene_of

MOST_OBJECTS = 8  # 256 pictures


def subset_scores(
    target: Target, scene: Scene | Item, batch: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """(score, probability) of the explained tokens under every subset of a scene's objects.

    Both are float64 (2^O,): `score` in nats, `probability` the mean over the tokens. Object i is
    drawn where bit i of the place is 1, so the last is the picture itself. Raises StudyError for a
    scene of more than `MOST_OBJECTS` objects, and for a scene that is not the explained picture.
    """
    draw, scene = drawing(scene), scene_of(scene)
    count = len(scene.objects)
    if count > MOST_OBJECTS:
        raise StudyError(f"A scene of {count} objects has too many subsets; {MOST_OBJECTS} do.")
    bound = target.bound
    reduced = getattr(bound, "reduced", lambda x: x)

    def picture(subset: int) -> torch.Tensor:
        absent = [i for i in range(count) if not subset >> i & 1]
        return reduced(to_tensor(draw(scene.without(*absent)))).to(target.image.device)

    whole = picture(2**count - 1)
    if whole.shape != target.image.shape or (whole - target.image).abs().max() > 1 / 512:
        raise StudyError("The scene does not draw the explained picture; give the item's own.")
    step, found = target.micro_batch(batch), []
    with alone(getattr(bound, "adapter", bound)), torch.no_grad():
        for start in range(0, 2**count, step):
            images = [picture(s) for s in range(start, min(start + step, 2**count))]
            found.append(target.log_probs(torch.cat(images)).double().cpu())
    log_probs = torch.cat(found)  # (2^O, K)
    return log_probs.sum(-1).numpy(), log_probs.exp().mean(-1).numpy()


def shapley_values(values: np.ndarray) -> np.ndarray:
    """The share of every object in `values[-1] - values[0]`, float64 (O,) (Shapley 1953)."""
    count = _objects(values)
    return np.array([_mean_gain(values, (i,), count) for i in range(count)])


def interactions(values: np.ndarray) -> np.ndarray:
    """What two objects are worth together beyond each alone, symmetric float64 (O, O), 0 inside.

    The Shapley interaction index (Grabisch and Roubens 1999): below 0 where either suffices, above
    0 where both are needed.
    """
    count = _objects(values)
    found = np.zeros((count, count))
    for i, j in combinations(range(count), 2):
        found[i, j] = found[j, i] = _mean_gain(values, (i, j), count)
    return found


def object_curves(values: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(deletion, insertion), each (O + 1,): objects taken away, or put back, by falling `order`.

    `order` (O,) is what a map says of every object. Objects with equal values go in the mean over
    both ways round: forwards and backwards by number.
    """
    order = np.asarray(order, float)
    runs = [np.lexsort((ties, -order)) for ties in (np.arange(len(order)), -np.arange(len(order)))]
    bits = [np.concatenate([[0], np.cumsum(2**run)]) for run in runs]  # (O + 1,) each
    full = len(values) - 1
    deletion = np.mean([values[full - gone] for gone in bits], 0)
    return deletion, np.mean([values[there] for there in bits], 0)


def object_gap(probability: np.ndarray, order: np.ndarray) -> float:
    """Insertion − deletion by whole objects: the area between the curves of the probability.

    Divided by what all objects together change, so that 0 is chance; where one of O objects
    decides alone, the perfect order scores 1 - 1/O. NaN where they change nothing.
    """
    span = probability[-1] - probability[0]
    deletion, insertion = object_curves(probability, order)
    return float(np.trapezoid(insertion - deletion) / (len(order) * span)) if span else np.nan


def _mean_gain(values: np.ndarray, team: tuple[int, ...], count: int) -> float:
    """The mean of what a team adds over all orders in which it comes as one."""
    mask = sum(1 << i for i in team)
    rest = [s for s in range(2**count) if not s & mask]
    weights = _weights(count, len(team))
    gains = sum(sign * values[[s | part for s in rest]] for part, sign in _derivative(team).items())
    return float(np.dot([weights[bin(s).count("1")] for s in rest], gains))


def _derivative(team: tuple[int, ...]) -> dict[int, int]:
    """{subset of the team: its sign}: +1 for the whole team, and the signs alternate below it."""
    found = {}
    for size in range(len(team) + 1):
        for part in combinations(team, size):
            found[sum(1 << i for i in part)] = (-1) ** (len(team) - size)
    return found


@lru_cache
def _weights(count: int, team: int) -> tuple[float, ...]:
    """How often, of all orders, a team of `team` comes right after `size` others."""
    orders = factorial(count - team + 1)
    return tuple(
        factorial(size) * factorial(count - team - size) / orders
        for size in range(count - team + 1)
    )


def _objects(values: np.ndarray) -> int:
    count = len(values).bit_length() - 1
    if len(values) != 2**count:
        raise StudyError(f"Values of all subsets number 1, 2, 4, 8, ..., not {len(values)}.")
    return count
