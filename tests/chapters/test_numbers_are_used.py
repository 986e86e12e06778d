"""Every number of a summary is used: quoted by a page, or read by a page's tables and figures."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from lvlm_study.chapters import summaries
from lvlm_study.paths import data_dir
from lvlm_study.scenes.questions import CATEGORIES
from lvlm_study.sweep import results

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("notebooks/*.md"), *ROOT.glob("book/*.md")])
ROLE = re.compile(r"\{result\}`([^`]+?)(?::[^`\]:]*)?`")
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?::[^\n]*\n)*(.*?)^```", re.S | re.M)
NAMES = {"all", *CATEGORIES, "blur", "black", "mean", "noise"}  # told in one way, quoted at will


def is_estimate(tree: dict) -> bool:
    """A number with its interval, or a test with all that it says: one thing to show."""
    one = {"low", "high"} <= set(tree) or {"p", "smallest"} <= set(tree)
    return one and not any(isinstance(part, dict) for part in tree.values())


def are_names(tree: dict) -> bool:
    """Whether the keys are names, of models say: no plain words, or below each stands the same."""
    parts = [part for part in tree.values() if part != {}]
    if any(not re.fullmatch(r"\w+", key) for key in tree):
        return True
    if not parts or not all(isinstance(part, dict) for part in parts):
        return False
    if any(map(is_estimate, parts)):
        return all(map(is_estimate, parts))
    return len({frozenset(part) for part in parts}) == 1 or all(map(are_names, parts))


def step(tree: dict, key: str) -> str:
    return "*" if key in NAMES or are_names(tree) else key


def families(tree, path=()) -> Iterator[tuple[str, ...]]:
    """The kinds of leaves: their paths, with a star for a name; an estimate is one leaf.

    Lists are tables, used as a whole, and no leaves.
    """
    if not isinstance(tree, dict) or (path and is_estimate(tree)):
        yield from () if isinstance(tree, list) else (path,)
        return
    for key, part in tree.items():
        if (*path, key) != ("provenance",):
            yield from families(part, (*path, step(tree, key)))


def family(tree, parts: list[str]) -> tuple[str, ...]:
    """The kind of one leaf."""
    path = ()
    for part in parts:
        if not isinstance(tree, dict) or (path and is_estimate(tree)):
            break
        path, tree = (*path, step(tree, part)), tree[part]
    return path


class Read(dict):
    """A tree that notes which of its leaves are read."""

    def __init__(self, tree: dict, log: list, path=()):
        super().__init__(tree)
        self.log, self.path = log, path

    def __getitem__(self, key):
        value, path = super().__getitem__(key), (*self.path, key)
        if isinstance(value, dict):
            return Read(value, self.log, path)
        self.log.append(path)
        return value

    def get(self, key, other=None):
        return self[key] if key in self else other

    def __iter__(self):  # one of its own, so that a union or a copy asks for every value
        return iter(super().keys())

    def values(self):
        return [self[key] for key in self]

    def items(self):
        return [(key, self[key]) for key in self]


def quoted() -> Iterator[tuple[str, list[str]]]:
    """(file, path) of every number that a page quotes."""
    for page in PAGES:
        for key in ROLE.findall(page.read_text(encoding="utf-8")):
            name, parts = results._split(key)
            yield name.removeprefix("mini/"), parts


def read_by_code(trees: dict[str, dict], monkeypatch) -> Iterator[tuple[str, list[str]]]:
    """(file, path) of what pages read when their cells run, and the command's report."""
    logs = {name: [] for name in trees}
    lent = {name: Read(tree, logs[name]) for name, tree in trees.items()}
    load, plain = results.load, dict(trees)
    monkeypatch.setattr(results, "load", lambda path: lent.get(path.stem) or load(path))
    summaries.report({name: lent[name] for name in ("reliance", "faithfulness")})
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        space = {"__name__": "__main__", "print": lambda *words: None}
        for cell in CELL.findall(text) if "results.load(" in text else ():
            exec(compile(ast.parse(cell), page.name, "exec"), space)
            plt.close("all")
    assert plain == trees
    for name, paths in logs.items():
        yield from ((name, list(path)) for path in paths)


def test_families_by_hand():
    whole = {"value": 1.0, "low": 0.5, "high": 2.0}
    tree = {
        "provenance": {"n": 1},
        "models": {"a": {"gap": whole, "n": 3}, "b": {"gap": whole, "n": 4}},
    }
    assert set(families(tree)) == {("models", "*", "gap"), ("models", "*", "n")}
    assert family(tree, ["models", "a", "gap", "low"]) == ("models", "*", "gap")
    log = []
    for part in Read(tree, log)["models"].values():
        assert part["gap"] | {} == whole
    assert {family(tree, path) for path in log} == {("models", "*", "gap")}


@pytest.mark.slow
def test_every_number_is_used(monkeypatch):
    folder = data_dir() / "results" / "mini"
    files = {name: folder / f"{name}.json" for name in summaries.SUMMARIES}
    trees = {n: json.loads(f.read_text(encoding="utf-8")) for n, f in files.items() if f.is_file()}
    used = {(n, family(trees[n], parts)) for n, parts in quoted() if n in trees}
    used |= {(n, family(trees[n], parts)) for n, parts in read_by_code(trees, monkeypatch)}
    idle = {(n, kind) for n, tree in trees.items() for kind in families(tree)} - used
    assert not idle, "\n".join(f"{name}: {'.'.join(kind)}" for name, kind in sorted(idle))
