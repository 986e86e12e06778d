"""Every plain code block of the README and of the book's pages does what it says, as written.

`{code-cell}` blocks are executed when the book is made, and the worked examples of extend.md in
`test_extend`. A Python block runs after what its page's cells have defined (`BEFORE`). A command
runs for real if it needs no GPU, no network and no more than minutes (`runs_here`); any other goes
through the real argument parser, and the names in it must exist.
"""

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest

from lvlm_study import cli
from lvlm_study.chapters import summaries
from lvlm_study.sweep import engines

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *(f"book/{p.name}" for p in sorted((ROOT / "book").glob("*.md")))]
PAGES += [f"notebooks/{p.name}" for p in sorted((ROOT / "notebooks").glob("*.md"))]
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
LANGUAGES = {"python", "bash"}
NO_CODE = {"", "yaml", "bibtex", "md"}  # md: the example chapter, which test_extend builds
BROKEN = re.compile(r"(?<![\w.])[-+]?(nan|NaN|inf)\b")
PICTURE = re.compile(r"base64,[\w+/=]+")
SLOW = ("igos", "beats_random")
BEFORE = {  # what the cells of a page have defined before its plain blocks
    "notebooks/07_focus_and_correctness.md": "from lvlm_study.chapters import annotate",
    "notebooks/13_through_detection.md": (
        "import lvlm_study as ls\n"
        "from lvlm_study.paths import data_dir\n"
        "folder = data_dir() / 'results' / 'mini'\n"
        "model = ls.load_model('mini/joint')\n"
        "item = ls.load_benchmark('sprites')[5]\n"
    ),
}
ELSEWHERE = "path/to/"  # data that a reader has and the repository has not


def blocks() -> list[tuple[str, int, str, str]]:
    """(page, line, language, code) of every plain fence that is not inside another."""
    found = []
    for page, text in TEXT.items():
        fence = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.M | re.S)
        for hit in fence.finditer(text):
            language = hit[3].strip()
            if not language.startswith("{"):
                found.append((page, text[: hit.start()].count("\n") + 1, language, hit[4]))
    return found


BLOCKS = blocks()
CODE = [
    pytest.param(
        page,
        code,
        id=f"{page}:{line}",
        marks=pytest.mark.slow if any(word in code for word in SLOW) else (),
    )
    for page, line, language, code in BLOCKS
    if language == "python" and not (page == "book/extend.md" and "    ...\n" not in code)
]
COMMANDS = [
    (page, line, part.strip())
    for page, line, language, code in BLOCKS
    if language == "bash"
    for row in code.replace("\\\n", " ").splitlines()
    for part in re.sub(r"\s#.*", "", row).split("&&")
]


def words_of(command: str) -> list[str]:
    """The words of an lvlm-study command behind its name; [] for any other program."""
    words = shlex.split(command)
    return words[1:] if Path(words[0]).name == "lvlm-study" else []


def runs_here(words: list[str]) -> bool:
    """Minutes on two cores: it asks the zoo, and writes into a folder of the reader's own."""
    options = cli.parser().parse_args(words)
    if words[0] in ("explain", "estimate", "list"):
        return options.model.startswith("mini/")
    results = getattr(options, "results", None)
    return results is not None and not results.is_absolute() and results.parts[0] == "out"


OURS = [(page, line, words_of(c)) for page, line, c in COMMANDS if words_of(c)]
OTHERS = [(page, line, c) for page, line, c in COMMANDS if not words_of(c)]


def cases(run: bool):
    return [
        pytest.param(words, id=f"{page}:{line} {' '.join(words)[:60]}")
        for page, line, words in OURS
        if runs_here(words) == run
    ]


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder with the repository's data in it, to run a reader's commands from."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_plain_block_is_known():
    assert {language for _, _, language, _ in BLOCKS} <= LANGUAGES | NO_CODE
    assert len(CODE) > 10 and len(OURS) > 20
    assert any("README" in page for page, *_ in OURS)


@pytest.mark.parametrize(("page", "code"), CODE)
def test_python(page, code, at_home, capsys):
    tree = ast.parse(code)
    if ELSEWHERE in code:
        return  # it compiles; what it reads is the reader's own
    if "annotations.csv" in code:  # what two annotators have chosen
        made = sorted((ROOT / "data" / "annotations").glob("*.csv"))
        header = made[0].read_text().splitlines()[:1]
        rows = [line for file in made for line in file.read_text().splitlines()[1:]]
        (at_home / "annotations.csv").write_text("\n".join(header + rows) + "\n")
    space: dict = {}
    exec(BEFORE.get(page, ""), space)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, page, "exec"), space)
    value = eval(compile(ast.Expression(last.value), page, "eval"), space) if last else None
    told = PICTURE.sub("", f"{capsys.readouterr().out}\n{value!r}")
    assert not BROKEN.search(told), told


def test_what_a_page_has_defined_is_true():
    """The names that `BEFORE` gives to a block are those of the page's own cells."""
    for page, code in BEFORE.items():
        cells = "\n".join(re.findall(r"^```\{code-cell\}.*?\n(.*?)^```$", TEXT[page], re.M | re.S))
        for name in re.findall(r"^(\w+) =", code, re.M):
            assert re.search(rf"^(\w+, )*{name}(, \w+)* =", cells, re.M), (page, name)


@pytest.mark.slow
@pytest.mark.parametrize("words", cases(run=True))
def test_commands_run(words, at_home, capsys):
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert told.strip() and not BROKEN.search(told), told


@pytest.mark.parametrize("words", cases(run=False))
def test_commands_name_what_exists(words, tmp_path, monkeypatch):
    """Hours, a GPU, the network, or the committed results: everything but the computing."""
    asked = []

    def check(sweep, *how):
        sweep.check()
        asked.append(sweep)
        return 0

    monkeypatch.setattr(engines, "run", check)
    monkeypatch.setattr(cli, "_kept", lambda results, sweep: None)
    monkeypatch.setattr(summaries, "write_summaries", lambda *args: {})
    if words[0] == "run":
        assert cli.main(words) == 0 and asked
        local = [name for name in asked[-1].models if name.startswith("mini/")]
        assert all((ROOT / "data" / "zoo" / n.removeprefix("mini/")).is_dir() for n in local)
    else:
        assert isinstance(cli.parser().parse_args(words), argparse.Namespace)


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: f"{case[0]}:{case[1]} {case[2][:40]}")
def test_other_programs(case):
    """`make` has the target, `python` the file; pip, and what it makes, need the network."""
    program, *words = shlex.split(case[2])
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[0] in targets
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        assert (program, words[0]) in {("pip", "install"), (".", ".venv/bin/activate")}
