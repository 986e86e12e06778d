"""Long work says how far it is: a bar on a terminal, now and then a line in a log file."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvlm_study import heatmaps
from lvlm_study.heatmaps import METHODS, progress
from lvlm_study.models.planted import planted, planted_scene

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
from lvlm_study import cli, models
from lvlm_study.models.planted import planted
models.load_model = lambda name, **options: planted("object")
{more}
sys.exit(cli.main(sys.argv[1:]))
"""


def command(picture, out, method="occlusion", more=""):
    code = CODE.format(more=more)
    words = ["explain", picture, "Which colour?", "--method", method, "--baseline", "black"]
    return [sys.executable, "-c", code, *map(str, words), "--out", str(out)]


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(planted_scene((48, 64))).save(path)
    return path


def on_a_terminal(words) -> tuple[int, str, str]:
    """(exit code, stdout, what a terminal on stderr saw)."""
    ours, theirs = pty.openpty()
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, env=env) as process:
        os.close(theirs)
        told = process.stdout.read().decode()
        process.wait()
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return process.returncode, told, seen.decode()


def test_a_terminal_sees_passes_and_time_left(scene, tmp_path):
    code, told, seen = on_a_terminal(command(scene, tmp_path / "a"))
    assert code == 0 and "Status" in told and "passes" not in seen.split("\r")[-1]
    assert re.search(r"occlusion: +\d+%.*/226 \[\d+:\d+<", seen), "done of all, and the time left"
    assert "deletion and insertion:" in seen and "control maps:" in seen
    words = command(scene, tmp_path / "b")
    run = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert run.returncode == 0 and run.stderr == b"", "a pipe sees nothing of short work"
    maps = [np.load(tmp_path / name / "saliency.npz")["saliency"] for name in "ab"]
    assert np.array_equal(*maps), "counting changes nothing"


def test_a_pipe_sees_a_line_now_and_then():
    """Also while one item takes longer than the time between two lines, and none after the end."""
    code = (
        "import time\n"
        "from lvlm_study.heatmaps import progress\n"
        "progress.EVERY = 0.2\n"
        "with progress.bar(3, what='mini/a') as counted:\n"
        "    counted.update()\n"
        "    time.sleep(1)\n"
        "progress.EVERY = 0.01\n"
        "time.sleep(0.3)\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, text=True)
    lines = run.stderr.splitlines()
    assert 2 <= len(lines) <= 5 and run.stdout == ""
    assert all(re.fullmatch(r"mini/a: +33% 1/3 \[00:0\d<.*\]", line) for line in lines), lines


def test_an_interrupt_goes_through_a_bar(scene, tmp_path):
    more = (
        "from lvlm_study import heatmaps\n"
        "def stop(target, *, seed=0):\n"
        "    target.score(target.image)\n"
        "    raise KeyboardInterrupt\n"
        "heatmaps.METHODS['occlusion'] = stop\n"
    )
    code, _, seen = on_a_terminal(command(scene, tmp_path / "out", more=more))
    assert code == 130 and seen.rstrip().endswith("lvlm-study: stopped.")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def terminal(monkeypatch):
    """stderr poses as a terminal."""
    monkeypatch.setattr(progress, "shown", lambda: True)


@pytest.mark.parametrize("method", ["igos", "igos++", "occlusion", "integrated_gradients", "rise"])
def test_what_is_expected_is_what_comes(method):
    few = {"rise": {"masks": 40}}.get(method, {})
    reader = planted("object")
    ex = heatmaps.explain(reader, planted_scene((48, 64)), "Which colour?", method=method, **few)
    wanted = progress.expected(method, METHODS[method], few)
    assert wanted == pytest.approx(ex.cost.forward, abs=2)


def test_unknown_lengths_are_told_as_such():
    assert progress.expected("eagle", METHODS["eagle"]) is None
    assert progress.expected("mine", lambda target: None) is None


def test_passes_are_counted(terminal, capsys):
    reader = planted("object")
    target = heatmaps.explain(reader, planted_scene((48, 64)), "Which?", method="center").target
    with progress.passes(reader, "work", 7):
        target.score(target.image.expand(5, -1, -1, -1))
        time.sleep(0.3)  # a bar is drawn five times a second at most
        target.score(target.image.expand(2, -1, -1, -1))
    assert "7/7" in capsys.readouterr().err
    before = len(reader.model._forward_hooks)
    with pytest.raises(KeyboardInterrupt):
        with progress.passes(reader, "work"):
            raise KeyboardInterrupt
    assert len(reader.model._forward_hooks) == before, "no hook is left behind"


def test_each_hands_on_everything(capsys, terminal):
    assert list(progress.each([3, 1, 2], "things", "thing")) == [3, 1, 2]
    assert "things" in capsys.readouterr().err


def test_silent_in_notebooks_and_tests(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.01)
    assert list(progress.each(range(3), "things")) == [0, 1, 2]
    with progress.bar(3, "thing") as counted:
        counted.update()
        time.sleep(0.1)
    with progress.passes(planted("object"), "work"):
        pass
    assert capsys.readouterr().err == ""
