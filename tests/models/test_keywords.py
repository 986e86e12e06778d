"""Keywords against hand-read answers: whole words, whole spans, every occurrence."""

import sys

import pytest

from lvlm_study.errors import StudyError
from lvlm_study.models.keywords import keyword_spans, keywords


@pytest.fixture
def yake():
    return pytest.importorskip("yake", reason="the package yake is optional")


def test_keywords_of_short_answers(yake):
    assert set(keywords("The shape is red.")) == {"red", "shape"}
    assert keywords("Red.") == ("Red",)
    assert keywords("It is.") == () and keywords("") == ()


def test_a_number_word_is_no_keyword(yake):
    """The word that the picture decides is a stop word for YAKE: what the ablation may miss."""
    assert keywords("There are three apples.") == ("apples",)


def test_three_up_to_ten_words_then_a_quarter(yake):
    text = "The umbrella is purple and it lies to the left of the green bus on a beach."
    assert len(text.split()) == 17 and len(keywords(text)) == 4
    few = "Apples, bananas, cherries, lemons, grapes and plums."
    assert len(few.split()) == 7 and len(keywords(few)) == 3


def fake(monkeypatch, *phrases):
    monkeypatch.setattr("lvlm_study.models.keywords.keywords", lambda text: phrases)


def test_spans_are_whole_words_everywhere(monkeypatch):
    fake(monkeypatch, "12", "red bus")
    text = "A red\nbus 12, not 312; the Red bus."
    assert [text[a:b] for a, b in keyword_spans(text)] == ["red\nbus", "12", "Red bus"]


def test_a_keyword_told_twice_counts_once(monkeypatch):
    fake(monkeypatch, "cat", "Cat")
    assert keyword_spans("The cat.") == [(4, 7)]


def test_a_phrase_that_does_not_stand_in_the_text_has_no_span(monkeypatch):
    fake(monkeypatch, "York Café", "a.b")
    assert keyword_spans("New York's Café, axb") == []


def test_without_the_package_the_reader_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "yake", None)
    with pytest.raises(StudyError, match="pip install yake"):
        keywords("The shape is red.")
