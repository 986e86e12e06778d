"""Cambrian-1: several vision encoders meet in a Spatial Vision Aggregator, twice.

First, one learned query per cell of a small grid attends to that cell's window in every encoder's
token grid; the results, with a newline token behind every row, enter the prompt. Second, inside the
language model, after chosen decoder layers, the hidden states of the image cells attend to the same
windows again. Parameters carry the names of the released checkpoints, so these load unchanged.
Source: Tong et al. 2024, "Cambrian-1", arXiv 2406.16860, section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Phi3Config,
    Phi3ForCausalLM,
    Phi3Model,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer

from ..errors import StudyError
from ..pixels.preprocess import Plan, Size
from .base import Bound
from .encoders import Encoder, SquareGrid, blocks, stages
from .geometry import Geometry, boxes_of
from .splice import SeesOnce, Spliced, image_positions, normalise, splice, square_spec
from .sva import Sampler, token_cells, window_mask, windows
from .towers import Tower, feature_width, load_towers, released_spec, tower_used

# ---------------------------------------------------------------------------- configuration


@dataclass(kw_only=True, repr=False)
class CambrianFields:
    """What both configurations have in common beyond their language model.

    `vision_configs` describes the towers of a self-contained checkpoint (their weights lie in the
    same safetensors); None means a released checkpoint, whose towers are named by
    `mm_vision_tower_aux_list` and come from their own repositories.
    """

    attribute_map = {"image_token_id": "image_token_index"}
    vision_configs: list | None = None
    mm_vision_tower_aux_list: list | None = None
    mm_vision_tower_aux_token_len_list: list | tuple = (576, 576, 576, 9216)
    image_token_len: int = 576
    num_query_group: int = 1
    query_num_list: list | tuple = (576,)
    connector_depth: int = 3
    connector_heads: int = 16
    vision_hidden_size: int = 1024
    num_of_vision_sampler_layers: int = 10
    start_of_vision_sampler_layers: int = 0
    stride_of_vision_sampler_layers: int = 3
    image_position: int | None = None
    image_token_index: int = -200
    mm_vision_select_layer: int = -2

    def tower_specs(self) -> list[dict]:
        """The description of every tower, in order."""
        if self.vision_configs is not None:
            return self.vision_configs
        return [released_spec(name) for name in self.mm_vision_tower_aux_list or []]

    @property
    def released(self) -> bool:
        """Whether this is an official checkpoint, which lacks its towers and a chat template."""
        return self.vision_configs is None

    @property
    def side(self) -> int:
        """Cells along one side of the aggregated grid."""
        return int(self.image_token_len**0.5)

    @property
    def window_sides(self) -> list[int]:
        """Tokens of each tower along one side of a cell's window."""
        return [int(n**0.5) // self.side for n in self.mm_vision_tower_aux_token_len_list]

    def aggregating_layers(self) -> list[int]:
        """Indices of the decoder layers after which the image cells look again."""
        start, stride = self.start_of_vision_sampler_layers, self.stride_of_vision_sampler_layers
        return [start + stride * k for k in range(self.num_of_vision_sampler_layers)]

    def check(self) -> None:
        """Refuse settings that no released model uses, rather than run them wrongly."""
        if self.num_query_group != 1 or list(self.query_num_list) != [self.image_token_len]:
            raise StudyError(
                "Cambrian needs num_query_group 1 and query_num_list [image_token_len]; "
                f"config.json has {self.num_query_group} and {list(self.query_num_list)}."
            )
        lengths = [self.image_token_len, *self.mm_vision_tower_aux_token_len_list]
        if any(int(n**0.5) ** 2 != n or int(n**0.5) % self.side for n in lengths):
            raise StudyError(
                f"Cambrian needs square token grids whose side is a multiple of {self.side}; "
                f"config.json has {lengths}."
            )
        if len(self.tower_specs()) != len(lengths) - 1:
            raise StudyError(
                f"config.json describes {len(self.tower_specs())} vision towers but gives "
                f"{len(lengths) - 1} token lengths; make the lists equally long."
            )
        if max(self.aggregating_layers(), default=0) >= self.num_hidden_layers:
            raise StudyError(
                f"config.json asks for aggregation after layers {self.aggregating_layers()}, but "
                f"the language model has {self.num_hidden_layers} layers."
            )


class CambrianLlamaConfig(CambrianFields, LlamaConfig):
    """Cambrian on a Llama or Vicuna language model (8b, 13b)."""

    model_type = "cambrian_llama"


class CambrianPhi3Config(CambrianFields, Phi3Config):
    """Cambrian on a Phi-3 language model (3b)."""

    model_type = "cambrian_phi3"


# ------------------------------------------------------------------------- the language model


@dataclass(frozen=True)
class Vision:
    """All that the language model needs from a batch of images; N and M count over the batch.

    tokens (N, D): visual tokens in prompt order, newlines included; newline bool (N,);
    context (M, 1, d), sources per tower (M, r², d) and mask bool (M, K) belong to the M cells.
    """

    tokens: Tensor
    newline: Tensor
    context: Tensor
    sources: tuple[Tensor, ...]
    mask: Tensor

    def pack(self) -> Tensor:
        """One row per visual token: its embedding, then what its second look reads (N, D').

        Newlines do not look again; their rows end in zeros.
        """
        mask = self.mask.to(self.tokens.dtype)
        look = torch.cat([part.flatten(1) for part in (self.context, *self.sources, mask)], 1)
        rows = look.new_zeros(len(self.tokens), look.shape[1])
        return torch.cat([self.tokens, rows.index_copy(0, _rows(~self.newline), look)], 1)

    @classmethod
    def unpack(cls, features: Tensor, config) -> "Vision":
        """The inverse of `pack`; a mask row without any key marks a newline."""
        dim, areas = config.vision_hidden_size, [r * r for r in config.window_sides]
        widths = [config.hidden_size, dim * (1 + sum(areas)), sum(areas)]
        tokens, look, mask = features.split(widths, 1)
        newline = ~(mask > 0.5).any(1)
        look = look[~newline].unflatten(1, (-1, dim)).split([1, *areas], 1)
        return cls(tokens, newline, look[0], look[1:], mask[~newline] > 0.5)


def _rows(where: Tensor) -> Tensor:
    return where.nonzero()[:, 0]


class LooksAgain:
    """Decoder-layer mixin: `look(layer index, hidden states)` may rewrite the layer's output.

    The callable arrives with the call and leaves with it, so nothing stays on the model, two
    calls never mix, and gradient checkpointing repeats the same step.
    """

    def forward(self, hidden_states, *args, look: Callable | None = None, **kwargs):
        """The decoder layer, then `look`, which may add what the encoders say to its output."""
        out = super().forward(hidden_states, *args, **kwargs)
        return out if look is None else look(self.self_attn.layer_idx, out)


class CambrianLlamaLayer(LooksAgain, LlamaDecoderLayer):
    """A Llama layer after which the model may look again."""


class CambrianPhi3Layer(LooksAgain, Phi3DecoderLayer):
    """A Phi-3 layer after which the model may look again."""


class CambrianVision:
    """Model mixin: the towers, projectors and aggregators beside a language model's layers."""

    _no_split_modules = ("CambrianLlamaLayer", "CambrianPhi3Layer", "Tower", "Sampler")

    def add_vision(self, config, layer_class: type) -> None:
        """Add projectors, aggregators, newline and encoders under the names of the release."""
        config.check()
        dim, width, specs = config.vision_hidden_size, config.hidden_size, config.tower_specs()
        windows_, heads = config.window_sides, config.connector_heads
        self.layers = nn.ModuleList(
            [layer_class(config, i) for i in range(config.num_hidden_layers)]
        )
        self.mm_projector = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        for i, spec in enumerate(specs):
            self.add_module(f"mm_projector_aux_{i}", _projector(feature_width(spec), dim))
        self.vision_sampler_0 = Sampler(dim, dim, windows_, heads, config.connector_depth)
        self.vision_sampler_layers = nn.ModuleList(
            [Sampler(width, dim, windows_, heads) for _ in config.aggregating_layers()]
        )
        self.vision_query = nn.Parameter(torch.randn(1, dim) * dim**-0.5)
        self.image_newline = nn.Parameter(torch.randn(width) * width**-0.5)
        self.vision_towers = nn.ModuleList()
        if config.vision_configs is not None:
            self.vision_towers.extend(_towers(config))
        self.post_init()

    def encode(self, pixel_values: Sequence[Tensor]) -> list[Tensor]:
        """Normalised squares, one (B, 3, S_i, S_i) per tower, to tokens (B, T_i, C_i) each."""
        if len(self.vision_towers) != len(pixel_values):
            raise StudyError(
                f"This Cambrian has {len(self.vision_towers)} vision towers and was given "
                f"{len(pixel_values)} images; a released checkpoint needs load_towers first."
            )
        return [tower(x) for tower, x in zip(self.vision_towers, pixel_values, strict=True)]

    def aggregate(self, features: Sequence[Tensor], image_sizes) -> Vision:
        """Tower tokens to visual tokens; `image_sizes` (B, 2) original height and width."""
        side, batch = self.config.side, len(features[0])
        sizes = _sizes(image_sizes)
        if len(sizes) != batch:
            raise StudyError(f"There are {batch} images but {len(sizes)} image sizes.")
        home = self.vision_query.device  # what meets here may come from several GPUs
        aux = [getattr(self, f"mm_projector_aux_{i}")(x).to(home) for i, x in enumerate(features)]
        mask = [window_mask(size, side, self.config.window_sides) for size in sizes]
        mask = torch.cat(mask).to(aux[0].device)  # (B*side², K)
        context = aux[0].mean(1).repeat_interleave(side * side, 0)[:, None]  # (B*side², 1, d)
        sources = [windows(x, side).flatten(0, 1) for x in aux]  # (B*side², r², d)
        query = self.vision_query[:, None].expand(batch * side * side, -1, -1)
        grid = self.vision_sampler_0(query, context, sources, mask)[:, 0]
        grid = self.mm_projector(grid).to(home)
        rows, newline = _batch_cells(sizes, side, grid.device)
        cells = rows[~newline]
        tokens = torch.where(newline[:, None], self.image_newline, grid[rows])  # (N, D)
        sources = tuple(x[cells] for x in sources)
        return Vision(tokens, newline, context[cells], sources, mask[cells])

    def see(self, pixel_values: Sequence[Tensor], image_sizes) -> Vision:
        """Everything that happens to the images before the language model."""
        return self.aggregate(self.encode(pixel_values), image_sizes)

    def get_image_features(self, pixel_values: Sequence[Tensor], image_sizes):
        """Visual features in transformers' form: `pooler_output` lists (N, D') per image.

        A row is a token's embedding and, behind it, what its second look reads (`Vision.pack`).
        """
        counts = [len(token_cells(size, self.config.side)) for size in _sizes(image_sizes)]
        packed = self.see(pixel_values, image_sizes).pack()
        return BaseModelOutputWithPooling(pooler_output=packed.split(counts))

    def looker(self, vision: Vision, where: Tensor) -> Callable[[int, Tensor], Tensor]:
        """The second aggregation as a function of (layer index, hidden states (B, S, D))."""
        rows = _rows(where.flatten())[~vision.newline]
        samplers = dict(
            zip(self.config.aggregating_layers(), self.vision_sampler_layers, strict=True)
        )

        def look(index: int, hidden: Tensor) -> Tensor:
            """Hidden states (B, S, D) after the layer's second aggregation, if it has one."""
            if index not in samplers:
                return hidden
            flat, at = hidden.flatten(0, 1), rows.to(hidden.device)  # layers may lie on other GPUs
            new = samplers[index](flat[at][:, None], vision.context, vision.sources, vision.mask)
            return flat.index_copy(0, at, new[:, 0].to(flat)).view_as(hidden)

        return look


def _projector(dim_in: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim_in, dim), nn.GELU(), nn.Linear(dim, dim), nn.LayerNorm(dim))


def _towers(config) -> list[Tower]:
    lengths = config.mm_vision_tower_aux_token_len_list
    return [
        Tower(spec, tokens, config.mm_vision_select_layer)
        for spec, tokens in zip(config.tower_specs(), lengths, strict=True)
    ]


def _sizes(image_sizes) -> list[tuple[int, int]]:
    return [(int(h), int(w)) for h, w in image_sizes]


def _batch_cells(sizes, side: int, device) -> tuple[Tensor, Tensor]:
    """Row in the batch's (B*side²) cells of every visual token, and which are newlines."""
    cells = [token_cells(size, side) for size in sizes]
    newline = torch.cat([c < 0 for c in cells])
    rows = torch.cat([c.clamp(min=0) + b * side * side for b, c in enumerate(cells)])
    return rows.to(device), newline.to(device)


class CambrianLM(SeesOnce):
    """Language-model mixin: images in, then the ordinary causal language model."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Sequence[Tensor] | None = None,
        image_sizes=None,
        mm_encoder_outputs: dict | None = None,
        attention_mask: Tensor | None = None,
        **kwargs,
    ):
        """Logits of the prompt `input_ids` (B, S), one placeholder id per visual token.

        pixel_values: one normalised square (B, 3, S_i, S_i) per tower; image_sizes: (B, 2)
        original height and width. Or `mm_encoder_outputs={"image": ...}` with the output of
        `get_image_features`. Everything else is the language model's own: attention_mask (2-D or
        4-D), position_ids, labels, past_key_values, ...
        """
        if mm_encoder_outputs is not None:
            features = torch.cat(list(mm_encoder_outputs["image"].pooler_output))
            kwargs |= self._look(input_ids, Vision.unpack(features, self.config))
        elif pixel_values is not None:
            kwargs |= self._look(input_ids, self.model.see(pixel_values, image_sizes))
        else:
            kwargs["input_ids"] = input_ids
        return super().forward(attention_mask=attention_mask, **kwargs)

    def _look(self, input_ids: Tensor, vision: Vision) -> dict:
        where = image_positions(input_ids, self.config.image_token_id, len(vision.tokens))
        embeds = splice(self.get_input_embeddings(), input_ids, where, vision.tokens)
        return {"inputs_embeds": embeds, "look": self.model.looker(vision, where)}

    def load_towers(self, sources: Sequence[str] | None = None) -> None:
        """Fetch a released checkpoint's towers from their own repositories (or folders)."""
        towers = load_towers(self.config, sources, self.dtype)
        self.model.vision_towers = towers.to(self.device)


class CambrianLlamaModel(CambrianVision, LlamaModel):
    """A Llama with Cambrian's vision beside its layers."""

    config_class = CambrianLlamaConfig

    def __init__(self, config):
        super().__init__(config)
        self.add_vision(config, CambrianLlamaLayer)


class CambrianLlamaForCausalLM(CambrianLM, LlamaForCausalLM):
    """Cambrian 8b and 13b."""

    config_class = CambrianLlamaConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = CambrianLlamaModel(config)
        self.post_init()


class CambrianPhi3Model(CambrianVision, Phi3Model):
    """A Phi-3 with Cambrian's vision beside its layers."""

    config_class = CambrianPhi3Config

    def __init__(self, config):
        super().__init__(config)
        self.add_vision(config, CambrianPhi3Layer)


class CambrianPhi3ForCausalLM(CambrianLM, Phi3ForCausalLM):
    """Cambrian 3b."""

    config_class = CambrianPhi3Config

    def __init__(self, config):
        super().__init__(config)
        self.model = CambrianPhi3Model(config)
        self.post_init()


for _config, _model in (
    (CambrianLlamaConfig, CambrianLlamaForCausalLM),
    (CambrianPhi3Config, CambrianPhi3ForCausalLM),
):
    AutoConfig.register(_config.model_type, _config)
    AutoModelForCausalLM.register(_config, _model)
    AutoModelForImageTextToText.register(_config, _model)


# ------------------------------------------------------------------------- the adapter

SYSTEM_8B = (  # the system turn that cambrian-8b was trained with, line breaks and all
    "You are Cambrian, a highly intelligent multimodal AI trained by NYU Vision X. \n"
    "    As a multimodal AI, you have the ability to process and analyze images. Whenever an image "
    "is present in the conversation, very carefully examine it and consider its content when "
    "formulating your response.\n"
    "    You should give concise responses to very simple questions, but provide thorough "
    "responses to more complex and open-ended questions. "
)
PROMPT_8B = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>" + SYSTEM_8B + "<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>{image}\n{question}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>"
)
PROMPT_3B = (
    "<|system|>\nYou are a helpful AI assistant.<|end|>\n"
    "<|user|>\n{image}\n{question}<|end|>\n<|assistant|>\n"
)


@dataclass(frozen=True, eq=False)
class TowersPlan(Plan):
    """A plan whose views are normalised each by its own tower's mean and deviation."""

    towers: tuple[dict, ...] = ()

    def render(self, x: Tensor) -> list[Tensor]:
        """One view an encoder, each normalised in its own way."""
        views = super().render(x)  # in [0, 1]
        return [normalise(v, spec) for v, spec in zip(views, self.towers, strict=True)]


def _image_begins(span: Tensor) -> int:
    return int(span.int().argmax())


class Cambrian(Spliced):
    """Cambrian: the padded square once per tower, one visual token per cell on the image."""

    def check(self) -> None:
        """Fetch the encoders of a released checkpoint, whose own files lack them."""
        config = self.model.config
        if config.released and not len(self.model.model.vision_towers):
            self.model.load_towers()
            self.model.requires_grad_(False)

    @property
    def official_prompt(self) -> str:
        """The prompt of the released model of this kind; 8b is told by Llama 3's header tokens."""
        if self.model.config.model_type == "cambrian_phi3":
            return PROMPT_3B
        llama_3 = "<|start_header_id|>" in self.tokenizer.get_vocab()
        return PROMPT_8B if llama_3 else super().official_prompt

    def _tokenize(self, text: str, image_texts: Sequence[str]) -> Tensor:
        ids = super()._tokenize(text, image_texts)
        at, wanted = _image_begins(ids[0] == self.image_token_id), self.model.config.image_position
        if self.released and wanted == at + 1 and ids[0, 0] == self.tokenizer.bos_token_id:
            ids = torch.cat([ids[:, :1], ids], 1)  # trained with a doubled start token
        return ids

    def bind(self, size: Size, question: str) -> Bound:
        """As in Adapter; refuses a prompt whose image begins at another token than in training."""
        bound = super().bind(size, question)
        wanted, found = self.model.config.image_position, _image_begins(bound.image_span)
        if wanted not in (None, found):
            raise StudyError(
                f"The image begins at token {found} of the prompt but {self.name} was trained with "
                f"it at {wanted} (image_position in config.json); its chat template or tokenizer "
                "is not the one of the release."
            )
        return bound

    def geometry_for(self, size: Size) -> Geometry:
        """A padded square an encoder; padding has no tokens, and newline tokens have no box."""
        towers, side = self.model.config.tower_specs(), self.model.config.side
        specs = [square_spec(size, tower) for tower in towers]
        plan = TowersPlan(size, specs, (0.0,) * 3, (1.0,) * 3, towers=tuple(towers))
        view = plan.views[0]
        edges = np.linspace(0, view.rows.length, side + 1)
        edges = np.stack([edges[:-1], edges[1:]], 1)
        boxes = boxes_of(view, edges, edges).flatten(0, 1)  # (side², 4)
        cells = token_cells(size, side)
        boxes = torch.where(cells[:, None] < 0, torch.nan, boxes[cells])
        return Geometry(plan, boxes, tuple((tower_used(t),) * 2 for t in towers))

    def pack(self, views: list[Tensor]) -> dict:
        """The encoders' views as a list, in the order of the configuration."""
        return {"pixel_values": [view[:, 0] for view in views]}

    def extras(self, bound: Bound, B: int, A: int) -> dict:
        """The image's size, which says what of the square is padding."""
        return self.encoder_extras(bound, B)

    def encoder_extras(self, bound: Bound, B: int) -> dict:
        """The image's size, once a picture."""
        return {"image_sizes": [bound.size] * B}

    def encoders(self, bound: Bound) -> list[Encoder]:
        """As in Adapter: every tower has a view of its own."""
        found, specs = [], self.model.config.tower_specs()
        towers = self.model.model.vision_towers
        for i, (tower, view) in enumerate(zip(towers, bound.geometry.plan.views, strict=True)):
            layers = stages(tower.encoder) or blocks(tower.encoder)
            grid = SquareGrid(view, specs[i].get("patch_size"))
            found.append(Encoder(f"{i}:{tower.kind}", layers, grid))
        return found
