"""The committed mini models: they answer, and explanations of them find the known evidence."""

import json

import numpy as np
import pytest
from scipy import stats

import lvlm_study as ls
from lvlm_study.metrics.faithfulness import controls
from lvlm_study.metrics.plausibility import plausibility
from lvlm_study.paths import data_dir

SIX = ("attribute", "existence", "counting", "spatial", "global", "reasoning")


@pytest.fixture(scope="module", params=["mini/llava-1.5", "mini/llava-ov"])
def model(request):
    return ls.load_model(request.param)


@pytest.fixture(scope="module")
def items():
    return ls.load_benchmark("sprites")


def test_every_checkpoint_has_a_card_that_counts_the_whole_test_set():
    assert ls.models()
    for name in ls.models():
        folder = data_dir() / "zoo" / name.removeprefix("mini/")
        counts = json.loads((folder / "accuracy.json").read_text())
        assert {c: n for c, (_, n) in counts["picture"].items()} == dict.fromkeys(SIX, 96)
        assert max(p.stat().st_size for p in folder.glob("*.safetensors")) < 10e6
        assert "| attribute | 96 |" in (folder / "README.md").read_text()


def test_it_answers_as_its_card_says(model, items):
    """18 fixed items: the number of exact answers agrees with the card within chance."""
    folder = data_dir() / "zoo" / model.name.removeprefix("mini/")
    counts = json.loads((folder / "accuracy.json").read_text())["picture"]
    some = items[::32]
    right = sum(model.answer(i.rgb, i.question).text == i.reference for i in some)
    share = sum(k for k, _ in counts.values()) / sum(n for _, n in counts.values())
    assert stats.binomtest(right, len(some), share).pvalue > 1e-3


def test_teacher_forcing_equals_generation(model, items):
    item = items[5]
    answer = model.answer(item.rgb, item.question)
    from lvlm_study.pixels.images import to_tensor

    bound = model.bind((336, 336), item.question)
    logits = bound.logits(to_tensor(item.rgb), answer.token_ids)[0]
    assert logits.argmax(-1).tolist() == answer.token_ids.tolist()


def test_the_picture_matters_more_for_objects_than_blur_suggests_for_places(model, items):
    """Colour answers collapse under blur."""
    drops = []
    for item in [i for i in items if i.extra["kind"] == "color"][:6]:
        drops.append(ls.visual_reliance(model, item.rgb, item.question).total_drop)
    assert np.median(drops) > 0.5


@pytest.mark.slow
def test_igos_is_faithful_and_finds_the_evidence(model, items):
    """On colour questions answered rightly: far above chance, and on the right object."""
    gaps, ranks = [], []
    for item in [i for i in items if i.extra["kind"] == "color"][:6]:
        ex = ls.explain(model, item.rgb, item.question)
        if ex.answer.text == item.reference and ex.status == "ok":
            gaps.append(ls.deletion_insertion(model, ex).gap)
            ranks.append(plausibility(ex.saliency, item.evidence).auc)
    assert len(gaps) >= 3 and np.mean(gaps) > 0.3 and np.mean(ranks) > 0.8


@pytest.mark.slow
def test_random_maps_score_zero_on_a_trained_model(model, items):
    colours = (i for i in items if i.extra["kind"] == "color")
    made = (ls.explain(model, i.rgb, i.question, method="center") for i in colours)
    ex = next(ex for ex in made if ex.status == "ok")
    gaps = [f.gap for f in controls(model, ex, draws=24, steps=16)["random"]]
    assert abs(np.mean(gaps)) < 3 * np.std(gaps, ddof=1) / np.sqrt(len(gaps))
