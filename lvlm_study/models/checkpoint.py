"""Reading a checkpoint folder in the Hugging Face layout, and saying clearly what is wrong with it.

Only safetensors and JSON are read, never pickles, and no code from the folder is run. Each check
names the file or the tensor at fault, because a model that loads with a silent hole gives numbers
that look like results.
"""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils import logging

from ..errors import StudyError

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model")
SENTENCEPIECE = ("tokenizer.model", "spiece.model")  # read by two packages together
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
LOADING = (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError)


def read_json(path: Path, why: str) -> dict:
    """The JSON object in `path`, or a StudyError that names it."""
    if not path.is_file():
        raise StudyError(f"There is no {path.name} in {path.parent}; {why}.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StudyError(f"{path} cannot be read as JSON ({error}); fetch it again.") from error
    if not isinstance(found, dict):
        raise StudyError(f"{path} does not hold a JSON object; fetch it again.")
    return found


def installed(package: str) -> bool:
    """Whether a package is there, by the name that pip has for it."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, each checked to be there and whole."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        table = read_json(index, "").get("weight_map")
        if not isinstance(table, dict) or not table:
            raise StudyError(f"{index} names no weight files; fetch it again.")
        names = sorted(set(table.values()))
        if "model.safetensors" not in names and (folder / "model.safetensors").exists():
            raise StudyError(
                f"{folder} holds two sets of weights, model.safetensors and the {len(names)} files "
                f"of {index.name}; move one of them away."
            )
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        _check_file(folder, file)
    return files


def _check_file(folder: Path, file: Path) -> None:
    if not file.is_file():
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        if pickles:
            raise StudyError(
                f"{folder} holds its weights as {pickles[0]}, a pickle, which can run code when "
                "loaded; convert it to safetensors first."
            )
        raise StudyError(
            f"The weight file {file} is missing; download the checkpoint again, or convert it if "
            "its repository has pickles (.bin) alone."
        )
    try:
        with safe_open(file, "pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise StudyError(
            f"The weight file {file} is damaged or cut short ({error}); download it again."
        ) from error


def load_weights(model_class, folder: Path, dtype: torch.dtype | str, spread=None):
    """The model with every tensor from the files, ready to explain (eval, frozen parameters).

    `spread`: None, "auto" or a device map {module name: device}, for a model over several GPUs.
    """
    weight_files(folder)
    if spread is not None and not installed("accelerate"):
        raise StudyError(
            "Spreading a model over several devices needs one more package; run "
            "'pip install accelerate'."
        )
    where = {} if spread is None else {"device_map": spread}
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar per model has no place in a notebook's output
    try:
        model, info = model_class.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **where,
        )
    except LOADING as error:
        raise StudyError(
            f"{folder} cannot be loaded as {model_class.__name__}: {one_line(error)}."
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()
    missing = sorted(info["missing_keys"])
    if missing:
        raise StudyError(
            f"The weight files in {folder} lack {len(missing)} tensors, first {missing[0]!r}; "
            "they do not belong to this config.json."
        )
    return model.eval().requires_grad_(False)


def even_out(model: torch.nn.Module) -> None:
    """One type for all that is not quantised: towers keep that of their own config otherwise."""
    for parameter in model.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16, torch.float32):
            parameter.data = parameter.data.to(model.dtype)


def load_tokenizer(folder: Path):
    """The checkpoint's tokenizer."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise StudyError(
            f"There is no tokenizer in {folder} (tokenizer.json, tokenizer.model); "
            "copy the tokenizer files of the model there."
        )
    present = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    readers = ("sentencepiece", "protobuf")
    if present[0] in SENTENCEPIECE and not all(map(installed, readers)):
        raise StudyError(
            f"The tokenizer in {folder} is a {present[0]} alone, which needs two more packages; "
            "run 'pip install sentencepiece protobuf'."
        )
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # each tokenizer library raises its own kinds
        raise StudyError(
            f"The tokenizer in {folder} cannot be loaded: {one_line(error)}."
        ) from error


def load_processor(folder: Path):
    """The checkpoint's image processor settings, by its Pillow class (no torchvision needed)."""
    try:
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise StudyError(
            f"{folder} has no usable preprocessor_config.json or processor_config.json, so nobody "
            f"knows how its images are prepared: {one_line(error)}."
        ) from error


def load_template(folder: Path, tokenizer) -> str | None:
    """The chat template: the processor's own first, then the tokenizer's; None if there is none."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        if (folder / name).is_file():
            template = read_json(folder / name, "").get("chat_template")
            if template:
                return template
    found = tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found


def one_line(error: Exception) -> str:
    """The first line of an error message, without its full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
