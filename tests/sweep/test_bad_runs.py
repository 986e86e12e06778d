"""What goes wrong on a long run: named in one sentence, recorded, and nothing computed is lost."""

import shutil
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import errors as hub
from test_runner import Counting, toy

from lvlm_study import cli
from lvlm_study.benchmarks import cv_bench
from lvlm_study.errors import StudyError
from lvlm_study.models import load_model, registry
from lvlm_study.pixels import images
from lvlm_study.sweep import runner
from lvlm_study.sweep import tables as shards
from lvlm_study.sweep.runner import Sweep


def raised(kind, text="401 Client Error"):
    """A hub error as its client raises it, without a response of a server."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


# --- models ----------------------------------------------------------------------------------

HUB = {
    "missing repository": (hub.RepositoryNotFoundError, "There is no model org/name on the hub"),
    "gated repository": (hub.GatedRepoError, "org/name is gated: accept its licence .* 'hf auth"),
    "wrong revision": (hub.RevisionNotFoundError, "org/name has no revision 'v9' on the hub"),
    "no network": (ConnectionError, "org/name .*(cannot be fetched|not in the local cache)"),
}


@pytest.mark.parametrize("case", HUB)
def test_what_the_hub_says_no_to(case, monkeypatch):
    kind, message = HUB[case]

    def refuse(repo, **options):
        raise raised(kind)

    monkeypatch.setattr(registry, "snapshot_download", refuse)
    with pytest.raises(StudyError, match=message) as told:
        load_model("org/name@v9")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "part", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_download_cut_short_names_its_file(checkpoints, tmp_path, part):
    folder = shutil.copytree(checkpoints("llava"), tmp_path / "model")
    raw = (folder / part).read_bytes()
    (folder / part).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(StudyError) as told:
        load_model(folder)
    assert str(folder) in str(told.value) and "\n" not in str(told.value)


@pytest.fixture
def go(monkeypatch, tmp_path):
    """`go(models)` runs two methods on planted readers; the model "gone" cannot be loaded."""

    def load(name, **options):
        if name == "gone":
            raise StudyError("There is no model gone on the hub.")
        return Counting(name.split("/")[1])

    monkeypatch.setattr(runner, "known_benchmarks", lambda: ["toy"])
    monkeypatch.setattr(runner, "load_model", load)
    told = []

    def start(models, items=None, **changes):
        monkeypatch.setattr(runner, "load_benchmark", lambda name: items or toy(3))
        plan = dict(results=tmp_path / "results", baselines=("black",))
        plan |= dict(units=("grid",), fills=("blur",)) | changes
        return runner.run(Sweep(tuple(models), ("toy",), ("center",), **plan), say=told.append)

    start.told, start.results = told, tmp_path / "results"
    start.table = lambda kind: shards.read_table(tmp_path / "results", kind)
    return start


def test_a_model_that_cannot_be_loaded_costs_its_own_items(go):
    assert go(["gone", "planted/object"]) == 3
    assert go.told == ["gone is left out: There is no model gone on the hub."]
    assert set(go.table("reliance").model) == {"planted/object"} and len(go.table("maps")) == 3


def test_a_run_without_any_model_is_refused(go):
    with pytest.raises(StudyError, match="no model gone on the hub"):
        go(["gone", "gone"])


# --- data --------------------------------------------------------------------------------------


def test_a_corrupt_parquet_of_a_benchmark_is_named_before_anything_runs(tmp_path, capsys):
    (tmp_path / "test.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(StudyError, match="test.parquet cannot be read .* download it again"):
        cv_bench(tmp_path)


def test_an_unreadable_image_of_a_benchmark_costs_one_item(go, tmp_path):
    """The second picture of a real table is broken: its row says so, the others are answered."""
    rows = [
        {
            "idx": n,
            "type": "2D",
            "task": "Count",
            "question": "How many?",
            "choices": ["1", "2"],
            "answer": "(A)",
            "prompt": "",
            "source": "ADE20K",
            "image": {"bytes": picture if n != 1 else b"broken", "path": f"{n}.png"},
        }
        for n, picture in enumerate([png(tmp_path)] * 3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert go(["planted/object"], cv_bench(tmp_path)) == 1
    found = go.table("reliance").set_index("item")
    (bad,) = found.index[found.status == "error"]
    assert "row 1 of" in found.message[bad] and "test.parquet" in found.message[bad]
    assert (found.status != "error").sum() == 2


def png(folder):
    from PIL import Image

    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(folder / "a.png")
    return (folder / "a.png").read_bytes()


def test_a_corrupt_parquet_of_results_is_set_aside(go):
    go(["planted/object"])
    path = next((go.results / "reliance").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:40])
    go(["planted/object"])
    assert any("is damaged; it is kept as" in text for text in go.told)
    assert len(go.table("reliance")) == 3


# --- disc ----------------------------------------------------------------------------------------


def test_a_full_disc_ends_with_one_sentence_and_keeps_the_rest(go, monkeypatch):
    go(["planted/object"], toy(2))
    write, calls = shards.pq.write_table, []

    def fill_up(table, path, **options):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(table, path, **options)

    monkeypatch.setattr(shards.pq, "write_table", fill_up)
    with pytest.raises(StudyError, match="is full; make room and run again"):
        go(["planted/object"], toy(5))
    monkeypatch.setattr(shards.pq, "write_table", write)
    assert len(go.table("maps")) == 2 and len(go.table("reliance")) == 3
    assert go(["planted/object"], toy(5)) == 0
    assert len(go.table("maps")) == 5


def test_a_summary_that_cannot_be_written_says_so(go, monkeypatch, capsys, tmp_path):
    """The tables are there already; the sentence names the folder, and the exit code says no."""

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "lvlm_study.chapters.summaries.os", types.SimpleNamespace(replace=full, getpid=int)
    )
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(2))
    call = ["run", "--models", "planted/object", "--benchmarks", "toy", "--methods", "center"]
    few = ["--units", "grid", "--fills", "blur"]
    assert cli.main([*call, *few, "--results", str(tmp_path / "results")]) == 2
    assert "is full; make room" in capsys.readouterr().err
    assert len(go.table("maps")) == 2


# --- images that name themselves -------------------------------------------------------


def test_values_out_of_range_name_their_file(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((4, 4), 7.5, np.float32)).save(tmp_path / "bright.tif")
    with pytest.raises(StudyError, match="the values of .*bright.tif span"):
        images.load_image(tmp_path / "bright.tif")
