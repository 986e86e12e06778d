"""A stored row is what its inputs were: options with their defaults, and the item's content."""

# ruff: noqa: F401, F811 - `study` is a fixture
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from refusals import refuses
from test_runner import same, study, toy

from lvlm_study.answers import make_target
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS, variants
from lvlm_study.models.planted import planted
from lvlm_study.paths import data_dir
from lvlm_study.sweep import identity, provenance, runner
from lvlm_study.sweep import tables as shards
from lvlm_study.sweep.runner import Sweep

KINDS = ("reliance", "maps", "effects", "subsets")
TARGET = {"tokens", "word", "threshold", "exclude", "baseline", "contrast"}


def coarser(target, *, seed=0, cells=16):
    """`random` after a change of its default."""
    return METHODS["center"](target, seed=seed, spread=cells / 64)


def files(results):
    """Every shard of a folder, byte by byte."""
    return {path: path.read_bytes() for path in sorted(results.rglob("*.parquet"))}


def make_old(results):
    """Shards as they were written before options and contents were recorded."""
    for path in results.rglob("*.parquet"):
        rows, about = shards.read_shard(path)
        schema = pq.read_schema(path).remove_metadata()
        schema = schema.remove(schema.get_field_index("item_hash"))
        rows = [{k: v for k, v in row.items() if k != "item_hash"} for row in rows]
        for key in identity.RECORDED:
            about["settings"].pop(key, None)
        shards.write_shard(path, rows, schema, about)


def told_by(study, monkeypatch):
    """What a run of the fixture says."""
    said, run = [], runner.run
    monkeypatch.setattr(runner, "run", lambda sweep, say: run(sweep, said.append))
    return said


# --- options -------------------------------------------------------------------------------
def test_rows_of_another_default_are_named_and_made_again_on_request(study, monkeypatch):
    study(toy(), items=2)
    before = files(study.results)
    monkeypatch.setitem(METHODS, "random", coarser)
    with pytest.raises(StudyError, match=r"random/000.parquet .*options\.cells 32, now 16"):
        study(toy(), items=4, baselines=("black",))
    after = files(study.results)
    assert all(after[path] == raw for path, raw in before.items() if "maps" in str(path))
    study(toy(), items=4, fresh=True)
    maps = study.table("maps")
    assert list(maps.groupby("method").size()) == [4, 4]
    _, about = shards.read_shard(next(study.results.rglob("random/*.parquet")))
    assert about["settings"]["options"]["cells"] == 16


def test_a_changed_choice_of_tokens_is_another_identity_of_every_table(study, monkeypatch):
    study(toy(), items=1)

    def stricter(model, image, question, baseline="blur", answer=None, threshold=2.0, seed=0):
        return make_target(model, image, question, baseline, answer, threshold, seed=seed)

    monkeypatch.setattr(identity, "make_target", stricter)
    refuses(r"reliance/.*target\.threshold 1\.0, now 2\.0", study, toy(), items=1)


@pytest.mark.parametrize("method", METHODS)
def test_every_option_but_the_batch_is_recorded(method):
    known = set(variants.options_of(method)) - set(variants.TARGET_OPTIONS)
    found = identity.method_options(method)
    assert set(found) == known - {"batch", "preset"} | {"target"}
    assert set(found["target"]) == TARGET
    assert json.loads(json.dumps(found)) == found


def test_options_are_what_they_resolve_to():
    plain, fast = identity.method_options("igos"), identity.method_options("igos[preset=fast]")
    assert plain["steps"] == 10 and fast == plain | {"steps": 4, "average": True}
    assert identity.method_options("igos[steps=4,average=true]") == fast
    assert identity.method_options("igos[batch=1]") == plain
    other = identity.method_options("igos[baseline=mean,tokens=all,threshold=0.5]")
    chosen = {"baseline": "mean", "tokens": "all", "threshold": 0.5}
    assert other == plain | {"target": plain["target"] | chosen}


def test_a_new_option_that_is_not_used_is_no_other_setting():
    """Rows of igos from before it had `fills` and `even`, as they lie in the results."""
    folder = data_dir() / "results" / "mini" / "busy" / "maps" / "mini--llava-1.5-clutter4"
    stored = next((folder / "sprites_clutter-4" / "igos@preset=fast").glob("*.parquet"))
    before = shards.read_shard(stored)[1]["settings"]["options"]
    now = identity.method_options("igos[preset=fast]")
    assert "even" in set(now) - set(before) and identity.differences(before, now) == []
    other = identity.method_options("igos[preset=fast,even=0.5]")
    assert identity.differences(before, other) == ["even"]
    assert identity.differences(other, before) == ["even"]


# --- items ---------------------------------------------------------------------------------
def test_a_changed_picture_is_named_and_alone_made_again(study):
    study(toy())
    before = study.table("maps")
    items = toy()
    items[3] = replace(items[3], image=lambda: np.roll(toy()[3].rgb, 5, axis=1))
    refuses(r"1 items whose picture.* changed since \(toy/3\)", study, items)
    same(before, study.table("maps"))
    _, (reader,) = study(items, fresh=True)
    assert reader.answers == 1
    after = study.table("maps")
    same(before[before.item != "toy/3"], after[after.item != "toy/3"])
    one, two = (t[t.item == "toy/3"].item_hash.unique() for t in (before, after))
    assert len(one) == len(two) == 1 and one[0] != two[0]


def test_what_is_not_asked_for_is_not_mixed_either(study):
    """An item that has changed may lie beside those that a run asks for."""
    study(toy())
    last = runner.shuffled(toy(), None)[-1].id
    items = [replace(i, image=lambda: toy()[0].rgb // 2) if i.id == last else i for i in toy()]
    refuses(last, study, items, items=1)


EVIDENCE = np.eye(32, 48, dtype=bool)
CHANGES = {  # a change of the item -> the tables that it concerns
    "picture": ({"image": lambda: toy()[1].rgb ^ 1}, KINDS),
    "question": ({"question": "What is red?"}, KINDS),
    "category": ({"category": "other"}, KINDS),
    "reference": ({"reference": "The shape is blue."}, ("reliance",)),
    "accept": ({"accept": ("red", "crimson")}, ("reliance",)),
    "options": ({"options": ("red", "blue")}, ("reliance",)),
    "evidence": ({"evidence": EVIDENCE}, ("maps",)),
    "style": ({"extra": {"style": "flat"}}, ("effects", "subsets")),
    "id": ({"id": "toy/renamed"}, ()),
    "other knowledge": ({"extra": {"caption": "a shape"}}, ()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_hash_holds_what_the_rows_of_its_table_depend_on(change):
    fields, concerned = CHANGES[change]
    item = toy()[1]
    before = identity.content_hashes(item)
    after = identity.content_hashes(replace(item, **fields))
    assert {kind for kind in KINDS if before[kind] != after[kind]} == set(concerned)


def test_a_scene_is_content():
    item = load_benchmark("sprites")[5]
    scene = item.extra["scene"]
    other = scene.changed(0, x=scene.objects[0].x + 1)
    moved = replace(item, extra=item.extra | {"scene": other})  # the picture stays
    before, after = identity.content_hashes(item), identity.content_hashes(moved)
    assert before["reliance"] == after["reliance"]
    assert before["maps"] != after["maps"] and before["effects"] != after["effects"]
    assert identity.content_hashes(load_benchmark("sprites")[5]) == before
    assert set(before["reliance"]) == {"651651545a6ba479"}  # the same on every machine
    one, two = np.zeros((4, 6), np.uint8), np.zeros((6, 4), np.uint8)
    assert len({identity._bytes(one), identity._bytes(two), identity._bytes(one > 0)}) == 3


def test_no_committed_row_is_taken_for_one_of_a_changed_picture():
    """A new property of scenes gave every one of them another hash, though none of them had it."""
    known = {item.id: identity.content_hashes(item) for item in load_benchmark("sprites")}
    paths = (data_dir() / "results/mini/maps/mini--llava-1.5/sprites").glob("*/*.parquet")
    hashed = [path for path in paths if "item_hash" in pq.read_schema(path).names]
    tables = [pq.read_table(path, columns=["item", "item_hash"]) for path in hashed]
    rows = {(row["item"], row["item_hash"]) for t in tables for row in t.to_pylist()}
    assert len({found for item, found in rows if item == "sprites/existence-046"}) == 2
    assert all(found in known[item]["maps"] for item, found in rows if found)


def test_a_picture_that_cannot_be_read_keeps_its_rows(study):
    """Neither is what was computed thrown away, nor is a failure tried again unasked."""
    study(toy())
    before = study.table("maps")
    assert study(toy(broken={2}))[0] == 0
    same(before, study.table("maps"))
    assert identity.content_hashes(toy(broken={2})[2]) == dict.fromkeys(KINDS, (None,))


# --- rows from before ------------------------------------------------------------------------
def test_old_rows_are_named_and_kept_as_they_are(study, monkeypatch):
    study(toy())
    make_old(study.results)
    before, said = files(study.results), told_by(study, monkeypatch)
    assert study(toy())[0] == 0 and files(study.results) == before
    (line,) = said
    assert line.startswith("18 rows in ") and "before options were recorded; they stay" in line
    assert study(toy(), items=3)[0] == 0 and files(study.results) == before
    monkeypatch.setitem(METHODS, "random", coarser)  # which old rows cannot tell
    assert study(toy())[0] == 0 and files(study.results) == before


def test_nothing_is_put_beside_old_rows(study, monkeypatch):
    study(toy(), items=3)
    make_old(study.results)
    before, said = files(study.results), told_by(study, monkeypatch)
    refuses("before options were recorded and lacks 2 of 5 items", study, toy(), items=5)
    assert files(study.results) == before
    study(toy(), items=3, methods=("center", "sobel"))  # a new table is no mixture
    assert {p: raw for p, raw in files(study.results).items() if p in before} == before
    assert study(toy(), items=5, fresh=True)[0] == 0
    assert said[-1].endswith("they are made again.")
    assert len(study.table("reliance")) == 5 and study.table("reliance").item_hash.notna().all()


@pytest.mark.parametrize("change", ["failed", "question", "weights"])
def test_what_would_renew_some_old_rows_is_refused(study, change):
    study(toy(broken={1}))
    make_old(study.results)
    before = files(study.results)
    items = [replace(i, question="What is it?") if change == "question" else i for i in toy()]
    more = {"failed": {"retry_failed": True}, "weights": {"seed": 1}}.get(change, {})
    refuses("add --fresh", study, items, **more)
    assert files(study.results) == before


def test_a_fresh_run_may_be_stopped_and_goes_on(study):
    study(toy())
    make_old(study.results)
    study(toy(), items=2, fresh=True, methods=("random",))
    _, (reader,) = study(toy(), items=4, fresh=True, methods=("random",))
    assert reader.answers == 2  # the first two are not made a third time
    assert list(study.table("maps").groupby("method").size()) == [6, 4]  # center is as it was


def test_the_committed_results_stay_what_they_are(tmp_path):
    """Real tables of an earlier commit: found complete, not touched; more is refused."""
    source, where = data_dir() / "results" / "mini", tmp_path / "mini"
    for kind in ("reliance", "effects", "maps"):
        part = "/".join((kind, "mini--llava-1.5", "sprites"))
        for path in (source / part).rglob("000.parquet"):
            if kind != "maps" or path.parent.name in ("center", "random"):
                (where / path.parent.relative_to(source)).mkdir(parents=True)
                shutil.copy(path, where / path.relative_to(source))
    before, said = files(where), []
    sweep = Sweep(("mini/llava-1.5",), ("sprites",), ("center", "random"), where, items=4)
    assert runner.run(sweep, said.append) == 0
    assert files(where) == before and len(before) == 4
    assert len(said) == 1 and "before options were recorded" in said[0]
    with pytest.raises(StudyError, match="before options were recorded|other settings"):
        runner.run(replace(sweep, methods=("center",), retry_failed=True, seed=1), said.append)
    assert files(where) == before


# --- versions ---------------------------------------------------------------------------------
def test_a_difference_in_versions_is_said_and_kept(study, monkeypatch):
    now = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: now | {"torch": "1.0"})
    study(toy(), items=2)
    monkeypatch.setattr(provenance, "versions", lambda: now)
    said = told_by(study, monkeypatch)
    study(toy(), items=2)
    assert said == []  # nothing is added
    study(toy(), items=4)
    assert said == [f"New rows are made with torch {now['torch']}, old ones with 1.0."]
    assert shards.made_with(study.results)["torch"] == ", ".join(sorted(["1.0", now["torch"]]))
    study(toy(), items=6)
    assert len(said) == 1  # the shard has rows of both already
    assert shards.made_with(study.results)["numpy"] == now["numpy"]


def test_what_a_number_was_computed_on_is_told(adapters):
    found = provenance.machine(adapters("llava"))
    assert found["device"] == "cpu" and found["device_name"] and found["cuda"] is None
    assert (found["attention"], found["dtype"]) == ("sdpa", "float32")
    assert provenance.machine(planted("object"))["attention"] is None
