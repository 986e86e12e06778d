"""POPE: is there a dog in the image? Yes or no, about objects that are there and that are not.

Published layout (github.com/RUCAIBox/POPE): `coco_pope_{random,popular,adversarial}.json`, one JSON
object a line with question_id, image, text and label ("yes", "no"); pictures of COCO val2014 apart.
RePOPE's corrected labels and files made in the same way for other pictures read alike.
"""

import re
from pathlib import Path

from ..errors import StudyError
from .base import Item
from .sources import Row, image_source, open_source, pick, read_table

NAMED = re.compile(r"\b(?:is|are) there (?:an? |any |the )?(.+?) in (?:the|this|that) im", re.I)
KINDS = ("random", "popular", "adversarial")


def pope(source: str | Path, images: str | Path | None = None) -> list[Item]:
    """Every question of the files in `source`; `category` is how absent objects were chosen.

    `source` is a folder with POPE's files, or one such file; `images` the folder of pictures
    (default: beside the file, or in its `images`, `val2014` or `coco`). `extra` holds `object`, the
    name asked for, `present`, and `picture`, where the picture lies. Raises StudyError for another
    layout.
    """
    path = Path(source).expanduser()
    folder = path.parent if path.is_file() else path
    if path.is_file():
        files = [path]
    else:
        files = open_source(path, "").need("POPE", "*pope*.json", "*.jsonl", "*.json")
    where = Path(images).expanduser() if images else folder
    return [_item(row, file, where) for file in files for row in read_table(file, lines=True)]


def _item(row: Row, file: Path, folder: Path) -> Item:
    text = str(pick(row, "text", "question", where=file)).strip()
    label = str(pick(row, "label", "answer", where=file)).strip().lower()
    number = pick(row, "question_id", "id", where=file)
    if label not in ("yes", "no"):
        raise StudyError(f"Question {number} of {file} has the label {label!r}, not yes or no.")
    found = NAMED.search(text)
    if found is None:
        raise StudyError(
            f"Question {number} of {file}, {text!r}, does not ask whether something is there; "
            "the file is not in POPE's layout."
        )
    kind = next((k for k in KINDS if k in file.stem), file.stem)
    picture = _picture(folder, str(pick(row, "image", "image_source", where=file)))
    return Item(
        id=f"pope/{kind}/{number}",
        image=image_source(picture.name, picture.parent, f"question {number} of {file}"),
        question=text,
        reference=label,
        accept=(label,),
        category=kind,
        benchmark="pope",
        extra={
            "object": found[1].lower(),
            "present": label == "yes",
            "picture": str(picture),
        },
    )


def _picture(folder: Path, name: str) -> Path:
    name = name if "." in name else f"{name}.jpg"
    places = [folder / part / name for part in ("", "images", "val2014", "coco", "coco/val2014")]
    return next((p for p in places if p.is_file()), places[0])
