"""The zoo's table of results: shares, times, small objects and mistakes, and what cards say."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch14_zoo as zoo_page
from lvlm_study.errors import StudyError
from lvlm_study.sweep import results
from lvlm_study.zoo import accuracy, card, small, times


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "zoo" / "tiny"
    folder.mkdir(parents=True)
    counts = {"picture": {"spatial": [3, 4], "global": [1, 4]}, "blurred": {"spatial": [0, 4]}}
    counts["mean colour"] = {"spatial": [0, 4]}
    (folder / "accuracy.json").write_text(json.dumps(counts))
    (folder / "config.json").write_text('{"architectures": ["Tiny"]}')
    (folder / "README.md").write_text("# mini/tiny\n")
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(5)}, folder / "model.safetensors")
    return tmp_path


def test_shares_and_intervals_by_hand(data):
    found = accuracy.gather(data / "zoo")["mini/tiny"]
    assert found["picture"]["spatial"]["percent"] == 75 and found["picture"]["spatial"]["n"] == 4
    assert found["picture"]["all"]["percent"] == 50 and found["picture"]["all"]["n"] == 8
    cell = found["picture"]["all"]  # Wilson: 0.5 -+ 1.96 sqrt(1/32 + 1.96²/256) / (1 + 1.96²/8)
    assert cell["low"] == pytest.approx(21.52, abs=0.01)
    assert cell["high"] == pytest.approx(78.48, abs=0.01)
    assert found["blurred"]["all"]["percent"] == 0 == found["blurred"]["all"]["low"]


def test_the_book_reads_what_was_written(data):
    accuracy.write(data)
    assert results.read("zoo.models[mini/tiny].picture.spatial.percent", data).value == 75
    assert results.read("zoo.about[mini/tiny].parameters", data).value == 11
    assert results.read("zoo.range.picture.high", data).value == 50


def test_bad_and_missing_counts_are_named(data, tmp_path):
    (data / "zoo" / "tiny" / "accuracy.json").write_text("{")
    with pytest.raises(StudyError, match="tiny/accuracy.json is no JSON"):
        accuracy.write(data)
    (data / "zoo" / "tiny" / "accuracy.json").unlink()
    with pytest.raises(StudyError, match="train a member first"):
        accuracy.write(data)


def test_a_detector_answers_no_questions(data):
    (data / "zoo" / "owl").mkdir()
    (data / "zoo" / "owl" / "accuracy.json").write_text('{"ap50": 0.5}')
    assert list(accuracy.gather(data / "zoo")) == ["mini/tiny"]


def test_a_card_is_amended_once_and_again(data):
    folder = data / "zoo" / "tiny"
    stages = {f"member-tiny-0/{k}": {"steps": 9, "minutes": 5.0} for k in ("connector", "course-1")}
    others = {"tower-a-0": {"steps": 9, "minutes": 7}, "member-tiny-1/course-1": {"minutes": 7}}
    (data / "zoo" / times.NAME).write_text(json.dumps(stages | others))
    accuracy.write(data)
    first = (folder / "README.md").read_text()
    assert "about 10 minutes" in first and first.startswith("# mini/tiny\n\n" + card.LATER)
    accuracy.write(data)
    assert (folder / "README.md").read_text() == first
    card.amend(folder, "Other words.")
    assert (folder / "README.md").read_text() == f"# mini/tiny\n\n{card.LATER}\n\nOther words.\n"


def test_a_card_says_what_a_member_starts_from(data):
    folder = (data / "zoo" / "tiny").rename(data / "zoo" / "cambrian-m-seed2")
    (folder / "curve.json").write_text('[{"step": 400, "spatial": 0.5, "seconds_per_step": 1.0}]')
    accuracy.write(data)
    told = (folder / "README.md").read_text()
    assert "the language model of mini/llava-1.5-m." in told and "Seed 2." in told
    assert "400, of 16 pictures each" in told and "| global | 4 | 25 [5, 70] | - | - |" in told
    assert told.count(card.LATER) == 1


# --- time


def test_minutes_by_hand():
    lines = [{"step": 20, "seconds_per_step": 3.0}, {"step": 60, "seconds_per_step": 1.5}]
    assert times.minutes(lines) == 2  # 20 x 3 s and 40 x 1.5 s
    again = [{"step": 40, "seconds_per_step": 9.0}, {"step": 80, "seconds_per_step": 3.0}]
    assert times.minutes(lines + again) == 3  # made again up to step 60, then 20 x 3 s
    assert times.minutes([]) == 0


def test_stages_are_noted_beside_those_of_other_work_folders(tmp_path):
    line = {"step": 60, "loss": 1.0, "seconds_per_step": 1.0}
    for name in ("tower-a-0", "tower-b-0", "member-x-0/course-1", "tried-something"):
        folder = tmp_path / "work" / name
        folder.mkdir(parents=True)
        text = json.dumps(line | {"loss": len(name)}) if name != "tower-b-0" else None
        (folder / "log.jsonl").write_text(text or json.dumps(line | {"loss": len("tower-a-0")}))
    (tmp_path / times.NAME).write_text('{"tower-z-0": {"steps": 1, "minutes": 2}}')
    times.note(tmp_path / "work", tmp_path)
    found = times.read(tmp_path)  # b is a copy of a's log, and what was only tried is no stage
    assert list(found) == ["member-x-0/course-1", "tower-a-0", "tower-z-0"]
    assert found["tower-a-0"] == {"steps": 60, "minutes": 1.0}


# --- small objects


def verdicts(**right) -> pd.DataFrame:
    """Reliance rows: for each model a string of c (correct) and w (wrong), one an item."""
    return pd.DataFrame(
        {"model": f"mini/{m.replace('_', '-')}", "benchmark": "sprites", "item": str(i)}
        | {"verdict": {"c": "correct", "w": "wrong"}[v]}
        for m, every in right.items()
        for i, v in enumerate(every)
    ).replace("mini/llava-15", "mini/llava-1.5")


SIZES = pd.DataFrame(
    {"item": [str(i) for i in range(20)], "category": "attribute", "area": [1] * 12 + [9] * 8}
)


def test_small_objects_by_hand():
    rows = verdicts(llava_15="w" * 12 + "c" * 8, llava_ov="c" * 12 + "c" * 4 + "w" * 4)
    found = small.compare(rows, SIZES)
    assert found["pixels"] == 1 and found["n"] == 12
    ov, one = found["members"]["mini/llava-ov"], found["members"]["mini/llava-1.5"]
    assert (ov["small"]["percent"], ov["larger"]["percent"]) == (100, 50)
    assert (one["small"]["percent"], one["larger"]["percent"]) == (0, 100)
    pair = ov["against"]
    assert pair["member"] == "mini/llava-1.5" and pair["difference"] == 100 and pair["n"] == 12
    assert (pair["only_this"], pair["only_other"]) == (12, 0) and "against" not in one
    assert pair["p"] == pytest.approx(2 / 2**12) and pair["verdict"] == "beats"
    assert (found["compared"], found["beating"], found["behind"]) == (1, 1, 0)
    assert "It beats mini/llava-1.5" in small.sentence("mini/llava-ov", found)
    assert small.sentence("mini/other", found) == ""


def test_equal_members_do_not_beat_each_other():
    found = small.compare(verdicts(llava_15="c" * 20, cambrian_l="c" * 20), SIZES)
    pair = found["members"]["mini/cambrian-l"]["against"]
    assert pair["difference"] == 0 and pair["p"] == 1 and pair["verdict"] == "does not beat"
    assert "does not beat mini/llava-1.5" in small.sentence("mini/cambrian-l", found)


def test_falling_behind_is_said():
    found = small.compare(verdicts(llava_15="c" * 20, mini_gemini_l="w" * 20), SIZES)
    assert found["members"]["mini/mini-gemini-l"]["against"]["verdict"] == "falls behind"
    assert found["behind"] == 1


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("mini/llava-ov", "mini/llava-1.5"),
        ("mini/llava-ov-s", "mini/llava-1.5-s"),
        ("mini/cambrian-s-seed2", "mini/llava-1.5-s"),
        ("mini/mini-gemini-hd-m", "mini/llava-1.5-m"),
        ("mini/llava-1.5", None),
        ("mini/llava-1.5-shortcut", None),
        ("some/other", None),
    ],
)
def test_who_has_to_beat_whom(name, other):
    assert small.reference(name) == other


def test_sizes_of_the_test_set():
    """A counting question is as small as its smallest object; absent objects have no size."""
    sizes = small.smallest().set_index("item")
    known = {item.id: item for item in load_benchmark("sprites")}
    assert "sprites/global-000" not in sizes.index and 300 < len(sizes) < 576
    for name in ("sprites/attribute-000", "sprites/counting-082"):
        item = known[name]
        count = len(item.extra["objects"])
        assert sizes.area[name] <= item.evidence.sum() / count
        assert (sizes.area[name] == item.evidence.sum()) == (count == 1)


# --- mistakes


def test_mistakes_by_hand():
    items = load_benchmark("sprites")
    counting = [item for item in items if item.category == "counting"][:2]
    rows = pd.DataFrame(
        {"model": m, "benchmark": "sprites", "item": item.id, "category": "counting"}
        | {"question": item.question, "verdict": v, "answer": "There are two cats."}
        for m, item, v in [
            ("a", counting[0], "wrong"),
            ("b", counting[0], "wrong"),
            ("b", counting[1], "correct"),
        ]
    )
    bad = zoo_page.wrong(pd.concat([rows, rows]), items)  # a row a baseline: counted once
    assert list(bad.model) == ["a", "b"] and list(bad.missed_by) == [2, 2]
    found = zoo_page.mistakes_summary(
        bad.assign(truth=["There are three cats.", "There are four cats."])
    )
    assert (found["wrong"], found["items"], found["shared"]) == (2, 1, 1)
    assert (found["hardest"], found["counts"], found["off_by_one"]) == ("counting", 2, 1)
    assert found["off_by_one_by_chance"] == pytest.approx(50)  # 2 of 3 for three, 1 of 3 for four
    assert zoo_page.mistakes_summary(bad[:0]) == {"wrong": 0, "items": 0, "shared": 0, "counts": 0}


def test_numbers_in_answers():
    assert zoo_page.count_said("There are three cats.") == 3 and zoo_page.count_said("Four") == 4
    assert zoo_page.count_said("There is no cat.") is None


def test_examples_are_of_different_kinds_first():
    bad = pd.DataFrame({"model": "a", "category": list("ccccde"), "item": list("123456")})
    assert list(zoo_page.chosen(bad).item) == ["1", "5", "6"]
    assert list(zoo_page.chosen(bad, 4).item) == ["1", "5", "6", "2"]


# --- the page


@pytest.fixture(scope="module")
def committed():
    return zoo_page.read(results.data_dir() / "results" / "mini")


def test_tables_have_a_row_for_every_member(committed):
    zoo, _ = committed
    for table in (zoo_page.who(zoo), zoo_page.accuracy_table(zoo)):
        assert list(table.member) == list(zoo["models"])
    assert zoo_page.who(zoo).sees.notna().all() and len(zoo_page.stage_table(zoo)) > 2
    assert set(zoo_page.small_table(zoo).member) <= set(zoo["models"]) == set(zoo["about"])


def test_longest_beginning_of_a_name_wins():
    assert zoo_page.sees("mini/mini-gemini-hd-l") == zoo_page.SEES["mini-gemini-hd"]
    assert zoo_page.sees("mini/llava-1.5-s") == zoo_page.SEES["llava-1.5"]
    assert zoo_page.sees("mini/unheard") is None


def test_every_committed_card_has_its_sentence(committed):
    zoo, _ = committed
    for name in zoo["small"]["members"]:
        text = (results.data_dir() / "zoo" / name.removeprefix("mini/") / "README.md").read_text()
        assert small.sentence(name, zoo["small"]) in text


def test_figures_show_every_member(committed):
    zoo, rows = committed
    axes = zoo_page.curve_figure(zoo).axes
    assert len(axes) == 6 and len(axes[0].lines) == len(zoo["models"])
    figure = zoo_page.failure_figure(rows, load_benchmark("sprites"), each=2)
    failing = set(zoo_page.wrong(rows, load_benchmark("sprites")).model)
    shown = {name for name in failing if "-seed" not in name}
    assert len(figure.axes) == 2 * len(shown) < 2 * len(failing)
    assert all("✗" in ax.get_title() for ax in figure.axes if ax.images)
