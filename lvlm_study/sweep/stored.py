"""Maps as the runner stored them, each joined with the answer that it explains.

Read by what shows maps without running a model: the book's explorer and the annotation widget.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import StudyError
from ..heatmaps.variants import is_ablation
from .tables import read_table

KEYS = ["model", "benchmark", "item"]
SAID = ["answer", "verdict", "tokens", "llr", "crucial", "total_drop", "truncated"]
UNIT_RANGE = ("igos", "igos++")  # their saliency is 1 - mask, in [0, 1] by itself


def stored_maps(
    results: Path, units: str = "grid", fill: str = "blur", ablations: bool = False
) -> pd.DataFrame:
    """One row per model, method and item: the map, its scores, and the answer that it explains.

    The scores are those under one kind of unit and one fill. Ablations, as
    `igos[l2=1]`, are left out unless `ablations`.
    Column `saliency` is float32 (h, w), high = important, or None where the runner kept none
    (controls, and items that could not be explained: `status` says why). The answer's columns
    (`answer`, `verdict`, `tokens`, `llr`, `crucial`, `total_drop`, `truncated`) are those measured
    under blur; tables from before `truncated` was recorded have nothing there.
    Raises StudyError when the folder holds no maps.
    """
    maps, answers = read_table(results, "maps"), read_table(results, "reliance")
    if maps.empty or answers.empty:
        raise StudyError(f"There are no maps in {results}; make some with 'lvlm-study run'.")
    maps = one_way(maps, units, fill)
    if not ablations:
        maps = maps[~maps.method.map(is_ablation).astype(bool)]
    answers = answers[answers.baseline == "blur"].drop_duplicates(KEYS)
    answers = answers.reindex(columns=KEYS + SAID)
    frame = maps.merge(answers, on=KEYS, how="left", validate="many_to_one")
    frame["saliency"] = grids(frame)
    return frame.drop(columns=["heatmap", "heatmap_shape", "heatmap_scale"], errors="ignore")


def one_way(maps: pd.DataFrame, units: str = "grid", fill: str = "blur") -> pd.DataFrame:
    """One row a map: those scored with one unit and one fill, and the maps that failed."""
    maps = with_fill(maps)
    scored = (maps.units == units) & (maps.fill == fill)
    return maps[scored | maps.units.isna()]


def with_fill(maps: pd.DataFrame) -> pd.DataFrame:
    """Tables from before the fill was recorded were all scored with blur; failed rows have none."""
    if "fill" not in maps:
        maps = maps.assign(fill=None)
    old = maps.units.notna() & maps.fill.isna()
    return maps.assign(fill=maps.fill.astype(object).mask(old, "blur"))


def grids(frame: pd.DataFrame) -> list[np.ndarray | None]:
    """The maps of stored rows; rows from before the scale was kept hold the values themselves."""
    scale = frame["heatmap_scale"].fillna(1.0) if "heatmap_scale" in frame else [1.0] * len(frame)
    return [grid(*row) for row in zip(frame.heatmap, frame.heatmap_shape, scale, strict=True)]


def grid(values, shape, scale: float = 1.0) -> np.ndarray | None:
    """A stored map as float32 (h, w); None where there is none."""
    if not isinstance(values, np.ndarray) or not isinstance(shape, np.ndarray):
        return None
    return (values.astype(np.float32) * np.float32(scale)).reshape(shape.tolist())


def scales(frame: pd.DataFrame, share: float = 0.995) -> dict[str, float]:
    """For each method the saliency that its colour scale ends at: one scale for all of its maps.

    1 for methods whose maps lie in [0, 1] by definition, else the `share` quantile over the maps
    of every model and item, so that two maps of a method can be compared and one outlier cannot
    darken the rest. Negative saliency (evidence against the answer) lies below the scale.
    """
    kept = frame[frame.saliency.notna()]
    parts = {method: part.saliency for method, part in kept.groupby("method")}
    return {
        m: 1.0 if m.partition("[")[0] in UNIT_RANGE else _quantile(maps, share)
        for m, maps in parts.items()
    }


def _quantile(maps, share: float) -> float:
    values = np.concatenate([each.ravel() for each in maps])
    return max(float(np.quantile(values, share)), 1e-12)


def enlarged(small: np.ndarray, height: int, width: int) -> np.ndarray:
    """A stored map (h, w) at the size of its picture, bilinear: float32 (H, W)."""
    picture = Image.fromarray(np.asarray(small, np.float32), mode="F")
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
