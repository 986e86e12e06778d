"""IIA: against a plain double loop over attention written out, and by hand."""

import importlib
from contextlib import contextmanager
from functools import partial

import pytest
import torch
import white_box
from refusals import refuses
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from lvlm_study.heatmaps.iia import iia, pairs, roll
from lvlm_study.heatmaps.token_maps import paint

module = importlib.import_module("lvlm_study.heatmaps.iia")
real_target = partial(white_box.real_target, tokens=2)


class ByHand:
    """Attention written out; the last layer's weights are `share` times what they were, a given.

    `weights` are those of the layers asked for, each a leaf or a node of the graph.
    """

    def __init__(self, layers):
        self.layers, self.share, self.weights = layers, 1.0, {}

    def __call__(self, module, query, key, value, attention_mask=None, scaling=None, **kwargs):
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = scores if attention_mask is None else scores + attention_mask
        weights = scores.softmax(-1)
        if module is self.layers[-1]:
            weights = (self.share * weights).detach().requires_grad_()
        if module in self.layers:
            self.weights[module] = weights
        return (weights @ value).transpose(1, 2), weights


@contextmanager
def by_hand(model):
    layers = [layer.self_attn for layer in model.get_decoder().layers]
    found, usual = ByHand(layers), model.config._attn_implementation
    AttentionInterface.register("by_hand", lambda *args, **kwargs: found(*args, **kwargs))
    AttentionMaskInterface.register("by_hand", eager_mask)
    model.set_attn_implementation("by_hand")
    try:
        yield found
    finally:
        model.set_attn_implementation(usual)


def plain_map(target, points):
    """Barkan et al., as released: whole matrices, one pass at a time, then rollout of their means.

    The last layer's attention is a given, share x A: autograd meets no query and no key there.
    """
    bound, ids = target.bound, target.answer.token_ids
    total = 0
    with by_hand(bound.adapter.model) as attention:
        for share, attention.share in points:
            x = target.baseline + share * (target.image - target.baseline)
            logits = bound.run(x.requires_grad_(), ids).logits.float().log_softmax(-1)[0]
            score = sum(logits[t, i] for t, i in enumerate(ids) if target.crucial[t])
            matrices = [attention.weights[layer] for layer in attention.layers]
            gradients = torch.autograd.grad(score, matrices)
            found = [
                (a * g).clamp(min=0)[0].mean(0) for a, g in zip(matrices, gradients, strict=True)
            ]
            total = total + torch.stack(found).detach() / len(points)  # (layers, S, S)
    product = torch.eye(total.shape[-1])
    for layer in total:
        mixed = layer + torch.eye(len(product))
        product = mixed / mixed.sum(1, keepdim=True) @ product
    rows = bound.prompt_ids.shape[1] - 1 + target.crucial.nonzero()[:, 0]
    span = bound.image_span.nonzero()[:, 0]
    return paint(bound, product[rows].sum(0)[span], amount=True)


@pytest.mark.parametrize("path", ["both", "input", "attention"])
@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_map_is_that_of_the_plain_loop(adapters, family, path):
    target = real_target(adapters(family))
    expected = plain_map(target, pairs(2, path))
    found = iia(target, steps=2, path=path)
    assert expected.max() > 0
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("family", white_box.FAMILIES)
def test_the_last_layers_attention_is_held_in_every_family(adapters, family):
    target = real_target(white_box.adapter_of(adapters, family), (45, 61))
    expected = plain_map(target, pairs(1, "both"))
    found = iia(target, steps=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)


def test_points_by_hand():
    assert pairs(1, "both") == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert pairs(2, "input") == [(0, 1), (0.5, 1), (1, 1)]
    assert pairs(2, "attention") == [(1, 0), (1, 0.5), (1, 1)]
    assert [len(pairs(5, path)) for path in ("both", "input", "attention")] == [36, 6, 6]


def test_roll_by_hand():
    # below: the second row passes 1 of 2 parts to the first; above: 3 of 4 parts
    below, above = (torch.tensor([[0.0, 0.0], [x, 0.0]]) for x in (1.0, 3.0))
    start = torch.tensor([0.0, 1.0])
    # above: (3/4, 1/4); below hands half of the second part down: (3/4 + 1/8, 1/8)
    assert roll(start, [below, above]).tolist() == [0.875, 0.125]
    assert roll(start, [torch.zeros(2, 2)] * 3).tolist() == [0, 1]


def test_a_layer_without_output_projection_is_refused():
    refuses("o_proj", module.out_projection, torch.nn.Linear(2, 2))
