"""Finding a model by name and loading it: a zoo name, a hub id or a folder, all by the same path.

A further family is one line in `FAMILIES`: its `model_type` (config.json) and its adapter.
"""

import os
import re
from functools import lru_cache, wraps
from pathlib import Path
from threading import Lock

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import StudyError, named, unknown
from ..paths import data_dir
from . import checkpoint, configs, manifest
from .alone import alone
from .anyres import LlavaNext, LlavaOnevision
from .base import Adapter
from .cambrian import Cambrian
from .gemma3 import Gemma3
from .idefics3 import Idefics3, SmolVLM
from .internvl import InternVL
from .joint import Joint, load_joint
from .llava import Llava
from .mini_gemini import MiniGemini
from .qwen_vl import Qwen2VL, Qwen3VL, Qwen25VL

FAMILIES: dict[str, type[Adapter]] = {
    "llava": Llava,
    "llava_next": LlavaNext,
    "llava_onevision": LlavaOnevision,
    "qwen2_vl": Qwen2VL,
    "qwen2_5_vl": Qwen25VL,
    "qwen3_vl": Qwen3VL,
    "internvl": InternVL,
    "gemma3": Gemma3,
    "idefics3": Idefics3,
    "smolvlm": SmolVLM,
    "cambrian_llama": Cambrian,
    "cambrian_phi3": Cambrian,
    "mgm": MiniGemini,
    "owlvit_llava": Joint,
}

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_opening = Lock()  # threads that name one model at once shall load it once


def models() -> list[str]:
    """Names of the zoo's checkpoints, `mini/...`; hub ids and folders can be loaded besides."""
    found = (data_dir() / "zoo").glob("*/config.json")
    return sorted(f"mini/{p.parent.name}" for p in found if not is_part(p))


list_models = models  # beside list_methods and list_benchmarks


def zoo_name(name: str) -> str:
    """The one name of a zoo model: "-l", the largest size, may be said or left out.

    "mini/llava-ov-l" is mini/llava-ov. Other names come back as they are.
    """
    if not name.startswith("mini/") or name in models():
        return name
    other = name.removesuffix("-l") if name.endswith("-l") else f"{name}-l"
    return other if other in models() else name


def is_part(config: Path) -> bool:
    """Whether a zoo folder holds a part of a model, as mini/owl, and answers no questions."""
    return '"owlvit"' in config.read_text(encoding="utf-8", errors="replace")


@torch.inference_mode(False)  # weights made in inference mode could never be explained
def load_model(name: str | Path, dtype=None, device=None) -> Adapter:
    """Load a vision-language model, ready to explain.

    `name`: a zoo name ("mini/llava-1.5", or "mini/llava-1.5-l": size l may be left out), a hub id
    ("org/name", "org/name@revision") or a folder in the Hugging Face layout. `dtype`: a torch dtype
    or its name; by default float32 on the CPU and the checkpoint's own on a GPU. `device`: by
    default the GPU if there is one; "auto" spreads a large model over all GPUs, a dict {module
    name: device} as it says (both need accelerate). Threads may share a model: they take turns.
    Quantised checkpoints need a GPU and the packages that wrote them.
    Raises StudyError for an unknown name or architecture, a missing or damaged file, a model that
    takes no images. Runs no code from the checkpoint and reads no pickles.
    """
    if not isinstance(name, str | os.PathLike):
        raise StudyError(f"A model is named by text or a path, not {named(name)}.")
    auto = isinstance(device, str) and device == "auto"
    spread = device if auto or isinstance(device, dict) else None
    device = pick_device(None if spread else device)
    dtype = pick_dtype(dtype, device)
    name = zoo_name(str(name))
    folder = find_folder(name)
    family = find_family(folder)
    if family is Joint:  # its folder names two other checkpoints
        if spread:
            raise StudyError(f"{name} is a joint model and goes on one device; name it.")
        return load_joint(name, folder, find_folder, dtype, device)
    quantised = configs.quantisation(folder)
    if quantised and not spread:
        if device.type == "cpu":  # bitsandbytes 0.50 answers there, and its gradients are zero
            raise StudyError(
                f"{folder} holds weights quantised by {quantised}, which give no gradients on the "
                "CPU; load it on a GPU, or name the checkpoint that is not quantised."
            )
        spread = {"": str(device)}  # its packages put the weights where they belong
    tokenizer = checkpoint.load_tokenizer(folder)
    processor = checkpoint.load_processor(folder) if family.needs_processor else None
    template = checkpoint.load_template(folder, tokenizer)
    if not quantised:
        configs.check_fit(folder, family.model_class, checkpoint.weight_files(folder))
    model = checkpoint.load_weights(family.model_class, folder, dtype, spread)
    if quantised == "bitsandbytes":
        checkpoint.even_out(model)
    model = model if spread else model.to(device)
    return family(name, model, tokenizer, processor, template)


def opened(model):
    """The model itself, or the one of that name: it is loaded, and the last two named are kept.

    Raises StudyError for what is no model of ours, such as a bare transformers model.
    """
    if isinstance(model, str | os.PathLike):
        with _opening:
            return _named(os.fspath(model))
    if not all(callable(getattr(model, what, None)) for what in ("bind", "answer")):
        raise StudyError(
            f"A model comes from load_model, or is the name of one; this is {named(model)}. Open a "
            'bare transformers model from its folder or hub id, load_model("org/name").'
        )
    return model


@lru_cache(maxsize=2)  # two, so that they can be compared in turns
def _named(name: str) -> Adapter:
    return load_model(name)


def with_model(function):
    """A function whose first argument is a model, or a name of one, run `alone` with it."""

    @wraps(function)
    def run(model, *args, **options):
        model = opened(model)
        with alone(model):
            return function(model, *args, **options)

    return run


def find_folder(name: str) -> Path:
    """The local folder behind a model name; hub ids are fetched or found in the cache."""
    path = Path(name).expanduser()
    if name and path.is_dir():  # Path("") is the folder one is in
        return path
    if path.is_file():
        raise StudyError(f"{name} is a file; give the folder that holds config.json.")
    if name.startswith("mini/"):
        folder = data_dir() / "zoo" / zoo_name(name).removeprefix("mini/")
        if not (folder / "config.json").is_file():
            raise unknown("model", name, models())
        manifest.check(folder)
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1 and "@" not in name:
        raise StudyError(f"There is no model folder at {name}; check the path.")
    if not HUB_ID.fullmatch(name):
        raise unknown("model", name, models())
    return download(name)


def download(name: str) -> Path:
    """The hub snapshot of `org/name[@revision]`: weights, configs and tokenizer only."""
    repo, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=HUB_FILES))
    except GatedRepoError as error:
        raise StudyError(
            f"{repo} is gated: accept its licence on huggingface.co and log in with "
            "'hf auth login'."
        ) from error
    except RevisionNotFoundError as error:
        raise StudyError(f"{repo} has no revision {revision!r} on the hub.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise StudyError(
            f"There is no model {repo} on the hub (or it is private); known here: "
            f"{', '.join(models()) or 'none'}."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise StudyError(_unreachable(repo)) from error


def _unreachable(repo: str) -> str:
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return f"{repo} is not in the local cache and HF_HUB_OFFLINE is set; unset it to download."
    return f"{repo} cannot be fetched: the hub is out of reach; download it and give its folder."


def find_family(folder: Path) -> type[Adapter]:
    """The adapter for a checkpoint, by the `model_type` in its config.json."""
    config = configs.read_config(folder)
    configs.check_config(folder, config, FAMILIES)
    return FAMILIES[config["model_type"]]


def pick_device(device) -> torch.device:
    """The device asked for, or the first GPU, or the CPU."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, str | int | torch.device):
        raise StudyError(f"A device is named by text, such as 'cuda:0', not {named(device)}.")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise StudyError(
            f"There is no device {str(device)!r} here ({checkpoint.one_line(error)})."
        ) from error
    return found


def pick_dtype(dtype, device: torch.device) -> torch.dtype | str:
    """A torch dtype for a dtype, its name or None; "auto" means the checkpoint's own."""
    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    if isinstance(dtype, torch.dtype):
        if not dtype.is_floating_point:
            raise StudyError(f"A model needs a floating-point dtype, not {dtype}.")
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    return DTYPES[dtype]
