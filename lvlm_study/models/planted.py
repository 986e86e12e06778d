"""Planted readers: models whose evidence is known in closed form.

Each reader looks at known boxes of the image, measures how red they are, and names one colour or
another in a fixed sentence. It stands behind the same contract as a real model, so that every
method can be asked about it and its map compared with the only right one.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import StudyError, unknown
from ..pixels.arguments import asked
from ..pixels.images import to_tensor
from .base import Answer, gather_log_probs
from .forced import check_text

Box = tuple[float, float, float, float]  # x0 y0 x1 y1 as fractions of width and height
OBJECT: Box = (0.625, 0.125, 0.875, 0.375)
PARTNER: Box = (0.125, 0.625, 0.375, 0.875)
WATERMARK: Box = (0.0, 0.875, 0.25, 1.0)
SENTENCE = ("The", " shape", " is", "{}", ".")
COLOURS = (" red", " blue")
REDNESS = (1.0, -0.5, -0.5)  # 1 on pure red, 0 on any grey
UNIT = 0.25  # pixel values are (x - 1/2) / UNIT, about as real models normalise them
GRID = 8  # visual tokens a side
SILENT = -1e4  # logit of a word that cannot come


class WordTokenizer:
    """A vocabulary of whole words; word starts carry their space, as byte-level tokenizers do."""

    def __init__(self, words: tuple[str, ...]):
        self.words = ("</s>", "<image>", *dict.fromkeys(words))
        self.eos_token_id = 0
        self.all_special_ids = [0, 1]

    def encode(self, words) -> list[int]:
        """Ids of a sequence of words."""
        return [self.words.index(word) for word in words]

    def split(self, text: str) -> list[int]:
        """Ids of a text, the longest word first. Raises StudyError where no word fits."""
        left, known, ids = check_text(text), self.words[2:], []
        if not left.startswith(known):
            left = " " + left
        while left:
            fits = [word for word in known if left.startswith(word)]
            if not fits:
                raise StudyError(f"There is no word for {left.strip()!r}; known are {known}.")
            ids.append(self.words.index(max(fits, key=len)))
            left = left.removeprefix(max(fits, key=len))
        return ids

    def decode(self, ids) -> str:
        """Text without special tokens."""
        return "".join(self.words[int(i)] for i in ids if int(i) not in self.all_special_ids)


class RedReader(nn.Module):
    """Names the first colour when its boxes are red, the second when they are not.

    With e_r the mean redness of box r and e their combination ("all": the product, every box is
    needed; "any": 1 - prod(1 - e_r), one suffices; no box: e = 1), the two colours get logits
    +-gain (e - 1/2), so log p(first) = log sigmoid(2 gain (e - 1/2)). Other positions are fixed.
    """

    def __init__(self, boxes, combine, sentence, tokenizer, gain):
        super().__init__()
        self.boxes, self.combine, self.gain = boxes, combine, gain
        self.slot = sentence.index("{}")
        self.colours = tokenizer.encode(COLOURS)
        fixed = [COLOURS[0] if word == "{}" else word for word in sentence]
        table = torch.full((len(sentence) + 1, len(tokenizer.words)), SILENT)
        for row, token in enumerate([*tokenizer.encode(fixed), tokenizer.eos_token_id]):
            table[row, token] = 0.0
        self.register_buffer("table", table)

    def forward(self, pixel_values: Tensor, length: int) -> Tensor:
        """pixel_values (B, T, 3, h, w), view 0 the whole image -> logits (B, length, V)."""
        z = self.gain * (self.evidence(pixel_values) - 0.5)  # (B,)
        logits = self.table.to(z).expand(len(z), -1, -1)
        pair = torch.stack([z, -z], -1)  # (B, 2)
        row = torch.full_like(logits[:, 0], SILENT).scatter(
            1, torch.tensor([self.colours] * len(z)), pair
        )
        logits = torch.cat([logits[:, : self.slot], row[:, None], logits[:, self.slot + 1 :]], 1)
        return logits[:, torch.arange(length).clamp(max=logits.shape[1] - 1)]

    def evidence(self, pixel_values: Tensor) -> Tensor:
        """e (B,): the boxes' redness, combined."""
        parts = self.readouts(pixel_values)  # (B, R)
        if parts.shape[1] == 0:
            return parts.new_ones(len(parts))
        return parts.prod(1) if self.combine == "all" else 1 - (1 - parts).prod(1)

    def readouts(self, pixel_values: Tensor) -> Tensor:
        """Mean redness of every box, (B, R), averaged over the views that show it; linear."""
        weights = pixel_values.new_tensor(REDNESS).view(3, 1, 1)
        red = UNIT * (pixel_values * weights).sum(2)  # (B, T, h, w); the grey offset cancels
        parts = [self._box(red, box) for box in self.boxes]
        return torch.stack(parts, 1) if parts else red.new_zeros(len(red), 0)

    def _box(self, red: Tensor, box: Box) -> Tensor:
        whole = _cut(red[:, 0], box).mean((-2, -1))
        if red.shape[1] == 1:
            return whole
        column, row = int(box[0] * 2), int(box[1] * 2)  # the quarter that holds the box
        inside = tuple(2 * v - o for v, o in zip(box, (column, row, column, row), strict=True))
        quarter = _cut(red[:, 1 + 2 * row + column], inside).mean((-2, -1))
        return 0.5 * (whole + quarter)


@dataclass(frozen=True, eq=False)
class PlantedBound:
    """A planted reader tied to one image size; the same contract as `models.base.Bound`."""

    adapter: "PlantedReader"
    size: tuple[int, int]
    question: str
    prompt_ids: Tensor = field(default_factory=lambda: torch.ones(1, GRID * GRID).long())
    image_span: Tensor = field(default_factory=lambda: torch.ones(GRID * GRID).bool())

    @property
    def token_boxes(self) -> Tensor:
        """(N, 4) boxes of an 8 x 8 division of the image, row by row."""
        h, w = self.size
        y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        corners = torch.stack([x, y, x + 1, y + 1], -1).view(-1, 4)
        return corners * torch.tensor([w, h, w, h]) / GRID

    def pixels(self, x: Tensor) -> dict[str, Tensor]:
        """The views (B, T, 3, h, w): the whole image, and its four quarters for a cropping reader.

        Whole and quarters are brought to one size by area averaging, as real tiles are.
        """
        if not self.adapter.crops:
            return {"pixel_values": (x[:, None] - 0.5) / UNIT}
        h, w = (n // 2 for n in self.size)
        tiles = [x[..., r : r + h, c : c + w] for r in (0, h) for c in (0, w)]
        views = [F.adaptive_avg_pool2d(view, (h, w)) for view in (x, *tiles)]
        return {"pixel_values": (torch.stack(views, 1) - 0.5) / UNIT}

    def extras(self, B: int, A: int) -> dict[str, Tensor]:
        """Nothing more is needed."""
        return {}

    def logits(self, x: Tensor, answer_ids: Tensor) -> Tensor:
        """(B, A, V): row t predicts answer token t."""
        return self.adapter.model(**self.pixels(x), length=len(answer_ids))

    def log_probs(self, x: Tensor, answer_ids: Tensor, contrast: int | None = None) -> Tensor:
        """(B, A) log-probabilities of the answer's tokens, as `Bound.log_probs`."""
        return gather_log_probs(self.logits(x, answer_ids), answer_ids, contrast)

    def seen(self) -> Tensor:
        """(H, W) bool: a planted reader is shown every pixel."""
        return torch.ones(self.size, dtype=torch.bool)


class PlantedReader:
    """A planted reader as an adapter: `bind`, `generate`, `answer`, and what its map must be."""

    def __init__(self, name, boxes=(), combine="all", crops=False, sentence=SENTENCE, gain=4.0):
        self.name, self.boxes, self.crops = name, tuple(boxes), crops
        self.tokenizer = WordTokenizer((*COLOURS, *(w for w in sentence if w != "{}")))
        self.model = RedReader(self.boxes, combine, sentence, self.tokenizer, gain)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def bind(self, size, question: str) -> PlantedBound:
        """The static plan for images of `size` (H, W)."""
        return PlantedBound(self, tuple(size), question)

    @torch.no_grad()
    def generate(self, bound: PlantedBound, x: Tensor, max_new_tokens: int = 64) -> Tensor:
        """Greedy token ids (A,), end-of-text left out."""
        rows = bound.logits(x, torch.zeros(max_new_tokens, dtype=torch.long))[0].argmax(-1)
        ends = (rows == self.tokenizer.eos_token_id).nonzero()
        return rows[: int(ends[0])] if len(ends) else rows

    @torch.no_grad()
    def answer(self, image, question: str | None = None, max_new_tokens: int = 64) -> Answer:
        """The greedy answer about an image, with its log-probabilities."""
        rgb, question = asked(image, question)
        bound, x = self.bind(rgb.shape[:2], question), to_tensor(rgb)
        ids = self.generate(bound, x, max_new_tokens)
        tokens = tuple(self.tokenizer.words[int(i)] for i in ids)
        scores = bound.log_probs(x, ids)[0]
        return Answer(self.tokenizer.decode(ids), tokens, ids, scores, len(ids) >= max_new_tokens)

    @torch.no_grad()
    def forced(self, image, question: str, text: str) -> Answer:
        """Any text that its words can say, as an answer."""
        rgb, question = asked(image, question)
        ids = torch.tensor(self.tokenizer.split(text))
        tokens = tuple(self.tokenizer.words[int(i)] for i in ids)
        scores = self.bind(rgb.shape[:2], question).log_probs(to_tensor(rgb), ids)[0]
        return Answer(self.tokenizer.decode(ids), tokens, ids, scores)

    def encode(self, bound: PlantedBound, x: Tensor) -> Tensor:
        """Visual features (B, N, 1): the mean redness of every token's box."""
        red = (x * x.new_tensor(REDNESS).view(3, 1, 1)).sum(1, keepdim=True)
        return F.adaptive_avg_pool2d(red, GRID).flatten(2).mT

    def evidence(self, size) -> np.ndarray:
        """Bool (H, W): the pixels that the reader looks at."""
        mask = np.zeros(size, dtype=bool)
        for box in self.boxes:
            _cut(mask, box)[...] = True
        return mask

    def expected(self, target) -> Tensor:
        """The closed-form map (H, W) in [0, 1]: what each pixel adds to its box's evidence.

        Read-outs are linear, so the share of pixel p is exactly the read-out's weight at p times
        (image - baseline) at p, summed over channels; the positive part, the larger of the boxes,
        scaled to a maximum of 1. Zeros for a reader that looks nowhere.
        """
        x = target.image.clone().requires_grad_()
        parts = self.model.readouts(target.bound.pixels(x)["pixel_values"])[0]  # (R,)
        share = torch.zeros(target.size)
        for part in parts:
            (weight,) = torch.autograd.grad(part, x, retain_graph=True)
            own = (weight * (target.image - target.baseline)).sum(1)[0].clamp(min=0)
            share = torch.maximum(share, own)
        return share / share.max().clamp(min=1e-12)


def planted(name: str) -> PlantedReader:
    """The planted reader of that name; see `readers()`."""
    if name not in READERS:
        raise unknown("planted reader", name, READERS)
    return PlantedReader(f"planted/{name}", **READERS[name])


def readers() -> list[str]:
    """Names that `planted` knows."""
    return list(READERS)


READERS = {
    "object": dict(boxes=(OBJECT,)),
    "watermark": dict(boxes=(WATERMARK,)),
    "blind": dict(),
    "conjunctive": dict(boxes=(OBJECT, PARTNER), combine="all"),
    "disjunctive": dict(boxes=(OBJECT, PARTNER), combine="any"),
    "multi_crop": dict(boxes=(OBJECT,), crops=True),
}


def planted_scene(size: tuple[int, int] = (96, 128), seed: int = 0) -> np.ndarray:
    """A picture uint8 (H, W, 3) for the readers: red object, partner and watermark on grey noise.

    A green and a blue square of the same size stand elsewhere, for methods that like edges.
    """
    draw = np.random.default_rng(seed)
    grey = draw.integers(96, 160, size)
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    for box in (OBJECT, PARTNER, WATERMARK):
        _cut(picture, box, channels_last=True)[...] = (255, 0, 0)
    _cut(picture, (0.125, 0.125, 0.375, 0.375), channels_last=True)[...] = (0, 160, 0)
    _cut(picture, (0.625, 0.625, 0.875, 0.875), channels_last=True)[...] = (0, 0, 255)
    return picture


def _cut(x, box: Box, channels_last: bool = False):
    """The part of `x` inside a box, as a view; rows and columns are the last two axes."""
    h, w = x.shape[:2] if channels_last else x.shape[-2:]
    columns = slice(round(box[0] * w), max(round(box[2] * w), round(box[0] * w) + 1))
    rows = slice(round(box[1] * h), max(round(box[3] * h), round(box[1] * h) + 1))
    return x[rows, columns] if channels_last else x[..., rows, columns]
