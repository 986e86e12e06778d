"""Profiles: the same notebook on the mini models and, one day, on the paper's."""

import pytest

from lvlm_study.benchmarks import benchmarks
from lvlm_study.errors import StudyError
from lvlm_study.models import registry
from lvlm_study.sweep import profiles

SOURCE = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
jupytext: {text_representation: {extension: .md, format_name: myst}}
lvlm_study: {data: [results/mini/a.txt]}
---

# A page

```{code-cell} ipython3
:tags: [parameters]

profile = "mini"
```

```{code-cell} ipython3
from pathlib import Path
print(Path(f"data/results/{profile}/a.txt").read_text())
```
"""


@pytest.fixture
def tool(notebook_tool):
    return notebook_tool


@pytest.fixture
def study(tmp_path):
    """A study of one page, with results of the mini profile alone."""
    for name in ("lvlm_study", "data/results/mini", "notebooks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lvlm_study" / "__init__.py").touch()
    (tmp_path / "data/results/mini/a.txt").write_text("from mini")
    (tmp_path / "notebooks/00_page.md").write_text(SOURCE)
    return tmp_path


def shown(tool, path):
    return [text for cell in tool.read(path).cells for _, text in tool.outputs(cell)]


def test_a_notebook_runs_on_another_profile_unchanged(tool, study):
    page, out = study / "notebooks/00_page.md", study / "_build/paper"
    before = page.read_bytes()
    assert "not yet run: the notebook declares data/results/paper/a.txt" in tool.run_profile(
        page, "paper", out, study
    )
    assert not out.exists()
    (study / "data/results/paper").mkdir()
    (study / "data/results/paper/a.txt").write_text("from paper")
    assert tool.run_profile(page, "paper", out, study).startswith("written to")
    assert shown(tool, out / "00_page.ipynb") == ["from paper\n"]
    assert page.read_bytes() == before and not page.with_suffix(".ipynb").exists()


def test_a_page_that_fails_is_named_and_the_others_go_on(tool, study):
    page, out = study / "notebooks/00_page.md", study / "_build/mini"
    page.write_text(SOURCE.replace("print(", "raise KeyError("))
    assert tool.run_profile(page, "mini", out, study) == "failed: KeyError: 'from mini'"
    assert not out.exists()


def test_a_notebook_without_parameters_is_named(tool, study):
    page = study / "notebooks/00_page.md"
    page.write_text(SOURCE.replace(":tags: [parameters]\n\n", ""))
    assert "no cell tagged 'parameters'" in tool.run_profile(page, "paper", study / "x", study)


def test_profile_belongs_to_rerun(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["build", "--profile", "paper"])
    assert "--profile goes with rerun" in capsys.readouterr().err


def test_what_the_profiles_hold():
    assert profiles.models("mini") == registry.models()
    assert profiles.model("mini") == "mini/llava-1.5"
    assert set(profiles.benchmarks("mini") + profiles.benchmarks("paper")) <= set(benchmarks())
    paper = profiles.expand(["table1", "table4", "mini/llava-1.5", "table1"])
    assert len(paper) == 10 and paper[:3] == profiles.models("paper")
    assert paper[0] == profiles.model("paper") and paper[-1] == "mini/llava-1.5"
    assert not set(paper) & set(profiles.SPREAD)
    assert profiles.expand(list(profiles.SPREAD)) == list(profiles.SPREAD)
    assert all(registry.HUB_ID.fullmatch(name) for name in (*paper, *profiles.SPREAD))
    with pytest.raises(StudyError, match="no profile named 'papre'; did you mean paper"):
        profiles.models("papre")
