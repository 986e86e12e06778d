"""`lvlm-study train NAME`: from nothing to a checkpoint with its card, resumable at any moment.

Four stages, each saved as it goes: tokenizer, vision towers, language model on symbols, member.
Towers and language models are shared, so a second member costs only its own last stage.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..errors import StudyError, unknown
from ..models.weights import is_whole, note, share
from ..paths import data_dir
from . import times
from .alignment import train_joint
from .bias import train_twin
from .busy import Plan, train_busy
from .card import write_card
from .families import FAMILIES
from .fit import renewed
from .language import train_language
from .members import BUSY, RECIPES, recipe_of, save_member, train_member
from .owl import train_owl
from .tokenizer import train_tokenizer
from .vision import TOWERS, train_tower

SEEDED = (  # committed with three seeds; any recipe can be trained with more
    "llava-1.5-s",
    "llava-ov-s",
    "cambrian-s",
    "mini-gemini-l",
)
DETECTION = {  # the second seed's models, with stages of their own
    "owl": train_owl,
    "joint": train_joint,
    "joint/biased": partial(train_twin, "biased"),
    "joint/clean": partial(train_twin, "clean"),
}
NAMES = (*RECIPES, *(f"{name}-seed{k}" for name in SEEDED for k in (1, 2)), *DETECTION)


@dataclass(frozen=True)
class Budget:
    """Scenes in the pool and steps of each stage.

    The defaults made the committed weights. A member that starts from another one's language model
    has the steps of its recipe; `later` replaces them.
    """

    pool: int = 24576
    tower: int = 3000
    second_tower: int = 3600  # of a tower that sees tiles
    language: int = 1200
    connector: int = 400
    reading: int = 600  # of a member whose tower learns letters
    member: int = 2000  # of the first course of a member that starts from symbols
    second: int = 1300  # of its second one
    later: int | None = None  # of a member that starts from another one's language model


SMOKE = Budget(
    64, tower=4, second_tower=4, language=4, connector=4, reading=4, member=4, second=4, later=4
)


def split_seed(name: str) -> tuple[str, int]:
    """Recipe and seed of a member's name: "llava-1.5-seed1" is ("llava-1.5", 1).

    A seed decides about connector and courses alone; towers and language model are shared by all
    members whose recipe has the same `start`.
    StudyError for an unknown name.
    """
    short = name.removeprefix("mini/")
    recipe, mark, seed = short.rpartition("-seed")
    recipe, seed = (recipe, seed) if mark and seed.isdigit() else (short, "0")
    if recipe_of(recipe) is None:
        raise unknown("zoo member to train", name, (*NAMES, *BUSY))
    return recipe, int(seed)


def is_busy(name: str) -> bool:
    """Whether a member, whatever its seed, is one for busy ground."""
    return name.removeprefix("mini/").partition("-seed")[0] in BUSY


def train(
    name: str,
    work: Path,
    *,
    steps: int | None = None,
    out: Path | None = None,
    budget: Budget = Budget(),
    say=print,
    **detection,
) -> Path:
    """Train the zoo member `name` ("mini/llava-1.5", ...) and return its checkpoint folder.

    Partial work is kept in `work`; run again to continue. The checkpoint replaces an older one in
    `out` (default: the repository's data/zoo) only when it is complete; the zoo's manifest then
    knows the new one. `steps` shortens the member's first course. `detection` goes to
    `train_joint`, for that model alone.
    """
    short, begun = name.removeprefix("mini/"), time.monotonic()
    if short in DETECTION:
        if steps is not None and short == "owl":
            raise StudyError("mini/owl has stages of its own; its number of steps is fixed.")
        more = detection if steps is None else detection | {"steps": steps}
        folder = DETECTION[short](work, out=out, say=say, **more)
    else:
        folder = _train_member(short, work, steps, out, budget, say)
    if out is None:  # a folder elsewhere has no manifest
        note(data_dir() / "zoo", short, seconds=round(time.monotonic() - begun))
    return folder


def _train_member(short: str, work: Path, steps, out: Path | None, budget: Budget, say) -> Path:
    """`train` of a member with a recipe."""
    recipe, seed = split_seed(short)
    budget = budget if steps is None else replace(budget, member=steps, later=steps)
    torch.set_num_threads(1)  # small matrices: a second thread costs more than it gives
    work.mkdir(parents=True, exist_ok=True)
    if is_busy(short):
        plan = Plan() if steps is None else Plan(course=steps)
        model, tokenizer = train_busy(recipe, seed, work, plan=plan, say=say)
    else:
        tokenizer = train_tokenizer(work / "tokenizer")
        model = _train(recipe, seed, tokenizer, budget, work, say)
    folder = _finish(model, tokenizer, short, work, out or data_dir() / "zoo" / short, say)
    times.note(work, folder.parent)
    return folder


def train_all(
    work: Path,
    *,
    names: tuple[str, ...] = NAMES,
    zoo: Path | None = None,
    budget: Budget = Budget(),
    say=print,
) -> list[str]:
    """Train every member that is not there yet, or not as the manifest says; returns what was made.

    A member is done when every file of its folder has the checksum in `zoo`/manifest.json, so a
    run that was stopped goes on where it was, and a second run does nothing.
    """
    zoo, made = zoo or data_dir() / "zoo", []
    zoo.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names, 1):
        if is_whole(zoo, name):
            say(f"{k}/{len(names)} mini/{name}: there already")
            continue
        say(f"{k}/{len(names)} mini/{name}")
        begun = time.monotonic()
        train(name, work, out=zoo / name, budget=budget, say=say)
        note(zoo, name, seconds=round(time.monotonic() - begun))
        made.append(name)
    return made


def _train(recipe: str, seed: int, tokenizer, budget: Budget, work: Path, say) -> nn.Module:
    """All stages of one member; a member that starts from another trains that one first."""
    plan, shared = RECIPES[recipe], dict(work=work, pool_size=budget.pool, say=say)
    begun = shared | {"seed": plan.start}
    towers = {name: _tower(name, budget, begun) for name in FAMILIES[plan.family].towers}
    say(f"language model {plan.size} on symbols")
    start = train_language(plan.size, tokenizer, steps=budget.language, **begun)
    if plan.first:
        earlier = _train(plan.first, 0, tokenizer, budget, work, say)
        language = FAMILIES[RECIPES[plan.first].family].language(earlier)
        start.lm.model.load_state_dict(language.state_dict())
    say(f"mini/{recipe}, seed {seed}: connector and language model on pictures")
    later = plan.later if budget.later is None else budget.later
    steps = (later,) if plan.first else (budget.member, budget.second)
    counts = dict(steps=steps, connector=budget.connector, reading=budget.reading)
    return train_member(recipe, tokenizer, start, towers, seed=seed, **counts, **shared)


def _tower(name: str, budget: Budget, shared: dict) -> nn.Module:
    """A trained tower; one that starts from another trains that one first."""
    kind = TOWERS[name]
    if kind.same_as:
        return _tower(kind.same_as, budget, shared)
    start = _tower(kind.start, budget, shared) if kind.start else None
    shared["say"](f"vision tower {name}")
    steps = budget.second_tower if start else budget.tower
    return train_tower(name, steps=steps, start=start, **shared)


def _finish(model, tokenizer, short: str, work: Path, folder: Path, say) -> Path:
    recipe, seed = split_seed(short)
    with renewed(folder) as beside:
        save_member(model, tokenizer, recipe, beside)
        for base in _relatives(short):
            if share(beside, base):
                break
        say("measuring on the test set")
        write_card(short, beside, work / f"member-{recipe}-{seed}")
    return folder


def _relatives(short: str) -> list[str]:
    """Members whose towers, and more, are those of this one: where it is enough to name them."""
    recipe, seed = split_seed(short)
    if recipe not in BUSY:
        return [recipe] if seed else []
    family = RECIPES[BUSY[recipe].first]
    alike = [n for n, r in BUSY.items() if (r.family, r.size) == (family.family, family.size)]
    return [n for n in alike if n != short]
