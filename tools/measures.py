"""Other judges of maps: how much corrects a wrong answer, and picture and words judged together.

    python tools/measures.py [--items 40] [--only correction] [--results data/results/mini]

*Correction* (`metrics.correction`, EAGLE's AMCR and CSR@10 %): wrong answers on busy ground that
have crucial tokens; which are wrong is read from the stored rows. *Synergy* (`metrics.synergy`,
F_syn): explained answers on flat ground and the quick rankings of the whole prompt. Each has
controls that know nothing of the model. Everything goes into `measures.json`, after every item, so
that a run may be stopped; the next one, with the same weights, goes on with the items missing.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lvlm_study.answers import make_target
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain_target
from lvlm_study.heatmaps.variants import parse
from lvlm_study.judging import judge
from lvlm_study.metrics.correction import BUDGET, amcr, correction_region, csr
from lvlm_study.metrics.prompt import QUICK
from lvlm_study.metrics.statistics import estimate, finite, share
from lvlm_study.metrics.synergy import synergy
from lvlm_study.models import load_model
from lvlm_study.paths import data_dir
from lvlm_study.sweep import provenance
from lvlm_study.sweep.runner import item_seed, shuffled
from lvlm_study.sweep.stored import BUSY
from lvlm_study.sweep.tables import read_table, write

MAPS = ("igos[preset=lean]", "occlusion", "gae", "difference", "sobel", "center")
RANDOM, NOISE = "random", "noise"
RIVALS = (RANDOM, "difference")  # controls that the other maps are held against
DRAWS = 2  # of either, for every item; their mean counts
SCORES = ("score", "unclipped", "image", "words")  # of a `Synergy`


def correction_row(model, item, seed: int) -> dict | None:
    """The area that each map has to take away before a wrong answer is right; None if it is right.

    "random" has a list, one area a draw.
    """
    target = make_target(model, item.rgb, item.question, seed=seed)

    def right(text: str) -> bool:
        return judge(text, item) == "correct"

    def area(name: str, draw: int = 0) -> float | None:
        method, options = parse(name)
        ex = explain_target(method, target, seed=seed + draw, **options)
        return finite(correction_region(ex, right, seed=seed + draw))

    if target.status != "ok" or right(target.answer.text):
        return None
    return {name: area(name) for name in MAPS} | {RANDOM: [area(RANDOM, n) for n in range(DRAWS)]}


def synergy_row(model, item, seed: int) -> dict | None:
    """The scores of every ranking of the prompt; None for an answer without crucial tokens."""
    target = make_target(model, item.rgb, item.question, seed=seed)
    if target.status != "ok":
        return None

    def scores(relevance: torch.Tensor) -> dict:
        found = synergy(target, relevance, seed=seed)
        return {name: float(getattr(found, name)) for name in SCORES}

    def noise(draw: int) -> dict:
        generator = torch.Generator().manual_seed(seed + draw)
        return scores(torch.rand(len(ranked), generator=generator))

    own = {name: scores(ranked := rank(target)) for name, rank in QUICK.items()}
    drawn = [noise(n) for n in range(DRAWS)]
    return own | {NOISE: {name: float(np.mean([d[name] for d in drawn])) for name in SCORES}}


def tell_correction(rows: Sequence[dict]) -> dict:
    """{method: AMCR, by how much less area it takes than either control, CSR@10 %} of all items."""
    drawn = np.array([row[RANDOM] for row in rows], float)  # (items, draws)
    areas = {name: np.array([row[name] for row in rows], float) for name in MAPS}
    areas[RANDOM] = drawn.mean(1)
    shares = {name: csr(area) for name, area in areas.items()}
    # An item counts once, with the share of its draws: the interval is that of single draws.
    shares[RANDOM] = share(float((drawn <= BUDGET + 1e-9).mean(1).sum()), len(drawn))
    return {
        name: {"amcr": amcr(area).json(), "csr": shares[name]}
        | {"less": {rival: _mean(areas[rival] - area, name != rival) for rival in RIVALS}}
        for name, area in areas.items()
    }


def _mean(values: np.ndarray, told: bool = True) -> dict:
    """Their mean with its interval; nothing for a control beside itself."""
    return estimate(values if told else []).json()


def tell_synergy(rows: Sequence[dict]) -> dict:
    """{ranking: its scores, and by how much F_syn is above that of noise} over the items."""
    noise = np.array([row[NOISE]["score"] for row in rows])
    told = {}
    for name in (*QUICK, NOISE):
        own = {s: np.array([row[name][s] for row in rows]) for s in SCORES}
        told[name] = {s: _mean(values) for s, values in own.items()}
        told[name]["above"] = _mean(own["score"] - noise, name != NOISE)
    return told


@dataclass(frozen=True)
class Part:
    """One measure: on which answers, how an item is measured, what is told of all of them."""

    model: str
    benchmark: str
    row: Callable[..., dict | None]
    tell: Callable[[Sequence[dict]], dict]
    wrong: bool = False  # only answers that the stored rows of busy ground call wrong

    def items(self, results: Path) -> Iterator:
        """Items in the order of every sweep."""
        items = shuffled(load_benchmark(self.benchmark), None)
        known = wrong_items(results, self.model) if self.wrong else {i.id for i in items}
        return (item for item in items if item.id in known)


PARTS = {
    "correction": Part(
        *("mini/llava-1.5-s-clutter4", "sprites_clutter-4"), correction_row, tell_correction, True
    ),
    "synergy": Part("mini/llava-1.5", "sprites", synergy_row, tell_synergy),
}


def wrong_items(results: Path, model: str) -> set[str]:
    """Ids of the explained answers on busy ground that the stored rows call wrong."""
    rows = read_table(results / BUSY, "reliance")
    if rows.empty:
        raise StudyError(f"{results / BUSY} says of no answer that it is wrong; run that first.")
    mine = rows[(rows.model == model) & (rows.baseline == "blur") & (rows.status == "ok")]
    return set(mine.item[mine.verdict == "wrong"])


def measure(name: str, results: Path, count: int, seed: int = 0, say: Callable = print) -> None:
    """Bring one part of `measures.json` to `count` items, as far as there are so many."""
    part, path = PARTS[name], results / "measures.json"
    model = load_model(part.model)
    about = {"model": part.model, "benchmark": part.benchmark, "seed": seed}
    about |= {"weights": provenance.weights_checksum(model)}
    rows = earlier(path, name, about)[:count]
    known = {row["item"] for row in rows}
    for item in part.items(results):
        if len(rows) >= count:
            break
        if item.id in known:
            continue
        found = part.row(model, item, item_seed(seed, item.id))
        if found is not None:
            made = {"commit": provenance.commit(), "date": provenance.now()[:10]}
            rows.append({"item": item.id} | made | found)
            keep(path, name, about, rows)
            say(f"{name}: {len(rows)} of {count}, {item.id}", flush=True)
    if rows:  # also without new ones: what is told of them may have changed
        keep(path, name, about, rows)


def earlier(path: Path, name: str, about: dict) -> list[dict]:
    """The rows of an earlier run of the same model, weights, items and seed; else none."""
    part = _tree(path).get(name, {})
    return part["rows"] if all(part.get(key) == about[key] for key in about) else []


def keep(path: Path, name: str, about: dict, rows: list[dict]) -> None:
    """Put one part into the file, the others as they are."""
    told = {"n": len(rows), "methods": PARTS[name].tell(rows), "rows": rows}
    tree = _tree(path) | {name: about | told}
    parts = [tree[part] for part in PARTS if part in tree]
    made = [row for part in parts for row in part["rows"]]
    origin = {"profile": "mini", "model": [part["model"] for part in parts]}
    origin |= {"n": len(made), "seed": about["seed"], "versions": provenance.versions()}
    origin |= {"commit": ", ".join(sorted({row["commit"] for row in made if row["commit"]}))}
    tree["provenance"] = origin | {"date": max(row["date"] for row in made)}
    write(path, {"provenance": None} | tree)


def _tree(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing; the exit code is 2 where something needed is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=40, help="of each part (default: 40)")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--results", type=Path, default=data_dir() / "results" / "mini")
    options = parser.parse_args(argv)
    try:
        for name in [options.only] if options.only else PARTS:
            measure(name, options.results, options.items)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
