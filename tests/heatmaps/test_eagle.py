"""EAGLE: the plain greedy loop is the oracle; additive scores have the order written on them."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import white_box
from white_box import photo, real_target

from lvlm_study.answers import make_target
from lvlm_study.heatmaps import explain
from lvlm_study.heatmaps.eagle import (
    TIE,
    Search,
    eagle,
    eagle_lazy,
    greedy,
    lazy,
    matters,
    paint_order,
    slic_zero,
)
from lvlm_study.metrics.plausibility import plausibility
from lvlm_study.models.planted import PlantedBound, planted, planted_scene

SCENE = planted_scene((48, 64))


def division(size, rows, columns):
    """Labels of a division into equal parts, in reading order."""
    r, c = (np.arange(n) * k // n for n, k in zip(size, (rows, columns), strict=True))
    return r[:, None] * columns + c[None]


@torch.no_grad()
def plain_search(target, labels):
    """The published loop: every candidate of every step, two pictures each, one at a time."""

    def p(shown):
        keep = torch.from_numpy(np.isin(labels, list(shown)))
        picture = target.image * keep + target.baseline * ~keep
        return target.log_probs(picture)[0].double().exp().mean().item()

    regions = set(range(labels.max() + 1))
    order, values = [], [p(set()) + 1 - p(regions)]
    while len(order) < len(regions):
        found = {}
        for j in sorted(regions - set(order)):
            shown = {*order, j}
            found[j] = p(shown) + 1 - p(regions - shown)
        most = max(found.values())
        order.append(min(j for j, value in found.items() if value >= most - TIE))
        values.append(found[order[-1]])
    return order, values


class Additive(PlantedBound):
    """p = sum of weight x pixel: every pixel adds what it adds, whatever else is shown."""

    def log_probs(self, x, answer_ids):
        weights = torch.rand(3, *x.shape[-2:], generator=torch.Generator().manual_seed(5))
        p = (x * weights).sum((1, 2, 3)) / weights.sum()
        return p.log()[:, None].expand(-1, len(answer_ids))


def additive_target():
    target = make_target(planted("object"), SCENE, "?", baseline="black")
    bound = target.bound
    return replace(target, bound=Additive(bound.adapter, bound.size, bound.question))


@torch.no_grad()
def test_additive_score_sorts_regions_by_what_they_add():
    target, labels = additive_target(), division((48, 64), 4, 4)
    share = [
        (target.probability(target.image * torch.from_numpy(labels == j)))[0].item()
        for j in range(16)
    ]
    order, values = greedy(Search(target, labels, 8))
    assert order == np.argsort(share)[::-1].tolist()
    assert np.allclose(np.diff(values), 2 * np.sort(share)[::-1], atol=1e-5)
    drawn = paint_order(labels, order, values).numpy()
    after = 2 * np.append(0, np.sort(share)).cumsum()[-2::-1]
    assert np.allclose([drawn[labels == j].mean() for j in order], after, atol=1e-5)


def test_map_by_hand():
    labels = np.array([[0, 1], [2, 2]])
    # F goes 0, 1, 1.5, 1.25 in the order 2, 0, 1: what the steps after a region's own change
    found = paint_order(labels, [2, 0, 1], [0.0, 1.0, 1.5, 1.25])
    assert torch.equal(found, torch.tensor([[0.25, 0.0], [0.75, 0.75]]))
    values = [0.3, 1.7, 1.7 + 1e-12, 1.7, 1.7, 0.4]  # 1.3 and what float32 leaves of 1.3 + 1e-12
    level = paint_order(np.arange(5)[None], [4, 3, 2, 1, 0], values)[0]
    assert (level.diff() > 0).all() and level[0] == 0
    torch.testing.assert_close(level, torch.tensor([0, 1.3, 1.3, 1.3, 1.3]), atol=1e-5, rtol=0)


def published_walk(order, values):
    """The walk as published: down from 0 by what each step changed, then lifted to end at 0.

    By fractions, so that nothing is rounded.
    """
    level, found = Fraction(0), {}
    for j, before, after in zip(order, values[:-1], values[1:], strict=True):
        level -= abs(Fraction(after) - Fraction(before))
        found[j] = level
    return {j: float(x - min(found.values())) for j, x in found.items()}


class Game(PlantedBound):
    """p of 2 x 4 white cells on black: a number for the set of those that are shown."""

    def log_probs(self, x, answer_ids):
        h, w = x.shape[-2] // 4, x.shape[-1] // 8
        shown = x[:, 0, h :: 2 * h, w :: 2 * w].flatten(1).bool()  # (B, 8), cell centres
        p = torch.tensor([self.worth(set(row.nonzero()[:, 0].tolist())) for row in shown])
        return p.double().log()[:, None].expand(-1, len(answer_ids))

    def worth(self, shown):
        return 0.1 + sum(2**j for j in shown) / 300


class And(Game):
    """Cells 2 and 5 together bring 0.6; what 2 adds alone is little, and 7 takes something away."""

    def worth(self, shown):
        return 0.2 + 0.6 * ({2, 5} <= shown) + 0.01 * (2 in shown) - 0.1 * (7 in shown)


def game_target(kind):
    target = make_target(planted("object"), SCENE, "?")
    white = torch.ones_like(target.image)
    bound = kind(target.bound.adapter, target.bound.size, "?")
    return replace(target, bound=bound, image=white, baseline=torch.zeros_like(white))


@pytest.mark.parametrize(
    ("kind", "first", "most"),
    [
        # steps of F, twice what a cell adds: 256, 128, .. 2 of 300; all but the first are 254
        (Game, [7, 6, 5, 4, 3, 2, 1, 0], 254 / 300),
        # F: 2 takes from what is left what the two bring, 0.62; so does 5 to what is shown, 0.6;
        # then five that change nothing, and 7 takes away 0.2
        (And, [2, 5, 0, 1, 3, 4, 6, 7], 0.6 + 0.2),
    ],
)
def test_map_is_the_published_walk_of_a_naive_search(kind, first, most):
    """Chen et al.: order by the plain loop, walked down by fractions."""
    target, labels = game_target(kind), division((48, 64), 2, 4)
    order, values = plain_search(target, labels)
    assert order == first
    expected = published_walk(order, values)
    search = Search(target, labels, 4)
    drawn = paint_order(labels, *greedy(search)).numpy()
    found = {j: drawn[labels == j].mean() for j in range(8)}
    assert all(abs(found[j] - expected[j]) < 1e-5 for j in range(8))
    assert found[first[0]] == pytest.approx(most, abs=1e-5) and found[first[-1]] == 0


@pytest.mark.parametrize("kind", [Game, And])
def test_no_two_regions_tie(kind):
    """Not even where a step changes nothing, or less than float32 resolves: the order is kept."""
    target, labels = game_target(kind), division((48, 64), 2, 4)
    order, _ = greedy(Search(target, labels, 8))
    drawn = paint_order(labels, *greedy(Search(target, labels, 8))).numpy()
    level = [drawn[labels == j].max() for j in order]
    assert drawn.dtype == np.float32 and (np.diff(level) < 0).all()


def test_a_score_that_never_changes_puts_no_region_first():
    class Deaf(Game):
        def worth(self, shown):
            return 0.5

    assert eagle(game_target(Deaf), regions=9).abs().max() == 0


def same_search(target, labels, batch):
    order, values = plain_search(target, labels)
    found, its = greedy(Search(target, labels, batch))
    assert found == order and np.allclose(its, values, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 32])
@pytest.mark.parametrize("name", ["object", "conjunctive", "disjunctive", "multi_crop"])
def test_order_is_that_of_the_plain_loop(name, batch):
    target = make_target(planted(name), SCENE, "?")
    same_search(target, slic_zero(target, 16), batch)


@pytest.mark.parametrize("family", white_box.FAMILIES)
def test_order_is_that_of_the_plain_loop_on_networks(adapters, family):
    target = real_target(white_box.adapter_of(adapters, family), (45, 61), tokens=2)
    same_search(target, slic_zero(target, 4), 5)


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_order_survives_any_score(seed):
    """p a random number of every set, many of them equal: the bounds must not drop a winner."""
    target = make_target(planted("object"), SCENE, "?")
    labels = division((48, 64), 2, 4)
    corners = [(labels == j).nonzero() for j in range(8)]
    draw = np.random.default_rng(seed)
    table = torch.from_numpy(draw.integers(0, 10, 256) / 10 if seed % 2 else draw.random(256))

    class Random(PlantedBound):
        def log_probs(self, x, answer_ids):
            shown = [(x[:, :, r[0], c[0]] == 1).all(1) for r, c in corners]
            number = sum(bit.long() << j for j, bit in enumerate(shown))
            return table[number].log()[:, None].expand(-1, len(answer_ids))

    white = torch.ones_like(target.image)
    bound = Random(target.bound.adapter, target.bound.size, "?")
    target = replace(target, bound=bound, image=white, baseline=torch.zeros_like(white))
    order, values = plain_search(target, labels)
    search = Search(target, labels, 4)
    found, its = greedy(search)
    assert found == order and np.allclose(its, values, atol=1e-12)
    assert len(search.known) <= 8 * 9 - 6 + 2


@torch.no_grad()
def test_lazy_search_is_the_plain_one_where_nothing_grows():
    target, labels = additive_target(), division((48, 64), 4, 4)
    search = Search(target, labels, 8)
    order, values = lazy(search)
    expected, its = greedy(Search(target, labels, 8))
    assert order == expected and np.allclose(values, its, atol=1e-5)


@torch.no_grad()
def test_lazy_search_needs_fewer_passes_and_finds_the_evidence():
    target = make_target(planted("object"), SCENE, "?", baseline="black")
    search = Search(target, slic_zero(target, 64), 32)
    lazy(search)
    assert len(search.known) < 64 * 65 / 3
    inside = planted("object").evidence((48, 64))
    assert plausibility(eagle_lazy(target).numpy(), inside).auc > 0.9


@pytest.mark.parametrize("name", ["object", "watermark", "conjunctive", "multi_crop"])
def test_planted_evidence_is_found(name):
    reader = planted(name)
    found = explain(reader, SCENE, "?", method="eagle", baseline="black")
    score = plausibility(found.saliency, reader.evidence(SCENE.shape[:2]))
    assert found.status == "ok" and found.saliency.shape == SCENE.shape[:2]
    assert score.pointing == 1 and score.auc > 0.9
    n = slic_zero(found.target, 64).max() + 1
    # no bound can tell apart the many regions that change nothing: only memory saves passes here
    assert found.cost.forward <= n * (n + 1) - 4 and found.cost.backward == 0


def test_memory_follows_the_batch(monkeypatch):
    target = make_target(planted("object"), SCENE, "?")
    sizes, honest = [], PlantedBound.log_probs

    def log_probs(self, x, answer_ids):
        sizes.append(len(x))
        return honest(self, x, answer_ids)

    monkeypatch.setattr(PlantedBound, "log_probs", log_probs)
    eagle(target, regions=30, batch=6)
    assert max(sizes) == 6


def test_what_the_model_cannot_see_is_not_run(adapters):
    """A centre crop hides the sides of a wide image: their regions take part without a pass."""
    target = real_target(adapters("llava"), (28, 84))
    labels = division((28, 84), 1, 6)  # the crop keeps columns 28..56, so regions 2 and 3
    assert matters(target).any(0).nonzero()[0].tolist() == list(range(28, 56))
    search = Search(target, labels, 8)
    order, values = greedy(search)
    assert len(search.known) == 4  # both, either, none
    expected, its = plain_search(target, labels)
    assert order == expected and np.allclose(values, its, atol=1e-5)
    change = np.diff(values)[[n for n, j in enumerate(order) if j not in (2, 3)]]
    assert np.abs(change).max() == 0


def test_a_corner_matters_where_it_is():
    """The score depends on the top right corner only: its region comes first."""
    target = replace(additive_target(), bound=Corner(planted("object"), (48, 64), "?"))
    for image in (target.image, torch.full_like(target.image, 0.5)):  # the latter without contrast
        found = eagle(replace(target, image=image), regions=24)
        assert found[0, -1] == found.max() and found[0, -1] > found[-1].max()


class Corner(PlantedBound):
    def log_probs(self, x, answer_ids):
        p = 0.1 + 0.8 * x[:, :, :4, -4:].mean((1, 2, 3))
        return p.log()[:, None].expand(-1, len(answer_ids))


def test_scores_that_are_no_numbers_are_said_to_diverge():
    class Broken(PlantedBound):
        def log_probs(self, x, answer_ids):
            return torch.full((len(x), len(answer_ids)), torch.nan)

    found = eagle(replace(additive_target(), bound=Broken(planted("object"), (48, 64), "?")))
    assert found.shape == (48, 64) and found.isnan().all()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 2)])
def test_odd_sizes(size):
    image = torch.from_numpy(photo(size)).permute(2, 0, 1)[None] / 255
    bound = Additive(planted("object"), size, "?")
    target = replace(additive_target(), bound=bound, image=image, baseline=torch.zeros_like(image))
    labels = slic_zero(target, 8)
    assert labels.shape == size and set(labels.ravel()) == set(range(labels.max() + 1))
    assert eagle(target, regions=8).shape == size


def test_regions_keep_to_the_picture():
    target = make_target(planted("object"), SCENE, "?")
    labels = slic_zero(target, 64)
    assert 40 <= labels.max() + 1 <= 90
    inside = planted("object").evidence((48, 64))
    share = [inside[labels == j].mean() for j in np.unique(labels)]
    assert np.mean([0.1 < x < 0.9 for x in share]) < 0.1  # few regions straddle the square
