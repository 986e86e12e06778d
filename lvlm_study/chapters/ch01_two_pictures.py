"""Two pictures in one prompt: does an answer rest on the one that has the object, and where?"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..benchmarks import load_benchmark
from ..figures import WIDTH, chance_line, dots, nothing_yet
from ..heatmaps.names import title
from ..metrics.statistics import estimate, share
from ..sweep.stored import Tables
from .compare import colour_of, rows_of

FOLDER = "two"  # of a results folder: its scenes are no other chapter's
BENCHMARK = "sprites_two"


def prompts(rows: pd.DataFrame, baseline: str = "blur") -> pd.DataFrame:
    """One row a prompt: nats that the answer loses with each picture, and whether it is right.

    Columns: prompt, holder and other (summed log-likelihood ratios when the picture that has the
    object, or the other, is blurred), `told` and `other_told` (any crucial token), first (whether
    the object is in the first picture), right.
    """
    items = {item.id: item.extra for item in load_benchmark(BENCHMARK)}
    rows = rows[(rows.benchmark == BENCHMARK) & (rows.baseline == baseline)]
    sides = {True: {}, False: {}}
    for row in rows.itertuples():
        extra = items[row.item]
        sides[extra["holds"]][extra["picture"]] = row, extra["place"]
    found = []
    for name, (holder, place) in sides[True].items():
        if name in sides[False]:
            other = sides[False][name][0]
            found.append(
                {"prompt": name, "holder": sum(holder.llr), "other": sum(other.llr)}
                | {"told": any(holder.crucial), "other_told": any(other.crucial)}
                | {"first": place == 0, "right": holder.verdict == "correct"}
            )
    return pd.DataFrame(found)


def figure(tables: Tables):
    """Nats lost with either picture, a dot a right answer, beside the ROC-AUC of every method."""
    table, maps = prompts(tables.reliance), rows_of(tables.maps, variants=True)
    if table.empty or maps.empty:
        return nothing_yet()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.42 * WIDTH), layout="constrained")
    shades = sns.color_palette("colorblind")
    for first, mark in ((True, "o"), (False, "s")):
        part = table[table.right & (table["first"] == first)]
        name = "first" if first else "second"
        left.plot(part.holder, part.other, mark, ms=4, color=shades[not first], label=name)
    low, high = min(left.get_xlim()[0], left.get_ylim()[0]), left.get_xlim()[1]
    left.plot((low, high), (low, high), ":", color="0.4", lw=1)
    left.set_ylim(low, high / 2)
    left.set(xlabel="nats lost with the object's picture", ylabel="nats lost with the other")
    left.legend(title="object in picture", fontsize="x-small", title_fontsize="x-small")
    scores = places(maps)
    dots(
        right,
        [(one.value, one.low, one.high) for one in scores.values()],
        [title(name) for name in scores],
        colour=[colour_of(name) for name in scores],
    )
    chance_line(right, 0.5)
    right.set_xlabel("ROC-AUC in the object's picture", fontsize="small")
    return drawn


def places(maps: pd.DataFrame) -> dict:
    """{method: ROC-AUC of its maps against the object}, best first; on the items that all have."""
    good = maps[maps.auc.notna()]
    wide = good.pivot(index="item", columns="method", values="auc").dropna()
    found = {name: estimate(wide[name].to_numpy()) for name in wide}
    return dict(sorted(found.items(), key=lambda pair: -pair[1].value))


def summary(tables: Tables) -> dict:
    """`two.json`: right answers, on which picture these rest, and where in it maps lie."""
    own = Tables(tables.results / FOLDER, tables.profile, tables.seed)
    if own.reliance.empty:
        return {}
    table = prompts(own.reliance)
    right = table[table.right]
    told = {
        "n": len(table),
        "right": share(int(table.right.sum()), len(table)),
        "on_holder": share(int((right.holder > right.other).sum()), len(right)),
        "told": share(int(right.told.sum()), len(right)),
        "other_told": share(int(right.other_told.sum()), len(right)),
        "holder": float(np.median(right.holder)),
        "other": float(np.median(right.other)),
    }
    scores = places(rows_of(own.maps, variants=True)) if len(own.maps) else {}
    told["places"] = {name: found.json() for name, found in scores.items()}
    return {"provenance": own.origin(own.reliance)} | told
