"""What makes the book a product: the explorer, the glossary, the papers, the look in a browser."""

import base64
import importlib.util
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lvlm_study import benchmarks, heatmaps
from lvlm_study.figures import colour
from lvlm_study.sweep.stored import enlarged, scales, stored_maps

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results" / "mini"
BIB = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
CONTROLS = {"random", "center", "sobel"}

PAPERS = {  # method: its paper in references.bib
    "igos": "qi2020igos",
    "igos++": "khorram2021igos",
    "grad_cam": "selvaraju2017gradcam",
    "gae": "chefer2021generic",
    "attention": "abnar2020quantifying",
    "rollout": "abnar2020quantifying",
    "llava_cam": "zhang2025redundancy",
    "rise": "petsiuk2018rise",
    "occlusion": "zeiler2014visualizing",
    "integrated_gradients": "sundararajan2017axiomatic",
    "smoothgrad": "smilkov2017smoothgrad",
    "iia": "barkan2023iia",
    "tam": "li2025token",
    "eagle": "chen2025where",
    "eagle_lazy": "chen2025where",
    "ga": "giulivi2024explaining",
}
SETS = {  # benchmark that others made: its paper
    "mmvp": "tong2024eyes",
    "mmstar": "chen2024mmstar",
    "cv_bench": "tong2024cambrian",
    "llava_bench": "liu2023visual",
    "vqa_hat": "das2016human",
    "salicon": "jiang2015salicon",
    "osie": "xu2014predicting",
    "nlvr": "suhr2017corpus",
    "pope": "li2023pope",
    "cub": "wah2011cub",
}
OURS = {"photos", "paper_sets"}  # benchmarks of this repository besides the sprites


def load(path: Path, name: str):
    sys.path.insert(0, str(path.parent))  # tools import each other by name
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def tool(name: str):
    return load(ROOT / "tools" / f"{name}.py", f"study_{name}")


def extension(name: str):
    pytest.importorskip("sphinx", reason="sphinx belongs to the book's environment")
    return load(ROOT / "book" / "_ext" / f"{name}.py", f"study_ext_{name}")


# --- references, glossary


def test_every_method_and_benchmark_has_its_paper():
    keys = set(re.findall(r"^@\w+\{([^,]+),", BIB, re.M))
    assert len(keys) == len(re.findall(r"^@\w+\{", BIB, re.M)), "a key is used twice"
    assert set(heatmaps.METHODS) - CONTROLS <= PAPERS.keys()
    foreign = {b for b in benchmarks.LOADERS if not b.startswith("sprites")} - OURS
    assert foreign <= SETS.keys()
    assert {*PAPERS.values(), *SETS.values()} <= keys


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
    return out, tool("explorer").make(RESULTS, out)


def script(path: Path) -> tuple[str, dict]:
    """(what is assigned to, the value) of a data script."""
    target, value = path.read_text(encoding="utf-8").split(" = ", 1)
    return target, json.loads(value.removesuffix(";\n"))


def test_the_explorer_shows_what_was_stored(explorer):
    out, tree = explorer
    assert script(out / "data.js") == ("window.lvlmExplorer", json.loads(json.dumps(tree)) | {
        "loaded": {}})  # fmt: skip
    frame = stored_maps(RESULTS)
    frame = frame[frame.item.isin([item["id"] for item in tree["items"]])]
    top = scales(frame)  # of the maps that can be picked
    checked = 0
    for one in tree["maps"]:
        if one["file"] is None:
            assert one["method"] in CONTROLS
            continue
        target, maps = script(out / one["file"])
        assert target == f'lvlmExplorer.loaded["{one["file"]}"]'
        rows = frame[(frame.model == one["model"]) & (frame.method == one["method"])]
        rows = rows.set_index("item")
        for place, packed in maps.items():
            item = tree["items"][int(place)]
            row = rows.loc[item["id"]]
            cells = np.frombuffer(base64.b64decode(packed["cells"]), np.uint8)
            shown = cells.reshape(packed["shape"]) / 255 * top[one["method"]]
            wanted = np.clip(row.saliency, 0, top[one["method"]])
            assert np.abs(shown - wanted).max() <= top[one["method"]] / 255
            score = one["scores"][int(place)]
            assert score.get("gap") == pytest.approx(row.gap, abs=6e-4) or row.isna().gap
            assert ("gap" in score) == row.notna().gap
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("known", [True, False, None, float("nan")])
def test_the_explorer_says_which_answers_were_cut(known):
    row = {"answer": "A red", "verdict": "wrong", "total_drop": 0.5, "tokens": ["A", " red"]}
    row |= {"llr": [0.0, 2.0], "crucial": [False, True]}
    told = tool("explorer").answered(types.SimpleNamespace(**row, truncated=known))
    assert told.get("truncated", False) is (known is True)
    assert "answer.truncated" in (ROOT / "book/_static/explorer.js").read_text()


def test_the_explorer_shows_a_sign_of_several_tokens_once():
    seen = tool("explorer").whole(["A", "", "", " 红", "b", ""], [0, 1, 2, 3, 4, 5],
                                  [False, False, True, False, False, True])  # fmt: skip
    assert list(seen) == [("A", 0, False), (" 红", 6, True), ("b", 4, False), ("", 5, True)]


def test_items_without_a_map_are_shown_too(explorer):
    _, tree = explorer
    found = {s["status"] for one in tree["maps"] for s in one["scores"].values()}
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
    assert (out / "data.js").stat().st_size < 1_000_000


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
        ("<img alt=x src=nothing.png>", "missing picture"),
        ("<div style='width:2000px'>x</div>", "pixels wider"),
        ("<h4>too deep</h4>", "heading-order"),
        ("<input>", "label"),
        ("<a href=x></a>", "name"),
    ],
)
def test_the_check_of_pages_finds_faults(tmp_path, monkeypatch, body, says):
    checker = tool("check_pages")
    if not checker.chromium.find():
        pytest.skip("no chromium on this machine")
    monkeypatch.setattr(checker, "find_axe", lambda: None)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "a.html").write_text(GOOD.format(body))
    said = []
    wrong = checker.check(tmp_path, say=said.append)
    told = "\n".join(said)
    assert (wrong > 0) == bool(says) and says in told, told


@pytest.mark.slow
def test_the_explorer_works_from_a_disc(tmp_path):
    """Opened as a file, without a server: pick, step, and read the scores."""
    checker = tool("check_pages")
    if not checker.chromium.find():
        pytest.skip("no chromium on this machine")
    page = (ROOT / "book" / "explorer.md").read_text(encoding="utf-8")
    html = page.split("```{raw} html\n")[1].split("```")[0]
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "a.html").write_text("<!doctype html><meta charset=utf-8>" + html)
    static = tmp_path / "_static"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "explorer.py", static / "explorer"], cwd=ROOT
    )
    assert done.returncode == 0
    for name in ("explorer.js", "explorer.css"):
        (static / name).write_text((ROOT / "book" / "_static" / name).read_text())
    with checker.chromium.Browser(checker.chromium.find()) as tab:
        tab.goto((tmp_path / "book" / "a.html").as_uri())
        tab.wait_for("document.getElementById('look').dataset.ready")
        first = tab.evaluate("document.getElementById('explorer-item').value")
        assert tab.evaluate("!document.querySelector('canvas').hidden")
        tab.click("document.querySelector('[aria-label=\"next question\"]')")
        tab.wait_for(f"document.getElementById('explorer-item').value !== '{first}'")
        tab.wait_for("location.hash.includes('item=')")
        address = tab.evaluate("location.href")
        item = tab.evaluate("document.getElementById('explorer-item').value")
        said = tab.evaluate("document.getElementById('explorer-said').textContent")
        assert "Insertion minus deletion" in said
        tab.goto("about:blank")
        tab.goto(address)  # the address brings the same item back
        tab.wait_for("document.getElementById('look').dataset.ready")
        assert tab.evaluate("document.getElementById('explorer-item').value") == item
        assert tab.errors == []
