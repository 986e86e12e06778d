"""mini/owl: a small open-vocabulary detector for drawn scenes, in transformers' own OWL-ViT class.

Like the real one it starts from a CLIP tower and is then trained whole: the patch that holds an
object's middle says what the object is, by likeness to a text query, and where its box runs.
"""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import AddedToken, OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessorPil

from ..detector.detection import average_precision
from ..metrics.localisation import pairwise_iou
from ..models.owl import TEMPLATE, corners, embed_queries, resume
from ..paths import data_dir
from ..scenes import scenes
from .fit import fit, half
from .pool import VIEWS, Pool, load_pool
from .tokenizer import VOCABULARY, train_tokenizer
from .vision import CLIP_MEAN, CLIP_STD, HEADS, LAYERS, PATCH, WIDTH, normalise, train_tower

SIDE, GRID = 112, 8
TEXT_WIDTH = 64
END = "<|end|>"  # OWL-ViT reads a query at its highest id, so the end token must have it
MOST = 7  # objects in a scene
KNOWN = 6144  # scenes on which the heads alone are trained


def names() -> list[str]:
    """What mini/owl was taught to find: every class, and things of every colour."""
    return [*scenes.names(), *(f"{color} object" for color in scenes.COLORS)]


def owl_model() -> OwlViTForObjectDetection:
    """An untrained OWL-ViT of the zoo's patch size and width."""
    text = dict(
        vocab_size=VOCABULARY + 1,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_act="gelu",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=VOCABULARY,
    )
    vision = dict(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        patch_size=PATCH,
        image_size=SIDE,
        hidden_act="gelu",
    )
    config = OwlViTConfig(text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH)
    model = OwlViTForObjectDetection(config)
    head = model.class_head
    for layer, start in ((head.logit_shift, -0.5), (head.logit_scale, 9.0)):  # -5 apart, 5 alike
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, start)
    nn.init.zeros_(model.box_head.dense2.weight)  # boxes start at their patches
    nn.init.zeros_(model.box_head.dense2.bias)
    model.set_attn_implementation("eager")  # much faster to train on a CPU than sdpa
    return model


def owl_tokenizer(folder: Path):
    """The zoo's tokenizer with start and end tokens around every query."""
    tokenizer = train_tokenizer(folder)
    tokenizer.add_special_tokens({"eos_token": AddedToken(END, special=True)})
    end = tokenizer.convert_tokens_to_ids(END)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"<s> $A {END}", special_tokens=[("<s>", 1), (END, end)]
    )
    return tokenizer


def owl_processor() -> OwlViTImageProcessorPil:
    """Squash to 112 pixels: no crop and no padding, so patches and boxes cover the whole image."""
    return OwlViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )


def start_vision(model: OwlViTForObjectDetection, tower: nn.Module) -> None:
    """Begin with a trained CLIP tower; its blocks have the same names (but for CLIP's typo)."""
    state = {k.replace("pre_layrnorm", "pre_layernorm"): v for k, v in tower.state_dict().items()}
    model.owlvit.vision_model.load_state_dict(state)


@cache
def tight_box(name: str, size: str) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1 of the visible part of a sprite inside its cell, pixels."""
    sprite = scenes.Sprite(name, "red", size, 0, 0)
    shown = scenes.mask(scenes.Scene("room", False, 150, 0, 0, (sprite,)), 0)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def boxes_of(scene: scenes.Scene) -> np.ndarray:
    """Boxes (n, 4) x0 y0 x1 y1 around what is seen of each object, pixels of the 336 picture."""
    out = [np.array(tight_box(o.name, o.size)) + (o.x, o.y, o.x, o.y) for o in scene.objects]
    return np.array(out, np.float32).reshape(-1, 4)


def objects_of(pool: Pool) -> dict[str, np.ndarray]:
    """Every scene's objects as arrays (n, 7): middle's patch (-1 for none), class, colour, box."""
    n = len(pool.scenes)
    patch = np.full((n, MOST), -1, np.int64)
    name, color = np.zeros((n, MOST), np.int64), np.zeros((n, MOST), np.int64)
    box = np.zeros((n, MOST, 4), np.float32)
    rows, colors = scenes.atlas()["rows"], list(scenes.COLORS)
    for i, scene in enumerate(pool.scenes):
        for k, (o, found) in enumerate(zip(scene.objects, boxes_of(scene), strict=True)):
            x, y = (found[:2] + found[2:]) / 2
            step = scenes.SIDE / GRID
            patch[i, k] = int(y // step) * GRID + int(x // step)
            name[i, k], color[i, k] = rows[o.name], colors.index(o.color)
            box[i, k] = found / scenes.SIDE
    return {"patch": patch, "name": name, "color": color, "box": box}


def detection_loss(logits: Tensor, boxes: Tensor, objects: dict[str, Tensor]) -> Tensor:
    """Focal loss of every patch and query; distance and generalised IoU where a middle lies.

    logits (B, N, Q), boxes (B, N, 4) cx cy w h before the sigmoid; objects as `objects_of` gives
    them. The distance is taken before the sigmoid: OWL-ViT's box bias saturates it in the last row
    and column of patches, where a distance between boxes would have no gradient.
    """
    scene, k = (objects["patch"] >= 0).nonzero(as_tuple=True)
    patch = objects["patch"][scene, k]
    wanted = torch.zeros_like(logits)
    wanted[scene, patch, objects["name"][scene, k]] = 1
    wanted[scene, patch, len(scenes.names()) + objects["color"][scene, k]] = 1
    chance = logits.sigmoid()
    miss = torch.where(wanted > 0, 1 - chance, chance)
    weight = torch.where(wanted > 0, 0.25, 0.75) * miss.square()
    focal = (weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()
    found, true = boxes[scene, patch], objects["box"][scene, k]
    middle, size = (true[:, :2] + true[:, 2:]) / 2, true[:, 2:] - true[:, :2]
    apart = (found - torch.cat([middle, size], -1).logit()).abs().sum(-1).mean()
    overlap = generalised_iou(corners(found.sigmoid()), true).mean()
    return focal / len(scene) + apart + 2 * (1 - overlap)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the share of the common hull that neither covers, in [-1, 1]: (n, 4) each, (n,)."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    either = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - both
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(-1)
    return both / either - (hull - either) / hull


class Trained(nn.Module):
    """The detector as it is trained: logits of its fixed queries, and boxes before the sigmoid."""

    def __init__(self, owl: OwlViTForObjectDetection, tokenizer):
        super().__init__()
        self.owl, self.tokenizer = owl, tokenizer
        self.texts = [TEMPLATE.format(n) for n in names()]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures through the frozen tower and then the part that is trained."""
        return self.after(self.shared(pixels))

    def shared(self, pixels: Tensor) -> Tensor:
        """Tokens that enter the last layer (B, 65, C)."""
        vision = self.owl.owlvit.vision_model
        return vision(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]

    def after(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer and the heads."""
        read = resume(self.owl, shared)
        queries = embed_queries(self.owl, self.tokenizer, self.texts)
        logits = self.owl.class_head(read, queries, None)[0]
        return logits.float(), (self.owl.box_head(read) + self.owl.box_bias).float()


def quality(logits: Tensor, boxes: Tensor, objects: dict[str, Tensor]) -> dict[str, float]:
    """Mean average precision over the classes at IoU 0.5, and mean IoU at the right patches."""
    scene, k = (objects["patch"] >= 0).nonzero(as_tuple=True)
    patch, true = objects["patch"][scene, k], objects["box"][scene, k]
    found = corners(boxes.sigmoid())
    overlap = torch.stack(
        [
            pairwise_iou(a[None], b[None])[0, 0]
            for a, b in zip(found[scene, patch], true, strict=True)
        ]
    )
    scores = logits.sigmoid()
    ap = []
    for c in range(len(scenes.names())):
        of_class = objects["name"][scene, k] == c
        ap.append(
            average_precision(
                [
                    (
                        scores[i, :, c].numpy(),
                        found[i].numpy(),
                        true[of_class & (scene == i)].numpy(),
                    )
                    for i in range(len(scores))
                ]
            )
        )
    return {"ap50": round(float(np.nanmean(ap)), 4), "iou": round(overlap.mean().item(), 4)}


def train_owl(
    work: Path,
    *,
    steps: tuple[int, int] = (600, 500),
    tower_steps: int = 3000,
    pool_size: int = 24576,
    batch: int = 32,
    seed: int = 0,
    out: Path | None = None,
    say=print,
) -> Path:
    """Train mini/owl (or go on where it stopped) and write its checkpoint; the folder is returned.

    `work` keeps pools, tower and partial work, as for `lvlm-study train`; the CLIP tower is taken
    from there if it is trained already.
    """
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    tower = train_tower("clip", work, steps=tower_steps, batch=40, pool_size=pool_size, say=say)
    torch.manual_seed(seed)
    net = Trained(owl_model(), owl_tokenizer(work / "owl-tokenizer"))
    start_vision(net.owl, tower.requires_grad_(True))
    _fit(net, work, steps, pool_size, batch, seed, say)
    return _finish(net, work, out or data_dir() / "zoo" / "owl", seed, say)


def _spread_queries(net: Trained, work: Path, steps: int, seed: int, say) -> None:
    """The text tower alone learns to tell the queries apart, before there is anything to match.

    Untrained, all queries are alike to three digits, and heads that are asked to match them can
    only agree on "nowhere"; they did so for good.
    """
    text = nn.ModuleList([net.owl.owlvit.text_model, net.owl.owlvit.text_projection])

    def loss_at(step):
        found = embed_queries(net.owl, net.tokenizer, net.texts)
        return (found @ found.T - torch.eye(len(found))).square().mean(), {}

    fit(text, loss_at, work / f"owl-{seed}" / "text", steps=steps, rate=2e-3, say=say)


def _fit(net: Trained, work: Path, steps, pool_size, batch, seed, say) -> None:
    """First the text tower; then last layer and heads with it, on frozen sight; then everything."""
    pool, held = load_pool(work, pool_size, 1000, VIEWS), load_pool(work, 1024, 1001, VIEWS)
    objects = {k: torch.from_numpy(v) for k, v in objects_of(pool).items()}
    known = cache(lambda: _tower_tokens(net, pool, min(pool_size, KNOWN)))
    where = dict(evaluate=lambda: held_out_quality(net, held, 128), every=100, say=say)

    def heads_loss(step):
        rows = np.random.default_rng([seed, 0, step]).integers(0, min(pool_size, KNOWN), 64)
        return detection_loss(*net.after(known()[rows].float()), _some(objects, rows)), {}

    def loss_at(step):
        rows = np.random.default_rng([seed, 1, step]).integers(0, len(pool.scenes), batch)
        found = net(normalise(pool.views[SIDE][rows]))
        return detection_loss(*found, _some(objects, rows)), {}

    _spread_queries(net, work, min(400, 4 * steps[0]), seed, say)
    below = [p for n, p in net.named_parameters() if _is_below(n)]
    for p in below:
        p.requires_grad_(False)
    fit(net.owl, heads_loss, work / f"owl-{seed}" / "heads", steps=steps[0], rate=1e-3, **where)
    for p in below:
        p.requires_grad_(True)
    fit(net.owl, loss_at, work / f"owl-{seed}" / "whole", steps=steps[1], rate=4e-4, **where)


def _is_below(name: str) -> bool:
    """Whether a parameter belongs to what the tower computes before its last layer."""
    last = f"encoder.layers.{LAYERS - 1}."
    return "vision_model." in name and last not in name and "post_layernorm" not in name


def _some(objects: dict[str, Tensor], rows: np.ndarray) -> dict[str, Tensor]:
    return {k: v[rows] for k, v in objects.items()}


@torch.no_grad()
def _tower_tokens(net: Trained, pool: Pool, n: int) -> Tensor:
    """Shared tokens of the first `n` scenes, bfloat16 (n, 65, C)."""
    parts = np.array_split(np.arange(n), max(1, n // 64))
    with half():
        return torch.cat([net.shared(normalise(pool.views[SIDE][r])).bfloat16() for r in parts])


@torch.no_grad()
def held_out_quality(net: Trained, held: Pool, n: int) -> dict[str, float]:
    """`quality` on the first `n` held-out scenes."""
    objects = {k: torch.from_numpy(v[:n]) for k, v in objects_of(held).items()}
    return quality(*net(normalise(held.views[SIDE][:n])), objects)


def _finish(net: Trained, work: Path, folder: Path, seed: int, say) -> Path:
    """Write beside, measure, put in place."""
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    say("measuring on 1,024 held-out scenes")
    found = held_out_quality(net, load_pool(work, 1024, 1001, VIEWS), 1024)
    net.owl.set_attn_implementation("sdpa")
    net.owl.to(torch.float16).save_pretrained(beside)
    net.tokenizer.save_pretrained(beside)
    owl_processor().save_pretrained(beside)
    logs = sorted((work / f"owl-{seed}").glob("*/log.jsonl"))
    found["steps"] = sum(json.loads(log.read_text().splitlines()[-1])["step"] for log in logs)
    (beside / "accuracy.json").write_text(json.dumps(found, indent=1) + "\n")
    (beside / "README.md").write_text(_card(net.owl, found))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


def _card(owl: nn.Module, found: dict[str, float]) -> str:
    parameters = sum(p.numel() for p in owl.parameters()) / 1e6
    return f"""---
language: en
license: apache-2.0
pipeline_tag: zero-shot-object-detection
---
# mini/owl

An OwlViTForObjectDetection of {parameters:.1f} million parameters for drawn sprite scenes. Its
vision starts from the zoo's CLIP tower and is trained whole, on two CPU cores, with its heads and
its text tower, for {found["steps"]} steps. Queries: "a photo of a ..." with a class name (cat,
umbrella, ...) or "red object", "blue object" and so on.

Data: scenes from seed 1000; boxes run around what is seen of a sprite. On 1,024 scenes from seed
1001, never trained on: mean average precision over the {len(scenes.names())} classes at IoU 0.5 is
{found["ap50"]:.3f}; the box of the patch that holds an object's middle has IoU {found["iou"]:.3f}
with the truth on average.
"""
