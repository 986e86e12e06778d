"""All sizes at once: what two sizes of several architectures say together.

Each architecture alone compares two trained models. Together they allow three more questions: is
the mean difference over architectures negligible, what is left of it beside the differences
between items and between models, and what are the labels of the sizes worth with models as units?
"""

import pandas as pd

from ..errors import StudyError
from ..metrics import mixed
from .compare import SIZES, comparable, member, studied


def two_sizes(rows: pd.DataFrame) -> tuple[str, str, pd.DataFrame] | None:
    """The two sizes that most architectures have, and the rows of those that have both.

    `rows` as from `ch08_scale.gap_table`; of several trainings the first counts. None where no
    architecture has two sizes.
    """
    first = rows[rows.seed == rows.groupby("family").seed.transform("min")]
    have = {family: set(part["size"]) for family, part in first.groupby("family")}
    pairs = [(a, b) for k, a in enumerate(SIZES) for b in SIZES[k + 1 :]]
    counts = {pair: sum(set(pair) <= sizes for sizes in have.values()) for pair in pairs}
    small, large = max(pairs, key=counts.get)
    if not counts[small, large]:
        return None
    families = [family for family, sizes in have.items() if {small, large} <= sizes]
    kept = first[first.family.isin(families) & first["size"].isin([small, large])]
    return small, large, kept


def apart_by_item(rows: pd.DataFrame, value: str) -> tuple[str, int, pd.Series] | None:
    """Larger minus smaller, item by item: (which sizes, how many architectures, differences).

    An item counts once, with the mean over the architectures that have it in both sizes. None
    without two architectures in two sizes, or with fewer than two items.
    """
    found = two_sizes(rows)
    if found is None or found[2].family.nunique() < 2:
        return None
    small, large, kept = found
    wide = kept.pivot_table(index=["item", "family"], columns="size", values=value).dropna()
    apart = (wide[large] - wide[small]).groupby("item").mean()
    if len(apart) < 2:
        return None
    return f"{small} to {large}", int(kept.family.nunique()), apart


def labels(rows: pd.DataFrame, value: str) -> dict | None:
    """Permutation test with models as units, sizes dealt anew within each architecture.

    On items that all of these models have a number for. None where there is nothing to deal.
    """
    found = two_sizes(rows)
    if found is None:
        return None
    wide = found[2].pivot_table(index="item", columns="model", values=value).dropna()
    if not len(wide) or wide.shape[1] != found[2].model.nunique():
        return None
    about = [member(name) for name in wide.columns]
    p, smallest = mixed.exact_p(
        wide.mean().to_numpy(), [m.size for m in about], [m.family for m in about]
    )
    return {"models": len(about), "n": len(wide), "p": p, "smallest": smallest}


def split(rows: pd.DataFrame, value: str) -> mixed.Mixed | None:
    """Mixed model: size fixed, architecture allowed for, items and models as random effects.

    Effects are against the smaller size. None where no architecture has two sizes; models vary
    at random only where each size has several.
    """
    found = two_sizes(rows)
    if found is None:
        return None
    small, _, kept = found
    kept = kept.assign(first=kept["size"] != small)
    kept = kept.sort_values(["first", "family", "model", "item"])
    try:
        return mixed.mixed_effects(kept, value, "size", beside="family")
    except StudyError:
        return None


def leaning(reliance: pd.DataFrame) -> pd.DataFrame:
    """How much each answer rests on the picture: model, item, drop, right, and what a name says.

    Drawn scenes where there are any; `drop` is the share of the answer's probability that blur
    takes away, `right` 1 for a right answer.
    """
    if reliance.empty or "baseline" not in reliance:
        return pd.DataFrame()
    rows = studied(reliance)
    rows = rows[(rows.baseline == "blur") & rows.total_drop.notna()]
    rows = comparable(rows.drop_duplicates(["model", "item"]))
    right = (rows.verdict == "correct").astype(float).where(rows.verdict.notna())
    rows = rows.assign(drop=rows.total_drop, right=right)[["model", "item", "drop", "right"]]
    about = [vars(member(name)) for name in rows.model]
    return pd.concat([rows, pd.DataFrame(about, index=rows.index)], axis=1)
