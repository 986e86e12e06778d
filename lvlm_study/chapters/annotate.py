"""People judge answers and maps: two clicks a picture, blind to the model, saved at once.

    tasks = annotate.tasks_from_results(data_dir() / "results/mini", count=60)
    annotate.widget(tasks, "annotations.csv", annotator="A")

The annotator sees picture, question, answer and map, in a seeded order of their own, and never the
name of the model or of the method: a task is known by a number that tells nothing, in the file too
(`key` says afterwards what it was). Every click is one line of a CSV file, written and flushed
before the next picture is shown; a line is never changed. Taking a click back adds a line as well.
Run the same call again and it goes on where it stopped.

How far people agree is `agreement`: Cohen's kappa (1960) for two annotators, Krippendorff's alpha
(2011, "Computing Krippendorff's Alpha-Reliability") for any number, with people who skipped some.
"""

import base64
import csv
import hashlib
import html
import io
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image

from ..benchmarks import load_benchmark
from ..errors import StudyError, unknown
from ..figures import overlay_image
from ..heatmaps.names import CONTROLS, PAPER_METHOD, REFERENCE
from ..metrics.localisation import stretched
from ..metrics.statistics import estimate
from ..sweep.provenance import now
from ..sweep.stored import enlarged, scales, stored_maps
from ..sweep.tables import unwritable
from .compare import control_map

QUESTIONS = {
    "right": "Is the answer right?",
    "covered": "Does the map cover what a person needs to see to answer?",
}
CHOICES = {"1": "yes", "2": "no", "3": "unsure"}  # the key and what it means
PAIR_QUESTIONS = {"pair": "Which map explains A, and which B?"}
PAIR_CHOICES = {"1": "left A", "2": "left B", "3": "unsure"}  # the right one explains the other
UNDONE = "undone"
FIELDS = ("annotator", "task", "about", "choice", "seconds", "made")


@dataclass(frozen=True, eq=False)
class Task:
    """What an annotator sees. `saliency` is float (H, W) on a scale from 0 to 1, `rgb` uint8.

    `secret` says what is being judged (model, method, item) and is never shown or saved.
    """

    rgb: np.ndarray = field(repr=False)
    question: str
    answer: str
    saliency: np.ndarray = field(repr=False)
    secret: dict = field(default_factory=dict, repr=False)
    asks: ClassVar[dict] = QUESTIONS
    choices: ClassVar[dict] = CHOICES

    @property
    def id(self) -> str:
        """Twelve hex digits that follow from what is judged and do not reveal it to a reader."""
        return _number_of([self.question, self.answer, *_named_then(self.secret)])

    def page(self) -> str:
        """What is shown of it, as HTML."""
        return page(self)


@dataclass(frozen=True, eq=False)
class PairTask:
    """Two maps of one picture, left and right, and the two answers A and B that they explain.

    The annotator tells which map explains which answer, the test of people in arXiv 2405.14612.
    `saliency` holds both maps (H, W), scaled to [0, 1]. `secret` says what is being judged, and
    under "right" the choice that would be right; it is never shown or saved.
    """

    rgb: np.ndarray = field(repr=False)
    a: str
    b: str
    saliency: tuple[np.ndarray, np.ndarray] = field(repr=False)
    secret: dict = field(default_factory=dict, repr=False)
    asks: ClassVar[dict] = PAIR_QUESTIONS
    choices: ClassVar[dict] = PAIR_CHOICES

    @property
    def id(self) -> str:
        """As for `Task`."""
        return _number_of([self.a, self.b, *self.secret.values()])

    def page(self) -> str:
        """Picture and both maps with the two answers; nothing tells the model or the method."""
        shown = [overlay_image(self.rgb, one, 0.0, 1.0) for one in self.saliency]
        pictures = _img(self.rgb, "the picture")
        for side, one in zip(("left", "right"), shown, strict=True):
            pictures += _img(one, f"the picture under the {side} map")
        words = f"<b>A</b> {html.escape(self.a)}<br><b>B</b> {html.escape(self.b)}"
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{pictures}</div><p>{words}</p>'


def _number_of(told: Sequence) -> str:
    return hashlib.sha256("\n".join(map(str, told)).encode()).hexdigest()[:12]


def pair_task(
    rgb: np.ndarray, said: Sequence[str], maps: Sequence[np.ndarray], secret: dict, seed: int = 0
) -> PairTask:
    """A pair of answers and their maps, laid left and right by a draw that the pair's name fixes.

    `said` are the texts of A and B, `maps` (h, w) in that order, each stretched to [0, 1]. Constant
    maps are shown as they are: who sees two alike must guess.
    """
    key = "\n".join([str(seed), *said, *map(str, secret.values())])
    swapped = bool(hashlib.sha256(key.encode()).digest()[0] % 2)
    both = [enlarged(stretched(one), *rgb.shape[:2]) for one in maps]
    right = PAIR_CHOICES["2" if swapped else "1"]
    shown = tuple(both[::-1] if swapped else both)
    return PairTask(rgb, *said, shown, secret | {"right": right})


def two_choice_scores(log: pd.DataFrame, tasks: Iterable[PairTask], seed: int = 0) -> pd.DataFrame:
    """Share of right choices by method, from `read(path)` and the tasks that were shown.

    One row a method: `n` choices of all annotators, how many were "unsure" (these count one half,
    as a guess does), the share right with its interval, in which pictures are drawn as a whole.
    """
    known = {task.id: task.secret for task in tasks}
    rows = standing(log)
    rows = rows[(rows.about == "pair") & rows.task.isin(list(known))]
    if rows.empty:
        raise StudyError("None of these pairs has been judged yet; annotate some first.")
    told = pd.DataFrame([known[task] for task in rows.task])
    unsure = (rows.choice == "unsure").to_numpy()
    right = np.where(unsure, 0.5, (rows.choice.to_numpy() == told.right.to_numpy()).astype(float))
    told = told.assign(score=right, unsure=unsure, task=rows.task.to_numpy())
    out = []
    for method, part in told.groupby("method", sort=True):
        found = estimate(part.score, clusters=part.task, seed=seed)
        row = {"method": method, "n": len(part), "unsure": int(part.unsure.sum())}
        out.append(row | {"right": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(out)


def tasks_from_results(
    results: Path,
    benchmark: str = "sprites",
    methods: Sequence[str] = (PAPER_METHOD,),
    count: int | None = None,
    seed: int = 0,
) -> list[Task]:
    """Tasks from a results folder: the stored maps of these methods, of all models.

    `count` takes that many at random (a fixed draw for a seed). Each method has one colour scale
    for all of its maps. Maps of controls are not stored, they are drawn again from the picture.
    Answers without a map cannot be judged and are left out.
    """
    frame = stored_maps(results)
    for method in methods:
        if method not in set(frame.method):
            raise unknown("method with stored maps", method, sorted(set(frame.method)))
    items = {item.id: item for item in load_benchmark(benchmark)}
    rows = frame[(frame.benchmark == benchmark) & frame.method.isin(methods)]
    rows = with_controls(rows[rows.status == "ok"], items)
    top = scales(rows)
    if count is not None and count < len(rows):
        rows = rows.sample(count, random_state=seed)
    return [task_of(row, items[row.item], top[row.method]) for row in rows.itertuples()]


def with_controls(rows: pd.DataFrame, items: dict) -> pd.DataFrame:
    """The same rows with the maps of controls in their places, as they were when scored."""
    maps = [
        control_map(row.method, items[row.item], row.item_seed)
        if row.method in CONTROLS
        else row.saliency
        for row in rows.itertuples()
    ]
    return rows.assign(saliency=pd.Series(maps, rows.index, dtype=object))


def task_of(row, item, top: float) -> Task:
    """One stored map, over its picture, divided by the end of its method's colour scale."""
    rgb = item.rgb
    saliency = np.clip(enlarged(row.saliency, *rgb.shape[:2]) / top, 0, 1)
    return Task(rgb, row.question, row.answer, saliency, _secret(row))


def number_of(row) -> str:
    """The number under which a row of `stored_maps` was shown, without drawing anything."""
    return _number_of([row.question, row.answer, *_named_then(_secret(row))])


def _named_then(secret: dict) -> list:
    """What a number stands for; methods as they were called when the first maps were judged."""
    named = {PAPER_METHOD: "igos", REFERENCE: "igos, mean of the masks"}
    return [named.get(value, value) for value in secret.values()]


def _secret(row) -> dict:
    return {"model": row.model, "method": row.method, "item": row.item}


def key(tasks: Iterable[Task]) -> pd.DataFrame:
    """Which number was what: for joining with the annotations once they are all made."""
    return pd.DataFrame([{"task": task.id} | task.secret for task in tasks])


def shuffled(tasks: Iterable[Task], annotator: str, seed: int = 0) -> list[Task]:
    """An order of the annotator's own, always the same: no two people tire at the same pictures."""
    found = sorted(tasks, key=lambda task: task.id)
    random = np.random.default_rng(zlib.crc32(f"{seed}/{annotator}".encode()))
    return [found[i] for i in random.permutation(len(found))]


# --- the file


def append(path: Path, row: dict) -> None:
    """Add one line: in one write, flushed to the disc, under a lock, the header before the first.

    A line that was cut short by a crash is ended first, so that it damages no other. Raises
    StudyError when the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")), open(path, "ab+", buffering=0) as file:
            os.write(file.fileno(), _start(file) + _line(row[name] for name in FIELDS))
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path.parent, error) from error


def _start(file) -> bytes:
    """What must stand before the next line: the header, the end of a broken line, or nothing."""
    if file.seek(0, os.SEEK_END) == 0:
        return _line(FIELDS)
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _line(values) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def read(path: Path | str) -> pd.DataFrame:
    """Every whole line of the file, in order; a line that a crash cut short is left out.

    No rows when there is no file. Raises StudyError for a CSV file that is something else.
    """
    path = Path(path)
    if not path.exists():
        return pd.DataFrame(columns=list(FIELDS))
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = list(csv.reader(file))
    if lines and tuple(lines[0]) != FIELDS:
        raise StudyError(f"{path} is no file of annotations; choose another name.")
    asked, known = (
        {*QUESTIONS, *PAIR_QUESTIONS},
        {*CHOICES.values(), *PAIR_CHOICES.values(), UNDONE},
    )
    whole = [x for x in lines[1:] if len(x) == len(FIELDS) and x[2] in asked and x[3] in known]
    return pd.DataFrame(whole, columns=list(FIELDS))


def standing(log: pd.DataFrame) -> pd.DataFrame:
    """What holds in the end: the last choice by annotator, task and question, if not taken back."""
    last = log.drop_duplicates(["annotator", "task", "about"], keep="last")
    return last[last.choice != UNDONE].reset_index(drop=True)


# --- one annotator at work, without a screen


class Session:
    """Which task is open, what is still asked about it, and what a choice does.

    Resumes from the file: tasks with both answers are done and are not shown again.
    """

    def __init__(self, tasks: Iterable[Task], path, annotator: str, seed: int = 0):
        if not annotator.strip():
            raise StudyError("An annotator needs a name, so that people can be told apart.")
        self.tasks = shuffled(tasks, annotator, seed)
        if not self.tasks:
            raise StudyError("There is nothing to annotate: no task has a map.")
        if len({type(task) for task in self.tasks}) > 1:
            raise StudyError("Single maps and pairs of maps need a session each; give one kind.")
        self.asks, self.choices = self.tasks[0].asks, self.tasks[0].choices
        self.path, self.annotator = Path(path), annotator
        mine = standing(read(self.path)).query("annotator == @annotator")
        self.given = {(row.task, row.about): row.choice for row in mine.itertuples()}
        self.history: list[tuple[int, str]] = []
        self.open_next()

    def open_next(self) -> None:
        """Go to the first task that lacks an answer; `place` is past the end when none does."""
        lacking = (n for n in range(len(self.tasks)) if self.asked(n))
        self.place, self.since = next(lacking, len(self.tasks)), time.monotonic()

    def asked(self, place: int) -> list[str]:
        """The questions about a task that are still open."""
        task = self.tasks[place]
        return [about for about in task.asks if (task.id, about) not in self.given]

    @property
    def task(self) -> Task | None:
        """What is shown now; None when all is done."""
        return self.tasks[self.place] if self.place < len(self.tasks) else None

    @property
    def done(self) -> int:
        """How many tasks have both answers."""
        return sum(not self.asked(n) for n in range(len(self.tasks)))

    def choose(self, choice: str, about: str | None = None) -> None:
        """Answer a question about the open task (the first open one), save it, and go on."""
        if choice not in self.choices.values():
            raise unknown("choice", choice, self.choices.values())
        if self.task is None:
            return
        about = about or self.asked(self.place)[0]
        self._save(self.place, about, choice)
        self.given[self.task.id, about] = choice
        self.history.append((self.place, about))
        if not self.asked(self.place):
            self.open_next()

    def undo(self) -> None:
        """Take the last choice of this sitting back; its task is open again."""
        if not self.history:
            return
        self.place, about = self.history.pop()
        self._save(self.place, about, UNDONE)
        self.given.pop((self.tasks[self.place].id, about), None)
        self.since = time.monotonic()

    def _save(self, place: int, about: str, choice: str) -> None:
        seconds = f"{time.monotonic() - self.since:.1f}"
        values = (self.annotator, self.tasks[place].id, about, choice, seconds, now())
        append(self.path, dict(zip(FIELDS, values, strict=True)))


# --- on the screen


def widget(tasks: Iterable[Task], path, annotator: str, seed: int = 0):
    """The annotation widget, for the last line of a notebook cell.

    Click, or put the cursor into the field and type 1 (yes), 2 (no) or 3 (unsure); Backspace takes
    the last one back. Every choice is in `path` before the next picture is shown. With tasks from
    `pair_task` two maps are shown, and 1 says that the left one explains A, 2 that it explains B.
    """
    return Screen(Session(tasks, path, annotator, seed)).box


class Screen:
    """Buttons, a field for keys and the pictures around a `Session`."""

    def __init__(self, session: Session):
        import ipywidgets as w

        self.session, self.typed = session, ""
        self.head, self.pictures = w.HTML(), w.HTML()
        self.buttons = {
            (about, choice): w.Button(
                description=f"{choice} ({key})", tooltip=text, layout=w.Layout(width="7em")
            )
            for about, text in session.asks.items()
            for key, choice in session.choices.items()
        }
        for (about, choice), button in self.buttons.items():
            button.on_click(lambda _, a=about, c=choice: self.act(lambda: session.choose(c, a)))
        self.back = w.Button(description="Back", tooltip="take the last choice back")
        self.back.on_click(lambda _: self.act(session.undo))
        self.keys = w.Text(description="Keys", placeholder="type 1, 2 or 3 here")
        self.keys.observe(self.on_keys, "value")
        self.box = w.VBox([self.head, self.pictures, *self.rows(w), w.HBox([self.back, self.keys])])
        self.show()

    def rows(self, w) -> list:
        """One line of buttons a question, after its text."""
        choices = self.session.choices.values()
        return [
            w.HBox(
                [w.HTML(f"<b>{text}</b>"), *(self.buttons[about, c] for c in choices)],
                layout=w.Layout(flex_flow="row wrap", align_items="center"),
            )
            for about, text in self.session.asks.items()
        ]

    def on_keys(self, change) -> None:
        """What was typed and what was deleted since the last look: choices, and choices undone.

        The field is never emptied from here: a key that is typed meanwhile would be lost or
        counted twice.
        """
        keys = "".join(letter for letter in change["new"] if letter in self.session.choices)
        same = len(os.path.commonprefix([keys, self.typed]))
        for _ in self.typed[same:]:
            self.act(self.session.undo)
        for letter in keys[same:]:
            self.act(lambda choice=self.session.choices[letter]: self.session.choose(choice))
        self.typed = keys

    def act(self, what) -> None:
        """Do something to the session, then show what came of it."""
        what()
        self.show()

    def show(self) -> None:
        """Bring the screen up to date with the session."""
        session, task = self.session, self.session.task
        self.head.value = f"<p>{session.done} of {len(session.tasks)} done</p>"
        self.pictures.value = task.page() if task else "<p><b>All done. Thank you.</b></p>"
        for (about, choice), button in self.buttons.items():
            button.disabled = task is None
            given = task is not None and session.given.get((task.id, about)) == choice
            button.button_style = "success" if given else ""
        self.back.disabled = not session.history


def page(task: Task) -> str:
    """Picture, map, question and answer as HTML; nothing in it tells the model or the method."""
    overlay = overlay_image(task.rgb, task.saliency, 0.0, 1.0)
    pictures = _img(task.rgb, "the picture") + _img(overlay, "the picture under the map")
    words = f"<b>{html.escape(task.question)}</b><br>{html.escape(task.answer)}"
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{pictures}</div><p>{words}</p>'


def _img(rgb: np.ndarray, alt: str) -> str:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    style = "max-width:100%;width:320px"
    return f'<img alt="{alt}" style="{style}" src="data:image/png;base64,{data}">'


# --- agreement


def agreement(log: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """How far annotators agree: one row a question, from `read(path)` or several files together.

    `n` counts the tasks that at least two people judged, `same` the share of them on which all
    agreed. "unsure" is a choice like the others. `kappa` is Cohen's with its asymptotic 95 %
    interval, given where exactly two people took part; `alpha` is Krippendorff's (nominal) with a
    bootstrap interval over tasks. NaN where everybody always chose the same: chance agreement is
    then complete and neither number is defined.
    """
    rows = []
    for about, part in standing(log).groupby("about", sort=False):
        table = part.pivot(index="annotator", columns="task", values="choice")  # (people, tasks)
        table = table.loc[:, table.notna().sum() >= 2].dropna(how="all")
        if table.empty:
            continue
        alpha = dict(zip(("alpha", "alpha_low", "alpha_high"), _alpha(table, seed), strict=True))
        kappa = dict(zip(("kappa", "kappa_low", "kappa_high"), _kappa(table), strict=True))
        same = float((table.nunique() == 1).mean())
        counts = {"question": about, "annotators": len(table), "n": table.shape[1], "same": same}
        rows.append(counts | kappa | alpha)
    if not rows:
        raise StudyError("No task was judged by two people yet, so there is no agreement to count.")
    return pd.DataFrame(rows)


def _kappa(table: pd.DataFrame) -> tuple[float, float, float]:
    """(kappa, low, high) of the two rows of a table; NaN for more people."""
    if len(table) != 2:
        return (np.nan,) * 3
    return cohens_kappa(*table.to_numpy())


def cohens_kappa(a: Sequence, b: Sequence) -> tuple[float, float, float]:
    """Agreement of two people beyond chance, and its asymptotic 95 % interval (statsmodels)."""
    from statsmodels.stats.inter_rater import cohens_kappa as kappa

    kinds = sorted({*a, *b})
    if len(kinds) < 2:
        return (np.nan,) * 3
    counts = pd.crosstab(pd.Series(a), pd.Series(b)).reindex(index=kinds, columns=kinds).fillna(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # no spread where all agree
        found = kappa(counts.to_numpy())
    return float(found.kappa), float(found.kappa_low), float(found.kappa_upp)


def krippendorff(counts: np.ndarray) -> np.ndarray:
    """Krippendorff's alpha for unordered choices, 1 = perfect, 0 = chance.

    `counts` (..., units, choices) says how often each choice was given to each unit; units with
    fewer than two judgements tell nothing about agreement and are ignored. NaN where only one
    choice occurs.
    """
    judged = counts.sum(-1, keepdims=True)  # (..., U, 1)
    counts = np.where(judged >= 2, counts, 0).astype(float)
    per_unit = counts.sum(-1)  # (..., U)
    differing = per_unit**2 - (counts**2).sum(-1)  # ordered pairs within a unit that differ
    observed = (differing / np.maximum(per_unit - 1, 1)).sum(-1)
    totals = counts.sum(-2)  # (..., C)
    n = totals.sum(-1)
    by_chance = n**2 - (totals**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(by_chance > 0, 1 - (n - 1) * observed / by_chance, np.nan)


def _alpha(table: pd.DataFrame, seed: int, draws: int = 2000) -> tuple[float, float, float]:
    """(alpha, low, high): the interval by drawing tasks anew."""
    kinds = sorted(set(table.to_numpy()[table.notna()]))
    counts = np.stack([(table == kind).sum(axis=0) for kind in kinds], -1)  # (U, C)
    value = float(krippendorff(counts))
    picks = np.random.default_rng(seed).integers(0, len(counts), (draws, len(counts)))
    found = krippendorff(counts[picks])
    if len(counts) < 2 or np.isnan(found).all():
        return value, np.nan, np.nan
    low, high = np.nanquantile(found, [0.025, 0.975])
    return value, float(low), float(high)
