"""Models that somebody has loaded already: a transformers model, or an adapter of PEFT on one."""

import transformers

from ..errors import StudyError, named
from . import checkpoint
from .base import Adapter
from .joint import Joint


def adapt(model, processor, families: dict[str, type[Adapter]], name=None) -> Adapter:
    """The adapter of a model in memory, as `load_model` says. Raises StudyError."""
    inner = without_peft(model)
    family = family_of(inner, families)
    _check_weights(inner)
    tokenizer, images = parts_of(processor, family)
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if quantised(inner) == "bitsandbytes":
        checkpoint.even_out(inner)
    inner = inner.eval().requires_grad_(False)
    return family(name_of(inner, name), inner, tokenizer, images, template)


def without_peft(model):
    """The transformers model inside a PEFT one: its layers hold the adapter's weights."""
    if not hasattr(model, "get_base_model"):
        return model
    config = model.active_peft_config
    if config.is_prompt_learning:
        raise StudyError(
            f"A {config.peft_type.value} adapter puts tokens before the prompt, which is not "
            "followed here; adapters that change weights, as LoRA, can be brought."
        )
    return model.get_base_model()


def family_of(model, families) -> type[Adapter]:
    """The adapter class for a model, by its config; a model without a head cannot answer."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in families or families[kind] is Joint:
        raise StudyError(
            f"model must be a vision-language model of transformers, not {named(model)} "
            f"(known: {', '.join(k for k in families if families[k] is not Joint)})."
        )
    if not model.can_generate():
        raise StudyError(
            f"A {type(model).__name__} has no language head and gives no answers; load "
            f"{families[kind].model_class.__name__}."
        )
    return families[kind]


def parts_of(processor, family: type[Adapter]) -> tuple:
    """(tokenizer, image processor or None) of what was brought beside the model."""
    if processor is None:
        raise StudyError("A model that is loaded already needs its processor=...; give both.")
    tokenizer = getattr(processor, "tokenizer", processor)
    images = getattr(processor, "image_processor", None)
    if not callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
        raise StudyError(f"processor must have a tokenizer; {named(processor)} has none.")
    if family.needs_processor and images is None:
        raise StudyError(
            f"{family.__name__} needs an image processor too, and {named(processor)} has none; "
            "give AutoProcessor's, or an object with .tokenizer and .image_processor."
        )
    return tokenizer, by_pillow(images) if family.needs_processor else None


def by_pillow(images):
    """The same settings in the class that works with Pillow, as our arithmetic does."""
    other = getattr(transformers, type(images).__name__.removesuffix("Fast") + "Pil", None)
    return images if other is None else other.from_dict(images.to_dict())


def quantised(model) -> str | None:
    """How the weights in memory are quantised, None if they are not."""
    found = getattr(model.config, "quantization_config", None)
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(method, "value", method))


def name_of(model, given: str | None) -> str:
    """What a brought model is called: never a name whose files would be taken for its weights."""
    source = getattr(model, "name_or_path", "") or model.config.model_type
    return f"{given or source.rstrip('/').rpartition('/')[2]} (brought)"


def _check_weights(model) -> None:
    method = quantised(model)
    if method and model.device.type == "cpu":
        raise StudyError(
            f"This model's weights are quantised by {method}, which give no gradients on the CPU; "
            "bring it on a GPU, or the model that is not quantised."
        )
