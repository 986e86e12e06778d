"""Every method finds red in a LLaVA and a LLaVA-NeXT that say a word because they see red."""

import functools
from inspect import signature

import numpy as np
import planted_network
import pytest
import torch
from planted_network import red_corner, target_on
from test_program_use import FEW

from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.names import CONTROLS
from lvlm_study.metrics.plausibility import auc
from lvlm_study.pixels.masks import render

CORNERS = ("left upper", "right upper", "left lower", "right lower")
SIZES = [(56, 56), (28, 56), (56, 28)]
ASKED = "relative_attention"  # divides by what any question attends to: see its own tests
FINDERS = [m for m in METHODS if m not in (*CONTROLS, "ga", ASKED)]  # ga needs a detector
FAMILIES = ("llava", "llava_next")
QUICK = {
    "rise": {"masks": 500},
    "occlusion": {"window": 1 / 4, "stride": 1 / 8},
    "eagle": {"regions": 24},
    "eagle_lazy": {"regions": 24},
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return functools.cache(
        lambda family: planted_network.planted_network(family, tmp_path_factory.mktemp(family))
    )


def shown(target, method, **options) -> np.ndarray:
    """The method's map over the part of the picture that the model is shown."""
    found = METHODS[method](target, seed=0, **options)
    return cut(render(found[None, None].float(), target.size)[0, 0].numpy(), target)


def cut(x, target) -> np.ndarray:
    """What LLaVA's centre crop leaves of a map or mask."""
    rows, columns = (target.bound.seen().any(axis).nonzero()[:, 0] for axis in (1, 0))
    return np.asarray(x)[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_word_is_said_because_red_is_seen(network, family):
    adapter = network(family)
    target = target_on(adapter, red_corner((56, 56), "left upper"))
    none = target_on(adapter, torch.zeros(56, 56, dtype=torch.bool))
    words = target.bound.logits(target.image, target.answer.token_ids)[0]
    assert (words.argmax(-1) == planted_network.WORD).all()
    assert target.score(target.image).exp() > 0.7
    vocabulary = words.shape[-1]
    assert none.score(none.image).exp().item() == pytest.approx(1 / vocabulary, rel=0.1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", FINDERS)
def test_every_method_finds_the_red_quarter(network, method, family, size):
    few = QUICK.get(method, {})
    for corner in CORNERS if size == (56, 56) else CORNERS[1:3]:
        red = red_corner(size, corner)
        target = target_on(network(family), red)
        found, evidence = shown(target, method, **few), cut(red, target)
        assert evidence.flat[found.argmax()], corner
        assert auc(found, evidence) > 0.95, corner


@pytest.mark.parametrize("family", FAMILIES)
def test_edges_do_not(network, family):
    red = red_corner((56, 56), "right upper")
    target = target_on(network(family), red)
    assert auc(shown(target, "sobel"), cut(red, target)) < 0.8


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", FINDERS)
def test_twice_the_same_bytes(network, method, family):
    target = target_on(network(family), red_corner((28, 56), "left lower"))
    few = FEW.get(method, {})
    one, two = (METHODS[method](target, seed=3, **few) for _ in range(2))
    assert torch.equal(one, two)
    if method in ("igos", "igos++", "rise", "smoothgrad", "llava_cam"):  # these draw
        assert not torch.equal(one, METHODS[method](target, seed=4, **few))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "method", [m for m in FINDERS if "batch" in signature(METHODS[m]).parameters]
)
def test_the_batch_changes_nothing(network, method, family):
    target = target_on(network(family), red_corner((28, 56), "right lower"))
    few = FEW.get(method, {})
    one, other = (METHODS[method](target, seed=3, batch=n, **few) for n in (3, 7))
    assert one.max() > 0
    assert torch.allclose(one, other, atol=1e-4 * float(one.abs().max()))
