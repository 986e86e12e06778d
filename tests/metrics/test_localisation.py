"""MaxBoxAccV2 on maps whose boxes can be counted by hand; the CUB layout."""

import numpy as np
import pytest
from PIL import Image

from lvlm_study.benchmarks.cub import cub
from lvlm_study.detector.detection import average_precision
from lvlm_study.errors import StudyError
from lvlm_study.metrics.localisation import (
    best_overlaps,
    evidence_boxes,
    max_box_acc,
    pairwise_iou,
    part_boxes,
    two_choice,
)


def test_overlap_by_hand():
    a = np.array([[0, 0, 2, 2], [5, 5, 5, 9]])
    b = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [7, 7, 8, 8]])
    assert np.allclose(pairwise_iou(a, b), [[1 / 3, 1, 0], [0, 0, 0]])


def test_boxes_of_parts():
    mask = np.zeros((6, 8), bool)
    mask[0, 0] = mask[1, 1] = True  # touch at a corner: one part
    mask[4:6, 5:8] = True
    assert part_boxes(mask).tolist() == [[0, 0, 2, 2], [5, 4, 8, 6]]
    assert part_boxes(np.zeros((3, 3), bool)).shape == (0, 4)


def test_a_hill_is_found_at_the_right_height():
    """Height 1 on 2x2, 0.5 on 4x4: the box is right only above 0 and up to 0.5."""
    saliency = np.zeros((10, 10))
    saliency[2:6, 2:6] = 0.5
    saliency[3:5, 3:5] = 1
    truth = np.array([[2, 2, 6, 6]])
    overlaps = best_overlaps(saliency, truth, steps=4)  # at 0, 0.25, 0.5, 0.75
    assert np.allclose(overlaps, [0.16, 1, 1, 0.25])
    one = max_box_acc([saliency], [truth], steps=4)
    assert one.max_box_acc == 1 and one.best[0.5] == (1.0, 0.25)


def test_one_threshold_for_all_pictures():
    """Two maps that need different thresholds: only one of them is ever found."""
    low, high = np.zeros((10, 10)), np.zeros((10, 10))
    low[0:4, 0:4], low[0, 9] = 0.3, 1
    high[0:8, 0:8], high[0:4, 0:4] = 0.6, 1
    truth = [np.array([[0, 0, 4, 4]])] * 2
    both = max_box_acc([low, high], truth, overlaps=(0.9,), steps=10)
    assert both.max_box_acc == 0.5 and both.found.sum() == 1
    assert [
        max_box_acc([m], [t], (0.9,), 10).max_box_acc
        for m, t in zip([low, high], truth, strict=True)
    ] == [1, 1]


def test_any_part_may_meet_any_box():
    saliency = np.zeros((8, 8))
    saliency[0:2, 0:2] = saliency[5:8, 5:8] = 1
    assert max_box_acc([saliency], [np.array([[5, 5, 8, 8]])]).max_box_acc == 1
    assert max_box_acc([saliency], [np.array([[3, 3, 4, 4], [0, 0, 2, 2]])]).max_box_acc == 1


def test_a_flat_map_draws_the_whole_picture():
    flat = max_box_acc([np.full((4, 4), 7.0)], [np.array([[0, 0, 4, 2]])])
    assert flat.max_box_acc == pytest.approx(2 / 3)  # IoU 0.5: found at 0.3 and 0.5, not at 0.7


def test_evidence_as_truth():
    evidence = np.zeros((5, 5), bool)
    evidence[1:3, 2:5] = True
    assert evidence_boxes(evidence).tolist() == [[2, 1, 5, 3]]


def test_two_choices():
    left, right = np.zeros((4, 4)), np.zeros((4, 4))
    left[:, 0], right[:, 3] = 5, 0.1  # scale does not matter: people see stretched maps
    a, b = left > 0, right > 0
    assert two_choice(left, right, a, b) == 1 and two_choice(right, left, a, b) == 0
    assert two_choice(left, left, a, b) == 0.5
    with pytest.raises(StudyError, match="evidence of B is empty"):
        two_choice(left, right, a, np.zeros((4, 4), bool))


def test_what_cannot_be_localised():
    for maps, boxes in [([], []), ([np.zeros((2, 2))], [])]:
        with pytest.raises(StudyError, match="as many sets of boxes"):
            max_box_acc(maps, boxes)
    with pytest.raises(StudyError, match="without a true box"):
        max_box_acc([np.zeros((2, 2))], [np.zeros((0, 4))])
    with pytest.raises(StudyError, match="finite"):
        max_box_acc([np.full((2, 2), np.nan)], [np.array([[0, 0, 1, 1]])])


def test_average_precision_by_hand():
    """Scores .9 right, .8 wrong, .7 right, of 3 true boxes: (1 + 2/3) / 3."""
    true = np.array([[0, 0, 1, 1], [2, 2, 3, 3]])
    first = (np.array([0.8, 0.9]), np.array([[5, 5, 6, 6], [0, 0, 1, 1]]), true)
    second = (np.array([0.7]), np.array([[4, 4, 5, 5]]), np.array([[4, 4, 5, 5]]))
    assert average_precision([first, second]) == pytest.approx((1 + 2 / 3) / 3)
    twice = (np.array([0.9, 0.8]), np.array([[0, 0, 1, 1]] * 2), true[:1])
    assert average_precision([twice]) == 1  # the second is wrong, but below the last right one
    assert np.isnan(average_precision([(np.array([0.5]), true[:1], np.zeros((0, 4)))]))


# --- CUB -------------------------------------------------------------------------------------


@pytest.fixture
def birds(tmp_path):
    """CUB-200-2011's own layout: three pictures, two for testing."""
    root = tmp_path / "CUB_200_2011"
    names = [
        "001.Black_footed_Albatross/a.jpg",
        "001.Black_footed_Albatross/b.jpg",
        "002.X_Y/c.jpg",
    ]
    for name in names:
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), "white").save(path)
    (root / "images.txt").write_text("".join(f"{i + 1} {n}\n" for i, n in enumerate(names)))
    (root / "train_test_split.txt").write_text("1 1\n2 0\n3 0\n")
    boxes = "1 0.0 0.0 5.0 5.0\n2 10.0 5.0 20.0 30.0\n3 40.0 30.0 20.0 20.0\n"
    (root / "bounding_boxes.txt").write_text(boxes)
    return root


def test_cub_layout(birds):
    items = cub(birds)
    assert [i.id for i in items] == ["cub/2", "cub/3"]
    assert items[0].reference == "The image shows a black footed albatross."
    assert items[0].extra["box"] == (10.0, 5.0, 30.0, 35.0)
    assert items[0].evidence.shape == (40, 50)
    assert items[0].evidence.sum() == 20 * 30 and items[0].evidence[5, 10]
    assert items[1].evidence.sum() == 10 * 10  # the box runs out of the picture
    assert items[0].rgb.shape == (40, 50, 3) and "bird" in items[0].accept
    assert len(cub(birds, split="train")) == 1


def test_cub_that_is_not_there(birds, tmp_path):
    with pytest.raises(StudyError, match="images.txt"):
        cub(tmp_path)
    with pytest.raises(StudyError, match="split"):
        cub(birds, split="dev")
    (birds / "bounding_boxes.txt").write_text("1 0.0 0.0 5.0 5.0\n")
    with pytest.raises(StudyError, match="no box for picture 2"):
        cub(birds)
