"""The paper's own set-up: how its released code asks a model, where the checkpoint says otherwise.

The code (github.com/bytedance/LVLM_Interpretation: main.py, utils.py, args.py) runs the models'
original repositories, whose templates and padding the conversions on the hub did not keep. It lets
an answer have 1,024 tokens, writes a system turn before every question, pads for LLaVA-1.5, and
chooses the explained tokens by numbers of Llama's vocabulary, whatever the model's own is.
"""

import copy
import warnings
from dataclasses import dataclass

from ..errors import unknown
from .base import Adapter
from .splice import VICUNA

CHATML = (  # LLaVA-NeXT's conv_qwen
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n"
)
LONGEST = 1024  # new tokens of an answer
# In Llama's vocabulary: tab, line break, "▁", ". , ▁, ▁. - ) (", the and of a an this that is with.
EXCLUDED_IDS = frozenset(
    (12, 13, 29871, 29889, 29892, 1919, 869, 29899, 29897, 29898)
    + (278, 322, 310, 263, 385, 445, 393, 338, 411)
)
SETUPS = ("hub", "paper")


@dataclass(frozen=True)
class Setup:
    """What the paper's code does otherwise than a checkpoint's files say.

    `prompt` with {image} and {question}, None where the family's own is the same; `pads`: the
    picture is padded to a square instead of cropped.
    """

    prompt: str | None = None
    pads: bool = False


PAPER = {  # by model_type; Cambrian and Mini-Gemini are asked as released anyway
    "llava": Setup(VICUNA, pads=True),
    "llava_onevision": Setup(CHATML),
    "cambrian_llama": Setup(),
    "cambrian_phi3": Setup(),
    "mgm": Setup(),
}


def check(setup: str | None) -> None:
    """Raise StudyError for a set-up that does not exist."""
    if not (setup is None or isinstance(setup, str) and setup in SETUPS):
        raise unknown("setup", setup, SETUPS)


def use(model: Adapter, setup: str | None) -> Adapter:
    """The model, asked as `setup` says: "paper", or "hub" (None), the checkpoint's own defaults.

    A model that the paper does not ask keeps its defaults, with a warning.
    """
    check(setup)
    if setup != "paper":
        return model
    found = PAPER.get(model.model.config.model_type)
    if found is None or model.name.startswith("mini/"):
        told = f"The paper asks no {model.name}; it is asked as its own files say."
        warnings.warn(told, stacklevel=3)
        return model
    model.setup, model.max_new_tokens, model.excluded_ids = setup, LONGEST, EXCLUDED_IDS
    if found.prompt is not None:
        model.template, model.fallback, model.apart = None, found.prompt, True
    if found.pads:
        model.processor = copy.copy(model.processor)
        model.processor.do_pad = True
    return model
