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

CASES = [
    (COUNT, "There are three apples.", "correct"),
    (COUNT, "3", "correct"),
    (COUNT, "I can see 3 apples and 2 frogs.", "correct"),
    (COUNT, "There are not two but three apples.", "correct"),
    (COUNT, "There are two apples.", "wrong"),
    (COUNT, "There are no apples.", "wrong"),
    (COUNT, "No, four", "wrong"),
    (COUNT, "3 of the 5 fruits are apples.", "correct"),
    (COUNT, "Three of 4.", "correct"),
    (COUNT, "One of the apples is red.", "undecided"),
    (COUNT, "There are several apples.", "undecided"),
    (COUNT, "There are three or four apples.", "undecided"),
    (NONE, "There are no apples.", "correct"),
    (NONE, "None.", "correct"),
    (NONE, "There is one.", "wrong"),
    (THERE, "Yes, there is a frog.", "correct"),
    (THERE, "There is a frog.", "correct"),
    (THERE, "No.", "wrong"),
    (THERE, "There isn't a frog in the picture", "wrong"),
    (THERE, "Yes, there is no frog.", "undecided"),
    (THERE, "No, there is a frog.", "undecided"),
    (THERE, "A red apple.", "undecided"),
    (THERE, "", "undecided"),
    (THERE, " ?! ", "undecided"),
    (ABSENT, "There is no frog.", "correct"),
    (ABSENT, "It is not true.", "correct"),
    (ABSENT, "Yes.", "wrong"),
    (COLOUR, "The umbrella is purple.", "correct"),
    (COLOUR, "It's VIOLET!", "correct"),
    (COLOUR, "It is purple, not red.", "correct"),
    (COLOUR, "It is red.", "wrong"),
    (COLOUR, "It is not purple.", "wrong"),
    (COLOUR, "The umbrella.", "wrong"),
    (COLOUR, "It is red and purple.", "undecided"),
    (COLOUR, "It is hard to say.", "undecided"),
    (BARE, "I think that it is purple", "correct"),
    (BARE, "green", "wrong"),
    (LEFT, "The frog is to the left of the bus.", "correct"),
    (LEFT, "The bus is to the right of the frog.", "correct"),
    (LEFT, "Left.", "correct"),
    (LEFT, "The bus is to the left of the frog.", "wrong"),
    (LEFT, "on the right side", "wrong"),
    (LEFT, "The frog is above the bus.", "wrong"),
    (WHAT, "The frog is left of the bus", "correct"),
    (WHAT, "A cat", "wrong"),
    (PLACE, "This is a beach", "correct"),
    (PLACE, "This is a meadow.", "wrong"),
    (NIGHT, "It is nighttime.", "correct"),
    (NIGHT, "It is day.", "wrong"),
    (NIGHT, "It is not day.", "undecided"),
    (CUP, "A glass, not a mug.", "correct"),
    (CUP, "It is a glass rather than a mug.", "correct"),
    (CUP, "b", "correct"),
    (CUP, "The answer is (b).", "correct"),
    (CUP, "It is a mug.", "wrong"),
    (CUP, "(a)", "wrong"),
    (CUP, "It isn't a glass.", "wrong"),
    (CUP, "It is neither a mug nor a glass.", "wrong"),
    (CUP, "a bowl", "undecided"),
    (CUP, "A mug and a glass.", "undecided"),
    (BACK, "Yes, the statement is correct. There is no J.", "correct"),
    (BACK, "No, there is a J.", "wrong"),
    (ARMS, "You can see one of his arms.", "correct"),
    (ARMS, "I can see both arms.", "wrong"),
    (SIX, "six", "correct"),
    (SIX, "There are 9.", "wrong"),
    (SIX, "(B)", "correct"),
    (DOOR, "The door is closed.", "correct"),
    (DOOR, "The door is open.", "wrong"),
    (CASE, "The case is beneath the book.", "correct"),
    (CASE, "The case lies under a book.", "correct"),
    (CASE, "The case is on the book.", "wrong"),
    (SIDE, "The bed is to the right of the lamp.", "correct"),
    (SIDE, "The lamp is on the right of the bed.", "wrong"),
    (SIDE, "next to it", "undecided"),
    (LONG, "A red bus and a blue car.", "undecided"),
]


@pytest.mark.parametrize(("case", "text", "verdict"), CASES, ids=[c[1] or "empty" for c in CASES])
def test_verdict(case, text, verdict):
    assert judge(text, case) == verdict


def test_kinds():
    kinds = {"polar": THERE, "number": COUNT, "options": CUP, "free": PLACE}
    assert {k: kind(i) for k, i in kinds.items()} == {k: k for k in kinds}
    assert kind(SIX) == "number" and kind(BACK) == "polar" and kind(ARMS) == "options"


def test_reference_always_counts_and_its_denial_never():
    for case in {id(c[0]): c[0] for c in CASES}.values():
        assert judge(case.reference, case) == "correct"
        if kind(case) != "polar":
            assert judge(f"It is not true that {case.reference}", case) != "correct"


def test_one_spelling():
    assert tokens("The two Grey mugs aren't open: 1,200 glasses.") == (
        "2 gray mug are not open : 1200 glass .".split()
    )


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
