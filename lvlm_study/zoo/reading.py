"""Letters for a vision tower that has never seen any.

The towers of the zoo learned objects and nothing else: under a strip of text the language model's
own lessons change not one answer in 340 steps (data/zoo/LOG.md). So tower and connector are first
taught together what strips say: behind the connector every patch of a strip must lie nearest to
the embedding of its word, and every other patch must stay what it was, a sum of symbols. Then the
tower is frozen again, as all towers are.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..scenes.questions import NUMBERS
from ..scenes.scenes import SIDE
from ..scenes.shortcut import HEIGHT
from ..scenes.testset import KINDS, answers_of
from .fit import fit
from .pool import Pool

ANSWERS = {word for kinds in KINDS.values() for kind in kinds for word in answers_of(kind)}
WORDS = tuple(sorted(ANSWERS | set(NUMBERS)))
DRAWN = 4096  # scenes of the pool that are drawn with their strips, once
BATCH, SHARPNESS = 32, 16.0


class Strips:
    """The first scenes of a pool under their strips, and what stands on them."""

    def __init__(self, family, pool: Pool, count: int = DRAWN):
        self.family, self.pool = family, pool
        told = [family.told(pool, i) for i in range(min(count, len(pool.scenes)))]
        self.rows = np.array([i for i, found in enumerate(told) if found])
        self.strips = {i: told[i][0] for i in self.rows}

    @cached_property
    def pictures(self) -> dict[int, np.ndarray]:
        """uint8 (112, 112, 3) by row."""
        return {i: self.family.picture(self.pool, i) for i in self.rows}

    def word(self, row: int) -> int:
        """Which of `WORDS` stands on the strip of a scene."""
        return UPPER[self.strips[row].text]

    def patches(self, row: int, grid: int) -> np.ndarray:
        """Bool (grid²,): the one row of patches that the strip covers."""
        out = np.zeros((grid, grid), bool)
        out[self.strips[row].y * grid // SIDE] = True
        return out.ravel()


UPPER = {word.upper(): k for k, word in enumerate(WORDS)}
assert SIDE % HEIGHT == 0  # a strip is exactly one row of patches


def word_embeddings(language: nn.Module, tokenizer) -> Tensor:
    """A direction for each of `WORDS`: the mean of its tokens' embeddings, unit length (W, D)."""
    ids = [tokenizer(f" {w}", add_special_tokens=False).input_ids for w in WORDS]
    with torch.no_grad():
        means = [language.embed_tokens(torch.tensor(i)).mean(0) for i in ids]
    return F.normalize(torch.stack(means), dim=-1)


def learn_to_read(model, family, start, tokenizer, pool: Pool, folder: Path, **options) -> None:
    """Train tower and connector on strips; `options` are `steps`, `seed`, `say`.

    The number logged as `read` is the share of a batch's strip patches nearest to their word.
    """
    steps, seed, say = (options[name] for name in ("steps", "seed", "say"))
    strips, table = Strips(family, pool), word_embeddings(family.language(model), tokenizer)
    tower = model.model.vision_tower
    tower.requires_grad_(True)

    def loss_at(step):
        """Which word stands on a strip's patches, and symbols as before on all others."""
        some = np.random.default_rng([seed, 9, step]).choice(strips.rows, BATCH)
        pixels = family.normalised([strips.pictures[i] for i in some])
        seen = family.translate(model, [family.tokens(model, pixels)]).float()  # (B, T, D)
        grid = int(seen.shape[1] ** 0.5)
        on = torch.from_numpy(np.stack([strips.patches(i, grid) for i in some]))  # (B, T)
        words = torch.tensor([strips.word(i) for i in some])[:, None].expand_as(on)[on]
        logits = SHARPNESS * F.normalize(seen[on], dim=-1) @ table.T  # (B * grid, W)
        with torch.no_grad():
            wanted = family.targets(start, pool, some)
        others = (seen[~on] - wanted[~on]).square().mean() / wanted.var()
        right = (logits.argmax(-1) == words).float().mean()
        return F.cross_entropy(logits, words) + others, {"read": round(right.item(), 3)}

    net = nn.ModuleDict({"tower": tower, "connector": family.connector(model)})
    fit(net, loss_at, folder, steps=steps, say=say)
    tower.requires_grad_(False)
