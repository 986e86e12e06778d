"""Words in any script, against hand-read texts and tokenizers of both kinds."""

import unicodedata

import pytest
import regex
import scripts
import torch
from refusals import refuses

from lvlm_study import explain_tokens
from lvlm_study.answers import crucial_tokens, make_target, marked, token_spans, tokens_within
from lvlm_study.heatmaps.sentences import word_masks
from lvlm_study.models.base import Answer, located
from lvlm_study.models.keywords import keyword_spans
from lvlm_study.models.words import occurrences, signs, word_spans

FAMILY = "👩‍👩‍👧"
NFD = unicodedata.normalize("NFD", "é")
TEXTS = {
    "chinese": "红色的兔子。",
    "japanese": "赤いウサギです。",
    "thai": "กระต่ายสีแดง",
    "hindi": "यह खरगोश लाल है।",
    "arabic": "الأرنب أحمر.",
    "korean": "토끼는 빨간색입니다.",
    "composed": "Le café est fermé.",
    "decomposed": unicodedata.normalize("NFD", "Le café est fermé."),
    "emoji": f"A 🐇 and {FAMILY}.",
    "turkish": "KIRMIZI tavşan, İki",
    "german": "Die Straße ist rot",
    "english": "It's red, round; don’t be bored or tired of a red-brown\nball.",
}
FOUND = {  # text: words that stand there as they are, or with signs of their own (word, place)
    "chinese": ["红色", "兔子", "红色的兔子。"],
    "japanese": ["ウサギ", "赤い"],
    "thai": ["แดง", "กระต่าย"],
    "hindi": ["लाल", "खरगोश", "है"],
    "arabic": ["أحمر", (unicodedata.normalize("NFD", "أحمر"), "أحمر")],
    "korean": ["토끼는", "토끼", (unicodedata.normalize("NFD", "빨간색"), "빨간색")],
    "composed": [("caf" + NFD, "café")],
    "decomposed": [("CAFÉ", "caf" + NFD)],
    "emoji": ["🐇", FAMILY],
    "turkish": [("kırmızı", "KIRMIZI"), ("iki", "İki"), ("tavşan İki", "tavşan, İki")],
    "german": [("STRASSE", "Straße"), ("straße ist", "Straße ist")],
    "english": [
        *(("don't", "don’t"), ("it's red", "It's red"), ("it's red, round", "It's red, round")),
        *(("red round", "red, round"), ("RED", "red"), ("red-brown ball.", "red-brown\nball.")),
        "brown",
    ],
}
FOUND = [(n, *((w, w) if isinstance(w, str) else w)) for n, words in FOUND.items() for w in words]
ABSENT = {
    "english": ["bore", "ire", "round red", "dont"],
    "hindi": ["ल", "खरगो", "ह"],  # the last is है without its vowel sign
    "composed": ["cafe"],
    "decomposed": ["cafe", "caf"],
    "korean": ["끼는"],
    "arabic": ["حمر"],
    "emoji": ["👧", "👩"],
    "german": ["stras"],
    "chinese": ["红兔"],
}


@pytest.mark.parametrize(("name", "word", "place"), FOUND)
def test_a_word_is_found_as_it_stands(name, word, place):
    text = TEXTS[name]
    start, end = occurrences(text, word)[0]
    assert text[start:end] == place and start == text.index(place)


@pytest.mark.parametrize("name", ABSENT)
def test_a_part_of_a_word_is_none(name):
    assert all(occurrences(TEXTS[name], word) == [] for word in ABSENT[name])


def test_which_places_count():
    assert occurrences("sık, sik", "sik") == [(5, 8)]
    assert occurrences("sık", "sik") == [(0, 3)]
    assert occurrences("나무, 나", "나") == [(4, 5)]
    assert occurrences("a red bus. red, bus", "red bus") == [(2, 9)]
    assert occurrences("aa red\u200b  ball, a Red\tball", "red ball") == [(3, 13), (17, 25)]
    assert occurrences("می‌خواهم", "میخواهم") == [(0, 8)]
    assert occurrences("", "a") == occurrences("a", "") == occurrences("a", " \u200b") == []
    text = "3.5 m, 1,000 🇩🇪🇫🇷 1️⃣ a.b 'x'"
    found = [text[a:b] for a, b in word_spans(text)]
    assert found == ["3.5", "m", "1,000", "🇩🇪", "🇫🇷", "1️⃣", "a", "b", "x"]


WORDS = {
    "english": "It's red round don’t be bored or tired of a red-brown ball".split(),
    "chinese": list("红色的兔子"),
    "hindi": ["यह", "खरगोश", "लाल", "है"],
    "arabic": ["الأرنب", "أحمر"],
    "korean": ["토끼는", "빨간색입니다"],
    "emoji": ["A", "🐇", "and", FAMILY],
    "decomposed": ["Le", "caf" + NFD, "est", "ferm" + NFD],
}


@pytest.mark.parametrize("name", list(WORDS))
def test_a_text_word_by_word(name):
    assert [TEXTS[name][a:b] for a, b in word_spans(TEXTS[name])] == WORDS[name]


# --- tokens -----------------------------------------------------------------------------------
def encoded(kind, text):
    """The Answer that an adapter would read, and the same built by hand from names or pieces."""
    tok = scripts.TOKENIZERS[kind]()
    ids = tok.encode(text, add_special_tokens=False)
    text, cut, spans = located(tok, ids)
    rest = (torch.tensor(ids), torch.zeros(len(ids)))
    names = tuple(tok.convert_ids_to_tokens(ids))
    return tok, [Answer(text, cut, *rest, spans=spans), Answer(text, names, *rest)]


def byte_places(tok, text, ids):
    """An oracle: for every token the characters that its own bytes are in."""
    raw, where = [], []
    for name in tok.convert_ids_to_tokens(ids):
        byte = regex.fullmatch("<0x(..)>", name)
        if byte:
            raw.append(bytes([int(byte[1], 16)]))
        elif tok.unk_token:
            raw.append(name.replace("▁", " ").encode())
        else:
            raw.append(bytes(scripts.ALPHABET[sign] for sign in name))
    joined = b"".join(raw).decode()
    of_byte = [n for n, sign in enumerate(joined) for _ in sign.encode()]
    lead, at = len(joined) - len(text), 0
    for part in raw:
        mine = {of_byte[n] - lead for n in range(at, at + len(part))}
        where.append({n for n in mine if n >= 0})
        at += len(part)
    return where


@pytest.mark.parametrize("kind", list(scripts.TOKENIZERS))
@pytest.mark.parametrize("name", list(TEXTS))
def test_tokens_stand_where_their_bytes_do(kind, name):
    tok, answers = encoded(kind, TEXTS[name])
    assert answers[0].text == TEXTS[name]
    where = byte_places(tok, answers[0].text, answers[0].token_ids.tolist())
    wanted = [{n for n in mine if not answers[0].text[n].isspace()} for mine in where]
    for answer in answers:
        assert [set(range(a, b)) for a, b in token_spans(answer)] == wanted
    pieced = Answer(*(getattr(answers[0], n) for n in ("text", "tokens", "token_ids", "log_probs")))
    if kind != "byte level":  # where a token may hold a space and the first byte of a sign
        first = answers[0].tokens[0] == ""  # a space that was dropped, or a byte: nobody can say
        found = [set(range(a, b)) for a, b in token_spans(pieced)]
        assert found[first:] == wanted[first:]


@pytest.mark.parametrize("kind", list(scripts.TOKENIZERS))
@pytest.mark.parametrize(("name", "word", "place"), FOUND)
def test_a_word_has_all_its_tokens(kind, name, word, place):
    tok, answers = encoded(kind, TEXTS[name])
    ids, text = answers[0].token_ids.tolist(), answers[0].text
    inside = set(range(text.index(place), text.index(place) + len(place)))
    wanted = [bool(where & inside) for where in byte_places(tok, text, ids)]
    for answer in answers:
        assert tokens_within(answer, occurrences(text, word)[:1]).tolist() == wanted
    if kind != "byte level":  # there "Ġæ" may hold the last byte of one word and a part of another
        chosen = [i for i, hot in zip(ids, wanted, strict=True) if hot]
        assert tok.decode(chosen).strip() == place


def test_a_token_of_a_space_and_a_third_of_a_sign():
    tok, answers = encoded("byte level", "a 日 b")
    assert tok.convert_ids_to_tokens(answers[0].token_ids.tolist())[1:4] == ["Ġæ", "Ĺ", "¥"]
    for answer in answers:
        assert token_spans(answer)[1:4] == [(2, 3)] * 3
        assert tokens_within(answer, occurrences("a 日 b", "日")).tolist()[1:4] == [True] * 3


def test_names_with_special_tokens_and_dropped_markers():
    def by_hand(text, *tokens):
        count = len(tokens)
        return token_spans(Answer(text, tokens, torch.arange(count), torch.zeros(count)))

    assert by_hand("红 a", "<s>", "▁", "<0xE7>", "<0xBA>", "<0xA2>", "▁a", "</s>") == [
        (0, 0), (0, 0), (0, 1), (0, 1), (0, 1), (2, 3), (3, 3)]  # fmt: skip
    assert by_hand("The red 红", "The", "red", "<0xE7>", "<0xBA>", "<0xA2>")[1:] == [
        (4, 7), *[(8, 9)] * 3]  # fmt: skip
    assert by_hand("Ã©", "Ã", "©") == [(0, 1), (1, 2)]  # these are the signs themselves
    assert by_hand("é", "Ã", "©") == [(0, 1), (0, 1)]
    assert by_hand("红 a", "", "", "红", "", " a") == [(0, 1), (0, 1), (0, 1), (1, 1), (2, 3)]
    assert by_hand("a <b> c", "a", " <b>", " c") == [(0, 1), (2, 5), (6, 7)]
    assert by_hand("red cat", "?", "▁cat") == [(0, 0), (4, 7)]  # what does not fit is looked for


def test_marks_never_cut_a_sign():
    text = f"यह लाल {FAMILY} e{NFD[1]}"
    for kind in scripts.TOKENIZERS:
        for answer in encoded(kind, text)[1]:
            for at in range(len(answer.tokens)):
                one = torch.arange(len(answer.tokens)) == at
                shown = marked(answer, one, "[", "]")
                assert shown.replace("[", "").replace("]", "") == answer.text
                inside = regex.findall(r"\[(.*?)\]", shown)
                assert all(part in [text[a:b] for a, b in signs(text)] for part in inside), shown
    answer = encoded("sentencepiece", "红ü")[1][0]
    assert marked(answer, torch.ones(len(answer.tokens)).bool(), "[", "]") == "[红][ü]"


def test_a_byte_of_a_letter_can_be_crucial():
    """The first byte decides which sign comes; it was taken for nothing because it shows none."""
    for answer in encoded("sentencepiece", "a üb。")[1]:
        names = scripts.sentencepiece().convert_ids_to_tokens(answer.token_ids.tolist())
        hot = crucial_tokens(answer, torch.full((len(names),), 5.0), exclude=None).tolist()
        assert hot[names.index("<0xC3>")] and hot[names.index("<0xBC>")]
        words = crucial_tokens(answer, torch.full((len(names),), 5.0)).tolist()
        assert words[names.index("<0xC3>")] and not words[names.index("<0xE3>")]  # 。 is no word
        without = crucial_tokens(answer, torch.full((len(names),), 5.0), exclude={"ÜB"}).tolist()
        assert without[names.index("<0xC3>")]  # a part of the word, as "pand" of panda
    kanji = encoded("byte level", "a 日")[1][0]
    assert crucial_tokens(kanji, torch.full((4,), 5.0), exclude={"日"}).tolist() == [False] * 4


# --- from the reader's call to the tokens -----------------------------------------------------
@pytest.fixture(scope="module")
def model():
    return scripts.model(scripts.sentencepiece())


PHOTO = torch.randint(0, 256, (40, 50, 3), generator=torch.Generator().manual_seed(0)).numpy()
PHOTO = PHOTO.astype("uint8")


@pytest.mark.parametrize(("name", "word", "place"), FOUND)
def test_from_a_call_to_the_tokens(model, name, word, place):
    target = make_target(model, PHOTO, "?", answer=TEXTS[name], word=word)
    chosen = [i for i, hot in zip(target.answer.token_ids, target.crucial, strict=True) if hot]
    assert model.tokenizer.decode(chosen).strip() == place
    assert "".join(target.reliance.words) == regex.sub(r"\s", "", place)


def test_keywords_in_any_script(monkeypatch, model):
    monkeypatch.setattr("lvlm_study.models.keywords.keywords", lambda text: ("兔子", "红色", "لا"))
    assert keyword_spans(TEXTS["chinese"]) == [(0, 2), (3, 5)]
    target = make_target(model, PHOTO, "?", answer=TEXTS["chinese"], tokens="keywords")
    assert target.reliance.words == ("红", "色", "兔", "子")
    assert int(target.crucial.sum()) == 1 + 1 + 3 + 3  # two have tokens, two are bytes
    monkeypatch.setattr("lvlm_study.models.keywords.keywords", lambda text: ("red bus",))
    assert keyword_spans("A red, bus") == [(2, 10)]


def test_a_map_for_every_word_of_any_script(model):
    def words(text):
        said = explain_tokens(model, PHOTO, "?", "center", answer=text)
        return ["".join(ex.reliance.words) for ex in said]

    assert words(TEXTS["hindi"]) == WORDS["hindi"]
    assert words(TEXTS["emoji"]) == WORDS["emoji"]
    assert words("Die Straße ist 红色で。") == ["Die", "Straße", "ist", "红", "色", "で"]


def test_pieces_part_what_has_no_spaces():
    tok = scripts.byte_level(("红色", "兔子"), letters=True)
    ids = tok.encode("红色的兔子。", add_special_tokens=False)
    text, cut, spans = located(tok, ids)
    answer = Answer(text, cut, torch.tensor(ids), torch.zeros(len(ids)), spans=spans)
    parts = [{span for span, hot in zip(token_spans(answer), m, strict=True) if hot}
             for m in word_masks(answer)]  # fmt: skip
    assert parts == [{(0, 2)}, {(2, 3)}, {(3, 5)}]


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("chinese", "兔仔", "did you mean .*兔子"),
        ("chinese", "zz", "its words: 红色的兔子"),
        ("hindi", "लाला", "did you mean लाल"),
        ("korean", "빨강색입니다", "did you mean 빨간색입니다"),
        ("composed", "cafe", "did you mean café"),
        ("thai", "แดด", "did you mean .*แดง"),
        ("emoji", "🐈", "its words: A, 🐇, and"),
        ("english", "dont", "did you mean don’t"),
        ("english", " \u200b", "needs the word to explain"),
    ],
)
def test_near_words_of_other_scripts_are_named(model, name, word, message):
    refuses(message, make_target, model, PHOTO, "?", answer=TEXTS[name], tokens="word", word=word)
