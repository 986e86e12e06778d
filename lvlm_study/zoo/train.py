"""`lvlm-study train NAME`: from nothing to a checkpoint with its card, resumable at any moment.

Four stages, each saved as it goes: tokenizer, vision tower, language model on symbols, member.
Towers and language model are shared, so a second member costs only its own last stage.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import unknown
from ..paths import data_dir
from .card import write_card
from .language import train_language
from .members import RECIPES, save_member, train_member
from .tokenizer import train_tokenizer
from .vision import train_tower

NAMES = tuple(RECIPES)


@dataclass(frozen=True)
class Budget:
    """Scenes in the pool and steps of each stage; the defaults made the committed weights."""

    pool: int = 24576
    tower: int = 3000
    second_tower: int = 3600
    language: int = 1200
    member: int = 2000


SMOKE = Budget(pool=64, tower=4, second_tower=4, language=4, member=4)


def train(
    name: str,
    work: Path,
    *,
    steps: int | None = None,
    out: Path | None = None,
    budget: Budget = Budget(),
    say=print,
) -> Path:
    """Train the zoo member `name` ("mini/llava-1.5", ...) and return its checkpoint folder.

    Partial work is kept in `work`; run again to continue. The checkpoint replaces an older one in
    `out` (default: the repository's data/zoo) only when it is complete. `steps` shortens the last
    stage.
    """
    short = name.removeprefix("mini/")
    if short not in RECIPES:
        raise unknown("zoo member to train", name, NAMES)
    budget = budget if steps is None else replace(budget, member=steps)
    torch.set_num_threads(1)  # small matrices: a second thread costs more than it gives
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(work / "tokenizer")
    model = _train(short, tokenizer, budget, work, say)
    return _finish(model, tokenizer, short, work, out or data_dir() / "zoo" / short, say)


def _train(short: str, tokenizer, budget: Budget, work: Path, say):
    """All stages of one member; a member that starts from another trains that one first."""
    recipe, shared = RECIPES[short], dict(work=work, pool_size=budget.pool, say=say)
    say("vision tower")
    tower = train_tower("clip", steps=budget.tower, batch=40, **shared)
    if recipe.tower != "clip":
        tower = train_tower("siglip", steps=budget.second_tower, batch=12, start=tower, **shared)
    say("language model on symbols")
    start = train_language("m", tokenizer, steps=budget.language, **shared)
    if recipe.first:
        earlier = _train(recipe.first, tokenizer, budget, work, say)
        start.lm.model.load_state_dict(earlier.model.language_model.state_dict())
    say(f"mini/{short}: connector and language model on pictures")
    return train_member(short, tokenizer, start, tower, steps=budget.member, **shared)


def _finish(model, tokenizer, short: str, work: Path, folder: Path, say) -> Path:
    """Write beside, measure, then put in place: a half-written checkpoint is never seen."""
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    save_member(model, tokenizer, short, beside)
    say("measuring on the test set")
    write_card(short, beside, work)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder
