"""Shared fixtures: no network, one thread, and tiny models loaded once per session."""

import os
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"  # figures are looked at, and never shown

import pytest  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from tiny_joint import tiny_joint  # noqa: E402

from lvlm_study.models import load_model  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def committed_data():
    """No test may change what is committed: a notebook's freshness is judged by these files."""
    data = Path(__file__).resolve().parents[1] / "data"

    def state():
        ours = (p for p in data.rglob("*") if "results" not in p.parts)  # a sweep may be running
        seen = {p: p.stat() for p in ours if p.is_file()}
        return {p: (s.st_size, s.st_mtime_ns) for p, s in seen.items()}

    before = state()
    yield
    changed = sorted(str(p) for p, _ in before.items() ^ state().items())
    assert not changed, f"the tests changed {', '.join(changed[:5])}"


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """`checkpoints(family) -> Path` of a tiny checkpoint, written once. Do not change it."""
    written = {}

    def find(family):
        if family not in written:
            write = tiny_joint if family == "joint" else partial(tiny.tiny_checkpoint, family)
            written[family] = write(tmp_path_factory.mktemp(family))
        return written[family]

    return find


@pytest.fixture(scope="session")
def adapters(checkpoints):
    """`adapters(family) -> Adapter`, loaded once through `load_model`."""
    loaded = {}

    def find(family):
        if family not in loaded:
            loaded[family] = load_model(checkpoints(family))
        return loaded[family]

    return find


@pytest.fixture(scope="session")
def joint_folder(checkpoints):
    """A tiny joint model on disc: a detector, a LLaVA, and W. Do not change it."""
    return checkpoints("joint")


@pytest.fixture(scope="session")
def joint(adapters):
    return adapters("joint")


@pytest.fixture(scope="session")
def notebook_tool():
    """tools/notebooks.py as a module; the test is skipped without the book's environment."""
    for need in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(need, reason=f"{need} belongs to the book's environment")
    import notebooks

    return notebooks


@pytest.fixture
def few_have_ends(monkeypatch):
    """Small tables have intervals; that few units have none is tested with the statistics."""
    monkeypatch.setattr("lvlm_study.metrics.statistics.ENOUGH_TO_RESAMPLE", 2)


@pytest.fixture
def tab():
    """A page of the system's chromium; the test is skipped where there is none."""
    pytest.importorskip("playwright", reason="playwright belongs to the book's environment")
    import browser  # tools/browser.py

    if not browser.find():
        pytest.skip("no chromium on this machine")
    with browser.page() as page:
        yield page


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A work folder of the zoo's training, with what tests have made in it so far."""
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="session")
def tokenizer(work):
    """The zoo's tokenizer, trained once."""
    from lvlm_study.zoo.tokenizer import train_tokenizer

    return train_tokenizer(work / "tokenizer")


@pytest.fixture(scope="session")
def tiny_llava(adapters):
    return adapters("llava")
