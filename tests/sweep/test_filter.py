"""The filter of the paper's section 4.3 as a rule, and columns that say what was not run."""

import json

import numpy as np
import pandas as pd
import pytest
from refusals import refuses

from lvlm_study.chapters import compare, summaries
from lvlm_study.errors import StudyError
from lvlm_study.paths import data_dir
from lvlm_study.sweep import results
from lvlm_study.sweep.filter import kept_ids, kept_shares, weakest_drop

DROPS = {"one": [0.9, 0.8, 0.29, 0.5, 0.95], "two": [0.95, 0.31, 0.99, np.nan, None]}


def table(drops=DROPS, baseline="blur"):
    """Two models on five items; `two` failed on the fourth and never saw the fifth."""
    rows = [
        {"model": m, "benchmark": "toy", "item": f"toy/{n}", "baseline": baseline, "total_drop": d}
        for m, values in drops.items()
        for n, d in enumerate(values)
        if d is not None
    ]
    return pd.DataFrame(rows)


def test_the_weakest_model_decides():
    weakest = weakest_drop(table())
    assert weakest["toy"].round(2).tolist()[:3] == [0.9, 0.31, 0.29]
    assert weakest["toy"].isna().tolist() == [False, False, False, True, True]
    refuses("no baseline 'noise', only blur", weakest_drop, table(), "noise")
    refuses("only none", weakest_drop, pd.DataFrame())


def test_what_is_kept():
    assert kept_ids(table()) == {"toy/0", "toy/1"}
    assert kept_ids(table(), least=0.5) == {"toy/0"}
    assert kept_ids(table(), least=0) == {"toy/0", "toy/1", "toy/2"}


def test_shares_by_hand():
    found = kept_shares(table())["toy"]
    assert (found["n"], found["complete"], found["models"]) == (5, 3, ["one", "two"])
    shares = {"0.1": 3, "0.3": 2, "0.5": 1, "0.7": 1, "0.9": 1}  # of the three that both answered
    assert found["kept"] == pytest.approx({t: 100 * k / 3 for t, k in shares.items()})
    assert kept_shares(table({"one": DROPS["one"]}))["toy"]["kept"]["0.3"] == 80
    error = {"model": "one", "benchmark": "toy", "item": "toy/9", "baseline": None}
    frame = pd.concat([table(), pd.DataFrame([error])])
    found = kept_shares(frame)["toy"]
    assert (found["n"], found["complete"], found["kept"]["0.3"]) == (6, 3, pytest.approx(200 / 3))


def test_members_made_for_other_questions_have_no_say():
    """The misled model needs no picture of the scene; it must not empty the filter."""
    misled = table().assign(model="mini/llava-1.5-shortcut", total_drop=0.0)
    frame = pd.concat([table(), misled])
    tables = compare.Tables("unused")
    tables.__dict__["reliance"] = frame
    tables.origin = lambda rows: {}
    found = summaries.filter_file(tables)["benchmarks"]["toy"]
    assert found == kept_shares(table())["toy"] and found["count"] == 2
    assert kept_shares(frame)["toy"]["kept"]["0.3"] == 0


def test_shares_leave_out_what_a_model_never_saw():
    """A second model that answered two of a hundred items takes away none of the others."""
    drops = {"one": [0.9] * 100, "two": [0.9, 0.1] + [None] * 98}
    found = kept_shares(table(drops))["toy"]
    assert (found["n"], found["complete"], found["kept"]["0.3"]) == (100, 2, 50)
    none = kept_shares(table({"one": [0.9, None], "two": [None, 0.9]}))["toy"]
    assert (none["complete"], none["kept"]["0.3"]) == (0, None)


def test_what_table_2_says_about_the_papers_own_filter():
    """With a threshold of 70 % the three models of Table 2 would keep more than the paper kept.

    At most the pickiest model's share stays (the dropped sets lie inside one another), at least
    what is left when no two models drop the same item.
    """
    drops = pd.read_csv(data_dir() / "paper" / "table2.csv").set_index("model")
    scalars = pd.read_csv(data_dir() / "paper" / "scalars.csv").set_index("key").value
    below = {
        name: drops[f"{name}_lt30"] + drops[f"{name}_30_70"] for name in ("cv", "mmstar", "mmvp")
    }
    found = {name: (100 - sum(share), 100 - max(share)) for name, share in below.items()}
    assert found["mmstar"] == (pytest.approx(62.5), pytest.approx(82.1))
    assert found["cv"] == (pytest.approx(35.4), pytest.approx(66.2))
    assert found["mmvp"] == (pytest.approx(16.5), pytest.approx(58.4))
    assert scalars["kept_pct_mmstar"] < found["mmstar"][0]
    assert scalars["kept_pct_cvbench"] < found["cv"][0]
    assert found["mmvp"][0] < scalars["kept_pct_mmvp"] < found["mmvp"][1]


@pytest.fixture
def data(tmp_path):
    """A data folder with one result of ours and one table of the paper."""
    about = dict.fromkeys(results.PROVENANCE, "x")
    for name in ("results/mini", "results/paper", "paper"):
        (tmp_path / name).mkdir(parents=True)
    tree = {"provenance": about, "models": {"mini/m": {"drop": 12.345}}}
    (tmp_path / "results/mini/q.json").write_text(json.dumps(tree))
    (tmp_path / "paper/t.csv").write_text("model,drop\nM,9.5\n")
    return tmp_path


def test_three_columns(data):
    rows = [
        ("M", "paper/t[M].drop", "q.models[mini/m].drop", "paper/q.models[org/m].drop"),
        ("N", None, "q.models[mini/n].drop", None),
    ]
    one, two = results.beside(rows, data)
    assert one == {"": "M", "paper": "9.5", "mini profile": "12.3", "paper profile": "not yet run"}
    assert list(two.values()) == ["N", "-", "not yet run", "-"]
    refuses("no result key", results.optional, "q..", data)
    refuses("no profile named 'papre'", results.optional, "papre/q.models[x].drop", data)
    refuses("0 rows of t.csv", results.beside, [("M", "paper/t[X].drop", None, None)], data)


def test_a_later_run_fills_its_column(data):
    tree = (data / "results/mini/q.json").read_text().replace("mini/m", "org/m")
    (data / "results/paper/q.json").write_text(tree)
    assert results.optional("paper/q.models[org/m].drop", data) == 12.345
    assert results.optional("paper/q.models[org/other].drop", data) == "not yet run"


MISSPELT = ["q.modles[mini/m].drop", "q.models[mini/m].dorp", "q.model"]
MISSPELT += ["q.models[mini/new].dorp", "q.models[mini/m].drop.value"]


@pytest.mark.parametrize("key", MISSPELT)
def test_a_misspelt_key_is_no_missing_result(data, key):
    with pytest.raises(StudyError):
        results.optional(key, data)
    with pytest.raises(StudyError):
        results.beside([("M", None, key, None)], data)


def test_only_models_and_benchmarks_can_be_missing(data):
    about = dict.fromkeys(results.PROVENANCE, "x")
    of = {"all": {"blur": {"lt30": 5.0, "gt70": None}}}
    tree = {"provenance": about, "models": {"m": {"sprites": of}}, "benchmarks": {"sprites": of}}
    (data / "results/mini/r.json").write_text(json.dumps(tree))
    place = "all.blur.lt30"
    waits = [f"models[m].mmvp.{place}", f"models[x].mmvp.{place}", f"models[x].sprites.{place}"]
    waits += [f"benchmarks.mmvp.{place}", "models[m].sprites.all.blur.gt70"]
    for key in waits:
        assert results.optional(f"r.{key}", data) == "not yet run"
    wrong = ["models[m].mmvp.all.blru.lt30", "models[x].mmvp.all.blur.tl30"]
    for key in (*wrong, "models[m].sprites.al.blur.lt30"):
        refuses("no entry", results.optional, f"r.{key}", data)
