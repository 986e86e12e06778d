"""What explanations cost beside their floor: `python -m lvlm_study.sweep.bench`.

The floor of iGOS is its forward-backward passes alone, of the same model at the same batch size;
the floor of deletion and insertion its forward passes. Both are timed in turns with the real
thing and the best of several rounds counts, because other programs can only slow a machine down.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

from ..answers import Target, make_target, retarget
from ..benchmarks import load_benchmark
from ..errors import StudyError
from ..heatmaps import METHODS, explain
from ..heatmaps.base import MIN_GAP, measure
from ..heatmaps.detector_gradients import race
from ..heatmaps.eagle import TIE, Search, greedy, slic_zero
from ..heatmaps.gradient_alignment import answer_gradient, usual_queries
from ..heatmaps.igos import igos
from ..heatmaps.progress import each, passes
from ..metrics.faithfulness import deletion_insertion
from ..models import list_models, load_model
from ..models.planted import planted, planted_scene
from . import instead, provenance
from .runner import ROUGH_STEPS, STEPS, Sweep, shuffled
from .tables import write

USUAL = "mini/llava-1.5"  # whose numbers the book and the changelog give
JOINT = "mini/joint"  # the model of the zoo that `ga` works on
BATCH, SCORE_BATCH = 20, 32  # the defaults of `igos` and `deletion_insertion`
BAR_IGOS, BAR_SCORES = 1.3, 1.2
BAR_GA, NEAR_GA = 5, 1e-4  # how many times faster than a loop, and how near to it
BAR_EAGLE, REGIONS = 5, 16  # the same of its greedy search, and in how many regions it is timed
BAR_ANSWERS, ASKED = 10, 48  # answers a second on two cores, and how many are timed
COMPARED = 8  # items on which ours meet what one would pick instead
MEMORY_STEPS, MEMORY_BATCH = (5, 10, 20), 5  # several batches each, even for K = 5


@dataclass(frozen=True)
class Race:
    """Best time of a piece of work and of its floor, with the passes that each made."""

    name: str
    seconds: float
    floor: float
    passes: tuple[int, int]  # forward, backward
    floor_passes: tuple[int, int]
    bar: float

    @property
    def ratio(self) -> float:
        """How many times as long as its floor."""
        return self.seconds / self.floor

    def __str__(self) -> str:
        verdict = "within" if self.ratio <= self.bar else "ABOVE"
        return (
            f"{self.name:<36}{self.seconds:8.2f} s{self.floor:10.2f} s{self.ratio:8.2f}"
            f"   {verdict} the bar of {self.bar}"
        )


def target_of(model, item) -> Target:
    """What is explained: the item's crucial tokens, or all of them for a model that has none."""
    answer = model.answer(item.rgb, item.question)
    target = make_target(model, item.rgb, item.question, answer=answer)
    every = torch.ones_like(target.crucial)
    return target if target.status == "ok" else retarget(target, every)


def race_igos(target: Target, rounds: int = 3, whole: bool = True) -> Race:
    """iGOS by its defaults against as many plain forward-backward passes.

    `whole` passes start at the image, as those of iGOS must; others at the model's own inputs,
    without the differentiable resizing that the mask on the original image asks for.
    """
    start = "image" if whole else "model input"
    passes = 100

    def floor():
        for size in _batches(passes, target.micro_batch(BATCH)):
            plain_pass(target, size, whole)

    return _race(
        f"igos / passes from the {start}", target, lambda: igos(target), floor, rounds, BAR_IGOS
    )


def race_scores(model, explanation, rounds: int = 3) -> Race:
    """Deletion and insertion against as many plain forward passes."""
    target = explanation.target
    batch = target.micro_batch(SCORE_BATCH)
    passes = counted(target, lambda: deletion_insertion(model, explanation))[0]

    @torch.no_grad()
    def floor():
        for size in _batches(passes, batch):
            target.probability(target.image.expand(size, -1, -1, -1))

    return _race(
        "deletion and insertion / passes",
        target,
        lambda: deletion_insertion(model, explanation),
        floor,
        rounds,
        BAR_SCORES,
    )


def race_ga(target: Target) -> dict:
    """The cosines of `ga` by one forward-mode pass, against one backward pass for every output.

    Seconds of "cosines" and of the "loop", how many times "faster", and how far "apart" at most.
    """
    model = target.bound.adapter
    queries = model.detector.queries(usual_queries(target))
    with torch.no_grad():
        shared = model.shared(target.bound, target.image)
    return race(model.detector, shared[0], answer_gradient(target, shared), queries)


def ga_line(found: dict) -> str:
    """The race of `ga` in one line, with its verdict."""
    good = found["faster"] >= BAR_GA and found["apart"] <= NEAR_GA
    return (
        f"{'ga / one backward pass an output':<36}{found['cosines']:8.2f} s{found['loop']:10.2f} s"
        f"{found['faster']:7.0f} x   {'within' if good else 'MISSES'} the bar of {BAR_GA} x and "
        f"{NEAR_GA:g} apart ({found['apart']:.1e})"
    )


class OneByOne(Search):
    """EAGLE's loop as published: two pictures a candidate, one at a time, none remembered."""

    def __init__(self, target: Target, labels):
        super().__init__(target, labels, batch=1)

    def winner(self, sets: list[int]) -> tuple[int, float]:
        """Place of the best set, ties to the first, and its F; all sets are run."""
        found = self.scores(sets)
        best = min(n for n, value in enumerate(found) if value >= max(found) - TIE)
        return best, found[best]

    def _look(self, sets: list[int]) -> list[float]:
        found = []
        for one in sets:
            self.known.clear()
            found += super()._look([one])
        return found


@torch.no_grad()
def race_eagle(target: Target, regions: int = REGIONS) -> dict:
    """EAGLE's search against the published loop, once each, on the same superpixels.

    Seconds of the "search" and of the "loop", how many times "faster", and whether the order of
    the regions is the "same".
    """
    labels, orders, seconds = slic_zero(target, regions), [], []
    target.probability(target.image)  # first use
    for search in (Search(target, labels, batch=SCORE_BATCH), OneByOne(target, labels)):
        seconds.append(_seconds(lambda search=search: orders.append(greedy(search)[0])))
    here, loop = seconds
    return {"search": here, "loop": loop, "faster": loop / here, "same": orders[0] == orders[1]}


def eagle_line(found: dict) -> str:
    """The race of EAGLE in one line, with its verdict."""
    good = found["faster"] >= BAR_EAGLE and found["same"]
    return (
        f"{'eagle / one picture at a time':<36}{found['search']:8.2f} s{found['loop']:10.2f} s"
        f"{found['faster']:7.1f} x   {'within' if good else 'MISSES'} the bar of {BAR_EAGLE} x, "
        f"order {'the same' if found['same'] else 'DIFFERENT'}"
    )


def answers_line(model, items, cores: int = 2) -> str:
    """Answers a second of one process, and the same for every core by multiplication.

    Processes share nothing, but the second number is reckoned and not timed, and the line says so.
    """
    model.answer(items[0].rgb, items[0].question)  # first use
    rgb = [item.rgb for item in items]  # drawing is no part of answering

    def ask():
        for picture, item in zip(rgb, items, strict=True):
            model.answer(picture, item.question)

    rate = len(items) / _seconds(ask)
    verdict = "within" if cores * rate >= BAR_ANSWERS else "MISSES"
    return (
        f"{'answers a second':<36}{rate:8.1f} a core, {cores * rate:.1f} on {cores} cores "
        f"(reckoned)   {verdict} the bar of {BAR_ANSWERS} on two"
    )


def plain_pass(target: Target, batch: int, whole: bool = True) -> None:
    """One batched forward-backward pass, gradient with respect to the pictures."""
    images = target.image.repeat(batch, 1, 1, 1)
    if whole:
        images.requires_grad_()
        torch.autograd.grad(target.score(images).sum(), images)
        return
    with torch.no_grad():
        inputs = target.bound.pixels(images)
    leaves = encoder_inputs(inputs)
    ids = target.answer.token_ids[: int(target.crucial.nonzero()[-1]) + 1]
    output = target.bound._forward(inputs, batch, ids, {})
    table = output.logits.float().log_softmax(-1)  # (B, A, V)
    score = table.gather(-1, ids.to(table.device).expand(batch, -1)[..., None])
    torch.autograd.grad(score.sum(), leaves)


def encoder_inputs(inputs: dict) -> list[torch.Tensor]:
    """The pixels that enter a model, one tensor for each of its encoders, as gradient leaves."""
    pixels = inputs["pixel_values"]
    return [x.requires_grad_() for x in (pixels if isinstance(pixels, list) else [pixels])]


def counted(target: Target, work: Callable) -> tuple[int, int]:
    """(forward, backward) passes that some work makes."""
    with measure(target.bound.adapter.model) as cost:
        work()
    return cost.forward, cost.backward


def memory_by_steps(target: Target) -> dict[int, int]:
    """Peak bytes of iGOS by its number of integration steps, one iteration, equal batches."""
    igos(target, steps=MEMORY_STEPS[0], iterations=1, batch=MEMORY_BATCH)  # first use allocates
    found = {}
    for steps in MEMORY_STEPS:
        with measure(target.bound.adapter.model) as cost:
            igos(target, steps=steps, iterations=1, batch=MEMORY_BATCH)
        found[steps] = cost.peak_bytes
    return found


def pass_seconds(target: Target, batch: int = 8) -> tuple[float, float]:
    """Seconds a picture: forward and backward, and forward alone; best of three batches."""
    size = target.micro_batch(batch)

    @torch.no_grad()
    def forward():
        target.score(target.image.expand(size, -1, -1, -1))

    both = min(_seconds(lambda: plain_pass(target, size)) for _ in range(3))
    return both / size, min(_seconds(forward) for _ in range(3)) / size


def method_passes(name: str, target: Target | None = None) -> tuple[int, int]:
    """(forward, backward) passes of one map, counted.

    Methods that only score pictures are asked about a planted reader, since their passes do not
    depend on the model; those that look inside one are run on `target`.
    """
    reader, scene = planted("object"), planted_scene((32, 48))
    try:
        cost = explain(reader, scene, "Which colour?", method=name).cost
    except (StudyError, AttributeError, NotImplementedError):
        if target is None:
            raise
        return counted(target, lambda: METHODS[name](target))
    return cost.forward, cost.backward


def scoring_passes(ways: int = len(Sweep.units) + len(Sweep.fills) - 1) -> int:
    """Forward passes of a map's scores in a sweep: the first way in small steps, others rougher."""
    reader, scene = planted("object"), planted_scene((32, 48))
    ex = explain(reader, scene, "Which colour?", method="center")

    def score():
        for steps in (STEPS, *[ROUGH_STEPS] * (ways - 1)):
            deletion_insertion(reader, ex, steps=steps)

    return counted(ex.target, score)[0]


def main(argv: list[str] | None = None) -> int:
    """Print the races and the memory, and keep the races; the exit code is 0 whatever they are."""
    p = argparse.ArgumentParser(
        "python -m lvlm_study.sweep.bench", description=__doc__.splitlines()[0]
    )
    p.add_argument("--model", default=USUAL, help=f"default: {USUAL}")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--results", type=Path, metavar="DIR", help="keep the races there, bench.json")
    options = p.parse_args(argv)
    try:
        model, items = load_model(options.model), shuffled(load_benchmark("sprites"), ASKED)
    except StudyError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    item = load_benchmark("sprites")[0]
    found = print_bench(model, item, options.rounds, items)
    if options.results:
        write(options.results / "bench.json", {"provenance": about(model)} | found)
    return 0


def about(model) -> dict:
    """Where and when the times were measured."""
    profile = "mini" if model.name.startswith("mini/") else "hub"  # asked as its files say
    found = {"profile": profile, "model": [model.name], "n": 1, "seed": 0}
    found |= {"commit": provenance.commit(), "versions": provenance.versions()}
    return found | {"threads": torch.get_num_threads(), "date": provenance.now()[:10]}


def print_bench(model, item, rounds: int, items=()) -> dict:
    """Everything that `make bench` shows, for one model and one item.

    `items` are answered, and some of them explained by our methods and by others. Returns the
    races, the memory and that comparison, as `bench.json` has them.
    """
    target = target_of(model, item)
    tokens = int(target.crucial.sum())
    print(f"{model.name}, {item.id}, {target.size} pixels, {tokens} tokens, batch {BATCH}")
    print(f"{torch.get_num_threads()} threads, best of {rounds} rounds\n")
    print(f"{'':<36}{'time':>10}{'floor':>12}{'ratio':>8}")
    races = {"igos": race_igos(target, rounds)}
    print(races["igos"], flush=True)
    races["igos_inputs"] = race_igos(target, rounds, whole=False)
    print(races["igos_inputs"], flush=True)
    tokens = "all" if bool(target.crucial.all()) else "llr"
    ex = explain(
        model, item.rgb, item.question, method="center", answer=target.answer, tokens=tokens
    )
    races["scores"] = race_scores(model, ex, rounds)
    print(races["scores"], flush=True)
    with passes(model, "eagle"):
        eagle = race_eagle(target)
    print(eagle_line(eagle), flush=True)
    if JOINT in list_models():
        print(ga_line(race_ga(target_of(load_model(JOINT), item))), flush=True)
    if items:
        print(answers_line(model, items), flush=True)
    print(f"\nPeak memory of igos above its start, batch {MEMORY_BATCH}")
    memory = {str(steps): peak / 2**20 for steps, peak in memory_by_steps(target).items()}
    for steps, peak in memory.items():
        print(f"  K = {steps:<3} {peak:8.1f} MiB")
    print("\nEvery method, once, for the same answer")
    for line in method_lines(model, item):
        print(line, flush=True)
    compared = print_instead(model, items)
    kept = {name: asdict(race) | {"ratio": race.ratio} for name, race in races.items()}
    kept |= {"eagle": eagle | {"regions": REGIONS, "bar": BAR_EAGLE}, "memory": memory}
    return kept | {"instead": compared}


def print_instead(model, items) -> dict:
    """Ours beside what one would pick instead; {} where no item has anything to explain."""
    targets = (target_of(model, item) for item in items)
    targets = list(islice((t for t in targets if abs(t.reliance.gap) >= MIN_GAP), COMPARED))
    if not targets:
        return {}
    print(f"\nInstead of ours: medians and the mean Ins - Del of {len(targets)} items", flush=True)
    found = instead.beside(targets)
    print(*instead.lines(found), sep="\n", flush=True)
    return {"n": len(targets), "rows": found}


def method_lines(model, item, names=METHODS):
    """One line for every method: its time, passes and memory, and its time over theirs alone.

    The floor is as many plain passes in batches of eight; methods that never ask the model have
    none. Yields each line when it is known.
    """
    target = target_of(model, item)
    both, forward = pass_seconds(target)
    tokens = "all" if bool(target.crucial.all()) else "llr"
    asked = dict(answer=target.answer, tokens=tokens)
    yield (
        f"{'method':<24}{'time':>10}{'forward':>9}{'backward':>10}{'memory':>12}{'floor':>10}"
        f"{'ratio':>8}"
    )
    for name in each(names, "every method", "method"):
        try:
            cost = explain(model, item.rgb, item.question, method=name, **asked).cost
        except StudyError as refusal:  # a method that this model cannot have
            yield f"{name:<23} {refusal}"
            continue
        floor = cost.backward * both + max(cost.forward - cost.backward, 0) * forward
        ratio = f"{floor:8.2f} s{cost.seconds / floor:8.2f}" if floor else f"{'none':>10}"
        yield (
            f"{name:<23} {cost.seconds:8.2f} s {cost.forward:>8} {cost.backward:>9} "
            f"{cost.peak_bytes / 2**20:7.0f} MiB{ratio}"
        )


def _race(name, target, work, floor, rounds, bar) -> Race:
    passes, floor_passes = counted(target, work), counted(target, floor)  # also warms both up
    times = [(_seconds(work), _seconds(floor)) for _ in each(range(rounds), name, "round")]
    best = [min(column) for column in zip(*times, strict=True)]
    return Race(name, *best, passes, floor_passes, bar)


def _batches(total: int, size: int) -> list[int]:
    return [size] * (total // size) + ([total % size] if total % size else [])


def _seconds(work: Callable) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
