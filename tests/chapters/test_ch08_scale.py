"""Size and architecture: verdicts on made-up models whose truth is known."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch08_scale as t
from lvlm_study.chapters import ch09_architecture as charts
from lvlm_study.chapters import compare
from lvlm_study.paths import data_dir

ITEMS = 24


def rows(model: str, level: float, look: int, noise: float = 0.01) -> list[dict]:
    """One model: gaps around `level`; its maps are those of its `look`, plus a little noise."""
    draw = np.random.default_rng(abs(hash_of(model)))
    out = []
    for k in range(ITEMS):
        own = np.random.default_rng(1000 * look + k).random((14, 14))
        heat = own + 0.05 * draw.random((14, 14))
        row = {
            "model": model,
            "benchmark": "sprites",
            "item": f"i{k:02d}",
            "method": "igos[preset=paper]",
        }
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
    return SimpleNamespace(
        maps=frame, reliance=answers, origin=lambda f: {"profile": "mini"}, **more
    )


SMALL, LARGE = ("mini/llava-1.5-s", 0.5, 1), ("mini/llava-1.5", 0.5, 1)
OTHER = ("mini/cambrian-l", 0.2, 2)


def test_equal_sizes_are_equivalent_and_look_alike():
    tree = t.scale_summary(tables(SMALL, LARGE))
    one = tree["families"]["llava-1.5"]["s to l"]
    assert one["verdict"] == "equivalent" and one["n"] == ITEMS
    assert one["similarity"]["value"] > 0.9 > 0.3 > abs(one["similarity"]["chance"])
    assert tree["families_with_sizes"] == 1 and "llava-1.5 (s to l: equivalent)" in tree["said"]


def test_different_sizes_are_told_apart():
    one = t.scale_summary(tables(("mini/llava-1.5-s", 0.2, 1), LARGE))["families"]["llava-1.5"]
    assert one["s to l"]["verdict"] == "different"
    assert one["s to l"]["difference"]["value"] == pytest.approx(0.3, abs=0.01)
    close = t.scale_summary(tables(("mini/llava-1.5-s", 0.47, 1), LARGE))["families"]["llava-1.5"]
    assert close["s to l"]["verdict"] == "different, but by less than the margin"


def test_noise_leaves_it_open():
    noisy = (("mini/llava-1.5-s", 0.5, 1, 1.0), ("mini/llava-1.5", 0.5, 1, 1.0))
    assert (
        t.scale_summary(tables(*noisy))["families"]["llava-1.5"]["s to l"]["verdict"]
        == "cannot tell"
    )


def test_without_two_sizes_it_says_so():
    tree = t.scale_summary(tables(LARGE, OTHER))
    assert tree["families_with_sizes"] == 0 and tree["said"].startswith("No architecture has maps")
    assert len(t.size_rows(tree)) == 1 and "other size" not in tree["relations"]
    assert t.missing(tree) == "No two models on this page differ only in: size, training."


FAMILIES = ("llava-1.5", "llava-ov", "mini-gemini")
# Two sizes of three architectures: their levels differ, and the smaller size is 0.01 lower.
SIX = [
    (f"mini/{family}{mark}", 0.4 + 0.1 * k - 0.01 * (mark == "-m"), k)
    for k, family in enumerate(FAMILIES)
    for mark in ("", "-m")
]


def test_three_architectures_in_two_sizes():
    tree = t.scale_summary(tables(*SIX))
    assert tree["families_with_sizes"] == 3 and set(tree["families"]) == set(FAMILIES)
    every = tree["together"]
    assert (every["architectures"], every["sizes"], every["n"]) == (3, "m to l", ITEMS)
    assert every["difference"]["value"] == pytest.approx(0.01, abs=0.005)
    assert -0.05 < every["equivalence"]["low"] < every["equivalence"]["high"] < 0.05
    assert tree["said"].startswith("Compared so far: llava-1.5 (m to l: ")
    assert tree["said"].endswith(f"all of them together: {every['verdict']}")
    assert tree["permutation"]["models"] == 6 and tree["permutation"]["smallest"] == 2 / 8
    effect = tree["mixed"]["effects"]["l"]
    assert tree["mixed"]["reference"] == "m" and tree["mixed"]["trainings"] == 6
    assert effect["estimate"] == pytest.approx(0.01, abs=0.005)
    assert list(t.size_rows(tree).architecture) == [*FAMILIES, "all 3"]
    units = t.paper_units(*paper(tree), "llm_scale")
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
    assert (tree["size"], tree["models"], tree["architectures"]) == ("l", 3, 3)
    over = tree["over_sizes"]
    assert (over["sizes"], over["models"]) == ("m, l", 6)
    assert over["permutation"]["smallest"] == over["permutation"]["p"] == 6 / 36
    assert over["mixed"]["effects"]["llava-ov"]["estimate"] == pytest.approx(0.1, abs=0.01)
    assert over["mixed"]["training_sd"] is not None and tree["mixed"]["training_sd"] is None
    assert len(t.mixed_rows(over)) == 5 and len(t.mixed_rows(None)) == 1
    assert len(tree["matrix"]) == 6 and tree["relations"]["other size"]["pairs"] == 3
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
    assert (tree["models"], tree["architectures"], tree["trained_twice"]) == (2, 2, 0)
    assert tree["mixed"]["training_sd"] is None
    effect = tree["mixed"]["effects"]["cambrian"]
    assert effect["estimate"] == pytest.approx(-0.3, abs=0.01) and effect["high"] < -0.2
    assert tree["said"] == "trained only once: cambrian, llava-1.5"
    assert (
        tree["permutation"]["smallest"] == tree["permutation"]["p"] == 1
    )  # two models, two labels
    across, size = (tree["relations"][f"other {k}"] for k in ("architecture", "size"))
    assert across["value"] < 0.3 < 0.9 < size["value"]


def test_two_trainings_count_as_such():
    again = ("mini/llava-1.5-seed1", 0.5, 1)
    tree = charts.architecture_summary(tables(LARGE, again, OTHER))
    assert tree["trained_twice"] == 1 and tree["mixed"]["training_sd"] is not None
    assert "other training" in tree["relations"]


def test_the_ceiling_compares_settings_of_one_model():
    made = tables(LARGE)
    quiet = made.maps.assign(method="igos[noise=0,preset=paper]")
    made.maps = pd.concat([made.maps, quiet], ignore_index=True)
    tree = t.scale_summary(made)
    assert tree["ceiling"]["igos[noise=0,preset=paper]"]["value"] == pytest.approx(1)
    assert tree["ceiling_spans"] == pytest.approx({"least": 1, "most": 1})
    assert compare.spanned({}) == {}
    assert compare.spanned({"a": {"value": 0.2}, "b": {"value": 0.7}}) == {
        "least": 0.2,
        "most": 0.7,
    }


def test_trees_are_json_and_make_tables():
    made = tables(SMALL, LARGE, OTHER)
    scale, architecture = t.scale_summary(made), charts.architecture_summary(made)
    table4, _, scalars = paper(scale)
    json.dumps([scale, architecture], allow_nan=False)
    units = t.paper_units(table4, architecture, scalars, "vision_arch")
    assert units.p[0] == 0.0008 and {"item", "model", "not named"} == set(units.unit)
    assert t.paper_units(table4, scale, scalars, "llm_scale").p[0] == 0.121
    assert list(t.mixed_rows(architecture).part)[0] == "cambrian − llava-1.5"
    assert len(t.relation_rows(scale)) == 3


def test_figures_show_every_row():
    import matplotlib

    matplotlib.use("Agg")
    from lvlm_study.chapters import ch09_architecture as charts

    tree = charts.architecture_summary(tables(SMALL, LARGE, OTHER))
    labels = [text.get_text() for text in charts.relation_figure(tree).axes[0].get_yticklabels()]
    assert labels == list(tree["relations"])
    rows = charts.gap_figure(tree).axes[0].get_yticklabels()
    assert [text.get_text() for text in rows] == [
        f"{n} (n = 24)" for n in ("cambrian-l", "llava-1.5")
    ]
    assert len(charts.matrix_figure(tree).axes[0].texts) == 9
    table4 = pd.read_csv(data_dir() / "paper" / "table4.csv")
    assert len(charts.paper_figure(table4, "llm_scale").axes[0].get_yticklabels()) == 6


def test_one_model_is_no_comparison():
    tree = charts.architecture_summary(tables(LARGE))
    assert tree["pairs"] == [] and tree["mixed"] is None and tree["permutation"]["p"] is None
    assert len(t.relation_rows(tree)) == 1 and len(t.mixed_rows(tree)) == 1


def test_nothing_run_is_no_file():
    empty = SimpleNamespace(maps=pd.DataFrame(), reliance=pd.DataFrame())
    assert t.scale_summary(empty) == charts.architecture_summary(empty) == {}
