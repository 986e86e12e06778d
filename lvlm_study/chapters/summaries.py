"""From tables of results to the few numbers that the book quotes.

Everything here reads data frames written by `runner` and knows no model. `SUMMARIES` names the
files that come out, in the layout that `results.read` looks numbers up in:

    reliance.models[mini/llava-1.5].sprites.all.blur.lt30
    faithfulness.models[mini/llava-1.5].sprites.igos.grid.gap.value
    faithfulness.models[mini/llava-1.5].sprites.igos.superpixels.gap.value
    faithfulness.models[mini/llava-1.5].sprites.igos.grid+mean.gap.value
    faithfulness.models[mini/llava-1.5].sprites.igos[l2=1,gamma=0.5].grid.gap.value
    filter.benchmarks.sprites.kept[0.3]

A score under another fill than blur has it behind the units, "grid+mean"; the options of a variant
stand one level below its method. A summary holds what pages quote and what their tables and figures
show, and no more.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd

from ..heatmaps.progress import each
from ..metrics.statistics import finite
from ..sweep.filter import kept_shares
from ..sweep.stored import Tables, with_fill
from ..sweep.tables import write
from .compare import DROPS, as_chance, correlation, interval, meant_to_compare, over_draws, shown

SCORES = ("deletion", "insertion", "gap")
HEADS = {"gap": "insertion − deletion"}  # of the columns that a terminal shows
NOTE = (
    "Scores are normalised: 0 on the fill, 1 on the picture. Under a fill that leaves the answer\n"
    "nearly all of its probability, as +mean often does, they lie far outside [0, 1]: the tables\n"
    "also have them in raw probability (gap_raw)."
)


def reliance_summary(frame: pd.DataFrame) -> dict:
    """{model: {benchmark: {category or "all": {...}}}}: how much answers rest on the image."""
    return {
        model: {
            benchmark: {"all": of_answers(rows) | of_baselines(rows)}
            | {str(name): of_baselines(part) for name, part in rows.groupby("category") if name}
            for benchmark, rows in part.groupby("benchmark")
        }
        for model, part in frame.groupby("model")
    }


def of_answers(frame: pd.DataFrame) -> dict:
    """Accuracy, counted once an item; `truncated` are answers that `max_new_tokens` ended."""
    once = frame.drop_duplicates("item")
    judged = once[once.verdict.notna()]
    cut = judged["truncated"].dropna() if "truncated" in judged else ()  # old tables do not say
    return {
        "n": len(judged),
        "errors": int((once.status == "error").sum()),
        "undecided": int((judged.verdict == "undecided").sum()),
        "accuracy": interval(judged.verdict == "correct"),
    } | ({"truncated": int(cut.sum())} if len(cut) else {})


def of_baselines(frame: pd.DataFrame) -> dict:
    """{baseline: what it takes away}."""
    rated = frame[frame.total_drop.notna()]
    return {str(name): of_baseline(part) for name, part in rated.groupby("baseline")}


def of_baseline(frame: pd.DataFrame) -> dict:
    """Table 2 of the paper (per cent of the items), and its confound, the length of the answer."""
    drop, length = frame.total_drop, frame.tokens.map(len)
    shares = {k: 100 * float(((drop >= a) & (drop < b)).mean()) for k, (a, b) in DROPS.items()}
    return {
        "n": len(frame),
        **shares,
        "no_crucial": 100 * float((frame.status == "no_crucial_tokens").mean()),
        "drop_length_correlation": correlation(drop, length),
        "per_token_length_correlation": correlation(frame.per_token, length),
    }


def faithfulness_summary(frame: pd.DataFrame) -> dict:
    """{model: {benchmark: {method: {way: {...}}}}}: scores under every unit and fill."""
    frame, out = with_fill(frame), {}
    for (model, benchmark, method), rows in frame.groupby(["model", "benchmark", "method"]):
        place = out.setdefault(model, {}).setdefault(benchmark, {})
        for part in method.rstrip("]").split("["):
            place = place.setdefault(part, {})
        errors = int((rows.status == "error").sum())
        for (units, fill), part in rows.groupby(["units", "fill"], sort=False):
            place[way(units, fill)] = of_method(part, errors)
    return out


def way(units: str, fill: str) -> str:
    """The key of a kind of score: "grid" under blur, "grid+mean" under another fill."""
    return units if fill == "blur" else f"{units}+{fill}"


def of_method(frame: pd.DataFrame, errors: int = 0) -> dict:
    """Scores of one method over the items that could be scored, and the count of the others.

    Constant maps are among the scored ones, with the gap of chance (`as_chance`). An item is
    counted once, in `n` or in `skipped`.
    """
    scored = as_chance(over_draws(frame[frame.status.isin(["ok", "constant"])]))
    skipped = frame.status[~frame.status.isin(["ok", "constant"])].value_counts().to_dict()
    return {
        "n": len(scored),
        "skipped": {str(why): int(count) for why, count in skipped.items()} | {"error": errors},
        **{name: interval(scored[name]) for name in SCORES},
        "seconds": finite(scored.seconds.mean()),
    }


def reliance_file(tables: Tables) -> dict:
    """`reliance.json`."""
    return _by_model(tables, tables.reliance, reliance_summary)


def faithfulness_file(tables: Tables) -> dict:
    """`faithfulness.json`."""
    return _by_model(tables, tables.maps, faithfulness_summary)


def filter_file(tables: Tables) -> dict:
    """`filter.json`, over the models that take part in comparisons."""
    frame = tables.reliance
    if frame.empty or "blur" not in set(frame.baseline):
        return {}
    frame = meant_to_compare(frame)
    return {"provenance": tables.origin(frame), "benchmarks": kept_shares(frame)}


def _by_model(tables: Tables, frame: pd.DataFrame, summary: Callable) -> dict:
    if frame.empty:
        return {}
    return {"provenance": tables.origin(frame), "models": summary(frame)}


def elsewhere(module: str, function: str = "summary") -> Callable[[Tables], dict]:
    """A summary that lives in another module of the package, imported when it is made."""

    def make(tables: Tables) -> dict:
        return getattr(import_module(f".{module}", __package__), function)(tables)

    return make


# File name -> the tree to write: {"provenance": tables.origin(frame), ...}, {} for nothing yet.
SUMMARIES: dict[str, Callable[[Tables], dict]] = {
    "reliance": reliance_file,
    "faithfulness": faithfulness_file,
    "filter": filter_file,
    "methods": elsewhere("ch02_methods"),
    "ablations": elsewhere("ch03_ablations"),
    "truth": elsewhere("ch04_truth"),
    "cost": elsewhere("ch05_cost"),
    "focus": elsewhere("ch06_focus", "focus_summary"),
    "correctness": elsewhere("ch07_correctness", "correctness_summary"),
    "attention": elsewhere("ch10_attention", "attention_summary"),
    "scale": elsewhere("ch08_scale", "scale_summary"),
    "architecture": elsewhere("ch09_architecture", "architecture_summary"),
    "trainings": elsewhere("ch09_architecture", "trainings_summary"),
    "audit": elsewhere("ch11_audit"),
    "shortcut": elsewhere("ch15_shortcut"),
    "busy": elsewhere("ch16_busy_ground"),
    "whose": elsewhere("ch17_whose_map"),
    "fingerprint": elsewhere("ch17_fingerprint"),
    "controlled": elsewhere("ch14_zoo"),
    "tokens": elsewhere("ch01_reliance"),
    "two": elsewhere("ch01_two_pictures"),
    "road": elsewhere("ch02_judges"),
}


def write_summaries(results: Path, profile: str, seed: int) -> dict[str, dict]:
    """Write every file of `SUMMARIES` that has something to say beside the tables of a folder.

    They cover everything in the folder, whichever run computed it. Returns the trees.
    """
    tables, out = Tables(Path(results), profile, seed), {}
    for name, make in each(SUMMARIES.items(), "summaries", "file"):
        tree = make(tables)
        if tree:
            out[name] = tree
            write(Path(results) / f"{name}.json", tree)
    return out


def report(trees: dict[str, dict]) -> str:
    """The summary as two tables for a terminal."""
    parts = []
    if "reliance" in trees:
        parts.append(_table(_reliance_lines(trees["reliance"]["models"])))
    if "faithfulness" in trees:
        lines = _method_lines(trees["faithfulness"]["models"])
        parts.append(_table(lines))
        parts += [NOTE] if any("+" in line["scored"] for line in lines) else []
    return "\n\n".join(parts) or "Nothing has been computed yet."


def _reliance_lines(models: dict) -> list[dict]:
    return [
        {
            "model": model,
            "benchmark": benchmark,
            "n": rows["all"]["n"],
            "accuracy": shown(rows["all"]["accuracy"], 3),
            "undecided": rows["all"]["undecided"],
            "errors": rows["all"]["errors"],
            "cut": rows["all"].get("truncated", ""),
        }
        | {f"drop {k} %": round(rows["all"]["blur"][k], 1) for k in DROPS if "blur" in rows["all"]}
        for model, benchmarks in models.items()
        for benchmark, rows in benchmarks.items()
    ]


def _method_lines(models: dict) -> list[dict]:
    return [
        {"model": model, "benchmark": benchmark, "method": method, "scored": how, "n": row["n"]}
        | {"skipped": sum(row["skipped"].values())}
        | {HEADS.get(name, name): shown(row[name], 3) for name in SCORES}
        | {"seconds": row["seconds"]}
        for model, benchmarks in models.items()
        for benchmark, methods in benchmarks.items()
        for method, how, row in _scored_ways(methods)
    ]


def _scored_ways(tree: dict, above: str = ""):
    """(method or variant, way, scores) of every score in a benchmark's part of the summary."""
    for name, below in tree.items():
        for key, row in below.items():
            if "gap" in row:
                yield above + name + "]" * bool(above), key, row
            else:
                yield from _scored_ways({key: row}, name + "[")


def _table(lines: list[dict]) -> str:
    return pd.DataFrame(lines).to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep="-")
