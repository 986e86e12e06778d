"""Shapley values of regions: what each adds to the score, fairly shared among all of them.

A region's value is what it adds when it comes after the regions before it, averaged over all
orders; the values sum to f(image) - f(baseline), and regions that do nothing have 0. Few regions
are valued exactly, by all sets of them. Many are valued over random orders, each followed by its
reverse, which takes off what is the same in both (Castro et al. 2009; antithetic pairs, Mitchell et
al. 2022, "Sampling Permutations for Shapley Value Estimation").
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from math import factorial

import numpy as np
import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from .eagle import blocks, matters, slic_zero

CUTS: dict[str, Callable[[Target, int], np.ndarray]] = {
    "superpixels": slic_zero,
    "grid": lambda target, regions: blocks(target.size, max(2, round(regions**0.5))),
}
Score = Callable[[Sequence[frozenset]], Tensor]  # sets of players -> their values (n,) float64


def shapley(
    target: Target,
    *,
    seed: int = 0,
    regions: int = 24,
    cut: str = "superpixels",
    orders: int = 20,
    batch: int = 32,
) -> Tensor:
    """Saliency (h, w), signed, in nats: the Shapley value for f of the region that holds a pixel.

    A region that is not in a set shows the baseline. `regions` are about as many superpixels as for
    EAGLE, or the blocks of a square grid (`cut="grid"`). `orders` random orders (rounded up to
    even) take one forward pass a region each; where all sets of regions are no more than that, all
    are run and the values are exact. Regions that the model cannot see have 0 at no pass.
    `shapley_with_error` gives the standard error of every place. Memory follows `batch` alone.
    """
    return shapley_with_error(
        target, seed=seed, regions=regions, cut=cut, orders=orders, batch=batch
    )[0]


@torch.no_grad()
def shapley_with_error(
    target: Target,
    *,
    seed: int = 0,
    regions: int = 24,
    cut: str = "superpixels",
    orders: int = 20,
    batch: int = 32,
) -> tuple[Tensor, Tensor]:
    """The map of `shapley` and its standard error, (h, w) each, in nats.

    The error is that of drawing orders, from the spread over their pairs; 0 where values are exact.
    """
    if regions < 2 or orders < 4 or batch < 1 or cut not in CUTS:
        raise StudyError(
            f"shapley needs at least 2 regions, 4 orders, a batch of 1 and a cut of "
            f"{', '.join(CUTS)}, not {regions}, {orders}, {batch} and {cut!r}."
        )
    labels = CUTS[cut](target, regions)  # (h, w)
    players = np.unique(labels[matters(target)]).tolist()
    score = _pictures(target, torch.from_numpy(labels).to(target.image.device), batch)
    values, errors = shapley_values(score, players, orders, seed)
    level = torch.zeros(2, int(labels.max()) + 1)
    level[:, players] = torch.stack([values, errors]).float()
    return tuple(level[:, torch.from_numpy(labels)])


def shapley_values(
    score: Score, players: Sequence, orders: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Values (n,) of the players and their standard errors, float64.

    Exact, with errors of 0, where there are no more sets of players than `orders` random orders
    would look at.
    """
    if 2 ** len(players) <= orders * max(len(players), 1):
        exact = exact_values(score, players)
        return exact, torch.zeros_like(exact)
    return sampled_values(score, players, orders, seed)


def exact_values(score: Score, players: Sequence) -> Tensor:
    """Shapley values (n,) by all 2^n sets; (n, ..) where a set's value is a tensor."""
    n = len(players)
    sets = [frozenset(s) for size in range(n + 1) for s in combinations(players, size)]
    known = dict(zip(sets, score(sets), strict=True))
    weight = [factorial(k) * factorial(n - k - 1) / factorial(n) for k in range(n)]
    found = [
        sum(weight[len(s)] * (known[s | {p}] - known[s]) for s in sets if p not in s)
        for p in players
    ]
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)


def sampled_values(
    score: Score, players: Sequence, orders: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The same over pairs of a random order and its reverse, and the standard error over pairs."""
    n, pairs = len(players), -(-orders // 2)
    generator = torch.Generator().manual_seed(seed)
    ends = score([frozenset(), frozenset(players)])
    total = torch.zeros(2, n, dtype=torch.float64)  # of the pairs' values, and of their squares
    for _ in range(pairs):
        order = torch.randperm(n, generator=generator)
        value = sum(_added(score, players, one, ends) for one in (order, order.flip(0))) / 2
        total += torch.stack([value, value.square()])
    mean, square = total / pairs
    spread = (square - mean.square()).clamp(min=0) * pairs / (pairs - 1)
    return mean, (spread / pairs).sqrt()


def _added(score: Score, players: Sequence, order: Tensor, ends: Tensor) -> Tensor:
    """What each player (n,) adds when they come in this order; `ends` are f of none and of all."""
    come = [players[k] for k in order.tolist()]
    inner = score([frozenset(come[:k]) for k in range(1, len(come))])
    steps = torch.cat([ends[:1], inner, ends[1:]]).diff()
    return torch.zeros_like(steps).index_copy(0, order, steps)


def _pictures(target: Target, labels: Tensor, batch: int) -> Score:
    """f of the image in the regions of a set and the baseline elsewhere, a micro-batch at once."""
    size, count = target.micro_batch(batch), int(labels.max()) + 1

    def score(sets: Sequence[frozenset]) -> Tensor:
        """f (n,) of n sets of regions, in double precision."""
        found = []
        for first in range(0, len(sets), size):
            some = sets[first : first + size]
            shown = torch.tensor([[n in s for n in range(count)] for s in some])
            keep = shown.to(labels.device)[:, None, labels]  # (B, 1, h, w)
            found.append(target.score(torch.where(keep, target.image, target.baseline)).cpu())
        return torch.cat(found).double() if found else torch.zeros(0, dtype=torch.float64)

    return score
