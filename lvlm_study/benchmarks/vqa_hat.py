"""VQA-HAT: which parts of a picture people uncovered to answer a question (Das et al. 2016).

Download by hand (about 750 MB of maps, 6 GB of pictures; see abhishekdas.com/vqa-hat). The folder
may nest them as it likes, but must hold:

- maps `{question_id}_{k}.png`, white where the person sharpened (val: three a question),
- VQA **v1** `OpenEnded_mscoco_val2014_questions.json` and `mscoco_val2014_annotations.json`,
- pictures `COCO_val2014_{image_id:012d}.jpg`.

No licence is stated for the maps: use them for research and do not republish them.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from scipy.stats import rankdata
from torch.nn.functional import interpolate

from ..errors import StudyError, unknown
from ..pixels.images import load_image
from ..pixels.masks import settled
from .base import Item
from .sources import Row, open_source, read_table

SPLITS = ("val", "train")
GRID = 14


def vqa_hat(source: str | Path | None = None, split: str = "val") -> list[Item]:
    """Questions that have at least one usable human map; needs the folder described above.

    Constant maps (125 in train: nothing uncovered) and unreadable ones are dropped and counted in
    `extra["dropped"]`; `extra["maps"]` lists the others. `accept` holds the answers that at least
    three of the ten people gave. Pictures are opened only when looked at.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if source is None or not Path(source).is_dir():
        raise StudyError(
            f"VQA-HAT has no downloader and there is no folder {source}; download maps, VQA v1 "
            "questions and COCO pictures by hand and pass their folder (see vqa_hat.py)."
        )
    src = open_source(source, "")
    questions = _questions(src.need("VQA v1 question", f"*OpenEnded*{split}2014_questions.json")[0])
    answers = _answers(src.tables(f"*mscoco_{split}2014_annotations.json"))
    pictures = {p.name: p for p in src.tables(f"COCO_{split}2014_*.jpg")}
    found = _maps(src.need("attention map", "*_[0-9]*.png"), questions, src.folder)
    items = [
        _item(questions[q], maps, answers.get(q, {}), pictures, split)
        for q, maps in sorted(found.items())
    ]
    return [item for item in items if item.extra["maps"]]


def human_maps(item: Item) -> list[np.ndarray]:
    """The item's human maps, each float32 (h, w) in [0, 1], at the size of its file."""
    return [load_image(path)[..., 0].astype(np.float32) / 255 for path in item.extra["maps"]]


def rank_correlation_14(a: np.ndarray, b: np.ndarray) -> float:
    """Das et al.'s protocol: both maps to 14 x 14 cell means, Spearman over the 196 cells.

    a, b: (h, w) of any sizes, HIGH = IMPORTANT. Ties share their mean rank. NaN when either map is
    constant. In [-1, 1]; two people reach 0.623 on VQA-HAT, a centred blob 0.56-0.69 on free
    viewing, so never show a model's value without those rows.
    """
    ranks = [rankdata(settled(to_grid(m).ravel())) for m in (a, b)]
    x, y = (r - r.mean() for r in ranks)
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / norm) if norm > 0 else float("nan")


def soft_iou(a: np.ndarray, b: np.ndarray, normalise: str = "minmax", grid: int = GRID) -> float:
    """Overlap of two maps, sum of minima over sum of maxima, on a `grid` x `grid` of cell means.

    The value depends on the scale: "minmax" stretches each map to [0, 1], "sum" makes each sum to
    one. The paper says neither, so report both. NaN where a map is constant ("minmax") or zero.
    """
    if normalise not in ("minmax", "sum"):
        raise unknown("normalisation", normalise, ("minmax", "sum"))
    x, y = (_scaled(to_grid(m, grid), normalise) for m in (a, b))
    return float(np.minimum(x, y).sum() / np.maximum(x, y).sum())


def to_grid(a: np.ndarray, grid: int = GRID) -> np.ndarray:
    """(h, w) to float64 (grid, grid) cell means; a smaller map repeats its values."""
    a = np.asarray(a, dtype=np.float64)
    if a.ndim != 2 or 0 in a.shape:
        raise StudyError(f"A map must be (h, w), not {a.shape}.")
    x = torch.from_numpy(np.ascontiguousarray(a))[None, None]  # (1, 1, h, w)
    return interpolate(x, size=(grid, grid), mode="area")[0, 0].numpy()


def center_map(shape: tuple[int, int], sigma: float = 4 / GRID) -> np.ndarray:
    """The control every row needs: a centred Gaussian, sigma as a share of each side. (h, w)."""
    gy, gx = (np.exp(-(((np.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * sigma**2)) for n in shape)
    return np.outer(gy, gx)


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard error of the mean of the values that are not NaN."""
    x = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    if len(x) == 0:
        return float("nan"), float("nan")
    return float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")


def _scaled(a: np.ndarray, normalise: str) -> np.ndarray:
    shifted = a - a.min() if normalise == "minmax" else a
    size = shifted.max() if normalise == "minmax" else shifted.sum()
    return shifted / size if size > 0 else np.full_like(a, np.nan)


def _questions(path: Path) -> dict[int, Row]:
    rows = {int(r["question_id"]): r for r in _records(path, "questions")}
    if any(number // 10 != int(r["image_id"]) for number, r in rows.items()):
        raise StudyError(
            f"{path} holds no VQA v1 questions (v1 ids are image_id * 10 + k); VQA-HAT needs v1."
        )
    return rows


def _answers(tables: list[Path]) -> dict[int, Row]:
    rows = _records(tables[0], "annotations") if tables else []
    return {int(row["question_id"]): row for row in rows}


def _records(path: Path, key: str) -> list[Row]:
    """The list under `key`; VQA's files hold licences and such beside it."""
    rows = read_table(path, key=key)
    if "question_id" not in rows[0]:
        raise StudyError(f"{path} has no question_id; is this the VQA v1 {key} file?")
    return rows


def _maps(files: list[Path], questions: dict[int, Row], folder: Path) -> dict[int, list[Path]]:
    """{question_id: its map files}; an error when none belongs to the questions."""
    found: dict[int, list[Path]] = {}
    for path in files:
        name = re.fullmatch(r"(\d+)_\d+", path.stem)
        if name and int(name[1]) in questions:
            found.setdefault(int(name[1]), []).append(path)
    if not found:
        raise StudyError(
            f"No map in {folder} belongs to its questions; take maps and questions of one split."
        )
    return found


def _usable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            low, high = image.convert("L").getextrema()
            return low < high
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return False


def _item(question: Row, maps: list[Path], answer: Row, pictures: dict, split: str) -> Item:
    number, name = int(question["question_id"]), f"COCO_{split}2014_{question['image_id']:012d}.jpg"
    usable = tuple(path for path in maps if _usable(path))
    given = Counter(str(a["answer"]) for a in answer.get("answers", []))
    return Item(
        id=f"vqa_hat/{number}",
        image=pictures.get(name, Path(name)),
        question=str(question["question"]),
        reference=str(answer.get("multiple_choice_answer", "")),
        accept=tuple(a for a, n in given.most_common() if n >= 3),
        category=str(answer.get("answer_type", "")),
        benchmark="vqa_hat",
        extra={"maps": usable, "dropped": len(maps) - len(usable), "image_name": name},
    )
