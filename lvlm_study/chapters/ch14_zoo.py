"""Who in the zoo can do what, how do its members fail, and do those that see more see small things?

Read from `data/results/mini/zoo.json`, the tables of reliance and the test set; rows are members,
whichever there are, and no model is loaded. `lvlm-study run --results RESULTS/controlled` answers
the further test sets, and `lvlm-study summarise` writes `controlled.json` from them; an answer
counts there as right if it equals the reference word for word.
"""

import json
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..benchmarks.sprite_subsets import PRIOR_ARMS
from ..figures import WIDTH, grid
from ..metrics.statistics import Estimate, estimate, finite, share
from ..scenes.questions import CATEGORIES, NUMBERS
from ..sweep.stored import Tables
from ..sweep.tables import read_table
from .compare import told

SEES = {  # by the beginning of a member's name, the longest that fits
    "llava-1.5": "one view of 112 pixels",
    "llava-1.5-shortcut": "one view of 112 pixels; believes what is written on it",
    "llava-ov": "a view of 84 pixels and up to four tiles",
    "cambrian": "three encoders, the finest on 256 pixels",
    "mini-gemini": "112 pixels, detail fetched from 256",
    "mini-gemini-hd": "four tiles and a view, detail fetched from 256 pixels",
}
EACH = 3  # pictures a member in the figure of mistakes
SHOWN_MISTAKES = ("mini/llava-1.5", "mini/cambrian-s")  # the members in it: one large, one small
SIZE_COLOURS = {"s": "C1", "m": "C2", "l": "C0"}
GROUNDS = {f"level {level}": str(level) for level in range(5)} | {"photo": "photo"}
ASKED = (1, 2, 3, 4)  # the counts of the test set
WRONG = ["model", "item", "category", "question", "answer", "truth", "missed_by"]
FOLDER = "controlled"  # of its tables, inside a results folder: no other chapter reads them
STYLES = {"shaded": "sprites", "flat": "sprites_flat", "outline": "sprites_outline"}


# --- tables of the page


def read(results: Path) -> tuple[dict, pd.DataFrame]:
    """The zoo's table of results, and the answers of its members from the tables of reliance."""
    zoo = json.loads((results / "zoo.json").read_text())
    rows = read_table(results, "reliance")
    return zoo, rows[rows.model.isin(list(zoo["models"]))]


def who(zoo: dict) -> pd.DataFrame:
    """One row a member: what it sees, size of its language model, parameters, its training."""
    rows = [
        {
            "member": name,
            "sees": sees(name),
            "language model": about["size"],
            "parameters (millions)": round(about["parameters"] / 1e6, 1),
            "starts from": about["first"],
            "steps": about["steps"],
            "pictures a step": about["pictures"],
            "minutes": None if about["minutes"] is None else round(about["minutes"]),
        }
        for name, about in zoo["about"].items()
    ]
    return pd.DataFrame(rows).astype(
        {"steps": object, "pictures a step": object, "minutes": object}
    )


def sees(name: str) -> str | None:
    """What a member is shown, in words; None for a name of no known family."""
    short = name.removeprefix("mini/")
    fits = [start for start in SEES if short.startswith(start)]
    return SEES[max(fits, key=len)] if fits else None


def accuracy_table(zoo: dict, view: str = "picture") -> pd.DataFrame:
    """Members by categories: per cent right with its interval, "98 [93, 99]"; "all" comes last."""
    rows = [
        {"member": name} | {c: told(views[view].get(c)) for c in (*CATEGORIES, "all")}
        for name, views in zoo["models"].items()
    ]
    return pd.DataFrame(rows)


def small_table(zoo: dict) -> pd.DataFrame:
    """Members on small objects and on larger ones, and against the one view they must beat."""
    rows = []
    for name, found in zoo["small"]["members"].items():
        pair = found.get("against")
        row = {"member": name, "small": told(found.get("small"))}
        row |= {"larger": told(found.get("larger")), "compared with": pair and pair["member"]}
        apart = pair and Estimate.of_json(pair | {"value": pair["difference"]})
        row["difference (points)"] = pair and f"{apart:+.1f}"
        row["p"] = f"{pair['p_holm']:.2f}" if pair else None
        rows.append(row | {"verdict": pair and pair["verdict"]})
    return pd.DataFrame(rows)


def stage_table(zoo: dict) -> pd.DataFrame:
    """What the members share, and how long it took: towers and language models."""
    shared = {n: s for n, s in zoo["stages"].items() if not n.startswith("member-")}
    rows = [
        {"stage": " ".join(n.split("-")[:-1]), "steps": s["steps"], "minutes": round(s["minutes"])}
        for n, s in shared.items()
    ]
    return pd.DataFrame(rows)


def table(tree: dict) -> pd.DataFrame:
    """The page's table of `controlled.json`: a row a model, per cent with 95 % intervals."""
    return pd.DataFrame([{"member": name} | _row(found) for name, found in tree["models"].items()])


def _row(found: dict) -> dict:
    row = {}
    if pairs := found.get("pairs"):
        row |= {"pairs, one by one": told(pairs["single"]), "pairs, both": told(pairs["both"])}
    if prior := found.get("prior"):
        row |= {f"prior, {arm}": told(cell) for arm, cell in prior["arms"].items()}
        row["P- above P+"] = told(prior["conflict"])
    return row | {name: told(cell) for name, cell in found.get("styles", {}).items()}


# --- figures


def curve_figure(zoo: dict):
    """Exact answers on held-out scenes while members were trained, one panel a category.

    A colour a size of the language model; members that start from another's are thin.
    """
    figure, axes = grid(len(CATEGORIES), 0.31 * WIDTH, sharex=True)
    for ax, category in zip(axes, CATEGORIES, strict=True):
        for about in zoo["about"].values():
            points = [(p["step"], 100 * p[category]) for p in about["curve"] if category in p]
            look = {"linewidth": 0.8, "alpha": 0.7} if about["first"] else {"linewidth": 2}
            if points:
                ax.plot(*zip(*points, strict=True), color=SIZE_COLOURS[about["size"]], **look)
        ax.set(title=category, ylim=(0, 102), xscale="log")
    for size, colour in SIZE_COLOURS.items():
        _at_the_end(axes[list(CATEGORIES).index("spatial")], zoo, size, colour)
    figure.supxlabel("training steps of its own", fontsize="medium")
    figure.supylabel("right on held-out scenes (%)", fontsize="medium")
    return figure


def _at_the_end(ax, zoo: dict, size: str, colour: str, category: str = "spatial") -> None:
    """The name of a size, at the end of the curve of the member that made its language model."""
    for about in zoo["about"].values():
        if about["size"] == size and not about["first"] and about["curve"]:
            last = about["curve"][-1]
            place = (last["step"] * 1.15, 100 * last[category])
            ax.annotate(size, place, color=colour, va="center", annotation_clip=False)
            return


def failure_figure(rows: pd.DataFrame, items, members=SHOWN_MISTAKES, each: int = EACH):
    """A row of pictures a member: question, its wrong answer, and the truth."""
    known, some = {item.id: item for item in items}, chosen(wrong(rows, items), each)
    figure, axes = grid(len(members) * each, 0.36 * WIDTH + 0.55, each)
    for ax in axes:
        ax.set_axis_off()
    for place, model in enumerate(members):
        mistakes = some[some.model == model].itertuples()
        line = axes[place * each : (place + 1) * each]
        for ax, mistake in zip(line, mistakes, strict=False):
            ax.imshow(known[mistake.item].rgb)
            ax.set_title(_title(mistake), fontsize="x-small")
        line[0].text(-0.06, 0.5, model, rotation=90, va="center", ha="right", fontsize="small",
                     transform=line[0].transAxes)  # fmt: skip
    return figure


def _title(mistake) -> str:
    parts = (mistake.question, f"✗ {mistake.answer}", f"✓ {mistake.truth}")
    return "\n".join(line for part in parts for line in textwrap.wrap(part, 34))


def ground_figure(pictures: tuple[int, ...] = (2, 66, 133)):
    """A contact sheet: some test pictures (numbers from 0 to 191) on every ground.

    Up to level 3 and on photographs the objects are the same; level 4 has layouts of its own.
    """
    size = (WIDTH, 1.03 * WIDTH * len(pictures) / len(GROUNDS) + 0.3)
    figure, axes = plt.subplots(len(pictures), len(GROUNDS), figsize=size, layout="constrained")
    for column, (title, key) in zip(
        axes.reshape(len(pictures), -1).T, GROUNDS.items(), strict=True
    ):
        items = load_benchmark(f"sprites_clutter-{key}")
        for ax, k in zip(column, pictures, strict=True):
            ax.imshow(items[3 * k].rgb)
            ax.set_axis_off()
        column[0].set_title(title, fontsize="small")
    return figure


# --- the numbers of the page


def summary(tables: Tables) -> dict:
    """`controlled.json`: {model: {"pairs", "prior", "styles"}}, {} before anything has been run."""
    rows = read_table(tables.results / FOLDER, "reliance")
    if rows.empty:
        return {}
    models: dict = {}
    for benchmark, name, tell in (
        ("sprites_pairs", "pairs", of_pairs),
        ("sprites_prior", "prior", of_prior),
    ):
        for model, part in by_model(rows, benchmark):
            models.setdefault(model, {})[name] = tell(part)
    both = pd.concat([tables.reliance, rows])
    for style, benchmark in STYLES.items():
        for model, part in by_model(both[both.model.isin(list(models))], benchmark):
            models[model].setdefault("styles", {})[style] = right(part)
    own = Tables(tables.results / FOLDER, tables.profile, tables.seed)
    return {"provenance": own.origin(rows), "models": models}


def by_model(rows: pd.DataFrame, benchmark: str):
    """(model, its answers to one benchmark), as from `answered`."""
    found = answered(rows, benchmark)
    return found.groupby("model") if len(found) else ()


def answered(reliance: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """One row a model and item of a benchmark: the item, `right`, `ratio` (nats, blur) and more.

    `ratio` is the summed log-likelihood ratio of the answer, its need of the picture. What the
    subset knows of an item (pair, triple, arm) is in columns of that name.
    """
    rows = reliance[(reliance.benchmark == benchmark) & (reliance.baseline == "blur")]
    known = {item.id: item for item in load_benchmark(benchmark)}
    return pd.DataFrame(
        {
            "model": row.model,
            "item": row.item,
            "right": row.answer == known[row.item].reference,
            "ratio": float(sum(row.llr)),
        }
        | {k: known[row.item].extra.get(k) for k in ("pair", "triple", "arm")}
        for row in rows[rows.llr.notna()].itertuples()  # an empty answer has no ratio
    )


def right(part: pd.DataFrame) -> dict:
    """Right answers, per cent, with a Wilson interval."""
    return share(int(part.right.sum()), len(part))


def of_pairs(part: pd.DataFrame) -> dict:
    """Answers one by one, and pairs of which both are right, with Wilson intervals (%)."""
    pairs = part.groupby("pair").right
    whole = pairs.all()[pairs.size() == 2]
    return {"single": right(part), "both": share(int(whole.sum()), len(whole))}


def of_prior(part: pd.DataFrame) -> dict:
    """{arm: right (%)}, and how often the picture matters more against a guess.

    `conflict` is the share of scenes (%) where P- needs the picture more than P+; without a prior
    it is 50.
    """
    table = part.pivot(index="triple", columns="arm", values="ratio")
    table = table.reindex(columns=list(PRIOR_ARMS)).dropna()
    whole = part[part.triple.isin(table.index)].groupby("arm")
    arms = {arm: right(some) for arm, some in whole}
    more = estimate(100 * (np.sign(table["P-"] - table["P+"]) + 1) / 2)  # a tie counts half
    more = more.where_enough()
    conflict = {"percent": finite(more.value), "low": finite(more.low), "high": finite(more.high)}
    return {"arms": arms, "conflict": conflict}


# --- wrong answers: of the page, and of zoo.json


def wrong(rows: pd.DataFrame, items) -> pd.DataFrame:
    """One row a wrong answer: model, item, category, question, answer, truth, missed_by.

    `items` are those of the test set; `missed_by` counts the members that miss the item. Rows keep
    the order of the table, in which items were shuffled once for all members.
    """
    truth = {item.id: item.reference for item in items}
    once = rows[rows.item.isin(list(truth))].drop_duplicates(["model", "item"])
    bad = once[once.verdict == "wrong"]
    bad = bad.assign(
        truth=bad.item.map(truth), missed_by=bad.groupby("item").model.transform("size")
    )
    return bad[WRONG].reset_index(drop=True)


def chosen(bad: pd.DataFrame, each: int = EACH) -> pd.DataFrame:
    """`each` wrong answers a member: the first of every category, then further ones, in order."""
    turn = bad.groupby(["model", "category"], sort=False).cumcount()
    return bad.assign(turn=turn).sort_values("turn", kind="stable").groupby("model").head(each)


def mistakes_summary(bad: pd.DataFrame) -> dict:
    """The mistakes in a few numbers: how many, in which category, how many are shared."""
    per_category = bad.category.value_counts()
    out = {"wrong": len(bad), "items": bad.item.nunique()}
    out["shared"] = bad.item[bad.missed_by > 1].nunique()
    if len(bad):
        out["hardest"] = str(per_category.index[0])
        out["hardest_percent"] = 100 * int(per_category.iloc[0]) / len(bad)
    return out | counting(bad)


def counting(bad: pd.DataFrame) -> dict:
    """How often a wrong count is off by one, and how often it would be if it were a random one."""
    asked = bad[bad.category == "counting"]
    pairs = [(count_said(a), count_said(t)) for a, t in zip(asked.answer, asked.truth, strict=True)]
    counts = [(a, t) for a, t in pairs if a is not None and t is not None]
    if not counts:
        return {"counts": 0}
    near = [sum(abs(k - t) == 1 for k in ASKED) for _, t in counts]
    return {
        "counts": len(counts),
        "off_by_one_percent": 100 * sum(abs(a - t) == 1 for a, t in counts) / len(counts),
        "off_by_one_by_chance": 100 * sum(near) / (len(ASKED) - 1) / len(counts),
        "too_many": sum(a > t for a, t in counts),
    }


def count_said(text: str) -> int | None:
    """The number in an answer about a count ("There are three cats." is 3); None without one."""
    words = text.lower().rstrip(".").split()
    return next((NUMBERS.index(word) for word in words if word in NUMBERS), None)
