"""What a config.json says about a checkpoint, and whether it can be read here at all.

Asked before anything is built: a model made from a config that lacks its sizes would be the
default one of its family, seven billion weights of it, and would end in an error about memory.
"""

from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..errors import StudyError, unknown
from .checkpoint import installed, read_json
from .weights import parameters

SIZES = {896: "0.5b", 3584: "7b", 4096: "7b", 5120: "13b", 7168: "34b", 8192: "72b"}
CONVERTED = {  # what an original checkpoint calls itself -> the one that transformers reads
    "llava": "llava-hf/llava-{line}{size}-hf",
    "llava_llama": "llava-hf/llava-{line}{size}-hf",
    "llava_mistral": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava_qwen": "llava-hf/llava-onevision-qwen2-{size}-ov-hf",
    "internvl_chat": "OpenGVLab/InternVL3-8B-hf",
    "mini_gemini": "YanweiLi/MGM-7B",
    "mini-gemini": "YanweiLi/MGM-7B",
}
FLAT = ("cambrian_llama", "cambrian_phi3", "mgm")  # a language model's config with more fields
QUANTISED = {  # method -> packages that read it, as pip names them
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "awq": ("gptqmodel", "accelerate"),
    "gptq": ("gptqmodel", "optimum"),
    "compressed-tensors": ("compressed-tensors", "accelerate"),
    "fp8": ("accelerate",),
    "fbgemm_fp8": ("fbgemm-gpu", "accelerate"),
    "torchao": ("torchao", "accelerate"),
    "hqq": ("hqq", "accelerate"),
    "quanto": ("optimum-quanto", "accelerate"),
    "eetq": ("kernels", "accelerate"),
    "aqlm": ("aqlm", "accelerate"),
    "auto-round": ("auto-round", "accelerate"),
    "mxfp4": ("kernels", "accelerate"),
}
ROOM = 2  # a model may have this many times the numbers of its files: tied weights, own towers


def read_config(folder: Path) -> dict:
    """The config.json of a model folder; StudyError where there is none, or one of no model."""
    if not (folder / "config.json").is_file():
        raise StudyError(_without_config(folder))
    config = read_json(folder / "config.json", "")
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise StudyError(f"{folder / 'config.json'} has no model_type; it describes no model.")
    return config


def check_config(folder: Path, config: dict, families) -> None:
    """Raise StudyError for a checkpoint of none of the `families`, or one that says too little."""
    kind, converted = config["model_type"], converted_of(config, families)
    if converted is not None:
        raise StudyError(
            f"{folder} holds an original {kind!r} checkpoint, which needs code of its own; name "
            f"its conversion, as {converted}, or convert your weights with a script of "
            "transformers (convert_..._weights_to_hf.py)."
        )
    if kind not in families:
        raise _no_family(folder, config, families)
    lacking = missing_part(config)
    if lacking:
        raise StudyError(
            f"{folder / 'config.json'} has no {lacking}, so nobody knows which {kind!r} model it "
            "describes; fetch the config.json that belongs to the weights."
        )


def converted_of(config: dict, families) -> str | None:
    """The checkpoint to name instead of an original one; None for all others."""
    kind = config["model_type"]
    original = "mm_vision_tower" in config or "mm_projector_type" in config
    if kind in FLAT or (kind in families and not original):
        return None
    if kind not in CONVERTED:
        return "one of llava-hf" if original else None
    size = SIZES.get(config.get("hidden_size"), "7b")
    tiled = "anyres" in str(config.get("image_aspect_ratio", ""))
    line = "v1.6-" + ("" if size == "34b" else "vicuna-") if tiled else "1.5-"
    return CONVERTED[kind].format(size=size, line=line)


def missing_part(config: dict) -> str | None:
    """The first entry without which a default model would be built."""
    if config["model_type"] == "owlvit_llava":  # names two other checkpoints
        return None
    sizes = ("hidden_size", "num_hidden_layers")
    if config["model_type"] in FLAT:
        return next((key for key in sizes if not isinstance(config.get(key), int)), None)
    flat = all(isinstance(config.get(key), int) for key in sizes)  # as Qwen's first ones are
    parts = ("vision_config",) if flat else ("vision_config", "text_config")
    return next((key for key in parts if not _filled(config.get(key))), None)


def quantisation(folder: Path) -> str | None:
    """How the weights are quantised, None if they are not.

    Raises StudyError, naming what to install, where the packages that read them are not there.
    """
    config = read_config(folder)
    found = config.get("quantization_config", config.get("compression_config"))
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else None
    if method is None and isinstance(found, dict):
        bits = found.get("load_in_4bit") or found.get("load_in_8bit")
        method = "bitsandbytes" if bits else None
    if method not in QUANTISED:
        known = ", ".join(QUANTISED)
        raise StudyError(
            f"{folder} holds weights quantised by {method or 'a method without a name'!s}, which "
            f"cannot be read here (known: {known}); name the checkpoint that is not quantised."
        )
    missing = [name for name in QUANTISED[method] if not installed(name)]
    if missing:
        raise StudyError(
            f"{folder} holds weights quantised by {method}; run 'pip install "
            f"{' '.join(missing)}', or name the checkpoint that is not quantised."
        )
    return method


def check_fit(folder: Path, model_class: type, files: list[Path]) -> None:
    """Raise StudyError if config.json describes a far larger model than the files hold.

    The model is outlined without memory, and the files' headers alone are read.
    """
    held = parameters(files)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = getattr(model_class, "from_config", model_class)(config)
    except Exception:  # noqa: BLE001 - loading will say what is wrong
        return
    described = sum(p.numel() for p in model.parameters())
    if described > ROOM * held:
        raise StudyError(
            f"{folder / 'config.json'} describes {_count(described)} weights and the files hold "
            f"{_count(held)}; they do not belong together."
        )


def _count(numbers: int) -> str:
    size = numbers / 1e9
    return f"{size:.1f} billion" if size >= 1 else f"{numbers / 1e6:.2f} million"


def _filled(part) -> bool:
    return isinstance(part, dict) and bool(part)


def _without_config(folder: Path) -> str:
    """What to say of a folder that is no checkpoint: what it looks like."""
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json", "").get("base_model_name_or_path")
        return (
            f"{folder} holds an adapter (LoRA) alone; merge it into {base or 'its base model'} "
            "with peft's merge_and_unload and save that."
        )
    if any(folder.glob("*.gguf")):
        return f"{folder} holds a GGUF file, which is for llama.cpp; name the original checkpoint."
    inner = sorted(p.parent.name for p in folder.glob("*/config.json"))
    if inner:
        return f"There is no config.json in {folder}, but in {inner[0]} below it; name that folder."
    return f"There is no config.json in {folder}; a model folder needs the Hugging Face layout."


def _no_family(folder: Path, config: dict, families) -> StudyError:
    kind, known = config["model_type"], ", ".join(families)
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return StudyError(f"Models of type {kind!r} ({folder}) are not supported; known: {known}.")
    if kind in CONFIG_MAPPING_NAMES:
        return StudyError(
            f"{folder} holds a {kind!r} model, which is no vision-language model; known: {known}."
        )
    if config.get("auto_map"):
        return StudyError(
            f"{folder} holds a {kind!r} model, which needs code of its own, and none is run here; "
            f"known: {known}."
        )
    return unknown("model architecture", kind, families)
