"""What the language model's size and the vision architecture do to maps: the paper's question 4.

Two summaries, `scale.json` and `architecture.json`, and the tables that pages show from them. They
take whatever models have maps and say what is missing: with one training of each member, a
difference between architectures cannot be told from a difference between trainings.
"""

import numpy as np
import pandas as pd

from ..heatmaps.names import PAPER_METHOD
from ..metrics import mixed
from ..metrics.statistics import compare, estimate, paired_test
from ..sweep.stored import one_way
from . import compare as similarity
from . import size_tests
from .compare import OTHER_ARCHITECTURE, OTHER_SEED, OTHER_SIZE, member

MARGIN = 0.05  # insertion - deletion; a difference below it is called no difference
METHOD = PAPER_METHOD
CEILING = tuple(  # nearly the same settings
    f"igos[{change},preset=paper]" for change in ("noise=0", "steps=20", "steps=5")
)
APART = {  # differences in likeness that the pages quote, on items that have both
    "size_architecture": ("other size", "other architecture"),
    "training_architecture": ("other training", "other architecture"),
    "size_training": ("other size", "other training"),
}
RANK = {"s": 0, "m": 1, "l": 2}
SPREADS = {"item_sd": "items", "training_sd": "trainings", "residual_sd": "rest"}


def scale_summary(tables) -> dict:
    """`scale.json` of a results folder (`summaries.Tables`); {} without maps."""
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
        "permutation": size_tests.labels(gaps, "gap"),
        "mixed": as_numbers(size_tests.split(gaps, "gap")),
        "answers": answers_by_size(tables.reliance),
        "relations": shared["relations"],
        "ceiling": shared["ceiling"],
        "ceiling_spans": spanned(shared["ceiling"]),
        "apart": shared["apart"],
    }


def architecture_summary(tables) -> dict:
    """`architecture.json` of a results folder (`summaries.Tables`); {} without maps."""
    gaps = gap_table(tables.maps)
    if gaps.empty:
        return {}
    size = gaps.groupby("size").family.nunique().idxmax()
    part, shared = gaps[gaps["size"] == size], shared_part(tables)
    trainings = part.groupby("family").model.nunique()
    return {
        "provenance": tables.origin(tables.maps),
        "size": str(size),
        "models": int(part.model.nunique()),
        "architectures": int(part.family.nunique()),
        "trained_twice": int((trainings > 1).sum()),
        "said": said_architectures(trainings),
        "gaps": {m: {"n": len(rows)} | interval(rows.gap) for m, rows in part.groupby("model")},
        "pairs": pair_differences(part),
        "permutation": permutation(part),
        "mixed": mixed_numbers(part),
        "over_sizes": over_sizes(gaps),
        "relations": shared["relations"],
        "matrix": shared["matrix"],
        "ceiling": shared["ceiling"],
        "ceiling_spans": spanned(shared["ceiling"]),
        "apart": shared["apart"],
    }


def gap_table(maps: pd.DataFrame) -> pd.DataFrame:
    """Insertion - deletion of the paper's method: model, family, size, seed, item, gap."""
    if maps.empty:
        return pd.DataFrame()
    rows = similarity.studied(one_way(maps))
    rows = rows[(rows.method == METHOD) & rows.gap.notna()]
    rows = rows.drop_duplicates(["model", "item"])[["model", "item", "category", "gap"]]
    rows = similarity.comparable(rows)
    about = [vars(member(name)) for name in rows.model]
    return pd.concat([rows, pd.DataFrame(about, index=rows.index)], axis=1)


def shared_part(tables) -> dict:
    """Map similarity of every two models, by what they differ in, and the ceiling."""
    table = similarity.map_table(tables.maps, (METHOD, *CEILING))
    own = table[table.method == METHOD]
    pairs = similarity.pair_table(own, similarity.answers_of(tables.reliance))
    found = similarity.relations(pairs).set_index("relation")
    together = similarity.matrix(pairs)
    return {
        "pairs": pairs,
        "relations": {kind: plain(row) for kind, row in found.iterrows()},
        "matrix": {a: plain(row) for a, row in together.iterrows()},
        "apart": {
            key: likeness_apart(similarity.apart(pairs, one, other))
            for key, (one, other) in APART.items()
        },
        "ceiling": ceiling(table),
    }


def ceiling(table: pd.DataFrame) -> dict:
    """How alike two maps of one model are when the method's settings hardly differ."""
    out = {}
    for name in CEILING:
        part = table[table.method.isin([METHOD, name])]
        values = [
            similarity.pair_table(rows, by="method").value
            for _, rows in part.groupby("model")
            if rows.method.nunique() == 2
        ]
        if values and len(joined := pd.concat(values)):
            out[name] = {"n": len(joined)} | interval(joined)
    return out


def likeness_apart(found) -> dict:
    """An estimate as {"n", "value", "low", "high"}; null where there was nothing to compare."""
    numbers = {name: number(getattr(found, name)) for name in ("value", "low", "high")}
    return {"n": found.n} | numbers


def spanned(ceiling: dict) -> dict:
    """The least and the greatest mean likeness of `ceiling`; {} where it is empty."""
    values = [one["value"] for one in ceiling.values()]
    return {"least": min(values), "most": max(values)} if values else {}


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
    found = size_tests.apart_by_item(rows, value)
    if found is None:
        return None
    sizes, architectures, apart = found
    return {"sizes": sizes, "architectures": architectures} | differs(0 * apart, apart)


def answers_by_size(reliance: pd.DataFrame) -> dict:
    """Right answers and what blur takes from them, for every two sizes; {} where nothing is."""
    rows = size_tests.leaning(reliance)
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
    return {"n": len(pairs), "chance": number(pairs.chance.mean())} | interval(pairs.value)


def pair_differences(part: pd.DataFrame) -> list[dict]:
    """Every model against every other on the items that both have, p-values corrected (Holm)."""
    if part.model.nunique() < 2:
        return []
    return [plain(row) for _, row in compare(part, "gap", "model").iterrows()]


def permutation(part: pd.DataFrame, within_sizes: bool = False) -> dict:
    """Models as units, architecture as label, on items that all models have a map of.

    `within_sizes`: labels change hands only among models of one size.
    """
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    means, labels = wide.mean(), [member(name).family for name in wide.columns]
    if len(means) < 2 or not len(wide):
        return {"models": len(means), "n": len(wide), "p": None, "smallest": None}
    sizes = [member(name).size for name in wide.columns] if within_sizes else None
    p, smallest = mixed.exact_p(means.to_numpy(), labels, sizes)
    return {"models": len(means), "n": len(wide), "p": p, "smallest": smallest}


def mixed_numbers(part: pd.DataFrame) -> dict | None:
    """Architecture fixed, items and repeated trainings random; None with a single architecture."""
    if part.family.nunique() < 2:
        return None
    order = part.assign(first=part.family != "llava-1.5").sort_values(["first", "family", "model"])
    beside = "size" if part["size"].nunique() > 1 else None
    return as_numbers(mixed.mixed_effects(order, "gap", "family", beside=beside))


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
        "permutation": permutation(part, within_sizes=True),
        "mixed": mixed_numbers(part),
    }


def as_numbers(found: mixed.Mixed | None) -> dict | None:
    """A fitted mixed model as JSON; None stays None."""
    if found is None:
        return None
    counts = {name: getattr(found, name) for name in ("n", "items", "trainings")}
    spreads = {k: number(getattr(found, k)) for k in ("item_sd", "training_sd", "residual_sd")}
    effects = found.effects.set_index("group")
    about = {"converged": str(found.converged), "reference": str(found.reference)}
    about["effects"] = {str(group): plain(row) for group, row in effects.iterrows()}
    return counts | spreads | about


# --- tables for pages


def paper_units(
    table4: pd.DataFrame, tree: dict, scalars: pd.DataFrame, group: str
) -> pd.DataFrame:
    """The paper's p-value beside tests on its own table and ours, each with its unit."""
    from .ch11_audit import table4_tests, with_factors

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


# --- small things


def _said_sizes(families: dict, every: dict | None) -> str:
    if not families:
        return "No architecture has maps from two sizes yet: nothing is compared here"
    parts = [
        f"{f} ({k}: {one['verdict']})" for f, pairs in families.items() for k, one in pairs.items()
    ]
    said = "Compared so far: " + ", ".join(parts)
    return said if every is None else f"{said}; all of them together: {every['verdict']}"


def said_architectures(trainings: pd.Series) -> str:
    """Which architectures have one training only, in words; `trainings` counts them by name."""
    once = [str(f) for f, count in trainings.items() if count == 1]
    if not once:
        return "every architecture was trained more than once"
    return f"trained only once: {', '.join(once)}"


def short(name: str) -> str:
    """A model's name without its shelf."""
    return name.removeprefix("mini/")


def interval(values) -> dict:
    """Mean and 95 % bootstrap interval; null where there is nothing to average."""
    found = estimate(pd.Series(values, dtype=float))
    return {"value": number(found.value), "low": number(found.low), "high": number(found.high)}


def shown(found: dict) -> str:
    """An estimate for a table cell."""
    if found["value"] is None:
        return "–"
    text = f"{found['value']:.2f}"
    return text if found["low"] is None else f"{text} [{found['low']:.2f}, {found['high']:.2f}]"


def number(value) -> float | None:
    """A finite float, or None: JSON knows no NaN."""
    return float(value) if value is not None and np.isfinite(value) else None


def plain(row: pd.Series) -> dict:
    """A row as JSON: whole numbers stay whole, NaN becomes null."""
    out = {}
    for key, value in row.items():
        if isinstance(value, str):
            out[key] = value
        else:
            whole = key in ("n", "pairs", "skipped") and np.isfinite(value)
            out[key] = int(value) if whole else number(value)
    return out
