"""How many operations one training step of the zoo starts, to estimate what a GPU would need.

    python tools/training_ops.py [MICROSECONDS]

The zoo's models are so small that a GPU waits for operations to be started and not for their
arithmetic. So the operations of a step are counted (views, which start nothing, left out) and
multiplied by the time that starting one takes, an assumption (default: 10 microseconds).
"""

import sys

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer

from lvlm_study.paths import data_dir
from lvlm_study.scenes import scenes
from lvlm_study.zoo.language import SymbolModel
from lvlm_study.zoo.texts import answer_loss, captions, encode, short_texts
from lvlm_study.zoo.train import Budget
from lvlm_study.zoo.vision import TOWERS, DenseReader, dense_loss

VIEWS = "view transpose t expand unsqueeze slice select permute detach alias _unsafe_view split"


class Count(TorchDispatchMode):
    """Counts what is started while it is open."""

    started = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket._qualified_op_name.removeprefix("aten::")
        self.started += name not in VIEWS.split()
        return function(*args, **(kwargs or {}))


def count(loss) -> int:
    """Operations of a loss and its gradient, as in training."""
    with Count() as found:
        with torch.autocast("cpu", torch.bfloat16):
            value = loss()
        value.backward()
    return found.started


def tower_step() -> int:
    """A step of the CLIP tower; how many scenes are in it does not matter."""
    reader = DenseReader(TOWERS["clip"].make(), TOWERS["clip"])
    labels, extra = torch.ones(2, 64, 4, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long)
    return count(lambda: dense_loss(reader(torch.rand(2, 3, 112, 112)), labels, extra))


def language_step() -> int:
    """A step of the language model: three lengths of text, the picture's symbols before them."""
    tokenizer = AutoTokenizer.from_pretrained(data_dir() / "zoo" / "llava-1.5")
    net, rng = SymbolModel("l", tokenizer), np.random.default_rng(0)
    some = [scene for _, scene in zip(range(2), scenes.stream(1000), strict=False)]
    texts = encode([short_texts(s, rng, 12) + captions(s, rng, 1) for s in some], tokenizer)
    labels, extra = torch.zeros(2, 8, 8, 4, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long)
    return count(
        lambda: answer_loss(net.lm.model, net.lm.lm_head, net.prefix(labels, extra), texts)
    )


def main(microseconds: float = 10.0) -> None:
    plan, tower, language = Budget(), tower_step(), language_step()
    started = plan.tower * tower + (plan.language + plan.member + plan.second) * language
    print(f"a step of the tower starts {tower} operations, one of the language model {language}")
    print(
        f"mini/llava-1.5: {started / 1e6:.1f} million, {started * microseconds / 6e7:.1f} minutes"
    )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
