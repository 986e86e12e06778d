"""`lvlm-study app`: ask a model about your own picture in a browser, choose a word, see its map.

A page made with Gradio (extra `app`) around the same calls as `lvlm-study explain`. What one person
asks is kept in that person's own `Sitting`; people who use one model at once take turns, pass by
pass of their maps. The page is served to this machine alone unless another host is named, takes
pictures up to a limit, and hands out no file but those that it made for its visitor.
"""

import os
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from ..answers import token_spans, visual_reliance
from ..errors import StudyError
from ..heatmaps import METHODS, explain
from ..heatmaps.names import title
from ..heatmaps.progress import expected, watched
from ..heatmaps.sentences import word_masks
from ..heatmaps.show import SILENT, show
from ..heatmaps.variants import parse
from ..metrics.faithfulness import controls, deletion_insertion
from ..models import Answer, list_models, opened
from ..pixels.arguments import check_question
from ..pixels.images import load_image
from .address import check_address, check_size
from .explain_files import FILES, describe, score_summary, staged, write_files
from .explain_text import MINI_NOTE

FIRST = "igos[preset=fast]"  # 40 passes, and no worse than the others
VISUAL = -1  # the choice of all words that depend on the picture
MARK = " •"  # behind a word that does
READY, WORKING = "Choose a picture, ask, and the answer appears here.", "Working …"
STEPS, CONTROL = 20, {"draws": 2, "steps": 8}  # of the curves: somebody waits
HEAD = """# Where does the model look?
Give a picture, ask, and choose a word of the answer: the map shows which places of the picture it
rests on. Bright is important. Believe a map only beside the controls, which never saw the model.
"""


class Stopped(Exception):
    """The visitor pressed Stop."""


class Sitting:
    """What one visitor asked, and the maps made of it so far.

    `limit` is the longest answer in tokens, `words` holds the tokens (A,) bool of every word of
    the answer, `crucial` those that depend on the picture (A,) bool, `made` explanation and scores
    by (word, method); the files in `folder` go with the visitor.
    """

    def __init__(self, file: str = "", question: str = "", model: str = "", limit: int = 0):
        self.file, self.question, self.model, self.limit = file, question, model, limit
        self.answer: Answer | None = None
        self.crucial: Tensor | None = None
        self.words: list[Tensor] = []
        self.made: dict[tuple[int, str], tuple] = {}
        self.stop = threading.Event()
        self.folder = TemporaryDirectory(prefix="lvlm-study-app-")

    def __deepcopy__(self, memo):
        return Sitting()  # Gradio copies the first value for every visitor; an event has no copy


def ask(file: str | None, question: str, model: str, limit: int, sitting: Sitting, tell=None):
    """A new sitting with the model's answer to `question` about the picture in `file`."""
    if not file:
        raise StudyError("Choose a picture first.")
    check_question(question)
    rgb = picture_of(file)
    new, asked = Sitting(file, question, model, int(limit)), opened(model)
    with stoppable(asked, sitting.stop, tell, "answer", int(limit)):
        new.answer = asked.answer(rgb, question, int(limit))
        new.crucial = visual_reliance(asked, rgb, question, new.answer).crucial
    new.words = word_masks(new.answer)
    return new


def picture_of(file: str):
    """The uploaded picture (H, W, 3); an error names the file, not where the server keeps it."""
    try:
        return load_image(file)
    except StudyError as error:
        raise StudyError(str(error).replace(f"{Path(file).parent}{os.sep}", "")) from None


def choices(sitting: Sitting) -> list[tuple[str, int]]:
    """What can be chosen of an answer: all that depends on the picture, or one word."""
    some = bool(sitting.crucial.any())
    every = f"all words that depend on the picture{MARK}"
    found = [(every if some else "no word depends on the picture", VISUAL)]
    for number, mask in enumerate(sitting.words):
        depends = bool((mask & sitting.crucial).any())
        found.append((_text_of(sitting.answer, mask) + MARK * depends, number))
    return found


def _text_of(answer: Answer, mask: Tensor) -> str:
    """The part of an answer from the first to the last of the tokens in `mask` (A,) bool."""
    spans = token_spans(answer)
    own = [span for span, hot in zip(spans, mask.tolist(), strict=True) if hot]
    return answer.text[own[0][0] : own[-1][1]]


def look(sitting: Sitting, word: int | None, method: str, tell=None):
    """(explanation, scores) of a word of the answer; what was made before is not made again."""
    if sitting.answer is None:
        raise StudyError("Ask a question first.")
    key = (VISUAL if word is None else word, method)
    if key not in sitting.made:
        sitting.made[key] = _made(sitting, *key, tell)
    return sitting.made[key]


def _made(sitting: Sitting, word: int, method: str, tell):
    model, (name, options) = opened(sitting.model), parse(method)
    about = {"answer": sitting.answer, "tokens": _choice(sitting, word)["tokens"], **options}
    total = expected(name, METHODS[name], options)
    with stoppable(model, sitting.stop, tell, title(method), total):
        ex = explain(model, picture_of(sitting.file), sitting.question, method=name, **about)
    with stoppable(model, sitting.stop, tell, "scores", 2 * STEPS):
        own = deletion_insertion(model, ex, steps=STEPS)
        others = controls(model, ex, **CONTROL) if own.status == "ok" else {}
    return ex, score_summary(own, others)


def _choice(sitting: Sitting, word: int) -> dict:
    """What a map explains, as the record tells it: the rule or the tokens' numbers, the word."""
    if word == VISUAL:
        return {"tokens": "llr", "word": None}
    mask = sitting.words[word]
    return {"tokens": mask.nonzero()[:, 0].tolist(), "word": _text_of(sitting.answer, mask)}


@contextmanager
def stoppable(model, stop: threading.Event, tell, what: str, total: int | None):
    """Tells how far the model's passes are, and ends the block with `Stopped` when asked to.

    Only passes of this thread count: other visitors may use the model meanwhile.
    """
    stop.clear()
    here, done = threading.get_ident(), [0]

    def count(images: int) -> None:
        """Add this thread's passes and tell them; once stopped, raise instead."""
        if threading.get_ident() != here:
            return
        if stop.is_set():
            raise Stopped
        done[0] += images
        if tell is not None:
            tell((min(done[0], total), total) if total else None, desc=what, unit="passes")

    with watched(model, count):
        yield


def table(scores: dict) -> list[list]:
    """Deletion, insertion and their difference, of the map and of the controls."""
    rows = [(name, row) for name, row in scores.items() if isinstance(row, dict)]
    return [
        [title(name) if name != "map" else "this map"]
        + [round(row[key], 3) for key in ("deletion", "insertion", "gap")]
        for name, row in rows
        if row.get("gap") is not None
    ]


def unscored(scores: dict) -> str:
    """Why there are no scores; empty where there are."""
    why = SILENT.get(scores["status"], "").format("the chosen words", "their")
    return f"{why} There are no scores." if why else ""


def note(model: str) -> str:
    """What to know of a model before it is asked; empty where there is nothing."""
    return MINI_NOTE if model.startswith("mini/") else ""


def files(sitting: Sitting, word: int | None, explanation, scores: dict) -> list[str]:
    """The picture, the raw map and the record, as `lvlm-study explain --out` writes them."""
    model, folder = opened(sitting.model), Path(sitting.folder.name)
    call = {"command": "lvlm-study app", "baseline": "blur", "max_new_tokens": sitting.limit}
    call["choice"] = _choice(sitting, VISUAL if word is None else word)
    with staged(folder) as stage:
        about = describe(explanation, model, Path(sitting.file), scores, call)
        about["image"] = Path(sitting.file).name  # where an upload lies is the server's own matter
        write_files(stage, picture_of(sitting.file), explanation, about)
    return [str(folder / name) for name in FILES]


# --- the page


def page(models: list[str], first: str):
    """The Gradio page. Raises StudyError where Gradio is not installed."""
    gr = _gradio()
    names = [FIRST, *METHODS]
    with gr.Blocks(title="Where does the model look?") as blocks:
        gr.Markdown(HEAD)
        sitting = gr.State(Sitting())
        with gr.Row():
            with gr.Column():
                picture = _untouched(gr.Image(type="filepath", label="Picture", height=360))
                question = gr.Textbox(label="Question", placeholder="What is in the picture?")
                model = gr.Dropdown(models, value=first, label="Model")
                about = gr.Markdown(note(first))
                method = gr.Dropdown([(title(n), n) for n in names], value=FIRST, label="Method")
                limit = gr.Slider(1, 256, 64, step=1, label="Longest answer, tokens")
                with gr.Row():
                    go, stop = gr.Button("Ask", variant="primary"), gr.Button("Stop")
            with gr.Column():
                said = gr.Markdown(READY, min_height=80)
                word = gr.Radio(
                    [], label="Answer: choose a word (• depends on the picture)", visible=False
                )
                seen = gr.HTML()
                scores = gr.Dataframe(
                    headers=["map", "deletion", "insertion", "insertion − deletion"],
                    label="Scores beside maps that never saw the model",
                    interactive=False,
                    visible=False,
                )
                found = gr.File(label="Overlay, raw map, record", file_count="multiple")
        shown = [said, seen, scores, found]
        everything, cleared = [sitting, word, *shown], lambda text: _blank(gr, text)
        asked = gr.on(
            [go.click, question.submit],
            _told(gr, _asking, cleared),
            [picture, question, model, limit, sitting],
            everything,
        )
        looking = _told(gr, _looking, lambda text: _nothing(gr, text))
        asked.success(looking, [sitting, word, method], shown)
        for change in (word.input, method.input):
            change(looking, [sitting, word, method], shown)
        picture.change(lambda now: now.stop.set() or cleared(READY), [sitting], everything)
        model.change(note, [model], [about], queue=False)
        stop.click(lambda now: now.stop.set(), [sitting], None, queue=False)
    return blocks


def _untouched(picture):
    """The component hands on the file as it was uploaded.

    Gradio's own step turns it, drops its transparency, writes it anew, and fails on what is no
    picture; `load_image` does all that as the command does, and the record names the file's bytes.
    """
    picture.preprocess = lambda sent: sent and sent.path
    return picture


def _asking(gr, tell, *inputs):
    """First that it works, then the answer's words."""
    yield _blank(gr, WORKING, inputs[-1])
    new = ask(*inputs, tell)
    radio = gr.Radio(choices=choices(new), value=VISUAL, visible=True)
    yield new, radio, *_nothing(gr, WORKING)


def _looking(gr, tell, sitting: Sitting, word, method):
    """The map of the chosen word; nothing changes where there is no answer."""
    if sitting.answer is None:
        yield (gr.skip(),) * 4
        return
    ex, scores = look(sitting, word, method, tell)
    rows, given = table(scores), files(sitting, word, ex, scores)
    yield unscored(scores), str(show(ex)), gr.Dataframe(rows, visible=bool(rows)), given


def _blank(gr, text: str, sitting: Sitting | None = None) -> tuple:
    """The page without an answer, and what it says instead."""
    radio = gr.Radio(choices=[], value=None, visible=False)  # an old choice would be sent again
    return sitting or Sitting(), radio, *_nothing(gr, text)


def _nothing(gr, text: str) -> tuple:
    """The page without a map, and what it says instead."""
    return text, "", gr.Dataframe([], visible=False), None


def _told(gr, act, without):
    """`act` as a handler: its progress is drawn; an error is one sentence, and old results go."""

    def handler(*inputs, progress=gr.Progress()):  # noqa: B008 (how Gradio finds it)
        """What Gradio calls with the inputs of the page."""
        try:
            yield from act(gr, progress, *inputs)
        except StudyError as error:
            yield without(f"**{error}**")
        except Stopped:
            yield without("Stopped.")

    return handler


def serve(model: str, host: str = "127.0.0.1", port: int = 7860, limit: str = "20mb", block=True):
    """Open the page; returns the running Gradio app when `block` is False.

    `host` "0.0.0.0" lets other machines in. `limit` is the largest upload. Raises StudyError,
    before a model is loaded, for what cannot be served.
    """
    _gradio()
    check_address(host, port)
    check_size(limit)
    known = list_models()
    models = known if model in known else [model, *known]
    opened(model)  # a wrong name is told here, not in the browser
    blocks = page(models, model)
    blocks.queue(default_concurrency_limit=4).launch(
        server_name=host,
        server_port=port,
        max_file_size=limit,
        prevent_thread_lock=not block,
        quiet=not block,
    )
    return blocks


def _gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    try:
        import gradio
    except ImportError:
        raise StudyError("The app needs Gradio; run pip install 'lvlm-study[app]'.") from None
    return gradio
