"""Which method finds what the answer rests on: which maps are faithful, by how much, how surely?

`maps` is what the runner writes under that name: one row for each (model, benchmark, item, method,
units, fill). Unless said otherwise a score is measured on the grid with blur put in, the paper's
test.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..figures import CMAP, ROW, WIDTH, grid, heat, picture, scale_bar, when_run
from ..heatmaps.names import CONTROLS, NOBODY, REFERENCE, in_order, title
from ..metrics.ranks import complete, rank_agreement
from ..metrics.statistics import estimate, finite
from ..sweep.sanity import read_rows
from ..sweep.stored import enlarged
from .compare import (
    GROUP,
    LEAST,
    LEVEL,
    TEST,
    against,
    best_of,
    by_model,
    by_reading_order,
    counted,
    method_panels,
    method_scores,
    most_items_first,
    named,
    other_tests,
    ranked,
    rows_of,
    same_items,
    scored,
    spread,
    wide,
    with_rivals,
    without_controls,
)

GAP = ("gap", "gap_low", "gap_high")
SHEET = 6  # pictures beside each other on a contact sheet


# --- Table 1


def paper_table1(paper: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1, a row a model and method: its four benchmarks, insertion - deletion.

    `turned` is the mean over the benchmarks if the map had been handed in upside down.
    """
    names = {"mmvp": "MMVP", "mmstar": "MMStar", "cvbench": "CV-Bench", "llavabench": "LLaVA-Bench"}
    gaps = pd.DataFrame({n: paper[f"{k}_ins"] - paper[f"{k}_del"] for k, n in names.items()})
    deletion = paper[[f"{k}_del" for k in names]].mean(axis=1)
    insertion = paper[[f"{k}_ins" for k in names]].mean(axis=1)
    about = pd.DataFrame({"model": paper.lvlm, "method": paper.method})
    means = {"deletion": deletion, "insertion": insertion, "gap": insertion - deletion}
    return about.assign(**means, turned=deletion - insertion, **gaps)


def in_rank(part: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of one model in the order of its means on the same items, `same`; short rows last."""
    table = method_scores(part)
    table = table.assign(same=table.method.map(wide(same_items(part)).mean()))
    return table.sort_values("same", ascending=False, kind="stable", ignore_index=True)


def table1(maps: pd.DataFrame, paper: pd.DataFrame, seeds: dict | None = None) -> pd.DataFrame:
    """Ours and the paper's in one table for readers: models with rivals, methods both ways up.

    `seeds` {(model, method): text} is the column on other seeds (`other_seeds`).
    """
    rows, seeds = [], seeds or {}
    for (model, benchmark), part in most_items_first(with_rivals(rows_of(maps))):
        for row in in_rank(part).itertuples():
            rows.append(
                {"model": model, "data": benchmark, "method": row.title, "n": row.n}
                | {"skipped": row.skipped, "deletion": row.deletion, "insertion": row.insertion}
                | {"insertion − deletion": spread(row.gap, row.gap_low, row.gap_high)}
                | {"same items": spread(row.same), "turned over": -row.gap}
                | {"another seed": seeds.get((model, row.method), "–")}
            )
    for row in paper_table1(paper).itertuples():
        rows.append(
            {"model": row.model, "data": "the paper, 4 sets", "method": row.method, "n": None}
            | {"skipped": None, "deletion": row.deletion, "insertion": row.insertion}
            | {"insertion − deletion": spread(row.gap), "same items": "–"}
            | {"turned over": row.turned, "another seed": "–"}
        )
    whole = {name: pd.Series([r[name] for r in rows], dtype=object) for name in ("n", "skipped")}
    return pd.DataFrame(rows).assign(**whole)


def other_seeds(results: Path) -> dict[tuple[str, str], str]:
    """{(model, method): how far maps with another seed are alike}, of `sanity.json`.

    A mean of rank correlations with its interval; "1, no chance" where no seed changed the map.
    """
    rows = read_rows(results)
    rows = rows[(rows.check == "seeds") & rows.value.notna()]
    return {
        key: "1, no chance" if part.value.min() > 1 - 1e-9 else f"{estimate(part.value):.2f}"
        for key, part in rows.groupby(["model", "method"])
    }


# --- who is better


def beaten_by(frame: pd.DataFrame, control: str) -> list[str]:
    """Methods (not controls) that are not clearly better than a control, best first."""
    names = ranked(frame)
    if control not in set(frame.method) or not names:
        return []
    table = against(frame[frame.method.isin([*names, control])], control).set_index("method")
    better = [n for n in names if table.p_holm[n] < LEVEL and table.difference[n] < 0]
    return [name for name in names if name not in better]


# --- figures


@when_run
def gap_figure(maps: pd.DataFrame):
    """Insertion - deletion by method, a panel a model; small rings are the maps turned over."""
    frame = rows_of(maps)
    order, parts = by_reading_order(frame), with_rivals(frame)
    if not parts:
        return None
    tables = [(model, method_scores(part), GAP, 0) for (model, _), part in parts]
    label = "insertion − deletion (0 = chance; rings: the map turned over)"
    figure, axes = method_panels(tables, order, label)
    for ax, (_, table, _, _) in zip(axes, tables, strict=True):
        turned = -table.set_index("method").gap.reindex(order)
        ax.plot(turned, range(len(order)), "o", mfc="none", mec="0.6", markersize=3.5)
    return figure


@when_run
def difference_figure(maps: pd.DataFrame):
    """iGOS minus every other method, item by item, a panel a model; right of 0 iGOS is better."""
    ends = ("difference", "low", "high")
    tables = [(model, against(part), ends, 0) for (model, _), part in with_rivals(rows_of(maps))]
    tables = [part for part in tables if len(part[1])]
    if not tables:
        return None
    every = pd.concat([table for _, table, _, _ in tables])
    order = every.groupby("method").difference.mean().sort_values().index.tolist()
    label = "iGOS minus the method, insertion − deletion of the same item"
    return method_panels(tables, order, label)[0]


@when_run
def tests_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Mean gap of every method under every test that was run, on the same items: is the order one?

    In probabilities, see `other_tests`.
    """
    tables = other_tests(maps, model, benchmark)
    if not tables:
        return None
    same = zip(tables, complete(*tables.values()), strict=True)
    means = pd.DataFrame({name: table.mean() for name, table in same})
    means = means.sort_values(means.columns[0], ascending=False)
    names = [title(name) for name in means.index]
    size = (0.72 * WIDTH, ROW * len(means) + 1)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    heat(ax, means.set_axis(names), "insertion − deletion, raw probability")
    labels = [name.replace(", ", "\n") for name in means]
    ax.set_xticklabels(labels, rotation=0, fontsize="small")
    return figure


def shared_item(stored: pd.DataFrame, model: str, category: str) -> str | None:
    """The first item of a category that the most methods have a map of."""
    mine = stored[(stored.model == model) & (stored.category == category)]
    mine = mine[mine.saliency.notna() & (mine.status == "ok")]
    counts = mine.groupby("item").method.nunique()
    return None if counts.empty else str(counts.index[counts == counts.max()].min())


@when_run
def contact_sheet(stored: pd.DataFrame, model: str, items: dict, category: str):
    """One picture, its evidence outlined, and every method's stored map of it.

    The item is `shared_item`, so that nobody picks it; `items` finds items by their id. All maps on
    one scale that has a meaning: the share of pixels that the map puts below a place. Deletion and
    insertion read nothing else, and the units of different methods have nothing in common.
    """
    name = shared_item(stored, model, category)
    if name is None:
        return None
    mine = stored[(stored.model == model) & (stored.item == name) & stored.saliency.notna()]
    item, maps = items[name], mine.set_index("method").saliency
    rgb, names = item.rgb, in_order(maps.index)
    figure, axes = grid(len(names) + 1, 1.4, SHEET, sharey=False)
    picture(axes[0], rgb, "the picture", 6)
    for ax, method in zip(axes[1:], names, strict=True):
        below = share_below(enlarged(maps[method], *rgb.shape[:2]))
        ax.imshow(below, cmap=CMAP, vmin=0, vmax=1)
        ax.set_title(title(method), fontsize=6)
    for ax in axes:
        ax.set_axis_off()
        if item.evidence is not None:
            ax.contour(item.evidence, levels=[0.5], colors="white", linewidths=0.8)
    scale_bar(list(axes), 0, 1, label="share of the picture below")
    figure.suptitle(f"{mine.iloc[0].question}  {mine.iloc[0].answer}", fontsize="small")
    return figure


def share_below(saliency: np.ndarray) -> np.ndarray:
    """For each pixel the share of pixels with less saliency: 0 for the lowest, 1 for the top."""
    largest = max(float(abs(saliency).max()), np.finfo(np.float32).tiny)
    values = (saliency.astype(np.float64) / largest).round(6)  # equal up to rounding is equal
    below = np.searchsorted(np.sort(values.ravel()), values, side="left")
    return below / max(1, saliency.size - 1)


# --- the numbers of the page


def summary(tables) -> dict:
    """`methods.json`, from the tables of a results folder (`compare.Tables`)."""
    models = by_model(rows_of(tables.maps), lambda part: of_model(tables.maps, part))
    return tables.tree(tables.maps, models, overall=overall(models))


def overall(models: dict) -> dict:
    """What holds over the models: who wins where, and where iGOS beats the edges."""
    parts = [(m, part) for m, sets in models.items() for part in sets.values() if part["winner"]]
    first = {m: part["winner"] for m, part in parts if part["winner"]["n"] >= LEAST}
    reference = title(REFERENCE)
    ahead = [m for m, won in first.items() if won["title"] == reference]
    close = [m for m, won in first.items() if reference in _titles(won["not_clearly_worse"])]
    edges = [m for m, won in first.items() if _edges_first(won["same"])]
    above = [
        m
        for m, part in parts
        if m in first and REFERENCE in part["methods"]
        if reference not in _titles(part["not_above"]["sobel"]["titles"])
    ]
    wins = [f"{won['title']} ({model}, n = {won['n']})" for model, won in first.items()]
    return {
        "models": len(first),
        "winners": ", ".join(wins) or NOBODY,
        "clear_leads": sum(won["not_clearly_worse"] == NOBODY for won in first.values()),
        "reference_first": len(ahead),
        "reference_not_clearly_worse": len(ahead) + len(close),
        "reference_above_sobel": len(above),
        "edges_first": {"count": len(edges), "models": ", ".join(edges) or NOBODY},
    }


def _edges_first(same: dict) -> bool:
    """Whether the edges have the highest mean on the items that all share."""
    return "sobel" in same and max(same, key=lambda name: same[name]["value"]) == "sobel"


def _titles(said: str) -> list[str]:
    """The titles that `listed` joined."""
    return said.replace(" and ", ", ").split(", ")


def of_model(maps: pd.DataFrame, part: pd.DataFrame) -> dict:
    """Scores and tests of one model on one benchmark; `maps` has the other tests of it."""
    names, best = ranked(part), best_of(part)
    if best:
        best["weak"] = weak_spots(part, best.pop("best"))
    low = method_scores(part).set_index("method").gap_low
    return {
        "items": int(part.item.nunique()),
        "count": len(names),
        "methods": {name: of_method(rows) for name, rows in part.groupby("method")},
        "winner": best,
        "reference": {
            row.method: {k: finite(getattr(row, k)) for k in ("difference", "p_holm")}
            | {"n": row.n}
            for row in against(part).itertuples()
        },
        "weak": weak_spots(part),
        "at_chance": named([name for name in names if not low[name] > 0]),
        "not_above": {"sobel": named(beaten_by(part, "sobel"))},
        "tests": of_tests(maps, *part[GROUP].iloc[0]),
    }


def of_method(frame: pd.DataFrame) -> dict:
    """A method's mean gap, and how many items it has nothing to say about."""
    silent = int((frame.status == "no_crucial_tokens").sum())
    return {"gap": counted(scored(frame).gap), "skipped": {"no_crucial_tokens": silent}}


def of_tests(maps: pd.DataFrame, model: str, benchmark: str) -> dict:
    """Every other test beside the first: does it order the methods alike, and who leads?

    `random` is what the random map gets, `largest` the normalised gap that is furthest from 0.
    """
    tests = other_tests(maps, model, benchmark)
    plain = other_tests(maps, model, benchmark, "gap")
    first = tests.pop(", ".join(TEST), None)
    return {
        name: {
            "value": rank_agreement(first, raw)["value"],
            "own": rank_agreement(without_controls(first), raw),
            "best": _leader(raw),
            "random": counted(raw["random"].dropna() if "random" in raw else []),
            "largest": finite(plain[name].abs().max().max()),
        }
        for name, raw in (tests.items() if first is not None else ())
    }


def weak_spots(part: pd.DataFrame, method: str = REFERENCE) -> dict:
    """Where a method fails: items on which edges do better, or chance, and its scores by category.

    `categories` is a list, the weakest first: "spatial 0.71 (n = 10), counting 0.82 (n = 9)".
    """
    rows = scored(part[part.method == method])
    edges = scored(part[part.method == "sobel"]).set_index("item").gap
    both = rows[rows.item.isin(edges.index)]
    kinds = rows.groupby("category").gap.agg(["mean", "size"]).sort_values("mean")
    told = [f"{kind} {spread(mean)} (n = {n})" for kind, mean, n in kinds.itertuples()]
    return {
        "n": len(rows),
        "pairs": len(both),
        "below_edges": int((both.gap < both.item.map(edges).to_numpy(float)).sum()),
        "at_chance": int((rows.gap <= 0).sum()),
        "categories": ", ".join(told) or NOBODY,
    }


def _leader(table: pd.DataFrame) -> str:
    """Title of the method with the highest mean, controls not counted."""
    own = complete(table)[0].mean().drop(list(CONTROLS), errors="ignore")
    return title(own.idxmax()) if len(own) else title("")
