"""Notebooks from their sources, executed, and proof that they are fresh.

`notebooks/NN_name.md` is what people edit. `NN_name.ipynb` is made from it here, executed, and
committed with its outputs, so that the book, GitHub and Colab show it without a model or a GPU.

    python tools/notebooks.py build    make and execute the notebooks that are stale
    python tools/notebooks.py check    say which are stale (reads files only, milliseconds)
    python tools/notebooks.py rerun    execute all again and compare with what is committed
    python tools/notebooks.py rerun --profile paper    execute all on it, into _build/paper

A notebook is stale when its *stamp* no longer matches (see `freshness`): a sha256 of its code
cells, of the modules that they import, at any remove, and of the data that it declares in the
header of its source:

    lvlm_study: {data: [photos, results/mini/q1.json]}

A file under `data/` that a notebook opens without declaring it is an error, and so is a module that
it runs and the stamp does not cover, so that no change goes unseen. Where only prose or captions
changed, the outputs are carried over unexecuted.

A notebook that runs on more than one profile says `profile = "mini"` in a cell with the tag
"parameters". `--profile` puts a cell with another value behind it and reads `results/paper`
wherever `results/mini` is declared; what is committed stays as it is. A name with a dot in front,
`./results/mini/q1.json`, is read on every profile: no other can have it.
"""

import argparse
import base64
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from freshness import PACKAGE, manifest, modules, stamp

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds for one cell
SETUP = """\
# On Colab this fetches the study and its data; where they are installed it does nothing.
import importlib.util
import os
import sys

if importlib.util.find_spec("lvlm_study") is None:
    ask = "Address of the study's repository, https://...: "
    address = os.environ.get("LVLM_STUDY_REPOSITORY") or input(ask)
    !git clone --quiet --depth 1 {address} study && pip install --quiet -e study
    %cd study
    sys.path.insert(0, os.getcwd())"""
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?|-?\d+")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # "<object at 0x7f...>" differs from run to run


def sources(folder: Path) -> list[Path]:
    """The sources of a folder, in the order of their numbers."""
    return sorted(folder.glob("[0-9][0-9]_*.md"))


# --- from .md to .ipynb


def make(source: Path):
    """The notebook of a source, with `SETUP` before its first code.

    Cell ids are the stem and the cell's place, so diffs stay small.
    """
    import jupytext
    import nbformat

    notebook = jupytext.read(source)
    codes = [n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    setup = nbformat.v4.new_code_cell(SETUP, metadata={"tags": ["remove-cell"]})
    notebook.cells.insert(codes[0] if codes else len(notebook.cells), setup)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{place:02d}".replace("_", "-")[:64]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "lvlm_study": {"data": sorted(notebook.metadata.get("lvlm_study", {}).get("data", []))},
    }
    return notebook


def write(notebook, path: Path) -> None:
    """Write in one move: an interrupted build leaves the old notebook, never half a new one."""
    import nbformat

    part = path.with_suffix(".ipynb.partial")
    nbformat.write(notebook, part)
    os.replace(part, path)


# --- profiles


def with_profile(notebook, profile: str) -> bool:
    """Set a notebook's `profile`, in place; False when it has no cell tagged "parameters"."""
    import nbformat

    for place, cell in enumerate(notebook.cells):
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            new = nbformat.v4.new_code_cell(f"profile = {profile!r}", id="injected-profile")
            new.metadata["tags"] = ["injected-parameters"]
            notebook.cells.insert(place + 1, new)
            break
    else:
        return False
    about = notebook.metadata.setdefault("lvlm_study", {})
    swapped = [re.sub(r"^results/mini\b", f"results/{profile}", n) for n in about.get("data", [])]
    about["data"] = swapped
    return True


def run_profile(source: Path, profile: str, out: Path, root: Path = ROOT) -> str:
    """Execute one notebook on a profile and write it into `out`; says how that went."""
    from nbclient.exceptions import CellExecutionError

    notebook = make(source)
    if not with_profile(notebook, profile):
        return "has no cell tagged 'parameters', so it knows no profile"
    try:
        execute(notebook, root)
    except FileNotFoundError as error:
        return f"not yet run: {error}; first run 'lvlm-study run --profile {profile}'"
    except CellExecutionError as error:  # what one page cannot do must not stop the others
        return f"failed: {error.ename}: {error.evalue}"
    out.mkdir(parents=True, exist_ok=True)
    write(notebook, out / source.with_suffix(".ipynb").name)
    return f"written to {out / source.stem}.ipynb"


# --- executing

# Runs in the kernel before the first cell: notes each file under data/ that Python opens.
WATCH = """
def _watch():
    import os, sys
    root = {data!r} + os.sep
    seen = set()
    def hook(event, args):
        if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.realpath(os.fsdecode(args[0]))
            if path.startswith(root):
                seen.add(path)
    sys.addaudithook(hook)
    return seen
_opened_data = _watch()
"""
OPENED = "print('\\n'.join(sorted(_opened_data)))"
RUN = """
def _run(root):
    import os, sys
    files = {{os.path.realpath(getattr(m, "__file__", None) or "") for m in sys.modules.values()}}
    print("\\n".join(sorted(f for f in files if f.startswith(root + os.sep))))
_run({package!r})
"""


def execute(notebook, root: Path = ROOT) -> None:
    """Run in place, from `root`, without timings; then check that the stamp covers what it used."""
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(root)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    declared = manifest(notebook, root)  # what is not there is told before anything runs
    data, package = os.path.realpath(root / "data"), os.path.realpath(root / PACKAGE)
    with client.setup_kernel(env=kernel_environment(root)):
        ask(client, WATCH.format(data=data))
        for place, cell in enumerate(notebook.cells[:]):
            client.execute_cell(cell, place)
        opened, run = ask(client, OPENED), ask(client, RUN.format(package=package))
    covered(opened, declared, data, "opened data that the header does not declare")
    covered(run, modules(notebook, root), package, "ran code that its imports do not name")


def covered(used: str, known: list[Path], folder: str, what: str) -> None:
    """ValueError where a notebook used files (one a line) that its stamp does not know."""
    known = {os.path.realpath(file) for file in known}
    extra = [os.path.relpath(p, folder) for p in used.split("\n") if p and p not in known]
    if extra:
        raise ValueError(f"{what}: {', '.join(extra[:5])}")


def kernel_environment(root: Path) -> dict[str, str]:
    """The package of `root`, one thread, no network: the same outputs on every machine."""
    fixed = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return os.environ | fixed | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def ask(client, code: str) -> str:
    """What the kernel prints for `code`, run outside of the notebook's own cells."""
    import nbformat

    client.nb.cells.append(nbformat.v4.new_code_cell(code))  # nbclient runs cells of its notebook
    client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1, store_history=False)
    cell = client.nb.cells.pop()
    return "".join(text for kind, text in outputs(cell) if kind == "stream")


def build(source: Path, root: Path = ROOT, force: bool = False) -> str:
    """Bring one notebook up to date; says what that took: executed, rewritten or nothing."""
    path, notebook = source.with_suffix(".ipynb"), make(source)
    mark = stamp(notebook, root)
    kept = read(path)
    if not force and kept and stamp_of(kept) == mark:
        if content(kept) == content(notebook):
            return "nothing"
        carry_over(kept, notebook)
        done = "rewritten"
    else:
        execute(notebook, root)
        done = "executed"
    notebook.metadata["lvlm_study"]["stamp"] = mark
    write(notebook, path)
    return done


def carry_over(kept: dict, notebook) -> None:
    """The outputs of `kept` into `notebook`, whose code cells are the same."""
    old = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    new = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for before, after in zip(old, new, strict=True):
        after.outputs, after.execution_count = before["outputs"], before["execution_count"]


# --- checking


def read(path: Path) -> dict | None:
    """A notebook, outputs and all, or None where there is none."""
    import nbformat

    return nbformat.read(path, 4) if path.exists() else None


def stamp_of(notebook: dict) -> str:
    return notebook["metadata"].get("lvlm_study", {}).get("stamp", "")


def content(notebook: dict) -> list:
    """What a person wrote: every cell's text and settings, and the declared data."""
    cells = [(c["cell_type"], c["source"], c["id"], dict(c["metadata"])) for c in notebook["cells"]]
    return [cells, notebook["metadata"].get("lvlm_study", {}).get("data", [])]


def stale(source: Path, root: Path = ROOT) -> str:
    """Why the notebook of `source` must be built again; empty when it need not."""
    path, notebook = source.with_suffix(".ipynb"), make(source)
    kept = read(path)
    if kept is None:
        return f"{source.name} has no notebook"
    try:
        if stamp_of(kept) != stamp(notebook, root):
            return f"{path.name} is older than its cells, the code that they import, or its data"
    except FileNotFoundError as error:
        return f"{source.name}: {error}"
    if content(kept) != content(notebook):
        return f"{path.name} does not match its source; edit {source.name} only"
    return ""


def differences(path: Path, root: Path = ROOT) -> list[str]:
    """Execute a committed notebook again in memory and tell where its outputs differ."""
    kept, again = read(path), read(path)
    execute(again, root)
    found = []
    for place, (old, new) in enumerate(zip(kept.cells, again.cells, strict=True)):
        found += [f"{path.name} cell {place}: {why}" for why in compare(old, new)]
    return found


def compare(old, new) -> Iterator[str]:
    before, after = list(outputs(old)), list(outputs(new))
    kinds = [[kind for kind, _ in found] for found in (before, after)]
    if kinds[0] != kinds[1]:
        yield f"kinds of output were {kinds[0]}, are {kinds[1]}"
        return
    for (kind, was), (_, now) in zip(before, after, strict=True):
        same = same_picture if kind == "image/png" else same_text
        if not same(was, now):
            yield f"{kind} was {was[:80]!r}, is {now[:80]!r}"


def outputs(cell) -> Iterator[tuple[str, str]]:
    for out in cell.get("outputs", []):
        if out["output_type"] == "stream":
            yield "stream", "".join(out["text"])
        else:
            for kind, data in sorted(out.get("data", {}).items()):
                yield kind, data if isinstance(data, str) else json.dumps(data, sort_keys=True)


def same_text(was: str, now: str, relative: float = 1e-4) -> bool:
    """Equal outside its numbers, and the numbers equal within `relative` (or 1e-6)."""
    was, now = ADDRESS.sub("", was), ADDRESS.sub("", now)
    if NUMBER.sub("#", was) != NUMBER.sub("#", now):
        return False
    pairs = zip(NUMBER.findall(was), NUMBER.findall(now), strict=True)
    return all(abs(float(a) - float(b)) <= 1e-6 + relative * abs(float(b)) for a, b in pairs)


def same_picture(was: str, now: str, tolerance: float = 2.0) -> bool:
    """Equal size, and within `tolerance` of 255 grey levels on average (fonts differ a little)."""
    import numpy as np
    from PIL import Image

    a, b = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.float32)
        for data in (was, now)
    )
    return a.shape == b.shape and float(np.abs(a - b).mean()) < tolerance


# --- commands


def run_build(found: list[Path], force: bool) -> int:
    for source in found:
        print(f"{source.stem}: {build(source, force=force)}", flush=True)
    return 0


def run_check(found: list[Path]) -> int:
    reasons = [why for source in found if (why := stale(source))]
    print("\n".join(reasons) or f"{len(found)} notebooks are fresh")
    return bool(reasons)


def run_rerun(found: list[Path]) -> int:
    wrong = []
    for source in found:
        here = differences(source.with_suffix(".ipynb"))
        print(f"{source.stem}: {'differs' if here else 'same'}", flush=True)
        wrong += here
    print("\n".join(wrong))
    return bool(wrong)


def run_profiles(found: list[Path], profile: str) -> int:
    told = {s.stem: run_profile(s, profile, ROOT / "_build" / profile) for s in found}
    for stem, how in told.items():
        print(f"{stem}: {how}", flush=True)
    return not all(how.startswith("written") for how in told.values())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["build", "check", "rerun"])
    parser.add_argument("names", nargs="*", help="stems like 00_quickstart; all when none is named")
    parser.add_argument("--all", action="store_true", help="build the fresh ones too")
    parser.add_argument("--profile", help="with rerun: mini, paper or hub, into _build/PROFILE")
    asked = parser.parse_args(arguments)
    found = sources(ROOT / "notebooks")
    if unknown := set(asked.names) - {source.stem for source in found}:
        parser.error(f"no notebook named {', '.join(sorted(unknown))}")
    found = [s for s in found if not asked.names or s.stem in asked.names]
    if asked.profile and asked.command != "rerun":
        parser.error("--profile goes with rerun")
    if asked.profile:
        return run_profiles(found, asked.profile)
    if asked.command == "build":
        return run_build(found, asked.all)
    return run_check(found) if asked.command == "check" else run_rerun(found)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    sys.exit(main())
