"""A sign that a map failed: what can be known of it without the truth, and how often it is right.

A flag may read the scores of a map and of its controls. A map is bad if it fails against the drawn
evidence, which the flag does not see.
"""

import numpy as np
import pandas as pd

from ..heatmaps.names import CONTROLS
from .ranks import means
from .statistics import ends

QUANTILE = 0.95  # of the random maps' gaps: what luck reaches once in twenty items
FLAGS = {  # a sign that needs no truth -> how readers call it
    "not_positive": "insertion − deletion at most 0",
    "like_random": "does not beat 95 % of random maps",
    "below_sobel": "worse than the picture's edges",
    "below_difference": "worse than the difference picture",
}
BAD = {  # what makes a map bad, where the truth is known -> how readers call it
    "below_half": "ROC-AUC against the evidence below ½",  # ranks alone: on no scale of the map's
    "off_evidence": "less mass on the evidence than chance",
    "missed": "peak outside the evidence",
}


def flagged(good: pd.DataFrame) -> pd.DataFrame:
    """Maps of real methods: every flag and every fault as a column of booleans.

    `good` are one model's rows whose evidence is known (`compare.with_evidence`). A flag reads the
    item's scores and those of its controls only.
    """
    own = good[~good.method.isin(CONTROLS)]
    return own.assign(
        not_positive=own.gap <= 0,
        like_random=own.gap <= luck(good),
        below_sobel=own.gap < _gap_of(good, "sobel", own.item),
        below_difference=own.gap < _gap_of(good, "difference", own.item),
        below_half=own.auc < 0.5,
        off_evidence=own.energy_ratio < 1,
        missed=own.pointing_near < 0.5,
    )


def _gap_of(good: pd.DataFrame, control: str, items: pd.Series) -> np.ndarray:
    """The score of a control on each of the items; NaN where it has none, which flags nothing."""
    gaps = good[good.method == control].drop_duplicates("item").set_index("item").gap
    return items.map(gaps).to_numpy(float)


def luck(good: pd.DataFrame) -> float:
    """What a random map reaches once in twenty items: the level of the flag `like_random`.

    By the gaps as they were stored, `stored_gap`, where `gap` is a mean over draws.
    """
    random = good[good.method == "random"]
    gaps = random.get("stored_gap", random.gap)
    return gaps.quantile(QUANTILE) if len(random) else np.nan


def flag_scores(good: pd.DataFrame, fault: str = "below_half") -> pd.DataFrame:
    """How often each flag is right, over all methods' maps of one model.

    Columns: flag, title, n (maps), flagged (share), base (share of bad maps), precision, recall,
    lift (precision - base: above 0 the flag knows something) with `lift_low` and `lift_high`;
    whole items are resampled, since the maps of one picture fail together.
    """
    maps = flagged(good)
    rows = [{"flag": f, "title": t} | rates(maps, f, fault) for f, t in FLAGS.items() if len(maps)]
    return pd.DataFrame(rows, columns=None if rows else ["flag", "title", "n"])


def rates(maps: pd.DataFrame, flag: str, fault: str) -> dict:
    """Counts an item, then ratios of sums: of the data, and of resamples of the items.

    `lift` and `within` are estimates; `within` is the lift against the share of bad maps of the
    *same method*: what a flag knows about a map beyond which method made it.
    """
    usual = maps.groupby("method")[fault].transform("mean")
    table = pd.DataFrame(
        {
            "item": maps.item,
            "all": 1,
            "bad": maps[fault],
            "flag": maps[flag],
            "both": maps[fault] & maps[flag],
            "rest": (maps[fault] - usual) * maps[flag],
        }
    )
    sums = table.groupby("item").sum()
    every, bad, flags, both, rest = means(sums).T
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall, base = both / flags, both / bad, bad / every
        told = {"lift": precision - base, "within": rest / flags}
    found = {"n": len(maps), "items": len(sums), "flagged": flags[0] / every[0], "base": base[0]}
    found |= {"precision": precision[0], "recall": recall[0]}
    for name, values in told.items():
        low, high = ends(values) if flags[0] else (np.nan, np.nan)
        found |= {name: values[0], f"{name}_low": low, f"{name}_high": high}
    return found
