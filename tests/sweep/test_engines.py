"""Engines: whoever does the work, the same tables; a dead worker costs the item in flight."""

import importlib.util
import io
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch
from test_runner import MOMENT, Counting, toy

from lvlm_study import cli
from lvlm_study.errors import StudyError
from lvlm_study.sweep import engines, runner
from lvlm_study.sweep import tables as shards
from lvlm_study.sweep.runner import Sweep

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is an optional extra"
)


class ActorDied(Exception):
    pass


class TaskFailed(Exception):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """Ray's few calls, run in this process; `deaths` names chunks that end their worker."""

    exceptions = SimpleNamespace(RayActorError=ActorDied, RayTaskError=TaskFailed)

    def __init__(self, deaths=(), resources=None):
        self.deaths, self.hired, self.killed, self.log = list(deaths), [], 0, []
        self.resources = resources or {"CPU": 4}

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return self.resources

    def remote(self, cls):
        make = SimpleNamespace(remote=lambda *args: self._actor(cls, args))
        self.needs = []
        return SimpleNamespace(options=lambda **needs: self.needs.append(needs) or make)

    def _actor(self, cls, args):
        self.hired.append(args[1])
        real = cls(*args)

        def later(name):
            return SimpleNamespace(
                remote=lambda *a: (len(self.log), self.log.append(name), real, name, a)
            )

        return SimpleNamespace(load=later("load"), fill=later("fill"))

    def wait(self, promises, num_returns):
        return [promises[0]], promises[1:]

    def get(self, promise):
        _, _, real, name, args = promise
        if name == "fill" and args[:2] in self.deaths:
            self.deaths.remove(args[:2])
            raise ActorDied
        try:
            return getattr(real, name)(*args)
        except StudyError as error:
            raise TaskFailed(error) from error

    def kill(self, worker):
        self.killed += 1


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """Two models, 12 questions in chunks of 4."""
    monkeypatch.setattr(runner, "known_benchmarks", lambda: ["toy"])
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(12, broken={3}))
    monkeypatch.setattr(runner, "load_model", lambda name, **o: Counting(name.split("/")[1]))
    monkeypatch.setattr(runner, "CHUNK", 4)
    models = ("planted/object", "planted/watermark")
    return Sweep(models, ("toy",), ("center",), tmp_path / "ray", baselines=("black",))


def with_ray(monkeypatch, fake):
    monkeypatch.setattr(engines, "_ray", lambda: fake)
    return fake


def tables(folder):
    for kind in ("reliance", "maps"):
        frame = shards.read_table(folder, kind)
        yield frame.drop(columns=[c for c in MOMENT if c in frame])


def same(one, two):
    for a, b in zip(tables(one), tables(two), strict=True):
        pd.testing.assert_frame_equal(a, b)


@pytest.mark.parametrize("workers", [1, 2, 3, None])
def test_any_number_of_workers_makes_the_same_tables(sweep, monkeypatch, tmp_path, workers):
    with_ray(monkeypatch, FakeRay())
    assert engines.run(sweep, "ray", workers, say=lambda text: None) == 2
    local = Sweep(**vars(sweep) | {"results": tmp_path / "local"})
    assert engines.run(local, say=lambda text: None) == 2
    same(sweep.results, tmp_path / "local")


def test_one_worker_a_model_by_default(sweep, monkeypatch):
    fake = with_ray(monkeypatch, FakeRay())
    engines.run(sweep, "ray", say=lambda text: None)
    assert sorted(fake.hired) == ["planted/object", "planted/watermark"]
    assert fake.needs == [{"num_gpus": 0, "num_cpus": 1, "max_restarts": 0}] * len(fake.needs)
    assert fake.log.count("load") == 2 and fake.log.count("fill") == 6


def test_a_single_worker_takes_one_model_after_the_other(sweep, monkeypatch):
    fake = with_ray(monkeypatch, FakeRay())
    engines.run(sweep, "ray", 1, say=lambda text: None)
    assert fake.hired == ["planted/object", "planted/watermark"] and fake.killed == 2


@pytest.mark.parametrize("with_workers", [False, True])
def test_every_engine_flushes_what_is_too_small(sweep, monkeypatch, with_workers):
    """Half of 1.2e-38 is no normal float: 0 where denormals are flushed, as they are in a run."""
    with_ray(monkeypatch, FakeRay())
    torch.set_flush_denormal(False)
    tiny_number = torch.full((64,), 1.2e-38)
    assert (tiny_number * 0.5 != 0).all()
    try:
        engines.run(sweep, "ray" if with_workers else "local", None, None, lambda line: None)
        assert (tiny_number * 0.5 == 0).all()
    finally:
        torch.set_flush_denormal(False)


def test_another_takes_over_from_a_dead_worker(sweep, monkeypatch, tmp_path):
    fake, told = with_ray(monkeypatch, FakeRay([("toy", 1), ("toy", 1), ("toy", 2)])), []
    assert engines.run(sweep, "ray", 2, say=told.append) == 2
    assert len(fake.hired) == 5 and fake.log.count("fill") == 6 + 3
    assert sum("another takes over" in text for text in told) == 3
    engines.run(Sweep(**vars(sweep) | {"results": tmp_path / "local"}), say=lambda text: None)
    same(sweep.results, tmp_path / "local")


def test_a_chunk_that_kills_every_worker_is_given_up(sweep, monkeypatch):
    with_ray(monkeypatch, FakeRay([("toy", 1)] * 9))
    with pytest.raises(StudyError, match="3 workers of planted/.* at chunk 1 of toy"):
        engines.run(sweep, "ray", 1, say=lambda text: None)
    assert len(shards.read_table(sweep.results, "reliance")) in (4, 8)  # chunk 0 is kept


def test_a_sentence_of_a_worker_is_the_drivers(sweep, monkeypatch):
    def missing(name, **options):
        raise StudyError("There is no model here.")

    with_ray(monkeypatch, FakeRay())
    monkeypatch.setattr(runner, "load_model", missing)
    with pytest.raises(StudyError, match="There is no model here"):
        engines.run(sweep, "ray", say=lambda text: None)


def test_workers_that_start_elsewhere_find_the_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    folders = (("mmvp", "mine"), ("cv_bench", "owner/name"))
    found = engines.at_home(Sweep(("m",), ("mmvp",), (), Path("out"), folders=folders))
    assert found.results == tmp_path / "out"
    assert found.folders == (("mmvp", str(tmp_path / "mine")), ("cv_bench", "owner/name"))


def test_workers_asked_for_less_keep_the_rest(sweep, monkeypatch):
    """toy/3 was broken and is tried again, with as few questions as reach it."""
    with_ray(monkeypatch, FakeRay())
    engines.run(sweep, "ray", 2, say=lambda text: None)
    whole = [item.id for item in runner.dealt(toy(12), None)]
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(12))
    few = {"items": whole.index("toy/3") + 1, "retry_failed": True}
    assert engines.run(Sweep(**vars(sweep) | few), "ray", 2, say=lambda text: None) == 0
    found = shards.read_table(sweep.results, "reliance")
    assert list(found.item) == whole * 2 and "error" not in set(found.status)


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        ({"CPU": 2}, (3, None, None), (2, 0)),  # never more than processors
        ({"CPU": 64, "GPU": 8}, (4, None, None), (4, 1)),
        ({"CPU": 64, "GPU": 8}, (4, 8, None), (8, 1)),
        ({"CPU": 64, "GPU": 8}, (4, 8, 2), (4, 2)),
        ({"CPU": 64, "GPU": 1}, (4, None, 0.5), (2, 0.5)),
        ({"CPU": 64, "GPU": 8}, (4, 16, 0), (16, 0)),
    ],
)
def test_shares_of_a_cluster(there, asked, found):
    assert engines._shares(there, *asked) == found


def test_what_cannot_be_asked_for(sweep, monkeypatch, capsys):
    with pytest.raises(StudyError, match="no engine named 'rai'.*mean ray"):
        engines.run(sweep, "rai")
    with pytest.raises(StudyError, match="start the same command twice"):
        engines.run(sweep, "local", 2)
    with pytest.raises(StudyError, match="cannot have 2 GPUs: the cluster has 1"):
        engines._shares({"GPU": 1}, 1, None, 2)
    with pytest.raises(StudyError, match="at least 1, not 0"):
        engines.run(sweep, "ray", 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    call = ["run", "--models", "planted/object", "--benchmarks", "toy", "--engine", "ray"]
    assert cli.main([*call, "--results", str(sweep.results)]) == 2
    assert "needs one more package; run \"pip install 'ray" in capsys.readouterr().err


# --- the tool that times workers -------------------------------------------------------------


@pytest.fixture
def speed(monkeypatch, pytestconfig):
    """tools/runner_speed.py on planted readers and four questions."""
    path = pytestconfig.rootpath / "tools" / "runner_speed.py"
    spec = importlib.util.spec_from_file_location("runner_speed", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(runner, "load_benchmark", lambda name: toy(4))
    monkeypatch.setattr(runner, "load_model", lambda name, **o: Counting("object"))
    return tool


def test_the_timed_crew_starts_together(speed, tmp_path):
    fake = FakeRay()
    assert speed.ray_seconds(fake, "planted/object", 2, tmp_path / "two", 2) > 0
    assert fake.log == ["load", "load", "fill", "fill"]  # nobody began before both were ready
    assert speed.ray_seconds(FakeRay(), "planted/object", 2, tmp_path / "one", 1) > 0
    same(tmp_path / "one", tmp_path / "two")
    assert len(shards.read_table(tmp_path / "one", "reliance")) == 2 * 2 * 4


def test_a_bare_worker_does_what_its_input_names(speed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{tmp_path}/a 0 1\n{tmp_path}/b 1\n"))
    speed.bare_worker("planted/object", 2)
    assert capsys.readouterr().out.split() == ["ready", "done", "done"]
    found = [shards.read_table(tmp_path / name, "reliance") for name in "ab"]
    assert [len(set(zip(f.benchmark, f.item, strict=True))) for f in found] == [4, 2]
    assert set(found[1].benchmark) == {"sprites_flat"}
    assert "1.60 times as fast" in speed.line("x", (8.0, 5.0), 2)


# --- the real thing --------------------------------------------------------------------------


@needs_ray
@pytest.mark.slow
def test_ray_survives_a_killed_worker(tmp_path, monkeypatch, pytestconfig):
    """Two real workers on the CPU, one killed while it works; the tables are those of one run."""
    model = str(tiny.tiny_checkpoint("llava", tmp_path / "tiny"))
    paths = os.pathsep.join([str(pytestconfig.rootpath), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", paths)  # workers inherit it
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or they starve beside other work
    asked = {"baselines": ("black",), "items": 48, "max_new_tokens": 2}
    sweep = Sweep((model,), ("sprites",), (), tmp_path / "ray", **asked)
    told, killed = [], []

    def kill_one():
        while len(killed) < 1:
            ready = [text for text in told if "is ready" in text]
            if ready and list(sweep.results.rglob("*.parquet")):
                killed.append(int(ready[0].split("worker ")[1].split()[0]))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.05)

    hunter = threading.Thread(target=kill_one, daemon=True)
    hunter.start()
    assert engines.run(sweep, "ray", 2, say=told.append) == 0
    hunter.join(5)
    assert killed and any("another takes over" in text for text in told)
    whole = Sweep(**vars(sweep) | {"results": tmp_path / "whole"})
    assert engines.run(whole) == 0
    one, two = (shards.read_table(s.results, "reliance") for s in (sweep, whole))
    drop = [c for c in MOMENT if c in one]
    pd.testing.assert_frame_equal(one.drop(columns=drop), two.drop(columns=drop))
    assert len(one) == 48
