"""NLVR: sentences that people wrote about drawn scenes, true or false, with exact geometry.

Published layout (github.com/lil-lab/nlvr, CC-BY-4.0): `dev.json`, one JSON object a line, and
`images/{directory}/dev-{identifier}-{k}.png`. A picture is 400 x 100 with three boxes of 100 x 100
that start at x = 0, 150, 300; in permutation k = 0 they stand in the file's order, so only that one
is used.
"""

import re
from pathlib import Path

import numpy as np

from ..errors import StudyError
from .base import Item
from .sources import Row, Source, open_source, pick, read_table

SHAPE, STEP = (100, 400), 150
COLOURS = {"#0099ff": "blue", "yellow": "yellow", "black": "black"}
MENTION = re.compile(
    r"(?:\b(blue|yellow|black)\s+)?\b(circle|square|triangle|block|item|object|shape|thing)s?\b"
)


def nlvr(source: str | Path) -> list[Item]:
    """Every statement as a yes/no question about its picture.

    `evidence` is the union of the objects that the sentence names by colour or shape; all objects
    when it names none, or none such is there. `extra` has statement, objects (shape, colour, box
    x0 y0 x1 y1 in pixels) and named, their indices.
    """
    if not Path(source).is_dir():
        raise StudyError(f"There is no folder {source}; clone github.com/lil-lab/nlvr first.")
    src = open_source(source, "")
    table = src.need("NLVR", "dev.json", "statements.jsonl", "*.json")[0]
    rows = read_table(table, lines=True)
    pictures = {p.name: p for p in src.tables("*-0.png")}
    return [_item(row, table, pictures, src) for row in rows]


def objects_of(row: Row) -> list[dict]:
    """The objects of all three boxes: shape, colour and box (x0, y0, x1, y1) in picture pixels."""
    return [
        {
            "shape": o["type"],
            "color": COLOURS.get(o["color"].lower(), o["color"].lower()),
            "box": (
                x := o["x_loc"] + STEP * place,
                o["y_loc"],
                x + o["size"],
                o["y_loc"] + o["size"],
            ),
        }
        for place, box in enumerate(row["structured_rep"])
        for o in box
    ]


def named_objects(statement: str, objects: list[dict]) -> list[int]:
    """Indices of the objects that fit a colour or shape in the sentence; all if it is not said."""
    wanted = []
    for color, shape in MENTION.findall(statement.lower()):
        shape = shape if shape in ("circle", "square", "triangle") else ""
        wanted.append((color, shape))
    fits = [
        i
        for i, o in enumerate(objects)
        if any(c in ("", o["color"]) and s in ("", o["shape"]) for c, s in wanted)
    ]
    return fits or list(range(len(objects)))


def object_mask(objects: list[dict], chosen: list[int]) -> np.ndarray:
    """Union of the chosen objects' pixels, bool (100, 400): squares, discs, upright triangles."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    mask = np.zeros(SHAPE, dtype=bool)
    for i in chosen:
        x0, y0, x1, y1 = objects[i]["box"]
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        middle, half = (x0 + x1) / 2, (x1 - x0) / 2
        if objects[i]["shape"] == "circle":
            inside &= (x - middle) ** 2 + (y - (y0 + y1) / 2) ** 2 <= half**2
        elif objects[i]["shape"] == "triangle":
            inside &= abs(x - middle) <= half * (y - y0) / (y1 - y0)
        mask |= inside
    return mask


def _item(row: Row, table: Path, pictures: dict[str, Path], src: Source) -> Item:
    statement = str(pick(row, "sentence", where=table)).strip()
    label = str(pick(row, "label", where=table)).lower()
    name = row.get("image") or f"{table.stem}-{pick(row, 'identifier', where=table)}-0.png"
    objects = objects_of(row)
    named = named_objects(statement, objects)
    return Item(
        id=f"nlvr/{Path(name).stem}",
        image=pictures.get(name, table.parent / name),
        question=f"Is the following statement correct: {statement.rstrip('.')}?",
        reference="Yes" if label == "true" else "No",
        category="counting"
        if re.search(r"\b(exactly|least|most|one|two|three|\d)\b", statement)
        else "",
        evidence=object_mask(objects, named),
        options=("Yes", "No"),
        benchmark="nlvr",
        extra={
            "statement": statement,
            "objects": objects,
            "named": named,
            "provenance": src.provenance,
        },
    )
