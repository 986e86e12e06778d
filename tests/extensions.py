"""The book's own Sphinx extensions as modules, by their names in book/_ext."""

import importlib.util
from pathlib import Path

import pytest


def extension(name: str):
    """The module; the test is skipped without the book's environment."""
    pytest.importorskip("sphinx", reason="sphinx belongs to the book's environment")
    path = Path(__file__).resolve().parents[1] / "book" / "_ext" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"study_ext_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
