"""The committed notebooks show what the code makes today, and the check of that can fail."""

import json
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
for need in ("jupytext", "nbclient", "ipykernel"):
    pytest.importorskip(need, reason=f"{need} belongs to the book's environment: run 'make test'")

notebooks = pytest.importorskip("notebooks")  # tools/notebooks.py
freshness = pytest.importorskip("freshness")

SOURCES = notebooks.sources(ROOT / "notebooks")
PACKAGE = {  # path below lvlm_study: code
    "__init__.py": """
_HOME = {"thrice": "rooms.lazy"}

def __getattr__(name):
    from importlib import import_module
    return getattr(import_module(f"lvlm_study.{_HOME[name]}"), name)
""",
    "helper.py": '''"""Doc."""


def twice(x):
    """Twice."""
    from .rooms.deep import ONE

    return ONE * 4 * x  # see
''',
    "rooms/__init__.py": "ROOMS = 2",
    "rooms/deep.py": "ONE = 1",
    "rooms/lazy.py": "def thrice(x):\n    return 3 * x",
    "rooms/unused.py": "NOBODY = 0",
    "other.py": "from .rooms import unused",
}
SOURCE = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
jupytext: {text_representation: {extension: .md, format_name: myst}}
lvlm_study: {data: [numbers.json]}
---

# A page

Some words.

```{code-cell} ipython3
:tags: [remove-input]

import json
from pathlib import Path
import lvlm_study as ls
from lvlm_study.helper import twice
assert ls.thrice(1) == 3
numbers = json.loads(Path("data/numbers.json").read_text())
```

```{code-cell} ipython3
print("value", twice(0.5), object())
numbers["a"]
```
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small study: a helper, a data file, a source, and its notebook, executed once."""
    root = tmp_path_factory.mktemp("study")
    for name in ("lvlm_study/rooms", "data", "notebooks"):
        (root / name).mkdir(parents=True)
    for name, code in PACKAGE.items():
        (root / "lvlm_study" / name).write_text(code)
    (root / "data" / "numbers.json").write_text('{"a": 1.25}')
    (root / "data" / "other.json").write_text("{}")
    (root / "notebooks" / "00_page.md").write_text(SOURCE)
    assert notebooks.build(root / "notebooks" / "00_page.md", root) == "executed"
    return root


@pytest.fixture
def study(built, tmp_path, monkeypatch):
    """A copy of it to spoil."""
    import shutil

    shutil.copytree(built, tmp_path / "study")
    return tmp_path / "study"


def page(study) -> Path:
    return study / "notebooks" / "00_page.md"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_untouched_notebook_is_fresh(study):
    assert notebooks.stale(page(study), study) == ""
    assert notebooks.build(page(study), study) == "nothing"


def test_the_notebook_holds_outputs_stable_ids_and_no_times(study):
    kept = json.loads(page(study).with_suffix(".ipynb").read_text())
    assert [cell["id"] for cell in kept["cells"]] == [f"00-page-{i:02d}" for i in range(4)]
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert "execution" not in code[1]["metadata"]
    assert code[2]["outputs"][0]["text"][0].startswith("value 2.0 <object")
    assert code[2]["outputs"][1]["data"]["text/plain"] == ["1.25"]
    assert set(kept["metadata"]) == {"kernelspec", "language_info", "lvlm_study"}


def test_a_cell_that_fetches_the_study_stands_before_all_code(study):
    """Hidden in the book, silent where the package is there, and complete for Colab."""
    kept = json.loads(page(study).with_suffix(".ipynb").read_text())
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert code[0]["metadata"]["tags"] == ["remove-cell"] and code[0]["outputs"] == []
    text = "".join(code[0]["source"])
    assert "find_spec" in text and "git clone" in text and "pip install" in text


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("lvlm_study/helper.py", "4 * x", "3.9 * x"),
        ("lvlm_study/__init__.py", "thrice", "thrice_"),
        ("lvlm_study/rooms/__init__.py", "2", "3"),  # Python runs the packages on the way too
        ("lvlm_study/rooms/deep.py", "1", "1.0"),  # imported by what a cell imports, when called
        ("lvlm_study/rooms/lazy.py", "3", "4"),  # a public name, found by the package's table
        ("data/numbers.json", "1.25", "1.26"),
        ("notebooks/00_page.md", "twice(0.5)", "twice(0.6)"),
    ],
)
def test_a_change_makes_it_stale_at_once(study, file, old, new):
    change(study / file, old, new)
    begin = time.perf_counter()
    assert "older than" in notebooks.stale(page(study), study)
    assert time.perf_counter() - begin < 1, "a stamp is read, nothing is executed"


@pytest.mark.parametrize("file", ["lvlm_study/other.py", "lvlm_study/rooms/unused.py"])
def test_code_that_no_cell_imports_does_not_make_it_stale(study, file):
    (study / file).write_text("raise SystemExit")
    assert notebooks.stale(page(study), study) == ""


@pytest.mark.parametrize(
    ("old", "new"), [("# see", "# look"), ("Twice.", "Two times."), ("\n\n", "\n\n\n")]
)
def test_words_about_the_code_do_not_make_it_stale(study, old, new):
    change(study / "lvlm_study" / "helper.py", old, new)
    assert notebooks.stale(page(study), study) == ""


def test_new_prose_is_taken_over_without_executing(study, monkeypatch):
    change(page(study), "Some words", "Other words")
    assert "does not match its source" in notebooks.stale(page(study), study)
    monkeypatch.setattr(notebooks, "execute", lambda *_: pytest.fail("executed"))
    assert notebooks.build(page(study), study) == "rewritten"
    assert notebooks.stale(page(study), study) == ""
    kept = json.loads(page(study).with_suffix(".ipynb").read_text())
    assert "Other words" in "".join(kept["cells"][0]["source"]) and kept["cells"][3]["outputs"]


def test_a_notebook_edited_by_hand_is_found(study):
    change(page(study).with_suffix(".ipynb"), "Some words", "Better words")
    assert "edit 00_page.md only" in notebooks.stale(page(study), study)


def test_a_missing_notebook_or_data_file_is_named(study):
    (study / "data" / "numbers.json").unlink()
    assert "data/numbers.json" in notebooks.stale(page(study), study)
    page(study).with_suffix(".ipynb").unlink()
    assert notebooks.stale(page(study), study) == "00_page.md has no notebook"


def test_running_again_gives_the_same_bytes_except_addresses(study):
    path = page(study).with_suffix(".ipynb")
    change(page(study), ", object()", "")
    notebooks.build(page(study), study)
    once = path.read_bytes()
    assert notebooks.build(page(study), study, force=True) == "executed"
    assert path.read_bytes() == once


def test_a_changed_constant_is_caught_by_running_again(study):
    path = page(study).with_suffix(".ipynb")
    assert notebooks.differences(path, study) == []
    change(study / "lvlm_study" / "helper.py", "4 * x", "3.9 * x")
    (found,) = notebooks.differences(path, study)
    assert "cell 3" in found and "value 2.0" in found and "value 1.95" in found


def test_data_that_is_opened_must_be_declared(study):
    change(page(study), "read_text())", 'read_text()); Path("data/other.json").read_text()')
    before = page(study).with_suffix(".ipynb").read_bytes()
    with pytest.raises(ValueError, match="does not declare: other.json"):
        notebooks.build(page(study), study)
    assert page(study).with_suffix(".ipynb").read_bytes() == before, "nothing half-written"


def test_what_git_ignores_makes_no_notebook_stale(tmp_path):
    """A run leaves locks in the folder of its rows; a clone of the repository has none."""
    folder = tmp_path / "data" / "rows"
    (folder / ".locks").mkdir(parents=True)
    notebook = {"cells": [], "metadata": {"lvlm_study": {"data": ["rows"]}}}
    (folder / "000.parquet").write_bytes(b"rows")
    clean = freshness.stamp(notebook, tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (folder / ".locks" / ".gitignore").write_text("*\n")
    (folder / ".locks" / "000.lock").write_text("")
    assert freshness.manifest(notebook, tmp_path) == [folder / "000.parquet"]
    assert freshness.stamp(notebook, tmp_path) == clean
    (folder / "001.parquet").write_bytes(b"not ignored: counts before it is committed")
    assert freshness.stamp(notebook, tmp_path) != clean


def test_code_that_runs_must_be_imported_by_its_name(study):
    """What no reading of imports can see is seen when the notebook is executed."""
    hidden = "import sys\n\n\ndef twice(x):\n    __import__('lvlm_study.other')\n    return x"
    (study / "lvlm_study" / "helper.py").write_text(hidden)
    with pytest.raises(ValueError, match=r"do not name: other.py, rooms/unused.py"):
        notebooks.build(page(study), study)


def test_a_failing_cell_fails_the_build(study):
    from nbclient.exceptions import CellExecutionError

    change(page(study), "twice(0.5)", "1 / 0")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebooks.build(page(study), study)


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        ("a 1.00000", "a 1.00001", True),
        ("a 1.000", "a 1.001", False),
        ("a 1.0", "b 1.0", False),
        ("1e-3", "1.1e-3", False),
        ("-0.5", "0.5", False),
        ("<o at 0x7f00aa11>", "<o at 0x7f00bb22>", True),
    ],
)
def test_texts_agree_up_to_their_numbers(was, now, same):
    assert notebooks.same_text(was, now) is same


def png(value: int, size=(4, 4)) -> str:
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", size, value).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def test_pictures_agree_up_to_two_grey_levels():
    assert notebooks.same_picture(png(100), png(101))
    assert not notebooks.same_picture(png(100), png(103))
    assert not notebooks.same_picture(png(100), png(100, size=(4, 5)))


# --- the study's own notebooks


def test_the_notebooks_are_fresh():
    assert [why for source in SOURCES if (why := notebooks.stale(source))] == []


def test_every_notebook_has_its_source():
    made = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert made == {source.stem for source in SOURCES}


def test_the_outputs_show_no_error_and_no_place_on_one_machine():
    for source in SOURCES:
        kept = notebooks.read(source.with_suffix(".ipynb"))
        for cell in kept.cells:
            kinds = [out["output_type"] for out in cell.get("outputs", [])]
            names = [out.get("name") for out in cell.get("outputs", [])]
            assert "error" not in kinds and "stderr" not in names, cell["id"]
            assert str(ROOT) not in json.dumps(cell.get("outputs", [])), cell["id"]


def test_every_figure_has_a_caption_a_name_and_a_text():
    for source in SOURCES:
        for cell in notebooks.read(source.with_suffix(".ipynb")).cells:
            kinds = {kind for kind, _ in notebooks.outputs(cell)}
            if "image/png" in kinds:
                mystnb = cell.metadata.get("mystnb", {})
                assert {"name", "caption"} <= set(mystnb.get("figure", {})), cell["id"]
                assert mystnb.get("image", {}).get("alt"), cell["id"]


@pytest.mark.slow
def test_executing_the_notebooks_again_changes_nothing():
    wrong = [d for s in SOURCES for d in notebooks.differences(s.with_suffix(".ipynb"))]
    assert wrong == []
