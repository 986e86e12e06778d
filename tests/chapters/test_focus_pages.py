"""What the chapters on focus show: cases, tables and summaries say what the maps say."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch06_focus
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


def test_the_contact_sheet(item):
    other = next(i for i in load_benchmark("sprites") if i.id != item.id)
    items, frame = {item.id: item, other.id: other}, maps(item, other)
    sheet = ch06_focus.contact_sheet(frame, items, each=2)
    assert sheet.count("<img") == sheet.count("alt=") == 6, "picture, difference and map of each"
    assert (
        "model=m&amp;method=igos%5Bpreset%3Dpaper%5D&amp;item=" + item.id.replace("/", "%2F")
        in sheet
    )
    assert "It is &lt;red&gt;. (wrong)" in sheet and "<red>" not in sheet


def test_pairs_that_no_test_could_tell_apart_are_counted():
    """Three pairs: 2 / 2^n times three is 0.012 for n = 9, and 0.38 for n = 4."""
    pairs = pd.DataFrame({"n": [9, 4, 9], "p_holm": [0.012, 0.4, 1.0]})
    assert ch06_focus.between_all(pairs) == {"pairs": 3, "hopeless": 1}


def test_index_of_maps_against_those_that_see_no_model():
    rows = pd.DataFrame(
        {"item": list("abc") * 3}
        | {"method": [PAPER_METHOD] * 3 + ["random"] * 3 + ["difference"] * 3}
        | {"composition": [0.1, 0.2, 0.3, -0.5, 0.0, 0.9, 0.3, 0.2, 0.1]}
    )
    one, other = pytest.approx(1), pytest.approx(-1)
    assert ch06_focus.index_against(rows) == {"n": 3, "random": one, "difference": other}
    assert ch06_focus.index_against(rows[:3]) == {"n": 0, "random": None, "difference": None}


def test_items_are_the_units_of_the_index():
    """Item a has maps of two models, b of one: a mean of (0.2 + 0.6) / 2 and 0.0, no interval."""
    rows = pd.DataFrame({"item": list("aab"), "composition": [0.2, 0.6, 0.0]})
    rows = rows.assign(method=PAPER_METHOD, category="counting")
    found = ch06_focus.index_of(rows, PAPER_METHOD, "counting")
    assert (found.value, found.n) == (pytest.approx(0.2), 2) and np.isnan(found.low)
