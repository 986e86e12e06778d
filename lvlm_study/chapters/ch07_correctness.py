"""Does looking at the right place make the answer right? The four quadrants, counted.

The paper sorts 100 samples into these quadrants by eye (its section on focus and correctness). Here
the evidence is known to the pixel, so a rule does it, and maps that know nothing of the model are
sorted by the same rule: what they reach is chance. Items without a map, and items on which nothing
in particular decides, are counted apart and never dropped.

Beside the rules stand lookers: `data/annotations` holds the files that `annotate.widget` and
`annotate.Session` write. A looker never sees whose map it is; here every choice meets its row of
the results again, by its number. Only pictures on which some region decides are compared.

    correctness.models[mini/llava-1.5].pointing.difference
    correctness.eyes.methods.sobel.eye
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import fisher_exact

from ..figures import WIDTH, overlay
from ..heatmaps.names import PAPER_METHOD, title
from ..metrics.statistics import estimate
from ..paths import data_dir
from ..scenes.questions import CATEGORIES
from ..sweep.stored import enlarged, stored_maps
from . import annotate
from .compare import Tables, finite, first_trainings, frames

RULES = {
    "pointing": "the map's highest point lies on the evidence, or within 15 pixels of it",
    "mass": "the evidence gets at least twice its share of the map",
}
LARGE = 0.5  # evidence above this share of the picture is the whole place: nothing can miss it
QUADRANTS = ("right, on", "right, off", "wrong, on", "wrong, off")
APART = ("no map", "no region")
FOLD = 2.0
METHODS = (PAPER_METHOD, "sobel", "center", "random")  # the paper's, and three that know no model
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
    "p": "p (Fisher)",
}


def compared(maps: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The rows of one benchmark and of `METHODS`; a model's further trainings do not count."""
    return first_trainings(maps[(maps.benchmark == benchmark) & maps.method.isin(METHODS)])


def sorted_rows(maps: pd.DataFrame, rule: str = "pointing") -> pd.DataFrame:
    """Judged rows of a maps table with `right` (bool), `on` (bool) and `quadrant`.

    `quadrant` is one of `QUADRANTS`; "no map" where the method had nothing to explain or failed,
    "no region" where no small region decides (a question about the place, an absent object). `on`
    is False in both. Undecided answers are left out: no rule calls them right or wrong.
    """
    rows = maps[maps.verdict.isin(["correct", "wrong"])].copy()
    rows["right"] = rows.verdict == "correct"
    found = rows.pointing_near >= 0.5 if rule == "pointing" else rows.energy_ratio >= FOLD
    region = rows.evidence_area.notna() & (rows.evidence_area < LARGE)
    mapped = rows.status == "ok"
    rows["on"] = found.fillna(False).astype(bool) & region & mapped
    names = [
        f"{'right' if right else 'wrong'}, {'on' if on else 'off'}"
        for right, on in zip(rows.right, rows.on, strict=True)
    ]
    rows["quadrant"] = np.where(~mapped, "no map", np.where(region, names, "no region"))
    return rows


def quadrants(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Counts of every quadrant, one row a group; `n` is all of them together."""
    counts = rows.groupby(by, sort=False).quadrant.value_counts().unstack(fill_value=0)
    table = counts.reindex(columns=[*QUADRANTS, *APART], fill_value=0)
    return table.assign(n=table.sum(axis=1)).reset_index()


def lift(rows: pd.DataFrame, draws: int = 2000, seed: int = 0) -> dict:
    """How much oftener an answer is right when its map is on the evidence.

    `on_right` and `off_right` are shares of right answers, `difference` theirs; `low` and `high`
    its 95 % bootstrap interval over items; `p` Fisher's exact test over the rows, which takes the
    maps of different models for independent; `within` the difference within categories (Mantel and
    Haenszel 1959), since categories differ both in how hard they are and in how large their
    evidence is. NaN where one side is empty.
    """
    rows = rows[rows.quadrant.isin(QUADRANTS)]
    on, right = rows.on.to_numpy(bool), rows.right.to_numpy(bool)
    table = [[(on & right).sum(), (on & ~right).sum()], [(~on & right).sum(), (~on & ~right).sum()]]
    low, high = difference_interval(on, right, pd.factorize(rows.item)[0], draws, seed)
    return {
        "n_on": int(on.sum()),
        "n_off": int((~on).sum()),
        "wrong": int((~right).sum()),
        "on_right": _mean(right[on]),
        "off_right": _mean(right[~on]),
        "difference": _mean(right[on]) - _mean(right[~on]),
        "low": low,
        "high": high,
        "p": float(fisher_exact(table).pvalue),
        "within": within(rows),
    }


def said(found: dict) -> str:
    """What the interval of `lift` allows one to say, as the beginning of a sentence."""
    low, high = found["low"], found["high"]
    if low is None or not (np.isfinite(low) and np.isfinite(high)):
        return "It cannot be told yet"
    if low <= 0 <= high:
        return "No difference can be told from none"
    return "It makes it likelier" if low > 0 else "It makes it less likely"


def within(rows: pd.DataFrame) -> float:
    """Mantel and Haenszel's risk difference: on minus off, within categories, weighted by size."""
    parts = []
    for _, part in rows.groupby("category"):
        one, other = part.right[part.on], part.right[~part.on]
        if len(one) and len(other):
            parts.append((one.mean() - other.mean(), len(one) * len(other) / len(part)))
    if not parts:
        return float("nan")
    difference, weight = np.array(parts, float).T
    return float(np.average(difference, weights=weight))


def on_share(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of maps on the evidence by model and method, of the items with a region and a map."""
    rows = rows[rows.quadrant.isin(QUADRANTS)]
    found = rows.groupby(["model", "method"], sort=False).on.agg(["mean", "size"])
    return found.rename(columns={"mean": "on", "size": "n"}).reset_index()


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def difference_interval(on, right, item, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the difference in `right` (bool) between `on` and not `on`.

    Whole items (`item` holds whole numbers from 0) are drawn anew. NaN where one side is empty.
    """
    count = item.max(initial=-1) + 1
    if count < 2:
        return float("nan"), float("nan")
    cells = np.zeros((count, 4))  # per item: on and right, on, off and right, off
    for place, mask in enumerate((on & right, on, ~on & right, ~on)):
        np.add.at(cells[:, place], item[mask], 1)
    picks = np.random.default_rng(seed).integers(0, count, (draws, count))
    a, b, c, d = cells[picks].sum(1).T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = a / b - c / d
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


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
    """One row a looker and picture: what was said, of which map, and what each rule says of it.

    `stored` is a `stored_maps` table. Columns `right` and `covered` hold the choices, `verdict` the
    known one, and one column a rule whether the map is on the evidence (None: no region decides).
    Choices about maps that are not in these results are left out. A question that a looker has not
    answered is NaN, and counts nowhere.
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
    placed, out = said[said.pointing.notna() & said.covered.notna()], []
    for method, part in placed.groupby("method", sort=False):
        eye = estimate(part.covered == "yes", clusters=part.item, seed=seed)
        once = part.drop_duplicates("task")
        row = {
            "method": method,
            "pictures": len(once),
            "unsure": int((part.covered == "unsure").sum()),
        }
        row |= {"eye": eye.value, "low": eye.low, "high": eye.high}
        out.append(row | {rule: float(once[rule].mean()) for rule in RULES})
    columns = ["method", "pictures", "unsure", "eye", "low", "high", *RULES]
    return pd.DataFrame(out, columns=columns).sort_values("eye", ascending=False, ignore_index=True)


def judged_apart(said: pd.DataFrame, one: str, other: str, seed: int = 0) -> dict:
    """Share of maps that cover to the eye, method `one` minus `other`, with its 95 % interval.

    Whole items are drawn anew, with all their pictures and lookers. {} where one of the two
    methods was not judged.
    """
    placed = said[said.pointing.notna() & said.covered.notna()]
    both = placed[placed.method.isin([one, other])]
    if both.method.nunique() < 2:
        return {}
    on, yes = (both.method == one).to_numpy(), (both.covered == "yes").to_numpy()
    low, high = difference_interval(on, yes, pd.factorize(both.item)[0], seed=seed)
    value = yes[on].mean() - yes[~on].mean()
    return {"value": finite(value), "low": finite(low), "high": finite(high)}


def beside_rules(said: pd.DataFrame) -> pd.DataFrame:
    """How far each looker agrees with each rule, and with the known answer, beyond chance.

    One row a looker and standard: `n` choices that are not unsure, share the `same`, Cohen's
    `kappa` with its interval.
    """
    out = []
    for who, part in said.groupby("annotator"):
        for rule in RULES:
            placed = part[part[rule].notna()]
            out.append({"looker": who, "beside": rule} | _same(placed.covered, placed[rule]))
        known = part[part.verdict.isin(["correct", "wrong"])]
        out.append(
            {"looker": who, "beside": "known answer"}
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
    """Bars of quadrants by category, one panel a model; grey is what cannot be placed."""
    models = sorted(rows.model.unique())
    columns = max(1, min(len(models), 3))
    lines = max(1, -(-len(models) // columns))
    size = (max(1, columns / 2) * WIDTH, 0.45 * WIDTH * lines)
    figure, axes = plt.subplots(
        lines, columns, figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, model in zip(axes.ravel(), models, strict=False):
        _bars(ax, quadrants(rows[rows.model == model], ["category"]))
        ax.set(title=model, xlabel="% of items", xlim=(0, 100))
    for ax in axes.ravel()[len(models) :]:
        ax.remove()
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3)
    return figure


def _bars(ax, counted: pd.DataFrame) -> None:
    part = counted.set_index("category").reindex(CATEGORIES).fillna(0)
    total, left = part.n.clip(lower=1), np.zeros(len(part))
    for name, (shade, hatch) in SHADES.items():
        share = (100 * part[name] / total).to_numpy()
        ax.barh(
            part.index, share, left=left, color=shade, hatch=hatch, edgecolor="white", label=name
        )
        left = left + share


def chance_figure(maps: pd.DataFrame, rule: str = "pointing"):
    """Share of maps on the evidence: the method's, and that of maps that know nothing."""
    shares = on_share(sorted_rows(maps, rule))
    shares = shares.sort_values("model", kind="stable")
    size = (WIDTH, max(0.5 * WIDTH, 0.6 * shares.model.nunique()))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    order = [name for name in METHODS if name in set(shares.method)]
    sns.barplot(shares, x="on", y="model", hue="method", hue_order=order, ax=ax, errorbar=None)
    for bars, hatch in zip(ax.containers, ("", "//", "..", "xx"), strict=False):
        for bar in bars:
            bar.set_hatch(hatch)
            bar.set_edgecolor("white")
    ax.set(xlabel="share of maps on the evidence", ylabel="", xlim=(0, 1))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def examples_figure(rows: pd.DataFrame, items: dict):
    """One picture a quadrant, the first of each: the map, the answer, the evidence outlined."""
    figure, axes = plt.subplots(
        1, 4, figsize=(1.4 * WIDTH, 0.45 * WIDTH), squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], QUADRANTS, strict=True):
        part = rows[(rows.quadrant == name) & rows.saliency.notna()]
        ax.set_axis_off()
        if part.empty:
            ax.set_title(f"{name}\nnone", fontsize="x-small")
            continue
        row = part.iloc[0]
        item = items[row["item"]]
        rgb = item.rgb
        title = f"{name}\n{row.question}\n{row.answer}"
        overlay(ax, rgb, enlarged(row.saliency, *rgb.shape[:2]), 0.0, 1.0, bar=False)
        ax.set_title(title, fontsize="x-small")
        ax.contour(item.evidence, [0.5], colors=["white"], linewidths=3)
        ax.contour(item.evidence, [0.5], colors=["black"], linewidths=1.2)
    return figure


def eyes_figure(table: pd.DataFrame):
    """`by_method`: what lookers called covering, with interval, and what rules did."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 * WIDTH), layout="constrained")
    y = np.arange(len(table))
    ends = [table.eye - table.low, table.high - table.eye]
    ax.barh(y - 0.27, table.eye, 0.27, xerr=ends, color="#0072b2", label="to the eye", ecolor="0.2")
    for place, (rule, shade, hatch) in enumerate(
        (("pointing", "#e69f00", "//"), ("mass", "#999999", ".."))
    ):
        style = dict(color=shade, hatch=hatch, edgecolor="white")
        ax.barh(y + 0.27 * place, table[rule], 0.27, label=f"rule: {rule}", **style)
    ax.set_yticks(y, [f"{title(row.method)} (n = {row.pictures})" for row in table.itertuples()])
    ax.set(xlabel="share of maps that cover what is needed", xlim=(0, 1))
    ax.invert_yaxis()
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


# --- the numbers of the page


def correctness_summary(tables: Tables) -> dict:
    """Quadrants and their difference by model and rule, and over all models."""
    maps = frames(tables, first_trainings)
    if maps.empty:
        return {}
    chosen = maps[maps.method == PAPER_METHOD]
    models = {model: by_rule(part) for model, part in chosen.groupby("model")}
    shares = {
        rule: {
            model: {row.method: finite(row.on) for row in part.itertuples()}
            for model, part in on_share(sorted_rows(maps, rule)).groupby("model")
        }
        for rule in RULES
    }
    return {
        "provenance": tables.origin(chosen),
        "models": models,
        "all": by_rule(chosen),
        "on": shares,
        "eyes": eyes_summary(annotations(), stored_maps(tables.results)),
    }


def by_rule(maps: pd.DataFrame) -> dict:
    """{rule: counts of the quadrants and the difference between on and off}."""
    out = {}
    for rule in RULES:
        rows = sorted_rows(maps, rule)
        counts = rows.quadrant.value_counts()
        names = (*QUADRANTS, *APART)
        counted = {name: int(counts.get(name, 0)) for name in names}
        found = {
            name: value if isinstance(value, int) else finite(value)
            for name, value in lift(rows).items()
        }
        out[rule] = {"counts": counted, "n": len(rows)} | found
        out[rule]["said"] = said(found)
    return out


def eyes_summary(log: pd.DataFrame, stored: pd.DataFrame) -> dict:
    """All of it as a tree for `correctness.json`; {} where no annotated map is in these results."""
    if log.empty:
        return {}
    said = met(log, stored)
    if said.empty:
        return {}
    agreed = (
        annotate.agreement(log[log.task.isin(said.task)]) if said.annotator.nunique() > 1 else None
    )
    return {
        "lookers": sorted(said.annotator.unique()),
        "n": int(said.task.nunique()),
        "methods": _plain(by_method(said), ["method"]),
        "igos_minus_sobel": judged_apart(said, PAPER_METHOD, "sobel"),
        "rules": _plain(beside_rules(said), ["looker", "beside"]),
        "agreement": {} if agreed is None else _plain(agreed, ["question"]),
    }


def _plain(table: pd.DataFrame, by: list[str]) -> dict:
    """{"looker, rule": {column: number or None}}."""
    rows = table.set_index(table[by].agg(", ".join, axis=1)).drop(columns=by)
    return {
        name: {key: finite(value) for key, value in row.items()}
        for name, row in rows.to_dict("index").items()
    }
