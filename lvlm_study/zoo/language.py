"""The zoo's language model: it learns to answer from symbols before it sees a picture.

Every patch of a scene is given as the sum of embeddings of what it shows (class, colour, size,
middle, place, light) and of its row and column: what a perfect vision tower would say. Once the
language model answers from such symbols, a member has only to translate its tower's features.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ..scenes import scenes
from .fit import fit
from .pool import HELD, VIEWS, Pool, globals_of, load_pool
from .texts import PREFIX, answer_loss, captions, encode, exact_answers, short_texts

SIZES = {  # 0.20, 0.51 and 1.35 million parameters: width alone differs
    "s": dict(hidden_size=64, intermediate_size=128, num_attention_heads=2),
    "m": dict(hidden_size=96, intermediate_size=272, num_attention_heads=3),
    "l": dict(hidden_size=160, intermediate_size=448, num_attention_heads=5),
}


def language_config(size: str, vocabulary: int) -> LlamaConfig:
    """A Llama of four layers with tied embeddings.

    Size l is as large as a checkpoint of 10 MB allows with all of its towers.
    """
    return LlamaConfig(
        vocab_size=vocabulary,
        num_hidden_layers=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **SIZES[size],
    )


SCHEDULE = 3000  # a run stops before its rate decays: a member goes on from there


class SymbolReader(nn.Module):
    """Patch symbols (B, G, G, 4) and globals (B, 2) to visual tokens (B, G * G, D)."""

    def __init__(self, width: int, grid: int):
        super().__init__()
        counts = (len(scenes.names()) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1, 2)
        counts += (len(scenes.PLACES), 2, grid, grid)
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in counts)
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, labels: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        """The sum of eight embeddings per patch, row by row."""
        b, grid = labels.shape[:2]
        total = sum(self.tables[k](labels[..., k]) for k in range(4))  # (B, G, G, D)
        total = total + sum(self.tables[4 + k](extra[:, k])[:, None, None] for k in range(2))
        line = torch.arange(grid)
        total = total + self.tables[6](line)[:, None] + self.tables[7](line)
        return (total * self.scale).flatten(1, 2)


class SymbolModel(nn.Module):
    """A language model that reads symbols in place of visual tokens."""

    def __init__(self, size: str, tokenizer, grid: int = 8):
        super().__init__()
        self.lm = LlamaForCausalLM(language_config(size, len(tokenizer)))
        self.lm.set_attn_implementation("eager")  # much faster to train on a CPU than sdpa
        self.reader = SymbolReader(self.lm.config.hidden_size, grid)
        self.register_buffer("start", opening(tokenizer), persistent=False)

    def prefix(self, labels: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        """Embeddings of everything before the question, (B, P, D)."""
        tokens = self.reader(labels, extra)
        start = self.lm.model.embed_tokens(self.start)[None].expand(len(tokens), -1, -1)
        return torch.cat([start, tokens], 1)


def opening(tokenizer) -> torch.Tensor:
    """The tokens before the picture, (P,)."""
    words = tokenizer(PREFIX, add_special_tokens=False).input_ids
    return torch.tensor([tokenizer.bos_token_id, *words])


def symbols(pool: Pool, rows: np.ndarray, grid: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch labels (B, G, G, 4) and globals (B, 2) of some scenes of a pool."""
    labels = torch.from_numpy(pool.labels[grid][rows].astype(np.int64))
    return labels, torch.tensor([globals_of(pool.scenes[i]) for i in rows])


def train_language(
    size: str,
    tokenizer,
    work: Path,
    *,
    steps: int,
    batch: int = 16,
    texts: int = 12,
    seed: int = 0,
    pool_size: int = 24576,
    say=print,
) -> SymbolModel:
    """Pretrain on symbols; the language model of every member of this size starts from it."""
    torch.manual_seed(seed)
    net = SymbolModel(size, tokenizer)
    pool, held = load_pool(work, pool_size, 1000, VIEWS), load_pool(work, HELD, 1001, VIEWS)
    test_rows, rng = np.arange(128), np.random.default_rng(5)
    test = encode([short_texts(held.scenes[i], rng, 12) for i in test_rows], tokenizer)

    def loss_at(step):
        """Loss of one step on symbols."""
        rng = np.random.default_rng([seed, step])
        rows = rng.integers(0, len(pool.scenes), batch)
        pack = [pool.scenes[i] for i in rows]
        batches = encode(
            [short_texts(s, rng, texts) + captions(s, rng, 1) for s in pack], tokenizer
        )
        prefix = net.prefix(*symbols(pool, rows))
        return answer_loss(net.lm.model, net.lm.lm_head, prefix, batches), {}

    def evaluate():
        """Share of exact answers by category."""
        with torch.no_grad():
            prefix = net.prefix(*symbols(held, test_rows))
        return exact_answers(net.lm.model, net.lm.lm_head, prefix, test)

    folder = work / f"language-{size}-{seed}"
    fit(net, loss_at, folder, steps=SCHEDULE, until=steps, evaluate=evaluate, say=say)
    return net.eval()
