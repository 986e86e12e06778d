"""What goes wrong on a long run: named in one sentence, recorded, and nothing computed is lost."""

import os

import numpy as np
import pytest
import torch
from huggingface_hub import errors as hub
from refusals import refuses
from test_runner import Counting, toy

from lvlm_study import cli
from lvlm_study.answers import visual_reliance
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain
from lvlm_study.models import load_model, registry, trouble
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
    refuses(message, load_model, "org/name@v9")


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
    refuses("no model gone on the hub", go, ["gone", "gone"])


def test_a_full_disc_ends_with_one_sentence_and_keeps_the_rest(go, monkeypatch):
    go(["planted/object"], toy(2))
    write, calls = shards.pq.write_table, []

    def fill_up(table, path, **options):
        calls.append(path)
        if len(calls) > 1:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return write(table, path, **options)

    monkeypatch.setattr(shards.pq, "write_table", fill_up)
    refuses("is full; make room and run again", go, ["planted/object"], toy(5))
    monkeypatch.setattr(shards.pq, "write_table", write)
    assert len(go.table("maps")) == 2 and len(go.table("reliance")) == 3
    assert not list(go.results.rglob("*.tmp"))
    assert go(["planted/object"], toy(5)) == 0
    assert len(go.table("maps")) == 5


def test_a_summary_that_cannot_be_written_says_so(go, monkeypatch, capsys, tmp_path):
    """The tables are there already; the sentence names the folder, and the exit code says no."""

    replace = os.replace

    def full(part, path):
        if str(path).endswith(".json"):
            raise OSError(28, "No space left on device")
        replace(part, path)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(2))
    call = ["run", "--models", "planted/object", "--benchmarks", "toy", "--methods", "center"]
    few = ["--units", "grid", "--fills", "blur"]
    assert cli.main([*call, *few, "--results", str(tmp_path / "results")]) == 2
    assert "is full; make room" in capsys.readouterr().err
    assert len(go.table("maps")) == 2


def test_values_out_of_range_name_their_file(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((4, 4), 7.5, np.float32)).save(tmp_path / "bright.tif")
    refuses("the values of .*bright.tif span", images.load_image, tmp_path / "bright.tif")


# --- devices --------------------------------------------------------------------------------

NOT_INITIALISED = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling")
STEPS = ["make_target", "explain_target", "deletion_insertion"]  # answering is a model's own


def failing_at(monkeypatch, place, error, number=1):
    """From call `number` on, for one call, a step of an item raises `error`."""
    real, calls = getattr(runner, place), []

    def step(*args, **options):
        calls.append(place)
        if len(calls) == number + 1:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(runner, place, step)


@pytest.mark.parametrize("place", STEPS)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), NOT_INITIALISED]
)
def test_a_full_device_costs_one_item(go, monkeypatch, place, error):
    failing_at(monkeypatch, place, error)
    assert go(["planted/object"], toy(4)) == 1
    rows = [*go.table("maps").status, *go.table("reliance").status]
    assert 1 <= rows.count("error") <= 2 and len(rows) == 8


@pytest.mark.parametrize("place", STEPS)
def test_a_lost_device_ends_the_run_and_fills_no_row(go, monkeypatch, place):
    """CUDA answers every later call with the same error: all that is left would be error rows."""
    lost = RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")
    with monkeypatch.context() as patch:
        failing_at(patch, place, lost)
        with pytest.raises(StudyError, match="device failed while computing .*; start again") as t:
            go(["planted/object"], toy(4))
    assert "\n" not in str(t.value)
    before = go.table("reliance")
    assert len(before) in (1, 2) and "error" not in set(before.status)
    assert go(["planted/object"], toy(4)) == 0 and len(go.table("maps")) == 4


def test_what_a_lost_device_says():
    lost = ["CUDA error: device-side assert triggered", "CUBLAS_STATUS_EXECUTION_FAILED"]
    assert all(trouble.device_lost(RuntimeError(text)) for text in lost)
    full = ["CUDA error: out of memory", "CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate"]
    for text in full:
        assert trouble.out_of_memory(RuntimeError(text))
        assert not trouble.device_lost(RuntimeError(text))
    assert not trouble.device_lost(RuntimeError("shapes do not match"))


@pytest.mark.parametrize("what", ["answer", "explain", "reliance"])
def test_a_full_device_is_a_sentence_everywhere(adapters, monkeypatch, what):
    """Also where nothing can be halved: one picture is answered, one map is painted."""
    model, image = adapters("llava"), np.zeros((30, 40, 3), np.uint8)

    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    place = {"answer": "generate", "explain": "get_output_embeddings", "reliance": "forward"}[what]
    monkeypatch.setattr(type(model.model), place, full)
    call = {
        "answer": lambda: model.answer(image, "?"),
        "explain": lambda: explain(model, image, "?", method="tam", answer="red", tokens="all"),
        "reliance": lambda: visual_reliance(model, image, "?", "red"),
    }[what]
    with pytest.raises(StudyError, match="Memory ran out") as told:
        call()
    assert "\n" not in str(told.value)


def test_the_command_line_says_it_too(monkeypatch, capsys):
    _, *told = cli.COMMANDS["explain"]
    full = (lambda options: (_ for _ in ()).throw(MemoryError()), *told)
    monkeypatch.setitem(cli.COMMANDS, "explain", full)
    assert cli.main(["explain", "a.png", "What?"]) == 2
    assert capsys.readouterr().err.startswith("lvlm-study: Memory ran out while at work; use a")
