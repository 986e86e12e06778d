"""Does a larger language model look elsewhere, and what would one have to measure to say so?

`scale.json` takes whatever models have maps and says what is missing. Each architecture alone
compares two trained models; together they allow three more questions: is the mean difference over
architectures negligible, what is left of it beside the differences between items and between
models, and what are the labels of the sizes worth with models as units?
"""

import pandas as pd

from ..errors import StudyError
from ..metrics import mixed
from ..metrics.statistics import paired_test
from .compare import (
    OTHER_ARCHITECTURE,
    OTHER_SEED,
    OTHER_SIZE,
    RANK,
    SIZES,
    as_numbers,
    comparable,
    finite,
    gap_table,
    interval,
    member,
    shared_part,
    short,
    shown,
    spanned,
    studied,
    table4_tests,
    with_factors,
)

MARGIN = 0.05  # insertion - deletion; a difference below it is called no difference
SPREADS = {"item_sd": "items", "training_sd": "trainings", "residual_sd": "rest"}


# --- tables for pages


def paper_units(
    table4: pd.DataFrame, tree: dict, scalars: pd.DataFrame, group: str
) -> pd.DataFrame:
    """The paper's p-value beside tests on its own table and ours, each with its unit."""
    name, factor = {
        "vision_arch": ("p_vision_architecture", "vision"),
        "llm_scale": ("p_llm_scale", "step"),
    }[group]
    p = float(scalars.set_index("key").value[name])
    rows = [("the paper", "not named", "not named", "not named", p)]
    tests = table4_tests(with_factors(table4), group, factor).set_index("score")
    for test in ("anova", "rank", "permutation", "smallest"):
        label = "least that permutation can give" if test == "smallest" else test
        rows += [(f"its Table 4, {s}", label, "model", 6, p) for s, p in tests[test].items()]
    rows += _own_tests(tree)
    return pd.DataFrame(rows, columns=["data", "test", "unit", "units", "p"])


def _own_tests(tree: dict) -> list[tuple]:
    own = []
    for pair in tree.get("pairs", []):
        label = f"ours, {short(pair['a'])} − {short(pair['b'])}"
        own.append((label, "sign flips, Holm", "item", pair["n"], pair["p_holm"]))
    for name, key, one in _by_sizes(tree):
        label = f"ours, {name} {key}"
        own.append((label, "sign flips", "item", one["n"], one["difference"]["p"]))
        own.append((label, "equivalence", "item", one["n"], one["equivalence"]["p"]))
    own += _dealt("ours", tree.get("permutation"))
    over = tree.get("over_sizes")
    return own + (_dealt(f"ours, sizes {over['sizes']}", over["permutation"]) if over else [])


def _dealt(label: str, found: dict | None) -> list[tuple]:
    """Two rows of a permutation test with models as units: its p and the least possible."""
    if not found or found["p"] is None:
        return []
    least = "least that permutation can give"
    return [
        (label, test, "model", found["models"], p)
        for test, p in (("permutation", found["p"]), (least, found["smallest"]))
    ]


def _by_sizes(tree: dict) -> list[tuple[str, str, dict]]:
    """(architecture, sizes, what came out), and last all architectures together."""
    found = tree.get("families", {}).items()
    rows = [(family, key, one) for family, sizes in found for key, one in sizes.items()]
    every = tree.get("together")
    return rows + ([(f"all {every['architectures']}", every["sizes"], every)] if every else [])


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
            "90 % interval": f"[{one['equivalence']['low']:.2f}, {one['equivalence']['high']:.2f}]",
            "verdict": one["verdict"],
        }
        for name, key, one in _by_sizes(tree)
    ]
    return pd.DataFrame(rows or [{"architecture": "none with maps from two sizes yet"}])


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


def mixed_rows(tree: dict | None) -> pd.DataFrame:
    """The mixed model of a tree as a table: effects, then what varies."""
    found = tree and tree.get("mixed")
    if not found:
        return pd.DataFrame([{"part": "nothing to compare yet"}])
    rows = [
        (f"{group} − {found['reference']}", e["estimate"], e["low"], e["high"])
        for group, e in found["effects"].items()
    ]
    for name, label in SPREADS.items():
        rows.append((f"spread of {label}", found[name], None, None))
    if found["converged"] != "True":
        rows.append(("the fit did not settle: do not quote it", None, None, None))
    table = pd.DataFrame(rows, columns=["part", "estimate", "low", "high"])
    return table.astype({"estimate": float, "low": float, "high": float})


def relation_rows(tree: dict) -> pd.DataFrame:
    """Map similarity by what two maps differ in, chance and ceiling included."""
    rows = []
    for kind, one in tree["relations"].items():
        rows.append({"the two maps differ in": kind, "pairs of models": str(one["pairs"])})
        rows[-1] |= {"n": one["n"], "rank correlation": shown(one)}
        rows[-1] |= {"different items": one["chance"], "same answer": one["same_answer"]}
    for name, one in tree["ceiling"].items():
        rows.append(
            {"the two maps differ in": f"settings: {name[5:-1]}", "pairs of models": "one model"}
        )
        rows[-1] |= {"n": one["n"], "rank correlation": shown(one)}
    table = pd.DataFrame(rows or [{"the two maps differ in": "no two maps yet"}])
    return table


def missing(tree: dict) -> str:
    """What a reader should know is not there: a plain sentence."""
    kinds = set(tree["relations"])
    lacks = [k for k in (OTHER_SIZE, OTHER_SEED, OTHER_ARCHITECTURE) if k not in kinds]
    if not lacks:
        return "Every kind of pair is there: other size, other training, other architecture."
    return f"No two models on this page differ only in: {', '.join(k[6:] for k in lacks)}."


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


# --- the numbers of the page


def scale_summary(tables) -> dict:
    """`scale.json` of a results folder (`compare.Tables`); {} without maps."""
    gaps = gap_table(tables.maps)
    if gaps.empty:
        return {}
    shared = shared_part(tables)
    families = {f: sizes_of(part, shared["pairs"]) for f, part in gaps.groupby("family")}
    families = {f: found for f, found in families.items() if found}
    every = together(gaps, "gap")
    return {
        "provenance": tables.origin(tables.maps),
        "models": int(gaps.model.nunique()),
        "families_with_sizes": len(families),
        "margin": MARGIN,
        "said": _said_sizes(families, every),
        "families": families,
        "together": every,
        "permutation": labels(gaps, "gap"),
        "mixed": as_numbers(split(gaps, "gap")),
        "answers": answers_by_size(tables.reliance),
        "relations": shared["relations"],
        "ceiling": shared["ceiling"],
        "ceiling_spans": spanned(shared["ceiling"]),
        "apart": shared["apart"],
    }


def sizes_of(part: pd.DataFrame, pairs: pd.DataFrame | None = None, value: str = "gap") -> dict:
    """For every two sizes of one architecture (first training): scores, test, map similarity."""
    first = part[part.seed == part.seed.min()]
    names = sorted(first.model.unique(), key=lambda n: RANK.get(member(n).size, 9))
    out = {}
    for small, large in zip(names, names[1:], strict=False):
        wide = first.pivot(index="item", columns="model", values=value)[[small, large]].dropna()
        if len(wide) < 2:
            continue
        key = f"{member(small).size} to {member(large).size}"
        out[key] = two_models(wide[small], wide[large])
        if pairs is not None:
            alike = pairs[(pairs.a.isin([small, large])) & (pairs.b.isin([small, large]))]
            out[key]["similarity"] = alikeness(alike)
    return out


def two_models(small: pd.Series, large: pd.Series) -> dict:
    """Both means and their difference, tested for being there and for being negligible."""
    return differs(small, large) | {"small": interval(small), "large": interval(large)}


def differs(small: pd.Series, large: pd.Series) -> dict:
    """Larger minus smaller, item by item: two tests, two intervals, and the verdict."""
    test, same = paired_test(large, small), mixed.equivalence(large, small, MARGIN)
    return {
        "n": len(small),
        "difference": {"value": test.difference, "low": test.low, "high": test.high, "p": test.p},
        "equivalence": {"low": same.low, "high": same.high, "p": same.p},
        "verdict": size_verdict(test, same),
    }


def together(rows: pd.DataFrame, value: str) -> dict | None:
    """The difference of two sizes averaged over architectures; None with fewer than two."""
    found = apart_by_item(rows, value)
    if found is None:
        return None
    sizes, architectures, apart = found
    return {"sizes": sizes, "architectures": architectures} | differs(0 * apart, apart)


def answers_by_size(reliance: pd.DataFrame) -> dict:
    """Right answers and what blur takes from them, for every two sizes; {} where nothing is."""
    rows = leaning(reliance)
    if rows.empty:
        return {}
    out = {}
    for family, part in rows.groupby("family"):
        right, drop = (sizes_of(part, value=name) for name in ("right", "drop"))
        if drop:
            out[str(family)] = {key: {"right": right.get(key), "drop": drop[key]} for key in drop}
    return out


def size_verdict(test, same) -> str:
    """In words: different, equivalent, both (a difference, but a small one), or open."""
    differs = test.p < 0.05
    if same.equivalent:
        return "different, but by less than the margin" if differs else "equivalent"
    return "different" if differs else "cannot tell"


def alikeness(pairs: pd.DataFrame) -> dict:
    """Mean similarity of some pairs with its interval, and that of maps of different items."""
    return {"n": len(pairs), "chance": finite(pairs.chance.mean())} | interval(pairs.value)


def _said_sizes(families: dict, every: dict | None) -> str:
    if not families:
        return "No architecture has maps from two sizes yet: nothing is compared here"
    parts = [
        f"{f} ({k}: {one['verdict']})" for f, pairs in families.items() for k, one in pairs.items()
    ]
    said = "Compared so far: " + ", ".join(parts)
    return said if every is None else f"{said}; all of them together: {every['verdict']}"
