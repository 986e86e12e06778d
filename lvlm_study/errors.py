"""Errors a reader can act on: one sentence that says what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class StudyError(Exception):
    """Bad input, told in one sentence. The command line prints it and exits with code 2."""


def named(value) -> str:
    """What was given, for an error that says what is wanted: "5 (int)", "a list", "None"."""
    if value is None:
        return "None"
    kind = type(value).__name__
    if isinstance(value, bool | int | float | str):
        return f"{short(value)} ({kind})"
    return f"{'an' if kind[0].lower() in 'aeio' else 'a'} {kind}"


def short(value) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:76] + "..."


def unknown(kind: str, name: str, known: Iterable[str]) -> StudyError:
    """The error for a name that does not exist, with the nearest names that do."""
    known = list(known)
    if not isinstance(name, str):
        return StudyError(f"A {kind} is named by text, such as {known[0]!r}, not {named(name)}.")
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {_some(known)}."
    return StudyError(f"There is no {kind} named {short(name)}; {hint}")


def _some(names: list[str], most: int = 20) -> str:
    """The names in a sentence; of very many, the first."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
