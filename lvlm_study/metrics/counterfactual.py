"""What an object is really worth: draw the scene again without it and ask how the answer fares.

A drawn scene can be drawn as if an object had never been there, which no blur and no inpainting of
a photograph can do. The loss of the answer's score is that object's exact effect; a map that tells
the truth puts its mass where the effects are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.stats import rankdata

from ..answers import Target
from ..benchmarks.base import Item
from ..benchmarks.sprites import render
from ..errors import StudyError
from ..heatmaps.base import Explanation
from ..models.alone import alone
from ..pixels.images import to_tensor
from ..scenes import scenes
from ..scenes.scenes import Scene

LEAST_OBJECTS = 3  # ranks of two objects say nothing
LEAST_SPREAD = 1e-3  # nats; effects closer together than this are one effect


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Effects of a scene's objects beside a map's mass on them, in the scene's order.

    `effects` = f(image) - f(scene without object i), nats of the explained tokens: positive where
    the object speaks for the answer. `mass` is the map's positive saliency on the object, a share
    of all of it; `area` the object's share of the picture. `spearman` ranks mass against effect,
    `spearman_density` mass per area, so that a large object is not favoured for being large. `top`
    is 1 if the object with the most mass has the greatest effect (ties in part). `status`: "ok",
    "few_objects" (under 3), "constant_effects", "constant_map" (the same mass everywhere),
    "no_crucial_tokens" or "diverged"; NaN marks what then has no meaning.
    """

    effects: np.ndarray  # (O,)
    mass: np.ndarray  # (O,)
    area: np.ndarray  # (O,)
    spearman: float
    spearman_density: float
    top: float
    status: str


def counterfactual(
    explanation: Explanation, scene: Scene | Item, batch: int = 8, effects: np.ndarray | None = None
) -> Counterfactual:
    """Compare a map with the exact effects of the objects of its `scene`.

    `scene` is the drawn scene, or a benchmark item that carries it. `effects` are those of
    `object_effects` for the same target, to be computed once for many maps. Raises StudyError for
    an item without a scene and for a map of another size.
    """
    scene, saliency = scene_of(scene), explanation.saliency
    if saliency.shape != (scenes.SIDE, scenes.SIDE):
        raise StudyError(
            f"A scene is {scenes.SIDE} x {scenes.SIDE} pixels, the map {saliency.shape}: it must "
            "be a map of the picture that the scene draws."
        )
    masks = [scenes.mask(scene, i) for i in range(len(scene.objects))]
    area = np.array([mask.mean() for mask in masks])
    if explanation.target is None or explanation.status == "diverged":
        nothing = np.full(len(masks), np.nan)
        status = "diverged" if explanation.target else "no_crucial_tokens"
        return Counterfactual(nothing, nothing, area, np.nan, np.nan, np.nan, status)
    if effects is None:
        effects = object_effects(explanation.target, scene, batch)
    mass = object_mass(saliency, masks)
    return _compared(np.asarray(effects, float), mass, area)


def object_effects(target: Target, scene: Scene | Item, batch: int = 8) -> np.ndarray:
    """f(image) - f(scene drawn without object i) for every object, nats, float64 (O,).

    An item's scene is drawn in the item's own style, a bare scene shaded.
    """
    draw = _drawing(scene)
    scene, bound = scene_of(scene), target.bound
    reduced = getattr(bound, "reduced", lambda x: x)
    drawn = [
        reduced(to_tensor(draw(part))).to(target.image.device)
        for part in (scene, *(scene.without(i) for i in range(len(scene.objects))))
    ]
    if drawn[0].shape != target.image.shape or (drawn[0] - target.image).abs().max() > 1 / 512:
        raise StudyError("The scene does not draw the explained picture; give the item's own.")
    parts = torch.cat(drawn).split(target.micro_batch(batch))
    with alone(getattr(bound, "adapter", bound)), torch.no_grad():
        scores = torch.cat([target.score(part).double().cpu() for part in parts])  # (1 + O,)
    return (scores[0] - scores[1:]).numpy()


def object_mass(saliency: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    """Share of a map's positive saliency on every object (O,); zeros for a map without any."""
    positive = np.clip(np.asarray(saliency, float), 0, None)
    total = positive.sum()
    return np.array([positive[mask].sum() / total if total > 0 else 0.0 for mask in masks])


def scene_of(source: Scene | Item) -> Scene:
    """The scene itself, or the one that an item carries. Raises StudyError if there is none."""
    scene = source.extra.get("scene") if isinstance(source, Item) else source
    if not isinstance(scene, Scene):
        name = getattr(source, "id", type(source).__name__)
        raise StudyError(f"{name} has no drawn scene; only drawn scenes can lose an object.")
    return scene


def _drawing(source: Scene | Item) -> Callable[[Scene], np.ndarray]:
    """How the pictures of a source are drawn."""
    if not isinstance(source, Item) or "style" not in source.extra:
        return scenes.draw
    return partial(render, style=source.extra["style"], strip=source.extra["strip"])


def _compared(effects: np.ndarray, mass: np.ndarray, area: np.ndarray) -> Counterfactual:
    status = "ok"
    if len(effects) < LEAST_OBJECTS:
        status = "few_objects"
    elif np.ptp(effects) < LEAST_SPREAD:
        status = "constant_effects"
    elif np.ptp(mass) == 0:
        status = "constant_map"
    if status != "ok":
        return Counterfactual(effects, mass, area, np.nan, np.nan, np.nan, status)
    best = effects == effects.max()
    top = float(best[mass == mass.max()].mean())
    density = _spearman(mass / area, effects)
    return Counterfactual(effects, mass, area, _spearman(mass, effects), density, top, status)


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    a, b = rankdata(one.round(12)), rankdata(other.round(6))  # equal up to rounding is equal
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else np.nan
