"""Training: packed texts score as lone prompts do, killed runs resume exactly, files round-trip."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import torch

from lvlm_study.errors import StudyError
from lvlm_study.models import load_model, manifest
from lvlm_study.paths import data_dir
from lvlm_study.pixels.images import to_tensor
from lvlm_study.scenes import scenes
from lvlm_study.zoo import members, vision
from lvlm_study.zoo import train as training
from lvlm_study.zoo.card import _curve
from lvlm_study.zoo.families import FAMILIES
from lvlm_study.zoo.fit import fit, schedule
from lvlm_study.zoo.language import SymbolModel, symbols
from lvlm_study.zoo.pool import VIEWS, load_pool
from lvlm_study.zoo.texts import answer_logits, captions, encode, exact_answers, short_texts
from lvlm_study.zoo.train import SMOKE, train


@pytest.fixture(scope="module")
def pool(work):
    return load_pool(work, 8, 1000, VIEWS)


@pytest.fixture(scope="module")
def start(tokenizer):
    torch.manual_seed(0)
    return SymbolModel("l", tokenizer).eval()


def test_words_split_into_several_tokens(tokenizer):
    assert len(tokenizer(" umbrella").input_ids) == 1
    assert len(tokenizer(" snowfield").input_ids) > 1 and len(tokenizer(" cherries").input_ids) > 1


def test_packed_texts_score_as_lone_prompts(start, tokenizer, pool):
    """Texts that share a picture's keys and values give the logits of a plain forward pass."""
    rng = np.random.default_rng(0)
    rows = [short_texts(s, rng, 5) + captions(s, rng, 1) for s in pool.scenes[:2]]
    batches = encode(rows, tokenizer)
    with torch.no_grad():
        prefix = start.prefix(*symbols(pool, np.arange(2)))
        packed = [
            logits for logits, _ in answer_logits(start.lm.model, start.lm.lm_head, prefix, batches)
        ]
        for texts, logits in zip(batches, packed, strict=True):
            words = start.lm.model.embed_tokens(texts.ids)
            whole = torch.cat([prefix[texts.image], words], 1)  # (M, P + L, D)
            plain = start.lm(inputs_embeds=whole).logits[:, prefix.shape[1] :]
            wanted = plain[:, :-1][texts.answer[:, 1:]]
            assert (logits - wanted).abs().max() < 1e-4


def test_encode_marks_exactly_the_answer(tokenizer, pool):
    text = ("What color is the bus?", "The bus is red.", 0)
    (batch,) = encode([[text]], tokenizer)
    assert tokenizer.decode(batch.ids[0][batch.answer[0]]) == " The bus is red.</s>"
    assert tokenizer.decode(batch.ids[0][~batch.answer[0]]).startswith("\nWhat color is the bus?")


def test_categories_take_turns(pool):
    groups = [g for _, _, g in short_texts(pool.scenes[0], np.random.default_rng(0), 12)]
    assert (
        max(groups.count(g) for g in set(groups)) - min(groups.count(g) for g in set(groups)) <= 2
    )


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))


def line_loss(net):
    def loss_at(step):
        x = torch.from_numpy(np.random.default_rng([0, step]).normal(size=3)).float()
        return (net.weight - x).square().sum(), {}

    return loss_at


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Stopping after any step and running again ends exactly where an undisturbed run ends."""
    monkeypatch.setattr("lvlm_study.zoo.fit.SAVE_SECONDS", -1)  # save after every step
    whole = Line()
    fit(whole, line_loss(whole), tmp_path / "whole", steps=30)

    class Killed(Exception):
        pass

    def dies(loss_at, when):
        def wrapped(step):
            if step == when:
                raise Killed
            return loss_at(step)

        return wrapped

    for when in (7, 19):
        net = Line()
        with pytest.raises(Killed):
            fit(net, dies(line_loss(net), when), tmp_path / "parts", steps=30)
    last = Line()
    fit(last, line_loss(last), tmp_path / "parts", steps=30)
    assert torch.equal(last.weight, whole.weight) and whole.weight.abs().min() > 0


def test_a_save_of_another_network_is_refused(tmp_path):
    net = Line()
    fit(net, line_loss(net), tmp_path, steps=1)
    other = torch.nn.Linear(2, 2)
    with pytest.raises(StudyError, match="another network"):
        fit(other, lambda step: (other.weight.sum(), {}), tmp_path, steps=2)


def test_schedule_by_hand():
    assert schedule(0, 1000) == 0.01 and schedule(99, 1000) == 1.0 and schedule(600, 1000) == 1.0
    assert schedule(800, 1000) == pytest.approx(0.05 + 0.95 / 2) and schedule(
        1000, 1000
    ) == pytest.approx(0.05)


def test_exact_answers_agrees_with_generate(start, pool, tokenizer, tmp_path):
    """An untrained model never answers rightly; its own greedy words are "exactly right"."""
    model = FAMILIES["llava-1.5"].build(start, {"clip": vision.clip_tower().eval()})
    members.save_member(model, tokenizer, "llava-1.5", tmp_path)
    adapter = load_model(tmp_path)
    question = "What color is the bus?"
    x = to_tensor(scenes.draw(pool.scenes[0]))
    ids = adapter.generate(adapter.bind((336, 336), question), x, max_new_tokens=6)
    (texts,) = encode([[(question, "x", 0)]], tokenizer)
    head = texts.ids[0][~texts.answer[0]]
    own = torch.cat([head, ids])[None]
    mark = torch.arange(own.shape[1])[None] >= len(head)
    batch = type(texts)(own, mark, texts.image, texts.group)
    bound = adapter.bind((336, 336), question)
    with torch.no_grad():
        words = adapter.model.model.language_model.embed_tokens(start.start)[None]
        prefix = torch.cat([words, adapter.encode(bound, x)], 1)
        language, lm_head = adapter.model.model.language_model, adapter.model.lm_head
        assert exact_answers(language, lm_head, prefix, [batch]) == {"attribute": 1.0}
        assert exact_answers(language, lm_head, prefix, [texts]) == {"attribute": 0.0}


@pytest.mark.slow
def test_a_member_is_trained_from_nothing_and_resumes(tmp_path, monkeypatch):
    """The whole command in miniature: towers, language, member, checkpoint, card; then again."""
    items = __import__("lvlm_study.benchmarks", fromlist=["load_benchmark"]).load_benchmark(
        "sprites"
    )
    monkeypatch.setattr("lvlm_study.zoo.card.sprites", lambda: items[::96])
    options = dict(out=tmp_path / "out", budget=SMOKE, say=str)
    folder = train("mini/llava-ov-m", tmp_path / "work", **options)
    adapter = load_model(folder)
    assert adapter.answer(items[0].image, items[0].question, max_new_tokens=2).tokens
    counts = json.loads((folder / "accuracy.json").read_text())
    assert sum(n for _, n in counts["picture"].values()) == 6
    first = (folder / "model.safetensors").read_bytes()
    again = train("mini/llava-ov-m", tmp_path / "work", **options)
    assert (again / "model.safetensors").read_bytes() == first  # everything was resumed


def test_a_member_trained_again_is_known_to_the_manifest(tmp_path, monkeypatch):
    """Else it would be refused by name, as not the file that was committed."""
    monkeypatch.setattr(training, "data_dir", lambda: tmp_path)
    folder = tmp_path / "zoo" / "owl"
    manifest_of = partial(manifest.read, tmp_path / "zoo")

    def made_of(text):
        def make(work, *, out, say):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(text)
            return folder

        return make

    for text in ("first", "second"):
        monkeypatch.setitem(training.DETECTION, "owl", made_of(text))
        training.train("mini/owl", tmp_path / "work", say=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert manifest_of()["owl"]["sha256"] == {"config.json": digest}
        manifest.check(folder)


def test_later_members_have_the_steps_that_made_the_committed_ones():
    zoo = data_dir() / "zoo"
    for name in training.NAMES:
        recipe = members.RECIPES.get(name.partition("-seed")[0])
        if recipe and recipe.first:
            assert json.loads((zoo / name / "curve.json").read_text())[-1]["step"] == recipe.later


def test_every_name_of_train_all_is_committed():
    found = set(manifest.read(data_dir() / "zoo"))
    busy = {name for name in found if training.is_busy(name)}  # trained one by one
    assert found - busy == set(training.NAMES)


def test_all_weights_fit_the_budget():
    sizes = [p.stat().st_size for p in (data_dir() / "zoo").rglob("*.safetensors")]
    assert len(sizes) == len(manifest.read(data_dir() / "zoo")) and sum(sizes) <= 165e6
    assert max(sizes) <= 10e6


def test_steps_of_a_resumed_run_are_counted_once(tmp_path):
    for part, steps in (("course-1", (100, 200, 200)), ("course-2", (100,))):
        (tmp_path / part).mkdir()
        lines = [json.dumps({"step": s, "spatial": 0.5, "part": part}) for s in steps]
        (tmp_path / part / "log.jsonl").write_text("\n".join(lines) + "\n")
    assert [line["step"] for line in _curve(tmp_path)] == [100, 200, 300]


def test_unknown_member(tmp_path):
    with pytest.raises(StudyError, match="llava-1.5"):
        train("mini/llava-15", tmp_path)
