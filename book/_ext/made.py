"""Says below each figure of a chapter which function drew it, with links to code and results.

The function is the last one of the package that a line of the figure's cell begins with. A
published book links to its repository; a local one to copies of the few files beside the pages, so
that the links work without a network too. One long page, as for the PDF, has no links.
"""

import json
import re
import shutil
from pathlib import Path

from docutils import nodes

ROOT = Path(__file__).resolve().parents[2]
CALL = re.compile(r"^\s*(?:[\w, ]+ = )?(?:(\w+)\.)?([a-z]\w*)\(", re.M)
IMPORT = re.compile(r"^from (lvlm_study[\w.]*) import ([\w, ]+)$", re.M)
COPIES = "_static/made"


def modules(code: str) -> dict[str, str]:
    """What the code imports from the package: {name: module path, "" for a module itself}."""
    found = {"ls": "lvlm_study"}
    for module, names in IMPORT.findall(code):
        for name in re.split(r",\s*", names.strip()):
            found[name] = module
    return found


def maker(cell: str, known: dict[str, str]) -> tuple[str, str] | None:
    """(file of the package, "module.function") of the last line that calls one of its functions."""
    found = None
    for owner, name in CALL.findall(cell):
        module = known.get(owner) if owner else known.get(name)
        if module is None:
            continue
        if owner and owner != "ls":
            module = f"{module}.{owner}"
        file = Path(*module.split(".")).with_suffix(".py")
        if (ROOT / file).is_file() and f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"):
            found = str(file), f"{module.rpartition('.')[2]}.{name}"
    return found


def link(app, path: str, text: nodes.Node) -> nodes.Node:
    """`text`, as a link to a file of the repository where the reader can have one."""
    options = app.config.html_theme_options
    if options.get("use_repository_button"):  # else Jupyter Book puts in its own repository
        where, branch = options["repository_url"], options.get("repository_branch", "main")
        uri = f"{where}/blob/{branch}/{path}"
    elif app.builder.name == "html" and (ROOT / path).is_file():
        name = path.replace("/", "-") + (".txt" if path.endswith(".py") else "")
        app.made_copies = getattr(app, "made_copies", {}) | {name: path}
        uri = app.builder.get_relative_uri(app.made_page, "index")
        uri = uri.rpartition("index")[0] + f"{COPIES}/{name}"
    else:
        return text
    return nodes.reference("", "", text, refuri=uri, internal=False)


def legend(app, drawn: tuple[str, str], data: list[str]) -> nodes.legend:
    """The line: drawn by what, and what the page reads."""
    line = nodes.paragraph("", "Drawn by ", classes=["made"])
    line += link(app, drawn[0], nodes.literal("", drawn[1]))
    read = [name.removeprefix("./") for name in data]
    for place, path in enumerate(p for p in read if p.startswith(("results/", "paper/"))):
        line += nodes.Text("; the page reads " if place == 0 else ", ")
        line += link(app, f"data/{path}", nodes.inline("", path))
    line += nodes.Text(".")
    return nodes.legend("", line)


def add(app, doctree, page: str) -> None:
    """Put the line below every figure that a cell of a chapter has drawn."""
    notebook = ROOT / f"{page}.ipynb"
    if not page.startswith("notebooks/") or not notebook.exists():
        return
    tree, app.made_page = json.loads(notebook.read_text(encoding="utf-8")), page
    code = "\n".join("".join(c["source"]) for c in tree["cells"] if c["cell_type"] == "code")
    data, known = tree["metadata"].get("lvlm_study", {}).get("data", []), modules(code)
    cells = (n for n in doctree.findall(nodes.container) if n.get("nb_element") == "cell_code")
    for cell in cells:
        source = [n.astext() for n in cell.findall(nodes.literal_block)][:1]
        drawn = maker(source[0], known) if source else None
        for figure in cell.findall(nodes.figure) if drawn else ():
            figure += legend(app, drawn, data)


def copy(app, exception) -> None:
    """The files that local pages link to, beside the pages."""
    for name, path in getattr(app, "made_copies", {}).items() if exception is None else ():
        target = Path(app.outdir) / COPIES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)


def setup(app):
    app.connect("doctree-resolved", add)
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
