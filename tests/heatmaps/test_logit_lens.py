"""The logit lens is the model's own last layer, or an earlier one by hand, at visual tokens."""

import pytest
import torch
from white_box import FAMILIES, SIZE, target_for, target_of

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS
from lvlm_study.heatmaps.logit_lens import lens_logits
from lvlm_study.heatmaps.token_maps import paint


def everywhere(bound, image):
    """Hidden states of every layer and all logits of the prompt, by transformers."""
    inputs = bound.pixels(image) | bound.extras(1, 0)
    model = bound.adapter.model
    return model(input_ids=bound.prompt_ids, **inputs, use_cache=False, output_hidden_states=True)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_last_layer_says_what_the_model_says(adapters, family):
    target = target_for(adapters, family)
    bound = target.bound
    span = bound.image_span.nonzero()[:, 0]
    logits = everywhere(bound, target.image).logits[0, span].float()
    words = target.answer.token_ids[target.crucial]
    expected = logits[:, words] - logits.mean(1, keepdim=True)
    assert torch.allclose(lens_logits(bound, target.image, words, -1), expected, atol=1e-3)
    found = METHODS["logit_lens"](target)
    assert found.shape == SIZE and found.std() > 0
    assert torch.allclose(found, paint(bound, expected.mean(1)), atol=1e-3)
    assert found.numpy().tobytes() == METHODS["logit_lens"](target).numpy().tobytes()


@pytest.mark.parametrize("family", ["llava", "llava_next", "gemma3", "mini_gemini"])
@torch.no_grad()
def test_an_earlier_layer_goes_through_the_norm_and_the_matrix(adapters, family):
    target = target_for(adapters, family)
    bound, model = target.bound, target.bound.adapter.model
    hidden = everywhere(bound, target.image).hidden_states[1][0]  # after layer 0
    logits = model.get_output_embeddings()(model.get_decoder().norm(hidden))
    logits = logits[bound.image_span.nonzero()[:, 0]]
    expected = logits[:, [40, 7]] - logits.mean(1, keepdim=True)
    found = lens_logits(bound, target.image, torch.tensor([40, 7]), 0)
    assert torch.allclose(found, expected, atol=1e-4)


def test_only_the_word_matters(adapters):
    """The same word elsewhere in another answer has the same map."""
    model = adapters("llava")
    one = METHODS["logit_lens"](target_of(model, crucial=(1,)))
    other = METHODS["logit_lens"](target_of(model, crucial=(0,), ids=(50, 90)))
    assert torch.equal(one, other)


def test_a_layer_that_is_not_there(adapters):
    with pytest.raises(StudyError, match="logit_lens was asked for layer 2, but the model has 2"):
        METHODS["logit_lens"](target_for(adapters, "llava"), layer=2)
