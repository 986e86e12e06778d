"""What the paper's tables would cost on GPUs: counted passes and operations, assumed speed.

    python tools/plan.py                 the two tables of book/costs.md
    python tools/plan.py --price 3.5     another price of a GPU hour, and so on

Counted: passes of a method (on a planted reader or our own model), operations and kept memory of
a pass (the real architectures in transformers, built without weights). Assumed, each an option:
how fast a GPU multiplies, which share of that is reached, what an hour costs. The sizes of the
architectures are those of their published configurations; none was downloaded here.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import cache

import transformers as T

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.heatmaps.names import draws_of
from lvlm_study.models import load_model
from lvlm_study.models.towers import RELEASED, build_encoder
from lvlm_study.sweep import bench, costs
from lvlm_study.sweep.costs import Cost

TEXT, ANSWER = 40, 40  # tokens of prompt and answer beside the image's
KEPT = {"mmvp": 105, "mmstar": 705, "cv_bench": 897, "llava_bench": 60}  # after the paper's filter
WHOLE = {"mmvp": 300, "mmstar": 1500, "cv_bench": 2638, "llava_bench": 60}
HAT = 1374  # questions of VQA-HAT's validation set
OTHERS = ("grad_cam", "gae", "iia")  # of Table 1 beside iGOS; T-MM is called gae here
CONTROLS = ("center", "sobel", "difference")  # not in the paper; random apart: scored 20 times
THREE = ("mmvp", "mmstar", "cv_bench")


def llama(width, inner, layers, heads, kv, vocabulary=32000):
    """A decoder of Llama's kind (Vicuna, Llama 3, Qwen2 and Phi-3 cost the same per size)."""
    config = T.LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        vocab_size=vocabulary,
    )
    return lambda: T.LlamaModel(config), width


VICUNA_7B, VICUNA_13B = (4096, 11008, 32, 32, 32), (5120, 13824, 40, 40, 40)
QWEN2 = {
    "0.5b": (896, 4864, 24, 14, 2, 151936),
    "7b": (3584, 18944, 28, 28, 4, 152064),
    "72b": (8192, 29568, 80, 64, 8, 152064),
}
CLIP_L = "openai/clip-vit-large-patch14-336"
SO400M = "siglip/CLIP-ViT-SO400M-14-384"
CAMBRIAN_TOWERS = {name: (spec["image_size"], 1) for name, (_, spec) in RELEASED.items()}


@dataclass(frozen=True)
class Plan:
    """A model on paper: decoder sizes, {tower: (side, views)}, visual tokens, what is left out."""

    decoder: tuple
    towers: dict
    tokens: int
    note: str = ""


# Visual tokens: 576 of a CLIP grid; OneVision at 640 x 480 (see tests/models/test_geometry.py); 600
# of Cambrian with its newlines; 2880 of Mini-Gemini HD.
OV_VIEWS, OV_TOKENS = 5, 3000
MODELS = {
    "LLaVA-1.5-7b": Plan(VICUNA_7B, {CLIP_L: (336, 1)}, 576),
    "LLaVA-OV-0.5b": Plan(QWEN2["0.5b"], {SO400M: (384, OV_VIEWS)}, OV_TOKENS),
    "LLaVA-OV-7b": Plan(QWEN2["7b"], {SO400M: (384, OV_VIEWS)}, OV_TOKENS),
    "LLaVA-OV-72b": Plan(QWEN2["72b"], {SO400M: (384, OV_VIEWS)}, OV_TOKENS),
    "Cambrian-3b": Plan((3072, 8192, 32, 32, 32), CAMBRIAN_TOWERS, 600, "without aggregator"),
    "Cambrian-8b": Plan(
        (4096, 14336, 32, 32, 8, 128256), CAMBRIAN_TOWERS, 600, "without aggregator"
    ),
    "Cambrian-13b": Plan(VICUNA_13B, CAMBRIAN_TOWERS, 600, "without aggregator"),
    "Mini-Gemini-7b": Plan(VICUNA_7B, {CLIP_L: (336, 1)}, 576, "without ConvNeXt"),
    "Mini-Gemini-13b": Plan(VICUNA_13B, {CLIP_L: (336, 1)}, 576, "without ConvNeXt"),
    "Mini-Gemini-7b-HD": Plan(VICUNA_7B, {CLIP_L: (336, 5)}, 2880, "without ConvNeXt"),
}
TABLE1 = ("LLaVA-1.5-7b", "LLaVA-OV-7b", "Cambrian-8b")


@cache
def pass_cost(name: str) -> Cost:
    """One picture through a model, forward and backward, counted on the meta device."""
    plan = MODELS[name]
    total = decoder(plan.decoder, plan.tokens + TEXT + ANSWER)
    for name, (side, views) in plan.towers.items():
        total += tower(name, side) * views
    return total


@cache
def decoder(sizes: tuple, tokens: int) -> Cost:
    """A language model without its head: its layers are alike, so two tell what all cost."""
    width, inner, layers, *rest = sizes
    one, two = (
        vars(costs.language(*llama(width, inner, n, *rest), tokens)).values() for n in (1, 2)
    )
    return Cost(*(a + (layers - 1) * (b - a) for a, b in zip(one, two, strict=True)))


@cache
def tower(name: str, side: int) -> Cost:
    """A vision encoder on one view."""
    spec = RELEASED[name][1]
    if spec["model_type"] == "convnext_trunk":
        return costs.on_paper(lambda: Stages(spec), lambda: {"x": picture(side)})
    return costs.vision(lambda: build_encoder(spec), side)


class Stages(costs.nn.Module):
    """A ConvNeXt trunk whose stages are put behind each other, as the models use it."""

    def __init__(self, spec: dict):
        super().__init__()
        self.trunk = build_encoder(spec)

    def forward(self, x):
        return costs.torch.cat([stage.flatten() for stage in self.trunk(x)])


def picture(side: int):
    return costs.torch.rand(1, 3, side, side)


@cache
def passes(method: str) -> tuple[int, int]:
    """(forward, backward) of one map, counted; where a model is looked into, on our own."""
    return bench.method_passes(method, example() if method in OTHERS else None)


@cache
def example():
    """A target on the model of this repository."""
    return bench.target_of(load_model("mini/llava-1.5"), load_benchmark("sprites")[0])


@cache
def scoring(ways: int) -> int:
    """Forward passes of the scores of one map, counted."""
    return bench.scoring_passes(ways)


def map_work(model: str, method: str, items: int, ways: int = 3) -> float:
    """Operations of maps and their deletion and insertion scores (variants have one way only)."""
    cost, (ahead, back) = pass_cost(model), passes(method)
    scores = scoring(ways) * draws_of(method)
    return items * (cost.forward * (ahead + scores) + cost.backward * back)


def reliance_work(model: str, items: int, baselines: int = 4) -> float:
    """Operations of answering (the prompt once; the cached tokens are small) and of scoring."""
    return items * pass_cost(model).forward * (1 + 2 * baselines)


def tables() -> dict[str, dict[str, float]]:
    """{table: {model: operations}}; what one table shares with another is counted once, first."""
    kept, three = sum(KEPT.values()), sum(KEPT[b] for b in THREE)
    every = sum(WHOLE.values())
    ours = {m: reliance_work(m, every) for m in TABLE1}
    every_method = ("igos", *OTHERS, *CONTROLS)
    table1 = {m: sum(map_work(m, method, kept) for method in every_method) for m in TABLE1}
    first = TABLE1[0]
    return {
        "2 and the filter": ours,
        "1": table1,
        "3": {first: 5 * map_work(first, "igos", three, 1)},
        "4": {
            m: reliance_work(m, WHOLE["mmvp"]) + map_work(m, "igos", KEPT["mmvp"])
            for m in MODELS
            if m not in TABLE1
        },
        "5": {first: 3 * map_work(first, "igos", three, 1)},
        "6": {m: reliance_work(m, HAT) + map_work(m, "igos", HAT) for m in TABLE1[:2]},
    }


def model_table(options) -> list[str]:
    """Counted costs of one pass of each model, and what follows for iGOS."""
    lines = [
        "| model | parameters (10⁹) | forward (TFLOP) | backward (TFLOP) | kept for backward, a "
        "picture (GB) | weights and 1 picture (GB) | one map and its scores (s) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, plan in MODELS.items():
        cost = pass_cost(name)
        seconds = map_work(name, "igos", 1) / speed(options)
        mark = f" ({plan.note})" if plan.note else ""
        lines.append(
            f"| {name}{mark} | {cost.weights / 2e9:.1f} | {cost.forward / 1e12:.1f} | "
            f"{cost.backward / 1e12:.1f} | {cost.saved / 1e9:.1f} | {cost.memory(1) / 1e9:.0f} | "
            f"{seconds:.0f} |"
        )
    return lines


def bill_table(options) -> list[str]:
    """GPU hours of each table, and the wall time and bill of 8 and of 64 GPUs."""
    lines = [
        "| table of the paper | models | GPU hours | 8 GPUs (h) | 64 GPUs (h) | cost (USD) |",
        "|---|---|---|---|---|---|",
    ]
    total = 0.0
    for name, work in tables().items():
        hours = sum(work.values()) / speed(options) / 3600
        total += hours
        lines.append(_bill(name, len(work), hours, options))
    return [*lines, _bill("together", len(MODELS), total, options)]


def _bill(name: str, models: int, hours: float, options) -> str:
    wall = [hours / n / options.balance for n in (8, 64)]
    return (
        f"| {name} | {models} | {hours:.1f} | {wall[0]:.1f} | {wall[1]:.2f} | "
        f"{hours / options.balance * options.price:.0f} |"
    )


def speed(options) -> float:
    """Operations a second that a GPU is assumed to make."""
    return options.peak * 1e12 * options.share


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--peak", type=float, default=312.0, help="TFLOP/s of one GPU (A100, bf16)")
    p.add_argument("--share", type=float, default=0.35, help="share of the peak that is reached")
    p.add_argument("--balance", type=float, default=0.8, help="share of the time a GPU has work")
    p.add_argument("--price", type=float, default=2.0, help="USD for one GPU hour")
    return p


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    print("\n".join([*model_table(options), "", *bill_table(options)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
