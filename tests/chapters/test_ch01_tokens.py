"""Which words a rule chooses, against the word that only the picture tells."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from lvlm_study import load_benchmark
from lvlm_study.chapters import ch01_reliance, compare
from lvlm_study.errors import StudyError

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
    found = ch01_reliance.rated(pd.DataFrame(rows), ITEMS)
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
    assert ch01_reliance.rated(pd.DataFrame([row(item, [" I"], set(), answer="I")]), ITEMS).empty


def test_without_the_package_keywords_are_left_out(monkeypatch):
    def missing(text):
        raise StudyError("not installed")

    monkeypatch.setattr(ch01_reliance, "known_keywords", missing)
    item = counted("two")
    assert list(rated(row(item, split(item.reference), set())).index) == ["llr", "first"]


def test_summary_and_table(tmp_path):
    item, other = counted("two"), counted("three")
    rows = [row(i, split(i.reference), {split(i.reference).index(f" {n}")})
            for i, n in ((item, "two"), (other, "three"))]  # fmt: skip
    made = pd.DataFrame(rows).assign(commit="c", made="2026-01-01")
    tables = compare.Tables(tmp_path)
    tables.reliance = made
    tree = ch01_reliance.summary(tables)
    of_eq6 = tree["models"]["mini/llava-1.5"]["llr"]["all"]
    assert of_eq6["n"] == 2 and of_eq6["recall"]["value"] == of_eq6["precision"]["value"] == 100
    shown = ch01_reliance.table(tree, "mini/llava-1.5").set_index(["words chosen by", "category"])
    assert shown.loc[(ch01_reliance.RULES["keywords"], "all"), "recall"] == "0 [0, 0]"
    assert shown.loc[(ch01_reliance.RULES["llr"], "counting"), "answers"] == 2


def test_words_and_spans():
    text = "The cat is left of it."
    words = ch01_reliance.words_of(text)
    assert [text[a:b] for a, b in words] == ["The", "cat", "is", "left", "of", "it"]
    assert ch01_reliance.touched(words, [(11, 18)]) == {(11, 15), (16, 18)}
    assert ch01_reliance.touched(words, [(3, 4)]) == set()  # a blank touches nothing
    spans = ch01_reliance.chosen(
        SimpleNamespace(answer=text, tokens=[" The", " cat"], crucial=[False, True], llr=[2, 0])
    )
    assert spans["first"] == [(4, 7), (0, 3)]
