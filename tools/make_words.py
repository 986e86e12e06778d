"""Make the maps of single words behind the book's explorer: `book/_static/explorer-words.js`.

Runs `explain_tokens` on the items of the explorer for the model and method that it opens with
(five minutes on one core).
A run that was stopped goes on where it was; remove the
file when that model or method changes.
"""

import base64
import json
import sys
from pathlib import Path

import explorer
import numpy as np

import lvlm_study as ls
from lvlm_study.answers import chosen_spans
from lvlm_study.figures import share
from lvlm_study.paths import data_dir, replacing

OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "explorer-words.js"


def word(part) -> list:
    """First and last character of a word, its status, and its map, a byte a cell, if it has one."""
    spans = chosen_spans(part.answer, part.reliance.crucial)
    place = [spans[0][0], spans[-1][1], part.status]
    if part.status != "ok":
        return place
    small = np.asarray(part.saliency, np.float32)
    rows, columns = (length // explorer.CELLS for length in small.shape)
    small = small[: rows * explorer.CELLS, : columns * explorer.CELLS]
    cells = small.reshape(explorer.CELLS, rows, explorer.CELLS, columns).mean((1, 3))
    packed = (share(cells, 0.0, 1.0) * 255).round().astype(np.uint8)
    return [*place, base64.b64encode(packed.tobytes()).decode()]


def known() -> dict:
    """What an earlier run has made: a run that was stopped goes on where it was."""
    if not OUT.is_file():
        return {}
    return json.loads(OUT.read_text(encoding="utf-8").split(" = ", 1)[1].rstrip(";\n"))["items"]


def main() -> int:
    frame = explorer.shown(data_dir() / "results" / "mini")
    items = [i for i in explorer.chosen(frame) if i.benchmark == explorer.FLAT]
    first = [e["item"] for e in explorer.examples(frame, items)]
    model, found = ls.load_model(explorer.MODEL), known()
    for item in sorted(items, key=lambda item: item.id not in first):
        if item.id in found:
            continue
        parts = ls.explain_tokens(model, item, method="igos", preset="fast")
        found[item.id] = {"answer": parts[0].answer.text, "words": [word(part) for part in parts]}
        tree = {"model": explorer.MODEL, "method": explorer.METHOD, "items": found}
        text = json.dumps(tree, separators=(",", ":"))
        with replacing(OUT) as part:
            part.write_text(f"lvlmExplorer.words = {text};\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
