"""The joint model: the detour changes no detection, answers and gradients are as for any LLaVA."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import edit_json
from tiny_joint import NAMES, WIDTH, tiny_joint, tiny_owl
from transformers import LlavaForConditionalGeneration, OwlViTForObjectDetection

from lvlm_study.errors import StudyError
from lvlm_study.models import load_model
from lvlm_study.models.alignment import VARIANTS, Alignment, read_published
from lvlm_study.models.joint import convert_published, marks_of, save_joint
from lvlm_study.models.registry import models

SIZE, QUESTION = (45, 60), "What is red?"
IDS = torch.tensor([40, 77, 260])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_joint(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def joint(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def picture():
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def bound(joint):
    return joint.bind(SIZE, QUESTION)


def test_detections_are_those_of_the_whole_detector(folder, joint, bound, picture):
    owl = OwlViTForObjectDetection.from_pretrained(folder / "owl").eval()
    texts = [f"a photo of a {n}" for n in NAMES]
    tokens = joint.detector.tokenizer(
        texts, padding="max_length", max_length=32, return_tensors="pt"
    )
    pixels = bound.pixels(picture)["pixel_values"]
    with torch.no_grad():
        want = owl(tokens.input_ids, pixels, tokens.attention_mask)
        shared = joint.shared(bound, picture)
        logits, boxes = joint.detector.predict(shared, joint.detector.queries(NAMES))
    assert shared.shape == (1, 17, WIDTH)
    largest = float(want.logits.abs().max())  # random weights: rounding goes with the largest
    assert torch.allclose(logits, want.logits, rtol=0, atol=1e-5 * largest)
    assert torch.allclose(boxes, want.pred_boxes, atol=1e-6)
    assert logits.std() > 1e-3 and boxes.std() > 1e-2  # not trivially equal


def test_pixels_are_those_of_the_detectors_own_processor(joint, bound, picture):
    rgb = (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()
    want = joint.processor(rgb, return_tensors="pt").pixel_values
    ours = bound.pixels(picture)["pixel_values"]
    assert ours.shape == want.shape == (1, 3, 28, 28)
    assert (ours - want).abs().max() < 1.5 / 255 / 0.26


def test_the_language_model_reads_the_aligned_tokens(folder, joint, bound, picture):
    """By hand: W on the detector's tokens, put into an untouched LLaVA, gives the same scores."""
    llava = load_model(folder / "llava")
    with torch.no_grad():
        tokens = joint.alignment(joint.shared(bound, picture)[:, 1:])
        other = llava.bind((28, 28), QUESTION).log_probs_from(tokens, IDS)
        assert torch.allclose(joint.encode(bound, picture), tokens, atol=1e-6)
        assert torch.allclose(bound.log_probs(picture, IDS), other, atol=1e-5)
        assert torch.allclose(bound.log_probs_from(tokens, IDS), other, atol=1e-5)


def test_teacher_forcing_equals_generation(joint, bound, picture):
    answer = joint.read(bound, picture, joint.generate(bound, picture, 8))
    logits = bound.logits(picture, answer.token_ids)[0]
    assert len(answer.token_ids) > 0
    assert logits.argmax(-1).tolist() == answer.token_ids.tolist()
    again = joint.generate_from(bound, joint.shared(bound, picture), 8)
    assert again.tolist() == answer.token_ids.tolist()


def test_the_picture_matters_and_batches_do_not(joint, bound, picture):
    with torch.no_grad():
        both = bound.log_probs(torch.cat([picture, 1 - picture]), IDS)
        assert (both[0] - both[1]).abs().max() > 1e-2
        assert torch.allclose(both[1], bound.log_probs(1 - picture, IDS)[0], atol=1e-5)


def test_gradients_reach_every_pixel(bound, picture):
    x = picture.clone().requires_grad_()
    bound.log_probs(x, IDS).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().sum(1) > 0).float().mean() > 0.95
    assert bound.seen().all()


def test_every_token_looks_where_its_box_is(joint, bound, picture):
    """Painting one corner moves only the tokens whose boxes reach it (before attention mixes)."""
    boxes = bound.token_boxes
    assert boxes.shape == (16, 4)
    assert boxes[0].tolist() == [0, 0, 15, 11.25] and boxes[-1].tolist() == [45, 33.75, 60, 45]
    painted = picture.clone()
    painted[..., :8, :10] = 1
    embed = joint.vision.embeddings
    with torch.no_grad():
        a, b = (embed(bound.pixels(x)["pixel_values"])[0, 1:] for x in (picture, painted))
    moved = (a - b).abs().amax(-1) > 1e-4
    inside = (boxes[:, 0] < 10) & (boxes[:, 1] < 8)
    assert moved[inside].all() and not moved[(boxes[:, 0] > 20) | (boxes[:, 1] > 16)].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_alignment_survives_the_disc(variant, tmp_path, picture):
    first = load_model(tiny_joint(tmp_path / "one", variant))
    state = first.alignment.state_dict()
    assert first.alignment.variant == variant and len(state) >= 4
    again = load_model(tmp_path / "one").alignment.state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state)


def test_the_published_alignment_has_174_million_numbers():
    with torch.device("meta"):
        deep = Alignment("deep", 768, 4096)
    assert sum(p.numel() for p in deep.parameters()) == 174_092_288


def test_attention_stays_eager_in_the_detector(joint, bound, picture):
    with joint.eager():
        pass
    out = bound.run(picture, IDS, output_attentions=True)
    assert len(out.attentions) == 2


# --- published weights -----------------------------------------------------------------------


def published(variant: str) -> dict:
    linear = [m for m in Alignment(variant, 24, 32, 40).layers if isinstance(m, torch.nn.Linear)]
    pairs = [(f"proj.{i}.weight", m.weight) for i, m in enumerate(linear)]
    biases = [(f"proj.{i}.bias", m.bias) for i, m in enumerate(linear)]
    both = zip(pairs, biases, strict=True)
    return {k: v.detach() for pair in both for k, v in pair}


@pytest.mark.parametrize("variant", ["deep", "llava"])
def test_a_published_pth_becomes_a_joint_model(variant, folder, tmp_path):
    state = published(variant)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    owl, llava = str(folder / "owl"), str(folder / "llava")
    out = convert_published(tmp_path / "w.pth", tmp_path / "out", owl, llava, NAMES)
    model = load_model(out)
    assert model.names == NAMES and model.alignment.variant == variant
    tokens = torch.randn(2, 5, 24)
    by_hand = tokens
    for i in range(len(state) // 2):
        by_hand = by_hand @ state[f"proj.{i}.weight"].T + state[f"proj.{i}.bias"]
        if i < len(state) // 2 - 1:
            by_hand = by_hand.relu() if variant == "deep" else torch.nn.functional.gelu(by_hand)
    assert torch.allclose(model.alignment(tokens), by_hand, atol=1e-5)


class Harm:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pth_that_holds_code_is_refused(tmp_path, capsys):
    torch.save({"w": Harm()}, tmp_path / "w.pth")
    with pytest.raises(StudyError, match="cannot be read as a file of tensors alone"):
        read_published(tmp_path / "w.pth")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "state, message",
    [
        ({"a": torch.zeros(3, 4)}, "neither the four linear maps"),
        ({}, "does not hold a state_dict"),
        (published("deep") | {"extra": torch.zeros(7)}, "neither the four"),
    ],
)
def test_other_files_are_refused(state, message, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(StudyError, match=message):
        read_published(tmp_path / "w.pth")


# --- what does not fit -----------------------------------------------------------------------


def test_grids_must_agree(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "j")
    shutil.rmtree(tmp_path / "j" / "owl")
    tiny_owl(tmp_path / "j" / "owl", side=35)
    with pytest.raises(StudyError, match="5 x 5 patches but the LLaVA of .* 4 x 4"):
        load_model(tmp_path / "j")


def test_w_of_another_shape(folder, tmp_path):
    owl, llava = str(folder / "owl"), str(folder / "llava")
    save_joint(tmp_path / "j", Alignment("llava", 24, 30), owl, llava)
    with pytest.raises(StudyError, match="maps 24 to 30 .* gives 24 and .* takes 32"):
        load_model(tmp_path / "j")
    edit_json(
        tmp_path / "j" / "config.json",
        alignment=dict(variant="llava", width=24, out=32, hidden=8, heads=4),
    )
    with pytest.raises(StudyError, match="cannot be loaded.*belong together"):
        load_model(tmp_path / "j")


def test_w_made_for_another_llava(folder, tmp_path):
    owl, llava = str(folder / "owl"), str(folder / "llava")
    model = LlavaForConditionalGeneration.from_pretrained(folder / "llava")
    marks = marks_of(model)
    save_joint(tmp_path / "j", Alignment("llava", 24, 32), owl, llava, (), marks)
    half = load_model(tmp_path / "j", dtype="bfloat16")  # the same LLaVA, rounded
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    assert half.alignment.layers[0].weight.dtype == half.detector.model.dtype == torch.float32
    assert len(half.answer(np.zeros((9, 9, 3), np.uint8), QUESTION, 2).token_ids) <= 2
    edit_json(tmp_path / "j" / "config.json", llava_marks=[m + 0.05 for m in marks])
    with pytest.raises(StudyError, match="made for another"):
        load_model(tmp_path / "j")


def test_parts_that_are_missing_or_wrong(folder, tmp_path):
    save_joint(tmp_path / "j", Alignment("llava", 24, 32), "owl", str(folder / "llava"))
    with pytest.raises(StudyError, match="no model named 'owl'"):
        load_model(tmp_path / "j")
    edit_json(tmp_path / "j" / "config.json", owl=str(folder / "llava"))
    with pytest.raises(StudyError, match="not an OWL-ViT detector"):
        load_model(tmp_path / "j")
    edit_json(tmp_path / "j" / "config.json", owl=None)
    with pytest.raises(StudyError, match="does not say 'owl'"):
        load_model(tmp_path / "j")


def test_queries_need_a_name(joint):
    for queries in ([], [""], ["cat", " "]):
        with pytest.raises(StudyError, match="at least one query"):
            joint.detector.queries(queries)
    with pytest.raises(StudyError, match="43 tokens but the detector reads 32"):
        joint.detector.queries(["x" * 30])
    assert torch.equal(joint.detector.queries("cat"), joint.detector.queries(["cat"]))


def test_a_detector_is_no_model_of_the_zoo(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LVLM_STUDY_DATA", str(tmp_path))
    for name in ("owl", "llava"):
        shutil.copytree(folder / name, tmp_path / "zoo" / name)
    save_joint(tmp_path / "zoo" / "joint", Alignment("llava", 24, 32), "mini/owl", "mini/llava")
    assert models() == ["mini/joint", "mini/llava"]
    assert load_model("mini/joint").detector.name == "mini/owl"
    assert json.loads((tmp_path / "zoo/joint/config.json").read_text())["names"] == []


# --- the command -----------------------------------------------------------------------------


def test_the_command_converts_and_refuses_in_one_sentence(folder, tmp_path, capsys):
    from lvlm_study.cli import main

    torch.save(published("deep"), tmp_path / "w.pth")
    parts = ["--owl", str(folder / "owl"), "--llava", str(folder / "llava"), "--names", "cat,dog"]
    call = ["convert", str(tmp_path / "w.pth"), str(tmp_path / "out"), *parts]
    assert main(call) == 0 and "Written to" in capsys.readouterr().out
    assert load_model(tmp_path / "out").names == ("cat", "dog")
    torch.save({"w": Harm()}, tmp_path / "harm.pth")
    harm = ["convert", str(tmp_path / "harm.pth"), str(tmp_path / "out"), "--force"]
    missing = ["convert", str(tmp_path / "none.pth"), str(tmp_path / "new")]
    told = {
        tuple(call): "is there already",
        tuple(harm): "cannot be read as a file of tensors alone",
        tuple(missing): "There is no file",
        ("convert", str(tmp_path / "w.pth"), str(tmp_path / "w.pth"), "--force"): "is a file",
    }
    for words, message in told.items():
        assert main(list(words)) == 2
        said = capsys.readouterr()
        assert message in said.err and said.err.count("\n") == 1 and "code ran" not in said.out
    assert load_model(tmp_path / "out").names == ("cat", "dog"), "the old folder is still whole"
    assert main([*call, "--force"]) == 0
