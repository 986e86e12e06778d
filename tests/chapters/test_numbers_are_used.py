"""Numbers are what pages quote: every leaf of a summary is quoted, shown, asserted or printed.

Where a page uses a number of one model, method or category, the same number of the others may be
there. The other way round, that a page quotes only what is there, is `test_book`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from lvlm_study.chapters.summaries import report
from lvlm_study.paths import data_dir
from lvlm_study.sweep import results

ROOT = Path(__file__).resolve().parents[2]
CELL = re.compile(r"^```\{code-cell\} ipython3\n(?:^:[^\n]*\n|^\n)*(.*?)^```$", re.S | re.M)
ROLE = re.compile(r"\{result\}`([^`]+)`")
PAGES = sorted((ROOT / "notebooks").glob("*.md"))
FILES = ("attention", "scale", "architecture", "trainings", "audit", "shortcut", "subsets")


class Seen(dict):
    """A tree that notes which of its leaves were read, however that was done."""

    def __init__(self, tree: dict, read: set, path: tuple = ()):
        self.read, self.path = read, path
        super().__init__({key: seen(value, read, (*path, key)) for key, value in tree.items()})

    def __iter__(self):  # with an __iter__ of its own, `|`, ** and dict() read by __getitem__
        return super().__iter__()

    def __getitem__(self, key):
        value = super().__getitem__(key)
        if not isinstance(value, dict | list):
            self.read.add((*self.path, key))
        return value

    def get(self, key, default=None):
        return self[key] if key in self else default

    def values(self):
        return [self[key] for key in self]

    def items(self):
        return [(key, self[key]) for key in self]


def seen(value, read: set, path: tuple):
    if isinstance(value, list):
        return [seen(one, read, (*path, str(n))) for n, one in enumerate(value)]
    return Seen(value, read, path) if isinstance(value, dict) else value


def leaves(tree, path: tuple = ()) -> Iterator[tuple]:
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in parts:
        here = (*path, str(key))
        yield from leaves(value, here) if isinstance(value, dict | list) and value else [here]


def quoted(name: str) -> set[tuple]:
    """What pages quote of a file."""
    text = "".join(page.read_text() for page in (*PAGES, *(ROOT / "book").glob("*.md")))
    keys = (re.sub(r":[^:\[\]]*$", "", key) for key in ROLE.findall(text))
    parts = [results._split(key) for key in keys]
    return {tuple(path) for file, path in parts if file.removeprefix("mini/") == name}


def run(page: Path) -> None:
    """A page's cells in one namespace, as a notebook has them."""
    place: dict = {}
    for code in CELL.findall(page.read_text()):
        exec(compile(code, page.name, "exec"), place)
        plt.close("all")


def alike(path: tuple) -> set[tuple]:
    """The path, and the path with one part but the last left open."""
    return {path} | {(*path[:k], None, *path[k + 1 :]) for k in range(len(path) - 1)}


def unused(tree: dict, read: set) -> list[str]:
    every = {path for path in leaves(tree) if path[0] != "provenance"}
    known = {pattern for path in read for pattern in alike(path)}
    return sorted(".".join(path) for path in every if not alike(path) & known)


def test_what_counts_as_read():
    read: set = set()
    tree = {"a": {"b": 1, "c": 2, "d": 3}, "e": [{"f": 4, "g": 5}, {"f": 6, "g": 7}], "h": {}}
    one = Seen(tree, read)
    assert one["a"].get("b") == 1 and one["a"].get("x") is None and one["e"][1]["f"] == 6
    assert unused(tree, read) == ["a.c", "a.d", "e.0.g", "e.1.g", "h"]
    assert (one["a"] | {"h": 6})["d"] == 3 and unused(tree, read) == ["e.0.g", "e.1.g", "h"]


@pytest.fixture(scope="module")
def read_by_pages():
    """{file: paths of the leaves that some page's cells read}; a minute."""
    found: dict[str, set] = {name: set() for name in FILES}
    load = results.load

    def noted(file: Path) -> dict:
        tree = load(file)
        return Seen(tree, found[file.stem]) if file.stem in found else tree

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "load", noted)
        patch.chdir(ROOT)
        for page in PAGES:
            if re.search(rf"results/mini/({'|'.join(FILES)})\.json", page.read_text()):
                run(page)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_number_is_used(read_by_pages, name):
    tree = results.load(data_dir() / "results" / "mini" / f"{name}.json")
    left = unused(tree, read_by_pages[name] | quoted(name))
    assert not left, f"{len(left)} of {name}.json are used nowhere, first {left[:5]}"


@pytest.mark.parametrize("name", ["reliance", "faithfulness"])
def test_what_the_command_prints_and_pages_quote(name):
    """The same numbers are there for every category, baseline and way of scoring."""
    tree, read = results.load(data_dir() / "results" / "mini" / f"{name}.json"), set()
    report({name: Seen(tree, read)})
    used = {path[-1] for path in read | quoted(name)}
    assert {path.rpartition(".")[2] for path in unused(tree, read)} <= used
