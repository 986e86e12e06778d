"""What one would pick instead of our methods gives the same maps, so the race is a fair one."""

from types import SimpleNamespace

import pytest
import torch

from lvlm_study.answers import make_target
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.heatmaps import METHODS
from lvlm_study.models import load_model
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import bench, instead

WINDOWS = {"window": 1 / 4, "stride": 1 / 8}
FEW = {"integrated_gradients": {"steps": 7}, "occlusion": WINDOWS}


@pytest.fixture(scope="module")
def captum():
    return pytest.importorskip("captum", reason="the extra bench is not installed")


def planted_target(size=(64, 96)):
    return make_target(planted("object"), planted_scene(size), "What colour?")


def near(ours, other, tolerance=1e-4):
    """Largest difference of two maps within `tolerance` of the largest value."""
    assert ours.abs().max() > 0 and ours.shape == other.shape
    return bool((ours - other).abs().max() <= tolerance * ours.abs().max())


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_plain_loop_is_igos_as_released(noise):
    few = {"mask_size": 8, "iterations": 3, "steps": 4, "noise": noise, "seed": 2}
    target = planted_target()
    ours = METHODS["igos"](target, compat="paper_code", **few)
    other = instead.plain_loop(target, **few)
    assert (ours - other).abs().max() < 1e-3 and other.std() > 0.1
    if noise:  # it does draw
        assert not near(ours, instead.plain_loop(target, **few | {"seed": 3}))


def test_the_plain_loop_runs_one_picture_at_a_time(adapters):
    """Through a real architecture: as many passes as igos, batches of one."""
    sizes, model = [], adapters("llava")
    item = load_benchmark("sprites")[0]
    answer = model.answer(item.rgb, item.question, 2)
    target = make_target(model, item.rgb, item.question, answer=answer, tokens="all")
    hook = model.model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: sizes.append(len(output))
    )
    try:
        few = {"iterations": 2, "steps": 2, "mask_size": 8}
        assert bench.counted(target, lambda: instead.plain_loop(target, **few)) == (8, 8)
    finally:
        hook.remove()
    assert sizes == [1] * 8


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("family", [None, "llava", "llava_onevision"])
def test_captum_gives_our_map(captum, adapters, monkeypatch, family, name):
    """Sides of 64 and 96 are whole numbers of strides: both have the same windows.

    Pictures are not rounded to grey levels here: a blend between two of them would fall to either
    side by the last bit of a sum, and untrained weights show that as 0.2 to 12 % of the map.
    """
    target, scene = planted_target(), planted_scene((64, 96))
    if family:
        model = adapters(family)
        answer = model.answer(scene, "What colour?", 2)
        target = make_target(model, scene, "What colour?", answer=answer, tokens="all")
    # How a picture is resized was settled by then; the floor is that of y + 0.5.
    monkeypatch.setattr(torch.Tensor, "floor_", lambda y: y.sub_(0.5))
    monkeypatch.setattr(torch.Tensor, "round_", lambda y: y)
    ours, other = METHODS[name](target, **FEW[name]), instead.CAPTUM[name](target, **FEW[name])
    assert near(ours, other.detach())


@pytest.mark.slow
def test_captum_cuts_its_last_window_off(captum):
    """71 = 8 x 8 + 7: ours moves the last window back, and only pixels near the border differ."""
    target = planted_target((64, 71))
    ours = METHODS["occlusion"](target, **WINDOWS)
    apart = (ours - instead.captum_occlusion(target, **WINDOWS)).abs()
    length, step = round(71 / 4), 71 // 8
    start = range(0, 71 - length, step)[-1] + step  # captum's last, 71 - start pixels wide
    assert start + length > 71 and apart.max() > 0
    assert apart[:, : 71 - length].max() <= 1e-4 * ours.abs().max()


@pytest.mark.slow
def test_every_row_has_its_passes_and_score(captum):
    model, item = load_model("mini/llava-1.5"), load_benchmark("sprites")[0]
    found = instead.beside([bench.target_of(model, item)])
    assert list(found) == list(instead.rows())
    passes = {name: (row["forward"], row["backward"]) for name, row in found.items()}
    assert passes["igos"] == passes["igos_paper"] == passes["plain_loop"] == (100, 100)
    for name in instead.CAPTUM:
        ours, other = found[name], found[f"captum_{name}"]
        assert other["gap"] == pytest.approx(ours["gap"], abs=1e-3)
        assert other["backward"] == ours["backward"] and other["forward"] >= ours["forward"]
    assert all(row["seconds"] > 0 and row["mib"] >= 0 for row in found.values())


def test_without_captum_its_rows_are_left_out_in_a_sentence(monkeypatch):
    monkeypatch.setattr(instead, "find_spec", lambda name: None)
    assert list(instead.rows())[-5:] == [
        "plain_loop",
        "integrated_gradients",
        "occlusion",
        "grad_cam",
        "rise",
    ]
    row = {"forward": 3, "backward": 2, "seconds": 0.5, "mib": 7.4, "gap": None}
    told = list(instead.lines({"grad_cam": row, "plain_loop": row | {"gap": 0.25}}))
    assert told[1].split() == ["grad_cam", "3", "2", "0.50", "s", "7", "MiB", "none"]
    assert told[2].startswith("  | plain_loop") and told[2].endswith(" 0.250")
    assert told[3:] == [instead.NO_CAPTUM, instead.LEFT_OUT]


def test_medians_and_the_mean_score():
    """By hand: 1, 2 and 9 seconds have the median 2; the score is a mean."""
    target = planted_target()
    maps = [instead.explain_target("center", target) for _ in range(3)]
    for ex, seconds in zip(maps, (1.0, 9.0, 2.0), strict=True):
        ex.cost.seconds, ex.cost.peak_bytes, ex.cost.forward = seconds, 3 << 20, 5
    told = instead._told(maps)
    assert told["seconds"] == 2.0 and told["mib"] == 3.0 and told["forward"] == 5
    assert told["gap"] == bench.deletion_insertion(None, maps[0]).gap


def test_nothing_to_explain_is_nothing_to_compare(capsys):
    item = SimpleNamespace(rgb=planted_scene((64, 96)), question="What colour?")
    assert bench.print_instead(planted("blind"), [item]) == {} and not capsys.readouterr().out
