"""tools/rename_method.py: the same rows under the name that their computation has now."""

# ruff: noqa: F401, F811 - `study` is a fixture
import importlib.util
import shutil

import pyarrow.parquet as pq
import pytest
from test_identity import files, make_old
from test_runner import study, toy

from lvlm_study.errors import StudyError
from lvlm_study.paths import data_dir
from lvlm_study.sweep import provenance
from lvlm_study.sweep import tables as shards

FEW = ("igos[steps=1,iterations=1]", "center")


@pytest.fixture
def tool(pytestconfig):
    path = pytestconfig.rootpath / "tools" / "rename_method.py"
    spec = importlib.util.spec_from_file_location("rename_method", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_real_maps_move_with_all_their_numbers(tool, tmp_path):
    """Committed maps of two models: every other column and all other metadata are equal."""
    source = data_dir() / "results" / "mini" / "maps"
    names = ("mini--cambrian-s", "mini--llava-ov-s")
    kept = {}
    for name in names:
        where = tmp_path / "maps" / name / "sprites"
        for method in ("sobel", "center"):
            shutil.copytree(source / name / "sprites" / method, where / method)
        kept |= {(name, p.name): pq.read_table(p) for p in (where / "sobel").iterdir()}
    before = files(tmp_path)
    assert tool.rename(tmp_path, "sobel", "igos[preset=fast]") == len(kept) > 3
    after = files(tmp_path)
    stay = {path for path in before if path.parent.name == "center"}
    assert {path: after[path] for path in stay} == {path: before[path] for path in stay}
    for (name, part), table in kept.items():
        path = tmp_path / "maps" / name / "sprites" / "igos@preset=fast" / part
        now = pq.read_table(path, partitioning=None)
        assert set(now["method"].to_pylist()) == {"igos[preset=fast]"}
        assert now.schema.equals(table.schema)
        rest = [repr(each.drop(["method"]).to_pylist()) for each in (now, table)]  # NaN != NaN
        assert rest[0] == rest[1]
        about, then = (
            shards.read_shard(path)[1],
            shards.json.loads(table.schema.metadata[shards.META]),
        )
        assert about == then | {"renamed": {"from": "sobel", "commit": provenance.commit()}}
    assert not list(tmp_path.rglob("sobel")) and not list(tmp_path.rglob("*.tmp"))


def test_the_note_stays_and_later_ones_hold_it(tool, study):
    study(toy(), items=2, methods=FEW)
    make_old(study.results)
    tool.rename(study.results, "igos[iterations=1,steps=1]", "igos[lr=1]")
    tool.rename(study.results, "igos[lr=1]", "igos[lr=3]")
    _, about = shards.read_shard(next(study.results.rglob("igos@lr=3/*.parquet")))
    note = about["renamed"]
    assert (note["from"], note["before"]["from"]) == ("igos[lr=1]", "igos[iterations=1,steps=1]")


def test_a_run_goes_on_under_the_new_name(tool, study):
    """Rows with their options on them: the same computation may be renamed, and be added to."""
    fast = "igos[iterations=1,steps=4,average=true]"
    study(toy(), items=2, methods=(fast,))
    tool.rename(study.results, fast, "igos[preset=fast,iterations=1]")
    _, (reader,) = study(toy(), items=3, methods=("igos[iterations=1,preset=fast]",))
    assert reader.answers == 1
    (path,) = study.results.rglob("igos@*/*.parquet")
    rows, about = shards.read_shard(path)
    assert len(rows) == 3 and about["renamed"]["from"] == fast


WRONG = {
    "another computation": ("igos[iterations=1,steps=1]", "igos", r"is not igos \(.*steps 1, now"),
    "there already": ("igos[iterations=1,steps=1]", "center", "center exists; nothing was moved"),
    "none": ("rise", "rise[masks=8]", "no maps of rise in"),
    "unknown": ("igos[iterations=1,steps=1]", "igosh", "no method named 'igosh'"),
    "other rows": ("sobel", "random", "holds maps of center; nothing was moved"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_lie_is_refused_and_nothing_moves(tool, study, case, capsys):
    old, new, message = WRONG[case]
    study(toy(), items=2, methods=FEW)
    if case == "other rows":
        folder = next(study.results.rglob("center"))
        shutil.copytree(folder, folder.with_name("sobel"))
    before, _ = files(study.results), capsys.readouterr()
    with pytest.raises(StudyError, match=message):
        tool.rename(study.results, old, new)
    assert files(study.results) == before
    assert tool.main([str(study.results), old, new]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command(tool, study, capsys):
    study(toy(), items=1, methods=FEW)
    make_old(study.results)
    call = [str(study.results), "igos[iterations=1,steps=1]", "igos[ lr=1.0 ]"]
    assert tool.main(call) == 0
    assert capsys.readouterr().out == "1 files of igos[iterations=1,steps=1] are now igos[lr=1].\n"
    assert tool.main([]) == 2 and "usage" in capsys.readouterr().err
