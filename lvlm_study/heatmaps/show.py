"""The picture that people click: the words of an answer, and the map of each over the picture.

Plain HTML and CSS without a script, so it works where scripts do not run: in a notebook that is not
trusted, in Colab, on a page opened from a disc. Words are radio buttons: a mouse, a finger, the
arrow keys and a screen reader all know those; a mouse that rests on a word shows its map too.
"""

import base64
import hashlib
import html
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..answers import chosen_spans
from ..errors import StudyError, named
from ..figures import colour, gradient, own_scale
from ..models.words import Span
from .base import MIN_GAP, Explanation
from .names import UNITS, title

_NUMBERS = itertools.count()
SIDE = 448  # pixels of the longer side that a page shows
MAP_SIDE = 112  # maps are smooth: a browser enlarges them without a step
SILENT = {
    "no_crucial_tokens": "No word of this answer depends on the picture: there is no map.",
    "no_gap": f"The picture changes the probability of {{}} by less than {MIN_GAP}, so {{}} map "
    "says little.",
    "diverged": "The method returned numbers that are not finite: there is no map.",
    "constant": "The map has the same value everywhere and says nothing.",
}
NO_MAP = "This word needs no picture: it has no map."
STYLE = """
.lvlm-show{margin:0 0 1em;max-width:448px;font:16px/1.5 system-ui,sans-serif;color:inherit}
.lvlm-row{display:flex;flex-wrap:wrap;gap:1.5em}.lvlm-row .lvlm-show{flex:1 1 18em}
.lvlm-show .stage{position:relative;display:grid}
.lvlm-show .stage img{grid-area:1/1;width:100%;height:auto;margin:0;display:block}
.lvlm-show .stage .map{height:100%;opacity:0;transition:opacity .15s}
.lvlm-show .stage .map.only{opacity:1}
.lvlm-show .stage .map.weak{filter:opacity(.35)}
.lvlm-show fieldset{border:0;margin:.6em 0 0;padding:0}
.lvlm-show legend{font-size:.9em;padding:0}
.lvlm-show input{position:absolute;opacity:0;width:1px;height:1px}
.lvlm-show label{cursor:pointer;border-bottom:2px dotted currentcolor;padding:.2em .1em}
.lvlm-show label.faint{border-bottom-color:transparent;opacity:.75}
.lvlm-show input:checked+label{background:#440154;color:#fff;border-radius:.2em}
.lvlm-show input:focus-visible+label{outline:3px solid #b5179e;outline-offset:2px}
.lvlm-show .note{font-size:.9em;min-height:1.5em;margin:.3em 0 0}
.lvlm-show .note span{display:none}
.lvlm-show figcaption{font-size:.85em;font-weight:400;text-align:left;color:inherit}
.lvlm-show .bar{display:inline-block;width:6em;height:.7em;vertical-align:middle;margin:0 .4em}
"""


@dataclass(frozen=True)
class Page:
    """A piece of HTML that notebooks display; `str` of it is the HTML itself."""

    text: str

    def _repr_html_(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


def show(*explanations: Explanation | Sequence[Explanation], alt: str = "") -> Page:
    """The picture with the map over it, and the answer below with words to choose.

    Each argument is one Explanation, or those of one answer word by word (`explain_tokens`);
    several arguments stand side by side, each on its own method's scale. `alt` describes the
    picture for those who cannot see it. Returns what a notebook displays; `str()` of it is HTML
    for any page.
    Raises StudyError for anything else and for explanations of different answers in one argument.
    """
    if not explanations:
        raise StudyError("show needs at least one explanation: ls.show(ls.explain(...)).")
    if not isinstance(alt, str):
        raise StudyError(f"alt describes the picture in words; {named(alt)} is none.")
    figures = "".join(_figure(_parts(one), alt) for one in explanations)
    row = f'<div class="lvlm-row">{figures}</div>' if len(explanations) > 1 else figures
    return Page(f"<style>{STYLE}</style>{row}")


def _parts(given) -> tuple[Explanation, ...]:
    """The explanations of one answer, checked."""
    parts = (given,) if isinstance(given, Explanation) else given
    known = isinstance(parts, Sequence) and not isinstance(parts, str) and len(parts) > 0
    if not known or not all(isinstance(part, Explanation) for part in parts):
        raise StudyError(f"show takes what explain or explain_tokens return, not {named(given)}.")
    if len({(part.model, part.question, part.answer.text) for part in parts}) > 1:
        raise StudyError("These explanations are of different answers; give each on its own.")
    return tuple(parts)


def _figure(parts: tuple[Explanation, ...], alt: str) -> str:
    """One picture with the maps of its answer's words."""
    maps = np.stack([part.saliency for part in parts])  # (words, H, W)
    name, scale = _name(maps), own_scale(maps)
    alt = _text(alt or f"The picture that {parts[0].model} was asked about.")
    picture = f'<img class="dark-light" src="{_webp(_picture(parts[0]))}" alt="{alt}">'
    maps = "".join(_map(part, place, scale, len(parts) == 1) for place, part in enumerate(parts))
    words = _words(parts, name) if len(parts) > 1 else _answer(parts[0])
    return (
        f'<figure class="lvlm-show" id="{name}"><style>{_rules(name, len(parts))}</style>'
        f'<div class="stage">{picture}{maps}</div>{words}'
        f"<figcaption>{_caption(parts, scale)}</figcaption></figure>"
    )


def _name(maps: np.ndarray) -> str:
    """An id of its own on every page, and the same one when a notebook is run again."""
    return f"lvlm-{hashlib.sha256(maps.tobytes()).hexdigest()[:8]}-{next(_NUMBERS)}"


def _rules(name: str, count: int) -> str:
    """Which map, or which note on its absence, is seen: the chosen word's or the pointed one's."""
    chosen = (f"#{name}:has(#{name}-{n}:checked) .m{n}" for n in range(count))
    under = (f"#{name}:has([for={name}-{n}]:hover) .m{n}" for n in range(count))
    hidden = f"#{name}:has(label:hover) .map{{opacity:0!important}}"
    hidden += f"#{name}:has(label:hover) .note span{{display:none!important}}"
    seen, surely = "{opacity:1;display:block}", "{opacity:1!important;display:block!important}"
    return f"{','.join(chosen)}{seen}{hidden}{','.join(under)}{surely}"


def _map(part: Explanation, place: int, scale, only: bool) -> str:
    """The map as a transparent picture; nothing where it has nothing to show."""
    silent = not only and part.status in SILENT
    if silent or scale is None or own_scale(part.saliency) is None:
        return ""
    small = _reduced(Image.fromarray(part.saliency, mode="F"), MAP_SIDE)
    rgba = (colour(np.asarray(small), *scale) * 255).round().astype(np.uint8)
    kind = "map only" if only else f"map m{place}"
    kind += " weak" if part.status == "no_gap" else ""
    return f'<img class="{kind} dark-light" src="{_webp(Image.fromarray(rgba))}" alt="">'


def _words(parts: tuple[Explanation, ...], name: str) -> str:
    """The answer as radio buttons, the most visual word chosen."""
    text, found, at = parts[0].answer.text, [], 0
    first = max(range(len(parts)), key=lambda n: parts[n].reliance.gap)
    for place, part in enumerate(parts):
        start, end = _span(part)
        word = _word(part, text[start:end], f"{name}-{place}", place == first)
        found += [_text(text[at:start]), word]
        at = end
    found.append(_text(text[at:]))
    asked = f"{_text(parts[0].question)} Choose a word; those underlined have a map:"
    return f"<fieldset><legend>{asked}</legend>{''.join(found)}</fieldset>{_note(parts)}"


def _note(parts: tuple[Explanation, ...]) -> str:
    """What is said, and read aloud, when a word without a map is chosen."""
    said = "".join(
        f'<span class="m{place}">{_unmapped(part)}</span>'
        for place, part in enumerate(parts)
        if part.status in SILENT
    )
    return f'<p class="note" aria-live="polite">{said}</p>'


def _unmapped(part: Explanation) -> str:
    """Why a word of several has no map; "" where it has one."""
    return NO_MAP if part.status == "no_gap" else _silence(part)


def _word(part: Explanation, word: str, name: str, checked: bool) -> str:
    ratio = float(part.reliance.llr[part.reliance.crucial].sum())
    said = _unmapped(part)
    hover = _text(f"log-likelihood ratio {ratio:.2f} nats. {said}".strip())
    kind = ' class="faint"' if said else ""
    mark = " checked" if checked else ""
    return (
        f'<input type="radio" name="{name.rpartition("-")[0]}" id="{name}"{mark}>'
        f'<label for="{name}" title="{hover}"{kind}>{_text(word)}</label>'
    )


def _silence(part: Explanation) -> str:
    """Why a map says nothing, in words that fit what was chosen; "" where it speaks."""
    if part.status == "no_crucial_tokens" and part.target.choice.tokens == "keywords":
        return "This answer has no keyword: there is no map."
    one = len(part.reliance.words) == 1
    whose = ("this word", "its") if one else ("the chosen words", "their")
    return SILENT.get(part.status, "").format(*whose)


def _answer(part: Explanation) -> str:
    """The answer of a single explanation, the words that the map explains in bold."""
    text, found, at = part.answer.text, [], 0
    for start, end in chosen_spans(part.answer, part.reliance.crucial):
        found += [_text(text[at:start]), f"<strong>{_text(text[start:end])}</strong>"]
        at = end
    found.append(_text(text[at:]))
    return f"<p>{_text(part.question)}<br>{''.join(found)}</p>"


def _caption(parts: tuple[Explanation, ...], scale) -> str:
    """Model, method, where the colours end, and why there may be no map."""
    part = parts[0]
    who = f"{_text(part.model)}, {_text(title(part.method))}"
    who += f", {_text(part.contrast)}" if len(parts) == 1 and part.contrast else ""
    cut = " The answer was cut at its limit of tokens." if part.answer.truncated else ""
    cut += "".join(f" Note: {_text(note)}." for note in part.notes)
    if len(parts) == 1 and (said := _silence(part)):
        return f"{who}. {said}{cut}"
    if scale is None:
        return f"{who}. {SILENT['constant']}{cut}"
    bar = f'<span class="bar" style="background:{gradient(*scale)}"></span>'
    unit = _text(UNITS.get(part.method, "saliency"))
    return f"{who}. {scale[0]:.2g}{bar}{scale[1]:.2g} ({unit}).{cut}"


def _span(part: Explanation) -> Span:
    """From the first to the last character of the word that a map explains."""
    spans = chosen_spans(part.answer, part.reliance.crucial)
    return spans[0][0], spans[-1][1]


def _picture(part: Explanation) -> Image.Image:
    target = part.target
    rgb = target.original
    if rgb is None:
        rgb = (target.image[0].permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    return _reduced(Image.fromarray(rgb), SIDE)


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    """At most `side` pixels long, averaged over pixels."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    return picture.resize(size, Image.Resampling.BOX)


def _webp(picture: Image.Image) -> str:
    """A picture as an address that holds the picture itself."""
    out = io.BytesIO()
    picture.save(out, format="webp", quality=85, method=4)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _text(text: str) -> str:
    return html.escape(text)
