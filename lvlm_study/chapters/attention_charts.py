"""The figures and tables of the chapter on human attention; none of them runs a model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..figures import CMAP, WIDTH
from ..metrics.plausibility import GRAIN, area_means
from ..metrics.statistics import estimate
from .ch10_attention import ORIENTATIONS, auc_of, built, compared, elsewhere, furthest, turned_over

MEASURES = {"correlation": "rank correlation", "iou_sum": "IoU, sum", "iou_max": "IoU, max"}
KINDS = ("model", "control", "bound")


def attention_table(rows: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """One row a model, control, bound and orientation; the paper's two models last.

    The correlation has its 95 % interval; overlaps are means.
    """
    table = []
    for kind in KINDS:
        part = rows[rows.kind == kind]
        for (who, way), each in part.groupby(["who", "orientation"], sort=True):
            found = estimate(each.correlation)
            row = {"who": who, "read as": way, "n": len(each), "rank correlation": found.value}
            row |= {"from": found.low, "to": found.high}
            row |= {label: each[name].mean() for name, label in list(MEASURES.items())[1:]}
            table.append(row | {"IoU, bytes": each.iou_bytes.mean()})
    for row in paper.itertuples():
        low, high = row.rank_corr - row.rank_corr_pm, row.rank_corr + row.rank_corr_pm
        about = {"who": f"{row.model}, the paper", "read as": "not said", "n": None}
        table.append(about | {"rank correlation": row.rank_corr, "from": low, "to": high})
        table[-1]["IoU, scale not said"] = row.soft_iou
    frame = pd.DataFrame(table)
    return frame.assign(n=pd.Series([row["n"] for row in table], dtype=object))


def attention_figure(rows: pd.DataFrame, paper: pd.DataFrame):
    """Rank correlation of everyone with the evidence, read both ways; the paper's as lines."""
    names = [who for kind in KINDS for who in sorted(rows[rows.kind == kind].who.unique())]
    size = (WIDTH, (0.09 * len(names) + 0.2) * WIDTH)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for way, marker, fill in zip(ORIENTATIONS, ("o", "D"), (None, "white"), strict=True):
        part = rows[rows.orientation == way]
        found = [estimate(part[part.who == name].correlation) for name in names]
        value = np.array([each.value for each in found])
        bars = np.nan_to_num([[v - e.low, e.high - v] for v, e in zip(value, found, strict=True)])
        ax.errorbar(
            value,
            names,
            xerr=bars.T.clip(min=0),
            fmt=marker,
            capsize=2,
            markerfacecolor=fill,
            label=way,
        )
    for place, row in enumerate(paper.itertuples()):
        ax.axvline(row.rank_corr, color="0.4", linestyle=("--", ":")[place % 2], linewidth=1.2)
        ax.text(row.rank_corr, -0.7 - 0.6 * place, f" {row.model}, the paper", fontsize="x-small")
    ax.axvline(0, color="0.7", linewidth=0.8)
    ax.set(xlabel="rank correlation with the evidence, 14 × 14 cells", xlim=(-1.05, 1.05))
    ax.set_ylim(len(names) - 0.5, -1.8)
    figure.legend(loc="outside lower center", ncol=2)
    return figure


def needed_auc_figure(correlation: float = -0.2):
    """How seldom a cell of the evidence may outrank another, for a given correlation, by area."""
    area = np.linspace(0.005, 0.6, 200)
    auc = np.array([auc_of(correlation, a) for a in area])
    figure, ax = plt.subplots(figsize=(0.8 * WIDTH, 0.45 * WIDTH), layout="constrained")
    ax.plot(area[auc >= 0], auc[auc >= 0], label=f"correlation {correlation:.2f}".replace("-", "−"))
    ax.plot(area, np.full_like(area, 0.5), "--", color="0.5", label="chance")
    reach = area[np.array([furthest(a) for a in area]) >= abs(correlation)].min()
    ax.axvspan(0, reach, color="0.85", label="out of reach")
    ax.set(
        xlabel="evidence, share of the picture", ylabel="evidence outranks the rest",
        xlim=(0, 0.6), ylim=(0, 1),
    )  # fmt: skip
    ax.legend(loc="upper right")
    return figure


def placements_table(found: dict) -> pd.DataFrame:
    """What looking at another place gives, from `placed_elsewhere`."""
    return pd.DataFrame(
        [
            {
                "regions": found["regions"],
                "placements": found["n"],
                "mean area": found["area"],
                "rank correlation": found["correlation"],
                "lowest": found["lowest"],
                "share at −0.2 or below": found["at_most_02"],
                "IoU, sum": found["iou_sum"],
                "IoU, max": found["iou_max"],
            }
        ]
    )


def constructed(evidence: np.ndarray, saliency: np.ndarray, aim: float = 0.2, seed: int = 0):
    """(name, map) pairs around one item's evidence: ways to have, and not to have, -`aim`."""
    other = elsewhere(evidence, seed)
    maps = [
        ("the evidence", evidence),
        (f"noise pushed to +{aim}", built(evidence, aim, seed)),
        (f"noise pushed to −{aim}", built(evidence, -aim, seed)),
        ("the region elsewhere", other),
        ("a model's map", saliency),
        ("that map turned over", turned_over(saliency)),
    ]
    return [(name, each) for name, each in maps if each is not None]


def constructed_figure(evidence: np.ndarray, saliency: np.ndarray):
    """The maps of `constructed` on 14 x 14 cells, with what the protocol says of each."""
    pairs = constructed(evidence, saliency)
    columns = -(-len(pairs) // 2)
    figure, axes = plt.subplots(
        2, columns, figsize=(WIDTH, 0.8 * WIDTH), squeeze=False, layout="constrained"
    )
    for ax in axes.ravel():
        ax.set_axis_off()
    for ax, (name, each) in zip(axes.ravel(), pairs, strict=False):
        found = compared(each, evidence)
        small = area_means(np.asarray(each, float), GRAIN)
        ax.imshow(small / max(small.max(), 1e-12), cmap=CMAP, vmin=0, vmax=1)
        told = f"{name}\ncorrelation {found['correlation']:+.2f}, IoU {found['iou_sum']:.3f}"
        ax.set_title(told.replace("-", "−"), fontsize="x-small")
    return figure
