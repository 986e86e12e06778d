"""Members for busy ground: committed members that learn to see what lies about.

A member of level L starts from the committed one of its architecture and size, language model and
all. Its towers are trained once for all levels, from the committed towers, on dense labels of
scenes of every level. Its connector then learns to give, for a busy picture, the tokens that the
committed member gives for the same scene on even ground (nothing in front, nothing behind): what
the language model can read already. One last course of questions about scenes of levels 0 to L
follows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..models.registry import load_model
from .families import FAMILIES, Llava
from .language import opening
from .members import (
    BUSY,
    Lessons,
    examination,
    fit_connector,
    fit_course,
    held_lessons,
    kept_tokens,
    recipe_of,
    tower_tokens,
)
from .pool import HIGH, VIEWS, Pool, load_pool
from .vision import TOWERS, train_tower

GIVERS = {  # the committed member from which a tower starts
    "clip": "llava-1.5",
    "siglip": "llava-ov",
    "dino": "cambrian-l",
    "convnext": "cambrian-l",
}
TOWER_STEPS = {"clip": 2000, "siglip": 1800, "dino": 1500, "convnext": 1800}
TOWER_RATE, CONNECTOR_RATE, COURSE_RATE = 5e-4, 1e-3, 5e-4
CLEARED = 4096  # scenes that are also drawn cleared, for the connector
SIDES = VIEWS | HIGH  # drawn together, since drawing takes longer than shrinking
HELD = 1024  # held-out scenes of all levels; an examination takes those of the member's own


@dataclass(frozen=True)
class Plan:
    """Scenes and steps; the defaults are the recipe. `tower` None has `TOWER_STEPS`."""

    pool: int = 24576
    cleared: int = CLEARED
    held: int = HELD
    tower: int | None = None
    connector: int = 400
    course: int | None = None  # None: as the recipe says


def train_busy(
    name: str, seed: int, work: Path, *, plan: Plan = Plan(), say=print
) -> tuple[nn.Module, object]:
    """Train one member of `BUSY`; returns the model and its tokenizer.

    Its log is in `work`/member-NAME-SEED; towers, pools and features are shared in `work`.
    """
    recipe = BUSY[name]
    family, folder = FAMILIES[recipe.family], work / f"member-{name}-{seed}"
    load_pool(work, plan.pool, 1000, SIDES, "busy")
    towers = {t: busy_tower(t, work, plan=plan, say=say) for t in family.towers}
    torch.manual_seed(seed)
    first = load_model(f"mini/{recipe.first}", torch.float32, "cpu")
    begin, tokenizer = opening(first.tokenizer), first.tokenizer
    pool = load_pool(work, plan.pool, 1000, SIDES, "busy")
    rows = up_to(pool, recipe.clutter)
    tokens = even_tokens(family, first.model, work, plan)
    model = seated(family, first.model, towers)
    paths = {t: work / f"features-busy-{t}-{plan.pool}.safetensors" for t in family.kept}
    kept = [kept_tokens(t, towers[t], pool, path) for t, path in paths.items()]
    say(f"mini/{name}, seed {seed}: connector, then questions about levels 0 to {recipe.clutter}")
    lessons = Lessons(family, pool, kept, rows[rows < len(tokens)])
    how = dict(steps=plan.connector, seed=seed, rate=CONNECTOR_RATE, say=say)
    fit_connector(model, lambda some: tokens[some].float(), lessons, folder, **how)
    held = load_pool(work, plan.held, 1001, SIDES, "busy")
    own = np.array([k for k, s in enumerate(held.scenes) if s.clutter == recipe.clutter])
    exam = examination(model, held_lessons(family, towers, held, own), begin, tokenizer)
    lessons = Lessons(family, pool, kept, rows)
    steps = recipe.later if plan.course is None else plan.course
    how = dict(part=1, steps=steps, seed=seed, rate=COURSE_RATE, evaluate=exam, say=say)
    fit_course(model, lessons, recipe.courses[0], begin, tokenizer, folder, **how)
    return model.eval(), tokenizer


def busy_tower(name: str, work: Path, *, plan: Plan = Plan(), say=print) -> nn.Module:
    """A tower for busy ground, trained from the committed one of its name, or its last save."""
    name = TOWERS[name].same_as or name
    giver = load_model(f"mini/{GIVERS[name]}", torch.float32, "cpu")
    family = FAMILIES[recipe_of(GIVERS[name]).family]
    ready = TOWERS[name].make()
    _fill(ready, family.seats(giver.model)[name])
    say(f"vision tower {name} on busy ground")
    steps = TOWER_STEPS[name] if plan.tower is None else plan.tower
    how = dict(steps=steps, pool_size=plan.pool, world="busy", rate=TOWER_RATE, say=say)
    return train_tower(name, work, ready=ready, **how)


def up_to(pool: Pool, level: int) -> np.ndarray:
    """The scenes of a pool that are no busier than `level`."""
    return np.array([k for k, scene in enumerate(pool.scenes) if scene.clutter <= level])


@torch.no_grad()
def even_tokens(family: Llava, model: nn.Module, work: Path, plan: Plan) -> torch.Tensor:
    """What a committed member's connector says about the first scenes, cleared, bf16 (n, T, D)."""
    count = min(plan.cleared, plan.pool)
    pool, rows = load_pool(work, count, 1000, SIDES, "cleared"), np.arange(count)
    own = family.seats(model)
    kept = [tower_tokens(t, own[t], pool, rows) for t in family.kept]
    inputs = Lessons(family, pool, kept, rows).inputs
    parts = np.array_split(rows, max(1, count // 32))
    return torch.cat([family.translate(model, inputs(part)).bfloat16() for part in parts])


def seated(family: Llava, model: nn.Module, towers: dict[str, nn.Module]) -> nn.Module:
    """A committed member with other towers in its own towers' places; all but these can learn."""
    model.requires_grad_(True)
    for name, place in family.seats(model).items():
        _fill(place, towers[name])
        place.requires_grad_(False)
    model.set_attn_implementation("eager")
    return model


def _fill(place: nn.Module, tower: nn.Module) -> None:
    """Weights of one tower into another of its kind, whose tensors may have other names."""
    given = tower.state_dict().values()
    place.load_state_dict(dict(zip(place.state_dict(), given, strict=True)))
