"""Two Ray workers against one, beside what two bare processes reach on the same machine.

    OMP_NUM_THREADS=1 python tools/runner_speed.py                (about a minute and a half)
    OMP_NUM_THREADS=1 python tools/runner_speed.py --items 32 --plain

The work is two chunks of questions, answers and reliance, no maps. Wall time from the moment when
every worker has its model to the end: starting Ray and loading weights are not counted. Two
processors that share one core's arithmetic cannot give a factor of two; the bare processes, which
know nothing of Ray, show what is left, and the last line divides the one factor by the other.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from lvlm_study.sweep import engines, runner
from lvlm_study.sweep.runner import Sweep

CHUNKS = (("sprites", 0), ("sprites_flat", 0))  # equal work, in two chunks whatever --items says


def sweep_of(model: str, items: int, folder: Path) -> Sweep:
    return Sweep((model,), tuple(name for name, _ in CHUNKS), (), folder, items=items)


# --- bare processes ------------------------------------------------------------------------------


def bare_worker(model: str, items: int) -> None:
    """A process: loads, says so, then does the chunks that each line of its input names."""
    worker = runner.Worker(sweep_of(model, items, Path()), model)
    worker.load()
    print("ready", flush=True)
    for line in sys.stdin:
        folder, *numbers = line.split()
        worker.sweep = sweep_of(model, items, Path(folder))
        for number in numbers:
            worker.fill(*CHUNKS[int(number)])
        print("done", flush=True)


def bare_seconds(model: str, items: int, folder: Path) -> tuple[float, float]:
    """(one process does both chunks, two processes do one each)."""
    call = [sys.executable, __file__, "--worker", "--model", model, "--items", str(items)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pair = [subprocess.Popen(call, **pipes) for _ in range(2)]
    try:
        for process in pair:
            expect(process, "ready")
        one = timed(lambda: tell(pair[:1], [f"{folder}/one 0 1"]))
        two = timed(lambda: tell(pair, [f"{folder}/two 0", f"{folder}/two 1"]))
    finally:
        for process in pair:
            process.stdin.close()
            process.wait()
    return one, two


def tell(processes: list, lines: list[str]) -> None:
    """Give every process its line, then wait for all."""
    for process, line in zip(processes, lines, strict=True):
        process.stdin.write(line + "\n")
        process.stdin.flush()
    for process in processes:
        expect(process, "done")


def expect(process, word: str) -> None:
    found = process.stdout.readline().strip()
    if found != word:
        raise SystemExit(f"a bare process said {found!r} instead of {word!r}")


# --- Ray -----------------------------------------------------------------------------------------


class Together(engines.Crew):
    """A crew that starts to work when all its workers have their model."""

    def order(self, worker, model: str) -> None:
        if self.started is None:
            self.ready.append(worker)
            if len(self.ready) < self.count:
                return
            self.started = time.perf_counter()
            for each in self.ready:
                super().order(each, model)
            return
        super().order(worker, model)


def ray_seconds(ray, model: str, items: int, folder: Path, count: int) -> float:
    """Wall seconds of `count` Ray workers for both chunks."""
    sweep = sweep_of(model, items, folder)
    sizes = runner.chunk_sizes(sweep)
    crew = Together(ray, sweep, 0, quiet, sizes, {model: deque(sizes)})
    crew.count, crew.ready, crew.started = count, [], None
    failed = crew.work(count, quiet)
    if failed:
        raise SystemExit(f"{failed} items failed")
    return time.perf_counter() - crew.started


def quiet(*words) -> None:
    pass


def both_rays(model: str, items: int, folder: Path) -> tuple[float, float]:
    """(one worker, two workers) in one small cluster."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # or they yield to everything else
    ray = engines._ray()
    engines._start(ray)
    try:
        return tuple(ray_seconds(ray, model, items, folder / str(n), n) for n in (1, 2))
    finally:
        ray.shutdown()


# --- both ----------------------------------------------------------------------------------------


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def line(name: str, seconds: tuple[float, float], items: int) -> str:
    one, two = seconds
    return (
        f"{name:<16}{2 * items} items: one {one:6.2f} s, two {two:6.2f} s, "
        f"{one / two:.2f} times as fast"
    )


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default="mini/llava-1.5")
    p.add_argument("--items", type=int, default=16, metavar="N", help="of each chunk, at most 32")
    p.add_argument("--plain", action="store_true", help="the bare processes alone")
    p.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = p.parse_args(arguments)
    if options.worker:
        bare_worker(options.model, options.items)
        return 0
    how = (options.model, options.items)
    with tempfile.TemporaryDirectory() as folder:
        bare = bare_seconds(*how, Path(folder) / "bare")
        print(line("bare processes", bare, options.items), flush=True)
        if options.plain:
            return 0
        found = both_rays(*how, Path(folder) / "ray")
    print(line("Ray workers", found, options.items))
    share = (found[0] / found[1]) / (bare[0] / bare[1])
    print(f"Ray reaches {share:.0%} of what this machine gives two bare processes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
