"""The worked examples of book/extend.md run as they stand on the page."""

import json
import re
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
    return re.split(r"^## A ", PAGE.split(f"\n## {title}\n")[1], flags=re.M)[0]


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


def test_the_example_chapter_builds(tmp_path, notebook_tool):
    tool = notebook_tool
    (source,) = blocks("A chapter", "md", "````")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "lvlm_study").symlink_to(ROOT / "lvlm_study")
    (tmp_path / "data").symlink_to(ROOT / "data")
    page = tmp_path / "notebooks" / "90_kept.md"
    page.write_text(source)
    assert tool.build(page, tmp_path) == "executed"
    told = json.dumps(tool.read(page.with_suffix(".ipynb")).cells)
    assert "mmstar" in told and "47" in told and "not yet run" in told


def test_every_part_has_an_example():
    assert PAGE.count("### Worked example") == 4
