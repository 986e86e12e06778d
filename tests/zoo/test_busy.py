"""Members for busy ground: they start from committed ones, see other towers, and can be resumed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.errors import StudyError
from lvlm_study.models import load_model
from lvlm_study.pixels.images import to_tensor
from lvlm_study.scenes import scenes
from lvlm_study.zoo import busy, pool
from lvlm_study.zoo import train as training
from lvlm_study.zoo.families import FAMILIES
from lvlm_study.zoo.language import opening
from lvlm_study.zoo.members import BUSY, RECIPES, Lessons, prefix, recipe_of, tower_tokens
from lvlm_study.zoo.vision import TOWERS

TINY = busy.Plan(pool=16, cleared=8, held=16, tower=1, connector=2, course=2)


def first(n: int, stream) -> list:
    return [scene for _, scene in zip(range(n), stream, strict=False)]


# --- names and lessons ---------------------------------------------------------------------


def test_names_tell_architecture_level_and_seed():
    assert training.split_seed("mini/llava-1.5-s-clutter3-seed1") == ("llava-1.5-s-clutter3", 1)
    assert {recipe_of(f"llava-1.5-s-clutter{k}").clutter for k in range(1, 5)} == {1, 2, 3, 4}
    assert {BUSY[f"{n}-clutter4"].family for n in ("llava-1.5", "llava-ov", "cambrian-l")} < {
        "llava-1.5", "llava-ov", "cambrian", "mini-gemini",
    }  # fmt: skip
    for name, recipe in BUSY.items():
        assert name == f"{recipe.first}-clutter{recipe.clutter}" and recipe.later > 0
        assert (recipe.family, recipe.size) == (
            RECIPES[recipe.first].family, RECIPES[recipe.first].size,
        )  # fmt: skip
    with pytest.raises(StudyError, match="did you mean llava-1.5-s-clutter4"):
        training.split_seed("llava-1.5-s-clutter5")


def test_lessons_have_every_level_and_a_quarter_on_photographs():
    drawn = first(64, pool.busy_stream(1000))
    levels = [s.clutter for s in drawn]
    assert [levels.count(k) for k in range(5)] == [8, 8, 8, 16, 24]
    photo = [s.ground == "photo-train" for s in drawn]
    assert sum(photo) == 14 and not any(s.ground == "photo" for s in drawn)  # 16, two of level 0
    kept = {i.extra["scene"].objects for k in (3, 4)
            for i in load_benchmark("sprites_clutter", level=k)}  # fmt: skip
    assert kept.isdisjoint(s.objects for s in drawn)
    held = first(64, pool.busy_stream(1001))
    assert {s.objects for s in drawn}.isdisjoint(s.objects for s in held)


def test_cleared_scenes_show_the_same_objects_and_nothing_else():
    for shown, clear in zip(
        first(16, pool.busy_stream(5)), first(16, pool.WORLDS["cleared"](5)), strict=True
    ):
        assert clear == replace(shown, clutter=0, ground="leaves")
        assert (scenes.mask(clear, 0) | ~scenes.mask(shown, 0)).all()


def test_a_member_learns_from_no_busier_scene_than_its_own(tmp_path):
    drawn = pool.load_pool(tmp_path, 16, 1000, {84: 6}, "busy")
    rows = busy.up_to(drawn, 2)
    assert [drawn.scenes[k].clutter for k in rows] == [2, 1, 0, 2, 1, 0]
    lessons = Lessons(FAMILIES["llava-1.5"], drawn, [], rows)
    assert set(lessons.draw(np.random.default_rng(0), 200)) == set(rows.tolist())
    assert (tmp_path / "pool-busy-1000-16").is_dir()  # beside, not in place of, pool-1000-16


# --- models --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llava-1.5-s", "llava-ov-s", "cambrian-s", "mini-gemini-m"])
def test_towers_take_their_seats_and_are_frozen_there(name):
    """Zeroed towers: every seat is found, filled, frozen; all else stays and may learn."""
    model, family = load_model(f"mini/{name}").model, FAMILIES[recipe_of(name).family]
    towers = {t: TOWERS[t].make() for t in family.towers}
    for tower in towers.values():
        for p in tower.parameters():
            p.data.zero_()
    before = family.language(model).embed_tokens.weight.clone()
    busy.seated(family, model, towers)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == sum(len(list(t.parameters())) for t in towers.values())
    assert all(not p.any() for n, p in model.named_parameters() if n in frozen)
    assert torch.equal(family.language(model).embed_tokens.weight, before)
    assert model.lm_head.weight.requires_grad


def test_what_is_wanted_of_the_connector_is_what_the_committed_member_sees(tmp_path):
    """Its own processing of the cleared picture, token for token (bfloat16)."""
    adapter, family = load_model("mini/llava-1.5-s"), FAMILIES["llava-1.5"]
    wanted = busy.even_tokens(family, adapter.model, tmp_path, TINY)
    scene = first(3, pool.WORLDS["cleared"](1000))[2]
    x = to_tensor(scenes.draw(scene))
    bound = adapter.bind(x.shape[-2:], "What place is this?")
    with torch.no_grad():
        own = adapter.model.model.get_image_features(**bound.pixels(x), return_dict=True)
    own = getattr(own, "pooler_output", own)[0]
    assert wanted.shape[:2] == (8, 64)
    assert (wanted[2].float() - own).abs().max() < 0.05 * own.abs().max()


def test_a_busy_tower_starts_as_the_committed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(busy, "train_tower", lambda name, work, *, ready, **how: (ready, how))
    for name, giver in busy.GIVERS.items():
        ready, how = busy.busy_tower(name, tmp_path, say=str)
        own = FAMILIES[recipe_of(giver).family].seats(load_model(f"mini/{giver}").model)[name]
        pairs = zip(ready.state_dict().values(), own.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert how["world"] == "busy" and how["steps"] == busy.TOWER_STEPS[name]
    assert busy.busy_tower("clip-low", tmp_path, say=str)[0].config.image_size == 112


def test_the_opening_is_what_stands_before_a_picture():
    adapter = load_model("mini/llava-1.5-s")
    bound = adapter.bind((336, 336), "What place is this?")
    ids = opening(adapter.tokenizer)
    assert bound.prompt_ids[0, : len(ids)].tolist() == ids.tolist()
    assert bound.image_span.nonzero()[0].item() == len(ids)


@pytest.mark.slow
def test_a_member_is_trained_saved_and_resumed(tmp_path, monkeypatch):
    """Two steps of everything: the checkpoint loads, and a second run changes nothing."""
    monkeypatch.setattr(training, "Plan", lambda **how: replace(TINY, **how))
    monkeypatch.setattr("lvlm_study.zoo.card.measure", lambda model, items: {
        view: {"global": [True, False]} for view in ("picture", "blurred", "mean colour")
    })  # fmt: skip
    made = []
    for name in ("llava-1.5-s-clutter3", "llava-1.5-s-clutter3-seed1", "llava-1.5-s-clutter3"):
        out = tmp_path / "zoo" / name
        training.train(name, tmp_path / "work", out=out, say=str)
        made.append(load_model(out).model.state_dict())
    assert all(torch.equal(made[0][k], made[2][k]) for k in made[0])
    assert not all(torch.equal(made[0][k], made[1][k]) for k in made[0])
    tower = [k for k in made[0] if "vision_tower" in k]
    assert all(torch.equal(made[0][k], made[1][k]) for k in tower)
    assert (tmp_path / "zoo" / "llava-1.5-s-clutter3-seed1" / "own.safetensors").is_file()
    card = (tmp_path / "zoo" / "llava-1.5-s-clutter3-seed1" / "README.md").read_text()
    assert "clutter levels 0 to 3" in card and "sprites_clutter-3" in card
    flat = load_model("mini/llava-1.5-s").model.state_dict()
    assert not all(torch.equal(made[0][k].float(), flat[k].float()) for k in tower)


def test_seeing_is_what_the_language_model_gets(tmp_path):
    """prefix = opening tokens, then the visual tokens through the member's own connector."""
    adapter, family = load_model("mini/llava-1.5-s"), FAMILIES["llava-1.5"]
    drawn = pool.load_pool(tmp_path, 4, 1000, busy.SIDES, "busy")
    rows = np.arange(4)
    kept = [tower_tokens("clip", family.seats(adapter.model)["clip"], drawn, rows)]
    lessons = Lessons(family, drawn, kept, rows)
    begin = opening(adapter.tokenizer)
    seen, more = prefix(adapter.model, family, begin, lessons.inputs(rows))
    assert seen.shape[:2] == (4, len(begin) + 64) and more == {}
