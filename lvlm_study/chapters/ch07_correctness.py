"""Does looking at the right place make the answer right? The four quadrants, counted.

The paper sorts 100 samples into these quadrants by eye (its section on focus and correctness). Here
the evidence is known to the pixel, so a rule does it, and maps that know nothing of the model are
sorted by the same rule: what they reach is chance. Items without a map, and items on which nothing
in particular decides, are counted apart and never dropped.

Busy ground leads, since models err there; flat ground is the easy case. A sweep may give maps to
wrong answers alone, so shares are told of right and of wrong answers, each for itself: how many
answers with a map on the evidence are right would depend on which answers got maps.

Beside the rules stand annotators: `data/annotations` holds the files that `annotate.widget` and
`annotate.Session` write. An annotator never sees whose map it is; here every choice meets its row
of the results again, by its number. Only pictures on which some region decides are compared.

    correctness.grounds[hard].methods.occlusion.pointing.wrong.value
    correctness.deciding.hard.wrong.value
    correctness.eyes.methods.sobel.eye
"""

from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..benchmarks.base import Item
from ..figures import (
    WIDTH,
    chance_line,
    dots,
    grid,
    legend_below,
    outline,
    overlay,
    own_scale,
)
from ..heatmaps.controls import control_map
from ..heatmaps.names import CONTROLS, PAPER_METHOD, draws_of, in_order, title
from ..metrics.plausibility import energy, pointing, widened
from ..metrics.quadrants import APART, FOLD, QUADRANTS, RULES, apart, quadrants, sorted_rows
from ..metrics.statistics import Estimate, estimate, finite
from ..paths import data_dir
from ..scenes.questions import CATEGORIES
from ..sweep.stored import BUSY, Tables, enlarged, stored_maps
from . import annotate
from .compare import FAST, by_level, first_trainings, mean, plain, shown, usable

OURS, FLAT = "igos", "sprites"
SETTINGS = {FAST: OURS, PAPER_METHOD: OURS, "occlusion": "occlusion"}  # fast on busy ground
HARD = ("sprites_clutter-3", "sprites_clutter-4")  # half of the answers are wrong
WRONG = "wrong"  # of a results folder: what `lvlm-study run --wrong` made
GROUNDS = {
    "hard": "busy ground, levels 3 and 4",
    "busy": "busy ground, levels 1 to 4",
    "flat": "flat ground",
}
ANSWERS = {"right": ("#0072b2", "o", -0.14), "wrong": ("#d55e00", "s", 0.14)}
SHADES = {  # told apart by lightness and by hatching, not by hue alone
    "right, on": ("#0072b2", ""),
    "right, off": ("#9ecae1", ""),
    "wrong, on": ("#d55e00", "//"),
    "wrong, off": ("#fdc89b", "//"),
}


# --- answers of both worlds, and their maps


def busy_maps(results: Path) -> pd.DataFrame:
    """Maps of iGOS and occlusion on busy ground, levels 1 to 4, of the members for each level."""
    rows = by_level(_stored(Path(results) / BUSY, ablations=True))
    rows = rows[rows.method.isin([FAST, "occlusion"]) & (rows.level != "0")]
    return rows.assign(method=rows.method.map(SETTINGS))


def flat_maps(results: Path) -> pd.DataFrame:
    """Maps of iGOS and occlusion on flat ground, of every member's first training.

    Wrong answers alone have a folder of their own: beside all answers they would bias every mean.
    """
    parts = [_stored(folder) for folder in (Path(results), Path(results) / WRONG)]
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    rows = rows[(rows.benchmark == FLAT) & rows.method.isin([PAPER_METHOD, "occlusion"])]
    rows = first_trainings(rows.assign(picture=rows["item"]))
    return rows.assign(method=rows.method.map(SETTINGS))


def _stored(folder: Path, **options) -> pd.DataFrame:
    """Stored maps; no rows where a folder has none."""
    columns = ["model", "benchmark", "item", "method", "verdict"]
    made = (folder / "maps").is_dir() and (folder / "reliance").is_dir()
    return stored_maps(folder, **options) if made else pd.DataFrame(columns=columns, dtype=object)


def grounds(busy: pd.DataFrame, flat: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{key of `GROUNDS`: its rows}, of those that have any."""
    parts = {"hard": busy[busy.benchmark.isin(HARD)], "busy": busy, "flat": flat}
    return {name: rows for name, rows in parts.items() if len(rows)}


def placed_by(rows: pd.DataFrame, method: str, rule: str) -> pd.DataFrame:
    """Rows of a method's maps that can be on or off the evidence, with `on`.

    A control is judged on the answers that have a map of iGOS. Its `on` is a share, of the draws of
    the random map.
    """
    asked = rows[rows.method == (OURS if method in CONTROLS else method)]
    found = sorted_rows(asked, rule)
    found = found[found.quadrant.isin(QUADRANTS)]
    if method in CONTROLS:
        pairs = zip(found.benchmark, found["item"], strict=True)
        found = found.assign(on=[blind(*pair)[method][rule] for pair in pairs])
    return found


@cache
def blind(benchmark: str, name: str) -> dict[str, dict[str, float]]:
    """{control: {rule: share of its draws on the evidence}} of one item; no model is asked."""
    item = _items(benchmark)[name]
    rgb, evidence, near = item.rgb, item.evidence, widened(item.evidence)
    return {method: _judged(method, rgb, evidence, near) for method in CONTROLS}


@cache
def _items(benchmark: str) -> dict[str, Item]:
    return {item.id: item for item in load_benchmark(benchmark)}


def _judged(method: str, rgb: np.ndarray, evidence: np.ndarray, near: np.ndarray) -> dict:
    small = [control_map(method, rgb, seed) for seed in range(draws_of(method))]
    maps = [enlarged(one, *near.shape) for one in small]
    heavy = FOLD * evidence.mean()
    return {
        "pointing": float(np.mean([pointing(one, near) >= 0.5 for one in maps])),
        "mass": float(np.mean([energy(one, evidence) >= heavy for one in maps])),
    }


# --- tables of the page


def quadrant_table(parts: dict[str, pd.DataFrame], method: str = "occlusion") -> pd.DataFrame:
    """Counts of every quadrant by ground and category, with what has no place."""
    tables = [
        quadrants(sorted_rows(rows[rows.method == method]), ["category"]).assign(ground=name)
        for name, rows in parts.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["ground", "category", *QUADRANTS, *APART, "n"]]


def share_table(study: dict) -> pd.DataFrame:
    """By ground, method and rule: maps on the evidence, of right and of wrong answers."""
    rows = []
    for ground, part in study["grounds"].items():
        for method in in_order(part["methods"]):
            for rule, found in part["methods"][method].items():
                row = {"ground": GROUNDS[ground], "method": title(method), "rule": rule}
                row |= {f"n {kind}": found[kind]["n"] for kind in ANSWERS}
                columns = {k: k for k in ANSWERS} | {"apart": "right − wrong", "within": "within"}
                rows.append(row | {name: shown(found[k]) for k, name in columns.items()})
    return pd.DataFrame(rows)


# --- maps judged by eye, beside the rules


def annotations(folder: Path | None = None) -> pd.DataFrame:
    """The choices that stand in the end in all files of a folder (default: data/annotations).

    No rows when nobody has annotated. Raises StudyError for a CSV file that is something else.
    """
    folder = Path(folder or data_dir() / "annotations")
    files = [annotate.read(path) for path in sorted(folder.glob("*.csv"))]
    return annotate.standing(pd.concat([annotate.read(folder / "none.csv"), *files]))


def met(log: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """One row an annotator and picture: what was said, of which map, and what each rule says of it.

    `stored` is a `stored_maps` table. Columns `right` and `covered` hold the choices, `verdict` the
    known one, and one column a rule whether the map is on the evidence (None: no region decides).
    Choices about maps that are not in these results are left out. A question that an annotator has
    not answered is NaN, and counts nowhere.
    """
    about = stored[stored.status == "ok"].copy()
    about["task"] = [annotate.number_of(row) for row in about.itertuples()]
    for rule in RULES:
        sorted_ = sorted_rows(about, rule)
        placed = sorted_[sorted_.quadrant.isin(QUADRANTS)]
        about[rule] = placed.on.reindex(about.index).astype(object)
    wide = log.pivot(index=["annotator", "task"], columns="about", values="choice").reset_index()
    columns = ["task", "model", "method", "item", "category", "verdict", *RULES]
    return wide.merge(about[columns], on="task", validate="many_to_one")


def by_method(said: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Share of maps that cover what is needed, by method: to the eye, and by each rule.

    Pictures with a region alone. `eye` is the share of choices that say yes (unsure is not yes),
    with its bootstrap interval over items; the rules judge the same pictures.
    """
    out = []
    for method, part in with_region(said).groupby("method", sort=False):
        found = estimate(part.covered == "yes", clusters=part.item, seed=seed)
        eye = found.where_enough(part.item.nunique())
        once = part.drop_duplicates("task")
        row = {"method": method, "pictures": len(once), "eye": eye.value}
        row |= {"low": eye.low, "high": eye.high}
        out.append(row | {rule: float(once[rule].mean()) for rule in RULES})
    columns = ["method", "pictures", "eye", "low", "high", *RULES]
    return pd.DataFrame(out, columns=columns).sort_values("eye", ascending=False, ignore_index=True)


def with_region(said: pd.DataFrame) -> pd.DataFrame:
    """Choices about maps of which some region decides whether they cover it."""
    return said[said.pointing.notna() & said.covered.notna()]


def judged_apart(said: pd.DataFrame, one: str, other: str) -> Estimate | None:
    """Share of maps that cover to the eye, method `one` minus `other`, with its 95 % interval.

    Whole items are drawn anew, with all their pictures and annotators. None where one of the two
    methods was not judged.
    """
    both = with_region(said)
    both = both[both.method.isin([one, other])]
    if both.method.nunique() < 2:
        return None
    on, yes = (both.method == one).to_numpy(), (both.covered == "yes").to_numpy()
    return apart(on, yes, both.item)


def beside_rules(said: pd.DataFrame) -> pd.DataFrame:
    """How far each annotator agrees with each rule, and with the known answer, beyond chance.

    One row an annotator and standard: `n` choices that are not unsure, share the `same`, Cohen's
    `kappa` with its interval.
    """
    out = []
    for who, part in said.groupby("annotator"):
        for rule in RULES:
            placed = part[part[rule].notna()]
            out.append({"annotator": who, "beside": rule} | _same(placed.covered, placed[rule]))
        known = part[part.verdict.isin(["correct", "wrong"])]
        out.append(
            {"annotator": who, "beside": "known answer"}
            | _same(known.right, known.verdict == "correct")
        )
    return pd.DataFrame(out)


def _same(choices: pd.Series, true: pd.Series) -> dict:
    sure = choices.isin(["yes", "no"]).to_numpy()
    said = np.where(choices[sure] == "yes", "yes", "no")
    want = np.where(true[sure].astype(bool), "yes", "no")
    kappa, low, high = annotate.cohens_kappa(said, want)
    same = float((said == want).mean()) if len(said) else np.nan
    return {"n": len(said), "same": same, "kappa": kappa, "low": low, "high": high}


# --- figures


def share_figure(study: dict, names=("hard", "flat"), rule: str = "pointing"):
    """Share of maps on the evidence, of right and of wrong answers: a panel a ground."""
    names = [name for name in names if name in study["grounds"]]
    methods = in_order(study["grounds"][names[0]]["methods"])
    figure, axes = grid(len(names), 1.1 + 0.5 * len(methods), 2)
    for ax, name in zip(axes, names, strict=True):
        cells = [study["grounds"][name]["methods"][method][rule] for method in methods]
        for kind, (shade, marker, shift) in ANSWERS.items():
            found = [cell[kind] for cell in cells]
            dots(ax, found, [title(m) for m in methods], np.arange(len(methods)) + shift, shade,
                 marker, label=f"{kind} answers")  # fmt: skip
        _counts(ax, [[cell[kind]["n"] for kind in ANSWERS] for cell in cells])
        ax.set(title=GROUNDS[name], xlabel="share of maps on the evidence")
    legend_below(figure, axes[0])
    return figure


def _counts(ax, counts: list) -> None:
    """The numbers of right and of wrong answers at the right end of a scale from 0 to 1."""
    for place, pair in enumerate(counts):
        ax.text(1.04, place, "{} + {}".format(*pair), va="center", fontsize="small")
    ax.text(1.04, -0.55, "n", va="center", fontsize="small")
    ax.set(xlim=(0, 1.5), xticks=[0, 0.5, 1], ylim=(len(counts) - 0.4, -0.9))


def apart_figure(study: dict, names=("busy", "flat"), rule: str = "pointing"):
    """Share of right answers' maps on the evidence minus that of wrong ones', and within kinds."""
    names = [name for name in names if name in study["grounds"]]
    methods = in_order(study["grounds"][names[0]]["methods"])
    figure, axes = grid(len(names), 1.0 + 0.36 * len(methods), 2, sharex=True)
    looks = (("apart", "all", 0.14, True), ("within", "within kinds of question", -0.14, False))
    for ax, name in zip(axes, names, strict=True):
        cells = [study["grounds"][name]["methods"][method][rule] for method in methods]
        for key, label, shift, hollow in looks:
            dots(ax, [cell[key] for cell in cells], [title(m) for m in methods],
                 np.arange(len(methods)) + shift, hollow=hollow, label=label)  # fmt: skip
        chance_line(ax, 0.0)
        ax.set(title=GROUNDS[name], xlabel="right − wrong")
    legend_below(figure, axes[0])
    return figure


def quadrant_figure(parts: dict[str, pd.DataFrame], method: str = "occlusion"):
    """Maps on and off the evidence by category, a bar for right and one for wrong answers."""
    figure, axes = grid(len(parts), 4.2, 2)
    for ax, (name, rows) in zip(axes, parts.items(), strict=True):
        table = quadrants(sorted_rows(rows[rows.method == method]), ["category"])
        table = table.set_index("category").reindex(CATEGORIES).fillna(0)
        counts = [_pair(ax, table, kind, shift) for kind, (_, _, shift) in ANSWERS.items()]
        _counts(ax, np.transpose(counts).tolist())
        ax.set(title=GROUNDS[name], xlabel="share of these answers")
        ax.set_yticks(range(len(table)), table.index)
    legend_below(figure, axes[0], 2)
    return figure


def _pair(ax, table: pd.DataFrame, kind: str, shift: float) -> list[int]:
    """Bars of one kind of answer, on and then off the evidence; how many each stands for."""
    total, left = table[f"{kind}, on"] + table[f"{kind}, off"], 0.0
    for name in (f"{kind}, on", f"{kind}, off"):
        shade, hatch = SHADES[name]
        part, places = table[name] / total.clip(lower=1), np.arange(len(table)) + 1.4 * shift
        look = {"color": shade, "hatch": hatch, "edgecolor": "white", "label": name}
        ax.barh(places, part, 0.36, left=left, **look)
        left = left + part
    return total.astype(int).tolist()


def examples_figure(rows: pd.DataFrame):
    """One picture a quadrant, the first of each: its map over the picture in grey."""
    figure, axes = grid(4, 0.56 * WIDTH, 2, sharey=False)
    for ax, name in zip(axes, QUADRANTS, strict=True):
        part = rows[(rows.quadrant == name) & rows.saliency.notna()]
        ax.set_axis_off()
        if part.empty:
            ax.set_title(f"{name}\nnone", fontsize="x-small")
            continue
        row = part.iloc[0]
        item = _items(row.benchmark)[row["item"]]
        pale = 128 + item.rgb.mean(-1, keepdims=True).repeat(3, -1) / 2  # colours are the map's
        big = np.clip(enlarged(row.saliency, *pale.shape[:2]), 0, None)
        overlay(ax, pale.astype(np.uint8), big, *(own_scale(big) or (0, 1)), bar=False)
        ax.set_title(f"{name}\n{row.question}\n{row.answer}", fontsize="x-small")
        outline(ax, item.evidence)
    return figure


def eyes_figure(table: pd.DataFrame):
    """`by_method`: what annotators called covering, with interval, and what rules did."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 * WIDTH), layout="constrained")
    ends = [table.eye - table.low, table.high - table.eye]
    bars = (("eye", "to the eye", "#0072b2", ""), ("pointing", "rule: pointing", "#e69f00", "//"))
    for shift, (column, name, shade, hatch) in enumerate(
        (*bars, ("mass", "rule: mass", "#999999", ".."))
    ):
        style = {"color": shade, "hatch": hatch, "edgecolor": "white", "label": name}
        bounds = {"xerr": ends, "ecolor": "0.2"} if column == "eye" else {}
        ax.barh(np.arange(len(table)) + 0.27 * (shift - 1), table[column], 0.27, **style, **bounds)
    names = [f"{title(row.method)} (n = {row.pictures})" for row in table.itertuples()]
    ax.set_yticks(range(len(table)), names)
    ax.set(xlabel="share of maps that cover what is needed", xlim=(0, 1))
    ax.invert_yaxis()
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


# --- the numbers of the page


def correctness_summary(tables: Tables) -> dict:
    """`correctness.json`: maps of right and of wrong answers in both worlds, and the eyes."""
    parts = grounds(busy_maps(tables.results), flat_maps(tables.results))
    if not parts:
        return {}
    own, told = Tables(tables.results / BUSY), all_answers(tables)
    worlds = {name: (own if name != "flat" else tables).effects for name in parts}
    return {
        "provenance": tables.origin(pd.concat([parts[n] for n in ("busy", "flat") if n in parts])),
        "grounds": {name: of_ground(rows, told[name]) for name, rows in parts.items()},
        "deciding": {n: deciding(worlds[n], told[n]) for n in ("hard", "flat") if n in parts},
        "eyes": eyes_summary(annotations(), stored_maps(tables.results)),
    }


def all_answers(tables: Tables) -> dict[str, pd.DataFrame]:
    """Every judged answer on a ground, with a map or not; one row a model and item."""
    flat = tables.reliance
    flat = first_trainings(flat[flat.benchmark == FLAT])
    busy = by_level(Tables(tables.results / BUSY).reliance)
    busy = busy[busy.level != "0"] if len(busy) else flat.iloc[:0]
    both = {
        name: rows.assign(picture=rows["item"] if name == "flat" else rows.get("picture"))
        for name, rows in grounds(busy, flat).items()
    }
    return {
        name: rows[rows.verdict.isin(["correct", "wrong"])].drop_duplicates(["model", "item"])
        for name, rows in both.items()
    }


def of_ground(rows: pd.DataFrame, answers: pd.DataFrame) -> dict:
    """One ground: how often models err, the quadrants of iGOS, and maps on the evidence.

    `n` counts the answers for which a map was sought, whether there is one or not.
    """
    ours = sorted_rows(rows[rows.method == OURS])
    counts = ours.quadrant.value_counts().reindex([*QUADRANTS, *APART], fill_value=0)
    methods = [*(m for m in dict.fromkeys(SETTINGS.values()) if m in set(rows.method)), *CONTROLS]
    return {
        "answers": len(answers),
        "err": finite((answers.verdict == "wrong").mean()),
        "n": len(ours),
        "counts": {name: int(count) for name, count in counts.items()},
        "methods": {
            name: {rule: of_maps(placed_by(rows, name, rule)) for rule in RULES}
            for name in in_order(methods)
        },
    }


def of_maps(rows: pd.DataFrame) -> dict:
    """Share of maps on the evidence, of right and of wrong answers, whole pictures drawn anew.

    `apart` is right minus wrong, `within` the same within categories and models, since they differ
    in how often they are right and in how large their evidence is.
    """
    parts = {kind: rows[rows.right == (kind == "right")] for kind in ANSWERS}
    found = {kind: mean(part.on, part.picture) for kind, part in parts.items()}
    known = (rows.right.to_numpy(bool), rows.on.to_numpy(float), rows.picture)
    found |= {"apart": apart(*known), "within": apart(*known, rows.category + rows.model)}
    return {name: one.json() for name, one in found.items()}


def deciding(effects: pd.DataFrame, answers: pd.DataFrame) -> dict:
    """Is the object that an answer rests on most one that decides the question? No map is asked.

    Share of right and of wrong answers whose greatest exact effect is of a deciding object, and
    `chance`, that of any object of the scene.
    """
    keys = ["model", "benchmark", "item"]
    rows = usable(effects).merge(answers[[*keys, "verdict", "picture"]], on=keys)
    pairs = zip(rows.benchmark, rows["item"], strict=True)
    rows = rows.assign(needed=[_items(world)[name].extra["objects"] for world, name in pairs])
    rows = rows[rows.needed.notna()]
    hits = [float(np.argmax(e) in some) for e, some in zip(rows.effect, rows.needed, strict=True)]
    luck = [len(n) / len(e) for n, e in zip(rows.needed, rows.effect, strict=True)]
    rows = rows.assign(hit=hits)
    parts = {"right": rows[rows.verdict == "correct"], "wrong": rows[rows.verdict == "wrong"]}
    found = {kind: mean(part.hit, part.picture).json() for kind, part in parts.items()}
    return found | {"chance": finite(np.mean(luck)) if luck else None}


def eyes_summary(log: pd.DataFrame, stored: pd.DataFrame) -> dict:
    """What annotators said, by method; {} where no annotated map is in these results."""
    said = met(log, stored) if len(log) else log
    if said.empty:
        return {}
    table, difference = by_method(said), judged_apart(said, PAPER_METHOD, "sobel")
    return {
        "n": int(said.task.nunique()),
        "methods": {method: plain(row) for method, row in table.set_index("method").iterrows()},
        "igos_minus_sobel": {} if difference is None else difference.json(),
    }
