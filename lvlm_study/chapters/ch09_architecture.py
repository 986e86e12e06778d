"""Does another vision architecture look elsewhere, by more than another training does?

`architecture.json` compares what is there: with one training of each member, a difference between
architectures cannot be told from one between trainings. `trainings.json` is the one size in which
most architectures have several trainings, and nothing else: every architecture has a spread of its
own to be held against, in scores and in maps, and a permutation test has trained models as units.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..errors import StudyError
from ..figures import WIDTH, overlay
from ..heatmaps.names import PAPER_METHOD, without_preset
from ..metrics import mixed
from ..metrics.statistics import compare
from ..sweep.stored import enlarged
from .compare import (
    OTHER_ARCHITECTURE,
    OTHER_SEED,
    RANK,
    answers_of,
    apart,
    finite,
    gap_table,
    interval,
    likeness_apart,
    map_table,
    matrix,
    member,
    mixed_numbers,
    pair_table,
    permutation,
    plain,
    relations,
    shared_part,
    short,
    spanned,
)

# --- architectures beside trainings


def rows(tree: dict) -> pd.DataFrame:
    """Both permutation tests as a table: scores, and maps."""
    table = [
        ("insertion − deletion", "sum of squares between architectures", None, tree["scores"]),
        ("maps", "likeness within minus across", tree["maps"]["value"], tree["maps"]),
    ]
    return pd.DataFrame(
        [
            {
                "what": what,
                "statistic": name,
                "value": value,
                "trained models": one["models"],
                "items": one["n"],
                "p": one["p"],
                "least possible": one["smallest"],
            }
            for what, name, value, one in table
        ]
    )


# --- figures


def relation_figure(tree: dict):
    """Similarity of maps by what they differ in (dots), of different items (crosses), ceiling."""
    rows = [(kind, one, one["chance"]) for kind, one in tree["relations"].items()]
    rows += [
        (f"settings ({without_preset(k)[5:-1]})", one, None) for k, one in tree["ceiling"].items()
    ]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.8 + 0.35 * max(len(rows), 2)), layout="constrained")
    for place, (_, one, chance) in enumerate(rows):
        _interval(ax, one, place)
        if chance is not None:
            ax.plot(chance, place, "x", color="0.4")
    ax.set(yticks=range(len(rows)), yticklabels=[kind for kind, _, _ in rows])
    ax.set(xlabel="rank correlation of two maps", xlim=(-0.1, 1.02))
    ax.invert_yaxis()
    return figure


def matrix_figure(tree: dict):
    """Mean similarity of every two models' maps on the items that both have; first trainings."""
    table = pd.DataFrame(tree["matrix"]).rename(short, axis=0).rename(short, axis=1)
    first = [name for name in table if "-seed" not in name]
    table = table.loc[first, first]
    side = min(WIDTH, 2.2 + 0.7 * max(len(table), 2))
    figure, ax = plt.subplots(figsize=(side, 0.8 * side), layout="constrained")
    if len(table):
        sns.heatmap(
            table.astype(float), annot=True, fmt=".2f", vmin=0, vmax=1, cmap="cividis", ax=ax,
            cbar_kws={"label": "rank correlation of maps"},
        )  # fmt: skip
    ax.tick_params(axis="x", rotation=30)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def gap_figure(tree: dict):
    """Insertion - deletion of every model of one size, with intervals."""
    figure, ax = plt.subplots(
        figsize=(WIDTH, 0.8 + 0.35 * max(len(tree["gaps"]), 2)), layout="constrained"
    )
    for place, one in enumerate(tree["gaps"].values()):
        _interval(ax, one, place)
    names = [f"{short(m)} (n = {one['n']})" for m, one in tree["gaps"].items()]
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="insertion − deletion")
    ax.axvline(0, color="0.6", linewidth=1)
    ax.invert_yaxis()
    return figure


def paper_figure(table4: pd.DataFrame, group: str):
    """The paper's Table 4, one half: deletion and insertion of every model."""
    part = table4[table4.group == group]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.38 * WIDTH), layout="constrained")
    for place, ends in enumerate(zip(part["del"], part.ins, strict=True)):
        ax.plot(ends, [place, place], color="0.8", zorder=0)
    ax.plot(part["del"], range(len(part)), "o", label="deletion")
    ax.plot(part.ins, range(len(part)), "s", label="insertion")
    names = [f"{m} ({llm})" for m, llm in zip(part.model, part.llm, strict=True)]
    ax.set(yticks=range(len(part)), yticklabels=names, xlabel="score in the paper", xlim=(0, 1))
    ax.invert_yaxis()
    figure.legend(loc="outside lower center", ncol=2)
    return figure


def side_by_side(table: pd.DataFrame, items: dict, count: int = 3):
    """The maps of every model over the same pictures: a row an item, a column a model.

    `table` as from `compare.map_table`; `items` maps ids to benchmark items. Items that all
    models have a map of come first in their given order; one scale, 0 to 1, for all.
    """
    models = list(dict.fromkeys(table.model))
    have = table.groupby("item").model.nunique()
    chosen = [name for name in sorted(have[have == have.max()].index) if name in items][:count]
    if not chosen:
        raise StudyError("None of these maps belongs to an item that was given.")
    columns = len(models) + 1
    wide = WIDTH * max(1, columns / 6)
    high = 0.25 + (wide / columns + 0.45) * len(chosen)
    figure, axes = plt.subplots(
        len(chosen), columns, figsize=(wide, high), squeeze=False, layout="constrained"
    )
    kept = table.set_index(["item", "model"]).saliency
    for row, name in zip(axes, chosen, strict=True):
        rgb = items[name].rgb
        row[0].imshow(rgb)
        row[0].set_title(
            _wrapped(items[name].question, max(12, 100 // columns)), fontsize="x-small"
        )
        for ax, model in zip(row[1:], models, strict=True):
            if (name, model) in kept.index:
                one = enlarged(kept[name, model], *rgb.shape[:2])
                overlay(ax, rgb, one, 0, 1, bar=False)
                ax.set_title(short(model).replace("-seed", "\nseed "), fontsize="x-small")
        for ax in row:
            ax.set_axis_off()
    return figure


def _wrapped(text: str, width: int = 26) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _interval(ax, one: dict, place: int) -> None:
    if one["value"] is None:
        return
    ends = [one["value"] if one[k] is None else one[k] for k in ("low", "high")]
    around = np.abs(np.array(ends)[:, None] - one["value"])
    ax.errorbar(one["value"], place, xerr=around, fmt="o", color="C0")


# --- the numbers of the page


def architecture_summary(tables) -> dict:
    """`architecture.json` of a results folder (`compare.Tables`); {} without maps."""
    gaps = gap_table(tables.maps)
    if gaps.empty:
        return {}
    size = gaps.groupby("size").family.nunique().idxmax()
    part, shared = gaps[gaps["size"] == size], shared_part(tables)
    trainings = part.groupby("family").model.nunique()
    return {
        "provenance": tables.origin(tables.maps),
        "size": str(size),
        "models": int(part.model.nunique()),
        "architectures": int(part.family.nunique()),
        "trained_twice": int((trainings > 1).sum()),
        "said": said_architectures(trainings),
        "gaps": {m: {"n": len(rows)} | interval(rows.gap) for m, rows in part.groupby("model")},
        "pairs": pair_differences(part),
        "permutation": permutation(part),
        "mixed": mixed_numbers(part),
        "over_sizes": over_sizes(gaps),
        "relations": shared["relations"],
        "matrix": shared["matrix"],
        "ceiling": shared["ceiling"],
        "ceiling_spans": spanned(shared["ceiling"]),
        "apart": shared["apart"],
    }


def pair_differences(part: pd.DataFrame) -> list[dict]:
    """Every model against every other on the items that both have, p-values corrected (Holm)."""
    if part.model.nunique() < 2:
        return []
    return [plain(row) for _, row in compare(part, "gap", "model").iterrows()]


def over_sizes(gaps: pd.DataFrame) -> dict | None:
    """Architectures compared over several sizes; None unless two sizes have two architectures.

    The models of one architecture then stand for it together: how much they differ beyond their
    size is the spread that a single size cannot show.
    """
    many = gaps.groupby("size").family.nunique()
    part = gaps[gaps["size"].isin(many.index[many > 1])]
    if part["size"].nunique() < 2:
        return None
    return {
        "sizes": ", ".join(sorted(part["size"].unique(), key=lambda s: RANK.get(s, 9))),
        "models": int(part.model.nunique()),
        "permutation": permutation(part, within_sizes=True),
        "mixed": mixed_numbers(part),
    }


def said_architectures(trainings: pd.Series) -> str:
    """Which architectures have one training only, in words; `trainings` counts them by name."""
    once = [str(f) for f, count in trainings.items() if count == 1]
    if not once:
        return "every architecture was trained more than once"
    return f"trained only once: {', '.join(once)}"


def trainings_summary(tables) -> dict:
    """`trainings.json` of a results folder; {} unless two architectures have several trainings."""
    gaps = gap_table(tables.maps)
    part = repeated(gaps) if len(gaps) else gaps
    if part.empty:
        return {}
    own = map_table(tables.maps, (PAPER_METHOD,))
    own = own[own.model.isin(part.model)]
    pairs = pair_table(own, answers_of(tables.reliance))
    kinds = relations(pairs).set_index("relation")
    return {
        "provenance": tables.origin(tables.maps),
        "size": str(part["size"].iloc[0]),
        "architectures": int(part.family.nunique()),
        "models": int(part.model.nunique()),
        "gaps": by_model(part),
        "ranges": ranges(part),
        "scores": permutation(part),
        "mixed": mixed_numbers(part),
        "relations": {kind: plain(row) for kind, row in kinds.iterrows()},
        "within": within(pairs),
        "apart": likeness_apart(apart(pairs, OTHER_SEED, OTHER_ARCHITECTURE)),
        "maps": likeness_test(pairs),
    }


def repeated(gaps: pd.DataFrame) -> pd.DataFrame:
    """Rows of the architectures with several trainings, in the size that has most of them.

    `gaps` as from `compare.gap_table`; no rows where no size has two such architectures.
    """
    count = gaps.groupby(["size", "family"]).model.nunique()
    several = count[count > 1].reset_index()
    if several.empty or several["size"].value_counts().max() < 2:
        return gaps.iloc[:0]
    size = several["size"].value_counts().idxmax()
    families = several.family[several["size"] == size]
    return gaps[(gaps["size"] == size) & gaps.family.isin(families)]


def by_model(part: pd.DataFrame) -> dict:
    """{model: n, mean, interval} of insertion - deletion, on the items that all models have.

    Only there are means comparable: which items a model has is its own doing.
    """
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    return {m: {"n": len(wide)} | interval(wide[m]) for m in wide}


def ranges(part: pd.DataFrame) -> dict:
    """Highest minus lowest mean: of all trainings, of one architecture's, of the architectures."""
    wide = part.pivot(index="item", columns="model", values="gap").dropna()
    means = wide.mean().groupby([member(m).family for m in wide])
    spread = (means.max() - means.min()).max()
    everything = wide.mean().max() - wide.mean().min()
    numbers = {"all": everything, "one_architecture": spread, "means": np.ptp(means.mean())}
    return {"n": len(wide)} | {k: finite(v) for k, v in numbers.items()}


def within(pairs: pd.DataFrame) -> dict:
    """{architecture: how alike the maps of its own trainings are}."""
    families = pairs.a.map(lambda name: member(name).family)
    same = pairs[families == pairs.b.map(lambda name: member(name).family)]
    return {
        str(family): {"n": len(rows)} | interval(rows.value)
        for family, rows in same.groupby(families[same.index])
    }


def likeness_test(pairs: pd.DataFrame) -> dict:
    """Are maps of one architecture more alike than maps of two? Architectures are dealt anew.

    The statistic is the mean likeness of pairs within architectures minus that of pairs across, on
    the items that every model has a map of; p is one-sided.
    """
    every = pairs.groupby("item").size()
    shared = pairs[pairs.item.isin(every.index[every == every.max()])]
    table = matrix(shared)
    likeness = table.to_numpy()
    upper = np.triu(np.ones_like(likeness, bool), 1)

    def apart(labels: np.ndarray) -> float:
        same = labels[:, None] == labels[None]
        return likeness[same & upper].mean() - likeness[~same & upper].mean()

    labels = np.array([member(name).family for name in table])
    p, smallest = mixed.label_test(apart, labels)
    found = {"models": len(labels), "n": int(shared.item.nunique()), "value": float(apart(labels))}
    return found | {"p": finite(p), "smallest": finite(smallest)}
