"""How far a long piece of work is: passes or items done and time left, on stderr.

A terminal sees a bar, a log file or a pipe a line every `EVERY` seconds, notebooks and tests, which
put a stderr of their own in place, nothing. A bar only counts: it changes neither results nor their
order, and an interrupt goes through it.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from inspect import signature
from io import StringIO

from tqdm import tqdm

EVERY = 20.0  # seconds between the lines of a log file
PASSES: dict[str, Callable[[dict], int]] = {  # a map's forward passes by its options, where known
    "igos": lambda o: 2 * o["iterations"] * (o["steps"] or 10),
    "igos++": lambda o: 4 * o["iterations"] * (o["steps"] or 10),
    "rise": lambda o: o["masks"],
    "occlusion": lambda o: 1 + round((1 - o["window"]) / o["stride"] + 1) ** 2,
    "integrated_gradients": lambda o: o["steps"],
    "smoothgrad": lambda o: o["samples"],
    "llava_cam": lambda o: o["samples"],
    "relative_attention": lambda o: 2,
    "iia": lambda o: (o["steps"] + 1) ** 2,
}


def shown() -> bool:
    """Whether somebody is looking: stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def logged() -> bool:
    """Whether stderr is the process's own, and goes to a file or a pipe."""
    return sys.stderr is not None and sys.stderr is sys.__stderr__ and not shown()


@contextmanager
def bar(total: int | None = None, unit: str = "item", what: str = "", leave: bool = False):
    """A bar that counts to `total`; without one, what is done and the time it took."""
    how = {"total": total, "unit": unit, "desc": what or None, "smoothing": 0.05}
    if shown():
        with tqdm(**how, leave=leave, mininterval=0.2, **_size(), file=sys.stderr) as counted:
            yield counted
        return
    unseen = {"file": StringIO(), "mininterval": EVERY, "ncols": 0}
    with tqdm(**how, **unseen, disable=not logged()) as counted, _lines(counted):
        yield counted


@contextmanager
def _lines(counted: tqdm):
    """Say how far `counted` is every `EVERY` seconds, also when one item takes longer."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(EVERY):
            print(counted, file=sys.stderr, flush=True)

    if not counted.disable:
        threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _size() -> dict[str, int]:
    """The terminal's size; 80 x 24 for one that has none, on which tqdm would draw nothing."""
    try:
        found = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return {"ncols": 80, "nrows": 24}
    return {"ncols": found.columns or 80, "nrows": found.lines or 24}


def each(things: Iterable, what: str = "", unit: str = "item"):
    """Hand the things on one by one, counted."""
    total = len(things) if hasattr(things, "__len__") else None
    with bar(total, unit, what) as counted:
        for thing in things:
            yield thing
            counted.update()


def say(text: str) -> None:
    """A line on stdout, past a bar that is drawn on the same terminal."""
    tqdm.write(str(text), file=sys.stdout)
    sys.stdout.flush()


@contextmanager
def passes(model, what: str, total: int | None = None):
    """Count the forward passes of a model (an adapter) while the block runs, a picture each."""
    if not (shown() or logged()):
        yield
        return
    with bar(total, " passes", what) as counted, watched(model, counted.update):
        yield


@contextmanager
def watched(model, tell: Callable[[int], object]):
    """`tell(pictures)` after every forward pass of a model (an adapter) while the block runs."""
    from .base import _counted_layer

    def count(module, inputs, output):
        tell(len(output if hasattr(output, "shape") else output.logits))

    hook = _counted_layer(model.model).register_forward_hook(count)
    try:
        yield
    finally:
        hook.remove()


def expected(name: str, function: Callable, options: dict | None = None) -> int | None:
    """The forward passes of a method's map under its options; None where they are not known."""
    options = options or {}
    given = {key: options.get(key, p.default) for key, p in signature(function).parameters.items()}
    try:
        return int(PASSES[name](given))
    except (KeyError, TypeError, ZeroDivisionError):  # each search is as long as it is
        return None
