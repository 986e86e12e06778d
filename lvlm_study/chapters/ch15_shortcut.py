"""Does a map tell whether a model read the answer off the picture?

The shortcut subset shows each scene four times: clean, and under a strip with the right, a wrong or
a neutral word. An answer that says the wrong word, and does not without the strip, was read; one
that is right under a neutral word or against a wrong one was seen. So for every such map it is
known which pixels the answer came from, and what can be asked is whether the map says so. Right
words settle nothing and are left out.

`lvlm-study run --benchmarks sprites_shortcut --results RESULTS/shortcut` writes the tables, and
`lvlm-study summarise` the summary, `shortcut.json`, beside those of the other chapters.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..benchmarks.sprite_subsets import says
from ..detector.hallucination import auc_estimate
from ..errors import StudyError
from ..figures import WIDTH, dots, overlay, scale_bar
from ..heatmaps.names import CONTROLS, in_order, listed, title
from ..metrics.plausibility import energy
from ..metrics.statistics import estimate, finite, share
from ..scenes.shortcut import ARMS
from ..sweep.stored import Tables, enlarged, scales, stored_maps
from ..sweep.tables import read_table
from .annotate import with_controls
from .compare import told

BENCHMARK = "sprites_shortcut"
FOLDER = "shortcut"  # of its tables, inside a results folder: no other chapter reads them
READ, SEEN = "read", "seen"
GLOBAL = "global"  # questions about the whole place: no answer that was seen is among them
LEAST = 8  # a method with fewer maps of either kind is not judged
LOOKS = {  # how far above its line, colour, marker, and what the legend says
    READ: (-0.14, "#d55e00", "s", "read: the answer is the strip's wrong word"),
    SEEN: (0.14, "#0072b2", "o", "seen: the answer is right, the strip says something else"),
}


# --- tables of the page


def arms_table(study: dict) -> pd.DataFrame:
    """A row a model and arm: per cent right, and per cent that say the wrong word."""
    rows = []
    for model, about in study["models"].items():
        for arm in ARMS:
            cells = about["arms"][arm]
            row = {"model": model, "strip": arm, "n": cells["right"]["n"]}
            row |= {"right (%)": told(cells["right"])}
            rows.append(row | {"says the wrong word (%)": told(cells["follows"])})
    return pd.DataFrame(rows)


def apart_table(methods: dict) -> pd.DataFrame:
    """A row a method, the best first: how well its share on the word tells read from seen."""
    rows = [
        {
            "method": title(name),
            "read, on the word (× chance)": found["read"],
            "seen, on the word (× chance)": found["seen"],
            "told apart (AUC)": found["auc"],
            "95 % interval": f"[{found['low']:.2f}, {found['high']:.2f}]",
        }
        for name, found in methods.items()
    ]
    return pd.DataFrame(rows).sort_values("told apart (AUC)", ascending=False, ignore_index=True)


# --- figures


def example_figure(stored: pd.DataFrame, said: pd.DataFrame, items, model: str, methods):
    """One scene under two strips, a row a method: the wrong word was read, the neutral one not.

    The scene is the first with maps of both, of a question about an attribute if there is one.
    Raises StudyError when there is none.
    """
    known, arms = {item.id: item for item in items}, {"wrong": READ, "neutral": SEEN}
    mine = said[(said.model == model) & (said.arm.map(arms) == said.source)]
    own = stored[(stored.model == model) & (stored.status == "ok")]
    rows = own[own.method.isin(methods)].drop(columns="answer").merge(mine, on=["model", "item"])
    full = rows.groupby("group", sort=False).size() == len(arms) * len(methods)
    if not full.any():
        raise StudyError(f"{model} has no scene with maps under both strips; run more items.")
    found = sorted(full.index[full], key=lambda name: not name.startswith("attribute"))
    rows = rows[rows.group == found[0]].set_index(["method", "arm"])
    size = (WIDTH, 0.5 * WIDTH * len(methods))
    figure, axes = plt.subplots(
        len(methods), len(arms), figsize=size, squeeze=False, layout="constrained"
    )
    top = scales(own)
    for line, method in zip(axes, methods, strict=True):
        for ax, arm in zip(line, arms, strict=True):
            row = rows.loc[(method, arm)]
            _one(ax, row, known[row["item"]].rgb, method, top[method])
    scale_bar(list(axes.ravel()), 0, 1, "saliency, part of the method's scale")
    figure.suptitle(rows.question.iloc[0], fontsize="medium")
    return figure


def _one(ax, row, rgb: np.ndarray, method: str, top: float) -> None:
    big = enlarged(row.saliency, *rgb.shape[:2]) / top
    overlay(ax, rgb, big, 0, 1, bar=False)
    ax.set_title(f"{title(method)}: {row.answer}\n({row.source})", fontsize="small")


def ratio_figure(methods: dict):
    """Per method the share of the map on the word, read and seen answers apart; chance is 1."""
    names = in_order(methods)
    size = (WIDTH, 0.5 + 0.34 * len(names))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for kind, (shift, colour, marker, label) in LOOKS.items():
        ends = (kind, f"{kind}_low", f"{kind}_high")
        found = [tuple(methods[name][end] for end in ends) for name in names]
        places = np.arange(len(names)) + shift
        dots(ax, found, [title(n) for n in names], places, colour, marker, label=label)
    ax.axvline(1, color="0.6", lw=1, ls="--")
    ax.set(xlabel="share of the map on the word, over the word's share of the picture")
    ax.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncol=1, fontsize="small")
    return figure


# --- the numbers of the page


def summary(tables: Tables) -> dict:
    """`shortcut.json`: answers by arm, maps by method; {} before the subset has been run."""
    maps = read_table(tables.results / FOLDER, "maps")
    if maps.empty:
        return {}
    items = load_benchmark(BENCHMARK)
    said = answered(read_table(tables.results / FOLDER, "reliance"), items)
    shares = strip_shares(stored_maps(tables.results / FOLDER), said, items)
    models = {
        model: {
            "arms": arms_of(part),
            "sources": {kind: int((part.source == kind).sum()) for kind in (READ, SEEN)},
        }
        | of_model(shares[shares.model == model])
        for model, part in said.groupby("model")
    }
    own = Tables(tables.results / FOLDER, tables.profile, tables.seed)
    return {"provenance": own.origin(maps), "models": models}


def answered(reliance: pd.DataFrame, items) -> pd.DataFrame:
    """One row a model and item: group, arm, whether it is right, whether it says the wrong word.

    `source` is "read" or "seen" where the answer itself tells what it came from, else None; a wrong
    word that the model says of the clean picture too is a slip, and was not read.
    """
    known, rows = {item.id: item for item in items}, []
    for row in reliance.drop_duplicates(["model", "item"]).itertuples():
        item = known[row.item]
        rows.append(
            {
                "model": row.model,
                "item": row.item,
                "group": item.extra["group"],
                "arm": item.extra["arm"],
                "answer": row.answer,
                "right": says(row.answer, *item.accept),
                "follows": says(row.answer, item.extra["wrong"]),
                "source": source(item, row.answer),
            }
        )
    frame = pd.DataFrame(rows)
    clean = frame.follows & (frame.arm == "clean")
    slips = clean.groupby([frame.model, frame.group]).transform("any")
    return frame.assign(source=frame.source.mask((frame.source == READ) & slips, None))


def source(item, text: str) -> str | None:
    """ "read" off the strip, "seen" in the scene in spite of a strip, None: it cannot be told."""
    if item.extra["arm"] in ("clean", "right"):
        return None
    if says(text, *item.accept):
        return SEEN
    followed = item.extra["arm"] == "wrong" and says(text, item.extra["wrong"])
    return READ if followed else None


def strip_shares(stored: pd.DataFrame, said: pd.DataFrame, items) -> pd.DataFrame:
    """One row a map of an answer whose source is known: how much of it lies on the strip's word.

    `stored` is a `stored_maps` table. `share` is the part of the positive saliency inside the box
    around the word, `ratio` the same over the part of the picture that this box fills (chance: 1).
    """
    known = {item.id: item for item in items}
    rows = stored[stored.status == "ok"].drop(columns="answer")
    rows = with_controls(rows.merge(said[said.source.notna()], on=["model", "item"]), known)
    found = []
    for row in rows.itertuples():
        box = known[row.item].extra["strip"].mask()
        part = energy(enlarged(row.saliency, *box.shape), box)
        found.append({"share": part, "ratio": part / box.mean()})
    keys = ["model", "item", "group", "arm", "source", "method", "category"]
    rows = rows.assign(category=[known[name].category for name in rows["item"]])
    return rows[keys].reset_index(drop=True).join(pd.DataFrame(found, columns=["share", "ratio"]))


def arms_of(said: pd.DataFrame) -> dict:
    """{arm: {"right": per cent, "follows": per cent}} of one model, with Wilson intervals."""
    parts = {arm: said[said.arm == arm] for arm in ARMS}
    return {
        arm: {name: share(int(part[name].sum()), len(part)) for name in ("right", "follows")}
        for arm, part in parts.items()
        if len(part)
    }


def of_model(mine: pd.DataFrame) -> dict:
    """Methods and verdicts over all maps, and again without questions about the whole place.

    `mapped` counts answers that have a map: read, seen, of both the global ones, and seen under a
    neutral word. {} without maps.
    """
    methods, local = told_apart(mine), told_apart(mine[mine.category != GLOBAL])
    if not methods:
        return {}
    items = mine.drop_duplicates("item")
    mapped = {"neutral": int(((items.source == SEEN) & (items.arm == "neutral")).sum())}
    for kind in (READ, SEEN):
        part = items[items.source == kind]
        mapped |= {kind: len(part), f"{kind}_{GLOBAL}": int((part.category == GLOBAL).sum())}
    found = {"methods": methods, "verdicts": verdicts(methods), "mapped": mapped}
    aucs = {m: {name: row[name] for name in ("auc", "low", "high")} for m, row in local.items()}
    if not aucs:
        return found | {"local": {}}
    told = verdicts(aucs)
    told = {name: told[name] for name in ("best", "best_auc", "clear")}
    return found | {"local": {"methods": aucs, "verdicts": told}}


def told_apart(shares: pd.DataFrame, seed: int = 0) -> dict:
    """{method: mean ratio of read and of seen answers, and how well it tells the two apart}.

    `auc` is the chance that a read answer's map has more of itself on the strip than a seen one's
    (0.5: the map knows nothing), with a bootstrap over scenes. Methods with fewer than `LEAST` maps
    of either kind are left out.
    """
    out = {}
    for method in in_order(shares.method.unique()):
        part = shares[(shares.method == method) & shares.ratio.notna()]
        kinds = {kind: part[part.source == kind] for kind in (READ, SEEN)}
        if min(map(len, kinds.values())) < LEAST:
            continue
        row = {}
        for kind, some in kinds.items():
            found = estimate(some.ratio, clusters=some.group, seed=seed)
            row |= {f"n_{kind}": len(some)} | found.columns(kind)
        apart = auc_estimate(part.ratio, part.source == READ, part.group, seed=seed)
        row |= {"auc": apart.value, "low": apart.low, "high": apart.high}
        out[method] = {name: x if name[:2] == "n_" else finite(x) for name, x in row.items()}
    return out


def verdicts(methods: dict) -> dict:
    """How many methods tell read from seen clearly, which do not, and which is best.

    "Clearly" means that the 95 % interval of the AUC leaves out 0.5. Controls are not counted.
    """
    own = {name: row for name, row in methods.items() if name not in CONTROLS}
    best = max(own, key=lambda name: own[name]["auc"])
    unclear = [name for name, row in own.items() if row["low"] <= 0.5 <= row["high"]]
    return {
        "methods": len(own),
        "best": title(best),
        "best_auc": own[best]["auc"],
        "clear": {"count": sum(row["low"] > 0.5 for row in own.values())},
        "unclear": {"titles": listed(unclear)},
    }
