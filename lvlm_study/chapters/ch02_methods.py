"""Which method finds what the answer rests on: which maps are faithful, by how much, how surely?

`maps` is what the runner writes under that name: one row for each (model, benchmark, item, method,
units, fill). Unless said otherwise a score is measured on the grid with blur put in, the paper's
test.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..figures import CMAP, ROW, WIDTH, chance_line, heat, panels, scale_bar, when_run
from ..heatmaps.names import CONTROLS, NOBODY, REFERENCE, in_order, listed, title
from ..sweep.stored import enlarged
from .compare import (
    LEAST,
    LEVEL,
    SCORES,
    TEST,
    against,
    best_of,
    by_reading_order,
    complete,
    counted,
    dots,
    finite,
    groups,
    method_scores,
    most_items_first,
    other_tests,
    rank_agreement,
    ranked,
    rows_of,
    same_items,
    scored,
    spread,
    wide,
    with_rivals,
    without_controls,
)

SKIPPED = ("no_crucial_tokens", "no_gap", "diverged", "empty_answer", "error")
SHEET = 6  # pictures beside each other on a contact sheet


# --- Table 1


def both_ways(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows for the maps turned over: deletion and insertion change places.

    An image that keeps the k least important units of a map keeps the k most important ones of the
    map turned over, so one curve is the other read backwards (`faithfulness.step_counts` is
    symmetric, and a test holds the identity to 1e-6). Units of equal saliency are the exception:
    their order is drawn, and a map turned over would have them drawn anew.
    """
    swapped = {"deletion": "insertion", "insertion": "deletion"}
    ends = {f"{a}_{end}": f"{b}_{end}" for a, b in swapped.items() for end in ("low", "high")}
    turned = table.rename(columns=swapped | ends)
    low, high = -table.gap_high, -table.gap_low
    return turned.assign(gap=-table.gap, gap_low=low, gap_high=high)[table.columns]


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
    means = wide(same_items(part)).mean()
    table = table.assign(same=table.method.map(means))
    return table.sort_values("same", ascending=False, kind="stable", ignore_index=True)


def table1(maps: pd.DataFrame, paper: pd.DataFrame, seeds: dict | None = None) -> pd.DataFrame:
    """Ours and the paper's in one table for readers: models with rivals, methods both ways up.

    `seeds` {(model, method): text} is the column on other seeds (`ch05_cost.seeds_said`).
    """
    rows, seeds = [], seeds or {}
    for (model, benchmark), part in most_items_first(with_rivals(rows_of(maps))):
        for row in in_rank(part).itertuples():
            rows.append(
                {"model": model, "data": benchmark, "method": row.title, "n": row.n}
                | {"skipped": row.skipped, "deletion": row.deletion, "insertion": row.insertion}
                | {"insertion − deletion": spread(row.gap, row.gap_low, row.gap_high)}
                | {"same items": spread(row.same, np.nan, np.nan), "turned over": -row.gap}
                | {"another seed": seeds.get((model, row.method), "–")}
            )
    for row in paper_table1(paper).itertuples():
        rows.append(
            {"model": row.model, "data": "the paper, 4 sets", "method": row.method, "n": None}
            | {"skipped": None, "deletion": row.deletion, "insertion": row.insertion}
            | {
                "insertion − deletion": f"{row.gap:.2f}".replace("-", "−"),
                "same items": "–",
                "turned over": row.turned,
                "another seed": "–",
            }
        )
    whole = {name: pd.Series([r[name] for r in rows], dtype=object) for name in ("n", "skipped")}
    return pd.DataFrame(rows).assign(**whole)


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
    figure, axes = panels(len(parts), len(order))
    for ax, ((model, _), part) in zip(axes, parts, strict=True):
        table = method_scores(part)
        chance_line(ax, 0)
        dots(ax, table, "gap", "gap_low", "gap_high", order)
        turned = -table.set_index("method").gap.reindex(order)
        ax.plot(turned, range(len(order)), "o", mfc="none", mec="0.6", markersize=3.5)
        ax.set_title(model, fontsize="small")
    figure.supxlabel(
        "insertion − deletion (0 = chance; rings: the map turned over)", fontsize="small"
    )
    return figure


@when_run
def difference_figure(maps: pd.DataFrame):
    """iGOS minus every other method, item by item, a panel a model; right of 0 iGOS is better."""
    parts = [(keys, against(part)) for keys, part in with_rivals(rows_of(maps))]
    parts = [(keys, table) for keys, table in parts if len(table)]
    if not parts:
        return None
    every = pd.concat([table for _, table in parts])
    order = every.groupby("method").difference.mean().sort_values().index.tolist()
    figure, axes = panels(len(parts), len(order))
    for ax, ((model, _), table) in zip(axes, parts, strict=True):
        chance_line(ax, 0)
        dots(ax, table, "difference", "low", "high", order)
        ax.set_title(model, fontsize="small")
    figure.supxlabel(
        "iGOS minus the method, insertion − deletion of the same item", fontsize="small"
    )
    return figure


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
    figure, axes = sheet(len(names) + 1)
    axes[0].imshow(rgb)
    axes[0].set_title("the picture", fontsize=6)
    for ax, method in zip(axes[1:], names, strict=False):
        below = share_below(enlarged(maps[method], *rgb.shape[:2]))
        ax.imshow(below, cmap=CMAP, vmin=0, vmax=1)
        ax.set_title(title(method), fontsize=6)
    for ax in axes[: len(names) + 1] if item.evidence is not None else ():
        ax.contour(item.evidence, levels=[0.5], colors="white", linewidths=0.8)
    scale_bar(list(axes), 0, 1, label="share of the picture below")
    figure.suptitle(f"{mine.iloc[0].question}  {mine.iloc[0].answer}", fontsize="small")
    return figure


def sheet(count: int):
    """Empty panels for `count` pictures, `SHEET` a row: (figure, axes in reading order)."""
    rows = -(-count // SHEET)
    size = (WIDTH, 1.32 * rows + 0.3)
    figure, axes = plt.subplots(rows, SHEET, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel():
        ax.set_axis_off()
    return figure, axes.ravel()


def share_below(saliency: np.ndarray) -> np.ndarray:
    """For each pixel the share of pixels with less saliency: 0 for the lowest, 1 for the top."""
    largest = max(float(abs(saliency).max()), np.finfo(np.float32).tiny)
    values = (saliency.astype(np.float64) / largest).round(6)  # equal up to rounding is equal
    below = np.searchsorted(np.sort(values.ravel()), values, side="left")
    return below / max(1, saliency.size - 1)


# --- the numbers of the page


def summary(tables) -> dict:
    """`methods.json`, from the tables of a results folder (`compare.Tables`)."""
    if tables.maps.empty:
        return {}
    found = methods_summary(tables.maps)
    about = tables.origin(tables.maps)
    return {"provenance": about, "models": found, "overall": overall(found)}


def methods_summary(maps: pd.DataFrame) -> dict:
    """{model: {benchmark: ...}}: what chapter 2 quotes."""
    out: dict = {}
    for (model, benchmark), part in groups(rows_of(maps)):
        out.setdefault(model, {})[benchmark] = of_model(maps, part, model, benchmark)
    return out


def overall(models: dict) -> dict:
    """What holds over the models: who wins where, and where iGOS beats the edges."""
    parts = [(m, part) for m, sets in models.items() for part in sets.values() if part["winner"]]
    parts = [(m, part) for m, part in parts if part["scored"] >= LEAST]
    wins = [f"{p['winner']['title']} ({model}, n = {p['winner']['n']})" for model, p in parts]
    clear = [m for m, part in parts if part["winner"]["not_clearly_worse"] == NOBODY]
    ahead = [m for m, part in parts if part["winner"]["best"] == REFERENCE]
    beaten = [m for m, p in parts if _edges_first(p["winner"]["same"])]
    close = [m for m, p in parts if title(REFERENCE) in _names(p["winner"]["not_clearly_worse"])]
    ours = [(m, part) for m, part in parts if REFERENCE in part["methods"]]
    above = [m for m, part in ours if title(REFERENCE) not in _names(_below(part))]
    return {
        "models": len({m for m, _ in parts}),
        "winners": ", ".join(wins) or "none",
        "clear_leads": len(clear),
        "reference_first": len(ahead),
        "reference_not_clearly_worse": len(ahead) + len(close),
        "reference_above_sobel": len(above),
        "edges_first": {"count": len(beaten), "models": ", ".join(beaten) or NOBODY},
    }


def _edges_first(same: dict) -> bool:
    """Whether the edges have the highest mean on the items that all share."""
    return "sobel" in same and max(same, key=lambda name: same[name]["value"]) == "sobel"


def _names(titles: str) -> list[str]:
    """The titles that `listed` joined."""
    return titles.replace(" and ", ", ").split(", ")


def _below(part: dict) -> str:
    """The titles of the methods that are not clearly above the edges."""
    return part["not_above"]["sobel"]["titles"]


def of_model(maps: pd.DataFrame, part: pd.DataFrame, model: str, benchmark: str) -> dict:
    """Scores, tests and verdicts for one model on one benchmark."""
    names, low = ranked(part), ["random", "center", "sobel"]
    best = best_of(part)
    table = method_scores(part).set_index("method")
    chance = [n for n in names if not table.gap_low[n] > 0]
    tests = other_tests(maps, model, benchmark)
    plain = other_tests(maps, model, benchmark, "gap")
    first = tests.pop(", ".join(TEST), None)
    return {
        "items": int(part.item.nunique()),
        "scored": int(scored(part).item.nunique()),
        "count": len(names),
        "methods": {name: of_method(rows) for name, rows in part.groupby("method")},
        "winner": best | {"weak": weak_spots(part, best["best"])} if best else {},
        "reference": _differences(part),
        "weak": weak_spots(part),
        "at_chance": {"titles": listed(chance), "count": len(chance)},
        "not_above": {
            name: {"titles": listed(found), "count": len(found)}
            for name in low
            for found in [beaten_by(part, name)]
        },
        "tests": {
            name: rank_agreement(first, other)
            | {"own": rank_agreement(without_controls(first), other)}
            | about_test(other, plain[name])
            for name, other in tests.items()
            if first is not None
        },
    }


def of_method(frame: pd.DataFrame) -> dict:
    """One row of Table 1, with the skipped counted by reason."""
    good, counts = scored(frame), frame.status.value_counts()
    return {
        "title": title(frame.method.iloc[0]),
        "n": len(good),
        "silent": int((good.status == "constant").sum()),
        "skipped": {name: int(counts.get(name, 0)) for name in SKIPPED},
        **{score: counted(good[score]) for score in SCORES},
    }


def _differences(part: pd.DataFrame) -> dict:
    keep = ("difference", "low", "high", "p", "p_holm")
    rows = against(part).set_index("method") if len(part) else pd.DataFrame()
    return {
        name: {k: finite(row[k]) for k in keep} | {"n": int(row.n)} for name, row in rows.iterrows()
    }


def about_test(raw: pd.DataFrame, normalised: pd.DataFrame) -> dict:
    """Who leads under another test, what the random map gets, and the tail of the normalised gap.

    `largest` is the normalised gap of one map that is furthest from 0.
    """
    random = counted(raw["random"].dropna() if "random" in raw else [])
    return {"best": _leader(raw), "random": random, "largest": finite(normalised.abs().max().max())}


def weak_spots(part: pd.DataFrame, method: str = REFERENCE) -> dict:
    """Where a method fails: items on which edges do better, or chance, and its scores by category.

    `categories` is a sentence, the weakest first: "spatial 0.71 (n = 10), counting 0.82 (n = 9)".
    """
    rows = scored(part[part.method == method])
    edges = scored(part[part.method == "sobel"]).set_index("item").gap
    both = rows[rows.item.isin(edges.index)]
    kinds = rows.groupby("category").gap.agg(["mean", "size"]).sort_values("mean")
    told = [
        f"{kind} {spread(*row[:1], np.nan, np.nan)} (n = {row[1]:.0f})"
        for kind, *row in kinds.itertuples()
    ]
    return {
        "n": len(rows),
        "pairs": len(both),
        "below_edges": int((both.gap < both.item.map(edges).to_numpy(float)).sum()),
        "at_chance": int((rows.gap <= 0).sum()),
        "categories": ", ".join(told) or "none",
    }


def _leader(table: pd.DataFrame) -> str:
    """Title of the method with the highest mean, controls not counted."""
    own = complete(table)[0].mean().drop(list(CONTROLS), errors="ignore")
    return title(own.idxmax()) if len(own) else title("")
