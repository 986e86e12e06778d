"""The worked examples of book/extend.md run as they stand on the page."""

import json
import re
import shutil
from pathlib import Path

import pytest

from lvlm_study.benchmarks import LOADERS
from lvlm_study.heatmaps import METHODS
from lvlm_study.models.registry import FAMILIES
from lvlm_study.sweep import runner

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "book" / "extend.md").read_text(encoding="utf-8")
EXAMPLES = {
    "A heatmap method": ("hidden_cells", METHODS),
    "A model": ("vipllava", FAMILIES),
    "A benchmark": ("mine", LOADERS),
}


def section(title: str) -> str:
    """The text of one part of the page, up to the next title of its rank."""
    return re.split(r"^## (?:A |Judge )", PAGE.split(f"\n## {title}")[1], flags=re.M)[0]


def blocks(title: str, kind: str, fence: str = "```") -> list[str]:
    """Code of a kind in the worked example of a part, in order."""
    example = section(title).split("\n### Worked example")[1]
    return re.findall(rf"^{fence}{kind}\n(.*?)^{fence}$", example, flags=re.M | re.S)


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_worked_example_runs(title, tmp_path, monkeypatch):
    name, registry = EXAMPLES[title]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "load_model", runner.load_model)  # an example replaces it
    space: dict = {}
    try:
        for number, code in enumerate(blocks(title, "python")):
            exec(compile(code, f"extend.md, {title}, block {number + 1}", "exec"), space)
        assert name in registry, "the example enters its addition in the list"
    finally:
        registry.pop(name, None)
    assert "".join(blocks(title, "python")).count("assert ") >= 3


@pytest.mark.parametrize(
    "items", [pytest.param(2, id="few"), pytest.param(40, id="as written", marks=pytest.mark.slow)]
)
def test_a_method_is_judged(items, tmp_path, monkeypatch, capsys):
    """Too few items: the difference alone; enough: its interval and p, and exact effects."""
    monkeypatch.chdir(tmp_path)
    (judge,) = re.findall(r"^```python\n(.*?)^```$", section("Judge it"), flags=re.M | re.S)
    assert '"hidden_cells", 40,' in judge
    try:
        for code in (blocks("A heatmap method", "python")[0], judge):
            exec(compile(code.replace(" 40,", f" {items},"), "extend.md", "exec"), {})
    finally:
        METHODS.pop("hidden_cells", None)
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if "hidden_cells −" in line]
    assert len(lines) == 4 and any("Difference picture" in line for line in lines)
    ending = r"too few for an interval" if items < 20 else r"\[.*\], p = \S+, n = \d\d"
    assert all(re.search(f"{ending}$", line) for line in lines), told
    assert "spearman" in told


def test_the_example_chapter_builds(tmp_path, notebook_tool):
    tool = notebook_tool
    (source,), (code,) = blocks("A chapter", "md", "````"), blocks("A chapter", "python")
    page, chapters = tmp_path / "notebooks" / "90_kept.md", tmp_path / "lvlm_study" / "chapters"
    page.parent.mkdir()
    shutil.copytree(ROOT / "lvlm_study", tmp_path / "lvlm_study")
    (tmp_path / "data").symlink_to(ROOT / "data")
    page.write_text(source)
    (chapters / "ch90_kept.py").write_text(code)
    assert tool.build(page, tmp_path) == "executed"
    told = json.dumps(tool.read(page.with_suffix(".ipynb")).cells)
    assert "mmstar" in told and "47" in told and "not yet run" in told
    (chapters / "ch04_truth.py").write_text("")
    assert tool.stale(page, tmp_path) == "", "another chapter is none of its business"
    (chapters / "ch90_kept.py").write_text(code.replace("digits=0", "digits=1"))
    assert "older than its cells" in tool.stale(page, tmp_path)


def test_every_part_has_an_example():
    assert PAGE.count("### Worked example") == 4
