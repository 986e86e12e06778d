"""From tables of results to the few numbers that the book quotes.

Everything here reads data frames written by `runner` and knows no model. `SUMMARIES` names the
files that come out, in the layout that `results.read` looks numbers up in:

    reliance.models[mini/llava-1.5].sprites.all.blur.lt30
    faithfulness.models[mini/llava-1.5].sprites.igos.grid.gap.value
    faithfulness.models[mini/llava-1.5].sprites.igos.superpixels.gap.value
    faithfulness.models[mini/llava-1.5].sprites.igos.grid+mean.gap.value
    faithfulness.models[mini/llava-1.5].sprites.igos.evidence.auc.value
    faithfulness.models[mini/llava-1.5].sprites.igos[l2=1,gamma=0.5].grid.gap.value
    filter.benchmarks.sprites.kept[0.3]

A score under another fill than blur has it behind the units, "grid+mean"; "evidence" is how well
the maps find the evidence; the options of a variant stand one level below its method.
"""

import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd

from ..heatmaps.progress import each
from ..sweep.filter import kept_shares
from ..sweep.results import beside
from ..sweep.stored import with_fill
from ..sweep.tables import unwritable
from .compare import DROPS, Tables, as_chance, correlation, finite, interval, meant_to_compare

SKIPPED = ("no_crucial_tokens", "no_gap", "diverged", "empty_answer", "error")
RATED = ("deletion", "insertion", "gap", "gap_raw")
PLAUSIBLE = ("energy", "auc", "pointing", "rank_accuracy", "iou_sum")
BAND = {"lt30": "below 30 %", "30_70": "30 to 70 %"}
MODELS = (  # a row of the paper's Table 2, our small model of its kind, the released checkpoint
    ("LLaVA-1.5", "mini/llava-1.5", "llava-hf/llava-1.5-7b-hf"),
    ("LLaVA-OV", "mini/llava-ov", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    ("Cambrian", "mini/cambrian-l", "nyu-visionx/cambrian-8b"),
)


def reliance_summary(frame: pd.DataFrame) -> dict:
    """{model: {benchmark: {category or "all": {...}}}}: how much answers rest on the image."""
    return {
        model: {
            benchmark: {"all": of_category(rows)}
            | {str(name): of_category(part) for name, part in rows.groupby("category") if name}
            for benchmark, rows in part.groupby("benchmark")
        }
        for model, part in frame.groupby("model")
    }


def of_category(frame: pd.DataFrame) -> dict:
    """Accuracy, counted once an item, and what each baseline takes away."""
    once = frame.drop_duplicates("item")
    judged = once[once.verdict.notna()]
    out = {
        "n": len(judged),
        "errors": int((once.status == "error").sum()),
        "undecided": int((judged.verdict == "undecided").sum()),
        "accuracy": interval(judged.verdict == "correct"),
        "answer_tokens": finite(judged.tokens.map(len).mean()),
        **cut_short(judged),
    }
    rated = frame[frame.total_drop.notna()]
    return out | {str(name): of_baseline(part) for name, part in rated.groupby("baseline")}


def cut_short(once: pd.DataFrame) -> dict:
    """How many answers `max_new_tokens` ended; nothing for tables from before it was recorded."""
    known = once["truncated"].dropna() if "truncated" in once else ()
    return {"truncated": int(known.sum())} if len(known) else {}


def of_baseline(frame: pd.DataFrame) -> dict:
    """Table 2 of the paper and what stands against its confound, the length of the answer.

    Shares are percentages of the items, as in the paper; ratios are in nats a token.
    """
    drop, length = frame.total_drop, frame.tokens.map(len)
    shares = {k: 100 * float(((drop >= a) & (drop < b)).mean()) for k, (a, b) in DROPS.items()}
    return {
        "n": len(frame),
        **shares,
        "total_drop": interval(drop),
        "per_token": interval(frame.per_token),
        "crucial_share": interval(frame.crucial_share),
        "no_crucial": 100 * float((frame.status == "no_crucial_tokens").mean()),
        "drop_length_correlation": correlation(drop, length),
        "per_token_length_correlation": correlation(frame.per_token, length),
    }


def faithfulness_summary(frame: pd.DataFrame) -> dict:
    """{model: {benchmark: {method: {way: {...}}}}}: scores under every unit and fill, evidence."""
    frame, out = with_fill(frame), {}
    for (model, benchmark, method), rows in frame.groupby(["model", "benchmark", "method"]):
        place = out.setdefault(model, {}).setdefault(benchmark, {})
        for part in method.rstrip("]").split("["):
            place = place.setdefault(part, {})
        errors = int((rows.status == "error").sum())
        for (units, fill), part in rows.groupby(["units", "fill"], sort=False):
            place[way(units, fill)] = of_method(part, errors)
        place["evidence"] = of_evidence(rows)
    return out


def way(units: str, fill: str) -> str:
    """The key of a kind of score: "grid" under blur, "grid+mean" under another fill."""
    return units if fill == "blur" else f"{units}+{fill}"


def of_evidence(frame: pd.DataFrame) -> dict:
    """How well a method's maps find the evidence: each map under blur, once.

    Constant maps count as chance. Null where no item has evidence that is known.
    """
    maps = as_chance(frame[frame.status.isin(["ok", "constant"]) & (frame.fill == "blur")])
    maps = maps.drop_duplicates("item")
    maps = maps.reindex(columns=PLAUSIBLE)
    return {
        "n": int(maps.auc.notna().sum()),
        **{name: interval(maps[name]) for name in PLAUSIBLE},
    }


def of_method(frame: pd.DataFrame, errors: int = 0) -> dict:
    """Scores of one method over the items that could be scored, and the count of the others.

    Constant maps are among the scored ones, with the gap of chance (`as_chance`); `silent` says how
    many they are. An item is counted once, in `n` or in `skipped`.
    """
    scored = as_chance(frame[frame.status.isin(["ok", "constant"])])
    skipped = frame.status.value_counts()
    return {
        "n": len(scored),
        "silent": int((scored.status == "constant").sum()),
        "skipped": {name: int(skipped.get(name, 0)) for name in SKIPPED} | {"error": errors},
        **{name: interval(scored[name]) for name in RATED},
        "seconds": finite(scored.seconds.mean()),
        "forward": finite(scored.forward.mean()),
        "backward": finite(scored.backward.mean()),
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
    "subsets": elsewhere("ch14_zoo"),
    "tokens": elsewhere("ch01_reliance"),
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
            _write(Path(results) / f"{name}.json", tree)
    return out


def kept_beside_the_paper() -> list[dict[str, str]]:
    """What the filter of section 4.3 keeps, per cent: the paper's figures, ours where run."""
    ours = "filter.benchmarks.{}.kept[0.3]"
    names = (("mmvp", "mmvp"), ("mmstar", "mmstar"), ("cvbench", "cv_bench"))
    rows = [("sprites", None, ours.format("sprites"), None)]
    rows += [
        (name, f"paper/scalars[kept_pct_{key}].value", None, "paper/" + ours.format(name))
        for key, name in names
    ]
    return beside(rows, digits=0)


def table2_beside_the_paper() -> list[dict[str, str]]:
    """Table 2: per cent of answers that lose less than 30 %, and 30-70 %, under blur."""
    paper = {"mmvp": "mmvp", "mmstar": "mmstar", "cv_bench": "cv"}
    rows = []
    for title, mini, full in MODELS:
        for band in BAND:
            key = f"reliance.models[{{}}].{{}}.all.blur.{band}"
            own = key.format(mini, "sprites") if mini else None
            rows.append((f"{title}, sprites, {BAND[band]}", None, own, None))
            rows += [
                (
                    f"{title}, {name}, {BAND[band]}",
                    f"paper/table2[{title}].{short}_{band}",
                    None,
                    "paper/" + key.format(full, name),
                )
                for name, short in paper.items()
            ]
    return beside(rows)


def _write(path: Path, tree: dict) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise unwritable(path.parent, error) from error


def report(trees: dict[str, dict]) -> str:
    """The summary as two tables for a terminal."""
    parts = []
    if "reliance" in trees:
        parts.append(_table(_reliance_lines(trees["reliance"]["models"])))
    if "faithfulness" in trees:
        parts.append(_table(_method_lines(trees["faithfulness"]["models"])))
    return "\n\n".join(parts) or "Nothing has been computed yet."


def _reliance_lines(models: dict) -> list[dict]:
    return [
        {
            "model": model,
            "benchmark": benchmark,
            "n": rows["all"]["n"],
            "accuracy": _shown(rows["all"]["accuracy"]),
            "undecided": rows["all"]["undecided"],
            "errors": rows["all"]["errors"],
        }
        | {f"drop {k} %": round(rows["all"]["blur"][k], 1) for k in DROPS if "blur" in rows["all"]}
        for model, benchmarks in models.items()
        for benchmark, rows in benchmarks.items()
    ]


def _method_lines(models: dict) -> list[dict]:
    return [
        {"model": model, "benchmark": benchmark, "method": method, "scored": how, "n": row["n"]}
        | {"skipped": sum(row["skipped"].values())}
        | {name: _shown(row[name]) for name in ("deletion", "insertion", "gap")}
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
            elif key != "evidence":
                yield from _scored_ways({key: row}, name + "[")


def _shown(found: dict) -> str:
    if found["value"] is None:
        return "-"
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _table(lines: list[dict]) -> str:
    return pd.DataFrame(lines).to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep="-")
