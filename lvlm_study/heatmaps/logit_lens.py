"""Logit lens: what each visual token would say, read off the language model at any layer.

The hidden state of a visual token goes through the final norm and the output matrix, as if the
layer were the last. No gradient, no answer: the map knows the explained word by its row of that
matrix alone. It is what TAM starts from, and the baseline that it must beat.
Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; at visual tokens of LLaVA, Neo et
al. 2025, "Towards Interpreting Visual Information Processing in Vision-Language Models".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..answers import Target
from ..errors import StudyError
from .token_maps import paint
from .watch import checked, require_inside


@torch.no_grad()
def logit_lens(target: Target, *, seed: int = 0, layer: int = -1) -> Tensor:
    """Saliency (H, W), signed: logit of the crucial tokens at each visual token, their mean.

    Counted from the mean logit of the whole vocabulary at that token, since a constant added to
    all logits says nothing; with a contrast, less that word's. `layer` is the decoder layer that is
    read (negative: from the top). Earlier words of the answer play no part. Deterministic. One
    forward pass over the prompt; of its logits only the explained columns are worked out.
    """
    bound = target.bound
    require_inside(bound, "logit_lens")
    head = bound.adapter.model.get_output_embeddings()
    words = target.answer.token_ids[target.crucial.cpu()].tolist()
    against = [] if target.contrast is None else [target.contrast]
    at = torch.tensor(words + against, device=head.weight.device)
    found = lens_logits(bound, target.image, at, layer)  # (N, words, and the contrast)
    return paint(bound, found[:, : len(words)].mean(1) - found[:, len(words) :].sum(1))


def lens_logits(bound, image: Tensor, words: Tensor, layer: int) -> Tensor:
    """Logits (N, W) of `words` (W,) at every visual token after a layer, less the mean of all."""
    model = bound.adapter.model
    hidden, head = states(bound, image, layer), model.get_output_embeddings()
    weight = head.weight[words] - head.weight.mean(0)
    bias = None if head.bias is None else (head.bias[words] - head.bias.mean()).float()
    return F.linear(hidden.to(head.weight.device).float(), weight.float(), bias).cpu()


def states(bound, image: Tensor, layer: int) -> Tensor:
    """Hidden states (N, D) of the visual tokens after one decoder layer, through the final norm."""
    decoder, kept = bound.adapter.model.get_decoder(), []
    layers, norm = getattr(decoder, "layers", ()), getattr(decoder, "norm", None)
    if norm is None:
        raise StudyError(
            f"logit_lens found no final norm in the language model of {bound.adapter.name}; choose "
            "another method, as tam."
        )
    at = bound.image_span.nonzero()[:, 0]
    hook = layers[checked(layer, len(layers), "logit_lens")].register_forward_hook(
        lambda module, inputs, out: kept.append((out[0] if isinstance(out, tuple) else out)[0])
    )
    try:
        bound.log_probs(
            image, torch.zeros(1, dtype=torch.long)
        )  # any word: the prompt alone is run
    finally:
        hook.remove()
    return norm(kept[-1][at.to(kept[-1].device)])
