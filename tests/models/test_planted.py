"""Planted readers: their closed forms hold, at several sizes, and views do not change the truth."""

import numpy as np
import pytest
import torch

from lvlm_study.answers import make_target
from lvlm_study.errors import StudyError
from lvlm_study.models.planted import OBJECT, planted, planted_scene, readers
from lvlm_study.pixels.images import to_tensor

SEEING = ["object", "watermark", "conjunctive", "disjunctive", "multi_crop"]
SIZES = [(64, 64), (50, 83), (121, 40)]


def evidence(reader, picture):
    bound = reader.bind(picture.shape[:2], "?")
    return reader.model.evidence(bound.pixels(to_tensor(picture))["pixel_values"]).item()


def without(picture, box):
    picture = picture.copy()
    h, w = picture.shape[:2]
    picture[round(box[1] * h) : round(box[3] * h), round(box[0] * w) : round(box[2] * w)] = 0
    return picture


@pytest.mark.parametrize("size", SIZES)
def test_truth_tables(size):
    scene = planted_scene(size)
    bare = without(scene, OBJECT)
    assert evidence(planted("object"), scene) == pytest.approx(1, abs=1e-5)
    assert evidence(planted("object"), bare) == pytest.approx(0, abs=1e-5)
    assert evidence(planted("conjunctive"), bare) == pytest.approx(0, abs=1e-5)
    assert evidence(planted("disjunctive"), bare) == pytest.approx(1, abs=1e-5)
    assert evidence(planted("watermark"), bare) == pytest.approx(1, abs=1e-5)
    assert evidence(planted("blind"), bare) == 1


@pytest.mark.parametrize("name", readers())
def test_teacher_forcing_equals_the_answer(name):
    reader, scene = planted(name), planted_scene((64, 96))
    answer = reader.answer(scene, "What colour?")
    assert answer.text == "The shape is red."
    bound = reader.bind((64, 96), "What colour?")
    table = bound.logits(to_tensor(scene), answer.token_ids)
    assert table.shape == (1, 5, len(reader.tokenizer.words))
    assert torch.equal(table[0].argmax(-1), answer.token_ids)
    assert torch.allclose(bound.log_probs(to_tensor(scene), answer.token_ids)[0], answer.log_probs)
    pair = torch.cat([to_tensor(scene), torch.zeros(1, 3, 64, 96)])
    assert torch.allclose(bound.log_probs(pair, answer.token_ids)[0], answer.log_probs, atol=1e-6)


def test_the_answer_changes_with_the_evidence():
    scene = planted_scene((64, 64))
    assert planted("object").answer(without(scene, OBJECT), "?").text == "The shape is blue."


@pytest.mark.parametrize("name", SEEING)
def test_expected_map_lies_on_the_evidence(name):
    reader = planted(name)
    target, _ = make_target(reader, planted_scene((64, 96)), "?", baseline="black")
    expected = reader.expected(target).numpy()
    truth = reader.evidence((64, 96))
    assert expected.max() == pytest.approx(1)
    assert np.array_equal(expected > 0, truth)
    if name != "multi_crop":
        assert expected[truth].min() == pytest.approx(1, abs=1e-5)


def test_expected_is_the_exact_effect_of_one_pixel():
    reader = planted("object")
    target, _ = make_target(reader, planted_scene((64, 96)), "?", baseline="blur")
    share = reader.expected(target)
    values = target.bound.pixels
    read = lambda x: reader.model.readouts(values(x)["pixel_values"])[0, 0].item()  # noqa: E731
    effects = []
    for y, x in ((10, 62), (20, 80), (40, 10)):
        changed = target.image.clone()
        changed[..., y, x] = target.baseline[..., y, x]
        effects.append((read(target.image) - read(changed), share[y, x].item()))
    assert effects[2] == pytest.approx((0, 0), abs=1e-7)
    assert effects[0][0] / effects[1][0] == pytest.approx(effects[0][1] / effects[1][1], rel=0.02)


def test_expected_of_the_blind_reader_is_empty():
    seeing, _ = make_target(planted("object"), planted_scene((64, 64)), "?")
    assert planted("blind").expected(seeing).abs().max() == 0
    assert not planted("blind").evidence((64, 64)).any()


def test_views_are_the_image_and_its_quarters():
    x = torch.rand(1, 3, 8, 12)
    views = planted("multi_crop").bind((8, 12), "?").pixels(x)["pixel_values"]
    assert views.shape == (1, 5, 3, 4, 6)
    views = views * 0.25 + 0.5
    assert torch.allclose(views[:, 2], x[..., :4, 6:])  # the second tile is the right upper one
    assert torch.allclose(views[:, 0], torch.nn.functional.avg_pool2d(x, 2), atol=1e-6)


def test_token_boxes_tile_the_image():
    boxes = planted("object").bind((40, 64), "?").token_boxes
    assert boxes.shape == (64, 4)
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum()
    assert area == pytest.approx(40 * 64)


def test_unknown_reader():
    with pytest.raises(StudyError, match="did you mean object"):
        planted("objcet")
