"""The command line: `lvlm-study explain | list | run | train | ...`; `--help` names them all.

Bad input gets one sentence and exit code 2, an interrupt one line and 130. Everything heavy is
imported inside the commands, so that help and mistyped names answer at once.
"""

import argparse
import errno
import os
import shlex
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

from .errors import StudyError, unknown
from .sweep import requirements

MINI_NOTE = (
    "Note: the mini models were trained on drawn scenes only; about anything else their answers "
    "mean little, and the map shows what those answers rest on."
)
STATUS = {
    "ok": "ok: the marked words depend on the image, and the map shows where.",
    "no_crucial_tokens": "no crucial tokens: no word of the answer becomes {ratio:.1f} times less "
    "likely on the {baseline} image, so there is nothing to map.",
    "no_gap": "no gap: the answer is nearly as likely on the {baseline} image, so the map has "
    "little to explain and cannot be scored.",
    "diverged": "diverged: the method returned numbers that are not finite; the map is empty.",
    "constant": "constant: the map has the same value everywhere and says nothing.",
}
DISC = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST)
STEPS = 50  # of the map's curves
CONTROL_DRAWS, CONTROL_STEPS = 2, 8  # for comparison: coarser curves


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _lenient("stdout", "replace")
    _lenient("stderr", "backslashreplace")
    options = parser().parse_args(argv)
    options.command = ["lvlm-study", *(sys.argv[1:] if argv is None else argv)]
    try:
        requirements.check()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _at_least("max-new-tokens", getattr(options, "max_new_tokens", None), 1)
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
    except OSError as error:
        if error.errno not in DISC:
            raise
        print(f"lvlm-study: {_disc_trouble(error)}; choose another place.", file=sys.stderr)
        return 2


def _lenient(name: str, errors: str) -> None:
    """What a terminal cannot show, or one that is closed (`>&-`), is no reason to stop."""
    stream = getattr(sys, name)
    if stream is None:
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    elif hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=errors)


def _disc_trouble(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"Cannot write: {error.strerror.lower()}{where}"


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("lvlm-study", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _explain_parser(commands)
    _list_parser(commands)
    _run_parser(commands)
    _summarise_parser(commands)
    _train_parser(commands)
    _estimate_parser(commands)
    _convert_parser(commands)
    _detect_parser(commands)
    _sanity_parser(commands)
    return top


# --- explain -------------------------------------------------------------------------------


def _explain_parser(commands) -> None:
    p = commands.add_parser("explain", help="where did a model look for its answer?")
    p.set_defaults(act=explain)
    p.add_argument("image", metavar="IMAGE")
    p.add_argument("question", type=_text, metavar="QUESTION")
    p.add_argument("--model", default="mini/llava-1.5", help="zoo name, hub id or folder")
    p.add_argument("--method", default="igos")
    p.add_argument("--baseline", default="blur", help="the image without information")
    p.add_argument("--out", type=_path, metavar="DIR", help="write picture, raw map and a record")
    p.add_argument("--seed", type=_seed, default=0)
    p.add_argument("--tokens", default="llr", choices=("llr", "all", "keywords", "word"))
    p.add_argument("--word", type=_text, help="the word to explain; implies --tokens word")
    given = "explain this text, not the model's own answer"
    p.add_argument("--answer", type=_text, metavar="TEXT", help=given)
    p.add_argument("--threshold", type=_nats, default=1.0, help="nats that make a token crucial")
    _model_options(p)


def explain(options) -> int:
    """Answer, mark what depends on the image, map it, score the map, and keep it all."""
    from .heatmaps import METHODS
    from .models.forced import check_text
    from .pixels.arguments import check_question
    from .pixels.baselines import baselines
    from .pixels.images import load_image

    _known("method", options.method, METHODS)
    _known("baseline", options.baseline, baselines())
    check_question(options.question)
    if options.answer is not None:
        check_text(options.answer)
    rgb = load_image(options.image)
    if options.out is None:
        print(_explain(options, rgb, None))
        return 0
    from .sweep.explain_files import staged

    with staged(options.out) as stage:
        told = _explain(options, rgb, stage)
    print(told)  # only now: nothing that a terminal does can lose the files
    print(f"\nWritten to {options.out}: overlay.png, saliency.npz, explanation.json")
    return 0


def _explain(options, rgb, stage: Path | None) -> str:
    """Write the files into `stage`; returns what is to be printed."""
    from .heatmaps import METHODS
    from .heatmaps import explain as make
    from .heatmaps.progress import expected, passes
    from .metrics.faithfulness import controls, deletion_insertion
    from .models import load_model
    from .sweep.explain_files import describe, score_summary, write_files

    model = load_model(options.model, dtype=options.dtype, device=options.device)
    with passes(model, "answer"):
        if options.answer is None:
            answer = model.answer(rgb, options.question, options.max_new_tokens)
        else:
            answer = model.forced(rgb, options.question, options.answer)
    choice = {"tokens": "word" if options.word else options.tokens, "word": options.word}
    with passes(model, options.method, expected(options.method, METHODS[options.method])):
        ex = make(
            model,
            rgb,
            options.question,
            method=options.method,
            seed=options.seed,
            baseline=options.baseline,
            answer=answer,
            threshold=options.threshold,
            **choice,
        )
    with passes(model, "deletion and insertion", 2 * STEPS):
        own = deletion_insertion(model, ex, steps=STEPS, seed=options.seed)
    few = {"draws": CONTROL_DRAWS, "steps": CONTROL_STEPS, "seed": options.seed}
    with passes(model, "random and centre maps", 2 * (CONTROL_DRAWS + 1) * CONTROL_STEPS):
        scores = score_summary(own, controls(model, ex, **few) if own.status == "ok" else {})
    if stage is not None:
        call = {"command": shlex.join(map(str, options.command)), "baseline": options.baseline}
        call |= {"max_new_tokens": options.max_new_tokens, "choice": choice}
        call |= {"answer_given": options.answer is not None}
        write_files(stage, rgb, ex, describe(ex, model, options.image, scores, call))
    return report(ex, scores, options)


def report(ex, scores: dict, options) -> str:
    """What the terminal shows of an explanation."""
    import math

    from .answers import LARGEST, marked

    marks = ("\033[1;31m", "\033[0m") if sys.stdout.isatty() else ("[", "]")
    words = {"ratio": math.exp(min(options.threshold, LARGEST)), "baseline": options.baseline}
    lines = [MINI_NOTE, ""] if ex.model.startswith("mini/") else []
    lines += [
        f"Question  {ex.question}",
        f"Answer    {marked(ex.answer, ex.reliance.crucial, *marks)}",
        *(["          given with --answer, not the model's own"] if options.answer else []),
        *_cut_line(ex.answer),
        *_token_lines(ex),
        f"Status    {STATUS[ex.status].format(**words)}",
        *_score_lines(scores),
        _cost_line(ex),
    ]
    if ex.target is not None and not ex.target.exact:
        lines.append("The image is very large and was worked on reduced by a whole factor.")
    return "\n".join(lines)


def _cut_line(answer) -> list[str]:
    count = len(answer.token_ids)
    note = f"          cut after {count} tokens, before its end; allow more with --max-new-tokens"
    return [f"{note} {2 * count}"] if answer.truncated else []


def _token_lines(ex) -> list[str]:
    from .answers import token_spans

    rel, spans = ex.reliance, token_spans(ex.answer)
    found = [
        f"          {ex.answer.text[start:end]!r:<16} log-likelihood ratio {ratio:6.2f} nats"
        for (start, end), ratio, hot in zip(spans, rel.llr.tolist(), rel.crucial, strict=True)
        if hot
    ]
    drop = f"          without the image the answer is {rel.total_drop:.0%} less likely"
    if rel.total_drop < 0:
        drop = "          without the image the answer is no less likely"
    return [*found, drop]


def _score_lines(scores: dict) -> list[str]:
    if scores["map"].get("deletion") is None:
        return []
    lines = ["          deletion  insertion  gap      (deletion low, insertion high is good)"]
    rows = [("Scores", "map"), ("random", "random"), ("centre", "center")]
    for title, name in rows:
        row = scores[name]
        draws = f"   mean of {row['draws']} random maps" if name == "random" else ""
        lines.append(
            f"{title:<10}{row['deletion']:8.3f}{row['insertion']:11.3f}{row['gap']:+8.3f}{draws}"
        )
    return lines


def _cost_line(ex) -> str:
    cost = ex.cost
    return (
        f"Cost      {cost.forward} forward and {cost.backward} backward passes, "
        f"{cost.seconds:.1f} s, {cost.peak_bytes / 2**20:.0f} MiB more at the peak"
    )


# --- list ----------------------------------------------------------------------------------


def _list_parser(commands) -> None:
    p = commands.add_parser("list", help="the models, benchmarks and methods that can be named")
    p.set_defaults(act=list_names)


def list_names(options) -> int:
    """Models with parameters and size, benchmarks with their number of items, methods."""
    from .benchmarks import benchmarks
    from .heatmaps import METHODS
    from .models import models

    sizes = {name: _model_size(name) for name in models()}
    counts = {name: _item_count(name) for name in benchmarks()}
    about = {
        name: (method.__doc__ or "").strip().partition("\n")[0] for name, method in METHODS.items()
    }
    width = max(22, *map(len, (*sizes, *counts, *about)))
    print("Models (hub ids and folders can be given too)")
    for title, rows in (("", sizes), ("\nBenchmarks", counts), ("\nMethods", about)):
        print(title) if title else None
        for name, words in rows.items():
            print(f"  {name:<{width}}  {words}")
        if rows is sizes and not rows:
            print("  none yet; make one with 'lvlm-study train NAME'")
    return 0


def _model_size(name: str) -> str:
    from .models.weights import parameters
    from .sweep.provenance import weight_files

    files = weight_files(name)
    size = sum(file.stat().st_size for file in files)
    return f"{parameters(files) / 1e6:.1f} M parameters, {size / 1e6:.1f} MB"


def _item_count(name: str) -> str:
    from inspect import signature

    from .benchmarks import LOADERS

    if "source" in signature(LOADERS[name]).parameters:  # asking how many would download it
        return "from the Hugging Face hub or a folder"
    try:
        return f"{len(LOADERS[name]())} items"
    except (StudyError, OSError) as error:
        return f"not here: {error}"


# --- run -----------------------------------------------------------------------------------


def _run_parser(commands) -> None:
    p = commands.add_parser("run", help="compute the tables; stop and start it as you like")
    p.set_defaults(act=run)
    p.add_argument("--profile", default="mini", choices=("mini", "paper"))
    p.add_argument(
        "--models", type=_names, help="names, or table1, table4; default: all of the profile"
    )
    p.add_argument("--benchmarks", type=_names, help="names; mmvp@COMMIT pins a hub dataset")
    _data_option(p)
    p.add_argument(
        "--methods",
        default="igos,random,center,sobel",
        help="names, also with options as in 'igos[l2=1,gamma=0.5]'; 'ablations', or one of their "
        "tables as in 'ablations/tokens'; 'none' measures reliance alone",
    )
    p.add_argument("--baselines", type=_names, default=["blur", "black", "mean", "noise"])
    p.add_argument(
        "--units",
        type=_names,
        default=["grid", "superpixels"],
        help="what is taken away: grid, superpixels, patches",
    )
    p.add_argument(
        "--fills",
        type=_names,
        default=["blur", "mean"],
        help="what is put there; all under the first of --units, the first under the others",
    )
    p.add_argument("--items", type=int, metavar="N", help="only N items of each benchmark")
    p.add_argument(
        "--kept", action="store_true", help="maps only for items that need their picture (filter)"
    )
    p.add_argument("--results", type=_path, metavar="DIR", help="default: data/results/PROFILE")
    p.add_argument("--seed", type=_seed, default=0)
    p.add_argument("--engine", default="local", metavar="NAME", help="local (default) or ray")
    p.add_argument("--workers", type=int, metavar="N", help="with ray: default one for each model")
    p.add_argument("--gpus", type=float, metavar="N", help="with ray: GPUs for each worker")
    p.add_argument("--retry-failed", action="store_true", help="try again what ended in an error")
    p.add_argument(
        "--fresh",
        action="store_true",
        help="replace what other settings or options made, or changed items",
    )
    _model_options(p)


def run(options) -> int:
    """Compute missing cells, renew the summaries, show them."""
    from .chapters.summaries import report, write_summaries
    from .heatmaps.progress import say
    from .heatmaps.variants import expand
    from .paths import data_dir
    from .sweep import profiles
    from .sweep.engines import run as compute
    from .sweep.runner import Sweep

    _at_least("items", options.items, 0)
    results = options.results or data_dir() / "results" / options.profile
    names = profiles.expand(options.models or profiles.models(options.profile))
    if not names:
        raise StudyError("There are no models yet; make one with 'lvlm-study train NAME'.")
    sweep = Sweep(
        models=tuple(names),
        benchmarks=tuple(options.benchmarks or profiles.benchmarks(options.profile)),
        methods=() if options.methods.strip() == "none" else tuple(expand(options.methods)),
        results=results,
        profile=options.profile,
        baselines=tuple(options.baselines),
        units=tuple(options.units),
        fills=tuple(options.fills),
        items=options.items,
        seed=options.seed,
        max_new_tokens=options.max_new_tokens,
        dtype=options.dtype,
        device=options.device,
        retry_failed=options.retry_failed,
        fresh=options.fresh,
        folders=tuple(options.data),
    )
    how = (options.engine, options.workers, options.gpus, say)
    if options.kept:
        compute(replace(sweep, methods=()), *how)
        sweep = replace(sweep, only=_kept(results, sweep))
    failed = compute(sweep, *how)
    print(report(write_summaries(results, options.profile, options.seed)))
    if failed:
        print(f"\n{failed} items failed; see 'message' in the tables, or add --retry-failed.")
    return 1 if failed else 0


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


# --- summarise -----------------------------------------------------------------------------


def _summarise_parser(commands) -> None:
    p = commands.add_parser("summarise", help="renew the book's numbers from the tables")
    p.set_defaults(act=summarise)
    p.add_argument("--profile", default="mini", choices=("mini", "paper"))
    p.add_argument("--results", type=_path, metavar="DIR", help="default: data/results/PROFILE")
    p.add_argument("--seed", type=_seed, default=0, help="what the tables were made with")


def summarise(options) -> int:
    """Write every summary of a results folder again, computing nothing."""
    from .chapters.summaries import report, write_summaries
    from .paths import data_dir

    results = options.results or data_dir() / "results" / options.profile
    trees = write_summaries(results, options.profile, options.seed)
    if not trees:
        raise StudyError(f"There are no tables in {results}; make some with 'lvlm-study run'.")
    print(report(trees))
    return 0


# --- train ---------------------------------------------------------------------------------


def _train_parser(commands) -> None:
    p = commands.add_parser("train", help="train a mini model from nothing; can be resumed")
    p.set_defaults(act=train)
    p.add_argument("name", metavar="NAME", nargs="?")
    p.add_argument("--all", action="store_true", help="every member that is not there yet")
    p.add_argument("--work", type=_path, default=Path("zoo-work"), metavar="DIR")
    p.add_argument("--steps", type=int, metavar="N")
    p.add_argument("--images", type=_path, metavar="DIR", help="joint: pictures to train on")
    p.add_argument("--compare", action="store_true", help="joint: all three kinds of alignment")


def train(options) -> int:
    """Hand over to the zoo."""
    from .heatmaps.progress import say
    from .zoo.train import DETECTION, split_seed
    from .zoo.train import train as train_zoo

    if options.all == bool(options.name):
        raise StudyError("Name one mini model to train, or give --all.")
    if options.all:
        from .zoo.train import train_all

        train_all(options.work, say=say)
        return 0
    name = options.name.removeprefix("mini/")
    if name not in DETECTION:
        split_seed(name)  # an unknown name is told at once
    _at_least("steps", options.steps, 1)
    more = {} if options.steps is None else {"steps": options.steps}
    own = {"images": options.images, "compare": options.compare or None}
    own = {key: value for key, value in own.items() if value is not None}
    if own and name != "joint":
        raise StudyError(f"--{next(iter(own))} is for 'lvlm-study train joint' alone.")
    more |= own
    train_zoo(name, options.work, say=say, **more)
    return 0


# --- estimate ------------------------------------------------------------------------------


def _estimate_parser(commands) -> None:
    p = commands.add_parser("estimate", help="passes and hours before a long run")
    p.set_defaults(act=estimate)
    p.add_argument("--model", default="mini/llava-1.5")
    p.add_argument("--benchmark", default="sprites")
    _data_option(p)
    p.add_argument("--methods", type=_names, help="default: all")
    p.add_argument("--items", type=int, metavar="N", help="default: the whole benchmark")
    _model_options(p)


def estimate(options) -> int:
    """Time a handful of passes and multiply."""
    from .benchmarks import load_benchmark
    from .heatmaps import METHODS
    from .models import load_model
    from .sweep.bench import estimate_table

    _at_least("items", options.items, 1)
    methods = options.methods or list(METHODS)
    for name in methods:
        _known("method", name, METHODS)
    folder = dict(options.data).get(options.benchmark)
    items = load_benchmark(options.benchmark, **({"source": folder} if folder else {}))
    model = load_model(options.model, dtype=options.dtype, device=options.device)
    print(estimate_table(model, items[0], methods, options.items or len(items)))
    return 0


# --- convert -------------------------------------------------------------------------------


def _convert_parser(commands) -> None:
    p = commands.add_parser(
        "convert", help="a published alignment (.pth) as a joint model's folder"
    )
    p.set_defaults(act=convert)
    p.add_argument("weights", metavar="FILE", type=_path, help=".pth or .safetensors")
    p.add_argument("out", metavar="DIR", type=_path, help="the folder to write")
    p.add_argument("--owl", default="google/owlvit-base-patch32", help="its detector")
    p.add_argument("--llava", default="llava-hf/llava-1.5-7b-hf", help="its language model")
    p.add_argument("--names", type=_names, default=[], help="what the detector looks for")
    p.add_argument("--force", action="store_true", help="replace a folder that is there")


def convert(options) -> int:
    """Read the tensors without running code, and write them where `load_model` finds them."""
    from .heatmaps.progress import bar
    from .models.joint import convert_published

    if options.out.exists() and not options.force:
        raise StudyError(f"{options.out} is there already; choose another folder or add --force.")
    if options.out.is_file():
        raise StudyError(f"{options.out} is a file; name a folder to write.")
    with bar(2, "file", "reading and writing the alignment") as counted:
        names = (options.owl, options.llava, options.names)
        folder = convert_published(options.weights, options.out, *names, step=counted.update)
    print(f"Written to {folder}; it needs {options.owl} and {options.llava} when it is loaded.")
    return 0


# --- detect --------------------------------------------------------------------------------


def _detect_parser(commands) -> None:
    p = commands.add_parser("detect", help="the numbers of the chapter on detection")
    p.set_defaults(act=detect)
    p.add_argument("--model", default="mini/joint", help="a joint model")
    p.add_argument("--parts", type=_names, help="only these; default: all that can be measured")
    p.add_argument("--items", type=int, metavar="N", help="pictures, or pairs, of each part")
    p.add_argument("--pope", type=_path, metavar="PATH", help="ask about POPE's photographs")
    p.add_argument("--profile", default="mini", choices=("mini", "paper"))
    p.add_argument("--results", type=_path, metavar="DIR", help="default: data/results/PROFILE")
    p.add_argument("--seed", type=_seed, default=0)


def detect(options) -> int:
    """Measure the joint model part by part; each part is one results file."""
    from .chapters.ch13_detection import study
    from .heatmaps.progress import say
    from .paths import data_dir

    _at_least("items", options.items, 2)
    results = options.results or data_dir() / "results" / options.profile
    study(
        options.model,
        results,
        parts=options.parts,
        items=options.items,
        profile=options.profile,
        seed=options.seed,
        pope=options.pope,
        say=say,
    )
    return 0


# --- sanity --------------------------------------------------------------------------------


def _sanity_parser(commands) -> None:
    p = commands.add_parser("sanity", help="do maps change with the model, and with nothing else?")
    p.set_defaults(act=sanity)
    p.add_argument("--model", default="mini/llava-1.5")
    p.add_argument("--benchmark", default="sprites")
    p.add_argument("--methods", type=_names, help="default: those that are not too slow")
    p.add_argument("--items", type=int, default=8, metavar="N", help="answers to explain")
    p.add_argument("--profile", default="mini", choices=("mini", "paper"))
    p.add_argument("--results", type=_path, metavar="DIR", help="default: data/results/PROFILE")
    p.add_argument("--seed", type=_seed, default=0)


def sanity(options) -> int:
    """Other seeds, other words, weights drawn anew; one results file, shown as a table."""
    import pandas as pd

    from .chapters.ch05_cost import METHODS, shown, study
    from .heatmaps.progress import say
    from .paths import data_dir

    _at_least("items", options.items, 1)
    results = options.results or data_dir() / "results" / options.profile
    tree = study(
        options.model,
        results,
        benchmark=options.benchmark,
        methods=options.methods or METHODS,
        items=options.items,
        profile=options.profile,
        seed=options.seed,
        say=say,
    )
    print(shown(pd.DataFrame(tree["rows"]).astype({"value": float})).to_string(index=False))
    return 0


# --- shared --------------------------------------------------------------------------------


def _model_options(p) -> None:
    p.add_argument("--device", help="cpu, cuda:1, ..., auto (all GPUs); default: a GPU")
    p.add_argument("--dtype", help="float32, bfloat16 or float16")
    p.add_argument("--max-new-tokens", type=int, default=64, metavar="N")


def _data_option(p) -> None:
    p.add_argument(
        "--data",
        type=_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="read a benchmark from this folder instead of the hub; may be given several times",
    )


def _folder(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"write it as mmvp=FOLDER, not {text!r}")
    return name, folder


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise StudyError(f"--{option} must be at least {least}, not {value}.")


def _known(kind: str, name: str, known) -> None:
    if name not in known:
        raise unknown(kind, name, known)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("give at least one name")
    return list(dict.fromkeys(names))


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        told = f"a seed is a whole number from 0 to {2**31 - 1}, not {text!r}"
        raise argparse.ArgumentTypeError(told)
    return int(text)


def _text(text: str) -> str:
    """Words from the shell are UTF-8, also where the locale knows ASCII alone."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text  # told in a sentence by whoever reads it


def _path(text: str) -> Path:
    if not text:  # a variable that is not set, which would mean the folder one is in
        raise argparse.ArgumentTypeError("the path is empty; write . for the folder you are in")
    return Path(text)


def _nats(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= 700:  # e to the 709 is the largest number that there is
        raise argparse.ArgumentTypeError(f"a threshold is a number of nats up to 700, not {text!r}")
    return value


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """One line for a reader instead of the file and line of our source."""
    text = textwrap.shorten(str(message), 500)
    print(f"Note: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
