"""What methods are called where people read about them: tables, figures, sentences.

The runner writes short names, with options in brackets for variants: "igos[baseline=black]".
"""

import re

from .methods import BY_NAME, TABLE

_OWN, _CONTROLS = ([m for m in TABLE if m.control is control] for control in (False, True))
TITLES = {m.name: m.title for m in (*_OWN, *reversed(_CONTROLS))}  # random last, as in tables
UNITS = {m.name: m.unit for m in TABLE}  # what a map's values are; of others: "saliency"
CONTROLS = tuple(m.name for m in _CONTROLS)  # they never look at the model
REFERENCE = "igos"  # our setting of it, which the others are compared with
PAPER_METHOD = "igos[preset=paper]"  # the paper's setting: its ablations, its claims
NOBODY = "none"


def title(name: str) -> str:
    """The name for readers; options in brackets follow it, "iGOS (baseline black)".

    The paper's setting is "iGOS (paper)", a layer of held-out scenes "Grad-CAM (chosen layer)".
    """
    base, _, options = name.partition("[")
    plain = TITLES.get(base, base)
    said = options.rstrip("]").replace("preset=paper", "paper")
    said = said.replace("layer=auto", "chosen layer")
    said = said.replace("_", " ").replace("=", " ").replace(",", ", ")
    return f"{plain} ({said})" if said else plain


def without_preset(name: str) -> str:
    """A variant of the paper's setting by what it changes: igos[l2=1,preset=paper] -> igos[l2=1].

    For tables in which all variants have that preset.
    """
    return re.sub(r",?preset=paper\]$", "]", name).replace("[]", "")


def listed(names) -> str:
    """Titles as a reader would say them: "A", "A and B", "A, B and C"; "none" without any."""
    titles = [title(name) for name in names]
    if len(titles) < 2:
        return titles[0] if titles else NOBODY
    return f"{', '.join(titles[:-1])} and {titles[-1]}"


def in_order(names) -> list[str]:
    """Methods in the order of `TITLES`, controls last, unknown ones before the controls."""
    known = {name: place for place, name in enumerate(TITLES)}
    last = len(known) - len(CONTROLS)
    return sorted(
        names, key=lambda name: (known.get(name.partition("[")[0], last - 0.5), _natural(name))
    )


def top_of(name: str) -> float | None:
    """The greatest value that a method's maps, or a variant's, can have; None if there is none."""
    method = BY_NAME.get(name.partition("[")[0])
    return method.top if method else None


def draws_of(name: str) -> int:
    """How many maps of a method, or a variant, the scores of its row are means of."""
    method = BY_NAME.get(name.partition("[")[0])
    return method.draws if method else 1


def _natural(name: str) -> list:
    """Numbers inside a name sort by size: steps=4 before steps=20."""
    parts = re.split(r"(\d+\.?\d*)", name)
    return [(0, float(p), "") if p[:1].isdigit() else (1, 0.0, p) for p in parts if p]
