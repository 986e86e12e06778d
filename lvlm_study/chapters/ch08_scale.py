"""Does a larger language model look elsewhere, and what would one have to measure to say so?

`scale.json` takes whatever models have maps and says what is missing. Each architecture alone
compares two trained models; together they allow three more questions: is the mean difference over
architectures negligible, what is left of it beside the differences between items and between
models, and what are the labels of the sizes worth with models as units?
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from ..errors import StudyError
from ..figures import ENDS, WIDTH, chance_line, dots
from ..metrics import mixed
from ..metrics.statistics import paired_test
from ..models.names import SIZES, member
from .compare import (
    OTHER_ARCHITECTURE,
    OTHER_SEED,
    OTHER_SIZE,
    RANK,
    apart,
    as_numbers,
    comparable,
    estimated,
    gap_table,
    interval,
    map_table,
    pair_table,
    permutation,
    pictures,
    relations,
    shared_part,
    shown,
    studied,
)
from .two_models import by_sizes

MARGIN = 0.05  # insertion - deletion; a difference below it is called no difference
FREE = "gae"  # a method whose maps carry little of the picture


# --- tables of the page


def size_rows(tree: dict) -> pd.DataFrame:
    """One row a pair of sizes, all architectures together last: means, difference, verdict."""
    rows = [
        {
            "architecture": name,
            "sizes": key,
            "n": one["n"],
            "smaller": shown(one["small"]) if "small" in one else "–",
            "larger": shown(one["large"]) if "large" in one else "–",
            "difference": shown(one["difference"]),
            "90 % interval": _ends(one["equivalence"]),
            "items needed": one["needed"],
            "verdict": one["verdict"],
        }
        for name, key, one in by_sizes(tree)
    ]
    return pd.DataFrame(rows or [{"architecture": "none with maps from two sizes yet"}])


def _ends(found: dict) -> str:
    return f"[{found['low']:.2f}, {found['high']:.2f}]".replace("-", "−")


def answer_rows(tree: dict) -> pd.DataFrame:
    """One row a pair of sizes: right answers, what blur takes away, and its difference."""
    rows = [
        {
            "architecture": family,
            "sizes": key,
            "n": one["drop"]["n"],
            "right, smaller": "–" if one["right"] is None else shown(one["right"]["small"]),
            "right, larger": "–" if one["right"] is None else shown(one["right"]["large"]),
            "lost under blur, smaller": shown(one["drop"]["small"]),
            "lost under blur, larger": shown(one["drop"]["large"]),
            "its difference": shown(one["drop"]["difference"]),
            "its verdict": one["drop"]["verdict"],
        }
        for family, sizes in tree.get("answers", {}).items()
        for key, one in sizes.items()
    ]
    return pd.DataFrame(rows or [{"architecture": "none that answered in two sizes yet"}])


# --- the figure of the page


def size_figure(tree: dict):
    """Larger minus smaller size with 90 % intervals, and the band that counts as no difference."""
    rows = by_sizes(tree)
    found = [one["equivalence"] | {"value": one["difference"]["value"]} for *_, one in rows]
    names = [f"{family}, {key} (n = {one['n']})" for family, key, one in rows]
    figure, ax = plt.subplots(figsize=(WIDTH, 1 + 0.3 * len(rows)), layout="constrained")
    margin = tree["margin"]
    ax.axvspan(-margin, margin, color="0.9", zorder=0)
    ax.text(0, -0.75, "no difference", ha="center", va="center", fontsize="small")
    chance_line(ax, 0)
    dots(ax, found, names)
    ax.set(xlabel="insertion − deletion, larger minus smaller", ylim=(len(rows) - 0.5, -1.1))
    return figure


# --- the numbers of the page


def scale_summary(tables) -> dict:
    """`scale.json` of a results folder (`compare.Tables`); {} without maps."""
    gaps = gap_table(tables.maps)
    if gaps.empty:
        return {}
    shared, two = shared_part(tables), two_sizes(gaps)
    pairs = shared["pairs"]
    families = of_families(gaps, "gap")
    return {
        "provenance": tables.origin(tables.maps),
        "models": int(gaps.model.nunique()),
        "margin": MARGIN,
        "families": families,
        "together": together(*two) if two else None,
        "permutation": permutation(two[2], "size", within="family") if two else None,
        "mixed": as_numbers(split(two[0], two[2])) if two else None,
        "answers": answers_by_size(tables.reliance),
        "relations": shared["relations"],
        "ceiling": shared["ceiling"],
        "free": by_method(tables.maps, FREE),
        "apart": {
            "size_architecture": apart(pairs, OTHER_SIZE, OTHER_ARCHITECTURE).json(),
            "size_training": apart(pairs, OTHER_SIZE, OTHER_SEED).json(),
        },
    }


def by_method(maps: pd.DataFrame, method: str) -> dict:
    """The scores of another method by size, and how alike its maps are."""
    gaps = gap_table(maps, method)
    if gaps.empty:
        return {"families": {}, "relations": {}}
    table = map_table(maps, (method,))
    pairs = pair_table(table, known=pictures(table["item"].unique()))
    return {"families": of_families(gaps, "gap"), "relations": relations(pairs)}


def of_families(rows: pd.DataFrame, value: str) -> dict:
    """{architecture: {"s to m": ...}}: for every two sizes of its first training both means, tests.

    `rows` as from `compare.gap_table`; on the items that both have.
    """
    out: dict = {}
    for family, part in rows.groupby("family"):
        first = part[part.seed == part.seed.min()]
        names = sorted(first.model.unique(), key=lambda name: RANK.get(member(name).size, 9))
        for small, large in zip(names, names[1:], strict=False):
            wide = first.pivot(index="item", columns="model", values=value)[[small, large]].dropna()
            if len(wide) > 1:
                key = f"{member(small).size} to {member(large).size}"
                means = {"small": interval(wide[small]), "large": interval(wide[large])}
                found = differs(wide[small], wide[large]) | means
                out.setdefault(str(family), {})[key] = found
    return out


def differs(small: pd.Series, large: pd.Series) -> dict:
    """Larger minus smaller, item by item: is it there, is it negligible, and the verdict."""
    test, same = paired_test(large, small), mixed.equivalence(large, small, MARGIN)
    return {
        "n": len(small),
        "difference": estimated(test.estimate) | {"p": test.p},
        "equivalence": {"low": same.low, "high": same.high, "p": same.p},
        "needed": needed((large - small).std()),
        "verdict": size_verdict(test, same),
    }


def needed(sd: float) -> int:
    """Items with which two equal sizes would be called equivalent nine times in ten.

    Two one-sided tests at 5 % of paired differences with this standard deviation.
    """
    return int(np.ceil((2 * stats.norm.ppf(0.95) * sd / MARGIN) ** 2))


def size_verdict(test, same) -> str:
    """In words: different, equivalent, both (a difference, but a small one), or open."""
    differs = test.p < 0.05
    if same.equivalent:
        return "different, but by less than the margin" if differs else "equivalent"
    return "different" if differs else "cannot tell"


def answers_by_size(reliance: pd.DataFrame) -> dict:
    """Right answers and what blur takes from them, for every two sizes; {} where nothing is."""
    rows = leaning(reliance)
    if rows.empty:
        return {}
    right, out = of_families(rows, "right"), of_families(rows, "drop")
    for family, sizes in out.items():
        for key, drop in sizes.items():
            means = right.get(family, {}).get(key)
            means = means and {name: means[name] for name in ("small", "large")}
            found = {name: drop[name] for name in ("n", "small", "large", "verdict")}
            found["difference"] = {name: drop["difference"][name] for name in ENDS}
            sizes[key] = {"right": means, "drop": found}
    return out


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


# --- all sizes at once


def two_sizes(rows: pd.DataFrame) -> tuple[str, str, pd.DataFrame] | None:
    """The two sizes that most architectures have, and the rows of those that have both.

    `rows` as from `compare.gap_table`; of several trainings the first counts. None where no
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


def together(small: str, large: str, kept: pd.DataFrame) -> dict | None:
    """The difference of two sizes averaged over architectures, from `two_sizes`.

    An item counts once, with the mean over the architectures that have it in both sizes. None
    for a single architecture, or with fewer than two items.
    """
    wide = kept.pivot_table(index=["item", "family"], columns="size", values="gap").dropna()
    apart = (wide[large] - wide[small]).groupby("item").mean()
    if len(apart) < 2 or kept.family.nunique() < 2:
        return None
    about = {"sizes": f"{small} to {large}", "architectures": int(kept.family.nunique())}
    return about | differs(0 * apart, apart)


def split(small: str, kept: pd.DataFrame) -> mixed.Mixed | None:
    """Mixed model: size fixed, architecture allowed for, items and models as random effects.

    From `two_sizes`; effects are against the smaller size. None with fewer than two items; models
    vary at random only where each size has several.
    """
    kept = kept.assign(first=kept["size"] != small)
    kept = kept.sort_values(["first", "family", "model", "item"])
    try:
        return mixed.mixed_effects(kept, "gap", "size", beside="family")
    except StudyError:
        return None
