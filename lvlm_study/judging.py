"""Is an open-ended answer right? Rules that a reader can check, and "undecided" when they cannot.

Vision-language models answer "Are the wings open or closed?" with a sentence, so letter matching
does not apply. The judge looks for the value that the question asked for: the first yes or no, the
first number, or the one option that the sentence affirms, with negation in mind ("a glass, not a
mug"). What stays open is "undecided", a third result that tables must show beside accuracy.

It judges the value, not the wording: "There are three fruits" counts for three apples. Measured
against answers that we read and labelled ourselves by `python tools/judge_agreement.py`.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from .benchmarks.base import Item
from .errors import StudyError, named

Tokens = list[str]
VERDICTS = ("correct", "wrong", "undecided")

NUMBERS = {
    word: str(n)
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
}
SYNONYMS = NUMBERS | {
    "grey": "gray", "colour": "color", "violet": "purple", "reddish": "red", "bluish": "blue",
    "greenish": "green", "yellowish": "yellow", "brownish": "brown", "blackish": "black",
    "whitish": "white", "upward": "up", "downward": "down", "leftward": "left",
    "rightward": "right", "leftmost": "left", "rightmost": "right", "beneath": "below",
    "under": "below", "underneath": "below", "atop": "above", "over": "above", "larger": "bigger",
    "men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot",
    "teeth": "tooth", "leaves": "leaf", "mice": "mouse", "nighttime": "night", "daytime": "day",
    "cannot": "can not", "won't": "will not", "can't": "can not", "nope": "no", "yeah": "yes",
    "yep": "yes",
}  # fmt: skip
ARTICLES = {"a", "an", "the"}
STOPS = ",.;:"
NEGATORS = {"not", "no", "never", "neither", "nor", "without", "than", "hardly", "barely"}
SCOPE_ENDS = {*STOPS, "but", "however", "instead", "rather", "while", "although"}
YES, NO = {"yes", "true", "correct"}, {"no", "false", "incorrect"}
SIDES = {"left": "right", "right": "left", "above": "below", "below": "above"}
EXCLUSIVE = [
    set("red orange yellow green blue purple pink brown black white gray cyan teal".split()),
    {"left", "right"}, {"above", "below"}, {"up", "down"}, {"day", "night"}, {"bigger", "smaller"},
    {"inside", "outside"}, {"indoors", "outdoors"}, {"open", "closed"}, {"front", "behind"},
]  # fmt: skip
FILLER = ARTICLES | set(
    "is are was were be being been do does did has have had can could will would there it this "
    "that these those its in on at of to from with by for as and or image picture photo see "
    "visible appear seem any some you i what which where how many much following statement "
    "correct based relative more closer than".split()
)
HEDGE = re.compile(
    r"\b(unclear|unsure|not (clear|sure|certain|possible)|can not (be )?(determine|tell|say)"
    r"|(difficult|hard|impossible) to (tell|say|determine)|unable to|sorry)"
)
SECOND_TIER = (
    "Given the question {question!r}, the correct answer is {reference!r}. "
    "Does this answer say the same: {text!r}? Reply with yes or no."
)


def judge(text: str, item: Item, second: Callable[[str], str] | None = None) -> str:
    """Whether `text` answers `item.question` as its reference does.

    Returns "correct", "wrong" or "undecided" (no value found, both values affirmed, a hedge, or a
    contradiction); nothing is counted silently. `second` is asked only about undecided answers: it
    takes a prompt and returns the reply of a text model, of which the first yes or no counts.
    """
    text = getattr(text, "text", text)  # of an Answer
    if not isinstance(text, str) or not isinstance(item, Item):
        raise StudyError(
            f"What is judged is a text, by an Item; not {named(text)} by {named(item)}."
        )
    if not (second is None or callable(second)):
        raise StudyError(f"second is a function from text to text, not {named(second)}.")
    verdict = _first_tier(text, item)
    if verdict == "undecided" and second is not None and text.strip():
        prompt = SECOND_TIER.format(question=item.question, reference=item.reference, text=text)
        reply = _polar_word(tokens(second(prompt)))
        verdict = {"yes": "correct", "no": "wrong"}.get(reply, "undecided")
    return verdict


def tokens(text: str) -> Tokens:
    """Lower-case words and the punctuation that ends a clause, in one spelling.

    Articles go, plurals lose their s, number words become digits, synonyms of colours and sides
    become one word: "The two Grey mugs aren't open." -> 2 gray mug be not open.
    """
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.lower().replace("’", "'"))
    text = re.sub(r"n't\b", " not", re.sub(r"\b(won't|can't)\b", lambda m: SYNONYMS[m[0]], text))
    text = re.sub(r"'s?\b", " ", text)
    words = re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+|[,.;:!?\n]", text)
    words = ["." if w in "!?\n" else w for w in words if w not in ARTICLES]
    return " ".join(_one_spelling(w) for w in words).split()


def kind(item: Item) -> str:
    """Which rule reads this item: "polar", "number", "options" or "free"."""
    values = list(item.options or item.accept or (item.reference,))
    first = [(tokens(v) or [""])[0] for v in values]
    answers_polar = tokens(item.reference)[:1] in (["yes"], ["no"]) and not item.options
    if all(w in YES | NO for w in first) or answers_polar:
        return "polar"
    if item.options and len(item.options) > 1:
        numeric = all(re.fullmatch(r"[\d.]+", " ".join(_distinct(o, item.options))) for o in values)
        return "number" if numeric else "options"
    return "number" if any(re.fullmatch(r"\d+", " ".join(tokens(v))) for v in values) else "free"


def _first_tier(text: str, item: Item) -> str:
    said = tokens(text)
    by_letter = _letter(text, item)
    if by_letter or not _strip(said) or not item.reference.strip():
        return by_letter or "undecided"
    if _strip(said) == _strip(tokens(item.reference)):
        return "correct"
    rule = {"polar": _polar, "number": _number, "options": _options, "free": _free}[kind(item)]
    return rule(said, item)


# --- yes and no -----------------------------------------------------------------------------


def _polar(said: Tokens, item: Item) -> str:
    answer = _yes_or_no(said, tokens(item.question))
    wanted = _polar_word(tokens(item.reference))
    if not answer or not wanted:
        return "undecided"
    return "correct" if answer == wanted else "wrong"


def _yes_or_no(said: Tokens, question: Tokens) -> str:
    """ "yes", "no" or "" for an answer that says neither, or both."""
    clause, asked = _clauses(said)[0], _content(question)
    negative_question = bool(NEGATORS & set(question))
    if said[0] in YES | NO:
        answer = "yes" if said[0] in YES else "no"
        denied = (NEGATORS - {"than"}) & set(_clauses(said[1:])[0])
        if answer == "yes" and denied and not negative_question:
            return ""  # "Yes, there is no frog."
        if answer == "no" and asked and _affirms(said[1:], asked):
            return ""  # "No, there is a frog."
        return answer
    if HEDGE.search(" ".join(said)):
        return ""
    word = _polar_word(clause)
    if word:
        return word
    if asked and _ordered(asked, clause):
        return "yes"  # "The door is open." to "Is the door open?"
    rivals = _rivals(set(asked), ())
    rest = [w for w in asked if not _rivals({w}, ())]
    return "no" if rivals & set(clause) and _ordered(rest, clause) else ""  # "The door is closed."


def _polar_word(words: Tokens) -> str:
    """The first yes or no among the words, flipped inside a negation: "not true" is no."""
    for i, word in enumerate(words):
        if word in YES:
            return "no" if _negated(words, i) else "yes"
        if word in NO:
            return "yes" if word != "no" and _negated(words, i) else "no"
        if word in NEGATORS - {"than"} and not (YES | NO) & set(words[i:]):
            return "no"
    return ""


def _affirms(words: Tokens, asked: Tokens) -> bool:
    """Some clause says every content word of the question in its order, without a negation."""
    doubts = NEGATORS | {"only", "just", "incorrect", "false"}
    return any(_ordered(asked, c) and not doubts & set(c) for c in _clauses(words))


# --- numbers --------------------------------------------------------------------------------


def _number(said: Tokens, item: Item) -> str:
    accepted = [_numbers(tokens(v)) for v in (*item.accept, item.reference)]
    wanted = {numbers[0][0] for numbers in accepted if numbers}
    found = _numbers(_sentences(said)[0]) or _numbers(said)
    if not found or not wanted:
        return "undecided"
    first, rest = found[0], found[1:2]
    if rest and rest[0][1] in {"or", "to"} and rest[0][0] != first[0]:
        return "undecided"  # "three or four"
    return "correct" if first[0] in wanted else "wrong"


def _numbers(words: Tokens) -> list[tuple[str, str]]:
    """Affirmed numbers with the word before each; "no" (but not "No,") and "none" are 0."""
    found = []
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        if word in {"none", "no"}:
            bare = words[i + 1 : i + 2] in ([","], ["."])
            found += [("0", before)] if not (found or bare or _negated(words, i)) else []
        elif word in {"single", "pair", "couple", "dozen"} and not found:
            found.append(({"single": "1", "dozen": "12"}.get(word, "2"), before))
        elif word[0].isdigit() and not _of_many(words, i) and not _negated(words, i):
            found.append((word, before))
    return found


def _of_many(words: Tokens, i: int) -> bool:
    """Whether a number only picks out some ("one of them is red"); not in "3 of the 5"."""
    whole = words[i + 2 : i + 4]
    return words[i + 1 : i + 2] == ["of"] and not any(word[0].isdigit() for word in whole)


# --- options --------------------------------------------------------------------------------


def _options(said: Tokens, item: Item) -> str:
    right = _right_option(item)
    if right is None or HEDGE.search(" ".join(_sentences(said)[0])):
        return "undecided"
    for words in (_sentences(said)[0], said):
        verdict = _one_option(words, item, right)
        if verdict != "undecided" or any(_mention(words, o, item.options) for o in item.options):
            return verdict
    return "undecided"


def _one_option(words: Tokens, item: Item, right: str) -> str:
    """Correct if the right option alone is affirmed; wrong if another alone is, or it is denied."""
    mentions = {o: _mention(words, o, item.options) for o in item.options}
    affirmed = _most_specific([o for o, m in mentions.items() if m == "affirmed"], words, item)
    if any(set(_distinct(o, item.options)) & set(SIDES) for o in affirmed) and len(affirmed) == 1:
        affirmed = [_seen_from(words, affirmed[0], item)]
    if len(affirmed) == 1:
        if _rival_first(words, _distinct(affirmed[0], item.options), tokens(item.question)):
            return "undecided"  # "mostly white with some black" for black or red
        return "correct" if affirmed[0] == right else "wrong"
    return "wrong" if not affirmed and mentions[right] == "denied" else "undecided"


def _most_specific(affirmed: list[str], words: Tokens, item: Item) -> list[str]:
    """Of several options affirmed, the one said word for word, or those not inside another."""
    literal = [o for o in affirmed if _phrase(words, _strip(tokens(o))) == "affirmed"]
    if len(affirmed) > 1 and len(literal) == 1:
        return literal
    sets = {o: set(_distinct(o, item.options)) for o in affirmed}
    return [o for o in affirmed if not any(sets[o] < sets[other] for other in affirmed)]


def _mention(words: Tokens, option: str, options: Sequence[str]) -> str:
    """ "affirmed", "denied" or "" for one option: all the words that set it apart must appear."""
    places = [
        [i for i, w in enumerate(words) if w == needed] for needed in _distinct(option, options)
    ]
    if not places or not all(places):
        return ""
    free = all(any(not _negated(words, i) for i in spots) for spots in places)
    return "affirmed" if free else "denied"


def _distinct(option: str, options: Sequence[str]) -> Tokens:
    """The words of an option that not every other option has too; all of them if none is left."""
    mine = [w for w in tokens(option) if w not in STOPS]
    others = [set(tokens(o)) for o in options if o != option]
    apart = [w for w in mine if not others or not all(w in o for o in others)]
    return [w for w in apart if w not in FILLER] or apart or mine


def _right_option(item: Item) -> str | None:
    """The option that the reference names: by text, or by letter."""
    wanted = _strip(tokens(item.reference))
    for option in item.options:
        if _strip(tokens(option)) == wanted:
            return option
    letter = re.fullmatch(r"\(?([a-h])\)?\.?", item.reference.strip().lower())
    place = ord(letter[1]) - ord("a") if letter else len(item.options)
    return item.options[place] if place < len(item.options) else None


def _letter(text: str, item: Item) -> str:
    """Verdict for an answer that is a bare letter, "(b) Closed" or "The answer is B"; else ""."""
    found = re.match(r"\s*(?:\(([a-hA-H])\)|([a-hA-H])(?:[.):]|\s*$))", text) or re.search(
        r"(?:answer is|option) (?:\(([a-hA-H])\)|([A-H])\b)", text
    )
    if not found or not item.options or _right_option(item) is None:
        return ""
    place = ord((found[1] or found[2]).lower()) - ord("a")
    if place >= len(item.options):
        return ""
    return "correct" if item.options[place] == _right_option(item) else "wrong"


# --- answers without options ----------------------------------------------------------------


def _free(said: Tokens, item: Item) -> str:
    """Correct if an accepted phrase is affirmed and no rival value is; wrong if a rival is.

    A short answer (up to 15 words) without any accepted phrase is wrong too; a long one is open.
    """
    first, asked = _sentences(said)[0], set(tokens(item.question))
    wanted = _wanted_values(item)
    if HEDGE.search(" ".join(first)) or not wanted:
        return "undecided"
    if _relation_reversed(first, item):
        wanted = [[SIDES.get(w, w) for w in value] for value in wanted]
    states = {_phrase(first, value) for value in wanted}
    rivals = _rivals({w for value in wanted for w in value}, asked)
    places = [i for i, w in enumerate(first) if w in rivals]
    rival = any(not _negated(first, i) for i in places)
    if "affirmed" in states:
        return "undecided" if rival else "correct"
    if rival or "denied" in states:
        return "wrong"
    return "wrong" if len(first) <= 15 and not places else "undecided"


def _rivals(values: set[str], asked: Iterable[str]) -> set[str]:
    """Words that exclude a value: other colours, other sides.

    Words of the question do not count ("what is left of the red car?") unless the value is there
    too ("is it day or night?").
    """
    rivals = {r for value in values for group in EXCLUSIVE if value in group for r in group}
    return rivals - values - (set() if values & set(asked) else set(asked))


def _rival_first(words: Tokens, values: Tokens, asked: Tokens) -> bool:
    """Whether a rival of the values is affirmed before the first of them."""
    rivals = _rivals(set(values), asked)
    first = min((words.index(v) for v in values if v in words), default=0)
    return any(w in rivals and not _negated(words, i) for i, w in enumerate(words[:first]))


def _wanted_values(item: Item) -> list[Tokens]:
    """The accepted phrases; without any, what the reference says that the question does not."""
    phrases = [_strip(tokens(a)) for a in item.accept if tokens(a)]
    if phrases:
        return phrases
    asked = set(tokens(item.question))
    new = [w for w in _content(tokens(item.reference)) if w not in asked]
    return [new] if 0 < len(new) <= 6 else []  # a paragraph is for the second tier


def _phrase(words: Tokens, value: Tokens) -> str:
    """ "affirmed", "denied" or "": the value as a run of whole words."""
    runs = [i for i in range(len(words)) if words[i : i + len(value)] == value]
    if any(not _negated(words, i) for i in runs):
        return "affirmed"
    return "denied" if runs else ""


# --- who is left of whom --------------------------------------------------------------------


def _seen_from(words: Tokens, option: str, item: Item) -> str:
    """The option meant when the answer swaps the two things: "B is right of A" says A is left."""
    if not _relation_reversed(words, item):
        return option
    mirrored = [SIDES.get(w, w) for w in _distinct(option, item.options)]
    return next((o for o in item.options if _distinct(o, item.options) == mirrored), option)


def _relation_reversed(words: Tokens, item: Item) -> bool:
    """Whether the answer names the two related things in the other order than the item does.

    The frame is the reference when it is a relation itself ("The frog is left of the bus"), else
    the question ("Where is the frog relative to the bus?").
    """
    place = next((i for i, w in enumerate(words) if w in SIDES), None)
    if place is None:
        return False
    reference, question = _content(tokens(item.reference)), _content(tokens(item.question))
    frame = reference if len(set(reference) - set(SIDES)) > 1 else question
    before = [w for w in words[:place] if w in frame and w not in SIDES]
    after = [w for w in words[place + 1 :] if w in frame and w not in SIDES]
    pairs = [(frame.index(a), frame.index(b)) for a in before for b in after if a != b]
    return bool(pairs) and all(a > b for a, b in pairs)


# --- words ----------------------------------------------------------------------------------


def _one_spelling(word: str) -> str:
    word = SYNONYMS.get(word, word)
    if len(word) > 3 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 4 and re.search(r"(ss|sh|ch|x)es$", word):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return SYNONYMS.get(word, word)


def _strip(words: Tokens) -> Tokens:
    return [w for w in words if w not in STOPS]


def _content(words: Tokens) -> Tokens:
    """Words that carry meaning, first occurrence only."""
    return list(dict.fromkeys(w for w in _strip(words) if w not in FILLER))


def _sentences(words: Tokens) -> list[Tokens]:
    """Words of each sentence; never empty."""
    parts = " ".join(words).split(" .")
    return [p.split() for p in parts if p.split()] or [[]]


def _clauses(words: Tokens) -> list[Tokens]:
    """The words between punctuation marks and contrasts; never empty."""
    parts: list[Tokens] = [[]]
    for word in words:
        if word in SCOPE_ENDS:
            parts.append([])
        else:
            parts[-1].append(word)
    return [p for p in parts if p] or [[]]


def _negated(words: Tokens, place: int) -> bool:
    """Whether a negator stands before this word in the same clause ("not only" does not count)."""
    start = next((i + 1 for i in range(place - 1, -1, -1) if words[i] in SCOPE_ENDS), 0)
    span = words[start:place]
    return any(w in NEGATORS and span[i + 1 : i + 2] != ["only"] for i, w in enumerate(span))


def _ordered(needles: Tokens, words: Tokens) -> bool:
    """All needles occur among the words in this order."""
    stream = iter(words)
    return all(any(w == n for w in stream) for n in needles)
