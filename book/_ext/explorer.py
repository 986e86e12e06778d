"""Put the explorer's files into the built book: `tools/explorer.py` in a process of its own.

A process of its own, because reading results and drawing scenes needs the whole package and the
build of the book must not. Only the page that a browser shows gets them, not the PDF.
"""

import subprocess
import sys
from pathlib import Path

from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]


def make(app, exception) -> None:
    if exception is not None or app.builder.name != "html":
        return
    out = Path(app.outdir) / "_static" / "explorer"
    command = [sys.executable, str(ROOT / "tools" / "explorer.py"), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ExtensionError(f"the explorer's files could not be made:\n{done.stderr[-2000:]}")


def setup(app):
    app.connect("build-finished", make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
