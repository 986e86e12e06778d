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
import seaborn as sns

from ..figures import ROW, WIDTH, chance_line, heat, when_run
from ..heatmaps.names import PAPER_METHOD, REFERENCE, title, without_preset
from ..heatmaps.variants import ABLATIONS, PAPER, parse
from ..metrics.plausibility import GRAIN, area_means, rank_correlation
from ..metrics.statistics import holm, paired_test
from ..sweep.results import NOT_YET
from ..sweep.stored import grids
from .compare import (
    CLEAR,
    CONTROL,
    GROUP,
    LEAST,
    LEVEL,
    SCORES,
    SPECIAL,
    UNCLEAR,
    counted,
    finite,
    one_model,
    or_not_yet,
    rows_of,
    scored,
    spread,
    wide,
)

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
OTHERS, OTHERS_TITLE = "others", "(two different items)"
SHARE, PASSES = 0.98, 0.4  # what the fast preset must keep of the default's gap, with which passes


def variant_names() -> list[str]:
    """Every variant of every table, once, the paper's setting first."""
    every = [name for names in ABLATIONS.values() for name in names]
    return [PAPER_METHOD, *[n for n in dict.fromkeys(every) if n != PAPER_METHOD]]


def variant_rows(maps: pd.DataFrame) -> pd.DataFrame:
    """The rows of iGOS and its variants, under the paper's test."""
    frame = rows_of(maps, variants=True)
    return frame[frame.method.isin(variant_names())]


def differences(frame: pd.DataFrame, value: str = "gap") -> pd.DataFrame:
    """Every variant against the paper's setting, on the items that both have: one row a variant.

    Columns: method, difference (variant - paper's setting), low, high, p, p_holm, n, clear.
    Variants with too few items to say anything are left out.
    """
    table = wide(scored(frame), value)
    names = [n for n in variant_names() if n in table and n != PAPER_METHOD]
    columns = ["method", "difference", "low", "high", "p", "p_holm", "n", "clear"]
    if PAPER_METHOD not in table or not names:
        return pd.DataFrame(columns=columns)
    rows = []
    for name in names:
        both = table[[name, PAPER_METHOD]].dropna()
        if len(both) >= LEAST:
            rows.append({"method": name} | vars(paired_test(both[name], both[PAPER_METHOD])))
    if not rows:
        return pd.DataFrame(columns=columns)
    found = pd.DataFrame(rows)
    found["p_holm"] = holm(found.p)
    return found.assign(clear=found.p_holm < LEVEL)[columns]


def likeness(frame: pd.DataFrame) -> pd.DataFrame:
    """How much each variant's maps are like the paper's setting's: one row a variant.

    Rank correlations on 14 x 14 cells, means with 95 % intervals over the items that both have.
    Columns: method, value, low, high, n. The last row, `OTHERS`, is the floor: the maps of the
    paper's setting of two different items, each with the next one.
    """
    if "heatmap" not in frame:
        return pd.DataFrame(columns=["method", "value", "low", "high", "n"])
    frame = frame.assign(cells=[None if m is None else area_means(m, GRAIN) for m in grids(frame)])
    told = frame[frame.status.isin(["ok", "no_gap"]) & frame.cells.notna()]
    maps = {name: part.set_index("item").cells for name, part in told.groupby("method")}
    own = maps.pop(PAPER_METHOD, pd.Series(dtype=object))
    maps = {n: maps[n] for n in variant_names() if n in maps}
    maps[OTHERS] = pd.Series(np.roll(own.to_numpy(), 1), own.index)
    rows = []
    for name, other in maps.items():
        both = own.index.intersection(other.index)
        if len(both) >= LEAST:
            pairs = [rank_correlation(own[i], other[i], None) for i in both]
            rows.append({"method": name} | counted(pairs))
    return pd.DataFrame(rows, columns=["method", "value", "low", "high", "n"])


def likeness_shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of chapter 5: settings by how much they leave of the map, least first."""
    against = differences(frame).set_index("method").difference
    rows = [
        {
            "setting": OTHERS_TITLE if row.method == OTHERS else label(row.method),
            "like the paper's setting": spread(row.value, row.low, row.high),
            "ins − del, minus that": against.get(row.method, np.nan),
            "n": row.n,
        }
        for row in likeness(frame).sort_values("value").itertuples()
    ]
    return or_not_yet(pd.DataFrame(rows))


def choice_table(frame: pd.DataFrame, choice: str) -> pd.DataFrame:
    """One ablation: scores of its variants, and their differences to the paper's setting.

    Columns: method, value (what is set), n, deletion, insertion, gap, low, high, passes, beside
    (the gap of the paper's setting on the variant's items), difference, diff_low, diff_high, clear.
    Variants that were not run are left out.
    """
    against = differences(frame).set_index("method")
    rows = []
    for name in ABLATIONS[choice]:
        part = scored(frame[frame.method == name])
        if len(part) < LEAST:
            continue
        found = counted(part.gap)
        row = {"method": name, "value": setting(name, choice), "n": len(part)}
        row |= {score: part[score].mean() for score in SCORES}
        row |= {"low": found["low"], "high": found["high"], "passes": part.forward.mean()}
        row["beside"] = beside(frame, part)
        other = against.loc[name] if name in against.index else None
        for key, column in (
            ("difference", "difference"),
            ("diff_low", "low"),
            ("diff_high", "high"),
        ):
            row[key] = np.nan if other is None else other[column]
        rows.append(row | {"clear": other is not None and bool(other.clear)})
    return pd.DataFrame(rows)


def beside(frame: pd.DataFrame, part: pd.DataFrame) -> float:
    """The mean gap of the paper's setting on the items of a variant."""
    paper = scored(frame[frame.method == PAPER_METHOD])
    return paper[paper.item.isin(part.item)].gap.mean()


def setting(name: str, choice: str) -> str:
    """What a variant sets, for readers: "λ2 1, γ 0.2", "black", "16"."""
    method, options = parse(without_preset(name))
    if name == REFERENCE or method != REFERENCE:
        return label(name)
    if choice == "l2_gamma":
        return f"λ₂ {options.get('l2', 0.1):g}, γ {options.get('gamma', 1.0):g}"
    if not options:
        return f"{_default(choice)} (paper)"
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in options.values())


def _default(choice: str) -> str:
    known = {"tokens": "likelihood ratio", "baseline": "blur", "masks": "one", "mask_size": "32"}
    known |= {"iterations": "5", "steps": "10", "noise": "0.2", "lr": "10"}
    return (known | {"l2_unit": "sum", "preset": "last mask"})[choice]


def label(name: str) -> str:
    """`title` without the preset that nearly all variants share; our default says what it is."""
    if name == REFERENCE:
        return f"{title(name)}, mean of the masks"
    return title(without_preset(name))


def shown(frame: pd.DataFrame, choices=tuple(CHOICES)) -> pd.DataFrame:
    """The table of the chapter: choices below each other, differences with intervals."""
    rows = []
    for choice in choices:
        for row in choice_table(frame, choice).itertuples():
            paper = not np.isfinite(row.difference)
            change = "–" if paper else spread(row.difference, row.diff_low, row.diff_high)
            verdict = "" if paper else "yes" if row.clear else "no"
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
    base, against = gaps[labels[PAPER_METHOD]], differences(frame).set_index("method")
    rows = []
    for name, theirs in labels.items():
        ours = scored(frame[frame.method == name])
        ours = ours if len(ours) >= LEAST else ours.iloc[:0]
        row = {"the paper's row": theirs, "ours": label(name), "n": len(ours) or None}
        row |= {"paper": gaps[theirs], "mini": ours.gap.mean()}
        row["mini's first row, same items"] = beside(frame, ours)
        row["paper, minus its first row"] = gaps[theirs] - base
        other = against.loc[name] if name in against.index else None
        row["mini, minus its first row"] = (
            "–" if other is None else spread(other.difference, other.low, other.high)
        )
        rows.append(row)
    return pd.DataFrame(rows).assign(n=pd.Series([r["n"] for r in rows], dtype=object))


def weight_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean gap for every weight of the L2 term (rows) and decay gamma (columns) that was run.

    On the items that all of them have; `attrs["n"]` is their number.
    """
    table = wide(scored(frame))
    names = [n for n in ABLATIONS["l2_gamma"] if n in table and table[n].notna().sum() >= LEAST]
    table = table[names].dropna()
    values: dict[float, dict[float, float]] = {}
    for name, mean in table.mean().items():
        options = parse(name)[1]
        row = values.setdefault(float(options.get("l2", 0.1)), {})
        row[float(options.get("gamma", 1.0))] = mean
    grid = pd.DataFrame(values).T.sort_index().sort_index(axis=1)
    grid.attrs["n"] = len(table)
    return grid


# --- figures


@when_run
def ablation_figure(maps: pd.DataFrame, model: str, benchmark: str, choices=tuple(CHOICES)):
    """Every variant of iGOS minus the paper's setting, with intervals, by what it changes."""
    frame = variant_rows(one_model(maps, model, benchmark, variants=True))
    parts = [(c, choice_table(frame, c)) for c in choices]
    parts = [(c, t[t.difference.notna()]) for c, t in parts if len(t)]
    parts = [(c, t) for c, t in parts if len(t)]
    if not parts:
        return None
    lines = sum(len(t) + 1 for _, t in parts)
    figure, ax = plt.subplots(figsize=(0.85 * WIDTH, ROW * lines + 0.8), layout="constrained")
    chance_line(ax, 0)
    place, ticks, labels, heads = 0, [], [], set()
    for choice, table in parts:
        heads.add(place)
        ticks, labels, place = ticks + [place], [*labels, CHOICES[choice]], place + 1
        for row in table.itertuples():
            colour = SPECIAL if row.clear else CONTROL
            ax.plot([row.diff_low, row.diff_high], [place, place], color=colour, linewidth=1.6)
            ax.plot(row.difference, place, "o" if row.clear else "s", color=colour, markersize=5)
            ticks, labels, place = ticks + [place], [*labels, row.value], place + 1
    ax.set_yticks(ticks, labels, fontsize="small")
    for where, tick in zip(ticks, ax.get_yticklabels(), strict=True):
        tick.set_fontweight("bold" if where in heads else "normal")
    ax.set(
        ylim=(place - 0.4, -0.6), xlabel="variant minus the paper's setting, insertion − deletion"
    )
    return figure


@when_run
def weights_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Mean gap over the weight of the L2 term and its decay."""
    grid = weight_grid(variant_rows(one_model(maps, model, benchmark, variants=True)))
    if grid.size < 2:
        return None
    figure, ax = plt.subplots(figsize=(0.55 * WIDTH, 0.4 * WIDTH), layout="constrained")
    heat(ax, grid, "insertion − deletion", ".3f")
    ax.set(xlabel="decay γ", ylabel="weight λ₂")
    return figure


@when_run
def before_after_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """How far single items move under each variant: the spread that a mean hides."""
    frame = variant_rows(one_model(maps, model, benchmark, variants=True))
    names = differences(frame).method.tolist()
    table = wide(scored(frame))
    if not names:
        return None
    moved = table[names].sub(table[PAPER_METHOD], axis=0).dropna(how="all")
    order = moved.mean().sort_values(ascending=False).index
    long = moved[order].rename(columns=label).melt(var_name="variant", value_name="moved")
    figure, ax = plt.subplots(figsize=(WIDTH, ROW * len(names) + 0.8), layout="constrained")
    sns.boxplot(long, x="moved", y="variant", ax=ax, color="0.85", fliersize=1.5, linewidth=0.8)
    chance_line(ax, 0)
    ax.set(xlabel="variant minus the paper's setting, one item", ylabel="")
    ax.tick_params(axis="y", labelsize="small")
    return figure


# --- the numbers of the page


def summary(tables) -> dict:
    """`ablations.json`, from the tables of a results folder (`compare.Tables`)."""
    found = {} if tables.maps.empty else ablations_summary(tables.maps)
    return {"provenance": tables.origin(tables.maps), "models": found} if found else {}


def ablations_summary(maps: pd.DataFrame) -> dict:
    """{model: {benchmark: ...}}: what chapter 3 quotes; models without variants are left out."""
    out: dict = {}
    for (model, benchmark), part in variant_rows(maps).groupby(GROUP):
        if part.method.nunique() > 1:
            out.setdefault(model, {})[benchmark] = of_model(part)
    return out


def of_model(part: pd.DataFrame) -> dict:
    """Variants with their differences, and the verdicts in words.

    Every variant of `ABLATIONS` has an entry, so that a page can speak of one that has not been
    run yet; `said` is the difference with its interval, ready to be read.
    """
    found = differences(part)
    clear = found[found.clear.astype(bool)]
    better, worse = clear[clear.difference > 0], clear[clear.difference < 0]
    return {
        "items": int(part.item.nunique()),
        "n": int(len(scored(part[part.method == PAPER_METHOD]))),
        "power": power(found),
        "weights": weights_told(part),
        "count": len(found),
        "clear": len(clear),
        "within_noise": len(found) - len(clear),
        "leaning": int((~found.clear.astype(bool) & (found.low * found.high > 0)).sum()),
        "better": {"count": len(better), "titles": _titles(better, ascending=False)},
        "worse": {"count": len(worse), "titles": _titles(worse, ascending=True)},
        "largest_loss": _extreme(found, "idxmin"),
        "variants": {key(name): of_variant(part, found, name) for name in variant_names()},
        "fast": fast(part),
        "likeness": likeness_told(likeness(part)),
    }


def likeness_told(alike: pd.DataFrame) -> dict:
    """{variant: likeness with its interval}, and the settings that move the map most and least."""
    rows = alike.set_index("method")
    own = rows.drop(index=OTHERS, errors="ignore").value
    ends = {"most": own.idxmin(), "least": own.idxmax()} if len(own) else {}
    every = {
        key(name): {k: finite(row[k]) for k in ("value", "low", "high")} | {"n": int(row.n)}
        for name, row in rows.iterrows()
    }
    told = {k: {"title": label(name)} | every[key(name)] for k, name in ends.items()}
    return told | {"below_half": int((own < 0.5).sum()), "variants": every}


def power(found: pd.DataFrame) -> dict:
    """How many pairs the variants have, and for how many of them any verdict was within reach.

    With n pairs that all point one way a sign-flip test gives p = 2 / 2^n. `needed` is the n from
    which such a p survives Holm's first and strictest factor, the number of variants.
    """
    if found.empty:
        return {"fewest": 0, "usual": 0, "most": 0, "needed": 0, "short": 0}
    needed = int(np.ceil(np.log2(2 * len(found) / LEVEL)))
    pairs = {"fewest": found.n.min(), "usual": found.n.median(), "most": found.n.max()}
    counts = {name: int(value) for name, value in pairs.items()}
    return counts | {"needed": needed, "short": int((found.n < needed).sum())}


def weights_told(part: pd.DataFrame) -> dict:
    """Weight 1 with the slow and the fast decay, beside the paper's: all on the same items."""
    grid = weight_grid(part)
    names = {"slow": (1.0, 0.2), "fast": (1.0, 1.0), "paper": (0.1, 1.0)}
    values = {
        name: grid.loc[l2, gamma] if l2 in grid.index and gamma in grid.columns else np.nan
        for name, (l2, gamma) in names.items()
    }
    said = {k: f"{v:.2f}" if np.isfinite(v) else NOT_YET for k, v in values.items()}
    return said | {"n": grid.attrs["n"]}


def key(name: str) -> str:
    """A variant's name where square brackets already mean something: "l2=1,gamma=0.2".

    "paper" is the paper's setting, "default" ours.
    """
    own = {PAPER_METHOD: "paper", REFERENCE: "default"}
    short = without_preset(name)
    return own.get(name) or short.partition("[")[2].rstrip("]") or short


def of_variant(part: pd.DataFrame, found: pd.DataFrame, name: str) -> dict:
    """Scores of one variant; difference, interval and verdict unless it is the paper's setting."""
    rows = scored(part[part.method == name])
    out = {"title": label(name), "said": NOT_YET, "verdict": NOT_YET, "score": NOT_YET}
    if len(rows) < LEAST:
        return out | {"passes": NOT_YET}
    out |= {score: counted(rows[score]) for score in SCORES}
    out |= {"score": f"{rows.gap.mean():.2f}", "passes": f"{rows.forward.mean():.0f}"}
    if name in set(found.method):
        out |= _told(found.set_index("method").loc[name])
    return out


def _told(row) -> dict:
    """A difference in numbers and in words."""
    numbers = {k: finite(row[k]) for k in ("difference", "low", "high", "p_holm")}
    words = {"said": spread(row.difference, row.low, row.high, 3)}
    return numbers | words | {"pairs": int(row.n), "verdict": CLEAR if row.clear else UNCLEAR}


def fast(part: pd.DataFrame, name: str = "igos[preset=fast]") -> dict:
    """What the fast preset keeps of the default's gap, with the passes it makes; paired items.

    The bar: `SHARE` of the gap with at most `PASSES` of the passes. `verdict` is about the mean,
    `sure` about its 95 % interval.
    """
    table = wide(scored(part)).reindex(columns=[name, REFERENCE]).dropna()
    if len(table) < LEAST:
        waits = {"verdict": "has yet to be held against", "sure": NOT_YET, "in_passes": NOT_YET}
        return {"kept": NOT_YET, "passes": NOT_YET, "n": 0, "said": NOT_YET} | waits
    pairs = table.to_numpy(float)
    picks = np.random.default_rng(0).integers(0, len(pairs), (2000, len(pairs)))
    shares = 100 * pairs[picks, 0].mean(1) / pairs[picks, 1].mean(1)
    kept = float(100 * pairs[:, 0].mean() / pairs[:, 1].mean())
    rows = scored(part[part.item.isin(table.index)])
    passes = [rows[rows.method == n].forward.mean() for n in (name, REFERENCE)]
    low, high = np.quantile(shares, [0.025, 0.975])
    found, bar = paired_test(pairs[:, 0], pairs[:, 1]), 100 * SHARE
    return {
        "share": finite(kept),
        "kept": spread(kept, low, high, 1),
        "said": spread(found.difference, found.low, found.high, 3),
        "n": len(pairs),
        "passes": f"{100 * passes[0] / passes[1]:.0f}",
        "in_passes": "within" if passes[0] <= PASSES * passes[1] else "above",
        "verdict": "keeps" if kept >= bar else "does not keep",
        "sure": "above" if low >= bar else "below" if high < bar else "on both sides of",
    }


def _titles(rows: pd.DataFrame, ascending: bool) -> str:
    names = rows.sort_values("difference", ascending=ascending).method
    return "; ".join(label(name) for name in names) or "none"


def _extreme(found: pd.DataFrame, which: str) -> dict:
    if found.empty:
        return {"title": "none", "said": NOT_YET, "verdict": NOT_YET}
    row = found.loc[getattr(found.difference, which)()]
    return _told(row) | {"title": label(row.method)}
