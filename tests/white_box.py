"""What the tests of methods share: a target on any tiny family, our ports included.

`target_for(adapters, family)` gives five answer tokens of which some are crucial, without asking
the model for an answer; `real_target(model)` asks, and explains the whole answer.
"""

import numpy as np
import test_cambrian_adapter
import test_mini_gemini_adapter
import tiny
import torch

from lvlm_study.answers import Target, make_target
from lvlm_study.models.cambrian import CambrianPhi3ForCausalLM

PORTS = {
    "cambrian": test_cambrian_adapter.adapter,
    "cambrian_phi3": lambda: test_cambrian_adapter.adapter(CambrianPhi3ForCausalLM),
    "mini_gemini": test_mini_gemini_adapter.adapter,
    "mini_gemini_hd": lambda: test_mini_gemini_adapter.adapter(hd=True),
}
FAMILIES = [*tiny.FAMILIES, *PORTS]
SIZE = (61, 140)
IDS = (40, 50, 60, 70, 80)
_ports = {}


def adapter_of(adapters, family):
    """The adapter of any family, loaded once."""
    if family not in PORTS:
        return adapters(family)
    if family not in _ports:
        _ports[family] = PORTS[family]()
    return _ports[family]


def photo(size=(50, 40), seed=0) -> np.ndarray:
    """A picture of noise, uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def real_target(model, size=(50, 40), tokens=3, question="What is this?") -> Target:
    """What the model itself says about `photo`, at most `tokens` tokens, all of them crucial."""
    image = photo(size)
    answer = model.answer(image, question, max_new_tokens=tokens)
    return make_target(model, image, question, answer=answer, tokens="all")[0]


def target_of(adapter, crucial=(1, 3), size=SIZE, seed=0, ids=IDS) -> Target:
    """A target on a noise picture; `crucial` are places in the answer."""
    bound = adapter.bind(size, "What is this?")
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    answer = adapter.read(bound, image, torch.tensor(ids))
    chosen = torch.zeros(len(ids), dtype=torch.bool)
    chosen[list(crucial)] = True
    return Target(bound, image, torch.full_like(image, 0.5), answer, chosen)


def target_for(adapters, family, **options) -> Target:
    return target_of(adapter_of(adapters, family), **options)
