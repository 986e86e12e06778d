"""What the tests of Cambrian and Mini-Gemini share: a byte-level tokenizer and a paint brush."""

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast

from lvlm_study.models import load_model

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
# of a small language model; with the usual range of 0.02 a random one is almost silent
SMALL = dict(vocab_size=100, hidden_size=32, intermediate_size=64, initializer_range=0.1)
SMALL |= dict(num_attention_heads=4, num_key_value_heads=2)
SMALL |= dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
VOCABULARY = 300
IMAGE_ID = 3
LANGUAGE = dict(vocab_size=VOCABULARY, image_token_index=IMAGE_ID, max_position_embeddings=4096)
SIZE = (96, 128)  # of a picture: 3 x 4 cells of 32 pixels stay in Cambrian


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


def picture(size=SIZE, seed=0) -> torch.Tensor:
    levels = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(seed))
    return levels / 255


def squared(x: torch.Tensor, side: int, colour: tuple) -> np.ndarray:
    """By Pillow: a picture (1, 3, H, W) set into a square of a colour, and resized to `side`."""
    image = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    most = max(image.size)
    square = Image.new("RGB", (most, most), colour)
    square.paste(image, ((most - image.width) // 2, (most - image.height) // 2))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))


def same_from_folder(adapt, folder) -> bool:
    """Saved and loaded by its folder, an adapter gives the same log-probabilities, frozen."""
    for part in (adapt.model, adapt.tokenizer, CLIPImageProcessorPil()):
        part.save_pretrained(folder)
    again, ids = load_model(folder, device="cpu"), torch.tensor([70, 71, 72])
    want, have = (a.bind(SIZE, "Is it red?").log_probs(picture(), ids) for a in (adapt, again))
    return torch.equal(want, have) and not any(p.requires_grad for p in again.model.parameters())
