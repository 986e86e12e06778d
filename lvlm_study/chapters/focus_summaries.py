"""The numbers that the chapters on focus quote: `focus.json`, `correctness.json`, `attention.json`.

focus.models[mini/llava-1.5].igos.all.composition.value
focus.pairs[mini/llava-1.5 & mini/llava-ov].same.value
correctness.models[mini/llava-1.5].pointing.difference
correctness.eyes.methods.sobel.eye
attention.rows[mini/llava-1.5].correlation.value
"""

import pandas as pd

from ..benchmarks import load_benchmark
from ..heatmaps.names import PAPER_METHOD
from ..metrics.statistics import estimate
from ..sweep.stored import stored_maps
from . import ch06_focus as focus
from . import ch07_correctness as correctness
from . import judged_maps
from .ch10_attention import attention_rows, placed_elsewhere
from .compare import first_trainings, one_each
from .summaries import Tables, correlation, interval, number

METHOD = PAPER_METHOD
CONTROLS = ("random", "center", "sobel")
MEASURES = ("spread", "regions", "needed", "enough", "composition")


def frames(tables: Tables, keep=one_each, benchmark: str = "sprites") -> pd.DataFrame:
    """Stored maps of the tables on grid units and blur, joined with their answers.

    `keep` chooses the models: one an architecture, unless said otherwise.
    """
    if tables.maps.empty or tables.reliance.empty:
        return pd.DataFrame()
    maps = stored_maps(tables.results)
    return keep(maps[(maps.benchmark == benchmark) & maps.method.isin((METHOD, *CONTROLS))])


def focus_summary(tables: Tables) -> dict:
    """Spread, regions and index of every model, by category; and how alike models' maps are."""
    maps = frames(tables)
    if maps.empty:
        return {}
    rows = focus.measured(maps)
    models = {
        model: {name: by_category(each) for name, each in part.groupby("method")}
        | {"index_against_random": against_random(part)}
        for model, part in rows.groupby("model")
    }
    alike = focus.alike(maps, METHOD)
    pairs = {
        f"{a} & {b}": {"n": len(part), "same": interval(part.same), "other": interval(part.other)}
        for (a, b), part in alike.groupby(["a", "b"])
    }
    chosen = rows[rows.method == METHOD]
    overall = {name: over_models(part) for name, part in chosen.groupby("category")}
    differences = between(rows)
    return {
        "provenance": tables.origin(chosen),
        "models": models,
        "categories": overall,
        "pairs": pairs,
        "between": differences,
        "between_all": between_all(differences),
    }


def between(rows: pd.DataFrame) -> dict:
    """{"a - b": paired difference of the index, its interval, corrected p, the random maps'}."""
    table = focus.between_models(rows)
    names = ("difference", "low", "high", "p_holm", "random")
    return {
        f"{row['a']} - {row['b']}": {"n": int(row["n"])} | {k: number(row[k]) for k in names}
        for row in table.to_dict("records")
    }


def between_all(between: dict, level: float = 0.05) -> dict:
    """How many pairs differ clearly, and for how many n the test could not have said so.

    Where all of n differences point one way a sign-flip test gives p = 2 / 2^n.
    """
    if not between:
        return {"pairs": 0, "clear": 0, "least": None, "hopeless": 0}
    corrected = [pair["p_holm"] for pair in between.values() if pair["p_holm"] is not None]
    smallest = [len(between) * 2.0 ** (1 - pair["n"]) for pair in between.values()]
    return {
        "pairs": len(between),
        "clear": sum(p < level for p in corrected),
        "least": min(corrected, default=None),
        "hopeless": sum(p >= level for p in smallest),
    }


def by_category(rows: pd.DataFrame) -> dict:
    """{"all" or category: {measure: interval, "n"}}."""
    parts = {"all": rows} | dict(list(rows.groupby("category")))
    return {
        name: {"n": len(part)} | {m: interval(part[m]) for m in MEASURES}
        for name, part in parts.items()
    }


def over_models(rows: pd.DataFrame) -> dict:
    """The index over all models' maps of a category; intervals draw items."""
    found = estimate(rows.composition, clusters=rows.item)
    shown = {"value": number(found.value), "low": number(found.low), "high": number(found.high)}
    return {"n": len(rows), "items": int(rows.item.nunique()), "composition": shown}


def against_random(rows: pd.DataFrame) -> dict:
    """Spearman, over items, of the map's index with that of a random map of the same item."""
    wide = rows.pivot_table("composition", "item", "method")
    if not {METHOD, "random"} <= set(wide):
        return {"n": 0, "correlation": None}
    both = wide[[METHOD, "random"]].dropna()
    return {"n": len(both), "correlation": correlation(both[METHOD], both.random)}


def correctness_summary(tables: Tables) -> dict:
    """Quadrants and their difference by model and rule, and over all models."""
    maps = frames(tables, first_trainings)
    if maps.empty:
        return {}
    chosen = maps[maps.method == METHOD]
    models = {model: by_rule(part) for model, part in chosen.groupby("model")}
    shares = {
        rule: {
            model: {row.method: number(row.on) for row in part.itertuples()}
            for model, part in correctness.on_share(correctness.sorted_rows(maps, rule)).groupby(
                "model"
            )
        }
        for rule in correctness.RULES
    }
    return {
        "provenance": tables.origin(chosen),
        "models": models,
        "all": by_rule(chosen),
        "on": shares,
        "eyes": judged_maps.summary(judged_maps.annotations(), stored_maps(tables.results)),
    }


def by_rule(maps: pd.DataFrame) -> dict:
    """{rule: counts of the quadrants and the difference between on and off}."""
    out = {}
    for rule in correctness.RULES:
        rows = correctness.sorted_rows(maps, rule)
        counts = rows.quadrant.value_counts()
        names = (*correctness.QUADRANTS, *correctness.APART)
        counted = {name: int(counts.get(name, 0)) for name in names}
        found = {
            name: value if isinstance(value, int) else number(value)
            for name, value in correctness.lift(rows).items()
        }
        out[rule] = {"counts": counted, "n": len(rows)} | found
        out[rule]["said"] = correctness.said(found)
    return out


def attention_summary(tables: Tables) -> dict:
    """The protocol of human attention with evidence in the place of people."""
    maps = frames(tables)
    maps = maps[maps.method == METHOD] if len(maps) else maps
    if maps.empty:
        return {}
    items = {item.id: item for item in load_benchmark("sprites")}
    rows = attention_rows(maps, items)
    names = ("correlation", "iou_sum", "iou_max", "iou_bytes")
    out = {
        who: {
            way: {"n": len(part)} | {name: interval(part[name]) for name in names}
            for way, part in each.groupby("orientation")
        }
        for who, each in rows.groupby("who")
    }
    references = [items[name].evidence for name in sorted(rows.item.unique())]
    return {
        "provenance": tables.origin(maps),
        "rows": out,
        "elsewhere": placed_elsewhere(references),
    }
