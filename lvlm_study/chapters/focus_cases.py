"""Cases that a reader can check with the eye: known readers, long answers, wrong answers.

The planted readers say whether the measures of `focus` measure what they claim; a description,
word by word, and wrong answers with the objects under their maps say what single maps tell.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..answers import make_target, retarget, tokens_within
from ..benchmarks.base import Item
from ..heatmaps import METHODS, explain
from ..heatmaps.base import Explanation, explain_target
from ..heatmaps.names import PAPER_METHOD
from ..metrics.counterfactual import object_mass
from ..metrics.faithfulness import Faithfulness, deletion_insertion
from ..models.planted import OBJECT, PlantedReader, planted, planted_scene
from ..scenes import scenes
from ..sweep.stored import enlarged
from . import ch06_focus as focus

HALVES = (OBJECT[:2] + (0.75, 0.375), (0.75, 0.125) + OBJECT[2:])


def known_readers() -> dict[str, PlantedReader]:
    """Readers whose needs are known, by what they need of the picture."""
    return {
        "one object": planted("object"),
        "both objects": planted("conjunctive"),
        "either object": planted("disjunctive"),
        "both halves of one object": PlantedReader("planted/halves", HALVES, "all"),
    }


@dataclass(frozen=True, eq=False)
class Case:
    """One known reader, explained by iGOS and by noise, both scored."""

    needs: str
    explanation: Explanation
    score: Faithfulness
    noise: Faithfulness

    @property
    def row(self) -> dict:
        """What the measures say, as one row of a table."""
        needed, enough = focus.half_points(*_curves(self.score))
        return {
            "the reader needs": self.needs,
            "insertion − deletion": self.score.gap,
            "needed": needed,
            "enough": enough,
            "composition": focus.composition(*_curves(self.score)),
            "the same, random map": focus.composition(*_curves(self.noise)),
            "regions": focus.regions(self.explanation.saliency),
        }


def known_cases(seed: int = 0) -> list[Case]:
    """Every known reader on the planted scene; a few seconds."""
    picture, cases = planted_scene(), []
    for needs, reader in known_readers().items():
        question = "What colour is the shape?"
        ask = (reader, picture, question)
        maps = [
            explain(*ask, "igos", seed=seed, preset="paper"),
            explain(*ask, "random", seed=seed),
        ]
        scores = [deletion_insertion(reader, each) for each in maps]
        cases.append(Case(needs, maps[0], *scores))
    return cases


def _curves(score: Faithfulness) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    deletion, insertion = score.deletion_curve, score.insertion_curve
    return deletion.fractions, deletion.normalised, insertion.normalised


# --- a long answer


def named_objects(text: str, scene: scenes.Scene) -> list[tuple[int, tuple[int, int]]]:
    """(object, where its name stands in the text) for names that the scene has once."""
    found = []
    all_names = [thing.name for thing in scene.objects]
    for number, thing in enumerate(scene.objects):
        hits = list(re.finditer(rf"\b{re.escape(thing.name)}\b", text))
        if len(hits) == 1 and all_names.count(thing.name) == 1:
            found.append((number, hits[0].span()))
    return sorted(found, key=lambda pair: pair[1])


def name_maps(
    model, item: Item, method: str = "igos", seed: int = 0
) -> list[tuple[int, Explanation]]:
    """(object, map of the word that names it), in the order of the answer.

    Answer and picture are shared; only the explained word differs. Objects that the answer does
    not name, or that share their name with another, are left out.
    """
    target, reliance = make_target(model, item.rgb, item.question, tokens="all", seed=seed)
    about = {"name": method, "model": model.name, "question": item.question}
    about["size"] = item.rgb.shape[:2]
    return [
        (
            number,
            explain_target(
                METHODS[method],
                *retarget(target, reliance, tokens_within(reliance.answer, [span])),
                seed=seed,
                options={},
                **about,
            ),
        )
        for number, span in named_objects(reliance.answer.text, item.extra["scene"])
    ]


def name_table(item: Item, maps: list[tuple[int, Explanation]]) -> pd.DataFrame:
    """One row a named object: the density of its word's map on it, and on the densest other.

    Density is share of the map over share of the picture; 1 is what an even map has anywhere.
    """
    scene, rows = item.extra["scene"], []
    masks = [scenes.mask(scene, n) for n in range(len(scene.objects))]
    area = np.array([mask.mean() for mask in masks])
    for number, explanation in maps:
        density = object_mass(explanation.saliency, masks) / area
        others = np.delete(density, number)
        rows.append(
            {
                "item": item.id,
                "word": scene.objects[number].name,
                "on its object": density[number],
                "on the densest other": others.max(initial=0.0),
                "found": bool(density[number] > others.max(initial=0.0)),
            }
        )
    return pd.DataFrame(rows)


def distinct(items: list[Item], most: int = 5) -> list[Item]:
    """Items whose scene has at most `most` objects, no two with one name."""
    names = [[thing.name for thing in item.extra["scene"].objects] for item in items]
    good = [len(each) == len(set(each)) <= most for each in names]
    return [item for item, fits in zip(items, good, strict=True) if fits]


@dataclass(frozen=True, eq=False)
class Story:
    """A description, with one map for every word that names an object of its own."""

    item: Item
    maps: list[tuple[int, Explanation]]  # (object, map of the word that names it)

    @property
    def text(self) -> str:
        """What the model wrote."""
        return self.maps[0][1].answer.text if self.maps else ""

    @property
    def table(self) -> pd.DataFrame:
        """`name_table` of this item."""
        return name_table(self.item, self.maps)


def told(model, items: list[Item], method: str = "gae") -> list[Story]:
    """Long answers name by name."""
    return [Story(item, name_maps(model, item, method)) for item in items]


# --- answers and the objects under their maps


def described(thing: scenes.Sprite) -> str:
    """ "red cat"."""
    return f"{thing.color} {thing.name}"


def under_the_map(saliency: np.ndarray, scene: scenes.Scene) -> list[tuple[str, float]]:
    """The scene's objects with their share of a stored map's mass, heaviest first."""
    big = enlarged(saliency, scenes.SIDE, scenes.SIDE)
    masks = [scenes.mask(scene, n) for n in range(len(scene.objects))]
    shares = object_mass(big, masks)
    order = np.argsort(-shares, kind="stable")
    return [(described(scene.objects[n]), float(shares[n])) for n in order]


def wrong_answers(
    maps: pd.DataFrame, items: dict[str, Item], method: str = PAPER_METHOD
) -> pd.DataFrame:
    """Wrong answers that have a map: what was said, and what lies under the map.

    `off` is the share of the map's mass on objects that do not decide the right answer, of its
    mass on objects: near 1, the model looked at the wrong thing. NaN where no object decides.
    """
    chosen = (maps.method == method) & (maps.verdict == "wrong") & (maps.status == "ok")
    rows = []
    for row in maps[chosen & maps.saliency.notna()].itertuples():
        item = items[row.item]
        things = under_the_map(row.saliency, item.extra["scene"])
        rows.append(
            {
                "model": row.model,
                "item": row.item,
                "question": row.question,
                "said": row.answer,
                "right": item.reference,
                "under the map": ", ".join(name for name, _ in things[:4]),
                "off": off_the_evidence(row.saliency, item),
            }
        )
    columns = ["model", "item", "question", "said", "right", "under the map", "off"]
    return pd.DataFrame(rows, columns=columns)


def off_the_evidence(saliency: np.ndarray, item: Item) -> float:
    """Of a map's mass on objects, the share on objects that the right answer does not need."""
    scene, deciding = item.extra["scene"], item.extra["objects"]
    if not deciding:
        return float("nan")
    masks = [scenes.mask(scene, n) for n in range(len(scene.objects))]
    shares = object_mass(enlarged(saliency, scenes.SIDE, scenes.SIDE), masks)
    total = shares.sum()
    return float(1 - shares[list(deciding)].sum() / total) if total > 0 else float("nan")
