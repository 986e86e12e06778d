"""A tiny joint model on disk: an OWL-ViT, the tiny LLaVA, and an alignment between them."""

from pathlib import Path

import torch
import transformers as T
from tiny import BOS, EOS, PATCH, SIDE, VOCAB, tiny_checkpoint, tokenizer

from lvlm_study.models.alignment import Alignment
from lvlm_study.models.joint import save_joint

WIDTH, OUT = 24, 32
NAMES = ("cat", "red bus")


def tiny_owl(folder: Path, side: int = SIDE, seed: int = 3) -> Path:
    """A random OWL-ViT checkpoint of 3 layers that reads `side` pixels in patches of 7."""
    size = dict(intermediate_size=48, num_attention_heads=4, initializer_factor=5.0)
    text = dict(
        size,
        hidden_size=16,
        num_hidden_layers=1,
        vocab_size=VOCAB,
        max_position_embeddings=32,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    vision = dict(size, hidden_size=WIDTH, num_hidden_layers=3, image_size=side, patch_size=PATCH)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = T.OwlViTConfig(text_config=text, vision_config=vision, projection_dim=16)
        model = T.OwlViTForObjectDetection(config)
        for norm in (m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_(std=0.2)
        for layer in model.box_head.children():
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=0.3)
    model.save_pretrained(folder)
    T.OwlViTImageProcessorPil(
        size={"height": side, "width": side}, do_center_crop=False
    ).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tiny_joint(folder: Path, variant: str = "deep", names=NAMES) -> Path:
    """A joint model's folder with both parts inside it."""
    tiny_owl(folder / "owl")
    tiny_checkpoint("llava", folder / "llava")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        alignment = Alignment(variant, WIDTH, OUT, hidden=40, heads=4)
        for p in alignment.parameters():
            p.data *= 3
    return save_joint(folder, alignment, "owl", "llava", names)
