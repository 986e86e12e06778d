"""What the tests of white-box methods share: a target on any tiny family, and models with one eye.

`target_for(adapters, family)` gives five answer tokens of which some are crucial, without asking
the model for an answer.
"""

import test_cambrian_adapter
import test_mini_gemini_adapter
import tiny
import torch

from lvlm_study.answers import Target
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
