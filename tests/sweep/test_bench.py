"""The benchmark runs and compares like with like; no test looks at a clock."""

from types import SimpleNamespace

import pytest
import tiny

from lvlm_study import cli, models
from lvlm_study.answers import make_target
from lvlm_study.benchmarks import load_benchmark
from lvlm_study.heatmaps import METHODS, explain
from lvlm_study.heatmaps.eagle import greedy, slic_zero
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import bench, costs, results


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


def test_ga_races_a_loop_over_the_same_outputs(tmp_path):
    from tiny_joint import tiny_joint

    model = models.load_model(tiny_joint(tmp_path))
    found = bench.race_ga(bench.target_of(model, load_benchmark("sprites")[0]))
    assert found["apart"] < bench.NEAR_GA and found["faster"] > 0
    line = bench.ga_line({"cosines": 0.1, "loop": 0.7, "faster": 7.0, "apart": 1e-6})
    assert "7 x   within the bar of 5 x" in line
    for wrong in ({"faster": 4.0}, {"apart": 1e-3}):
        row = {"cosines": 0.1, "loop": 0.7, "faster": 7.0, "apart": 1e-6} | wrong
        assert "MISSES" in bench.ga_line(row)


def test_eagle_races_the_published_loop():
    target, _ = make_target(planted("object"), planted_scene((48, 64)), "?")
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


def test_memory_is_measured_for_every_number_of_steps(target, monkeypatch):
    monkeypatch.setattr(bench, "MEMORY_STEPS", (1, 2))
    assert set(bench.memory_by_steps(target)) == {1, 2}


def test_passes_of_methods():
    assert bench.method_passes("igos") == (100, 100)
    assert bench.method_passes("random") == (0, 0)
    assert bench.scoring_passes() == 2 * 25 + 2 * 2 * 10 and bench.scoring_passes(1) == 2 * 25


@pytest.mark.slow
@pytest.mark.parametrize("name", [m for m in METHODS if m != "ga"])  # needs a joint model
def test_every_method_can_be_estimated(target, name):
    """Those that look inside a model are counted on one; for the others any model will do."""
    ahead, back = bench.method_passes(name, target)
    assert 0 <= back <= ahead or name == "igos"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["igos", "occlusion", "integrated_gradients"])
def test_estimated_passes_are_those_of_a_real_architecture(target, name):
    assert bench.counted(target, lambda: METHODS[name](target)) == bench.method_passes(name)


def test_a_method_that_refuses_the_model_is_named_and_left_out(monkeypatch):
    monkeypatch.setattr(bench, "pass_seconds", lambda target: (3.0, 1.0))
    model = models.load_model("mini/llava-1.5")
    told = bench.estimate_table(model, load_benchmark("sprites")[0], ["ga", "random"], 1)
    assert "ga                      not counted: ga needs a model that shares its sight" in told
    assert "together" + " " * 16 in told and told.count("90.0") >= 1  # random: its scores alone


def test_estimate_multiplies(monkeypatch):
    monkeypatch.setattr(bench, "pass_seconds", lambda target: (3.0, 1.0))
    monkeypatch.setattr(bench, "asking_seconds", lambda model, item: 20.0)
    item = load_benchmark("sprites")[0]
    table = bench.estimate_table(planted("object"), item, ["igos", "random"], 36)
    assert "GFLOP a picture forward" in table and "MiB of weights" in table
    bytes_of = bench.pass_lines(costs.Cost(1e9, 2e9, 2 << 20, 5 << 20), 4, 3 << 20)[1]
    assert "5 MiB of weights; with gradients of 4 pictures at once at least 13 MiB" in bytes_of
    assert "about 17 MiB" in bytes_of
    asking, igos, random, both = (line.split() for line in table.splitlines()[4:])
    assert asking == ["answer", "and", "reliance", "20.0", "0.20"]
    assert igos == ["igos", "100", "100", "90", "390.0", "3.90"]
    assert random == ["random", "0", "0", "90", "90.0", "0.90"]
    assert both == ["together", "500.0", "5.00"]


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
def test_the_benchmark_and_the_estimate_run(tmp_path, capsys):
    folder = str(tiny.tiny_checkpoint("llava", tmp_path / "tiny"))
    assert bench.main(["--model", folder, "--rounds", "1", "--results", str(tmp_path)]) == 0
    kept = results.load(tmp_path / "bench.json")
    assert kept["igos"]["ratio"] == kept["igos"]["seconds"] / kept["igos"]["floor"] > 0
    assert list(kept["memory"]) == ["5", "10", "20"] and kept["scores"]["passes"] == [100, 0]
    assert kept["provenance"]["n"] == 1 and kept["eagle"]["regions"] == bench.REGIONS
    told = capsys.readouterr().out
    races = 5 + (bench.JOINT in bench.models())  # answers a second have a bar too
    assert told.count("the bar of") == races and told.count("K = ") == 3
    call = ["estimate", "--model", folder, "--methods", "igos", "--items", "10"]
    assert cli.main(call) == 0
    assert "h for 10" in capsys.readouterr().out


def test_an_unknown_model_is_one_sentence(capsys):
    assert bench.main(["--model", "mini/nothing-here"]) == 2
    assert capsys.readouterr().err.startswith("bench: There is no model")


def test_a_planted_target_keeps_its_crucial_tokens(monkeypatch):
    class Scene:
        rgb, question = planted_scene((64, 96)), "?"

    monkeypatch.setattr("lvlm_study.answers.make_baseline", lambda image, *a, **k: 0 * image)
    assert bench.target_of(planted("object"), Scene).crucial.tolist() == [0, 0, 0, 1, 0]
