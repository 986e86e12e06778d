"""Does a map tell whether a model read the answer off the picture?

The shortcut subset shows each scene four times: clean, and under a strip with the right, a wrong or
a neutral word. An answer that says the wrong word, and does not without the strip, was read; one
that is right under a neutral word or against a wrong one was seen. So for every such map it is
known which pixels the answer came from, and what can be asked is whether the map says so. Right
words settle nothing and are left out.

`lvlm-study run --benchmarks sprites_shortcut --results RESULTS/shortcut` writes the tables, and
`lvlm-study summarise` the summary, `shortcut.json`, beside those of the other chapters.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..benchmarks import load_benchmark
from ..benchmarks.sprite_subsets import says
from ..detector.hallucination import auc_estimate
from ..errors import StudyError
from ..figures import WIDTH, overlay, scale_bar
from ..heatmaps.names import CONTROLS, in_order, listed, title
from ..metrics.plausibility import energy
from ..metrics.statistics import estimate, share
from ..scenes.shortcut import ARMS
from ..sweep.stored import enlarged, scales, stored_maps
from ..sweep.tables import read_table
from .annotate import with_controls
from .compare import Tables, finite

BENCHMARK = "sprites_shortcut"
FOLDER = "shortcut"  # of its tables, inside a results folder: no other chapter reads them
READ, SEEN = "read", "seen"
COUNTS = (f"n_{READ}", f"n_{SEEN}")
GLOBAL = "global"  # questions about the whole place: no answer that was seen is among them
LEAST = 8  # a method with fewer maps of either kind is not judged
HUES = {"read": "#d55e00", "seen": "#0072b2"}  # told apart by their markers too
MARKS = {"read": "s", "seen": "o"}
SAID = {
    "read": "read: the answer is the strip's wrong word",
    "seen": "seen: the answer is right, the strip says something else",
}


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
    clean = frame[frame.arm == "clean"].set_index(["model", "group"]).follows
    slips = np.array([clean.get(key, False) for key in zip(frame.model, frame.group, strict=True)])
    return frame.assign(source=frame.source.mask((frame.source == READ) & slips.astype(bool), None))


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


def told_apart(shares: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Per method: mean ratio of read and of seen answers, and how well it tells the two apart.

    `auc` is the chance that a read answer's map has more of itself on the strip than a seen one's
    (0.5: the map knows nothing), with a bootstrap over scenes. Methods with fewer than `LEAST` maps
    of either kind are left out.
    """
    out = []
    for method in in_order(shares.method.unique()):
        part = shares[(shares.method == method) & shares.ratio.notna()]
        kinds = {kind: part[part.source == kind] for kind in (READ, SEEN)}
        if min(map(len, kinds.values())) < LEAST:
            continue
        row = {"method": method}
        for kind, some in kinds.items():
            found = estimate(some.ratio, clusters=some.group, seed=seed)
            row |= {f"n_{kind}": len(some), kind: found.value}
            row |= {f"{kind}_low": found.low, f"{kind}_high": found.high}
        apart = auc_estimate(part.ratio, part.source == READ, part.group, seed=seed)
        out.append(row | {"auc": apart.value, "low": apart.low, "high": apart.high})
    return pd.DataFrame(out)


def arms_of(said: pd.DataFrame) -> dict:
    """{arm: {"right": per cent, "follows": per cent}} of one model, with Wilson intervals."""
    parts = {arm: said[said.arm == arm] for arm in ARMS}
    return {
        arm: {name: share(int(part[name].sum()), len(part)) for name in ("right", "follows")}
        for arm, part in parts.items()
        if len(part)
    }


def read(results: Path, items=None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(answers, shares of the maps) of a results folder; raises StudyError without maps."""
    items = items or load_benchmark(BENCHMARK)
    folder = Path(results) / FOLDER
    stored = stored_maps(folder)
    said = answered(read_table(folder, "reliance"), items)
    return said, strip_shares(stored, said, items)


# --- tables of the page


def arms_table(study: dict) -> pd.DataFrame:
    """A row a model and arm: per cent right, and per cent that say the wrong word."""
    rows = []
    for model, about in study["models"].items():
        for arm in ARMS:
            cells = about["arms"][arm]
            row = {"model": model, "strip": arm, "n": cells["right"]["n"]}
            row |= {"right (%)": _told(cells["right"])}
            rows.append(row | {"says the wrong word (%)": _told(cells["follows"])})
    return pd.DataFrame(rows)


def _told(cell: dict) -> str:
    return f"{cell['percent']:.0f} [{cell['low']:.0f}, {cell['high']:.0f}]"


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
    known, arms = {item.id: item for item in items}, {"wrong": "read", "neutral": "seen"}
    mine = said[(said.model == model) & (said.arm.map(arms) == said.source)]
    own = stored[(stored.model == model) & (stored.status == "ok")]
    rows = own[own.method.isin(methods)].drop(columns="answer").merge(mine, on=["model", "item"])
    full = rows.groupby("group", sort=False).size() == len(arms) * len(methods)
    if not full.any():
        raise StudyError(f"{model} has no scene with maps under both strips; run more items.")
    found = sorted(full.index[full], key=lambda name: not name.startswith("attribute"))
    rows = rows[rows.group == found[0]].set_index(["method", "arm"])
    figure, axes = plt.subplots(
        len(methods),
        len(arms),
        figsize=(WIDTH, 0.5 * WIDTH * len(methods)),
        squeeze=False,
        layout="constrained",
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
    names = in_order(methods)[::-1]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 + 0.34 * len(names)), layout="constrained")
    for kind, shift in (("read", 0.14), ("seen", -0.14)):
        values = np.array([methods[n][kind] for n in names])
        ends = [[methods[n][f"{kind}_{end}"] for n in names] for end in ("low", "high")]
        spread = np.abs(np.array(ends, float) - values)
        ax.errorbar(
            values, np.arange(len(names)) + shift, xerr=spread, fmt=MARKS[kind],
            color=HUES[kind], label=SAID[kind], capsize=2,
        )  # fmt: skip
    ax.axvline(1, color="0.6", lw=1, ls="--")
    ax.set(xlabel="share of the map on the word, over the word's share of the picture")
    ax.set_yticks(range(len(names)), [title(n) for n in names])
    ax.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncol=1, fontsize="small")
    return figure


# --- the numbers of the page


def summary(tables: Tables) -> dict:
    """`shortcut.json`: answers by arm, maps by method; {} before the subset has been run."""
    maps = read_table(tables.results / FOLDER, "maps")
    if maps.empty:
        return {}
    said, shares = read(tables.results)
    models = {
        model: {
            "n": len(part),
            "arms": arms_of(part),
            "sources": {kind: int((part.source == kind).sum()) for kind in (READ, SEEN)},
        }
        | _of_model(shares[shares.model == model])
        for model, part in said.groupby("model")
    }
    own = Tables(tables.results / FOLDER, tables.profile, tables.seed)
    return {"provenance": own.origin(maps), "models": models}


def _of_model(mine: pd.DataFrame) -> dict:
    """Methods and verdicts over all maps, and again without questions about the whole place.

    `mapped` counts answers that have a map: read, seen, read and global, seen under a neutral word.
    """
    every = _of_maps(told_apart(mine))
    if not every:
        return {}
    items = mine.drop_duplicates("item")
    read, seen = items[items.source == READ], items[items.source == SEEN]
    mapped = {READ: len(read), SEEN: len(seen), "neutral": int((seen.arm == "neutral").sum())}
    mapped |= {
        f"{kind}_{GLOBAL}": int((part.category == GLOBAL).sum())
        for kind, part in ((READ, read), (SEEN, seen))
    }
    local = _of_maps(told_apart(mine[mine.category != GLOBAL]))
    return every | {"mapped": mapped, "local": local}


def _of_maps(table: pd.DataFrame) -> dict:
    """{"methods": ..., "verdicts": ...} of a `told_apart` table; {} without maps."""
    if table.empty:
        return {}
    rows = table.set_index("method").to_dict("index")
    plain = {
        name: {key: value if key in COUNTS else finite(value) for key, value in row.items()}
        for name, row in rows.items()
    }
    return {"methods": plain, "verdicts": verdicts(table)}


def verdicts(table: pd.DataFrame) -> dict:
    """Which methods tell read from seen: clearly, not clearly, and clearly the wrong way round.

    "Clearly" means that the 95 % interval of the AUC leaves out 0.5. Controls are not counted.
    """
    own = table[~table.method.isin(CONTROLS)]
    kinds = {
        "clear": own[own.low > 0.5],
        "unclear": own[(own.low <= 0.5) & (own.high >= 0.5)],
        "inverted": own[own.high < 0.5],
    }
    found = {
        name: {"count": len(part), "titles": listed(part.method)} for name, part in kinds.items()
    }
    best = own.loc[own.auc.idxmax()]
    return {"methods": len(own), "best": title(best.method), "best_auc": finite(best.auc)} | found
