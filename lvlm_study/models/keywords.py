"""Keywords of an answer: the choice of words to explain that never looks at the picture.

The paper's ablation takes the keywords that YAKE finds (Campos et al. 2020, Information Sciences
509, 257-289), with the settings of its released code. YAKE knows the text alone: it drops number
words such as "three" as stop words, so a count is never a keyword.
"""

from ..errors import StudyError
from .words import occurrences

LONGEST = 2  # words in a keyword
ALIKE = 0.2  # keywords more alike than this are told once
FEW, SHORT = 3, 10  # so many keywords from an answer of at most so many words, else a quarter


def keywords(text: str) -> tuple[str, ...]:
    """The keywords of an English text, best first: 3 up to ten words, else one for every four.

    Raises StudyError when the package `yake` is not installed.
    """
    words = len(text.split())
    top = FEW if words <= SHORT else words // 4
    extractor = _yake().KeywordExtractor(lan="en", n=LONGEST, dedup_lim=ALIKE, top=top)
    return tuple(phrase for phrase, _ in extractor.extract_keywords(text))


def keyword_spans(text: str) -> list[tuple[int, int]]:
    """Where the keywords stand in `text`, [start, end) in characters, in reading order.

    Every occurrence as whole words counts (see `words.occurrences`), from the first word of a
    keyword to its last. (The released code searches joined token numbers, which also hits the
    inside of other numbers, and keeps the ends of a keyword without what lies between.)
    """
    return sorted({span for phrase in keywords(text) for span in occurrences(text, phrase)})


def _yake():
    """The package, imported when first asked for: it is slow to load and under a licence (AGPL) of
    its own, so that the study neither needs nor contains it."""
    try:
        import yake
    except ImportError:
        raise StudyError(
            "Keywords need the package yake, which is not installed: pip install yake."
        ) from None
    return yake
