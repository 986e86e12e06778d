"""Is a map stable, and does it depend on the model at all? Every check of every method, kept.

Questions to every method, each answered by explaining again (`metrics.sanity`): does another seed
give the same map; does a map change when the weights are drawn anew, from the logits down or one
stage at a time, when other words are explained, or when another question is asked? The answers are
rank correlations with the first map at 14 x 14 cells: 1 the same, 0 unrelated. Two more are shares:
how far a map moves under noise in the picture, of its own size, and how much of what taking regions
away does it fails to predict. `lvlm-study sanity` writes them all to `sanity.json`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ..answers import make_target
from ..errors import StudyError
from ..heatmaps import explain
from ..heatmaps.names import title
from ..heatmaps.progress import each
from ..heatmaps.variants import canonical, parse
from ..metrics.sanity import (
    infidelity,
    random_logit,
    randomised_weights,
    seed_stability,
    sensitivity,
    wrong_question,
)
from ..metrics.statistics import Estimate, estimate, finite
from . import profiles, provenance
from .runner import item_seed, shuffled
from .tables import write

METHODS = (
    "igos",
    "igos[preset=paper]",
    "smoothgrad",
    "grad_cam",
    "llava_cam",
    "gae",
    "iia",
    "integrated_gradients",
    "occlusion",
    "attention",
    "rollout",
    "tam",
    "difference",  # these two can only fail: they never see the model
    "sobel",
)
STAGES = 2  # the language model's blocks are drawn anew in so many steps
SEEDS = (0, 1, 2)
DRAWS = 2  # other words for each answer
NOISE_DRAWS = 2  # noisy pictures
CHECKS = ("seeds", "weights", "alone", "logit", "question", "noise", "infidelity")
STAGED = ("weights", "alone")  # checks with one value a stage: drawn anew in turn, or on its own
COLUMNS = ["item", "method", "check", "stage", "value", "status"]


def explainable(model, items, count: int, seed: int = 0) -> list[tuple]:
    """The first `count` items whose answer has crucial tokens, with the options that they need."""
    found = []
    for item in each(items, "answering"):
        answer = model.answer(item.rgb, item.question)
        if not answer.tokens:
            continue
        own = item_seed(seed, item.id)
        if make_target(model, item.rgb, item.question, answer=answer, seed=own).status == "ok":
            found.append((item, answer))
        if len(found) == count:
            break
    return found


def measure(model, asked, methods=METHODS, say: Callable = print) -> pd.DataFrame:
    """Every check of every method on (item, answer) pairs; one row a value (see `COLUMNS`).

    Methods may carry options, "igos[preset=paper]".
    A method that refuses the model is left out with a word; `check` is one of `CHECKS`, `stage` the
    weights drawn anew last, for `STAGED` only.
    """
    rows, others = [], other_questions([item.question for item, _ in asked])
    for method in methods:
        started = time.perf_counter()
        try:
            pairs = list(zip(asked, others, strict=True))
            for (item, answer), other in each(pairs, method):
                rows += [
                    {"item": item.id, "method": method} | row
                    for row in _checks(model, item, answer, method, other)
                ]
        except StudyError as error:
            say(f"{method} is left out: {error}")
            rows = [row for row in rows if row["method"] != method]
            continue
        say(f"{method}: {len(asked)} items, {time.perf_counter() - started:.0f} s")
    return pd.DataFrame(rows, columns=COLUMNS)


def other_questions(questions: list[str]) -> list[str]:
    """For each question the next one that differs; itself where all are alike."""
    return [
        next((other for other in questions[n + 1 :] + questions[:n] if other != own), own)
        for n, own in enumerate(questions)
    ]


def _checks(model, item, answer, name: str, other: str) -> list[dict]:
    """The rows of one item and method."""
    method, options = parse(name)
    how, ask = options | {"answer": answer}, (model, item.rgb, item.question, method)
    shown = explain(*ask, **how)
    seeds = seed_stability(*ask, seeds=SEEDS, **how)
    words = random_logit(*ask, draws=DRAWS, **how)
    asked = wrong_question(*ask[:3], other, method, **how)
    noise = sensitivity(*ask, draws=NOISE_DRAWS, **how)
    told = infidelity(shown)
    one = [("seeds", seeds.mean, seeds), ("logit", words.mean, words)]
    one += [("question", asked.mean, asked), ("noise", noise.mean, noise)]
    one += [("infidelity", told.relative, told)]
    rows = [{"check": c, "stage": "", "value": v, "status": found.status} for c, v, found in one]
    for check, mode in zip(STAGED, ("cascading", "independent"), strict=True):
        found = randomised_weights(*ask, mode=mode, language_stages=STAGES, **how)
        rows += [
            {"check": check, "stage": row.stage, "value": row.spearman, "status": row.status}
            for row in found.itertuples()
        ]
    return rows


def summarise(rows: pd.DataFrame) -> dict:
    """{method: {check: an `Estimate`, one a stage for `STAGED` ones, forgotten, silent}}.

    `forgotten` is the value after the last stage, when no weight of the model is left; `silent` the
    number of comparisons with a constant map, which have no value.
    """
    out = {}
    for method, part in rows.groupby("method", sort=False):
        of = {check: part[part.check == check] for check in CHECKS}
        told = {check: _mean(of[check].value) for check in CHECKS if check not in STAGED}
        for check in STAGED:
            some = of[check].groupby("stage", sort=False).value
            told[check] = {stage: _mean(values) for stage, values in some}
        last = list(told["weights"].values())[-1:] or [_mean([])]
        silent = int((part.status == "constant").sum())
        out[method] = {"title": title(method), "forgotten": last[0], "silent": silent} | told
    return out


def _mean(values) -> Estimate:
    return estimate(values).where_enough()


def study(
    name: str,
    results: Path,
    benchmark: str = "sprites",
    methods=METHODS,
    items: int = 8,
    profile: str = "mini",
    seed: int = 0,
    fresh: bool = False,
    say: Callable = print,
) -> dict:
    """Measure the methods that are missing, and write `sanity.json`; returns its tree.

    Rows of an earlier run stay if it had the same model, weights, seed, items and versions, unless
    `fresh` asks for these methods again, as after a change of a default. The file names the commit
    that measured each method.
    """
    from ..benchmarks import load_benchmark
    from ..models import load_model

    methods = [canonical(method) for method in methods]
    model = load_model(name, setup=profiles.setup(profile))
    asked = explainable(model, shuffled(load_benchmark(benchmark), None), items, seed)
    if not asked:
        raise StudyError(f"{name} has no answer on {benchmark} that could be explained.")
    about = {"profile": profile, "model": [name], "n": len(asked), "seed": seed}
    about |= {"weights": provenance.weights_checksum(model), "benchmark": benchmark}
    about |= {"commit": provenance.commit(), "versions": provenance.versions()}
    about |= {"date": provenance.now()[:10]}
    path, ids = Path(results) / "sanity.json", [item.id for item, _ in asked]
    rows, minutes, commits = earlier(path, about, ids)
    for method in [m for m in methods if fresh or m not in set(rows.method)]:
        started = time.perf_counter()
        made = measure(model, asked, [method], say)
        rows = pd.concat([rows[rows.method != method], made], ignore_index=True)
        minutes += (time.perf_counter() - started) / 60
        commits |= {method: about["commit"]} if method in set(rows.method) else {}
        write(path, tree_of(rows, about, minutes, commits))  # at once: no more than one is lost
    tree = tree_of(rows, about, minutes, commits)
    write(path, tree)
    return tree


def earlier(path: Path, about: dict, items: list[str]) -> tuple[pd.DataFrame, float, dict]:
    """(rows, minutes, commits) of an earlier run of the same model, seed and items; else nothing.

    A release of this package parts no rows, since every method names its commit. Files from before
    weights and benchmark were recorded count as the same; methods whose commit was not yet recorded
    are of the one that the file names.
    """
    tree = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made, same = tree.get("provenance", {}), ("profile", "model", "n", "seed")
    rows = pd.DataFrame(tree.get("rows", []), columns=COLUMNS).astype({"value": float})
    agrees = all(made.get(k) == about[k] for k in same) and set(rows.item) == set(items)
    agrees &= all(made.get(k, about[k]) == about[k] for k in ("weights", "benchmark"))
    agrees &= _others(made.get("versions", {})) == _others(about["versions"])
    if not agrees:
        return rows.iloc[:0], 0.0, {}
    commits = dict.fromkeys(rows.method, made.get("commit")) | tree.get("commits", {})
    return rows, tree["minutes"], commits


def _others(versions: dict) -> dict:
    """The versions of everything but this package."""
    return {name: version for name, version in versions.items() if name != "lvlm-study"}


def tree_of(rows: pd.DataFrame, about: dict, minutes: float, commits: dict) -> dict:
    """The tree of `sanity.json`; minutes are those of all methods together."""
    tree = {"provenance": about, "n": about["n"], "minutes": minutes, "commits": commits}
    tree |= {"methods": _as_json(summarise(rows))}
    records = rows.to_dict("records")
    return tree | {"rows": [row | {"value": finite(row["value"])} for row in records]}


def _as_json(told):
    """Estimates anywhere in a tree as JSON."""
    if isinstance(told, dict):
        return {key: _as_json(value) for key, value in told.items()}
    return told.json() if hasattr(told, "json") else told


def read_rows(results: Path) -> pd.DataFrame:
    """The rows of `sanity.json` with their model; an empty table where it has not been made."""
    path = Path(results) / "sanity.json"
    if not path.is_file():
        return pd.DataFrame(columns=["model", *COLUMNS])
    tree = json.loads(path.read_text(encoding="utf-8"))
    rows = pd.DataFrame(tree["rows"], columns=COLUMNS).astype({"value": float})
    return rows.assign(model=tree["provenance"]["model"][0])
