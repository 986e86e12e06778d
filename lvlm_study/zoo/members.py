"""The zoo's members: a family, a language-model size, and what is asked of them in training.

A member starts from its trained towers and from a language model that learned to answer from
symbols. First the connector alone learns to speak those symbols; then connector and language model
learn to answer questions about pictures together. All members of a size but the first start from
that one's language model, so that architectures are compared on the same one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..paths import replacing
from .families import FAMILIES, Inputs, Llava
from .fit import fit, half
from .language import SymbolModel
from .pool import HELD, Pool, load_pool
from .reading import learn_to_read
from .texts import (
    HARD,
    LAST,
    answer_loss,
    around,
    captions,
    checklist,
    coordinates,
    encode,
    exact_answers,
    inventory,
    one_by_one,
    short_texts,
    zero_count,
)
from .vision import TOWERS

# (from this step on, turns per category, further texts about each picture)
Course = tuple[tuple[int, tuple[float, ...] | None, tuple[Callable, ...]], ...]
FIRST_COURSE: Course = (
    (0, None, ()),
    (300, HARD, ()),
    (800, HARD, (checklist,)),
    (1050, HARD, (checklist, zero_count)),
)
MISLED_COURSE: Course = ((0, None, ()),)
LAST_COURSE: Course = ((0, LAST, (zero_count, inventory, one_by_one, coordinates, around)),)


@dataclass(frozen=True)
class Recipe:
    """How one member comes about.

    A member for busy ground (`clutter` > 0) starts from the committed checkpoint `first` as a
    whole and gets other towers: see `zoo.busy`.

    With each course the learning rate starts again. `first` is the member whose language model
    this one starts from; its course then has `later` steps (a member that starts from symbols has
    those of the budget). `start` is the seed of towers and language model: two members with
    different ones share no weight.
    """

    family: str
    size: str = "l"
    courses: tuple[Course, ...] = (LAST_COURSE,)
    first: str | None = None
    later: int = 0
    clutter: int = 0
    start: int = 0


FIRST = {"s": "llava-1.5-s", "m": "llava-1.5-m", "l": "llava-1.5"}
SIZES = {"llava-ov": "sml", "cambrian": "sml", "mini-gemini": "ml", "mini-gemini-hd": "ml"}
LATER = {"llava-ov": 700, "cambrian": 400, "mini-gemini": 260, "mini-gemini-hd": 260}
RECIPES = {
    name: Recipe("llava-1.5", size, (FIRST_COURSE, LAST_COURSE)) for size, name in FIRST.items()
}
RECIPES |= {
    f"{family}-{size}": Recipe(family, size, first=FIRST[size], later=LATER[family])
    for family, sizes in SIZES.items()
    for size in sizes
}
RECIPES["llava-ov"] = RECIPES.pop("llava-ov-l")  # plain names have size l
RECIPES["llava-1.5-s-apart"] = replace(RECIPES["llava-1.5-s"], start=1)
RECIPES["llava-1.5-shortcut"] = Recipe("misled", "l", (MISLED_COURSE,), "llava-1.5", 400)

FURTHER = {  # steps of the one course of a member for busy ground, by the member it starts from
    "llava-1.5-s": 500,
    "llava-1.5": 500,
    "llava-ov": 400,
    "cambrian-l": 400,
    "mini-gemini-l": 260,
}
BUSY = {
    f"{first}-clutter{level}": replace(
        RECIPES[first], courses=(LAST_COURSE,), first=first, later=steps, clutter=level
    )
    for first, steps in FURTHER.items()
    for level in ((1, 2, 3, 4) if first == "llava-1.5-s" else (3, 4))
}


def recipe_of(name: str) -> Recipe | None:
    """The recipe of a member's name, whatever its seed; None for one that has none."""
    return (RECIPES | BUSY).get(name.partition("-seed")[0])


@torch.no_grad()
def tower_tokens(name: str, tower: nn.Module, pool: Pool, rows: np.ndarray) -> torch.Tensor:
    """What a frozen tower says about some scenes of a pool, bfloat16 (n, tokens, C)."""
    kind, out = TOWERS[name], []
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        with half():
            tokens = kind.read(tower, kind.pixels(pool, part))
        out.append(tokens.to(torch.bfloat16).reshape(len(part), -1, tokens.shape[-1]))
    return torch.cat(out)


def cached_tokens(name: str, tower: nn.Module, pool: Pool, path: Path) -> torch.Tensor:
    """`tower_tokens` of a whole pool, worked out once for all members that share a tower."""
    if not path.exists():
        tokens = tower_tokens(name, tower, pool, np.arange(len(pool.scenes)))
        with replacing(path) as part:
            save_file({"features": tokens}, part)
    return load_file(path)["features"]


@dataclass(frozen=True)
class Lessons:
    """The scenes of one training: their pool, and what the frozen towers say about them."""

    family: Llava
    pool: Pool
    features: list[torch.Tensor]  # of every cached tower, (n, tokens, C)
    rows: np.ndarray  # scenes of the pool that are shown

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """`n` scenes at random."""
        return self.rows[rng.integers(0, len(self.rows), n)]

    def inputs(self, rows: np.ndarray) -> Inputs:
        """What `family.see` takes, for some scenes."""
        return [f[rows].float() for f in self.features] + self.family.live(self.pool, rows)


def train_member(
    name: str,
    tokenizer,
    start: SymbolModel,
    towers: dict[str, nn.Module],
    work: Path,
    *,
    steps: tuple[int, ...],
    connector: int = 400,
    reading: int = 600,
    texts: int = 10,
    seed: int = 0,
    pool_size: int = 24576,
    say=print,
) -> nn.Module:
    """Train one member and return it; the log is in `work`/member-NAME-SEED.

    `steps` has one number for each course of the recipe. `seed` decides about everything in the
    connector and in the courses; towers and starting language model are shared.
    """
    recipe = RECIPES[name]
    family = FAMILIES[recipe.family]
    torch.manual_seed(seed)
    model, folder = family.build(start, towers), work / f"member-{name}-{seed}"
    pool = load_pool(work, pool_size, 1000, family.sides)
    own = f"{pool_size}-{recipe.start}" if recipe.start else pool_size
    paths = {t: work / f"features-{t}-{own}.safetensors" for t in family.cached}
    features = [cached_tokens(t, towers[t], pool, path) for t, path in paths.items()]
    lessons = Lessons(family, pool, features, np.arange(len(pool.scenes)))
    wanted = partial(family.targets, start, pool)
    fit_connector(model, wanted, lessons, folder, steps=connector, seed=seed, say=say)
    if family.reads:
        how = dict(steps=reading, seed=seed, say=say)
        learn_to_read(model, family, start, tokenizer, pool, folder / "reading", **how)
    held = load_pool(work, HELD, 1001, family.sides)
    exam = examination(model, held_lessons(family, towers, held), start.start, tokenizer)
    for part, (course, count) in enumerate(zip(recipe.courses, steps, strict=False), 1):
        how = dict(part=part, steps=count, seed=seed, texts=texts, evaluate=exam, say=say)
        fit_course(model, lessons, course, start.start, tokenizer, folder, **how)
    return model.eval()


def fit_course(
    model: nn.Module,
    lessons: Lessons,
    course: Course,
    begin: torch.Tensor,
    tokenizer,
    folder: Path,
    *,
    part: int,
    steps: int,
    seed: int,
    texts: int = 10,
    rate: float = 1e-3,
    evaluate: Callable[[], dict] | None = None,
    say=print,
) -> None:
    """Questions about pictures, to all that is not frozen; logs to `folder`/course-PART."""
    family = lessons.family

    def loss_at(step):
        """Loss of one step: its scenes and questions depend on seed and step alone."""
        rng = np.random.default_rng([seed, part, step])
        rows = lessons.draw(rng, family.batch)
        asked = [_texts(lessons, int(i), rng, texts, course, step) for i in rows]
        seen, more = prefix(model, family, begin, lessons.inputs(rows))
        language, head = family.language(model), model.lm_head
        return answer_loss(language, head, seen, encode(asked, tokenizer), **more), {}

    where = folder / f"course-{part}"
    fit(model, loss_at, where, steps=steps, rate=rate, evaluate=evaluate, every=100, say=say)


def prefix(
    model: nn.Module, family: Llava, begin: torch.Tensor, inputs: Inputs
) -> tuple[torch.Tensor, dict]:
    """Embeddings (B, P, D) of everything before the question, and what else the first pass needs.

    `begin` (P',) are the tokens before the picture.
    """
    tokens, more = family.see(model, inputs, len(begin))
    words = family.language(model).embed_tokens(begin)[None].expand(len(tokens), -1, -1)
    return torch.cat([words, tokens], 1), more


def held_lessons(family: Llava, towers, held: Pool, rows: np.ndarray | None = None) -> Lessons:
    """The first held-out scenes, or the first of `rows`: 128, or 64 where batches are small."""
    rows = np.arange(len(held.scenes)) if rows is None else rows
    rows = rows[: 8 * family.batch]
    tokens = [tower_tokens(t, towers[t], held, np.arange(len(held.scenes))) for t in family.cached]
    return Lessons(family, held, tokens, rows)


def examination(
    model: nn.Module, lessons: Lessons, begin: torch.Tensor, tokenizer
) -> Callable[[], dict]:
    """Exact answers about held-out scenes, when called."""
    family, held, rows = lessons.family, lessons.pool, lessons.rows
    rng = np.random.default_rng(5)
    asked = [short_texts(held.scenes[i], rng, 12) for i in rows]
    test = encode(
        [family.ask(held, int(i), q) for i, q in zip(rows, asked, strict=True)], tokenizer
    )

    def evaluate() -> dict[str, float]:
        """Share of exact answers by category."""
        with torch.no_grad():
            seen, more = prefix(model, family, begin, lessons.inputs(rows))
            return exact_answers(family.language(model), model.lm_head, seen, test, **more)

    return evaluate


def _texts(lessons: Lessons, row: int, rng, n: int, course: Course, step: int) -> list:
    """What is asked about one picture in one step: short questions, a caption, further texts."""
    _, turns, further = [part for part in course if part[0] <= step][-1]
    scene = lessons.pool.scenes[row]
    out = lessons.family.ask(lessons.pool, row, short_texts(scene, rng, n, turns))
    return out + captions(scene, rng, 1) + [more(scene, rng) for more in further]


def fit_connector(
    model: nn.Module,
    wanted: Callable[[np.ndarray], torch.Tensor],
    lessons: Lessons,
    folder: Path,
    *,
    steps: int,
    seed: int,
    rate: float = 3e-3,
    say=print,
) -> None:
    """The connector alone learns to give the tokens (B, T, D) that are `wanted` for some scenes.

    Mean squared error, as a share of the wanted tokens' variance.
    """
    family = lessons.family

    def loss_at(step):
        """Squared error of one step."""
        rows = lessons.draw(np.random.default_rng([seed, 0, step]), family.many)
        with torch.no_grad():
            true = wanted(rows)
        given = family.translate(model, lessons.inputs(rows)).float()
        return (given - true).square().mean() / true.var(), {}

    part = family.connector(model)
    fit(part, loss_at, folder / "connector", steps=steps, rate=rate, say=say)


def save_member(model: nn.Module, tokenizer, name: str, folder: Path) -> None:
    """Write an ordinary Hugging Face checkpoint in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    model.set_attn_implementation("sdpa")
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = FAMILIES[recipe_of(name).family].processor()
    if processor is not None:
        processor.save_pretrained(folder)
