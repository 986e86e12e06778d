"""What makes the book a product: the explorer, the glossary, the papers, the look in a browser."""

import base64
import contextlib
import importlib
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import explorer as explorer_tool
import numpy as np
import pytest
import yaml
from extensions import extension
from PIL import Image

from lvlm_study import benchmarks, heatmaps
from lvlm_study.figures import colour
from lvlm_study.heatmaps.controls import control_map
from lvlm_study.heatmaps.names import CONTROLS
from lvlm_study.sweep.stored import enlarged, scales

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results" / "mini"
BIB = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")

OURS = {"photos", "paper_sets"}  # benchmarks of this repository besides the sprites


# --- references, glossary


def test_every_method_and_benchmark_has_its_paper():
    """The entry of a paper names, under keywords, the methods and benchmarks that it proposed."""
    keys = re.findall(r"^@\w+\{([^,]+),", BIB, re.M)
    assert len(keys) == len(set(keys)), "a key is used twice"
    words = [
        w
        for line in re.findall(r"^\s+keywords\s*=\s*\{(.+)\}", BIB, re.M)
        for w in line.split(", ")
    ]
    named = [word.partition(" ")[::2] for word in words]
    assert len(named) == len(set(named)), "one paper for each"
    foreign = {b for b in benchmarks.LOADERS if not b.startswith("sprites")} - OURS
    wanted = {("method", m) for m in set(heatmaps.METHODS) - set(CONTROLS)}
    assert set(named) == wanted | {("benchmark", b) for b in foreign}


def test_every_entry_is_whole():
    for entry in re.findall(r"^@\w+\{.*?^\}", BIB, re.M | re.S):
        for name in ("title", "author", "year"):
            assert re.search(rf"^\s+{name}\s*=\s*\{{.+\}},?$", entry, re.M), entry[:60]


def test_the_glossary_is_in_order_and_defines_what_it_links():
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    body = text.split(":::{glossary}\n")[1].split("\n:::")[0]
    terms = [line for line in body.splitlines() if line and not line.startswith(" ")]
    assert terms == sorted(terms, key=lambda t: t.lower().replace("−", " ")) and len(terms) > 25
    linked = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    assert set(linked) <= set(terms)


def test_citing_agrees_with_the_citation_file():
    page = (ROOT / "book" / "references.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["title"] in page and f"{{{citation['version']}}}" in page
    changes = (ROOT / "book" / "changelog.md").read_text(encoding="utf-8")
    assert f"## {citation['version']} (" in changes


# --- the explorer's files


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    out = tmp_path_factory.mktemp("explorer")
    return out, explorer_tool.make(RESULTS, out)


def script(path: Path) -> tuple[str, dict]:
    """(what is assigned to, the value) of a data script."""
    target, value = path.read_text(encoding="utf-8").split(" = ", 1)
    return target, json.loads(value.removesuffix(";\n"))


def loaded(out: Path, file: str) -> dict:
    """A data script that the page loads when it is picked."""
    target, value = script(out / file)
    assert target == f'lvlmExplorer.loaded["{file}"]'
    return value


def test_the_explorer_shows_what_was_stored(explorer):
    out, tree = explorer
    assert script(out / "data.js") == ("window.lvlmExplorer", json.loads(json.dumps(tree)) | {
        "loaded": {}})  # fmt: skip
    frame = explorer_tool.shown(RESULTS)
    frame = frame[frame.item.isin([item["id"] for item in tree["items"]])]
    top = scales(frame)  # of the maps that can be picked
    checked = 0
    for one in tree["maps"]:
        found = loaded(out, one["file"])
        assert bool(found["maps"]) != (one["method"] in CONTROLS)
        rows = frame[(frame.model == one["model"]) & (frame.method == one["method"])]
        rows = rows.set_index("item")
        for place, packed in found["maps"].items():
            row = rows.loc[tree["items"][int(place)]["id"]]
            cells = np.frombuffer(base64.b64decode(packed["cells"]), np.uint8)
            shown = cells.reshape(packed["shape"]) / 255 * top[one["method"]]
            wanted = np.clip(row.saliency, 0, top[one["method"]])
            assert np.abs(shown - wanted).max() <= top[one["method"]] / 255
            score = found["scores"][place]
            assert score.get("gap") == pytest.approx(row.gap, abs=6e-4) or row.isna().gap
            assert ("gap" in score) == row.notna().gap
            checked += 1
    assert checked > 20


def test_difference_stands_beside_every_item(explorer):
    out, tree = explorer
    found = loaded(out, "maps/difference.js")
    assert len(found) == len(tree["items"])
    seen = {item.id: item for item in explorer_tool.chosen(explorer_tool.shown(RESULTS))}
    item = seen[tree["items"][5]["id"]]
    wanted = control_map("difference", item.rgb, seed=0) / tree["scales"]["difference"]
    cells = np.frombuffer(base64.b64decode(found["5"]["cells"]), np.uint8).reshape(32, 32)
    np.testing.assert_allclose(cells / 255, np.clip(wanted, 0, 1), atol=1 / 255)


def test_the_explorer_opens_with_a_good_a_bad_and_a_wrong_one(explorer):
    out, tree = explorer
    good, bad, wrong = tree["examples"][:3]
    number = {item["id"]: str(n) for n, item in enumerate(tree["items"])}
    assert {(e["model"], e["method"]) for e in (good, bad, wrong)} == {
        (explorer_tool.MODEL, explorer_tool.METHOD)}  # fmt: skip
    file = {(one["model"], one["method"]): one["file"] for one in tree["maps"]}
    scores = loaded(out, file[explorer_tool.MODEL, explorer_tool.METHOD])["scores"]
    most, least = (scores[number[e["item"]]]["on_evidence"] for e in (good, bad))
    assert most > 0.4 > least
    answers = {one["name"]: one["file"] for one in tree["models"]}
    said = loaded(out, answers[explorer_tool.MODEL])
    assert [said[number[e["item"]]]["verdict"] for e in (good, bad, wrong)] == [
        "correct", "correct", "wrong"]  # fmt: skip


def test_maps_of_words_are_of_the_stored_answers(explorer):
    out, tree = explorer
    target, words = script(ROOT / "book" / "_static" / "explorer-words.js")
    assert target == "lvlmExplorer.words"
    answers = {one["name"]: one["file"] for one in tree["models"]}
    said = loaded(out, answers[words["model"]])
    assert {e["item"] for e in tree["examples"][:3]} <= set(words["items"])
    for n, item in enumerate(tree["items"]):
        if kept := words["items"].get(item["id"]):
            assert kept["answer"] == said[str(n)]["text"]
            for start, end, status, *cells in kept["words"]:
                assert kept["answer"][start:end].strip() and (status == "ok") == bool(cells)
                assert all(len(base64.b64decode(each)) == 32 * 32 for each in cells)


@pytest.mark.parametrize("known", [True, False, None, float("nan")])
def test_the_explorer_says_which_answers_were_cut(known):
    row = {"answer": "A red", "verdict": "wrong", "total_drop": 0.5, "tokens": ["A", " red"]}
    row |= {"llr": [0.0, 2.0], "crucial": [False, True]}
    told = explorer_tool.answered(types.SimpleNamespace(**row, truncated=known))
    assert told.get("truncated", False) is (known is True)
    assert "said.truncated" in (ROOT / "book/_static/explorer.js").read_text()


def test_pieces_of_one_word_are_one_word():
    pieces = [("An", 1, False), (" umb", 2, False), ("rella", 3, True), (".", 0, False)]
    assert list(explorer_tool.joined(pieces)) == [("An", 1, False), (" umbrella.", 5, True)]


def test_the_explorer_shows_a_sign_of_several_tokens_once():
    seen = explorer_tool.whole(["A", "", "", " 红", "b", ""], [0, 1, 2, 3, 4, 5],
                                  [False, False, True, False, False, True])  # fmt: skip
    assert list(seen) == [("A", 0, False), (" 红", 6, True), ("b", 4, False), ("", 5, True)]


def test_items_without_a_map_are_shown_too(explorer):
    out, tree = explorer
    scores = [loaded(out, one["file"])["scores"] for one in tree["maps"]]
    found = {score["status"] for each in scores for score in each.values()}
    assert {"ok", "no_crucial_tokens"} <= found
    script_text = (ROOT / "book/_static/explorer.js").read_text()
    assert all(f"{status}:" in script_text for status in found)


def test_pictures_and_outlines_are_there_and_small(explorer):
    out, tree = explorer
    for number, item in enumerate(tree["items"]):
        picture = out / f"pictures/{number}.webp"
        assert list(Image.open(picture).size) == item["size"] and item["alt"].endswith(".")
        assert picture.stat().st_size < 60_000
        assert (out / f"evidence/{number}.png").exists() == (item["area"] is not None)
    assert sum(p.stat().st_size for p in out.rglob("*.js")) / len(tree["maps"]) < 60_000
    first = ["data.js", "maps/difference.js", "maps/0.js", "answers/0.js", "pictures/0.webp"]
    assert sum((out / name).stat().st_size for name in first) < 600_000


def test_the_colours_are_the_books(explorer):
    _, tree = explorer
    wanted = colour(np.array([0.0, 1.0]), 0.0, 1.0) * 255
    np.testing.assert_allclose([tree["colours"][0], tree["colours"][-1]], wanted, atol=0.5)


def test_scales_do_not_depend_on_one_outlier():
    import pandas as pd

    flat = [np.full((10, 10), 1.0, np.float32) for _ in range(9)] + [None]
    odd = flat[0].copy()
    odd[0, 0] = 1000
    frame = pd.DataFrame({"method": ["gae"] * 11 + ["igos"], "saliency": [*flat, odd, flat[0]]})
    assert scales(frame) == {"gae": 1.0, "igos": 1.0}
    frame.loc[0, "method"] = "igos"
    frame.at[0, "saliency"] = np.full((2, 2), 0.2, np.float32)
    assert scales(frame)["igos"] == 1.0, "a mask's scale is fixed"


def test_enlarging_keeps_a_constant_and_the_middle_of_a_cell():
    assert (enlarged(np.full((4, 4), 0.25), 30, 50) == 0.25).all()
    small = np.eye(4, dtype=np.float32)
    big = enlarged(small, 36, 36)  # nine pixels a cell, so a cell has a middle pixel
    np.testing.assert_allclose(big[4::9, 4::9], small, atol=1e-6)


# --- what the extensions add


def test_a_chapter_says_its_version():
    versions = extension("versions")
    line = versions.sentence(ROOT / "notebooks" / "00_quickstart.ipynb")
    stamp = json.loads((ROOT / "notebooks/00_quickstart.ipynb").read_text())["metadata"]
    assert stamp["lvlm_study"]["stamp"][:8] in line
    assert re.search(r"torch \d+\.\d+", line) and line.endswith(".")


def test_without_git_a_chapter_has_no_date(tmp_path, monkeypatch):
    versions = extension("versions")
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    assert versions.last_change(tmp_path / "a.md") == ""


def test_a_page_loads_no_icon_formula_or_index_that_it_does_not_show(tmp_path):
    lighter = extension("lighter")
    script = '{"sun":[512,512,[],"f185","M3"],moon:[384,512,[127769],"f186",["M1","M2"]]}'
    assert lighter.fewer(script, {"sun"}) == '{"sun":[512,512,[],"f185","M3"],}'
    math = types.SimpleNamespace(filename="_static/mathjax/tex-chtml.js")
    assert lighter.needs(math, '<span class="math">') and not lighter.needs(math, "<p>")
    assert lighter.needs(types.SimpleNamespace(filename="_static/copybutton.js"), "<p>")
    load = '<script src="../searchindex.js"></script>'
    for name in ("page", "search"):
        (tmp_path / f"{name}.html").write_text(f"<i class=fa-sun></i>{load}")
    for part, text in (
        (lighter.SCRIPTS / "fontawesome.js", script),
        (lighter.SHEET, '.fa-x:before{content:"y"}'),
    ):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).write_text(text)
    (tmp_path / lighter.SCRIPTS / "pydata-sphinx-theme.js").write_text("")
    lighter.trim(
        types.SimpleNamespace(outdir=tmp_path, builder=types.SimpleNamespace(name="html")), None
    )
    assert (tmp_path / "page.html").read_text() == "<i class=fa-sun></i>"
    assert load in (tmp_path / "search.html").read_text()
    assert "moon" not in (tmp_path / lighter.SCRIPTS / "fontawesome.js").read_text()
    assert (tmp_path / lighter.SHEET).read_text() == ""


def test_live_code_and_wrong_roles_are_left_out():
    tidy = extension("tidy")
    inline = types.SimpleNamespace(filename=None, attributes={"body": "const THEBE_JS_URL"})
    keep = types.SimpleNamespace(filename="custom.js", attributes={})
    context = {"script_files": ["_static/sphinx-thebe.js", inline, keep]}
    context["body"] = '<div role="doc-biblioentry">x</div>'
    tidy.tidy(None, "a", "page.html", context, None)
    assert context["script_files"] == [keep]
    assert context["body"] == '<div role="listitem">x</div>'


# --- in a browser


HEAD = "<!doctype html><html lang=en><title>a</title><link rel=icon href=data:,>"
GOOD = HEAD + "<article><h1>A</h1>{}</article>"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<p>fine</p>", ""),
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<script>throw Error('lost')</script>", "console: lost"),
        ("<img alt=x src=nothing.png>", "missing picture"),
        ("<script src=nothing.js></script>", "nothing.js"),
        ("<span class=math>x</span>", "1 formulas are not typeset"),
        ("<div style='width:2000px'>x</div>", "pixels wider"),
        ("<h4>too deep</h4>", "heading-order"),
        ("<input>", "label"),
        ("<a href=x></a>", "link-name"),
        ("<p style='color:#ccc'>pale</p>", "color-contrast"),
    ],
)
def test_the_check_of_pages_finds_faults(tmp_path, tab, body, says):
    checker = importlib.import_module("check_pages")
    (tmp_path / "a.html").write_text(GOOD.format(body))
    server = checker.serve(tmp_path)
    found = checker.check_page(
        tab, tmp_path / "a.html", f"http://127.0.0.1:{server.server_port}/a.html", tmp_path
    )
    server.shutdown()
    assert bool(found) == bool(says) and says in "\n".join(found), found
    assert len(list(tmp_path.glob("a-*.png"))) == 3


@pytest.mark.slow
def test_the_explorer_works_from_a_disc(tmp_path, tab):
    """Opened as a file, without a server: pick, step, and read the scores."""
    page = (ROOT / "book" / "explorer.md").read_text(encoding="utf-8")
    html = page.split("```{raw} html\n")[1].split("```")[0]
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "a.html").write_text("<!doctype html><meta charset=utf-8>" + html)
    static = tmp_path / "_static"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "explorer.py", static / "explorer"], cwd=ROOT
    )
    assert done.returncode == 0
    for name in ("explorer.js", "explorer.css", "explorer-words.js"):
        (static / name).write_text((ROOT / "book" / "_static" / name).read_text())
    tab.goto((tmp_path / "book" / "a.html").as_uri())
    tab.locator("#look[data-ready]").wait_for(state="attached")
    picked = tab.locator("#explorer-item")
    first = picked.input_value()
    assert tab.locator("canvas").first.is_visible()
    tab.get_by_label("next question").click()
    tab.wait_for_function(f"document.getElementById('explorer-item').value !== '{first}'")
    tab.wait_for_function("location.hash.includes('item=')")
    address, item = tab.url, picked.input_value()
    assert "Insertion minus deletion" in tab.locator("#explorer-said").text_content()
    tab.goto("about:blank")
    tab.goto(address)  # the address brings the same item back
    tab.locator("#look[data-ready]").wait_for(state="attached")
    assert picked.input_value() == item
    assert tab.complaints == []


@pytest.mark.slow
def test_the_pdf_is_printed_with_its_pictures(tmp_path, tab, monkeypatch):
    printer = importlib.import_module("print_pdf")
    monkeypatch.setattr(printer.browser, "page", lambda: contextlib.nullcontext(tab))
    (tmp_path / "book").mkdir()
    (tmp_path / "_images").mkdir()
    Image.effect_noise((300, 300), 90).save(tmp_path / "_images" / "a.png")
    (tmp_path / "book" / "a.html").write_text(GOOD.format('<img alt=x src="_images/a.png">'))
    printer.print_pdf(tmp_path / "book" / "a.html", tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")
    assert (tmp_path / "a.pdf").stat().st_size > 50_000, "the picture is in it"
