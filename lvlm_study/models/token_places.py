"""Where tokens stand in a text, when only their names are known.

Tokens are written in three ways: as pieces of the text, as SentencePiece writes them ("▁red",
"<0xE7>" for a byte), and as GPT-2 does, a sign for a byte ("Ġred", "çº¢"). All are bytes in the
end: the way is the one whose bytes make the text, and a token stands where its bytes do. A byte
stands for the whole of its character.
"""

import re
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from .words import Span

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z]+\]")
_MARKERS = str.maketrans({"▁": " ", "Ġ": " ", "Ċ": "\n", "ĉ": "\t"})


def places(text: str, tokens: Sequence[str]) -> list[Span]:
    """[start, end) in `text` for every token; empty for those that do not show.

    White space may differ, since many decoders drop it. Of tokens whose bytes are not those of the
    text, each is looked for behind the one before.
    """
    for way in (_piece, _sentencepiece, _byte_level):
        parts = _bytes_of(text, tokens, way)
        if parts is not None and _bare(joined := b"".join(parts).decode()) == _bare(text):
            borders = [0, *accumulate(map(len, parts))]
            spans = _spans(_characters(joined, text), borders)
            return _with_first_bytes(text, tokens, spans) if way is _piece else spans
    return _walked(text, tokens)


def readable(token: str) -> str:
    """A vocabulary entry as text: word-start markers become spaces, byte tokens their character."""
    return _BYTE.sub(lambda m: chr(int(m[1], 16)), token).translate(_MARKERS)


def _piece(token: str) -> bytes:
    return token.encode()


def _sentencepiece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def _byte_level(token: str) -> bytes:
    return bytes(_GPT2[sign] for sign in token)


def _gpt2_signs() -> dict[str, int]:
    """GPT-2's sign for every byte: itself where it can be seen in Latin-1, else from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(b): b for b in seen} | {chr(256 + n): b for n, b in enumerate(others)}


_GPT2 = _gpt2_signs()


def _bytes_of(text: str, tokens, way: Callable[[str], bytes]) -> list[bytes] | None:
    """The bytes of every token, none for special ones; None where this way makes no text."""
    try:
        unseen = {t for t in tokens if _SPECIAL.fullmatch(t) and t not in text}
        parts = [b"" if t in unseen and not _BYTE.fullmatch(t) else way(t) for t in tokens]
        b"".join(parts).decode()
    except (KeyError, UnicodeError):
        return None
    return parts


def _bare(text: str) -> str:
    return "".join(text.split())


def _characters(joined: str, text: str) -> list[int | None]:
    """The character of `text` that each byte of `joined` belongs to, None for white space."""
    places = iter([at for at, sign in enumerate(text) if not sign.isspace()])
    where: list[int | None] = []
    for sign in joined:
        where += [None if sign.isspace() else next(places)] * len(sign.encode())
    return where


def _spans(where: list[int | None], borders: list[int]) -> list[Span]:
    spans, at = [], 0
    for first, last in pairwise(borders):
        shown = [place for place in where[first:last] if place is not None]
        start, at = (shown[0], shown[-1] + 1) if shown else (at, at)
        spans.append((start, at))
    return spans


def _with_first_bytes(text: str, tokens, spans: list[Span]) -> list[Span]:
    """Pieces give a character to its last byte token; the empty ones before it belong to it too."""
    out = list(spans)
    for at, token in enumerate(tokens):
        behind = next((n for n in range(at + 1, len(tokens)) if tokens[n]), at)
        start = spans[behind][0]
        if not token and 0 < behind - at < len(text[start : start + 1].encode()):
            out[at] = (start, start + 1)
    return out


def _walked(text: str, tokens: Sequence[str]) -> list[Span]:
    spans, at = [], 0
    for token in tokens:
        piece = readable(token).strip()
        start = text.find(piece, at) if piece else at
        start = at if start < 0 else start
        end = start + len(piece) if text.startswith(piece, start) else start
        spans.append((start, end))
        at = end
    return spans
