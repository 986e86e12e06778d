"""The benchmark runs and compares like with like; no test looks at a clock."""

import contextlib
from types import SimpleNamespace

import pytest
import tiny
import torch
import white_box
from refusals import refuses

from lvlm_study import cli, models
from lvlm_study.answers import make_target
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.heatmaps import METHODS, explain
from lvlm_study.heatmaps.eagle import greedy, slic_zero
from lvlm_study.models import memory
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import bench, estimate, instead, results


@pytest.fixture(scope="module")
def target(adapters):
    return bench.target_of(adapters("llava"), load_benchmark("sprites")[0])


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    """The tiny model babbles to the end of its allowance."""
    answer = models.Adapter.answer
    monkeypatch.setattr(models.Adapter, "answer", lambda s, i, q, n=64: answer(s, i, q, 2))


@pytest.mark.parametrize("whole", [True, False])
def test_igos_races_as_many_passes(target, whole):
    race = bench.race_igos(target, rounds=1, whole=whole)
    assert race.passes == race.floor_passes == (100, 100)
    assert race.seconds > 0 and race.ratio == race.seconds / race.floor


@pytest.mark.parametrize(
    ("name", "encoders"),
    [("llava-1.5", 1), ("llava-ov", 1), ("mini-gemini-l", 1), ("cambrian-l", 3)],
)
def test_a_plain_pass_knows_every_family(name, encoders):
    """Cambrian gives each of its encoders a picture of its own; the others have one tensor."""
    target = bench.target_of(models.load_model(f"mini/{name}"), load_benchmark("sprites")[0])
    for whole in (True, False):
        assert bench.counted(target, lambda w=whole: bench.plain_pass(target, 1, w)) == (1, 1)
    leaves = bench.encoder_inputs(target.bound.pixels(target.image))
    assert len(leaves) == encoders and all(leaf.requires_grad and leaf.is_leaf for leaf in leaves)


def test_the_benchmark_times_the_model_that_the_book_names(monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "print_bench", lambda model, *rest: asked.append(model.name))
    assert bench.main([]) == 0 and asked == [bench.USUAL]


@pytest.mark.parametrize("pause, verdict", [(0.02, "within"), (0.5, "MISSES")])
def test_answers_a_second(monkeypatch, pause, verdict):
    """By a clock that an answer moves on: 1 / 0.02 s and 1 / 0.5 s, twice that on two cores."""
    clock, asked = [0.0], []

    def answer(rgb, question):
        clock[0] += pause
        asked.append(question)

    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    items = [SimpleNamespace(rgb=None, question=str(k)) for k in range(5)]
    line = bench.answers_line(SimpleNamespace(answer=answer), items)
    assert f"{1 / pause:.1f} a core, {2 / pause:.1f} on 2 cores" in line and verdict in line
    assert asked == ["0", "0", "1", "2", "3", "4"]


def test_scores_race_as_many_passes(adapters):
    model, item = adapters("llava"), load_benchmark("sprites")[0]
    ex = explain(model, item.rgb, item.question, method="center", tokens="all")
    race = bench.race_scores(model, ex, rounds=1)
    assert race.passes == race.floor_passes == (100, 0)


def test_ga_races_a_loop_over_the_same_outputs(joint):
    found = bench.race_ga(bench.target_of(joint, load_benchmark("sprites")[0]))
    assert found["apart"] < bench.NEAR_GA and found["faster"] > 0
    line = bench.ga_line({"cosines": 0.1, "loop": 0.7, "faster": 7.0, "apart": 1e-6})
    assert "7 x   within the bar of 5 x" in line
    for wrong in ({"faster": 4.0}, {"apart": 1e-3}):
        row = {"cosines": 0.1, "loop": 0.7, "faster": 7.0, "apart": 1e-6} | wrong
        assert "MISSES" in bench.ga_line(row)


def test_eagle_races_the_published_loop():
    target = make_target(planted("object"), planted_scene((48, 64)), "?")
    labels = slic_zero(target, 9)
    regions = labels.max() + 1
    there, _ = bench.counted(target, lambda: greedy(bench.OneByOne(target, labels)))
    assert there == 2 + regions * (regions + 1)  # two at the start, two a candidate
    found = bench.race_eagle(target, 9)
    assert found["same"] and found["faster"] == found["loop"] / found["search"]


@pytest.mark.parametrize(
    ("faster", "same", "said"),
    [
        (5.5, True, "within the bar of 5 x, order the same"),
        (4.9, True, "MISSES the bar of 5 x, order the same"),
        (9.0, False, "MISSES the bar of 5 x, order DIFFERENT"),
    ],
)
def test_the_race_of_eagle_has_a_verdict(faster, same, said):
    line = bench.eagle_line({"search": 1.0, "loop": faster, "faster": faster, "same": same})
    assert line.endswith(said)


def test_passes_of_methods():
    assert bench.method_passes("igos") == (100, 100)
    assert bench.method_passes("random") == (0, 0)
    assert bench.scoring_passes() == 2 * 25 + 2 * 2 * 10 and bench.scoring_passes(1) == 2 * 25


@pytest.mark.slow
@pytest.mark.parametrize("name", ["igos", "occlusion", "integrated_gradients"])
def test_estimated_passes_are_those_of_a_real_architecture(target, name):
    assert bench.counted(target, lambda: METHODS[name](target)) == bench.method_passes(name)


def test_a_method_that_refuses_the_model_is_named_and_left_out(monkeypatch):
    model = models.load_model("mini/llava-1.5")
    told = estimate.estimate_table(model, load_benchmark("sprites")[0], ["ga", "random"], 1)
    assert "ga                      not counted: ga needs a model that shares its sight" in told
    assert "together" + " " * 16 in told and "random                              0" in told


def test_estimate_multiplies(monkeypatch):
    found = estimate.Measured(5 << 20, 11.0, 1.0, 3.0, 2e9, 3 << 20)
    monkeypatch.setattr(estimate, "measured", lambda model, item: (None, found))
    item = load_benchmark("sprites")[0]
    table = estimate.estimate_table(planted("object"), item, ["igos", "random"], 36)
    assert "5 MiB of weights, and a gradient takes 3 MiB (layers kept) a picture" in table
    assert "2.00 GFLOP a picture forward" in table
    asking, igos, random, both = (line.split() for line in table.splitlines()[6:])
    assert asking == ["answer", "and", "reliance", "20.0", "0.20"]  # 9 passes beside the answer
    assert igos == ["igos", "100", "100", "90", "390.0", "3.90"]
    assert random == ["random", "0", "0", "1800", "1800.0", "18.00"]  # 20 draws
    assert both == ["together", "2210.0", "22.10"]


def test_what_fits_on_which_card_by_hand():
    """15 GB of weights and 17 GB a picture, 2 GB computed twice, beside 1 GB for the driver."""
    found = estimate.Measured(15 * 10**9, kept=17e9, twice=2e9)
    _, cards, kept, twice = (line.split() for line in estimate.memory_lines(found))
    assert cards[4:] == ["24", "GB", "48", "GB", "80", "GB", "141", "GB"]
    assert kept[2:] == ["none", "1", "3", "7"] and twice[3:] == ["4", "16", "32", "62"]
    found = estimate.Measured(15 * 10**9, kept=None, twice=2e9)
    assert estimate.memory_lines(found)[2].split()[2:] == ["-"] * 4


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "cambrian"])
def test_an_estimate_takes_three_passes_forward_and_two_backward(adapters, monkeypatch, family):
    """Passes in which the model sees pictures; the words of an answer come from its cache."""
    model, seen, back = white_box.adapter_of(adapters, family), [], []
    grad = torch.autograd.grad

    def look(module, args, kwargs):
        seen.append(len(kwargs["input_ids"])) if kwargs.get("pixel_values") is not None else None

    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: back.append(1) or grad(*a, **k))
    hook = model.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        estimate.estimate_table(model, load_benchmark("sprites")[0], [], 1)
    finally:
        hook.remove()
    assert set(seen) == {1} and len(seen) in (2, 3)  # transformers may look before it generates
    assert len(back) == 2


def test_an_estimate_counts_what_the_methods_make(target, adapters):
    """Passes that are known from a method's options are those that it makes."""
    for name in (*estimate.INSIDE, "iia", "knockout"):
        if name == "ga":  # not on this model
            continue
        assert bench.counted(target, lambda n=name: METHODS[n](target)) == estimate.passes_of(
            name, target
        )
    assert estimate.passes_of("llava_cam", target) == (50, 50)


def test_an_estimate_goes_on_where_layers_do_not_fit(adapters, monkeypatch):
    model, item = adapters("llava"), load_benchmark("sprites")[0]
    layer = model.model.get_decoder().layers[0]

    def full(module, args):
        if args[0].requires_grad and "forward" not in vars(module):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = layer.register_forward_pre_hook(full)
    try:
        _, found = estimate.measured(model, item)
        assert found.kept is None and found.twice > 0 and found.both > found.forward > 0
        monkeypatch.setattr(estimate, "checkpointed", lambda bound: contextlib.nullcontext())
        refuses("Not even one gradient of .* fits", estimate.measured, model, item)
    finally:
        hook.remove()
        memory._limits.clear()


def test_methods_side_by_side(monkeypatch):
    """The floor is the counted passes alone: three seconds each, one without the way back."""
    monkeypatch.setattr(bench, "pass_seconds", lambda target: (3.0, 1.0))
    item = load_benchmark("sprites")[0]
    names = ["center", "occlusion", "smoothgrad", "ga"]
    lines = [line.split() for line in bench.method_lines(planted("object"), item, names)]
    assert lines[1][-1] == "none" and lines[1][3:5] == ["0", "0"]
    ahead, back = int(lines[2][3]), int(lines[2][4])
    assert ahead > 0 == back and float(lines[2][-3]) == ahead
    ahead, back = int(lines[3][3]), int(lines[3][4])
    assert ahead == back > 0 and float(lines[3][-3]) == 3 * ahead
    assert lines[4][0] == "ga" and "needs" in lines[4]


@pytest.mark.slow
def test_the_benchmark_and_the_estimate_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "give_back", lambda: None)  # for a process of its own
    monkeypatch.setattr(bench, "COMPARED", 1)
    folder = str(tiny.tiny_checkpoint("llava", tmp_path / "tiny"))
    assert bench.main(["--model", folder, "--rounds", "1", "--results", str(tmp_path)]) == 0
    kept = results.load(tmp_path / "bench.json")
    assert kept["igos"]["ratio"] == kept["igos"]["seconds"] / kept["igos"]["floor"] > 0
    assert list(kept["memory"]) == ["5", "10", "20"] and kept["scores"]["passes"] == [100, 0]
    assert kept["provenance"]["n"] == 1 and kept["eagle"]["regions"] == bench.REGIONS
    assert kept["instead"]["n"] == 1 and kept["instead"]["rows"].keys() == instead.rows().keys()
    told = capsys.readouterr().out
    races = 5 + (bench.JOINT in bench.list_models())  # answers a second have a bar too
    assert told.count("the bar of") == races and told.count("K = ") == 3
    call = ["estimate", "--model", folder, "--methods", "igos", "--items", "10"]
    assert cli.main(call) == 0
    assert "h for 10" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "profile"), [("mini/owl", "mini"), ("llava-hf/a", "hub")])
def test_the_profile_is_that_of_the_model(name, profile):
    model = planted("object")
    model.name = name
    assert bench.about(model)["profile"] == profile


def test_an_unknown_model_is_one_sentence(capsys):
    assert bench.main(["--model", "mini/nothing-here"]) == 2
    assert capsys.readouterr().err.startswith("bench: There is no model")


def test_a_planted_target_keeps_its_crucial_tokens(monkeypatch):
    class Scene:
        rgb, question = planted_scene((64, 96)), "?"

    monkeypatch.setattr("lvlm_study.answers.make_baseline", lambda image, *a, **k: 0 * image)
    assert bench.target_of(planted("object"), Scene).crucial.tolist() == [0, 0, 0, 1, 0]
