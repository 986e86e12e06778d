"""Relative attention and the choice of heads: by hand, against eager attention, and planted."""

import math

import planted_network
import pytest
import torch
from planted_network import HEADS, IDS, PLACE, SLOW, WIDE, red_corner, target_on
from refusals import refuses
from white_box import FAMILIES, SIZE, target_for

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS, heads
from lvlm_study.heatmaps.relative_attention import NEUTRAL, ratio
from lvlm_study.heatmaps.token_maps import paint
from lvlm_study.metrics.plausibility import auc

ASKS = 6  # a channel of the word before the explained one


VIEW = [torch.arange(16).view(4, 4)]


@pytest.mark.parametrize(
    ("at", "entropy"),
    [
        ([0, 1, 4, 5], 0),  # one patch
        ([0, 5, 10, 15], 0),  # corners touch
        ([0, 15], math.log(2)),
        ([0, 3, 12, 15], math.log(4)),
    ],
)
def test_spatial_entropy(at, entropy):
    scores = torch.zeros(16).index_fill(0, torch.tensor(at), 1.0)
    assert heads.spatial_entropy(scores, VIEW) == pytest.approx(entropy, abs=1e-6)


def test_even_attention_points_nowhere():
    assert heads.spatial_entropy(torch.full((16,), 0.1), VIEW) == math.inf


def test_views_are_apart():
    views = [torch.arange(8).view(2, 4), torch.arange(8, 16).view(2, 4)]
    scores = torch.zeros(16).index_fill(0, torch.tensor([4, 8]), 1.0)
    assert heads.spatial_entropy(scores, VIEW) == 0
    assert heads.spatial_entropy(scores, views) == pytest.approx(math.log(2))


def test_heads_that_point_and_look_are_chosen():
    """Of five heads one looks away, two scatter, two point; the elbow keeps those that look."""
    boxes = torch.tensor([[x, y, x + 1.0, y + 1] for y in range(4) for x in range(4)])
    point, scatter = torch.zeros(2, 16)
    point[5], scatter[[0, 3, 12, 15]] = 0.8, 0.2
    maps = torch.stack([scatter, point, point / 40, scatter, point.roll(3)])
    assert heads.localisation_heads(maps, boxes, 2).tolist() == [1, 4]
    assert heads.elbow(torch.tensor([0.0, 0, 0, 0.1, 5])) == pytest.approx(0.1)


def test_ratio_by_hand():
    found = ratio(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.2]))
    assert found.tolist() == pytest.approx([0.5, 1.5])
    assert ratio(torch.ones(2), torch.tensor([0.0, 1]))[0] == pytest.approx(1000)
    refuses("attends to no visual token", ratio, torch.ones(2), torch.zeros(2))


def eager(bound, image, ids, rows):
    """(layers, heads, N): the mean of `rows` of transformers' own weights."""
    found = bound.run(image, ids, output_attentions=True).attentions
    return torch.stack(
        [a[0, :, rows][..., bound.image_span.nonzero()[:, 0]].mean(1) for a in found]
    )


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_it_is_the_quotient_of_two_attentions(adapters, family):
    target = target_for(adapters, family)
    bound, ids = target.bound, target.answer.token_ids
    neutral = bound.adapter.bind(bound.size, NEUTRAL)
    rows = bound.prompt_ids.shape[1] - 1 + target.crucial.nonzero()[:, 0]
    asked = eager(bound, target.image, ids, rows).mean((0, 1))
    last = torch.tensor([neutral.prompt_ids.shape[1] - 1])
    plain = eager(neutral, target.image, ids[:1], last).mean((0, 1))
    expected = paint(bound, (asked / asked.sum()) / (plain / plain.sum()))
    found = METHODS["relative_attention"](target)
    assert found.shape == SIZE
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert found.numpy().tobytes() == METHODS["relative_attention"](target).numpy().tobytes()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["attention", "relative_attention"])
def test_localisation_heads_of_every_family(adapters, family, method):
    target = target_for(adapters, family)
    found = METHODS[method](target, heads="localisation")
    assert found.shape == SIZE and found.min() >= 0 and found.std() > 0
    assert not torch.allclose(found, METHODS[method](target))


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    """Planted networks that attend to red after one word alone, and to the first place always."""
    found = {}
    for family in ("llava", "llava_next"):
        adapter = planted_network.planted_network(family, tmp_path_factory.mktemp(family))
        decoder = adapter.model.get_decoder()
        with torch.no_grad():
            decoder.embed_tokens.weight[IDS[PLACE - 1], ASKS] = planted_network.LEVEL
            for head in range(HEADS):
                query = decoder.layers[-1].self_attn.q_proj.weight[head * WIDE + SLOW]
                query[planted_network.CONST], query[ASKS] = 0.0, 1.0
        found[family] = adapter
    return found


@pytest.mark.parametrize("options", [{}, {"heads": "localisation"}, {"layer": -1}], ids=str)
@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_what_the_question_looks_for_is_found(asking, family, options):
    for corner in ("left upper", "right lower"):
        red = red_corner((56, 56), corner)
        found = METHODS["relative_attention"](target_on(asking[family], red), **options)
        assert red.flatten()[found.argmax()] and auc(found.numpy(), red.numpy()) > 0.95
        assert found[~red].max() < 1 < found[red].min()


def test_what_any_question_looks_at_is_divided_out(tmp_path):
    """The usual planted network looks at red whatever is asked: 1 everywhere."""
    adapter = planted_network.planted_network("llava", tmp_path)
    target = target_on(adapter, red_corner((56, 56), "left upper"))
    assert METHODS["attention"](target).std() > 0.1
    found = METHODS["relative_attention"](target)
    assert torch.allclose(found, torch.ones(56, 56), atol=0.02)


def test_sinks_are_taken_out(asking):
    """Visual tokens with the first token's huge channel get 0; without such a channel none do."""
    target = target_on(asking["llava"], red_corner((56, 56), "left upper"))
    plain, kept = (METHODS["relative_attention"](target, sinks=s) for s in (None, 20.0))
    assert torch.equal(plain, kept)
    bound, span = target.bound, target.bound.image_span.nonzero()[:, 0]
    listener = heads._Looks(bound, [], torch.tensor([0]), 3.0)
    hidden = torch.ones(1, len(bound.image_span), 32)
    hidden[0, [0, int(span[2]), 1], 7] = 100.0  # the first token, a visual one, a word
    hidden[0, int(span[5]), 8] = 100.0  # huge in a channel of its own
    listener.enters(None, (hidden,))
    assert (listener.usual == 0).nonzero()[:, 0].tolist() == [2]


def test_bad_options(adapters):
    target = target_for(adapters, "llava")
    for options in ({"heads": "max"}, {"count": 0}, {"sinks": 0.0}):
        with pytest.raises(StudyError, match="relative_attention takes heads of"):
            METHODS["relative_attention"](target, **options)
    with pytest.raises(StudyError, match="asked for layer 5, but the model has 2"):
        METHODS["relative_attention"](target, layer=5)
