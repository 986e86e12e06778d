"""Size and architecture: verdicts on made-up models whose truth is known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch08_scale as t
from lvlm_study.chapters import ch09_architecture as charts
from lvlm_study.chapters import two_models
from lvlm_study.errors import StudyError
from lvlm_study.paths import data_dir

ITEMS = 24


def rows(model: str, level: float, look: int, noise: float = 0.01) -> list[dict]:
    """One model: gaps around `level`; its maps are those of its `look`, plus a little noise."""
    draw = np.random.default_rng(abs(hash_of(model)))
    out = []
    for k in range(ITEMS):
        own = np.random.default_rng(1000 * look + k).random((14, 14))
        heat = own + 0.05 * draw.random((14, 14))
        row = {"model": model, "benchmark": "sprites", "item": f"i{k:02d}"}
        row |= {"method": "igos[preset=paper]"}
        row |= {"units": "grid", "fill": "blur", "status": "ok", "category": "attribute"}
        row |= {"heatmap": heat.astype(np.float16).ravel(), "heatmap_shape": np.array([14, 14])}
        out.append(row | {"gap": level + 0.1 * (k % 4) + noise * draw.normal()})
    return out


def hash_of(text: str) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(text)) % 2**31


def tables(*models, **more):
    frame = pd.DataFrame([row for one in models for row in rows(*one)])
    said = [{"benchmark": "sprites", "item": f"i{k:02d}", "answer": "x"} for k in range(ITEMS)]
    answers = pd.DataFrame([{"model": m[0]} | s for m in models for s in said])
    answers = answers.assign(baseline="blur", verdict="correct", total_drop=0.9)
    own = {"maps": frame, "reliance": answers, "results": Path("nowhere")}
    return SimpleNamespace(**own, origin=lambda f: {"profile": "mini"}, **more)


SMALL, LARGE = ("mini/llava-1.5-s", 0.5, 1), ("mini/llava-1.5", 0.5, 1)
OTHER = ("mini/cambrian-l", 0.2, 2)


def test_equal_sizes_are_equivalent_and_look_alike():
    tree = t.scale_summary(tables(SMALL, LARGE))
    one = tree["families"]["llava-1.5"]["s to l"]
    assert one["verdict"] == "equivalent" and one["n"] == ITEMS
    assert tree["relations"]["other size"]["raw"]["value"] > 0.9
    assert len(tree["families"]) == 1 and one["needed"] < ITEMS


def test_different_sizes_are_told_apart():
    one = t.scale_summary(tables(("mini/llava-1.5-s", 0.2, 1), LARGE))["families"]["llava-1.5"]
    assert one["s to l"]["verdict"] == "different"
    assert one["s to l"]["difference"]["value"] == pytest.approx(0.3, abs=0.01)
    close = t.scale_summary(tables(("mini/llava-1.5-s", 0.47, 1), LARGE))["families"]["llava-1.5"]
    assert close["s to l"]["verdict"] == "different, but by less than the margin"


def test_another_method_is_told_by_size_too():
    pair = tables(SMALL, LARGE)
    other = pair.maps.assign(method=t.FREE, gap=pair.maps.gap + (pair.maps.model == LARGE[0]))
    pair.maps = pd.concat([pair.maps, other])
    tree = t.scale_summary(pair)
    assert tree["families"]["llava-1.5"]["s to l"]["verdict"] == "equivalent"
    one = tree["free"]["families"]["llava-1.5"]["s to l"]
    assert one["verdict"] == "different" and one["difference"]["value"] == pytest.approx(
        1, abs=0.01
    )
    assert tree["free"]["relations"]["other size"]["raw"]["value"] > 0.9
    assert t.scale_summary(tables(SMALL, LARGE))["free"] == {"families": {}, "relations": {}}


def test_noise_leaves_it_open():
    tree = t.scale_summary(tables(*((*model[:3], 1.0) for model in (SMALL, LARGE))))
    assert tree["families"]["llava-1.5"]["s to l"]["verdict"] == "cannot tell"


def test_items_needed_by_hand():
    """Nine times in ten: 2 z(0.95) standard errors fit into the margin."""
    assert t.needed(0.05) == int(np.ceil((2 * 1.6449) ** 2)) == 11
    assert t.needed(0.27) == 316


def test_without_two_sizes_it_says_so():
    tree = t.scale_summary(tables(LARGE, OTHER))
    assert len(tree["families"]) == 0 and set(tree["relations"]) == {"other architecture"}
    assert len(t.size_rows(tree)) == 1


FAMILIES = ("llava-1.5", "llava-ov", "mini-gemini")
# Two sizes of three architectures: their levels differ, and the smaller size is 0.01 lower.
SIX = [
    (f"mini/{family}{mark}", 0.4 + 0.1 * k - 0.01 * (mark == "-m"), k)
    for k, family in enumerate(FAMILIES)
    for mark in ("", "-m")
]


def test_three_architectures_in_two_sizes():
    tree = t.scale_summary(tables(*SIX))
    assert len(tree["families"]) == 3 and set(tree["families"]) == set(FAMILIES)
    every = tree["together"]
    assert (every["architectures"], every["sizes"], every["n"]) == (3, "m to l", ITEMS)
    assert every["difference"]["value"] == pytest.approx(0.01, abs=0.005)
    assert -0.05 < every["equivalence"]["low"] < every["equivalence"]["high"] < 0.05
    assert tree["permutation"]["models"] == 6 and tree["permutation"]["smallest"] == 2 / 8
    effect = tree["mixed"]["effects"]["l"]
    assert tree["mixed"]["reference"] == "m"
    assert effect["estimate"] == pytest.approx(0.01, abs=0.005)
    assert list(t.size_rows(tree).architecture) == [*FAMILIES, "all 3"]
    units = two_models.paper_units(*paper(tree), "llm_scale")
    own = units[units.data.str.startswith("ours")]
    assert list(own.unit) == ["item"] * 8 + ["model"] * 2 and own.p.iloc[-1] == 2 / 8


def test_a_lone_size_is_left_out_of_what_is_pooled():
    """Cambrian has one size only; its level must not pass for an effect of size."""
    four = [*SIX[:4], ("mini/cambrian-l", 0.9, 5)]
    tree = t.scale_summary(tables(*four))
    assert tree["together"]["architectures"] == 2 and tree["permutation"]["models"] == 4
    assert tree["mixed"]["effects"]["l"]["estimate"] == pytest.approx(0.01, abs=0.005)


def test_architectures_over_two_sizes():
    tree = charts.architecture_summary(tables(*SIX))
    assert (tree["models"], tree["architectures"]) == (3, 3)
    over = tree["over_sizes"]
    assert (over["sizes"], over["permutation"]["models"]) == ("m, l", 6)
    assert over["permutation"]["smallest"] == over["permutation"]["p"] == 6 / 36
    assert tree["mixed"]["effects"]["llava-ov"]["estimate"] == pytest.approx(0.1, abs=0.01)
    assert len(two_models.mixed_rows(tree)) == 5 and len(two_models.mixed_rows(None)) == 1
    assert len(tree["matrix"]) == 6
    assert charts.architecture_summary(tables(*SIX[:3]))["over_sizes"] is None


def test_answers_are_compared_on_all_items():
    made = tables(*SIX[:2])
    small = made.reliance.model == "mini/llava-1.5-m"
    made.reliance.loc[small, "total_drop"] = 0.7
    made.reliance.loc[small & (made.reliance["item"] == "i00"), "verdict"] = "wrong"
    one = t.scale_summary(made)["answers"]["llava-1.5"]["m to l"]
    assert one["drop"]["difference"]["value"] == pytest.approx(0.2) and one["drop"]["n"] == ITEMS
    assert one["drop"]["verdict"] == "different"
    assert one["right"]["small"]["value"] == pytest.approx(23 / 24)
    shown = t.answer_rows(t.scale_summary(made))
    assert shown["lost under blur, smaller"][0].startswith("0.70")
    assert len(t.answer_rows({})) == 1


def paper(tree: dict) -> tuple:
    table4 = pd.read_csv(data_dir() / "paper" / "table4.csv")
    return table4, tree, pd.read_csv(data_dir() / "paper" / "scalars.csv")


def test_architectures_with_one_training_each():
    tree = charts.architecture_summary(tables(SMALL, LARGE, OTHER))
    assert (tree["models"], tree["architectures"]) == (2, 2)
    assert tree["mixed"]["training_sd"] is None
    effect = tree["mixed"]["effects"]["cambrian"]
    assert effect["estimate"] == pytest.approx(-0.3, abs=0.01) and effect["high"] < -0.2
    two = tree["permutation"]  # two models, two labels
    assert two["smallest"] == two["p"] == 1


def test_two_trainings_count_as_such():
    again = ("mini/llava-1.5-seed1", 0.5, 1)
    tree = charts.architecture_summary(tables(LARGE, again, OTHER))
    assert tree["mixed"]["training_sd"] is not None
    relations = t.scale_summary(tables(LARGE, again, OTHER))["relations"]
    alike = {kind: one["raw"]["value"] for kind, one in relations.items()}
    assert alike["other architecture"] < 0.3 < 0.9 < alike["other training"]


def test_the_ceiling_compares_settings_of_one_model():
    made = tables(LARGE)
    quiet = made.maps.assign(method="igos[noise=0,preset=paper]")
    made.maps = pd.concat([made.maps, quiet], ignore_index=True)
    tree = t.scale_summary(made)
    assert tree["ceiling"]["igos[noise=0,preset=paper]"]["raw"]["value"] == pytest.approx(1)
    assert two_models.relation_rows(tree).iloc[-1, 0] == "settings (noise 0)"


def test_trees_are_json_and_make_tables():
    made = tables(SMALL, LARGE, OTHER)
    scale, architecture = t.scale_summary(made), charts.architecture_summary(made)
    table4, _, scalars = paper(scale)
    json.dumps([scale, architecture], allow_nan=False)
    units = two_models.paper_units(table4, architecture, scalars, "vision_arch")
    assert units.p[0] == 0.0008 and {"item", "model", "not named"} == set(units.unit)
    assert two_models.paper_units(table4, scale, scalars, "llm_scale").p[0] == 0.121
    assert list(two_models.mixed_rows(architecture).part)[0] == "cambrian − llava-1.5"
    assert len(two_models.relation_rows(scale)) == 3


def test_figures_show_every_row():
    def lines(figure):
        return [text.get_text() for text in figure.axes[0].get_yticklabels()]

    scale, tree = (
        summary(tables(*SIX)) for summary in (t.scale_summary, charts.architecture_summary)
    )
    assert lines(two_models.relation_figure(scale)) == list(scale["relations"])
    assert lines(t.size_figure(scale)) == [
        f"{one}, m to l (n = 24)" for one in (*FAMILIES, "all 3")
    ]
    assert len(charts.matrix_figure(tree).axes[0].get_yticklabels()) == 3  # the largest of six
    gaps = {"gaps": {"mini/cambrian-s-seed1": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}}}
    assert lines(charts.gap_figure(gaps)) == ["cambrian-s-seed1 (n = 9)"]


def test_models_side_by_side():
    """A picture, its difference picture, and each model's map, of the first item that all have."""
    items = {item.id: item for item in load_benchmark("sprites")[:2]}
    draw = np.random.default_rng(0)
    rows = [("mini/a", 0), ("mini/a", 1), ("mini/b", 1)]
    names = list(items)
    maps = pd.DataFrame(
        [{"model": m, "item": names[k], "saliency": draw.random((14, 14))} for m, k in rows]
    )
    figure = two_models.side_by_side(maps, items, ["mini/a", "mini/b"])
    heads = [ax.get_title() + ax.get_title(loc="left") for ax in figure.axes]
    assert heads[0].split() == items[names[1]].question.split()
    assert heads[1:] == ["difference picture", "a", "b"]
    with pytest.raises(StudyError, match="no item in common"):
        two_models.side_by_side(maps, items, ["mini/a", "mini/c"])


def test_one_model_is_no_comparison():
    tree = charts.architecture_summary(tables(LARGE))
    assert tree["pairs"] == [] and tree["mixed"] is None and tree["permutation"]["p"] is None
    assert len(two_models.mixed_rows(tree)) == 1
    assert len(two_models.relation_rows(t.scale_summary(tables(LARGE)))) == 1


def test_nothing_run_is_no_file():
    empty = SimpleNamespace(maps=pd.DataFrame(), reliance=pd.DataFrame())
    assert t.scale_summary(empty) == charts.architecture_summary(empty) == {}
