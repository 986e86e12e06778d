"""What made a number: weights, package versions, commit, time."""

import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import StudyError

PACKAGES = ("lvlm-study", "torch", "transformers", "tokenizers", "numpy", "pillow", "scipy")


@cache
def versions() -> dict[str, str]:
    """Versions of python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(model) -> dict[str, str | None]:
    """What a model's numbers were computed on and with: device, attention kernels, number format.

    `attention` names the kernel of every part, "sdpa" where all have the same; None without any.
    """
    import torch  # slow to import

    from ..models.alone import configs_of

    network, cuda = model.model, model.device.type == "cuda"
    kernels = {getattr(config, "_attn_implementation", None) for config in configs_of(network)}
    name = torch.cuda.get_device_name(model.device) if cuda else platform.processor()
    return {
        "device": str(model.device),
        "device_name": name or platform.machine(),
        "cuda": torch.version.cuda if cuda else None,
        "attention": ", ".join(sorted(filter(None, kernels))) or None,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


@cache
def commit() -> str:
    """The checked-out commit of this repository, "+" behind it if files were changed, or ""."""
    here = Path(__file__).resolve().parents[1]
    try:
        head = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", str(here))
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def weights_checksum(model) -> str:
    """sha256 of a model's weights: of its safetensors files in order of their names.

    One file gives exactly what `sha256sum model.safetensors` prints, and so does a checkpoint that
    shares weights with another one and stands for such a file. A model without files (a planted
    reader) is known by the bytes of its parameters and buffers. A released checkpoint whose vision
    towers lie in repositories of their own is known by those of the towers too.
    """
    from torch import uint8  # slow to import

    from ..models.weights import whole

    digest, files = hashlib.sha256(), weight_files(model.name)
    together = whole(files[-1].parent) if files else None
    if together is not None:
        return hashlib.sha256(together).hexdigest()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    alone = digest.digest() == hashlib.sha256().digest()
    if alone or getattr(model, "released", False):
        for key, value in sorted(model.model.state_dict().items()):
            if alone or "tower" in key:
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(uint8).numpy())
    return digest.hexdigest()


def weight_files(name: str) -> list[Path]:
    """The safetensors files behind a model name; none when it has no folder."""
    from ..models.registry import find_folder  # slow to import
    from ..models.weights import weight_files

    try:
        return weight_files(find_folder(name))
    except StudyError:
        return []


def _git(folder: Path, *words: str) -> str:
    run = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    )
    return run.stdout.strip()
