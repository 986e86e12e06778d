"""Where the difference picture in a map comes from: planted maps on real pictures."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch17_fingerprint as page
from lvlm_study.chapters.ch17_fingerprint import FAST
from lvlm_study.chapters.compare import control_map
from lvlm_study.sweep.runner import shuffled

BENCHMARK = "sprites"
EFFECTS = pd.DataFrame()
EVEN = "igos[preset=fast,even=0.1]"
ITEMS = shuffled(load_benchmark(BENCHMARK), page.EXPLORED + 20)


@cache
def difference(place: int) -> np.ndarray:
    return control_map("difference", ITEMS[place], 0)


def row(place: int, method: str, saliency, gap: float) -> dict:
    kept = (
        {}
        if saliency is None
        else {"heatmap": saliency.ravel(), "heatmap_shape": np.array([32, 32])}
    )
    return {"model": "m", "benchmark": BENCHMARK, "item": ITEMS[place].id, "method": method} | {
        "units": "grid", "fill": "blur", "status": "ok", "gap": gap, "auc": 0.9, "forward": 40,
        "energy_ratio": 2.0, "evidence_area": 0.1, "heatmap": None, "heatmap_shape": None,
        "heatmap_scale": 1.0, "mass": None,
    } | kept  # fmt: skip


@pytest.fixture(scope="module")
def world() -> dict:
    """`fast` draws the difference picture, the variant its negative, at 0.05 less."""
    rows = []
    for place in range(len(ITEMS)):
        noise = place / 100
        rows += [
            row(place, FAST, difference(place), 0.9 + noise),
            row(place, EVEN, -difference(place), 0.85 + noise),
            row(place, "difference", None, 0.8),
            row(place, "random", None, 0.0),
        ]
    tables = SimpleNamespace(maps=pd.DataFrame(rows), effects=EFFECTS, results=Path("nowhere"))
    return page.of_world(tables, "m", BENCHMARK)


def test_likeness_and_what_a_variant_changes(world):
    methods = world["held"]["methods"]
    likes = {name: found["like"]["value"] for name, found in methods.items()}
    assert likes[FAST] == pytest.approx(1, abs=0.01) and likes["difference"] == pytest.approx(1)
    assert likes[EVEN] == pytest.approx(-1, abs=0.01) and likes["random"] is None
    found = world["held"]["change"]
    assert list(found) == [EVEN]
    assert list(found[EVEN]["gap"].values()) == pytest.approx([-0.05] * 3 + [20])
    assert found[EVEN]["like"]["high"] < -1.9 and found[EVEN]["density"]["n"] == 0


def test_no_item_is_chosen_on_and_held_out(world):
    assert world["explored"]["methods"][FAST]["gap"]["n"] == page.EXPLORED
    assert world["held"]["methods"][FAST]["gap"]["n"] == 20
    busy = shuffled(load_benchmark("sprites_clutter-4"), 64)
    seen = {item.extra["picture"] for item in busy if item.id in page.explored("sprites_clutter-4")}
    assert len(page.explored("sprites_clutter-4")) == page.EXPLORED and len(seen) >= 10


def test_too_few_items_are_no_stage(world):
    frame = pd.DataFrame([row(0, FAST, difference(0), 0.9), row(0, EVEN, None, 0.9)])
    tables = SimpleNamespace(maps=frame, effects=EFFECTS, results=Path("nowhere"))
    found = page.of_world(tables, "m", BENCHMARK)
    assert found["explored"]["change"] == {} and list(found["explored"]["methods"]) == [FAST]
    assert found["held"] == {"methods": {}, "change": {}}


def test_table_and_figure(world):
    tree = {"worlds": {"flat": world}}
    table = page.variant_table(tree)
    assert table[""].tolist() == [
        "iGOS (preset fast)",
        "even gradient",
        "Random map",
        "Difference picture",
    ]
    assert table["insertion − deletion"][1].endswith("(−0.05 [−0.05, −0.05])")
    one = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 90}
    tree |= {"levels": {k: dict.fromkeys(page.LINES, one) for k in "01234"}}
    tree |= {"settings": {name: {"gap": one, "like": one} for name in page.NAMED}}
    figure = page.level_figure(tree)
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "evidence" in said and "step size 1" in said


def test_objects_are_ranked_by_mass_per_area():
    rows = pd.DataFrame(
        {"item": ["a", "a", "b", "c"], "mass": [[3, 4, 1], [1, 1, 4], [1, 2, 3], None]}
    )
    one, same = ([5, 3, 1], [1, 2, 1]), ([1, 1, 1], [1, 1, 1])
    truths = [("a", *one), ("b", *same), ("c", *one)]
    found = page.agreement(rows, truths)
    assert found[:2] == pytest.approx([1, -0.5]) and np.isnan(found[2]) and found[3] == 0
    assert page.shapley_of([0, 1, 2, 3]) == pytest.approx([1, 2])


def test_one_method_on_more_items_does_not_send_the_others_away():
    rows = pd.DataFrame([("a", k) for k in range(100)], columns=["method", "item"])
    for name, count in (("b", 10), ("c", 10), ("d", 4)):
        more = pd.DataFrame({"method": name, "item": range(count)})
        rows = pd.concat([rows, more])
    kept = page.on_same_items(rows)
    assert sorted(kept.method.unique()) == ["a", "b", "c"] and set(kept["item"]) == set(range(10))
