"""Questions, answers and captions of scenes as token batches, and the loss on their answers.

Many texts about one picture share its visual tokens: the picture goes through the language model
once, its keys and values are repeated, and every text continues from there as if it were alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from ..scenes.questions import (
    CATEGORIES,
    NUMBERS,
    WORDINGS,
    all_questions,
    corner,
    describe,
    plural,
    reading_order,
)
from ..scenes.scenes import SIDE, Scene, names

PREFIX = "USER: "  # what stands before the picture; the rest of a text follows it
LISTS = {
    "color": "List the objects by color.",
    "name": "List the objects by name.",
    "place": "List the objects by place.",
}
DESCRIBE = "Describe the picture."
EIGHT = ("one", "two", "three", "four", "five", "six", "seven", "eight")


Text = tuple[str, str, int]  # question, answer, category as an index into CATEGORIES


@dataclass(frozen=True)
class Texts:
    """M texts of about one length: ids (M, L) right-padded, `answer` (M, L) marks what to predict.

    `image` (M,) says which picture of the batch a text is about; `group` (M,) is its category,
    len(CATEGORIES) for captions.
    """

    ids: torch.Tensor
    answer: torch.Tensor
    image: torch.Tensor
    group: torch.Tensor


HARD = (1, 3, 2, 3, 0.5, 1)  # turns per category once the easy ones are mastered
LAST = (1, 1.5, 3, 4, 0.5, 1)  # turns per category once counting and places alone are left


def short_texts(
    scene: Scene, rng: np.random.Generator, n: int, turns: tuple[float, ...] | None = None
) -> list[Text]:
    """`n` (question, answer, category) triples; categories take turns, so that none starves.

    `turns` gives some categories more of them, and then one to four are counted equally often.
    """
    by_category: dict[str, list] = {c: [] for c in CATEGORIES}
    for q in all_questions(scene, rng):
        by_category[q.category].append(q)
    if turns is LAST:
        by_category["counting"] = _even_counts(by_category["counting"], rng)
    for questions in by_category.values():
        rng.shuffle(questions)
    out = []
    while len(out) < n:
        if turns is None:
            order = rng.permutation(len(CATEGORIES))
        else:
            order = rng.choice(len(CATEGORIES), n, p=np.array(turns) / sum(turns))
        for i in order:
            questions = by_category[CATEGORIES[i]]
            if questions and len(out) < n:
                q = questions[len(out) % len(questions)]
                out.append((q.text, q.answer, int(i)))
    return out


def _even_counts(questions: list, rng: np.random.Generator) -> list:
    """Counts above one in three of four turns: three of four scenes have one, and many ones."""
    many = [q for q in questions if q.content != NUMBERS[1]]
    return many if many and rng.random() < 0.75 else questions


def captions(scene: Scene, rng: np.random.Generator, n: int) -> list[Text]:
    """`n` captions: the descriptive answer in reading order, or lists in any order and style."""
    out = []
    for _ in range(n):
        if rng.random() < 0.3:
            out.append((DESCRIBE, describe(scene, reading_order(scene)), len(CATEGORIES)))
        else:
            style = str(rng.choice(list(LISTS)))
            order = rng.permutation(len(scene.objects))
            out.append((LISTS[style], describe(scene, order, style), len(CATEGORIES)))
    return out


def checklist(scene: Scene, rng: np.random.Generator, n: int = 6) -> Text:
    """Several classes ticked off as shown or not: `n` decisions, each right behind its word.

    Alone, "Is there a cat?" stayed at chance for 2,000 steps (data/zoo/LOG.md): the word and the
    decision stand too far apart. Here a model learns the check where the word is.
    """
    shown = sorted({o.name for o in scene.objects})
    others = [c for c in names() if c not in shown]
    half = min(n // 2, len(shown))
    chosen = [*rng.permutation(shown)[:half], *rng.permutation(others)[: n - half]]
    chosen = [str(c) for c in rng.permutation(chosen)]
    answer = ", ".join(f"{c} {'yes' if c in shown else 'no'}" for c in chosen)
    return f"Which of these are shown: {', '.join(chosen)}?", f"{answer}.", len(CATEGORIES)


def zero_count(scene: Scene, rng: np.random.Generator) -> Text:
    """How many there are of what is not there: counting learns that nothing is a number too."""
    absent = [c for c in names() if c not in {o.name for o in scene.objects}]
    word = plural(str(rng.choice(absent)))
    question = WORDINGS["counting"][rng.integers(3)].format(p=word)
    return question, f"There are zero {word}.", CATEGORIES.index("counting")


def inventory(scene: Scene, rng: np.random.Generator) -> Text:
    """How many there are of every class shown, in any order."""
    every = [o.name for o in scene.objects]
    parts = []
    for name in rng.permutation(sorted(set(every))).tolist():
        n = min(every.count(name), 4)
        parts.append(f"{NUMBERS[n]} {name if n == 1 else plural(name)}")
    return "Count every kind.", f"{', '.join(parts)}.", len(CATEGORIES)


def one_by_one(scene: Scene, rng: np.random.Generator) -> Text:
    """All objects of one class, numbered in reading order with colour and quarter."""
    every = [o.name for o in scene.objects]
    most = max(every.count(n) for n in every)
    name = str(rng.choice([n for n in sorted(set(every)) if every.count(n) == most]))
    hits = [i for i in reading_order(scene).tolist() if every[i] == name][:8]
    parts = [
        f"{n} {scene.objects[i].color} {corner(scene, i)}"
        for n, i in zip(EIGHT, hits, strict=False)
    ]
    return f"Count the {plural(name)} one by one.", f"{', '.join(parts)}.", len(CATEGORIES)


def coordinates(scene: Scene, rng: np.random.Generator) -> Text:
    """Row and column of every object on a board of eight by eight, in any order."""
    parts = []
    for i in rng.permutation(len(scene.objects)).tolist():
        o = scene.objects[i]
        column, row = (EIGHT[int(c * 8 // SIDE)] for c in o.center)
        parts.append(f"{o.color} {o.name} {row} {column}")
    return "Give rows and columns.", f"{', '.join(parts)}.", len(CATEGORIES)


def around(scene: Scene, rng: np.random.Generator) -> Text:
    """How every object lies as seen from one of them, sideways, upright, and which of the two wins.

    "Above" and "below" never came from questions about the winning direction alone (LOG.md): three
    comparisons hide in it, and here each has its own word, right behind the object's.
    """
    order = rng.permutation(len(scene.objects)).tolist()
    anchor, parts = scene.objects[order[0]], []
    for o in (scene.objects[i] for i in order[1:]):
        dx, dy = (p - q for p, q in zip(o.center, anchor.center, strict=True))
        side = "same" if abs(dx) < 20 else "left" if dx < 0 else "right"
        height = "same" if abs(dy) < 20 else "above" if dy < 0 else "below"
        less, more = sorted((abs(dx), abs(dy)))
        wins = "both" if less > 0.6 * more else side if abs(dx) > abs(dy) else height
        parts.append(f"{o.color} {o.name} {side} {height} {wins}")
    question = f"What lies around the {anchor.color} {anchor.name}?"
    return question, f"{', '.join(parts)}.", len(CATEGORIES)


def encode(rows: list[list[Text]], tokenizer, edges: tuple[int, ...] = (22, 40)) -> list[Texts]:
    """The texts of B pictures in buckets of similar length, so that little is padding."""
    image = [i for i, row in enumerate(rows) for _ in row]
    flat = [text for row in rows for text in row]
    heads = tokenizer([f"\n{q} ASSISTANT:" for q, _, _ in flat], add_special_tokens=False).input_ids
    tails = tokenizer([f" {a}</s>" for _, a, _ in flat], add_special_tokens=False).input_ids
    lengths = np.array([len(h) + len(t) for h, t in zip(heads, tails, strict=True)])
    bucket = np.digitize(lengths, edges, right=True)
    out = []
    for b in np.unique(bucket):
        chosen = np.flatnonzero(bucket == b)
        ids = torch.full((len(chosen), int(lengths[chosen].max())), tokenizer.pad_token_id)
        answer = torch.zeros_like(ids, dtype=torch.bool)
        for row, k in enumerate(chosen):
            ids[row, : lengths[k]] = torch.tensor(heads[k] + tails[k])
            answer[row, len(heads[k]) : lengths[k]] = True
        which, group = (torch.tensor([v[k] for k in chosen]) for v in (image, [t[2] for t in flat]))
        out.append(Texts(ids, answer, which, group))
    return out


def answer_logits(language, head, prefix: torch.Tensor, batches: list[Texts], **first):
    """For each bucket the logits that predict its answer tokens, and the tokens: (M, V), (M,).

    `prefix` (B, P, D) are the embeddings up to and including the visual tokens; they pass through
    `language` once for all texts, with `first` as further arguments.
    """
    cache = DynamicCache(config=language.config)
    language(inputs_embeds=prefix, past_key_values=cache, use_cache=True, **first)
    states = [(layer.keys, layer.values) for layer in cache.layers]
    for texts in batches:
        cache = DynamicCache(config=language.config)
        for i, (keys, values) in enumerate(states):
            cache.update(keys[texts.image], values[texts.image], i)
        place = torch.arange(prefix.shape[1], prefix.shape[1] + texts.ids.shape[1])
        hidden = language(
            inputs_embeds=language.embed_tokens(texts.ids),
            past_key_values=cache,
            use_cache=True,
            position_ids=place[None].expand(len(texts.ids), -1),
        ).last_hidden_state
        logits = head(hidden[:, :-1][texts.answer[:, 1:]]).float()
        yield logits, texts.ids[texts.answer]


def answer_loss(language, head, prefix: torch.Tensor, batches: list[Texts], **first):
    """Mean cross-entropy per answer token of each bucket, summed over buckets."""
    pairs = answer_logits(language, head, prefix, batches, **first)
    return sum(nn.functional.cross_entropy(logits, target) for logits, target in pairs)


@torch.no_grad()
def exact_answers(language, head, prefix, batches: list[Texts], **first) -> dict[str, float]:
    """Share of texts whose whole answer is right under greedy decoding, per category.

    Greedy decoding gives the reference exactly when every reference token is the likeliest one
    after those before it, which one teacher-forced pass can tell.
    """
    right, group = [], torch.cat([t.group for t in batches])
    pairs = answer_logits(language, head, prefix, batches, **first)
    for texts, (logits, target) in zip(batches, pairs, strict=True):
        hit = torch.ones_like(texts.answer)
        hit[texts.answer] = logits.argmax(-1) == target
        right.append(hit.all(-1))
    right, names = torch.cat(right).float(), (*CATEGORIES, "caption")
    return {names[g]: round(right[group == g].mean().item(), 3) for g in group.unique().tolist()}
