"""Costs counted on paper are those of a real pass."""

import json
import subprocess
import sys

import plan
import pytest
import torch
import transformers as T
from torch import nn

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.models import list_models, load_model
from lvlm_study.paths import data_dir
from lvlm_study.sweep import bench, costs
from lvlm_study.sweep.costs import Cost

SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, vocab_size=50)
SIZES |= dict(num_attention_heads=4, num_key_value_heads=2)


def test_costs_by_hand():
    layer, x = nn.Linear(8, 16).requires_grad_(False), torch.rand(4, 8).requires_grad_()
    cost = costs.counted(lambda: layer(x).relu(), layer)
    assert (cost.forward, cost.backward) == (2 * 4 * 8 * 16, 2 * 4 * 8 * 16)
    assert cost.saved == 4 * 4 * 16 and cost.weights == 4 * (8 * 16 + 16)
    one, other = Cost(1.0, 2.0, 30, 400, 7), Cost(1.0, 2.0, 30, 400, 4)
    assert one + other == Cost(2.0, 4.0, 60, 800, 7) and one * 3 == Cost(3.0, 6.0, 90, 400, 21)
    assert one.memory(5) == 400 + 5 * (30 + 7)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_lives_for_a_moment_by_hand(device):
    """A copy of the leaf and its double live at once; a sum of them keeps neither."""
    layer, x = nn.Linear(1, 1), torch.rand(1000, device=device, requires_grad=True)
    cost = costs.counted(lambda: (x.repeat(50) * 2).sum(), layer)
    assert cost.saved == 0 and 2 * 200_000 <= cost.working < 2 * 200_000 + 8_000
    cost = costs.counted(lambda: x.exp().exp().sum(), layer)
    assert cost.saved == 2 * 4000 and 4000 <= cost.working < 2 * 4000 + 100  # gradients of both


def test_a_language_model_on_paper_by_hand():
    """Matrices of q, k, v, o and the gated MLP for every token, attention for every pair."""
    S, w, inner, half = 10, 64, 96, 32
    cost = costs.language(lambda: T.LlamaModel(T.LlamaConfig(**SIZES)), w, S)
    layer = 2 * S * (w * w * 2 + w * half * 2 + 3 * w * inner) + 2 * 2 * S * S * w
    assert cost.forward == 3 * layer
    assert cost.forward < cost.backward < 1.5 * cost.forward  # attention costs more backward
    assert cost.weights == 2 * sum(
        p.numel() for p in T.LlamaModel(T.LlamaConfig(**SIZES)).parameters()
    )


@pytest.mark.skipif("mini/llava-1.5" not in list_models(), reason="the mini model is not here")
def test_parts_on_paper_are_the_mini_model_in_full():
    """The sum that stands for models which were never loaded, against one that was."""
    model, item = load_model("mini/llava-1.5"), load_benchmark("sprites")[0]
    target = bench.target_of(model, item)
    real = costs.of_target(target)
    config, text = model.model.config, model.model.config.text_config
    last = int(target.crucial.nonzero()[-1])
    tokens = target.bound.prompt_ids.shape[1] + last
    paper = costs.language(
        lambda: type(model.model.model.language_model)(text), text.hidden_size, tokens
    )
    tower = type(model.vision)
    paper += costs.vision(lambda: tower(config.vision_config), config.vision_config.image_size)
    # a real pass also resizes the picture exactly, in two products, which is not on paper
    assert paper.forward == pytest.approx(real.forward, rel=0.1) and paper.forward < real.forward
    # on paper: the fused kernel's backward computes attention again, and words have gradients too
    assert real.backward <= paper.backward < 1.25 * real.backward


MEMORY = """
import json
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.models import load_model
from lvlm_study.sweep import bench, costs, estimate

estimate.give_back()
model, item = load_model("mini/llava-ov"), load_benchmark("sprites")[0]
target, found = estimate.measured(model, item)
with bench.measure(model.model) as cost:
    bench.plain_pass(target, 12)
one = costs.of_target(target)
print(json.dumps([found.kept, found.twice, cost.peak_bytes / 12, one.saved + one.working]))
"""


@pytest.mark.slow
@pytest.mark.skipif("mini/llava-ov" not in list_models(), reason="the mini model is not here")
def test_the_memory_of_a_picture_counted_estimated_and_measured():
    """Against the peak of a pass with 12, in a process whose memory is all new."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, check=True)
    kept, twice, measured, counted = json.loads(done.stdout)
    assert counted == pytest.approx(measured, rel=0.15)
    assert kept == pytest.approx(measured, rel=0.3) and twice < kept


def test_layers_add_up():
    """Three layers cost what one costs and twice the step from one to two."""
    found = [
        vars(
            costs.language(
                lambda n=n: T.LlamaModel(T.LlamaConfig(**SIZES | {"num_hidden_layers": n})), 64, 10
            )
        )
        for n in (1, 2, 3)
    ]
    for key in ("forward", "backward", "saved", "weights", "working"):
        one, two, three = (cost[key] for cost in found)
        assert three == one + 2 * (two - one)


@pytest.mark.slow
def test_the_plan_in_the_book_is_what_the_tool_prints(pytestconfig, capsys):
    assert plan.main([]) == 0
    page = (pytestconfig.rootpath / "book" / "costs.md").read_text()
    missing = [line for line in capsys.readouterr().out.splitlines() if line and line not in page]
    assert missing == [] and data_dir().is_dir()
