"""Tables and figures of the chapter on detection, from the files that `lvlm-study detect` writes.

Nothing here runs a model.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..detector.bias_study import HIGH, KINDS, LOW, SIZES
from ..detector.hallucination import confidence_figure
from ..figures import WIDTH
from ..heatmaps.names import title

KIND_NAMES = {"deep": "deep MLP", "llava": "MLP like LLaVA's", "transformer": "transformer"}
KIND_NAMES |= {"unmodified": "none: LLaVA itself", "ground truth": "none: people's captions"}


def kinds_table(tree: dict, paper: pd.DataFrame) -> pd.DataFrame:
    """The kinds of W: what they keep on sprites in per cent, and the seed's scores out of 10."""
    rows = []
    for row in paper[["kind", "gpt4v_score"]].itertuples(index=False):
        ours = tree["kinds"].get(row.kind, {})
        cells = {k: _percent(ours.get(k)) for k in ("precision", "recall", "answers")}
        rows.append(
            {
                "W": KIND_NAMES[row.kind],
                "steps": str(ours["steps"]) if "steps" in ours else None,
                "squared error": f"{ours['error']:.3f}" if "error" in ours else None,
                "object precision (%)": cells["precision"],
                "object recall (%)": cells["recall"],
                "answers right (%)": cells["answers"],
                "the authors' judge (1 to 10)": row.gpt4v_score,
            }
        )
    return pd.DataFrame(rows)


def _percent(found: dict | None) -> str | None:
    if found is None or found["value"] is None:
        return None
    return f"{100 * found['value']:.0f} [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def methods_table(tree: dict) -> pd.DataFrame:
    """Every method on the same items: evidence, faithfulness, localisation, with intervals."""
    rows = [
        {
            "method": title(name),
            "energy ratio": _shown(row["energy_ratio"], 1),
            "auc": _shown(row["auc"]),
            "insertion - deletion": _shown(row["gap"]),
            "MaxBoxAccV2": _shown(row["max_box_acc"]),
        }
        for name, row in by_evidence(tree)
    ]
    return pd.DataFrame(rows)


def by_evidence(tree: dict) -> list[tuple[str, dict]]:
    """(method, scores), the highest evidence energy first."""
    return sorted(tree["methods"].items(), key=lambda m: -(m[1]["energy_ratio"]["value"] or 0))


def _shown(found: dict, digits: int = 2) -> str | None:
    if found["value"] is None:
        return None
    value, low, high = (
        float("nan") if found[k] is None else found[k] for k in ("value", "low", "high")
    )
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def evidence_figure(tree: dict):
    """Evidence energy over chance, and the gap of insertion over deletion, by method."""
    figure, axes = plt.subplots(
        1, 2, figsize=(WIDTH, 0.45 * WIDTH), sharey=True, layout="constrained"
    )
    rows = by_evidence(tree)
    for ax, name, label, chance in (
        (axes[0], "energy_ratio", "energy in the evidence\n(chance = 1)", 1),
        (axes[1], "gap", "insertion - deletion\n(chance = 0)", 0),
    ):
        _dots(ax, [(title(method), row[name]) for method, row in rows])
        ax.axvline(chance, color="0.6", linewidth=1, zorder=0)
        ax.set_xlabel(label)
    axes[0].set_xscale("log")
    return figure


def pairs_figure(tree: dict):
    """Share of pairs told apart right by their evidence, by method; one half is guessing."""
    found = sorted(tree["methods"].items(), key=lambda m: -(m[1]["right"]["value"] or 0))
    figure, ax = plt.subplots(figsize=(0.75 * WIDTH, 0.4 * WIDTH), layout="constrained")
    _dots(ax, [(title(method), row["right"]) for method, row in found])
    ax.axvline(0.5, color="0.6", linewidth=1, zorder=0)
    ax.set(xlabel="pairs told apart", xlim=(0, 1.02))
    return figure


def _dots(ax, rows: list[tuple[str, dict]]) -> None:
    """Values with their intervals, the first on top."""
    for place, (_, row) in enumerate(rows):
        if row["value"] is None:
            continue
        ax.plot(row["value"], place, "o", color="C0", markersize=5)
        if row["low"] is not None:
            ax.plot([row["low"], row["high"]], [place, place], color="C0")
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)


def presence_figure(asked: pd.DataFrame):
    """Two histograms: the detector's highest score behind "yes" and "no", and where these erred."""
    figure, axes = plt.subplots(
        1, 2, figsize=(WIDTH, 0.4 * WIDTH), sharey=True, layout="constrained"
    )
    for ax, name, part in (
        (axes[0], "right answers", asked[asked.correct]),
        (axes[1], "wrong answers", asked[~asked.correct & (asked.said != "")]),
    ):
        if len(part):
            confidence_figure(part, ax)
        ax.set_title(name if len(part) else f"{name}: none")
    return figure


def bias_figure(tree: dict, pair: str = "cat-rabbit", score: str = "expected"):
    """Change of the number by the size of the step, both twins, with the planted rule as a line.

    The first place is the scene drawn again; the rest are steps of one signed gradient.
    """
    figure, ax = plt.subplots(figsize=(0.8 * WIDTH, 0.45 * WIDTH), layout="constrained")
    names = ["drawn", *(f"{size:g}" for size in SIZES)]
    for offset, twin, marker in zip((-0.08, 0.08), KINDS, "os", strict=True):
        place = tree[pair][twin]
        found = [place["drawn"][score], *(place["step"][name][score] for name in names[1:])]
        at = np.arange(len(names)) + offset
        value, low, high = (np.array([row[k] for row in found], float) for k in KEYS)
        ax.errorbar(at, value, [value - low, high - value], fmt=marker, label=f"{twin} twin")
    if pair == "cat-rabbit":
        ax.axhline(HIGH - LOW, color="0.6", linestyle=":", label="planted")
    ax.axhline(0, color="0.6", linewidth=1, zorder=0)
    ax.set_xticks(range(len(names)), ["drawn\nagain", *names[1:]])
    ax.set(xlabel="step in feature space (in units of the features)", ylabel="change of the number")
    ax.legend()
    return figure


KEYS = ("value", "low", "high")


def bias_table(tree: dict) -> pd.DataFrame:
    """Every change of both twins: of the number said, and of the expected one."""
    rows = []
    for pair, twins in tree.items():
        for twin, place in twins.items():
            steps = [("drawn again", place["drawn"])]
            steps += [(f"step {size}", row) for size, row in place["step"].items()]
            for change, row in steps:
                rows.append(
                    {
                        "names": pair.replace("-", " / "),
                        "twin": twin,
                        "change": change,
                        "number said": _shown(row["said"]),
                        "number expected": _shown(row["expected"]),
                        "detector sees it": _shown(row["seen"]),
                        "n": row["n"],
                    }
                )
    return pd.DataFrame(rows)
