"""SpriteVQA's controlled subsets: edits that flip answers, strips and styles."""

import hashlib
import json
import re

import numpy as np
import pytest
from refusals import refuses

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.benchmarks import sprite_subsets as subsets
from lvlm_study.benchmarks.mmvp import pair_scores
from lvlm_study.paths import data_dir
from lvlm_study.scenes import pairs, prior, questions, scenes, shortcut, styles, testset
from lvlm_study.scenes.scenes import Scene, Sprite
from lvlm_study.scenes.shortcut import Strip

FILES = {
    "pairs": "3b451d3bad31dd31620b0edb04f325a57f0f1f54cbcc22c776cefeb9311fc070",
    "prior": "57d67e1edbaf6874d31288bf87d9e6d9d75755275cf32ab698d295726dbb7e78",
    "shortcut": "4bb89c8b06772792399859f2ffb4592dc64e9d5aae3f4c71452d24b2ba9c4d0f",
    "describe": "ddb7342503486bb17102d18676fc72c9a73c00f8ef05dd0ba914a88128a06e91",
}
BUILD = {
    "pairs": pairs.build,
    "prior": prior.build,
    "shortcut": shortcut.build,
    "describe": testset.build_descriptions,
}
COUNTS = {"pairs": 288, "prior": 120, "shortcut": 192, "describe": 60}
APPLE = Sprite("apple", "red", "large", 10, 20)
BUS = Sprite("bus", "blue", "small", 250, 30)
TWO = Scene("meadow", False, 150, 0, 1, (APPLE, BUS))


def digest(picture: np.ndarray) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_those_that_were_published_and_can_be_made_again(name):
    path = data_dir() / "sprites" / f"{name}.jsonl"
    assert digest(np.frombuffer(path.read_bytes(), np.uint8)) == FILES[name]
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    made = [record for _, record in zip(range(6), BUILD[name](), strict=False)]
    assert json.loads(json.dumps(made)) == kept[:6] and len(kept) == COUNTS[name]


@pytest.mark.parametrize("name", FILES)
def test_items_are_named_and_drawn_as_recorded(name):
    items = load_benchmark(f"sprites_{name}")
    assert len({i.id for i in items}) == COUNTS[name]
    assert all(i.id.startswith(f"sprites_{name}/") for i in items)
    for item in items[::29]:
        assert digest(item.rgb) == item.extra["sha256"]
        a, b = item.extra["content_span"]
        assert not item.accept or item.reference[a:b].lower() == item.accept[0]


# --- pairs ---------------------------------------------------------------------------------
def pairs_of_items():
    groups = {}
    for item in load_benchmark("sprites_pairs"):
        groups.setdefault(item.extra["pair"], []).append(item)
    return list(groups.values())


def test_one_edit_flips_the_answer_to_one_question():
    found = pairs_of_items()
    assert len(found) == 144
    for a, b in found:
        assert a.question == b.question and a.category == b.category
        assert a.reference != b.reference and a.accept != b.accept
        one, other = a.extra["scene"], b.extra["scene"]
        changed = (one.place != other.place) + (one.night != other.night)
        changed += max(
            len(set(one.objects) - set(other.objects)), len(set(other.objects) - set(one.objects))
        )
        assert changed == 1 and one.texture == other.texture
    existence = [p for p in pairs_of_items() if p[0].category == "existence"]
    first_yes = sum(p[0].reference.startswith("Yes") for p in existence)
    assert 4 <= first_yes <= 20  # 24 fair coins leave this range once in 5,000 files


def test_both_answers_are_what_the_scenes_say():
    for pair in pairs_of_items()[::7]:
        for item in pair:
            q = questions.again(item.extra["scene"], item.extra["kind"], item.question)
            assert (q.answer, q.accept) == (item.reference, item.accept)


def test_pixels_differ_only_where_the_edit_was():
    for a, b in pairs_of_items()[::9]:
        if a.category == "global":
            continue
        mine, theirs = set(a.extra["scene"].objects), set(b.extra["scene"].objects)
        near = np.zeros((336, 336), bool)
        for o in mine ^ theirs:
            near[o.y : o.y + o.side, o.x : o.x + o.side] = True
        assert not (a.rgb != b.rgb).any(-1)[~near].any()


def test_a_blind_model_scores_half_of_the_rows_and_no_pair():
    items = [i for i in load_benchmark("sprites_pairs") if i.extra["kind"] == "light"]
    verdicts = ["correct" if "day" in i.accept else "wrong" for i in items]
    scores = pair_scores(items, verdicts)
    assert scores["rows_low"] == 0.5 and scores["pairs"] == 0.0
    assert pair_scores(items, ["correct"] * len(items))["pairs"] == 1.0


# --- counterfactuals -----------------------------------------------------------------------
def item_like(kind: str, where=lambda item: True):
    return next(i for i in load_benchmark("sprites") if i.extra["kind"] == kind and where(i))


def test_without_an_object_its_pixels_become_background():
    item = item_like("color")
    (i,) = item.extra["objects"]
    gone = item.without(i)
    assert gone.reference == "" and gone.evidence is None and gone.question == item.question
    scene = item.extra["scene"]
    empty = scenes.draw(scene.without(*range(len(scene.objects))))
    assert (gone.rgb[item.evidence] == empty[item.evidence]).all()
    assert (gone.rgb != item.rgb)[item.evidence].any()
    assert gone.id == f"{item.id}~without-{i}" and gone.extra["sha256"] is None


def test_without_a_bystander_the_answer_and_its_evidence_stay():
    item = item_like("color", lambda i: i.extra["objects"] != [0])
    other = item.without(0)
    assert other.reference == item.reference and (other.evidence == item.evidence).all()
    assert other.extra["objects"] == (item.extra["objects"][0] - 1,)


def test_recoloured_items_have_the_new_answer():
    item = item_like("color")
    (i,) = item.extra["objects"]
    new = "blue" if item.accept != ("blue",) else "red"
    changed = item.recolored(i, new)
    assert changed.accept == (new,) and changed.reference.endswith(f"is {new}.")
    a, b = changed.extra["content_span"]
    assert changed.reference[a:b] == new and (changed.evidence == item.evidence).all()


def test_counting_goes_down_to_zero():
    item = item_like("counting", lambda i: i.reference.startswith("There are three"))
    objects = item.extra["objects"]
    assert item.without(objects[0]).reference.startswith("There are two ")
    assert item.without(*objects).reference.startswith("There are zero ")


def test_an_object_that_goes_turns_yes_into_no():
    item = item_like("existence", lambda i: i.accept == ("yes",) and len(i.extra["objects"]) == 1)
    assert item.without(*item.extra["objects"]).accept == ("no",)
    rest = set(range(len(item.extra["scene"].objects))) - set(item.extra["objects"])
    alone = item.without(*rest)
    assert alone.accept == ("yes",) and alone.extra["objects"] == (0,)


def test_moving_an_object_moves_its_evidence():
    item = item_like("corner", lambda i: i.accept == ("top left",))
    (i,) = item.extra["objects"]
    others = [k for k in range(len(item.extra["scene"].objects)) if k != i]
    moved = item.without(*others).moved(0, 220, 220)
    assert moved.accept == ("bottom right",) and moved.evidence[220:, 220:].any()
    assert not moved.evidence[:220].any()


def test_impossible_counterfactuals_are_refused():
    item = item_like("color")
    refuses("no object 99", item.without, 99)
    refuses("did you mean red", item.recolored, 0, "rad")
    refuses("choose a free spot", item.moved, 0, 330, 330)
    other = item.extra["scene"].objects[1]
    refuses("choose a free spot", item.moved, 0, other.x, other.y)


# --- prior ---------------------------------------------------------------------------------
def test_triples_share_scene_and_question():
    items = load_benchmark("sprites_prior")
    for zero, plus, minus in zip(items[::3], items[1::3], items[2::3], strict=True):
        assert [i.extra["arm"] for i in (zero, plus, minus)] == ["P0", "P+", "P-"]
        assert plus.question == minus.question and plus.extra["prior"] == plus.accept[0]
        assert minus.extra["prior"] == plus.accept[0] != minus.accept[0]
        assert zero.evidence is None and (plus.evidence == minus.evidence).all()
        assert (zero.rgb == plus.rgb).all()


def test_questions_without_a_picture_are_true():
    kinds = scenes.atlas()["kinds"]
    said = [i for i in load_benchmark("sprites_prior") if i.extra["arm"] == "P0"]
    for item in said:
        name, right = re.fullmatch(r"An? (\w+) is an? (\w+)\.", item.reference).groups()
        assert kinds[name] == right and item.accept == (right,)
    first = [re.search(r"(animal|vehicle|fruit) or", i.question)[1] == i.accept[0] for i in said]
    assert 10 <= sum(first) <= 30  # "the first one" is no good guess


# --- shortcut ------------------------------------------------------------------------------
def test_the_arms_differ_in_the_strip_alone():
    items = load_benchmark("sprites_shortcut")
    for k in range(0, len(items), 20):
        four = items[k : k + 4]
        assert [i.extra["arm"] for i in four] == list(shortcut.ARMS)
        y = four[1].extra["strip"].y
        rows = np.ones(336, bool)
        rows[y : y + shortcut.HEIGHT] = False
        clean = four[0].rgb
        for item in four[1:]:
            assert (item.rgb[rows] == clean[rows]).all() and (item.rgb != clean).any()
        assert four[0].extra["strip"] is None
        assert four[1].extra["strip"].text.lower() == four[0].accept[0].lower()
        assert four[2].extra["strip"].text.lower() == four[0].extra["wrong"].lower()


def test_a_strip_hides_no_evidence_and_lies():
    for item in load_benchmark("sprites_shortcut"):
        strip, scene = item.extra["strip"], item.extra["scene"]
        if strip:
            rows = slice(strip.y, strip.y + shortcut.HEIGHT)
            for i in range(len(scene.objects)):
                assert not scenes.mask(scene, i)[rows].any()
        assert item.extra["wrong"].lower() != item.accept[0]


def test_the_word_is_dark_inside_its_mask_and_nowhere_else():
    paper = np.zeros((336, 336, 3), np.uint8)
    strip = Strip("BUS", 294)
    shown, box = strip.stamp(paper), strip.mask()
    dark = (shown[..., 0] < shortcut.PAPER) & (np.arange(336) >= 294)[:, None]
    assert dark[box].any() and not dark[~box].any() and not paper.any()
    assert (shown[294:][~box[294:]] == shortcut.PAPER).all() and shown.min() == 0
    ys, xs = np.nonzero(box)
    assert abs((xs.min() + xs.max()) / 2 - 167.5) < 4 and 290 < ys.min() and ys.max() < 336


def test_neutral_words_have_about_as_much_ink():
    items = load_benchmark("sprites_shortcut")
    amount = [int(shortcut.ink(i.extra["strip"].text).sum()) for i in items if i.extra["strip"]]
    right, neutral = np.array(amount[::3]), np.array(amount[2::3])
    assert np.median(abs(neutral / right - 1)) < 0.06
    words = {n.upper() for n in (*scenes.names(), *scenes.COLORS, *questions.NUMBERS)}
    assert words.isdisjoint(w for w in shortcut.NEUTRAL if w != "NO")


def test_evidence_depends_on_the_answer():
    clean, right, wrong, neutral = load_benchmark("sprites_shortcut")[:4]
    assert (subsets.evidence_given(wrong, wrong.reference) == wrong.evidence).all()
    followed = subsets.evidence_given(wrong, f"It is {wrong.extra['wrong']}.")
    assert (followed == wrong.extra["strip"].mask()).all()
    assert subsets.evidence_given(right, right.reference) is None  # cannot be told
    assert subsets.evidence_given(neutral, "Something else.") is None
    assert (subsets.evidence_given(clean, clean.reference) == clean.evidence).all()


# --- descriptions --------------------------------------------------------------------------
def test_descriptions_name_everything():
    for item in load_benchmark("sprites_describe")[::6]:
        assert item.reference == questions.describe(item.extra["scene"])
        assert len(item.extra["objects"]) == len(item.extra["scene"].objects)
        score = subsets.description_score(item, item.reference)
        assert score == {"recall": 1, "precision": 1, "objects": 1}


def test_description_score_by_hand():
    text = "The picture shows a beach by night with a red cat in the top left."
    assert subsets.facts(text) == {("beach",), ("night",), ("red", "cat", "top left")}
    item = load_benchmark("sprites_describe")[0]
    n = len(item.extra["scene"].objects)
    place = item.extra["scene"].place
    other = "a purple guitar in the bottom left"
    score = subsets.description_score(item, f"A {place}, with {other} or so.")
    assert score["recall"] == 1 / (n + 2) and score["precision"] == 0.5 and score["objects"] == 0
    assert np.isnan(subsets.description_score(item, "Nothing.")["precision"])


# --- styles --------------------------------------------------------------------------------
def test_styles_are_the_same_bytes_everywhere():
    kept = {
        "shaded": "c03e39698a7010781269907441747ce5a9cd6a9625ff32cddc55547fc20cc3c4",
        "flat": "22e872858a5c692a1bd25b622cc51d3834a23bf58e310a34a1cccbea147cee61",
        "outline": "e21ff77a55ad6feb2d4760b684b40b655b4e76738764815d5c389f2ed627f5bc",
    }
    assert {s: digest(styles.draw(TWO, s)) for s in styles.STYLES} == kept


def test_styles_change_objects_and_nothing_else():
    shaded = styles.draw(TWO)
    cells = np.zeros((336, 336), bool)
    for o in TWO.objects:
        cells[o.y : o.y + o.side, o.x : o.x + o.side] = True
    for style in ("flat", "outline"):
        differ = (styles.draw(TWO, style) != shaded).any(-1)
        assert differ[scenes.mask(TWO, 0)].mean() > 0.5 and not differ[~cells].any()
    refuses("did you mean flat", styles.draw, TWO, "flatt")


def test_a_silhouette_has_one_tone_and_a_line_drawing_has_paper():
    light, alpha = scenes._cell(APPLE)
    red, inside = np.array(scenes.COLORS["red"], np.int32), (light >= 70) & (alpha == 255)
    assert len(np.unique(styles.flat(red, light)[inside], axis=0)) == 1
    drawn = styles.outline(red, light)
    tones = {tuple(t) for t in drawn[inside].tolist()}
    assert tones == {(245, 245, 245), scenes.COLORS["red"]}
    disc = np.zeros((9, 9), np.int32)
    disc[1:8, 1:8] = 200
    assert (styles.outline(red, disc)[..., 1] == 245).sum() == 1  # 7 less 3 on either side


def test_the_other_styles_keep_questions_and_evidence():
    plain = load_benchmark("sprites")
    for style in ("flat", "outline"):
        items = load_benchmark(f"sprites_{style}")
        assert len(items) == 576 and items[5].id == f"sprites_{style}/attribute-005"
        for a, b in list(zip(plain, items, strict=True))[::97]:
            assert (a.question, a.reference) == (b.question, b.reference)
            assert (a.rgb != b.rgb).any() and np.array_equal(b.evidence, a.evidence)
            assert (b.without(0).rgb == styles.draw(b.extra["scene"].without(0), style)).all()
