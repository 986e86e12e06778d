"""Tables and figures of the chapter on detection: what they say, from trees written by hand."""

import pandas as pd
import pytest

from lvlm_study.chapters import ch13_detection as charts
from lvlm_study.detector.bias_study import SIZES
from lvlm_study.paths import data_dir


def shown(value, spread=0.1, **more):
    return {"value": value, "low": value - spread, "high": value + spread, "n": 9} | more


NOTHING = {"value": None, "low": None, "high": None, "n": 0}


@pytest.mark.usefixtures("few_have_ends")
def test_kinds_stand_beside_the_seeds_scores():
    row = {"precision": shown(0.9), "recall": shown(0.5), "answers": shown(0.8)}
    tree = {"kinds": {"deep": row | {"error": 0.0071, "steps": 9}, "unmodified": row}}
    table = charts.kinds_table(tree, pd.read_csv(data_dir() / "paper" / "joint_table1.csv"))
    table = table.set_index("W")
    assert table["the authors' judge (1 to 10)"].tolist() == [6.9, 7.0, 6.1, 5.6, 3.2]
    assert table.loc["deep MLP", "object recall (%)"] == "50 [40, 60]"
    assert table.loc["deep MLP", "steps"] == "9"
    assert table.loc["deep MLP", "squared error"] == "0.007"
    assert pd.isna(table.loc["none: LLaVA itself", "squared error"])
    assert table.loc["transformer"].drop("the authors' judge (1 to 10)").isna().all()


def method(ratio, gap):
    scores = {"energy_ratio": ratio, "gap": gap, "auc": shown(0.7), "max_box_acc": NOTHING}
    return scores


MAPS = {
    "methods": {
        "center": method(shown(1.1), shown(0.0)),
        "ga": method(shown(7.24, 0.06), shown(0.3)),
        "igos": method(NOTHING, NOTHING),
    }
}


@pytest.mark.usefixtures("few_have_ends")
def test_methods_by_their_evidence():
    table = charts.methods_table(MAPS)
    assert table.method.tolist() == ["Gradient alignment", "Centre blob", "iGOS"]
    assert table["energy ratio"][:2].tolist() == ["7.2 [7.2, 7.3]", "1.1 [1.0, 1.2]"]
    assert table["energy ratio"][2] == "–"
    figure = charts.evidence_figure(MAPS)
    dots = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dots == [7.24, 1.1]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == table.method.tolist()


def test_pairs_stand_against_guessing():
    tree = {"methods": {"ga": {"right": shown(0.9)}, "center": {"right": shown(0.5, 0)}}}
    ax = charts.pairs_figure(tree).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Gradient alignment", "Centre blob"]
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in ax.lines)


def test_presence_without_wrong_answers():
    rows = [("a", "cat", True, "yes", True, 0.9), ("a", "dog", False, "no", True, 0.1)]
    columns = ["id", "name", "present", "said", "correct", "confidence"]
    figure = charts.presence_figure(pd.DataFrame(rows, columns=columns))
    assert [ax.get_title() for ax in figure.axes] == ["right answers", "wrong answers: none"]


def bias_tree():
    def place(value):
        row = {k: shown(value) for k in ("said", "expected", "seen")} | {"n": 4}
        return {"drawn": row, "step": {f"{size:g}": row for size in SIZES}}

    return {"cat-rabbit": {"biased": place(5.0), "clean": place(0.0)}}


@pytest.mark.usefixtures("few_have_ends")
def test_shifts_of_both_twins():
    ax = charts.bias_figure(bias_tree()).axes[0]
    assert ax.get_legend_handles_labels()[1] == ["biased twin", "clean twin", "planted"]
    for marker, value in (("o", 5.0), ("s", 0.0)):
        points = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == marker]
        assert points == [value] * (1 + len(SIZES))
    assert any(list(line.get_ydata()) == [5, 5] for line in ax.lines), "the planted difference"
    table = charts.bias_table(bias_tree())
    assert len(table) == 2 * (1 + len(SIZES)) and table.n.eq(4).all()
    assert table["number said"][0] == "5.00 [4.90, 5.10]" and table.names[0] == "cat / rabbit"
