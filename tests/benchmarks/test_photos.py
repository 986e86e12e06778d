"""The photographs: complete files, complete credits, and regions that lie where they should."""

import hashlib
import re

import numpy as np
import pytest
from PIL import Image

from lvlm_study.benchmarks.photos import CATEGORIES, photos, rasterise, read_index
from lvlm_study.errors import StudyError
from lvlm_study.judging import judge
from lvlm_study.paths import data_dir

FOLDER = data_dir() / "photos"
PHOTOS = read_index(FOLDER)["photos"]
ITEMS = photos()


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda p: p["file"])
def test_file_is_the_one_recorded(photo):
    path = FOLDER / photo["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == photo["sha256"]
    with Image.open(path) as image:
        assert image.size == (photo["width"], photo["height"])
        assert max(image.size) <= 512
        assert not image.getexif() and "icc_profile" not in image.info


def test_nothing_is_missing_and_nothing_is_left_over():
    named = {p["file"] for p in PHOTOS}
    assert len(PHOTOS) == len(named) == 12
    assert {p.name for p in FOLDER.glob("*.jpg")} == named
    assert sum((FOLDER / name).stat().st_size for name in named) <= 1_200_000


def test_every_file_has_one_credit_row_with_all_columns_filled():
    text = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+\.jpg) \|(.+)\|$", text, flags=re.M)
    assert sorted(name for name, _ in rows) == sorted(p["file"] for p in PHOTOS)
    for name, rest in rows:
        cells = [cell.strip() for cell in rest.split("|")]
        assert len(cells) == 5 and all(cells), name
        assert re.search(r"(scikit-image|scikit-learn|matplotlib) \d+\.\d+\.\d+, `", cells[2]), name
    assert "photos.json" in text and "CC0 1.0" in text


def test_ids_are_unique_and_start_with_their_photograph():
    ids = [item.id for item in ITEMS]
    assert len(set(ids)) == len(ids) == 46
    for item in ITEMS:
        assert item.id.split("-")[0] + ".jpg" == item.extra["photo"]
        assert re.fullmatch(r"[a-z-]+", item.id)


def test_each_photograph_has_three_or_four_questions_of_several_kinds():
    for photo in PHOTOS:
        assert len(photo["items"]) in (3, 4), photo["file"]
        assert len({item["category"] for item in photo["items"]}) >= 3, photo["file"]
    assert {item.category for item in ITEMS} == set(CATEGORIES)


def test_yes_and_no_are_balanced():
    first = [item.accept[0] for item in ITEMS]
    assert abs(first.count("yes") - first.count("no")) <= 1


@pytest.mark.parametrize("item", ITEMS, ids=lambda i: i.id)
def test_texts_are_whole_and_the_judge_accepts_them(item):
    assert item.question.endswith("?") and item.reference.endswith(".")
    assert item.benchmark == "photos" and item.accept
    assert judge(item.reference, item) == "correct"
    for short in item.accept:
        assert judge(short, item) == "correct", short


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda p: p["file"])
def test_polygons_lie_inside_their_photograph(photo):
    for item in photo["items"]:
        for polygon in item["region"] or []:
            assert len(polygon) >= 3, item["id"]
            for x, y in polygon:
                assert 0 <= x < photo["width"] and 0 <= y < photo["height"], item["id"]


def test_evidence_covers_some_of_the_picture_but_not_most_of_it():
    for item in ITEMS:
        if item.category == "global":
            assert item.evidence is None, item.id
        else:
            assert item.evidence.dtype == bool, item.id
            assert item.evidence.shape == item.rgb.shape[:2], item.id
            assert 0 < item.evidence.mean() < 0.6, item.id


def test_a_region_knows_its_subject_by_colour():
    """Mean colours under four regions: a shifted or transposed polygon would miss its subject."""
    by_id = {item.id: item for item in ITEMS}

    def mean(name):
        return by_id[name].rgb[by_id[name].evidence].mean(axis=0)

    r, g, b = mean("astronaut-suit")
    assert r > g + 60 and r > b + 60  # orange
    r, g, b = mean("coffee-saucer")
    assert r > 2 * g and r > 2 * b  # red
    coins = by_id["coins-count"]
    assert coins.rgb[coins.evidence].mean() > coins.rgb[~coins.evidence].mean() + 60
    spiral = by_id["galaxies-spiral"]
    assert spiral.rgb[spiral.evidence].mean() > 4 * spiral.rgb[~spiral.evidence].mean()


def test_coins_are_twenty_four_separate_regions():
    coins = next(p for p in PHOTOS if p["file"] == "coins.jpg")
    region = next(i for i in coins["items"] if i["id"] == "coins-count")["region"]
    size = coins["width"], coins["height"]
    assert len(region) == 24
    apart = sum(int(rasterise([polygon], *size).sum()) for polygon in region)
    assert apart == int(rasterise(region, *size).sum())  # no two coins overlap


def test_rasterise_by_hand():
    """A square from index 1 to 3 covers 3 x 3 pixels; a triangle its half with the diagonal."""
    square = [[1, 1], [3, 1], [3, 3], [1, 3]]
    triangle = [[5, 0], [5, 3], [8, 3]]
    drawn = rasterise([square, triangle], width=9, height=4)
    by_hand = [
        [0, 0, 0, 0, 0, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0, 1, 1, 1, 1],
    ]
    np.testing.assert_array_equal(drawn, np.array(by_hand, dtype=bool))


def test_overlapping_polygons_are_united_not_cancelled():
    square = [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert rasterise([square, square], width=3, height=3).sum() == 4


def test_a_missing_index_is_told_in_one_sentence(tmp_path):
    with pytest.raises(StudyError, match="cannot be read") as caught:
        read_index(tmp_path)
    assert "\n" not in str(caught.value)


def test_grey_photographs_stay_grey():
    camera = next(item for item in ITEMS if item.id == "camera-tripod").rgb
    assert (camera[..., 0] == camera[..., 1]).all() and (camera[..., 1] == camera[..., 2]).all()
