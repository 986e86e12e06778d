"""What a model's name says about it: its architecture, its size, the number of its training."""

import re
from dataclasses import dataclass

RELEASED = (  # what a hub id says: (pattern, family)
    (r"llava-onevision-qwen2-(?P<size>[\d.]+b)", "llava-ov"),
    (r"llava-1\.5-(?P<size>\d+b)", "llava-1.5"),
    (r"cambrian-(?:phi3-)?(?P<size>\d+b)", "cambrian"),
    (r"MGM-(?P<size>\d+B)-HD", "mini-gemini-hd"),
    (r"MGM-(?P<size>\d+B)", "mini-gemini"),
)
SIZES = ("s", "m", "l")


@dataclass(frozen=True)
class Member:
    """What a model's name says about it: its architecture, its size, the number of its training."""

    family: str
    size: str
    seed: int = 0


def member(name: str) -> Member:
    """`"mini/llava-1.5-s-seed2"` -> `Member("llava-1.5", "s", 2)`; a plain zoo name has size l."""
    if not name.startswith("mini/"):
        found = [(f, re.search(p, name, re.I)) for p, f in RELEASED]
        family, size = next(((f, m["size"].lower()) for f, m in found if m), (name, "?"))
        return Member(family, size)
    short, mark, seed = name.removeprefix("mini/").rpartition("-seed")
    short, seed = (short, int(seed)) if mark and seed.isdigit() else (name[5:], 0)
    family, _, size = short.rpartition("-")
    return Member(family, size, seed) if size in SIZES else Member(short, "l", seed)


def short(name: str) -> str:
    """A model's name without its shelf."""
    return name.removeprefix("mini/")
