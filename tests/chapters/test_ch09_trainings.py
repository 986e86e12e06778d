"""Trainings against architectures: made-up models whose truth is known."""

import numpy as np
import pytest
from test_ch08_scale import ITEMS, tables

from lvlm_study.chapters import ch09_architecture

FAMILIES = ("cambrian", "llava-1.5", "llava-ov")


def nine(step: float, looks=(1, 2, 3), spread: float = 0.02) -> list[tuple]:
    """Three trainings of three architectures: `step` between architectures in insertion - deletion.

    Trainings differ by `spread`; an architecture's maps are those of its look.
    """
    return [
        (f"mini/{family}-s" + f"-seed{seed}" * (seed > 0), 0.4 + step * k + spread * seed, look)
        for k, (family, look) in enumerate(zip(FAMILIES, looks, strict=True))
        for seed in range(3)
    ]


def test_a_difference_of_architectures_stands_out_from_its_trainings():
    tree = ch09_architecture.trainings_summary(tables(*nine(0.2)))
    assert (tree["models"], tree["architectures"]) == (9, 3)
    assert tree["ranges"]["one_architecture"] == pytest.approx(0.04, abs=0.01)
    assert tree["ranges"]["means"] == pytest.approx(0.4, abs=0.01)
    # 9! / (3!)^3 = 1680 ways of dealing the labels, 6 of which only rename the architectures
    assert tree["scores"]["p"] == tree["scores"]["smallest"] == pytest.approx(6 / 1680, rel=0.4)
    assert tree["mixed"]["training_sd"] < 0.03
    assert tree["mixed"]["effects"]["cambrian"]["estimate"] == pytest.approx(-0.2, abs=0.02)


def test_trainings_that_vary_as_much_hide_it():
    tree = ch09_architecture.trainings_summary(tables(*nine(0.02, spread=0.2)))
    assert tree["scores"]["p"] > 0.5 and tree["mixed"]["training_sd"] > 0.1
    effect = tree["mixed"]["effects"]["cambrian"]
    assert effect["low"] < 0 < effect["high"]


def test_maps_of_one_architecture_are_told_from_others(monkeypatch):
    noise = {f"i{k:02d}": np.random.default_rng(k).random((14, 14)) for k in range(ITEMS)}
    monkeypatch.setattr(ch09_architecture, "pictures", lambda names: noise)
    tree = ch09_architecture.trainings_summary(tables(*nine(0.0)))
    assert min(tree["apart"][value]["low"] for value in ("value", "given")) > 0.5
    families = tree["families"]
    assert set(families) == set(FAMILIES) and families["cambrian"]["cambrian"]["value"] > 0.9
    assert families["cambrian"]["llava-ov"] == families["llava-ov"]["cambrian"]
    alike = ch09_architecture.trainings_summary(tables(*nine(0.0, looks=(1, 1, 1))))
    assert abs(alike["apart"]["given"]["value"]) < 0.01
    figure = ch09_architecture.likeness_figure(tree)
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert sorted(shown[:3]) == list(FAMILIES) and "cambrian and llava-1.5" in shown[3:]


def test_scores_are_compared_on_items_that_all_models_have():
    made = tables(*nine(0.0))
    lost = made.maps.model.eq("mini/llava-ov-s-seed2") & made.maps.item.isin(["i00", "i01"])
    made.maps.loc[lost, "gap"] = float("nan")
    tree = ch09_architecture.trainings_summary(made)
    assert {one["n"] for one in tree["gaps"].values()} == {ITEMS - 2} == {tree["ranges"]["n"]}
    assert tree["scores"]["n"] == ITEMS - 2


def test_one_architecture_with_several_trainings_is_not_enough():
    some = [m for m in nine(0.1) if m[0].startswith("mini/cambrian") or "seed" not in m[0]]
    assert ch09_architecture.trainings_summary(tables(*some)) == {}
    assert ch09_architecture.trainings_summary(tables(some[0])) == {}


def test_a_training_that_shares_no_weight_is_held_against_both_kinds(monkeypatch):
    made = tables(*nine(0.0))
    noise = {f"i{k:02d}": np.random.default_rng(k).random((14, 14)) for k in range(ITEMS)}
    monkeypatch.setattr(ch09_architecture, "pictures", lambda names: noise)
    assert ch09_architecture.trainings_summary(made)["strangers"] is None
    alone = tables((ch09_architecture.STRANGER, 0.4, 2))  # looks as llava-1.5 does
    monkeypatch.setattr(ch09_architecture, "read_table", lambda folder, kind: alone.maps)
    tree = ch09_architecture.trainings_summary(made)
    found = tree["strangers"]
    assert (
        found["families"]["llava-1.5"]["value"] > 0.9 > 0.3 > found["families"]["cambrian"]["value"]
    )
    assert found["difference"]["low"] > 0.5 and abs(found["sharing"]["value"]) < 0.02
    figure = ch09_architecture.likeness_figure(tree)
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert shown[3] == "llava-1.5, no weight shared" and "no weight shared" in shown[-1]
    assert tree["gaps"].keys() == {name for name, *_ in nine(0.0)}, "no row among the others"
