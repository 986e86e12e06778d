"""What the tests of Cambrian and Mini-Gemini share: a byte-level tokenizer and a paint brush."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
VOCABULARY = 300
IMAGE_ID = 3


def tokenizer(image: bool = True, specials: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """One token per byte; `image` adds the image token and a chat template, as the zoo does."""
    words = ["<pad>", "<s>", "</s>", "<image>" if image else "<unused>", *specials]
    vocab = {w: i for i, w in enumerate([*words, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([w for w in words if w != "<unused>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE if image else None,
    )


def paint_inside(x: torch.Tensor, box: torch.Tensor, margin: int) -> torch.Tensor:
    """Invert a picture (1, 3, H, W) inside a box, `margin` away from neighbouring boxes."""
    height, width = x.shape[-2:]
    x0, y0, x1, y1 = box.round().int().tolist()
    x0, y0 = x0 + margin * (x0 > 0), y0 + margin * (y0 > 0)
    x1, y1 = x1 - margin * (x1 < width), y1 - margin * (y1 < height)
    painted = x.clone()
    painted[..., y0:y1, x0:x1] = 1 - painted[..., y0:y1, x0:x1]
    return painted
