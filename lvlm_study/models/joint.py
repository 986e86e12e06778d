"""The joint model: one encoder, a detector's, read by the detector's heads and by LLaVA at once.

OWL-ViT's tokens before its last layer go two ways: through the last layer to boxes and class
scores, and through the alignment W to LLaVA's language model, in place of its own vision tower and
connector (Giulivi and Boracchi, arXiv 2405.14612). What the detector sees is then what the
language model was given to see.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from ..errors import StudyError
from ..pixels.preprocess import Size, Spec, filter_name
from . import checkpoint
from .alignment import Alignment, load_alignment, load_language, read_published, save_alignment
from .base import Bound
from .llava import Llava, edge_pair
from .owl import Detector, load_detector

MARKS = 16  # connector weights kept to recognise the LLaVA that W was made for


class Joint(Llava):
    """LLaVA that sees through OWL-ViT; `detector` is the other half, `names` its usual queries.

    The parts are put together from unchanged transformers classes: the model's `vision_tower` is
    OWL-ViT's encoder and its `multi_modal_projector` is W, so every method that looks inside a
    LLaVA works here too. Detector and W compute in float32, whatever the language model does:
    their gradients are compared, and half precision has none to spare.
    """

    def __init__(
        self,
        name: str,
        model: LlavaForConditionalGeneration,
        tokenizer,
        template: str | None,
        detector: Detector,
        alignment: Alignment,
        names: Sequence[str] = (),
    ):
        check_parts(name, model, detector, alignment)
        self.detector, self.names = detector, tuple(names)
        model.model.vision_tower = detector.vision
        model.model.multi_modal_projector = alignment.to(model.device)
        model.config.vision_config = detector.model.config.vision_config
        model.config.vision_feature_layer = -2
        model.config.vision_feature_select_strategy = "default"
        super().__init__(name, model, tokenizer, detector.processor, template)

    @property
    def alignment(self) -> nn.Module:
        """W: the detector's patch tokens (B, N, C) to visual tokens (B, N, D)."""
        return self.model.model.multi_modal_projector

    def check(self) -> None:
        """Raise StudyError if the processor makes views of another size than the encoder reads."""
        if self.view_size() != self.detector.view_size:
            raise StudyError(
                f"The processor of {self.detector.name} makes {self.view_size()} views but its "
                f"encoder reads {self.detector.view_size}; preprocessor_config.json and "
                "config.json do not belong together."
            )

    def view_size(self) -> Size:
        """Height and width in pixels of the view that the processor makes."""
        return edge_pair(self.processor.size)

    def shared(self, bound: Bound, x: Tensor) -> Tensor:
        """The tokens that both halves read, (B, 1 + N, C), class token first."""
        return self.detector.shared(bound.pixels(x)["pixel_values"])

    def logits_from(self, bound: Bound, shared: Tensor, answer_ids: Tensor) -> Tensor:
        """Scores (B, A, V) of the answer from shared tokens, differentiable, in float32."""
        inputs = {"mm_encoder_outputs": self.wrap(self.alignment(shared[:, 1:]))}
        return bound._forward(inputs, len(shared), answer_ids, {}).logits.float()

    @torch.no_grad()
    def generate_from(self, bound: Bound, shared: Tensor, max_new_tokens: int = 64) -> Tensor:
        """The greedy answer (A,) to shared tokens (1, 1 + N, C) instead of a picture.

        Each token is the likeliest under `logits_from`, so the two cannot disagree.
        """
        ids = torch.zeros(0, dtype=torch.int64, device=self.device)
        for _ in range(max_new_tokens):
            ahead = torch.cat([ids, ids.new_zeros(1)])  # the last id is predicted, never read
            new = self.logits_from(bound, shared, ahead)[0, -1].argmax()
            if int(new) in self._eos:
                break
            ids = torch.cat([ids, new[None]])
        return ids

    def _class_box(self, size: Size) -> Tensor:
        return torch.tensor([[0.0, 0.0, size[1], size[0]]])

    def _spec(self, size: Size) -> Spec:
        """Squashed, never cropped or padded: boxes are shares of the whole picture."""
        return Spec(self.view_size(), filter_name(self.processor.resample))


def check_parts(name: str, model: nn.Module, detector: Detector, alignment: Alignment) -> None:
    """Raise StudyError unless detector, W and language model fit together."""
    vision = model.config.vision_config
    grid = vision.image_size // vision.patch_size
    if grid != detector.side:
        raise StudyError(
            f"{detector.name} sees {detector.side} x {detector.side} patches but the LLaVA of "
            f"{name} was trained on {grid} x {grid}; the two grids must agree."
        )
    have = alignment.settings["width"], alignment.settings["out"]
    want = detector.model.config.vision_config.hidden_size, model.config.text_config.hidden_size
    if have != want:
        raise StudyError(
            f"The alignment of {name} maps {have[0]} to {have[1]} numbers a token, but its "
            f"detector gives {want[0]} and its language model takes {want[1]}."
        )


def marks_of(model: LlavaForConditionalGeneration) -> list[float]:
    """Some weights of a LLaVA's connector: W speaks for this one and for no other."""
    weight = model.model.multi_modal_projector.linear_2.weight.detach().flatten().float()
    return weight[:: max(1, len(weight) // MARKS)][:MARKS].tolist()


def load_joint(name: str, folder: Path, find: Callable[[str], Path], dtype, device) -> Joint:
    """Assemble the joint model that `folder`/config.json describes.

    It names a detector and a LLaVA, as folders beside it, zoo names or hub ids (`find` gives their
    folders). Raises StudyError when a part is missing or W was made for other parts.
    """
    config = checkpoint.read_json(folder / "config.json", "a joint model needs it")
    lacking = [key for key in ("owl", "llava", "alignment") if key not in config]
    if lacking:
        raise StudyError(
            f"{folder / 'config.json'} does not say {lacking[0]!r}; make the folder anew with "
            "save_joint."
        )
    owl, llava = (_part(folder, config[key], find) for key in ("owl", "llava"))
    model = checkpoint.load_weights(LlavaForConditionalGeneration, llava, dtype).to(device)
    _check_marks(name, model, config)
    tokenizer = checkpoint.load_tokenizer(llava)
    detector = load_detector(owl, str(config["owl"]), torch.float32, device)
    alignment = load_alignment(folder, config["alignment"])
    _replace_language(name, model, load_language(folder))
    return Joint(
        name,
        model,
        tokenizer,
        checkpoint.load_template(llava, tokenizer),
        detector,
        alignment,
        config.get("names", ()),
    )


def _replace_language(name: str, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put a language model that was trained on into LLaVA; StudyError if it has another shape."""
    if not state:
        return
    try:
        model.model.language_model.load_state_dict(state)
    except RuntimeError as error:
        raise StudyError(
            f"{name} brings a language model of another shape than that of its LLaVA "
            f"({checkpoint.one_line(error)})."
        ) from error


def _part(folder: Path, name: str, find: Callable[[str], Path]) -> Path:
    beside = folder / name
    return beside if beside.is_dir() else find(name)


def _check_marks(name: str, model: LlavaForConditionalGeneration, config: dict) -> None:
    known = config.get("llava_marks")
    if known is None:
        return
    found, known = torch.tensor(marks_of(model)), torch.tensor(known)
    if found.shape != known.shape or not torch.allclose(found, known, atol=1e-3, rtol=1e-2):
        raise StudyError(
            f"{name} was made for another {config['llava']} than the one found here (its connector "
            "has other weights); train the alignment again with lvlm_study.zoo.alignment."
        )


def save_joint(
    folder: Path,
    alignment: Alignment,
    owl: str,
    llava: str,
    names: Sequence[str] = (),
    llava_marks: list[float] | None = None,
    language: dict[str, Tensor] | None = None,
) -> Path:
    """Write a joint model's folder: W, and the names of the two checkpoints it lies between.

    `owl` and `llava` are zoo names, hub ids, or folders inside `folder`; `names` are the queries
    that its detector is asked when nobody says otherwise. `language` replaces the tensors of
    LLaVA's language model, for a model of which that was trained on.
    """
    more = {"owl": owl, "llava": llava, "names": list(names)}
    if llava_marks:
        more["llava_marks"] = llava_marks
    save_alignment(alignment, folder, language, **more)
    return folder


def convert_published(
    weights: Path,
    out: Path,
    owl: str = "google/owlvit-base-patch32",
    llava: str = "llava-hf/llava-1.5-7b-hf",
    names: Sequence[str] = (),
    step: Callable = lambda: None,
) -> Path:
    """A published W (`.pth` or safetensors) to a folder that `load_model` opens; returns it.

    The file is read with `weights_only=True`. An existing `out` is replaced only when W is whole.
    `step` is called when W is read, and when it is written.
    """
    alignment = read_published(Path(weights))
    step()
    beside = out.with_name(out.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    save_joint(beside, alignment, owl, llava, names)
    step()
    shutil.rmtree(out, ignore_errors=True)
    beside.rename(out)
    return out
