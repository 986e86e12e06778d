"""Human gaze on photographs: OSIE (15 viewers, eye tracker) and SALICON (mouse as a gaze proxy).

Nobody asked these viewers a question: they looked freely. The maps say where people look, not where
an answer is, and serve to check a metric (how well do two people agree? how well a centred blob?)
before a model is put on the same scale. Both are folders to fetch by hand:

- OSIE: `fixations.mat` (or `fixations.json`, the same converted) and the photographs,
- SALICON: `fixations*.json` in the salicon-api layout and `COCO_train2014_*.jpg`.
"""

import json
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ..errors import StudyError
from .base import Item
from .sources import Source, open_source

QUESTION = "What is in this image?"  # ours; the viewers were not asked


def osie(source: str | Path) -> list[Item]:
    """OSIE's photographs; `extra["fixations"]` is one (n, 2) array of x, y pixels per viewer."""
    src = _folder(source, "OSIE", "github.com/NUS-VIP/predicting-human-gaze-beyond-pixels")
    file = src.need("OSIE", "fixations.json", "fixations.mat")[0]
    rows = _osie_mat(file) if file.suffix == ".mat" else _load(file)
    return [
        _item(
            "osie", src, row["image"], [np.column_stack([v["x"], v["y"]]) for v in row["viewers"]]
        )
        for row in rows
    ]


def salicon(source: str | Path) -> list[Item]:
    """SALICON's pictures; fixations as in `osie` (the file has row, column counted from 1)."""
    src = _folder(source, "SALICON", "github.com/NUS-VIP/salicon-api")
    tree = _load(src.need("SALICON", "fixations*.json")[0])
    viewers: dict[int, list[np.ndarray]] = {}
    for entry in tree["annotations"]:
        points = np.array(entry["fixations"], dtype=float).reshape(-1, 2)
        viewers.setdefault(entry["image_id"], []).append(points[:, ::-1] - 1)
    return [
        _item("salicon", src, image["file_name"], viewers.get(image["id"], []))
        for image in tree["images"]
    ]


def _folder(source: str | Path, name: str, where: str) -> Source:
    if not Path(source).is_dir():
        raise StudyError(f"There is no folder {source}; download {name} from {where} first.")
    return open_source(source, "")


def _load(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}); download it again.") from error


def _osie_mat(path: Path) -> list[dict]:
    """The published MATLAB file in the shape of the converted one."""
    try:
        entries = loadmat(path, simplify_cells=True)["fixations"]
        return [
            {
                "image": str(entry["img"]),
                "viewers": [
                    {"x": np.atleast_1d(s["fix_x"]), "y": np.atleast_1d(s["fix_y"])}
                    for s in entry["subjects"]
                ],
            }
            for entry in np.atleast_1d(entries)
        ]
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise StudyError(f"{path} is no OSIE fixations file ({error}).") from error


def _item(benchmark: str, src: Source, name: str, fixations: list[np.ndarray]) -> Item:
    found = src.tables(name)
    return Item(
        id=f"{benchmark}/{Path(name).stem}",
        image=found[0] if found else src.folder / name,
        question=QUESTION,
        reference="",
        benchmark=benchmark,
        extra={"fixations": tuple(fixations), "provenance": src.provenance},
    )
