"""The role that prints results: {result}`q1.deletion:.3f`.

`lvlm_study/sweep/results.py` says what a key may be; after a colon comes a Python format. The
number carries its origin as a hover text. A key that does not exist is a warning, and the book is
built with warnings as errors, so no page can show a number that the study has not measured.
"""

import importlib
import re
import sys
import types
from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).resolve().parents[2]
log = logging.getLogger(__name__)


def _reader():
    """`lvlm_study.sweep.results` by another name, so that the book is built without torch."""
    package = types.ModuleType("lvlm_study_light")
    package.__path__ = [str(ROOT / "lvlm_study")]
    sys.modules.setdefault("lvlm_study_light", package)
    return importlib.import_module("lvlm_study_light.sweep.results")


def split(text: str) -> tuple[str, str]:
    """'q1[a:b].x:.3f' -> ('q1[a:b].x', '.3f'); a colon inside brackets belongs to the key."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == ":" and depth == 0:
            return text[:place], text[place + 1 :]
    return text, ""


def signed(text: str) -> str:
    """A minus sign where a number has a hyphen; the hyphens of names stay."""
    return re.sub(r"(?<![\w.])-(?=\.?\d)", "−", text)


class ResultRole(SphinxRole):
    def run(self):
        key, spec = split(self.text.strip())
        try:
            result = _reader().read(key, Path(self.config.results_data or ROOT / "data"))
            text = signed(format(result.value, spec))
        except Exception as error:  # whatever is wrong, the page must not come out with a gap
            log.warning("result %r: %s", self.text, error, location=self.get_location())
            return [nodes.Text("?")], []
        self.env.note_dependency(str(result.file))
        origin = signed(result.origin)
        number = nodes.abbreviation(text, text, explanation=origin, classes=["result"])
        return [number], []


def setup(app):
    app.add_config_value("results_data", None, "env")
    app.add_role("result", ResultRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
