"""A method with options in its name, `igos[l2=1,gamma=0.5]`: what an ablation compares.

A name goes through tables, folders and summaries, so every variant has one canonical text: target
options first, then the method's own in the order of its signature, options at their default left
out. The target options `tokens`, `word` and `threshold` change what is explained and `baseline`
the fill that the method works with (not the choice of tokens); none changes how a map is scored.

`ABLATIONS` lists the paper's ablations (its Tables 3 and 5) and the further ones of this study: all
but the table of presets change the paper's own setting.
"""

import inspect
import math
import re
from typing import get_args
from urllib.parse import quote

from ..answers import THRESHOLD, TOKEN_CHOICES
from ..errors import StudyError, unknown
from ..pixels.baselines import baselines
from . import METHODS
from .names import PAPER_METHOD, REFERENCE

TARGET_OPTIONS = {  # option -> (type, default)
    "tokens": (str, "llr"),
    "word": (str, None),
    "threshold": (float, THRESHOLD),
    "baseline": (str, "blur"),
}


def _paper(*changes: str) -> list[str]:
    """The paper's setting with one thing changed, for each of `changes`."""
    return [f"igos[{change},preset=paper]" for change in changes]


ABLATIONS: dict[str, tuple[str, ...]] = {  # table -> variants, the paper's setting at its place
    "tokens": (PAPER_METHOD, *_paper("tokens=all", "tokens=keywords")),
    "baseline": (PAPER_METHOD, *_paper("baseline=black", "baseline=mean", "baseline=noise")),
    "masks": (PAPER_METHOD, "igos++[preset=paper]"),
    "l2_gamma": (
        *(*_paper("l2=0"), PAPER_METHOD, *_paper("l2=1", "l2=10")),
        *_paper("gamma=0.2", "l2=1,gamma=0.2", "l2=10,gamma=0.2"),
    ),
    "mask_size": (
        *_paper("mask_size=8", "mask_size=16"),
        *(PAPER_METHOD, *_paper("mask_size=64")),
    ),
    "iterations": (
        *(*_paper("iterations=2"), PAPER_METHOD),
        *_paper("iterations=10", "iterations=20"),
    ),
    "steps": (*_paper("steps=5"), PAPER_METHOD, *_paper("steps=20")),
    "noise": (*_paper("noise=0"), PAPER_METHOD),
    "lr": (*_paper("lr=1", "lr=3"), PAPER_METHOD, *_paper("lr=30")),
    "l2_unit": (PAPER_METHOD, *_paper("l2_unit=mean")),
    "preset": (
        *("igos[compat=paper_code]", PAPER_METHOD),
        *(REFERENCE, "igos[preset=fast]", "igos[preset=lean]"),
    ),
}
PAPER = {  # our variant -> row of the paper's Table 3; our l2 at gamma 1 -> row of its Table 5
    "table3": {
        PAPER_METHOD: "Proposed",
        "igos[tokens=all,preset=paper]": "Joint prob.",
        "igos[tokens=keywords,preset=paper]": "Keywords",
        "igos[baseline=black,preset=paper]": "Blank",
        "igos[baseline=noise,preset=paper]": "Noise",
        "igos++[preset=paper]": "Separate",
    },
    "table5": dict(zip(ABLATIONS["l2_gamma"][:4], ("0.0", "0.1", "1.0", "10.0"), strict=True)),
}
# Run for methods that by their defaults take a minute a map.
STAND_INS = ("eagle[regions=32]", "eagle_lazy[regions=32]")
CHOSEN = ("grad_cam[layer=auto]", "llava_cam[layer=auto]")  # by the layer of held-out scenes
SHOWN = (*STAND_INS, *CHOSEN, PAPER_METHOD, "igos++[preset=paper]")  # stand among the methods
_NAME = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
_NUMBER = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def parse(name: str) -> tuple[str, dict]:
    """`"igos[l2=1,tokens=all]"` -> `("igos", {"tokens": "all", "l2": 1.0})`.

    Options come in canonical order, those at their default are left out. Raises StudyError for an
    unknown method, option or choice (with near matches), a value of the wrong type, or brackets
    that do not close.
    """
    found = _NAME.fullmatch(name.strip())
    if found is None:
        raise StudyError(f"{name!r} is no method; write it as igos or igos[l2=1,gamma=0.5].")
    method, text = found[1].strip(), found[2]
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    known = options_of(method)
    given = dict(_pair(part, name) for part in (text or "").split(",") if part.strip())
    for key in given:
        if key not in known:
            raise unknown(f"option of {method}", key, known)
    typed = {key: _value(key, given[key], known[key][0], name) for key in known if key in given}
    _check_choices(typed)
    return method, {key: value for key, value in typed.items() if value != known[key][1]}


def canonical(name: str) -> str:
    """The one text of a variant: `igos[ gamma=.5, l2=1.0 ]` -> `igos[l2=1,gamma=0.5]`."""
    method, options = parse(name)
    inside = ",".join(f"{key}={_text(value)}" for key, value in options.items())
    return f"{method}[{inside}]" if inside else method


def folder_name(name: str) -> str:
    """The folder of a variant: a plain method's own name, no brackets, different for each.

    `igos[l2=1,gamma=0.5]` -> `igos@l2=1,gamma=0.5`; other than plain characters are %-encoded.
    """
    method, _, inside = canonical(name).partition("[")
    return f"{method}@{quote(inside[:-1], safe='=,+')}" if inside else method


def is_variant(name: str) -> bool:
    """True for a name with options."""
    return "[" in name


def is_ablation(name: str) -> bool:
    """True for a variant that is compared with its own method, and not with the others."""
    return is_variant(name) and name not in SHOWN


def split_options(name: str) -> tuple[str, dict, dict]:
    """(method, target options, the method's own options) of a variant."""
    method, options = parse(name)
    about = {key: value for key, value in options.items() if key in TARGET_OPTIONS}
    return method, about, {k: v for k, v in options.items() if k not in about}


def split_names(text: str) -> list[str]:
    """A comma list of names, commas within brackets not counting; no name twice."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\]]*\]?|\])+", text)
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def expand(text: str) -> list[str]:
    """The names of a comma list in canonical text, none twice.

    "ablations" becomes every variant of `ABLATIONS`, "ablations/lr" those of one table.
    """
    lists = {f"ablations/{table}": every for table, every in ABLATIONS.items()}
    lists["ablations"] = tuple(name for every in ABLATIONS.values() for name in every)
    names = split_names(text)
    if not names:
        raise StudyError("Give at least one method, or 'none'.")
    for name in names:
        if name.startswith("ablations") and name not in lists:
            raise unknown("list of ablations", name, lists)
    every = [one for name in names for one in lists.get(name, (name,))]
    return list(dict.fromkeys(map(canonical, every)))


def options_of(method: str) -> dict[str, tuple]:
    """{option: (type or None, default)} of a method, target options first."""
    own = inspect.signature(METHODS[method]).parameters
    own = {k: (_kind(p), p.default) for k, p in own.items() if k not in ("target", "seed")}
    return TARGET_OPTIONS | own


def _kind(parameter: inspect.Parameter) -> type | None:
    """What a value must be, None where the annotation leaves a choice or names no plain type."""
    kinds = get_args(parameter.annotation) or (parameter.annotation,)
    plain = [kind for kind in kinds if kind in _NUMBER]
    return plain[0] if len(plain) == 1 else None


def _pair(part: str, name: str) -> tuple[str, str]:
    key, equals, value = (piece.strip() for piece in part.partition("="))
    if not (key and equals and value):
        raise StudyError(f"{part.strip()!r} in {name} is no option; write it as l2=1.")
    return key, value


def _value(key: str, text: str, kind: type | None, name: str):
    """A value in the type of its option; a word given for a number is an error."""
    value = _guess(text)
    if kind is float and type(value) is int:
        return float(value)
    if kind is str:
        return text
    if kind is not None and type(value) is not kind:
        raise StudyError(f"{key} in {name} must be {_NUMBER[kind]}, not {text!r}.")
    return value


def _guess(text: str):
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return {"true": True, "false": False}.get(text.lower(), text)


def _text(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return str(value)


def _check_choices(options: dict) -> None:
    for key, known in (("tokens", TOKEN_CHOICES), ("baseline", baselines())):
        if key in options and options[key] not in known:
            raise unknown(key, options[key], known)
    if options.get("tokens") == "word" and "word" not in options:
        raise StudyError("tokens=word needs the word to explain, for example igos[word=red].")
