"""Ends each chapter with its version: when it last changed, in which commit, run with what.

The commit is git's, of the chapter's source and not of the book; without git (an unpacked archive)
that part is left out. The versions are the pinned ones that the chapter was executed with.
"""

import json
import subprocess
from pathlib import Path

from docutils import nodes

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("torch", "transformers", "numpy", "pillow")


def last_change(source: Path) -> str:
    """The day and commit of a file's last change, as in 2026-11-22 (400144b); "" without git."""
    command = ["git", "log", "-1", "--format=%cs (%h)", "--", str(source)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def pinned() -> str:
    """Name and version of the packages that a chapter's numbers depend on most."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line and line[0] != "#")
    return ", ".join(f"{name} {versions[name]}" for name in SHOWN if name in versions)


def sentence(notebook: Path) -> str:
    """The whole line under a chapter."""
    changed = last_change(notebook.with_suffix(".md"))
    stamp = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
    stamp = stamp.get("lvlm_study", {}).get("stamp", "")[:8]
    parts = [f"text of {changed}"] if changed else []
    parts += [f"executed outputs {stamp}"] if stamp else []
    return f"Version of this chapter: {'; '.join([*parts, pinned()])}."


def add(app, doctree) -> None:
    """Put the line at the end of a chapter's last section."""
    name = app.env.docname
    notebook = ROOT / f"{name}.ipynb"
    if not name.startswith("notebooks/") or not notebook.exists():
        return
    line = nodes.paragraph("", sentence(notebook), classes=["chapter-version"])
    sections = [n for n in doctree.children if isinstance(n, nodes.section)]
    (sections[-1] if sections else doctree).append(line)


def setup(app):
    app.connect("doctree-read", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
