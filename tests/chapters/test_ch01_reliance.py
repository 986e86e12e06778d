"""The chapters' figures draw the numbers they claim to draw."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lvlm_study import load_benchmark
from lvlm_study.chapters import ch01_reliance as charts
from lvlm_study.scenes.questions import CATEGORIES
from lvlm_study.sweep.stored import Tables


@pytest.fixture
def frame():
    """Four items of one category under blur: drops 0.1, 0.3, 0.7 and 0.9; and none under noise."""
    drops = [0.1, 0.3, 0.7, 0.9]
    rows = [
        {"model": "a", "category": "global", "baseline": b, "total_drop": d if b == "blur" else 0.0}
        | {"per_token": d / 2, "tokens": ["x"] * (k + 1)}
        for b in ("blur", "black", "mean", "noise")
        for k, d in enumerate(drops)
    ]
    return pd.DataFrame(rows)


def test_bands_by_hand(frame):
    """0.3 opens the middle band and 0.7 the upper one."""
    shares = charts.band_shares(frame[frame.baseline == "blur"], ["model"])
    assert shares.to_dict("records") == [
        {"model": "a", "lt30": 25.0, "30_70": 25.0, "gt70": 50.0, "n": 4}
    ]


def test_items_without_a_drop_are_not_counted(frame):
    frame.loc[0, "total_drop"] = np.nan
    assert charts.band_shares(frame[frame.baseline == "blur"], ["model"]).n.tolist() == [3]


def test_bars_are_as_long_as_the_shares(frame):
    ax = charts.drop_bands(frame).axes[0]
    row = list(CATEGORIES).index("global")
    widths = [container[row].get_width() for container in ax.containers]
    assert widths == [25.0, 25.0, 50.0] and ax.containers[2][row].get_x() == 50.0


def test_many_models_stand_in_rows_of_three(frame):
    more = pd.concat([frame.assign(model=name) for name in "abcde"])
    figure = charts.drop_bands(more)
    assert [ax.get_title() for ax in figure.axes] == list("abcde")
    assert [ax.get_subplotspec().rowspan.start for ax in figure.axes] == [0, 0, 0, 1, 1]
    assert [text.get_text() for text in figure.legends[0].texts] == list(charts.BANDS.values())


def test_leaks_by_hand(frame):
    axes = charts.leak_figure(frame, "a").axes
    for ax in axes:  # the other five categories have no items, nor has another model
        assert [t.get_text() for t in ax.texts] == ["25", "100", "100", "100"]
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["a"]


def test_curves_and_band_are_the_data():
    x, y = np.array([0, 0.5, 1]), np.array([1, 0.25, 0])
    curve = SimpleNamespace(fractions=x, normalised=y)
    faith = SimpleNamespace(
        deletion=0.4, insertion=0.6, deletion_curve=curve, insertion_curve=curve
    )
    other = SimpleNamespace(fractions=x, normalised=y + 1)
    random = SimpleNamespace(deletion_curve=other, insertion_curve=other)
    figure = charts.curve_figure(faith, {"random": [faith, random], "difference": [random]})
    null, drawn = figure.axes[0].lines
    assert drawn.get_ydata().tolist() == [1, 0.25, 0] and null.get_ydata().tolist() == [2, 1.25, 1]
    titles = [ax.get_title(loc) for ax in figure.axes for loc in ("left", "center")]
    assert {"deletion: 0.40", "insertion: 0.60"} <= set(titles)
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == 0 and band.max() == 2


def test_reliance_table_puts_ours_before_the_papers(frame):
    paper = pd.DataFrame(
        [{"model": "LLaVA-1.5", "cv_lt30": 8.9, "cv_30_70": 18.5, "mmstar_lt30": 7.5}
         | {"mmstar_30_70": 10.4, "mmvp_lt30": 25.3, "mmvp_30_70": 16.3}]
    )  # fmt: skip
    table = charts.reliance_table(frame.assign(benchmark="sprites"), paper)
    assert table["below 30 %"].tolist() == [25.0, 8.9, 7.5, 25.3]
    assert table["above 70 %"].tolist() == pytest.approx([50.0, 72.6, 82.1, 58.4])
    assert table["n"].tolist() == [4, None, None, None]
    assert charts.range_of(table, "below 30 %") == (25.0, 25.0)
    assert table["data"].tolist() == ["sprites", "CV-Bench", "MMStar", "MMVP"]


@pytest.mark.usefixtures("few_have_ends")
def test_the_words_of_two_answers(tmp_path):
    rows = []
    for item in load_benchmark("sprites"):
        if item.category == "counting" and re.search(" (two|three) ", item.reference):
            tokens = re.findall(r" ?[\w]+|\.", item.reference)
            hot = [token in (" two", " three") for token in tokens]
            about = {"model": "mini/llava-1.5", "benchmark": "sprites", "baseline": "blur"}
            about |= {"item": item.id, "category": item.category, "status": "ok"}
            told = {"answer": item.reference, "tokens": tokens, "crucial": hot}
            rows.append(about | told | {"llr": [0.0] * len(tokens)})
    tables = Tables(tmp_path)
    tables.reliance = pd.DataFrame(rows[:2]).assign(commit="c", made="2026-01-01")
    tree = charts.summary(tables)
    of_eq6 = tree["models"]["mini/llava-1.5"]["llr"]["all"]
    assert of_eq6["n"] == 2 and of_eq6["recall"]["value"] == of_eq6["precision"]["value"] == 100
    shown = charts.table(tree, "mini/llava-1.5").set_index(["words chosen by", "category"])
    assert shown.loc[(charts.RULES["keywords"], "all"), "recall"] == "0 [0, 0]"
    assert shown.loc[(charts.RULES["llr"], "counting"), "answers"] == 2
