"""What the chapters on sizes and on architectures show alike: pairs of models, scores and maps.

Trees are those of `scale.json`, `architecture.json` and `trainings.json`.
"""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd

from ..errors import StudyError
from ..figures import WIDTH, dots, grid, overlay, picture
from ..heatmaps.names import without_preset
from ..models.names import short
from ..sweep.stored import enlarged
from .compare import CONTROL, control_map, shown, table4_tests, with_factors

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
    """Map similarity by what two maps differ in, settings of one model last."""
    rows = []
    for kind, one in tree["relations"].items():
        about = {"pairs of models": str(one["pairs"]), "n": one["n"]}
        same = {"given, same answer": one["same_answer"]}
        rows.append({"the two maps differ in": kind} | about | _likeness(one) | same)
    for name, one in tree.get("ceiling", {}).items():
        about = {"pairs of models": "one model", "n": one["n"]}
        rows.append({"the two maps differ in": settings(name)} | about | _likeness(one))
    return pd.DataFrame(rows or [{"the two maps differ in": "no two maps yet"}])


def _likeness(one: dict) -> dict:
    return {"given the picture": shown(one["given"]), "raw": shown(one["raw"])}


def settings(name: str) -> str:
    """What a variant changes, for a row: igos[noise=0,preset=paper] -> settings (noise 0)."""
    return f"settings ({without_preset(name)[5:-1].replace('=', ' ')})"


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
    shuffled = {"ours": tree["permutation"]}
    if over := tree.get("over_sizes"):
        shuffled[f"ours, sizes {over['sizes']}"] = over["permutation"]
    for who, found in shuffled.items():
        if found and found["p"] is not None:
            rows.append((who, "permutation", "model", found["models"], found["p"]))
            rows.append((who, LEAST_P, "model", found["models"], found["smallest"]))
    return pd.DataFrame(rows, columns=["data", "test", "unit", "units", "p"])


# --- figures


def relation_figure(tree: dict):
    """Similarity of maps by what they differ in: given the picture (filled) and raw (hollow)."""
    found = tree["relations"] | {settings(k): one for k, one in tree.get("ceiling", {}).items()}
    size = (WIDTH, 0.9 + 0.33 * max(len(found), 2))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    dots(ax, [one["given"] for one in found.values()], list(found))
    dots(ax, [one["raw"] for one in found.values()], colour=CONTROL, hollow=True)
    first = next(iter(found.values()), {"given": {"value": None}, "raw": {"value": None}})
    for name, words in (("given", "given the picture"), ("raw", "raw")):
        if first[name]["value"] is not None:
            ax.text(first[name]["value"], -0.3, words, ha="center", fontsize="small")
    ax.set(xlabel="rank correlation of two maps", xlim=(0, 1.02), ylim=(len(found) - 0.5, -0.8))
    return figure


def side_by_side(table: pd.DataFrame, items: dict, models):
    """One picture, its difference picture, and these models' maps of it: four panels a line.

    `table` as from `compare.map_table`; `items` maps ids to benchmark items. The item is the first
    that all of the models have a map of; one scale, 0 to 1, for the maps.
    """
    kept = table[table.model.isin(list(models)) & table["item"].isin(list(items))]
    maps = kept.pivot(index="item", columns="model", values="saliency").dropna()
    if maps.empty or set(models) - set(maps):
        raise StudyError("These models have no item in common; name fewer of them.")
    item = items[maps.index[0]]
    rgb, known = item.rgb, control_map("difference", item, 0)
    figure, axes = grid(len(models) + 2, 0.3 * WIDTH, columns=4)
    picture(axes[0], rgb, textwrap.fill(item.question, 26))
    shown_maps = {"difference picture": known / known.max()}
    shown_maps |= {
        short(name).replace("-seed", ", training "): maps[name].iloc[0] for name in models
    }
    for ax, (name, one) in zip(axes[1:], shown_maps.items(), strict=True):
        overlay(ax, rgb, enlarged(one, *rgb.shape[:2]), 0, 1, bar=False)
        ax.set_title(name, fontsize="x-small")
    return figure
