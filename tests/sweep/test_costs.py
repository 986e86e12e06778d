"""Costs counted on paper are those of a real pass."""

import plan
import pytest
import torch
import transformers as T
from torch import nn

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.models import list_models, load_model
from lvlm_study.paths import data_dir
from lvlm_study.sweep import bench, costs, estimate
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


@pytest.mark.slow
@pytest.mark.skipif("mini/llava-1.5" not in list_models(), reason="the mini model is not here")
def test_the_estimated_memory_is_of_the_measured_size():
    """What `estimate` finds for one picture, times 12, against the peak of a pass with 12."""
    model, item, batch = load_model("mini/llava-1.5"), load_benchmark("sprites")[0], 12
    target, found = estimate.measured(model, item)
    bench.plain_pass(target, batch)
    with bench.measure(model.model) as cost:
        bench.plain_pass(target, batch)
    assert batch * found.kept == pytest.approx(cost.peak_bytes, rel=0.3)
    assert costs.of_target(target).saved <= found.kept < 4 * costs.of_target(target).saved
    assert found.twice < found.kept


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
