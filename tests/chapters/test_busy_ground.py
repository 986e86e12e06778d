"""Busy ground: scores by level and the bars."""

import numpy as np
import pandas as pd
import pytest
from refusals import refuses

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch16_busy_ground as busy
from lvlm_study.chapters.ch16_busy_ground import FAST, LEVELS
from lvlm_study.sweep.stored import Tables

ITEMS = {level: load_benchmark(LEVELS[level][1])[:36] for level in ("0", "4")}
GAPS = {"igos": 0.8, FAST: 0.7, "occlusion": 0.6, "sobel": 0.2, "difference": 0.4, "random": 0.0}
AUCS = {"igos": 0.7, FAST: 0.9, "occlusion": 0.8, "sobel": 0.6, "difference": 0.5, "random": 0.5}


pytestmark = pytest.mark.usefixtures("few_have_ends")


def right(item) -> bool:
    """Who is right in these tables: every second picture."""
    return int(item.extra["picture"]) % 2 == 0


def map_row(level: str, item, method: str) -> dict:
    """One row of the runner's table; maps of right answers lie on the evidence, unless blind."""
    model, benchmark = LEVELS[level]
    on = right(item) and GAPS[method] > 0.5
    area = None if item.evidence is None else float(item.evidence.mean())
    row = {"model": model, "benchmark": benchmark, "item": item.id, "method": method}
    row |= {"units": "grid", "fill": "blur", "category": item.category, "status": "ok"}
    row |= {"question": item.question, "item_seed": 0, "commit": "c", "made": "2026-11-29"}
    row |= {"gap": GAPS[method], "deletion": 0.1, "insertion": 0.1 + GAPS[method]}
    row |= {"auc": AUCS[method], "pointing": float(on), "pointing_near": float(on)}
    row |= {"energy_ratio": 3.0 * on, "evidence_area": area, "mass": [0.5, 0.3, 0.2]}
    return row | {"heatmap": np.eye(4, dtype=np.float16).ravel(), "heatmap_shape": [4, 4]}


def answer_row(level: str, item) -> dict:
    """One row of the table of reliance."""
    said = {"answer": item.reference, "verdict": "correct" if right(item) else "wrong"}
    row = {"model": LEVELS[level][0], "benchmark": LEVELS[level][1], "item": item.id}
    row |= {"baseline": "blur", "category": item.category, "status": "ok", "tokens": ["a"]}
    return row | said | {"llr": [1.0], "crucial": [True], "total_drop": 0.9, "truncated": False}


def effect_row(level: str, item, effect=(3.0, 2.0, 1.0)) -> dict:
    row = {"model": LEVELS[level][0], "benchmark": LEVELS[level][1], "item": item.id}
    return row | {"status": "ok", "effect": np.array(effect), "area": np.array([0.1] * 3)}


def every(build, *more) -> pd.DataFrame:
    return pd.DataFrame(
        build(level, item, *one) for level in ITEMS for item in ITEMS[level] for one in more
    )


MAPS = every(map_row, *((name,) for name in GAPS))
ANSWERS, EFFECTS = every(answer_row, ()), every(effect_row, ())


def rows(level: str = "4") -> pd.DataFrame:
    found = busy.by_level(MAPS)
    found = busy.with_effects(found, EFFECTS).merge(ANSWERS[["item", "verdict"]], on="item")
    return found[found.level == level]


# --- which rows


def test_a_level_has_its_own_member_and_three_questions_a_picture():
    other = MAPS.assign(model="mini/llava-1.5-s-clutter3")
    found = busy.by_level(pd.concat([MAPS, other]))
    assert len(found) == len(MAPS) and set(found.level) == {"0", "4"}
    assert found[found.level == "4"].groupby("picture").item.nunique().unique() == [3]
    assert busy.picture_of("sprites_clutter-3/017-counting") == "017"


# --- numbers


def test_means_and_ratios_draw_whole_pictures():
    values, pictures = pd.Series([1.0, 1, 0, 0, np.nan]), pd.Series(list("aabbc"))
    found = busy.mean(values, pictures)
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 4)
    alone = busy.mean(values[:2], pictures[:2])
    assert alone.value == 1 and np.isnan(alone.low)
    found = busy.ratio(values[:4], pd.Series([2.0, 2, 4, 4]), pictures[:4])
    assert (found.value, found.low, found.high) == (2 / 12, 0.0, 0.5)
    assert busy.mean(values[:0], pictures[:0]).json()["value"] is None


def test_the_bars_by_hand():
    bars = busy.bars(rows())
    assert (bars["best"], bars["control"]) == ("iGOS", "Difference picture")
    assert bars["share"]["value"] == pytest.approx(0.5) and bars["n"] == 36
    assert bars["ahead"]["count"] == bars["methods"] == 3
    assert (bars["auc_control"], bars["seer"]) == ("Sobel edges", "iGOS (preset fast)")
    assert (bars["auc"]["value"], bars["auc_best"]["value"]) == pytest.approx((0.6, 0.9))
    assert bars["auc"]["n"] < 36  # some questions have no place in the picture
    worse = rows()
    worse.loc[worse.method == "difference", "gap"] = 0.75  # ahead of all but iGOS
    assert busy.bars(worse)["ahead"] == {"count": 1, "titles": "iGOS"}


def test_scores_against_the_evidence_are_told_for_right_answers_too():
    found = busy.of_level(rows())["methods"]
    assert list(found) == ["igos", FAST, "occlusion", "difference", "sobel", "random"]
    assert found["igos"]["pointing_right"]["value"] == 1 > found["sobel"]["pointing_right"]["value"]
    assert 0 < found["igos"]["auc_right"]["n"] < found["igos"]["auc"]["n"] < 36
    assert found["igos"]["effect"]["value"] == pytest.approx(1)  # mass falls as the effects do


@pytest.mark.parametrize(
    ("effect", "mass", "expected"),
    [((3, 2, 1), (0, 1, 2), -1), ((3, 2, 1), (1, 1, 1), 0), ((2, 2, 2), (3, 2, 1), np.nan)],
)
def test_mass_beside_exact_effects(effect, mass, expected):
    item = ITEMS["4"][0]
    one = pd.DataFrame([map_row("4", item, "igos") | {"mass": list(mass)}])
    true = pd.DataFrame([effect_row("4", item, [float(e) for e in effect])])
    found = busy.with_effects(one, true).effect.iloc[0]
    assert found == pytest.approx(expected, nan_ok=True)


def test_two_levels_that_order_methods_alike_and_opposite():
    parts = {level: rows(level) for level in "04"}
    assert busy.order(parts)["value"] == pytest.approx(1)
    parts["4"] = parts["4"].assign(gap=-parts["4"].gap)
    assert busy.order(parts)["value"] == pytest.approx(-1)
    assert busy.order({"4": parts["4"]}) == {}


# --- the page


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for kind, frame in (("maps", MAPS), ("reliance", ANSWERS), ("effects", EFFECTS)):
        (folder / busy.BUSY / kind).mkdir(parents=True)
        frame.to_parquet(folder / busy.BUSY / kind / "000.parquet")
    return folder


def test_the_summary_and_what_the_page_makes_of_it(results, tmp_path):
    assert busy.summary(Tables(tmp_path)) == {}
    study = busy.summary(Tables(results))
    assert list(study["levels"]) == ["0", "4"]
    assert study["levels"]["4"]["asked"] == 36 and study["provenance"]["n"] == 72
    assert busy.bars_table(study)["control ÷ method"].tolist() == ["0.50 [0.50, 0.50]"] * 2
    assert busy.score_table(study, "gap").method[0] == "iGOS"
    figure = busy.level_figure(study)
    names = {text.get_text() for text in figure.axes[0].texts}
    assert len(figure.axes) == 2 and {"iGOS fast", "Sobel edges", "Random map"} <= names
    dashed = [x for x in figure.axes[0].lines if x.get_linestyle() == "--" and len(x.get_xdata())]
    assert len(dashed) == 3  # the controls


def test_the_gallery_follows_one_question_through_the_levels(results):
    stored = busy.read(results)
    chosen = busy.through_levels(stored, ["igos", "difference"])
    assert list(chosen) == ["0", "4"] and {p.picture.iloc[0] for p in chosen.values()} == {"000"}
    figure = busy.gallery(stored, ["igos", "difference"])
    assert len(figure.axes) == 6 and figure.axes[0].get_title().startswith("level 0\n✓ ")
    refuses("run more items", busy.gallery, stored[stored.level == "0"], ["igos", "gae"])


def test_names_at_line_ends_do_not_touch():
    found = busy.spaced([0.0, 0.01, 1.0], 0.1)
    assert np.diff(found).min() == pytest.approx(0.1) and found.mean() == pytest.approx(1.01 / 3)
    assert busy.spaced([1.0, 0.0], 0.1).tolist() == [1.0, 0.0]


def test_members_by_level():
    cell = {"percent": 50.0, "low": 21.5, "high": 78.5, "n": 8}
    kinds = dict.fromkeys(("all", "attribute", "existence", "counting", "global"), cell)
    views = {"picture": kinds, "blurred": kinds}
    zoo = {"busy": {"mini/llava-1.5-s-clutter2": views, "mini/llava-1.5-s-clutter1-seed1": views}}
    table = busy.accuracy_table(zoo)
    assert table.level.tolist() == [1, 2] and table["all"].tolist() == ["50 [22, 78]"] * 2
