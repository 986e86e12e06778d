"""The audit: small demonstrations of what can go wrong between a map and a claim.

One function a claim of the paper. Each runs in seconds on tables, planted readers or tiny models,
and returns numbers or a small table; `audit_verdicts` says what follows from them. What is said
about the paper's released code was read there, or is taken from its issue tracker, and is built
again here in our own words: the code itself was not run.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy import stats

from ..heatmaps import explain
from ..heatmaps.igos import nesterov
from ..metrics.faithfulness import GRID_CELLS, Curve, deletion_insertion, step_counts
from ..metrics.mixed import exact_p
from ..metrics.plausibility import energy, rank_correlation, soft_iou
from ..models.planted import planted, planted_scene

DATASETS = ("mmvp", "mmstar", "cvbench", "llavabench")
CELLS, STEPS = GRID_CELLS**2, 50
WIDE = (64, 128)
QUESTION = "Which colour is the shape?"
PALE = 0.3  # Table 2: answers that lose less than this share of their probability


# --- Table 1: which way round were the rivals' maps?


def table1_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Insertion - deletion of every row of Table 1, one column a data set; 0 is chance."""
    gaps = {name: table[f"{name}_ins"] - table[f"{name}_del"] for name in DATASETS}
    return pd.concat([table[["lvlm", "method"]], pd.DataFrame(gaps)], axis=1)


def flipped_distance(table: pd.DataFrame, lvlm: str, method: str, other: str) -> pd.Series:
    """Row `method` with deletion and insertion swapped, minus row `other`: eight absolute values.

    A map turned upside down swaps its two scores; small values mean that the first row, turned
    over, could be the second.
    """
    rows = table[table.lvlm == lvlm].set_index("method")
    pairs = {
        f"{name}_{score}": rows.loc[method, f"{name}_{swapped}"]
        - rows.loc[other, f"{name}_{score}"]
        for name in DATASETS
        for score, swapped in (("del", "ins"), ("ins", "del"))
    }
    return pd.Series(pairs).abs()


def orientation_demo(reader: str = "object") -> pd.DataFrame:
    """The only right map of a planted reader, as it is and turned over: the scores swap."""
    model, found = explained(reader, (64, 64))
    truth = model.expected(found.target).numpy()
    truth = truth + 1e-3 * np.random.default_rng(0).random(truth.shape)  # no ties to be drawn for
    maps = {"as it is": truth, "turned over": -truth}
    return pd.DataFrame([{"map": name} | _scores(model, found, m) for name, m in maps.items()])


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
    model, found = explained(reader, WIDE)
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


def random_maps_demo(draws: int = 8, reader: str = "object") -> pd.DataFrame:
    """Maps that know nothing, scored both ways: one row a draw."""
    model, found = explained(reader, (32, 32))
    rows = []
    for seed in range(draws):
        noise = np.random.default_rng(seed).random((32, 32))
        rows.append(
            {"draw": seed}
            | {
                name: _scores(model, found, noise, compat=compat)["gap"]
                for name, compat in (("trapezoid", None), ("code", "paper_code"))
            }
        )
    return pd.DataFrame(rows)


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
        rows.append({"tokens": length, "pale": 100 * (drop < PALE).mean()})
        rows[-1]["per_token"] = ratios.mean()
    return pd.DataFrame(rows)


def pale_share(llr, times: float = 1.0) -> float:
    """Share (%) of answers that lose less than 30 %, had they `times` as many tokens alike.

    `llr`: one list of log-likelihood ratios an answer.
    """
    total = np.array([np.sum(np.asarray(one, float)) for one in llr])
    return float(100 * (1 - np.exp(-times * total) < PALE).mean())


# --- the step size behind Table 5


def step_demo(
    l2s=(0.0, 0.1, 1.0, 10.0), lrs=(10.0, 0.1), gamma: float = 0.2, iterations: int = 5
) -> pd.DataFrame:
    """How well the mask of a linear score keeps the order of its cells, after the paper's steps.

    The score is a weighted sum of 64 cells, so the best map is known: the weights. The mask takes
    `iterations` accelerated steps of size `lr` with the decaying L2 term, as iGOS does. `order` is
    Spearman's correlation of map and weights, `swing` the mean change of a cell in the last step:
    a large one says that cells jump back and forth and have not settled. `order` is NaN when all
    cells are equal: the map says nothing.
    """
    weights = torch.logspace(-3, -1, 64)
    rows = []
    for lr in lrs:
        for l2 in l2s:
            path = _linear_masks(weights, l2, lr, gamma, iterations)
            flat = bool((path[-1] == path[-1][0]).all())
            order = np.nan if flat else stats.spearmanr(1 - path[-1], weights).statistic
            swing = float((path[-1] - path[-2]).abs().mean())
            rows.append({"lr": lr, "l2": l2, "order": order, "swing": swing})
    return pd.DataFrame(rows)


def step_table() -> pd.DataFrame:
    """`step_demo` for both decays in use (paper 0.2, released code 1): order, a column a weight."""
    parts = [step_demo(), step_demo(lrs=(10.0,), gamma=1.0)]
    rows = []
    for part, gamma in zip(parts, (0.2, 1.0), strict=True):
        for lr, some in part.groupby("lr", sort=False):
            orders = {f"L2 {l2:g}": o for l2, o in zip(some.l2, some.order, strict=True)}
            rows.append({"step size": f"{lr:g}", "decay": f"{gamma:g}"} | orders)
    return pd.DataFrame(rows)


def igos_steps_demo(l2s=(0.0, 0.1, 1.0, 10.0), reader: str = "object") -> pd.DataFrame:
    """Insertion - deletion of iGOS on a planted reader under growing L2 weights, decay 0.2."""
    model, scene = planted(reader), planted_scene((64, 64))
    rows = []
    for l2 in l2s:
        found = explain(model, scene, QUESTION, method="igos", preset="paper", l2=l2, gamma=0.2)
        rows.append({"l2": l2, "gap": deletion_insertion(model, found).gap})
    return pd.DataFrame(rows)


def cell_path(weight: float, l2: float, lr: float, gamma: float = 0.2, iterations: int = 5):
    """The value of one mask cell after every step, (iterations + 1,), starting at 1 (kept)."""
    path = _linear_masks(torch.tensor([weight]), l2, lr, gamma, iterations)
    return [1.0, *(float(p) for p in path)]


def _linear_masks(weights, l2, lr, gamma, iterations) -> list:
    mask, point = torch.ones_like(weights), torch.zeros_like(weights)
    path = []
    for t in range(iterations):
        gradient = weights - 2 * l2 * np.exp(-gamma * t) * (1 - mask)
        mask, point = nesterov(mask, point, gradient, t, lr, momentum=5.0)
        path.append(mask)
    return path


# --- the sign of human attention


def human_demo(reader: str = "object") -> pd.DataFrame:
    """A good map against the evidence in place of people: both orientations, both scales.

    `rank_correlation` on 14 x 14 cells; `iou` is the soft overlap with both maps in [0, 1], and
    `iou_255` with the people's map left in 0..255, as a grey picture comes from a file.
    """
    model, found = explained(reader, (64, 64))
    people = model.evidence((64, 64)).astype(float)
    rows = []
    for name, one in (("as it is", found.saliency), ("turned over", 1 - found.saliency)):
        rho = rank_correlation(one, people)
        row = {"map": name, "rank correlation": rho, "iou": soft_iou(one, people, "max")}
        rows.append(row | {"iou_255": _bare_iou(one, 255 * people)})
    return pd.DataFrame(rows)


def _bare_iou(one, other) -> float:
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


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
        change = [_visual(core, image, b) - _visual(core, plain, b) for b in (True, False)]
        rows.append({"change": name} | _named(change))
    return pd.DataFrame(rows)


def _named(change) -> dict:
    return {k: float(c.abs().mean()) for k, c in zip(("with", "without"), change, strict=True)}


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


def with_factors(table: pd.DataFrame) -> pd.DataFrame:
    """Table 4 with two more columns: `family`, and `step`, the place of a size in its family."""
    family = table.model.str.split("-").str[0]
    step = table.groupby(["group", family]).cumcount()
    return table.assign(family=family, step=step)


def table4_tests(table: pd.DataFrame, group: str, factor: str) -> pd.DataFrame:
    """Tests of one half of Table 4 with models as the unit: one row a score.

    `factor` is a column that tells the groups apart. "anova" and "rank" are the usual tests,
    "permutation" compares the spread of group means with that under every way of dealing the
    models to the groups; `smallest` is the least p-value that such a test can give at all.
    """
    part = table[table.group == group]
    rows = []
    for score in ("del", "ins"):
        values, labels = part[score].to_numpy(), pd.factorize(part[factor])[0]
        sets = [values[labels == k] for k in range(labels.max() + 1)]
        p, smallest = exact_p(values, labels)
        row = {"score": score, "models": len(values), "anova": stats.f_oneway(*sets).pvalue}
        row |= {"rank": stats.kruskal(*sets).pvalue, "permutation": p, "smallest": smallest}
        rows.append(row)
    return pd.DataFrame(rows)


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
    return {
        "items": float((by_item < 0.05).mean()),
        "trainings": float((by_training < 0.05).mean()),
    }


# --- shared


def explained(reader: str, size):
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
