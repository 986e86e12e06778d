"""Deletion and insertion: does taking away what a map calls important destroy the answer?

Units of the image are ranked by a map. Deletion replaces them by the fill from the most important
down, insertion brings them back in the same order. Flipping a map swaps the two scores exactly, so
insertion - deletion is 0 on average for a map that knows nothing: that is chance level, whatever
the model.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..answers import Target
from ..errors import StudyError, named
from ..heatmaps.base import MIN_GAP, Explanation, full_size
from ..heatmaps.controls import center, difference, random
from ..models import opened
from ..models.alone import alone
from ..models.several import Among
from ..pixels.arguments import check_seed, choice, number, whole
from ..pixels.imputation import impute

GRID_CELLS = 32
PATCH_PIXELS = 16
REGIONS = 64
MOST_STEPS = 1_000_000
ROAD = "road"  # a fill made anew for every mask, from what is left of the picture


@dataclass(frozen=True, eq=False)
class Curve:
    """One perturbation curve: the answer's probability as the share of changed area grows."""

    fractions: np.ndarray  # (S,) area changed, 0 .. 1
    raw: np.ndarray  # (S,) mean probability of the crucial tokens
    normalised: np.ndarray  # (S,) 0 at the fill, 1 at the image; not clipped
    log: np.ndarray  # (S,) mean log-probability, normalised in the same way

    def area(self, which: str = "normalised", compat: str | None = None) -> float:
        """Area under the curve by the trapezoid rule, both ends included.

        `compat="paper_code"` sums as the paper's released code: the right end of every step, and
        for the last one its bare width, whatever the score there. A falling curve then measures
        too little, a rising one too much.
        """
        values = getattr(self, which)
        if compat == "paper_code":
            widths = np.diff(self.fractions)
            return float(values[1:-1] @ widths[:-1] + widths[-1])
        return float(np.trapezoid(values, self.fractions))


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Deletion (low is good), insertion (high is good) and their gap; 0 gap is chance.

    Plain names are normalised: 0 is the probability on the fill alone, 1 on the whole image.
    `*_raw` are mean probabilities, `*_log` normalised mean log-probabilities. `status` is "ok",
    "no_crucial_tokens", "no_gap" (image and fill differ by less than the least gap, nothing to
    normalise by), or "diverged"; scores that have no meaning then are NaN and `curves` may be None.
    """

    deletion: float
    insertion: float
    deletion_raw: float
    insertion_raw: float
    deletion_log: float
    insertion_log: float
    image_score: float  # mean probability on the image
    fill_score: float  # mean probability on the fill
    deletion_curve: Curve | None = field(repr=False)
    insertion_curve: Curve | None = field(repr=False)
    n_steps: int
    units: str
    fill: str
    status: str

    @property
    def gap(self) -> float:
        """Insertion - deletion, normalised."""
        return self.insertion - self.deletion

    @property
    def gap_raw(self) -> float:
        """Insertion - deletion in probability: small when the image hardly matters."""
        return self.insertion_raw - self.deletion_raw


def deletion_insertion(
    model,
    explanation: Explanation,
    steps: int = 50,
    units: str | np.ndarray = "grid",
    fill=None,
    min_gap: float = MIN_GAP,
    batch: int = 32,
    seed: int = 0,
    compat: str | None = None,
) -> Faithfulness:
    """Score an explanation under its own target.

    `model` None is the model that was explained; under another one (or the name of one) the same
    map is scored with that model's probabilities of the same answer, see `under`.
    `units`: "grid" (32 x 32 cells of the image), "superpixels" (about 64 SLIC regions), "patches"
    (16 x 16 pixels), or integer labels (H, W). Masks are hard; a unit is ranked by the mean
    saliency of its pixels, ties by a draw from `seed`. `steps` equal numbers of units are changed;
    the x axis is the changed area. `fill` None takes the target's baseline, a name of `baselines()`
    or a picture (see `make_baseline`) another one; "road" fills every picture from what is left of
    it (`impute`), and with the mean colour where nothing is. `compat="paper_code"` takes the
    released code's step sizes and sums: on the grid they show a random map about +0.016 above
    chance.
    """
    steps, batch = whole(steps, "steps", 1, MOST_STEPS), whole(batch, "batch", 1)
    seed, min_gap = check_seed(seed), number(min_gap, "min_gap", 0)
    _check(explanation, compat)
    name = units if isinstance(units, str) else "labels"
    fill_name = fill if isinstance(fill, str) else "baseline" if fill is None else "tensor"
    target = under(model, explanation.target)
    if target.status != "ok" or explanation.status == "diverged" or not _finite(explanation):
        status = "diverged" if target.status == "ok" else target.status
        return _empty(status, steps, name, fill_name)
    labels = unit_labels(target, units)
    ranked = removal_order(unit_means(_fit(explanation.saliency, target), labels), seed)
    road = fill_name == ROAD
    empty = target.baseline if fill is None else target.fill("mean" if road else fill, seed)
    counts = step_counts(len(ranked), steps, compat)
    with alone(target.bound.adapter):
        own = seed if road else None
        curves = perturbation_curves(target, labels, ranked, counts, empty, batch, own)
    return _score(*curves, steps, name, fill_name, min_gap, compat)


def under(model, target: Target) -> Target:
    """The same picture, baseline and tokens of the answer under another model; None is its own.

    Raises StudyError for what is no model, and for one that cuts the answer into other tokens or
    works on huge photographs at another size: nothing then says which tokens to score.
    """
    model = None if model is None else opened(model)
    if model is None or model is target.bound.adapter or target.status != "ok":
        return target
    mine, text = target.bound.adapter, target.answer.text
    if isinstance(target.bound, Among):
        raise StudyError(
            f"A map of one of several pictures is scored by {mine.name}, which read them all; "
            f"explain the pictures with {model.name}."
        )
    bound = model.bind(target.bound.size, target.bound.question)
    alike = _spelling(model, target.answer) == _spelling(mine, target.answer)
    if not alike or tuple(getattr(bound, "work_size", target.size)) != target.size:
        raise StudyError(
            f"{model.name} has other tokens for {text!r} than {mine.name}, or sees the picture at "
            "another size; explain the answer with it, and put the map in by dataclasses.replace."
        )
    image, baseline = (x.to(model.device) for x in (target.image, target.baseline))
    return replace(target, bound=bound, image=image, baseline=baseline)


def _spelling(model, answer) -> list[str]:
    """The answer and each of its tokens as a model's tokenizer reads their numbers."""
    ids = answer.token_ids.tolist()
    try:
        return [model.tokenizer.decode(some) for some in (ids, *([i] for i in ids))]
    except (IndexError, OverflowError):  # a number that this vocabulary does not have
        return []


def controls(
    model, explanation: Explanation, draws: int = 5, seed: int = 0, **options
) -> dict[str, list[Faithfulness]]:
    """The same scores for maps that know nothing of the model.

    `{"random": [...], "center": [one], "difference": [one]}`: `draws` random maps show chance and
    its spread, a Gaussian on the middle what a habit of photographers would earn, and the distance
    of the image from its baseline what the test itself gives away. `options` go to
    `deletion_insertion` and should be those of the score that the controls stand beside.
    """
    if explanation.target.status != "ok":
        return {"random": [], "center": [], "difference": []}
    target, size = explanation.target, explanation.saliency.shape

    def rate(grid: Tensor, n: int) -> Faithfulness:
        other = replace(explanation, saliency=full_size(grid, size), status="ok")
        return deletion_insertion(model, other, seed=seed + n, **options)

    noise = [rate(random(target, seed=seed + n), n) for n in range(draws)]
    once = {"center": center, "difference": difference}
    return {"random": noise} | {name: [rate(draw(target), 0)] for name, draw in once.items()}


def beats_random(score: Faithfulness, noise: list[Faithfulness], share: float = 0.95) -> bool:
    """Whether a map's insertion - deletion is above `share` of those of random maps.

    The sign that needs no truth: where it is False, the explanation may have failed. `noise` is
    `controls(...)["random"]`, made with the options of `score`; for 95 % it takes 20 draws or more.
    Random maps that have no score are left out; without a score of its own a map beats nothing.
    """
    gaps = np.array([other.gap for other in noise], dtype=float)
    gaps = gaps[np.isfinite(gaps)]
    if len(gaps) * (1 - share) < 1 - 1e-9:
        raise StudyError(
            f"To say that a map beats {share:.0%} of random ones takes at least "
            f"{np.ceil(1 / (1 - share) - 1e-9):.0f} of them with a score, not {len(gaps)}; ask for "
            "more draws of `controls`."
        )
    return bool(score.gap > np.quantile(gaps, share))


def perturbation_curves(
    target: Target,
    labels: np.ndarray,
    ranked: np.ndarray,
    counts: np.ndarray,
    fill: Tensor,
    batch: int = 32,
    road: int | None = None,
) -> tuple[Curve, Curve]:
    """(deletion, insertion) curves for units changed in the order `ranked`, most important first.

    `counts` says how many units are changed at each point. Where they are symmetric about one
    half, the reversed order gives these two curves swapped and read backwards, image for image.
    With `road`, a seed, what is missing is filled from what is left; `fill` is the last picture.
    """
    rank, area = placed(labels, ranked)
    place = torch.from_numpy(rank).to(target.image.device)  # (h, w)
    inner, fractions = counts[1:-1], area[counts]
    ends = token_log_probs(target, torch.cat([target.image, fill]), batch)  # (2, K)
    if road is None:
        gone = _curve_log_probs(target, place, inner, target.image, fill, batch)
        back = _curve_log_probs(target, place, inner, fill, target.image, batch)
    else:
        gone = _imputed_log_probs(target, [rank < n for n in inner], batch, road)
        back = _imputed_log_probs(target, [rank >= n for n in inner], batch, road)
    full, none = ends[:1], ends[1:]
    deletion = _curve(fractions, torch.cat([full, gone, none]), full, none)
    insertion = _curve(fractions, torch.cat([none, back, full]), full, none)
    return deletion, insertion


def placed(labels: np.ndarray, ranked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rank (h, w) of every pixel's unit, 0 first; area (U + 1,) of the first n units, 0 .. 1)."""
    rank = np.empty(len(ranked), dtype=np.int64)
    rank[ranked] = np.arange(len(ranked))
    area = np.bincount(labels.ravel(), minlength=len(ranked))[ranked].cumsum() / labels.size
    return rank[labels], np.concatenate([[0.0], area])


def ranks_of(
    saliency: np.ndarray, target: Target, units: str | np.ndarray = "grid", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`placed` for the units of a map at the target's working size, ranked as for deletion."""
    labels = unit_labels(target, units)
    ranked = removal_order(unit_means(_fit(saliency, target), labels), seed)
    return placed(labels, ranked)


def step_counts(units: int, steps: int, compat: str | None = None) -> np.ndarray:
    """How many units are changed at each point, from 0 to all; n is in it whenever units - n is.

    `compat="paper_code"`: whole steps of units // steps, the last one shorter.
    """
    if compat == "paper_code":
        return np.append(np.arange(0, units, max(1, units // steps)), units)
    counts = np.floor(np.arange(steps + 1) * units / steps + 0.5).astype(int)
    return np.unique(np.concatenate([counts, units - counts]))


def removal_order(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Unit numbers from most to least important; equal values in an order drawn from `seed`."""
    draw = np.random.default_rng(seed).random(len(values))
    return np.lexsort((draw, values))[::-1]


def unit_means(saliency: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean saliency of the pixels of every unit, float64 (U,)."""
    flat = labels.ravel()
    total = np.bincount(flat, weights=saliency.astype(np.float64).ravel())
    return total / np.bincount(flat)


def unit_labels(target: Target, units: str | np.ndarray) -> np.ndarray:
    """Labels int (h, w), numbered 0 .. U-1 without holes, in the target's working size."""
    if isinstance(units, np.ndarray | Tensor | list | tuple):
        labels = _nearest(_labels(units), target)
    else:
        labels = UNITS[choice(units, "unit", UNITS)](target)
    return np.unique(labels, return_inverse=True)[1].reshape(target.size)


def grid_labels(target: Target, cells: int = GRID_CELLS) -> np.ndarray:
    """A `cells` x `cells` division of the image; a pixel belongs where its centre lies."""
    rows, columns = ((np.arange(n) * 2 + 1) * cells // (2 * n) for n in target.size)
    return rows[:, None] * cells + columns[None]


def patch_labels(target: Target, side: int = PATCH_PIXELS) -> np.ndarray:
    """Square patches of `side` pixels, the last row and column cut short."""
    rows, columns = (np.arange(n) // side for n in target.size)
    return rows[:, None] * (columns[-1] + 1) + columns[None]


def superpixel_labels(target: Target, regions: int = REGIONS) -> np.ndarray:
    """About `regions` SLIC superpixels, deterministic."""
    from skimage.segmentation import slic  # slow to import, needed for this unit alone

    rgb = target.image[0].permute(1, 2, 0).cpu().numpy()
    return slic(rgb, n_segments=regions, compactness=10, start_label=0, channel_axis=-1)


UNITS = {"grid": grid_labels, "superpixels": superpixel_labels, "patches": patch_labels}


def _curve_log_probs(target, place, counts, start, end, batch) -> Tensor:
    """(S, K) log-probabilities where the `n` first units of `start` are replaced from `end`.

    One picture is carried along and only the pixels that change are written, into one buffer.
    """
    pixels = place.flatten().argsort()
    until = torch.bincount(place.flatten()).cumsum(0).tolist()
    now, source, done = start.clone(), end.flatten(2), 0
    buffer = start.repeat(target.micro_batch(batch), 1, 1, 1)
    out = [start.new_zeros(0, int(target.crucial.sum()), device="cpu")]
    for first in range(0, len(counts), len(buffer)):
        some = counts[first : first + len(buffer)]
        for picture, n in zip(buffer, some, strict=False):
            new = pixels[done : until[n - 1]]
            now.flatten(2)[..., new] = source[..., new]
            done = until[n - 1]
            picture.copy_(now[0])
        out.append(token_log_probs(target, buffer[: len(some)], batch))
    return torch.cat(out)


def _imputed_log_probs(target, masks: list[np.ndarray], batch: int, seed: int) -> Tensor:
    """(S, K) log-probabilities of the image without each of the masks (h, w), filled in."""
    out = [target.image.new_zeros(0, int(target.crucial.sum()), device="cpu")]
    size = target.micro_batch(batch)
    for first in range(0, len(masks), size):
        some = [impute(target.image, gone, seed) for gone in masks[first : first + size]]
        out.append(token_log_probs(target, torch.cat(some), batch))
    return torch.cat(out)


@torch.no_grad()
def token_log_probs(target: Target, images: Tensor, batch: int) -> Tensor:
    """Log-probabilities (B, K) of the crucial tokens, in micro-batches, on the CPU."""
    parts = images.split(target.micro_batch(batch))
    return torch.cat([target.log_probs(part).float().cpu() for part in parts])  # (B, K)


def _curve(fractions, log_probs: Tensor, full: Tensor, none: Tensor) -> Curve:
    def stretched(y, one, zero):
        with np.errstate(divide="ignore", invalid="ignore"):
            return (y - zero) / (one - zero)

    p, p1, p0 = (x.double().exp().mean(-1).numpy() for x in (log_probs, full, none))
    q, q1, q0 = (x.double().mean(-1).numpy() for x in (log_probs, full, none))
    return Curve(fractions, p, stretched(p, p1, p0), stretched(q, q1, q0))


def _check(explanation, compat: str | None) -> None:
    if not isinstance(explanation, Explanation):
        raise StudyError(f"What is scored is an Explanation of explain, not {named(explanation)}.")
    if compat is not None and not (isinstance(compat, str) and compat == "paper_code"):
        raise StudyError(f"compat is None or 'paper_code', not {named(compat)}.")


def _score(deletion, insertion, steps, units, fill, min_gap, compat) -> Faithfulness:
    image_score, fill_score = float(insertion.raw[-1]), float(insertion.raw[0])
    flat = not abs(image_score - fill_score) >= min_gap
    areas = {
        f"{name}{suffix}": np.nan if flat and which != "raw" else curve.area(which, compat)
        for name, curve in (("deletion", deletion), ("insertion", insertion))
        for suffix, which in (("", "normalised"), ("_raw", "raw"), ("_log", "log"))
    }
    return Faithfulness(
        **areas,
        image_score=image_score,
        fill_score=fill_score,
        deletion_curve=deletion,
        insertion_curve=insertion,
        n_steps=steps,
        units=units,
        fill=fill,
        status="no_gap" if flat else "ok",
    )


def _empty(status: str, steps: int, units: str, fill: str) -> Faithfulness:
    nothing = dict.fromkeys(
        ("deletion", "insertion", "deletion_raw", "insertion_raw", "deletion_log", "insertion_log"),
        np.nan,
    )
    return Faithfulness(
        **nothing,
        image_score=np.nan,
        fill_score=np.nan,
        deletion_curve=None,
        insertion_curve=None,
        n_steps=steps,
        units=units,
        fill=fill,
        status=status,
    )


def _finite(explanation: Explanation) -> bool:
    return bool(np.isfinite(explanation.saliency).all())


def _labels(units) -> np.ndarray:
    """Unit labels as whole numbers (H, W)."""
    found = units.cpu().numpy() if isinstance(units, Tensor) else units
    try:
        found = np.asarray(found)
    except ValueError:
        raise StudyError("Unit labels are a table (H, W) of whole numbers; rows differ.") from None
    if found.dtype.kind not in "iub":
        raise StudyError(f"Unit labels are whole numbers (H, W), not {found.dtype}.")
    return found


def _nearest(labels: np.ndarray, target: Target) -> np.ndarray:
    """Labels drawn on the original image, in the working size."""
    if labels.shape != tuple(target.bound.size):
        raise StudyError(
            f"Unit labels must have the image's shape {tuple(target.bound.size)}, "
            f"not {labels.shape}."
        )
    rows, columns = (
        (2 * np.arange(n) + 1) * full // (2 * n)
        for n, full in zip(target.size, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def _fit(saliency: np.ndarray, target: Target) -> np.ndarray:
    """The map in the target's working size; an image worked on at full size is left as it is."""
    size, full = target.size, tuple(target.bound.size)
    if saliency.shape == size:
        return saliency
    if saliency.shape != full:
        raise StudyError(f"The map must have the image's shape {full}, not {saliency.shape}.")
    values = torch.from_numpy(np.ascontiguousarray(saliency))[None, None].double()
    return torch.nn.functional.adaptive_avg_pool2d(values, size)[0, 0].numpy()
