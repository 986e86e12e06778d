"""Tables and figures of the zoo's chapter: who the members are, what they can do, how they fail.

Everything is read from `data/results/mini/zoo.json`, the tables of reliance and the test set; rows
are members, whichever there are, and no model is loaded.
"""

import json
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..figures import WIDTH
from ..scenes.questions import CATEGORIES
from ..sweep.tables import read_table
from .mistakes import wrong

SEES = {  # by the beginning of a member's name, the longest that fits
    "llava-1.5": "one view of 112 pixels",
    "llava-1.5-shortcut": "one view of 112 pixels; believes what is written on it",
    "llava-ov": "a view of 84 pixels and up to four tiles",
    "cambrian": "three encoders, the finest on 256 pixels",
    "mini-gemini": "112 pixels, detail fetched from 256",
    "mini-gemini-hd": "four tiles and a view, detail fetched from 256 pixels",
}
EACH = 3  # pictures a member in the figure of mistakes


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


def told(cell: dict | None) -> str | None:
    """A share of `zoo.json` as "98 [93, 99]"; None where nothing was asked."""
    if cell is None or cell["percent"] is None:
        return None
    if cell["low"] is None:  # an interval needs two
        return f"{cell['percent']:.0f}"
    return f"{cell['percent']:.0f} [{cell['low']:.0f}, {cell['high']:.0f}]"


def small_table(zoo: dict) -> pd.DataFrame:
    """Members on small objects and on larger ones, and against the one view they must beat."""
    rows = []
    for name, found in zoo["small"]["members"].items():
        pair = found.get("against")
        row = {"member": name, "small": told(found.get("small"))}
        row |= {"larger": told(found.get("larger")), "compared with": pair and pair["member"]}
        row["difference (points)"] = pair and _signed(pair)
        row["p"] = f"{pair['p_holm']:.2f}" if pair else None
        rows.append(row | {"verdict": pair and pair["verdict"]})
    return pd.DataFrame(rows)


def _signed(pair: dict) -> str:
    ends = (pair[k] for k in ("difference", "low", "high"))
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*ends).replace("-", "−")


def stage_table(zoo: dict) -> pd.DataFrame:
    """What the members share, and how long it took: towers and language models."""
    shared = {n: s for n, s in zoo["stages"].items() if not n.startswith("member-")}
    rows = [
        {"stage": " ".join(n.split("-")[:-1]), "steps": s["steps"], "minutes": round(s["minutes"])}
        for n, s in shared.items()
    ]
    return pd.DataFrame(rows)


def curve_figure(zoo: dict):
    """Exact answers on held-out scenes while the courses went, one panel a category."""
    figure, axes = plt.subplots(
        2, 3, figsize=(WIDTH, 0.62 * WIDTH), sharex=True, sharey=True, layout="constrained"
    )
    for ax, category in zip(axes.flat, CATEGORIES, strict=True):
        for name, about in zoo["about"].items():
            points = [(p["step"], 100 * p[category]) for p in about["curve"] if category in p]
            ax.plot(*zip(*points, strict=True), label=name) if points else None
        ax.set(title=category, ylim=(0, 102))
    axes[1, 1].set_xlabel("steps of its own courses")
    figure.supylabel("right on held-out scenes (%)", fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2)
    return figure


def chosen(bad: pd.DataFrame, each: int = EACH) -> pd.DataFrame:
    """`each` wrong answers a member: the first of every category, then further ones, in order."""
    turn = bad.groupby(["model", "category"], sort=False).cumcount()
    return bad.assign(turn=turn).sort_values("turn", kind="stable").groupby("model").head(each)


def failure_figure(rows: pd.DataFrame, items, each: int = EACH):
    """A row of pictures a member: question, its wrong answer, and the truth.

    Further trainings of a member (`-seed1`) are left out: they repeat most of its mistakes.
    """
    rows = rows[~rows.model.str.contains("-seed")]
    known, some = {item.id: item for item in items}, chosen(wrong(rows, items), each)
    models = sorted(some.model.unique())
    size = (WIDTH, (0.36 * WIDTH + 0.55) * len(models))
    figure, axes = plt.subplots(len(models), each, figsize=size, layout="constrained")
    axes = np.asarray(axes).reshape(len(models), each)
    for line, model in zip(axes, models, strict=True):
        for ax in line:
            ax.set_axis_off()
        for ax, mistake in zip(line, some[some.model == model].itertuples(), strict=False):
            ax.imshow(known[mistake.item].rgb)
            ax.set_title(_title(mistake), fontsize="x-small")
        line[0].text(-0.06, 0.5, model, rotation=90, va="center", ha="right", fontsize="small",
                     transform=line[0].transAxes)  # fmt: skip
    return figure


def _title(mistake) -> str:
    parts = (mistake.question, f"✗ {mistake.answer}", f"✓ {mistake.truth}")
    return "\n".join(line for part in parts for line in textwrap.wrap(part, 34))


GROUNDS = {"level 0": "0", "level 1": "1", "level 2": "2", "level 3": "3", "level 4": "4",
           "photo": "photo"}  # fmt: skip


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
