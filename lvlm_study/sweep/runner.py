"""The sweep: which (model, benchmark, method, item) cells are missing; compute, store, resume.

Every item is answered once; the answer is judged and its reliance on the image is measured under
several baselines (kind "reliance"); the objects of a drawn scene are taken away one by one (kind
"effects"); then each method explains the answer and its map is scored (kind "maps"). A method may
come with options, `igos[l2=1]` (see `variants`); whatever it explains then, its map is scored on
the item's default target, so that all rows of an item answer the same question.

Items come in a fixed shuffled order, so that the first 100 of 500 are a fair sample and
asking for more or fewer later keeps what is there. A chunk of `CHUNK` items is one unit of locking
and one file a table; the file is renewed after every item. What a row was made from is part of it
(see `identity`): rows with other options, or of an item that has changed, are never mixed.

Tables carry plain names: `mmvp@COMMIT` is mmvp, and the commit stands in the metadata of every
file, where it must agree before rows are put together.
"""

import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ..answers import Target, make_target, visual_reliance
from ..benchmarks import list_benchmarks as known_benchmarks
from ..benchmarks import load_benchmark
from ..errors import StudyError, unknown
from ..heatmaps import METHODS, explain_target, variants
from ..heatmaps.base import Explanation, full_size
from ..heatmaps.names import CONTROLS, draws_of
from ..heatmaps.progress import bar
from ..judging import judge
from ..metrics.coalitions import subset_scores
from ..metrics.counterfactual import object_effects, object_mass
from ..metrics.faithfulness import ROAD, UNITS, deletion_insertion
from ..metrics.plausibility import plausibility
from ..models import load_model, trouble
from ..models.base import LENGTH
from ..models.several import among
from ..models.trouble import device_lost
from ..pixels.baselines import baselines as known_baselines
from ..scenes import scenes
from . import identity, profiles, provenance
from .tables import chunk_lock, folder_name, outline, read_shard, set_aside, write_shard

CHUNK = 32
MAP_CELLS = 32  # a stored map has at most this many cells a side; the scores saw the full one
STEPS = 25  # half of the usual 50, because every map is scored in several ways,
ROUGH_STEPS = 10  # of which only the first is quoted to two digits
BASELINE = "blur"  # of the default target, which every map is scored on

_WHERE = [("model", pa.string()), ("benchmark", pa.string()), ("item", pa.string())]
_ABOUT = [
    ("category", pa.string()),
    ("question", pa.string()),
    ("status", pa.string()),
    ("message", pa.string()),
]
_MADE = [("item_seed", pa.int64()), ("item_hash", pa.string())]
_MADE += [("commit", pa.string()), ("made", pa.string())]
_FLOATS = pa.list_(pa.float32())
RELIANCE = pa.schema(
    [
        *_WHERE,
        ("baseline", pa.string()),
        *_ABOUT,
        ("answer", pa.string()),
        ("verdict", pa.string()),
        ("truncated", pa.bool_()),
        ("tokens", pa.list_(pa.string())),
        ("token_ids", pa.list_(pa.int32())),
        ("crucial", pa.list_(pa.bool_())),
        ("llr", _FLOATS),
        ("log_probs", _FLOATS),
        ("baseline_log_probs", _FLOATS),
        ("total_drop", pa.float64()),
        ("per_token", pa.float64()),
        ("crucial_share", pa.float64()),
        ("gap", pa.float64()),
        *_MADE,
    ]
)
SCORES = ("deletion", "insertion", "gap", "deletion_raw", "insertion_raw", "gap_raw")
SCORES += ("deletion_log", "insertion_log", "image_score", "fill_score")
EVIDENCE = ("pointing", "pointing_near", "energy", "energy_ratio", "rank_accuracy", "auc")
EVIDENCE += ("iou_sum", "iou_max", "correlation")
MAPS = pa.schema(
    [
        *_WHERE,
        ("method", pa.string()),
        ("units", pa.string()),
        ("fill", pa.string()),
        *_ABOUT,
        *[(name, pa.float64()) for name in SCORES],
        ("area", _FLOATS),
        ("deletion_curve", _FLOATS),
        ("insertion_curve", _FLOATS),
        *[(name, pa.float64()) for name in EVIDENCE],
        ("evidence_area", pa.float64()),
        ("mass", _FLOATS),
        ("heatmap", pa.list_(pa.float16())),
        ("heatmap_scale", pa.float64()),
        ("heatmap_shape", pa.list_(pa.int32())),
        ("forward", pa.int64()),
        ("backward", pa.int64()),
        ("seconds", pa.float64()),
        ("peak_bytes", pa.int64()),
        *_MADE,
    ]
)
EFFECTS = pa.schema(
    [
        *_WHERE,
        *_ABOUT,
        ("objects", pa.list_(pa.string())),
        ("effect", _FLOATS),
        ("area", _FLOATS),
        *_MADE,
    ]
)
SUBSETS = pa.schema(
    [
        *_WHERE,
        *_ABOUT,
        ("objects", pa.list_(pa.string())),
        ("area", _FLOATS),
        ("score", _FLOATS),  # under every subset of the objects, see metrics.coalitions
        ("probability", _FLOATS),
        *_MADE,
    ]
)


@dataclass(frozen=True)
class Sweep:
    """What to compute and where to keep it.

    `items` None means every item of a benchmark; `only` names the items that get maps (all get
    their reliance measured), None all of them; with `wrong` only those answered wrongly do. Maps
    are scored with every fill under the first unit and with the first fill under every other unit
    (`ways`). `retry_failed` computes items again whose last attempt ended in an error; `fresh`
    those made with other weights, seed or options, those from before options were recorded, and
    those of changed items; all this is otherwise an error. `max_new_tokens` None is the length of
    the model's set-up, which `profile` names. `folders` are pairs (benchmark, its local folder),
    for those that are not to be fetched from the hub.
    """

    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    methods: tuple[str, ...]
    results: Path
    profile: str = "mini"
    baselines: tuple[str, ...] = ("blur", "black", "mean", "noise")
    units: tuple[str, ...] = ("grid", "superpixels")
    fills: tuple[str, ...] = ("blur", "mean")
    items: int | None = None
    only: frozenset[str] | None = None
    wrong: bool = False
    seed: int = 0
    max_new_tokens: int | None = None
    dtype: str | None = None
    device: str | None = None
    retry_failed: bool = False
    fresh: bool = False
    subsets: bool = False
    folders: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        """Raise StudyError for a name that does not exist, before anything is computed."""
        pinned = [name for name in (*self.models, *self.benchmarks) if name.endswith("@")]
        if pinned:
            raise StudyError(f"{pinned[0]} names no revision; write one behind @, or leave it out.")
        asked = [*map(plain_name, self.benchmarks), *dict(self.folders)]
        for kind, names, known in (
            ("benchmark", asked, known_benchmarks()),
            ("baseline", self.baselines, known_baselines()),
            ("unit", self.units, UNITS),
            ("fill", self.fills, [*known_baselines(), ROAD]),
        ):
            for name in names:
                if name not in known:
                    raise unknown(kind, name, known)
        for names in (self.models, self.benchmarks):
            plain = list(map(plain_name, names))
            twice = [name for name in names if plain.count(plain_name(name)) > 1]
            if len(set(twice)) > 1:
                raise StudyError(f"{' and '.join(twice)} share one table; run them apart.")
        for name in self.methods:
            variants.parse(name)
        if not (self.units and self.fills):
            raise StudyError("A score needs at least one kind of unit and one fill.")
        if self.items is not None and self.items < 0:
            raise StudyError(f"The number of items must be at least 0, not {self.items}.")

    @property
    def ways(self) -> list[tuple[str, str]]:
        """(units, fill) of every score of a map."""
        first = [(self.units[0], fill) for fill in self.fills]
        return first + [(unit, self.fills[0]) for unit in self.units[1:]]


@dataclass
class Shard:
    """One table of one chunk: the rows that exist, by item, and where they are kept.

    `hashes` names all items of the chunk, however few of them a run asks for, each with hashes of
    what its rows depend on (`identity.content_hashes`). `before` is the metadata of what is on the
    disc.
    """

    kind: str
    method: str
    path: Path
    schema: pa.Schema
    about: dict
    hashes: dict[str, tuple[str | None, ...]]
    before: dict = field(default_factory=dict)
    rows: dict[str, list[dict]] = field(default_factory=dict)

    def lacks(self, item: str, retry_failed: bool) -> bool:
        """Whether an item is still to be computed."""
        return item not in self.rows or (retry_failed and self.failed(item))

    def failed(self, item: str) -> bool:
        """Whether the last attempt at an item ended in an error."""
        return self.rows[item][0]["status"] == "error"

    def add(self, item: str, rows: list[dict]) -> None:
        """Keep an item's rows and write the shard at once, items in the order of the chunk."""
        self.rows[item] = rows
        flat = [row for name in self.hashes for row in self.rows.get(name, [])]
        write_shard(self.path, flat, self.schema, self.about)


class Case:
    """One item put to one model; answered when first needed, and only once."""

    def __init__(self, model, benchmark: str, item, sweep: Sweep):
        self.reader, self.model = model, among(model, item)  # one prompt may hold several pictures
        self.benchmark, self.item, self.sweep = benchmark, item, sweep
        self.seed = item_seed(sweep.seed, item.id)

    @cached_property
    def rgb(self) -> np.ndarray:
        """The picture, uint8 (h, w, 3)."""
        return self.item.rgb

    @cached_property
    def answer(self):
        """What the model says, greedily."""
        length = answer_length(self.sweep, self.model)
        return self.model.answer(self.rgb, self.item.question, length)

    @cached_property
    def default(self) -> Target:
        """What every map is scored on, and plain methods explain."""
        return self.target()

    def reliance(self, baseline: str):
        """How much the answer rests on the image; under the default baseline measured once."""
        if baseline == BASELINE:
            return self.default.reliance
        where = (self.model, self.rgb, self.item.question, self.answer)
        return visual_reliance(*where, baseline=baseline, seed=self.seed)

    @cached_property
    def masks(self) -> list[np.ndarray] | None:
        """Where each object of a drawn scene is, in the scene's order."""
        scene = scene_of(self.item)
        return scene and [scenes.mask(scene, i) for i in range(len(scene.objects))]

    def target(self, baseline: str = BASELINE, **choice) -> Target:
        """Tokens chosen under the default baseline, then another fill.

        So a variant's `baseline` changes the fill that the method works with and nothing else.
        """
        where = (self.model, self.rgb, self.item.question, BASELINE, self.answer)
        target = make_target(*where, seed=self.seed, **choice)
        if baseline != BASELINE:
            target = replace(target, baseline=target.fill(baseline, self.seed))
        return target

    def explain(self, name: str) -> Explanation:
        """The map of a method or variant, ready to be scored on the default target.

        Without crucial tokens there is nothing to score on, so no map is made.
        """
        method, about, own = variants.split_options(name)
        target = self.default
        if about and target.status == "ok":
            target = self.target(**about)
        found = explain_target(method, target, seed=self.seed, **own)
        return replace(found, target=self.default)

    def draws(self, name: str) -> list[Explanation]:
        """The maps that the scores of a method's row are means of: one, unless drawn by lot."""
        ex, (method, _, own) = self.explain(name), variants.split_options(name)
        if ex.target.status != "ok":
            return [ex]
        seeds = range(self.seed + 1, self.seed + draws_of(name))
        more = (METHODS[method](ex.target, seed=seed, **own) for seed in seeds)
        return [ex, *(replace(ex, saliency=full_size(grid, self.rgb.shape[:2])) for grid in more)]


def scene_of(item) -> scenes.Scene | None:
    """The drawn scene of an item that has one."""
    return item.extra.get("scene")


def print_line(words: str) -> None:
    """`print`, as a function that can be sent to another process: Ray puts its own in its place."""
    print(words)


class Worker:
    """One model, loaded once, that fills one chunk after another; an engine says which."""

    def __init__(self, sweep: Sweep, name: str):
        self.sweep, self.name = sweep, name
        self.model = None
        self.tasks: dict[str, list] = {}
        self.said: set[str] = set()

    def load(self) -> int:
        """Load the model; returns the number of this process. Raises StudyError."""
        torch.set_flush_denormal(True)  # below 1e-38: a Mini-Gemini pass took 1.4 x as long
        how = {"dtype": self.sweep.dtype, "device": self.sweep.device}
        self.model = load_model(self.name, setup=profiles.setup(self.sweep.profile), **how)
        self.settings = fingerprint(self.sweep, self.model)
        return os.getpid()

    def fill(
        self,
        benchmark: str,
        number: int,
        wait: bool = False,
        say: Callable = print_line,
        step: Callable = lambda: None,
    ) -> int | None:
        """Compute the missing cells of a chunk, writing each as soon as it is known.

        Returns how many of its items failed; None when another run holds it and `wait` is False.
        `step` is called after every item.
        """
        chunk, count = self._chunk(benchmark, number)
        where = (plain_name(self.model.name), plain_name(benchmark))
        name = f"{folder_name(where[0])}--{folder_name(where[1])}--{number:03d}"
        with chunk_lock(self.sweep.results, name, wait) as mine:
            if not mine:
                return None
            shards = open_shards(self.sweep, *where, number, chunk, self.settings, say)
            for text in check_additions(self.sweep, chunk[:count], shards) - self.said:
                self.said.add(text)
                say(text)
            return fill_chunk(self.sweep, self.model, where[1], chunk[:count], shards, step)

    def _chunk(self, benchmark: str, number: int) -> tuple[list, int]:
        """All items of a chunk, and how many of them, from the first on, are asked for."""
        if benchmark not in self.tasks:
            self.tasks[benchmark] = shuffled(questions(self.sweep, benchmark), None)
        first, every = number * CHUNK, self.tasks[benchmark]
        return every[first : first + CHUNK], len(every[: self.sweep.items]) - first


def run(sweep: Sweep, say: Callable = print) -> int:
    """Compute what is missing, here; returns how many items failed (recorded, not raised).

    May be stopped at any moment and started again, also several times at once on one folder.
    """
    sweep.check()
    plan = chunk_sizes(sweep)
    name_old_rows(sweep, plan, say)
    count, failed, lost = sum(plan.values()), 0, []
    with progress(count * len(sweep.models)) as bar:
        for name in sweep.models:
            bar.set_description(name, refresh=False)
            worker = Worker(sweep, name)
            try:
                worker.load()
            except StudyError as error:
                failed += leave_out(sweep, name, error, lost, count, say)
                continue
            left = list(plan)
            for wait in (False, True):  # chunks held by another run are looked at again last
                rest = []
                for benchmark, number in left:
                    found = worker.fill(benchmark, number, wait, say, bar.update)
                    if found is None:
                        rest.append((benchmark, number))
                    failed += found or 0
                left = rest
            del worker
    return failed


def leave_out(
    sweep: Sweep, name: str, error: StudyError, lost: list, count: int, say: Callable
) -> int:
    """A model that cannot be loaded costs its own items, not those of the others.

    Returns the number of its items; raises the error itself when no other model is left.
    """
    lost.append(name)
    if len(lost) == len(sweep.models):
        raise error
    say(f"{name} is left out: {error}")
    return count


def chunk_sizes(sweep: Sweep) -> dict[tuple[str, int], int]:
    """Every chunk of a sweep, (benchmark, number), with its number of items."""
    sizes = {}
    for name in sweep.benchmarks:
        count = len(shuffled(questions(sweep, name), sweep.items))
        for number, first in enumerate(range(0, count, CHUNK)):
            sizes[name, number] = min(CHUNK, count - first)
    return sizes


def progress(total: int):
    """A bar with the time left."""
    return bar(total, leave=True)


def fill_chunk(sweep: Sweep, model, benchmark: str, items, shards: list[Shard], step) -> int:
    """The missing cells of some items of a chunk; how many of these failed, now or before."""
    failed = 0
    for item in items:
        case, bad = Case(model, benchmark, item, sweep), False
        for shard in wanted(sweep, item, shards):
            if shard.lacks(item.id, sweep.retry_failed):
                if not asked_for(case, shard):
                    continue
                shard.add(item.id, attempt(case, shard))
            bad = bad or shard.failed(item.id)
        failed += bad
        step()
    return failed


def wanted(sweep: Sweep, item, shards: list[Shard]) -> list[Shard]:
    """The tables that an item belongs into: all, or reliance alone where it gets no maps."""
    mapped = sweep.only is None or item.id in sweep.only
    return shards if mapped else [shard for shard in shards if shard.kind == "reliance"]


def asked_for(case: Case, shard: Shard) -> bool:
    """False for maps of an answer that is not wrong, where only wrong ones get any."""
    if shard.kind == "reliance" or not case.sweep.wrong:
        return True
    return judge(case.answer.text, case.item) == "wrong"


def attempt(case: Case, shard: Shard) -> list[dict]:
    """The rows of one cell; whatever goes wrong with this one item becomes a row that says so."""
    item = case.item
    known = {
        "model": plain_name(case.model.name),
        "benchmark": case.benchmark,
        "item": item.id,
        "method": shard.method,
        "category": item.category,
        "question": item.question,
        "item_seed": case.seed,
        "item_hash": shard.hashes[item.id][0],
        "commit": provenance.commit(),
        "made": provenance.now(),
    }
    try:
        found = ROWS[shard.kind](case, shard.method)
    except Exception as error:  # noqa: BLE001 - one unreadable image must not end a long run
        if device_lost(error):  # every later item would fail too; this one is left to do
            raise trouble.sentence(error, f"computing {item.id} of {case.benchmark}") from error
        message = " ".join(str(error).split()) or type(error).__name__
        found = [{"status": "error", "message": f"{type(error).__name__}: {message}"}]
    names = set(shard.schema.names)
    return [{k: v for k, v in (known | row).items() if k in names} for row in found]


def reliance_rows(case: Case, method: str = "") -> list[dict]:
    """One row a baseline: the answer, its verdict, and what the image adds to each token."""
    answer, item = case.answer, case.item
    said = {
        "answer": answer.text,
        "verdict": judge(answer.text, item),
        "truncated": answer.truncated,
        "tokens": list(answer.tokens),
        "token_ids": answer.token_ids.tolist(),
        "log_probs": answer.log_probs.tolist(),
    }
    if not answer.tokens:
        return [said | {"baseline": b, "status": "empty_answer"} for b in case.sweep.baselines]
    rows = []
    for name in case.sweep.baselines:
        rel = case.reliance(name)
        rows.append(
            said
            | {
                "baseline": name,
                "status": rel.status,
                "crucial": rel.crucial.tolist(),
                "llr": rel.llr.tolist(),
                "log_probs": rel.log_probs.tolist(),
                "baseline_log_probs": rel.baseline_log_probs.tolist(),
                "total_drop": rel.total_drop,
                "per_token": rel.per_token,
                "crucial_share": rel.crucial_share,
                "gap": rel.gap,
            }
        )
    return rows


def map_rows(case: Case, method: str) -> list[dict]:
    """One row for every way to score: the map, its place beside the evidence, scores, cost.

    An ablation is scored in the first way alone.
    """
    ways = [{"units": units, "fill": fill} for units, fill in case.sweep.ways]
    if variants.is_ablation(method):
        ways = ways[:1]  # there are many of them, and they are compared under one score
    if not case.answer.tokens:
        return [way | {"status": "empty_answer"} for way in ways]
    maps = case.draws(method)
    ex = maps[0]
    cost = {name: getattr(ex.cost, name) for name in ("forward", "backward", "seconds")}
    row = cost | {"peak_bytes": ex.cost.peak_bytes} | stored_map(ex)
    row |= mean_row([beside_evidence(case, one) for one in maps])
    return [row | way | mean_row([scored(case, one, **way) for one in maps]) for way in ways]


def mean_row(rows: list[dict]) -> dict:
    """The means of the numbers and lists of numbers of several rows; words are those of the first.

    One row is itself. NaN in any is NaN.
    """
    first = rows[0]
    if len(rows) == 1:
        return first
    numbers = [key for key, value in first.items() if not isinstance(value, str)]
    return first | {key: np.mean([row[key] for row in rows], 0).tolist() for key in numbers}


def scored(case: Case, ex: Explanation, units: str, fill: str) -> dict:
    """Deletion and insertion of a map on the default target; a map that says nothing has none."""
    if not has_map(ex):
        return {"status": ex.status}
    steps = STEPS if (units, fill) == case.sweep.ways[0] else ROUGH_STEPS
    how = {"steps": steps, "units": units, "fill": fill, "seed": case.seed}
    faith = deletion_insertion(case.reader, ex, **how)
    curves = {
        "area": faith.deletion_curve.fractions.tolist(),
        "deletion_curve": faith.deletion_curve.raw.tolist(),
        "insertion_curve": faith.insertion_curve.raw.tolist(),
    }
    return {name: getattr(faith, name) for name in SCORES} | curves | {"status": faith.status}


def has_map(ex: Explanation) -> bool:
    """False where there is no map, or one without an order."""
    return ex.status not in ("no_crucial_tokens", "diverged", "constant")


def beside_evidence(case: Case, ex: Explanation) -> dict:
    """Plausibility at full size where the evidence is known, and the map's mass on each object."""
    row = {}
    if case.item.evidence is not None:
        row["evidence_area"] = float(case.item.evidence.mean())
    if not has_map(ex):
        return row
    if case.item.evidence is not None:
        found = plausibility(ex.saliency, case.item.evidence)
        row |= {name: getattr(found, name) for name in EVIDENCE}
    if case.masks is not None:
        row["mass"] = object_mass(ex.saliency, case.masks).tolist()
    return row


def effect_rows(case: Case, method: str = "") -> list[dict]:
    """One row: how far the score falls when each object of the scene is drawn away."""
    return object_row(case, lambda target: {"effect": object_effects(target, case.item)})


def subset_rows(case: Case, method: str = "") -> list[dict]:
    """One row: the score of the scene drawn again with every subset of its objects."""

    def redrawn(target) -> dict:
        return dict(zip(("score", "probability"), subset_scores(target, case.item), strict=True))

    return object_row(case, redrawn)


def object_row(case: Case, measured: Callable) -> list[dict]:
    """One row about the objects of an item's scene, with what `measured(target)` finds of them."""
    scene = scene_of(case.item)
    if scene is None:
        return [{"status": "no_scene"}]
    row = {
        "objects": [sprite.name for sprite in scene.objects],
        "area": [float(mask.mean()) for mask in case.masks],
    }
    if not case.answer.tokens:
        return [row | {"status": "empty_answer"}]
    target = case.default
    if target.status != "ok":
        return [row | {"status": target.status}]
    found = {name: values.tolist() for name, values in measured(target).items()}
    return [row | {"status": "ok"} | found]


ROWS = {"reliance": reliance_rows, "effects": effect_rows, "maps": map_rows, "subsets": subset_rows}
SCHEMAS = {"reliance": RELIANCE, "effects": EFFECTS, "maps": MAPS, "subsets": SUBSETS}
DRAWN = ("effects", "subsets")  # kinds of table about the objects of drawn scenes


def stored_map(ex) -> dict:
    """The map averaged to at most `MAP_CELLS` a side; nothing for a control.

    `heatmap` is float16 in [-1, 1] and `heatmap_scale` what it was divided by: some methods give
    numbers of 1e-9, which float16 alone would round to nothing.
    """
    if ex.method in CONTROLS or ex.status == "no_crucial_tokens":
        return {}
    shape = [min(n, MAP_CELLS) for n in ex.grid.shape]
    grid = torch.from_numpy(ex.grid)[None, None]
    small = torch.nn.functional.adaptive_avg_pool2d(grid, shape)[0, 0].double().numpy().ravel()
    scale = float(np.nan_to_num(abs(small)).max()) or 1.0
    kept = (small / scale).astype(np.float16)
    return {"heatmap": kept, "heatmap_scale": scale, "heatmap_shape": shape}


def open_shards(sweep, model: str, benchmark: str, number: int, chunk, settings, say) -> list:
    """The tables of one chunk (all its items) with the rows that still hold."""
    shards, source = [], source_of(chunk)
    hashes = {item.id: identity.content_hashes(item) for item in chunk}
    pin = {key: value for key, value in source.items() if key == "revision" and value}
    for kind, method, schema, about in settings:
        if kind in DRAWN and not any(map(scene_of, chunk)):
            continue
        path = shard_path(sweep, kind, model, benchmark, method, number)
        about = about | {"source": source, "settings": about["settings"] | pin}
        own = {item: found[kind] for item, found in hashes.items()}
        shard = Shard(kind, method, path, schema, about, own)
        for part in path.parent.glob(f".{path.name}.*.tmp"):
            part.unlink(missing_ok=True)  # left by a run that was killed while it wrote
        shard.rows = valid_rows(shard, chunk, sweep, say)
        shards.append(shard)
    return shards


def valid_rows(shard: Shard, chunk, sweep: Sweep, say) -> dict[str, list[dict]]:
    """Rows by item, without those of items that have changed.

    Raises StudyError for rows that were made otherwise, unless they are to be made `fresh`.
    """
    try:
        rows, shard.before = read_shard(shard.path)
    except StudyError:
        say(f"{shard.path} is damaged; it is kept as {set_aside(shard.path).name} and made again.")
        return {}
    settings, old = shard.before.get("settings", {}), is_old(shard)
    if not rows or (old and sweep.fresh):
        return {}
    now = shard.about["settings"]
    if old:  # nobody knows what these options were; the rest must agree
        now = {key: value for key, value in now.items() if key not in identity.RECORDED}
    if identity.differences(settings, now):
        if not sweep.fresh:
            raise _other_settings(shard, settings, now)
        return {}
    missing = [name for name in shard.schema.names if name not in rows[0]]
    if missing and not old:  # what was computed is worth more than the new columns
        say(f"{shard.path} was made before it had {', '.join(missing)}; its rows stay without.")
    asked = {item.id: item.question for item in chunk}
    changed = dict.fromkeys(row["item"] for row in rows if not still(row, shard, asked))
    if changed and not (sweep.fresh or old):
        raise _changed_items(shard, list(changed))
    kept: dict[str, list[dict]] = {}
    for row in rows:
        if row["item"] not in changed:
            kept.setdefault(row["item"], []).append(row)
    shard.about |= _history(shard)
    return kept


def is_old(shard: Shard) -> bool:
    """Whether the rows on the disc are from before options were recorded."""
    return bool(shard.before) and identity.of_old(shard.before.get("settings", {}))


def still(row: dict, shard: Shard, asked: dict[str, str]) -> bool:
    """Whether a row's item is what it was, as far as its picture could be read then and now."""
    then, now = row.get("item_hash"), shard.hashes.get(row["item"], (None,))
    return asked.get(row["item"]) == row["question"] and (None in (then, *now) or then in now)


def check_additions(sweep: Sweep, items, shards: list[Shard]) -> set[str]:
    """What is to be said before rows are put beside those on the disc, made with other packages.

    Raises StudyError where those on the disc do not say which options they were made with.
    """
    said = set()
    for shard in shards:
        mine = [item.id for item in items if shard in wanted(sweep, item, shards)]
        lacking = sum(shard.lacks(item, sweep.retry_failed) for item in mine)
        if lacking and is_old(shard) and not sweep.fresh:
            raise StudyError(
                f"{shard.path} was made before options were recorded and lacks {lacking} of "
                f"{len(mine)} items, which are not put beside those; add --fresh to make it again, "
                "or choose another folder with --results."
            )
        then = shard.before.get("versions", {}) if shard.rows and lacking else {}
        for name, version in provenance.versions().items():
            if then.get(name) and version not in then[name].split(", "):
                said.add(f"New rows are made with {name} {version}, old ones with {then[name]}.")
    return said


def name_old_rows(sweep: Sweep, plan, say) -> None:
    """One line for the rows that do not say which options they were made with."""
    count = 0
    for model in sweep.models:
        for benchmark, number in plan:
            for kind, method in tables(sweep):
                rows, about = outline(shard_path(sweep, kind, model, benchmark, method, number))
                count += rows if identity.of_old(about.get("settings", {})) else 0
    if count:
        then = "are made again" if sweep.fresh else "stay as they are (--fresh makes them again)"
        say(f"{count} rows in {sweep.results} were made before options were recorded; they {then}.")


def tables(sweep: Sweep) -> list[tuple[str, str]]:
    """(kind, method) of every table of a sweep."""
    methods = dict.fromkeys(map(variants.canonical, sweep.methods))
    drawn = [("effects", "")] if methods else []
    drawn += [("subsets", "")] if sweep.subsets else []
    return [("reliance", ""), *drawn, *[("maps", method) for method in methods]]


def shard_path(
    sweep: Sweep, kind: str, model: str, benchmark: str, method: str, number: int
) -> Path:
    """Where a table's chunk is kept."""
    folder = sweep.results / kind / folder_name(plain_name(model))
    folder = folder / folder_name(plain_name(benchmark))
    folder = folder / variants.folder_name(method) if method else folder
    return folder / f"{number:03d}.parquet"


def _history(shard: Shard) -> dict:
    """What the metadata keeps of rows that stay: their packages too, and the name they once had."""
    kept = {key: shard.before[key] for key in ("renamed",) if key in shard.before}
    both = (shard.before.get("versions", {}), shard.about["versions"])
    names = dict.fromkeys(name for one in both for name in one)
    every = {n: [v for one in both if n in one for v in one[n].split(", ")] for n in names}
    return kept | {"versions": {n: ", ".join(dict.fromkeys(v)) for n, v in every.items()}}


def _changed_items(shard: Shard, changed: list[str]) -> StudyError:
    names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
    return StudyError(
        f"{shard.path} holds rows of {len(changed)} items whose picture, question or truth has "
        f"changed since ({names}); add --fresh to make these again, or choose another folder with "
        "--results."
    )


def _other_settings(shard: Shard, before: dict, now: dict) -> StudyError:
    if before.get("revision") not in (None, now.get("revision")):
        return StudyError(
            f"{shard.path} was made from revision {before.get('revision')} of its benchmark, not "
            f"{now.get('revision', 'from this folder')}; name the first behind @ to go on with it, "
            "add --fresh to make it again, or choose another folder with --results."
        )
    differ = "; ".join(identity.differences(before, now))
    return StudyError(
        f"{shard.path} was made with other settings ({differ}); add --fresh to make it again, or "
        "choose another folder with --results."
    )


def fingerprint(sweep: Sweep, model) -> list[tuple]:
    """For every table of the sweep: (kind, method, schema, metadata).

    Rows may stand in one shard only if their "settings" agree; the rest says who made it.
    """
    weights = provenance.weights_checksum(model)
    common = {"weights": weights, "seed": sweep.seed, "dtype": str(model.dtype)}
    length = answer_length(sweep, model)
    common |= {"max_new_tokens": length, "target": identity.target_options()}
    if getattr(model, "setup", None):
        common["setup"] = model.setup
    scoring = {"units": list(sweep.units), "fills": list(sweep.fills)}
    scoring |= {"steps": [STEPS, ROUGH_STEPS], "baseline": BASELINE}
    own = {kind: {"baseline": BASELINE} for kind in DRAWN}
    own |= {"reliance": {"baselines": list(sweep.baselines)}}
    made = {"model": model.name, "profile": sweep.profile, "versions": provenance.versions()}
    made["machine"] = provenance.machine(model)
    found = []
    for kind, method in tables(sweep):
        more = own.get(kind) or scoring | {"options": identity.method_options(method)}
        more = more | ({"draws": draws_of(method)} if draws_of(method) > 1 else {})
        found.append((kind, method, SCHEMAS[kind], made | {"settings": common | more}))
    return found


def answer_length(sweep: Sweep, model) -> int:
    """How many tokens an answer may have: as asked, or by the model's set-up."""
    return sweep.max_new_tokens or getattr(model, "max_new_tokens", LENGTH)


def plain_name(name: str) -> str:
    """A benchmark or hub model without its revision: "mmvp@v1" -> "mmvp". Folders stay whole."""
    pinned = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)@[\w./-]*", name)
    return pinned[1] if pinned and not Path(name).is_dir() else name


def questions(sweep: Sweep, benchmark: str):
    """All items of a benchmark, from its folder where the sweep names one."""
    folder = dict(sweep.folders).get(plain_name(benchmark))
    return load_benchmark(benchmark, **({"source": folder} if folder else {}))


def source_of(chunk) -> dict:
    """{"source", "revision"} of items that come from a dataset of the hub or a folder of one."""
    return dict(chunk[0].extra.get("provenance") or {}) if chunk else {}


def shuffled(items, count: int | None) -> list:
    """The first `count` items in a fixed shuffled order; fewer is always a part of more.

    Questions about one picture stay together, in their own order.
    """
    together: dict[str, list] = {}
    for place, item in enumerate(items):
        together.setdefault(item.extra.get("picture", place), []).append(item)
    groups = list(together.values())
    order = np.random.default_rng(0).permutation(len(groups))
    return [item for place in order for item in groups[int(place)]][:count]


def item_seed(seed: int, item: str) -> int:
    """A seed for one item: random controls must not draw the same map for every picture."""
    return zlib.crc32(f"{seed}/{item}".encode())
