"""The book: numbers come from files or the build fails, links lead somewhere, pages fit."""

import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import book_config
import pytest
import yaml
from extensions import extension
from refusals import refuses

from lvlm_study.sweep import results

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.md")])
CONFIG = ROOT / "book" / "_config.yml"
PROVENANCE = {"profile": "mini", "model": "mini/a-1.5", "n": 7, "seed": 0}
PROVENANCE |= {"commit": "abc", "versions": {"torch": "2.13.0"}}


# --- keys


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for name in ("results/mini", "results/paper", "paper"):
        (folder / name).mkdir(parents=True)
    values = {"deletion": 0.25, "models": {"mini/a-1.5": {"n": 7}}, "curve": [1.0, -0.5]}
    values |= {"methods": {"igos[l2=1,gamma=0.5]": {"n": 3}}}
    values |= {"gap": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 12}}
    values |= {"lead": {"difference": 0.5, "low": 0.25, "high": 0.75, "p": 0.01}}
    values |= {"bad": float("nan"), "ok": True, "provenance": PROVENANCE}
    (folder / "results" / "mini" / "q1.json").write_text(json.dumps(values))
    values = {"deletion": 0.5, "provenance": PROVENANCE | {"profile": "paper", "model": ["a", "b"]}}
    (folder / "results" / "paper" / "q1.json").write_text(json.dumps(values))
    values["provenance"] = PROVENANCE | {"model": list("abcd")}
    (folder / "results" / "mini" / "shared.json").write_text(json.dumps(values))
    (folder / "results" / "mini" / "bare.json").write_text('{"x": 1}')
    table = "lvlm,method,del\nA-1.5,Ours,0.40\nA-1.5,IIA,0.366\nB,Ours,-3\n"
    (folder / "paper" / "table9.csv").write_text(table)
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("q1.deletion", 0.25),
        ("mini/q1.deletion", 0.25),
        ("paper/q1.deletion", 0.5),
        ("q1.models[mini/a-1.5].n", 7),
        ("q1.methods[igos[l2=1,gamma=0.5]].n", 3),
        ("q1.curve[1]", -0.5),
        ("q1.provenance.versions.torch", "2.13.0"),
        ("paper/table9[B].del", -3),
        ("paper/table9[A-1.5,Ours].del", 0.4),
        ("paper/table9[B].method", "Ours"),
    ],
)
def test_a_key_names_one_value(data, key, value):
    assert results.read(key, data).value == value


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("q1.deletoin", "did you mean deletion"),
        ("q2.deletion", "did you mean q1"),
        ("q1.curve[2]", "no entry named '2'"),
        ("q1.models", "no single number"),
        ("q1.ok", "no single number"),
        ("q1.bad", "is nan"),
        ("q1", "no result key"),
        ("q1.", "no result key"),
        ("", "no result key"),
        ("gpu/q1.deletion", "profile"),
        ("bare.x", "provenance"),
        ("paper/table9[A-1.5].del", "2 rows"),
        ("paper/table9[C].del", "0 rows"),
        ("paper/table9[B].dell", "did you mean del"),
        ("paper/table9.del", "a row and a column"),
    ],
)
def test_a_key_without_a_value_says_why(data, key, says):
    refuses(re.escape(says), results.read, key, data)


def test_our_results_never_hide_behind_the_papers(data):
    shutil.copy(data / "results/paper/q1.json", data / "results/paper/table9.json")
    refuses("could be", results.read, "paper/table9[B].del", data)


def test_a_value_comes_with_its_origin(data):
    assert results.read("q1.deletion", data).origin == (
        "mini profile, mini/a-1.5, n = 7, seed 0, q1.json"
    )
    assert results.read("q1.gap.value", data).origin.startswith(
        "95 % interval 0.25 to 0.75, n = 12; mini profile"
    )
    assert results.read("q1.lead.difference", data).origin.startswith(
        "95 % interval 0.25 to 0.75; mini profile"
    )
    assert results.read("q1.gap.low", data).origin.startswith("mini profile")
    assert results.read("q1.lead.p", data).origin.startswith("mini profile")
    assert "a, b" in results.read("paper/q1.deletion", data).origin
    assert "mini profile, 4 models, n = 7" in results.read("shared.deletion", data).origin
    assert "the paper's own figure" in results.read("paper/table9[B].del", data).origin


def test_every_results_file_says_where_it_comes_from():
    for file in (ROOT / "data" / "results").glob("*/*.json"):
        provenance = results.load(file)["provenance"]
        assert provenance["profile"] == file.parent.name, file.name


ROLE = re.compile(r"\{result\}`([^`]+)`")
LITERAL = re.compile(r"^(`{3,}).*?^\1$|``.*?``", re.M | re.S)


def test_every_number_that_a_page_names_exists():
    split = extension("results").split
    for page in PAGES:
        for text in ROLE.findall(LITERAL.sub("", page.read_text(encoding="utf-8"))):
            key, form = split(text)
            assert format(results.read(key).value, form), f"{page.name}: {text}"


# --- the role, in a page


def test_a_colon_in_brackets_belongs_to_the_key():
    split = extension("results").split
    assert split("q1[a:b].x:.3f") == ("q1[a:b].x", ".3f")
    assert split("q1.x") == ("q1.x", "")


def small_page(folder: Path, data: Path, text: str) -> subprocess.CompletedProcess:
    """Build one page that uses the role, strictly; torch must not be imported."""
    folder.mkdir()
    (folder / "index.md").write_text(f"# Page\n\n{text}\n")
    (folder / "conf.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        "sys.modules['torch'] = None  # importing it would fail\n"
        f"extensions = ['myst_parser', 'results']\nresults_data = {str(data)!r}\n"
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-b", "html"]
    return subprocess.run([*command, folder, folder / "out"], capture_output=True, text=True)


def test_the_role_prints_the_number_with_its_origin(data, tmp_path):
    pytest.importorskip("myst_parser", reason="myst_parser belongs to the book's environment")
    text = "It is {result}`q1.deletion:.3f`, or {result}`q1.curve[1]:.1f`."
    done = small_page(tmp_path / "page", data, text)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "out" / "index.html").read_text()
    assert re.search(r'<abbr[^>]*title="mini profile[^"]*n = 7[^"]*"[^>]*>0\.250</abbr>', page)
    assert ">−0.5</abbr>" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-0.25", "−0.25"),
        ("95 % interval -0.3 to -.1", "95 % interval −0.3 to −.1"),
        ("mini profile, mini/llava-1.5, n = 7", "mini profile, mini/llava-1.5, n = 7"),
        ("2026-11-29", "2026-11-29"),
        ("1e-05", "1e-05"),
    ],
)
def test_a_negative_number_has_a_minus_sign(text, shown):
    assert extension("results").signed(text) == shown


@pytest.mark.parametrize("text", ["q1.deletion:.3q", "q1.nothing"])
def test_a_missing_number_fails_the_build(data, tmp_path, text):
    pytest.importorskip("myst_parser", reason="myst_parser belongs to the book's environment")
    done = small_page(tmp_path / "page", data, f"It is {{result}}`{text}`.")
    assert done.returncode != 0
    assert text in done.stderr and "index.md" in done.stderr


# --- the configuration


def test_a_local_book_has_no_repository():
    config = yaml.safe_load(CONFIG.read_text())
    assert "repository" not in config and not any(
        config["html"][f"use_{name}_button"] for name in ("repository", "issues", "edit_page")
    )
    assert "colab_url" not in config["launch_buttons"]


def test_the_published_book_knows_its_repository(tmp_path):
    base = Path(shutil.copy(CONFIG, tmp_path))
    write = book_config.write_config
    assert write(base, {}) == base
    path = write(base, {"LVLM_STUDY_REPOSITORY": "https://example.org/a/b.git"})
    config = yaml.safe_load(path.read_text())
    expected = {"url": "https://example.org/a/b", "path_to_book": "", "branch": "main"}
    assert config["repository"] == expected
    assert config["launch_buttons"]["colab_url"] and config["html"]["use_repository_button"]
    assert config["sphinx"] == yaml.safe_load(CONFIG.read_text())["sphinx"]


@pytest.mark.parametrize("url", ["owner/name", "https://example.org/a", "git@example.org:a/b"])
def test_a_wrong_repository_is_refused(tmp_path, url):
    base = Path(shutil.copy(CONFIG, tmp_path))
    with pytest.raises(ValueError, match="https://HOST/OWNER/NAME"):
        book_config.write_config(base, {"LVLM_STUDY_REPOSITORY": url})


def test_every_page_is_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    listed = sorted([toc["root"], *chapters])
    assert listed == sorted(page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES)


def test_no_page_holds_a_loose_end():
    words = re.compile(r"\b(TODO|FIXME|TBD|XXX|lorem ipsum|coming soon)\b", re.I)
    assert [page.name for page in PAGES if words.search(page.read_text(encoding="utf-8"))] == []


def test_pdf_assets_are_one_folder_up():
    mend = pytest.importorskip("print_pdf").mend
    assert mend('<img src="_images/a.png" href="x.html">') == (
        '<img src="../_images/a.png" href="x.html">'
    )


# --- the rendered book


class Links(html.parser.HTMLParser):
    """Everything a page loads or points at, its anchors, and its pictures."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.links, self.anchors, self.images = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found["id"]} if "id" in found else set()
        if tag in ("script", "img") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and "stylesheet" in found.get("rel", ""):
            self.loads.append(found["href"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    pytest.importorskip("jupyter_book", reason="jupyter-book belongs to the book's environment")
    out = tmp_path_factory.mktemp("book")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--quiet"]
    command += ["--config", str(CONFIG), "--toc", "book/_toc.yml", "--path-output", str(out)]
    done = subprocess.run(
        [*command, "-W", "-n", "--keep-going"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out / "_build" / "html"


def pages(book: Path) -> list[Path]:
    return [p for p in sorted(book.rglob("*.html")) if p.parent.name in ("book", "notebooks")]


@pytest.mark.slow
def test_no_page_loads_anything_from_outside(book):
    assert len(pages(book)) == len(PAGES)
    outside = [(p.name, url) for p in pages(book) for url in Links(p).loads if urlsplit(url).netloc]
    assert outside == []


@pytest.mark.slow
def test_no_page_links_to_the_repository_of_jupyter_book(book):
    for page in book.rglob("*.html"):
        assert "executablebooks/jupyter-book" not in page.read_text(encoding="utf-8"), page


@pytest.mark.slow
def test_no_link_inside_the_book_is_dead(book):
    dead = []
    for page in pages(book):
        for url in Links(page).links:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = Links(target).anchors if target.suffix == ".html" and parts.fragment else None
            if not target.exists() or (anchors is not None and parts.fragment not in anchors):
                dead.append((page.name, url))
    assert dead == []


@pytest.mark.slow
def test_every_picture_has_words(book):
    """A map that lies over a picture has an empty text: the picture below it has the words."""
    bare = [
        (page.name, image["src"][:80])
        for page in pages(book)
        for image in Links(page).images
        if not (image.get("alt") or "alt" in image and "map" in image.get("class", "").split())
    ]
    assert bare == []
