"""Busy ground: the same bytes everywhere, exact masks, exact counterfactuals, fixed test sets."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from refusals import refuses
from scipy.signal import fftconvolve

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch14_zoo as zoo_page
from lvlm_study.errors import StudyError
from lvlm_study.paths import data_dir
from lvlm_study.scenes import atlas, backgrounds, clutter, questions, scenes, styles
from lvlm_study.scenes.scenes import Scene, Sprite
from lvlm_study.zoo.pool import patch_labels

FILES = {
    "clutter": "10cb8971d34a76d829bfe524a7b7da067026ad261b2c83f01f92427cfdf8173d",
    "clutter4": "6ce4a00b6ff7f71912914ecde2efbab7ac028207958edddfd71d72b3d45bc650",
}
DRAWN = {
    (0, "leaves"): "ea84c5839ef089e7cbde0e7faed710de18e38fe387af6243b03e56316c34bcc0",
    (1, "leaves"): "4d51dc1cfce27c483746e255503d0ee0beeeb8de59c363c71282bfd57d10f129",
    (2, "leaves"): "79d4284dee5be50e399c9e6303dc3870d60af407b71984c85c8697c314b4ee83",
    (3, "leaves"): "00bc22b83662cf502297cc280c9ed7eb92b8d816d91296ba8bc1611c1c0c3313",
    (4, "leaves"): "bd8863fdc743fd738cb953db41053912012b9d139826b351c6f7f67167e5d1eb",
    (2, "photo"): "7bdb1bcc4a23252c1d5bf5956e87f7abc15c3739482683123ca432dc3b2a85a8",
    (4, "photo"): "07e0570dacb3bd5847b26b55fdc035514cd386ae17f1a514425f7f5b1a16c001",
    (2, "photo-train"): "891ca278fbbf27280ece4e0d375eac6644fee4f437f023ccd4f0fe5a66d3a56b",
    (4, "photo-train"): "297df2afe3495420be9ae6c0523fe24befaa03f2917827e1de77fdadc332316d",
    (2, "pink"): "aec6157fcbefc631f6cd98022fb515892b507e920bc471cc1ebadcb4a2befcf3",
    (4, "pink"): "e111e748b5e47d5bf569bd71a01530f9e56130effeeb35fc4fcc938eab9d4159",
}
APPLE = Sprite("apple", "red", "large", 10, 20)
BUS = Sprite("bus", "blue", "small", 250, 30)
CAT = Sprite("cat", "green", "medium", 150, 200)
THREE = Scene("meadow", False, 150, 0, 1, (APPLE, BUS, CAT))
EVERYWHERE = [(level, "leaves") for level in range(5)] + [
    (level, ground) for ground in ("photo", "photo-train", "pink") for level in (2, 4)
]


def digest(picture: np.ndarray) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


def busy(level: int, ground: str = "leaves", scene: Scene = THREE) -> Scene:
    return replace(scene, clutter=level, ground=ground)


def support(scene: Scene, i: int) -> np.ndarray:
    """Where object i leaves any trace: its alpha is not zero, and nothing lies in front."""
    o, out = scene.objects[i], np.zeros((336, 336), bool)
    find = atlas.cell if scene.clutter < 3 else atlas.bare_cell
    out[o.y : o.y + o.side, o.x : o.x + o.side] = find(o.name, o.size)[1] > 0
    return out & ~backgrounds.in_front(scene)


# --- pictures ------------------------------------------------------------------------------
@pytest.mark.parametrize("where", EVERYWHERE, ids=str)
def test_the_same_scene_is_the_same_bytes_everywhere(where):
    assert digest(scenes.draw(busy(*where))) == DRAWN[where]


def test_files_of_level_0_say_nothing_of_levels():
    assert set(THREE.to_json()) == {
        "place", "night", "horizon", "brightness", "texture", "objects",
    }  # fmt: skip
    for scene in (busy(3, "photo"), busy(4), busy(0, "pink")):
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_levels_up_to_3_are_the_same_scenes_on_other_ground():
    first = [next(scenes.stream(1000, level)) for level in range(5)]
    assert all(replace(s, clutter=0) == first[0] for s in first[:4])
    assert replace(first[4], clutter=0) != first[0]


def test_levels_mix_more_and_more_of_one_busy_ground_into_the_even_one():
    """Without objects: a level is (4 - q) / 4 of level 0 and q / 4 of level 3."""
    empty = THREE.without(0, 1, 2)
    even, quarter, half, full = (scenes.draw(busy(k, scene=empty)).astype(int) for k in range(4))
    assert (quarter == (3 * even + full) // 4).all() and (half == (even + full) // 2).all()
    assert (full == even).all(-1).mean() < 0.1  # gaps between the leaves


def test_raw_bits_are_those_that_numpy_promises():
    """Computed once from the reference PCG64; a change would change every picture."""
    assert backgrounds.Dice(5, 1).below(1000, 2, 3).tolist() == [[774, 470, 695], [816, 537, 517]]
    rolled = backgrounds.Dice(9).around(2, 4000)
    assert set(rolled.tolist()) == {-2, -1, 0, 1, 2}
    assert all(700 < count < 900 for count in Counter(rolled.tolist()).values())


def test_radii_follow_the_law_of_dead_leaves():
    """P(R > r) = (low² / r² - low² / high²) / (1 - low² / high²), R rounded down."""
    low, high = 7, 70
    r = backgrounds._thrown((3, 1), 30000, low, high).r
    for limit in (7, 10, 14, 30):
        wanted = (low**2 / (limit + 1) ** 2 - low**2 / high**2) / (1 - low**2 / high**2)
        assert (r > limit).mean() == pytest.approx(wanted, abs=0.01)
    assert r.min() >= low and r.max() <= high


def test_a_later_leaf_lies_on_an_earlier_one():
    leaves = backgrounds._thrown((8, 1), **backgrounds.BEHIND)
    y, x = np.mgrid[:336, :336]
    for k in (1, 350, 699, 700):
        dx, dy, r = x - leaves.x[k - 1], y - leaves.y[k - 1], leaves.r[k - 1]
        assert (leaves.labels[dx**2 + dy**2 <= r * (r + 1)] >= k).all()
        assert (dx**2 + dy**2 <= r * (r + 1))[leaves.labels == k].all()


def test_rims_are_gone_from_level_3_on():
    """A black rim around bright sprites: the darkest pixels of a yellow one are brown, not 0."""
    scene = Scene("snowfield", False, 150, 0, 1, (replace(APPLE, color="yellow"),))
    rim = [scenes.draw(busy(k, scene=scene))[scenes.mask(busy(k, scene=scene), 0)] for k in (2, 3)]
    assert rim[0].max(-1).min() < 20 and rim[1].max(-1).min() > 80


@pytest.mark.parametrize("style", ["flat", "outline"])
def test_other_styles_are_drawn_on_busy_ground_too(style):
    plain, other = scenes.draw(busy(3)), styles.draw(busy(3), style)
    differ, objects = (plain != other).any(-1), np.logical_or.reduce(
        [support(busy(3), i) for i in range(3)]
    )  # fmt: skip
    assert differ[scenes.mask(busy(3), 0)].mean() > 0.5 and not differ[~objects].any()


def test_photographs_of_training_are_in_no_test_picture():
    train, test = backgrounds.PHOTOS["photo-train"], backgrounds.PHOTOS["photo"]
    there = {p.stem for p in (data_dir() / "photos").glob("*.jpg")}
    assert set(train).isdisjoint(test) and set(train) | set(test) == there
    credits = (data_dir() / "photos" / "LICENSES.md").read_text().splitlines()
    for name in test:  # free of any condition, so that pictures can be shown without a credit
        (line,) = [row for row in credits if row.startswith(f"| {name}.jpg")]
        assert "CC BY" not in line


def test_a_photograph_keeps_the_light_of_the_place():
    for place in backgrounds.PLACES:
        day, night = (
            scenes.draw(Scene(place, dark, 150, 0, 5, (), 3, "photo")).mean() for dark in (0, 1)
        )
        assert day > night + 20


# --- masks and counterfactuals -------------------------------------------------------------
@pytest.mark.parametrize("where", EVERYWHERE, ids=str)
def test_an_object_changes_its_visible_pixels_and_no_other(where):
    scene, picture = busy(*where), scenes.draw(busy(*where))
    for i in range(3):
        trace = support(scene, i)
        gone = (scenes.draw(scene.without(i)) != picture).any(-1)
        assert not gone[~trace].any() and gone[scenes.mask(scene, i)].mean() > 0.9
        other = scene.changed(i, color="purple")
        assert not (scenes.draw(other) != picture).any(-1)[~trace].any()
        moved = scene.changed(i, x=120, y=110)
        both = trace | support(moved, i)
        assert not (scenes.draw(moved) != picture).any(-1)[~both].any()


def test_masks_are_what_remains_visible():
    whole, seen = busy(3), busy(4)
    front = backgrounds.in_front(seen)
    assert not backgrounds.in_front(whole).any() and 0.05 < front.mean() < 0.3
    for i in range(3):
        assert (scenes.mask(seen, i) == (scenes.mask(whole, i) & ~front)).all()
    leaves = scenes.draw(seen.without(0, 1, 2))
    assert (scenes.draw(seen)[front] == leaves[front]).all()
    cover = scenes.mask(seen, 2).reshape(8, 42, 8, 42).mean((1, 3)) > 0.15
    assert (patch_labels(seen, 8)[..., 0] > 0)[cover].all()


def test_the_limit_counts_hidden_pixels_of_the_object():
    seen = busy(4)
    for scene in (seen, *(seen.changed(0, x=x, y=y) for x in (10, 120, 200) for y in (10, 240))):
        whole = scenes.mask(replace(scene, clutter=3), 0)
        share = (whole & backgrounds.in_front(scene)).sum() / whole.sum()
        assert scenes.too_hidden(scene, 0) == (share > 0.30)


def test_level_4_hides_many_objects_in_part_and_none_too_much():
    hidden, small = [], []
    for _, scene in zip(range(40), scenes.stream(998, 4), strict=False):
        for i, o in enumerate(scene.objects):
            whole = scenes.mask(replace(scene, clutter=3), i)
            hidden.append(1 - scenes.mask(scene, i).sum() / whole.sum())
            small.append(o.size == "small")
    assert max(hidden) <= 0.30 and np.mean(np.array(hidden) > 0.05) > 0.4
    assert np.mean(small) > 0.45


def test_pieces_of_sprites_are_never_a_whole_one():
    """Wherever a piece is cut, it shows less than two thirds of what its sprite has."""
    for size, side in atlas.atlas()["sizes"].items():
        cut = backgrounds._disc(side // 5).astype(float)
        for name in atlas.names():
            body = (atlas.bare_cell(name, size)[1] > 127).astype(float)
            assert fftconvolve(body, cut, "valid").max() < body.sum() * 2 / 3
    before = np.full((336, 336, 3), 128, np.int32)
    changed = (backgrounds._pieces(before, 4) != before).any(-1)
    assert 0.02 < changed.mean() < 0.2


# --- test sets -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", FILES)
def test_the_files_are_those_that_were_published_and_can_be_made_again(name):
    path = data_dir() / "sprites" / f"{name}.jsonl"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FILES[name]
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    made = list(clutter.build(name, pictures=3))
    assert json.loads(json.dumps(made)) == kept[:3] and len(kept) == clutter.PICTURES
    assert path.stat().st_size < 400_000


NAMES = [f"sprites_clutter-{k}" for k in (*range(5), "photo", "pink")]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_have_the_recorded_checksums(name):
    items = load_benchmark(name)
    assert all(item.id.startswith(f"{name}/") and item.benchmark == name for item in items)
    for item in items[::96]:
        assert digest(item.rgb) == item.extra["sha256"]


@pytest.mark.parametrize("level", [3, 4])
def test_a_test_set_is_balanced_as_the_first_one_is(level):
    items = load_benchmark("sprites_clutter", level=level)
    assert len(items) == 576 == len({i.id for i in items})
    assert set(Counter(i.category for i in items).values()) == {96}
    counts = Counter(i.accept[0] for i in items if i.category in ("counting", "existence"))
    assert counts == {"one": 24, "two": 24, "three": 24, "four": 24, "yes": 48, "no": 48}
    lights = Counter(i.accept[0] for i in items if i.extra["kind"] == "light")
    assert lights == {"day": 24, "night": 24}
    of = {}  # three questions of three categories share a picture
    for item in items:
        of.setdefault(item.extra["picture"], []).append(item)
    assert len(of) == 192 and all(len({i.category for i in three}) == 3 for three in of.values())
    for three in list(of.values())[::48]:
        assert (three[0].rgb == three[1].rgb).all() and (three[0].rgb == three[2].rgb).all()
    pairs = (combinations(sorted(i.category for i in three), 2) for three in of.values())
    together = Counter(pair for three in pairs for pair in three)
    assert len(together) == 15  # every two categories meet somewhere


@pytest.mark.parametrize("level", [0, 3, 4])
def test_answers_and_evidence_are_what_the_scenes_say(level):
    for item in load_benchmark("sprites_clutter", level=level)[::19]:
        found = questions.again(item.extra["scene"], item.extra["kind"], item.question)
        assert (found.answer, found.accept) == (item.reference, item.accept)
        if item.extra["objects"]:
            masks = [scenes.mask(item.extra["scene"], i) for i in item.extra["objects"]]
            assert (item.evidence == np.logical_or.reduce(masks)).all() and item.evidence.any()


def test_what_is_hidden_too_much_is_not_asked_about():
    """By hand: the apple stands where leaves hide too much of it, and the bus where they do not."""
    seen = busy(4)
    spots = [(x, y) for x in range(4, 240, 12) for y in range(4, 240, 12)]
    x, y = next(s for s in spots if scenes.too_hidden(seen.changed(0, x=s[0], y=s[1]), 0))
    scene = seen.changed(0, x=x, y=y)
    asked = questions.all_questions(scene, np.random.default_rng(0))
    about = [q for q in asked if q.evidence and 0 in q.evidence]
    assert about and not any(clutter.shows(scene, q) for q in about)
    assert all(clutter.shows(busy(3, scene=scene), q) for q in about)
    for item in load_benchmark("sprites_clutter", level=4):
        scene = item.extra["scene"]
        assert not any(scenes.too_hidden(scene, i) for i in item.extra["objects"] or ())


def test_levels_ask_the_same_of_the_same_layouts():
    first = load_benchmark("sprites_clutter-0")
    for name in ("sprites_clutter-3", "sprites_clutter-photo"):
        for a, b in list(zip(first, load_benchmark(name), strict=True))[::50]:
            assert (a.question, a.reference, a.extra["objects"]) == (
                b.question, b.reference, b.extra["objects"],
            )  # fmt: skip
            assert a.extra["scene"].objects == b.extra["scene"].objects
            assert (a.rgb != b.rgb).any()


def test_test_scenes_are_in_no_training():
    kept = {i.extra["scene"].objects for level in (3, 4)
            for i in load_benchmark("sprites_clutter", level=level)}  # fmt: skip
    for level in (0, 4):
        drawn = {s.objects for _, s in zip(range(500), scenes.stream(1000, level), strict=False)}
        assert kept.isdisjoint(drawn)
    assert all(seed < 1000 for seed in clutter.SEEDS.values())  # streams of training begin there


def test_items_can_be_drawn_again_with_one_thing_changed():
    item = next(i for i in load_benchmark("sprites_clutter", level=4) if i.extra["kind"] == "color")
    (i,) = item.extra["objects"]
    gone, scene = item.without(i), item.extra["scene"]
    assert (gone.rgb != item.rgb).any(-1)[item.evidence].mean() > 0.9 and gone.reference == ""
    new = "blue" if item.accept != ("blue",) else "red"
    assert item.recolored(i, new).accept == (new,)
    o = scene.objects[i]
    alone = item.without(*(k for k in range(len(scene.objects)) if k != i))
    spots = [(x, y) for x in range(4, 240, 8) for y in range(4, 240, 8)]
    bad = next(s for s in spots if scenes.too_hidden(scene.changed(i, x=s[0], y=s[1]), i))
    refuses("leaves would hide more than 30 %", alone.moved, 0, *bad)
    assert alone.moved(0, o.x, o.y).extra["scene"].objects == (o,)


def test_unknown_levels_and_grounds_are_told_with_what_exists():
    with pytest.raises(StudyError, match="no clutter level 5; the levels are 0, 1, 2, 3, 4"):
        load_benchmark("sprites_clutter", level=5)
    with pytest.raises(StudyError, match="no ground named 'leafs'.*leaves, photo"):
        load_benchmark("sprites_clutter", ground="leafs")
    refuses("no clutter level '3'", replace, THREE, clutter="3")
    refuses("sprites_clutter-4", load_benchmark, "sprites_clutter-7")


def test_the_contact_sheet_shows_one_picture_on_every_ground():
    figure = zoo_page.ground_figure((0, 5))
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes[:6]] == [
        "level 0", "level 1", "level 2", "level 3", "level 4", "photo",
    ]  # fmt: skip
    shown = figure.axes[6 + 3].images[0].get_array()
    assert (shown == load_benchmark("sprites_clutter-3")[15].rgb).all()
    plt.close(figure)
