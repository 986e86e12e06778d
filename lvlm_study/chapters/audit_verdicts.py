"""The audit's table: every claim of the paper, what it rests on, what our results say about it.

Four verdicts. "holds": it follows from the paper's own numbers, or holds wherever we looked.
"holds on the zoo": our small models show it. "not supported": what is offered as evidence does not
carry the claim, or our models show the contrary; the claim may still be true. "cannot tell here".
A claim that depends on results changes its verdict with them; nothing is written down beforehand.

"igos" is the paper's own setting on this page, whatever our default is (`default_rows`).
"""

import math
import re

import numpy as np
import pandas as pd

from ..heatmaps.names import without_preset
from ..metrics.statistics import estimate, paired_test
from ..paths import data_dir
from ..sweep.stored import one_way
from . import ch11_audit as audit
from .compare import FEWEST, comparable, meant_to_compare, member, one_each, studied

HOLDS, ZOO, NOT, OPEN = "holds", "holds on the zoo", "not supported", "cannot tell here"
RIVALS = {"grad_cam": "Grad-CAM", "gae": "T-MM", "iia": "IIA"}
LLAVA, OV = "llava-1.5", "llava-ov"
CONTROLS = ("random", "center", "sobel")
TIMES = {"half": 0.5, "once": 1.0, "twice": 2.0, "four_times": 4.0}


def audit_summary(maps: pd.DataFrame, reliance: pd.DataFrame) -> dict:
    """The numbers behind the verdicts, for `audit.json`; what has not been run has no entry."""
    own = default_rows(maps)
    ok = comparable(own[own.gap.notna()])
    return {
        "n": {"maps": len(ok), "models": int(ok.model.nunique())},
        "table1": table1_numbers(),
        "table4": table4_numbers(),
        "rivals": {model: rivals(rows) for model, rows in ok.groupby("model")},
        "sums": sums(ok),
        "length": {m: lengths(rows) for m, rows in blurred(reliance).groupby("model")},
        "people": {model: correlations(rows) for model, rows in ok.groupby("model")},
        "steps": {model: step_variants(rows) for model, rows in ok.groupby("model")},
    }


def summary(tables) -> dict:
    """`audit.json` of a results folder (`summaries.Tables`); {} before anything has been run."""
    if tables.maps.empty or tables.reliance.empty or default_rows(tables.maps).empty:
        return {}
    tree = audit_summary(tables.maps, tables.reliance)
    return {"provenance": tables.origin(tables.maps)} | tree | {"verdicts": counts(tree)}


def default_rows(maps: pd.DataFrame) -> pd.DataFrame:
    """Rows scored on the grid under blur, the study's default; of iGOS the paper's setting.

    Its rows and those of its variants are named without the preset; our own settings are left out.
    """
    rows = studied(one_way(maps))
    ours = rows.method.str.startswith("igos") & ~rows.method.str.contains("preset=paper")
    rows = rows[rows.units.notna() & ~ours]
    return rows.assign(method=rows.method.map(without_preset))


def blurred(reliance: pd.DataFrame) -> pd.DataFrame:
    """Rows under blur that could be scored, of the models that are compared."""
    rows = studied(reliance)
    rows = meant_to_compare(rows)
    return rows[(rows.baseline == "blur") & rows.total_drop.notna()]


def table1_numbers() -> dict:
    """How near the paper's T-MM row, turned over, comes to its IIA row; rows below chance."""
    table = pd.read_csv(data_dir() / "paper" / "table1.csv")
    apart = audit.flipped_distance(table, "LLaVA-1.5-7b", "T-MM", "IIA")
    gaps = audit.table1_gaps(table)
    below = (gaps[list(audit.DATASETS)] < 0).all(axis=1)
    return {
        "flipped_median": float(apart.median()),
        "flipped_largest": float(apart.max()),
        "numbers": len(apart),
        "rows": len(gaps),
        "below_chance": int(below.sum()),
    }


def table4_numbers() -> dict:
    """p-values of tests on Table 4's own rows: by architecture, by size, by family of the sizes."""
    table = audit.with_factors(pd.read_csv(data_dir() / "paper" / "table4.csv"))
    out = {}
    for name, group, factor in (
        ("vision", "vision_arch", "vision"),
        ("scale", "llm_scale", "step"),
        ("family", "llm_scale", "family"),
    ):
        tests = audit.table4_tests(table, group, factor).set_index("score")
        out[name] = {score: _plain(row) for score, row in tests.iterrows()}
    part = table[table.model.str.startswith("Mini-Gemini")].set_index("model")
    apart = [
        abs(part.loc[f"{m}-HD", s] - part.loc[m, s])
        for m in ("Mini-Gemini-7b", "Mini-Gemini-13b")
        for s in ("del", "ins")
    ]
    scalars = pd.read_csv(data_dir() / "paper" / "scalars.csv").set_index("key").value
    p = {"vision": scalars["p_vision_architecture"], "scale": scalars["p_llm_scale"]}
    return out | {"hd_largest": float(max(apart)), "p": {k: float(v) for k, v in p.items()}}


def rivals(rows: pd.DataFrame) -> dict:
    """Table 1's rivals and the controls: their gap, and how far igos is ahead on shared items."""
    wanted = rows[rows.method.isin(["igos", *RIVALS, *CONTROLS])]
    gaps = wanted.pivot_table("gap", "item", "method")
    out = {}
    for method in gaps:
        out[method] = {"n": int(gaps[method].notna().sum()), "gap": interval(gaps[method])}
        if "igos" in gaps and method != "igos":
            both = gaps[["igos", method]].dropna()
            found = paired_test(both["igos"], both[method])
            out[method]["igos_ahead"] = _finite(vars(found), "difference", "low", "high", "p", "n")
    return out


def sums(rows: pd.DataFrame) -> dict:
    """Stored curves added up both ways: random maps apart, and the shift over all maps."""
    curves = rows[rows.deletion_curve.notna()]
    out = {}
    for name, part in (("random", curves[curves.method == "random"]), ("all", curves)):
        both = audit.two_sums(part)
        shift = both.code - both.trapezoid
        out[name] = {"n": len(both), "shift": _number(shift.mean()), "spread": _number(shift.std())}
        if name == "random":
            out[name] |= {k: interval(both[k]) for k in ("trapezoid", "code")}
    return out


def lengths(rows: pd.DataFrame) -> dict:
    """Share of pale answers as they are, and had they more or fewer tokens of the same kind."""
    shares = {name: audit.pale_share(rows.llr, times) for name, times in TIMES.items()}
    return {"n": len(rows), "tokens": float(rows.llr.map(len).mean()), "pale": shares}


def correlations(rows: pd.DataFrame) -> dict:
    """Rank correlation of maps with the evidence, which stands where people would."""
    if "correlation" not in rows:
        return {}
    rated = rows[rows.correlation.notna()]
    return {
        method: {"n": len(part)} | interval(part.correlation)
        for method, part in rated.groupby("method")
    }


def step_variants(rows: pd.DataFrame) -> dict:
    """What igos loses with a larger L2 weight: default - variant, paired by item."""
    gaps = rows.pivot_table("gap", "item", "method")
    out = {}
    for name in [m for m in gaps if m.startswith("igos[") and _l2(m) >= 1]:
        both = gaps[["igos", name]].dropna()
        found = paired_test(both["igos"], both[name])
        out[name] = {"gap": interval(both[name])} | _finite(
            vars(found), "difference", "low", "high"
        )
        out[name]["n"] = len(both)
    return out


def _l2(variant: str) -> float:
    found = re.search(r"\bl2=([\d.]+)", variant)
    return float(found[1]) if found else 0.0


# --- the verdicts


def verdicts(tree: dict) -> pd.DataFrame:
    """One row a claim: the claim, where the paper says it, what we found, the verdict."""
    rows = [rule(tree) for rule in RULES]
    return pd.DataFrame(rows, columns=["claim", "in the paper", "what we found", "verdict"])


def counts(tree: dict) -> dict:
    """How many claims got which verdict."""
    found = verdicts(tree).verdict
    names = {"holds": HOLDS, "zoo": ZOO, "unsupported": NOT, "open": OPEN}
    return {"claims": len(found)} | {k: int((found == v).sum()) for k, v in names.items()}


def best_everywhere(tree: dict) -> tuple:
    """Table 1: is igos ahead of each rival on each model, by more than chance?"""
    ahead = {
        (model, name): methods[key]["igos_ahead"]
        for model, methods in tree["rivals"].items()
        for key, name in RIVALS.items()
        if methods.get(key, {}).get("igos_ahead", {"n": 0})["n"] >= FEWEST
    }
    lows, highs = ([found[end] for found in ahead.values()] for end in ("low", "high"))
    if not ahead:
        found, verdict = "the rivals were not run", OPEN
    else:
        count = sum(low is not None and low > 0 for low in lows)
        found = (
            f"iGOS ahead in {count} of {len(ahead)} pairs of model and rival: {_by_rival(ahead)}"
        )
        behind = any(high is not None and high < 0 for high in highs)
        verdict = NOT if behind else ZOO if count == len(ahead) else OPEN
    return "The proposed maps beat Grad-CAM, T-MM and IIA", "Table 1", found, verdict


def _by_rival(ahead: dict) -> str:
    """ "2 of 4 against IIA; ...", and what the count rests on."""
    parts = []
    for name in RIVALS.values():
        lows = [found["low"] for (_, rival), found in ahead.items() if rival == name]
        parts.append(f"{sum(low is not None and low > 0 for low in lows)} of {len(lows)} {name}")
    n = [found["n"] for found in ahead.values()]
    return f"{', '.join(parts)} (95 % intervals, not corrected; n = {min(n)} to {max(n)})"


def orientation(tree: dict) -> tuple:
    """Table 1: T-MM on LLaVA-1.5 below chance. Above chance on our LLaVA-1.5?"""
    t = tree["table1"]
    found = (
        f"turned over, the row is IIA's within {t['flipped_largest']:.2f} on {t['numbers']} numbers"
    )
    said, verdict = _against_chance(tree, LLAVA, "gae")
    return "T-MM misleads on LLaVA-1.5", "Table 1", f"{found}; {said}", verdict


def below_chance(tree: dict) -> tuple:
    """Table 1: Grad-CAM on LLaVA-1.5 below chance. Is it on ours, scored the right way round?"""
    found, verdict = _against_chance(tree, LLAVA, "grad_cam")
    return "Grad-CAM misleads on LLaVA-1.5", "Table 1", found, verdict


def tiles(tree: dict) -> tuple:
    """Table 1: T-MM and IIA near chance on LLaVA-OV, whose tiles the released code swaps."""
    parts = [_against_chance(tree, OV, method) for method in ("gae", "iia")]
    found = "; ".join(dict.fromkeys(said for said, _ in parts))
    verdict = NOT if all(v == NOT for _, v in parts) else OPEN
    return "T-MM and IIA find little on LLaVA-OV", "Table 1", found, verdict


def _against_chance(tree: dict, family: str, method: str) -> tuple[str, str]:
    models = [name for name in tree["rivals"] if member(name).family == family]
    model = min(models, default=f"our {family}")  # the plain name comes first
    found = tree["rivals"].get(model, {}).get(method)
    if found is None or found["n"] < FEWEST:
        return f"not run on {model}", OPEN
    gap = found["gap"]
    said = f"{RIVALS[method]} on {model}: {shown(gap)}, n = {found['n']}"
    if gap["low"] is None:
        return said, OPEN
    return said, NOT if gap["low"] > 0 else ZOO if gap["high"] < 0 else OPEN


def bias(tree: dict) -> tuple:
    """The released sum shifts scores. By the same amount for every map?"""
    one = tree["sums"]["all"]
    shift, spread = one["shift"], one["spread"]
    found = "no curves stored"
    verdict = OPEN
    if shift is not None and spread is not None:
        found = f"every gap {_sign(shift)} (spread {spread:.4f}, n = {one['n']} maps): order kept"
        verdict = HOLDS if spread < 0.01 else NOT
    return "The released sum orders maps as the area does", "its code", found, verdict


def length(tree: dict) -> tuple:
    """Table 2: nobody can tell reliance from verbosity by the total drop."""
    rows = sorted(_one_each(tree["length"]).items(), key=lambda row: row[1]["pale"]["once"])
    found = "answers that lose less than 30 % under blur, in brackets if they were twice as long: "
    found += ", ".join(
        f"{m.removeprefix('mini/')} {r['pale']['once']:.0f} ({r['pale']['twice']:.0f}) %"
        for m, r in rows
    )
    found = f"{found} (n = {rows[0][1]['n']} each)" if rows else "no answers"
    return "Cambrian's answers rest on the picture most", "Table 2", found, OPEN


def steps(tree: dict) -> tuple:
    """Table 5: a large L2 weight costs the map, or the step does?"""
    variants = [(k, one) for of in tree["steps"].values() for k, one in of.items()]
    found, verdict = "no such variant run on the zoo; see the toy", OPEN
    if variants:
        worse = [one["low"] is not None and one["low"] > 0 for _, one in variants]
        losses = "; ".join(
            f"{_in_words(name)} {shown(one | {'value': one['difference']})}"
            for name, one in variants[:4]
        )
        found = (
            f"loss in {sum(worse)} of {len(worse)} settings, n = {variants[0][1]['n']}: {losses}"
        )
        verdict = ZOO if any(worse) else OPEN
    return "Too much L2 disturbs the objective", "Table 5", found, verdict


def _in_words(variant: str) -> str:
    """ "igos[l2=1,gamma=0.2]" as "weight 1, decay 0.2"."""
    return variant[5:-1].replace("l2=", "weight ").replace(",gamma=", ", decay ")


def _one_each(by_model: dict) -> dict:
    names = one_each(pd.DataFrame({"model": list(by_model)}, dtype=str)).model
    return {name: by_model[name] for name in names}


def people(tree: dict) -> tuple:
    """Table 6: no people here; the sign with the evidence in their place."""
    rows = [(m, v["igos"]) for m, v in _one_each(tree["people"]).items() if "igos" in v]
    said = "; ".join(f"{m.removeprefix('mini/')} {shown(v)}, n = {v['n']}" for m, v in rows)
    found = f"rank correlation with the evidence, all kinds of question: {said}"
    found = found if rows else "not run"
    return "Models look where people do not", "Table 6", found, OPEN


def branch(tree: dict) -> tuple:
    """Table 4: do the HD rows tell about the second encoder?"""
    most = tree["table4"]["hd_largest"]
    found = f"HD and plain rows differ by at most {most:.3f}; the released code feeds one view"
    return "High resolution changes little in Mini-Gemini", "Table 4", found, OPEN


def vision(tree: dict) -> tuple:
    """The small p-value: is there a unit that gives it?"""
    found = _units(tree["table4"]["vision"], "models as unit")
    return "Vision architecture matters", f"p = {tree['table4']['p']['vision']:g}", found, NOT


def scale(tree: dict) -> tuple:
    """A p-value above the level is no evidence of no effect; and sizes differ in more than size."""
    least = min(test["smallest"] for test in tree["table4"]["scale"].values())
    found = f"models as unit: an exact test cannot go below {least:.3f}; Cambrian's three sizes "
    found += "are three families of language model; no equivalence test"
    return (
        "Language-model scale does not matter",
        f"p = {tree['table4']['p']['scale']:g}",
        found,
        NOT,
    )


RULES = (
    best_everywhere, orientation, below_chance, tiles, bias, length, steps, people, branch,
    vision, scale,
)  # fmt: skip


def _units(tests: dict, label: str) -> str:
    every = [t[name] for t in tests.values() for name in ("anova", "rank", "permutation")]
    least = min(t["smallest"] for t in tests.values())
    return (
        f"{label}: p from {min(every):.3f} to {max(every):.2f} by the test chosen; "
        f"an exact one cannot go below {least:.3f}"
    )


# --- small things


def interval(values) -> dict:
    """Mean and 95 % bootstrap interval; null where there is nothing to average."""
    found = estimate(pd.Series(values, dtype=float))
    return _finite(vars(found), "value", "low", "high")


def shown(found: dict) -> str:
    """An estimate for a table cell."""
    if found["value"] is None:
        return "–"
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _sign(value: float) -> str:
    return f"{abs(value):.3f} too {'high' if value > 0 else 'low'}"


def _finite(values: dict, *names: str) -> dict:
    return {name: _number(values[name]) for name in names}


def _number(value):
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if value is not None and math.isfinite(value) else None


def _plain(row: pd.Series) -> dict:
    return {name: _number(value) for name, value in row.items()}
