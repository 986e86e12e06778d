"""Small tables with the runner's columns and numbers that can be worked out by hand."""

import numpy as np
import pandas as pd


def maps(
    gaps: dict[str, list[float]],
    model: str = "mini/a",
    units: str = "grid",
    fill: str = "blur",
    status: dict | None = None,
    **columns,
) -> pd.DataFrame:
    """A row for each method and item: insertion 0.5 + gap / 2, deletion 0.5 - gap / 2.

    `columns`: more columns, each {method: [value an item]} or one value for all. `status`:
    {(method, item number): status}; anything but "ok" has no scores.
    """
    rows = []
    for method, values in gaps.items():
        for n, gap in enumerate(values):
            state = (status or {}).get((method, n), "ok")
            gap = gap if state == "ok" else np.nan
            row = {"model": model, "benchmark": "sprites", "item": f"i{n:02d}", "method": method}
            row |= {"units": units, "fill": fill, "category": "attribute", "question": "What?"}
            row |= {"status": state, "gap": gap, "insertion": 0.5 + gap / 2}
            row |= {"deletion": 0.5 - gap / 2, "gap_raw": gap}
            row |= {"seconds": 1.0, "forward": 10, "backward": 10}
            row |= {"peak_bytes": 2**20, "commit": "c", "made": "2026-11-22", "area": [0.0, 1.0]}
            for name, value in columns.items():
                row[name] = value[method][n] if isinstance(value, dict) else value
            rows.append(row)
    return pd.DataFrame(rows)


def effects(effect: list, area: list, model: str = "mini/a") -> pd.DataFrame:
    """The table of exact effects: one list of effects and of areas an item."""
    rows = [
        {"model": model, "benchmark": "sprites", "item": f"i{n:02d}", "status": "ok"}
        | {"objects": [str(k) for k in range(len(e))], "effect": np.array(e, float)}
        | {"area": np.array(a, float)}
        for n, (e, a) in enumerate(zip(effect, area, strict=True))
    ]
    return pd.DataFrame(rows)
