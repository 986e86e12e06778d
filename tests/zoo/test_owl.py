"""mini/owl: boxes and losses by hand, its parts fit OWL-ViT's rules, training runs and resumes."""

import numpy as np
import pytest
import torch

from lvlm_study.models.owl import TEMPLATE, embed_queries, heads, resume
from lvlm_study.scenes import scenes
from lvlm_study.zoo import owl
from lvlm_study.zoo.pool import Pool


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return owl.owl_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def net(tokenizer):
    torch.manual_seed(0)
    return owl.Trained(owl.owl_model(), tokenizer)


def test_a_box_runs_around_what_is_seen():
    scene = next(scenes.stream(3))
    for i, (x0, y0, x1, y1) in enumerate(owl.boxes_of(scene).astype(int)):
        mask = scenes.mask(scene, i)
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
        assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()


def test_objects_of_a_pool():
    some = [next(scenes.stream(s)) for s in (3, 4)]
    found = owl.objects_of(Pool(some, {}, {}))
    assert found["patch"].shape == (2, owl.MOST)
    for i, scene in enumerate(some):
        n = len(scene.objects)
        assert (found["patch"][i, n:] == -1).all() and (found["patch"][i, :n] >= 0).all()
        first, box = scene.objects[0], found["box"][i, 0] * 336
        assert scenes.names()[found["name"][i, 0]] == first.name
        assert list(scenes.COLORS)[found["color"][i, 0]] == first.color
        x, y = (box[:2] + box[2:]) / 2
        assert found["patch"][i, 0] == int(y // 42) * 8 + int(x // 42)


def test_generalised_overlap_by_hand():
    """Half overlap: 1/3; side by side with a gap: less than nothing by the gap's share."""
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]])
    b = torch.tensor([[1.0, 0, 3, 2], [3, 0, 4, 1]])
    assert torch.allclose(owl.generalised_iou(a, b), torch.tensor([1 / 3, -0.5]))


def test_the_loss_is_least_for_the_truth():
    scene = next(scenes.stream(3))
    objects = {k: torch.from_numpy(v) for k, v in owl.objects_of(Pool([scene], {}, {})).items()}
    n = len(scene.objects)
    logits, boxes = torch.full((1, 64, 26), -9.0), torch.zeros(1, 64, 4)
    for k in range(n):
        patch, box = objects["patch"][0, k], objects["box"][0, k]
        logits[0, patch, objects["name"][0, k]] = 9
        logits[0, patch, 20 + objects["color"][0, k]] = 9
        size = box[2:] - box[:2]
        boxes[0, patch] = torch.cat([(box[:2] + box[2:]) / 2, size]).logit()
    right = owl.detection_loss(logits, boxes, objects)
    assert right.item() == pytest.approx(0, abs=1e-3)
    assert owl.detection_loss(-logits, boxes, objects) > 1
    assert owl.detection_loss(logits, boxes + 1, objects) > 1
    exact = owl.quality(logits, boxes, objects)
    assert exact["iou"] == 1.0 and exact["ap50"] == 1.0


def test_the_end_token_has_the_highest_id(tokenizer):
    """OWL-ViT reads a query at its highest id."""
    for name in owl.names():
        ids = tokenizer(TEMPLATE.format(name)).input_ids
        assert ids[0] == 1 and ids[-1] == max(ids) and len(ids) <= 16


def test_names_are_classes_and_colours():
    assert len(owl.names()) == 26 and "red object" in owl.names() and "cat" in owl.names()


def test_training_sees_what_the_detector_gives(net, tokenizer):
    """The trained path and the two halves of `models.owl` agree."""
    x = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        logits, boxes = net(x)
        queries = embed_queries(net.owl, tokenizer, [TEMPLATE.format(n) for n in owl.names()])
        read = resume(net.owl, net.shared(x))
        again = heads(net.owl, read, queries, net.owl.box_bias)
        whole = net.owl.image_embedder(pixel_values=x)[0].flatten(1, 2)
    assert torch.allclose(read, whole, atol=1e-5)
    assert torch.allclose(logits, again[0]) and torch.allclose(boxes.sigmoid(), again[1])


def test_it_starts_from_a_clip_tower():
    from lvlm_study.zoo.vision import clip_tower

    tower, model = clip_tower().eval(), owl.owl_model().eval()
    owl.start_vision(model, tower)
    tower.set_attn_implementation("eager")
    x = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        a = tower(pixel_values=x, output_hidden_states=True).hidden_states[-2]
        b = model.owlvit.vision_model(pixel_values=x, output_hidden_states=True).hidden_states[-2]
    assert torch.allclose(a, b, atol=1e-5)


def test_what_is_frozen_while_the_heads_learn(net):
    below = [n for n, _ in net.owl.named_parameters() if owl._is_below(n)]
    assert any("patch_embedding" in n for n in below) and any("layers.4." in n for n in below)
    assert not any("layers.5." in n or "text_model" in n or "head" in n for n in below)


@pytest.mark.slow
def test_training_writes_a_checkpoint_that_loads(tmp_path):
    from lvlm_study.models.owl import load_detector

    small = dict(steps=(2, 2), tower_steps=2, pool_size=64, batch=4, say=lambda line: None)
    out = owl.train_owl(tmp_path / "work", out=tmp_path / "owl", **small)
    found = load_detector(out, "mini/owl", torch.float32, torch.device("cpu"))
    assert found.side == 8 and found.view_size == (112, 112)
    assert "mean average precision" in (out / "README.md").read_text()
    assert sum(f.stat().st_size for f in out.iterdir()) < 10e6
    before = (out / "model.safetensors").read_bytes()
    owl.train_owl(tmp_path / "work", out=tmp_path / "owl", **small)  # nothing left to train
    assert (out / "model.safetensors").read_bytes() == before
    assert np.isfinite(found.queries(["cat"]).numpy()).all()
