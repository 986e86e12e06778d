"""Does another vision architecture look elsewhere, by more than another training does?

`architecture.json` compares what is there: with one training of each member, a difference between
architectures cannot be told from one between trainings. `trainings.json` is the one size in which
most architectures have several trainings, and nothing else: every architecture has a spread of its
own to be held against. Trainings of one architecture share its tower and a language model to start
from, so its label stands for these too, and labels assigned at random are no fair null for maps.

`mini/llava-1.5-s-apart` shares no weight with any other member. Its maps lie in a folder of their
own, so that pages about the others do not count them.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..figures import WIDTH, dots, heat
from ..heatmaps.names import PAPER_METHOD
from ..metrics.statistics import compare, estimate, finite
from ..models.names import member, short
from ..sweep.stored import with_fill
from ..sweep.tables import read_table
from .compare import (
    OTHER_ARCHITECTURE,
    OTHER_SEED,
    OWN,
    RANK,
    SPECIAL,
    answers_of,
    apart,
    every_map,
    first_trainings,
    gap_table,
    map_table,
    matrix,
    mixed_numbers,
    pair_table,
    permutation,
    pictures,
    plain,
    relations,
    shared_part,
)

STRANGER = "mini/llava-1.5-s-apart"  # its maps are in the folder `STRANGER_ROWS` of the results
STRANGER_ROWS = "apart"

# --- figures


def likeness_figure(tree: dict):
    """How alike maps are given the picture: trainings of one architecture, then of two.

    Hollow: pairs with the training that shares no weight with the others.
    """
    rows = [
        (one != other, False, one if one == other else f"{one} and {other}", cell)
        for one, row in tree["families"].items()
        for other, cell in row.items()
        if one <= other
    ]
    if strangers := tree["strangers"]:
        own = member(STRANGER.removesuffix("-apart")).family
        rows += [
            (name != own, True, own if name == own else f"{own} and {name}", cell)
            for name, cell in strangers["families"].items()
        ]
    rows.sort(key=lambda row: (row[0], row[1], -row[3]["value"]))
    two, hollow, names, found = map(list, zip(*rows, strict=True))
    names = [f"{n}, no weight shared" if h else n for n, h in zip(names, hollow, strict=True)]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.3 * len(names)), layout="constrained")
    dots(ax, found, names, colour=[SPECIAL if x else OWN for x in two], hollow=hollow)
    places = (("two trainings", OWN, 0), ("two architectures", SPECIAL, two.index(True)))
    for word, colour, place in places:
        ax.text(0.02, place, word, color=colour, va="center", fontsize="small")
    ax.set(xlabel="rank correlation of two maps, given the picture", xlim=(0, 1))
    return figure


def matrix_figure(tree: dict):
    """Likeness of the largest models' maps given the picture, on the items that two both have."""
    table = pd.DataFrame(tree["matrix"])
    largest = [name for name in table if member(name).size == "l"]
    table = table.loc[largest, largest].rename(short, axis=0).rename(short, axis=1)
    figure, ax = plt.subplots(figsize=(WIDTH, 0.55 * WIDTH), layout="constrained")
    if len(table):
        heat(ax, table.mask(np.eye(len(table), dtype=bool)), "partial rank correlation")
    ax.tick_params(axis="x", rotation=20)
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
    first = first_trainings(gaps).model.unique()
    pairs = shared["pairs"]
    table = matrix(pairs[pairs.a.isin(first) & pairs.b.isin(first)])
    return {
        "provenance": tables.origin(tables.maps),
        "models": int(part.model.nunique()),
        "architectures": int(part.family.nunique()),
        "pairs": pair_differences(part),
        "permutation": permutation(part),
        "mixed": mixed_numbers(part),
        "over_sizes": over_sizes(gaps),
        "matrix": {a: plain(row) for a, row in table.iterrows()},
    }


def pair_differences(part: pd.DataFrame) -> list[dict]:
    """Every model against every other on the items that both have, p-values corrected (Holm)."""
    if part.model.nunique() < 2:
        return []
    table = compare(part, "gap", "model")[["a", "b", "n", "p_holm"]]
    return [plain(row) for _, row in table.iterrows()]


def over_sizes(gaps: pd.DataFrame) -> dict | None:
    """Architectures compared over several sizes; None unless two sizes have two architectures."""
    many = gaps.groupby("size").family.nunique()
    part = gaps[gaps["size"].isin(many.index[many > 1])]
    if part["size"].nunique() < 2:
        return None
    return {
        "sizes": ", ".join(sorted(part["size"].unique(), key=lambda s: RANK.get(s, 9))),
        "permutation": permutation(part, within="size"),
    }


def trainings_summary(tables) -> dict:
    """`trainings.json` of a results folder; {} unless two architectures have several trainings."""
    gaps = gap_table(tables.maps)
    part = repeated(gaps) if len(gaps) else gaps
    if part.empty:
        return {}
    own = map_table(tables.maps, (PAPER_METHOD,))
    own = own[own.model.isin(part.model)]
    known = pictures(own["item"].unique())
    pairs = pair_table(own, answers_of(tables.reliance), known=known)
    split = mixed_numbers(part)
    return {
        "provenance": tables.origin(tables.maps),
        "architectures": int(part.family.nunique()),
        "models": int(part.model.nunique()),
        "gaps": by_model(part),
        "ranges": ranges(part),
        "scores": permutation(part),
        "mixed": {k: split[k] for k in ("training_sd", "effects", "reference", "converged")},
        "relations": relations(pairs),
        "families": by_family(pairs),
        "apart": {
            value: apart(pairs, OTHER_SEED, OTHER_ARCHITECTURE, value).json()
            for value in ("value", "given")
        },
        "strangers": strangers(tables.results, own, pairs, known),
    }


def strangers(results: Path, own: pd.DataFrame, pairs: pd.DataFrame, known: dict) -> dict | None:
    """How alike maps are of two trainings that share no weight; None without their rows.

    `own` are the maps of the trainings that share weights, `pairs` those of them. "families": with
    each architecture; "difference": its own minus the others; "sharing": what its own trainings
    have more in common with one another. All given the picture, over items that have both.
    """
    maps = read_table(results / STRANGER_ROWS, "maps")
    if maps.empty:
        return None
    both = pair_table(pd.concat([every_map(with_fill(maps)), own]), known=known)
    both = both[(both.a == STRANGER) | (both.b == STRANGER)]
    others = both.a.where(both.b == STRANGER, both.b).map(lambda name: member(name).family)
    by_item = both.assign(family=others).pivot_table("given", "item", "family")
    family = member(STRANGER.removesuffix("-apart")).family
    alike, rest = by_item[family], by_item.drop(columns=family).mean(axis=1)
    inside = [member(a).family == member(b).family == family for a, b in pairs[["a", "b"]].values]
    shared = pairs[inside].groupby("item").given.mean()
    return {
        "families": {name: estimate(by_item[name].dropna()).json() for name in by_item},
        "difference": estimate((alike - rest).dropna()).json(),
        "sharing": estimate((shared - alike).dropna()).json(),
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


def by_family(pairs: pd.DataFrame) -> dict:
    """{architecture: {architecture: likeness of their maps given the picture}}, its own included.

    Trainings of one architecture with each other, and of two with one another.
    """
    sides = [pairs[side].map(lambda name: member(name).family) for side in "ab"]
    out: dict = {}
    for (one, other), part in pairs.groupby(sides):
        found = estimate(part.given, clusters=part["item"], draws=1000).json()
        out.setdefault(str(one), {})[str(other)] = found
        out.setdefault(str(other), {})[str(one)] = found
    return out
