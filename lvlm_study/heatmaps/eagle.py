"""EAGLE: which regions, shown first, bring the answer, and, hidden, take it away?

The picture is cut into superpixels, and a greedy search puts them in order: always the region that
most raises the probability of the answer on what is shown so far and lowers it on what is left.
The map says of every region how much was still to change after it had come.

Chen et al. 2025, "Where MLLMs Attend and What They Rely On", arXiv 2509.22496: F is their insight
plus their necessity score. Given the regions, order and map are those of the released code, without
its stretch to [0, 1], and no two regions tie. The regions are not the same: the released code has
OpenCV's SLICO, which would be one more large dependency, and this one scikit-image's SLIC-zero.
There are about as many (62 to 64 against 60), cut elsewhere.
"""

import numpy as np
import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError

TIE = 1e-6  # probabilities closer than this are equal: float32 sums depend on the batch they ran in


def eagle(target: Target, *, seed: int = 0, regions: int = 64, batch: int = 32) -> Tensor:
    """Saliency (h, w) >= 0, high = important, in units of F.

    F(S) = p(S shown) + 1 - p(all but S shown), in [0, 2]: p the mean probability of the crucial
    tokens and the baseline standing in for what is hidden. Regions are added greedily, and the
    i-th gets sum_{m > i} |F_m - F_{m-1}|, what all steps after its own change, so the last gets 0:
    the published walk down the order, which takes off what each step changed. A number is thus what
    was still to change after a region, and not what the region brought, which decides the order
    alone. A step that changes less than `TIE` counts as `TIE`, so that an earlier region always has
    more than a later one; if no step changes as much, the map is all 0. Deterministic.

    The plain search runs N (N + 1) pictures for N regions (4160). Here pictures that occurred
    before, or that the model cannot tell apart, are not run again, nor those that can no longer
    decide a step; the order is exactly that of the plain search, candidates within `TIE` counting
    as equal. Memory follows `batch`.
    """
    return _explain(target, greedy, regions, batch)


def eagle_lazy(target: Target, *, seed: int = 0, regions: int = 64, batch: int = 32) -> Tensor:
    """`eagle` by lazy greedy search: a fraction of the passes, and not always the same order.

    A region is looked at again only while what it last added exceeds the best found in this step.
    Were F submodular (what a region adds never grows with what is shown) nothing would change;
    answers that need two regions together break that rule. Minoux 1978.
    """
    return _explain(target, lazy, regions, batch)


@torch.no_grad()
def _explain(target: Target, search, regions: int, batch: int) -> Tensor:
    if regions < 2 or batch < 1:
        raise StudyError(
            f"eagle needs at least 2 regions and a batch of 1, not {regions}, {batch}."
        )
    labels = slic_zero(target, regions)
    try:
        order, values = search(Search(target, labels, batch))
    except FloatingPointError:  # the model's scores are no numbers; `explain` says "diverged"
        return torch.full(target.size, torch.nan)
    return paint_order(labels, order, values)


def slic_zero(target: Target, regions: int) -> np.ndarray:
    """Labels int (h, w), 0 .. N-1, of about `regions` superpixels by scikit-image's SLIC-zero.

    Every superpixel adapts its own compactness. A picture without any contrast, which is left
    whole, is cut into equal blocks.
    """
    from skimage.segmentation import slic  # slow to import, needed here alone

    rgb = target.image[0].permute(1, 2, 0).cpu().numpy()
    labels = slic(
        rgb,
        n_segments=regions,
        compactness=20,
        max_num_iter=20,
        slic_zero=True,
        start_label=0,
        channel_axis=-1,
    )
    if labels.min() == labels.max():
        labels = blocks(target.size, max(2, round(regions**0.5)))
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def blocks(size: tuple[int, int], side: int) -> np.ndarray:
    """Labels of `side` x `side` equal blocks, in reading order."""
    rows, columns = (np.arange(n) * side // n for n in size)
    return rows[:, None] * side + columns


def greedy(search: "Search") -> tuple[list[int], list[float]]:
    """The order of the regions and F after 0, 1, .. N steps (N + 1 values).

    Candidates within `TIE` of the best are equal, and the lowest number wins.
    """
    shown, left, order = 0, list(range(search.count)), []
    values = search.scores([0])
    while left:
        best, value = search.winner([shown | 1 << j for j in left])
        order.append(left.pop(best))
        values.append(value)
        shown |= 1 << order[-1]
    return order, values


def lazy(search: "Search") -> tuple[list[int], list[float]]:
    """The same by lazy search: candidates in the order of what they last added."""
    shown, left, order = 0, list(range(search.count)), []
    values = search.scores([0])
    adds = dict.fromkeys(left, np.inf)
    while left:
        waiting, fresh = sorted(left, key=lambda j: -adds[j]), {}
        while waiting and max(fresh.values(), default=-np.inf) < adds[waiting[0]] - TIE:
            size = len(waiting) if not order else max(1, search.batch // 8)
            some, waiting = waiting[:size], waiting[size:]
            found = search.scores([shown | 1 << j for j in some])
            fresh.update((j, x - values[-1]) for j, x in zip(some, found, strict=True))
        adds.update(fresh)
        most = max(fresh.values())
        order.append(min(j for j, x in fresh.items() if x >= most - TIE))
        left.remove(order[-1])
        values.append(values[-1] + fresh[order[-1]])
        shown |= 1 << order[-1]
    return order, values


class Search:
    """F of sets of regions, each set a number whose bit j says that region j is in it.

    Every picture is run once: regions that change nothing in it (cropped away by the model, or
    equal in image and baseline) are left out of the number before it is looked up.
    """

    def __init__(self, target: Target, labels: np.ndarray, batch: int):
        self.target, self.batch = target, target.micro_batch(batch)
        self.count = int(labels.max()) + 1
        self.labels = torch.from_numpy(labels).to(target.image.device)  # (h, w)
        self.visible = sum(1 << j for j in np.unique(labels[matters(target)]).tolist())
        self.known: dict[int, float] = {}
        self.halves = (self.insight, self.necessity)

    def scores(self, sets: list[int]) -> list[float]:
        """F of every set."""
        return [a + b for a, b in zip(self.insight(sets), self.necessity(sets), strict=True)]

    def insight(self, sets: list[int]) -> list[float]:
        """p of every set, shown alone."""
        return self._look([s & self.visible for s in sets])

    def necessity(self, sets: list[int]) -> list[float]:
        """1 - p of what remains when a set is hidden."""
        return [1 - p for p in self._look([~s & self.visible for s in sets])]

    def winner(self, sets: list[int]) -> tuple[int, float]:
        """Place of the best set, ties to the first, and its F; exact, though not all are run.

        Both halves of F are at most 1. Once one half is known for all sets, those whose half plus
        1 falls short of the best F so far cannot win, and their other half is not run.
        """
        first, second = self.halves
        known = first(sets)
        waiting = sorted(range(len(sets)), key=lambda n: -known[n])
        full: dict[int, float] = {}
        most, size = 0.0, max(1, self.batch // 4)
        while waiting and known[waiting[0]] + 1 >= most - TIE:
            some, waiting = waiting[:size], waiting[size:]
            size = min(2 * size, self.batch)
            other = second([sets[n] for n in some])
            full.update((n, known[n] + x) for n, x in zip(some, other, strict=True))
            most = max(full.values())
        best = min(n for n, value in full.items() if value >= most - TIE)
        if known[best] > 0.5 * full[best]:  # the half with less room left makes the sharper bound
            self.halves = (second, first)
        return best, full[best]

    def _look(self, sets: list[int]) -> list[float]:
        """p of the pictures; those not known yet are run, a micro-batch at a time."""
        new = [s for s in dict.fromkeys(sets) if s not in self.known]
        for first in range(0, len(new), self.batch):
            some = new[first : first + self.batch]
            found = self.target.probability(self._pictures(some)).double()
            if not found.isfinite().all():
                raise FloatingPointError
            self.known.update(zip(some, found.tolist(), strict=True))
        return [self.known[s] for s in sets]

    def _pictures(self, sets: list[int]) -> Tensor:
        """The image in the regions of a set, the baseline elsewhere, (B, 3, h, w)."""
        bits = torch.tensor([[s >> j & 1 for j in range(self.count)] for s in sets])
        keep = bits.bool().to(self.labels.device)[:, self.labels]  # (B, h, w)
        return torch.where(keep[:, None], self.target.image, self.target.baseline)


def matters(target: Target) -> np.ndarray:
    """Pixels (h, w) bool that the model sees and that differ between image and baseline."""
    seen = target.bound.seen()[None, None].float()
    if not target.exact:
        seen = target.bound.reduced(seen)
    differs = (target.image != target.baseline).any(1)[0]
    return ((seen[0, 0] > 0).to(differs.device) & differs).cpu().numpy()


def paint_order(labels: np.ndarray, order: list[int], values: list[float]) -> Tensor:
    """Every region's pixels get what the steps after its own change, (h, w) float32."""
    change = np.abs(np.diff(values))
    if change.max() < TIE:
        return torch.zeros(labels.shape)
    after = change.clip(min=TIE)[::-1].cumsum()[::-1]  # each step and all after it
    level = np.empty(len(order))
    level[order] = np.append(after[1:], 0)
    return torch.from_numpy(level[labels]).float()
