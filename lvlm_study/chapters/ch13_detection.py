"""If a detector and a language model read the same tokens, do its boxes tell what answers rest on?

`lvlm-study detect` writes each part into one file:

    joint.kinds.deep.recall.value                  what the alignment W keeps (three kinds of it)
    joint_presence.confidence.wrong_auc.value      the detector behind the answers "yes" and "no"
    joint_pairs.methods.ga.right.value             which map explains A, which B, told by evidence
    joint_maps.methods.ga.energy_ratio.value       scores of the maps that `lvlm-study run` kept
    joint_bias.pairs.cat-rabbit.biased.step[0.5].said.value   the step in feature space on the twins

The rows behind them (answers, pairs of maps, shifts) are kept as tables in `detection/` beside, for
figures and for the annotation widget. A part that was stopped goes on where it was.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from ..benchmarks import load_benchmark
from ..benchmarks.pope import pope
from ..detector import bias_study, hallucination
from ..detector.bias_study import HIGH, KINDS, LOW, SIZES
from ..detector.hallucination import confidence_figure
from ..errors import StudyError, unknown
from ..figures import WIDTH, chance_line, dots, panels
from ..heatmaps import explain
from ..heatmaps.names import CONTROLS, title
from ..heatmaps.progress import each
from ..heatmaps.variants import is_variant
from ..metrics.localisation import evidence_boxes, max_box_acc, two_choice
from ..metrics.statistics import Estimate, ends, estimate, finite, paired_test, resample
from ..models import load_model
from ..models.registry import find_folder
from ..paths import replacing
from ..scenes import scenes
from ..sweep import provenance
from ..sweep.runner import item_seed, shuffled, stored_map
from ..sweep.stored import enlarged, grid, stored_maps
from ..sweep.tables import write
from .annotate import pair_task
from .compare import control_map, shown

METHODS = ("ga", "grad_cam", "gae", "igos", *CONTROLS)
SCORES = ("energy_ratio", "auc", "gap")  # of a map: evidence found, and faithfulness
ABSENT = 4  # objects asked for in a picture that are not there
KEPT = {
    "precision": "object precision (%)",
    "recall": "object recall (%)",
    "answers": "answers right (%)",
}
CHANGED = {
    "said": "number said",
    "expected": "number expected",
    "seen": "detector sees it",
}
COUNTS = {"presence": 64, "pairs": 24, "bias": 24}  # pictures, pairs, scenes of each twin
QUESTION = "What color is the {}?"
KIND_NAMES = {"deep": "deep MLP", "llava": "MLP like LLaVA's", "transformer": "transformer"}
KIND_NAMES |= {"unmodified": "none: LLaVA itself", "ground truth": "none: people's captions"}


# --- tables of the page


def kinds_table(tree: dict, paper: pd.DataFrame) -> pd.DataFrame:
    """The kinds of W: what they keep on sprites in per cent, and the seed's scores out of 10."""
    rows = []
    for row in paper[["kind", "gpt4v_score"]].itertuples(index=False):
        ours = tree["kinds"].get(row.kind, {})
        cells = {
            "W": KIND_NAMES[row.kind],
            "steps": str(ours["steps"]) if "steps" in ours else None,
            "squared error": f"{ours['error']:.3f}" if "error" in ours else None,
        }
        for name, label in KEPT.items():
            found = ours.get(name)
            cells[label] = found and f"{100 * Estimate.of_json(found):.0f}"
        rows.append(cells | {"the authors' judge (1 to 10)": row.gpt4v_score})
    return pd.DataFrame(rows)


def methods_table(tree: dict) -> pd.DataFrame:
    """Every method on the same items: evidence, faithfulness, localisation, with intervals."""
    rows = [
        {
            "method": title(name),
            "energy ratio": shown(row["energy_ratio"], 1),
            "auc": shown(row["auc"]),
            "insertion - deletion": shown(row["gap"]),
            "MaxBoxAccV2": shown(row["max_box_acc"]),
        }
        for name, row in by_evidence(tree)
    ]
    return pd.DataFrame(rows)


def by_evidence(tree: dict) -> list[tuple[str, dict]]:
    """(method, scores), the highest evidence energy first."""
    return sorted(tree["methods"].items(), key=lambda m: -(m[1]["energy_ratio"]["value"] or 0))


def bias_table(tree: dict) -> pd.DataFrame:
    """Every change of both twins: of the number said, and of the expected one."""
    rows = []
    for pair, twins in tree.items():
        for twin, place in twins.items():
            changes = {"drawn again": place["drawn"]}
            changes |= {f"step {size}": row for size, row in place["step"].items()}
            for change, row in changes.items():
                cells = {"names": pair.replace("-", " / "), "twin": twin, "change": change}
                cells |= {label: shown(row[name]) for name, label in CHANGED.items()}
                rows.append(cells | {"n": row["n"]})
    return pd.DataFrame(rows)


# --- figures


def evidence_figure(tree: dict):
    """Evidence energy over chance, and insertion minus deletion, by method; controls are hollow."""
    rows = {name: row for name, row in by_evidence(tree) if not is_variant(name)}
    figure, axes = panels(2, len(rows), sharex=False)
    look = {
        "colour": ["C1" if m == "ga" else "0.45" if m in CONTROLS else "C0" for m in rows],
        "hollow": [m in CONTROLS for m in rows],
    }
    for ax, name, label, chance in (
        (axes[0], "energy_ratio", "energy in the evidence\n(chance = 1)", 1),
        (axes[1], "gap", "insertion − deletion\n(chance = 0)", 0),
    ):
        dots(ax, [row[name] for row in rows.values()], [title(m) for m in rows], **look)
        chance_line(ax, chance)
        ax.set_xlabel(label)
    axes[0].set_xscale("log")
    return figure


def pairs_figure(tree: dict):
    """Share of pairs told apart right by their evidence, by method; one half is guessing."""
    found = sorted(tree["methods"].items(), key=lambda m: -(m[1]["right"]["value"] or 0))
    figure, ax = plt.subplots(figsize=(0.75 * WIDTH, 0.4 * WIDTH), layout="constrained")
    look = {"hollow": [method in CONTROLS for method, _ in found]}
    dots(ax, [row["right"] for _, row in found], [title(method) for method, _ in found], **look)
    chance_line(ax, 0.5)
    ax.set(xlabel="pairs told apart", xlim=(0, 1.02))
    return figure


def presence_figure(asked: pd.DataFrame):
    """Two histograms: the detector's highest score behind "yes" and "no", and where these erred."""
    figure, axes = plt.subplots(
        1, 2, figsize=(WIDTH, 0.4 * WIDTH), sharey=True, layout="constrained"
    )
    for ax, name, part in (
        (axes[0], "right answers", asked[asked.correct]),
        (axes[1], "wrong answers", asked[~asked.correct & (asked.said != "")]),
    ):
        if len(part):
            confidence_figure(part, ax)
        ax.set_title(name if len(part) else f"{name}: none")
    return figure


def bias_figure(tree: dict, pair: str = "cat-rabbit", score: str = "expected"):
    """Change of the number by the size of the step, both twins, with the planted rule as a line.

    The first place is the scene drawn again; the rest are steps of one signed gradient.
    """
    figure, ax = plt.subplots(figsize=(0.8 * WIDTH, 0.45 * WIDTH), layout="constrained")
    names = ["drawn", *(f"{size:g}" for size in SIZES)]
    for offset, twin, marker, colour in zip((-0.08, 0.08), KINDS, "os", ("C0", "C1"), strict=True):
        place = tree[pair][twin]
        found = [place["drawn"][score], *(place["step"][name][score] for name in names[1:])]
        at, look = np.arange(len(names)) + offset, {"colour": colour, "marker": marker}
        dots(ax, found, places=at, upright=True, label=f"{twin} twin", **look)
    if pair == "cat-rabbit":
        ax.axhline(HIGH - LOW, color="0.6", linestyle=":", label="planted")
    ax.axhline(0, color="0.6", linewidth=1, zorder=0)
    ax.set_xticks(range(len(names)), ["drawn\nagain", *names[1:]])
    ax.set(xlabel="step in feature space (in units of the features)", ylabel="change of the number")
    ax.legend()
    return figure


# --- the numbers of the page, a part a file


@dataclass
class Study:
    """A joint model, loaded when first needed, and where its numbers go."""

    name: str
    results: Path
    profile: str
    seed: int
    items: int | None
    pope: Path | None = None
    say: Callable = print

    @cached_property
    def model(self):
        """The joint model; StudyError for one without a detector."""
        model = load_model(self.name)
        if getattr(model, "detector", None) is None:
            raise StudyError(f"{self.name} has no detector; name a joint model such as mini/joint.")
        return model

    def count(self, part: str) -> int:
        """How many items a part takes: what was asked for, or its own number."""
        return self.items or COUNTS[part]

    def table(self, name: str) -> Path:
        """Where a table of single answers is kept."""
        return self.results / "detection" / f"{name}.parquet"

    def kept(self, name: str, weights: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """Rows of an earlier run with these weights and this seed; others are made again."""
        path = self.table(name)
        frame = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        if not {"weights", "seed"} <= set(frame):
            return pd.DataFrame(columns=[*columns, "weights", "seed"])
        return frame[(frame.weights == weights) & (frame.seed == self.seed)]

    def write(self, part: str, n: int, tree: dict) -> None:
        """One results file, whole or not at all."""
        about = {"profile": self.profile, "model": self.name, "n": n, "seed": self.seed}
        about |= {"commit": provenance.commit(), "versions": provenance.versions()}
        about |= {"date": provenance.now()[:10]}
        name = part if part == "joint" else f"joint_{part}"
        write(self.results / f"{name}.json", {"provenance": about} | plain(tree))
        self.say(f"{part}: written, n = {n}")


def study(
    name: str, results: Path, parts=None, items=None, profile="mini", seed=0,
    pope: Path | None = None, say=print,
) -> None:  # fmt: skip
    """Measure the parts asked for, or all that can be measured here; each is written when done.

    With `pope`, a folder or file in POPE's layout, presence is asked of its photographs.
    """
    for part in parts or ():
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    mine = Study(name, Path(results), profile, seed, items, pope, say)
    if not parts:
        _ = mine.model  # one without a detector is told at once, in one sentence
    for part in parts or PARTS:
        try:
            PARTS[part](mine)
        except StudyError as error:
            if parts:
                raise
            say(f"{part}: left out; {error}")


def plain(tree):
    """Estimates as dictionaries, numpy as Python, what is not finite as null."""
    if isinstance(tree, Estimate):
        return tree.json()
    if isinstance(tree, dict):
        return {str(k): plain(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(v) for v in tree]
    if isinstance(tree, float | np.floating):
        return finite(tree)
    return int(tree) if isinstance(tree, np.integer) else tree


# --- what W keeps


def joint(mine: Study) -> None:
    """The kinds of W as training measured them, with intervals."""
    path = find_folder(mine.name) / "alignment.json"
    if not path.is_file():
        raise StudyError(f"{path} is missing; train the model with 'lvlm-study train joint'.")
    scores = json.loads(path.read_text())
    n = next(iter(scores.values()))["n_answers"]
    mine.write("joint", n, {"kinds": {kind: _kept(row, mine.seed) for kind, row in scores.items()}})


def _kept(row: dict, seed: int) -> dict:
    """Precision and recall with intervals over captions, answers with Wilson's."""
    counts = np.array(row["captions"], float)  # (captions, named / shown / both)
    right = round(row["answers"] * row["n_answers"])
    low, high = proportion_confint(right, row["n_answers"], method="wilson")
    out = {
        "precision": share_estimate(counts[:, 2], counts[:, 0], seed),
        "recall": share_estimate(counts[:, 2], counts[:, 1], seed),
        "answers": Estimate(row["answers"], low, high, row["n_answers"]),
    }
    return out | {k: row[k] for k in ("error", "steps") if k in row}


def share_estimate(hits, totals, seed: int = 0, draws: int = 2000) -> Estimate:
    """sum(hits) / sum(totals) with an interval that draws pairs anew; NaN if nothing counts."""
    hits, totals = np.asarray(hits, float), np.asarray(totals, float)
    picks = resample(len(hits), draws, seed)
    with np.errstate(invalid="ignore"):
        value, found = hits.sum() / totals.sum(), hits[picks].sum(1) / totals[picks].sum(1)
    return Estimate(float(value), *ends(found), len(hits))


# --- yes and no


def presence(mine: Study) -> None:
    """Ask what is there and what is not, and look how sure the detector was."""
    if mine.pope is None:
        items = shuffled(load_benchmark("sprites"), mine.count("presence"))
        pictures = hallucination.sprite_presence(items, absent=ABSENT, seed=mine.seed)
        wording = hallucination.ZOO_QUESTION
    else:
        pictures = hallucination.pope_presence(pope(mine.pope))[: mine.items]
        wording = hallucination.QUESTION
    asked = hallucination.ask_presence(mine.model, pictures, wording)
    save(mine.table("presence"), asked)
    found = hallucination.agreement(asked, seed=mine.seed)
    tree = {"questions": len(asked), "confidence": vars(found)}
    mine.write("presence", len(pictures), tree)


# --- which map explains which


def pairs(mine: Study) -> None:
    """Two questions about two objects of one scene, and their maps, by every method."""
    weights = provenance.weights_checksum(mine.model)
    frame = mine.kept("pairs", weights, ("pair", "method"))
    known = set(zip(frame.pair, frame.method, strict=True))
    items = shuffled(load_benchmark("sprites"), None)
    chosen = [(item, two) for item in items if (two := two_objects(item.extra["scene"]))]
    for item, two in each(chosen[: mine.count("pairs")], "pairs", "pair"):
        fresh = [m for m in METHODS if (item.id, m) not in known]
        rows = pair_rows(mine, item, two, fresh) if fresh else []
        if rows:
            made = pd.DataFrame(rows).assign(weights=weights, seed=mine.seed)
            frame = pd.concat([frame, made], ignore_index=True) if len(frame) else made
            save(mine.table("pairs"), frame)
    mine.write("pairs", frame.pair.nunique(), {"methods": pairs_summary(frame)})


def two_objects(scene: scenes.Scene) -> list[int]:
    """The first two objects whose class occurs once; empty where there are not two."""
    every = [o.name for o in scene.objects]
    alone = [i for i, name in enumerate(every) if every.count(name) == 1]
    return alone[:2] if len(alone) > 1 else []


def pair_rows(mine: Study, item, two: list[int], methods) -> list[dict]:
    """One row a method: status, score of the choice, both answers, and both maps reduced."""
    scene, rgb = item.extra["scene"], item.rgb
    asked = [QUESTION.format(scene.objects[i].name) for i in two]
    evidence = [scenes.mask(scene, i) for i in two]
    answers = [mine.model.answer(rgb, q) for q in asked]
    said = [f"{q} {a.text}" for q, a in zip(asked, answers, strict=True)]
    rows = []
    for method in methods:
        both = [
            explain(mine.model, rgb, q, method=method, seed=mine.seed, answer=a)
            for q, a in zip(asked, answers, strict=True)
        ]
        status = next((ex.status for ex in both if ex.status != "ok"), "ok")
        row = {"pair": item.id, "method": method, "status": status, "a": said[0], "b": said[1]}
        row["score"] = np.nan
        if status == "ok":
            row["score"] = two_choice(*(ex.saliency for ex in both), *evidence)
        for name, ex in zip("ab", both, strict=True):
            kept = stored_map(ex) if status == "ok" else {}
            row |= {f"map_{name}": kept.get("heatmap"), f"shape_{name}": kept.get("heatmap_shape")}
        rows.append(row)
    return rows


def pairs_summary(frame: pd.DataFrame) -> dict:
    """{method: share right (0.5 for a tie) with its interval, of the pairs with two maps}."""
    parts = frame.groupby("method", sort=False)
    return {method: {"right": estimate(part.score)} for method, part in parts}


def pair_tasks(results: Path, methods=("ga", "igos"), count: int | None = None, seed: int = 0):
    """The pairs as tasks for `annotate.widget`: people tell which map explains A and which B."""
    path = Path(results) / "detection" / "pairs.parquet"
    if not path.is_file():
        raise StudyError(f"{path} is missing; run 'lvlm-study detect --parts pairs' first.")
    frame = pd.read_parquet(path)
    frame = frame[frame.map_a.notna() & frame.map_b.notna()]
    for method in methods:
        if method not in set(frame.method):
            raise unknown("method with stored pairs", method, sorted(set(frame.method)))
    frame = frame[frame.method.isin(methods)]
    if count is not None and count < len(frame):
        frame = frame.sample(count, random_state=seed)
    items = {item.id: item for item in load_benchmark("sprites")}
    out = []
    for row in frame.itertuples():
        maps = grid(row.map_a, row.shape_a), grid(row.map_b, row.shape_b)
        secret = {"method": row.method, "pair": row.pair}
        out.append(pair_task(items[row.pair].rgb, (row.a, row.b), maps, secret, seed))
    return out


# --- the maps of the sweep


def maps(mine: Study) -> None:
    """Every method on the items that all of them explain: evidence, faithfulness, MaxBoxAccV2."""
    frame = stored_maps(mine.results)
    items = {i.id: i for i in load_benchmark("sprites") if i.evidence is not None}
    frame = frame[(frame.model == mine.name) & (frame.benchmark == "sprites")]
    frame = frame[(frame.status == "ok") & frame.category.ne("global") & frame.item.isin(items)]
    if "ga" not in set(frame.method):
        raise StudyError(
            f"There are no maps of {mine.name} by ga in {mine.results}; make some with "
            f"'lvlm-study run --models {mine.name} --methods {','.join(METHODS)}'."
        )
    frame = common_items(frame)
    wanted = [items[name] for name in sorted(set(frame.item))]
    tree = {method: _scores(part, wanted, mine.seed) for method, part in frame.groupby("method")}
    beside = {m: _against_ga(frame, m) for m in ("igos", "difference") if m in tree}
    mine.write("maps", len(wanted), {"methods": tree, "ga_minus": beside})


def common_items(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of items that every method explained, methods with fewer than half as many left out.

    A sweep may have been stopped in the middle of a method.
    """
    counts = frame.groupby("method").item.nunique()
    frame = frame[frame.method.isin(counts[counts >= counts["ga"] / 2].index)]
    each = [set(part.item) for _, part in frame.groupby("method")]
    return frame[frame.item.isin(set.intersection(*each))].sort_values(["method", "item"])


def _scores(rows: pd.DataFrame, items, seed: int) -> dict:
    """Means of one method with intervals, and its MaxBoxAccV2."""
    kept = rows.set_index("item").saliency
    if rows.method.iloc[0] in CONTROLS:  # not stored: drawn again
        drawn = {i.id: control_map(rows.method.iloc[0], i, item_seed(seed, i.id)) for i in items}
        kept = pd.Series(drawn)
    full = [enlarged(kept[item.id], *item.rgb.shape[:2]) for item in items]
    boxes = max_box_acc(full, [evidence_boxes(item.evidence) for item in items])
    return {name: estimate(rows[name]) for name in SCORES} | {"max_box_acc": boxes.interval}


def _against_ga(frame: pd.DataFrame, method: str) -> dict:
    """ga less another method, item by item: positive where ga is better."""
    one, other = (frame[frame.method == m].set_index("item") for m in ("ga", method))
    pairs = {name: (one[name], other[name].reindex(one.index)) for name in SCORES}
    tests = {name: paired_test(*both).where_enough() for name, both in pairs.items()}
    kept = ("difference", "low", "high", "p")
    return {name: {k: getattr(test, k) for k in kept} for name, test in tests.items()}


# --- a planted bias


def bias(mine: Study) -> None:
    """Shifts of both twins: towards what was planted, and between names that mean nothing."""
    parts = []
    for high, low in ((bias_study.MORE, bias_study.LESS), bias_study.UNRELATED):
        some = bias_study.cases(mine.count("bias"), high, low)
        for twin in KINDS:
            model = load_model(f"{mine.name}/{twin}")
            which = {"twin": twin, "pair": f"{high}-{low}"}
            weights = provenance.weights_checksum(model)
            known = mine.kept("bias", weights, ("twin", "pair", "case"))
            done = known[(known.twin == twin) & (known.pair == which["pair"])]
            if done["case"].nunique() != len(some):
                shifts = bias_study.shifts(model, some)
                done = shifts.assign(**which, weights=weights, seed=mine.seed)
            parts.append(done)
    frame = pd.concat(parts, ignore_index=True)
    save(mine.table("bias"), frame)
    mine.write("bias", mine.count("bias"), {"pairs": bias_study.bias_summary(frame)})


PARTS = {
    "joint": joint,
    "presence": presence,
    "pairs": pairs,
    "maps": maps,
    "bias": bias,
}


def save(path: Path, frame: pd.DataFrame) -> None:
    """A table beside the results, whole or not at all."""
    with replacing(path) as part:
        frame.to_parquet(part, index=False)
