"""The command line: `lvlm-study explain | list | run | train | ...`; `--help` names them all.

Each command is one function under the table of its arguments. Bad input gets one sentence and exit
code 2, an interrupt one line and 130. Everything heavy is imported inside the commands, so that
help and mistyped names answer at once.
"""

import argparse
import errno
import os
import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .errors import StudyError, unknown
from .sweep import requirements

DISC = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST)
PROFILES = ("mini", "paper", "hub")  # those of `profiles`, which is slow to import
STEPS = 50  # of the map's curves
CONTROL_DRAWS, CONTROL_STEPS = 2, 8  # for comparison: coarser curves
COMMANDS: dict[str, tuple[Callable, str, tuple]] = {}  # name: what it does, its help, arguments


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _lenient("stdout", "replace")
    _lenient("stderr", "backslashreplace")
    options = _parsed(argv)
    options.command = ["lvlm-study", *(sys.argv[1:] if argv is None else argv)]
    try:
        requirements.check()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            for name, least in options.least.items():
                _at_least(name, getattr(options, name), least)
            return options.act(options) or 0
    except StudyError as error:
        print(f"lvlm-study: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nlvlm-study: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        sys.stderr.close()
        return 141
    except (RuntimeError, MemoryError) as error:
        found = _device_trouble(error)
        if found is None:
            raise
        print(f"lvlm-study: {found}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in DISC:
            raise
        print(f"lvlm-study: {_disc_trouble(error)}; choose another place.", file=sys.stderr)
        return 2


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """The options; words too many after a question are most often the rest of it."""
    top = parser()
    options, rest = top.parse_known_args(argv)
    if rest:
        words = hasattr(options, "question") and not rest[0].startswith("-")
        hint = f'; put the question in quotes: "{options.question} {rest[0]} ..."' if words else ""
        top.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return options


def _lenient(name: str, errors: str) -> None:
    """What a terminal cannot show, or one that is closed (`>&-`), is no reason to stop."""
    stream = getattr(sys, name)
    if stream is None:
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    elif hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=errors)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """One line for a reader instead of the file and line of our source."""
    text = textwrap.shorten(str(message), 500)
    print(f"Note: {text}", file=sys.stderr)


def _device_trouble(error: Exception) -> StudyError | None:
    from .models.trouble import sentence  # slow to import, and only here

    return sentence(error, "at work")


def _disc_trouble(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"Cannot write: {error.strerror.lower()}{where}"


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        option = name.replace("_", "-")
        raise StudyError(f"--{option} must be at least {least}, not {value}.")


# --- arguments -----------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("lvlm-study", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (act, told, arguments) in COMMANDS.items():
        command, least = commands.add_parser(name, help=told), {}
        for names, (smallest, options) in arguments:
            added = command.add_argument(*names, **options)
            least |= {} if smallest is None else {added.dest: smallest}
        command.set_defaults(act=act, least=least)
    return top


def command(name: str, told: str, *arguments) -> Callable:
    """Enter the function below as a command with these arguments."""

    def enter(act: Callable) -> Callable:
        COMMANDS[name] = (act, told, arguments)
        return act

    return enter


def arg(*names: str, least: int | None = None, **options):
    """One argument, as argparse takes it; a number below `least` is refused in a sentence."""
    return names, (least, options)


def names_of(text: str) -> list[str]:
    """Names with commas between them, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("give at least one name")
    return list(dict.fromkeys(names))


def folder_of(text: str) -> tuple[str, str]:
    """NAME=DIR as a pair."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"write it as mmvp=FOLDER, not {text!r}")
    return name, folder


def seed(text: str) -> int:
    """A whole number that every generator takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        told = f"a seed is a whole number from 0 to {2**32 - 1}, not {text!r}"
        raise argparse.ArgumentTypeError(told)
    return int(text)


def utf8(text: str) -> str:
    """Words from the shell are UTF-8, also where the locale knows ASCII alone."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text  # told in a sentence by whoever reads it


def path(text: str) -> Path:
    """A path, and not the empty text of a shell's variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; write . for the folder you are in")
    return Path(text)


def nats(text: str) -> float:
    """A log-likelihood ratio whose exponential is a number."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= 700:  # e to the 709 is the largest number that there is
        raise argparse.ArgumentTypeError(f"a threshold is a number of nats up to 700, not {text!r}")
    return value


MODEL = arg("--model", default="mini/llava-1.5")
PROFILE = arg("--profile", default="mini", choices=PROFILES)
RESULTS = arg("--results", type=path, metavar="DIR", help="default: data/results/PROFILE")
SEED = arg("--seed", type=seed, default=0)
SETUP = arg(
    "--setup",
    choices=("hub", "paper"),
    help="ask as the checkpoint's files say (default), or as the paper's code does",
)
DATA = arg(
    "--data",
    type=folder_of,
    action="append",
    default=[],
    metavar="NAME=DIR",
    help="read a benchmark from this folder instead of the hub; may be given several times",
)
LOADING = (
    arg("--device", help="cpu, cuda:1, ..., auto (all GPUs); default: a GPU"),
    arg("--dtype", help="float32, bfloat16 or float16"),
    arg(
        "--max-new-tokens",
        type=int,
        least=1,
        metavar="N",
        help="default: 64; in the paper's set-up 1024",
    ),
)


def _results(options) -> Path:
    from .paths import data_dir

    return options.results or data_dir() / "results" / options.profile


def _known(kind: str, name: str, known) -> None:
    if name not in known:
        raise unknown(kind, name, known)


# --- explain -------------------------------------------------------------------------------


@command(
    "explain",
    "where did a model look for its answer?",
    arg("image", metavar="IMAGE", help="a file, or an item's id (sprites/attribute-040)"),
    arg("question", type=utf8, metavar="QUESTION"),
    arg("--model", default="mini/llava-1.5", help="zoo name, hub id or folder"),
    arg("--method", default="igos", help="with options: igos[preset=fast]"),
    arg("--baseline", default="blur", help="the image without information"),
    arg("--out", type=path, metavar="DIR", help="write picture, raw map and a record"),
    SEED,
    DATA,
    arg("--tokens", default="llr", choices=("llr", "all", "keywords", "word")),
    arg("--word", type=utf8, help="the word to explain; implies --tokens word"),
    arg("--contrast", type=utf8, metavar="WORD", help="why the word and not this one?"),
    arg(
        "--answer", type=utf8, metavar="TEXT", help="explain this text, not the model's own answer"
    ),
    SETUP,
    arg("--threshold", type=nats, default=1.0, help="nats that make a token crucial"),
    *LOADING,
)
def explain(options) -> int:
    """Answer, mark what depends on the image, map it, score the map, and keep it all."""
    from .sweep.explain_files import staged

    _check_explain(options)
    rgb = _picture(options.image, dict(options.data))
    if options.out is None:
        print(_explain(options, rgb, None))
        return 0
    with staged(options.out) as stage:
        told = _explain(options, rgb, stage)
    print(told)  # only now: nothing that a terminal does can lose the files
    print(f"\nWritten to {options.out}: overlay.png, saliency.npz, explanation.json")
    return 0


def _picture(name: str, folders: dict[str, str]):
    """A picture from its file, or that of a benchmark's item (H, W, 3)."""
    from .benchmarks import list_benchmarks
    from .pixels.images import load_image

    benchmark = name.partition("/")[0]
    if Path(name).exists() or benchmark not in list_benchmarks():
        return load_image(name)
    items = _items(benchmark, folders)
    _known(f"item of {benchmark}", name, items)
    return items[name].rgb


def _items(benchmark: str, folders: dict[str, str]) -> dict:
    """The items of a benchmark by ids that name it: those of `photos` in tables do not."""
    from .benchmarks import list_benchmarks, load_benchmark

    source = {"source": folders[benchmark]} if benchmark in folders else {}
    items = {item.id: item for item in load_benchmark(benchmark, **source)}
    known = set(list_benchmarks())
    return {
        name if name.partition("/")[0] in known else f"{benchmark}/{name}": item
        for name, item in items.items()
    }


def _check_explain(options) -> None:
    """Told before a model is loaded."""
    from .heatmaps.variants import split_options
    from .models.forced import check_text
    from .pixels.arguments import check_question
    from .pixels.baselines import baselines

    _check_words(options, split_options(options.method)[1])
    _known("baseline", options.baseline, baselines())
    check_question(options.question)
    if options.answer is not None:
        check_text(options.answer)


def _check_words(options, about: dict) -> None:
    """The words that are asked about; `about`: the target options in the method's name."""
    from .models.words import folded

    tokens, word = about.get("tokens", options.tokens), about.get("word", options.word)
    for flag, given in (("--word", word), ("--contrast", options.contrast)):
        if given is not None and not folded(given):
            raise StudyError(f"{flag} is empty; give a word, as {flag} red.")
    if tokens == "word" and word is None:
        raise StudyError("--tokens word needs the word to explain; give it with --word.")
    if word is not None and tokens not in ("llr", "word"):
        raise StudyError(f"Give either --word {word} or --tokens {tokens}, not both.")


def _explain(options, rgb, stage: Path | None) -> str:
    """Write the files into `stage`; returns what is to be printed."""
    from .models import load_model
    from .models.base import LENGTH
    from .sweep.explain_files import describe, write_files
    from .sweep.explain_text import report

    how = {"dtype": options.dtype, "device": options.device, "setup": options.setup}
    model = load_model(options.model, **how)
    length = options.max_new_tokens or getattr(model, "max_new_tokens", LENGTH)
    choice = {"tokens": "word" if options.word else options.tokens, "word": options.word}
    choice |= {} if options.contrast is None else {"contrast": options.contrast}
    ex = _map(options, model, rgb, _answer(options, model, rgb, length), choice)
    scores, given = _scores(options, model, ex), options.answer is not None
    if stage is not None:
        call = {"command": shlex.join(map(str, options.command)), "baseline": options.baseline}
        call |= {"max_new_tokens": length, "choice": choice, "answer_given": given}
        write_files(stage, rgb, ex, describe(ex, model, options.image, scores, call))
    return report(ex, scores, given, colours=sys.stdout.isatty())


def _answer(options, model, rgb, length: int):
    from .heatmaps.progress import passes

    with passes(model, "answer"):
        if options.answer is None:
            return model.answer(rgb, options.question, length)
        return model.forced(rgb, options.question, options.answer)


def _map(options, model, rgb, answer, choice: dict):
    from .heatmaps import METHODS
    from .heatmaps import explain as make
    from .heatmaps.progress import expected, passes
    from .heatmaps.variants import split_options

    method, about, own = split_options(options.method)
    names = ("question", "seed", "baseline", "threshold")
    asked = {name: getattr(options, name) for name in names} | choice | about | own
    with passes(model, options.method, expected(method, METHODS[method], own)):
        return make(model, rgb, method=method, answer=answer, **asked)


def _scores(options, model, ex) -> dict:
    from .heatmaps.progress import passes
    from .metrics.faithfulness import controls, deletion_insertion
    from .sweep.explain_files import score_summary

    with passes(model, "deletion and insertion", 2 * STEPS):
        own = deletion_insertion(model, ex, steps=STEPS, seed=options.seed)
    few = {"draws": CONTROL_DRAWS, "steps": CONTROL_STEPS, "seed": options.seed}
    with passes(model, "control maps", 2 * (CONTROL_DRAWS + 2) * CONTROL_STEPS):
        return score_summary(own, controls(model, ex, **few) if own.status == "ok" else {})


# --- the other commands --------------------------------------------------------------------


@command("list", "the models, benchmarks and methods that can be named")
def list_names(options) -> int:
    """Models with parameters and size, benchmarks with their number of items, methods."""
    from .sweep.catalogue import catalogue

    print(catalogue())
    return 0


@command(
    "run",
    "compute the tables; stop and start it as you like",
    arg(
        "--profile",
        default="mini",
        choices=PROFILES,
        help="mini, or the paper's models: asked as its code does (paper), or as they come (hub)",
    ),
    arg("--models", type=names_of, help="names, or table1, table4; default: all of the profile"),
    arg("--benchmarks", type=names_of, help="names; mmvp@COMMIT pins a hub dataset"),
    DATA,
    arg(
        "--methods",
        default="igos,random,center,sobel,difference",
        help="names, also with options as in 'igos[l2=1,gamma=0.5]'; 'ablations', or one of their "
        "tables as in 'ablations/tokens'; 'none' measures reliance alone",
    ),
    arg("--baselines", type=names_of, default=["blur", "black", "mean", "noise"]),
    arg(
        "--units",
        type=names_of,
        default=["grid", "superpixels"],
        help="what is taken away: grid, superpixels, patches",
    ),
    arg(
        "--fills",
        type=names_of,
        default=["blur", "mean"],
        help="what is put there; all under the first of --units, the first under the others",
    ),
    arg("--items", type=int, least=0, metavar="N", help="only N items of each benchmark"),
    arg("--kept", action="store_true", help="maps only for items that need their picture (filter)"),
    arg("--wrong", action="store_true", help="maps only for answers that are judged wrong"),
    RESULTS,
    SEED,
    arg("--engine", default="local", metavar="NAME", help="local (default) or ray"),
    arg("--workers", type=int, metavar="N", help="with ray: default one for each model"),
    arg("--gpus", type=float, metavar="N", help="with ray: GPUs for each worker"),
    arg("--subsets", action="store_true", help="draw scenes with every subset of their objects"),
    arg("--retry-failed", action="store_true", help="try again what ended in an error"),
    arg(
        "--fresh",
        action="store_true",
        help="replace what other settings or options made, or changed items",
    ),
    *LOADING,
)
def run(options) -> int:
    """Compute missing cells, renew the summaries, show them."""
    from .chapters.summaries import report, write_summaries
    from .heatmaps.progress import say
    from .sweep.engines import run as compute

    sweep, how = _sweep(options), (options.engine, options.workers, options.gpus, say)
    if options.kept:
        compute(replace(sweep, methods=()), *how)
        sweep = replace(sweep, only=_kept(sweep.results, sweep))
    failed = compute(sweep, *how)
    print(report(write_summaries(sweep.results, options.profile, options.seed)))
    print(_margins(sweep), end="")
    if failed:
        print(f"\n{failed} items failed; see 'message' in the tables, or add --retry-failed.")
    return 1 if failed else 0


def _margins(sweep) -> str:
    """What the methods of this run add to the difference picture, if the folder has that."""
    from .chapters.ch02_methods import NULL, margin_report
    from .sweep.runner import plain_name
    from .sweep.tables import read_table

    maps = read_table(sweep.results, "maps")
    if maps.empty:
        return ""
    mine = maps.model.isin(map(plain_name, sweep.models))
    mine &= maps.benchmark.isin(map(plain_name, sweep.benchmarks))
    told = margin_report(maps[mine & maps.method.isin([*sweep.methods, NULL])])
    return told and f"\n{told}\n"


def _sweep(options):
    from .heatmaps.variants import expand
    from .sweep import profiles
    from .sweep.runner import Sweep

    models = profiles.expand(options.models or profiles.models(options.profile))
    if not models:
        raise StudyError("There are no models yet; make one with 'lvlm-study train NAME'.")
    plain = ("profile", "items", "seed", "max_new_tokens", "dtype", "device")
    plain += ("retry_failed", "subsets", "wrong")
    return Sweep(
        models=tuple(models),
        benchmarks=tuple(options.benchmarks or profiles.benchmarks(options.profile)),
        methods=() if options.methods.strip() == "none" else tuple(expand(options.methods)),
        results=_results(options),
        folders=tuple(options.data),
        fresh=options.fresh,
        **{name: tuple(getattr(options, name)) for name in ("baselines", "units", "fills")},
        **{name: getattr(options, name) for name in plain},
    )


def _kept(results: Path, sweep) -> frozenset[str]:
    """What the paper's filter keeps of the sweep's benchmarks, over all of its models."""
    from .sweep.filter import kept_ids
    from .sweep.runner import plain_name
    from .sweep.tables import read_table

    frame, asked = read_table(results, "reliance"), (sweep.models, sweep.benchmarks)
    models, benchmarks = (list(map(plain_name, names)) for names in asked)
    mine = frame.model.isin(models) & frame.benchmark.isin(benchmarks)
    found = kept_ids(frame[mine])
    print(f"The filter keeps {len(found)} of {frame[mine].item.nunique()} items.")
    return found


@command(
    "summarise",
    "renew the book's numbers from the tables",
    PROFILE,
    RESULTS,
    arg("--seed", type=seed, default=0, help="what the tables were made with"),
)
def summarise(options) -> int:
    """Write every summary of a results folder again, computing nothing."""
    from .chapters.summaries import report, write_summaries

    results = _results(options)
    trees = write_summaries(results, options.profile, options.seed)
    if not trees:
        raise StudyError(f"There are no tables in {results}; make some with 'lvlm-study run'.")
    print(report(trees))
    return 0


@command(
    "train",
    "train a mini model from nothing; can be resumed",
    arg("name", metavar="NAME", nargs="?"),
    arg("--all", action="store_true", help="every member that is not there yet"),
    arg("--work", type=path, default=Path("zoo-work"), metavar="DIR"),
    arg("--steps", type=int, least=1, metavar="N"),
    arg("--images", type=path, metavar="DIR", help="joint: pictures to train on"),
    arg("--compare", action="store_true", help="joint: all three kinds of alignment"),
)
def train(options) -> int:
    """Hand over to the zoo."""
    from .heatmaps.progress import say
    from .zoo import train as zoo

    if options.all == bool(options.name):
        raise StudyError("Name one mini model to train, or give --all.")
    if options.all:
        zoo.train_all(options.work, say=say)
        return 0
    name = options.name.removeprefix("mini/")
    if name not in zoo.DETECTION:
        zoo.split_seed(name)  # an unknown name is told at once
    own = {"images": options.images, "compare": options.compare or None}
    own = {key: value for key, value in own.items() if value is not None}
    if own and name != "joint":
        raise StudyError(f"--{next(iter(own))} is for 'lvlm-study train joint' alone.")
    steps = {} if options.steps is None else {"steps": options.steps}
    zoo.train(name, options.work, say=say, **steps, **own)
    return 0


@command(
    "estimate",
    "passes and hours before a long run",
    MODEL,
    arg("--benchmark", default="sprites"),
    DATA,
    arg("--methods", type=names_of, help="default: all"),
    arg("--items", type=int, least=1, metavar="N", help="default: the whole benchmark"),
    SETUP,
    *LOADING,
)
def estimate(options) -> int:
    """Time a handful of passes and multiply."""
    from .benchmarks import load_benchmark
    from .heatmaps import METHODS
    from .models import load_model
    from .sweep.estimate import estimate_table, give_back

    methods = options.methods or list(METHODS)
    for name in methods:
        _known("method", name, METHODS)
    folder = dict(options.data).get(options.benchmark)
    items = load_benchmark(options.benchmark, **({"source": folder} if folder else {}))
    how = {"dtype": options.dtype, "device": options.device, "setup": options.setup}
    give_back()
    model = load_model(options.model, **how)
    print(estimate_table(model, items[0], methods, options.items or len(items)))
    return 0


@command(
    "convert",
    "pickles as safetensors: an alignment (.pth), or a folder with .bin",
    arg("weights", metavar="FILE", type=path, help=".pth, or a folder with .bin"),
    arg("out", metavar="DIR", type=path, help="the folder to write"),
    arg("--owl", default="google/owlvit-base-patch32", help="its detector"),
    arg("--llava", default="llava-hf/llava-1.5-7b-hf", help="its language model"),
    arg("--names", type=names_of, default=[], help="what the detector looks for"),
    arg("--force", action="store_true", help="replace a folder that is there"),
)
def convert(options) -> int:
    """Read the tensors without running code, and write them where `load_model` finds them."""
    from .heatmaps.progress import bar
    from .models.joint import convert_published
    from .models.pickles import WEIGHTS, unpickled

    if options.out.exists() and not options.force:
        raise StudyError(f"{options.out} is there already; choose another folder or add --force.")
    if options.out.is_file():
        raise StudyError(f"{options.out} is a file; name a folder to write.")
    if options.weights.is_dir():
        count = len(list(options.weights.glob(WEIGHTS)))
        with bar(count, "file", "reading and writing") as counted:
            folder = unpickled(options.weights, options.out, step=counted.update)
        print(f"Written to {folder}, as safetensors.")
        return 0
    with bar(2, "file", "reading and writing the alignment") as counted:
        names = (options.owl, options.llava, options.names)
        folder = convert_published(options.weights, options.out, *names, step=counted.update)
    print(f"Written to {folder}; it needs {options.owl} and {options.llava} when it is loaded.")
    return 0


@command(
    "detect",
    "the numbers of the chapter on detection",
    arg("--model", default="mini/joint", help="a joint model"),
    arg("--parts", type=names_of, help="only these; default: all that can be measured"),
    arg("--items", type=int, least=2, metavar="N", help="pictures, or pairs, of each part"),
    arg("--pope", type=path, metavar="PATH", help="ask about POPE's photographs"),
    PROFILE,
    RESULTS,
    SEED,
)
def detect(options) -> int:
    """Measure the joint model part by part; each part is one results file."""
    from .chapters.ch13_detection import study
    from .heatmaps.progress import say

    asked = {n: getattr(options, n) for n in ("parts", "items", "profile", "seed", "pope")}
    study(options.model, _results(options), say=say, **asked)
    return 0


@command(
    "sanity",
    "do maps change with the model, and with nothing else?",
    MODEL,
    arg("--benchmark", default="sprites"),
    arg("--methods", type=names_of, help="default: those that are not too slow"),
    arg("--items", type=int, default=8, least=1, metavar="N", help="answers to explain"),
    arg("--fresh", action="store_true", help="measure these methods again"),
    PROFILE,
    RESULTS,
    SEED,
)
def sanity(options) -> int:
    """Other seeds, other words, weights drawn anew; one results file, shown as a table."""
    import pandas as pd

    from .chapters.ch05_cost import shown
    from .heatmaps.progress import say
    from .sweep.sanity import METHODS, study

    asked = {
        name: getattr(options, name) for name in ("benchmark", "items", "profile", "seed", "fresh")
    }
    methods = options.methods or METHODS
    tree = study(options.model, _results(options), methods=methods, say=say, **asked)
    print(shown(pd.DataFrame(tree["rows"]).astype({"value": float})).to_string(index=False))
    return 0


# --- app -----------------------------------------------------------------------------------


@command(
    "app",
    "a page in the browser: your picture, your question",
    MODEL,
    arg("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in"),
    arg("--port", type=int, default=7860, metavar="N"),
    arg("--upload-limit", default="20mb", metavar="SIZE", help="largest picture taken"),
)
def app(options) -> int:
    """Serve the page until it is stopped."""
    from .sweep.app import serve

    serve(options.model, options.host, options.port, options.upload_limit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
