"""The sweep: only missing cells are computed, whatever happened before, and nothing is lost."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from refusals import refuses

from lvlm_study import cli
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.benchmarks.base import Item
from lvlm_study.chapters import summaries
from lvlm_study.heatmaps import METHODS, explain
from lvlm_study.heatmaps.base import full_size
from lvlm_study.metrics.faithfulness import deletion_insertion
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import engines, results, runner, stored
from lvlm_study.sweep import tables as shards
from lvlm_study.sweep.runner import Sweep

MOMENT = ["seconds", "peak_bytes", "made", "commit"]  # what two runs need not share


def toy(count=6, broken=()):
    """Questions about the planted scene; the picture of a `broken` one does not exist."""

    def picture(n):
        return f"/no/such/{n}.png" if n in broken else (lambda: planted_scene((32, 48), n))

    kinds = ("attribute", "spatial")
    return [
        Item(f"toy/{n}", picture(n), "Which colour?", "The shape is red.", ("red",), kinds[n % 2])
        for n in range(count)
    ]


class Counting:
    """A planted reader that counts its answers."""

    def __init__(self, name="object"):
        self.reader, self.answers = planted(name), 0

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def answer(self, *args):
        self.answers += 1
        return self.reader.answer(*args)


@pytest.fixture
def study(monkeypatch, tmp_path):
    """`study(items, **sweep)` runs a sweep on planted readers; gives (failed, readers)."""
    monkeypatch.setattr(runner, "known_benchmarks", lambda: ["toy"])
    quiet = dict(models=("planted/object",), benchmarks=("toy",), methods=("random", "center"))
    quiet |= dict(results=tmp_path / "results", baselines=("black",))
    quiet |= dict(units=("grid",), fills=("blur",))

    def go(questions, **changes):
        made = []
        monkeypatch.setattr(runner, "load_benchmark", lambda name: questions)
        load = lambda name, **o: made.append(Counting(name.split("/")[1])) or made[-1]  # noqa: E731
        monkeypatch.setattr(runner, "load_model", load)
        return runner.run(Sweep(**quiet | changes), say=lambda text: None), made

    go.results = quiet["results"]
    go.table = lambda kind: shards.read_table(quiet["results"], kind)
    return go


# --- what is computed ----------------------------------------------------------------------
def test_every_cell_once_and_one_answer_an_item(study):
    failed, (reader,) = study(toy(), methods=("igos", "random", "center", "sobel"))
    assert failed == 0 and reader.answers == 6
    reliance, maps = study.table("reliance"), study.table("maps")
    assert len(reliance) == 6 and len(maps) == 24
    assert set(reliance.verdict) == {"correct"} and set(maps.status) == {"ok"}
    assert (maps[maps.method == "igos"].forward == 100).all()


def test_rows_hold_what_a_single_call_gives(study):
    items = toy(3)
    study(items, methods=("igos",), baselines=("black", "mean"))
    reliance, maps = study.table("reliance"), study.table("maps")
    item = items[1]
    row = maps[maps.item == item.id].iloc[0]
    ex = explain(planted("object"), item.rgb, item.question, seed=int(row.item_seed))
    assert row.heatmap_scale == pytest.approx(abs(ex.grid).max())
    assert np.array_equal(row.heatmap, (ex.grid / row.heatmap_scale).astype(np.float16).ravel())
    assert list(row.heatmap_shape) == [32, 32] and row.heatmap.dtype == np.float16
    assert row["gap"] == pytest.approx(row.insertion - row.deletion)
    assert len(row.area) == len(row.deletion_curve) == 26 and row.area[-1] == 1
    both = reliance[reliance.item == item.id].set_index("baseline")
    assert list(both.loc["black"].crucial) == [False, False, False, True, False]
    drop = 1 - np.exp(-np.sum(both.loc["black"].llr))
    assert both.loc["black"].total_drop == pytest.approx(drop, abs=1e-5)
    assert both.loc["mean"].total_drop != both.loc["black"].total_drop


def test_scores_of_the_random_control_are_means_of_twenty_maps(study):
    """All of one item's draws count, each with a seed of its own; one row holds their means."""
    (item,) = toy(1)
    study([item], methods=("random",))
    row = study.table("maps").iloc[0]
    seed = int(row.item_seed)
    ex = explain(planted("object"), item.rgb, item.question, method="random", baseline="blur")
    gaps = []
    for n in range(20):
        draw = full_size(METHODS["random"](ex.target, seed=seed + n), ex.saliency.shape)
        score = deletion_insertion(
            None, replace(ex, saliency=draw), steps=25, fill="blur", seed=seed
        )
        gaps.append(score.gap)
    assert row.gap == pytest.approx(np.mean(gaps), abs=1e-9) and np.std(gaps) > 0.01
    assert len(row.deletion_curve) == 26 and row.status == "ok" and row.forward == 0
    _, about = shards.read_shard(next(study.results.rglob("random/*.parquet")))
    assert about["settings"]["draws"] == 20


def test_means_of_rows():
    rows = [{"gap": 1.0, "mass": [0.0, 2.0], "status": "ok"}, {"gap": 2.0, "mass": [1.0, 0.0]}]
    assert runner.mean_row(rows) == {"gap": 1.5, "mass": [0.5, 1.0], "status": "ok"}
    assert runner.mean_row(rows[1:]) is rows[1]


def test_a_cut_answer_is_in_the_table_and_counted(study):
    study(toy(3), max_new_tokens=4, baselines=("blur",))
    cut = study.table("reliance")
    assert cut.truncated.tolist() == [True] * 3 and set(cut.tokens.map(len)) == {4}
    study(toy(3), results=study.results / "whole", baselines=("blur",))
    whole = shards.read_table(study.results / "whole", "reliance")
    assert whole.truncated.tolist() == [False] * 3
    both = pd.concat([cut, whole.assign(item=["a", "b", "c"])])
    assert summaries.of_answers(both)["truncated"] == 3
    assert stored.stored_maps(study.results).truncated.tolist() == [True] * 6


def test_tables_from_before_cut_answers_were_recorded(study):
    """They are read, gone on with and summarised; what is not known is not claimed."""
    study(toy(2), baselines=("blur",))
    (path,) = (study.results / "reliance").rglob("*.parquet")
    rows, about = shards.read_shard(path)
    names = [field for field in runner.RELIANCE if field.name != "truncated"]
    rows = [{k: v for k, v in row.items() if k != "truncated"} for row in rows]
    shards.write_shard(path, rows, pa.schema(names), about)
    old = study.table("reliance")
    assert "truncated" not in old and "truncated" not in summaries.of_answers(old)
    assert stored.stored_maps(study.results).truncated.isna().all()
    failed, readers = study(toy(4), baselines=("blur",))
    assert failed == 0 and readers[0].answers == 2
    mixed = study.table("reliance")
    assert mixed.truncated.isna().sum() == 2 and mixed.truncated.dropna().tolist() == [False] * 2
    assert summaries.of_answers(mixed)["truncated"] == 0


def test_full_size_maps_are_stored_small_and_controls_not_at_all():
    reader = planted("object")
    ex = explain(reader, planted_scene((96, 128)), "Which colour?", method="sobel")
    assert runner.stored_map(ex) == {}
    stored = runner.stored_map(replace(ex, method="grad_cam"))
    assert stored["heatmap_shape"] == [32, 32]
    blocks = ex.grid.reshape(32, 3, 32, 4).mean((1, 3))
    kept = stored["heatmap"].reshape(32, 32).astype(float) * stored["heatmap_scale"]
    assert np.allclose(kept, blocks, atol=1e-3) and abs(stored["heatmap"]).max() == 1


def test_a_map_of_tiny_numbers_is_stored_with_all_its_levels():
    """float16 alone keeps nothing below 6e-8; maps of LLaVA-CAM are smaller."""
    reader = planted("object")
    ex = explain(reader, planted_scene((96, 128)), "Which colour?", method="occlusion")
    tiny = runner.stored_map(replace(ex, grid=1e-9 * ex.grid))
    usual = runner.stored_map(ex)
    assert len(np.unique(tiny["heatmap"])) == len(np.unique(usual["heatmap"])) > 10
    assert tiny["heatmap_scale"] == pytest.approx(1e-9 * usual["heatmap_scale"])
    rows = [
        {k: np.asarray(v) if k.endswith("shape") else v for k, v in row.items()}
        for row in (tiny, usual)
    ]
    small, large = stored.grids(pd.DataFrame(rows))
    assert np.allclose(1e9 * small, large, rtol=1e-5) and small.max() > 0
    before = pd.DataFrame(rows).drop(columns="heatmap_scale")  # tables from before the scale
    assert np.array_equal(stored.grids(before)[1], usual["heatmap"].reshape(32, 32))


def test_an_item_has_its_own_seed_and_fewer_are_a_part_of_more():
    assert runner.item_seed(0, "a") != runner.item_seed(0, "b") != runner.item_seed(1, "b")
    assert runner.item_seed(0, "sprites/attribute-000") == 2820256854
    items = toy(50)
    few, many = runner.shuffled(items, 10), runner.shuffled(items, 30)
    assert few == many[:10] and len(runner.shuffled(items, None)) == 50
    assert {i.id for i in runner.shuffled(items, None)} == {i.id for i in items}
    assert [i.id for i in few] != [i.id for i in items[:10]]


def test_questions_about_one_picture_stay_together():
    items = [replace(item, extra={"picture": n // 3}) for n, item in enumerate(toy(30))]
    asked = [item.extra["picture"] for item in runner.shuffled(items, 12)]
    assert all(asked.count(picture) == 3 for picture in asked) and asked != sorted(asked)


def test_subsets_hold_what_effects_hold(tmp_path):
    """Without one object is one of the subsets; asked for alone, no map is made."""
    sweep = Sweep(("mini/llava-1.5-s",), ("sprites",), ("center",), tmp_path, items=5, subsets=True)
    assert engines.run(sweep) == 0
    effects, subsets = (shards.read_table(tmp_path, k) for k in ("effects", "subsets"))
    effects, subsets = effects.set_index("item"), subsets.set_index("item")
    assert (subsets.status == "ok").sum() > 0 and subsets.status.equals(effects.status)
    for name, row in subsets[subsets.status == "ok"].iterrows():
        whole = len(row.score) - 1
        gone = [whole - (1 << i) for i in range(len(row.objects))]
        assert whole == 2 ** len(row.objects) - 1
        assert row.score[whole] - row.score[gone] == pytest.approx(effects.effect[name], abs=1e-4)
        assert ((row.probability >= 0) & (row.probability <= 1)).all()


# --- resume --------------------------------------------------------------------------------
def test_only_missing_cells_are_computed(study):
    study(toy(), items=2)
    _, (reader,) = study(toy(), items=5)
    assert reader.answers == 3
    _, (reader,) = study(toy(), items=5)
    assert reader.answers == 0
    _, (reader,) = study(toy(), items=5, methods=("random", "sobel"))
    assert reader.answers == 5  # for sobel; nothing of random or reliance is made again
    assert len(study.table("maps")) == 15 and len(study.table("reliance")) == 5


def test_asking_for_fewer_keeps_what_the_chunk_holds(study):
    """The first of two asked items is tried again; the rows of the other four stay, errors too."""
    order = [item.id for item in runner.shuffled(toy(), None)]
    broken = {int(order[n].split("/")[1]) for n in (0, 4)}
    study(toy(broken=broken))
    failed, (reader,) = study(toy(), items=2, retry_failed=True)
    assert (failed, reader.answers) == (0, 1)
    reliance, maps = study.table("reliance"), study.table("maps")
    assert list(reliance.item) == order
    broken = reliance[reliance.status == "error"].item
    assert list(broken) == order[4:5]  # not asked for, so not tried again and not forgotten
    assert len(maps) == 12 and maps[maps.status == "error"].item.tolist() == [order[4]] * 2


def test_fewer_with_more_methods_and_maps_keep_the_rest(study):
    order = [item.id for item in runner.shuffled(toy(), None)]
    study(toy(), only=frozenset(order[2:]))
    _, (reader,) = study(toy(), items=1, methods=("random", "sobel"))
    assert reader.answers == 1
    maps = study.table("maps")
    held = {name: list(rows.item) for name, rows in maps.groupby("method")}
    assert held == {"center": order[2:], "random": [order[0], *order[2:]], "sobel": order[:1]}
    assert len(study.table("reliance")) == 6


def test_maps_of_some_items_only(study):
    """All items are asked, some are explained; later the others can be explained too."""
    some = frozenset({"toy/1", "toy/4"})
    study(toy(), only=some)
    assert set(study.table("maps").item) == some and len(study.table("reliance")) == 6
    _, (reader,) = study(toy())
    assert reader.answers == 4 and len(study.table("maps")) == 12


def test_maps_of_wrong_answers_only(study):
    """The planted reader says red of every scene; where blue would be right it is wrong."""
    items = [
        replace(one, reference="The shape is blue.", accept=("blue",)) if n in (1, 4) else one
        for n, one in enumerate(toy())
    ]
    study(items, wrong=True)
    assert study.table("reliance").verdict.value_counts().to_dict() == {"correct": 4, "wrong": 2}
    assert set(study.table("maps").item) == {"toy/1", "toy/4"}


def test_the_command_explains_what_the_filter_keeps(monkeypatch, tmp_path, capsys):
    """Half of the scenes have no red at all: nothing is lost there when the picture goes."""
    grey = [replace(i, image=lambda: np.full((32, 48, 3), 128, np.uint8)) for i in toy()[::2]]
    monkeypatch.setattr(runner, "known_benchmarks", lambda: ["toy"])
    monkeypatch.setattr(runner, "load_benchmark", lambda name: grey + toy()[1::2])
    monkeypatch.setattr(runner, "load_model", lambda name, **options: planted("object"))
    call = ["run", "--models", "planted/object", "--benchmarks", "toy", "--methods", "center"]
    assert cli.main([*call, "--results", str(tmp_path / "r"), "--kept"]) == 0
    assert "The filter keeps 3 of 6 items" in capsys.readouterr().out
    maps = shards.read_table(tmp_path / "r", "maps").drop_duplicates("item")
    assert sorted(maps.item) == ["toy/1", "toy/3", "toy/5"]
    found = json.loads((tmp_path / "r" / "filter.json").read_text())["benchmarks"]["toy"]
    assert found["kept"]["0.3"] == 50


def test_order_of_work_does_not_change_the_tables(study, tmp_path):
    study(toy(), items=2, methods=("center",))
    study(toy(), items=6)
    study(toy(), items=1, methods=("center", "random"))
    other = tmp_path / "at-once"
    study(toy(), results=other)
    for kind in ("reliance", "maps"):
        same(study.table(kind), shards.read_table(other, kind))


def same(one: pd.DataFrame, two: pd.DataFrame) -> None:
    drop = [c for c in MOMENT if c in one]
    pd.testing.assert_frame_equal(one.drop(columns=drop), two.drop(columns=drop))


def test_a_failure_is_recorded_and_retried_on_demand(study):
    failed, _ = study(toy(broken={3}))
    assert failed == 1
    maps = study.table("maps")
    assert maps[maps.status == "error"].item.tolist() == ["toy/3"] * 2
    assert "no image file at /no/such/3.png" in maps[maps.status == "error"].message.iloc[0]
    failed, (reader,) = study(toy())
    assert (failed, reader.answers) == (1, 0)  # not tried again unasked
    failed, (reader,) = study(toy(), retry_failed=True)
    assert (failed, reader.answers) == (0, 1)
    assert len(study.table("maps")) == 12 and "error" not in set(study.table("maps").status)


def test_a_method_that_refuses_and_one_that_diverges_leave_the_others_alone(study, monkeypatch):
    """Refused by the model: an error with its reason. Not finite: a status of its own, no score."""
    monkeypatch.setitem(METHODS, "sobel", lambda target, *, seed=0: torch.full((4, 4), torch.nan))
    failed, _ = study(toy(2), methods=("gae", "sobel", "center"))
    rows = study.table("maps").groupby("method")
    status = {method: part.status.tolist() for method, part in rows}
    assert status == {"gae": ["error"] * 2, "sobel": ["diverged"] * 2, "center": ["ok"] * 2}
    assert failed == 2 and rows.get_group("sobel").gap.isna().all()
    assert rows.get_group("gae").message.str.contains("no vision tower|planted|attention").all()


def test_other_settings_do_not_mix(study):
    study(toy(), items=2)
    before = study.table("maps")
    refuses(r"other settings \(seed\); add --fresh", study, toy(), items=2, seed=1)
    refuses(r"other settings \(weights\)", open_with_other_weights, study)
    same(before, study.table("maps"))
    study(toy(), items=2, seed=1, fresh=True)
    assert set(study.table("maps").item_seed) & set(before.item_seed) == set()


def open_with_other_weights(study):
    """The same name with other parameters, as after training again."""
    few = dict(baselines=("black",), units=("grid",), fills=("blur",))
    sweep = Sweep(("planted/object",), ("toy",), ("random",), study.results, **few)
    changed = planted("object")
    changed.model.table += 1
    settings = runner.fingerprint(sweep, changed)
    chunk = runner.shuffled(toy(), 2)
    runner.open_shards(sweep, "planted/object", "toy", 0, chunk, settings[2:], print)


def test_a_damaged_shard_is_kept_aside_and_made_again(study):
    study(toy())
    path = next((study.results / "maps").rglob("random/*.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    refuses("is damaged", study.table, "maps")
    study(toy())
    assert len(study.table("maps")) == 12
    assert path.with_name("000.parquet.damaged").stat().st_size == 100


def test_unwritable_results(study, tmp_path):
    (tmp_path / "file").write_text("mine")
    refuses("Cannot write to", study, toy(), results=tmp_path / "file" / "below")


def test_a_held_chunk_is_left_to_its_holder(study):
    name = "planted--object--toy--000"
    with shards.chunk_lock(study.results, name) as mine:
        assert mine
        code = (
            "import sys; from pathlib import Path; from lvlm_study.sweep.tables import chunk_lock\n"
            f"with chunk_lock(Path(sys.argv[1]), {name!r}) as mine: print(mine)"
        )
        call = [sys.executable, "-c", code, str(study.results)]
        assert subprocess.run(call, capture_output=True, text=True).stdout.strip() == "False"
    assert subprocess.run(call, capture_output=True, text=True).stdout.strip() == "True"


# --- kill and race: real processes ---------------------------------------------------------


forked = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")


def slow_run(folder, started):
    """A run that takes its time over every answer and notes it; for a process of its own."""

    class Slow(Counting):
        def answer(self, *args):
            time.sleep(0.05)
            with folder.with_suffix(".log").open("a") as log:
                log.write("answer\n")
            return super().answer(*args)

    runner.load_model = lambda name, **options: Slow(name.split("/")[1])
    started()
    way = dict(baselines=("black",), units=("grid",), fills=("blur",))
    runner.run(Sweep(("planted/object",), ("toy",), ("center",), folder, **way))


@pytest.mark.slow
@forked
def test_killed_at_ten_random_moments_the_tables_end_the_same(study, tmp_path, monkeypatch):
    folder, draw, kills = tmp_path / "killed", random.Random(0), 0
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(runner, "CHUNK", 8)
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(40))
    monkeypatch.setattr(runner, "load_model", None)  # each process brings its own
    for _ in range(60):
        ready = fork.Event()
        process = fork.Process(target=slow_run, args=(folder, ready.set))
        process.start()
        ready.wait(60)
        if kills < 10:
            time.sleep(draw.uniform(0, 0.5))
            kills += process.is_alive()
            process.kill()
        process.join(200)
        if kills == 10 and process.exitcode == 0:
            break
    assert kills == 10 and process.exitcode == 0
    study(toy(40), methods=("center",), results=tmp_path / "whole")
    for kind in ("reliance", "maps"):
        same(shards.read_table(folder, kind), shards.read_table(tmp_path / "whole", kind))
    answers = len((tmp_path / "killed.log").read_text().splitlines())
    assert 40 <= answers <= 40 + kills  # a kill loses the item in flight, nothing else
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
@forked
def test_two_runs_at_once_share_the_work(study, tmp_path, monkeypatch):
    folder, fork = tmp_path / "shared", multiprocessing.get_context("fork")
    monkeypatch.setattr(runner, "CHUNK", 4)
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(12))
    monkeypatch.setattr(runner, "load_model", None)  # each process brings its own
    both = fork.Barrier(2)
    pair = [fork.Process(target=slow_run, args=(folder, both.wait)) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(200)
    assert [process.exitcode for process in pair] == [0, 0]
    assert len((tmp_path / "shared.log").read_text().splitlines()) == 12  # nothing twice
    maps = shards.read_table(folder, "maps")
    assert len(maps) == 12 and not maps.duplicated(["item", "method"]).any()


# --- summaries -----------------------------------------------------------------------------
def reliance_rows():
    """Four items under one baseline: drops 0.1, 0.3, 0.69 and 0.9; three answers are right."""
    drops, verdicts = [0.1, 0.3, 0.69, 0.9], ["correct", "correct", "undecided", "correct"]
    rows = dict(item=[f"i{n}" for n in range(4)], verdict=verdicts, total_drop=drops)
    rows |= dict(model="m.1", benchmark="toy", baseline="blur", category=list("aabb"))
    rows |= dict(status=["ok", "ok", "no_crucial_tokens", "ok"], per_token=[0.4, 0.3, 0.2, 0.1])
    rows |= dict(tokens=[["x"] * n for n in (1, 2, 3, 4)], crucial_share=[1.0, 0.5, 0.0, 0.5])
    return pd.DataFrame(rows | dict(commit="abc", made="2026-01-02T03:04:05+00:00"))


@pytest.mark.usefixtures("few_have_ends")
def test_reliance_summary_by_hand():
    found = summaries.reliance_summary(reliance_rows())["m.1"]["toy"]
    whole = found["all"]
    assert (whole["n"], whole["undecided"], whole["accuracy"]["value"]) == (4, 1, 0.75)
    assert whole["accuracy"]["low"] <= 0.75 <= whole["accuracy"]["high"]
    blur = whole["blur"]
    assert (blur["lt30"], blur["30_70"], blur["gt70"]) == (25, 50, 25)
    assert blur["no_crucial"] == 25
    assert blur["drop_length_correlation"] == pytest.approx(1)
    assert blur["per_token_length_correlation"] == pytest.approx(-1)
    assert found["a"]["blur"]["n"] == 2 and set(found) == {"all", "a", "b"}
    both = pd.concat([reliance_rows(), reliance_rows().assign(baseline="black")])
    found = summaries.reliance_summary(both)["m.1"]["toy"]["all"]
    assert found["n"] == 4 and found["blur"] == found["black"]


def test_faithfulness_summary_by_hand():
    status = ["ok", "ok", "no_gap", "constant", "error"]
    score = [0.2, 0.4, np.nan, np.nan, np.nan]
    rows = dict(model="m", benchmark="toy", method="igos", item=list("abcde"), status=status)
    rows |= dict(units=["grid"] * 4 + [None], fill=["blur"] * 4 + [None])
    rows |= dict(seconds=[1.0, 3.0, 5.0, 2.0, np.nan], forward=100, backward=100)
    frame = pd.DataFrame(rows | dict.fromkeys(runner.SCORES, score))
    found = summaries.faithfulness_summary(frame)["m"]["toy"]["igos"]["grid"]
    assert found["n"] == 3 and found["deletion"]["value"] == pytest.approx(0.3)
    assert found["n"] + sum(found["skipped"].values()) == len(frame)
    assert found["gap"]["value"] == pytest.approx(0.2)  # a constant map has the gap of chance
    assert found["skipped"]["no_gap"] == 1 and found["skipped"]["error"] == 1
    assert found["seconds"] == 2


def test_the_command_writes_what_the_book_reads(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(broken={2}))
    monkeypatch.setattr(runner, "load_model", lambda name, **options: planted("object"))
    folder = tmp_path / "results" / "mini"
    call = "run --models planted/object --benchmarks toy --methods center,random".split()
    assert cli.main([*call, "--results", str(folder), "--baselines", "blur,black"]) == 1
    told = capsys.readouterr().out
    assert "1 items failed" in told and "center" in told and "accuracy" in told
    n = results.read("reliance.models[planted/object].toy.all.n", tmp_path)
    assert n.value == 5 and "mini profile, planted/object, n = 6, seed 0" in n.origin
    gap = results.read(
        "faithfulness.models[planted/object].toy.center.grid.skipped.error", tmp_path
    )
    assert gap.value == 1
    tree = json.loads((folder / "reliance.json").read_text())
    assert set(tree["provenance"]) >= set(results.PROVENANCE)


def test_a_small_sweep_of_the_real_benchmark(adapters, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "load_model", lambda name, **options: adapters("llava"))
    sweep = Sweep(("tiny",), ("sprites",), ("center",), tmp_path, items=1, max_new_tokens=3)
    assert runner.run(sweep) == 0
    row = shards.read_table(tmp_path, "reliance").iloc[0]
    assert row["item"].startswith("sprites/") and len(row.tokens) == len(row.llr) <= 3


def test_two_pictures_of_one_prompt_are_asked_and_scored_together(tmp_path):
    """The picture with the object gets a map and a score, the other has nothing to explain."""
    sweep = Sweep(
        models=("mini/llava-1.5-s",), benchmarks=("sprites_two",), methods=("difference",),
        results=tmp_path, baselines=("blur",), units=("grid",), fills=("blur",), items=2,
    )  # fmt: skip
    assert engines.run(sweep) == 0
    told = shards.read_table(tmp_path, "maps").set_index("item")
    holds = {item.id: item.extra["holds"] for item in load_benchmark("sprites_two")}
    assert len(told) == 2 and {holds[name] for name in told.index} == {True, False}
    for name, row in told.iterrows():
        assert row.status in (("ok",) if holds[name] else ("ok", "no_crucial_tokens"))
        assert np.isfinite(row.gap) == (row.status == "ok")
