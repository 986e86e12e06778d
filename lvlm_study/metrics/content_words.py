"""Does a rule choose the words that only the picture tells?

In SpriteVQA every reference answer has a stretch that only the picture can tell, its content span:
*three* in "There are three apples.". An answer that equals its reference is therefore a test of the
rule that chose its words: of Eq. 6, of the same rule with the first token allowed, and of YAKE's
keywords, which never look at the picture. Words are compared, not tokens: after the first token of
a word the others follow from the text.
"""

import re
from functools import cache
from types import SimpleNamespace

import pandas as pd

from ..answers import THRESHOLD, token_spans
from ..errors import StudyError
from ..models.keywords import keyword_spans

RULES = {
    "llr": "crucial tokens (Eq. 6)",
    "first": "the same, the first token too",
    "keywords": "YAKE keywords",
}
Span = tuple[int, int]
COLUMNS = ["model", "item", "category", "rule", "words", "recall", "precision"]
known_keywords = cache(keyword_spans)  # models give the same answers, and YAKE is slow


def words_of(text: str) -> list[Span]:
    """Where the words of a text stand, [start, end) in characters."""
    return [hit.span() for hit in re.finditer(r"\w+", text)]


def touched(words: list[Span], spans: list[Span]) -> set[Span]:
    """The words that share a character with one of the spans."""
    return {w for w in words if any(a < w[1] and w[0] < b for a, b in spans)}


def chosen(row) -> dict[str, list[Span]]:
    """The spans that each rule of `RULES` picks in one answer, given its row of reliance.

    Keywords are left out where the package for them is not installed.
    """
    spans = token_spans(SimpleNamespace(text=row.answer, tokens=list(row.tokens)))
    picked = [span for span, hot in zip(spans, row.crucial, strict=True) if hot]
    first = [spans[0]] if row.llr[0] > THRESHOLD else []
    found = {"llr": picked, "first": picked + first}
    try:
        return found | {"keywords": known_keywords(row.answer)}
    except StudyError:
        return found


def rated(reliance: pd.DataFrame, items) -> pd.DataFrame:
    """One row an answer that equals its reference (under blur) and rule: what was found.

    `recall`: whether every word of the content span was chosen (1 or 0); `precision`: the share of
    the chosen words that belong to it, NaN where no word was chosen; `words`: how many were.
    """
    known, rows = {item.id: item for item in items}, []
    for row in reliance[(reliance.baseline == "blur") & (reliance.status != "error")].itertuples():
        item = known[row.item]
        if row.answer != item.reference:
            continue
        words = words_of(row.answer)
        wanted = touched(words, [item.extra["content_span"]])
        about = {"model": row.model, "item": row.item, "category": row.category}
        for rule, spans in chosen(row).items():
            found = touched(words, spans)
            rows.append(about | {"rule": rule, "words": len(found)})
            rows[-1]["recall"] = float(wanted <= found)
            rows[-1]["precision"] = len(wanted & found) / len(found) if found else float("nan")
    return pd.DataFrame(rows, columns=COLUMNS)
