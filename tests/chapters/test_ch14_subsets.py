"""The controlled subsets: pairs by hand, a prior that matters, styles beside the plain pictures."""

import numpy as np
import pandas as pd
import pytest

from lvlm_study import load_benchmark
from lvlm_study.chapters import ch14_zoo as zoo_page
from lvlm_study.chapters import compare


def rows(benchmark, answer, ratio=lambda item: 1.0, model="mini/a"):
    """Reliance rows in which every item of a benchmark is answered by a rule."""
    return pd.DataFrame(
        {"model": model, "benchmark": benchmark, "item": i.id, "baseline": "blur",
         "answer": answer(i), "llr": [ratio(i), 0.5]}
        for i in load_benchmark(benchmark)
    )  # fmt: skip


def truth(item):
    return item.reference


def test_a_pair_counts_only_when_both_are_right():
    first = {}

    def blind(item):  # gives both pictures the answer of the first
        return first.setdefault(item.extra["pair"], item.reference)

    found = zoo_page.of_pairs(zoo_page.answered(rows("sprites_pairs", blind), "sprites_pairs"))
    assert found["single"]["percent"] == 50 and found["single"]["n"] == 288
    assert found["both"]["percent"] == 0 and found["both"]["n"] == 144
    sure = zoo_page.of_pairs(zoo_page.answered(rows("sprites_pairs", truth), "sprites_pairs"))
    assert sure["both"]["percent"] == sure["single"]["percent"] == 100


def test_half_a_pair_is_no_pair():
    part = zoo_page.answered(rows("sprites_pairs", truth).iloc[:3], "sprites_pairs")
    assert zoo_page.of_pairs(part)["both"]["n"] == 1


@pytest.mark.parametrize(("against", "percent"), [(3.0, 100), (2.0, 50), (1.0, 0)])
def test_a_prior_shows_in_what_overrules_it(against, percent):
    need = {"P0": 0.0, "P+": 2.0, "P-": against}
    table = rows("sprites_prior", truth, lambda item: need[item.extra["arm"]])
    found = zoo_page.of_prior(zoo_page.answered(table, "sprites_prior"))
    assert found["conflict"]["percent"] == percent == found["conflict"]["low"]
    assert found["triples"] == 40 and found["arms"]["P-"]["n"] == 40
    assert np.isclose(found["arms"]["P+"]["ratio"]["value"], 2.5)  # two tokens, summed


def test_the_table_has_a_row_a_model(tmp_path, monkeypatch):
    parts = {"sprites": truth, "sprites_pairs": truth, "sprites_flat": lambda item: "No."}
    every = pd.concat([rows(name, rule) for name, rule in parts.items()])
    every = every.assign(commit="c", made="2026-01-01")
    plain, extra = every[every.benchmark == "sprites"], every[every.benchmark != "sprites"]
    monkeypatch.setattr(zoo_page, "read_table", lambda folder, kind: extra)
    tables = compare.Tables(tmp_path)
    tables.reliance = plain
    tree = zoo_page.summary(tables)
    row = zoo_page.table(tree).set_index("member").loc["mini/a"]
    assert row["pairs, both"] == "100 [97, 100]" and row["flat"] == "0 [0, 1]"
    assert row["shaded"] == zoo_page.told(tree["models"]["mini/a"]["styles"]["shaded"])
    assert "outline" not in row.index and "prior, P0" not in row.index


def test_nothing_was_run(tmp_path):
    assert zoo_page.summary(compare.Tables(tmp_path)) == {}
