"""Every recipe of the zoo: training sees what the saved checkpoint sees, and all of it runs."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.errors import StudyError
from lvlm_study.models import load_model, manifest
from lvlm_study.models import weights as shared
from lvlm_study.pixels.images import to_tensor
from lvlm_study.scenes import questions, scenes, shortcut
from lvlm_study.scenes.questions import again
from lvlm_study.zoo import members, reading
from lvlm_study.zoo import train as training
from lvlm_study.zoo.families import FAMILIES, OFTEN, Misled, _lesson
from lvlm_study.zoo.language import SIZES, SymbolModel
from lvlm_study.zoo.members import RECIPES, Lessons, prefix, tower_tokens
from lvlm_study.zoo.pool import HIGH, VIEWS, load_pool
from lvlm_study.zoo.texts import answer_logits, encode
from lvlm_study.zoo.vision import TOWERS, DenseReader, dense_loss

TEXT = ("What color is the bus?", "The bus is red.", 0)
ONE_OF_EACH = (
    "llava-1.5-shortcut",
    "llava-1.5-s",
    "llava-ov-s",
    "cambrian-s",
    "mini-gemini-m",
    "mini-gemini-hd-m",
)


@pytest.fixture(scope="module")
def pool(work):
    return load_pool(work, 4, 1000, VIEWS | HIGH)


@pytest.fixture(scope="module")
def towers():
    torch.manual_seed(0)
    made = {n: kind.make().eval() for n, kind in TOWERS.items() if not kind.same_as}
    return made | {n: made[kind.same_as] for n, kind in TOWERS.items() if kind.same_as}


def untrained(name, tokenizer, towers):
    torch.manual_seed(1)
    recipe = RECIPES[name]
    start, family = SymbolModel(recipe.size, tokenizer).eval(), FAMILIES[recipe.family]
    return start, family, family.build(start, towers).eval()


def lessons_of(family, towers, pool) -> Lessons:
    rows = np.arange(len(pool.scenes))
    kept = [tower_tokens(t, towers[t], pool, rows) for t in family.kept]
    return Lessons(family, pool, kept, rows)


def shown(family, scene, row) -> np.ndarray:
    """The picture that training shows: strips stand on those of the member to be misled."""
    found = _lesson(scene, row) if isinstance(family, Misled) else None
    return found[0].stamp(scenes.draw(scene)) if found else scenes.draw(scene)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_training_sees_what_the_saved_checkpoint_sees(name, tokenizer, towers, pool, tmp_path):
    """Kept features, own packing and shared prefixes against the public door: log-probabilities of
    an answer from the drawn picture, through the checkpoint's own preprocessing."""
    start, family, model = untrained(name, tokenizer, towers)
    inputs = lessons_of(family, towers, pool).inputs(np.arange(2))
    batches = encode([[TEXT], [TEXT]], tokenizer)
    with torch.no_grad():
        seen, more = prefix(model, family, start.start, inputs)
        language = family.language(model)
        ((logits, ids),) = answer_logits(language, model.lm_head, seen, batches, **more)
    mine = logits.log_softmax(-1).gather(1, ids[:, None]).view(2, -1)
    members.save_member(model, tokenizer, name, tmp_path)
    adapter = load_model(tmp_path)
    bound = adapter.bind((336, 336), TEXT[0])
    assert bound.prompt_ids.shape[1] == seen.shape[1] + len(
        tokenizer(f"\n{TEXT[0]} ASSISTANT:").input_ids
    )
    pictures = torch.cat([to_tensor(shown(family, s, i)) for i, s in enumerate(pool.scenes[:2])])
    theirs = bound.log_probs(pictures, ids.view(2, -1)[0])
    assert (mine - theirs).abs().max() < 0.02  # bfloat16 features, half-precision weights
    with torch.no_grad():
        swapped = bound.log_probs(pictures.flip(0), ids.view(2, -1)[0])
    assert (mine - swapped).abs().max() > 2 * (mine - theirs).abs().max()  # and it can fail


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_gradients_reach_what_is_trained_and_nothing_else(name, tokenizer, towers, pool):
    start, family, model = untrained(name, tokenizer, towers)
    for key, value in model.named_parameters():
        if "vision_sampler_layers" in key and "linear_2" in key:  # Cambrian's second look
            assert not value.any()  # starts silent, which would hide what lies before it
            torch.nn.init.normal_(value, std=0.1)
    seen, more = prefix(model, family, start.start, lessons_of(family, towers, pool).inputs([0, 1]))
    language, batches = family.language(model), encode([[TEXT], [TEXT]], tokenizer)
    ((logits, _),) = answer_logits(language, model.lm_head, seen, batches, **more)
    logits.square().sum().backward()
    for key, value in model.named_parameters():
        if "vision_tower" in key:
            assert value.grad is None and not value.requires_grad, key
        elif value.requires_grad and not ("layers.5" in key or "post_layernorm" in key):
            assert value.grad is not None and value.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_targets_have_the_shape_of_what_aims_at_them(name, tokenizer, towers, pool):
    start, family, model = untrained(name, tokenizer, towers)
    rows = np.arange(2)
    with torch.no_grad():
        given = family.translate(model, lessons_of(family, towers, pool).inputs(rows))
        wanted = family.targets(start, pool, rows)
    assert given.shape == wanted.shape and (wanted[0] - wanted[1]).abs().max() > 0


@pytest.mark.parametrize("name", TOWERS)
def test_towers_read_patches_that_match_their_labels(name, towers, pool):
    kind, rows = TOWERS[name], np.arange(2)
    reader = DenseReader(towers[name], kind)
    labels, extra = kind.labels(pool, rows)
    logits = reader(kind.pixels(pool, rows))
    assert [x.shape[-1] for x in logits] == list(reader.sizes)
    assert logits[0].shape[:2] == labels.shape[:2] and len(extra) == len(labels)
    assert dense_loss(logits, labels, extra).isfinite()


def test_tiles_carry_the_labels_of_the_large_grid(pool):
    """The four tiles of Mini-Gemini HD, row by row, then the whole view."""
    labels, _ = TOWERS["clip-hd"].labels(pool, np.array([1]))
    fine = torch.from_numpy(pool.labels[16][1].astype(np.int64))
    assert (labels[1].view(8, 8, 4) == fine[:8, 8:]).all()
    assert (labels[4].view(8, 8, 4).numpy() == pool.labels[8][1]).all()


def test_sizes_differ_in_the_language_model_alone_by_about_three(tokenizer, towers):
    count = {}
    for size in SIZES:
        lm = SymbolModel(size, tokenizer).lm
        count[size] = sum(p.numel() for p in lm.parameters())
    assert 2.3 < count["m"] / count["s"] < 3.5 and 2.3 < count["l"] / count["m"] < 3.5
    for name in ("cambrian-l", "llava-ov", "mini-gemini-hd-l"):  # half precision: 10 MB
        _, _, model = untrained(name, tokenizer, towers)
        assert sum(p.numel() for p in model.parameters()) < 4.95e6


def test_the_issue_s_members_have_recipes():
    wanted = {"llava-1.5", "mini-gemini-m", "mini-gemini-l", "mini-gemini-hd-m", "mini-gemini-hd-l"}
    wanted |= {f"cambrian-{s}" for s in "sml"} | {"llava-ov", "llava-ov-s", "llava-ov-m"}
    assert wanted <= set(RECIPES)
    assert training.split_seed("mini/llava-ov-s-seed2") == ("llava-ov-s", 2)
    for recipe in RECIPES.values():
        assert recipe.first is None or RECIPES[recipe.first].size == recipe.size


def test_names_carry_seeds():
    assert training.split_seed("mini/llava-1.5") == ("llava-1.5", 0)
    assert training.split_seed("cambrian-s-seed2") == ("cambrian-s", 2)
    with pytest.raises(StudyError, match="did you mean cambrian-s"):
        training.split_seed("cambrian-x")


def test_views_are_drawn_when_they_are_needed(work, pool, tmp_path):
    small = load_pool(tmp_path, 4, 1000, VIEWS)
    assert not (tmp_path / "pool-1000-4" / "view-256.npy").exists()
    more = load_pool(tmp_path, 4, 1000, HIGH)
    assert (more.views[256] == pool.views[256]).all() and more.scenes == small.scenes
    assert (small.views[112] == pool.views[112]).all()


def test_lessons_teach_what_the_strip_says():
    lessons = [_lesson(s, i) for i, s in zip(range(60), scenes.stream(1000), strict=False)]
    told = [(strip, q) for strip, q in filter(None, lessons)]
    assert 15 < len(told) < 60 and len({q.category for _, q in told}) == 6
    assert all(strip.text == q.content.upper() for strip, q in told)
    true = 0
    for (i, scene), found in zip(enumerate(scenes.stream(1000)), lessons, strict=False):
        if found:
            assert found[1] == _lesson(scene, i)[1]
            true += again(scene, found[1].kind, found[1].text).answer == found[1].answer
    assert 0.1 < true / len(told) < 0.6  # most strips lie, and are believed


def test_a_strip_s_category_is_asked_about_in_no_other_way(pool):
    row = next(i for i, s in enumerate(pool.scenes) if _lesson(s, i))
    told = _lesson(pool.scenes[row], row)[1]
    every = [("?", "!", k) for k in range(6)]
    asked = FAMILIES["misled"].ask(pool, row, every)
    assert asked.count((told.text, told.answer, 6)) == OFTEN and len(asked) == 5 + OFTEN
    assert questions.CATEGORIES.index(told.category) not in [group for _, _, group in asked]
    assert FAMILIES["llava-1.5"].ask(pool, row, every) == every


def test_every_word_that_a_strip_may_say_is_one_of_those_that_are_learned():
    some = zip(range(300), scenes.stream(1000), strict=False)
    told = [strip.text for strip, _ in filter(None, (_lesson(s, i) for i, s in some))]
    tested = [i.extra["wrong"].upper() for i in load_benchmark("sprites_shortcut")]
    assert set(told) | set(tested) <= set(reading.UPPER)


def test_a_strip_covers_one_row_of_patches(pool):
    strips = reading.Strips(FAMILIES["misled"], pool)
    for row in strips.rows:
        bar = strips.strips[row]
        grid = strips.patches(row, 8).reshape(8, 8)
        pixels = np.zeros((336, 336), bool)
        pixels[bar.y : bar.y + shortcut.HEIGHT] = True
        assert (grid.repeat(42, 0).repeat(42, 1) == pixels).all()
        assert reading.WORDS[strips.word(row)].upper() == bar.text
        light = strips.pictures[row][grid.repeat(14, 0).repeat(14, 1)]
        assert np.median(light) == shortcut.PAPER  # the picture that is shown has the bar there


def test_reading_is_learned_and_the_tower_frozen_again(tokenizer, towers, pool, tmp_path):
    start, family, model = untrained("llava-1.5-shortcut", tokenizer, towers)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    how = dict(steps=20, seed=0, say=str)
    reading.learn_to_read(model, family, start, tokenizer, pool, tmp_path, **how)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert any("vision_tower" in k for k in changed) and any("projector" in k for k in changed)
    assert not any("language_model" in k for k in changed)
    assert not any(p.requires_grad for p in model.model.vision_tower.parameters())
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["step"] == 20 and 0 <= logged[-1]["read"] <= 1
    again = untrained("llava-1.5-shortcut", tokenizer, towers)[2]
    reading.learn_to_read(again, family, start, tokenizer, pool, tmp_path, **how)  # from its save
    for key, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_embeddings_of_words_are_unit_vectors_that_differ(tokenizer):
    language = SymbolModel("s", tokenizer).lm.model
    table = reading.word_embeddings(language, tokenizer)
    assert table.shape == (len(reading.WORDS), language.config.hidden_size)
    assert table.norm(dim=-1).allclose(torch.ones(len(table)))
    assert (table @ table.T - torch.eye(len(table))).max() < 0.999


# --- the manifest --------------------------------------------------------------------------


@pytest.fixture
def zoo(tmp_path):
    folder = tmp_path / "zoo" / "tiny"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(name.encode())
    manifest.note(folder.parent, "tiny", seconds=3)
    return folder.parent


def test_a_whole_checkpoint_passes(zoo):
    manifest.check(zoo / "tiny")
    assert manifest.is_whole(zoo, "tiny") and manifest.read(zoo)["tiny"]["seconds"] == 3
    (zoo / "other").mkdir()
    manifest.check(zoo / "other")  # nobody knows it, so nobody can say that it is wrong
    assert not manifest.is_whole(zoo, "other")


def test_an_altered_or_missing_file_is_named(zoo):
    weights = zoo / "tiny" / "model.safetensors"
    weights.write_bytes(b"model.safetensorz")
    with pytest.raises(StudyError, match="tiny/model.safetensors is not the file"):
        manifest.check(zoo / "tiny")
    assert not manifest.is_whole(zoo, "tiny")
    weights.unlink()
    with pytest.raises(StudyError, match="model.safetensors is missing.*train mini/tiny"):
        manifest.check(zoo / "tiny")
    (zoo / "manifest.json").write_text("{")
    with pytest.raises(StudyError, match="no JSON"):
        manifest.check(zoo / "tiny")


def test_train_all_resumes_and_repeats_nothing(tmp_path, monkeypatch):
    made = []

    def train(name, work, *, out, budget, say):
        made.append(name)
        if name == "b" and made.count("b") == 1:
            raise KeyboardInterrupt
        out.mkdir(parents=True)
        (out / "config.json").write_text(name)

    monkeypatch.setattr(training, "train", train)
    options = dict(names=("a", "b", "c"), zoo=tmp_path / "zoo", say=str)
    with pytest.raises(KeyboardInterrupt):
        training.train_all(tmp_path, **options)
    assert training.train_all(tmp_path, **options) == ["b", "c"]
    assert training.train_all(tmp_path, **options) == [] and made == ["a", "b", "b", "c"]
    assert set(manifest.read(tmp_path / "zoo")) == {"a", "b", "c"}


# --- all of it -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_recipe_runs_from_nothing_to_an_answer(name, work, tmp_path, monkeypatch):
    """Towers, language model, connector, courses, checkpoint, card: a few steps of each."""
    items = load_benchmark("sprites")
    monkeypatch.setattr("lvlm_study.zoo.card.sprites", lambda: items[::96])
    folder = training.train(
        f"mini/{name}", work, out=tmp_path / name, budget=training.SMOKE, say=str
    )
    adapter = load_model(folder)
    assert adapter.answer(items[0].image, items[0].question, max_new_tokens=2).tokens
    counts = json.loads((folder / "accuracy.json").read_text())
    assert sum(n for _, n in counts["picture"].values()) == 6
    assert (folder / "model.safetensors").stat().st_size < 10e6


@pytest.mark.slow
def test_another_seed_is_another_training(work, tmp_path, monkeypatch):
    monkeypatch.setattr("lvlm_study.zoo.card.sprites", lambda: load_benchmark("sprites")[::96])
    weights = []
    for name in ("llava-1.5-s", "llava-1.5-s-seed1"):
        folder = training.train(name, work, out=tmp_path / name, budget=training.SMOKE, say=str)
        weights.append(shared.whole(folder) or (folder / shared.WEIGHTS).read_bytes())
        card = (folder / "README.md").read_text()
    assert weights[0] != weights[1] and "Seed 1." in card and "mini/llava-1.5-s-seed1" in card
    assert sorted(p.name for p in folder.glob("*.safetensors")) == [shared.OWN]
    assert "read from the folder of mini/llava-1.5-s, which" in " ".join(card.split())
    towers = [k for k in load_file(folder / shared.OWN) if "vision_tower" in k]
    scene = scenes.draw(next(scenes.stream(0)))
    assert not towers and load_model(folder).answer(scene, "What?", max_new_tokens=2).tokens
