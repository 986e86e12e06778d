"""Which claims of the paper hold, on what, and what do our results say about each?

First the claims, each with the paper's own words and our verdict, of which there are four. "holds
on ours" and "does not hold on ours" speak of our small models alone: no result of theirs can refute
a sentence about a model of seven billion parameters. "not shown by its evidence": what is offered
for the claim does not carry it, which leaves it open. "cannot tell here". The page fails when a
result no longer bears its verdict. Then small demonstrations of what can go wrong between a map and
a claim. Each runs in seconds on tables, planted readers or tiny models. What is said about the
paper's released code was read there, or is taken from its issue tracker, and is built again here in
our own words: the code itself was not run.

"igos" is the paper's own setting on this page, whatever our default is (`default_rows`).
"""

import textwrap
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from scipy import stats

from ..figures import ENDS, WIDTH, chance_line, dots, grid, overlay, panels
from ..heatmaps import explain
from ..heatmaps.igos import nesterov
from ..heatmaps.names import REFERENCE, title, without_preset
from ..metrics.faithfulness import GRID_CELLS, Curve, deletion_insertion, step_counts
from ..metrics.focus import composition, normalised, spread
from ..metrics.plausibility import energy
from ..metrics.quadrants import lift, sorted_rows
from ..metrics.statistics import Estimate, estimate, finite, paired_test
from ..models.planted import planted, planted_scene
from ..paths import data_dir
from ..sweep.results import NOT_YET
from ..sweep.stored import grids, one_way
from .compare import (
    FEWEST,
    colour_of,
    comparable,
    first_trainings,
    one_each,
    over_draws,
    studied,
    table4_tests,
    with_factors,
)

DATASETS = ("mmvp", "mmstar", "cvbench", "llavabench")
CELLS, STEPS = GRID_CELLS**2, 50
WIDE = (64, 128)
QUESTION = "Which colour is the shape?"
PALE = 0.3  # Table 2: answers that lose less than this share of their probability
METHODS = ("Grad-CAM", "T-MM", "IIA", "Ours")
RIVALS = ("grad_cam", "gae", "iia")  # the first three, as they are called here
DRAWN = ("igos", *RIVALS, "difference", "sobel", "center", "random")
TIMES = {"half": 0.5, "once": 1.0, "twice": 2.0, "four_times": 4.0}
L2S = (0.0, 0.1, 1.0, 10.0)
FOUND = "what we found"
VERDICTS = {
    "zoo": "holds on ours",
    "against": "does not hold on ours",
    "unshown": "not shown by its evidence",
    "open": "cannot tell here",
}
VARIANTS = {  # what the claims call them -> our names; each is compared with "igos"
    "keywords": "igos[tokens=keywords]",
    "whole answer": "igos[tokens=all]",
    "black": "igos[baseline=black]",
    "noise": "igos[baseline=noise]",
    "mean": "igos[baseline=mean]",
    "no L2": "igos[l2=0]",
    "L2 1": "igos[l2=1]",
    "L2 10": "igos[l2=10]",
    "L2 1, decay 0.2": "igos[l2=1,gamma=0.2]",
    "L2 10, decay 0.2": "igos[l2=10,gamma=0.2]",
}
TWO_MASKS = "igos++"
LIFT = ("difference", "low", "high")
MANY, TILES = "mini/cambrian-l", "mini/llava-ov"  # several encoders, and several tiles


# --- the claims


def claims() -> pd.DataFrame:
    """The paper's claims in its own words, where it makes them, what we found, and our verdict.

    A row each; what we found names numbers of `audit.json` in braces.
    """
    return pd.read_csv(data_dir() / "paper" / "claims.csv")


def verdicts(tree: dict) -> pd.DataFrame:
    """`claims` with the numbers of `audit.json` filled in."""
    table, told = claims(), _told(tree)
    return table.assign(**{FOUND: [_filled(text, told) for text in table[FOUND]]})


def _filled(text: str, told: dict) -> str:
    """The text with its numbers, or "not yet run" where a results folder lacks one."""
    try:
        return text.format(**told)
    except KeyError:
        return NOT_YET


def _told(tree):
    """The tree with every estimate as one, whose form is "0.73 [0.64, 0.81]"; no empty parts."""
    if not isinstance(tree, dict):
        return tree
    if "value" in tree:
        return Estimate.of_json(tree)
    return {name: _told(part) for name, part in tree.items() if part != {}}


# --- Table 1: which way round were the rivals' maps?


def table1_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Insertion - deletion of every row of Table 1, one column a data set; 0 is chance."""
    gaps = {name: table[f"{name}_ins"] - table[f"{name}_del"] for name in DATASETS}
    return pd.concat([table[["lvlm", "method"]], pd.DataFrame(gaps)], axis=1)


def flipped_distance(table: pd.DataFrame, lvlm: str, method: str, other: str) -> pd.Series:
    """Row `method` with deletion and insertion swapped, minus row `other`: eight absolute values.

    An inverted map swaps its two scores; small values mean that the first row, inverted, could be
    the second.
    """
    rows = table[table.lvlm == lvlm].set_index("method")
    pairs = {
        f"{name}_{score}": rows.loc[method, f"{name}_{swapped}"]
        - rows.loc[other, f"{name}_{score}"]
        for name in DATASETS
        for score, swapped in (("del", "ins"), ("ins", "del"))
    }
    return pd.Series(pairs).abs()


# --- tiles in the wrong order


def scrambled(saliency: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Where the cells of a map land when a `rows` x `columns` tile grid is cut with sides swapped.

    The mask is stretched over a canvas of `columns` x `rows` tiles, cut there row by row, and piece
    i is laid over tile i of the picture. A square grid comes back as it was. Returns the map that
    the picture's pixels really receive, (H, W) as given; `scrambled(.., columns, rows)` undoes it.
    """
    height, width = saliency.shape
    pieces = [
        p for band in np.array_split(saliency, columns) for p in np.array_split(band, rows, 1)
    ]
    tile = (height // rows, width // columns)
    placed = [_nearest(piece, tile) for piece in pieces]
    bands = [np.concatenate(placed[r * columns : (r + 1) * columns], 1) for r in range(rows)]
    return _nearest(np.concatenate(bands), (height, width))


def wrong_grids(most: int = 6) -> tuple[int, int]:
    """(grids that are put together wrongly, grids in all) for 1 x 1 up to `most` x `most` tiles."""
    side = np.lcm.reduce(np.arange(1, most + 1))
    numbered = np.arange(side * side).reshape(side, side)
    sizes = [(r, c) for r in range(1, most + 1) for c in range(1, most + 1)]
    wrong = sum(not np.array_equal(scrambled(numbered, r, c), numbered) for r, c in sizes)
    return wrong, len(sizes)


def tile_demo(reader: str = "object") -> pd.DataFrame:
    """A right map, and one optimised in the scrambled order, scored on the picture and through it.

    The picture is two tiles wide and one high. "through the swap" scores what the pixels receive
    when the map is cut with sides swapped; `energy` is the share of the shown map that lies on
    the evidence. Only tiles are modelled, not the small overview picture beside them.
    """
    model, found = explained(WIDE, reader)
    evidence = model.evidence(WIDE)
    shown = {
        "right map": model.expected(found.target).numpy(),
        "optimised through the swap": scrambled(found.saliency, 2, 1),
    }
    rows = []
    for name, one in shown.items():
        gaps = [_scores(model, found, m)["gap"] for m in (one, scrambled(one, 1, 2))]
        row = {"map": name, "on the picture": gaps[0], "through the swap": gaps[1]}
        rows.append(row | {"energy": energy(one, evidence)})
    return pd.DataFrame(rows)


# --- the sum under the curve


def two_sums(curves: pd.DataFrame) -> pd.DataFrame:
    """Insertion - deletion of stored curves by the trapezoid rule and by the released code's sum.

    `curves` are rows of the maps table with `area`, both curves and the two end scores. The code
    takes steps of 20 of 1024 cells, the last one shorter, leaves the start out of the sum and adds
    the last step's bare width; between stored points a curve is taken to be straight.
    """
    code = step_counts(CELLS, STEPS, "paper_code") / CELLS
    out = []
    for row in curves.itertuples():
        own, gap = np.asarray(row.area, float), {"trapezoid": 0.0, "code": 0.0}
        for sign, raw in ((1, row.insertion_curve), (-1, row.deletion_curve)):
            normal = (np.asarray(raw, float) - row.fill_score) / (row.image_score - row.fill_score)
            gap["trapezoid"] += sign * _area(own, normal)
            gap["code"] += sign * _area(code, np.interp(code, own, normal), "paper_code")
        out.append({"item": row.item} | gap)
    return pd.DataFrame(out, columns=["item", "trapezoid", "code"])


def _area(fractions: np.ndarray, values: np.ndarray, compat: str | None = None) -> float:
    return Curve(fractions, values, values, values).area(compat=compat)


# --- long answers


def length_demo(ratio: float = 0.06, spread: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """Answers of 2 to 40 tokens that all rest on the picture equally: what does Table 2 say?

    Every token's log-likelihood ratio is drawn from one normal distribution (nats). `pale` is the
    share (%) of answers that lose less than 30 % of their probability, `per_token` the mean ratio.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for length in (2, 5, 10, 20, 40):
        ratios = draw.normal(ratio, spread, (5000, length))
        drop = 1 - np.exp(-ratios.sum(1))
        pale = 100 * (drop < PALE).mean()
        rows.append({"tokens": length, "pale": pale, "per_token": ratios.mean()})
    return pd.DataFrame(rows)


def pale_share(llr, times: float = 1.0) -> float:
    """Share (%) of answers that lose less than 30 %, had they `times` as many tokens alike.

    `llr`: one list of log-likelihood ratios an answer.
    """
    total = np.array([np.sum(np.asarray(one, float)) for one in llr])
    return float(100 * (1 - np.exp(-times * total) < PALE).mean())


# --- the step size behind Table 5


def igos_steps_demo(l2s=L2S) -> pd.DataFrame:
    """Insertion - deletion of iGOS on a planted reader under growing L2 weights, decay 0.2."""
    model, scene = planted("object"), planted_scene((64, 64))
    rows = []
    for l2 in l2s:
        found = explain(model, scene, QUESTION, method="igos", preset="paper", l2=l2, gamma=0.2)
        rows.append({"l2": l2, "gap": deletion_insertion(model, found).gap})
    return pd.DataFrame(rows)


def cell_path(weight: float, l2: float, lr: float, gamma: float = 0.2, iterations: int = 5):
    """The value of one mask cell after every step, (iterations + 1,), starting at 1 (kept).

    The score is linear in the cell, with this weight; the L2 term decays as in iGOS.
    """
    mask, point, path = torch.ones(1), torch.zeros(1), [1.0]
    for t in range(iterations):
        gradient = weight - 2 * l2 * np.exp(-gamma * t) * (1 - mask)
        mask, point = nesterov(mask, point, gradient, t, lr, momentum=5.0)
        path.append(float(mask))
    return path


# --- Mini-Gemini without its second eye


def branch_demo(seed: int = 0) -> pd.DataFrame:
    """What a tiny Mini-Gemini notices of a change, with its high-resolution branch and without.

    "fine detail" is a checkerboard of single pixels, which the low-resolution view averages away;
    "coarse shape" a large bright square. `with` and `without`: mean absolute change of the visual
    tokens. Weights are random: this is about what can reach the model, not what it learned.
    """
    core = _tiny_mini_gemini(seed)
    side = core.config.image_size_aux
    plain = torch.zeros(1, 3, side, side)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    fine, coarse = plain + 1 - 2 * ((x + y) % 2), plain.clone()
    coarse[..., : side // 2, : side // 2] = 1
    rows = []
    for name, image in (("fine detail", fine), ("coarse shape", coarse)):
        row = {"change": name}
        for how, branch in (("with", True), ("without", False)):
            change = _visual(core, image, branch) - _visual(core, plain, branch)
            row[how] = float(change.abs().mean())
        rows.append(row)
    return pd.DataFrame(rows)


@torch.no_grad()
def _visual(core, image, branch: bool) -> torch.Tensor:
    """Visual tokens; without the branch CLIP's tokens go to the projector as they are."""
    low, high = core.encode(image)
    return core.combine(low, high) if branch else core.mm_projector(low.flatten(1, 2))


def _tiny_mini_gemini(seed: int):
    """Both towers, the mining and the projector at toy size, random weights."""
    from ..models.mini_gemini import MGMConfig, MGMLlamaModel

    clip = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    trunk = {"model_type": "convnext_trunk", "depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]}
    torch.manual_seed(seed)
    config = MGMConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        vocab_size=64, image_token_index=3, image_size_aux=64,
        vision_config=clip | {"image_size": 32, "patch_size": 8}, vision_config_aux=trunk,
    )  # fmt: skip
    return MGMLlamaModel(config).eval()


# --- tests without a unit


def false_alarms(
    spread: float = 0.05, noise: float = 0.3, items: int = 100, runs: int = 1000, seed: int = 0
) -> dict[str, float]:
    """How often two architectures that do not differ are declared different at p < 0.05.

    Each is trained three times; trainings differ by `spread`, items by `noise`. "items" tests the
    first training of each, item by item in pairs; "trainings" tests the three means of each.
    """
    draw = np.random.default_rng(seed)
    level = draw.normal(0, spread, (runs, 2, 3, 1))
    scores = level + draw.normal(0, noise, (runs, 2, 3, items))  # what an item adds to both cancels
    by_item = stats.ttest_rel(scores[:, 0, 0], scores[:, 1, 0], axis=-1).pvalue
    means = scores.mean(-1)
    by_training = stats.ttest_ind(means[:, 0], means[:, 1], axis=-1).pvalue
    alarms = {"items": by_item < 0.05, "trainings": by_training < 0.05}
    return {unit: float(found.mean()) for unit, found in alarms.items()}


# --- shared


def explained(size, reader: str = "object"):
    """A planted reader and the paper's explanation of the planted scene of that size (H, W)."""
    model = planted(reader)
    return model, explain(model, planted_scene(size), QUESTION, preset="paper")


def _scores(model, found, saliency, **options) -> dict:
    one = replace(found, saliency=np.asarray(saliency, np.float32))
    faith = deletion_insertion(model, one, **options)
    return {"deletion": faith.deletion, "insertion": faith.insertion, "gap": faith.gap}


def _nearest(values: np.ndarray, shape) -> np.ndarray:
    """Enlarged or reduced by picking the value under every new cell's centre."""
    rows, columns = (
        (2 * np.arange(n) + 1) * full // (2 * n)
        for n, full in zip(shape, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


# --- figures


def verdict_figure():
    """Every claim of `claims` in the column of its verdict, and how many stand in each."""
    table, words = claims(), list(VERDICTS.values())
    table = table.assign(column=table.verdict.map(words.index)).sort_values("column", kind="stable")
    size = (WIDTH, 0.9 + 0.25 * len(table))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    ax.grid(axis="y", color="0.92")
    for column, (mark, colour) in enumerate(zip("osDX", sns.color_palette(), strict=False)):
        rows = np.flatnonzero(table.column == column)
        ax.plot([column] * len(rows), rows, mark, color=colour, markersize=9)
    heads = [textwrap.fill(word, 9) for word in words]
    counted = [f"{head}\n({n})" for head, n in zip(heads, counts_in_order(table), strict=True)]
    ax.set_xticks(range(len(words)), counted, fontsize="small")
    ax.set_yticks(range(len(table)), table.claim, fontsize="small")
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(-0.5, len(words) - 0.5), ylim=(len(table) - 0.5, -0.5))
    return figure


def counts_in_order(table: pd.DataFrame) -> list[int]:
    """How many claims got each verdict of `VERDICTS`."""
    return [int((table.verdict == word).sum()) for word in VERDICTS.values()]


def table1_figure(table: pd.DataFrame):
    """Insertion - deletion of the paper's Table 1, a panel a model; crosses: T-MM inverted."""
    long = table1_gaps(table).melt(["lvlm", "method"], var_name="data", value_name="gap")
    names = list(long.lvlm.unique())
    figure, axes = grid(len(names), 0.36 * WIDTH, sharex=True)
    for ax, name in zip(axes, names, strict=True):
        part = long[long.lvlm == name]
        chance_line(ax, 0)
        ax.plot(part.gap, [METHODS.index(m) for m in part.method], "o", alpha=0.8)
        turned = -part.gap[part.method == "T-MM"]
        ax.plot(turned, [METHODS.index("T-MM")] * len(turned), "x", color="0.3")
        ax.set(title=name, yticks=range(len(METHODS)), yticklabels=METHODS)
    axes[0].invert_yaxis()
    figure.supxlabel("insertion − deletion in the paper", fontsize="small")
    return figure


def tile_figure():
    """A map as it is shown, and what the pixels receive when tiles are cut with sides swapped."""
    model, found = explained(WIDE)
    picture, evidence = planted_scene(WIDE), model.evidence(WIDE)
    truth = model.expected(found.target).numpy()
    panels = {
        "the map, where it is shown": truth,
        "where its cells land, sides swapped": scrambled(truth, 1, 2),
    }
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.3 * WIDTH), layout="constrained")
    for ax, (name, one) in zip(axes, panels.items(), strict=True):
        overlay(ax, picture, one, 0, 1, bar=False)
        ax.set_title(name, fontsize="small")
        ax.contour(evidence, [0.5], colors="white", linewidths=1.5)
        ax.axvline(WIDE[1] / 2 - 0.5, color="white", linestyle=":", linewidth=1)
    return figure


def step_figure(weight: float = 0.02, l2s=(0.1, 1.0, 10.0), lrs=(10.0, 0.1)):
    """One mask cell, step by step, under three L2 weights and two step sizes."""
    figure, axes = plt.subplots(
        1, len(lrs), figsize=(WIDTH, 0.36 * WIDTH), sharey=True, layout="constrained"
    )
    for ax, lr in zip(axes, lrs, strict=True):
        ends: dict = {}
        for style, l2 in zip(("o-", "s--", "^:"), l2s, strict=True):
            path = cell_path(weight, l2, lr)
            ax.plot(path, style)
            ends.setdefault(round(path[-1], 1), []).append(f"{l2:g}")
        for height, names in ends.items():
            ax.text(5.2, height, f"L2 {', '.join(names)}", va="center", fontsize="small")
        ax.set(xlabel="iteration", title=f"step size {lr:g}", xticks=range(6), xlim=(-0.2, 7.6))
    axes[0].set_ylabel("cell (1 = kept)")
    return figure


def rivals_figure(tree: dict):
    """Our own gaps of Table 1's methods and the controls, one panel a model, with intervals."""
    models = tree["rivals"]
    figure, axes = panels(len(models), len(DRAWN))
    colours = [colour_of(REFERENCE if name == "igos" else name) for name in DRAWN]
    for ax, (model, found) in zip(axes, models.items(), strict=False):
        chance_line(ax, 0)
        gaps = [found[name]["gap"] if name in found else None for name in DRAWN]
        dots(ax, gaps, [title(name) for name in DRAWN], colour=colours)
        n = found["igos"]["n"]
        ax.set_title(f"{model.removeprefix('mini/')}\nn = {n}", fontsize="small")
    figure.supxlabel("insertion − deletion", fontsize="small")
    return figure


# --- the numbers of the page


def summary(tables) -> dict:
    """`audit.json` of a results folder (`compare.Tables`); {} before anything has been run."""
    if tables.maps.empty or tables.reliance.empty or default_rows(tables.maps).empty:
        return {}
    tree = audit_summary(tables.maps, tables.reliance)
    return {"provenance": tables.origin(tables.maps)} | tree | {"verdicts": counts()}


def audit_summary(maps: pd.DataFrame, reliance: pd.DataFrame) -> dict:
    """The numbers behind the verdicts, for `audit.json`; what has not been run has no entry."""
    own = default_rows(maps)
    ok = comparable(own[own.gap.notna()])
    gaps = {m: rows.pivot_table("gap", "item", "method") for m, rows in ok.groupby("model")}
    return {
        "table1": table1_numbers(),
        "table4": table4_numbers(),
        "rivals": rivals(gaps),
        "control": against_difference(gaps),
        "ahead": ahead(gaps),
        "sums": sums(ok),
        "length": {m: lengths(rows) for m, rows in blurred(reliance).groupby("model")},
        "people": correlations(one_each(ok)),
        "variants": variants(gaps.get("mini/llava-1.5", pd.DataFrame())),
        "two_masks": two_masks(gaps),
        "time": time(own[own.model == "mini/llava-1.5"]),
        "composition": compositions(ok),
        "spread": spreads(ok),
        "quadrants": quadrants(own, reliance),
    }


def default_rows(maps: pd.DataFrame) -> pd.DataFrame:
    """Rows scored on the grid under blur, the study's default; of iGOS the paper's setting.

    Its rows and those of its variants are named without the preset; our own settings are left out.
    """
    rows = studied(one_way(maps))
    ours = rows.method.str.startswith("igos") & ~rows.method.str.contains("preset=paper")
    rows = rows[rows.units.notna() & ~ours]
    return over_draws(rows.assign(method=rows.method.map(without_preset)))


def blurred(reliance: pd.DataFrame) -> pd.DataFrame:
    """Rows under blur that could be scored, of one model an architecture."""
    rows = one_each(studied(reliance))
    return rows[(rows.baseline == "blur") & rows.total_drop.notna()]


def table1_numbers() -> dict:
    """How near the paper's T-MM row, inverted, comes to its IIA row."""
    table = pd.read_csv(data_dir() / "paper" / "table1.csv")
    apart = flipped_distance(table, "LLaVA-1.5-7b", "T-MM", "IIA")
    about = {"flipped_median": float(apart.median()), "flipped_largest": float(apart.max())}
    return about | {"numbers": len(apart)}


def table4_numbers() -> dict:
    """p-values of tests on Table 4's own rows, and how far its HD rows are from the plain ones.

    By architecture and by size: the `least` and the `most` that a usual test gives, and for each
    score the `smallest` that an exact one can give.
    """
    table = with_factors(pd.read_csv(data_dir() / "paper" / "table4.csv"))
    out = {}
    for name, group, factor in (
        ("vision", "vision_arch", "vision"),
        ("scale", "llm_scale", "step"),
    ):
        tests = table4_tests(table, group, factor).set_index("score")
        usual = tests[["anova", "rank", "permutation"]].to_numpy()
        out[name] = {"least": float(usual.min()), "most": float(usual.max())}
        out[name] |= {score: {"smallest": float(p)} for score, p in tests.smallest.items()}
    rows = table.set_index("model")[["del", "ins"]]
    apart = [rows.loc[f"{m}-HD"] - rows.loc[m] for m in ("Mini-Gemini-7b", "Mini-Gemini-13b")]
    return out | {"hd_largest": float(np.abs(apart).max())}


def rivals(gaps: dict[str, pd.DataFrame]) -> dict:
    """{model: {method: n, gap}}: Table 1's methods and the controls, where a rival was run."""
    return {
        model: {
            method: {"n": int(table[method].count()), "gap": estimate(table[method]).json()}
            for method in DRAWN
            if method in table
        }
        for model, table in gaps.items()
        if "igos" in table and set(RIVALS) & set(table)
    }


def against_difference(gaps: dict[str, pd.DataFrame]) -> dict:
    """{model: igos minus the model-blind difference picture}, where rivals were run too."""
    return {
        model: paired_test(table["igos"], table["difference"]).estimate.json()
        for model, table in gaps.items()
        if {"igos", "difference"} <= set(table) and set(RIVALS) & set(table)
    }


def ahead(gaps: dict[str, pd.DataFrame]) -> dict:
    """By rival, and for all of them: on how many models igos is ahead by more than chance.

    On the items of both; `higher` goes by the means, `clear` by 95 % intervals that are not
    corrected and that fewer than 20 items do not have; `behind` counts the other way; `fewest` and
    `most` are items.
    """
    found: dict[str, list] = {name: [] for name in RIVALS}
    for table in gaps.values():
        for name in set(RIVALS) & set(table) if "igos" in table else ():
            both = table[["igos", name]].dropna()
            if len(both) >= FEWEST:
                found[name].append(paired_test(both["igos"], both[name]).where_enough())
    found["all"] = [test for tests in found.values() for test in tests]
    return {
        name: {
            "models": len(tests),
            "higher": sum(test.difference > 0 for test in tests),
            "clear": sum(test.low > 0 for test in tests),
            "behind": sum(test.high < 0 for test in tests),
            "fewest": min((test.n for test in tests), default=0),
            "most": max((test.n for test in tests), default=0),
        }
        for name, tests in found.items()
    }


def sums(rows: pd.DataFrame) -> dict:
    """Stored curves added up both ways: the shift over all maps, and random maps by item.

    An item has one draw of noise for every model, so its models count as one.
    """
    curves = rows[rows.deletion_curve.notna()]
    every, random = (two_sums(part) for part in (curves, curves[curves.method == "random"]))
    random = random.groupby("item").mean()
    shift = every.code - every.trapezoid
    about = {"n": len(every), "shift": finite(shift.mean()), "spread": finite(shift.std())}
    both = {name: estimate(random[name]).json() for name in ("trapezoid", "code")}
    return {"all": about, "random": {"n": len(random)} | both}


def lengths(rows: pd.DataFrame) -> dict:
    """Share of pale answers as they are, and had they more or fewer tokens of the same kind."""
    return {"n": len(rows), "pale": {k: pale_share(rows.llr, times) for k, times in TIMES.items()}}


def correlations(rows: pd.DataFrame) -> dict:
    """Rank correlation of igos maps with the evidence, which stands where people would."""
    if "correlation" not in rows:
        return {}
    rated = rows[rows.correlation.notna() & (rows.method == "igos")]
    return {m: estimate(part.correlation).json() for m, part in rated.groupby("model")}


def variants(table: pd.DataFrame) -> dict:
    """{what a claim calls it: its gap minus that of igos}; `table` is items by methods."""
    return {
        words: paired_test(table[name], table["igos"]).estimate.json()
        for words, name in VARIANTS.items()
        if name in table
    }


def two_masks(gaps: dict[str, pd.DataFrame]) -> dict:
    """{model: igos++, which has a mask each for deletion and insertion, minus igos}."""
    return {
        model: paired_test(table[TWO_MASKS], table["igos"]).estimate.json()
        for model, table in gaps.items()
        if {TWO_MASKS, "igos"} <= set(table)
    }


def time(rows: pd.DataFrame) -> dict:
    """How many times the passes and the seconds of igos two masks take: medians over items.

    Rows that were computed apart from others, that is; {} without any.
    """
    if not {"forward", "seconds"} <= set(rows):
        return {}
    rows = rows[(rows.forward > 0) & rows.method.isin(["igos", TWO_MASKS])]
    wide = rows.pivot_table(["forward", "seconds"], "item", "method").dropna()
    if wide.empty or wide.shape[1] < 4:
        return {}
    told = {"passes": "forward", "seconds": "seconds"}
    ratio = {k: (wide[c][TWO_MASKS] / wide[c]["igos"]).median() for k, c in told.items()}
    return {name: float(value) for name, value in ratio.items()} | {"n": len(wide)}


def compositions(rows: pd.DataFrame) -> dict:
    """Composition index of `MANY` minus that of `TILES`: by igos maps, and by random ones."""
    out = {}
    for method in ("igos", "random"):
        part = rows[(rows.method == method) & rows.deletion_curve.notna()]
        found = _by_item(
            part.assign(index=[_composition(row) for row in part.itertuples()]), "index"
        )
        out |= {method: found} if found else {}
    return out


def _composition(row) -> float:
    curves = (
        normalised(raw, row.image_score, row.fill_score)
        for raw in (row.deletion_curve, row.insertion_curve)
    )
    return composition(row.area, *curves)


def spreads(rows: pd.DataFrame) -> dict:
    """The share of the picture over which igos maps of `MANY` are spread, minus that of `TILES`."""
    if "heatmap" not in rows:
        return {}
    part = rows[(rows.method == "igos") & rows.model.isin([MANY, TILES])]
    part = part.assign(spread=[np.nan if m is None else spread(m) for m in grids(part)])
    return _by_item(part, "spread")


def _by_item(rows: pd.DataFrame, value: str) -> dict:
    """`MANY` minus `TILES`, item by item; {} where one of them is missing."""
    wide = rows.pivot_table(value, "item", "model")
    if not {MANY, TILES} <= set(wide):
        return {}
    return paired_test(wide[MANY], wide[TILES]).estimate.json()


def quadrants(rows: pd.DataFrame, reliance: pd.DataFrame) -> dict:
    """Share of right answers with the igos map on the evidence minus off it, and who was wrong."""
    if "pointing_near" not in rows:
        return {}
    said = studied(reliance).drop_duplicates(["model", "item"])[["model", "item", "verdict"]]
    mine = first_trainings(rows[rows.method == "igos"]).merge(said, on=["model", "item"])
    found = lift(sorted_rows(mine))
    about = {name: finite(found[key]) for name, key in zip(ENDS, LIFT, strict=True)}
    return {"difference": about | {"n": found["n_on"] + found["n_off"]}, "wrong": found["wrong"]}


def counts() -> dict:
    """How many claims got which verdict."""
    table = claims()
    return {"claims": len(table)} | dict(zip(VERDICTS, counts_in_order(table), strict=True))
