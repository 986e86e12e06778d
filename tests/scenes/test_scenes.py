"""Scenes are the same bytes everywhere, their masks exact, their questions unambiguous."""

import hashlib
import json
import re

import numpy as np
import pytest

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.paths import data_dir
from lvlm_study.scenes import backgrounds, questions, scenes, testset
from lvlm_study.scenes.scenes import Scene, Sprite
from lvlm_study.zoo.pool import patch_labels

TEST_SET = "351cf2dbfa7413b8648d4220d8ab34a8147553d6b46f802b457cb3a1b91435b5"


def scene(*objects: Sprite, place="meadow", night=False) -> Scene:
    return Scene(place, night, 150, 0, 1, objects)


def rng(seed=0):
    return np.random.default_rng(seed)


APPLE = Sprite("apple", "red", "large", 10, 20)
BUS = Sprite("bus", "blue", "small", 250, 30)


def test_same_scene_same_bytes():
    """Drawn with integers only, so this checksum holds on every machine."""
    digest = hashlib.sha256(scenes.draw(scene(APPLE, BUS)).tobytes()).hexdigest()
    assert digest == "c03e39698a7010781269907441747ce5a9cd6a9625ff32cddc55547fc20cc3c4"
    one = next(scenes.stream(4321))
    assert Scene.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_removing_an_object_changes_its_pixels_only():
    both, without = scene(APPLE, BUS), scene(APPLE, BUS).without(0)
    differ = (scenes.draw(both) != scenes.draw(without)).any(-1)
    inside = scenes.mask(both, 0)
    assert differ[inside].mean() > 0.99  # a tint may equal the meadow in a pixel
    halo = np.zeros_like(differ)
    halo[20 : 20 + 92, 10 : 10 + 92] = True  # the antialiased rim lies within the cell
    assert not differ[~halo].any()
    assert without.objects == (BUS,)


def test_recolouring_keeps_the_mask():
    red, blue = scene(APPLE), scene(APPLE).changed(0, color="blue")
    assert (scenes.mask(red, 0) == scenes.mask(blue, 0)).all()
    body = scenes.draw(blue)[scenes.mask(blue, 0)].astype(int)
    assert (body[:, 2] >= body[:, 0]).mean() > 0.95  # blue dominates red


def test_tint_is_exact_where_alpha_is_full():
    light, alpha = scenes._cell(APPLE)
    y, x = np.argwhere(alpha == 255)[500]
    pixel = scenes.draw(scene(APPLE))[20 + y, 10 + x]
    assert pixel.tolist() == [c * int(light[y, x]) // 255 for c in scenes.COLORS["red"]]


def test_sampled_sprites_never_touch_or_leave():
    for one in (s for _, s in zip(range(200), scenes.stream(999), strict=False)):
        cover = np.zeros((scenes.SIDE, scenes.SIDE), int)
        for o in one.objects:
            assert (
                min(o.x, o.y) >= scenes.GAP and max(o.x, o.y) + o.side <= scenes.SIDE - scenes.GAP
            )
            cover[o.y : o.y + o.side, o.x : o.x + o.side] += 1
        assert cover.max() <= 1


def test_texture_is_bilinear_and_bounded():
    weights = backgrounds._bilinear(28)
    assert (
        (weights.sum(1) == 28).all()
        and weights[28, 1] == 28
        and weights[14].tolist()[:2] == [14, 14]
    )


@pytest.mark.parametrize(
    "dx, dy, where",
    [
        (-100, 0, "left"),
        (100, 30, "right"),
        (0, -90, "above"),
        (40, 80, "below"),
        (60, 0, None),
        (90, 80, None),
    ],
)
def test_relation_by_hand(dx, dy, where):
    a = Sprite("cat", "red", "small", 150 + dx, 150 + dy)
    b = Sprite("key", "red", "small", 150, 150)
    assert questions.relation(scene(a, b), 0, 1) == where
    mirrored = questions.relation(scene(a, b), 1, 0)
    assert mirrored == (where and questions.OPPOSITE[where])


def test_questions_of_a_known_scene():
    asked = {(q.kind, q.content): q for q in questions.all_questions(scene(APPLE, BUS), rng())}
    assert asked["color", "red"].answer == "The apple is red."
    assert asked["name", "bus"].answer == "The blue object is a bus."
    assert asked["relation", "left"].answer == "The apple is to the left of the bus."
    assert asked["corner", "top right"].answer == "The bus is in the top right."
    assert asked["bigger", "apple"].answer == "The apple is bigger."
    assert asked["fruit", "apple"].evidence == (0,)
    assert asked["vehicle", "bus"].evidence == (1,)
    assert asked["place", "meadow"].evidence is None
    assert ("animal", "cat") not in asked


def test_ambiguous_questions_are_not_asked():
    """Two apples: none may be called "the apple", but they can be counted."""
    twin = Sprite("apple", "green", "small", 200, 250)
    asked = questions.all_questions(scene(APPLE, BUS, twin), rng())
    assert not [
        q
        for q in asked
        if q.kind in ("color", "corner", "relation", "bigger") and "apple" in q.text
    ]
    count = next(q for q in asked if q.kind == "counting" and "apples" in q.text)
    assert (count.answer, count.evidence) == ("There are two apples.", (0, 2))


def test_description_names_every_object_in_reading_order():
    text = questions.describe(scene(BUS, APPLE, place="beach", night=True))
    assert text == (
        "The picture shows a beach by night with a red apple in the top left, "
        "a blue bus in the top right."
    )


def test_patch_labels_by_hand():
    labels = patch_labels(scene(APPLE), 8)  # patches of 42 pixels; the middle is at (56, 66)
    assert labels[1, 1].tolist() == [scenes.names().index("apple") + 1, 1, 3, 1]
    assert labels[..., 3].sum() == 1 and not labels[5:, 5:].any()


def test_the_test_set_is_the_one_that_was_published_and_can_be_made_again():
    path = data_dir() / "sprites" / "test.jsonl"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == TEST_SET
    # The generator still makes what is committed, and the pictures have the recorded checksums.
    kept = [json.loads(line) for line in path.read_text().splitlines()[:8]]
    made = [record for _, record in zip(range(8), testset.build(), strict=False)]
    assert json.loads(json.dumps(made)) == kept
    for item in load_benchmark("sprites")[::24]:
        assert hashlib.sha256(item.rgb.tobytes()).hexdigest() == item.extra["sha256"]


def test_the_test_set_is_balanced():
    items = load_benchmark("sprites")
    assert len(items) == 576 and len({i.id for i in items}) == 576
    for category in questions.CATEGORIES:
        assert sum(i.category == category for i in items) == 96
    yes = [i.reference.startswith("Yes") for i in items if i.category == "existence"]
    counts = [i.accept[0] for i in items if i.category == "counting"]
    assert sum(yes) == 48 and all(counts.count(n) == 24 for n in questions.NUMBERS[1:])
    kept = {json.dumps(i.extra["scene"].to_json()) for i in load_benchmark("sprites")}
    drawn = (json.dumps(s.to_json()) for _, s in zip(range(500), scenes.stream(1000), strict=False))
    assert kept.isdisjoint(drawn)
    for wordings in questions.WORDINGS.values():
        assert len(set(wordings)) == 3 and all(re.fullmatch(r"[A-Z].*[?.]", w) for w in wordings)


def test_evidence_and_content_span_agree_with_the_scene():
    for item in load_benchmark("sprites")[::7]:
        a, b = item.extra["content_span"]
        assert item.reference[a:b].lower() == item.accept[0]
        if item.extra["objects"]:
            area = sum(scenes.mask(item.extra["scene"], i).sum() for i in item.extra["objects"])
            assert item.evidence.sum() == area > 0  # objects never overlap
