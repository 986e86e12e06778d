"""Which method finds what the answer rests on: which maps are faithful, by how much, how surely?

`maps` is what the runner writes under that name: one row for each (model, benchmark, item, method,
units, fill). Unless said otherwise a score is measured on the grid with blur put in, the paper's
test, and methods of one model are compared on the items that all of them have. Every method is held
against `NULL`, the picture minus its baseline: a map that has seen neither model nor question.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..figures import CMAP, ROW, WIDTH, chance_line, dots, grid, heat, picture, when_run
from ..heatmaps.names import CONTROLS, NOBODY, REFERENCE, listed, title
from ..metrics.ranks import complete, rank_agreement
from ..metrics.statistics import ENOUGH_TO_RESAMPLE, Estimate, estimate, finite
from ..sweep.sanity import read_rows
from ..sweep.stored import enlarged
from .compare import (
    CONTROL,
    GROUNDS,
    GROUP,
    LEAST,
    LEVEL,
    OWN,
    SPECIAL,
    TEST,
    a_race,
    against,
    best_of,
    by_model,
    by_reading_order,
    control_map,
    counted,
    ground_table,
    groups,
    method_scores,
    most_items_first,
    named,
    other_tests,
    ranked,
    rows_of,
    same_items,
    scored,
    spread,
    summary_table,
    wide,
    with_rivals,
    without_controls,
)

NULL = "difference"  # the control that every method is held against
MANY = 60  # items that a model needs for a panel of its own
GAP_LABEL = "insertion − deletion (dotted: chance; line: difference picture)"
SHEET = ("igos", "rise", NULL)  # maps of `contact_sheet`
MARGINS = (
    "Insertion − deletion beside that of a map without a model (square cells, blur; same items;\n"
    "95 % intervals, uncorrected; p by sign flips, corrected for the number of methods by Holm):"
)


# --- tables


def paper_table1(paper: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1, a row a model and method: its four benchmarks, insertion - deletion.

    `inverted` is the mean over the benchmarks of the inverted map.
    """
    names = {"mmvp": "MMVP", "mmstar": "MMStar", "cvbench": "CV-Bench", "llavabench": "LLaVA-Bench"}
    gaps = pd.DataFrame({n: paper[f"{k}_ins"] - paper[f"{k}_del"] for k, n in names.items()})
    deletion = paper[[f"{k}_del" for k in names]].mean(axis=1)
    insertion = paper[[f"{k}_ins" for k in names]].mean(axis=1)
    about = pd.DataFrame({"model": paper.lvlm, "method": paper.method})
    means = {"deletion": deletion, "insertion": insertion, "ins − del": insertion - deletion}
    return about.assign(**means, inverted=deletion - insertion, **gaps)


def in_rank(part: pd.DataFrame) -> pd.DataFrame:
    """Scores of one model in the order of its means on the same items, `same`; short rows last."""
    table = method_scores(part)
    table = table.assign(same=table.method.map(wide(same_items(part)).mean()))
    return table.sort_values("same", ascending=False, kind="stable", ignore_index=True)


def score_table(part: pd.DataFrame, seeds: dict | None = None) -> pd.DataFrame:
    """Every method on one model, for readers.

    `seeds` {(model, method): text} is the column on other seeds (`other_seeds`).
    """
    seeds, rows = seeds or {}, []
    for row in in_rank(part).itertuples():
        rows.append(
            {"method": row.title, "n": row.n, "skipped": row.skipped}
            | {"deletion": row.deletion, "insertion": row.insertion}
            | {"ins − del": spread(row.gap, row.gap_low, row.gap_high)}
            | {"same items": spread(row.same), "inverted": -row.gap}
            | {"another seed": seeds.get((part.model.iloc[0], row.method), "–")}
        )
    return pd.DataFrame(rows)


def margin_table(maps: pd.DataFrame) -> pd.DataFrame:
    """What each method adds to the difference picture: a row a method, a column a model."""
    frame = rows_of(maps)
    parts = [(model, margins(part)) for (model, _), part in most_items_first(with_rivals(frame))]
    order = [name for name in by_reading_order(frame) if name != NULL]
    columns = {"method": [title(name) for name in order]}
    for model, table in parts:
        found = table.set_index("method").reindex(order)
        cells = [spread(*row) for row in found[["difference", "low", "high"]].to_numpy(float)]
        columns[f"{model}, n = {int(table.n.median()) if len(table) else 0}"] = cells
    return pd.DataFrame(columns)


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


# --- who adds something to a map without a model


def margins(part: pd.DataFrame) -> pd.DataFrame:
    """Every method minus the difference picture on the same items, corrected for their number.

    Columns as in `compare.against`, and `clear`.
    """
    return beside_null(same_items(part))


def beside_null(rows: pd.DataFrame) -> pd.DataFrame:
    """The same, each method on all items that it shares with the difference picture."""
    table = against(rows, NULL)
    ends = {"low": -table.high, "high": -table.low}
    return table.assign(difference=-table.difference, **ends, clear=table.p_holm < LEVEL)


def margin_report(maps: pd.DataFrame) -> str:
    """`beside_null` for a terminal, a line a model and method; "" where the control has not run.

    Variants have a line too.
    """
    parts = [(keys, beside_null(part)) for keys, part in groups(rows_of(maps, variants=True))]
    lines = [
        _margin_line(", ".join(keys), row.method, title(NULL), row)
        for keys, table in parts
        for row in table.itertuples()
    ]
    return "\n".join([MARGINS, *lines]) if lines else ""


def control_report(maps: pd.DataFrame, method: str) -> str:
    """One method minus each control, for a terminal: a line each, the best control first.

    p corrected for the number of controls. A random map's score is 0 on average (chance), so it
    need not have been run.
    """
    lines = []
    for (model, _), part in groups(rows_of(maps, variants=True)):
        own = part[part.method == method]
        rest = part[part.method.isin(CONTROLS) & (part.method != "random")]
        table = against(pd.concat([own, rest, own.assign(method="random", gap=0.0)]), method)
        rows = table.sort_values("difference").itertuples()
        lines += [_margin_line(model, method, row.title, row) for row in rows]
    return "\n".join(lines)


def _margin_line(where: str, one: str, other: str, row) -> str:
    """ "... grad_cam − Difference picture: −0.90 [−1.10, −0.70], p = 0.0001, n = 92"."""
    head = f"{where}: {one} − {other}"
    told = f"{Estimate(row.difference, row.low, row.high, row.n):.2f}"
    if row.n < ENOUGH_TO_RESAMPLE:
        return f"{head}: {told}, n = {row.n}: too few for an interval"
    return f"{head}: {told}, p = {row.p_holm:.2g}, n = {row.n}"


def apart(part: pd.DataFrame, sign: int) -> list[str]:
    """Methods clearly above (`sign` 1) or below (-1) the difference picture, best first."""
    table = margins(part).set_index("method")
    return [n for n in ranked(part) if n in table.index and table.clear[n]
            and sign * table.difference[n] > 0]  # fmt: skip


# --- figures


@when_run
def gap_figure(maps: pd.DataFrame):
    """Insertion - deletion by method, a panel a model, beside what needs no model.

    Models with `MANY` items on which all methods ran; where there are none, all of them. Orange
    diamonds are clearly above the difference picture.
    """
    parts = most_items_first(with_rivals(rows_of(maps)))
    same = [(model, same_items(part), part) for (model, _), part in parts]
    same = [one for one in same if one[1].item.nunique() >= MANY] or same
    if not same:
        return None
    order = by_reading_order(pd.concat([rows for _, rows, _ in same]))
    figure, axes = grid(len(same), ROW * len(order) + 1, sharex=True)
    for ax, (model, rows, part) in zip(axes, same, strict=True):
        head = f"{model}, n = {rows.item.nunique()}"
        _gap_panel(ax, method_scores(rows), order, set(apart(part, 1)), head)
    figure.supxlabel(GAP_LABEL, fontsize=10)
    return figure


def _gap_panel(ax, table: pd.DataFrame, order: list[str], above: set[str], head: str) -> None:
    """One model's dots; `table` has a row a method, `above` is what the diamonds are for."""
    rows = table.set_index("method").reindex(order)
    colours = [SPECIAL if m in above else CONTROL if m in CONTROLS else OWN for m in order]
    marks = ["D" if m in above else "s" if m in CONTROLS else "o" for m in order]
    chance_line(ax, 0)
    if NULL in order:
        ax.axvline(rows.gap[NULL], color=CONTROL, linewidth=1)
    found = list(rows[["gap", "gap_low", "gap_high"]].to_numpy(float))
    dots(ax, found, [title(m) for m in order], colour=colours, marker=marks)
    ax.set_title(head, fontsize=10)


@when_run
def ground_figure(study: dict, flat: dict):
    """Insertion - deletion on busy ground, best on top, and beside it the same on flat ground.

    `study` is `busy.json`; `flat` is a larger model's part of `methods.json` on flat ground. Below
    the methods of busy ground stand those that were not run there and are clearly above the
    difference picture in `flat`. Marks as in `gap_figure`.
    """
    bars = {name: study["levels"][level]["bars"] for name, level in GROUNDS.items()}
    parts = [
        (f"{name}\nllava-1.5-s, n = {told['n']}", ground_table(study, name, "gap"), told["ahead"])
        for name, told in bars.items()
    ]
    head = f"flat ground\nllava-1.5, n = {flat['winner']['n']}"
    parts.append((head, summary_table(flat["winner"]["same"], "gap"), flat["above"]))
    above = [told_of(lead["titles"], table.method) for _, table, lead in parts]
    order = parts[0][1].method.tolist()
    order += [m for m in parts[-1][1].method if m in above[-1] - {*order}]
    figure, axes = grid(len(parts), ROW * len(order) + 1.2, sharex=True)
    for ax, (head, table, _), leads in zip(axes, parts, above, strict=True):
        _gap_panel(ax, table, order, leads, head)
    figure.supxlabel(GAP_LABEL, fontsize=10)
    return figure


def told_of(titles: str, methods) -> set[str]:
    """The methods whose titles are in a list for readers, "iGOS, T-MM and Occlusion"."""
    found = set()
    for name in sorted(methods, key=lambda name: -len(title(name))):  # "iGOS" is part of others
        if title(name) in titles:
            found, titles = found | {name}, titles.replace(title(name), "")
    return found


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
    """One picture, its evidence outlined, and the maps of `SHEET` on two scales.

    The item is `shared_item`, so that nobody picks it; `items` finds items by their id. Above, each
    map ends at its own largest value; below, a colour is the share of pixels that the map puts
    below a place, all that deletion and insertion read.
    """
    name = shared_item(stored, model, category)
    if name is None:
        return None
    mine = stored[(stored.model == model) & (stored.item == name) & stored.saliency.notna()]
    rgb, evidence = items[name].rgb, items[name].evidence
    maps = {**mine.set_index("method").saliency, NULL: control_map(NULL, items[name], 0)}
    shown = [method for method in SHEET if method in maps]
    columns = 1 + len(shown)
    figure, axes = grid(2 * columns, 0.27 * WIDTH, columns, sharey=False)
    picture(axes[0], rgb, "the picture", "small")
    axes[columns].remove()
    for place, method in enumerate(shown, 1):
        saliency = enlarged(maps[method], *rgb.shape[:2])
        for scale, row in ((saliency / saliency.max(), 0), (share_below(saliency), 1)):
            ax = axes[row * columns + place]
            picture(ax, rgb)
            ax.imshow(scale, cmap=CMAP, vmin=0, vmax=1)
            if evidence is not None:
                ax.contour(evidence, levels=[0.5], colors="white", linewidths=1)
        axes[place].set_title(title(method), fontsize="small")
    for ax, words in ((axes[1], "own scale"), (axes[columns + 1], "rank scale")):
        place = {"transform": ax.transAxes, "va": "center", "ha": "right", "fontsize": "small"}
        ax.text(-0.05, 0.5, words, rotation=90, **place)
    figure.suptitle(f"{mine.iloc[0].question}  {mine.iloc[0].answer}", fontsize="medium")
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
    """What holds over the models: clear leads, and what iGOS adds to a map without a model."""
    parts = [part for sets in models.values() for part in sets.values()]
    races = [part for part in parts if a_race(part["methods"])]
    first = [part for part in races or parts if part["winner"].get("n", 0) >= LEAST]
    added = [p["margin"][REFERENCE]["value"] for p in first if REFERENCE in p["margin"]]
    return {
        "models": len(first),
        "clear_leads": sum(p["winner"]["not_clearly_worse"] == NOBODY for p in first),
        "added": {"least": min(added), "most": max(added)} if added else {},
    }


def of_model(maps: pd.DataFrame, part: pd.DataFrame) -> dict:
    """Scores and tests of one model on one benchmark; `maps` has the other tests of it."""
    names, best = ranked(part), best_of(part)
    best = {key: best[key] for key in best if key not in ("best", "place", "apart")}
    low = method_scores(part).set_index("method").gap_low
    return {
        "items": int(part.item.nunique()),
        "count": len(names),
        "methods": {name: of_method(rows) for name, rows in part.groupby("method")},
        "winner": best,
        "margin": {
            row.method: Estimate(row.difference, row.low, row.high, row.n).json()
            for row in margins(part).itertuples()
        },
        "above": named(apart(part, 1)),
        "below": named(apart(part, -1)),
        "at_chance": {"titles": listed([name for name in names if low[name] <= 0])},
        "averaged": averaged(part),
        "weak": weak_spots(part),
        "tests": of_tests(maps, *part[GROUP].iloc[0]),
    }


def averaged(part: pd.DataFrame) -> dict:
    """By how much the mean of all masks beats the last one, {method: estimate}, on shared items."""
    table = wide(scored(part))
    pairs = {name: (name, f"{name}[preset=paper]") for name in ("igos", "igos++")}
    both = {name: table[list(pair)] for name, pair in pairs.items() if {*pair} <= {*table}}
    return {name: estimate(t.iloc[:, 0] - t.iloc[:, 1]).json() for name, t in both.items()}


def of_method(frame: pd.DataFrame) -> dict:
    """A method's mean gap, how many items it has nothing to say about, and how many exceed 1 (%).

    A normalised score exceeds 1 where a part of the picture makes the answer likelier than all.
    """
    silent, gap = int((frame.status == "no_crucial_tokens").sum()), scored(frame).gap
    told = {"gap": counted(gap), "above_one": finite(100 * (gap > 1).mean())}
    return told | {"skipped": {"no_crucial_tokens": silent}}


def of_tests(maps: pd.DataFrame, model: str, benchmark: str) -> dict:
    """Every other test beside the first: does it order the methods alike, and who leads?

    `added` is by how much the leader is above the difference picture, in probability.
    """
    tests = other_tests(maps, model, benchmark)
    first = tests.pop(", ".join(TEST), None)
    out = {}
    for name, raw in tests.items() if first is not None else ():
        best = _leader(raw)
        added = raw[best] - raw[NULL] if {best, NULL} <= set(raw) else []
        own = rank_agreement(without_controls(first), raw)
        out[name] = {"own": own, "best": title(best), "added": estimate(added).json()}
    return out


def weak_spots(part: pd.DataFrame) -> dict:
    """Where iGOS fails: items on which the difference picture does better, kinds of question.

    `categories` is a list, the weakest first: "spatial 0.71 (n = 10), counting 0.82 (n = 9)".
    """
    rows = scored(part[part.method == REFERENCE])
    null = scored(part[part.method == NULL]).set_index("item").gap
    both = rows[rows.item.isin(null.index)]
    kinds = rows.groupby("category").gap.agg(["mean", "size"]).sort_values("mean")
    told = [f"{kind} {spread(mean)} (n = {n})" for kind, mean, n in kinds.itertuples()]
    return {
        "pairs": len(both),
        "below_difference": int((both.gap < both.item.map(null).to_numpy(float)).sum()),
        "categories": ", ".join(told) or NOBODY,
    }


def _leader(table: pd.DataFrame) -> str:
    """The method with the highest mean, controls not counted."""
    own = without_controls(complete(table)[0]).mean()
    return own.idxmax() if len(own) else ""
