"""Is a difference between architectures larger than one between trainings?

`trainings.json`: the one size in which most architectures have several trainings, and nothing else.
Every architecture then has a spread of its own to be held against, in scores and in maps, and a
permutation test has trained models as its units.
"""

import numpy as np
import pandas as pd

from ..metrics import mixed
from . import ch08_scale as scale_tables
from . import compare as similarity
from .compare import OTHER_ARCHITECTURE, OTHER_SEED, member


def trainings_summary(tables) -> dict:
    """`trainings.json` of a results folder; {} unless two architectures have several trainings."""
    gaps = scale_tables.gap_table(tables.maps)
    part = repeated(gaps) if len(gaps) else gaps
    if part.empty:
        return {}
    own = similarity.map_table(tables.maps, (scale_tables.METHOD,))
    own = own[own.model.isin(part.model)]
    pairs = similarity.pair_table(own, similarity.answers_of(tables.reliance))
    kinds = similarity.relations(pairs).set_index("relation")
    return {
        "provenance": tables.origin(tables.maps),
        "size": str(part["size"].iloc[0]),
        "architectures": int(part.family.nunique()),
        "models": int(part.model.nunique()),
        "gaps": by_model(part),
        "ranges": ranges(part),
        "scores": scale_tables.permutation(part),
        "mixed": scale_tables.mixed_numbers(part),
        "relations": {kind: scale_tables.plain(row) for kind, row in kinds.iterrows()},
        "within": within(pairs),
        "apart": scale_tables.likeness_apart(
            similarity.apart(pairs, OTHER_SEED, OTHER_ARCHITECTURE)
        ),
        "maps": likeness_test(pairs),
    }


def repeated(gaps: pd.DataFrame) -> pd.DataFrame:
    """Rows of the architectures with several trainings, in the size that has most of them.

    `gaps` as from `ch08_scale.gap_table`; no rows where no size has two such architectures.
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
    return {m: {"n": len(wide)} | scale_tables.interval(wide[m]) for m in wide}


def ranges(part: pd.DataFrame) -> dict:
    """Highest minus lowest mean: of all trainings, of one architecture's, of the architectures."""
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    means = wide.mean().groupby([member(m).family for m in wide])
    spread = (means.max() - means.min()).max()
    everything = wide.mean().max() - wide.mean().min()
    numbers = {"all": everything, "one_architecture": spread, "means": np.ptp(means.mean())}
    return {"n": len(wide)} | {k: scale_tables.number(v) for k, v in numbers.items()}


def within(pairs: pd.DataFrame) -> dict:
    """{architecture: how alike the maps of its own trainings are}."""
    families = pairs.a.map(lambda name: member(name).family)
    same = pairs[families == pairs.b.map(lambda name: member(name).family)]
    return {
        str(family): {"n": len(rows)} | scale_tables.interval(rows.value)
        for family, rows in same.groupby(families[same.index])
    }


def likeness_test(pairs: pd.DataFrame) -> dict:
    """Are maps of one architecture more alike than maps of two? Architectures are dealt anew.

    The statistic is the mean likeness of pairs within architectures minus that of pairs across, on
    the items that every model has a map of; p is one-sided.
    """
    every = pairs.groupby("item").size()
    shared = pairs[pairs.item.isin(every.index[every == every.max()])]
    table = similarity.matrix(shared)
    likeness = table.to_numpy()
    upper = np.triu(np.ones_like(likeness, bool), 1)

    def apart(labels: np.ndarray) -> float:
        same = labels[:, None] == labels[None]
        return likeness[same & upper].mean() - likeness[~same & upper].mean()

    labels = np.array([member(name).family for name in table])
    p, smallest = mixed.label_test(apart, labels)
    found = {"models": len(labels), "n": int(shared.item.nunique()), "value": float(apart(labels))}
    return found | {"p": scale_tables.number(p), "smallest": scale_tables.number(smallest)}


def rows(tree: dict) -> pd.DataFrame:
    """Both permutation tests as a table: scores, and maps."""
    table = [
        ("insertion − deletion", "sum of squares between architectures", None, tree["scores"]),
        ("maps", "likeness within minus across", tree["maps"]["value"], tree["maps"]),
    ]
    return pd.DataFrame(
        [
            {
                "what": what,
                "statistic": name,
                "value": value,
                "trained models": one["models"],
                "items": one["n"],
                "p": one["p"],
                "least possible": one["smallest"],
            }
            for what, name, value, one in table
        ]
    )
