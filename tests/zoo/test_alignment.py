"""Training W: from a folder of pictures, resumed, measured; and what cannot be trained."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_checkpoint
from tiny_joint import tiny_owl

from lvlm_study.errors import StudyError
from lvlm_study.models import load_model
from lvlm_study.zoo import alignment as a

SMALL = dict(hidden=24, steps=60, batch=4, say=lambda line: None)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Names of a tiny detector and a tiny LLaVA."""
    root = tmp_path_factory.mktemp("parts")
    return str(tiny_owl(root / "owl")), str(tiny_checkpoint("llava", root / "llava"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of several sizes, some in a sub-folder, and a file that is none."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "more").mkdir()
    random = np.random.default_rng(0)
    for i in range(12):
        size = (20 + 5 * (i % 3), 30, 3)
        rgb = random.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(rgb).save(root / ("more" if i % 2 else ".") / f"{i}.png")
    (root / "notes.txt").write_text("no picture")
    return root


def test_both_encoders_see_the_whole_picture_squashed(parts):
    """Not as LLaVA's own processor would do it, which crops: the grids would disagree."""
    pair = a.load_pair(*parts)
    rgb = np.zeros((1, 28, 84, 3), np.uint8)
    rgb[:, :, :21] = 255  # the left quarter, which a centre crop never shows
    ours, theirs = pair.views(rgb)
    assert ours.shape == theirs.shape == (1, 3, 28, 28)
    for view in (ours, theirs):
        columns = view[0, 0].mean(0)
        assert (columns[:6] > 1).all() and (columns[8:] < -1).all()


def test_tokens_are_what_each_model_makes(parts):
    pair = a.load_pair(*parts)
    rgb = np.random.default_rng(1).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
    tokens, features = pair.tokens(rgb)
    assert tokens.shape == (2, 16, 24) and features.shape == (2, 16, 32)
    llava, x = load_model(parts[1]), torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        want = llava.encode(llava.bind((28, 28), "What?"), x)
        assert torch.allclose(llava.model.model.multi_modal_projector(features), want, atol=1e-5)


@pytest.mark.parametrize("variant", ["deep", "llava", "transformer"])
def test_w_learns_from_a_folder(variant, parts, pictures, tmp_path):
    owl, llava = parts
    made = dict(owl=owl, llava=llava, images=pictures, variant=variant, out=tmp_path / "joint")
    folder = a.train_joint(tmp_path / "work", **made, **SMALL)
    model = load_model(folder)
    assert model.alignment.variant == variant and model.detector.name == owl
    log = next((tmp_path / "work").glob("joint-*/log.jsonl"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[-1]["step"] == 60 and lines[-1]["loss"] < lines[0]["loss"] < 5
    assert lines[-1]["held_out"] > 0
    first = (folder / "model.safetensors").read_bytes()
    a.train_joint(tmp_path / "work", **made, **SMALL)  # done already: the same W again
    assert (folder / "model.safetensors").read_bytes() == first
    assert len(log.read_text().splitlines()) == len(lines)


def test_a_new_llava_starts_w_again(parts, pictures, tmp_path):
    owl, _ = parts
    other = str(tiny_checkpoint("llava", tmp_path / "other", seed=9))
    for llava in (parts[1], other):
        made = dict(owl=owl, llava=llava, images=pictures, out=tmp_path / "joint")
        a.train_joint(tmp_path / "work", **made, **SMALL | {"steps": 2})
    assert len(list((tmp_path / "work").glob("joint-*/log.jsonl"))) == 2
    config = json.loads((tmp_path / "joint" / "config.json").read_text())
    assert config["llava"] == other and len(config["llava_marks"]) == 16


def test_parts_that_cannot_be_joined(parts, pictures, tmp_path):
    wide = str(tiny_owl(tmp_path / "wide", side=42))
    with pytest.raises(StudyError, match="6 x 6 patches but .* 4 x 4"):
        a.load_pair(wide, parts[1])
    onevision = str(tiny_checkpoint("llava_onevision", tmp_path / "ov"))
    with pytest.raises(StudyError, match="no LLaVA-1.5"):
        a.load_pair(parts[0], onevision)
    (tmp_path / "none").mkdir()
    with pytest.raises(StudyError, match="no pictures in"):
        a.folder_source(a.load_pair(*parts), tmp_path / "none")


def test_objects_named_in_a_caption():
    found = a.objects_named("The picture shows a road by day with a red bus, an orange cat.")
    assert found == {"bus", "cat"}  # a carpet is no car, an orange colour no fruit of ours


def test_comparison_puts_the_seeds_scores_beside():
    one = dict(precision=0.5, recall=0.25, answers=1.0, n_answers=4)
    found = a.comparison({"deep": one | {"error": 0.1234, "steps": 7}, "unmodified": one})
    rows = found.splitlines()
    assert rows[2] == "| W, deep | 7 | 0.123 | 50 % | 25 % | 100 % | 6.1 |"
    assert rows[3] == "| LLaVA itself | - | - | 50 % | 25 % | 100 % | 7.0 |"


@pytest.mark.slow
def test_one_pass_tells_what_generation_would_say():
    """`says` against decoding token by token, on a trained model, with right and wrong answers."""
    from lvlm_study.benchmarks.sprites import sprites
    from lvlm_study.pixels.images import to_tensor

    model, items = load_model("mini/llava-1.5"), sprites()[40:560:65]
    found = []
    for item in items:
        views = {"picture": to_tensor(item.rgb), "grey": torch.full((1, 3, 336, 336), 0.5)}
        told = a.says(model, item, views)
        for name, x in views.items():
            rgb = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()
            assert told[name] == (model.answer(rgb, item.question).text == item.reference)
            found.append(told[name])
    assert 0 < sum(found) < len(found)
