"""What the chapters on sizes and on architectures show alike: pairs of models, scores and maps.

Trees are those of `scale.json`, `architecture.json` and `trainings.json`.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..errors import StudyError
from ..figures import WIDTH, dots, legend_below, overlay
from ..heatmaps.names import without_preset
from ..models.names import short
from ..sweep.stored import enlarged
from .compare import shown, table4_tests, with_factors

SPREADS = {"item_sd": "items", "training_sd": "trainings", "residual_sd": "rest"}
LEAST_P = "least that permutation can give"

# --- tables


def mixed_rows(tree: dict | None) -> pd.DataFrame:
    """The mixed model of a tree as a table: effects, then what varies."""
    found = tree and tree.get("mixed")
    if not found:
        return pd.DataFrame([{"part": "nothing to compare yet"}])
    rows = [
        (f"{group} − {found['reference']}", e["estimate"], e["low"], e["high"])
        for group, e in found["effects"].items()
    ]
    for name, label in SPREADS.items():
        rows.append((f"spread of {label}", found[name], None, None))
    if found["converged"] != "True":
        rows.append(("the fit did not settle: do not quote it", None, None, None))
    table = pd.DataFrame(rows, columns=["part", "estimate", "low", "high"])
    return table.astype({"estimate": float, "low": float, "high": float})


def relation_rows(tree: dict) -> pd.DataFrame:
    """Map similarity by what two maps differ in, chance and ceiling included."""
    rows = []
    for kind, one in tree["relations"].items():
        rows.append({"the two maps differ in": kind, "pairs of models": str(one["pairs"])})
        rows[-1] |= {"n": one["n"], "rank correlation": shown(one)}
        rows[-1] |= {"different items": one["chance"], "same answer": one["same_answer"]}
    for name, one in tree["ceiling"].items():
        row = {"the two maps differ in": f"settings: {name[5:-1]}", "pairs of models": "one model"}
        rows.append(row | {"n": one["n"], "rank correlation": shown(one)})
    return pd.DataFrame(rows or [{"the two maps differ in": "no two maps yet"}])


def by_sizes(tree: dict) -> list[tuple[str, str, dict]]:
    """(architecture, sizes, what came out) of `scale.json`, and last all architectures together."""
    found = tree.get("families", {}).items()
    rows = [(family, key, one) for family, sizes in found for key, one in sizes.items()]
    every = tree.get("together")
    return rows + ([(f"all {every['architectures']}", every["sizes"], every)] if every else [])


def paper_units(
    table4: pd.DataFrame, tree: dict, scalars: pd.DataFrame, group: str
) -> pd.DataFrame:
    """The paper's p-value beside tests on its own table and ours, each with its unit."""
    name, factor = {
        "vision_arch": ("p_vision_architecture", "vision"),
        "llm_scale": ("p_llm_scale", "step"),
    }[group]
    p = float(scalars.set_index("key").value[name])
    rows = [("the paper", "not named", "not named", "not named", p)]
    tests = table4_tests(with_factors(table4), group, factor).set_index("score")
    for test in ("anova", "rank", "permutation", "smallest"):
        label = LEAST_P if test == "smallest" else test
        rows += [(f"its Table 4, {s}", label, "model", 6, p) for s, p in tests[test].items()]
    for pair in tree.get("pairs", []):
        who = f"ours, {short(pair['a'])} − {short(pair['b'])}"
        rows.append((who, "sign flips, Holm", "item", pair["n"], pair["p_holm"]))
    for who, key, one in by_sizes(tree):
        about = ("item", one["n"])
        rows.append((f"ours, {who} {key}", "sign flips", *about, one["difference"]["p"]))
        rows.append((f"ours, {who} {key}", "equivalence", *about, one["equivalence"]["p"]))
    dealt = {"ours": tree["permutation"]}
    if over := tree.get("over_sizes"):
        dealt[f"ours, sizes {over['sizes']}"] = over["permutation"]
    for who, found in dealt.items():
        if found and found["p"] is not None:
            rows.append((who, "permutation", "model", found["models"], found["p"]))
            rows.append((who, LEAST_P, "model", found["models"], found["smallest"]))
    return pd.DataFrame(rows, columns=["data", "test", "unit", "units", "p"])


# --- figures


def paper_figure(table4: pd.DataFrame, group: str):
    """The paper's Table 4, one half: deletion and insertion of every model."""
    part = table4[table4.group == group]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.38 * WIDTH), layout="constrained")
    ax.hlines(range(len(part)), part["del"], part.ins, color="0.8", zorder=0)
    ax.plot(part["del"], range(len(part)), "o", label="deletion")
    ax.plot(part.ins, range(len(part)), "s", label="insertion")
    names = [f"{m} ({llm})" for m, llm in zip(part.model, part.llm, strict=True)]
    ax.set(yticks=range(len(part)), yticklabels=names, xlabel="score in the paper", xlim=(0, 1))
    ax.invert_yaxis()
    legend_below(figure, ax)
    return figure


def relation_figure(tree: dict):
    """Similarity of maps by what they differ in (dots), of different items (crosses), ceiling."""
    found, ceiling = tree["relations"], tree["ceiling"]
    names = [*found, *(f"settings ({without_preset(name)[5:-1]})" for name in ceiling)]
    size = (WIDTH, 0.8 + 0.35 * max(len(names), 2))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    dots(ax, [*found.values(), *ceiling.values()], names)
    chance = [np.nan if one["chance"] is None else one["chance"] for one in found.values()]
    ax.plot(chance, range(len(found)), "x", color="0.4")
    ax.set(xlabel="rank correlation of two maps", xlim=(-0.1, 1.02))
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
        asked = textwrap.fill(items[name].question, max(12, 100 // columns))
        row[0].set_title(asked, fontsize="x-small")
        for ax, model in zip(row[1:], models, strict=True):
            if (name, model) in kept.index:
                one = enlarged(kept[name, model], *rgb.shape[:2])
                overlay(ax, rgb, one, 0, 1, bar=False)
                ax.set_title(short(model).replace("-seed", "\nseed "), fontsize="x-small")
        for ax in row:
            ax.set_axis_off()
    return figure
