"""GA: the fast way equals the definition; the map is what the boxes and cosines say by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from refusals import refuses

from lvlm_study.answers import make_target, retarget
from lvlm_study.detector.detection import box_picture, detect
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain_target
from lvlm_study.heatmaps import gradient_alignment as g
from lvlm_study.heatmaps.detector_gradients import cosines, gradient_lengths, loop, outputs, race
from lvlm_study.models.planted import planted, planted_scene

NAMES = ["cat", "red bus", "dog"]
IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def target(joint):
    return make_target(joint, IMAGE, "What?", baseline="black", tokens="all")


@pytest.fixture(scope="module")
def parts(joint, target):
    """(shared tokens (17, C), queries, the answer's gradient there)."""
    shared = joint.shared(target.bound, target.image).detach()
    return shared[0], joint.detector.queries(NAMES), g.answer_gradient(target, shared)


def test_lengths_are_those_of_the_gradients(joint, parts):
    shared, queries, _ = parts
    lengths = gradient_lengths(joint.detector, shared, queries)
    leaf = shared.clone().requires_grad_()
    found = outputs(joint.detector, leaf, queries)
    for patch, output in [(0, 0), (5, 2), (9, 3), (15, 6)]:
        (one,) = torch.autograd.grad(found[patch, output], leaf, retain_graph=True)
        assert lengths[patch, output].item() == pytest.approx(one.norm().item(), rel=1e-4)


def test_an_outputs_own_gradient_is_aligned_with_it(joint, parts):
    shared, queries, _ = parts
    leaf = shared.clone().requires_grad_()
    (own,) = torch.autograd.grad(outputs(joint.detector, leaf, queries)[6, 1], leaf)
    for sign in (1, -1):
        found = cosines(joint.detector, shared, sign * 7 * own, queries)
        assert found[6, 1].item() == pytest.approx(sign, abs=1e-4)
        assert found.abs().max() <= 1 + 1e-4


def test_all_cosines_equal_the_loop_and_come_five_times_faster(joint, parts):
    shared, queries, direction = parts
    assert (cosines(joint.detector, shared, 0 * direction, queries) == 0).all()
    slow = loop(joint.detector, shared, direction, queries)
    assert slow.shape == (16, 7)
    assert slow[:, :3].abs().max() > 0.01 and slow[:, 3:].abs().max() > 0.01
    found = race(joint.detector, shared, direction, queries)
    assert found["faster"] > 5 and found["apart"] < 1e-4


def test_gradient_of_several_tokens_is_the_sum_of_theirs(joint, target, parts):
    shared = parts[0][None]
    whole = g.answer_gradient(target, shared)
    alone = []
    for i in range(len(target.crucial)):
        only = torch.zeros_like(target.crucial)
        only[i] = True
        alone.append(g.answer_gradient(retarget(target, only), shared))
    assert len(alone) > 1
    assert torch.allclose(whole, sum(alone), atol=1e-5)
    assert (whole[0] == 0).all() and whole[1:].abs().max() > 1e-3  # LLaVA reads no class token


def test_gradient_predicts_the_score(joint, target, parts):
    """A small step along the gradient raises f by its squared length."""
    shared, direction = parts[0][None], parts[2]
    step = 1e-3 / direction.norm()

    def f(tokens):
        logits = joint.logits_from(target.bound, tokens, target.answer.token_ids)[0]
        return logits.log_softmax(-1).gather(-1, target.answer.token_ids[:, None]).sum().item()

    rise = f(shared + step * direction) - f(shared - step * direction)
    assert rise == pytest.approx(2 * float(step * direction.square().sum()), rel=0.1)
    assert not torch.allclose(g.answer_gradient(target, shared, "logit"), direction)


def test_map_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 1.0, 1.0], [0.0, 0.75, 0.25, 1.0]])
    found = g.paint_boxes(boxes, torch.tensor([0.2, 0.9, -0.4]), (4, 4))
    want = [[0.2, 0.2, 0, 0], [0.2, 0.9, 0.9, 0.9], [0, 0.9, 0.9, 0.9], [0, 0.9, 0.9, 0.9]]
    assert torch.allclose(found, torch.tensor(want))


def test_weights_by_hand():
    classes = torch.tensor([[0.1, -0.3], [0.5, 0.0]])
    coords = torch.tensor([[0.0, 0.2, 0.0, -0.2], [0.1, 0.0, 0.0, 0.0]])
    found = g.Alignments(("a", "b"), classes, coords, torch.zeros(2, 4), torch.zeros(2, 2))
    assert found.weights("class").tolist() == pytest.approx([0.5, 1.0])
    assert found.weights("coord").tolist() == pytest.approx([1.0, 0.75])
    assert found.weights("any").tolist() == pytest.approx([1.0, 1.0])
    assert found.weights("class", "cosine").tolist() == pytest.approx([0.1, 0.5])
    assert found.weights("any", "cosine").tolist() == pytest.approx([0.2, 0.5])


def test_as_a_method(joint, target):
    found = explain_target("ga", target, queries=NAMES, weight="any")
    assert found.saliency.shape == (40, 60) and found.saliency.dtype == np.float32
    cosines_of = g.alignments(target, NAMES).weights("any", "cosine")
    assert 0 <= found.saliency.min() and found.saliency.max() <= cosines_of.max() < 1
    stretched = g.ga(target, queries=NAMES, scale="minmax")
    assert stretched.max() == pytest.approx(1) and stretched.shape == (40, 60)
    assert (found.cost.forward, found.cost.backward) == (1, 1)


def test_default_queries(joint, target):
    assert g.usual_queries(target) == ["cat", "red bus"]
    found = g.alignments(target)
    assert found.queries == ("cat", "red bus") and found.classes.shape == (16, 2)
    assert found.boxes.min() >= 0 and found.boxes.max() <= 1


def test_bad_options(joint, target):
    refuses("no weight of ga named 'clas'.*class", g.ga, target, weight="clas")
    refuses("no score of ga named", g.ga, target, of="probability")
    refuses("no scale of ga named", g.ga, target, scale="max")
    refuses("at least one query", g.ga, target, queries=[])
    other = make_target(planted("object"), planted_scene((32, 48)), "?", baseline="black")
    refuses("shares its sight with a detector", g.ga, other)


def test_box_picture(joint, target):
    found = g.alignments(target, NAMES)
    axes = box_picture(IMAGE, found, threshold=0.0)
    boxes = [p for p in axes.patches if isinstance(p, plt.Rectangle)]
    assert len(boxes) == 16
    width = [b.get_linewidth() for b in boxes]
    assert np.argmax(width) == int(found.weights("class").argmax()) and max(width) == 4.5
    plt.close("all")
    with pytest.raises(StudyError, match="no box for cat.* with a score of 1.1 or more"):
        box_picture(IMAGE, found, threshold=1.1)


def test_detect(joint):
    found = detect(joint, IMAGE, NAMES, threshold=0.0)
    assert found.boxes.shape == (16, 4) and list(found.scores) == sorted(found.scores)[::-1]
    assert found.boxes[:, 2].max() <= 60 and set(found.labels) <= set(NAMES)
    assert len(detect(joint, IMAGE, NAMES, threshold=1.1).labels) == 0
    refuses("has no detector", detect, planted("object"), IMAGE, NAMES)
