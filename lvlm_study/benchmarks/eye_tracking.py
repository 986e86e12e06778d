"""Human gaze on photographs: OSIE (15 viewers, eye tracker) and SALICON (mouse as a gaze proxy).

Nobody asked these viewers a question: they looked freely. The maps say where people look, not where
an answer is, and serve to check a metric (how well do two people agree? how well a centred blob?)
before a model is put on the same scale. Both are folders to fetch by hand:

- OSIE: `fixations.mat` (or `fixations.json`, the same converted) and the photographs,
- SALICON: `fixations*.json` in the salicon-api layout and `COCO_train2014_*.jpg`.
"""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ..errors import StudyError
from .base import Item
from .sources import Source, open_source
from .vqa_hat import GRID, center_map, mean_and_error, rank_correlation_14, to_grid

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


def fixation_map(points: np.ndarray, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Sum of Gaussians of `sigma` pixels at the points (n, 2) x, y. float64 (H, W)."""
    points = np.asarray(points, dtype=float).reshape(-1, 2)
    gx, gy = (
        np.exp(-((np.arange(n)[None] - points[:, axis, None]) ** 2) / (2 * sigma**2))  # (n, W or H)
        for axis, n in ((0, shape[1]), (1, shape[0]))
    )
    return gy.T @ gx


def human_agreement(item: Item, shape: tuple[int, int], sigma: float = 19.0) -> dict[str, float]:
    """Mean 14 x 14 rank correlations on one picture: the scale on which a heatmap is read.

    one_vs_one: two viewers; one_vs_rest: a viewer and the sum of the others; center: a viewer and
    a centred Gaussian. `sigma` is in pixels. Maps are rounded to 8 bit first, as published human
    maps are: otherwise the invisible tails of the Gaussians, which reach everywhere, decide most
    ranks and raise every value by about 0.1.
    """
    exact = [fixation_map(p, shape, sigma) for p in item.extra["fixations"] if len(p)]
    total = sum(exact)
    maps = [_as_published(m) for m in exact]
    middle = center_map((GRID, GRID))
    pairs = (rank_correlation_14(a, b) for a, b in combinations(maps, 2))
    rest = (
        rank_correlation_14(a, _as_published(total - m)) for a, m in zip(maps, exact, strict=True)
    )
    center = (rank_correlation_14(a, middle) for a in maps)
    scores = {"one_vs_one": pairs, "one_vs_rest": rest, "center": center}
    return {name: mean_and_error(values)[0] for name, values in scores.items()}


def _as_published(a: np.ndarray) -> np.ndarray:
    """The (GRID, GRID) cell means of a map kept as an 8-bit picture."""
    return to_grid(np.round(a / a.max() * 255))


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
