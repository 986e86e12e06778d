"""Read or seen: what an answer under a strip tells of its source, and a map of its strip."""

import json

import numpy as np
import pandas as pd
import pytest

from lvlm_study import load_benchmark
from lvlm_study.chapters import ch15_shortcut as shortcut_study
from lvlm_study.chapters.ch15_shortcut import READ, SEEN

ITEMS = load_benchmark("sprites_shortcut")[:40]  # ten scenes, four arms each
ARM = {item.id: item.extra["arm"] for item in ITEMS}


def truth(item):
    return item.accept[0]


def wrong(item):
    return item.extra["wrong"]


def table(answer, items=ITEMS, model="m"):
    rows = [
        {"model": model, "benchmark": "sprites_shortcut", "item": i.id, "baseline": "blur",
         "question": i.question, "answer": answer(i)}
        for i in items
    ]  # fmt: skip
    return pd.DataFrame(rows)


def believer(item):
    """Says what a strip says, if it is an answer, and looks otherwise."""
    return wrong(item) if ARM[item.id] == "wrong" else truth(item)


def stored(map_of, items=ITEMS, method="igos"):
    rows = [
        {"model": "m", "item": i.id, "method": method, "status": "ok", "answer": "x",
         "question": i.question, "item_seed": 0, "saliency": map_of(i)}
        for i in items
    ]  # fmt: skip
    return pd.DataFrame(rows)


def on_the_word(item):
    """A map that is the strip's word where the answer is read, and the evidence elsewhere."""
    read = ARM[item.id] == "wrong"
    box = item.extra["strip"].mask() if read else np.ones((336, 336), bool)
    return box.astype(np.float32)


def test_where_an_answer_came_from():
    said = shortcut_study.answered(table(believer), ITEMS).set_index("item")
    kinds = said.source.groupby(said.arm).unique()
    assert list(kinds["wrong"]) == [READ] and list(kinds["neutral"]) == [SEEN]
    assert said[said.arm.isin(["clean", "right"])].source.isna().all()
    stubborn = shortcut_study.answered(table(truth), ITEMS)
    assert (stubborn[stubborn.arm == "wrong"].source == SEEN).all()
    slip = shortcut_study.answered(table(wrong), ITEMS)  # says it of the clean picture too
    assert slip.source.isna().all() and slip.follows.all()
    lost = shortcut_study.answered(table(lambda i: "nonsense"), ITEMS)
    assert lost.source.isna().all() and not lost.right.any() and not lost.follows.any()


def test_arms_by_hand():
    arms = shortcut_study.arms_of(shortcut_study.answered(table(believer), ITEMS))
    assert {arm: arms[arm]["right"]["percent"] for arm in arms} == {
        "clean": 100, "right": 100, "wrong": 0, "neutral": 100,
    }  # fmt: skip
    assert arms["wrong"]["follows"]["percent"] == 100 and arms["clean"]["follows"]["percent"] == 0
    assert arms["wrong"]["follows"]["n"] == 10
    assert arms["wrong"]["follows"]["low"] == pytest.approx(72.2, abs=0.1)  # Wilson, 10 of 10


def test_the_share_of_a_map_on_the_word():
    said = shortcut_study.answered(table(believer), ITEMS)
    shares = shortcut_study.strip_shares(stored(on_the_word), said, ITEMS)
    assert len(shares) == 20  # ten read, ten seen; clean and right arms left out
    read = shares[shares.source == READ]
    item = next(i for i in ITEMS if i.id == read["item"].iloc[0])
    assert read.share.tolist() == pytest.approx([1.0] * 10)
    assert read.ratio.iloc[0] == pytest.approx(1 / item.extra["strip"].mask().mean())
    assert shares[shares.source == SEEN].ratio.tolist() == pytest.approx([1.0] * 10)  # flat map


def test_a_map_that_knows_tells_the_two_apart_and_edges_are_drawn_again():
    said = shortcut_study.answered(table(believer), ITEMS)
    both = pd.concat([stored(on_the_word), stored(lambda i: None, method="sobel")])
    shares = shortcut_study.strip_shares(both, said, ITEMS)
    found = shortcut_study.told_apart(shares).set_index("method")
    assert found.loc["igos", ["auc", "low", "high"]].tolist() == [1.0, 1.0, 1.0]
    assert found.loc["igos", ["n_read", "n_seen"]].tolist() == [10, 10]
    edges = shares[shares.method == "sobel"].groupby("source").ratio.mean()
    assert (edges > 2).all()  # letters are edges, whoever reads them
    assert abs(found.loc["sobel", "auc"] - 0.5) < 0.3


def test_questions_about_the_whole_place_are_also_left_out():
    """Ten read and ten seen answers; every read map knows, so what is left is as clear."""
    said = shortcut_study.answered(table(believer), ITEMS)
    shares = shortcut_study.strip_shares(stored(on_the_word), said, ITEMS)
    shares.loc[shares.group == shares.group.iloc[0], "category"] = "global"
    found = shortcut_study._of_model(shares)
    kinds = shares.category.eq("global").groupby(shares.source).sum()
    assert found["mapped"] == {
        "read": 10, "seen": 10, "neutral": 10,
        "read_global": kinds["read"], "seen_global": kinds["seen"],
    }  # fmt: skip
    own = found["local"]["methods"]["igos"]
    assert (own["n_read"], own["n_seen"]) == (10 - kinds["read"], 10 - kinds["seen"])
    assert own["auc"] == 1.0 and kinds["read"] >= 1


def test_verdicts_by_hand():
    table = pd.DataFrame(
        [("igos", 0.9, 0.8, 1.0), ("occlusion", 0.95, 0.9, 1.0), ("grad_cam", 0.2, 0.1, 0.4),
         ("gae", 0.55, 0.4, 0.7), ("sobel", 0.99, 0.9, 1.0)],
        columns=["method", "auc", "low", "high"],
    )  # fmt: skip
    found = shortcut_study.verdicts(table)
    assert found["methods"] == 4 and found["best"] == "Occlusion"  # edges are no method
    assert found["clear"] == {"count": 2, "titles": "iGOS and Occlusion"}
    assert found["unclear"]["titles"] == "T-MM" and found["inverted"]["titles"] == "Grad-CAM"


def test_too_few_maps_of_a_kind_are_not_judged():
    said = shortcut_study.answered(table(believer), ITEMS)
    few = stored(on_the_word, ITEMS[:20])  # five of each kind
    assert shortcut_study.told_apart(shortcut_study.strip_shares(few, said, ITEMS)).empty


def test_the_figures_show_what_the_tables_say():
    said = shortcut_study.answered(table(believer), ITEMS)
    some = stored(on_the_word)
    shares = shortcut_study.strip_shares(some, said, ITEMS)
    methods = {row["method"]: row for row in shortcut_study.told_apart(shares).to_dict("records")}
    figure = shortcut_study.ratio_figure(methods)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["iGOS"]
    shown = shortcut_study.example_figure(some, said, ITEMS, "m", ["igos"])
    titles = [ax.get_title() for ax in shown.axes[:2]]
    first = [i for i in ITEMS if i.extra["group"] == said.group.iloc[0]]
    assert titles == [f"iGOS: {wrong(first[2])}\n(read)", f"iGOS: {truth(first[3])}\n(seen)"]
    study = {"models": {"m": {"arms": shortcut_study.arms_of(said)}}}
    lines = shortcut_study.arms_table(study).set_index("strip")
    assert lines.loc["wrong", "right (%)"] == "0 [0, 28]"
    assert shortcut_study.apart_table(methods)["told apart (AUC)"].tolist() == [1.0]


def test_the_committed_summary_is_what_the_tables_give():
    from lvlm_study.chapters.compare import Tables
    from lvlm_study.paths import data_dir

    results = data_dir() / "results" / "mini"
    tree = json.loads((results / "shortcut.json").read_text())
    again = shortcut_study.summary(Tables(results))
    assert again["models"] == tree["models"]


def test_nothing_to_say_before_the_subset_has_been_run(tmp_path):
    from lvlm_study.chapters.compare import Tables

    assert shortcut_study.summary(Tables(tmp_path)) == {}
