"""Methods that only ask for scores, on real architectures: where a map lies, which way up, batches.

The picture is its own baseline outside of one box, so that nothing outside can matter, whatever the
model. A map that is shifted, mirrored, transposed or upside down puts its mass elsewhere.
"""

from dataclasses import replace

import pytest
import torch
import white_box

from lvlm_study.heatmaps import METHODS

FAMILIES = ("llava", "llava_pad", "llava_next", "llava_onevision", "cambrian", "mini_gemini")
SIZE = (64, 96)
BOXES = {"upper right": (8, 24, 64, 80), "lower left": (40, 56, 16, 32)}  # rows, columns
OPTIONS = {
    "igos": {"mask_size": 16, "iterations": 4, "steps": 4},
    "igos++": {"mask_size": 16, "iterations": 4, "steps": 4},
    "rise": {"masks": 400, "cells": 8},
    "occlusion": {"window": 1 / 4, "stride": 1 / 16},
    "integrated_gradients": {"steps": 8},
    "smoothgrad": {"samples": 4},
}
# SmoothGrad asks what any change would do, the picture's or not; RISE is too noisy a map of a
# random model, and has an exact test of its own (`test_perturbation`).
MAPPED = [method for method in OPTIONS if method not in ("smoothgrad", "rise")]


class Louder:
    """A bound model whose log-probabilities are stretched: tiny random models hardly react."""

    def __init__(self, bound, gain):
        self.bound, self.gain = bound, gain

    def __getattr__(self, name):
        return getattr(self.bound, name)

    def log_probs(self, x, ids, **options):
        return self.gain * self.bound.log_probs(x, ids, **options)


def boxed(adapters, family, box, effect=4.0):
    """A target that only a box tells from its baseline, worth `effect` nats in favour."""
    target = white_box.target_for(adapters, family, size=SIZE)
    top, bottom, left, right = box
    image = target.baseline.clone()
    image[..., top:bottom, left:right] = target.image[..., top:bottom, left:right]
    target = replace(target, image=image)
    with torch.no_grad():
        whole = float(target.score(image) - target.score(target.baseline))
    return replace(target, bound=Louder(target.bound, effect / whole))


def share_near(saliency, box, reach):
    """Share of a map's absolute values within `reach` pixels of the box, at full size."""
    top, bottom, left, right = box
    near = torch.zeros(SIZE, dtype=torch.bool)
    near[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = True
    large = saliency.abs().repeat_interleave(SIZE[0] // saliency.shape[0], 0)
    large = large.repeat_interleave(SIZE[1] // saliency.shape[1], 1)
    return float(large[near].sum() / large.sum())


def mean_in(saliency, box):
    """Mean saliency of the box, in the map's own grid."""
    down, across = SIZE[0] // saliency.shape[0], SIZE[1] // saliency.shape[1]
    top, bottom, left, right = box
    return float(saliency[top // down : bottom // down, left // across : right // across].mean())


def misplaced(box):
    """The box in the pictures mirrored left to right, upside down, both, and transposed."""
    (h, w), (top, bottom, left, right) = SIZE, box
    across, over = (top, bottom, w - right, w - left), (h - bottom, h - top, left, right)
    turned = (left * h // w, right * h // w, top * w // h, bottom * w // h)
    return [across, over, (*over[:2], *across[2:]), turned]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", MAPPED)
def test_a_map_lies_on_what_differs_the_right_way_up(adapters, family, method):
    for box in BOXES.values():
        target = boxed(adapters, family, box)
        found = METHODS[method](target, **OPTIONS[method])
        here, elsewhere = mean_in(found, box), [mean_in(found, other) for other in misplaced(box)]
        if method != "occlusion":  # taking a part of the box away may help a random model
            assert here > max(0, *elsewhere), (here, elsewhere)
        if method == "integrated_gradients":
            assert share_near(found, box, 0) == pytest.approx(1)
            assert float(found.sum()) > 0  # on average what the box adds, 4 nats
        elif method == "occlusion":
            touched = share_near(found, box, 24)  # by some window
            assert touched == pytest.approx(1)
        else:  # chance is the share of the area, 0.23
            assert share_near(found, box, 12) > 0.7


@pytest.mark.parametrize("method", ["smoothgrad", "integrated_gradients"])
def test_what_the_model_does_not_see_has_no_gradient(adapters, method):
    """LLaVA-1.5 cuts the middle square out of 64 x 96: columns 16 to 80, and a filter's reach."""
    found = METHODS[method](white_box.target_for(adapters, "llava", size=SIZE), **OPTIONS[method])
    seen = found[:, 16:80].abs()
    assert found[:, :8].abs().max() == found[:, 88:].abs().max() == 0
    assert (seen > 0).float().mean() > 0.9


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize("method", OPTIONS)
def test_the_batch_changes_nothing(adapters, family, method):
    target = boxed(adapters, family, BOXES["upper right"])
    one, many = (METHODS[method](target, batch=b, **OPTIONS[method]) for b in (1, 8))
    assert (one - many).abs().max() <= 1e-3 * many.abs().max()
