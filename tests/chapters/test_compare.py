"""Maps compared: closed forms, names taken apart, pairs counted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lvlm_study.chapters import compare as s


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("mini/llava-1.5", ("llava-1.5", "l", 0)),
        ("mini/llava-1.5-s", ("llava-1.5", "s", 0)),
        ("mini/llava-1.5-seed2", ("llava-1.5", "l", 2)),
        ("mini/mini-gemini-m-seed1", ("mini-gemini", "m", 1)),
        ("mini/mini-gemini-hd-l", ("mini-gemini-hd", "l", 0)),
        ("mini/llava-ov-s", ("llava-ov", "s", 0)),
        ("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", ("llava-ov", "0.5b", 0)),
        ("llava-hf/llava-1.5-7b-hf", ("llava-1.5", "7b", 0)),
        ("nyu-visionx/cambrian-phi3-3b", ("cambrian", "3b", 0)),
        ("YanweiLi/MGM-7B-HD", ("mini-gemini-hd", "7b", 0)),
        ("someone/else", ("someone/else", "?", 0)),
    ],
)
def test_a_name_tells_architecture_size_and_training(name, want):
    found = s.member(name)
    assert (found.family, found.size, found.seed) == want


def test_every_zoo_recipe_is_understood():
    from lvlm_study.zoo.members import RECIPES

    for name, recipe in RECIPES.items():
        if name not in s.APART:
            found = s.member(f"mini/{name}")
            assert (found.family, found.size) == (recipe.family, recipe.size)


def test_which_models_take_part():
    names = ["mini/llava-1.5", "mini/llava-1.5-m", "mini/mini-gemini-l-seed1", "mini/joint"]
    names += ["mini/llava-1.5-shortcut", "llava-hf/llava-1.5-7b-hf", "mini/cambrian-l"]
    rows = pd.DataFrame({"model": names})
    first = ["mini/llava-1.5", "mini/llava-1.5-m", "llava-hf/llava-1.5-7b-hf", "mini/cambrian-l"]
    assert s.first_trainings(rows).model.tolist() == first
    assert s.one_each(rows).model.tolist() == [first[0], *first[2:]]
    assert s.one_each(rows[:0]).empty


def test_relations():
    assert s.relation("mini/llava-1.5", "mini/llava-1.5-seed1") == s.OTHER_SEED
    assert s.relation("mini/llava-1.5", "mini/llava-1.5-s") == s.OTHER_SIZE
    assert s.relation("mini/llava-1.5", "mini/cambrian-l") == s.OTHER_ARCHITECTURE
    assert s.relation("mini/llava-1.5-s", "mini/cambrian-l") == s.BOTH


def table(models=("mini/a", "mini/b"), items=("i", "j", "k")) -> pd.DataFrame:
    """All models agree on every item; items differ."""
    draw = {item: np.random.default_rng(n).random((14, 14)) for n, item in enumerate(items)}
    rows = [{"model": m, "item": i, "saliency": draw[i]} for m in models for i in items]
    return pd.DataFrame(rows)


def test_pairs_of_the_same_item():
    pairs = s.pair_table(table())
    assert len(pairs) == 3 and pairs.value.to_numpy() == pytest.approx(1)
    assert pairs.given.isna().all()  # nothing is known of these pictures


def test_only_shared_items_count():
    full = table()
    short = full[~((full.model == "mini/b") & (full.item == "j"))]
    assert list(s.pair_table(short).item) == ["i", "k"]


def test_partial_correlation_by_hand():
    """(r_ab - r_ad r_bd) / sqrt((1 - r_ad²)(1 - r_bd²)), from the three rank correlations."""
    draw = np.random.default_rng(0)
    known = draw.random((14, 14))
    a, b = (known + draw.random((14, 14)) for _ in range(2))
    one, other, third = (s.unit_ranks(x) for x in (a, b, known))
    ab, ad, bd = (
        stats.spearmanr(x.ravel(), y.ravel())[0] for x, y in [(a, b), (a, known), (b, known)]
    )
    want = (ab - ad * bd) / np.sqrt((1 - ad**2) * (1 - bd**2))
    assert one @ other == pytest.approx(ab) and ab > 0.3
    assert s.partial_correlation(one, other, third) == pytest.approx(want) and abs(want) < 0.2
    rows = [("mini/a", "i", a), ("mini/b", "i", b)]
    maps = pd.DataFrame(rows, columns=["model", "item", "saliency"])
    assert s.pair_table(maps, known={"i": known}).given.item() == pytest.approx(want)
    assert np.isnan(s.partial_correlation(one, third, third))  # nothing is left of one side


def test_the_known_picture_of_a_drawn_scene():
    found = s.pictures(["sprites/attribute-000", "elsewhere"])
    assert list(found) == ["sprites/attribute-000"]
    assert found["sprites/attribute-000"].shape == (32, 32)


def test_same_answers_are_told():
    answers = pd.Series({("mini/a", "i"): "x", ("mini/b", "i"): "x", ("mini/a", "j"): "y"})
    assert list(s.pair_table(table(), answers).same_answer) == [True, False, False]


def test_relations_are_averaged_over_items():
    pairs = s.pair_table(table(("mini/a-l", "mini/a-s", "mini/b-l")))
    found = s.relations(pairs)
    assert found[s.OTHER_SIZE]["n"] == 3 and found[s.OTHER_SIZE]["pairs"] == 1
    assert [one["raw"]["value"] for one in found.values()] == pytest.approx([1] * 3)
    assert found[s.OTHER_SIZE]["given"]["value"] is None


def test_likeness_is_set_apart_on_items_that_have_both_kinds():
    rows = [
        ("mini/a-l", "mini/a-s", "i", 0.9), ("mini/a-l", "mini/b-l", "i", 0.5),
        ("mini/a-l", "mini/c-l", "i", 0.7), ("mini/a-l", "mini/a-s", "j", 0.6),
        ("mini/a-l", "mini/b-l", "j", 0.4), ("mini/a-l", "mini/a-s", "k", 0.1),
    ]  # fmt: skip
    pairs = pd.DataFrame(rows, columns=["a", "b", "item", "given"])
    found = s.apart(pairs, s.OTHER_SIZE, "other architecture")
    assert found.n == 2 and found.value == pytest.approx((0.3 + 0.2) / 2)
    nothing = s.apart(pairs, s.OTHER_SIZE, "other training")
    assert nothing.n == 0 and np.isnan(nothing.value)


def test_matrix_is_symmetric():
    got = s.matrix(s.pair_table(table(("a", "b", "c"))), "value")
    assert got.shape == (3, 3) and np.allclose(got, got.T) and np.allclose(np.diag(got), 1)


def test_the_map_table_takes_one_row_a_map(monkeypatch):
    heat = np.arange(4, dtype=np.float16)
    row = {
        "model": "m",
        "benchmark": "sprites",
        "item": "i",
        "method": "igos[preset=paper]",
        "category": "c",
    }
    row |= {"units": "grid", "fill": "blur", "status": "ok", "heatmap": heat}
    row |= {"heatmap_shape": np.array([2, 2])}
    rows = [row, row | {"fill": "mean"}, row | {"units": "superpixels"}]
    rows += [row | {"item": "j", "status": "constant"}, row | {"method": "random", "heatmap": None}]
    monkeypatch.setattr(s, "FEWEST", 1)
    got = s.map_table(pd.DataFrame(rows))
    assert list(got.item) == ["i"] and got.saliency[0].tolist() == [[0, 1], [2, 3]]


def test_models_with_few_items_or_another_purpose_are_left_out():
    names = ["mini/a"] * s.FEWEST + ["mini/b"] * (s.FEWEST - 1) + ["mini/joint"] * s.FEWEST
    rows = pd.DataFrame({"model": names, "item": [f"i{k}" for k in range(len(names))]})
    assert set(s.comparable(rows).model) == {"mini/a"}


def test_without_drawn_scenes_every_benchmark_counts():
    rows = pd.DataFrame({"benchmark": ["mmvp", "pope"], "item": ["1", "1"]})
    assert list(s.studied(rows)["item"]) == ["mmvp/1", "pope/1"]
    more = pd.concat([rows, pd.DataFrame({"benchmark": ["sprites"], "item": ["x"]})])
    assert list(s.studied(more)["item"]) == ["x"]
