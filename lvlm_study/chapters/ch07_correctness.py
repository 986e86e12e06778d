"""Does looking at the right place make the answer right? The four quadrants, counted.

The paper sorts 100 samples into these quadrants by eye (its section on focus and correctness). Here
the evidence is known to the pixel, so a rule does it, and maps that know nothing of the model are
sorted by the same rule: what they reach is chance. Items without a map, and items on which nothing
in particular decides, are counted apart and never dropped.

Beside the rules stand annotators: `data/annotations` holds the files that `annotate.widget` and
`annotate.Session` write. An annotator never sees whose map it is; here every choice meets its row
of the results again, by its number. Only pictures on which some region decides are compared.

    correctness.models[mini/llava-1.5].pointing.difference
    correctness.eyes.methods.sobel.eye
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..figures import WIDTH, grid, legend_below, outline, overlay, stacked
from ..heatmaps.names import PAPER_METHOD, title
from ..metrics.quadrants import (
    APART,
    QUADRANTS,
    RULES,
    apart,
    lift,
    on_share,
    quadrants,
    sorted_rows,
)
from ..metrics.statistics import ENOUGH_TO_RESAMPLE, Estimate, estimate
from ..models.names import short
from ..paths import data_dir
from ..scenes.questions import CATEGORIES
from ..sweep.stored import Tables, enlarged, stored_maps
from . import annotate
from .compare import first_trainings, frames, plain

METHODS = (PAPER_METHOD, "difference", "sobel", "center", "random")  # the last four see no model
MARKS = dict(zip(METHODS, "oDs^x", strict=True))
MARK_COLOURS = ("#0072b2", "#d55e00", "0.35", "0.6", "0.6")
SHADES = {  # told apart by lightness and by hatching, not by hue alone
    "right, on": ("#0072b2", ""),
    "right, off": ("#9ecae1", ""),
    "wrong, on": ("#d55e00", "//"),
    "wrong, off": ("#fdc89b", "//"),
    "no map": ("0.75", ""),
    "no region": ("0.9", ""),
}
NAMES = {
    "n_on": "maps on",
    "n_off": "off",
    "wrong": "wrong answers",
    "on_right": "right if on",
    "off_right": "right if off",
    "difference": "difference",
    "low": "from",
    "high": "to",
    "within": "within categories",
}


def compared(maps: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The rows of one benchmark and of `METHODS`; a model's further trainings do not count."""
    return first_trainings(maps[(maps.benchmark == benchmark) & maps.method.isin(METHODS)])


# --- tables of the page


def quadrant_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts of every quadrant by model, and over all of them."""
    table = quadrants(rows, ["model"])
    if len(table) > 1:
        total = table.drop(columns="model").sum().to_frame().T.assign(model="all")
        table = pd.concat([table, total], ignore_index=True)
    return table[["model", *SHADES, "n"]]


def lift_table(maps: pd.DataFrame) -> pd.DataFrame:
    """What a map on the evidence says about the answer, by rule and model."""
    table = []
    for rule in RULES:
        rows = sorted_rows(maps, rule)
        parts = [(name, rows[rows.model == name]) for name in sorted(rows.model.unique())]
        for name, part in [*parts, *([("all", rows)] if len(parts) > 1 else [])]:
            found = lift(part)
            if found["n_on"] + found["n_off"] < ENOUGH_TO_RESAMPLE:
                found |= {"low": np.nan, "high": np.nan}
            table.append({"rule": rule, "model": name} | {NAMES[k]: found[k] for k in NAMES})
    return pd.DataFrame(table)


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
    for method, part in placed(said).groupby("method", sort=False):
        found = estimate(part.covered == "yes", clusters=part.item, seed=seed)
        eye = found.where_enough(part.item.nunique())
        once = part.drop_duplicates("task")
        row = {"method": method, "pictures": len(once), "eye": eye.value}
        row |= {"low": eye.low, "high": eye.high}
        out.append(row | {rule: float(once[rule].mean()) for rule in RULES})
    columns = ["method", "pictures", "eye", "low", "high", *RULES]
    return pd.DataFrame(out, columns=columns).sort_values("eye", ascending=False, ignore_index=True)


def placed(said: pd.DataFrame) -> pd.DataFrame:
    """Choices about maps of which some region decides whether they cover it."""
    return said[said.pointing.notna() & said.covered.notna()]


def judged_apart(said: pd.DataFrame, one: str, other: str) -> Estimate | None:
    """Share of maps that cover to the eye, method `one` minus `other`, with its 95 % interval.

    Whole items are drawn anew, with all their pictures and annotators. None where one of the two
    methods was not judged.
    """
    both = placed(said)
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


def quadrant_figure(rows: pd.DataFrame):
    """Bars of quadrants by category, all models together; grey is what cannot be placed."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 * WIDTH), layout="constrained")
    table = quadrants(rows, ["category"]).set_index("category").reindex(CATEGORIES).fillna(0)
    stacked(ax, 100 * table.div(table.n.clip(lower=1), axis=0), SHADES)
    legend_below(figure, ax, fontsize="small")
    return figure


def chance_figure(maps: pd.DataFrame, rule: str = "pointing"):
    """Share of maps on the evidence: the method's, and that of maps that know nothing."""
    shares = on_share(sorted_rows(maps, rule))
    shares = shares.sort_values("model", kind="stable")
    size = (WIDTH, max(0.4 * WIDTH, 0.3 * shares.model.nunique() + 1.1))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    wide = shares.pivot(index="model", columns="method", values="on")
    for (method, marker), colour in zip(MARKS.items(), MARK_COLOURS, strict=True):
        if method in wide:
            look = {"marker": marker, "color": colour, "linestyle": "none"}
            ax.plot(wide[method], range(len(wide)), label=title(method), **look)
    ax.set_yticks(range(len(wide)), [short(name) for name in wide.index])
    ax.set(xlabel="share of maps on the evidence", xlim=(0, 1), ylim=(len(wide) - 0.5, -0.5))
    legend_below(figure, ax, fontsize="small")
    return figure


def examples_figure(rows: pd.DataFrame, items: dict):
    """One picture a quadrant, the first of each: the map, the answer, the evidence outlined."""
    figure, axes = grid(4, 0.56 * WIDTH, 2, sharey=False)
    for ax, name in zip(axes, QUADRANTS, strict=True):
        part = rows[(rows.quadrant == name) & rows.saliency.notna()]
        ax.set_axis_off()
        if part.empty:
            ax.set_title(f"{name}\nnone", fontsize="x-small")
            continue
        row = part.iloc[0]
        item = items[row["item"]]
        overlay(ax, item.rgb, enlarged(row.saliency, *item.rgb.shape[:2]), 0.0, 1.0, bar=False)
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
    """`correctness.json`, by the rule of pointing: quadrants and their difference, and the eyes."""
    stored = frames(tables, first_trainings)
    if stored.empty:
        return {}
    maps = sorted_rows(stored)
    chosen, shares = maps[maps.method == PAPER_METHOD], on_share(maps).groupby("model")
    return {
        "provenance": tables.origin(stored[stored.method == PAPER_METHOD]),
        "models": {
            model: {"pointing": {name: lift(part)[name] for name in ("n_on", "n_off")}}
            for model, part in chosen.groupby("model")
        },
        "all": {"pointing": over_all(chosen)},
        "on": {"pointing": {m: dict(zip(p.method, p.on, strict=True)) for m, p in shares}},
        "eyes": eyes_summary(annotations(), stored_maps(tables.results)),
    }


def over_all(rows: pd.DataFrame) -> dict:
    """Counts of the quadrants, and the difference between on and off."""
    counts = rows.quadrant.value_counts().reindex([*QUADRANTS, *APART], fill_value=0)
    told = {k: v for k, v in lift(rows).items() if k != "p"}
    return {"n": len(rows), "counts": {k: int(v) for k, v in counts.items()}} | plain(told)


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
