"""Profiles: the same notebook on the mini models and, one day, on the paper's."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from refusals import refuses

from lvlm_study import cli
from lvlm_study.benchmarks import list_benchmarks, load_benchmark
from lvlm_study.models import Adapter, registry
from lvlm_study.sweep import profiles, results, runner
from lvlm_study.sweep import tables as shards

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


def test_what_only_the_mini_profile_can_have_is_read_on_every_profile(tool, study):
    page, out = study / "notebooks/00_page.md", study / "_build/paper"
    page.write_text(SOURCE.replace("[results", "[./results").replace("{profile}", "mini"))
    assert tool.run_profile(page, "paper", out, study).startswith("written to")
    assert shown(tool, out / "00_page.ipynb") == ["from mini\n"]


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


@pytest.mark.parametrize("number", [1, 4])
def test_a_tables_models_are_printed_in_that_table(number):
    """Family and size of every repository stand in a row of the paper's."""
    rows = pd.read_csv(results.data_dir() / "paper" / f"table{number}.csv")
    printed = {family(name) for name in rows.get("lvlm", rows.get("model"))}
    held = [family(name) for name in profiles.TABLES[f"table{number}"]]
    assert set(held) <= printed and len(set(held)) == len(held)


def family(name: str) -> tuple[str, str]:
    """("cambrian", "8b") of a printed name or a repository; "-hd" stays with the size."""
    text = name.lower().rpartition("/")[2].replace("mini-gemini", "mgm")
    size = re.search(r"[\d.]+b(-hd)?(?!\w)", text)[0]
    return text.split("-")[0] + ("-ov" if "-o" in text else ""), size


def test_what_the_profiles_hold():
    assert profiles.models("mini") == registry.list_models()
    assert profiles.model("mini") == "mini/llava-1.5"
    assert set(profiles.benchmarks("mini") + profiles.benchmarks("paper")) <= set(list_benchmarks())
    paper = profiles.expand(["table1", "table4", "mini/llava-1.5", "table1"])
    assert len(paper) == 10 and paper[:3] == profiles.models("paper")
    assert paper[0] == profiles.model("paper") and paper[-1] == "mini/llava-1.5"
    assert not set(paper) & set(profiles.SPREAD)
    for what in (profiles.models, profiles.model, profiles.benchmarks):
        assert what("hub") == what("paper")
    assert [profiles.setup(name) for name in profiles.PROFILES] == [None, "paper", None]
    assert profiles.expand(list(profiles.SPREAD)) == list(profiles.SPREAD)
    assert all(registry.HUB_ID.fullmatch(name) for name in (*paper, *profiles.SPREAD))
    refuses("no profile named 'papre'; did you mean paper", profiles.models, "papre")


@pytest.mark.parametrize(
    "profile,more,setup,length",
    [
        ("paper", [], "paper", 1024),
        ("paper", ["--max-new-tokens", "3"], "paper", 3),
        ("hub", [], None, 64),
    ],
)
def test_a_profile_says_how_models_are_asked(
    profile, more, setup, length, checkpoints, tmp_path, monkeypatch, capsys
):
    """The same models and benchmarks; the set-up is part of what a row was made from."""
    monkeypatch.setattr(runner, "load_benchmark", lambda name: load_benchmark("sprites")[:1])
    seen = {}

    def answer(model, image, question, max_new_tokens):
        seen.update(setup=model.setup, length=max_new_tokens, prompt=model.prompt(question))
        return replace(model.forced(image, question, "red"), truncated=True)

    monkeypatch.setattr(Adapter, "answer", answer)
    call = ["run", "--profile", profile, "--models", str(checkpoints("llava")), "--methods", "none"]
    call += ["--benchmarks", "sprites", "--baselines", "black", "--results", str(tmp_path), *more]
    assert cli.main(call) == 0
    assert (seen["setup"], seen["length"]) == (setup, length)
    assert seen["prompt"].startswith("A chat between") == (setup == "paper")
    (file,) = tmp_path.rglob("*.parquet")
    settings = shards.read_shard(file)[1]["settings"]
    assert settings.get("setup") == setup and settings["max_new_tokens"] == length
    head, row = capsys.readouterr().out.splitlines()[:2]
    assert dict(zip(head.split(), row.split(), strict=False))["cut"] == "1"


def test_answers_of_two_setups_are_never_mixed(checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "load_benchmark", lambda name: load_benchmark("sprites")[:1])
    call = ["run", "--models", str(checkpoints("llava")), "--methods", "none", "--benchmarks"]
    call += ["sprites", "--baselines", "black", "--results", str(tmp_path), "--max-new-tokens", "2"]
    assert cli.main([*call, "--profile", "hub"]) == 0
    assert cli.main([*call, "--profile", "paper"]) != 0
    assert "made with other settings (setup)" in capsys.readouterr().err
