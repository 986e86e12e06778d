"""IIA: against a plain double loop over attention written out, and by hand."""

import importlib
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
import white_box
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from white_box import photo

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain
from lvlm_study.heatmaps.iia import iia, pairs, roll
from lvlm_study.heatmaps.token_maps import paint
from lvlm_study.models.planted import planted, planted_scene

module = importlib.import_module("lvlm_study.heatmaps.iia")
QUESTION = "What is this?"
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
    assert len(pairs(5, "both")) == 36


def test_roll_by_hand():
    # below: the second row passes 1 of 2 parts to the first; above: 3 of 4 parts
    below, above = (torch.tensor([[0.0, 0.0], [x, 0.0]]) for x in (1.0, 3.0))
    start = torch.tensor([0.0, 1.0])
    # above: (3/4, 1/4); below hands half of the second part down: (3/4 + 1/8, 1/8)
    assert roll(start, [below, above]).tolist() == [0.875, 0.125]
    assert roll(start, [torch.zeros(2, 2)] * 3).tolist() == [0, 1]


@pytest.mark.parametrize("family", ["llava", "llava_onevision"])
def test_one_token_is_drawn_where_it_looks(adapters, family, monkeypatch):
    """All relevance from the answer's rows into one visual token: the map is that token's box."""
    target = real_target(adapters(family), (56, 84))
    bound = target.bound
    boxes, token = bound.token_boxes, 6
    column = int(bound.image_span.nonzero()[token])

    def planted_products(target, modules, points, batch):
        first, n = bound.prompt_ids.shape[1] - 1, bound.prompt_ids.shape[1] + 1
        kept = [torch.zeros(n, n, dtype=torch.float64) for _ in modules]
        kept[-1][first:, column] = 1.0
        return kept

    monkeypatch.setattr(module, "mean_products", planted_products)
    found = iia(target)
    x0, y0, x1, y1 = boxes[token].tolist()
    inside = torch.zeros(56, 84, dtype=torch.bool)
    inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    assert found[inside].min() >= 0 and found[inside].max() > 0
    assert found[~inside].abs().max() == 0


@pytest.mark.parametrize("path,passes", [("both", 36), ("input", 6), ("attention", 6)])
def test_cost(tiny_llava, path, passes):
    cost = explain(tiny_llava, photo(), QUESTION, method="iia", tokens="all", path=path).cost
    assert (cost.forward, cost.backward) == (passes, passes)


def test_same_bytes_twice_and_batch_size_changes_nothing(tiny_next):
    target = real_target(tiny_next)
    once, twice, other = (iia(target, steps=2, batch=b) for b in (9, 9, 2))
    assert once.numpy().tobytes() == twice.numpy().tobytes()
    assert (once - other).abs().max() <= 1e-5 * once.abs().max()


def test_hooks_and_kernels_are_put_back(tiny_llava):
    target = real_target(tiny_llava)
    before = target.score(target.image)
    usual = tiny_llava.model.config._attn_implementation
    iia(target, steps=1)
    assert tiny_llava.model.config._attn_implementation == usual
    assert torch.equal(target.score(target.image), before)


def test_nothing_beyond_a_centre_crop(tiny_llava):
    found = iia(real_target(tiny_llava, (28, 56)), steps=1)
    assert found[:, :14].abs().max() == 0 and found[:, 42:].abs().max() == 0
    assert found[:, 14:42].min() > 0


@pytest.mark.parametrize("family", white_box.FAMILIES)
def test_every_family(adapters, family):
    model = white_box.adapter_of(adapters, family)
    found = iia(real_target(model, (45, 61)), steps=1)
    assert found.shape == (45, 61) and found.isfinite().all()
    assert found.min() >= 0 and found.std() > 0


def test_a_reader_without_attention_is_refused():
    with pytest.raises(StudyError, match="attention"):
        explain(planted("object"), planted_scene((48, 64)), "?", method="iia")


@pytest.mark.parametrize("options", [{"steps": 0}, {"path": "sideways"}])
def test_bad_options(tiny_llava, options):
    with pytest.raises(StudyError, match="at least 1 step and a path of"):
        iia(real_target(tiny_llava), **options)


def test_a_layer_without_output_projection_is_refused():
    with pytest.raises(StudyError, match="o_proj"):
        module.out_projection(torch.nn.Linear(2, 2))
