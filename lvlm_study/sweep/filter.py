"""The paper's filter (its section 4.3) as a rule that can be run: which items need their picture?

The paper keeps the samples on which "all models have clear probability differences" between the
image and its blurred copy, and gives no threshold. Written as a rule: an item is kept when, for
every model, the probability of the model's whole answer falls by at least `least` of its value
when the picture is replaced by the baseline, 1 - P(a | baseline) / P(a | image) >= least. An item
that a model failed on, left empty or has not seen yet is not kept; nothing is known of it, so that
shares are taken of the items that every model answered.

The default is the lowest band of the paper's Table 2 (a drop below 30 %). Percentages depend on
the threshold and on the set of models, so `kept_shares` gives several; note that the filter
throws away exactly the items on which a baseline leaks (a blurred beach is still a beach).
"""

import pandas as pd

from ..errors import StudyError

LEAST = 0.3
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


def weakest_drop(frame: pd.DataFrame, baseline: str = "blur") -> pd.Series:
    """For every item of a reliance table, the smallest total drop over all its models.

    NaN where some model has no number for the item. `frame` is `read_table(results, "reliance")`.
    Raises StudyError when the table does not hold the baseline.
    """
    known = sorted(frame.baseline.dropna().unique()) if "baseline" in frame else []
    if baseline not in known:
        raise StudyError(
            f"The table has no baseline {baseline!r}, only {', '.join(known) or 'none'}; "
            "run it with --baselines."
        )
    rows = frame[frame.baseline == baseline]
    every = frame[["benchmark", "item"]].drop_duplicates()
    table = rows.pivot_table("total_drop", ["benchmark", "item"], "model", dropna=False)
    table = table.reindex(pd.MultiIndex.from_frame(every), columns=sorted(frame.model.unique()))
    return table.min(axis=1, skipna=False)


def kept_ids(frame: pd.DataFrame, least: float = LEAST, baseline: str = "blur") -> frozenset[str]:
    """The names of the items that are kept, of all benchmarks in the table."""
    weakest = weakest_drop(frame, baseline)
    return frozenset(item for (_, item), drop in weakest.items() if drop >= least)


def kept_shares(frame: pd.DataFrame, baseline: str = "blur") -> dict:
    """{benchmark: {"n", "complete", "models", "count", "kept": {"0.3": per cent, ...}}}.

    `n` counts the items of the table, `complete` those with a number from every model; kept items
    are a percentage of `complete` (the paper's models all saw its 300, 1500 and 2638), and there
    is no percentage of none.
    """
    out = {}
    for benchmark, rows in frame.groupby("benchmark"):
        weakest = weakest_drop(rows, baseline)
        known = weakest.dropna()
        out[benchmark] = {
            "n": len(weakest),
            "complete": len(known),
            "models": sorted(rows.model.unique()),
            "count": rows.model.nunique(),
            "kept": {
                str(t): 100 * float((known >= t).mean()) if len(known) else None for t in THRESHOLDS
            },
        }
    return out
