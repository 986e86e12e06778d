"""A text that somebody else wrote, in the tokens with which the model would have said it.

The words are the reader's; how an answer begins is the model's. After "ASSISTANT:" most models say
" The", after a line break "The", and these are different tokens. So the model is asked for its own
first token, and the text opens with a space where that one does. The tokens are those that follow
the prompt when both are tokenized as one, which spares knowing what a tokenizer puts before a text
of its own (a SentencePiece dummy prefix, a start token).
"""

import torch
from torch import Tensor

from ..errors import StudyError, named
from ..pixels.arguments import shows_nothing


def check_text(text) -> str:
    """The text, or StudyError where it is none, shows nothing, or is no UTF-8."""
    if not isinstance(text, str):
        raise StudyError(f"An answer is a text or what model.answer gives, not {named(text)}.")
    if shows_nothing(text):
        raise StudyError("The answer is empty; give its text, or no answer for the model's own.")
    if any("\ud800" <= sign <= "\udfff" for sign in text):  # a byte of the command line
        raise StudyError("The answer has bytes that are no UTF-8 text; write it in UTF-8.")
    return text.lstrip()


@torch.no_grad()
def spelled(bound, x: Tensor, text: str) -> Tensor:
    """Ids (A,) of `text` said about the picture (1, 3, H, W): no special tokens, no end token.

    Raises StudyError for a text that the model's tokenizer cannot write, or that is too long.
    """
    adapter, text = bound.adapter, check_text(text)
    adapter.check_signs("answer", text)
    space = " " if _opening(bound, x).startswith(" ") else ""
    ways = [_following(bound, start + text) for start in (space, "", " ")]
    ids = next((ids for ids in ways if _spaces(_heard(bound, ids)) == len(space)), ways[0])
    unknown = adapter.tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        raise StudyError(f"The tokenizer of {adapter.name} cannot write all signs of {text!r}.")
    limit = getattr(adapter.model.config.get_text_config(), "max_position_embeddings", None)
    room = (limit or len(ids) + bound.prompt_ids.shape[1]) - bound.prompt_ids.shape[1]
    if len(ids) > room:
        raise StudyError(
            f"The answer has {len(ids)} tokens but {adapter.name} has room for {room} behind the "
            "question; give a shorter one."
        )
    return torch.tensor(ids)


def _opening(bound, x: Tensor) -> str:
    """The first visible piece that the model itself would say."""
    first = bound.logits(x, torch.zeros(1, dtype=torch.int64))[0, 0].clone()  # (V,)
    silent = [i for i in bound.adapter.tokenizer.all_special_ids if i < len(first)]
    first[silent] = -torch.inf
    return _heard(bound, [int(first.argmax())])


def _following(bound, text: str) -> list[int]:
    """The ids of `text` behind the prompt, or behind less where it would melt into the prompt."""
    adapter, prompt = bound.adapter, bound.prompt_ids[0].tolist()
    ids = adapter.tokenized(bound.question, bound.geometries, text)[0].tolist()
    if ids[: len(prompt)] == prompt:
        return ids[len(prompt) :]
    for before in ("\n", ""):
        start, ids = (_plain(adapter, part) for part in (before, before + text))
        if ids[: len(start)] == start:
            return ids[len(start) :]


def _plain(adapter, text: str) -> list[int]:
    return adapter.tokenizer(text, add_special_tokens=False).input_ids


def _heard(bound, ids: list[int]) -> str:
    """What ids add to the end of the prompt, with the space that opens them."""
    last = bound.prompt_ids[0, -1:].tolist()
    how = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    before, whole = (bound.adapter.tokenizer.decode(part, **how) for part in (last, last + ids))
    return whole[len(before) :]


def _spaces(text: str) -> int:
    return len(text) - len(text.lstrip(" "))
