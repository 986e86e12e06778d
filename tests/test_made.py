"""The line below each figure: which function drew it, and links that lead somewhere."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from extensions import extension

ROOT = Path(__file__).resolve().parents[1]
FIGURE = re.compile(r"^:  figure: \{name: ([\w-]+)", re.M)
# What Jupyter Book fills in where no repository is configured.
JUPYTER_BOOK = "https://github.com/executablebooks/jupyter-book"
CELL = re.compile(r"```\{code-cell\}[^\n]*\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def made():
    return extension("made")


def app(repository=None, builder="html"):
    options = {"repository_url": repository or JUPYTER_BOOK, "repository_branch": "main"}
    options["use_repository_button"] = repository is not None
    builder = SimpleNamespace(name=builder, get_relative_uri=lambda a, b: "../index.html")
    config = SimpleNamespace(html_theme_options=options)
    return SimpleNamespace(config=config, builder=builder, made_page="notebooks/x")


def test_every_figure_of_the_book_has_a_maker(made):
    count = 0
    for source in sorted((ROOT / "notebooks").glob("*.md")):
        cells = CELL.findall(source.read_text(encoding="utf-8"))
        known = made.modules("\n".join(cells))
        for cell in cells:
            if name := FIGURE.search(cell):
                file, function = made.maker(cell, known) or pytest.fail(name[1])
                assert file.startswith("lvlm_study/") and function.count(".") == 1
                count += 1
    assert count > 40


def test_the_last_line_that_calls_the_package_counts(made):
    code = "from lvlm_study.chapters import ch01_reliance\n"
    code += "from lvlm_study.sweep import tables\n"
    code += "from lvlm_study.detector.detection import box_picture\n"
    known = made.modules(code + "import lvlm_study as ls")
    cell = (
        "rows = tables.read_table(x)\nif rows:\n    ch01_reliance.drop_bands(rows, f(1));\nlen(1)"
    )
    assert made.maker(cell, known) == (
        "lvlm_study/chapters/ch01_reliance.py",
        "ch01_reliance.drop_bands",
    )
    cell = "box_picture(rgb, ch01_reliance.drop_bands(x))"
    assert made.maker(cell, known) == ("lvlm_study/detector/detection.py", "detection.box_picture")
    assert made.maker("ch01_reliance.no_such_figure(1)\nls.explain(2)", known) is None


def test_a_published_book_links_to_its_repository(made):
    found = made.legend(
        app("https://host/o/n"),
        ("lvlm_study/chapters/ch01_reliance.py", "ch01_reliance.f"),
        ["sprites", "results/a.json"],
    )
    links = [n["refuri"] for n in found.findall(nodes.reference)]
    start = "https://host/o/n/blob/main/"
    assert links == [f"{start}lvlm_study/chapters/ch01_reliance.py", f"{start}data/results/a.json"]
    assert found.astext() == "Drawn by ch01_reliance.f; the page reads results/a.json."


def test_a_local_book_links_to_copies(made, tmp_path):
    local = app()
    data = ["results/mini/maps", "./results/mini/scale.json"]
    found = made.legend(local, ("lvlm_study/chapters/ch01_reliance.py", "ch01_reliance.f"), data)
    links = [n["refuri"] for n in found.findall(nodes.reference)]
    names = [
        "lvlm_study-chapters-ch01_reliance.py.txt",
        "data-results-mini-scale.json",
    ]  # a folder has no link
    assert links == [f"../_static/made/{name}" for name in names]
    made.copy(SimpleNamespace(outdir=tmp_path, made_copies=local.made_copies), None)
    json.loads((tmp_path / "_static" / "made" / names[1]).read_text())
    assert sorted(p.name for p in (tmp_path / "_static" / "made").iterdir()) == sorted(names)


def test_one_long_page_has_no_links(made):
    found = made.legend(
        app(builder="singlehtml"), ("lvlm_study/chapters/ch01_reliance.py", "ch01_reliance.f"), []
    )
    assert (
        not list(found.findall(nodes.reference)) and found.astext() == "Drawn by ch01_reliance.f."
    )
