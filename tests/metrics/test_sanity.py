"""Sanity checks by hand: what a reader of known weights must answer, and what a control must."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_joint import tiny_joint
from torch import nn

from lvlm_study.answers import Target
from lvlm_study.errors import StudyError
from lvlm_study.heatmaps import explain
from lvlm_study.metrics.sanity import (
    Comparison,
    Likeness,
    infidelity,
    likeness,
    random_logit,
    randomised_copies,
    randomised_weights,
    seed_stability,
    sensitivity,
    weight_stages,
    wrong_question,
)
from lvlm_study.models import load_model
from lvlm_study.models.base import Answer
from lvlm_study.models.planted import PlantedBound, PlantedReader, planted, planted_scene

SCENE = planted_scene((64, 96))
SMALL = planted_scene((14, 28))
IG = "integrated_gradients"


class Weigher(nn.Module):
    """Two words; the first has the logit sum(weight x picture), and so a gradient known by hand."""

    def __init__(self, size):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.rand(3, *size, generator=generator) * 0.01)

    def forward(self, pixel_values, length):
        z = (pixel_values[:, 0] * self.weight).sum((1, 2, 3))
        table = torch.full((len(z), 2, 6), -1e4)
        first = torch.full_like(z, 0.0)[:, None].expand(-1, 6).clone()
        first[:, 2], first[:, 3] = z, -z
        table[:, 0], table[:, 1, 0] = first - 1e4 * (torch.arange(6) // 2 != 1), 0.0
        return table[:, torch.arange(length).clamp(max=1)]


def weigher(size=(14, 28)):
    reader = PlantedReader("weigher", sentence=("{}",))
    reader.model = Weigher(size)
    return reader


# --- weights drawn anew


def test_a_joint_copy_keeps_one_encoder(tmp_path):
    """`ga` reads its tokens from the detector: with the old one there no weight was drawn anew."""
    model = load_model(tiny_joint(tmp_path / "joint", names=("cat", "dog")))
    before = model.detector.vision.state_dict()
    seen = {name: value.clone() for name, value in before.items()}
    stages = []
    for stage, other in randomised_copies(model, "cascading"):
        stages.append(stage)
        assert other.detector.vision is other.model.model.vision_tower
        assert other.detector.vision is not model.detector.vision
    assert stages[-1] == "vision"
    drawn = other.detector.vision.state_dict()
    assert any((drawn[name] - value).abs().max() > 0.01 for name, value in seen.items())
    assert all(torch.equal(before[name], value) for name, value in seen.items())


def test_a_correlation_that_is_none_is_left_out_of_the_mean():
    alike = (Likeness(0.5, 0.5, 0.5), Likeness(np.nan, np.nan, 0.2))
    assert Comparison(None, (), alike, "ok").mean == 0.5


def test_randomised_weights_give_the_map_of_the_drawn_weights():
    """The gradient is the weight up to a factor, so the correlation follows from the weights."""
    reader, before = weigher(), weigher().model.weight.detach().clone()
    ask = {"baseline": "black", "tokens": "all"}
    found = randomised_weights(reader, SMALL, "?", IG, seed=3, **ask)
    assert found["stage"].tolist() == ["projector"] and found["status"].tolist() == ["ok"]
    assert torch.equal(reader.model.weight, before)
    drawn = before.mean() + before.std(unbiased=False) * torch.randn(
        before.shape, generator=torch.Generator().manual_seed(3)
    )
    picture = torch.from_numpy(SMALL.copy()).permute(2, 0, 1) / 255
    maps = [(w * picture).sum(0).view(14, 14, 2).mean(-1) for w in (before, drawn)]
    expected = stats.spearmanr(*(m.flatten().numpy() for m in maps)).statistic
    assert found["spearman"][0] == pytest.approx(expected, abs=0.01)
    assert abs(expected) < 0.9


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_a_control_survives_what_no_model_survives(tiny_llava, mode):
    """The centre map never looked: every stage leaves it as it was, which is how it is told."""
    options = {"tokens": "all", "answer": tiny_llava.answer(SCENE, "What?", max_new_tokens=3)}
    found = randomised_weights(tiny_llava, SCENE, "What?", "center", mode, **options)
    assert found["stage"].tolist() == ["head", "language 1", "language 0", "projector", "vision"]
    assert found["spearman"].tolist() == pytest.approx([1] * 5)
    assert found["ssim"].tolist() == pytest.approx([1] * 5)
    assert found["probability"].nunique() == 5  # the model did change, each time


def test_a_gradient_map_does_not_survive(tiny_llava):
    options = {"tokens": "all", "answer": tiny_llava.answer(SCENE, "What?", max_new_tokens=3)}
    found = randomised_weights(tiny_llava, SCENE, "What?", IG, steps=4, **options)
    assert found["spearman"].abs().max() < 0.9
    assert found["spearman"].abs().iloc[-1] < 0.5


def test_modes_keep_or_restore(tiny_llava):
    own = {name: w.clone() for name, w in tiny_llava.model.named_parameters()}
    stages = weight_stages(tiny_llava.model)
    assert sorted(n for names in stages.values() for n in names) == sorted(own)
    for mode, kept in (("cascading", True), ("independent", False)):
        seen = set()
        for stage, other in randomised_copies(tiny_llava, mode):
            seen = seen | set(stages[stage]) if kept else set(stages[stage])
            theirs = dict(other.model.named_parameters())
            moved = {name for name in own if not torch.equal(own[name], theirs[name])}
            flat = {name for name in seen if own[name].std() == 0}  # all ones, or all zeros
            assert moved == seen - flat
    assert all(torch.equal(own[n], w) for n, w in tiny_llava.model.named_parameters())


@pytest.mark.parametrize("family", ["llava_onevision", "llava_next"])
def test_stages_run_from_the_logits_to_the_picture(adapters, family):
    stages = weight_stages(adapters(family).model)
    assert list(stages) == ["head", "language 1", "language 0", "projector", "vision"]
    assert all("vision_tower" in name for name in stages["vision"])
    assert not any("vision_tower" in name for name in stages["projector"])
    assert all(".layers.1." in name for name in stages["language 1"])


def test_many_blocks_are_drawn_in_few_runs():
    module = nn.Module()
    module.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(10))
    names = list(weight_stages(module, 4))
    assert names == ["language 8-9", "language 6-7", "language 3-5", "language 0-2"]


def test_weights_that_are_shared_are_drawn_with_the_head():
    module = nn.Module()
    module.embed, module.lm_head = nn.Embedding(4, 2), nn.Linear(2, 4, bias=False)
    module.lm_head.weight = module.embed.weight
    module.get_output_embeddings = lambda: module.lm_head
    assert weight_stages(module) == {"head": ["embed.weight"]}


def test_a_reader_without_weights_is_told():
    with pytest.raises(StudyError, match="no weights"):
        randomised_weights(planted("object"), SCENE, "?", IG)


# --- other words, other questions, other seeds


def test_another_word_has_the_opposite_map():
    """Of two words one wins what the other loses: integrated gradients change their sign."""

    class Two(PlantedReader):
        def __init__(self):
            super().__init__("two", planted("object").boxes, sentence=("{}",))
            self.tokenizer.all_special_ids = [0, 1]  # what is left are the two colours

    found = random_logit(Two(), SCENE, "?", IG, draws=2, baseline="black")
    assert len(found.others) == 2 and found.status == "ok"
    assert found.likeness[0].spearman == pytest.approx(-1)
    assert found.likeness[0].spearman_abs == pytest.approx(1)
    assert found.map.sum() == pytest.approx(4, rel=0.01)
    assert found.others[0].sum() == pytest.approx(-4, rel=0.01)


def test_a_control_does_not_notice_another_word(tiny_llava):
    options = {"tokens": "all", "answer": tiny_llava.answer(SCENE, "What?", max_new_tokens=3)}
    found = random_logit(tiny_llava, SCENE, "What?", "center", draws=2, **options)
    assert found.mean == pytest.approx(1)
    real = random_logit(tiny_llava, SCENE, "What?", IG, draws=2, steps=4, **options)
    assert real.mean < 0.9


def test_a_reader_that_reads_no_question_keeps_its_map(tiny_llava):
    found = wrong_question(planted("object"), SCENE, "What colour?", "How many?", "occlusion")
    assert found.mean == pytest.approx(1) and found.likeness[0].ssim == pytest.approx(1)
    options = {"tokens": "all", "answer": tiny_llava.answer(SCENE, "What?", max_new_tokens=3)}
    real = wrong_question(tiny_llava, SCENE, "What?", "How many cats are there?", IG, **options)
    assert real.mean < 0.9999 and np.array_equal(real.others[0].shape, (64, 96))


def test_stability_over_seeds():
    still = seed_stability(planted("object"), SCENE, "?", "occlusion", seeds=(0, 1, 2))
    assert [one.spearman for one in still.likeness] == pytest.approx([1, 1, 1])
    noise = seed_stability(planted("object"), SCENE, "?", "random", seeds=(0, 1, 2, 3))
    assert len(noise.likeness) == 6 and abs(noise.mean) < 0.2
    with pytest.raises(StudyError, match="two different seeds"):
        seed_stability(planted("object"), SCENE, "?", "random", seeds=(1, 1))


@pytest.mark.parametrize("check", [random_logit, seed_stability, sensitivity])
def test_nothing_to_explain_is_a_status(check):
    assert check(planted("blind"), SCENE, "?", IG).status == "no_crucial_tokens"
    assert wrong_question(planted("blind"), SCENE, "?", "!", IG).status == "no_crucial_tokens"
    empty = randomised_weights(planted("blind"), SCENE, "?", IG)
    assert len(empty) == 0 and "spearman" in empty


def test_likeness_by_hand():
    ramp = np.arange(196.0).reshape(14, 14)
    assert vars(likeness(ramp, 3 * ramp + 1)) == pytest.approx(
        {"spearman": 1, "spearman_abs": 1, "ssim": 1, "status": "ok"}
    )
    turned = likeness(ramp - 97.5, 97.5 - ramp)
    assert turned.spearman == pytest.approx(-1) and turned.spearman_abs == pytest.approx(1)
    assert likeness(ramp, ramp * 0).status == "constant"
    assert likeness(ramp, ramp * np.nan).status == "diverged"
    assert math.isnan(likeness(ramp, ramp * np.nan).spearman)


# --- noise on the picture


def test_a_control_is_not_sensitive_and_a_gradient_is():
    found = sensitivity(planted("object"), SCENE, "?", "center", draws=2)
    assert found.values == (0, 0) and found.largest == 0 and found.status == "ok"
    small, large = (
        sensitivity(planted("object"), SCENE, "?", IG, radius=r, draws=2, baseline="black")
        for r in (0.01, 0.1)
    )
    assert 0 < small.mean <= small.largest < large.mean
    with pytest.raises(StudyError, match="radius"):
        sensitivity(planted("object"), SCENE, "?", IG, radius=0)


def test_sensitivity_of_a_linear_map_is_the_size_of_the_noise():
    """Gradient constant in x: S(x + d) - S(x) = w d, and the noise is known from its seed."""
    target, reader = linear_target((20, 30))
    ask = {"baseline": torch.zeros(1, 3, 20, 30), "answer": target.answer, "tokens": "all"}
    noisy = sensitivity(reader, SMALL_GREY, "?", IG, radius=0.1, draws=1, seed=4, **ask)
    d = (2 * torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(4)) - 1) * 0.1
    weight = target.bound.weight
    expected = (weight * d).sum(1).norm() / (weight * target.image).sum(1).norm()
    assert noisy.largest == pytest.approx(float(expected), rel=1e-3)


# --- infidelity


SMALL_GREY = np.full((20, 30, 3), 128, np.uint8)


@dataclass(frozen=True, eq=False)
class LinearBound(PlantedBound):
    """f(x) = sum(weight x): the one model whose losses are exactly a map's mass."""

    @property
    def weight(self):
        return torch.linspace(-0.002, 0.004, 3 * 20 * 30).view(1, 3, 20, 30)

    def log_probs(self, x, answer_ids):
        return (x * self.weight).sum((1, 2, 3))[:, None].expand(-1, len(answer_ids)) - 5


class LinearReader(PlantedReader):
    def bind(self, size, question):
        return LinearBound(self, tuple(size), question)


def linear_target(size):
    reader = LinearReader("linear", sentence=("{}",))
    said = Answer(" red", (" red",), torch.tensor([2]), torch.zeros(1))
    image = torch.full((1, 3, *size), 128 / 255)
    return Target(reader.bind(size, "?"), image, image * 0, said, torch.ones(1).bool()), reader


def linear_explanation(scale=1.0):
    target, _ = linear_target((20, 30))
    ex = explain(planted("object"), SMALL_GREY, "?", "center", tokens="all")
    saliency = scale * (target.bound.weight * target.image).sum(1)[0]
    return replace(ex, target=target, saliency=saliency.numpy())


def test_the_exact_map_has_no_infidelity():
    found = infidelity(linear_explanation(), draws=30)
    assert found.raw == pytest.approx(0, abs=1e-10) and found.relative < 1e-8
    assert found.scale == pytest.approx(1, abs=1e-4) and found.status == "ok"


def test_the_best_scale_forgives_units_but_not_direction():
    tenth, upside_down = (infidelity(linear_explanation(s), draws=30) for s in (0.1, -1))
    assert tenth.raw > 0 and tenth.relative < 1e-8 and tenth.scale == pytest.approx(10, rel=1e-4)
    assert upside_down.scale == pytest.approx(-1, abs=1e-4)


def test_infidelity_by_hand():
    """A flat map: a is the same A in every square, so scale = mean(b) / A, rest = var(b)."""
    ex = linear_explanation()
    flat = replace(ex, saliency=np.ones((20, 30), np.float32))
    exact, found = infidelity(ex, draws=40, seed=1), infidelity(flat, draws=40, seed=1)
    area = 5 * 8
    loss = found.scale * area  # the mean loss of f
    power = exact_power(ex, seed=1)
    assert found.scaled == pytest.approx(power - loss**2, rel=1e-4)
    assert found.relative == pytest.approx(1 - loss**2 / power, rel=1e-4)
    assert found.raw == pytest.approx(power - 2 * area * loss + area**2, rel=1e-4)
    assert exact.relative < found.relative


def exact_power(ex, seed):
    """Mean squared loss over the same squares, from the weights."""
    worth = (ex.target.bound.weight * ex.target.image).sum(1)[0].numpy()
    draw = np.random.default_rng(seed)
    starts = zip(draw.integers(0, 16, 40), draw.integers(0, 23, 40), strict=True)
    return np.mean([worth[y : y + 5, x : x + 8].sum(dtype=float) ** 2 for y, x in starts])


@pytest.mark.parametrize("name", ["object", "conjunctive", "multi_crop"])
def test_the_planted_map_is_more_faithful_than_its_controls(name):
    reader = planted(name)
    ex = explain(reader, SCENE, "?", "random", baseline="black", tokens="all")
    expected = replace(ex, saliency=reader.expected(ex.target).numpy())
    values = [infidelity(e, draws=60).relative for e in (expected, ex)]
    assert values[0] < 0.75 * values[1]


def test_no_single_square_harms_a_reader_that_needs_one_of_two():
    ex = explain(planted("disjunctive"), SCENE, "?", "random", baseline="black", tokens="all")
    found = infidelity(ex, draws=20)
    assert found.status == "no_effect" and math.isnan(found.relative) and found.raw > 0


def test_infidelity_has_statuses():
    ex = linear_explanation()
    assert infidelity(replace(ex, target=None)).status == "no_crucial_tokens"
    assert infidelity(replace(ex, saliency=ex.saliency * np.nan)).status == "diverged"
    zero = infidelity(replace(ex, saliency=ex.saliency * 0), draws=10)
    assert zero.status == "constant" and zero.relative == 1
    with pytest.raises(StudyError, match="side"):
        infidelity(ex, side=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "igoss"}, "did you mean igos"),
        ({"method": IG, "stpes": 3}, "did you mean steps"),
    ],
)
def test_bad_names_are_told(options, message):
    with pytest.raises(StudyError, match=message):
        sensitivity(planted("object"), SCENE, "?", **options)
    with pytest.raises(StudyError, match="did you mean cascading"):
        randomised_weights(planted("object"), SCENE, "?", IG, "cascade")
