"""The picture that people click: every word has its own map, and nobody needs a script."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from refusals import refuses

import lvlm_study as ls
from lvlm_study.errors import StudyError
from lvlm_study.models.planted import planted, planted_scene

SCENE = planted_scene((64, 96))


@pytest.fixture(scope="module")
def words():
    return ls.explain_tokens(
        planted("object"), SCENE, "What <is> it?", "occlusion", baseline="black"
    )


def pictures(page) -> list[Image.Image]:
    found = re.findall(r'data:image/webp;base64,([^"]+)"', str(page))
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in found]


def test_the_map_of_a_word_lies_where_the_word_looks(words):
    picture, shade = pictures(ls.show(words[3]))
    assert picture.size == (96, 64)
    assert np.abs(np.asarray(picture, float) - SCENE).mean() < 8  # lossy, and the same picture
    alpha = np.asarray(shade)[..., 3] / 255.0  # (H, W), clear where the map is 0
    saliency = words[3].saliency
    assert alpha[saliency == saliency.max()].mean() > 0.7
    assert alpha[saliency <= 0].mean() < 0.05


def test_every_word_can_be_chosen_and_the_most_visual_one_is(words):
    text = str(ls.show(words))
    assert re.findall(r"<label[^>]*>([^<]*)</label>", text) == ["The", "shape", "is", "red"]
    assert [" checked" in one for one in re.findall(r"<input[^>]*>", text)] == [False] * 3 + [True]
    assert len(set(re.findall(r'<input[^>]*name="([^"]*)"', text))) == 1  # one group of buttons
    assert text.count('class="faint"') == 3 and "<script" not in text
    assert "What &lt;is&gt; it?" in text


def test_a_word_without_a_map_says_so_aloud(words):
    text = str(ls.show(words))
    said = re.search(r'<p class="note" aria-live="polite">(.*?)</p>', text)[1]
    told = "This word needs no picture: it has no map."
    assert re.findall(r'<span class="(m\d)">([^<]*)</span>', said) == [
        (f"m{place}", told) for place in range(3)
    ]
    assert len(pictures(text)) == 2 and 'class="map m3' in text  # nothing to see below the sentence
    assert "those underlined have a map" in text


def test_a_notebook_shows_an_explanation_by_itself(words):
    text = words[3]._repr_html_()
    assert "The shape is <strong>red</strong>." in text and "Occlusion" in text
    names = re.findall(r'id="(lvlm-[^"]*)"', text + words[3]._repr_html_())
    assert len(set(names)) == 2  # twice on a page, each its own


def test_two_stand_side_by_side(words):
    text = str(ls.show(words, words[3]))
    assert text.count("<figure") == 2 and text.startswith("<style>")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "no_crucial_tokens"}, "there is no map"),
        ({"status": "no_gap"}, "of this word by less than 0.05, so its map says little"),
        ({"status": "constant"}, "the same value everywhere"),
    ],
)
def test_a_map_that_says_nothing_is_not_drawn_as_one(words, change, said):
    silent = replace(words[3], saliency=np.zeros((64, 96)), **change)
    assert said in str(ls.show(silent)) and len(pictures(ls.show(silent))) == 1


def test_a_weak_blur_is_told_below_the_picture():
    wide = np.zeros((8, 2400, 3), np.uint8)
    ex = ls.explain(planted("object"), wide, "?", "center", tokens="all")
    assert "501 px at most, and weak on a picture of 2400 x 8" in str(ls.show(ex))


@pytest.mark.parametrize("wrong", [(), (None,), ("red",), ([],), ([1],)])
def test_anything_else_is_told(wrong):
    refuses("show (needs|takes)", ls.show, *wrong)


def test_words_of_two_answers_are_told(words):
    with pytest.raises(StudyError, match="different answers"):
        ls.show([words[0], ls.explain(planted("object"), SCENE, "Another?", "occlusion")])
