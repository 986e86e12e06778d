"""What the first page says still follows from the results that it is read from."""

import re
from pathlib import Path

import pytest

from lvlm_study.sweep.results import read

BOOK = Path(__file__).resolve().parents[1] / "book"
LLAVA = "[mini/llava-1.5].sprites"


def value(key: str):
    return read(key).value


def test_what_blur_and_the_first_token_rule_hide():
    leak = [value(f"reliance.models{LLAVA}.global.{kind}.lt30") for kind in ("blur", "black")]
    assert leak[0] > 50 and leak[0] > 2 * leak[1]
    assert value(f"reliance.models{LLAVA}.existence.blur.no_crucial") > 50
    assert value(f"reliance.models{LLAVA}.all.blur.no_crucial") > 20


def test_edges_earn_most_of_the_score_and_some_method_finds_the_evidence():
    igos, edges, chance = (
        value(f"faithfulness.models{LLAVA}.{method}.grid.gap.value")
        for method in ("igos", "sobel", "random")
    )
    assert igos > edges > 0.5 * igos and abs(chance) < 0.1
    assert value(f"faithfulness.models{LLAVA}.igos.grid.gap.low") > 0.5
    assert 0 <= value(f"truth.models{LLAVA}.best.auc.below_sobel.count")


def test_the_papers_p_needs_another_unit():
    paper = value("paper/scalars[p_vision_architecture].value")
    assert value("audit.table4.vision.del.smallest") > paper
    assert value("audit.table4.vision.ins.smallest") > paper
    assert value("audit.table1.flipped_largest") <= 0.05 + 1e-9


def test_maps_give_the_shortcut_away_and_edges_do_not():
    model = "shortcut.models[mini/llava-1.5-shortcut]"
    assert value(f"{model}.methods.igos.low") > 0.5
    assert value(f"{model}.verdicts.clear.count") > value(f"{model}.verdicts.methods") / 2
    assert value(f"{model}.methods.sobel.low") < 0.5 < value(f"{model}.methods.sobel.high")
    plain = "shortcut.models[mini/llava-1.5]"
    assert value(f"{plain}.arms.wrong.follows.percent") < 10  # who cannot read is not misled


@pytest.mark.parametrize("name", ["right", "wrong", "busy"])
def test_each_word_has_a_map_or_says_that_it_has_none(name):
    text = (BOOK / "_static" / f"hero-{name}.html").read_text(encoding="utf-8")
    mute = [place for place, kind in enumerate(words(text)) if kind == "faint"]
    said = re.search(r'<p class="note" aria-live="polite">(.*?)</p>', text)[1]
    assert [int(place) for place in re.findall(r'<span class="m(\d)">This', said)] == mute
    drawn = {int(place) for place in re.findall(r'<img class="map m(\d)', text)}
    assert drawn == set(range(len(words(text)))) - set(mute) and drawn


def words(text: str) -> list[str]:
    return re.findall(r'<label [^>]*?(?:class="(\w+)")?>', text)


def test_the_score_of_the_difference_picture_is_that_of_its_chapter():
    for page in ("book/index.md", "notebooks/02_methods.md"):
        text = (BOOK.parent / page).read_text(encoding="utf-8")
        assert f"methods.models{LLAVA}.winner.same.difference.value:.2f" in text
    assert value("busy.levels[4].methods.difference.gap.low") < 0  # no better than chance
    assert value("busy.levels[4].methods.difference.gap.high") > 0
