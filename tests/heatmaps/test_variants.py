"""Methods with options in their names, and what a sweep makes of them: one item, one target."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import refuses
from test_runner import study, toy  # noqa: F401 - study is a fixture

from lvlm_study import cli
from lvlm_study.answers import make_target
from lvlm_study.benchmarks.base import Item
from lvlm_study.chapters import summaries
from lvlm_study.heatmaps import METHODS, explain, explain_target, variants
from lvlm_study.metrics.counterfactual import object_effects, object_mass
from lvlm_study.metrics.faithfulness import deletion_insertion
from lvlm_study.metrics.plausibility import plausibility
from lvlm_study.models.planted import PlantedReader, planted
from lvlm_study.pixels.baselines import make_baseline
from lvlm_study.scenes import scenes
from lvlm_study.scenes.scenes import Scene, Sprite
from lvlm_study.sweep import results, runner
from lvlm_study.sweep import tables as shards
from lvlm_study.sweep.runner import Sweep
from lvlm_study.sweep.stored import stored_maps, with_fill

# --- names ---------------------------------------------------------------------------------

SPELLED = {
    "igos": ("igos", {}, "igos"),
    "igos[]": ("igos", {}, "igos"),
    "igos[ gamma=.5, l2=1.0 ]": ("igos", {"l2": 1.0, "gamma": 0.5}, "igos[l2=1,gamma=0.5]"),
    "igos[l2=0.1,tokens=llr]": ("igos", {}, "igos"),
    "igos[mask_size=8,tokens=all]": (
        "igos",
        {"tokens": "all", "mask_size": 8},
        "igos[tokens=all,mask_size=8]",
    ),
    "igos[average=False]": ("igos", {"average": False}, "igos[average=false]"),
    "igos[preset=paper, l2=1]": ("igos", {"l2": 1.0, "preset": "paper"}, "igos[l2=1,preset=paper]"),
    "igos++[steps=5]": ("igos++", {"steps": 5}, "igos++[steps=5]"),
    "grad_cam[encoder=1]": ("grad_cam", {"encoder": 1}, "grad_cam[encoder=1]"),
    "grad_cam[encoder=dino]": ("grad_cam", {"encoder": "dino"}, "grad_cam[encoder=dino]"),
    "igos[word=2]": ("igos", {"word": "2"}, "igos[word=2]"),
    "igos[tv=1e-7]": ("igos", {"tv": 1e-7}, "igos[tv=1e-07]"),
}


@pytest.mark.parametrize("text", SPELLED)
def test_a_name_has_one_canonical_text(text):
    method, options, canonical = SPELLED[text]
    assert variants.parse(text) == (method, options)
    assert list(map(type, variants.parse(text)[1].values())) == [type(v) for v in options.values()]
    assert variants.canonical(text) == canonical == variants.canonical(canonical)
    assert variants.is_variant(canonical) == bool(options)


def test_stand_ins_are_compared_with_the_other_methods_and_ablations_are_not():
    for name in (*variants.STAND_INS, *variants.CHOSEN):
        assert variants.canonical(name) == name and variants.is_variant(name)
        assert not variants.is_ablation(name)
    assert variants.is_ablation("igos[l2=1]") and not variants.is_ablation("igos")
    names = ("igos[l2=1]", "igos[l2=1,preset=paper]", "igos++[steps=5]", "igos[preset=fast]")
    assert all(map(variants.is_ablation, names)) and not variants.is_ablation("igos")


WRONG = {
    "igoss": "no method named 'igoss'; did you mean igos",
    "igos[gama=1]": "no option of igos named 'gama'; did you mean gamma",
    "random[l2=1]": "no option of random named 'l2'",
    "igos[answer=x]": "no option of igos named 'answer'",
    "igos[l2=x]": "l2 in .* must be a number, not 'x'",
    "igos[l2=nan]": "l2 in .* must be a number, not 'nan'",
    "igos[mask_size=2.5]": "must be a whole number, not '2.5'",
    "igos[average=1]": "must be true or false, not '1'",
    "igos[l2=1": "is no method; write it as",
    "igos[l2]": "'l2' in .* is no option",
    "igos[tokens=al]": "did you mean all",
    "igos[baseline=blak]": "did you mean black",
    "igos[tokens=word]": "needs the word to explain",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_refused_before_anything_is_computed(name, tmp_path):
    sweep = Sweep(("none",), ("sprites",), (name,), tmp_path)
    refuses(WRONG[name], runner.run, sweep)
    assert not any(tmp_path.iterdir())


def test_lists_split_outside_of_brackets_only():
    text = "igos, igos[l2=1,gamma=0.5],,igos[gamma=0.5,l2=1.0],random"
    assert variants.split_names(text)[:2] == ["igos", "igos[l2=1,gamma=0.5]"]
    assert variants.expand(text) == ["igos", "igos[l2=1,gamma=0.5]", "random"]
    refuses("at least one method", variants.expand, " , ")


def test_folders_are_plain_and_all_different():
    names = [*METHODS, *variants.expand("ablations"), "igos[word=a/b]", "igos[word=a b]"]
    names = list(dict.fromkeys(map(variants.canonical, names)))
    folders = [variants.folder_name(name) for name in names]
    assert len({f.casefold() for f in folders}) == len(names)
    assert not any(set(folder) & set('/\\[]*?:<>|" ') for folder in folders)
    assert variants.folder_name("igos[gamma=.5,l2=1]") == "igos@l2=1,gamma=0.5"
    assert variants.folder_name("igos++") == "igos++"


def test_the_lists_of_ablations():
    every = variants.expand("ablations")
    for table, names in variants.ABLATIONS.items():
        assert "igos[preset=paper]" in names, table
        presets = [n.endswith("preset=paper]") for n in names]
        assert all(presets) or table == "preset"  # one thing at a time beside the paper's setting
        assert list(names) == [variants.canonical(name) for name in names]
        assert variants.expand(f"ablations/{table}") == list(names)
    assert len(every) == 30 and set(every) == {n for g in variants.ABLATIONS.values() for n in g}
    for rows in variants.PAPER.values():
        assert set(rows) <= set(every)
    refuses("did you mean ablations/tokens", variants.expand, "ablations/token")


@pytest.mark.parametrize("table", ["table3", "table5"])
def test_every_row_of_the_papers_ablations_has_a_variant(table):
    path = results.data_dir() / "paper" / f"{table}.csv"
    assert sorted(variants.PAPER[table].values()) == sorted(
        line.split(",")[0] for line in path.read_text().splitlines()[1:]
    )


# --- what is scored ------------------------------------------------------------------------

ITEM = toy(1)[0]
WAYS = [("grid", "blur"), ("grid", "mean"), ("superpixels", "blur")]
USUAL = {"units": ("grid", "superpixels"), "fills": ("blur", "mean")}


def asked_of(item=ITEM, model=None, **options):
    sweep = Sweep(("planted",), ("toy",), (), "nowhere", **options)
    return runner.Case(model or planted("object"), "toy", item, sweep)


def test_a_map_is_scored_three_ways():
    asked = asked_of()
    rows = runner.map_rows(asked, "igos")
    assert [(row["units"], row["fill"]) for row in rows] == WAYS
    ex = explain(asked.model, ITEM.rgb, ITEM.question, seed=asked.seed)
    for row, (units, fill) in zip(rows, WAYS, strict=True):
        how = {"steps": 25 if (units, fill) == WAYS[0] else 10, "seed": asked.seed}
        own = deletion_insertion(asked.model, ex, units=units, fill=fill, **how)
        assert {k: row[k] for k in ("deletion", "insertion", "gap_raw")} == {
            "deletion": own.deletion,
            "insertion": own.insertion,
            "gap_raw": own.gap_raw,
        }
        assert row["status"] == "ok"
    assert len({row["fill_score"] for row in rows}) == 2  # two fills, two pictures without image


def test_ways_of_scoring():
    asked = asked_of()
    ways = lambda name: [(r["units"], r["fill"]) for r in runner.map_rows(asked, name)]  # noqa: E731
    assert ways("eagle[regions=32]") == WAYS and ways("igos[l2=1]") == WAYS[:1]
    sweep = Sweep((), (), (), "nowhere", units=("grid", "patches", "superpixels"), fills=("black",))
    assert sweep.ways == [(u, "black") for u in ("grid", "patches", "superpixels")]
    assert Sweep((), (), (), "nowhere").ways == WAYS
    frame = pd.DataFrame({"units": ["grid", None], "method": "igos", "status": ["ok", "error"]})
    assert with_fill(frame).fill.tolist() == ["blur", None]


def test_a_variant_explains_its_own_target_and_is_scored_on_the_default():
    asked = asked_of()
    rows = runner.map_rows(asked, "igos[tokens=all]")
    own = explain(asked.model, ITEM.rgb, ITEM.question, seed=asked.seed, tokens="all")
    target = make_target(asked.model, ITEM.rgb, ITEM.question, seed=asked.seed)
    assert own.target.crucial.sum() == 5 and target.crucial.sum() == 1
    kept = (own.grid.astype(float) / own.grid.max()).astype(np.float16)
    assert np.array_equal(rows[0]["heatmap"], kept.ravel())
    right = deletion_insertion(None, replace(own, target=target), steps=25, fill="blur")
    wrong = deletion_insertion(None, own, steps=25, fill="blur")
    assert rows[0]["image_score"] == pytest.approx(right.image_score)
    assert rows[0]["image_score"] != pytest.approx(wrong.image_score, abs=1e-3)


def test_the_optimisers_fill_changes_neither_tokens_nor_score():
    asked = asked_of()
    target = asked.default
    black = replace(target, baseline=make_baseline(target.image, "black"))
    ex = asked.explain("igos[baseline=black]")
    assert np.array_equal(ex.grid, METHODS["igos"](black, seed=asked.seed).numpy())
    assert not np.array_equal(ex.grid, METHODS["igos"](target, seed=asked.seed).numpy())
    assert ex.target is target and ex.reliance is target.reliance


def test_the_default_target_is_measured_once(monkeypatch):
    calls = []
    make = lambda *a, **k: calls.append(k) or make_target(*a, **k)  # noqa: E731
    monkeypatch.setattr(runner, "make_target", make)
    asked = asked_of(baselines=("blur",))
    runner.reliance_rows(asked)
    for name in ("igos[iterations=1]", "random", "center"):
        runner.map_rows(asked, name)
    assert len(calls) == 1
    runner.map_rows(asked, "igos[tokens=all,iterations=1]")
    assert len(calls) == 2 and calls[1]["tokens"] == "all"


def test_without_crucial_tokens_no_map_is_made():
    grey = replace(
        ITEM, image=lambda: np.full((32, 48, 3), 128, np.uint8), evidence=np.eye(32, 48) > 0
    )
    for name, ways in (("igos", 3), ("igos[tokens=all]", 1)):
        rows = runner.map_rows(asked_of(grey), name)
        assert [row["status"] for row in rows] == ["no_crucial_tokens"] * ways
        assert rows[0]["forward"] == 0 and "gap" not in rows[0] and "energy" not in rows[0]
        assert rows[0]["evidence_area"] == pytest.approx(32 / (32 * 48))


# --- maps that say nothing -----------------------------------------------------------------
def flat(target, *, seed: int = 0, value: float = 0.0):
    """The same everywhere."""
    return torch.full((8, 8), value)


def test_a_constant_map_is_a_status_and_is_not_scored(monkeypatch):
    monkeypatch.setitem(METHODS, "flat", flat)
    item = replace(ITEM, evidence=np.eye(32, 48) > 0)
    for name, ways in (("flat", 3), ("flat[value=0.5]", 1), ("flat[value=-1]", 1)):
        rows = runner.map_rows(asked_of(item), name)
        assert [row["status"] for row in rows] == ["constant"] * ways
        assert "gap" not in rows[0] and "auc" not in rows[0] and "mass" not in rows[0]
    monkeypatch.setitem(METHODS, "center", lambda target, *, seed=0: torch.ones(8, 8))
    named = {n: explain_target(n, asked_of().default) for n in ("flat", "center")}
    assert named["flat"].status == "constant" and named["center"].status == "ok"
    zero = deletion_insertion(None, named["flat"], steps=5, units="superpixels")
    assert zero.status == "ok" and np.isfinite(zero.gap)  # asked for, ties are drawn
    nan = explain_target(flat, asked_of().default, value=torch.nan)
    assert nan.status == "diverged" and nan.method == "flat"
    assert explain_target(METHODS["igos++"], asked_of().default, iterations=1).method == "igos++"


# --- evidence and effects ------------------------------------------------------------------

OBJECTS = (
    Sprite("apple", "red", "large", 206, 38),
    Sprite("apple", "blue", "small", 20, 20),
    Sprite("bell", "green", "small", 60, 250),
)
MIDDLE = (232 / 336, 64 / 336, 272 / 336, 104 / 336)  # of the red apple, the only box looked at
SCENE = Scene("road", False, 0, 0, 7, OBJECTS)


@pytest.fixture
def reader(monkeypatch):
    """A reader of the red apple, also behind the models of `study`."""
    one = PlantedReader("object", (MIDDLE,))
    monkeypatch.setattr("test_runner.planted", lambda name: one)
    return one


def drawn(number=0):
    known = dict(evidence=scenes.mask(SCENE, 0), extra={"scene": SCENE})
    said = ("Which colour?", "The shape is red.", ("red",), "attribute")
    return Item(f"toy/{number}", lambda: scenes.draw(SCENE), *said, **known)


def test_maps_are_compared_with_the_evidence_at_full_size(reader):
    asked = asked_of(drawn(), reader)
    rows = runner.map_rows(asked, "center")
    ex = explain(asked.model, asked.rgb, asked.item.question, "center", seed=asked.seed)
    found = plausibility(ex.saliency, asked.item.evidence)
    for row in rows:
        assert row["auc"] == found.auc and row["energy"] == found.energy
        assert row["evidence_area"] == found.area == scenes.mask(SCENE, 0).mean()
        assert row["mass"] == object_mass(ex.saliency, asked.masks).tolist()
    assert len(rows[0]["mass"]) == 3 and rows[0]["mass"][0] == pytest.approx(found.energy)


def test_objects_are_taken_away_one_by_one(reader):
    asked = asked_of(drawn(), reader)
    (row,) = runner.effect_rows(asked)
    assert row["objects"] == ["apple", "apple", "bell"] and row["status"] == "ok"
    assert row["effect"] == object_effects(asked.default, SCENE).tolist()
    assert row["effect"][0] > 0.1 and row["effect"][1:] == pytest.approx([0, 0], abs=1e-6)
    assert row["area"] == [float(scenes.mask(SCENE, i).mean()) for i in range(3)]


def test_a_sweep_writes_effects_where_there_are_scenes(study, reader):  # noqa: F811
    few = dict(methods=("center",))
    study([drawn(0), *toy(4)[1:]], **few)
    effects, maps = study.table("effects"), study.table("maps").set_index("item")
    assert len(effects) == 4
    scene = effects.set_index("item").loc["toy/0"]
    assert len(scene.effect) == len(maps.mass["toy/0"]) == 3
    assert set(effects[effects.item != "toy/0"].status) == {"no_scene"}
    assert maps.mass["toy/1"] is None and np.isnan(maps.auc["toy/1"])


def test_no_effects_without_scenes_or_methods(study, tmp_path):  # noqa: F811
    study(toy(2), methods=("center",))
    study([drawn()], methods=(), results=tmp_path / "other")
    assert study.table("effects").empty
    assert shards.read_table(tmp_path / "other", "effects").empty


def test_effects_of_another_style_are_drawn_in_it():
    item = next(iter(runner.load_benchmark("sprites_flat")))
    target = make_target(planted("object"), item.rgb, item.question, tokens="all")
    own = object_effects(target, item)
    assert len(own) == len(item.extra["scene"].objects)
    refuses("does not draw the explained picture", object_effects, target, item.extra["scene"])


# --- tables and summaries ------------------------------------------------------------------
def test_a_table_with_fewer_columns_is_resumed(study, monkeypatch):  # noqa: F811
    names = ("fill", "mass", "auc", "evidence_area")
    old = runner.pa.schema([f for f in runner.MAPS if f.name not in names])
    with monkeypatch.context() as before:
        before.setitem(runner.SCHEMAS, "maps", old)
        study(toy(), items=2, methods=("center",))
    assert "fill" not in study.table("maps")
    study(toy(), items=4, methods=("center",))
    maps = study.table("maps")
    assert len(maps) == 4 and maps.fill.isna().sum() == 2 and set(maps.status) == {"ok"}
    assert len(stored_maps(study.results)) == 4  # rows without a fill were scored with blur


def test_stored_maps_are_one_a_method_without_ablations(study):  # noqa: F811
    methods = ("center", "igos[iterations=1]")
    study(toy(2), methods=methods, baselines=("blur",), **USUAL)
    assert len(study.table("maps")) == 2 * 3 + 2  # a variant is scored in one way
    frame = stored_maps(study.results)
    assert frame.method.tolist() == ["center"] * 2 and set(frame.fill) == {"blur"}
    assert len(stored_maps(study.results, ablations=True)) == 4
    mean = stored_maps(study.results, fill="mean")
    assert len(mean) == 2 and (mean.gap.to_numpy() != frame.gap.to_numpy()).all()


def test_the_summary_has_fills_and_variants(study, reader, tmp_path):  # noqa: F811
    folder = tmp_path / "results" / "mini"
    methods = ("center", "igos[iterations=1,l2=0.5]")
    study(
        [drawn(n) for n in range(3)], methods=methods, baselines=("blur",), results=folder, **USUAL
    )
    trees = summaries.write_summaries(folder, "mini", 0)
    found = shards.read_table(folder, "maps").query("method == 'center'")
    top = f"faithfulness.models[{found.model.iloc[0]}].toy"
    for units, fill in WAYS:
        rows = found[(found.units == units) & (found.fill == fill)]
        key = units if fill == "blur" else f"{units}+{fill}"
        value = results.read(f"{top}.center.{key}.gap.value", tmp_path).value
        assert value == pytest.approx(rows.gap.mean())
    assert results.read(f"{top}.igos[iterations=1,l2=0.5].grid.n", tmp_path).value == 3
    told = summaries.report(trees)
    assert "igos[iterations=1,l2=0.5]" in told and "grid+mean" in told


def test_summaries_are_written_again_without_computing(study, monkeypatch, capsys):  # noqa: F811
    study(toy(2), baselines=("blur",))
    monkeypatch.setattr(runner, "load_model", None)
    own = lambda tables: {"provenance": tables.origin(tables.maps), "rows": len(tables.maps)}  # noqa: E731
    monkeypatch.setitem(summaries.SUMMARIES, "mine", own)
    monkeypatch.setitem(summaries.SUMMARIES, "nothing", lambda tables: {})
    assert cli.main(["summarise", "--results", str(study.results)]) == 0
    assert "center" in capsys.readouterr().out
    written = {path.name for path in study.results.glob("*.json")}
    assert written >= {"reliance.json", "faithfulness.json", "filter.json", "mine.json"}
    assert "nothing.json" not in written
    assert results.load(study.results / "mine.json")["rows"] == 4


def test_the_command_takes_variants_and_fills(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr("lvlm_study.sweep.engines.run", lambda sweep, *how: made.append(sweep) or 0)
    call = ["run", "--models", "x", "--benchmarks", "sprites", "--results", str(tmp_path)]
    cli.main([*call, "--methods", "igos[gamma=0.5,l2=1],random", "--fills", "mean,black"])
    cli.main([*call, "--methods", "ablations/lr", "--units", "grid"])
    cli.main([*call, "--methods", "none"])
    assert made[0].methods == ("igos[l2=1,gamma=0.5]", "random")
    assert made[0].ways == [("grid", "mean"), ("grid", "black"), ("superpixels", "mean")]
    assert made[1].methods == variants.ABLATIONS["lr"]
    assert made[2].methods == () and made[2].ways == WAYS
