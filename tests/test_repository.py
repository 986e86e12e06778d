"""The repository keeps its own rules: versions agree, commands work, imports run one way."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MODULES = sorted((ROOT / "lvlm_study").rglob("*.py"))


def canonical(name: str) -> str:
    """A package's one name, without the versions that are asked of it: "Scikit_Image>=1"."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "every line of the lock is name==version"
    assert len({canonical(name) for name, _ in pairs}) == len(pairs), "a package is named twice"
    return {canonical(name): version for name, version in pairs}


def files() -> list[Path]:
    """Every file that is, or would be, in git."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git repository here")
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def test_the_lock_pins_what_is_declared_and_no_local_build():
    groups = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + groups["book"] + groups["dev"] + groups["pages"]
    assert {canonical(name) for name in wanted} <= locked().keys()
    assert not [n for n in locked() if n.startswith("nvidia") or n in ("torchvision", "triton")]
    assert all("+" not in version for version in locked().values()), "a local build is pinned"


def test_conda_takes_its_versions_from_the_lock():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    plain = [entry for entry in conda if isinstance(entry, str)]
    pinned = [entry for entry in plain if "=" in entry]
    assert pinned == ["python=3.11"], "only python is versioned outside the lock"
    assert PROJECT["requires-python"] == ">=3.11"


def test_the_workflows_use_one_python_and_the_same_commands():
    steps = [s for w in WORKFLOWS for j in read_jobs(w) for s in j["steps"]]
    versions = {s["with"]["python-version"] for s in steps if "setup-python" in s.get("uses", "")}
    assert versions == {"3.11"}
    runs = {s["run"] for w in WORKFLOWS for j in read_jobs(w) for s in j["steps"] if "run" in s}
    assert {"make test", "make book", "make check", "make fresh"} <= runs


def read_jobs(workflow: Path) -> list[dict]:
    return list(yaml.safe_load(workflow.read_text())["jobs"].values())


def test_every_import_of_the_package_is_declared():
    names = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage"}
    declared = {canonical(name) for name in PROJECT["dependencies"]}
    known = {names.get(name, name.replace("-", "_")) for name in declared} | {"lvlm_study"}
    wanted = {
        (name.split(".")[0], path.name)
        for path in MODULES
        for name, level in imports(path)
        if not level and name.split(".")[0] not in sys.stdlib_module_names
    }
    optional = {
        "IPython",
        "captum",
        "gradio",
        "ray",
        "yake",
    }  # imported inside the function that needs them
    assert {pair for pair in wanted if pair[0] not in known | optional} == set()


def imports(path: Path) -> list[tuple[str, int]]:
    """(module, level) of every import in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dots = [f"{node.module}.{a.name}" if node.module else a.name for a in node.names]
            found += [(name, node.level) for name in dots]
    return found


def test_tables_and_figures_need_no_torch():
    for name in ("figures", "sweep/results", "metrics/statistics", "paths", "errors"):
        path = ROOT / "lvlm_study" / f"{name}.py"
        assert not [n for n, _ in imports(path) if n.split(".")[0] == "torch"], path.name


def dry_run(*arguments: str) -> str:
    command = ["make", "--no-print-directory", "-n", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("target", "work"), [("book", "jupyter-book build"), ("test", "-m pytest")]
)
def test_one_command_makes_the_environment_and_does_the_work(tmp_path, target, work):
    plan = dry_run(target, f"VENV={tmp_path / 'none'}")
    order = ["-m venv", "-r requirements.lock", "-e .", work]
    places = [plan.find(text) for text in order]
    assert -1 not in places and places == sorted(places)


def test_an_environment_that_is_there_is_kept(tmp_path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".installed").touch()
    assert "pip install" not in dry_run("test", f"VENV={venv}")
    os.utime(venv / ".installed", (0, 0))  # older than the lock
    assert "pip install" in dry_run("test", f"VENV={venv}")
    assert "-W -n --keep-going" in dry_run("book", "VENV=none")


def fake_ci(tmp_path: Path, failing: str) -> tuple[int, list[str]]:
    """Run .ci/run with a `make` that only notes what it was asked and fails on one target."""
    (tmp_path / ".ci").mkdir(parents=True)
    script = tmp_path / ".ci" / "run"
    script.write_text((ROOT / ".ci" / "run").read_text())
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in {
        "make": f'echo "$1" >> "{tmp_path}/asked"; test "$1" != "{failing}"',
        "chromium": "exit 0",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
    assert done.stdout, "a silent run counts as no run"
    return done.returncode, (tmp_path / "asked").read_text().split()


def test_ci_runs_every_step_and_stops_at_the_first_that_fails(tmp_path):
    code, steps = fake_ci(tmp_path / "none", failing="")
    assert code == 0 and os.access(ROOT / ".ci" / "run", os.X_OK)
    rules = (ROOT / "Makefile").read_text()
    assert {"test", "test-slow", "check", "book", "pages"} <= set(steps)
    for n, step in enumerate(steps):
        assert re.search(rf"^{step}:", rules, re.M), "make has it"
        code, asked = fake_ci(tmp_path / step, failing=step)
        optional = step == "vocabularies"  # without them a few tests skip
        assert (code == 0) == optional and asked == (steps if optional else steps[: n + 1])


def test_licences_citation_and_commands_are_named():
    readme = (ROOT / "README.md").read_text()
    assert "make book" in readme and "make test" in readme
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "CC-BY-4.0" in (ROOT / "LICENSES" / "CC-BY-4.0.md").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


def test_no_file_names_a_place_on_one_machine():
    places = ["/" + "/".join(p) for p in [("work", "main"), ("work", "shared"), ("root", "")]]
    text = {".py", ".md", ".yml", ".toml", ".json", ".ipynb", ".cff", ".css", ".lock", ""}
    wrong = [
        (path.relative_to(ROOT).as_posix(), place)
        for path in files()
        if path.suffix in text
        for place in places
        if place in path.read_text(encoding="utf-8", errors="ignore")
    ]
    assert wrong == []


def test_no_large_file_and_no_pickle():
    found = files()
    assert [p.name for p in found if p.stat().st_size > 10 * 2**20] == []
    assert [p.name for p in found if p.suffix in {".pt", ".pth", ".pkl", ".pickle", ".bin"}] == []
