"""Layers that are chosen on held-out scenes: by depth and by name, on no scene of the test set."""

import sys
from pathlib import Path

import pytest
import torch
from refusals import refuses
from white_box import target_for

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS, layers

TOOLS = Path(__file__).resolve().parents[2] / "tools"
FEW = {"llava_cam": {"samples": 1, "noise": 0.0}}


def run(method, target, **options):
    return METHODS[method](target, **FEW.get(method, {}), **options)


@pytest.mark.parametrize("method", ["grad_cam", "llava_cam"])
def test_auto_is_the_layer_entered_for_the_model(adapters, method, monkeypatch):
    target = target_for(adapters, "llava")
    name = target.bound.adapter.name
    with pytest.raises(StudyError, match=f"No layer of {name} has been chosen for {method}"):
        run(method, target, layer="auto")
    monkeypatch.setattr(layers, "DEPTHS", {(method, name): 0.0})
    first = run(method, target, layer=0)
    assert torch.equal(run(method, target, layer="auto"), first)
    assert torch.equal(run(method, target, depth=0.0), first)


def test_depth_one_is_the_last_usable_layer(adapters):
    """LLaVA reads the last but one block of its encoder: the last has no gradient."""
    for family in ("llava", "llava_onevision", "mini_gemini"):
        target = target_for(adapters, family)
        assert torch.equal(run("grad_cam", target, depth=1.0), run("grad_cam", target))


def test_layers_at_a_depth():
    assert [layers.at_depth([2, 3, 5, 7, 9], d) for d in (0, 0.2, 0.5, 1)] == [2, 3, 5, 9]
    assert layers.at_depth([4], 0.7) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1.5}, "a depth from 0 to 1, not 1.5"),
        ({"depth": 0.5, "layer": 0}, "takes a layer or a depth, not both"),
        ({"layer": "last"}, "layer of grad_cam must be a whole number"),
        ({"layer": 0.5}, "layer of grad_cam must be a whole number"),
    ],
)
def test_bad_options(adapters, options, message):
    refuses(message, run, "grad_cam", target_for(adapters, "llava"), **options)


def test_held_out_scenes_are_none_of_the_tests(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    sys.modules.pop("choose_layers", None)
    import choose_layers

    found = list(choose_layers.held_out(per_category=4))
    known = {item.extra["sha256"] for item in load_benchmark("sprites")}
    assert len(found) >= 12 and not {item.extra["sha256"] for item in found} & known
    assert all(item.evidence is not None for item in found)
    assert len({item.category for item in found[:4]}) == 4
