"""CUB-200-2011: birds with their boxes, for the localisation of an answer's object.

Published layout (caltech.edu, CUB_200_2011.tgz): `images.txt`, `bounding_boxes.txt` (x y width
height), `train_test_split.txt`, each "number value...", beside `images/`. The question
follows the seed (arXiv 2405.14612): what the picture shows; the bird is to be found.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import StudyError
from .base import Item

QUESTION = "What's in the image?"
SPLITS = {"train": "1", "test": "0"}


def cub(source: str | Path, split: str = "test", first: int | None = None) -> list[Item]:
    """The pictures of a split; `evidence` is the filled box, `extra["box"]` its x0 y0 x1 y1.

    `source` is the unpacked folder CUB_200_2011; `first` takes so many pictures only (a mask is
    0.2 MB, those of all 5,794 test pictures 1 GB). The reference names the species; "bird" is
    accepted. Raises StudyError if the folder does not have CUB's layout.
    """
    root = Path(source).expanduser()
    if split not in SPLITS:
        raise StudyError(f"The split of CUB is 'train' or 'test', not {split!r}.")
    paths, boxes, parts = (
        _table(root / f"{name}.txt") for name in ("images", "bounding_boxes", "train_test_split")
    )
    wanted = [number for number in paths if parts.get(number) == [SPLITS[split]]]
    return [_item(root, number, paths[number][0], boxes.get(number)) for number in wanted[:first]]


def _table(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise StudyError(
            f"There is no {path.name} in {path.parent}; give the folder CUB_200_2011, unpacked."
        )
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[1:] for row in rows if row}


def _item(root: Path, number: str, name: str, box: list[str] | None) -> Item:
    path = root / "images" / name
    if box is None or len(box) != 4:
        raise StudyError(f"bounding_boxes.txt has no box for picture {number} ({name}).")
    x, y, width, height = map(float, box)
    species = name.split("/")[0].partition(".")[2].replace("_", " ").lower()
    corners = (x, y, x + width, y + height)
    return Item(
        id=f"cub/{number}",
        image=path,
        question=QUESTION,
        reference=f"The image shows a {species}.",
        accept=(species, "bird"),
        category="bird",
        evidence=_filled(path, corners),
        benchmark="cub",
        extra={"box": corners, "species": species},
    )


def _filled(path: Path, box: tuple[float, ...]) -> np.ndarray:
    with Image.open(path) as image:
        width, height = image.size
    out = np.zeros((height, width), bool)
    x0, y0, x1, y1 = (round(v) for v in box)
    out[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return out
