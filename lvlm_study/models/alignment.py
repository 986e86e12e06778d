"""W, the layer that lets a language model read a detector's tokens, each by itself.

Three shapes of it were compared by Giulivi and Boracchi (arXiv 2405.14612, supplement, section 1):
a deep multi-layer perceptron, one shaped like LLaVA's own connector, and a transformer over the
whole sequence.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import StudyError, unknown
from . import checkpoint

VARIANTS = ("deep", "llava", "transformer")
LINEAR_LAYERS = {4: "deep", 2: "llava"}  # how many linear maps a published W has
WEIGHTS = "model.safetensors"
LANGUAGE = "language."  # before the names of a language model's own tensors in that file


class Alignment(nn.Module):
    """Detector tokens (B, N, `width`) to the language model's visual tokens (B, N, `out`).

    "deep": three hidden layers of `hidden` units with ReLU (8192 in the paper); "llava": one
    hidden layer of `out` units with GELU; "transformer": two layers that see the whole sequence.
    """

    def __init__(self, variant: str, width: int, out: int, hidden: int = 8192, heads: int = 8):
        super().__init__()
        if variant not in VARIANTS:
            raise unknown("kind of alignment", variant, VARIANTS)
        self.settings = dict(variant=variant, width=width, out=out, hidden=hidden, heads=heads)
        self.variant = variant
        self.layers = nn.Sequential(*_layers(**self.settings))

    def forward(self, tokens: Tensor) -> Tensor:
        """The detector's patch tokens (B, N, width) as visual tokens (B, N, out)."""
        return self.layers(tokens)


def _layers(variant: str, width: int, out: int, hidden: int, heads: int) -> list[nn.Module]:
    if variant == "llava":
        return [nn.Linear(width, out), nn.GELU(), nn.Linear(out, out)]
    if variant == "deep":
        steps = [width, hidden, hidden, hidden]
        inner = [[nn.Linear(a, b), nn.ReLU()] for a, b in zip(steps, steps[1:], strict=False)]
        return [*sum(inner, []), nn.Linear(hidden, out)]
    layer = nn.TransformerEncoderLayer(
        out, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True
    )
    whole = nn.TransformerEncoder(layer, 2, nn.LayerNorm(out), enable_nested_tensor=False)
    return [nn.Linear(width, out), whole, nn.Linear(out, out)]


def save_alignment(
    alignment: Alignment, folder: Path, language: dict[str, Tensor] | None = None, **more
) -> None:
    """Write config.json (shape of W and what else `more` says) and the weights into `folder`.

    `language`: tensors of a language model that was trained on, kept in the same file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    both = alignment.state_dict() | {LANGUAGE + k: v for k, v in (language or {}).items()}
    state = {k: v.detach().contiguous() for k, v in both.items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    found = {"model_type": "owlvit_llava", **more, "alignment": alignment.settings}
    (folder / "config.json").write_text(json.dumps(found, indent=1) + "\n")


def load_alignment(folder: Path, settings: dict) -> Alignment:
    """W with the weights in `folder`, in float32. Raises StudyError if they do not fit."""
    try:
        alignment = Alignment(**settings)
        state = load_file(folder / WEIGHTS)
        alignment.load_state_dict({k: v for k, v in state.items() if not k.startswith(LANGUAGE)})
    except (TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise StudyError(
            f"The alignment in {folder} cannot be loaded: {checkpoint.one_line(error)}; its "
            f"{WEIGHTS} and the shape in config.json must belong together."
        ) from error
    return alignment.float().eval().requires_grad_(False)


def load_language(folder: Path) -> dict[str, Tensor]:
    """The language model's tensors that `folder` brings along; none in most joint models."""
    state = load_file(folder / WEIGHTS)
    return {k.removeprefix(LANGUAGE): v for k, v in state.items() if k.startswith(LANGUAGE)}


def read_published(path: Path) -> Alignment:
    """W from a published `.pth` or a safetensors file, whatever its tensors are called.

    Only tensors are unpickled (`weights_only=True`), so the file cannot run code. The linear maps
    are taken in the order of the file: four make the deep kind, two LLaVA's.
    """
    state = read_tensors(path)
    weights = [v for v in state.values() if v.ndim == 2]
    biases = [v for v in state.values() if v.ndim == 1]
    _check_chain(path, weights, biases)
    width, out = weights[0].shape[1], weights[-1].shape[0]
    variant = LINEAR_LAYERS[len(weights)]
    alignment = Alignment(variant, width, out, weights[0].shape[0])
    linear = [m for m in alignment.layers if isinstance(m, nn.Linear)]
    for layer, weight, bias in zip(linear, weights, biases, strict=True):
        if layer.weight.shape != weight.shape:
            raise StudyError(
                f"{path} has a linear map of {tuple(weight.shape)} where the {variant} alignment "
                f"has {tuple(layer.weight.shape)}; it is not a file of that kind."
            )
        layer.weight.data, layer.bias.data = weight.float(), bias.float()
    return alignment.eval().requires_grad_(False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a pickle that holds nothing else."""
    if not path.is_file():
        raise StudyError(f"There is no file {path}; give a file of weights.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, EOFError, RuntimeError, ... by what is wrong
        raise StudyError(
            f"{path} cannot be read as a file of tensors alone ({checkpoint.one_line(error)}); "
            "save its state_dict() again."
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    if not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise StudyError(f"{path} does not hold a state_dict of tensors; save one there.")
    return found


def _check_chain(path: Path, weights: list[Tensor], biases: list[Tensor]) -> None:
    chained = all(a.shape[0] == b.shape[1] for a, b in zip(weights, weights[1:], strict=False))
    paired = [w.shape[0] for w in weights] == [b.shape[0] for b in biases]
    if len(weights) not in LINEAR_LAYERS or not chained or not paired:
        raise StudyError(
            f"{path} holds matrices of {[tuple(w.shape) for w in weights]}, which are neither the "
            "four linear maps of the deep alignment nor the two of LLaVA's shape."
        )
