"""A real LLaVA or LLaVA-NeXT whose evidence is known, for methods that look inside a network.

Random checkpoints of `tiny` get weights set by hand, so that one word is said because red is seen
and for no other reason:

- the encoder's patch convolution writes the mean redness of its patch to channel RED; no encoder
  block adds anything; the projector passes RED on;
- the decoder's first layer makes RED stronger, token by token (no attention);
- in its last layer every token attends to red ones and takes what it finds over to SAID, the more
  the more red there is;
- the word WORD has a logit that grows with SAID, and at visual tokens (SEEN) with RED; every other
  word has 0.

CONST and STEADY hold constants that keep the norms from dividing by the evidence itself.
"""

import tiny
import torch
from torch import nn

from lvlm_study.answers import Target
from lvlm_study.models import load_model

RED, CONST, STEADY, SEEN, SAID = 0, 1, 2, 3, 5  # channels
LEVEL = 3.0  # of the constants
WORD, IDS, PLACE = 60, (40, 50, 60, 70, 80), 2  # the answer, and where the word stands in it
REDNESS = (1.0, -0.5, -0.5)  # 1 on pure red, 0 on any grey
SLOW = 3  # of the 4 rotary frequencies of a head of 8: 0.001 a position, so places do not matter
HEADS, WIDE = 4, 8


def planted_network(family: str, folder):
    """The adapter of a planted checkpoint of `family` ("llava" or "llava_next")."""
    path = tiny.tiny_checkpoint(family, folder)
    adapter = load_model(path)
    with torch.no_grad():
        for name, weight in adapter.model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            weight.copy_(torch.ones_like(weight) if norm else torch.zeros_like(weight))
        _plant_vision(adapter)
        _plant_decoder(adapter.model)
    return adapter


def _plant_vision(adapter) -> None:
    tower, projector = adapter.model.model.vision_tower, adapter.model.model.multi_modal_projector
    embeddings = next(m for m in tower.modules() if hasattr(m, "patch_embedding"))
    conv = embeddings.patch_embedding.weight  # (32, 3, p, p)
    std, mean = (torch.tensor(getattr(adapter.processor, f"image_{x}")) for x in ("std", "mean"))
    red = torch.tensor(REDNESS)
    conv[RED] = (red * std)[:, None, None] / conv.shape[-1] ** 2
    places = embeddings.position_embedding.weight  # (1 + n, 32)
    places[:, CONST], places[:, STEADY] = LEVEL, -LEVEL
    places[1:, RED] = red @ mean  # so that grey is 0
    first, last = projector.linear_1, projector.linear_2
    first.weight[RED, RED], first.bias[CONST] = 4.0, LEVEL
    last.weight[RED, RED] = 1.0
    last.weight[CONST, CONST] = last.weight[SEEN, CONST] = 1.0
    newline = getattr(adapter.model.model, "image_newline", None)
    if newline is not None:
        newline[CONST] = LEVEL


def _plant_decoder(model: nn.Module) -> None:
    decoder = model.get_decoder()
    decoder.embed_tokens.weight[:, CONST] = LEVEL
    early, late = decoder.layers
    early.mlp.gate_proj.weight[0, CONST] = 0.5
    early.mlp.up_proj.weight[0, RED] = 0.5
    early.mlp.down_proj.weight[RED, 0] = 0.5
    attention = late.self_attn
    for head in range(HEADS):
        attention.q_proj.weight[head * WIDE + SLOW, CONST] = 1.0
        attention.o_proj.weight[SAID, head * WIDE] = 0.5
    for head in range(attention.k_proj.weight.shape[0] // WIDE):
        attention.k_proj.weight[head * WIDE + SLOW, RED] = 0.15
        attention.v_proj.weight[head * WIDE, RED] = 1.0
    says = model.get_output_embeddings().weight[WORD]
    says[SAID], says[RED], says[SEEN] = 2.0, 6.0, -2.0


def red_corner(size, corner: str) -> torch.Tensor:
    """Bool (H, W): the quarter of a picture named "left upper", "right lower", .."""
    inside = torch.zeros(size, dtype=torch.bool)
    rows, columns = size[0] // 2, size[1] // 2
    top, left = "lower" in corner, "right" in corner
    inside[top * rows : (1 + top) * rows, left * columns : (1 + left) * columns] = True
    return inside


def target_on(adapter, inside: torch.Tensor, seed: int = 0) -> Target:
    """WORD, explained on grey noise that is red `inside` and green in the opposite quarter.

    The baseline is grey. Green has the edges of red and none of its evidence.
    """
    size = tuple(inside.shape)
    bound = adapter.bind(size, "What is this?")
    noise = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed))
    image = (0.35 + 0.3 * noise).repeat(1, 3, 1, 1)
    image[..., inside] = torch.tensor([0.9, 0.1, 0.1])[:, None]
    image[..., inside.flip(0, 1)] = torch.tensor([0.1, 0.9, 0.1])[:, None]
    crucial = torch.zeros(len(IDS), dtype=torch.bool)
    crucial[PLACE] = True
    answer = adapter.read(bound, image, torch.tensor(IDS))
    return Target(bound, image, torch.full_like(image, 0.5), answer, crucial)
