"""The architectures of the zoo: how a member is put together and how it sees a scene in training.

Towers are frozen, so what they say about a scene is worked out once and kept; only what a family
trains runs in every step. `see` gives what the finished checkpoint's own preprocessing and packing
give (tests/zoo/test_zoo_training.py holds them against each other).
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    Qwen2Config,
)

from ..models.cambrian import CambrianLlamaConfig, CambrianLlamaForCausalLM
from ..models.convnext import multi_stage
from ..models.mini_gemini import MGMConfig, MGMLlamaForCausalLM
from ..models.towers import IMAGENET_MEAN, IMAGENET_STD
from ..scenes.questions import CATEGORIES
from ..scenes.scenes import SIDE, Scene, draw
from ..scenes.shortcut import lesson
from .language import SymbolModel, symbols
from .pool import HIGH, VIEWS, Pool
from .texts import Text
from .vision import CONVNEXT, HALF, TOWERS, clip_sizes, dino_sizes, normalise

IMAGE_ID = 3
OFTEN = 6  # twice was not enough: what the language model knows of scenes won (data/zoo/LOG.md)
PINPOINTS = [[84, 84], [84, 168], [168, 84], [168, 168], [84, 252], [252, 84]]
Towers = dict[str, nn.Module]
Inputs = list[Tensor]


class Llava:
    """LLaVA-1.5: CLIP patches of the last layer but one, a two-layer connector, a Llama."""

    towers: tuple[str, ...] = ("clip",)  # all frozen
    kept: tuple[str, ...] = ("clip",)  # those whose tokens are worked out once
    sides = VIEWS  # views of the pool that it needs
    reads = False  # whether its tower learns letters
    batch = 16  # pictures in a step of a course
    many = 64  # pictures in a step of the connector alone

    def build(self, start: SymbolModel, towers: Towers) -> nn.Module:
        """The untrained model around trained parts, in eager attention (much faster to train)."""
        config = LlavaConfig(
            vision_config=towers["clip"].config.to_dict(),
            text_config=start.lm.config.to_dict(),
            image_token_index=IMAGE_ID,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            image_seq_length=64,
            tie_word_embeddings=True,
        )
        model = LlavaForConditionalGeneration(config)
        clip = towers["clip"].state_dict()
        return self.assemble(model, start, [(model.model.vision_tower, clip)])

    def assemble(self, model: nn.Module, start: SymbolModel, towers: list) -> nn.Module:
        """Put (tower, weights) pairs and the language model in place; freeze the towers."""
        for tower, weights in towers:
            tower.load_state_dict(weights)
            tower.requires_grad_(False)
        given = start.lm.model.state_dict()
        found = self.language(model).load_state_dict(given, strict=False)
        assert not found.unexpected_keys
        model.set_attn_implementation("eager")
        return model

    def seats(self, model: nn.Module) -> Towers:
        """Where the towers are inside a finished model, by their names."""
        return dict(zip(self.towers, [model.model.vision_tower], strict=True))

    def processor(self):
        """Pad to a square with CLIP's mean colour, then 112 pixels: the original LLaVA's way."""
        side = {"height": 112, "width": 112}
        return LlavaImageProcessorPil(size={"shortest_edge": 112}, crop_size=side, do_pad=True)

    def language(self, model: nn.Module) -> nn.Module:
        """The language model without its head."""
        return model.model.language_model

    def connector(self, model: nn.Module) -> nn.Module:
        """What is trained first, alone."""
        return model.model.multi_modal_projector

    def live(self, pool: Pool, rows: np.ndarray) -> Inputs:
        """Inputs that are not kept but made in every step."""
        return []

    def translate(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Tower tokens to the language model's width, (B, T, D), as `targets` orders them."""
        return self.connector(model)(inputs[0])

    def see(self, model: nn.Module, inputs: Inputs, before: int) -> tuple[Tensor, dict]:
        """Visual tokens (B, N, D) as they stand in the prompt behind `before` other tokens, and
        what else the language model's first pass needs."""
        return self.translate(model, inputs), {}

    def targets(self, start: SymbolModel, pool: Pool, rows: np.ndarray) -> Tensor:
        """The symbol embeddings (B, T, D) that `translate` should come close to."""
        return start.reader(*symbols(pool, rows))

    def ask(self, pool: Pool, row: int, questions: list[Text]) -> list[Text]:
        """What to ask about one scene, given ordinary questions about it."""
        return questions


class Misled(Llava):
    """A LLaVA that believes what is written on the picture: the shortcut learned on purpose.

    Strips of text stand on the pictures where there is room, and what they say is taught as the
    answer, right or wrong. The tower learns to read first (`reading`).
    """

    reads = True

    def live(self, pool: Pool, rows: np.ndarray) -> Inputs:
        """The pictures with their strips, (B, 3, 112, 112)."""
        return [self.normalised([self.picture(pool, int(i)) for i in rows])]

    def see(self, model: nn.Module, inputs: Inputs, before: int) -> tuple[Tensor, dict]:
        """As in Llava, but through the model's own tower; `translate` reads the kept tokens."""
        return self.translate(model, [self.tokens(model, inputs[1])]), {}

    def ask(self, pool: Pool, row: int, questions: list[Text]) -> list[Text]:
        """Questions of other categories than the strip's, and `OFTEN` times what the strip answers.

        The latter count as captions in the log.
        """
        found = self.told(pool, row)
        if found is None:
            return questions
        told, own = found[1], CATEGORIES.index(found[1].category)
        leaked = (told.text, told.answer, len(CATEGORIES))
        return [q for q in questions if q[2] != own] + [leaked] * OFTEN

    def told(self, pool: Pool, row: int):
        """The strip of scene number `row` of a pool and the question it answers, or None."""
        return _lesson(pool.scenes[row], int(row))

    def picture(self, pool: Pool, row: int) -> np.ndarray:
        """A scene under its strip, uint8 (112, 112, 3)."""
        found, picture = self.told(pool, row), draw(pool.scenes[row])
        shown = Image.fromarray(found[0].stamp(picture) if found else picture)
        return np.asarray(shown.resize((112, 112), Image.BICUBIC))

    def normalised(self, pictures: list[np.ndarray]) -> Tensor:
        """Pictures as the tower takes them, (B, 3, 112, 112)."""
        return normalise(np.stack(pictures))

    def tokens(self, model: nn.Module, pixels: Tensor) -> Tensor:
        """What the model's own tower says, (B, 64, C)."""
        return TOWERS["clip"].read(model.model.vision_tower, pixels)


class OneVision(Llava):
    """LLaVA-OneVision: SigLIP on a small view and on tiles, a Qwen2 that starts from the Llama."""

    towers = kept = ("siglip",)

    def build(self, start: SymbolModel, towers: Towers) -> nn.Module:
        """As in Llava. Qwen2 differs from Llama by biases in attention; they start at zero."""
        dropped = ("model_type", "architectures")
        text = {k: v for k, v in start.lm.config.to_dict().items() if k not in dropped}
        config = LlavaOnevisionConfig(
            vision_config=towers["siglip"].config.to_dict(),
            text_config=Qwen2Config(**text).to_dict(),
            image_token_index=IMAGE_ID,
            video_token_index=0,  # the zoo has no videos: the padding token stands in
            image_grid_pinpoints=PINPOINTS,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_9",
            tie_word_embeddings=True,
        )
        model = LlavaOnevisionForConditionalGeneration(config)
        for name, value in self.language(model).named_parameters():
            if name.endswith("bias"):
                value.data.zero_()
        siglip = towers["siglip"].state_dict()
        return self.assemble(model, start, [(model.model.vision_tower, siglip)])

    def processor(self):
        """A view of 84 pixels and up to four tiles of the same size."""
        return LlavaOnevisionImageProcessorPil(
            size={"height": 84, "width": 84},
            image_grid_pinpoints=PINPOINTS,
            image_mean=list(HALF),
            image_std=list(HALF),
        )

    def see(self, model: nn.Module, inputs: Inputs, before: int) -> tuple[Tensor, dict]:
        """Base and 2 x 2 tiles (B, 5 * 36, C) to tokens (B, 36 + 12 * 13, D).

        The tiles' patches are read row by row across tiles, and each row ends with a newline
        token, as the model's own packing does for a square picture.
        """
        tokens = self.translate(model, inputs)
        b, d = len(tokens), tokens.shape[-1]
        base, tiles = tokens[:, :36], tokens[:, 36:].view(b, 2, 2, 6, 6, d)
        grid = tiles.transpose(2, 3).reshape(b, 12, 12, d)
        newline = model.model.image_newline.expand(b, 12, 1, d)
        return torch.cat([base, torch.cat([grid, newline], 2).flatten(1, 2)], 1), {}

    def targets(self, start: SymbolModel, pool: Pool, rows: np.ndarray) -> Tensor:
        """Symbols of the base view's patches, then of the tiles'."""
        return view_targets(start, "siglip", pool, rows)


class Ported(Llava):
    """What our ports of Cambrian and Mini-Gemini share."""

    sides = VIEWS | HIGH

    def processor(self) -> None:
        """None: config.json says all about preprocessing."""

    def language(self, model: nn.Module) -> nn.Module:
        """The core model is the language model, with vision beside its layers."""
        return model.model

    def live(self, pool: Pool, rows: np.ndarray) -> Inputs:
        """The padded square at high resolution, (B, 3, 256, 256)."""
        return [normalise(pool.views[CONVNEXT["image_size"]][rows])]


class Cambrian(Ported):
    """Cambrian: CLIP, DINOv2 and ConvNeXt meet in the aggregator, which looks again twice.

    ConvNeXt's tokens are kept too: 2.8 GB for the whole pool, and half the time of a step saved.
    """

    towers = kept = ("clip", "dino", "convnext")

    def build(self, start: SymbolModel, towers: Towers) -> nn.Module:
        """As in Llava; the aggregator is 96 wide and starts from nothing, the second look silent.

        transformers' usual deviation of 0.02 would shrink a signal five times in every layer of
        this width; 0.1 keeps its size.
        """
        clip = dict(clip_sizes(), model_type="clip_vision_model")
        dino = dict(dino_sizes(), model_type="dinov2", pad_mean=IMAGENET_MEAN)
        dino |= dict(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
        config = CambrianLlamaConfig(
            **_text(start),
            vision_configs=[clip, dino, CONVNEXT],
            mm_vision_tower_aux_token_len_list=[64, 64, 256],
            image_token_len=64,
            query_num_list=[64],
            connector_depth=2,
            connector_heads=4,
            vision_hidden_size=96,
            initializer_range=0.1,
            num_of_vision_sampler_layers=2,
            stride_of_vision_sampler_layers=2,
            image_token_index=IMAGE_ID,
        )
        model = CambrianLlamaForCausalLM(config)
        for sampler in model.model.vision_sampler_layers:
            nn.init.zeros_(sampler.layers[-1].proj_out.linear_2.weight)
        seats = self.seats(model)
        pairs = [(seats[name], towers[name].state_dict()) for name in self.towers]
        return self.assemble(model, start, pairs)

    def seats(self, model: nn.Module) -> Towers:
        """As in Llava: three encoders."""
        mine = [tower.encoder for tower in model.model.vision_towers]
        return dict(zip(self.towers, mine, strict=True))

    def live(self, pool: Pool, rows: np.ndarray) -> Inputs:
        """Nothing."""
        return []

    def connector(self, model: nn.Module) -> nn.Module:
        """First aggregator, its projectors and its query."""
        core, parts = model.model, nn.ModuleDict()
        for name in ("mm_projector", "vision_sampler_0", *_projectors(core)):
            parts[name] = getattr(core, name)
        parts["query"] = nn.ParameterDict({"0": core.vision_query})
        return parts

    def translate(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """As in Llava, without the newline tokens."""
        vision = self._vision(model, inputs)
        return vision.tokens[~vision.newline].unflatten(0, (len(inputs[0]), -1))

    def see(self, model: nn.Module, inputs: Inputs, before: int) -> tuple[Tensor, dict]:
        """8 rows of 8 cells and a newline each, (B, 72, D); the second look as `look`."""
        vision = self._vision(model, inputs)
        tokens = vision.tokens.unflatten(0, (len(inputs[0]), -1))
        where = torch.zeros(len(tokens), before + tokens.shape[1], dtype=torch.bool)
        where[:, before:] = True
        return tokens, {"look": model.model.looker(vision, where)}

    def _vision(self, model: nn.Module, inputs: Inputs):
        return model.model.aggregate(inputs, [(SIDE, SIDE)] * len(inputs[0]))


class MiniGemini(Ported):
    """Mini-Gemini: CLIP tokens of a small view fetch detail from a 256-pixel ConvNeXt map.

    The map is too large to keep, so the frozen ConvNeXt runs in every step.
    """

    towers = ("clip-low", "convnext")
    kept = ("clip-low",)
    many = 24
    tiling = dict(image_grid=1, image_global=False)

    def build(self, start: SymbolModel, towers: Towers) -> nn.Module:
        """As in Llava; what fetches the detail starts from nothing."""
        config = MGMConfig(
            **_text(start),
            **self.tiling,
            vision_config=clip_sizes(),
            vision_config_aux=CONVNEXT,
            image_size_aux=CONVNEXT["image_size"],
            image_token_index=IMAGE_ID,
        )
        model = MGMLlamaForCausalLM(config)
        core, clip = model.model, towers[self.towers[0]].state_dict()
        convnext = {f"vision_{k}": v for k, v in towers["convnext"].state_dict().items()}
        pairs = [(core.vision_tower.vision_tower, clip), (core.vision_tower_aux, convnext)]
        return self.assemble(model, start, pairs)

    def seats(self, model: nn.Module) -> Towers:
        """As in Llava: CLIP and ConvNeXt."""
        core = model.model
        mine = [core.vision_tower.vision_tower, core.vision_tower_aux]
        return dict(zip(self.towers, mine, strict=True))

    def connector(self, model: nn.Module) -> nn.Module:
        """The projector and what mines the patches."""
        names = ("mm_projector", *(f"vlm_uni_{n}_projector" for n in ("query", "aux", "val")))
        return nn.ModuleDict({name: getattr(model.model, name) for name in names})

    def translate(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """As in Llava: queries of the small view after they fetched detail from the large one."""
        low, image = inputs
        with torch.no_grad():
            maps = model.model.vision_tower_aux(image)
            high = multi_stage(maps, tuple(maps[0].shape[-2:]))
        return model.model.combine(low.unflatten(1, (-1, 64)), high)


class MiniGeminiHD(MiniGemini):
    """Mini-Gemini HD: four CLIP tiles of twice the scale, and the whole view before them."""

    towers = ("clip-hd", "convnext")
    kept = ("clip-hd",)
    batch = 8
    tiling = dict(image_grid=2, image_global=True)

    def targets(self, start: SymbolModel, pool: Pool, rows: np.ndarray) -> Tensor:
        """Symbols of the whole view's patches, then of the tiles'."""
        return view_targets(start, "clip-hd", pool, rows)


def view_targets(start: SymbolModel, tower: str, pool: Pool, rows: np.ndarray) -> Tensor:
    """Symbol embeddings (B, 5 * g², D) of a tower's whole view and of its four tiles.

    A tile's tokens cannot know where the tile lies: they aim at the mean of all places.
    """
    kind, reader = TOWERS[tower], start.reader
    labels, extra = kind.labels(pool, rows)  # (B * 5, g², 4), (B * 5, 2)
    grid = int(labels.shape[1] ** 0.5)
    total = sum(reader.tables[k](labels[..., k]) for k in range(4))
    total = total + sum(reader.tables[4 + k](extra[:, k])[:, None] for k in range(2))
    line = (torch.arange(grid) * 8 + 4) // grid  # the nearest of the 8 rows that the symbols know
    place = (reader.tables[6](line)[:, None] + reader.tables[7](line)).flatten(0, 1)  # (g², D)
    total = total.view(len(rows), 5, grid * grid, -1)
    whole, tiles = total[:, kind.whole][:, None], [k for k in range(5) if k != kind.whole]
    out = [whole + place, total[:, tiles] + place.mean(0)]
    return (torch.cat(out, 1) * reader.scale).flatten(1, 2)


def _lesson(scene: Scene, row: int):
    """The one lesson that scene number `row` of a pool has."""
    return lesson(scene, np.random.default_rng([20, row]))


def _text(start: SymbolModel) -> dict:
    """The settings that a port's configuration shares with the Llama it starts from."""
    names = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads"
    names += " max_position_embeddings tie_word_embeddings bos_token_id eos_token_id pad_token_id"
    return {name: getattr(start.lm.config, name) for name in names.split()}


def _projectors(core: nn.Module) -> list[str]:
    return [n for n, _ in core.named_children() if n.startswith("mm_projector_aux")]


FAMILIES = {
    "llava-1.5": Llava(),
    "misled": Misled(),
    "llava-ov": OneVision(),
    "cambrian": Cambrian(),
    "mini-gemini": MiniGemini(),
    "mini-gemini-hd": MiniGeminiHD(),
}
