"""Does another vision architecture look elsewhere, by more than another training does?

`architecture.json` compares what is there: with one training of each member, a difference between
architectures cannot be told from one between trainings. `trainings.json` is the one size in which
most architectures have several trainings, and nothing else: every architecture has a spread of its
own to be held against, in scores and in maps, and a permutation test has trained models as units.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..figures import WIDTH, dots
from ..heatmaps.names import PAPER_METHOD
from ..metrics import mixed
from ..metrics.statistics import compare, estimate, finite
from ..models.names import member, short
from .compare import (
    OTHER_ARCHITECTURE,
    OTHER_SEED,
    RANK,
    answers_of,
    apart,
    gap_table,
    map_table,
    matrix,
    mixed_numbers,
    pair_table,
    permutation,
    plain,
    relations,
    shared_part,
    spanned,
)

# --- the table of the page


def rows(tree: dict) -> pd.DataFrame:
    """Both permutation tests of `trainings.json` as a table: scores, and maps."""
    table = {
        ("insertion − deletion", "sum of squares between architectures"): tree["scores"],
        ("maps", "likeness within minus across"): tree["maps"],
    }
    columns = {
        "value": "value",
        "models": "trained models",
        "n": "items",
        "p": "p",
        "smallest": "least possible",
    }
    return pd.DataFrame(
        [
            {"what": what, "statistic": name} | {c: one.get(key) for key, c in columns.items()}
            for (what, name), one in table.items()
        ]
    )


# --- figures


def matrix_figure(tree: dict):
    """Mean similarity of every two models' maps on the items that both have; first trainings."""
    table = pd.DataFrame(tree["matrix"]).rename(short, axis=0).rename(short, axis=1)
    first = [name for name in table if "-seed" not in name]
    table = table.loc[first, first]
    side = min(WIDTH, 2.2 + 0.7 * max(len(table), 2))
    figure, ax = plt.subplots(figsize=(side, 0.8 * side), layout="constrained")
    if len(table):
        sns.heatmap(
            table.astype(float), annot=True, fmt=".2f", vmin=0, vmax=1, cmap="cividis", ax=ax,
            cbar_kws={"label": "rank correlation of maps"},
        )  # fmt: skip
    ax.tick_params(axis="x", rotation=30)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def gap_figure(tree: dict):
    """Insertion - deletion of every model of one size, with intervals."""
    names = [f"{short(model)} (n = {one['n']})" for model, one in tree["gaps"].items()]
    size = (WIDTH, 0.8 + 0.35 * max(len(names), 2))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    dots(ax, list(tree["gaps"].values()), names)
    ax.axvline(0, color="0.6", linewidth=1)
    ax.set(xlabel="insertion − deletion")
    return figure


# --- the numbers of the page


def architecture_summary(tables) -> dict:
    """`architecture.json` of a results folder (`compare.Tables`); {} without maps."""
    gaps = gap_table(tables.maps)
    if gaps.empty:
        return {}
    size = gaps.groupby("size").family.nunique().idxmax()
    part, shared = gaps[gaps["size"] == size], shared_part(tables)
    return {
        "provenance": tables.origin(tables.maps),
        "models": int(part.model.nunique()),
        "architectures": int(part.family.nunique()),
        "gaps": {m: estimate(rows.gap).json() for m, rows in part.groupby("model")},
        "pairs": pair_differences(part),
        "permutation": permutation(part),
        "mixed": mixed_numbers(part),
        "over_sizes": over_sizes(gaps),
        "relations": shared["relations"],
        "matrix": shared["matrix"],
        "ceiling": shared["ceiling"],
        "ceiling_spans": spanned(shared["ceiling"]),
    }


def pair_differences(part: pd.DataFrame) -> list[dict]:
    """Every model against every other on the items that both have, p-values corrected (Holm)."""
    if part.model.nunique() < 2:
        return []
    table = compare(part, "gap", "model")[["a", "b", "n", "p_holm"]]
    return [plain(row) for _, row in table.iterrows()]


def over_sizes(gaps: pd.DataFrame) -> dict | None:
    """Architectures compared over several sizes; None unless two sizes have two architectures.

    The models of one architecture then stand for it together: how much they differ beyond their
    size is the spread that a single size cannot show.
    """
    many = gaps.groupby("size").family.nunique()
    part = gaps[gaps["size"].isin(many.index[many > 1])]
    if part["size"].nunique() < 2:
        return None
    return {
        "sizes": ", ".join(sorted(part["size"].unique(), key=lambda s: RANK.get(s, 9))),
        "models": int(part.model.nunique()),
        "permutation": permutation(part, within="size"),
        "mixed": mixed_numbers(part),
    }


def trainings_summary(tables) -> dict:
    """`trainings.json` of a results folder; {} unless two architectures have several trainings."""
    gaps = gap_table(tables.maps)
    part = repeated(gaps) if len(gaps) else gaps
    if part.empty:
        return {}
    own = map_table(tables.maps, (PAPER_METHOD,))
    own = own[own.model.isin(part.model)]
    pairs = pair_table(own, answers_of(tables.reliance))
    kinds = relations(pairs).set_index("relation")[["value", "low", "high", "chance"]]
    split = mixed_numbers(part)
    return {
        "provenance": tables.origin(tables.maps),
        "architectures": int(part.family.nunique()),
        "models": int(part.model.nunique()),
        "gaps": by_model(part),
        "ranges": ranges(part),
        "scores": permutation(part),
        "mixed": {k: split[k] for k in ("training_sd", "effects", "reference", "converged")},
        "relations": {kind: plain(row) for kind, row in kinds.iterrows()},
        "within": within(pairs),
        "apart": apart(pairs, OTHER_SEED, OTHER_ARCHITECTURE).json(),
        "maps": likeness_test(pairs),
    }


def repeated(gaps: pd.DataFrame) -> pd.DataFrame:
    """Rows of the architectures with several trainings, in the size that has most of them.

    `gaps` as from `compare.gap_table`; no rows where no size has two such architectures.
    """
    count = gaps.groupby(["size", "family"]).model.nunique()
    several = count[count > 1].reset_index()
    if several.empty or several["size"].value_counts().max() < 2:
        return gaps.iloc[:0]
    size = several["size"].value_counts().idxmax()
    families = several.family[several["size"] == size]
    return gaps[(gaps["size"] == size) & gaps.family.isin(families)]


def by_model(part: pd.DataFrame) -> dict:
    """{model: n, mean, interval} of insertion - deletion, on the items that all models have.

    Only there are means comparable: which items a model has is its own doing.
    """
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    return {m: estimate(wide[m]).json() for m in wide}


def ranges(part: pd.DataFrame) -> dict:
    """Highest minus lowest mean: of one architecture's trainings, of the architectures."""
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    means = wide.mean().groupby([member(m).family for m in wide])
    spread = (means.max() - means.min()).max()
    return {
        "n": len(wide),
        "one_architecture": finite(spread),
        "means": finite(np.ptp(means.mean())),
    }


def within(pairs: pd.DataFrame) -> dict:
    """{architecture: how alike the maps of its own trainings are}."""
    families = pairs.a.map(lambda name: member(name).family)
    same = pairs[families == pairs.b.map(lambda name: member(name).family)]
    means = same.groupby(families[same.index]).value.mean()
    return {str(family): {"value": finite(value)} for family, value in means.items()}


def likeness_test(pairs: pd.DataFrame) -> dict:
    """Are maps of one architecture more alike than maps of two? Architectures are dealt anew.

    The statistic is the mean likeness of pairs within architectures minus that of pairs across, on
    the items that every model has a map of; p is one-sided.
    """
    every = pairs.groupby("item").size()
    shared = pairs[pairs.item.isin(every.index[every == every.max()])]
    table = matrix(shared)
    likeness = table.to_numpy()
    upper = np.triu(np.ones_like(likeness, bool), 1)

    def apart(labels: np.ndarray) -> float:
        same = labels[:, None] == labels[None]
        return likeness[same & upper].mean() - likeness[~same & upper].mean()

    labels = np.array([member(name).family for name in table])
    p, smallest = mixed.label_test(apart, labels)
    found = {"models": len(labels), "n": int(shared.item.nunique()), "value": float(apart(labels))}
    return found | {"p": finite(p), "smallest": finite(smallest)}
