"""What a notebook rests on: its code cells, the code that they import, the data that it declares.

The *stamp* of a notebook is a sha256 over these three; a notebook with another stamp is stale.
The code is the cells' own import closure within the package, found by reading alone: imports
inside functions count, and so do the packages on the way, since Python runs those too. Comments and
docstrings do not count. A chapter that a notebook does not import cannot make it stale.
"""

import ast
import functools
import hashlib
import io
import json
import re
import shutil
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "lvlm_study"
LAZY = "_HOME"  # in the package's __init__: public name -> the module that has it
MAGIC = re.compile(r"^(\s*)[!%].*", re.M)  # lines that are no Python


def stamp(notebook: dict, root: Path) -> str:
    """sha256 over the notebook's code cells, the code that they import and its data."""
    digest = hashlib.sha256(json.dumps(cells(notebook)).encode())
    for file in modules(notebook, root):
        _add(digest, file, root, bare_code(file.read_text(encoding="utf-8")).encode())
    for file in manifest(notebook, root):
        _add(digest, file, root, file.read_bytes())
    return digest.hexdigest()


def _add(digest, file: Path, root: Path, content: bytes) -> None:
    digest.update(file.relative_to(root).as_posix().encode())
    digest.update(hashlib.sha256(content).digest())


def cells(notebook: dict) -> list[str]:
    """The text of every code cell."""
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def manifest(notebook: dict, root: Path) -> list[Path]:
    """Every file that the notebook declares, folders opened up; a name that is not there fails.

    What git ignores is left out: a lock that a run leaves is in no other clone.
    """
    files = set()
    for name in notebook["metadata"].get("lvlm_study", {}).get("data", []):
        place = root / "data" / name
        if not place.exists():
            raise FileNotFoundError(f"the notebook declares data/{name}, which does not exist")
        files |= {place} if place.is_file() else {p for p in place.rglob("*") if p.is_file()}
    return sorted(files - ignored(files, root))


def ignored(files: Iterable[Path], root: Path) -> set[Path]:
    """Those of the files that git ignores; none where `root` is no repository."""
    if not shutil.which("git"):
        return set()
    names = "\0".join(str(file) for file in files)
    ask = ["git", "check-ignore", "-z", "--stdin"]
    told = subprocess.run(ask, cwd=root, input=names, capture_output=True, text=True).stdout
    return {Path(name) for name in told.split("\0") if name}


def modules(notebook: dict, root: Path) -> list[Path]:
    """Every file of the package that the cells import, at any remove."""
    found: set[Path] = set()
    new = _files(imported(MAGIC.sub(r"\1pass", "\n".join(cells(notebook)))), root)
    while new:
        found |= new
        new = {f for file in new for f in _files(_imported_by(file, root), root)} - found
    return sorted(found)


def _imported_by(file: Path, root: Path) -> frozenset[str]:
    here = ".".join(file.parent.relative_to(root).parts)
    return imported(file.read_text(encoding="utf-8"), here)


@functools.cache
def imported(code: str, here: str = "") -> frozenset[str]:
    """'lvlm_study.room.module.name' of every import of the package in code of the package `here`.

    `import lvlm_study as ls` counts by what is used of it: `ls.explain` is lvlm_study.explain.
    """
    found, aliases, above = set(), set(), here.split(".")
    nodes = list(ast.walk(ast.parse(code)))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
            aliases |= {a.asname or PACKAGE for a in node.names if a.name.split(".")[0] == PACKAGE}
        elif isinstance(node, ast.ImportFrom):
            start = above[: len(above) - node.level + 1] if node.level else []
            base = [*start, *([node.module] if node.module else [])]
            found |= {".".join([*base, a.name]) for a in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in aliases:
            found.add(f"{PACKAGE}.{node.attr}")
    return frozenset(name for name in found if name.split(".")[0] == PACKAGE)


def _files(names: frozenset[str], root: Path) -> set[Path]:
    return {file for name in names for file in files_of(name, root)}


def files_of(name: str, root: Path) -> Iterator[Path]:
    """The files that Python runs for a dotted name: packages on the way, then the module."""
    place = root
    for part in name.split("."):
        place = place / part
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if not file.is_file():  # a name inside the module above; of the package's own, a lazy one
            if place.parent == root / PACKAGE and (home := _homes(root).get(part)):
                yield from files_of(f"{PACKAGE}.{home}", root)
            return
        yield file


def _homes(root: Path) -> dict[str, str]:
    return _table((root / PACKAGE / "__init__.py").read_text(encoding="utf-8"))


@functools.cache
def _table(code: str) -> dict[str, str]:
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == LAZY:
            return ast.literal_eval(node.value)
    return {}


@functools.cache
def bare_code(text: str) -> str:
    """The lines that do something: rewording a docstring must not make a notebook stale."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            first, last = node.body[0].lineno, node.body[0].end_lineno
            lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())
