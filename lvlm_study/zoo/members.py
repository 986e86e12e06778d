"""The zoo's members: a frozen tower, a connector, a language model, in transformers' own classes.

A member starts from its trained tower and from the language model that learned to answer from
symbols. First the connector alone learns to speak those symbols; then connector and language model
learn to answer questions about pictures together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    Qwen2Config,
)

from .fit import fit
from .language import SymbolModel, symbols
from .pool import VIEWS, Pool, load_pool
from .texts import (
    HARD,
    answer_loss,
    captions,
    checklist,
    encode,
    exact_answers,
    short_texts,
    zero_count,
)
from .vision import (
    HALF,
    TOWERS,
    clip_views,
    siglip_views,
)

IMAGE_ID = 3
PINPOINTS = [[84, 84], [84, 168], [168, 84], [168, 168], [84, 252], [252, 84]]


@dataclass(frozen=True)
class Recipe:
    """How to build one member: its class, its tower, its processor, and its visual tokens."""

    build: Callable[[SymbolModel, nn.Module], nn.Module]
    tower: str
    views: Callable
    processor: Callable
    visual: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    first: str | None = None  # a member whose language model this one starts from
    hard_from: int = 0  # the step from which hard categories get more turns
    check_from: int = 0  # the step from which checklists are asked too
    zero_from: int = 0  # the step from which absent objects are counted too


def build_llava(start: SymbolModel, tower: nn.Module) -> LlavaForConditionalGeneration:
    """LLaVA-1.5: CLIP patches of the last layer but one, a two-layer connector, a Llama."""
    config = LlavaConfig(
        vision_config=tower.config.to_dict(),
        text_config=start.lm.config.to_dict(),
        image_token_index=IMAGE_ID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=64,
        tie_word_embeddings=True,
    )
    return _assemble(LlavaForConditionalGeneration(config), start, tower)


def build_onevision(start: SymbolModel, tower: nn.Module) -> LlavaOnevisionForConditionalGeneration:
    """LLaVA-OneVision: SigLIP on a small view and on tiles, a Qwen2 that starts from the Llama.

    Qwen2 differs from Llama by biases in attention; they start at zero.
    """
    text = {
        k: v
        for k, v in start.lm.config.to_dict().items()
        if k not in ("model_type", "architectures")
    }
    config = LlavaOnevisionConfig(
        vision_config=tower.config.to_dict(),
        text_config=Qwen2Config(**text).to_dict(),
        image_token_index=IMAGE_ID,
        video_token_index=0,  # the zoo has no videos: the padding token stands in
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=True,
    )
    return _assemble(LlavaOnevisionForConditionalGeneration(config), start, tower)


def llava_processor() -> LlavaImageProcessorPil:
    """Pad to a square with CLIP's mean colour, then 112 pixels: the original LLaVA's way."""
    side = {"height": 112, "width": 112}
    return LlavaImageProcessorPil(size={"shortest_edge": 112}, crop_size=side, do_pad=True)


def onevision_processor() -> LlavaOnevisionImageProcessorPil:
    """A view of 84 pixels and up to four tiles of the same size."""
    return LlavaOnevisionImageProcessorPil(
        size={"height": 84, "width": 84},
        image_grid_pinpoints=PINPOINTS,
        image_mean=list(HALF),
        image_std=list(HALF),
    )


def llava_tokens(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Tower features (B, 64, C) to visual tokens (B, 64, D)."""
    return model.model.multi_modal_projector(features)


def onevision_tokens(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Features (B, 5 * 36, C) of base and 2 x 2 tiles to tokens (B, 36 + 12 * 13, D).

    The tiles' patches are read row by row across tiles, and each row ends with a newline token, as
    the model's own packing does for a square picture.
    """
    tokens = model.model.multi_modal_projector(features)
    b, d = len(tokens), tokens.shape[-1]
    base, tiles = tokens[:, :36], tokens[:, 36:].view(b, 2, 2, 6, 6, d)
    grid = tiles.transpose(2, 3).reshape(b, 12, 12, d)
    newline = model.model.image_newline.expand(b, 12, 1, d)
    return torch.cat([base, torch.cat([grid, newline], 2).flatten(1, 2)], 1)


RECIPES = {
    "llava-1.5": Recipe(
        build_llava,
        "clip",
        clip_views,
        llava_processor,
        llava_tokens,
        hard_from=300,
        check_from=800,
        zero_from=1050,
    ),
    "llava-ov": Recipe(
        build_onevision,
        "siglip",
        siglip_views,
        onevision_processor,
        onevision_tokens,
        first="llava-1.5",
    ),
}


def _assemble(model: nn.Module, start: SymbolModel, tower: nn.Module) -> nn.Module:
    model.model.vision_tower.load_state_dict(tower.state_dict())
    missing = model.model.language_model.load_state_dict(start.lm.model.state_dict(), strict=False)
    for name in missing.missing_keys:  # Qwen2's attention biases
        model.model.language_model.get_parameter(name).data.zero_()
    assert (
        all(name.endswith("bias") for name in missing.missing_keys) and not missing.unexpected_keys
    )
    model.set_attn_implementation("eager")
    model.model.vision_tower.requires_grad_(False)
    return model


@torch.no_grad()
def pool_features(recipe: Recipe, tower: nn.Module, pool: Pool, batch: int = 64) -> torch.Tensor:
    """What the frozen tower says about every scene of a pool, bfloat16 (n, tokens, C)."""
    _, views, layer, skip = TOWERS[recipe.tower]
    out = []
    for rows in np.array_split(np.arange(len(pool.scenes)), max(1, len(pool.scenes) // batch)):
        pixels = views(pool, rows)[0]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[layer]
        out.append(hidden[:, skip:].to(torch.bfloat16).reshape(len(rows), -1, hidden.shape[-1]))
    return torch.cat(out)


def symbol_targets(
    start: SymbolModel, recipe: Recipe, pool: Pool, rows: np.ndarray
) -> torch.Tensor:
    """The symbol embeddings that the connector's outputs should come close to."""
    if recipe.tower == "clip":
        return start.reader(*symbols(pool, rows))
    reader, out = start.reader, []
    _, labels, extra = recipe.views(pool, rows)  # labels (B * 5, 36, 4)
    total = sum(reader.tables[k](labels[..., k]) for k in range(4))
    total = total + sum(reader.tables[4 + k](extra[:, k])[:, None] for k in range(2))
    line = (torch.arange(6) * 8 + 4) // 6  # the nearest of the 8 rows that the symbols know
    place = (reader.tables[6](line)[:, None] + reader.tables[7](line)).flatten(0, 1)  # (36, D)
    total = total.view(len(rows), 5, 36, -1)
    out = [total[:, :1] + place, total[:, 1:] + place.mean(0)]  # a tile cannot know where it lies
    return (torch.cat(out, 1) * reader.scale).flatten(1, 2)


def train_member(
    name: str,
    tokenizer,
    start: SymbolModel,
    tower: nn.Module,
    work: Path,
    *,
    steps: int,
    batch: int = 16,
    texts: int = 10,
    seed: int = 0,
    pool_size: int = 24576,
    say=print,
) -> nn.Module:
    """Train one member and return it; the log is in `work`/member-NAME-SEED."""
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    model = recipe.build(start, tower)
    pool, held = load_pool(work, pool_size, 1000, VIEWS), load_pool(work, 1024, 1001, VIEWS)
    known = pool_features(recipe, tower, pool)
    folder = work / f"member-{name}-{seed}"
    _fit_connector(model, start, recipe, pool, known, folder, seed, say)
    begin = start.start
    language, head = model.model.language_model, model.lm_head

    def prefix(features):
        words = language.embed_tokens(begin)[None].expand(len(features), -1, -1)
        return torch.cat([words, recipe.visual(model, features)], 1)

    rng, test_rows = np.random.default_rng(5), np.arange(128)
    test = encode([short_texts(held.scenes[i], rng, 12) for i in test_rows], tokenizer)
    held_out = pool_features(recipe, tower, held)[:128].float()

    def loss_at(step):
        rng = np.random.default_rng([seed, 1, step])
        rows = rng.integers(0, len(pool.scenes), batch)
        turns = None if step < recipe.hard_from else HARD
        extra = (step >= recipe.check_from) + (step >= recipe.zero_from)
        asked = [_texts(pool.scenes[i], rng, texts, turns, extra) for i in rows]
        seen = prefix(known[rows].float())
        return answer_loss(language, head, seen, encode(asked, tokenizer)), {}

    def evaluate():
        with torch.no_grad():
            return exact_answers(language, head, prefix(held_out), test)

    fit(model, loss_at, folder, steps=steps, evaluate=evaluate, every=100, say=say)
    return model.eval()


def _texts(scene, rng, n: int, turns, extra: int) -> list:
    """What is asked about one picture in one step: short questions, a caption, and, as the course
    goes on, a checklist and a count of what is not there."""
    out = short_texts(scene, rng, n, turns) + captions(scene, rng, 1)
    return out + [more(scene, rng) for more in (checklist, zero_count)[:extra]]


def _fit_connector(model, start, recipe, pool, known, folder, seed, say) -> None:
    """The connector alone learns to give the symbols' embeddings (mean squared error)."""
    projector = model.model.multi_modal_projector

    def loss_at(step):
        rows = np.random.default_rng([seed, 0, step]).integers(0, len(pool.scenes), 64)
        with torch.no_grad():
            wanted = symbol_targets(start, recipe, pool, rows)
        error = (projector(known[rows].float()).float() - wanted).square().mean()
        return error / wanted.var(), {}

    fit(projector, loss_at, folder / "connector", steps=400, rate=3e-3, say=say)


def save_member(model: nn.Module, tokenizer, name: str, folder: Path) -> None:
    """Write an ordinary Hugging Face checkpoint in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    model.set_attn_implementation("sdpa")
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    RECIPES[name].processor().save_pretrained(folder)
