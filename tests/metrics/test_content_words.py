"""Which words a rule chooses, against the word that only the picture tells."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from lvlm_study import load_benchmark
from lvlm_study.errors import StudyError
from lvlm_study.metrics import content_words

ITEMS = load_benchmark("sprites")


def row(item, tokens, hot, llr=None, answer=None):
    return {
        "model": "mini/llava-1.5", "benchmark": "sprites", "item": item.id, "baseline": "blur",
        "status": "ok", "category": item.category, "answer": answer or item.reference,
        "tokens": tokens, "crucial": [k in hot for k in range(len(tokens))],
        "llr": llr or [0.0] * len(tokens),
    }  # fmt: skip


def counted(number):
    return next(i for i in ITEMS if i.category == "counting" and f" {number} " in i.reference)


def rated(*rows):
    found = content_words.rated(pd.DataFrame(rows), ITEMS)
    return found.set_index("rule")


def split(text):
    """Words as tokens, with the full stop apart."""
    return [*(" " + w for w in text[:-1].split()), "."]


def test_a_word_of_several_tokens_is_chosen_by_its_first():
    item = counted("two")
    tokens = split(item.reference)
    at = tokens.index(" two")
    tokens[at : at + 1] = [" t", "w", "o"]
    found = rated(row(item, tokens, {at})).loc["llr"]
    assert found.recall == 1 and found.precision == 1 and found.words == 1


def test_precision_and_recall_by_hand():
    item = counted("three")
    tokens = split(item.reference)
    at = tokens.index(" three")
    both = rated(row(item, tokens, {at, at + 1})).loc["llr"]
    assert (both.recall, both.precision, both.words) == (1, 0.5, 2)
    none = rated(row(item, tokens, set())).loc["llr"]
    assert none.recall == 0 and np.isnan(none.precision) and none.words == 0


def test_the_first_token_decides_yes_or_no():
    item = next(i for i in ITEMS if i.category == "existence")
    tokens = split(item.reference)
    ratios = [2.0] + [0.0] * (len(tokens) - 1)
    found = rated(row(item, tokens, set(), ratios))
    assert found.recall["llr"] == 0 and found.recall["first"] == 1 and found.words["first"] == 1
    weak = rated(row(item, tokens, set(), [0.5] + ratios[1:]))
    assert weak.recall["first"] == 0


def test_keywords_know_no_numbers():
    item = counted("three")
    found = rated(row(item, split(item.reference), set())).loc["keywords"]
    assert found.recall == 0 and found.words > 0


def test_other_answers_do_not_count():
    item = counted("two")
    assert content_words.rated(pd.DataFrame([row(item, [" I"], set(), answer="I")]), ITEMS).empty


def test_without_the_package_keywords_are_left_out(monkeypatch):
    def missing(text):
        raise StudyError("not installed")

    monkeypatch.setattr(content_words, "known_keywords", missing)
    item = counted("two")
    assert list(rated(row(item, split(item.reference), set())).index) == ["llr", "first"]


def test_words_and_spans():
    text = "The cat is left of it."
    words = content_words.words_of(text)
    assert [text[a:b] for a, b in words] == ["The", "cat", "is", "left", "of", "it"]
    assert content_words.touched(words, [(11, 18)]) == {(11, 15), (16, 18)}
    assert content_words.touched(words, [(3, 4)]) == set()  # a blank touches nothing
    spans = content_words.chosen(
        SimpleNamespace(answer=text, tokens=[" The", " cat"], crucial=[False, True], llr=[2, 0])
    )
    assert spans["first"] == [(4, 7), (0, 3)]
