"""Errors a reader can act on: one sentence that says what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class StudyError(Exception):
    """Bad input, told in one sentence. The command line prints it and exits with code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> StudyError:
    """The error for a name that does not exist, with the nearest names that do."""
    known = list(known)
    near = get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}."
    return StudyError(f"There is no {kind} named {name!r}; {hint}")
