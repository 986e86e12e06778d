"""Whose map is it: planted maps on the real pictures, planted games on real scenes."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from lvlm_study import load_benchmark
from lvlm_study.chapters import ch17_whose_map as whose
from lvlm_study.chapters.ch17_whose_map import (
    ARCHITECTURES,
    METHODS,
    NEITHER,
    OTHER_ARCHITECTURE,
    OTHER_PICTURE,
    OTHER_QUESTION,
    OTHER_SEED,
    OTHER_SIZE,
)
from lvlm_study.chapters.compare import AREA, Tables, control_map
from lvlm_study.errors import StudyError
from lvlm_study.metrics.components import standardised
from lvlm_study.metrics.plausibility import area_means

ITEMS = load_benchmark(whose.BENCHMARK)[:30]  # ten pictures, three questions each
PICTURE, QUESTION, MODEL, CHANCE = METHODS


def noise(*names) -> np.ndarray:
    """A map (8, 8) that is another for other names, and the same for the same."""
    return np.random.default_rng([sum(map(ord, str(n))) for n in names]).normal(size=(8, 8))


@cache
def seen(picture: str) -> np.ndarray:
    item = next(item for item in ITEMS if item.extra["picture"] == picture)
    return control_map("difference", item, 0)


def planted(item, model: str, method: str) -> np.ndarray:
    """The picture's own difference, or a map of the question, the model, or nothing in common."""
    if method == PICTURE:
        return seen(item.extra["picture"])
    names = {QUESTION: (item.id,), MODEL: (item.extra["picture"], model)}
    return noise(*names.get(method, (item.id, model)))


def stored(items=ITEMS, models=whose.MODELS, map_of=planted) -> pd.DataFrame:
    rows = [
        {"benchmark": whose.BENCHMARK, "model": model, "method": method, "item": item.id}
        | {"status": "ok", "answer": "It is.", "saliency": map_of(item, model, method)}
        for item in items
        for model in models
        for method in METHODS
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return whose.kept_maps(stored(), ITEMS)


@pytest.fixture(scope="module")
def tree(rows) -> dict:
    return whose.map_summary(rows, ITEMS) | {"truth": whose.truth_summary(MAPS, GAMES)}


def test_which_maps_are_kept(rows):
    frame = stored(ITEMS[:1], ARCHITECTURES)
    frame.loc[0, "saliency"] = None
    frame.at[1, "saliency"] = np.ones((8, 8))
    frame.loc[2, "benchmark"] = "sprites"
    frame.loc[3, "status"] = "no_crucial_tokens"
    frame.loc[4, "model"] = "mini/llava-ov-s"
    assert len(whose.kept_maps(frame, ITEMS)) == len(frame) - 5
    assert rows.picture.nunique() == 10 and rows.question.nunique() == 30


def test_planted_parts_are_found(tree):
    parts = {name: found["parts"] for name, found in tree["methods"].items()}
    assert parts[PICTURE]["known"]["value"] == pytest.approx(1)
    for method, part in ((QUESTION, "question"), (MODEL, "model"), (CHANCE, "rest")):
        found = {name: one["value"] for name, one in parts[method].items()}
        assert found[part] == pytest.approx(1, abs=0.05), method
        assert sum(found.values()) == pytest.approx(1)
        assert parts[method][part]["n"] == 10
    kinds = tree["methods"][MODEL]["kinds"]  # what belongs to a model is its size's and training's
    assert {kind: round(one["model"]["value"], 1) for kind, one in kinds.items()} == {
        OTHER_SIZE: 1.0,
        OTHER_SEED: 1.0,
    }
    assert tree["methods"][QUESTION]["kinds"][OTHER_SIZE]["rest"]["value"] < 0.1
    together = tree["together"]
    assert together["method"]["value"] == pytest.approx(0.25, abs=0.05)  # one of four is shared
    assert together["known"]["value"] == pytest.approx(0, abs=0.05)
    assert tree["finer"]["change"] < 0.1 and tree["maps"] == len(ITEMS) * 6 * 4
    assert tree["architectures"] == {"count": 3, "names": "llava-1.5, llava-ov, cambrian-l"}
    assert tree["further"]["count"] == 3


def test_too_few_pictures_give_no_parts(rows):
    few = rows[rows.picture.isin(rows.picture.unique()[:7])].reset_index(drop=True)
    assert whose.map_summary(few, ITEMS) == {}
    lone = rows[rows.model == ARCHITECTURES[0]].reset_index(drop=True)
    assert whose.map_summary(lone, ITEMS) == {}


def test_what_two_maps_differ_in(tree):
    nulls = {
        method: {null: one["value"] for null, one in found["nulls"].items()}
        for method, found in tree["methods"].items()
    }
    same = (OTHER_SEED, OTHER_SIZE, OTHER_ARCHITECTURE, OTHER_QUESTION, NEITHER, "difference")
    assert [nulls[PICTURE][null] for null in same] == pytest.approx([1] * 6)
    assert nulls[PICTURE][OTHER_PICTURE] < 0.9
    assert tree["methods"][PICTURE]["given"] == {}  # nothing is left
    by_model = [nulls[MODEL][null] for null in (OTHER_QUESTION, OTHER_ARCHITECTURE)]
    assert by_model == pytest.approx([1, 0], abs=0.05)
    by_question = [nulls[QUESTION][n] for n in (OTHER_QUESTION, OTHER_ARCHITECTURE, NEITHER)]
    assert by_question == pytest.approx([0, 1, 0], abs=0.05)
    given = tree["methods"][QUESTION]["given"]
    assert given[OTHER_ARCHITECTURE]["value"] == pytest.approx(1)


def test_likeness_by_the_picture_is_gone_when_it_is_given(rows):
    some = rows[(rows.method == PICTURE) & rows.model.isin(ARCHITECTURES)].reset_index(drop=True)
    own = zip(some.saliency, some.item, some.model, strict=True)
    some["saliency"] = [20 * area_means(m, 8) + noise(*names) for m, *names in own]
    known = whose.known_maps(some, ITEMS)
    found = whose.likeness(standardised(some.saliency), some, known)
    assert found["nulls"][OTHER_ARCHITECTURE]["value"] > 0.3
    assert found["given"][OTHER_ARCHITECTURE]["value"] < 0.15


# --- games: an answer that needs the first object, either of two, or both

AREAS = np.array([0.1, 0.05, 0.02])


def game(worth) -> np.ndarray:
    """Scores of all subsets of three objects."""
    return np.array([worth(*(bool(s >> i & 1) for i in range(3))) for s in range(8)], float)


WORTHS = {
    "alone": lambda a, b, c: 4 * a + 2 * b + c - 7,
    "either": lambda a, b, c: 4 * (a or b) + 0.5 * c - 5,
    "both": lambda a, b, c: 4 * (a and b) + 0.5 * c - 5,
}
GAMES = pd.DataFrame(
    {"model": model, "benchmark": "sprites", "item": name, "area": AREAS}
    | {"score": game(worth), "probability": np.exp(game(worth))}
    for model in ARCHITECTURES[:2]
    for name, worth in WORTHS.items()
)
MASSES = {
    "igos": AREAS * [3, 2, 1],
    "sobel": AREAS * [1, 2, 3],
    "difference": AREAS,
    "occlusion": None,
}
MAPS = pd.DataFrame(
    {"model": row.model, "benchmark": "sprites", "item": row.item, "method": method}
    | {"status": "ok" if mass is not None else "constant", "mass": mass, "gap": 0.5}
    for row in GAMES.itertuples()
    for method, mass in MASSES.items()
)


def test_scenes_whose_objects_act_together():
    scenes = whose.scene_rows(GAMES).drop_duplicates("item").set_index("item")
    assert scenes.shapley["alone"] == pytest.approx([4, 2, 1])
    assert scenes.shapley["either"] == pytest.approx([2, 2, 0.5])
    assert scenes.redundant.to_dict() == {"alone": False, "either": True, "both": False}
    assert scenes.complementary.to_dict() == {"alone": False, "either": False, "both": True}
    # of either of two objects none is missed alone: only the third is, which is worth least
    assert scenes.alone[["alone", "either", "both"]].tolist() == pytest.approx([1, -1, 1])


def test_maps_against_shapley_values(tree):
    found = tree["truth"][ARCHITECTURES[0]]
    methods = found["methods"]
    first = 1.0, 0.5 * 3**0.5, 0.5 * 3**0.5  # two equal values cost rank correlation
    assert methods["igos"]["density"]["value"] == pytest.approx(np.mean(first))
    assert methods["sobel"]["density"]["value"] == pytest.approx(-np.mean(first))
    assert methods["difference"]["density"]["value"] == methods["occlusion"]["mass"]["value"] == 0
    assert methods["difference"]["mass"]["value"] == methods[AREA]["mass"]["value"] > 0.8
    exact = methods[whose.EXACT]["objects"]["value"]
    assert exact >= methods["igos"]["objects"]["value"] > 0 > methods["sobel"]["objects"]["value"]
    assert found["scenes"]["redundant"]["percent"] == pytest.approx(100 / 3)
    assert found["scenes"]["both"]["percent"] == 0


def test_the_folder_of_subsets_has_other_tables_too(tmp_path):
    frame = GAMES.assign(score=GAMES.score.map(list), probability=GAMES.probability.map(list))
    for name, part in {
        "m/sprites": frame,
        "reliance/m/sprites": pd.DataFrame({"item": ["a"]}),
    }.items():
        path = tmp_path / "subsets" / name / "000.parquet"
        path.parent.mkdir(parents=True)
        part.to_parquet(path)
    assert whose.subset_table(tmp_path).item.tolist() == GAMES.item.tolist()
    assert whose.subset_table(tmp_path / "nothing").empty
    assert whose.truth_summary(MAPS, pd.DataFrame()) == {}
    assert whose.summary(Tables(tmp_path)) == {}


# --- tables and figures


def test_tables(tree):
    table = whose.likeness_table(tree)
    assert table.method.tolist() == ["iGOS", "Occlusion", "T-MM", "Attention"]
    assert table[f"{OTHER_ARCHITECTURE}, given"].iloc[1].startswith("1.00")
    truth = whose.truth_table(tree)
    assert truth.method.tolist()[:2] == ["iGOS", "Difference picture"]
    assert whose.pair_table(tree).redundant.tolist() == ["33 [6, 79]"] * 2


def test_bars_show_the_parts(tree):
    figure = whose.share_figure(tree)
    bars = [patch.get_width() for patch in figure.axes[0].patches]
    assert max(bars) == pytest.approx(100, abs=5) and len(bars) == 4 * 5 + 6
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words.count("method") == 1 and "100" in words
    assert len(whose.null_figure(tree).axes) == 4 and len(whose.truth_figure(tree).axes) == 4


def test_the_gallery_takes_the_picture_with_most_questions(rows):
    two = rows[rows.question.isin([item.id for item in (ITEMS[0], ITEMS[3], ITEMS[5])])]
    figure = whose.gallery_figure(two, ITEMS)
    said = [line._suptitle.get_text() for line in figure.subfigs]
    assert sorted(said) == sorted([ITEMS[3].question, ITEMS[5].question])
    assert [len(line.axes) for line in figure.subfigs] == [5, 5]
    with pytest.raises(StudyError, match="run more items"):
        whose.gallery_figure(rows[rows.model == ARCHITECTURES[0]], ITEMS)
