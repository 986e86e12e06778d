"""`compat="paper_code"`: a plain loop over the released code's formulas gives the same masks.

The loop is written from `specs/methods.md` 2 alone: every gradient is autograd's through the whole
objective, all integration points in one graph, nothing shared with the package but the score.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from test_igos import SCENE, target_of

from lvlm_study.answers import make_target
from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.igos import edges_of

CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
SIGMA, L1, L2, TV, GAMMA, LR, MOMENTUM = 0.01, 1.0, 0.1, 10.0, 1.0, 10.0, 5.0
GRID, STEPS, ITERATIONS = 8, 4, 5


def up(mask, target):
    return F.interpolate(mask, target.size, mode="bilinear", align_corners=True)


def kept(target, image, empty, keep):
    """Mean score over k = 1..K of the picture that keeps (k / K) of the keep-map."""
    scores = [
        target.score(image * (k / STEPS * keep) + empty * (1 - k / STEPS * keep)).sum()
        for k in range(1, STEPS + 1)
    ]
    return sum(scores) / STEPS


def regulariser(mask, target, t, std):
    """L1 a mean, L2 a sum that decays, smoothing a mean over the steps of every direction."""
    normal = target.image / std
    down, across = normal[..., 1:, :] - normal[..., :-1, :], normal[..., 1:] - normal[..., :-1]
    rows = torch.exp(-(down.mean(1, keepdim=True) ** 2) / SIGMA)
    columns = torch.exp(-(across**2) / SIGMA).mean(1, keepdim=True)
    keep, smooth = up(mask, target), 0
    for m, weights in ((mask, (1.0, 1.0)), (keep, (rows, columns))):
        h, w = m.shape[-2:]
        smooth = smooth + (weights[0] * (m[..., 1:, :] - m[..., :-1, :]) ** 2).sum() / ((h - 1) * w)
        smooth = smooth + (weights[1] * (m[..., 1:] - m[..., :-1]) ** 2).sum() / (h * (w - 1))
    decayed = L2 * math.exp(-GAMMA * t)
    return L1 * (1 - mask).abs().mean() + decayed * ((1 - mask) ** 2).sum() + TV * smooth / 2


def one_mask(target, masks, t, std):
    (m,) = masks
    part = up(m, target)
    f = kept(target, target.image, target.baseline, part)
    return f - kept(target, target.baseline, target.image, part) + regulariser(m, target, t, std)


def two_masks(target, masks, t, std):
    x, y = masks
    image, empty = target.image, target.baseline
    one, two = up(x, target), up(y, target)
    f = kept(target, image, empty, one * two) - kept(target, empty, image, one * two)
    f = f + kept(target, image, empty, one) - kept(target, empty, image, two)
    return f / 2 + regulariser(x * y, target, t, std)


def released(target, objective, count, std=CLIP_STD):
    """The last masks, `count` of them, after the accelerated steps."""
    masks = [torch.ones(1, 1, GRID, GRID) for _ in range(count)]
    last = [torch.zeros(1, 1, GRID, GRID) for _ in range(count)]
    for t in range(ITERATIONS):
        leaves = [m.clone().requires_grad_() for m in masks]
        gradients = torch.autograd.grad(objective(target, leaves, t, std), leaves)
        points = [m - LR * g for m, g in zip(masks, gradients, strict=True)]
        pull = t / (t + MOMENTUM)
        masks = [(p + pull * (p - q)).clamp(0, 1) for p, q in zip(points, last, strict=True)]
        last = points
    return masks


CASES = {"igos": (one_mask, 1), "igos++": (two_masks, 2)}
SAME = {"mask_size": GRID, "steps": STEPS, "noise": 0.0, "compat": "paper_code"}


@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("reader", ["object", "conjunctive"])
def test_five_iterations_are_those_of_the_released_formulas(reader, method):
    target = target_of(reader)
    masks = released(target, *CASES[method])
    found = METHODS[method](target, **SAME)
    assert (found - (1 - math.prod(masks)[0, 0])).abs().max() < 1e-3
    assert 0.1 < found.std()  # there is a map to agree on


def test_a_real_architecture_has_the_deviations_of_its_own_view(adapters):
    """Untrained weights give masks that jump; the edge weights can be held to the letter."""
    model = adapters("llava_onevision")  # a SigLIP: its deviations are 0.5, not CLIP's
    answer = model.answer(SCENE, "What colour?", max_new_tokens=4)
    target, _ = make_target(model, SCENE, "What colour?", answer=answer, tokens="all")
    rows, columns = edges_of(target, "paper_code")
    std = torch.tensor(target.bound.geometry.plan.std).view(3, 1, 1)
    down, across = target.image.diff(dim=-2) / std, target.image.diff(dim=-1) / std
    assert torch.allclose(rows, torch.exp(-(down.mean(1, keepdim=True) ** 2) / SIGMA))
    assert torch.allclose(columns, torch.exp(-(across**2) / SIGMA).mean(1, keepdim=True))
    assert not torch.allclose(std, CLIP_STD, atol=0.05)
