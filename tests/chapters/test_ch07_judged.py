"""Choices of annotators meet the rows that they were about, by hand-counted tables."""

import json

import pandas as pd
import pytest

from lvlm_study.chapters import annotate, ch07_correctness
from lvlm_study.chapters.ch07_correctness import RULES
from lvlm_study.heatmaps.names import PAPER_METHOD
from lvlm_study.paths import data_dir
from lvlm_study.sweep.stored import stored_maps


def row(method, item, near, ratio=3.0, area=0.1, verdict="correct"):
    return {
        "model": "m", "method": method, "item": item, "category": "attribute", "status": "ok",
        "question": "What?", "answer": "That.", "verdict": verdict, "pointing_near": near,
        "energy_ratio": ratio, "evidence_area": area,
    }  # fmt: skip


STORED = pd.DataFrame(
    [
        row(PAPER_METHOD, "a", 1.0),
        row(PAPER_METHOD, "b", 0.0, ratio=1.0, verdict="wrong"),
        row("sobel", "a", 0.0),
        row("sobel", "c", 1.0, area=None),
    ]
)
NUMBERS = [annotate.number_of(row) for row in STORED.itertuples()]


def log(who, right, covered):
    """One line a choice, y, n or u for each of the four pictures."""
    words = {"y": "yes", "n": "no", "u": "unsure"}
    rows = [
        (who, task, about, words[letter])
        for about, letters in (("right", right), ("covered", covered))
        for task, letter in zip(NUMBERS, letters, strict=True)
    ]
    return pd.DataFrame(rows, columns=["annotator", "task", "about", "choice"])


BOTH = pd.concat([log("x", "ynyy", "ynny"), log("y", "yyyy", "yuyy")])


def test_a_choice_meets_its_row_and_the_rules_verdict():
    said = ch07_correctness.met(BOTH, STORED).set_index(["annotator", "task"])
    assert len(said) == 8
    first = said.loc[("x", NUMBERS[0])]
    assert list(first[["method", "item", "covered"]]) == [PAPER_METHOD, "a", "yes"]
    assert [said.loc[("x", n)].pointing for n in NUMBERS[:3]] == [True, False, False]
    assert [said.loc[("x", n)].mass for n in NUMBERS[:3]] == [True, False, True]
    assert pd.isna(said.loc[("x", NUMBERS[3])].pointing)  # no region decides


def test_choices_about_maps_of_other_results_are_left_out():
    said = ch07_correctness.met(BOTH, STORED.iloc[:2])
    assert set(said.method) == {PAPER_METHOD} and len(said) == 4
    assert ch07_correctness.eyes_summary(BOTH, STORED.assign(answer="Other.")) == {}


@pytest.mark.usefixtures("few_have_ends")
def test_shares_by_method_count_pictures_with_a_region():
    table = ch07_correctness.by_method(ch07_correctness.met(BOTH, STORED)).set_index("method")
    assert table.pictures.to_dict() == {PAPER_METHOD: 2, "sobel": 1}
    assert table.eye.to_dict() == {PAPER_METHOD: 0.5, "sobel": 0.5}  # yes, no, yes, unsure; no, yes
    assert table.pointing.to_dict() == {PAPER_METHOD: 0.5, "sobel": 0.0}
    assert table.mass.to_dict() == {PAPER_METHOD: 0.5, "sobel": 1.0}
    assert table.loc[PAPER_METHOD].low <= 0.5 <= table.loc[PAPER_METHOD].high


@pytest.mark.usefixtures("few_have_ends")
def test_the_difference_of_two_methods_and_its_interval():
    found = ch07_correctness.judged_apart(ch07_correctness.met(BOTH, STORED), PAPER_METHOD, "sobel")
    assert found.value == 0.0 and found.low <= 0 <= found.high
    sure = ch07_correctness.met(log("x", "yyyy", "yyny"), STORED)
    found = ch07_correctness.judged_apart(sure, PAPER_METHOD, "sobel")
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_a_question_that_was_not_answered_counts_nowhere():
    half = BOTH[~((BOTH.about == "covered") & (BOTH.task == NUMBERS[2]))]  # sobel: "right" only
    said = ch07_correctness.met(half, STORED)
    assert said[said.task == NUMBERS[2]].covered.isna().all()
    table = ch07_correctness.by_method(said)
    assert list(table.method) == [PAPER_METHOD] and table.pictures[0] == 2
    beside = ch07_correctness.beside_rules(said).set_index(["annotator", "beside"])
    assert beside.loc[("x", "pointing")].n == 2 and beside.loc[("x", "known answer")].n == 4


def test_no_difference_where_one_of_the_methods_was_not_judged():
    said = ch07_correctness.met(BOTH, STORED)
    assert ch07_correctness.judged_apart(said, PAPER_METHOD, "rise") is None


def test_agreement_with_rules_and_known_answers_leaves_unsure_out():
    table = ch07_correctness.beside_rules(ch07_correctness.met(BOTH, STORED))
    table = table.set_index(["annotator", "beside"])
    assert table.n.to_dict() == {
        ("x", "pointing"): 3, ("x", "mass"): 3, ("x", "known answer"): 4,
        ("y", "pointing"): 2, ("y", "mass"): 2, ("y", "known answer"): 4,
    }  # fmt: skip
    assert table.loc[("x", "pointing")].same == 1.0 and table.loc[("x", "pointing")].kappa == 1.0
    assert table.loc[("x", "mass")].same == pytest.approx(2 / 3)
    assert table.loc[("x", "known answer")].same == 1.0
    assert table.loc[("y", "known answer")].same == 0.75


def test_summary_is_plain_numbers():
    tree = ch07_correctness.eyes_summary(BOTH, STORED)
    assert tree["n"] == 4 and tree["methods"][PAPER_METHOD]["eye"] == 0.5
    assert tree["igos_minus_sobel"]["value"] == 0.0 and json.dumps(tree, allow_nan=False)


def test_the_committed_annotations_belong_to_the_committed_results():
    found = ch07_correctness.annotations()
    said = ch07_correctness.met(found, stored_maps(data_dir() / "results" / "mini"))
    assert len(said) == found.groupby(["annotator", "task"]).ngroups > 0
    assert said[["right", "covered"]].notna().all(axis=None)
    assert set(RULES) <= set(said)


def test_no_file_is_no_choice(tmp_path):
    assert ch07_correctness.annotations(tmp_path).empty
    assert ch07_correctness.eyes_summary(ch07_correctness.annotations(tmp_path), STORED) == {}
