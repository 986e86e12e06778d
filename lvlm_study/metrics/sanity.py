"""Sanity checks: does a map change with what it should depend on, and only with that?

A map of a model must not survive that the model's weights are drawn anew (Adebayo et al. 2018),
that other words are explained, or that another question is asked; and it should survive another
seed and a little noise. Each check runs the method again on a target that differs in one thing.
Model, image, answer and tokens are those of the first map, and the answer is never made again.
"""

import re
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..answers import Target, make_target
from ..errors import StudyError, unknown
from ..heatmaps import METHODS, check_method
from ..heatmaps.base import TARGET_OPTIONS, Explanation, check_options
from ..models.alone import alone
from ..pixels.masks import render
from .plausibility import rank_correlation

MODES = ("cascading", "independent")
LANGUAGE_STAGES = 4  # at most so many stages for the blocks of the language model
VISION = re.compile(r"vision_tower|vision_model|(?:^|\.)visual\.(?!merger)")
BLOCK = re.compile(r"^(?:model\.|language_model\.|text_model\.)*layers\.(\d+)\.")


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike two maps (H, W) are: 1 the same order, 0 unrelated, -1 the reverse.

    Spearman correlations at 14 x 14 cells, of the values and of their sizes (|S|, which for signed
    maps ignores the direction of an effect), and the structural similarity of the maps stretched to
    [0, 1]. NaN with status "constant" when either map is flat, "diverged" when one is not finite.
    """

    spearman: float
    spearman_abs: float
    ssim: float
    status: str = "ok"


@dataclass(frozen=True, eq=False)
class Comparison:
    """A map, the maps of the changed targets, and how alike they are, in the same order.

    `mean` is the mean Spearman correlation over `likeness`, NaN left out. Without crucial tokens
    there is nothing to compare: `status` says so and the lists are empty.
    """

    map: np.ndarray | None  # (H, W)
    others: tuple[np.ndarray, ...]
    likeness: tuple[Likeness, ...]
    status: str

    @property
    def mean(self) -> float:
        """Mean Spearman correlation; NaN if none is defined."""
        values = [one.spearman for one in self.likeness if np.isfinite(one.spearman)]
        return float(np.mean(values)) if values else np.nan


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How far the map moves under small noise, as a share of its own size |S|; 0 is still.

    `largest` is the max-sensitivity of Yeh et al. 2019, a lower bound from a few draws; `values`
    has one number a draw.
    """

    largest: float
    mean: float
    values: tuple[float, ...]
    radius: float
    status: str


@dataclass(frozen=True, eq=False)
class Infidelity:
    """How badly a map's mass predicts what taking regions away does to f (Yeh et al. 2019).

    `raw` = E[(a - b)²], a the map's mass in the region, b the loss of f in nats. Maps are in units
    of their own, so `scaled` = E[(scale a - b)²] with the best `scale` = E[ab] / E[a²] is what can
    be compared; `relative` = scaled / E[b²] is 0 for a map that predicts every loss and 1 for one
    that predicts none. A negative `scale` means that the map is inverted. `status` is "ok",
    "constant" (the map is zero), "no_effect" (no region changed f), "no_crucial_tokens" or
    "diverged".
    """

    raw: float
    scaled: float
    relative: float
    scale: float
    draws: int
    status: str


def randomised_weights(
    model,
    image,
    question: str,
    method: str = "igos",
    mode: str = "cascading",
    seed: int = 0,
    language_stages: int = LANGUAGE_STAGES,
    **options,
) -> pd.DataFrame:
    """Explain the same answer while the weights are drawn anew, stage by stage from the top.

    "cascading" keeps what has been drawn, "independent" draws one stage at a time. Each weight is
    drawn from a normal distribution with its tensor's own mean and spread, so that activations stay
    in range. It happens in a copy: the model itself is never touched (twice the memory). One row a
    stage: stage, mode, spearman, spearman_abs, ssim, probability (of the explained tokens, mean),
    status. A sound method falls towards 0 as soon as the model has forgotten what it knew; a map
    that stays shows the picture, not the model.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    run = _Run(model, image, question, method, seed, options)
    columns = ["stage", "mode", "spearman", "spearman_abs", "ssim", "probability", "status"]
    if run.target.status != "ok":
        return pd.DataFrame(columns=columns)
    rows, first = [], run.map()
    for stage, other in randomised_copies(model, mode, seed, language_stages):
        bound = other.bind(run.target.bound.size, question)
        changed = replace(run.target, bound=bound)
        with torch.no_grad():
            probability = float(changed.probability(changed.image))
        found = vars(likeness(first, run.map(changed)))
        rows.append({"stage": stage, "mode": mode, "probability": probability} | found)
    return pd.DataFrame(rows, columns=columns)


def random_logit(
    model, image, question: str, method: str = "igos", draws: int = 3, seed: int = 0, **options
) -> Comparison:
    """Explain words that the model did not say: each crucial token becomes a random other one.

    The map of another word should be another map (Sixt et al. 2020). Tokens are drawn from the
    vocabulary without special tokens; those that follow are read after them.
    """
    run = _Run(model, image, question, method, seed, options)
    if run.target.status != "ok":
        return run.nothing()
    draw = np.random.default_rng(seed)
    targets = [_other_words(run.target, draw) for _ in range(draws)]
    return run.compare(run.map(target) for target in targets)


def wrong_question(
    model, image, question: str, other: str, method: str = "igos", seed: int = 0, **options
) -> Comparison:
    """Explain the same answer as if it had been given to the question `other`.

    A map that does not change does not depend on what was asked. Not every change is meant: a
    question about the same object may well keep the map.
    """
    run = _Run(model, image, question, method, seed, options)
    if run.target.status != "ok":
        return run.nothing()
    bound = model.bind(run.target.bound.size, other)
    return run.compare([run.map(replace(run.target, bound=bound))])


def seed_stability(
    model, image, question: str, method: str = "igos", seeds=(0, 1, 2, 3, 4), **options
) -> Comparison:
    """The same map with other seeds: `likeness` has every pair. Below 1, the draw shows."""
    if len(set(seeds)) < 2:
        raise StudyError(f"Stability needs at least two different seeds, not {list(seeds)}.")
    run = _Run(model, image, question, method, seeds[0], options)
    if run.target.status != "ok":
        return run.nothing()
    maps = [run.map(seed=seed) for seed in seeds]
    alike = tuple(likeness(a, b) for a, b in combinations(maps, 2))
    return Comparison(maps[0], tuple(maps[1:]), alike, _worst(alike))


def sensitivity(
    model,
    image,
    question: str,
    method: str = "igos",
    radius: float = 0.05,
    draws: int = 5,
    seed: int = 0,
    **options,
) -> Sensitivity:
    """How far the map moves when every pixel is changed by up to `radius` of the full range.

    max |S(x + d) - S(x)| / |S(x)| over uniform draws d, Frobenius norms. Answer, tokens, baseline
    and the method's seed stay, so only the picture differs.
    """
    if not 0 < radius <= 1 or draws < 1:
        raise StudyError(f"sensitivity needs 0 < radius <= 1 and a draw, not {radius}, {draws}.")
    run = _Run(model, image, question, method, seed, options)
    if run.target.status != "ok":
        return Sensitivity(np.nan, np.nan, (), radius, run.target.status)
    first, size = run.map(), np.linalg.norm
    if not np.isfinite(first).all() or size(first) == 0:
        status = "constant" if np.isfinite(first).all() else "diverged"
        return Sensitivity(np.nan, np.nan, (), radius, status)
    moved = [run.map(_noisy(run.target, radius, seed + n)) for n in range(draws)]
    values = tuple(float(size(other - first) / size(first)) for other in moved)
    status = "ok" if np.isfinite(values).all() else "diverged"
    return Sensitivity(max(values), float(np.mean(values)), values, radius, status)


def infidelity(
    explanation: Explanation,
    draws: int = 100,
    side: float = 0.25,
    fill: Tensor | None = None,
    seed: int = 0,
    batch: int = 32,
) -> Infidelity:
    """Replace random squares (`side` of each side of the image) by the fill; see `Infidelity`.

    `fill` (1, 3, h, w) defaults to the target's baseline. The map counts as already multiplied by
    what is taken away (its value is what a pixel is worth), as deletion and insertion read it.
    """
    if not 0 < side <= 1 or draws < 2:
        raise StudyError(f"infidelity needs 0 < side <= 1 and two draws, not {side}, {draws}.")
    target = explanation.target
    if target.status != "ok" or not np.isfinite(explanation.saliency).all():
        status = "diverged" if target.status == "ok" else target.status
        return Infidelity(*[np.nan] * 4, 0, status)
    boxes = _squares(target.size, side, draws, seed)
    mass = _masses(explanation.saliency, target, boxes)
    empty = target.baseline if fill is None else fill
    with alone(target.bound.adapter), torch.no_grad():
        return _fidelity(mass, _losses(target, empty, boxes, batch))


def likeness(one: np.ndarray, other: np.ndarray) -> Likeness:
    """Compare two maps (H, W); see `Likeness`."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return Likeness(np.nan, np.nan, np.nan, "diverged")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return Likeness(np.nan, np.nan, np.nan, "constant")
    plain, sizes = rank_correlation(one, other), rank_correlation(abs(one), abs(other))
    return Likeness(plain, sizes, _ssim(one, other))


def weight_stages(module: nn.Module, language_stages: int = LANGUAGE_STAGES) -> dict[str, list]:
    """Names of the parameters of every stage, from the logits down to the picture.

    head, the language model's blocks in at most `language_stages` runs, projector (with the word
    embeddings and whatever belongs to no other stage), vision. Empty stages are left out; a head
    that shares its weights with the word embeddings takes them along.
    """
    head = getattr(module, "get_output_embeddings", lambda: None)()
    logits = set() if head is None else {id(weight) for weight in head.parameters()}
    weights = dict(module.named_parameters())
    blocks = sorted({_block(name) for name in weights} - {None})
    count = min(language_stages, len(blocks))
    runs = [run.tolist() for run in np.array_split(blocks, count)] if count else []
    run_of = {block: _run_name(run) for run in runs for block in run}
    order = ["head", *[_run_name(run) for run in reversed(runs)], "projector", "vision"]
    stages: dict[str, list] = {stage: [] for stage in order}
    for name, weight in weights.items():
        side = "vision" if VISION.search(name) else "projector"
        stage = "head" if id(weight) in logits else run_of.get(_block(name), side)
        stages[stage].append(name)
    return {stage: names for stage, names in stages.items() if names}


def randomised_copies(
    model, mode: str, seed: int = 0, language_stages: int = LANGUAGE_STAGES
) -> Iterator[tuple[str, object]]:
    """(stage, adapter) for every stage from the top; the adapter is the same copy each time.

    Use each before asking for the next. A joint model's detector sees through the copy's encoder;
    its own heads are no part of the answer and stay. Raises StudyError for a model without weights.
    """
    stages = weight_stages(model.model, language_stages)
    if not stages:
        raise StudyError(f"{model.name} has no weights that could be drawn anew.")
    other, memo = copy(model), {}
    other.model = deepcopy(model.model, memo)
    if hasattr(model, "detector"):
        other.detector = copy(model.detector)
        other.detector.model = deepcopy(model.detector.model, memo)  # one encoder, as before
    own, theirs = (dict(m.named_parameters()) for m in (model.model, other.model))
    generator = torch.Generator().manual_seed(seed)
    for stage, names in stages.items():
        for name in names:
            _redraw(theirs[name], generator)
        yield stage, other
        if mode == "independent":
            for name in names:
                theirs[name].data.copy_(own[name].data)


class _Run:
    """One method on one target and on targets that differ from it in one thing."""

    def __init__(self, model, image, question: str, method: str, seed: int, options: dict):
        method = check_method(method)
        about = {k: v for k, v in options.items() if k in (*TARGET_OPTIONS, "baseline")}
        own = {k: v for k, v in options.items() if k not in about}
        own = check_options(method, METHODS[method], own)
        self.method, self.seed, self.options = METHODS[method], seed, own
        self.target = make_target(model, image, question, seed=seed, **about)

    def map(self, target: Target | None = None, seed: int | None = None) -> np.ndarray:
        """The method's map in the size of the target's image, float64 (h, w)."""
        target, seed = target or self.target, self.seed if seed is None else seed
        with alone(target.bound.adapter):
            grid = self.method(target, seed=seed, **self.options).detach().float().cpu()
        if tuple(grid.shape) != target.size:
            grid = render(grid[None, None], target.size)[0, 0]
        return grid.double().numpy()

    def compare(self, others) -> Comparison:
        """The first map beside every other one, with the worst status."""
        first, others = self.map(), tuple(others)
        alike = tuple(likeness(first, other) for other in others)
        return Comparison(first, others, alike, _worst(alike))

    def nothing(self) -> Comparison:
        """No map: the answer has no target, and the status says why."""
        return Comparison(None, (), (), self.target.status)


def _worst(alike) -> str:
    """ "ok" if every pair could be compared, else what kept the first that could not."""
    return next((one.status for one in alike if one.status != "ok"), "ok")


def _ssim(one: np.ndarray, other: np.ndarray) -> float:
    from skimage.metrics import structural_similarity  # slow to import, needed here alone

    a, b = ((x - x.min()) / np.ptp(x) for x in (one, other))
    window = min(7, *a.shape)
    if window < 3:
        return np.nan
    return float(structural_similarity(a, b, data_range=1.0, win_size=window - 1 + window % 2))


def _block(name: str) -> int | None:
    """Number of the language model's block that a parameter belongs to."""
    hit = BLOCK.match(name)
    return int(hit[1]) if hit and not VISION.search(name) else None


def _run_name(blocks: list[int]) -> str:
    low, high = blocks[0], blocks[-1]
    return f"language {low}" if low == high else f"language {low}-{high}"


@torch.no_grad()
def _redraw(weight: Tensor, generator: torch.Generator) -> None:
    values = weight.float()
    spread = values.std(unbiased=False)
    fresh = torch.randn(weight.shape, generator=generator).to(values)
    weight.copy_(values.mean() + spread * fresh)


def _other_words(target: Target, draw: np.random.Generator) -> Target:
    """The target with every crucial token replaced by a random other one of the vocabulary."""
    tokenizer, answer = target.bound.adapter.tokenizer, target.answer
    with torch.no_grad():
        size = target.bound.logits(target.image, answer.token_ids[:1]).shape[-1]
    never = set(tokenizer.all_special_ids)
    ids = answer.token_ids.clone()
    for t in target.crucial.nonzero()[:, 0].tolist():
        allowed = [n for n in range(size) if n not in never and n != int(ids[t])]
        ids[t] = int(draw.choice(allowed))
    other = replace(target.reliance, answer=replace(answer, token_ids=ids))
    return replace(target, reliance=other)


def _noisy(target: Target, radius: float, seed: int) -> Target:
    generator = torch.Generator().manual_seed(seed)
    noise = (2 * torch.rand(target.image.shape, generator=generator) - 1) * radius
    return replace(target, image=(target.image + noise.to(target.image)).clamp(0, 1))


def _squares(size, side: float, draws: int, seed: int) -> list[tuple[slice, slice]]:
    draw = np.random.default_rng(seed)
    lengths = [max(1, round(n * side)) for n in size]
    starts = [draw.integers(0, n - k + 1, draws) for n, k in zip(size, lengths, strict=True)]
    return [
        (slice(y, y + lengths[0]), slice(x, x + lengths[1])) for y, x in zip(*starts, strict=True)
    ]


def _masses(saliency: np.ndarray, target: Target, boxes) -> np.ndarray:
    """The map's sum in every square, float64 (n,); the map brought to the working size."""
    if saliency.shape != target.size:
        fine = torch.from_numpy(saliency)[None, None].double()
        pooled = torch.nn.functional.adaptive_avg_pool2d(fine, target.size)[0, 0]
        saliency = pooled.numpy() * (saliency.size / pooled.numel())
    return np.array([saliency[rows, columns].sum(dtype=float) for rows, columns in boxes])


def _losses(target: Target, fill: Tensor, boxes, batch: int) -> np.ndarray:
    """f(image) - f(image with a square of the fill), nats, float64 (n,)."""
    found, full = [], target.score(target.image)
    size = target.micro_batch(batch)
    for first in range(0, len(boxes), size):
        some = boxes[first : first + size]
        images = target.image.repeat(len(some), 1, 1, 1)
        for image, (rows, columns) in zip(images, some, strict=True):
            image[:, rows, columns] = fill[0, :, rows, columns]
        found.append(full - target.score(images))
    return torch.cat(found).double().cpu().numpy()


def _fidelity(mass: np.ndarray, loss: np.ndarray) -> Infidelity:
    raw, power = float(np.mean((mass - loss) ** 2)), float(np.mean(loss**2))
    if power < 1e-12:
        return Infidelity(raw, np.nan, np.nan, np.nan, len(mass), "no_effect")
    if not mass.any():
        return Infidelity(raw, power, 1.0, np.nan, len(mass), "constant")
    scale = float(np.mean(mass * loss) / np.mean(mass**2))
    scaled = float(np.mean((scale * mass - loss) ** 2))
    return Infidelity(raw, scaled, scaled / power, scale, len(mass), "ok")
