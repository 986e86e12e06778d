"""What every model family has in common: bind a size and a question, answer, score an answer.

An adapter turns a loaded transformers model into a function of pixels. `bind` works out everything
that depends only on the image size and the question; the `Bound` it returns maps pictures in
[0, 1] to the log-probabilities of a given answer, differentiably. A family writes down only its
geometry (which views it cuts, where each visual token looks) and how views become model inputs.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from ..errors import StudyError
from ..pixels.arguments import asked, check_question, whole
from ..pixels.images import to_tensor
from ..pixels.preprocess import Size
from .alone import attention_by, exclusive, lock_of, locked, ordinary
from .encoders import Encoder, blocks, view_boxes
from .forced import spelled
from .geometry import Geometry, clipped
from .memory import in_parts

LENGTH = 64  # tokens of the longest answer, unless a set-up or a call says otherwise


@dataclass(frozen=True)
class Answer:
    """What the model said: the text, its tokens, and how likely each was given those before it.

    `token_ids` (A,) int64 without the end-of-text token; `log_probs` (A,) float32 under teacher
    forcing; `tokens` are pieces of `text`, so that `"".join(tokens) == text`. `truncated` says that
    `max_new_tokens` ended the answer and not the model. `spans` [start, end) say where each token
    stands in `text`: a byte of a sign stands for the whole character, so spans may overlap. An
    Answer built by hand needs none.
    """

    text: str
    tokens: tuple[str, ...]
    token_ids: Tensor = field(repr=False)
    log_probs: Tensor = field(repr=False)
    truncated: bool = False
    spans: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    def __post_init__(self):
        for name in ("token_ids", "log_probs"):
            object.__setattr__(self, name, ordinary(getattr(self, name)))


@dataclass(frozen=True, eq=False)
class Bound:
    """A model tied to one image size and one question: pictures in, answer scores out.

    Holds no gradient state, so one Bound serves any number of passes. `prompt_ids` (1, P) with one
    id per visual token; `image_span` (P,) bool marks them.
    """

    adapter: "Adapter"
    size: Size
    question: str
    prompt_ids: Tensor = field(repr=False)
    image_span: Tensor = field(repr=False)
    geometry: Geometry = field(repr=False)

    @property
    def token_boxes(self) -> Tensor:
        """Box of every visual token (N, 4) in original image pixels, cut off at the image's border.

        NaN for newline tokens, zero area for tokens that see only padding.
        """
        return clipped(self.geometry.boxes, self.size)

    @property
    def whole_boxes(self) -> Tensor:
        """The same boxes with what they see of the padding; see `Geometry`."""
        return self.geometry.boxes

    @property
    def work_size(self) -> Size:
        """The size at which to blend masks: the image's own, or smaller for huge photographs."""
        return self.geometry.plan.work_size

    @property
    def exact(self) -> bool:
        """Whether pictures at `work_size` reach the model exactly as its processor would do it."""
        return self.geometry.plan.exact

    def reduced(self, x: Tensor) -> Tensor:
        """Bring full-size pictures or masks (B, C, H, W) to `work_size`."""
        return self.geometry.plan.reduced(x)

    def pixels(self, x: Tensor) -> dict[str, Tensor]:
        """Model inputs for pictures (B, 3, H, W) in [0, 1], at the image's size or `work_size`."""
        views = self.geometry.plan.render(x.to(self.adapter.device))
        return self.adapter.pack([view.to(self.adapter.dtype) for view in views])

    @property
    def geometries(self) -> list[Geometry]:
        """Those of all pictures of the prompt: one, but see `several`."""
        return [self.geometry]

    def extras(self, B: int, A: int) -> dict[str, Tensor]:
        """Inputs besides ids and pixels, for B pictures and A ids after the prompt."""
        return self.adapter.extras(self, B, A)

    def encoder_extras(self, B: int) -> dict[str, Tensor]:
        """Those that the vision encoder needs too."""
        return self.adapter.encoder_extras(self, B)

    def run(self, x: Tensor, answer_ids: Tensor, **options):
        """The model's own output under teacher forcing; its logits (B, A, V) predict the answer.

        `options` go to the model (`output_attentions=True`, ...), for methods that look inside.
        """
        wants_attention = options.get("output_attentions", False)
        with self.adapter.eager() if wants_attention else nullcontext():
            return self._forward(self.pixels(x), len(x), answer_ids, options)

    def logits(self, x: Tensor, answer_ids: Tensor) -> Tensor:
        """Scores (B, A, V) in float32: row t predicts answer token t from all before it."""
        if len(answer_ids) == 0:
            return x.new_zeros(len(x), 0, self.adapter.vocabulary, device=self.adapter.device)
        return self.run(x, answer_ids).logits.float()

    def log_probs(self, x: Tensor, answer_ids: Tensor, contrast: int | None = None) -> Tensor:
        """log p of every answer token given the picture and the tokens before it: (B, A) float32.

        With `contrast`, an id, the last has log p - log p of that id in its place.
        Without gradients the batch is halved when memory runs out (see `memory`).
        """

        def score(part: Tensor) -> Tensor:
            return gather_log_probs(self.logits(part, answer_ids), answer_ids, contrast).to(
                x.device
            )

        if x.requires_grad and torch.is_grad_enabled():
            return score(x)
        return in_parts(self, "forward", score, x)

    def logits_from(self, features: Tensor, answer_ids: Tensor) -> Tensor:
        """`logits` from visual features (B, N, D) of `Adapter.encode`, skipping the encoder."""
        inputs = {"mm_encoder_outputs": self.adapter.wrap(features)}
        return self._forward(inputs, len(features), answer_ids, {}).logits.float()

    def log_probs_from(
        self, features: Tensor, answer_ids: Tensor, contrast: int | None = None
    ) -> Tensor:
        """`log_probs` from the same."""
        logits = self.logits_from(features, answer_ids)
        return gather_log_probs(logits, answer_ids, contrast).to(features.device)

    def seen(self) -> Tensor:
        """Image pixels (H, W) bool that can influence the model; a centre crop drops the rest."""
        return self.geometry.plan.seen(self.geometry.used)

    def _forward(self, inputs: dict, B: int, answer_ids: Tensor, options: dict):
        answer_ids = answer_ids.to(self.adapter.device)
        ids = torch.cat([self.prompt_ids, answer_ids[None, :-1]], 1).repeat(B, 1)  # (B, P + A - 1)
        extras = self.extras(B, ids.shape[1] - self.prompt_ids.shape[1])
        with lock_of(self.adapter), self._spoken(ids) as ids:
            return self.adapter.model(
                input_ids=ids,
                **inputs,
                **extras,
                use_cache=False,
                logits_to_keep=max(len(answer_ids), 1),
                **options,
            )

    @contextmanager
    def _spoken(self, ids: Tensor):
        """Yield `ids` such that image tokens *in the answer* are read as words, not as pictures.

        A model can generate the id that marks its visual tokens; while it generates, that id is
        an ordinary word. Given back, it would be counted as a place for one more visual token. So
        another id stands there, and the embedding of the image token is put in its place.
        """
        said = ids == self.adapter.image_token_id
        said[:, : self.prompt_ids.shape[1]] = False
        if not said.any():
            yield ids
            return

        def say(embedding, args, output):
            if args[0].shape != ids.shape:
                return output
            word = embedding.forward(args[0].new_full((1, 1), self.adapter.image_token_id))
            return torch.where(said[..., None].to(output.device), word, output)

        hook = self.adapter.model.get_input_embeddings().register_forward_hook(say)
        try:
            yield ids.masked_fill(said, self.adapter._eos[0])
        finally:
            hook.remove()


class Adapter(ABC):
    """A loaded vision-language model. Make one with `load_model`.

    A family gives `model_class` (a transformers class), `fallback` (the prompt to use when the
    checkpoint has no chat template, with {image} and {question}), `geometry_for` and `pack`.
    """

    model_class: type
    fallback: str
    several = False  # whether a prompt may hold several pictures (see `several`)
    needs_processor = True  # False where config.json alone describes the preprocessing
    checkpointing: str | bool = "auto"  # layers computed twice where a gradient does not fit
    two_stage = False  # gradients through encoder and language model apart (see `memory.gradient`)
    apart = False  # whether the text before and behind the image is tokenized apart
    setup: str | None = None  # "paper" where it is asked as by the paper's code (see `setups`)
    max_new_tokens = LENGTH  # the longest answer, where a call does not say
    excluded_ids: frozenset[int] | None = None  # tokens never explained; None: known by their words

    def __init__(self, name, model, tokenizer, processor, template: str | None):
        self.name, self.model, self.tokenizer, self.processor = name, model, tokenizer, processor
        self.template = template
        self.image_token_id = model.config.image_token_id
        self.image_token = image_token(name, tokenizer, self.image_token_id)
        # Hooks that a tower gets first and the whole model later would be there twice, and the
        # tower's hidden states counted twice: scores would change once attention was asked for.
        maybe_install_capturing_hooks(model)
        self._geometries: dict[Size, Geometry] = {}
        self._eos = end_ids(model, tokenizer)
        model.generation_config = GenerationConfig(
            eos_token_id=self._eos, pad_token_id=self._eos[0]
        )
        self.check()
        if template is None:
            self._warn_fallback()

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the model's weights."""
        return self.model.dtype

    @contextmanager
    def eager(self):
        """Compute attention step by step for a while, so that its weights can be returned.

        The fast kernels keep no weights, and transformers then returns none without a word.
        """
        with lock_of(self), attention_by(self.model, "eager"):
            yield

    @property
    def vision(self) -> torch.nn.Module:
        """The vision encoder, for methods that look inside."""
        inner = self.model.model
        names = ("vision_tower", "visual", "vision_model")
        return next(getattr(inner, name) for name in names if hasattr(inner, name))

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model scores."""
        return self.model.get_output_embeddings().weight.shape[0]

    # --- what a family says ---------------------------------------------------------------

    @classmethod
    def check_files(cls, name: str, outline, tokenizer, processor) -> None:
        """Raise StudyError if a checkpoint's files do not fit together, before weights are read.

        `outline` is the model without content.
        """
        image_token(name, tokenizer, outline.config.image_token_id)
        sketch = cls.__new__(cls)
        sketch.name, sketch.model, sketch.processor = name, outline, processor
        sketch.check()

    def check(self) -> None:
        """Raise StudyError if config and processor do not fit together."""
        return None

    @abstractmethod
    def geometry_for(self, size: Size) -> Geometry:
        """Plan, token boxes and used view pixels for one image size."""

    @abstractmethod
    def pack(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Normalised views, (B, T, 3, h, w) each, to the model's pixel inputs."""

    def extras(self, bound: Bound, B: int, A: int) -> dict[str, Tensor]:
        """Inputs besides ids and pixels; most families have none."""
        return {}

    @property
    def placeholder(self) -> str:
        """What the chat template writes for the image; `image_text` replaces it."""
        return self.image_token

    def image_text(self, geometry: Geometry) -> str:
        """What stands in the prompt for the image: one image token per visual token."""
        return self.image_token * len(geometry.boxes)

    # --- what all families share -----------------------------------------------------------

    @exclusive
    def bind(self, size: Size, question: str) -> Bound:
        """Tie the model to images of `size` (H, W) and one question. Raises StudyError."""
        return self.bind_all([size], question)[0]

    def bind_all(self, sizes: Sequence[Size], question: str) -> list[Bound]:
        """A Bound for each picture of one prompt, all with its ids and each with its own span."""
        sizes = [(int(height), int(width)) for height, width in sizes]
        self._check_question(question)
        geometries = [self._geometry(size) for size in sizes]
        ids, counts = self.tokenized(question, geometries), [len(g.boxes) for g in geometries]
        span = ids[0] == self.image_token_id
        self._check_prompt(ids, int(span.sum()), sum(counts))
        whose = torch.full(span.shape, -1)
        whose[span] = torch.arange(len(sizes)).repeat_interleave(torch.tensor(counts))
        ids = ids.to(self.device)
        plans = enumerate(zip(sizes, geometries, strict=True))
        return [Bound(self, size, question, ids, whose == i, own) for i, (size, own) in plans]

    def tokenized(self, question: str, geometries: Sequence[Geometry], text: str = "") -> Tensor:
        """Ids (1, P) of the prompt for pictures of such geometries, with a text behind it."""
        whole = self.prompt(question, len(geometries)) + text
        return self._tokenize(whole, [self.image_text(geometry) for geometry in geometries])

    def _geometry(self, size: Size) -> Geometry:
        if min(size) < 1:
            raise StudyError(f"An image of size {size} has no pixels; give one with at least 1x1.")
        if size not in self._geometries:
            self._geometries[size] = self.geometry_for(size)
        return self._geometries[size]

    def prompt(self, question: str, pictures: int = 1) -> str:
        """The whole prompt as text, a placeholder a picture, by the checkpoint's template."""
        if self.template is None:
            return self.fallback.format(image=self.placeholder, question=question)
        parts = [{"type": "image"}] * pictures + [{"type": "text", "text": question}]
        text = self._render(parts)
        if text is None or self.placeholder not in text:  # a template for plain text content
            text = self._render(f"{self.placeholder}\n" * pictures + question) or ""
        if text.count(self.placeholder) != pictures or question.strip() not in text:
            raise StudyError(
                f"The chat template of {self.name} gives a prompt with "
                f"{text.count(self.placeholder)} image tokens {self.placeholder!r} "
                f"{'and' if question.strip() in text else 'and without'} the question; it must "
                "hold it and one a picture: repair chat_template.jinja in the model's folder."
            )
        return text

    def length(self, max_new_tokens: int | None) -> int:
        """How long an answer may be: as asked, or by the set-up."""
        given = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        return whole(given, "max_new_tokens", 1)

    @exclusive
    @torch.no_grad()
    def generate(self, bound: Bound, x: Tensor, max_new_tokens: int | None = None) -> Tensor:
        """The greedy answer to one picture (1, 3, H, W): ids (A,) without the end-of-text token."""
        max_new_tokens = self.length(max_new_tokens)
        out = self.model.generate(
            input_ids=bound.prompt_ids,
            attention_mask=torch.ones_like(bound.prompt_ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            **bound.pixels(x),
            **bound.extras(1, 0),
        )
        ids = out[0, bound.prompt_ids.shape[1] :]
        return ids[:-1] if len(ids) and int(ids[-1]) in self._eos else ids

    @exclusive
    def answer(
        self, image, question: str | None = None, max_new_tokens: int | None = None
    ) -> Answer:
        """Ask the model: `image` is anything that `load_image` opens, or an item with its question.

        A question given besides an item wins. `max_new_tokens` is 64 by default, 1,024 in the
        paper's set-up. `truncated` is True when the answer is as long as it allows: one that ends
        by itself has spent a token on its end.
        """
        rgb, question = asked(image, question)
        x, max_new_tokens = to_tensor(rgb), self.length(max_new_tokens)
        bound = self.bind(x.shape[-2:], question)
        ids = self.generate(bound, x, max_new_tokens)
        return self.read(bound, x, ids, truncated=len(ids) >= max_new_tokens)

    @exclusive
    def forced(self, image, question: str, text: str) -> Answer:
        """Any text as the answer to a question, in the model's own tokens; `truncated` is False.

        What the model said, given back as text, is the same Answer again, unless decoding lost
        something (see `forced.spelled`). Raises StudyError for no text and for control tokens.
        """
        rgb, question = asked(image, question)
        x = to_tensor(rgb)
        bound = self.bind(x.shape[-2:], question)
        return self.read(bound, x, spelled(bound, x, text))

    @exclusive
    @torch.no_grad()
    def read(self, bound: Bound, x: Tensor, ids: Tensor, truncated: bool = False) -> Answer:
        """Wrap answer ids (A,), scored on the picture (1, 3, H, W), as an Answer."""
        text, tokens, spans = located(self.tokenizer, ids.tolist())
        return Answer(text, tokens, ids.cpu(), bound.log_probs(x, ids)[0].cpu(), truncated, spans)

    @locked
    def encode(self, bound: Bound, x: Tensor) -> Tensor:
        """Projected visual tokens (B, N, D), newline tokens included, in prompt order."""
        inputs = bound.pixels(x) | bound.encoder_extras(len(x))
        found = torch.cat(list(self.model.model.get_image_features(**inputs).pooler_output))
        return found.unflatten(0, (len(x), -1))

    def encoder_extras(self, bound: Bound, B: int) -> dict[str, Tensor]:
        """The extras that the vision encoder needs too."""
        return {}

    def wrap(self, features: Tensor) -> dict:
        """Features (B, N, D) in the shape in which the model takes them instead of pixels."""
        return {"image": BaseModelOutputWithPooling(pooler_output=list(features))}

    def _render(self, content) -> str | None:
        """Apply the chat template; None if it cannot take content of this shape."""
        messages = [{"role": "user", "content": content}]
        try:
            return self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
            )
        except Exception:  # jinja raises TypeError, UndefinedError, ... for the wrong shape
            return None

    def _tokenize(self, text: str, image_texts: Sequence[str]) -> Tensor:
        bos = self.tokenizer.bos_token
        special = not (bos and text.startswith(bos))  # a template may write it itself
        before, *behind = text.split(self.placeholder)
        if self.apart:  # as the original repositories do, in training too
            ids = self.tokenizer(before, add_special_tokens=special).input_ids
            for image, part in zip(image_texts, behind, strict=True):
                ids += [self.image_token_id] * (len(image) // len(self.image_token))
                ids += self.tokenizer(part, add_special_tokens=False).input_ids
            return torch.tensor([ids])
        text = before + "".join(map("".join, zip(image_texts, behind, strict=True)))
        return self.tokenizer(text, add_special_tokens=special, return_tensors="pt").input_ids

    def _check_question(self, question: str) -> None:
        check_question(question)
        if any("\ud800" <= sign <= "\udfff" for sign in question):  # a byte of the command line
            raise StudyError("The question has bytes that are no UTF-8 text; write it in UTF-8.")
        self.check_signs("question", question)

    def check_signs(self, what: str, text: str) -> None:
        """Raise StudyError where a text would speak to the model in control tokens."""
        control = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        control |= {self.image_token, self.placeholder}
        found = sorted(t for t in control if t and t in text)
        if found:
            raise StudyError(
                f"The {what} contains {found[0]!r}, which {self.name} reads as a control token; "
                "leave it out."
            )

    def _check_prompt(self, ids: Tensor, found: int, wanted: int) -> None:
        if found != wanted:
            raise StudyError(
                f"The tokenizer of {self.name} turns {wanted} image tokens into {found}; "
                f"{self.image_token!r} must be a special token in tokenizer.json."
            )
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and ids.shape[1] >= limit:
            raise StudyError(
                f"The prompt has {ids.shape[1]} tokens but {self.name} reads at most {limit}; "
                "shorten the question."
            )

    def _warn_fallback(self) -> None:
        warnings.warn(
            f"{self.name} has no chat template; using the usual prompt of its family, "
            f"{self.fallback!r}, which may not be the one it was trained with.",
            stacklevel=4,
        )

    def encoders(self, bound: Bound) -> list[Encoder]:
        """All vision encoders, in the model's own order: one, for the views as they are cut."""
        boxes = view_boxes(bound)
        return [Encoder("vision", blocks(self.vision), lambda n: boxes)]

    def merged(self, bound: Bound, patches: Tensor) -> Tensor:
        """Visual tokens (N,) as the mean of their patches (V, n), by the model's own rule.

        StudyError where a family does not say how its patches become tokens.
        """
        raise StudyError(
            f"{type(self).__name__} does not say how patches become visual tokens, so nothing can "
            f"be followed into the vision encoder of {self.name}; leave vision=False."
        )


def image_token(name: str, tokenizer, number: int) -> str:
    """The image token's text. Raises StudyError if the tokenizer has no such token."""
    found = tokenizer.convert_ids_to_tokens(number)
    if found is None:
        raise StudyError(
            f"The tokenizer of {name} has no token with id {number}, the image token of its "
            "config.json; the two files do not belong together."
        )
    return found


def gather_log_probs(logits: Tensor, answer_ids: Tensor, contrast: int | None = None) -> Tensor:
    """Log-softmax of (B, A, V), read off at the answer ids (A,): (B, A).

    The last less that of `contrast`, where one is given.
    """
    index = answer_ids.to(logits.device).expand(len(logits), -1)[..., None]
    table = logits.log_softmax(-1)
    found = table.gather(-1, index)[..., 0]
    if contrast is None:
        return found
    return torch.cat([found[:, :-1], found[:, -1:] - table[:, -1:, contrast]], 1)


def end_ids(model, tokenizer) -> list[int]:
    """Every id that ends an answer, by the checkpoint's generation config and its tokenizer."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    ids = [] if ids is None else list(ids) if isinstance(ids, Sequence) else [int(ids)]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise StudyError("Neither generation_config.json nor the tokenizer names an end token.")
    return ids


def located(tokenizer, ids: list[int]) -> tuple[str, tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Decode ids: the text, its pieces cut at token borders, and where each token stands in it.

    Inner spaces are kept; the one with which many tokenizers open an answer is dropped. A character
    spread over several byte tokens is the piece of the last, and the place of them all.
    """
    text, cuts, begun = _decode(tokenizer, ids), [0], []
    for end in range(1, len(ids)):
        so_far = _decode(tokenizer, ids[:end])
        begun.append(so_far.endswith("\ufffd"))  # the character behind the cut has begun
        cuts.append(min(max(len(so_far.rstrip("\ufffd")), cuts[-1]), len(text)))
    lead = len(text) - len(text.lstrip())
    cuts, text = [max(c - lead, 0) for c in (*cuts, len(text))], text[lead:]
    borders = list(zip(cuts, cuts[1:], (*begun, False), strict=False))[: len(ids)]
    spans = tuple((a, min(b + part, len(text))) for a, b, part in borders)
    return text, tuple(text[a:b] for a, b, _ in borders), spans


def _decode(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
