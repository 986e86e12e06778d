"""What does a map cost, when has it failed, and could anybody have known without the truth?

Passes are exact; seconds were measured while the sweep shared its machine and are rough.

Is a map stable, and does it depend on the model at all? Questions to every method, each answered by
explaining again (`sanity`): does another seed give the same map; does a map change when the weights
are drawn anew, from the logits down or one stage at a time, when other words are explained, or when
another question is asked? The answers are rank correlations with the first map at 14 x 14 cells:
1 the same, 0 unrelated. Two more are shares: how far a map moves under noise in the picture, of its
own size, and how much of what taking regions away does it fails to foretell. `lvlm-study sanity`
writes them all to `sanity.json`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..answers import make_target
from ..errors import StudyError
from ..figures import WIDTH, panels, when_run
from ..heatmaps import explain
from ..heatmaps.names import CONTROLS, REFERENCE, in_order, title
from ..heatmaps.progress import each
from ..heatmaps.variants import canonical, parse
from ..metrics.sanity import (
    infidelity,
    random_logit,
    randomised_weights,
    seed_stability,
    sensitivity,
    wrong_question,
)
from ..metrics.statistics import estimate
from ..sweep import provenance
from ..sweep.runner import dealt, item_seed
from ..sweep.tables import write
from .compare import (
    colour_of,
    counted,
    dots,
    finite,
    groups,
    method_scores,
    most_items_first,
    one_model,
    or_not_yet,
    rows_of,
    same_items,
    scored,
    spread,
    with_evidence,
    with_rivals,
)

MIB = 2**20
PAUSE = 600  # seconds without a new row: nothing was running
QUANTILE = 0.95  # of the random maps' gaps: what luck reaches once in twenty items
FLAGS = {  # a sign that needs no truth -> how readers call it
    "not_positive": "insertion − deletion at most 0",
    "like_random": "does not beat 95 % of random maps",
    "below_sobel": "worse than the picture's edges",
}
RATES = ("flagged", "base", "precision", "recall", "lift", "lift_low", "lift_high")
RATES += ("within", "within_low", "within_high")
BAD = {  # what makes a map bad, where the truth is known -> how readers call it
    "off_evidence": "less on the evidence than chance",
    "missed": "peak outside the evidence",
}
METHODS = (
    "igos",
    "igos[preset=paper]",
    "smoothgrad",
    "grad_cam",
    "llava_cam",
    "gae",
    "iia",
    "integrated_gradients",
    "occlusion",
    "attention",
    "rollout",
    "tam",
)
METHODS += ("sobel",)  # can only fail: it never sees the model
STAGES = 2  # the language model's blocks are drawn anew in so many steps
SEEDS = (0, 1, 2)
DRAWS = 2  # other words for each answer
NOISE_DRAWS = 2  # noisy pictures
CHECKS = ("seeds", "weights", "alone", "logit", "question", "noise", "infidelity")
STAGED = ("weights", "alone")  # checks with one value a stage: drawn anew in turn, or on its own
COLUMNS = ["item", "method", "check", "stage", "value", "status"]


# --- cost


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a method, cheapest first: medians over the maps that were made.

    Columns: method, title, n, forward, backward, seconds, mib (peak memory above the start), times
    (seconds relative to iGOS, on the same items), gap with `gap_low` and `gap_high`.
    """
    good = scored(frame)
    rows = [_cost(part, good) for _, part in good.groupby("method")]
    columns = ["method", "title", "n", "forward", "backward", "seconds", "mib", "times"]
    table = pd.DataFrame(rows, columns=columns)
    if table.empty:
        return table.assign(gap=[], gap_low=[], gap_high=[])
    gaps = method_scores(frame)[["method", "gap", "gap_low", "gap_high"]]
    return table.merge(gaps, on="method").sort_values("seconds", ignore_index=True)


def _cost(part: pd.DataFrame, good: pd.DataFrame) -> dict:
    method = part.method.iloc[0]
    other = good[(good.method == REFERENCE) & good.item.isin(part.item)].set_index("item").seconds
    times = (part.set_index("item").seconds / other).median() if len(other) else np.nan
    counts = {name: round(part[name].median()) for name in ("forward", "backward")}
    return {
        "method": method,
        "title": title(method),
        "n": len(part),
        **counts,
        "seconds": part.seconds.median(),
        "mib": part.peak_bytes.median() / MIB,
        "times": times,
    }


def cost_shown(maps: pd.DataFrame) -> pd.DataFrame:
    """The table of the chapter: models on which several methods ran, cheapest first in each."""
    rows = []
    for (model, _), part in most_items_first(with_rivals(rows_of(maps))):
        for row in costs(part[~part.method.isin(CONTROLS)]).itertuples():
            rows.append(
                {"model": model, "method": row.title, "n": row.n, "seconds": row.seconds}
                | {"ins − del": row.gap, "forward": row.forward, "backward": row.backward}
                | {"time / iGOS": row.times, "MiB": round(row.mib)}
            )
    return or_not_yet(pd.DataFrame(rows))


def pareto(table: pd.DataFrame) -> list[str]:
    """Methods that no other beats in both time and gap, cheapest first; controls do not count."""
    own = table[~table.method.isin(CONTROLS)].sort_values(["seconds", "gap"])
    best, names = -np.inf, []
    for row in own.itertuples():
        if row.gap > best:
            best = row.gap
            names.append(row.method)
    return names


# --- what happened to the items


def statuses(frame: pd.DataFrame) -> pd.DataFrame:
    """Items by status, a row a method (all rows of one model)."""
    if frame.empty:
        return or_not_yet(frame)
    table = frame.groupby(["method", "status"]).size().unstack(fill_value=0)
    table = table.loc[in_order(table.index)].rename(index=title)
    return or_not_yet(table.rename_axis(index="method", columns=None).reset_index())


# --- flags


def flagged(frame: pd.DataFrame) -> pd.DataFrame:
    """Maps of real methods with known evidence: every flag and every fault as a column of booleans.

    One model's rows. A flag reads the item's scores and those of its controls only.
    """
    good = with_evidence(frame)
    edges = good[good.method == "sobel"].drop_duplicates("item").set_index("item").gap
    own = good[~good.method.isin(CONTROLS)]
    return own.assign(
        not_positive=own.gap <= 0,
        like_random=own.gap <= luck(good),
        below_sobel=own.gap.to_numpy() < own.item.map(edges).to_numpy(float),
        off_evidence=own.energy_ratio < 1,
        missed=own.pointing_near < 0.5,
    )


def luck(good: pd.DataFrame) -> float:
    """What a random map reaches once in twenty items: the level of the flag `like_random`."""
    random = good[good.method == "random"].gap
    return random.quantile(QUANTILE) if len(random) else np.nan


def flag_scores(frame: pd.DataFrame, fault: str = "off_evidence") -> pd.DataFrame:
    """How often each flag is right, over all methods' maps of one model.

    Columns: flag, title, n (maps), flagged (share), base (share of bad maps), precision, recall,
    lift (precision - base: above 0 the flag knows something) with `lift_low` and `lift_high`;
    whole items are resampled, since the maps of one picture fail together.
    """
    maps = flagged(frame)
    rows = [{"flag": f, "title": t} | _rates(maps, f, fault) for f, t in FLAGS.items() if len(maps)]
    return pd.DataFrame(rows, columns=None if rows else ["flag", "title", "n"])


def _rates(maps: pd.DataFrame, flag: str, fault: str) -> dict:
    """Counts an item, then ratios of sums: of the data, and of resamples of the items.

    `within` is the lift against the share of bad maps of the *same method*: what a flag knows about
    a map beyond which method made it.
    """
    usual = maps.groupby("method")[fault].transform("mean")
    table = pd.DataFrame(
        {
            "item": maps.item,
            "all": 1,
            "bad": maps[fault],
            "flag": maps[flag],
            "both": maps[fault] & maps[flag],
            "rest": (maps[fault] - usual) * maps[flag],
        }
    )
    sums = table.groupby("item").sum().to_numpy(float)  # (items, 5)
    count = len(sums)
    picks = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 2000)
    every, bad, flags, both, rest = (np.vstack([np.ones(count), picks]) @ sums).T
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall, base = both / flags, both / bad, bad / every
        lift, within = precision - base, rest / flags
    ends = {}
    for name, values in (("lift", lift), ("within", within)):
        low, high = np.nanquantile(values, [0.025, 0.975]) if flags[0] else (np.nan, np.nan)
        ends |= {name: values[0], f"{name}_low": low, f"{name}_high": high}
    return {
        "n": int(every[0]),
        "items": count,
        "flagged": flags[0] / every[0],
        "base": base[0],
        "precision": precision[0],
        "recall": recall[0],
        **ends,
    }


def flags_by_method(frame: pd.DataFrame, flag: str = "like_random", fault: str = "off_evidence"):
    """One row a method: title, n, flagged, base, precision, recall."""
    rows = [
        {"method": method, "title": title(method)} | _rates(part, flag, fault)
        for method, part in flagged(frame).groupby("method")
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["method", "title", "n", "base"])
    return table.sort_values("base", ignore_index=True)


# --- does a map change with the model, and with nothing else?


def explainable(model, items, count: int, seed: int = 0) -> list[tuple]:
    """The first `count` items whose answer has crucial tokens, with the options that they need."""
    found = []
    for item in each(items, "answering"):
        answer = model.answer(item.rgb, item.question)
        if not answer.tokens:
            continue
        own = item_seed(seed, item.id)
        if make_target(model, item.rgb, item.question, answer=answer, seed=own)[0] is not None:
            found.append((item, answer))
        if len(found) == count:
            break
    return found


def measure(model, asked, methods=METHODS, say: Callable = print) -> pd.DataFrame:
    """Every check of every method on (item, answer) pairs; one row a value (see `COLUMNS`).

    Methods may carry options, "igos[preset=paper]".
    A method that refuses the model is left out with a word; `check` is one of `CHECKS`, `stage` the
    weights drawn anew last, for `STAGED` only.
    """
    rows, others = [], other_questions([item.question for item, _ in asked])
    for method in methods:
        started = time.perf_counter()
        try:
            pairs = list(zip(asked, others, strict=True))
            for (item, answer), other in each(pairs, method):
                rows += [
                    {"item": item.id, "method": method} | row
                    for row in _checks(model, item, answer, method, other)
                ]
        except StudyError as error:
            say(f"{method} is left out: {error}")
            rows = [row for row in rows if row["method"] != method]
            continue
        say(f"{method}: {len(asked)} items, {time.perf_counter() - started:.0f} s")
    return pd.DataFrame(rows, columns=COLUMNS)


def other_questions(questions: list[str]) -> list[str]:
    """For each question the next one that differs; itself where all are alike."""
    return [
        next((other for other in questions[n + 1 :] + questions[:n] if other != own), own)
        for n, own in enumerate(questions)
    ]


def _checks(model, item, answer, name: str, other: str) -> list[dict]:
    """The rows of one item and method."""
    method, options = parse(name)
    how, ask = options | {"answer": answer}, (model, item.rgb, item.question, method)
    shown = explain(*ask, **how)
    seeds = seed_stability(*ask, seeds=SEEDS, **how)
    words = random_logit(*ask, draws=DRAWS, **how)
    asked = wrong_question(*ask[:3], other, method, **how)
    noise = sensitivity(*ask, draws=NOISE_DRAWS, **how)
    told = infidelity(shown)
    one = [("seeds", seeds.mean, seeds), ("logit", words.mean, words)]
    one += [("question", asked.mean, asked), ("noise", noise.mean, noise)]
    one += [("infidelity", told.relative, told)]
    rows = [{"check": c, "stage": "", "value": v, "status": found.status} for c, v, found in one]
    for check, mode in zip(STAGED, ("cascading", "independent"), strict=True):
        found = randomised_weights(*ask, mode=mode, language_stages=STAGES, **how)
        rows += [
            {"check": check, "stage": row.stage, "value": row.spearman, "status": row.status}
            for row in found.itertuples()
        ]
    return rows


def summarise(rows: pd.DataFrame) -> dict:
    """{method: {check: mean with its interval, `STAGED` ones by stage, forgotten, silent}}.

    `forgotten` is the value after the last stage, when no weight of the model is left; `silent` the
    number of comparisons with a constant map, which have no value.
    """
    out = {}
    for method, part in rows.groupby("method", sort=False):
        of = {check: part[part.check == check] for check in CHECKS}
        told = {check: counted(of[check].value) for check in CHECKS if check not in STAGED}
        for check in STAGED:
            some = of[check].groupby("stage", sort=False).value
            told[check] = {stage: counted(values) for stage, values in some}
        last = list(told["weights"].values())[-1:] or [counted([])]
        silent = int((part.status == "constant").sum())
        out[method] = {"title": title(method), "forgotten": last[0], "silent": silent} | told
    return out


def study(
    name: str,
    results: Path,
    benchmark: str = "sprites",
    methods=METHODS,
    items: int = 8,
    profile: str = "mini",
    seed: int = 0,
    say: Callable = print,
) -> dict:
    """Measure the methods that are missing, and write `sanity.json`; returns its tree.

    Rows of an earlier run stay if it had the same model, weights, seed, items and versions; the
    file names the commit that measured each method.
    """
    from ..benchmarks import load_benchmark
    from ..models import load_model

    methods = [canonical(method) for method in methods]
    model = load_model(name)
    asked = explainable(model, dealt(load_benchmark(benchmark), None), items, seed)
    if not asked:
        raise StudyError(f"{name} has no answer on {benchmark} that could be explained.")
    about = {"profile": profile, "model": [name], "n": len(asked), "seed": seed}
    about |= {"weights": provenance.weights_checksum(model), "benchmark": benchmark}
    about |= {"commit": provenance.commit(), "versions": provenance.versions()}
    about |= {"date": provenance.now()[:10]}
    path, ids = Path(results) / "sanity.json", [item.id for item, _ in asked]
    rows, minutes, commits = kept(path, about, ids)
    for method in [m for m in methods if m not in set(rows.method)]:
        started = time.perf_counter()
        rows = pd.concat([rows, measure(model, asked, [method], say)], ignore_index=True)
        minutes += (time.perf_counter() - started) / 60
        commits |= {method: about["commit"]} if method in set(rows.method) else {}
        write(path, told_of(rows, about, minutes, commits))  # at once: no more than one is lost
    tree = told_of(rows, about, minutes, commits)
    write(path, tree)
    return tree


def kept(path: Path, about: dict, items: list[str]) -> tuple[pd.DataFrame, float, dict]:
    """(rows, minutes, commits) of an earlier run of the same model, seed and items; else nothing.

    Files from before weights and benchmark were recorded count as the same; methods whose commit
    was not yet recorded are of the one that the file names.
    """
    tree = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made, same = tree.get("provenance", {}), ("profile", "model", "n", "seed", "versions")
    rows = pd.DataFrame(tree.get("rows", []), columns=COLUMNS).astype({"value": float})
    agrees = all(made.get(k) == about[k] for k in same) and set(rows.item) == set(items)
    agrees &= all(made.get(k, about[k]) == about[k] for k in ("weights", "benchmark"))
    if not agrees:
        return rows.iloc[:0], 0.0, {}
    commits = dict.fromkeys(rows.method, made.get("commit")) | tree.get("commits", {})
    return rows, tree["minutes"], commits


def told_of(rows: pd.DataFrame, about: dict, minutes: float, commits: dict) -> dict:
    """The tree of `sanity.json`; minutes are those of all methods together."""
    tree = {"provenance": about, "n": about["n"], "minutes": minutes, "commits": commits}
    tree |= {"methods": summarise(rows)}
    records = rows.to_dict("records")
    return tree | {"rows": [row | {"value": finite(row["value"])} for row in records]}


def read_rows(results: Path) -> pd.DataFrame:
    """The rows of `sanity.json`; an empty table where it has not been made."""
    path = Path(results) / "sanity.json"
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"value": float})


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of the chapter: a row a method, means with intervals."""
    out = []
    for method in dict.fromkeys(rows.method):
        part = rows[rows.method == method]
        told = summarise(part)[method]
        cells = {"another seed": told["seeds"], "other words": told["logit"]}
        cells |= {"another question": told["question"], "no weight left": told["forgotten"]}
        items = part.item.nunique()
        row = {"method": title(method), "items": items}
        out.append(row | {label: _spread(found, items) for label, found in cells.items()})
    return or_not_yet(pd.DataFrame(out))


def seeds_said(results: Path) -> dict[tuple[str, str], str]:
    """{(model, method): how far maps with another seed are alike}: a column of other tables.

    A mean of rank correlations with its interval; "1, no chance" where no seed changed the map.
    """
    path = Path(results) / "sanity.json"
    if not path.is_file():
        return {}
    (model,) = json.loads(path.read_text(encoding="utf-8"))["provenance"]["model"]
    rows = read_rows(results)
    rows = rows[(rows.check == "seeds") & rows.value.notna()]
    return {(model, method): _alike(part.value) for method, part in rows.groupby("method")}


def _alike(values: pd.Series) -> str:
    found = counted(values)
    if values.min() > 1 - 1e-9:
        return "1, no chance"
    return spread(*[np.nan if found[k] is None else found[k] for k in ("value", "low", "high")])


def shown_alone(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a method: noise and infidelity, and the likeness with one stage alone drawn anew."""
    out = []
    for method, told in summarise(rows).items():
        cells = {"moved by noise": told["noise"], "infidelity": told["infidelity"]}
        cells |= {f"{stage} anew": found for stage, found in told["alone"].items()}
        row, items = {"method": title(method)}, rows[rows.method == method].item.nunique()
        out.append(row | {label: _spread(found, items) for label, found in cells.items()})
    return or_not_yet(pd.DataFrame(out))


def _spread(found: dict, items: int) -> str:
    """Mean and interval; with n where a constant map, which is like nothing, left fewer items."""
    told = spread(*[np.nan if found[k] is None else found[k] for k in ("value", "low", "high")])
    return told if found["n"] == items else f"{told} (n = {found['n']})"


# --- figures


def free_height(row, taken: list[tuple[float, float]], dots: pd.DataFrame) -> int:
    """Points above the dot at which a name runs into no other and no dot to its right.

    `taken` are the names so far, (seconds, height), which it joins.
    """
    ahead = dots[(dots.seconds > row.seconds) & (np.log10(dots.seconds / row.seconds) < 0.35)]
    for points in (3, -10, 13, -20, 23, -30):
        height = row.gap + points / 250  # about 250 points for a difference of 1
        near = [y for x, y in taken if abs(np.log10(row.seconds / x)) < 0.6]
        if all(abs(height - y) > 0.034 for y in (*near, *ahead.gap)):
            break
    taken.append((row.seconds, height))
    return points


@when_run
def cost_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Seconds a map against insertion - deletion: up and to the left is better."""
    table = costs(one_model(maps, model, benchmark))
    table = table[~table.method.isin(CONTROLS)]
    if table.empty:
        return None
    figure, ax = plt.subplots(figsize=(WIDTH, 0.75 * WIDTH), layout="constrained")
    taken = []
    for row in table.sort_values("seconds").itertuples():
        colour = colour_of(row.method)
        ax.plot([row.seconds] * 2, [row.gap_low, row.gap_high], color=colour, linewidth=1.2)
        ax.plot(row.seconds, row.gap, "o", color=colour, markersize=5)
        ax.annotate(
            row.title, (row.seconds, row.gap), xytext=(4, free_height(row, taken, table)),
            textcoords="offset points", fontsize="x-small",
        )  # fmt: skip
    ax.axhline(0, color="0.3", linestyle=":", linewidth=1)
    ax.set(xscale="log", xlabel="seconds for one map (log scale)", ylabel="insertion − deletion")
    return figure


@when_run
def flag_figure(maps: pd.DataFrame, model: str, benchmark: str, fault: str = "off_evidence"):
    """Share of bad maps among all, among those that a flag picks out, and how many it finds."""
    table = flag_scores(one_model(maps, model, benchmark), fault)
    if table.empty:
        return None
    figure, ax = plt.subplots(figsize=(0.85 * WIDTH, 0.36 * WIDTH), layout="constrained")
    names = {
        "base": "bad among all maps",
        "precision": "bad among flagged",
        "recall": "flagged among bad",
    }
    colours = sns.color_palette("cividis", len(names))
    for n, (column, label) in enumerate(names.items()):
        places = np.arange(len(table)) + 0.26 * (n - 1)
        ax.barh(places, 100 * table[column], height=0.24, color=colours[n], label=label)
    ax.set_yticks(range(len(table)), [FLAGS[f] for f in table.flag], fontsize="small")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel=f"% of maps (bad: {BAD[fault]})")
    figure.legend(loc="outside lower center", ncol=3, fontsize="small")
    return figure


@when_run
def flag_by_method_figure(maps: pd.DataFrame, model: str, benchmark: str):
    """Per method: the share of bad maps, and of those the share that the flag finds."""
    table = flags_by_method(one_model(maps, model, benchmark))
    if table.empty:
        return None
    order = table.method.tolist()
    figure, axes = panels(2, len(order))
    for ax, column, label in zip(
        axes, ("base", "recall"), ("bad maps", "bad maps that are flagged"), strict=True
    ):
        values = table.assign(none=np.nan)
        dots(ax, values, column, "none", "none", order)
        ax.set(xlim=(-0.02, 1.02), xlabel=label)
    return figure


@when_run
def cascade_figure(rows: pd.DataFrame):
    """Likeness to the first map while weights are drawn anew from the top: it should fall to 0."""
    rows = rows[(rows.check == "weights") & rows.value.notna()]
    if rows.empty:
        return None
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 * WIDTH), layout="constrained")
    stages = list(dict.fromkeys(rows.stage))
    styles, markers = sns.color_palette("colorblind"), "osD^vPX*<>hdp"
    for n, method in enumerate(in_order(rows.method.unique())):
        means = rows[rows.method == method].groupby("stage").value.mean().reindex(stages)
        line = {"color": styles[n % len(styles)], "marker": markers[n % len(markers)]}
        line |= {"linestyle": "--" if n >= len(styles) else "-", "markersize": 4}
        ax.plot(range(len(stages)), means, label=title(method), **line)
    chance_line_y(ax)
    ax.set_xticks(range(len(stages)), stages, rotation=20, fontsize="small")
    ax.set(ylabel="rank correlation with the first map", xlabel="drawn anew up to and including")
    figure.legend(loc="outside right upper", fontsize="x-small")
    return figure


def chance_line_y(ax) -> None:
    """The height of unrelated maps."""
    ax.axhline(0, color="0.3", linestyle=":", linewidth=1)


# --- the numbers of the page


def summary(tables) -> dict:
    """`cost.json`, from the tables of a results folder (`compare.Tables`)."""
    found = {} if tables.maps.empty else cost_summary(tables.maps)
    if not found:
        return {}
    hours = hours_taken(tables.maps, tables.reliance, tables.effects)
    return {"provenance": tables.origin(tables.maps), "models": found, "hours": hours}


def hours_taken(*tables: pd.DataFrame) -> dict[str, float]:
    """Hours of wall time that the rows took, by model and in "all", from when each was made.

    Times between one row of a model and its next are summed; longer ones than `PAUSE` are pauses.
    Models that shared the machine count one after the other, two workers on one model count once.
    """
    made = pd.concat([t[["model", "made"]] for t in tables if len(t)]).drop_duplicates()
    made = made.assign(made=pd.to_datetime(made.made)).sort_values(["model", "made"])
    gaps = made.groupby("model").made.diff().dt.total_seconds()
    taken = gaps.where(gaps <= PAUSE, 0.0).groupby(made.model).sum() / 3600
    return {str(k): float(v) for k, v in taken.items()} | {"all": float(taken.sum())}


def cost_summary(maps: pd.DataFrame) -> dict:
    """{model: {benchmark: ...}}: what chapter 5 quotes."""
    out: dict = {}
    for (model, benchmark), part in groups(rows_of(maps)):
        out.setdefault(model, {})[benchmark] = of_model(part)
    return out


def of_model(part: pd.DataFrame) -> dict:
    """Cost by method, statuses, flags."""
    table, same = costs(part), same_items(part)
    front = pareto(costs(same))
    keep = ("forward", "backward", "seconds", "mib", "times", "gap")
    return {
        "methods": {
            row["method"]: {"title": row["title"], "n": int(row["n"])}
            | {name: finite(row[name]) for name in keep}
            for _, row in table.iterrows()
        },
        "worth_it": {"titles": ", ".join(map(title, front)), "count": len(front)}
        | {"n": int(same.item.nunique())},
        "statuses": {str(k): int(v) for k, v in part.status.value_counts().items()},
        "cells": len(part),
        "flags": {fault: flags_told(part, fault) for fault in BAD if len(flagged(part))},
        "luck": finite(luck(with_evidence(part))),
        "reference_flag": reference_flag(part),
    }


def flags_told(part: pd.DataFrame, fault: str) -> dict:
    """Rates of every flag in per cent, with a verdict in words."""
    out = {}
    for row in flag_scores(part, fault).itertuples():
        told = {name: finite(100 * getattr(row, name)) for name in RATES}
        known, verdicts = ("knows something", "knows no more than a guess"), {}
        for name, key in (("lift", "verdict"), ("within", "verdict_within")):
            verdicts[key] = known[0] if getattr(row, f"{name}_low") > 0 else known[1]
        out[row.flag] = told | verdicts | {"n": row.n, "items": row.items}
    return out


def reference_flag(part: pd.DataFrame) -> dict:
    """The same for iGOS alone, the flag of the random maps."""
    maps = flagged(part)
    maps = maps[maps.method == REFERENCE]
    if maps.empty:
        return {}
    rates = _rates(maps, "like_random", "off_evidence")
    counts = {"n": rates.pop("n"), "items": rates.pop("items")}
    kinds = {"good_gap": maps[~maps.off_evidence], "bad_gap": maps[maps.off_evidence]}
    gaps = {name: _said(estimate(rows.gap)) for name, rows in kinds.items()}
    return counts | {k: finite(100 * v) for k, v in rates.items()} | gaps


def _said(found) -> str:
    return f"{spread(found.value, found.low, found.high)} (n = {found.n})"
