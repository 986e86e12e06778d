"""The judge: hand-made answers with known verdicts, its second tier, and its measured agreement."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from judge_agreement import agreement, main, wilson

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.benchmarks.base import Item
from lvlm_study.errors import StudyError
from lvlm_study.judging import VERDICTS, judge, kind, tokens
from lvlm_study.paths import data_dir

ANSWERS = Path(__file__).resolve().parents[2] / "shared" / "data" / "mmvp_answers"
BLANK = np.zeros((2, 2, 3), np.uint8)


def item(question, reference, accept=(), options=None):
    return Item("x", BLANK, question, reference, tuple(accept), options=options)


COUNT = item("How many apples are there?", "There are three apples.", ["three", "3"])
NONE = item("How many apples are there?", "There are no apples.", ["zero", "0"])
THERE = item("Is there a frog?", "Yes, there is a frog.", ["yes"])
ABSENT = item("Is there a frog?", "No, there is no frog.", ["no"])
COLOUR = item("What color is the umbrella?", "The umbrella is purple.", ["purple"])
LEFT = item(
    "Where is the frog relative to the bus?", "The frog is to the left of the bus.", ["left"]
)
WHAT = item("What is to the left of the bus?", "The frog is to the left of the bus.", ["frog"])
PLACE = item("What place is this?", "It is a beach.", ["beach"])
NIGHT = item("Is it day or night?", "It is night.", ["night"])
CUP = item("Is it in a mug or a glass?", "Glass", options=("Mug", "Glass"))
BACK = item("Is there no J?", "Correct", options=("Correct", "Incorrect"))
ARMS = item("One arm or both arms?", "One arm", options=("One arm", "Both arms"))
SIX = item("How many cats?", "6", options=("4", "6", "8"))
DOOR = item("Is the door open?", "No", options=("Yes", "No"))
CASE = item(
    "Which is right?",
    "The case is beneath the book.",
    options=(
        "The case is on the book.",
        "The case is beneath the cat.",
        "The case is beneath the book.",
    ),
)
SIDE = item(
    "Where is the lamp (red box) with respect to the bed?", "left", options=("left", "right")
)
BARE = item("What color is the umbrella?", "The umbrella is purple.")
LONG = item(
    "Describe the scene.", "A red bus waits at a busy corner while two tall men cross slowly."
)

SAID = [  # question, verdict, answers that get it
    (COUNT, "correct", "There are three apples. | 3 | I can see 3 apples and 2 frogs."),
    (COUNT, "correct", "There are not two but three apples. | 3 of the 5 fruits are apples."),
    (COUNT, "wrong", "There are two apples. | There are no apples. | No, four"),
    (COUNT, "correct", "Three of 4."),
    (COUNT, "undecided", "One of the apples is red. | There are several apples."),
    (COUNT, "undecided", "There are three or four apples."),
    (NONE, "correct", "There are no apples. | None."),
    (NONE, "wrong", "There is one."),
    (THERE, "correct", "Yes, there is a frog. | There is a frog."),
    (THERE, "wrong", "No. | There isn't a frog in the picture"),
    (THERE, "undecided", "Yes, there is no frog. | No, there is a frog. | A red apple. | "),
    (THERE, "undecided", " ?! "),
    (ABSENT, "correct", "There is no frog. | It is not true."),
    (ABSENT, "wrong", "Yes."),
    (COLOUR, "correct", "The umbrella is purple. | It's VIOLET! | It is purple, not red."),
    (COLOUR, "wrong", "It is red. | It is not purple. | The umbrella."),
    (COLOUR, "undecided", "It is red and purple. | It is hard to say."),
    (BARE, "correct", "I think that it is purple"),
    (BARE, "wrong", "green"),
    (LEFT, "correct", "The frog is to the left of the bus. | Left."),
    (LEFT, "correct", "The bus is to the right of the frog."),
    (LEFT, "wrong", "The bus is to the left of the frog. | on the right side"),
    (LEFT, "wrong", "The frog is above the bus."),
    (WHAT, "correct", "The frog is left of the bus"),
    (WHAT, "wrong", "A cat"),
    (PLACE, "correct", "This is a beach"),
    (PLACE, "wrong", "This is a meadow."),
    (NIGHT, "correct", "It is nighttime."),
    (NIGHT, "wrong", "It is day."),
    (NIGHT, "undecided", "It is not day."),
    (CUP, "correct", "A glass, not a mug. | It is a glass rather than a mug. | b"),
    (CUP, "correct", "The answer is (b)."),
    (CUP, "wrong", "It is a mug. | (a) | It isn't a glass. | It is neither a mug nor a glass."),
    (CUP, "undecided", "a bowl | A mug and a glass."),
    (BACK, "correct", "Yes, the statement is correct. There is no J."),
    (BACK, "wrong", "No, there is a J."),
    (ARMS, "correct", "You can see one of his arms."),
    (ARMS, "wrong", "I can see both arms."),
    (SIX, "correct", "six | (B)"),
    (SIX, "wrong", "There are 9."),
    (DOOR, "correct", "The door is closed."),
    (DOOR, "wrong", "The door is open."),
    (CASE, "correct", "The case is beneath the book. | The case lies under a book."),
    (CASE, "wrong", "The case is on the book."),
    (SIDE, "correct", "The bed is to the right of the lamp."),
    (SIDE, "wrong", "The lamp is on the right of the bed."),
    (SIDE, "undecided", "next to it"),
    (LONG, "undecided", "A red bus and a blue car."),
]
CASES = [(case, text, verdict) for case, verdict, texts in SAID for text in texts.split(" | ")]


@pytest.mark.parametrize(("case", "text", "verdict"), CASES, ids=[c[1] or "empty" for c in CASES])
def test_verdict(case, text, verdict):
    assert judge(text, case) == verdict


def test_kinds_and_one_spelling():
    kinds = {"polar": THERE, "number": COUNT, "options": CUP, "free": PLACE}
    assert {k: kind(i) for k, i in kinds.items()} == {k: k for k in kinds}
    assert kind(SIX) == "number" and kind(BACK) == "polar" and kind(ARMS) == "options"
    assert tokens("The two Grey mugs aren't open: 1,200 glasses.") == (
        "2 gray mug are not open : 1200 glass .".split()
    )


def test_reference_always_counts_and_its_denial_never():
    for case in {id(c[0]): c[0] for c in CASES}.values():
        assert judge(case.reference, case) == "correct"
        if kind(case) != "polar":
            assert judge(f"It is not true that {case.reference}", case) != "correct"


def test_second_tier_sees_only_the_undecided():
    prompts = []

    def model(prompt):
        prompts.append(prompt)
        return "No, it does not."

    assert judge("A glass.", CUP, second=model) == "correct" and not prompts
    assert judge("a bowl", CUP, second=model) == "wrong"
    assert "'Glass'" in prompts[0] and "'a bowl'" in prompts[0]
    assert judge("a bowl", CUP, second=lambda p: "Yes.") == "correct"
    assert judge("a bowl", CUP, second=lambda p: "Maybe.") == "undecided"
    assert judge("", CUP, second=model) == "undecided" and len(prompts) == 1


def test_wilson_by_hand():
    assert wilson(5, 10) == pytest.approx([0.2366, 0.7634], abs=1e-4)
    assert wilson(10, 10) == pytest.approx([0.7225, 1.0], abs=1e-4)


def labels():
    with (data_dir() / "judge" / "mmvp_labels.csv").open() as file:
        return list(csv.DictReader(file))


def test_labels_hold_no_text_and_split_by_pair():
    rows = labels()
    assert len(rows) >= 150 and list(rows[0]) == ["answers", "row", "split", "label"]
    held = [r for r in rows if r["split"] == "held-out"]
    assert len(held) >= len(rows) / 2 and {r["label"] for r in rows} <= set(VERDICTS)
    pairs = [{(int(r["row"]) + 1) // 2 for r in rows if (r in held) == h} for h in (True, False)]
    assert not pairs[0] & pairs[1]


def test_committed_agreement_is_what_the_tool_gives(tmp_path, capsys):
    if not ANSWERS.is_dir():
        pytest.skip("the MMVP answers (shared/data/mmvp_answers) are not here")
    assert main(["--answers", str(ANSWERS), "--out", str(tmp_path / "a.json")]) == 0
    again = json.loads((tmp_path / "a.json").read_text())
    assert again == json.loads((data_dir() / "judge" / "agreement.json").read_text())
    assert again["n"] == len([r for r in labels() if r["split"] == "held-out"])
    assert again["agreement"] >= 0.9 and again["interval95"][0] > 0.85
    cells = again["confusion"]
    assert cells["correct"]["wrong"] == cells["wrong"]["correct"] == 0


def test_agreement_says_what_is_missing(tmp_path, capsys):
    assert main(["--answers", str(tmp_path)]) == 2
    assert "--answers takes the folder" in capsys.readouterr().err
    with pytest.raises(StudyError, match="no rows of the split"):
        agreement(tmp_path, data_dir() / "judge" / "mmvp_labels.csv", split="other")


def test_every_sprite_answer_is_told_from_its_rivals():
    """The references of other scenes that share a question are the natural wrong answers."""
    by_question = {}
    for sprite in load_benchmark("sprites"):
        by_question.setdefault(sprite.question, []).append(sprite)
    for group in by_question.values():
        rivals = {sprite.reference for sprite in group}
        for sprite in group:
            assert {judge(t, sprite) for t in (sprite.reference, *sprite.accept)} == {"correct"}
            for rival in rivals - {sprite.reference}:
                assert judge(rival, sprite) == "wrong", (sprite.question, sprite.reference, rival)
