"""Shares of image, question and earlier words: by hand, planted, and on every family."""

from dataclasses import replace

import numpy as np
import planted_network
import pytest
import torch
from refusals import refuses
from white_box import FAMILIES, photo, target_for, target_of

import lvlm_study as ls
from lvlm_study.answers import retarget
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps.attn_lrp import gradient_times_input
from lvlm_study.metrics import prompt
from lvlm_study.metrics.prompt import PLAYERS, PromptShares, prompt_shares, quick_shares
from lvlm_study.models.planted import planted, planted_scene


@pytest.mark.parametrize("family", FAMILIES)
def test_the_questions_words_are_found(adapters, family):
    """Decoded, the places give the question and nothing of the template."""
    bound = target_for(adapters, family).bound
    question = "What is the red thing, 0 or #"
    bound = bound.adapter.bind(bound.size, question)
    at = prompt.question_places(bound)
    text = bound.adapter.tokenizer.decode(bound.prompt_ids[0, at])
    assert text.strip() == question
    assert not bound.image_span[at].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_the_mean_over_six_orders(adapters, family):
    """Brute force: every order, the changed inputs written out."""
    target = target_for(adapters, family)
    target = retarget(target, torch.ones(5, dtype=torch.bool))
    bound, ids = target.bound, target.answer.token_ids
    neutral = bound.adapter.tokenizer.pad_token_id
    places = prompt.question_places(bound)

    def log_probs(have):
        words = bound.prompt_ids.clone()
        if "question" not in have:
            words[0, places] = neutral
        shown = ids if "earlier" in have else torch.full_like(ids, neutral)
        picture = target.image if "image" in have else target.baseline
        logits = replace(bound, prompt_ids=words).logits(picture, shown)[0]
        return logits.log_softmax(-1)[torch.arange(len(ids)), ids]

    with torch.no_grad():
        found = prompt.exact_values(lambda sets: prompt._scores(target, sets), PLAYERS)
        i, q, e = (frozenset([p]) for p in PLAYERS)
        v = {
            s: log_probs(s).double() for s in (frozenset(), i, q, e, i | q, i | e, q | e, i | q | e)
        }
    all_, none = v[i | q | e], v[frozenset()]
    image = (2 * (v[i] - none) + (v[i | q] - v[q]) + (v[i | e] - v[e]) + 2 * (all_ - v[q | e])) / 6
    assert torch.allclose(found[0], image, atol=1e-4)
    assert torch.allclose(found.sum(0), all_ - none, atol=1e-4)
    assert found[2, 0] == 0, "nothing comes before the first token"
    assert found.abs().sum(1).min() > 1e-3


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_a_network_that_reads_the_image_alone(tmp_path, family):
    """The planted word is said because red is seen, whatever is asked or said before."""
    adapter = planted_network.planted_network(family, tmp_path)
    target = planted_network.target_on(adapter, planted_network.red_corner((56, 56), "left upper"))
    with torch.no_grad():
        values = prompt.exact_values(lambda sets: prompt._scores(target, sets), PLAYERS).mT
    found = PromptShares(target.answer, values)
    assert found.values[planted_network.PLACE, 0] > 3
    assert found.mean()["image"].value > 0.99
    quick = quick_shares(target, "attnlrp")
    assert quick["image"] > max(quick["question"], quick["earlier"])


def test_shares_and_their_intervals():
    values = torch.tensor([[3.0, -1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).double()
    found = PromptShares(None, values)
    assert found.shares[:2].tolist() == [[0.75, 0.25, 0], [0.5, 0, 0.5]]
    assert found.shares[2].isnan().all()
    mean = found.mean()
    assert mean["image"].value == pytest.approx(0.625) and mean["image"].skipped == 1
    assert mean["image"].low <= 0.625 <= mean["image"].high
    assert found.mean(torch.tensor([True, False, False]))["question"].value == pytest.approx(0.25)
    both = prompt.average([found, PromptShares(None, values[:1]), PromptShares(None, values[2:])])
    assert both["image"].value == pytest.approx((0.625 + 0.75) / 2) and both["image"].n == 2


def test_the_public_call(tiny_llava):
    found = ls.prompt_shares(tiny_llava, photo(), "What is this?", answer="a red hat")
    assert found.answer.text == "a red hat" and found.values.shape == (len(found.answer.tokens), 3)
    again = ls.prompt_shares(tiny_llava, photo(), "What is this?", answer=found.answer)
    assert np.allclose(found.values, again.values, atol=1e-6)


@pytest.mark.parametrize("by", prompt.QUICK)
@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen3_vl", "cambrian"])
def test_quick_shares_of_every_way(adapters, family, by):
    found = quick_shares(target_for(adapters, family), by)
    assert sum(found.values()) == pytest.approx(1) and min(found.values()) > 0


def test_gradient_times_input_by_hand(adapters):
    """Of visual tokens: the gradient by their features times the features."""
    target = target_of(adapters("llava"), crucial=(2,))
    features = target.bound.adapter.encode(target.bound, target.image).detach().requires_grad_()
    (slope,) = torch.autograd.grad(target.score_from(features).sum(), features)
    span = target.bound.image_span.nonzero()[:, 0]
    expected = (slope * features).sum(-1)[0]
    assert torch.allclose(gradient_times_input(target)[span], expected, atol=1e-5)


def test_what_has_no_prompt_is_refused():
    with pytest.raises(StudyError, match="prompt_shares looks inside a transformers model"):
        prompt_shares(planted("object"), planted_scene((48, 64)), "?")
    refuses("no way to share named 'grad'; did you mean gradient", quick_shares, None, "grad")
