"""What the runner costs beside the work it runs, and whether its memory grows with the items.

    python tools/runner_cost.py            memory for 100, 1,000 and 10,000 items (planted reader)
    python tools/runner_cost.py --model mini/llava-1.5 --items 6       overhead on a real model

Time is processor time of this process, so that other programs count little. The bare work is the
same calls without the runner: answer, judge, reliance, effects, explain, deletion and insertion.
It is timed twice: as it happens inside the run, which leaves the runner's own time to the
millisecond, and apart from it, which shows how far two runs of the same work differ by chance.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.benchmarks.base import Item
from lvlm_study.models import load_model
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import runner
from lvlm_study.sweep.runner import Sweep

COUNTS = (100, 1_000, 10_000)


def toy(count: int) -> list[Item]:
    """Questions about small drawn scenes, drawn when looked at."""
    return [
        Item(f"toy/{n}", lambda n=n: planted_scene((32, 48), n), "Which colour?", "red", ("red",))
        for n in range(count)
    ]


def sweep_of(model: str, methods: tuple, count: int, folder: str) -> Sweep:
    return Sweep((model,), ("toy",), methods, Path(folder), baselines=("blur",), items=count)


def bare(model, items, sweep: Sweep) -> float:
    """Processor seconds of the calls alone."""
    started = time.process_time()
    for item in items:
        asked = runner.Asked(model, "toy", item, sweep)
        runner.reliance_rows(asked)
        runner.effect_rows(asked)
        for method in sweep.methods:
            runner.map_rows(asked, method)
    return time.process_time() - started


def with_runner(model, items, sweep: Sweep) -> float:
    """Processor seconds of a whole run, from the list of items to the files."""
    runner.load_model = lambda name, **options: model
    runner.load_benchmark = lambda name: items
    runner.known_benchmarks = lambda: ["toy"]
    started = time.process_time()
    failed = runner.run(sweep)
    if failed:
        raise SystemExit(f"{failed} items failed")
    return time.process_time() - started


def inside(work) -> tuple[float, float]:
    """(what `work` returns, seconds that it spent in the bare calls)."""
    kept, spent = dict(runner.ROWS), [0.0]

    def timed(call):
        def clocked(*arguments):
            started = time.process_time()
            try:
                return call(*arguments)
            finally:
                spent[0] += time.process_time() - started

        return clocked

    runner.ROWS.update({kind: timed(call) for kind, call in kept.items()})
    try:
        return work(), spent[0]
    finally:
        runner.ROWS.update(kept)


def overhead(name: str, count: int) -> str:
    """Two lines: a run with iGOS beside the bare calls in it, and beside the same ones apart."""
    model, items = load_model(name), list(load_benchmark("sprites"))[:count]
    with tempfile.TemporaryDirectory() as folder:
        sweep = sweep_of(name, ("igos",), count, folder)
        bare(model, items[:1], sweep)  # first use
        before = bare(model, runner.dealt(items, count), sweep)
        whole, within = inside(lambda: with_runner(model, items, sweep))
        alone = (before + bare(model, runner.dealt(items, count), sweep)) / 2  # a drift cancels
    return (
        f"{name}: {count} items, {whole:.2f} s, of them {whole - within:.3f} s in the runner "
        f"itself, {whole / within - 1:+.2%} on the {within:.2f} s of bare calls within\n"
        f"the same calls before and after it: {alone:.2f} s, so the run took "
        f"{whole / alone - 1:+.1%}"
    )


def memory(counts=COUNTS) -> list[str]:
    """Resident memory at the end of runs of growing length, one line each."""
    lines, model, me = [], planted("object"), psutil.Process()
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            spent = with_runner(model, toy(count), sweep_of("planted/object", (), count, folder))
            size = sum(p.stat().st_size for p in Path(folder).rglob("*.parquet"))
        lines.append(
            f"{count:>6} items: {me.memory_info().rss / 2**20:7.0f} MiB resident, "
            f"{1e3 * spent / count:6.1f} ms an item, {size / 1e3 / count:5.2f} kB an item on disc"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", help="measure the overhead on this model instead")
    p.add_argument("--items", type=int, default=6)
    options = p.parse_args(arguments)
    for line in [overhead(options.model, options.items)] if options.model else memory():
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
