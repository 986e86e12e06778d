"""Every committed summary is what the committed tables give, leaf by leaf."""

import json
import math
import shutil
from collections.abc import Iterator

import pytest

from lvlm_study.chapters.summaries import SUMMARIES, write_summaries
from lvlm_study.paths import data_dir

TOLERANCE = 1e-9  # relative


def leaves(tree, path: str = "") -> Iterator[tuple[str, object]]:
    """(path, number or word) of every leaf; an empty part of a tree is a leaf too."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in parts:
        if isinstance(value, dict | list) and value:
            yield from leaves(value, f"{path}[{key}]")
        else:
            yield f"{path}[{key}]", value


def apart(one: dict, other: dict) -> list[str]:
    """What two trees disagree on; where and when they were made does not count."""
    a, b = (dict(leaves({k: v for k, v in t.items() if k != "provenance"})) for t in (one, other))
    found = [f"{path} is in one only" for path in a.keys() ^ b.keys()]
    return found + [f"{p}: {a[p]} and {b[p]}" for p in a.keys() & b.keys() if not same(a[p], b[p])]


def same(one, other) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-15)
    return type(one) is type(other) and one == other


def test_what_counts_as_apart():
    tree = {"provenance": {"n": 1}, "models": {"m": {"gap": 0.5, "said": "no"}}, "none": {}}
    near = {"models": {"m": {"gap": 0.5 + 1e-11, "said": "no"}}, "none": {}, "provenance": {}}
    assert apart(tree, near) == []
    assert apart(tree, near | {"none": None}) == ["[none]: {} and None"]
    assert apart(tree, near | {"models": {"m": {"gap": 0.5001, "said": "no"}}})
    assert apart(tree, near | {"models": {"m": {"gap": None, "said": "no"}}})
    assert len(apart({"a": {"b": 1}}, {"a": {"c": 1}})) == 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The summaries made again from a copy of the tables; several minutes."""
    folder = tmp_path_factory.mktemp("results") / "mini"
    shutil.copytree(data_dir() / "results" / "mini", folder)
    return write_summaries(folder, "mini", 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_is_what_the_tables_give(made, name):
    path = data_dir() / "results" / "mini" / f"{name}.json"
    committed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = apart(json.loads(json.dumps(made.get(name, {}))), committed)
    assert not found, f"{len(found)} leaves, first {sorted(found)[:5]}"
