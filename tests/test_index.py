"""What the first page says still follows from the results that it is read from."""

from lvlm_study.sweep.results import read

LLAVA = "[mini/llava-1.5].sprites"


def value(key: str):
    return read(key).value


def test_blur_leaks_what_black_hides():
    leak = [value(f"reliance.models{LLAVA}.global.{kind}.lt30") for kind in ("blur", "black")]
    assert leak[0] > 50 and leak[0] > 2 * leak[1]


def test_the_first_token_rule_silences_answers():
    assert value(f"reliance.models{LLAVA}.existence.blur.no_crucial") > 50
    assert value(f"reliance.models{LLAVA}.all.blur.no_crucial") > 20


def test_edges_earn_most_of_the_score_and_random_maps_none():
    igos, edges, chance = (
        value(f"faithfulness.models{LLAVA}.{method}.grid.gap.value")
        for method in ("igos", "sobel", "random")
    )
    assert igos > edges > 0.5 * igos and abs(chance) < 0.1
    assert value(f"faithfulness.models{LLAVA}.igos.grid.gap.low") > 0.5


def test_some_method_finds_the_evidence():
    best = value(f"truth.models{LLAVA}.best.auc.value")
    assert 0.5 < best <= 1
    assert 0 <= value(f"truth.models{LLAVA}.best.auc.below_sobel.count")


def test_the_papers_p_needs_another_unit():
    paper = value("paper/scalars[p_vision_architecture].value")
    assert value("audit.table4.vision.del.smallest") > paper
    assert value("audit.table4.vision.ins.smallest") > paper
    assert value("audit.table1.flipped_largest") <= 0.05 + 1e-9


def test_maps_give_the_shortcut_away_and_edges_do_not():
    model = "shortcut.models[mini/llava-1.5-shortcut]"
    assert value(f"{model}.methods.igos.low") > 0.5
    assert value(f"{model}.verdicts.clear.count") > value(f"{model}.verdicts.methods") / 2
    assert value(f"{model}.methods.sobel.low") < 0.5 < value(f"{model}.methods.sobel.high")
    plain = "shortcut.models[mini/llava-1.5]"
    assert value(f"{plain}.arms.wrong.follows.percent") < 10  # who cannot read is not misled
