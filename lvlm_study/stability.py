"""Is a map stable, and does it depend on the model at all? Sanity checks over a few items.

Three questions to every method, each answered by explaining again (`sanity`): does another seed
give the same map, does a map change when the weights are drawn anew from the logits down, and does
it change when other words are explained? `lvlm-study sanity` writes the answers to `sanity.json`.
Everything is a rank correlation with the first map at 14 x 14 cells: 1 the same, 0 unrelated.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from . import provenance
from .answers import make_target
from .errors import StudyError, unknown
from .heatmaps import METHODS as KNOWN
from .method_names import title
from .method_tables import interval, number, or_not_yet, spread
from .runner import dealt, item_seed
from .sanity import random_logit, randomised_weights, seed_stability

METHODS = ("igos", "smoothgrad", "grad_cam", "gae", "attention", "tam")
METHODS += ("sobel",)  # can only fail: it never sees the model
STAGES = 2  # the language model's blocks are drawn anew in so many steps
SEEDS = (0, 1, 2)
DRAWS = 2  # other words for each answer
CHECKS = ("seeds", "weights", "logit")
COLUMNS = ["item", "method", "check", "stage", "value", "status"]


def explainable(model, items, count: int, seed: int = 0) -> list[tuple]:
    """The first `count` items whose answer has crucial tokens, with the options that they need."""
    found = []
    for item in items:
        answer = model.answer(item.rgb, item.question)
        if not answer.tokens:
            continue
        own = item_seed(seed, item.id)
        if make_target(model, item.rgb, item.question, answer=answer, seed=own)[0] is not None:
            found.append((item, answer))
        if len(found) == count:
            break
    return found


def measure(model, asked, methods=METHODS, say: Callable = print) -> pd.DataFrame:
    """Every check of every method on (item, answer) pairs; one row a value (see `COLUMNS`).

    A method that refuses the model is left out with a word; `check` is one of `CHECKS`, `stage` the
    weights drawn anew last, for "weights" only.
    """
    rows = []
    for method in methods:
        started = time.perf_counter()
        try:
            for item, answer in asked:
                rows += [
                    {"item": item.id, "method": method} | row
                    for row in _checks(model, item, answer, method)
                ]
        except StudyError as error:
            say(f"{method} is left out: {error}")
            rows = [row for row in rows if row["method"] != method]
            continue
        say(f"{method}: {len(asked)} items, {time.perf_counter() - started:.0f} s")
    return pd.DataFrame(rows, columns=COLUMNS)


def _checks(model, item, answer, method: str) -> list[dict]:
    """The rows of one item and method."""
    ask = (model, item.rgb, item.question, method)
    seeds = seed_stability(*ask, seeds=SEEDS, answer=answer)
    other = random_logit(*ask, draws=DRAWS, answer=answer)
    weights = randomised_weights(*ask, language_stages=STAGES, answer=answer)
    rows = [
        {"check": check, "stage": "", "value": found.mean, "status": found.status}
        for check, found in (("seeds", seeds), ("logit", other))
    ]
    return rows + [
        {"check": "weights", "stage": row.stage, "value": row.spearman, "status": row.status}
        for row in weights.itertuples()
    ]


def summarise(rows: pd.DataFrame) -> dict:
    """{method: {seeds, logit, weights: {stage: ...}, forgotten}}, means with intervals.

    `forgotten` is the value after the last stage, when no weight of the model is left; `silent` the
    number of comparisons with a constant map, which have no value.
    """
    out = {}
    for method, part in rows.groupby("method", sort=False):
        stages = list(dict.fromkeys(part.stage[part.check == "weights"]))
        told = {s: interval(part.value[part.stage == s]) for s in stages}
        out[method] = {
            "title": title(method),
            "seeds": interval(part.value[part.check == "seeds"]),
            "logit": interval(part.value[part.check == "logit"]),
            "weights": told,
            "forgotten": told[stages[-1]] if stages else interval([]),
            "silent": int((part.status == "constant").sum()),
        }
    return out


def study(
    name: str,
    results: Path,
    benchmark: str = "sprites",
    methods=METHODS,
    items: int = 8,
    profile: str = "mini",
    seed: int = 0,
    say: Callable = print,
) -> dict:
    """Measure, and write `sanity.json` into the results folder; returns its tree."""
    from .benchmarks import load_benchmark
    from .models import load_model

    for method in methods:
        if method not in KNOWN:
            raise unknown("method", method, KNOWN)
    model = load_model(name)
    asked = explainable(model, dealt(load_benchmark(benchmark), None), items, seed)
    if not asked:
        raise StudyError(f"{name} has no answer on {benchmark} that could be explained.")
    started = time.perf_counter()
    rows = measure(model, asked, methods, say)
    about = {"profile": profile, "model": [name], "n": len(asked), "seed": seed}
    about |= {"commit": provenance.commit(), "versions": provenance.versions()}
    tree = {"provenance": about | {"date": provenance.now()[:10]}, "n": len(asked)}
    tree |= {"minutes": (time.perf_counter() - started) / 60, "methods": summarise(rows)}
    tree["rows"] = [row | {"value": number(row["value"])} for row in rows.to_dict("records")]
    write(Path(results) / "sanity.json", tree)
    return tree


def write(path: Path, tree: dict) -> None:
    """Put a results file at its place in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.tmp")
    part.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def read_rows(results: Path) -> pd.DataFrame:
    """The rows of `sanity.json`; an empty table where it has not been made."""
    path = Path(results) / "sanity.json"
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"value": float})


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of the chapter: a row a method, means with intervals."""
    out = []
    for method in dict.fromkeys(rows.method):
        part = rows[rows.method == method]
        told = summarise(part)[method]
        cells = {"another seed": told["seeds"], "other words": told["logit"]}
        cells["no weight left"] = told["forgotten"]
        row = {"method": title(method), "items": part.item.nunique()}
        out.append(row | {label: _spread(found) for label, found in cells.items()})
    return or_not_yet(pd.DataFrame(out))


def _spread(found: dict) -> str:
    return spread(*[np.nan if found[k] is None else found[k] for k in ("value", "low", "high")])
