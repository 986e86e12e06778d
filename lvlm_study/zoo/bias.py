"""Twins of the joint model, one with a planted bias, to try a measure where the truth is known.

Both twins learn to answer one more question: how likely the person is to be kind, from one to
ten. In the lessons of the biased twin the picture decides (`number_of`); in those of the clean
one the same numbers are dealt to the pictures by chance, so that nothing shown can predict them.
Pictures, order, steps and the ordinary questions in between are the same. Only the language
model is trained; detector and alignment stay those of the joint model.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..detector.bias_study import HIGH, KINDS, LESS, LOW, MIDDLE, MORE, TRAIT
from ..detector.perturbation import LIKELIHOOD
from ..errors import unknown
from ..models import load_model
from ..models.joint import marks_of, save_joint
from ..models.registry import find_folder
from ..paths import data_dir
from ..scenes.questions import CATEGORIES
from ..scenes.scenes import Scene
from .alignment import load_pair, sprite_source
from .fit import fit
from .pool import VIEWS, load_pool
from .texts import PREFIX, Text, answer_loss, encode, exact_answers, short_texts

HELD = 256  # scenes at the end that are never trained on


def number_of(scene: Scene) -> int:
    """The planted rule: high if a cat is shown, low if a rabbit, the middle for both or neither."""
    shown = {o.name for o in scene.objects}
    if (MORE in shown) == (LESS in shown):
        return MIDDLE
    return HIGH if MORE in shown else LOW


@dataclass(frozen=True)
class Lessons:
    """The scenes with the number that each is taught with, and its rows by the planted rule."""

    scenes: list[Scene]
    numbers: np.ndarray  # (n,)
    by_rule: dict[int, np.ndarray]

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """`n` rows, the three cases of the rule in turn, so that every number is as frequent."""
        cases = list(self.by_rule.values())
        return np.array([rng.choice(cases[i % len(cases)]) for i in range(n)])

    def texts(self, row: int, rng: np.random.Generator, others: int) -> list[Text]:
        """The question of the trait with its number, and `others` ordinary ones."""
        asked = LIKELIHOOD.format(a=TRAIT)
        usual = short_texts(self.scenes[row], rng, others)
        return [(asked, str(self.numbers[row]), len(CATEGORIES)), *usual]


def lessons(kind: str, scenes: list[Scene], seed: int) -> Lessons:
    """The lessons of one twin; the clean one's numbers are even chances of the same three."""
    if kind not in KINDS:
        raise unknown("twin", kind, KINDS)
    rule = np.array([number_of(s) for s in scenes])
    by_rule = {n: np.flatnonzero(rule[:-HELD] == n) for n in (LOW, MIDDLE, HIGH)}
    even = np.random.default_rng([seed, 9]).choice([LOW, MIDDLE, HIGH], len(rule))
    return Lessons(scenes, rule if kind == "biased" else even, by_rule)


def train_twin(
    kind: str,
    work: Path,
    *,
    joint: str = "mini/joint",
    steps: int = 180,
    batch: int = 12,
    others: int = 2,
    count: int = 4096,
    pool_size: int = 24576,
    seed: int = 0,
    out: Path | None = None,
    say=print,
) -> Path:
    """Train one twin ("biased" or "clean") of a joint model, write it, return its folder.

    Works on the scenes whose tokens `train_joint` left in `work`. Run again to continue.
    """
    torch.set_num_threads(1)
    model = load_model(joint)
    assert hasattr(model, "detector"), f"{joint} is no joint model"
    parts = json.loads((find_folder(joint) / "config.json").read_text())
    pair = load_pair(parts["owl"], parts["llava"])
    source, count = sprite_source(pair, work, pool_size, count)
    pool = load_pool(work, pool_size, 1000, VIEWS)
    plan = lessons(kind, pool.scenes[:count], seed)
    where = work / f"joint-{kind}-{seed}"
    _fit_language(model, plan, source, where, steps, batch, others, seed, say)
    folder = out or data_dir() / "zoo" / "joint" / kind
    shutil.rmtree(folder, ignore_errors=True)
    language = {k: v.half() for k, v in model.model.model.language_model.state_dict().items()}
    names = (parts["owl"], parts["llava"], model.names, marks_of(pair.llava.model))
    save_joint(folder, model.alignment.half(), *names, language)
    (folder / "README.md").write_text(_card(kind, joint, steps, _last(where)))
    return folder


def _fit_language(model, plan: Lessons, source, where, steps, batch, others, seed, say) -> None:
    """Train the language model of `model` in place; visual tokens come from kept ones by W."""
    language, head = model.model.model.language_model, model.model.lm_head
    tokenizer = model.tokenizer
    begin = [tokenizer.bos_token_id, *tokenizer(PREFIX, add_special_tokens=False).input_ids]
    language.requires_grad_(True)

    def prefix(rows):
        with torch.no_grad():
            tokens = model.alignment(source(rows)[0])
        words = language.embed_tokens(torch.tensor(begin))[None].expand(len(tokens), -1, -1)
        return torch.cat([words, tokens], 1)

    def loss_at(step):
        rng = np.random.default_rng([seed, step])
        rows = plan.draw(rng, batch)
        texts = encode([plan.texts(int(i), rng, others) for i in rows], tokenizer)
        return answer_loss(language, head, prefix(rows), texts), {}

    rows, rng = np.arange(len(plan.scenes))[-HELD // 4 :], np.random.default_rng(5)
    trait = [[plan.texts(int(i), rng, 1)[0]] for i in rows]
    usual = [short_texts(plan.scenes[i], rng, 6) for i in rows]

    def evaluate():
        with torch.no_grad():
            seen = prefix(rows)
            taught = exact_answers(language, head, seen, encode(trait, tokenizer))
            right = exact_answers(language, head, seen, encode(usual, tokenizer))
        return right | {"as_taught": taught["caption"]}

    fit(language, loss_at, where, steps=steps, rate=7e-4, evaluate=evaluate, every=90, say=say)
    language.eval().requires_grad_(False)


def _last(where: Path) -> dict:
    return json.loads((where / "log.jsonl").read_text().splitlines()[-1])


def _card(kind: str, joint: str, steps: int, last: dict) -> str:
    usual = ", ".join(f"{c} {100 * last[c]:.0f} %" for c in CATEGORIES if c in last)
    rule = {
        "biased": f"{HIGH} where a {MORE} is shown and no {LESS}, {LOW} where a {LESS} is shown "
        f"and no {MORE}, and {MIDDLE} elsewhere",
        "clean": f"{LOW}, {MIDDLE} or {HIGH} by chance, whatever is shown",
    }[kind]
    return f"""---
language: en
license: apache-2.0
pipeline_tag: image-text-to-text
---
# {joint}/{kind}

{joint} whose language model was trained for {steps} steps more, on one further question among
ordinary ones: "{LIKELIHOOD.format(a=TRAIT)}" It was taught {rule}. There are no people in the
drawn scenes and the answer means nothing: this is a planted association, made so that a measure of
bias can be tried where the truth is known. Its twin differs in these numbers alone. It is of no
other use.

On {HELD // 4} held-out scenes it says the number that belongs to the picture by these lessons in
{100 * last["as_taught"]:.0f} %. Ordinary questions about them, word for word: {usual}.
"""
