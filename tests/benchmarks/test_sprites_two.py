"""Two pictures in one prompt: which of them has the object, and where it is."""

import numpy as np
from refusals import refuses

import lvlm_study as ls
from lvlm_study.answers import make_target
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.models.several import Among, among
from lvlm_study.scenes import scenes

ITEMS = load_benchmark("sprites_two")
PROMPTS = list(zip(ITEMS[::2], ITEMS[1::2], strict=True))


def test_every_prompt_has_its_object_in_one_of_two_pictures():
    assert len(ITEMS) == 192 and len({item.id for item in ITEMS}) == 192
    for n, (first, second) in enumerate(PROMPTS):
        assert [one.extra["place"] for one in (first, second)] == [0, 1]
        assert [one.extra["holds"] for one in (first, second)] == [n % 2 == 0, n % 2 == 1]
        assert first.question == second.question and first.reference == second.reference
        assert first.extra["picture"] == second.extra["picture"]
        holder, other = (first, second) if n % 2 == 0 else (second, first)
        assert other.evidence is None and other.extra["objects"] is None
        (i,) = holder.extra["objects"]
        assert np.array_equal(holder.evidence, scenes.mask(holder.extra["scene"], i))


def test_the_other_picture_can_neither_answer_nor_confuse():
    for first, second in PROMPTS:
        holder, other = (first, second) if first.extra["holds"] else (second, first)
        deciding = holder.extra["scene"].objects[holder.extra["objects"][0]]
        for o in other.extra["scene"].objects:
            assert o.name != deciding.name and o.color != deciding.color


def test_an_item_shows_its_own_picture_and_knows_both():
    for item in ITEMS[:4]:
        pair = item.extra["among"]
        assert np.array_equal(item.rgb, pair[item.extra["place"]].rgb)
        assert not np.array_equal(pair[0].rgb, pair[1].rgb)


def test_a_model_is_asked_about_both_pictures():
    """One answer a prompt, explained in either picture with the other shown."""
    model = ls.load_model("mini/llava-1.5-s")
    targets = [make_target(model, item) for item in ITEMS[:2]]
    assert all(isinstance(target.bound, Among) for target in targets)
    assert [target.bound.place for target in targets] == [0, 1]
    assert targets[0].answer.text == targets[1].answer.text
    plain = ls.load_benchmark("sprites")[0]
    assert among(model, plain) is model and not isinstance(make_target(model, plain).bound, Among)


def test_a_model_of_one_picture_says_so():
    refuses("one picture at a time", make_target, ls.load_model("mini/llava-ov-s"), ITEMS[0])
