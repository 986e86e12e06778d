"""Packages that are too old are named in one sentence, not met in a traceback."""

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest
from test_repository import PROJECT, canonical, locked

import lvlm_study
from lvlm_study import cli
from lvlm_study.errors import StudyError
from lvlm_study.sweep import requirements


@pytest.fixture
def older(monkeypatch):
    """`older(name=found)`: other versions than those that are here; None is not installed."""

    def pretend(**found):
        def ask(name):
            if found.get(name, "") is None:
                raise requirements.PackageNotFoundError(name)
            return found.get(name) or version(name)

        monkeypatch.setattr(requirements, "version", ask)

    return pretend


def test_the_bounds_are_those_of_the_project_and_the_lock_keeps_them():
    declared = dict(text.split(">=") for text in PROJECT["dependencies"])
    assert requirements.LEAST == declared
    for name, least in requirements.LEAST.items():
        pinned = requirements._numbers(locked()[canonical(name)])
        assert requirements._numbers(least)[:2] <= pinned[:2], name
    requirements.check()


def test_an_old_package_is_named_by_every_command(older, capsys):
    older(transformers="4.57.6")
    for call in (["list"], ["explain", "a.png", "Q?"], ["run", "--items", "1"]):
        assert cli.main(call) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "need transformers 5.21 (here is 4.57.6) or newer; run \"pip install 'tra" in told


def test_several_are_named_at_once(older):
    older(transformers="5.20.9", torch="2.4.1+cu121", numpy=None)
    with pytest.raises(StudyError) as told:
        requirements.check()
    for part in ("transformers 5.21 (here is 5.20.9)", "torch 2.6 (here is 2.4.1+cu121)"):
        assert part in str(told.value)
    assert "numpy 2.0 (not installed)" in str(told.value) and "pandas" not in str(told.value)


NEWER = ["5.21", "5.21.0", "5.21.0rc1", "5.21.0.dev0+git", "5.21.2", "5.100", "6"]


@pytest.mark.parametrize("found", NEWER)
def test_what_is_new_enough_is_let_pass(older, found):
    older(transformers=found)
    requirements.check()


def test_the_package_says_it_too(monkeypatch):
    """`ls.explain` with an old transformers: what fails is an import inside."""

    def broken(name):
        if name.endswith("heatmaps"):
            raise ModuleNotFoundError("No module named 'transformers.vision_utils'")
        return import_module(name)

    monkeypatch.setattr(lvlm_study, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="vision_utils"):
        _ = lvlm_study.explain  # nothing is too old: the error itself
    monkeypatch.setattr(requirements, "version", lambda name: "1.0")
    with pytest.raises(StudyError, match=r"transformers 5\.21 \(here is 1\.0\)"):
        _ = lvlm_study.explain


def test_asking_imports_nothing_heavy():
    code = (
        "import sys; from lvlm_study.sweep import requirements; requirements.check()\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.fullmatch(r"\[\]\s*", done.stdout), done.stderr
