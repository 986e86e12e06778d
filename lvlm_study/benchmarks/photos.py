"""Twelve free photographs with our own questions and hand-drawn evidence.

Too few for statistics: they are for figures, for smoke tests, and for the question "does this
heatmap look sane on a real photograph?". The sprites are where accuracy and agreement are counted.
Credits: `data/photos/LICENSES.md`. Files and regions: `data/photos/photos.json`, made once with
`tools/make_photos.py`.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import StudyError
from ..paths import data_dir
from .base import Item

CATEGORIES = ("attribute", "existence", "counting", "spatial", "global", "reasoning")


def photos() -> list[Item]:
    """All photograph items, in the order of the file: 12 photographs, three or four items each.

    `evidence` is the union of the item's polygons as a bool (H, W) mask at the stored size; it is
    None for global questions, whose evidence is the whole picture. `extra["photo"]` names the file.
    """
    folder = data_dir() / "photos"
    return [
        _item(folder, photo, entry)
        for photo in read_index(folder)["photos"]
        for entry in photo["items"]
    ]


def read_index(folder: Path) -> dict:
    """`photos.json` as it stands: every photograph's size, checksum, questions and regions."""
    path = folder / "photos.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"The photographs' index {path} cannot be read ({type(error).__name__}); "
            "restore data/photos from the repository."
        ) from error


def rasterise(polygons: list, width: int, height: int) -> np.ndarray:
    """Union of polygons as a bool (height, width) mask.

    Points are (x, y) pixel indices. A pixel on the outline belongs to the region, so the square
    (1, 1) (3, 1) (3, 3) (1, 3) covers nine pixels.
    """
    mask = Image.new("1", (width, height))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        draw.polygon([tuple(point) for point in polygon], fill=1, outline=1)
    return np.asarray(mask)


def _item(folder: Path, photo: dict, entry: dict) -> Item:
    region = entry["region"]
    size = photo["width"], photo["height"]
    return Item(
        id=entry["id"],
        image=folder / photo["file"],
        question=entry["question"],
        reference=entry["reference"],
        accept=tuple(entry["accept"]),
        category=entry["category"],
        evidence=None if region is None else rasterise(region, *size),
        benchmark="photos",
        extra={"photo": photo["file"]},
    )
