"""The house: every room uses only what lies below it, and a newcomer finds few doors on top."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. A room knows itself and what stands on a lower floor; two rooms of one floor
# do not know each other. Nothing but the commands knows chapters or zoo.
FLOORS = (
    ("errors",),
    ("paths", "figures"),
    ("pixels",),
    ("scenes", "models"),
    ("answers",),
    ("benchmarks",),
    ("judging",),
    ("heatmaps",),
    ("metrics",),
    ("detector",),
    ("sweep",),
    ("chapters",),
    ("zoo",),  # trains the mini models: may use everything
    ("cli",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
FILES, FOLDERS = 8, 10  # at most, on top of the package
BY_STRING = {"import_module", "__import__", "exec", "spec_from_file_location", "run_module"}
MEDIAN, MOST, LONGEST = 8, 19, 60  # lines of a function: of half, of nine in ten, of any
LAZY = {"__init__", "chapters.summaries"}  # public names, and the list of chapters


def modules(package: Path) -> dict[str, ast.Module]:
    """'heatmaps.igos' -> its tree; a package's own file is 'heatmaps.__init__'."""
    files = sorted(package.rglob("*.py"))
    names = [".".join(p.relative_to(package).with_suffix("").parts) for p in files]
    return {n: ast.parse(p.read_text(encoding="utf-8")) for n, p in zip(names, files, strict=True)}


def imported(name: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, 'room.module.name') of every import of the package, wherever it stands."""
    here = ["lvlm_study", *name.split(".")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if inside(a.name))
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{a.name}") for a in node.names if inside(base))


def inside(module: str) -> bool:
    return module.split(".")[0] == "lvlm_study"


def upwards(name: str, tree: ast.AST) -> Iterator[str]:
    """Imports that do not run downwards; the package itself, with its public names, is the roof."""
    own = name.split(".")[0]
    for line, target in imported(name, tree):
        room = (target.split(".") + [""])[1]
        if room != own and FLOOR.get(room, len(FLOORS)) >= FLOOR.get(own, -1):
            yield f"{name}:{line} imports {target}"


def by_string(name: str, tree: ast.AST) -> Iterator[str]:
    """Whatever can import what a string names: only public names and chapters are found so."""
    for node in ast.walk(tree) if name not in LAZY else ():
        if {last(node), getattr(node, "name", "")} & BY_STRING:
            yield f"{name}:{getattr(node, 'lineno', 1)} imports by string"


def families(trees: dict[str, ast.Module]) -> set[str]:
    """The classes of models/ that inherit from `Adapter`, at any remove."""
    parents = {
        node.name: {last(base) for base in node.bases}
        for name, tree in trees.items()
        if name.startswith("models.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found, new = set(), {"Adapter"}
    while new:
        found |= new
        new = {child for child, above in parents.items() if above & found} - found
    return found - {"Adapter"}


def between_chapters(name: str, tree: ast.AST) -> Iterator[str]:
    """A chapter that imports another: what two share belongs in compare, annotate or figures."""
    start = "lvlm_study.chapters.ch"
    for line, target in imported(name, tree) if name.startswith("chapters.") else ():
        if re.match(rf"{start}\d\d_", target) and not target.startswith(f"lvlm_study.{name}"):
            yield f"{name}:{line} imports {target}"


def last(node: ast.AST) -> str:
    """The name of `name` and of `some.where.name`."""
    return getattr(node, "id", None) or getattr(node, "attr", "")


def ladders(name: str, tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Questions which family a model is of, outside models/: the family should answer itself."""
    for node in ast.walk(tree) if not name.startswith("models.") else ():
        if isinstance(node, ast.Call) and last(node.func) in ("isinstance", "issubclass"):
            asked = node.args[1:]
        elif isinstance(node, ast.Compare | ast.MatchClass):
            asked = [node]
        else:
            continue
        if kinds := {last(n) for part in asked for n in ast.walk(part)} & known:
            yield f"{name}:{node.lineno} asks for {', '.join(sorted(kinds))}"


def crowd(package: Path) -> Iterator[str]:
    """More on top than a newcomer can take in, and doors that no floor knows."""
    kinds = (".py", ".md")
    doors = [p for p in package.iterdir() if p.suffix in kinds or (p / "__init__.py").exists()]
    files = [p.name for p in doors if p.is_file()]
    if len(files) > FILES:
        yield f"{len(files)} files on top: {', '.join(sorted(files))}"
    if len(doors) - len(files) > FOLDERS:
        yield f"{len(doors) - len(files)} folders on top"
    yield from (
        f"{p.name} has no floor" for p in doors if p.stem not in (*FLOOR, "__init__", "README")
    )


def breaches(package: Path) -> list[str]:
    """Every place where the house breaks its rules."""
    trees = modules(package)
    known, found = families(trees), list(crowd(package))
    for name, tree in trees.items():
        found += [*upwards(name, tree), *by_string(name, tree), *ladders(name, tree, known)]
        found += between_chapters(name, tree)
    return found


def test_the_house_keeps_its_rules():
    found = breaches(ROOT / "lvlm_study")
    assert not found, "\n".join(found)
    doors = {p.stem for p in (ROOT / "lvlm_study").iterdir()}
    assert FLOOR.keys() <= doors, "a floor that nobody lives on"
    rooms = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and list(p.glob("*.py"))}
    assert rooms <= FLOOR.keys(), "tests stand in folders of the rooms' names"


def lengths(trees: dict[str, ast.Module]) -> dict[str, int]:
    """Lines of every function, methods and functions inside functions too, without decorators."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {
        f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    }


def test_functions_are_short():
    found = lengths(modules(ROOT / "lvlm_study"))
    assert statistics.median(found.values()) <= MEDIAN
    assert statistics.quantiles(found.values(), n=10)[-1] <= MOST
    assert {name: n for name, n in found.items() if n > LONGEST} == {}


def test_every_function_is_counted(tmp_path):
    (tmp_path / "a.py").write_text(
        "class A:\n    def f(self):\n        def g():\n            return 1\n        return g\n"
        "    def f(self): ...\n"
    )
    assert lengths(modules(tmp_path)) == {"a:2 f": 4, "a:3 g": 2, "a:6 f": 1}


LLAVA = {"models/base.py": "class Adapter: ...", "models/llava.py": "class Llava(Adapter): ..."}


@pytest.mark.parametrize(
    ("files", "breach"),
    [
        ({"pixels/a.py": "from ..errors import E"}, None),
        ({"zoo/a.py": "from ..chapters.b import c", "cli.py": "from .zoo import d"}, None),
        ({"heatmaps/a.py": "from ..benchmarks import b; from . import c"}, None),
        ({"pixels/a.py": "from ..scenes import b"}, "pixels.a:1 imports lvlm_study.scenes.b"),
        ({"models/a.py": "from ..scenes.b import c"}, "models.a:1 imports lvlm_study.scenes.b.c"),
        ({"scenes/a.py": "import lvlm_study.models"}, "scenes.a:1 imports lvlm_study.models"),
        ({"sweep/a.py": "def f():\n    from .. import zoo"}, "sweep.a:2 imports lvlm_study.zoo"),
        ({"sweep/a.py": "def f():\n    import lvlm_study"}, "sweep.a:2 imports lvlm_study"),
        ({"metrics/a.py": "from lvlm_study import explain"}, "metrics.a:1 imports lvlm_study.exp"),
        ({"models/__init__.py": "from ..zoo import b"}, "models.__init__:1 imports lvlm_study.zoo"),
        ({"sweep/a.py": "from importlib import import_module as f"}, "sweep.a:1 imports by string"),
        ({"sweep/a.py": "import_module('os')"}, "sweep.a:1 imports by string"),
        ({"sweep/a.py": "x = importlib.import_module(y)"}, "sweep.a:1 imports by string"),
        ({"zoo/a.py": "__import__('lvlm_study.cli')"}, "zoo.a:1 imports by string"),
        ({"chapters/ch01_a.py": "from .compare import b; from . import annotate"}, None),
        (
            {"chapters/ch01_a.py": "def f():\n    from .ch02_b import c"},
            "chapters.ch01_a:2 imports lvlm_study.chapters.ch02_b.c",
        ),
        (
            {"chapters/compare.py": "from . import ch02_b"},
            "chapters.compare:1 imports lvlm_study.chapters.ch02_b",
        ),
        (LLAVA | {"models/c.py": "isinstance(x, Llava)"}, None),
        (LLAVA | {"zoo/a.py": "isinstance(x, Adapter)"}, None),
        (LLAVA | {"zoo/a.py": "isinstance(x, int | llava.Llava)"}, "zoo.a:1 asks for Llava"),
        (
            LLAVA | {"models/c.py": "class Next(Llava): ...", "heatmaps/a.py": "type(x) is Next"},
            "heatmaps.a:1 asks for Next",
        ),
        ({f"{letter}.py": "" for letter in "abcdefghi"}, "9 files on top: a.py, b.py"),
        ({f"{letter}/__init__.py": "" for letter in "abcdefghijk"}, "11 folders on top"),
        ({"attic/__init__.py": ""}, "attic has no floor"),
    ],
)
def test_a_breach_is_seen(tmp_path, files, breach):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = breaches(tmp_path)
    assert (found == []) if breach is None else found[0].startswith(breach)
