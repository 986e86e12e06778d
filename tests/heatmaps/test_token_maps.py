"""Token scores painted on the image: hand cases of every kind of geometry."""

from types import SimpleNamespace

import pytest
import tiny
import torch

from lvlm_study.errors import StudyError
from lvlm_study.heatmaps.token_maps import has_area, paint
from lvlm_study.models.geometry import clipped

NAN = float("nan")


def bound_of(size, boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return SimpleNamespace(size=size, token_boxes=clipped(boxes, size), whole_boxes=boxes)


def grid(rows, columns, size):
    """Boxes of a plain division of the image, row by row."""
    (h, w), r, c = size, rows, columns
    return [
        [w * j / c, h * i / r, w * (j + 1) / c, h * (i + 1) / r] for i in range(r) for j in range(c)
    ]


def test_two_by_two():
    bound = bound_of((4, 4), grid(2, 2, (4, 4)))
    found = paint(bound, torch.tensor([1.0, -2.0, 3.0, 0.0]))
    assert found.dtype == torch.float32
    assert found.tolist() == [[1, 1, -2, -2]] * 2 + [[3, 3, 0, 0]] * 2


def test_not_square_and_borders_inside_pixels():
    bound = bound_of((2, 3), grid(2, 2, (2, 3)))  # the middle column is half left, half right
    found = paint(bound, torch.tensor([1.0, 3.0, -1.0, 5.0]))
    assert found.tolist() == [[1, 2, 3], [-1, 2, 5]]


def test_padding_newlines_and_crop_are_left_out():
    boxes = [[0, 0, 4, 0], [NAN] * 4, [1, 0, 2, 2], [2, 0, 3, 2], [NAN] * 4, [0, 2, 4, 2]]
    bound = bound_of((2, 4), boxes)  # columns 0 and 3 are cropped away
    scores = torch.tensor([99.0, 99.0, -1.0, 2.0, 99.0, 99.0])
    assert paint(bound, scores).tolist() == [[0, -1, 2, 0]] * 2
    assert paint(bound, scores, amount=True).tolist() == [[0, -4, 8, 0]] * 2
    assert has_area(bound.token_boxes).tolist() == [False, False, True, True, False, False]


def test_what_falls_on_padding_is_dropped():
    """The lower token sees half a row of the picture and half of padding: density as above."""
    bound = bound_of((3, 4), [[0, 0, 4, 2], [0, 2, 4, 4], [0, 4, 4, 6]])
    found = paint(bound, torch.tensor([2.0, 2.0, 99.0]), amount=True)
    assert found.tolist() == [[3.0] * 4] * 3  # 2 over 8 pixels each, in units of the picture's 12
    assert paint(bound, torch.tensor([2.0, 6.0, 99.0])).tolist() == [[2] * 4] * 2 + [[6] * 4]


@pytest.mark.parametrize("size", [(61, 140), (427, 640), (640, 427), (40, 50), (324, 432)])
@pytest.mark.parametrize("family", ["llava_pad", "llava_next", "llava_onevision"])
def test_equal_amounts_make_no_hot_border(adapters, family, size):
    """Padding ends inside a patch: its sliver of the picture gets no more than a full patch."""
    bound = adapters(family).bind(size, "What is this?")
    found = paint(bound, torch.ones(len(bound.token_boxes)), amount=True)
    assert found.max() <= 2.01 * found.median()
    padded = family == "llava_pad"
    assert not padded or found.max() - found.min() <= 1e-3 * found.max()


def test_views_weigh_the_same_however_fine():
    whole, tiles = [[0, 0, 4, 4]], grid(2, 2, (4, 4))
    bound = bound_of((4, 4), whole + tiles)
    scores = torch.tensor([10.0, 0.0, 2.0, 4.0, -6.0])
    assert paint(bound, scores).tolist() == [[5, 5, 6, 6]] * 2 + [[7, 7, 2, 2]] * 2
    amount = paint(bound, scores, amount=True)  # 10 everywhere, plus the tile's on a quarter
    assert amount.tolist() == [[10, 10, 18, 18]] * 2 + [[26, 26, -14, -14]] * 2
    assert amount.mean() == scores.sum() == 10


def test_a_view_may_show_only_part():
    bound = bound_of((1, 4), [[0, 0, 4, 1], [2, 0, 4, 1]])
    assert paint(bound, torch.tensor([2.0, 4.0])).tolist() == [[2, 2, 3, 3]]


def test_another_size_is_the_same_picture():
    bound = bound_of((4, 8), grid(2, 4, (4, 8)))
    scores = torch.arange(8.0)
    assert paint(bound, scores, (2, 4)).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for amount in (False, True):
        large = paint(bound, scores, (8, 16), amount)
        assert torch.equal(large[::2, ::2], paint(bound, scores, amount=amount))


def test_a_sliver_is_not_a_pixel():
    bound = bound_of((1, 3), [[0, 0, 2.00001, 1]])
    assert paint(bound, torch.tensor([7.0])).tolist() == [[7, 7, 0]]


def test_wrong_number_of_scores():
    bound = bound_of((4, 4), grid(2, 2, (4, 4)))
    with pytest.raises(StudyError, match=r"4 visual tokens but scores of shape \(3,\)"):
        paint(bound, torch.zeros(3))


@pytest.mark.parametrize("size", [(61, 140), (150, 70), (90, 90)])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_painting_every_family(adapters, family, size):
    """One token lights its own box only; ones give ones on what is seen; amounts keep their sum."""
    bound = adapters(family).bind(size, "What is this?")
    boxes, keep = bound.token_boxes, has_area(bound.token_boxes)
    ones = paint(bound, torch.ones(len(boxes)))
    assert ones.shape == size
    assert torch.allclose(ones[ones != 0], torch.ones(()))
    scores = torch.randn(len(boxes), generator=torch.Generator().manual_seed(0))
    total = paint(bound, scores, amount=True).mean()
    inside, whole = (
        (b[keep, 2] - b[keep, 0]) * (b[keep, 3] - b[keep, 1]) for b in (boxes, bound.whole_boxes)
    )
    assert total == pytest.approx(float(scores[keep] @ (inside / whole)), abs=1e-3)
    for token in keep.nonzero()[::5, 0].tolist():
        lit = paint(bound, torch.eye(len(boxes))[token]).nonzero()
        x0, y0, x1, y1 = boxes[token].tolist()
        assert lit[:, 0].min() >= int(y0) and lit[:, 0].max() < y1
        assert lit[:, 1].min() >= int(x0) and lit[:, 1].max() < x1
