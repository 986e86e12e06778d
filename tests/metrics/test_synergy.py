"""F_syn: gates whose curves can be written down, and the corners on real architectures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from refusals import refuses
from white_box import target_for

from lvlm_study.answers import make_target
from lvlm_study.heatmaps.attn_lrp import token_relevance
from lvlm_study.metrics.prompt import question_places
from lvlm_study.metrics.synergy import joint, synergy
from lvlm_study.models.planted import planted, planted_scene

GATES = {
    "and": lambda seen, asked: seen * asked,
    "or": lambda seen, asked: np.maximum(seen, asked),
    "sum": lambda seen, asked: (seen + asked) / 2,
}


def scored(gate: str, seen_at: int, asked_at: int):
    """Two pixels and two words, one of each decides: the places of these in the two rankings."""
    shown = torch.tensor([[0.0, 0], [1, 0], [1, 1]])  # (S, 2): the first one is ranked first
    kept = shown.bool()

    def value(pictures, words):
        return GATES[gate](pictures[:, seen_at].numpy(), float(words[asked_at]))

    return joint(value, shown, 1 - shown, kept, np.array([0, 0.5, 1]))


@pytest.mark.parametrize(
    ("gate", "places", "score", "unclipped"),
    [
        ("and", (0, 0), 0.75, 0.75),  # both found first: dividends 0, 1, 1
        ("and", (1, 1), 0.25, 0.25),  # both found last: 0, 0, 1
        ("and", (0, 1), 0.25, 0.25),  # the right region and the wrong word
        ("or", (0, 0), 0, -0.75),  # either suffices
        ("sum", (0, 0), 0, 0),  # nothing together
    ],
)
def test_gates_by_hand(gate, places, score, unclipped):
    found = scored(gate, *places)
    assert found.score == pytest.approx(score)
    assert found.unclipped == pytest.approx(unclipped)
    assert (found.full, found.empty) == (1, 0)


def test_each_ranking_alone_by_hand():
    found = scored("and", 0, 1)
    assert (found.image, found.words) == pytest.approx((0.5, -0.5))
    blind = scored("or", 0, 0)
    assert (blind.image, blind.words) == (0, 0), "the other one suffices: no ranking can be seen"


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_the_corners_of_a_network(adapters, family):
    """With the shares 0 and 1 no order counts: four forward passes, written out."""
    target = target_for(adapters, family)
    relevance = token_relevance(target)
    bound, at = target.bound, question_places(target.bound)
    silent = bound.prompt_ids.clone()
    silent[0, at] = bound.adapter.tokenizer.pad_token_id
    quiet = replace(target, bound=replace(bound, prompt_ids=silent))
    with torch.no_grad():
        v = [
            float(t.log_probs(x)[0].double().mean().exp())
            for t in (target, quiet)
            for x in (target.image, target.baseline)
        ]
    found = synergy(target, relevance, shares=(0, 1))
    dividend = v[0] - v[1] - v[2] + v[3]
    assert found.insertion == pytest.approx([0, dividend], abs=1e-6)
    assert found.deletion == pytest.approx([0, dividend], abs=1e-6)
    assert (found.full, found.empty) == pytest.approx((v[0], v[3]), abs=1e-6)
    assert abs(dividend) > 1e-9
    more = synergy(target, relevance, batch=3)
    assert more.insertion[[0, -1]] == pytest.approx([0, dividend], abs=1e-6)
    assert np.array_equal(synergy(target, relevance, batch=3).insertion, more.insertion)


def test_what_cannot_be_ranked(adapters):
    target = target_for(adapters, "llava")
    refuses("give those of the same target", synergy, target, torch.zeros(2))
    outside = make_target(planted("object"), planted_scene((64, 96)), "?")
    refuses("synergy", synergy, outside, torch.zeros(9))
