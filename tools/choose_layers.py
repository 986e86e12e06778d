"""Choose the layer that Grad-CAM or LLaVA-CAM reads, on held-out scenes, once a model.

    python tools/choose_layers.py mini/llava-1.5 [--method grad_cam] [--items 40] [--depths 0.5,1]

Draws scenes from their own seed (`testset.HELD_OUT`; pictures of the test set are left out), maps
each at several depths, and prints for every depth the mean insertion minus deletion with its
interval and the AUC against the evidence. The depth with the highest insertion minus deletion is
what to enter in `lvlm_study/heatmaps/layers.py`, together with the lines printed here.
"""

import argparse
from collections.abc import Iterator
from itertools import islice

from lvlm_study.answers import make_target
from lvlm_study.benchmarks.sprites import SpriteItem, item_of, sprites
from lvlm_study.heatmaps import explain_target
from lvlm_study.metrics.faithfulness import deletion_insertion
from lvlm_study.metrics.plausibility import auc
from lvlm_study.metrics.statistics import Estimate, estimate
from lvlm_study.models import load_model
from lvlm_study.scenes.questions import CATEGORIES
from lvlm_study.scenes.testset import HELD_OUT, build

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS = 10  # of a deletion or insertion curve: enough to tell layers apart
FEW = {"llava_cam": {"samples": 8}}  # noisy copies: the layer is what is asked for


def held_out(per_category: int = 96) -> Iterator[SpriteItem]:
    """Held-out items with evidence, categories in turn; none of the test set's pictures."""
    known = {item.extra["sha256"] for item in sprites()}
    found = [item_of(record, "held_out") for record in build(HELD_OUT, per_category)]
    shelves = [[i for i in found if i.category == c and i.evidence is not None] for c in CATEGORIES]
    for row in zip(*[shelf for shelf in shelves if shelf], strict=False):
        yield from (item for item in row if item.extra["sha256"] not in known)


def targets(model, items) -> Iterator[tuple]:
    """(target, evidence) of items that are answered right because of the picture."""
    for item in items:
        target = make_target(model, item)
        if target.status == "ok" and target.answer.text.strip() == item.reference:
            yield target, item.evidence


def scores(target, evidence, method: str, depth: float) -> tuple[float, float]:
    """Insertion minus deletion, and AUC against the evidence, of one map."""
    ex = explain_target(method, target, depth=depth, **FEW.get(method, {}))
    faithful = deletion_insertion(None, ex, steps=STEPS)
    return faithful.insertion - faithful.deletion, auc(ex.saliency, evidence)


def table(model, method: str, items: int, depths=DEPTHS) -> dict[float, tuple[Estimate, Estimate]]:
    """{depth: (insertion minus deletion, AUC)} over the first usable items."""
    chosen = list(islice(targets(model, held_out()), items))
    found = {}
    for depth in depths:
        both = [scores(target, evidence, method, depth) for target, evidence in chosen]
        found[depth] = tuple(map(estimate, zip(*both, strict=True)))
        print(f"{method} {model.name} depth {depth:.3f}: {found[depth][0]}; AUC {found[depth][1]}")
    return found


def main() -> None:
    """Print the table and the entry that follows from it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--method", choices=("grad_cam", "llava_cam"), default="grad_cam")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--depths", type=lambda text: [float(d) for d in text.split(",")])
    options = parser.parse_args()
    model = load_model(options.model)
    found = table(model, options.method, options.items, options.depths or DEPTHS)
    best = max(found, key=lambda depth: found[depth][0].value)
    print(f'    ("{options.method}", "{model.name}"): {best},  # {found[best][0]:.3f}')


if __name__ == "__main__":
    main()
