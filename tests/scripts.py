"""Small tokenizers of both kinds that can write every script, and a model that says what it must.

`sentencepiece` knows a few pieces and writes all else in bytes, as LLaMA's does; `byte_level` is
GPT-2's kind. Both were built by hand: each word's merges run from its first sign to its last.
"""

from contextlib import contextmanager

import tiny
import torch
import transformers as T
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as token_models

from lvlm_study.models.registry import FAMILIES

WORDS = ("▁The", "▁object", "▁is", "▁red", "red", "红", "色", "a", "b", "c", ".", "é", "で")
SPECIALS = ("<unk>", "<s>", "</s>", "<image>", "<end>")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


def gpt2_signs() -> dict[int, str]:
    """GPT-2's sign for every byte of UTF-8, asked of the library letter by letter."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    points = [*range(0x800), *range(0x800, 0xD800, 64), *range(0xE000, 0x110000, 64)]
    written = {chr(p): level.pre_tokenize_str(chr(p))[0][0] for p in points}
    return {
        b: s for sign, text in written.items() for b, s in zip(sign.encode(), text, strict=True)
    }


SIGN_OF = gpt2_signs()
ALPHABET = {sign: byte for byte, sign in SIGN_OF.items()}


def chain(words) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces that lead to every word, and the merges between them."""
    pieces, merges = {}, {}
    for word in words:
        pieces |= dict.fromkeys(word)
        for end in range(1, len(word)):
            pieces[word[: end + 1]] = merges[word[:end], word[end]] = None
    return list(pieces), list(merges)


def sentencepiece(first_only: bool = False):
    """LLaMA's kind: a "▁" before the text; before every part of it, or `first_only`."""
    pieces, merges = chain(WORDS)
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys((*SPECIALS, *BYTES, "▁", *pieces)))}
    tok = Tokenizer(
        token_models.BPE(
            vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True
        )
    )
    if first_only:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tok.normalizer = normalizers.Sequence(spaces)
    tok.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return wrapped(tok)


def byte_level(merges=("Ġred", "ĠThe", "Ġæ", "æĹ¥"), letters: bool = False):
    """GPT-2's kind; two of its merges join parts of signs: "Ġæ" is a space and a third of 日.

    `letters`: the merges are given as readable words.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if letters:
        merges = ["".join(SIGN_OF[byte] for byte in word.encode()) for word in merges]
    pieces, pairs = chain(merges)
    vocab = {p: i for i, p in enumerate(dict.fromkeys((*SPECIALS, *alphabet, *pieces)))}
    tok = Tokenizer(token_models.BPE(vocab=vocab, merges=pairs))
    split = pre_tokenizers.Split(Regex(r" ?[^\s]+|\s+"), "isolated")
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tok.decoder = decoders.ByteLevel()
    return wrapped(tok, unk_token=None)


def wrapped(tok, **names):
    tok.add_special_tokens(list(SPECIALS))
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | names
    more = {"additional_special_tokens": ["<image>", "<end>"]}
    return T.PreTrainedTokenizerFast(tokenizer_object=tok, **names, **more)


TOKENIZERS = {
    "sentencepiece": sentencepiece,
    "sentencepiece, first part only": lambda: sentencepiece(True),
    "byte level": byte_level,
}


def model(tokenizer, end=" ASSISTANT:"):
    """A tiny LLaVA with this tokenizer, whose prompt ends with `end`."""
    text = tiny.TEXT | {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2}
    config = T.LlavaConfig(
        vision_config=tiny.CLIP,
        text_config=text | {"pad_token_id": 2},
        image_token_index=3,
        vision_feature_layer=-2,
        image_seq_length=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = T.LlavaForConditionalGeneration(config).eval()
    processor = T.CLIPImageProcessorPil(**tiny.CROP)
    template = tiny.TEMPLATE.replace(" ASSISTANT:", end)
    return FAMILIES["llava"]("tiny", network, tokenizer, processor, template)


@contextmanager
def saying(adapter, ids, first: int | None = None):
    """The network can say nothing but these ids, and likes to say `first`."""
    allowed = torch.zeros(adapter.vocabulary).bool()
    allowed[list(ids)] = True

    def only(head, args, out):
        out = out.masked_fill(~allowed, -1e4)
        return out if first is None else out + 1e3 * (torch.arange(len(allowed)) == first)

    hook = adapter.model.get_output_embeddings().register_forward_hook(only)
    try:
        yield adapter
    finally:
        hook.remove()
