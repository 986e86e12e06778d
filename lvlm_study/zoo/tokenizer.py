"""A small sub-word tokenizer, trained on the words of the scenes' questions and answers.

Byte-level BPE with few merges: frequent words are one token, rarer ones split, as in a real LVLM.
"""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..scenes import scenes
from ..scenes.questions import all_questions, describe

VOCABULARY = 520
SPECIAL = ("<pad>", "<s>", "</s>", "<image>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def corpus(n: int = 400, seed: int = 77) -> list[str]:
    """Questions, answers and captions of `n` scenes: the text a tokenizer is trained on."""
    rng, lines = np.random.Generator(np.random.PCG64(seed)), []
    for _ in range(n):
        scene = scenes.sample(rng)
        lines.append(describe(scene))
        lines += [f"USER: \n{q.text} ASSISTANT: {q.answer}" for q in all_questions(scene, rng)]
    return lines


def train_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Train on `corpus()` and save in the Hugging Face layout, chat template included."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet
    )
    core.train_from_iterator(corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
