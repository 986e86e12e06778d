"""Who computes a sweep: this process alone, or Ray workers on one machine or many.

A worker is one model, loaded once, on its own GPUs; the driver hands it chunks. Results go to the
folder, not through the driver, so a worker that dies loses the item in flight: another takes its
place and finds the rest on the disc; a machine that is lost is some workers that died. Workers for
whom there is no room wait: a machine that joins in mid-run takes them. On several machines the
results folder must be one that all of them see.
"""

import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import StudyError, unknown
from .runner import Sweep, Worker, chunk_sizes, leave_out, name_old_rows, progress
from .runner import run as run_local

ENGINES = ("local", "ray")
LIVES = 3  # a chunk that has ended so many workers is given up
STORE = 80 * 2**20  # bytes of shared memory; nothing large passes through Ray here


def run(
    sweep: Sweep,
    engine: str = "local",
    workers: int | None = None,
    gpus: float | None = None,
    say: Callable = print,
) -> int:
    """Compute what is missing of a sweep; returns how many items failed.

    `engine` "local" works here, one model after another. "ray" starts `workers` workers (by
    default one for each model, as far as there is room; of more, some wait for machines that join)
    with `gpus` GPUs each (by default one where the cluster has any, else none); it joins the
    cluster that RAY_ADDRESS names, or starts its own on this machine.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine == "local":
        if workers not in (None, 1) or gpus is not None:
            raise StudyError(
                "--workers and --gpus belong to --engine ray; for two local workers start the "
                "same command twice."
            )
        return run_local(sweep, say)
    return run_ray(sweep, workers, gpus, say)


def run_ray(sweep: Sweep, workers: int | None, gpus: float | None, say: Callable) -> int:
    """The sweep on Ray workers; see `run`."""
    sweep.check()
    if workers is not None and workers < 1:
        raise StudyError(f"--workers must be at least 1, not {workers}.")
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        _start(ray)
    sweep = with_whole_paths(sweep)
    try:
        count, gpus = _shares(ray.cluster_resources(), len(sweep.models), workers, gpus)
        sizes = chunk_sizes(sweep)
        name_old_rows(sweep, sizes, say)
        with progress(sum(sizes.values()) * len(sweep.models)) as bar:
            crew = Crew(ray, sweep, gpus, say, sizes, {m: deque(sizes) for m in sweep.models})
            return crew.work(count, lambda chunk: bar.update(sizes[chunk]))
    finally:
        if started:
            ray.shutdown()


def with_whole_paths(sweep: Sweep) -> Sweep:
    """The same with whole paths: workers of a cluster that was there before start elsewhere."""
    folders = ((n, str(Path(f).resolve()) if Path(f).is_dir() else f) for n, f in sweep.folders)
    return replace(sweep, results=Path(sweep.results).resolve(), folders=tuple(folders))


@dataclass
class Crew:
    """The workers of one run: who does what, and who comes when one of them dies."""

    ray: object
    sweep: Sweep
    gpus: float
    say: Callable
    sizes: dict[tuple[str, int], int]  # chunk -> items
    left: dict[str, deque]  # model -> chunks that nobody works on
    busy: dict = field(default_factory=dict)  # Ray's promise -> (worker, model, chunk or None)
    deaths: Counter = field(default_factory=Counter)
    held: set = field(default_factory=set)  # chunks that another run held when they were tried
    lost: list[str] = field(default_factory=list)  # models that cannot be loaded
    failed: int = 0

    def work(self, count: int, step: Callable) -> int:
        """Keep `count` workers busy until every chunk is done; returns how many items failed."""
        for _ in range(count):
            self.start_worker()
        while self.working():
            (promise,), _ = self.ray.wait(list(self.busy), num_returns=1)
            worker, model, chunk = self.busy.pop(promise)
            try:
                found = self.ray.get(promise)
            except self.ray.exceptions.RayActorError:
                self.replace_dead(model, chunk)
                continue
            except self.ray.exceptions.RayTaskError as error:
                self.leave_out_model(model, chunk, _own_error(error))
                continue
            if chunk is None:
                self.say(f"{model}: worker {found} is ready.")
            elif found is None:
                self.held.add((model, chunk))
                self.left[model].append(chunk)
            else:
                self.failed += found
                step(chunk)
            self.assign(worker, model)
        for worker, _, _ in self.busy.values():
            self.ray.kill(worker)
        return self.failed

    def working(self) -> bool:
        """False when all is done: a worker that still waits for room or loads is not waited for."""
        chunks = [chunk for _, _, chunk in self.busy.values()]
        return bool(chunks) and (any(self.left.values()) or any(c is not None for c in chunks))

    def leave_out_model(self, model: str, chunk, error: Exception) -> None:
        """A model that cannot be loaded is left out; any other error ends the run."""
        if chunk is not None or not isinstance(error, StudyError):
            raise error
        if model not in self.lost:
            items = sum(self.sizes.values())
            self.failed += leave_out(self.sweep, model, error, self.lost, items, self.say)
            self.left[model].clear()
        self.start_worker()

    def start_worker(self) -> None:
        """A new worker for the model with the most to do for each of its workers, if any has."""
        staff = Counter(model for _, model, _ in self.busy.values())
        open_ = {m: len(q) / (1 + staff[m]) for m, q in self.left.items() if len(q) > staff[m]}
        if not open_:
            return
        model = max(open_, key=open_.get)
        needs = {"num_gpus": self.gpus, "num_cpus": 1, "max_restarts": 0}
        worker = self.ray.remote(Worker).options(**needs).remote(self.sweep, model)
        self.busy[worker.load.remote()] = (worker, model, None)

    def assign(self, worker, model: str) -> None:
        """The next chunk for a worker; one without work makes room for another model's."""
        if not self.left[model]:
            self.ray.kill(worker)
            self.start_worker()
            return
        chunk = self.left[model].popleft()
        wait = (model, chunk) in self.held
        self.busy[worker.fill.remote(*chunk, wait)] = (worker, model, chunk)

    def replace_dead(self, model: str, chunk) -> None:
        """A worker is dead: put its chunk back in front and start another."""
        self.deaths[model, chunk] += 1
        if self.deaths[model, chunk] >= LIVES:
            what = f"chunk {chunk[1]} of {chunk[0]}" if chunk else "loading"
            raise StudyError(
                f"{LIVES} workers of {model} ended without a word at {what}, for lack of memory "
                "perhaps; what was computed is kept. Look at it with --engine local."
            )
        if chunk is not None:
            self.left[model].appendleft(chunk)
        self.say(f"{model}: a worker ended in mid-run; another takes over.")
        self.start_worker()


def _ray():
    try:
        import ray
    except ImportError as error:
        raise StudyError(
            "--engine ray needs one more package; run \"pip install 'ray>=2.40'\", or leave the "
            "option out."
        ) from error
    return ray


def _start(ray) -> None:
    """Join the cluster that RAY_ADDRESS names; without one, start a small one here."""
    quiet = {"include_dashboard": False, "log_to_driver": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=True)
        return
    try:
        ray.init("local", object_store_memory=STORE, **quiet)  # never one that others left
    except Exception as error:  # Ray raises just that when its processes do not come up in time
        raise StudyError(
            f"Ray does not start here ({str(error).splitlines()[0]}); use --engine local."
        ) from error


def _shares(there: dict, models: int, workers: int | None, gpus: float | None):
    """(workers, GPUs each): as asked, else one a model where there is room, a GPU each if any.

    Raises StudyError for more GPUs than the cluster has, for which Ray would wait for ever.
    """
    have = there.get("GPU", 0)
    gpus = (1 if have else 0) if gpus is None else gpus
    if gpus > have:
        raise StudyError(f"A worker cannot have {gpus:g} GPUs: the cluster has {have:g}.")
    room = int(have / gpus) if gpus else int(there.get("CPU", 1))
    return workers or max(1, min(models, room)), gpus


def _own_error(error) -> Exception:
    """What went wrong in a worker: our own sentence where there is one."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, StudyError) else error
