"""The figures of the chapters on methods draw the numbers that they claim to draw."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import method_frames as frames
import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch02_methods, ch03_ablations, ch04_truth, ch05_cost

EIGHT = [0.6, 0.7, 0.8, 0.9, 0.6, 0.7, 0.8, 0.9]
GAPS = {"igos": EIGHT, "gae": [g - 0.5 for g in EIGHT], "random": [0.1, -0.1] * 4}
WHERE = ("mini/a", "sprites")


@pytest.fixture(autouse=True)
def clean():
    yield
    plt.close("all")


def labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def points(ax) -> list[float]:
    """Where the single dots are, from left to right in drawing order."""
    return [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]


def empty(figure) -> bool:
    said = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    return said == ["not yet run"]


def test_nothing_run_is_said_and_does_not_fail():
    nothing = pd.DataFrame()
    assert empty(ch02_methods.gap_figure(nothing))
    for draw in (
        ch02_methods.tests_figure,
        ch03_ablations.ablation_figure,
        ch05_cost.cost_figure,
        ch05_cost.frontier_figure,
        ch05_cost.flag_figure,
    ):
        assert empty(draw(nothing, *WHERE)), draw.__name__
        assert empty(draw(frames.maps(GAPS), "mini/b", "sprites")), draw.__name__
    assert empty(ch04_truth.effect_figure(nothing, nothing))
    assert empty(ch04_truth.grid_figure(nothing))
    assert empty(ch04_truth.truth_figure(frames.maps(GAPS), nothing, *WHERE))
    assert empty(ch04_truth.agreement_figure(frames.maps(GAPS), nothing, *WHERE))
    assert empty(ch02_methods.ground_figure({}, FLAT)) and empty(ch04_truth.ground_figure({}))
    assert empty(ch02_methods.contact_sheet(None, "mini/a", {}, "attribute"))
    assert empty(ch05_cost.stability_figure(nothing))


def test_gaps_best_on_top_with_a_line_at_the_difference_picture():
    null = [g - 0.25 for g in EIGHT]
    ax = ch02_methods.gap_figure(frames.maps(GAPS | {"difference": null})).axes[0]
    assert labels(ax) == ["iGOS", "Difference picture", "T-MM", "Random map"]
    assert points(ax) == pytest.approx([0.75, 0.5, 0.25, 0.0], abs=1e-9)
    lines = [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1]
    assert 0.5 in lines and 0 in lines
    marks = [line.get_marker() for line in ax.lines if line.get_marker() != "None"]
    assert marks == ["D", "s", "o", "s"]  # only igos is clearly above


def told(value: float) -> dict:
    """An estimate of a summary, 0.1 to each side of its value."""
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40}


def level(n: int, titles: str, **scores: tuple[float, float, float]) -> dict:
    """A level of `busy.json` from (gap, ROC-AUC, effect) by method."""
    names = ("gap", "auc_right", "effect")
    methods = {m: dict(zip(names, map(told, three), strict=True)) for m, three in scores.items()}
    methods["random"] = dict.fromkeys(names, told(0.0))
    return {"methods": methods, "bars": {"n": n, "ahead": {"titles": titles}}}


FAST = "igos[preset=fast]"
BUSY = {
    "levels": {
        "4": level(
            30, "iGOS (preset fast) and T-MM", gae=(0.5, 0.7, 0.4), difference=(0.1, 0.5, 0.2)
        ),
        "0": level(50, "none", gae=(0.25, 0.6, 0.3), difference=(0.75, 0.9, 0.1)),
    }
}
BUSY["levels"]["4"]["methods"][FAST] = dict.fromkeys(("gap", "auc_right", "effect"), told(0.9))
FLAT = {
    "winner": {"same": {"rise": told(0.9), "gae": told(0.25), "difference": told(0.5)}, "n": 60},
    "above": {"titles": "RISE"},
}


def test_busy_ground_first_and_flat_ground_in_its_order():
    axes = ch02_methods.ground_figure(BUSY, FLAT).axes
    names = ["iGOS (preset fast)", "T-MM", "Difference picture", "RISE"]
    assert labels(axes[0]) == names, "the random map is the line of chance"
    assert [points(ax) for ax in axes] == [[0.9, 0.5, 0.1], [0.25, 0.75], [0.25, 0.5, 0.9]]
    marks = [[m for line in ax.lines if (m := line.get_marker()) != "None"] for ax in axes]
    assert marks == [["D", "D", "s"], ["o", "s"], ["o", "s", "D"]]
    assert axes[0].get_title().endswith("n = 30")


def test_titles_of_a_list_for_readers_are_found_again():
    assert ch02_methods.told_of("iGOS (preset fast) and T-MM", ["igos", FAST, "gae"]) == {
        FAST,
        "gae",
    }
    assert ch02_methods.told_of("none", ["igos"]) == set()


def test_both_truths_on_both_grounds_in_the_order_of_effects():
    axes = ch04_truth.ground_figure(BUSY).axes
    assert labels(axes[0]) == ["iGOS (preset fast)", "T-MM", "Difference picture"]
    assert [points(ax) for ax in axes] == [[0.9, 0.7, 0.5], [0.6, 0.9], [0.9, 0.4, 0.2], [0.3, 0.1]]
    chance = [ax.lines[0].get_xdata()[0] for ax in axes]
    assert chance == [0.5, 0.5, 0, 0]


def test_ablations_stand_under_their_heading():
    gaps = {"igos[preset=paper]": EIGHT, "igos++[preset=paper]": EIGHT}
    gaps |= {"igos[tokens=all,preset=paper]": [g - 0.25 for g in EIGHT]}
    ax = ch03_ablations.ablation_figure(frames.maps(gaps), *WHERE).axes[0]
    assert labels(ax) == ["which tokens are explained", "all", "one mask or two", "iGOS++"]
    assert points(ax) == pytest.approx([-0.25, 0.0]) and not ax.texts
    more = frames.maps({"difference": [g + 0.1 for g in EIGHT]})
    ax = ch03_ablations.ablation_figure(pd.concat([frames.maps(gaps), more]), *WHERE).axes[0]
    (line,) = ax.texts
    assert line.get_text() == "the difference picture" and line.xy[0] == pytest.approx(0.1)
    assert [label.get_fontweight() for label in ax.get_yticklabels()][:2] == ["bold", "normal"]


def test_share_below():
    found = ch02_methods.share_below(np.array([[0.0, 0.0], [0.0, 3.0]]))
    assert found.tolist() == [[0, 0], [0, 1]]
    assert ch02_methods.share_below(np.array([[1.0, 2, 3]])).tolist() == [[0, 0.5, 1]]


def test_nobody_picks_the_item_of_the_sheet():
    pairs = [("i2", "igos"), ("i1", "igos"), ("i1", "gae")]
    pairs += [("i0", "igos"), ("i3", "igos"), ("i3", "gae")]
    stored = pd.DataFrame(pairs, columns=["item", "method"])
    stored = stored.assign(model="mini/a", category="attribute", status="ok")
    stored["saliency"] = [np.ones((2, 2))] * len(stored)
    assert ch02_methods.shared_item(stored, "mini/a", "attribute") == "i1"
    assert ch02_methods.shared_item(stored, "mini/a", "spatial") is None


def test_cost_is_drawn_at_its_seconds_below_the_controls():
    seconds = {"igos": [2.0] * 8, "gae": [0.5] * 8, "random": [0.1] * 8}
    left, right = ch05_cost.cost_figure(frames.maps(GAPS, seconds=seconds), *WHERE).axes
    assert labels(left) == ["Random map", "T-MM", "iGOS"]
    assert points(left) == [0.5, 2.0], "a control runs no model, and has no time"
    assert points(right) == pytest.approx([0.0, 0.25, 0.75], abs=1e-9)


def test_the_frontier_joins_the_settings_that_none_beats():
    """Two settings make 40 passes, one better; the paper's makes 100 and is worse than both."""
    names = ["igos[preset=fast]", "igos[steps=4,preset=paper]", "igos", "igos[preset=paper]"]
    gaps = dict(
        zip(names, ([g + more for g in EIGHT] for more in (0, -0.2, 0.1, -0.3)), strict=True)
    )
    rows = frames.maps(gaps | {"gae": EIGHT})
    rows["forward"] = rows.method.map(
        dict(zip(names, (40, 40, 100, 100), strict=True)) | {"gae": 1}
    )
    ax = ch05_cost.frontier_figure(rows, *WHERE).axes[0]
    every, best, paper = ax.lines
    assert sorted(every.get_xdata()) == [40, 40, 100, 100]
    assert best.get_xdata().tolist() == [40, 100]
    assert best.get_ydata() == pytest.approx([0.75, 0.85]) and paper.get_ydata()[0] == 0.45
    assert {t.get_text() for t in ax.texts} == {"iGOS", "fast", "paper"}


def test_stability_is_drawn_item_by_item_with_its_mean():
    rows = pd.DataFrame(
        [("i", "igos", "weights", "head", 1.0), ("i", "igos", "weights", "vision", 0.2)]
        + [("j", "igos", "weights", "vision", 0.6), ("i", "igos", "seeds", "", 0.9)],
        columns=["item", "method", "check", "stage", "value"],
    ).assign(status="ok")
    seeds, weights = ch05_cost.stability_figure(rows).axes
    assert weights.lines[0].get_xdata().tolist() == [0.2, 0.6]
    assert points(weights)[0] == pytest.approx(0.4) and points(seeds)[:2] == [0.9, 0.9]
