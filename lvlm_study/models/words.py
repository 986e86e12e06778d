"""Words in any script: where they stand in a text, whatever signs it is written in.

A reader sees signs (grapheme clusters: a letter with its marks, a flag, a family of emoji), so a
word begins and ends between signs and never inside one. Scripts with spaces part words at anything
that is no letter, mark or digit. Chinese, Japanese, Thai and others write no spaces: there every
stretch of whole signs may be a word, since only a dictionary could say more. Signs, letters and
scripts are those of Unicode (UAX #29 and the script property).
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import regex

Span = tuple[int, int]  # [start, end) in characters of the text

UNSPACED = "Han Hiragana Katakana Bopomofo Thai Lao Khmer Myanmar Tai_Le New_Tai_Lue Tai_Tham"
UNSPACED += " Javanese Balinese Yi"
_RUN = "[" + "".join(rf"\p{{scx={name}}}" for name in UNSPACED.split()) + "]"
_EMOJI = r"[\p{Extended_Pictographic}\p{Regional_Indicator}]"
_LETTER = r"[\p{L}\p{M}\p{N}\p{Pc}]"
_KINDS = {  # the sign at a place, by what it begins with
    "emoji": rf"(?={_EMOJI})\X",
    "run": rf"(?={_RUN})(?={_LETTER})(?!{_EMOJI})\X",
    "letter": rf"(?!{_RUN})(?={_LETTER})(?!{_EMOJI})\X",
}
_INNER = r"(?:['’‘ʼ\-‐‑·]|(?<=\p{N})[.,](?=\p{N}))"
_SPACED = rf"(?:{_KINDS['letter']})+"
_WORD = regex.compile(rf"{_SPACED}(?:{_INNER}{_SPACED})*|{_KINDS['run']}|{_KINDS['emoji']}")
_SIGN = regex.compile(r"\X")
_KIND = {name: regex.compile(pattern) for name, pattern in _KINDS.items()}
_HANGUL = regex.compile(r"\p{Hangul}")
_UNSEEN = regex.compile(  # soft hyphen, zero-width spaces, directions, choice of an emoji's look
    r"[\u00ad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufe0e\ufe0f\ufeff]"
)
_ALIKE = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-"})


@lru_cache(maxsize=64)  # one answer is asked about many times
def signs(text: str) -> tuple[Span, ...]:
    """Where each sign stands: extended grapheme clusters, as UAX #29 cuts them."""
    return tuple(hit.span() for hit in _SIGN.finditer(text))


def whole_signs(text: str, span: Span) -> Span:
    """The span, widened to signs that it has only a part of; an empty one stays empty."""
    start, end = span
    touched = [(a, b) for a, b in signs(text) if a < end and b > start]
    return (touched[0][0], touched[-1][1]) if touched else span


def word_spans(text: str) -> list[Span]:
    """The words, in reading order, with inner apostrophes, hyphens and decimal points.

    An emoji is a word, and so is every sign of a script without spaces.
    """
    return [hit.span() for hit in _WORD.finditer(text)]


def stretches(text: str) -> list[Span]:
    """As `word_spans`, but a stretch without spaces is left whole: what can be listed as words."""
    found: list[Span] = []
    for start, end in word_spans(text):
        if found and found[-1][1] == start and _kind(text[start:end]) == "run":
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def parts_like(text: str, word: str) -> list[str]:
    """Every part that has as many words as `word` and nothing between them, to find near ones."""
    spans, long = word_spans(text), len(word_spans(word))
    parts = [spans[n : n + long] for n in range(len(spans) - long + 1)] if long else []
    parts = [part for part in parts if all(a[1] == b[0] for a, b in pairwise(part))]
    return [text[part[0][0] : part[-1][1]] for part in parts]


def occurrences(text: str, phrase: str) -> list[Span]:
    """Every place where a word or phrase stands as a whole, in reading order.

    Case, composed or decomposed accents (NFC), the kind of apostrophe, hyphen or white space and
    signs that nobody sees make no difference. Only if there is no such place: what stands between
    the words of a phrase may be any punctuation, Turkish dotless i counts as i, and a Korean word
    may carry an ending.
    """
    return _places(text, phrase, loose=False) or _places(text, phrase, loose=True)


def folded(text: str, loose: bool = False) -> str:
    """What is compared: lower case, composed, one space for white space, nothing unseen."""
    return "".join(_folds(text, loose)).strip()


def is_whole(text: str, span: Span, loose: bool = False) -> bool:
    """Whether a span begins and ends between words (or nowhere inside a stretch of letters)."""
    start, end = span
    return _parted(text, start) and (_parted(text, end) or (loose and _ending(text, end)))


def _places(text: str, phrase: str, loose: bool) -> list[Span]:
    wanted, parts, spans = folded(phrase, loose), _folds(text, loose), signs(text)
    begins, ends, whole = {}, {}, ""
    for (start, end), part in zip(spans, parts, strict=True):
        if part:
            begins[len(whole)], ends[len(whole) + len(part)] = start, end
        whole += part
    hits = [hit.start() for hit in regex.finditer(regex.escape(wanted), whole, overlapped=True)]
    hits = [hit for hit in hits if wanted and hit in begins and hit + len(wanted) in ends]
    found = [(begins[hit], ends[hit + len(wanted)]) for hit in hits]
    return [span for span in found if is_whole(text, span, loose)]


def _folds(text: str, loose: bool) -> list[str]:
    """The folded form of every sign, "" where it adds nothing; `loose` sees no punctuation."""
    out: list[str] = []
    for start, end in signs(text):
        part = _fold(text[start:end])
        if loose and part:
            part = part.replace("ı", "i") if _kind(text[start:end]) else " "
        out.append("" if part == " " and (not out or _last(out) == " ") else part)
    return out


def _last(parts: list[str]) -> str:
    return next((part[-1] for part in reversed(parts) if part), " ")


def _fold(sign: str) -> str:
    if sign.isspace():
        return " "
    sign = unicodedata.normalize("NFC", _UNSEEN.sub("", sign)).casefold()
    sign = unicodedata.normalize("NFC", sign).replace("i\u0307", "i")  # Turkish capital I with dot
    return sign.translate(_ALIKE)


def _kind(sign: str) -> str:
    """ "emoji", "run" (a script without spaces), "letter" (digits too) or "" (between words)."""
    return next((name for name, pattern in _KIND.items() if pattern.match(sign)), "")


def _parted(text: str, at: int) -> bool:
    """Whether a word may begin or end at a border between two signs."""
    before, behind = _around(text, at)
    return not (_kind(before) == _kind(behind) == "letter")


def _ending(text: str, at: int) -> bool:
    return all(_HANGUL.match(sign) for sign in _around(text, at))


def _around(text: str, at: int) -> Iterator[str]:
    """The signs that end and begin at a place, "" beyond the text."""
    spans = signs(text)
    yield next((text[a:b] for a, b in spans if b == at), "")
    yield next((text[a:b] for a, b in spans if a == at), "")
