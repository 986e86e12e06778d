"""Whatever a caller says: it works, or one sentence tells why not; never a raw exception."""

import dataclasses
import inspect
import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from test_program_use import FEW
from white_box import photo

import lvlm_study as ls
from lvlm_study.answers import Reliance, make_target
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import METHODS
from lvlm_study.models import opened
from lvlm_study.pixels.arguments import asked, number, whole
from lvlm_study.pixels.baselines import make_baseline
from lvlm_study.pixels.images import to_tensor

QUESTION, SIZE = "What is this?", (50, 40)


@pytest.fixture(scope="module")
def model(checkpoints):
    return ls.load_model(checkpoints("llava"))


@pytest.fixture(scope="module")
def answer(model):
    return model.answer(photo(SIZE), QUESTION, max_new_tokens=3)


@pytest.fixture(scope="module")
def ex(model, answer):
    """A quick map of the whole answer."""
    return ls.explain(model, photo(SIZE), QUESTION, method="center", answer=answer, tokens="all")


def item(**changes) -> ls.Item:
    told = {"id": "x", "image": photo(SIZE), "question": QUESTION, "reference": "A thing."}
    return ls.Item(**told | changes)


# --- the sweep: every public name, every parameter, values of every wrong type ----------------

WRONG = {
    "None": None,
    "5": 5,
    "-1": -1,
    "2**70": 2**70,
    "1.5": 1.5,
    "nan": math.nan,
    "inf": math.inf,
    "True": True,
    "empty text": "",
    "text": "red",
    "control text": "\0\ud800",
    "bytes": b"red",
    "[]": [],
    "[1]": [1],
    "[[1], [1, 2]]": [[1], [1, 2]],
    "['red', 5]": ["red", 5],
    "{}": {},
    "{'a': 1}": {"a": 1},
    "object": object(),
    "a class": int,
    "a function": lambda: 5,
    "vector": np.zeros(3),
    "four axes": np.zeros((2, 2, 2, 2)),
    "seven channels": np.zeros((5, 5, 7), np.uint8),
    "no pixels": np.zeros((0, 4, 3), np.uint8),
    "nan picture": np.full((*SIZE, 3), np.nan),
    "objects": np.array([None, object()]),
    "texts": np.array(["a", "b"]),
    "scalar array": np.array(2.0),
    "bool tensor": torch.tensor(True),
    "float tensor": torch.tensor([1.5, 2.5]),
    "large tensor": torch.full((1, 3, *SIZE), 7.0),
    "tiny tensor": torch.zeros(1, 3, 2, 2),
}


def calls(model, answer, ex, checkpoints) -> dict:
    """Public name -> (function, arguments with which it works and is quick)."""
    ask = {"model": model, "image": photo(SIZE), "question": QUESTION}
    target = {"threshold": 1.0, "tokens": "all", "word": None, "exclude": None}
    own = {"seed": 0, "baseline": "blur", "answer": answer}
    return {
        "load_model": (ls.load_model, {"name": checkpoints("llava"), "dtype": None}),
        "load_benchmark": (ls.load_benchmark, {"name": "photos"}),
        "Item": (ls.Item, {"id": "x", "image": photo(SIZE), "question": "?", "reference": ""}),
        "explain": (ls.explain, {**ask, **own, **target, "method": "center"}),
        "explain_tokens": (
            ls.explain_tokens, {**ask, **own, "method": "center", "by": "token"}
        ),
        "visual_reliance": (ls.visual_reliance, {**ask, **own, "threshold": 1.0}),
        "deletion_insertion": (
            ls.deletion_insertion, {"model": model, "explanation": ex, "steps": 2}
        ),
        "judge": (ls.judge, {"text": "A thing.", "item": item(), "second": None}),
        **{name: (getattr(ls, name), {}) for name in ls.__all__ if name.startswith("list_")},
        **{name: (getattr(ls, name), {}) for name in ("methods", "models", "benchmarks")},
    }  # fmt: skip


RECORDS = {"Explanation", "Answer", "Faithfulness", "StudyError"}  # what calls give back
SWEPT = [  # (public name, parameter)
    (name, parameter)
    for name in sorted(set(ls.__all__) - RECORDS)
    for parameter in [
        *inspect.signature(getattr(ls, name)).parameters,
        *(("threshold", "tokens", "word", "exclude", "answer") if name == "explain" else ()),
    ]
    if parameter != "options"
]


@pytest.mark.parametrize(("name", "parameter"), SWEPT)
def test_a_value_of_any_type_works_or_gets_a_sentence(
    model, answer, ex, checkpoints, name, parameter
):
    function, good = calls(model, answer, ex, checkpoints)[name]
    raw = []
    for label, value in WRONG.items():
        try:
            found = function(**good | {parameter: value})
            if isinstance(found, ls.Item):
                found.rgb  # noqa: B018  a picture is opened when it is looked at
        except StudyError as error:
            assert "\n" not in str(error) and 10 < len(str(error)) < 600, error
        except Exception as error:
            raw.append(f"{label}: {type(error).__name__}: {error}")
    assert not raw, "\n".join(raw)


def test_the_sweep_names_everything_that_is_public(model, answer, ex, checkpoints):
    assert set(calls(model, answer, ex, checkpoints)) == set(ls.__all__) - RECORDS
    for function, good in calls(model, answer, ex, checkpoints).values():
        function(**good)


@pytest.mark.parametrize("method", METHODS)
def test_options_of_methods_take_no_other_type(model, answer, method):
    """Values that cannot be meant, for every option of every method."""
    own = set(inspect.signature(METHODS[method]).parameters) - {"target", "seed"}
    how = {"method": method, "answer": answer, "tokens": "all", **FEW.get(method, {})}
    for option in own:
        for value in (object(), math.nan, "no such word", [], {}, True, None, b"x"):
            try:
                ls.explain(model, photo(SIZE), QUESTION, **how | {option: value})
            except StudyError as error:
                assert "\n" not in str(error)


# --- what must be refused, and how it is said ---------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": math.nan}, "threshold must be finite, not nan"),
        ({"threshold": math.inf}, "threshold must be finite"),
        ({"threshold": "1"}, r"threshold must be a number, not '1' \(str\)"),
        ({"threshold": True}, "threshold must be a number, not True"),
        ({"tokens": True}, "Token numbers are whole numbers, not True"),
        ({"tokens": [True]}, "Token numbers are whole numbers"),
        ({"exclude": "red"}, "exclude must be a set of words"),
        ({"exclude": {"red", 5}}, "exclude must be a set of words"),
        ({"word": 5}, "word must be a word or phrase"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"seed": 2**70}, "seed must be at least 0 and at most 4294967295"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"question": 5}, r"A question is text, not 5 \(int\)"),
        ({"question": ["Which?"]}, "A question is text, not a list"),
        ({"question": None}, "The question is empty; give one after the image"),
        ({"question": " "}, "The question is empty"),
        ({"baseline": 5}, "A baseline is named by text, such as 'blur', not 5"),
        ({"baseline": np.zeros((4, 4, 3), np.uint8)}, "must have the image's shape"),
        ({"baseline": np.full((*SIZE, 3), 7.0)}, r"lie in \[0, 1\]"),
        ({"baseline": torch.full((3, *SIZE), math.nan)}, r"lie in \[0, 1\]"),
        ({"method": ["igos"]}, "A method is named by text, such as 'igos', not a list"),
        ({"method": "igos", "lr": math.nan}, "lr of igos must be finite"),
        ({"method": "igos", "steps": True}, "steps of igos must be a whole number, not True"),
        ({"method": "igos", "l2_unit": 5}, "l2_unit of igos must be text"),
        ({"method": "gae", "vision": "yes"}, "vision of gae must be True or False, not 'yes'"),
        ({"model": "mini/no-such-model"}, "There is no model named"),
        ({"model": None}, "A model comes from load_model"),
    ],
)
def test_what_makes_no_sense_is_refused(model, answer, options, message):
    """Said for `explain`, and for the functions beside it that take the same argument."""
    good = {"model": model, "image": photo(SIZE), "question": QUESTION, "answer": answer}
    with pytest.raises(StudyError, match=message):
        ls.explain(**good | {"method": "center"} | options)
    for function in (make_target, ls.visual_reliance, ls.explain_tokens):
        if set(options) <= set(inspect.signature(function).parameters):
            with pytest.raises(StudyError, match=message):
                function(**good | options)


def test_a_bare_transformers_model_is_told_where_to_go(model):
    with pytest.raises(StudyError, match="this is a LlavaFor.*load_model"):
        ls.explain(model.model, photo(SIZE), QUESTION)


# --- what has a plain meaning works -------------------------------------------------------------


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_any_kind(model, answer, seed):
    how = {"answer": answer, "tokens": "all"}
    found = ls.explain(model, photo(SIZE), QUESTION, "random", seed, cells=np.int32(8), **how)
    wanted = ls.explain(model, photo(SIZE), QUESTION, "random", 3, cells=8, **how)
    assert type(found.seed) is int and np.array_equal(found.saliency, wanted.saliency)
    assert found.saliency.shape == SIZE and len(np.unique(found.grid)) == 64


def test_tokens_by_array(model, answer):
    want = make_target(model, photo(SIZE), QUESTION, answer=answer, tokens=[0, 2])[0].crucial
    for numbers in (np.array([0, 2]), torch.tensor([0, 2]), (np.int64(0), 2)):
        found = make_target(model, photo(SIZE), QUESTION, answer=answer, tokens=numbers)[0]
        assert torch.equal(found.crucial, want)


def test_a_picture_of_ones_own_as_baseline():
    """Levels in integers, [0, 1] in floats, channels first or last, PIL: all one baseline."""
    image, levels = torch.rand(1, 3, 6, 8), np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    wanted = to_tensor(levels)
    floats = wanted[0].numpy()
    for own in (
        levels,
        Image.fromarray(levels),
        wanted,
        wanted[0],
        wanted.numpy(),
        floats,
        floats.transpose(1, 2, 0),
        floats.astype(np.float64),
        torch.from_numpy(levels).permute(2, 0, 1),
    ):
        assert torch.equal(make_baseline(image, own), wanted)
    assert make_baseline(image, wanted) is not wanted
    fine = torch.full((1, 3, 6, 8), 0.123456)  # no rounding to 8 bits
    assert torch.equal(make_baseline(image, fine), fine)


def test_a_picture_of_ones_own_in_explain_and_as_fill(model, answer, ex):
    how = {"method": "gae", "answer": answer, "tokens": "all"}
    grey = np.full((*SIZE, 3), 51, np.uint8)
    found = ls.explain(model, photo(SIZE), QUESTION, baseline=grey, **how)
    assert torch.equal(found.target.baseline, torch.full((1, 3, *SIZE), 0.2))
    by_array = ls.deletion_insertion(model, ex, steps=3, fill=grey)
    by_tensor = ls.deletion_insertion(model, ex, steps=3, fill=torch.full((1, 3, *SIZE), 0.2))
    assert by_array.deletion_raw == by_tensor.deletion_raw and by_array.fill == "tensor"


@pytest.mark.parametrize("kind", [torch.tensor, np.ndarray.tolist, lambda a: a.astype(float)])
def test_a_map_of_ones_own_is_scored(model, ex, kind):
    ramp = np.linspace(0, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    own = dataclasses.replace(ex, saliency=kind(ramp))
    assert own.saliency.dtype == np.float32 and np.array_equal(own.saliency, ramp)
    wanted = ls.deletion_insertion(model, dataclasses.replace(ex, saliency=ramp), steps=3)
    assert ls.deletion_insertion(model, own, steps=3).deletion_raw == wanted.deletion_raw
    for bad in (None, "map", [[1], [1, 2]], ramp[0], np.zeros((2, 2, 2)), object()):
        with pytest.raises(StudyError, match="saliency must"):
            dataclasses.replace(ex, saliency=bad)


def test_a_model_by_its_name(checkpoints, model, answer):
    path, how = checkpoints("llava"), {"method": "gae", "answer": answer, "tokens": "all"}
    wanted = ls.explain(model, photo(SIZE), QUESTION, **how)
    for name in (path, str(path)):
        found = ls.explain(name, photo(SIZE), QUESTION, **how)
        assert np.array_equal(found.saliency, wanted.saliency)
    assert opened(str(path)) is opened(path)  # loaded once


# --- an item instead of a picture and a question ------------------------------------------------


def test_an_item_brings_its_question(model, answer):
    one, how = item(), {"method": "gae", "tokens": "all"}
    wanted = ls.explain(model, photo(SIZE), QUESTION, **how)
    for found in (
        ls.explain(model, one, **how),
        ls.explain(model, one.image, one.question, **how),
        ls.explain(model, item(question="Or this?"), QUESTION, **how),
    ):
        assert np.array_equal(found.saliency, wanted.saliency) and found.question == QUESTION
    assert model.answer(one).text == model.answer(photo(SIZE), QUESTION).text
    assert torch.equal(
        ls.visual_reliance(model, one).llr, ls.visual_reliance(model, photo(SIZE), QUESTION).llr
    )
    parts = ls.explain_tokens(model, one, method="gae", by="token", answer=answer)
    assert {part.question for part in parts} == {QUESTION}
    assert asked(one)[1] == QUESTION and asked(one, "Or?")[1] == "Or?"


def test_an_item_is_a_picture_and_stays_lazy(tmp_path):
    """`item.image` is a PIL image made anew; no picture is held before or after, nor by replace."""
    drawn = []

    def draw():
        drawn.append(1)
        return photo(SIZE)

    one = item(image=draw)
    assert not drawn
    assert isinstance(one.image, Image.Image) and one.image.mode == "RGB"
    assert np.array_equal(np.asarray(one.image), photo(SIZE)) and np.array_equal(one.rgb, one.image)
    other = dataclasses.replace(one, question="And this?")
    assert other.source is draw and other.question == "And this?" and one.source is draw
    path = tmp_path / "x.png"
    Image.fromarray(photo(SIZE)).save(path)
    for given in (path, str(path), photo(SIZE), Image.fromarray(photo(SIZE))):
        made = dataclasses.replace(one, image=given)
        assert made.source is given and np.array_equal(made.rgb, photo(SIZE))
    assert np.array_equal(pickle.loads(pickle.dumps(item())).rgb, photo(SIZE))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.image = photo(SIZE)


def test_a_picture_that_was_drawn_on_is_kept_as_it_is():
    one = item()
    picture = one.image
    picture.putpixel((0, 0), (1, 2, 3))
    small = one.image
    small.thumbnail((10, 10))
    assert one.rgb[0, 0].tolist() == photo(SIZE)[0, 0].tolist()
    assert dataclasses.replace(one, image=picture).rgb[0, 0].tolist() == [1, 2, 3]
    assert max(dataclasses.replace(one, image=small).rgb.shape[:2]) == 10


def test_benchmarks_hold_no_pictures():
    """Drawn scenes and photographs on disc alike."""
    for name in ("sprites", "photos"):
        some = ls.load_benchmark(name)[0]
        assert not isinstance(some.source, np.ndarray | Image.Image)
        assert isinstance(some.image, Image.Image) and some.image.size == some.rgb.shape[1::-1]
        again = dataclasses.replace(some, question="What else?")
        assert again.source == some.source and type(again) is type(some)


@pytest.mark.parametrize(
    "changes",
    [
        {"question": 5},
        {"reference": None},
        {"accept": "red"},
        {"accept": (5,)},
        {"options": "AB"},
        {"evidence": np.zeros((2, 2))},
        {"evidence": np.zeros(4, bool)},
        {"extra": None},
    ],
)
def test_an_item_that_is_none(changes):
    with pytest.raises(StudyError, match=f"An item's {next(iter(changes))}"):
        item(**changes)


# --- a map under another model ------------------------------------------------------------------


def test_a_map_is_scored_under_the_model_that_is_given(adapters, model, answer, ex):
    """As if that model had been asked for the same tokens of the same answer."""
    other = adapters("llava_next")
    found = ls.deletion_insertion(other, ex, steps=4)
    own = make_target(other, photo(SIZE), QUESTION, answer=answer, tokens="all")[0]
    wanted = ls.deletion_insertion(None, dataclasses.replace(ex, target=own), steps=4)
    assert np.array_equal(found.deletion_curve.raw, wanted.deletion_curve.raw)
    assert found.image_score == pytest.approx(float(own.probability(own.image)), abs=1e-6)
    assert found.image_score != ls.deletion_insertion(model, ex, steps=4).image_score
    same = ls.deletion_insertion(None, ex, steps=4)
    assert same.deletion_raw == ls.deletion_insertion(model, ex, steps=4).deletion_raw


def test_what_cannot_be_scored_is_said(adapters, ex):
    for bad in ("not a model", 5, adapters("llava").model):
        with pytest.raises(StudyError, match="[Mm]odel"):
            ls.deletion_insertion(bad, ex)
    from lvlm_study.models.planted import planted

    with pytest.raises(StudyError, match="has other tokens for"):
        ls.deletion_insertion(planted("object"), ex)


# --- small things -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("llr", "drop"),
    [
        ([math.log(2)], 0.5),
        ([1e-12], 1e-12),
        ([-math.log(2)], -1.0),
        ([math.inf], 1.0),
        ([800.0], 1.0),
        ([-math.inf, 3.0], -math.expm1(709)),
        ([-800.0, -900.0], -math.expm1(709)),
        ([math.inf, -math.inf], math.nan),
    ],
)
def test_the_drop_of_answers_beyond_all_bounds(answer, llr, drop):
    llr = torch.tensor(llr, dtype=torch.float64)
    none = torch.zeros(len(llr), dtype=torch.bool)
    found = Reliance(answer, llr, none, llr, llr, "ok").total_drop
    assert found == pytest.approx(drop, rel=1e-9, nan_ok=True)


def test_the_three_lists():
    assert ls.list_methods() == ls.methods() and "igos" in ls.list_methods()
    assert ls.list_models() == ls.models() and "mini/llava-1.5" in ls.list_models()
    assert ls.list_benchmarks() == ls.benchmarks() and "sprites" in ls.list_benchmarks()


def test_numbers():
    assert whole(np.int8(3), "n") == 3 and number(np.float32(0.5), "x") == 0.5
    with pytest.raises(StudyError, match="n must be at least 1, not 0"):
        whole(0, "n", 1)
    with pytest.raises(StudyError, match="x must be at most 2, not 3"):
        number(3, "x", most=2)
