"""Which choices inside iGOS matter: the paper's Tables 3 and 5, and those that it left open?

All variants are held against the paper's own setting (`PAPER_METHOD`); the study's default, which
averages the masks, is one of them. A variant changes how the map is made, never how it is scored:
target tokens, units and fill of the test stay the same. Differences are paired by item, variant -
paper's setting, so that above 0 the variant is better; tests are corrected by Holm for all variants
that were run.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..figures import ROW, WIDTH, chance_line, dots, when_run
from ..heatmaps.names import PAPER_METHOD, REFERENCE, without_preset
from ..heatmaps.variants import ABLATIONS, PAPER, parse
from ..metrics.statistics import Estimate, ends, estimate, finite, paired_test, resample
from .compare import (
    CONTROL,
    LEAST,
    LEVEL,
    SPECIAL,
    by_model,
    differences,
    likeness,
    one_model,
    or_not_yet,
    rows_of,
    scored,
    spread,
    variant_names,
    variant_title,
    wide,
)

NULL = "difference"  # a map that has seen neither model nor question
CHOICES = {  # table of `ABLATIONS` -> the question that it answers
    "tokens": "which tokens are explained",
    "baseline": "the picture without information",
    "masks": "one mask or two",
    "l2_gamma": "weight and decay of the L2 term",
    "mask_size": "cells of the mask, a side",
    "iterations": "iterations",
    "steps": "integration steps",
    "noise": "noise",
    "lr": "learning rate",
    "l2_unit": "unit of the L2 term",
    "preset": "the last mask or the mean of all",
}
OWN = {  # what the paper's setting sets, by choice
    "tokens": "likelihood ratio",
    "baseline": "blur",
    "masks": "one",
    "mask_size": "32",
    "iterations": "5",
    "steps": "10",
    "noise": "0.2",
    "lr": "10",
    "l2_unit": "sum",
    "preset": "last mask",
}


def variant_rows(maps: pd.DataFrame) -> pd.DataFrame:
    """The rows of iGOS, its variants and the difference picture, under the paper's test."""
    frame = rows_of(maps, variants=True)
    return frame[frame.method.isin([*variant_names(), NULL])]


def choice_table(frame: pd.DataFrame, choice: str) -> pd.DataFrame:
    """One ablation: scores of its variants, and their differences to the paper's setting.

    Columns: method, value (what is set), n, gap, passes, beside (the gap of the paper's setting on
    the variant's items), then those of `differences`. Variants that were not run are left out.
    """
    rows = []
    for name in ABLATIONS[choice]:
        part = scored(frame[frame.method == name])
        if len(part) >= LEAST:
            row = {"method": name, "value": setting(name, choice), "n": len(part)}
            row |= {"gap": part.gap.mean(), "passes": part.forward.mean()}
            rows.append(row | {"beside": beside(frame, part)})
    table = pd.DataFrame(rows, columns=["method", "value", "n", "gap", "passes", "beside"])
    found = differences(frame)[["method", "difference", "low", "high", "clear"]]
    return table.merge(found, "left", on="method")


def beside(frame: pd.DataFrame, part: pd.DataFrame) -> float:
    """The mean gap of the paper's setting on the items of a variant."""
    paper = scored(frame[frame.method == PAPER_METHOD])
    return paper[paper.item.isin(part.item)].gap.mean()


def setting(name: str, choice: str) -> str:
    """What a variant sets, for readers: "λ2 1, γ 0.2", "black", "16"."""
    method, options = parse(without_preset(name))
    if name == REFERENCE or method != REFERENCE:
        return variant_title(name)
    if choice == "l2_gamma":
        return f"λ₂ {options.get('l2', 0.1):g}, γ {options.get('gamma', 1.0):g}"
    if not options:
        return f"{OWN[choice]} (paper)"
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in options.values())


def shown(frame: pd.DataFrame, choices=tuple(CHOICES)) -> pd.DataFrame:
    """The table of the chapter: choices below each other, differences with intervals."""
    rows = []
    for choice in choices:
        for row in choice_table(frame, choice).itertuples():
            change = spread(row.difference, row.low, row.high)
            verdict = "" if change == "–" else "yes" if row.clear else "no"
            rows.append(
                {"choice": CHOICES[choice], "setting": row.value, "n": row.n}
                | {"ins − del": row.gap, "paper's setting, same items": row.beside}
                | {"minus the paper's": change, "clear": verdict, "passes": round(row.passes)}
            )
    return or_not_yet(pd.DataFrame(rows))


def beside_paper(frame: pd.DataFrame, paper: pd.DataFrame, table: str) -> pd.DataFrame:
    """Table 3 or Table 5: ours and the paper's differences to its setting, insertion - deletion.

    The paper's is the mean over its three benchmarks; it gives no interval.
    """
    gaps = pd.Series(
        np.mean([paper[f"{k}_ins"] - paper[f"{k}_del"] for k in ("mmvp", "mmstar", "cvbench")], 0),
        index=paper.iloc[:, 0].astype(str),
    )
    labels = PAPER[table]
    base, found = gaps[labels[PAPER_METHOD]], differences(frame).set_index("method")
    found = found[["difference", "low", "high"]].reindex(list(labels))
    rows = []
    for name, theirs in labels.items():
        ours = scored(frame[frame.method == name])
        ours = ours if len(ours) >= LEAST else ours.iloc[:0]
        row = {"the paper's row": theirs, "ours": variant_title(name), "n": len(ours) or None}
        row |= {"paper": gaps[theirs], "mini": ours.gap.mean()}
        row |= {"mini's first row, same items": beside(frame, ours)}
        row |= {"paper, minus its first row": gaps[theirs] - base}
        rows.append(row | {"mini, minus its first row": spread(*found.loc[name])})
    return pd.DataFrame(rows).assign(n=pd.Series([r["n"] for r in rows], dtype=object))


# --- figures


@when_run
def ablation_figure(maps: pd.DataFrame, model: str, benchmark: str, choices=tuple(CHOICES)):
    """Every variant of iGOS minus the paper's setting, with intervals, by what it changes."""
    frame = variant_rows(one_model(maps, model, benchmark, variants=True))
    lines = []  # (name, difference and ends, clear); a heading has no difference
    for choice in choices:
        table = choice_table(frame, choice)
        rows = table[table.difference.notna()].itertuples()
        found = [(r.value, (r.difference, r.low, r.high), r.clear) for r in rows]
        lines += [(CHOICES[choice], None, False), *found] if found else []
    if not lines:
        return None
    names, found, clear = zip(*lines, strict=True)
    figure, ax = plt.subplots(figsize=(0.85 * WIDTH, ROW * len(lines) + 0.8), layout="constrained")
    chance_line(ax, 0)
    if np.isfinite(at := null(frame).value):
        ax.axvline(at, color=CONTROL, linewidth=1)
        place = {"xytext": (3, 3), "textcoords": "offset points", "ha": "right"}
        ax.annotate("the difference picture", (at, -0.6), **place, fontsize="small", color="0.35")
    colours, marks = ([(no, yes)[c] for c in clear] for no, yes in ((CONTROL, SPECIAL), "so"))
    dots(ax, found, names, colour=colours, marker=marks)
    for one, text in zip(found, ax.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if one is None else "normal")
    ax.set_xlabel("minus the paper's setting, insertion − deletion", fontsize="medium")
    return figure


# --- the numbers of the page


def summary(tables) -> dict:
    """`ablations.json`, from the tables of a results folder (`compare.Tables`)."""
    return tables.tree(tables.maps, by_model(variant_rows(tables.maps), of_model))


def of_model(part: pd.DataFrame) -> dict:
    """Variants with their differences, and how many are clear; {} without any but the default."""
    if not set(part.method) & {*variant_names()} - {PAPER_METHOD, REFERENCE}:
        return {}
    found = differences(part).sort_values("difference")
    clear, open_ = found[found.clear], found[~found.clear]
    better, worse = (int((sign * clear.difference > 0).sum()) for sign in (1, -1))
    names = [name for name in variant_names() if len(scored(part[part.method == name])) >= LEAST]
    return {
        "power": power(found),
        "null": null(part).json(),
        "count": len(found),
        "within_noise": len(open_),
        "leaning": int((open_.low * open_.high > 0).sum()),
        "better": better,
        "worse": worse,
        "variants": {key(name): of_variant(part, found, name) for name in names},
        "fast": fast(part),
        "likeness": {
            "variants": {
                key(row.method): Estimate(row.value, row.low, row.high, int(row.n)).json()
                for row in likeness(part).itertuples()
            }
        },
    }


def power(found: pd.DataFrame) -> dict:
    """How many pairs the variants have, and how many a verdict takes.

    With n pairs that all point one way a sign-flip test gives p = 2 / 2^n. `needed` is the n from
    which such a p survives Holm's first and strictest factor, the number of variants.
    """
    if found.empty:
        return {"fewest": 0, "most": 0, "needed": 0}
    needed = int(np.ceil(np.log2(2 * len(found) / LEVEL)))
    return {"fewest": int(found.n.min()), "most": int(found.n.max()), "needed": needed}


def null(part: pd.DataFrame) -> Estimate:
    """The difference picture minus the paper's setting, on the items that both have."""
    table = wide(scored(part)).reindex(columns=[NULL, PAPER_METHOD])
    return estimate(table[NULL] - table[PAPER_METHOD])


def key(name: str) -> str:
    """A variant's name where square brackets already mean something: "l2=1,gamma=0.2".

    "paper" is the paper's setting, "default" ours.
    """
    own = {PAPER_METHOD: "paper", REFERENCE: "default"}
    short = without_preset(name)
    return own.get(name) or short.partition("[")[2].rstrip("]") or short


def of_variant(part: pd.DataFrame, found: pd.DataFrame, name: str) -> dict:
    """Passes of one variant; unless it is the paper's setting, its difference with interval.

    `moved` is the median size of the difference on a single item.
    """
    told = {"passes": scored(part[part.method == name]).forward.mean()}
    rows, table = found[found.method == name], wide(scored(part))
    if rows.empty:
        return told
    moved = (table[name] - table[PAPER_METHOD]).abs().median()
    about = {end: finite(rows.iloc[0][end]) for end in ("difference", "low", "high")}
    return told | {"moved": finite(moved)} | about


def fast(part: pd.DataFrame, name: str = "igos[preset=fast]") -> dict:
    """What the fast preset keeps of the default's gap and needs of its passes, in per cent.

    On paired items; `difference` is between the two. {} where there are too few.
    """
    table = wide(scored(part)).reindex(columns=[name, REFERENCE]).dropna()
    if len(table) < LEAST:
        return {}
    pairs = table.to_numpy(float)
    means = pairs[resample(len(pairs))].mean(1)  # (draws, 2)
    share = 100 * pairs[:, 0].mean() / pairs[:, 1].mean()
    kept = Estimate(share, *ends(100 * means[:, 0] / means[:, 1]), len(pairs))
    rows = scored(part[part.item.isin(table.index)])
    passes = rows.groupby("method").forward.mean()
    return {
        "kept": kept.json(),
        "difference": paired_test(pairs[:, 0], pairs[:, 1]).estimate.json(),
        "n": len(pairs),
        "passes": 100 * passes[name] / passes[REFERENCE],
    }
