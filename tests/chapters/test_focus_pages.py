"""What the chapters on focus show: cases, tables and summaries say what the maps say."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch06_focus, ch10_attention
from lvlm_study.chapters import ch07_correctness as correctness
from lvlm_study.heatmaps.names import PAPER_METHOD
from lvlm_study.scenes import scenes


@pytest.fixture(autouse=True)
def clean():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def item():
    """A question about one object of several."""
    return next(i for i in load_benchmark("sprites") if i.extra["objects"] == [2])


def lit(item, number):
    """A stored map that is all on one object, (336, 336) so that nothing is rounded."""
    return scenes.mask(item.extra["scene"], number).astype(np.float32)


def test_objects_under_a_map(item):
    things = item.extra["scene"].objects
    found = ch06_focus.under_the_map(lit(item, 1), item.extra["scene"])
    assert found[0] == (f"{things[1].color} {things[1].name}", pytest.approx(1))
    assert ch06_focus.off_the_evidence(lit(item, 1), item) == pytest.approx(1)
    assert ch06_focus.off_the_evidence(lit(item, 2), item) == pytest.approx(0)


def test_half_of_the_mass_off_the_evidence(item):
    one, two = lit(item, 1), lit(item, 2)
    mixed = one / one.sum() + two / two.sum()
    assert ch06_focus.off_the_evidence(mixed, item) == pytest.approx(0.5, abs=1e-4)


def scene(*names):
    return SimpleNamespace(objects=[SimpleNamespace(name=n, color="red") for n in names])


def test_names_are_found_once_and_only_when_told_apart():
    text = "A red cat and a red bus and a red catfish."
    assert ch06_focus.named_objects(text, scene("bus", "cat", "fish")) == [
        (1, (6, 9)),
        (0, (20, 23)),
    ]
    assert ch06_focus.named_objects(text, scene("cat", "cat")) == []
    assert ch06_focus.named_objects("a cat, a cat", scene("cat")) == []


def test_distinct_scenes():
    items = [
        SimpleNamespace(extra={"scene": scene(*n)}) for n in (("a", "a"), ("a", "b"), "abcdef")
    ]
    assert ch06_focus.distinct(items) == [items[1]]


def maps(item, other):
    """One model's map of two items, right and wrong; and what the runner stores beside it."""
    row = {
        "model": "m", "method": PAPER_METHOD, "benchmark": "sprites", "category": item.category,
        "question": item.question, "answer": "It is <red>.", "status": "ok", "pointing_near": 1.0,
        "energy_ratio": 3.0, "evidence_area": 0.05,
    }  # fmt: skip
    return pd.DataFrame(
        [
            row | {"item": item.id, "verdict": "wrong", "saliency": lit(item, 1)},
            row | {"item": other.id, "verdict": "correct", "saliency": lit(other, 0)},
        ]
    )


def test_wrong_answers_and_the_contact_sheet(item):
    other = next(i for i in load_benchmark("sprites") if i.id != item.id)
    items, frame = {item.id: item, other.id: other}, maps(item, other)
    wrong = ch06_focus.wrong_answers(frame, items)
    assert wrong["item"].tolist() == [item.id] and wrong.off.tolist() == pytest.approx([1])
    sheet = ch06_focus.contact_sheet(frame, items)
    assert sheet.count("<img") == 4 and sheet.count("alt=") == 4
    assert (
        "model=m&amp;method=igos%5Bpreset%3Dpaper%5D&amp;item=" + item.id.replace("/", "%2F")
        in sheet
    )
    assert "It is &lt;red&gt;. (wrong)" in sheet and "<red>" not in sheet


def test_no_wrong_answer_is_a_table_without_lines(item):
    frame = maps(item, item).assign(verdict="correct")
    found = ch06_focus.wrong_answers(frame, {item.id: item})
    assert found.empty and "off" in found
    assert ch06_focus.wrong_figure(found, frame, {}).axes


def test_bars_add_up_to_all_items(item):
    rows = correctness.sorted_rows(maps(item, item))
    ax = correctness.quadrant_figure(rows).axes[0]
    widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
    assert np.sum(widths) == pytest.approx(100)
    table = correctness.quadrant_table(rows)
    assert table.n.tolist() == [2] and table["wrong, on"].tolist() == [1]


def test_the_paper_s_rows_stand_below_ours():
    rows = pd.DataFrame(
        {"who": "m", "kind": "model", "item": ["a", "b"], "orientation": "turned over"}
        | {"correlation": [0.1, 0.3], "iou_sum": 0.2, "iou_max": 0.4, "iou_bytes": 0.0}
    )
    paper = pd.DataFrame(
        {"model": ["X"], "soft_iou": [0.01], "rank_corr": [-0.2], "rank_corr_pm": [0.1]}
    )
    table = ch10_attention.attention_table(rows, paper)
    assert table["rank correlation"].tolist() == pytest.approx([0.2, -0.2])
    assert table["to"].iloc[1] == pytest.approx(-0.1) and table.n.tolist() == [2, None]


def test_pairs_that_no_test_could_tell_apart_are_counted():
    """Three pairs: 2 / 2^n times three is 0.012 for n = 9, and 0.38 for n = 4."""
    found = {"a": (9, 0.012), "b": (4, 0.4), "c": (9, 1.0)}
    pairs = {name: {"n": n, "p_holm": p} for name, (n, p) in found.items()}
    told = ch06_focus.between_all(pairs)
    assert told == {"pairs": 3, "clear": 1, "least": 0.012, "hopeless": 1}
    assert ch06_focus.between_all({})["pairs"] == 0


def test_index_of_maps_against_that_of_random_maps():
    rows = pd.DataFrame(
        {"item": list("abc") * 2, "method": [PAPER_METHOD] * 3 + ["random"] * 3}
        | {"composition": [0.1, 0.2, 0.3, -0.5, 0.0, 0.9]}
    )
    assert ch06_focus.against_random(rows) == {"n": 3, "correlation": pytest.approx(1)}
    assert ch06_focus.against_random(rows[:3])["correlation"] is None
