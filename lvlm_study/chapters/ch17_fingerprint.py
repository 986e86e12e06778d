"""Where does the difference picture in an iGOS map come from, and can it be taken out?

Two ways to ask. The picture may change: on busy ground |image − baseline| is everywhere, and says
nothing of objects. Or the method may: settings of iGOS, two of them made for this question, several
fills in one objective and a gradient without the distance from the fill (`igos`, `fills`, `even`).

Variants were chosen on `EXPLORED` items a world. Written down before any other item was run:

- Of the variants whose mean insertion − deletion there is at most `MARGIN` below that of the preset
  `fast` in both worlds, the one whose maps are least like the difference picture (mean rank
  correlation, mean of the worlds) is chosen; if none is, the one that loses least.
- It is held against `fast` on items of other pictures. It *keeps* faithfulness where the interval
  of its paired difference lies above −`MARGIN` (0.05 as in chapter 8: with a deviation of 0.12 and
  70 items an interval is ±0.03 wide). It *loses the fingerprint* where the difference in likeness
  lies below 0, and in ROC-AUC and in rank correlation with exact effects above 0.
- It is shipped as a preset if it does all this in both worlds, and is a negative finding otherwise.

Chosen by this: three fills (`CHOSEN`). Only five items a world had been explored. Found: it does
not keep faithfulness on flat ground, and finds the evidence no better. It is not shipped.

    fingerprint.levels[4][igos[preset=fast]].value
    fingerprint.worlds.flat.held.change[igos[steps=2,preset=fast,fills=mean+noise]].like.value
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..figures import WIDTH, dots, when_run
from ..heatmaps.names import CONTROLS, PAPER_METHOD, title
from ..heatmaps.variants import ABLATIONS, parse
from ..metrics.coalitions import shapley_values
from ..metrics.components import standardised
from ..metrics.counterfactual import LEAST_OBJECTS, LEAST_SPREAD, ranked_as
from ..metrics.statistics import estimate
from ..sweep.runner import shuffled
from ..sweep.stored import BUSY, Tables, grids
from ..sweep.tables import read_table
from .compare import LOCAL, control_map, rows_of, scored, shown

FAST = "igos[preset=fast]"
MEMBER = "mini/llava-1.5-s"  # of level 0; those of the other levels are named after it
LEVELS = {"0": (MEMBER, "sprites_clutter-0")}
LEVELS |= {k: (f"{MEMBER}-clutter{k}", f"sprites_clutter-{k}") for k in "1234"}
WORLDS = {  # name -> (member, benchmark, its folder of results)
    "flat": ("mini/llava-1.5", "sprites", ""),
    "busy": ("mini/llava-1.5-clutter4", "sprites_clutter-4", BUSY),
}
EXPLORED = 32  # the first items in the order of a sweep; what was chosen on them
LEAST = 4  # items; a variant with fewer is not told
MARGIN = 0.05  # of insertion − deletion, that a variant may lose
VARIANTS = {  # explored -> what readers call them
    "igos[tv=0,preset=fast]": "λ₃ = 0",
    "igos[lr=1,preset=fast]": "step size 1",
    "igos[preset=fast,even=0.1]": "even gradient",
    "igos[lr=1,preset=fast,even=0.1]": "step size 1, even gradient",
    "igos[steps=2,preset=fast,fills=mean+noise]": "three fills",
    "igos[steps=2,preset=fast,fills=mean+noise,even=0.1]": "three fills, even gradient",
}
CHOSEN = "igos[steps=2,preset=fast,fills=mean+noise]"
OTHERS = ("occlusion", "gae", "attention")
MEASURES = {  # column -> what readers call it
    "gap": "insertion − deletion",
    "like": "~ difference",
    "auc": "ROC-AUC",
    "energy_ratio": "energy ratio",
    "density": "~ effects",
    "shapley": "~ Shapley values",
}
EVIDENCE = "evidence"  # the evidence itself, as a map


# --- rows


def measured(
    rows: pd.DataFrame, items: dict, effects: pd.DataFrame, subsets: pd.DataFrame
) -> pd.DataFrame:
    """Scored rows (`rows_of`) of one benchmark with the columns `MEASURES`, and `picture`.

    NaN where a measure has no meaning: of items without a place as evidence, scenes without objects
    to be told apart, and random maps, which a sweep does not keep.
    """
    good = scored(rows).reset_index(drop=True)
    ok = effects[effects.status == "ok"]
    drawn = zip(subsets.item, subsets.score.map(shapley_of), subsets.area, strict=True)
    good["density"] = agreement(good, zip(ok.item, ok.effect, ok.area, strict=True))
    good["shapley"] = agreement(good, drawn)
    place = (good.evidence_area > 0) & (good.evidence_area <= LOCAL)
    good[["auc", "energy_ratio"]] = good[["auc", "energy_ratio"]].where(place)
    pictures = {name: item.extra.get("picture", name) for name, item in items.items()}
    return good.assign(picture=good.item.map(pictures), like=likeness(good, items))


def shapley_of(score) -> np.ndarray:
    """The exact Shapley values of a scene's objects, from its score under all subsets."""
    return shapley_values(np.asarray(score, float))


def agreement(rows: pd.DataFrame, truths) -> list[float]:
    """Rank correlation of every map's mass per area of an object with what it is worth.

    `truths` are (item, values of its objects, their areas). NaN where there is no truth, or one
    that tells no object from another; 0 for a map that does not.
    """
    known = {name: (np.asarray(v, float), np.asarray(a, float)) for name, v, a in truths}
    known = {k: o for k, o in known.items() if len(o[0]) >= LEAST_OBJECTS}
    known = {k: o for k, o in known.items() if np.ptp(o[0]) >= LEAST_SPREAD}
    return [
        np.nan if name not in known else 0.0 if mass is None else _ranked(mass, *known[name])
        for name, mass in zip(rows.item, rows.mass, strict=True)
    ]


def _ranked(mass, values: np.ndarray, area: np.ndarray) -> float:
    density = np.asarray(mass, float) / np.maximum(area, 1e-12)
    return float(np.nan_to_num(ranked_as(density, values)))


def likeness(rows: pd.DataFrame, items: dict) -> np.ndarray:
    """Rank correlation of every map with its picture's difference, over 8 x 8 cells."""
    maps = [
        control_map(method, items[name], 0) if method in CONTROLS else saliency
        for method, name, saliency in zip(rows.method, rows.item, grids(rows), strict=True)
    ]
    kept = np.array([m is not None for m in maps]) & (rows.method != "random").to_numpy()
    out, known = np.full(len(rows), np.nan), differences(rows.item.unique(), items)
    if kept.any():
        own = standardised([maps[i] for i in np.flatnonzero(kept)])  # (N, 64)
        out[kept] = (own * np.stack([known[name] for name in rows.item[kept]])).sum(1)
    return out


def differences(names, items: dict) -> dict[str, np.ndarray]:
    """{item: its difference picture, standardised}."""
    maps = [control_map("difference", items[name], 0) for name in names]
    return dict(zip(names, standardised(maps), strict=True)) if maps else {}


def evidence_likeness(names, items: dict) -> pd.DataFrame:
    """Rank correlation of the evidence itself with the difference picture, a row an item."""
    some = [n for n in names if (e := items[n].evidence) is not None and 0 < e.mean() <= LOCAL]
    known = differences(some, items)
    rows = [
        {"picture": items[n].extra.get("picture", n)}
        | {"like": float(standardised([items[n].evidence])[0] @ known[n])}
        for n in some
    ]
    return pd.DataFrame(rows, columns=["picture", "like"])


def explored(benchmark: str) -> set[str]:
    """The items that variants were chosen on."""
    return {item.id for item in shuffled(load_benchmark(benchmark), EXPLORED)}


# --- the numbers of the page


def summary(tables: Tables) -> dict:
    """`fingerprint.json`: likeness by level of clutter, settings of iGOS, and variants."""
    busy = Tables(tables.results / BUSY, tables.profile, tables.seed)
    where = {name: busy if folder else tables for name, (*_, folder) in WORLDS.items()}
    if any(one_world(where[name], *WORLDS[name][:2]).empty for name in WORLDS):
        return {}
    levels, settings = of_levels(busy), of_settings(tables)
    worlds = {name: of_world(where[name], *WORLDS[name][:2]) for name in WORLDS}
    origin = tables.origin(rows_of(tables.maps, variants=True))
    return {"provenance": origin, "levels": levels, "settings": settings, "worlds": worlds}


def of_levels(busy: Tables) -> dict:
    """{level: {method, or the evidence: likeness to the difference picture}}."""
    found = {}
    for level, (model, benchmark) in LEVELS.items():
        items = {item.id: item for item in load_benchmark(benchmark)}
        part = one_world(busy, model, benchmark)
        part = part[part.method.isin([FAST, *OTHERS])]
        part = part[part.groupby("item").method.transform("nunique") == part.method.nunique()]
        part = part.reset_index(drop=True)
        pictures = part.item.map(lambda name: items[name].extra["picture"])  # noqa: B023
        part = part.assign(like=likeness(part, items), picture=pictures)
        found[level] = {
            str(method): over_pictures(own, "like") for method, own in part.groupby("method")
        } | {EVIDENCE: over_pictures(evidence_likeness(part.item.unique(), items), "like")}
    return found


def over_pictures(rows: pd.DataFrame, column: str) -> dict:
    """Mean and interval over pictures, the unit: questions about one picture count once."""
    return estimate(rows.groupby("picture")[column].mean()).where_enough().json()


def of_settings(tables: Tables) -> dict:
    """{setting of iGOS, or other method: score and likeness}, on the items that all have."""
    model, benchmark, _ = WORLDS["flat"]
    names = {name for every in ABLATIONS.values() for name in every if parse(name)[0] == "igos"}
    names |= set(NAMED)
    rows = one_world(tables, model, benchmark)
    rows = on_same_items(rows[rows.method.isin(names) & rows.heatmap.notna()])
    items = {item.id: item for item in load_benchmark(benchmark)}
    rows = rows.assign(like=likeness(rows, items), picture=rows.item)
    return {
        str(method): {name: over_pictures(part, name) for name in ("gap", "like")}
        for method, part in rows.groupby("method")
    }


def on_same_items(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of items that all methods have; those with far fewer items than most are left out.

    Than most, not than the one with the most: a single method may have been run on every item.
    """
    counts = rows.method.value_counts()
    rows = rows[rows.method.isin(counts.index[counts >= 0.9 * counts.median()])]
    every = rows.groupby("item").method.transform("nunique") == rows.method.nunique()
    return rows[every].reset_index(drop=True)


def one_world(tables: Tables, model: str, benchmark: str) -> pd.DataFrame:
    """All scored rows of a member on its benchmark."""
    rows = scored(rows_of(tables.maps, variants=True))
    return rows[(rows.model == model) & (rows.benchmark == benchmark)].reset_index(drop=True)


def of_world(tables: Tables, model: str, benchmark: str) -> dict:
    """What variants score on the items that they were chosen on (`explored`), and on the `held`."""
    names = [FAST, *VARIANTS, *OTHERS, *CONTROLS]
    rows = one_world(tables, model, benchmark)
    rows = rows[rows.method.isin(names)].reset_index(drop=True)
    items = {item.id: item for item in load_benchmark(benchmark)}
    rows = measured(rows, items, *exact(tables, model, benchmark))
    chosen_on = explored(benchmark)
    first = rows.item.isin(chosen_on)
    seen = {items[name].extra.get("picture", name) for name in chosen_on}
    return {"explored": of_stage(rows[first]), "held": of_stage(rows[~rows.picture.isin(seen)])}


def exact(tables: Tables, model: str, benchmark: str) -> list[pd.DataFrame]:
    """The tables of effects and of subsets, of one member and benchmark."""
    found = []
    columns = ["model", "benchmark", "item", "status", "area", "effect", "score"]
    for frame, value in (
        (tables.effects, "effect"),
        (read_table(tables.results, "subsets"), "score"),
    ):
        frame = frame.reindex(columns=columns)
        mine = (frame.model == model) & (frame.benchmark == benchmark) & frame[value].notna()
        found.append(frame[mine])
    return found


def of_stage(rows: pd.DataFrame) -> dict:
    """Means over pictures, and of every variant what it adds to `fast` on the items of both.

    Methods stand beside each other on the items that every variant there has.
    """
    ran = [name for name in VARIANTS if (rows.method == name).sum() >= LEAST]
    for name in ran:
        rows = rows[rows.item.isin(rows.item[rows.method == name])]
    shown_here = [n for n in rows.method.unique() if n in ran or n not in VARIANTS]
    methods = {
        str(name): {column: over_pictures(part, column) for column in MEASURES}
        | {"passes": float(part.forward.mean())}
        for name, part in rows[rows.method.isin(shown_here)].groupby("method")
    }
    return {"methods": methods, "change": {name: change(rows, name) for name in ran}}


def change(rows: pd.DataFrame, name: str) -> dict:
    """A variant minus `fast`, measure by measure, paired by item."""
    found, pictures = {}, rows.drop_duplicates("item").set_index("item").picture
    for column in MEASURES:
        table = rows[rows.method.isin([name, FAST])].pivot(
            index="item", columns="method", values=column
        )
        both = (table[name] - table[FAST]).rename("change")
        found[column] = over_pictures(both.to_frame().join(pictures), "change")
    return found


# --- figures and tables


@when_run
def level_figure(tree: dict):
    """Likeness to the difference picture by level of clutter; and that of settings of iGOS."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.6), layout="constrained")
    _levels(left, tree["levels"])
    _settings(right, tree["settings"])
    return figure


LINES = {FAST: ("iGOS", "#0072b2"), EVIDENCE: ("evidence", "#009e73")}
LINES |= {"occlusion": ("occlusion", "#d55e00"), "gae": ("T-MM", "#cc79a7")}


def _levels(ax, levels: dict) -> None:
    """A line a method over the levels of clutter, named at its left end."""
    places = [int(level) for level in levels]
    for name, (said, colour) in LINES.items():
        found = [one[name] for one in levels.values()]
        look = {"linestyle": "--"} if name == EVIDENCE else {}
        ax.plot(places, [one["value"] for one in found], color=colour, **look)
        dots(ax, found, places=places, colour=colour, upright=True)
        at, up = {EVIDENCE: (0.1, 0.07), "occlusion": (1.1, 0.04), "gae": (0.1, -0.1)}.get(
            name, (0.15, 0.06)
        )
        ax.text(at, found[round(at)]["value"] + up, said, color=colour, fontsize="small")
    ax.axhline(0, color="0.3", linestyle=":", linewidth=1)
    ax.set(xlabel="clutter of the ground (level)", xticks=places, ylim=(-0.2, 1))
    ax.set_ylabel("rank correlation with |image − blur|", fontsize="small")


NAMED = {  # what the right panel names: (name, whether it stands left of its dot, points up)
    FAST: ("fast", True, 5),
    PAPER_METHOD: ("the paper's", True, 2),
    "igos[lr=1,preset=paper]": ("step size 1", True, -3),
    "igos[lr=30,preset=paper]": ("step size 30", False, -3),
    "igos[baseline=mean,preset=paper]": ("fill: mean", True, 2),
    "igos[baseline=noise,preset=paper]": ("fill: noise", True, -3),
    "igos[mask_size=8,preset=paper]": ("8 × 8 mask", True, -3),
    "igos[mask_size=16,preset=paper]": ("16 × 16 mask", True, -10),
    "igos[l2=10,gamma=0.2,preset=paper]": ("λ₂ 10, γ 0.2", True, 2),
    "eagle[regions=32]": ("EAGLE", False, 2),
    "rise": ("RISE", True, 2),
    "occlusion": ("occlusion", True, 2),
}


def _settings(ax, settings: dict) -> None:
    """A dot a setting of iGOS or other method: likeness to the difference picture, and score."""
    for name, found in settings.items():
        x, y = (found[k]["value"] for k in ("like", "gap"))
        other, told = parse(name)[0] != "igos", name in NAMED
        colour = "#d55e00" if other else "#0072b2" if told else "0.6"
        ax.plot(x, y, "D" if other else "o", color=colour, ms=5)
        if told:
            said, left, up = NAMED[name]
            place = {"xytext": (-6 if left else 6, up), "ha": "right" if left else "left"}
            look = {"textcoords": "offset points", "fontsize": "x-small", "color": colour}
            ax.annotate(said, (x, y), **place, **look)
    ax.set(xlim=(-0.4, 1.15), ylim=(0.35, 1.0))
    ax.set_xlabel("rank correlation with |image − blur|", fontsize="small")
    ax.set_ylabel("insertion − deletion", fontsize="small")


def variant_table(tree: dict, stage: str = "held") -> pd.DataFrame:
    """A row a world and method: its measures; of variants, minus `fast`, with intervals."""
    rows = []
    for world, found in tree["worlds"].items():
        part = found[stage]
        for name in (FAST, *part["change"], *OTHERS, *CONTROLS):
            if name not in part["methods"]:
                continue
            row, told = part["methods"][name], part["change"].get(name)
            said = {"world": world, "": VARIANTS.get(name) or title(name), "n": row["gap"]["n"]}
            cells = {
                label: _cell(row[column], told and told[column])
                for column, label in MEASURES.items()
            }
            rows.append(said | cells | {"passes": round(row["passes"])})
    return pd.DataFrame(rows)


def _cell(found: dict, change: dict | None) -> str:
    """The mean with its interval; of a variant the change too, "0.83 (−0.02 [−0.05, 0.01])"."""
    if change is None or found["value"] is None:
        return shown(found)
    return f"{found['value']:.2f} ({shown(change)})"
