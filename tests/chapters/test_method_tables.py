"""Tables of methods, ablations, truth and cost: every number here can be worked out by hand."""

import json

import method_frames as frames
import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch02_methods as method_tables
from lvlm_study.chapters import ch03_ablations as ablation_tables
from lvlm_study.chapters import ch04_truth as truth_tables
from lvlm_study.chapters import ch05_cost as cost_tables
from lvlm_study.chapters import compare
from lvlm_study.heatmaps import names as method_names
from lvlm_study.metrics.plausibility import plausibility, rank_correlation, soft_iou
from lvlm_study.paths import data_dir

EIGHT = [0.6, 0.7, 0.8, 0.9, 0.6, 0.7, 0.8, 0.9]  # mean 0.75
GAPS = {"igos": EIGHT, "gae": [g - 0.5 for g in EIGHT], "random": [0.1, -0.1] * 4}


def finite(tree) -> bool:
    """JSON without NaN, and no numpy types in it."""
    return bool(json.dumps(tree, allow_nan=False))


# --- names


def test_titles():
    assert method_names.title("igos[l2=1,gamma=0.5]") == "iGOS (l2 1, gamma 0.5)"
    assert method_names.title("unheard_of") == "unheard_of"
    assert method_names.listed([]) == "none"
    assert method_names.listed(["gae", "tam", "igos"]) == "T-MM, TAM and iGOS"


def test_order_is_by_number_and_controls_are_last():
    names = ["random", "igos[steps=20]", "new", "gae", "igos[steps=5]", "igos"]
    expected = ["igos", "igos[steps=5]", "igos[steps=20]", "gae", "new", "random"]
    assert method_names.in_order(names) == expected


# --- which rows


def test_rows_of_one_test_and_the_failures_once():
    good = frames.maps(GAPS)
    other = frames.maps(GAPS, fill="mean")
    failed = frames.maps({"igos": [0.0]}, status={("igos", 0): "error"}).assign(item="z")
    failed = failed.assign(units=None, fill=None)
    variant = frames.maps({"igos[l2=1]": EIGHT})
    found = compare.rows_of(pd.concat([good, other, failed, variant]))
    assert len(found) == 25 and set(found.method) == {"igos", "gae", "random"}
    assert len(compare.rows_of(pd.concat([good, variant]), variants=True)) == 32
    stand_in = frames.maps({"eagle[regions=32]": EIGHT})
    assert "eagle[regions=32]" in set(compare.rows_of(pd.concat([good, stand_in])).method)


def test_a_table_from_before_fills_was_blur():
    assert len(compare.rows_of(frames.maps(GAPS).drop(columns="fill"))) == 24


# --- Table 1


def test_scores_by_hand():
    status = {("igos", 0): "no_crucial_tokens", ("igos", 1): "constant"}
    table = compare.method_scores(compare.rows_of(frames.maps(GAPS, status=status))).set_index(
        "method"
    )
    row = table.loc["igos"]
    assert row[["n", "skipped", "silent"]].tolist() == [7, 1, 1]
    assert row.gap == pytest.approx(sum(EIGHT[2:]) / 7)  # the silent map counts as chance, 0
    assert row.deletion == pytest.approx(0.5 - np.mean(EIGHT[2:]) / 2)
    assert row.gap_low < row.gap < row.gap_high
    assert table.index.tolist() == ["igos", "gae", "random"]  # best first


def test_turning_over_exchanges_the_scores_and_their_ends():
    table = compare.method_scores(frames.maps(GAPS))
    turned = method_tables.both_ways(table)
    assert turned.deletion.tolist() == table.insertion.tolist()
    assert turned.insertion_low.tolist() == table.deletion_low.tolist()
    assert turned.gap_low.tolist() == (-table.gap_high).tolist()
    pd.testing.assert_frame_equal(method_tables.both_ways(turned), table)


def test_models_without_rivals_are_left_out_of_the_long_tables():
    many, few = frames.maps({m: 2 * v for m, v in GAPS.items()}, model="mini/z"), frames.maps(GAPS)
    alone = frames.maps({"igos": EIGHT, "random": [0.0] * 8}, model="mini/c")
    frame = compare.rows_of(pd.concat([few, alone, many]))
    found = compare.with_rivals(frame)
    assert [keys[0] for keys, _ in found] == ["mini/a", "mini/z"]
    assert [keys[0] for keys, _ in compare.most_items_first(found)] == ["mini/z", "mini/a"]
    alone = compare.with_rivals(compare.rows_of(alone))
    assert [keys[0] for keys, _ in alone] == ["mini/c"]


def test_two_settings_of_igos_are_no_rivals():
    two = {"igos": EIGHT, "igos[preset=paper]": EIGHT, "random": [0.0] * 8}
    frame = compare.rows_of(pd.concat([frames.maps(GAPS), frames.maps(two, model="mini/c")]))
    assert set(frame[frame.model == "mini/c"].method) == set(two)
    assert [keys[0] for keys, _ in compare.with_rivals(frame)] == ["mini/a"]


def test_the_papers_table_by_hand():
    paper = pd.read_csv(data_dir() / "paper" / "table1.csv")
    found = method_tables.paper_table1(paper).set_index(["model", "method"])
    row = found.loc["LLaVA-1.5-7b", "T-MM"]
    assert row["MMVP"] == pytest.approx(0.418 - 0.778)
    assert row.gap == pytest.approx(
        np.mean([0.418, 0.283, 0.461, 0.378]) - np.mean([0.778, 0.869, 0.869, 0.808])
    )
    assert row.turned == -row.gap


def test_table1_has_ours_and_theirs():
    paper = pd.read_csv(data_dir() / "paper" / "table1.csv")
    table = method_tables.table1(frames.maps(GAPS), paper)
    assert len(table) == 3 + len(paper)
    first = table.iloc[0]
    assert first.method == "iGOS" and first["turned over"] == pytest.approx(-0.75)
    assert first["insertion − deletion"].startswith("0.75 [0.6") and first["same items"] == "0.75"
    assert table["n"].tolist()[:4] == [8, 8, 8, None]
    assert set(table["another seed"]) == {"–"}
    table = method_tables.table1(frames.maps(GAPS), paper, {("mini/a", "gae"): "1, no chance"})
    assert table["another seed"].tolist()[:4] == ["–", "1, no chance", "–", "–"]


# --- who is better


def test_paired_differences_to_igos():
    """Every difference is 0.5; of the 256 signings two are as far out: p = 2 / 256."""
    table = compare.against(frames.maps(GAPS)).set_index("method")
    assert table.difference["gae"] == pytest.approx(0.5)
    assert table.p["gae"] == pytest.approx(2 / 256)
    assert table.p_holm["gae"] == pytest.approx(2 * 2 / 256)  # two comparisons
    assert table.n.tolist() == [8, 8]


def test_best_and_those_that_are_not_clearly_worse():
    gaps = GAPS | {"tam": [g + (-1) ** n * 0.2 - 0.01 for n, g in enumerate(EIGHT)]}
    found = compare.best_of(frames.maps(gaps))
    assert (found["title"], found["second"]) == ("iGOS", "TAM")
    assert found["lead"]["difference"] == pytest.approx(0.01)
    assert found["lead"]["verdict"] == compare.UNCLEAR
    assert found["not_clearly_worse"] == "TAM"


def test_a_method_on_few_items_cannot_win():
    gaps = GAPS | {"rise": [1.0, 1.0, 1.0]}
    assert compare.ranked(frames.maps(gaps)) == ["igos", "gae"]
    assert compare.best_of(frames.maps(gaps))["title"] == "iGOS"


def test_who_is_best_is_asked_on_the_same_items():
    """rise has the six easy items only: above igos by its own mean, below it on the same items."""
    gaps = GAPS | {"igos": [0.9] * 6 + [0.1] * 2, "rise": [0.8] * 6}
    frame = frames.maps(gaps)
    own = compare.method_scores(frame).set_index("method").gap
    assert own["rise"] > own["igos"] == pytest.approx(0.7)
    assert compare.ranked(frame) == ["igos", "rise", "gae"]
    found = compare.best_of(frame)
    assert (found["title"], found["n"], found["apart"]) == ("iGOS", 6, "none")
    assert found["same"]["igos"]["value"] == found["gap"]["value"] == pytest.approx(0.9)
    assert found["lead"]["difference"] == pytest.approx(0.1)
    table = method_tables.in_rank(frame)
    assert table.method.tolist()[:2] == ["igos", "rise"] and table.same[0] == pytest.approx(0.9)


def test_a_short_row_stands_apart_and_a_long_one_shuts_nobody_out():
    found = compare.best_of(frames.maps(GAPS | {"rise": [1.0, 1.0, 1.0]}))
    assert found["apart"].startswith("RISE (iGOS minus RISE: −0.30 [")  # .6 .7 .8 against 1
    assert found["apart"].endswith("], n = 3)") and found["n"] == 8
    long = frames.maps(GAPS | {"igos": EIGHT * 3})
    assert compare.ranked(long) == ["igos", "gae"]
    assert compare.same_items(long).groupby("method").size().tolist() == [8, 8, 8]


def test_the_best_of_many_equals_is_not_clearly_best():
    """11 methods without a difference: corrected for the winner's pairs alone, 1 in 5 was called
    clearly better than some other.
    """
    wrong = 0
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=(11, 12))
        names = [f"m{k}" for k in range(11)]
        told = compare.best_of(frames.maps(dict(zip(names, noise.tolist(), strict=True))))
        wrong += len(told["not_clearly_worse"].replace(" and ", ", ").split(", ")) < 10
    assert wrong <= 4


def test_where_a_method_fails():
    kinds = {"igos": ["a", "a", "a", "a", "b", "b", "b", "b"]}
    gaps = {"igos": [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, -0.4, 0.0], "sobel": [0.5] * 7}
    frame = frames.maps(gaps, category=kinds | {"sobel": ["a"] * 7})
    found = method_tables.weak_spots(frame)
    assert (found["n"], found["pairs"], found["below_edges"], found["at_chance"]) == (8, 7, 3, 2)
    assert found["categories"] == "b 0.10 (n = 4), a 0.80 (n = 4)"


def test_other_tests_are_read_in_probability():
    """One map of 9 decides the normalised mean and not the raw one."""
    raw = {"igos": [0.5] * 8, "gae": [0.25] * 8, "random": [0.0] * 8}
    odd = GAPS | {"gae": [9.0] + [0.0] * 7}
    both = [frames.maps(GAPS, gap_raw=raw), frames.maps(odd, fill="mean", gap_raw=raw)]
    tables = compare.other_tests(pd.concat(both), "mini/a", "sprites")
    assert tables["grid, mean"]["gae"].mean() == 0.25
    told = method_tables.methods_summary(pd.concat(both))["mini/a"]["sprites"]["tests"]
    assert told["grid, mean"]["largest"] == 9.0 and told["grid, mean"]["best"] == "iGOS"
    assert told["grid, mean"]["random"]["value"] == 0.0 and told["grid, mean"]["value"] == 1.0


def test_over_all_models():
    one, other = frames.maps(GAPS), frames.maps(GAPS, model="mini/b")
    other = other.assign(method=other.method.replace({"igos": "gae", "gae": "igos"}))
    found = method_tables.overall(method_tables.methods_summary(pd.concat([one, other])))
    assert found["winners"] == "iGOS (mini/a, n = 8), T-MM (mini/b, n = 8)"
    assert (found["clear_leads"], found["reference_first"]) == (2, 1)
    assert found["reference_not_clearly_worse"] == 1  # on mini/b it is
    assert found["edges_first"] == {"count": 0, "models": "none"}
    edges = frames.maps(GAPS | {"sobel": [g + 0.1 for g in EIGHT]})
    found = method_tables.overall(method_tables.methods_summary(edges))
    assert found["edges_first"] == {"count": 1, "models": "mini/a"}


def test_not_above_a_control():
    gaps = GAPS | {"sobel": [g - 0.5 for g in EIGHT], "tam": [0.0, 0.02] * 4}
    gaps["random"] = [0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.02]
    assert method_tables.beaten_by(frames.maps(gaps), "sobel") == ["gae", "tam"]
    assert method_tables.beaten_by(frames.maps(gaps), "random") == ["tam"]
    assert method_tables.beaten_by(frames.maps(gaps), "center") == []


# --- ranks


def test_agreement_of_ranks():
    one = pd.DataFrame(
        {"a": [3.0, 4, 5], "b": [2.0, 2, 2], "c": [1.0, 0, 1], "d": [np.nan, 9, np.nan]}
    )
    same = compare.rank_agreement(one, 10 * one)
    assert same == {"value": 1.0, "low": 1.0, "high": 1.0, "methods": 3, "n": 3}
    assert compare.rank_agreement(one, -one)["value"] == pytest.approx(-1.0)
    assert compare.rank_agreement(one[["a", "b"]], one)["value"] is None


def test_resampled_means():
    found = compare.means(pd.DataFrame({"a": [1.0, 3.0], "b": [5.0, 5.0]}), draws=100)
    assert found[0].tolist() == [2.0, 5.0]
    assert set(found[1:, 0]) == {1.0, 2.0, 3.0} and set(found[:, 1]) == {5.0}


def test_methods_summary():
    both = [frames.maps(GAPS), frames.maps(GAPS, units="superpixels")]
    tree = method_tables.methods_summary(pd.concat(both))["mini/a"]["sprites"]
    assert finite(tree)
    assert tree["winner"]["title"] == "iGOS" and tree["count"] == 2 and tree["items"] == 8
    assert tree["at_chance"] == {"titles": "none", "count": 0}
    assert tree["methods"]["igos"]["gap"]["value"] == pytest.approx(0.75)
    assert tree["tests"]["superpixels, blur"]["value"] == pytest.approx(1.0)
    assert tree["tests"]["superpixels, blur"]["best"] == "iGOS"
    assert tree["tests"]["superpixels, blur"]["own"]["methods"] == 2  # the random map left out
    assert method_tables.methods_summary(pd.DataFrame()) == {}


# --- ablations


@pytest.fixture
def variants():
    gaps = {"igos[preset=paper]": EIGHT, "igos[tokens=all,preset=paper]": [g - 0.25 for g in EIGHT]}
    gaps |= {"igos": EIGHT}
    gaps |= {
        "igos[preset=fast]": EIGHT,
        "igos++[preset=paper]": [g + 0.05 for g in EIGHT],
        "gae": EIGHT,
    }
    gaps |= {"igos[l2=1,preset=paper]": [0.5] * 8, "igos[l2=1,gamma=0.2,preset=paper]": [0.25] * 8}
    return frames.maps(gaps)


def test_differences_of_variants(variants):
    found = ablation_tables.differences(ablation_tables.variant_rows(variants)).set_index("method")
    assert "gae" not in found.index and "igos[preset=paper]" not in found.index
    assert found.difference["igos"] == 0  # our default is a variant of the paper's setting
    assert found.difference["igos[tokens=all,preset=paper]"] == pytest.approx(-0.25)
    assert found.p["igos[tokens=all,preset=paper]"] == pytest.approx(2 / 256)
    assert (
        bool(found.clear["igos[tokens=all,preset=paper]"]) and not found.clear["igos[preset=fast]"]
    )
    assert found.difference["igos[preset=fast]"] == 0


def test_a_variant_on_few_items_is_not_shown(variants):
    few = variants[(variants.method != "igos++[preset=paper]") | (variants.item < "i03")]
    frame = ablation_tables.variant_rows(few)
    assert "igos++[preset=paper]" not in set(ablation_tables.differences(frame).method)
    assert ablation_tables.choice_table(frame, "masks").method.tolist() == ["igos[preset=paper]"]
    tree = ablation_tables.ablations_summary(few)["mini/a"]["sprites"]
    assert tree["variants"]["igos++"]["said"] == "not yet run" and tree["count"] == 5
    assert ablation_tables.ablations_summary(variants[variants.item < "i03"])["mini/a"]


def test_the_default_stands_at_its_place(variants):
    frame = ablation_tables.variant_rows(variants)
    table = ablation_tables.choice_table(frame, "tokens")
    assert table["value"].tolist() == ["likelihood ratio (paper)", "all"]
    assert np.isnan(table.difference[0]) and table.difference[1] == pytest.approx(-0.25)
    shown = ablation_tables.shown(frame)
    assert shown["clear"].tolist()[:2] == ["", "yes"]
    assert set(shown["choice"]) >= {"which tokens are explained", "one mask or two"}


def test_weights_as_a_grid(variants):
    grid = ablation_tables.weight_grid(ablation_tables.variant_rows(variants))
    assert grid.loc[1.0].tolist() == [0.25, 0.5] and grid.columns.tolist() == [0.2, 1.0]
    assert grid.loc[0.1, 1.0] == pytest.approx(0.75) and np.isnan(grid.loc[0.1, 0.2])


def test_variants_are_held_against_the_default_on_their_own_items(variants):
    """Four more items of the default, all 0: its own mean falls to 0.5, no comparison moves."""
    more = frames.maps({"igos[preset=paper]": [0.0] * 12}).iloc[8:]
    frame = ablation_tables.variant_rows(pd.concat([variants, more]))
    table = ablation_tables.choice_table(frame, "tokens")
    assert table.gap.tolist() == pytest.approx([0.5, 0.5])
    assert table.beside.tolist() == pytest.approx([0.5, 0.75])
    grid = ablation_tables.weight_grid(frame)
    assert grid.loc[0.1, 1.0] == pytest.approx(0.75) and grid.attrs["n"] == 8
    told = ablation_tables.weights_told(frame)
    assert told == {"slow": "0.25", "fast": "0.50", "paper": "0.75", "n": 8}


def test_how_many_pairs_a_verdict_takes(variants):
    """Six variants: 2 / 2^8 x 6 = 0.047 can be clear, 2 / 2^7 x 6 = 0.094 cannot."""
    found = ablation_tables.differences(ablation_tables.variant_rows(variants))
    told = ablation_tables.power(found)
    assert told == {"fewest": 8, "usual": 8, "most": 8, "needed": 8, "short": 0}
    assert ablation_tables.power(found.assign(n=[7, 8, 8, 8, 8, 9]))["short"] == 1
    assert ablation_tables.power(found.iloc[:0])["needed"] == 0


def test_the_bar_of_the_fast_preset():
    fast = "igos[preset=fast]"
    passes = {"igos": [100] * 8, fast: [40] * 8}
    rows = frames.maps({"igos": EIGHT, fast: [0.9 * g for g in EIGHT]}, forward=passes)
    told = ablation_tables.fast(ablation_tables.variant_rows(rows))
    assert (told["kept"], told["passes"], told["n"]) == ("90.0 [90.0, 90.0]", "40", 8)
    assert (told["verdict"], told["sure"]) == ("does not keep", "below")
    assert told["in_passes"] == "within" and told["said"].startswith("−0.075")
    rows = frames.maps({"igos": EIGHT, fast: EIGHT[::-1]}, forward=passes)
    told = ablation_tables.fast(ablation_tables.variant_rows(rows))
    assert (told["verdict"], told["sure"]) == ("keeps", "on both sides of")


def test_beside_the_papers_ablations(variants):
    paper = pd.read_csv(data_dir() / "paper" / "table3.csv")
    table = ablation_tables.beside_paper(ablation_tables.variant_rows(variants), paper, "table3")
    row = table.set_index("the paper's row").loc["Separate"]
    default, separate = (0.445 + 0.661 + 0.563) / 3, (0.446 + 0.686 + 0.592) / 3
    assert row["paper, minus its first row"] == pytest.approx(separate - default)
    assert row["mini, minus its first row"].startswith("0.05")
    assert table.set_index("the paper's row").loc["Blank", "mini, minus its first row"] == "–"
    five = pd.read_csv(data_dir() / "paper" / "table5.csv")
    table = ablation_tables.beside_paper(ablation_tables.variant_rows(variants), five, "table5")
    assert table["mini"].tolist()[1:3] == pytest.approx([0.75, 0.5])


def test_likeness_of_maps_by_hand():
    """The same map twice; turned over; another shape of the same; the next item's, the floor."""
    ramp, other = np.arange(784.0).reshape(28, 28), np.arange(784.0).reshape(28, 28).T
    shapes = {"igos[preset=paper]": [ramp, other] * 4, "igos++[preset=paper]": [ramp, other] * 4}
    shapes |= {
        "igos[lr=1,preset=paper]": [-ramp, -other] * 4,
        "igos[mask_size=16,preset=paper]": [ramp[::2, ::2]] * 8,
    }
    rows = [
        {"model": "m", "benchmark": "b", "item": f"i{n}", "method": m, "status": "ok", "gap": 0.1}
        | {
            "units": "grid",
            "fill": "blur",
            "heatmap": x.ravel(),
            "heatmap_shape": np.array(x.shape),
        }
        for m, maps in shapes.items()
        for n, x in enumerate(maps)
    ]
    rows.append(rows[0] | {"item": "i9", "status": "diverged", "heatmap": None})
    alike = ablation_tables.likeness(pd.DataFrame(rows)).set_index("method")
    apart = rank_correlation(ramp, other, 14)
    assert 0 < apart < 0.3 and set(alike.n) == {8}
    assert alike.value["igos++[preset=paper]"] == pytest.approx(1) and alike.value[
        "igos[lr=1,preset=paper]"
    ] == pytest.approx(-1)
    assert alike.value["igos[mask_size=16,preset=paper]"] == pytest.approx((1 + apart) / 2)
    assert alike.value[ablation_tables.OTHERS] == pytest.approx(apart)
    told = ablation_tables.likeness_told(alike.reset_index())
    assert told["most"]["title"] == "iGOS (lr 1)" and told["least"]["title"] == "iGOS++"
    assert told["below_half"] == 1 and told["variants"]["lr=1"]["n"] == 8
    shown = ablation_tables.likeness_shown(pd.DataFrame(rows))
    assert shown.setting.tolist()[:2] == ["iGOS (lr 1)", ablation_tables.OTHERS_TITLE]


def test_ablations_summary(variants):
    tree = ablation_tables.ablations_summary(variants)["mini/a"]["sprites"]
    assert finite(tree)
    assert tree["largest_loss"]["title"] == "iGOS (l2 1, gamma 0.2)"
    assert tree["better"]["titles"] == "iGOS++"
    assert tree["fast"]["kept"] == "100.0 [100.0, 100.0]" and tree["fast"]["verdict"] == "keeps"
    assert tree["variants"]["lr=1"]["said"] == "not yet run"
    assert tree["variants"]["tokens=all"]["said"] == "−0.250 [−0.250, −0.250]"
    assert tree["variants"]["l2=1,gamma=0.2"]["difference"] == pytest.approx(-0.5)
    assert {"paper", "default", "igos++", "tokens=all"} <= tree["variants"].keys()
    assert tree["count"] == 6 and tree["clear"] == 4 and tree["within_noise"] == 2
    assert tree["leaning"] == 0  # the two that are not clear are the same again
    assert ablation_tables.ablations_summary(frames.maps(GAPS)) == {}


# --- truth


def truth_frame():
    """Four items; igos on the evidence, gae off it; sobel between. Evidence a tenth, or all."""
    gaps = {"igos": [0.9] * 4, "gae": [-0.2] * 4, "sobel": [0.5] * 4, "random": [0.0] * 4}
    high = {"igos": [3.0] * 4, "gae": [0.5] * 4, "sobel": [2.0] * 4, "random": [1.0] * 4}
    aucs = {m: [v / 4 for v in values] for m, values in high.items()}
    peak = {m: [float(v > 1) for v in values] for m, values in high.items()}
    area = {m: [0.1, 0.1, 0.1, 0.9] for m in gaps}
    mass = {
        "igos": [np.array([0.6, 0.3, 0.1])] * 4,
        "gae": [np.array([0.1, 0.3, 0.6])] * 4,
        "sobel": [np.array([0.3, 0.5, 0.2])] * 4,
        "random": [np.array([0.2, 0.2, 0.2])] * 4,
    }
    return frames.maps(
        gaps, evidence_area=area, energy_ratio=high, auc=aucs, pointing=peak, pointing_near=peak,
        rank_accuracy=peak, iou_max=aucs, iou_sum=aucs, correlation=aucs, mass=mass,
    )  # fmt: skip


EFFECTS = frames.effects([[2, 1, 0], [2, 1, 0], [2, 1, 0], [1, 1, 1]], [[0.1, 0.2, 0.05]] * 4)


def test_evidence_as_large_as_the_picture_is_left_out():
    table = truth_tables.evidence_scores(truth_frame())
    assert table.method.tolist() == ["igos", "sobel", "random", "gae"]
    assert table.n.tolist() == [3] * 4 and table.energy_ratio.tolist() == [3.0, 2.0, 1.0, 0.5]


def test_chance_levels():
    frame = compare.with_evidence(truth_frame())
    assert truth_tables.chance_of(frame, "auc") == 0.5
    assert truth_tables.chance_of(frame, "pointing") == pytest.approx(0.1)
    assert truth_tables.chance_of(frame, "iou_max") == pytest.approx(0.25)  # the random map's
    shown = truth_tables.evidence_shown(truth_frame())
    assert shown.iloc[-1].method == "chance" and shown.iloc[-1]["energy ratio"] == 1.0


def test_effects_by_hand():
    """Mass (.6, .3, .1) orders as effects (2, 1, 0); area (.1, .2, .05) correlates by 1/2."""
    table = truth_tables.effect_scores(truth_frame(), EFFECTS).set_index("method")
    assert table.n.tolist() == [3] * 5  # equal effects cannot be ranked
    assert table.spearman["igos"] == pytest.approx(1) and table.spearman["gae"] == pytest.approx(-1)
    assert table.spearman["area"] == pytest.approx(0.5) and table.spearman["random"] == 0
    assert table.top["igos"] == 1 and table.top["random"] == pytest.approx(1 / 3)
    assert table.density["igos"] == pytest.approx(0.5)  # .6/.1, .3/.2, .1/.05 = 6, 1.5, 2


def test_a_constant_map_tells_no_object_from_another():
    """Its mass is missing, and it counts as a correlation of 0 and a third of a hit."""
    frame = truth_frame()
    silent = (frame.method == "gae") & (frame["item"] == "i00")
    frame.loc[silent, "status"] = "constant"
    frame["mass"] = frame.mass.where(~silent, None)
    table = truth_tables.effect_scores(frame, EFFECTS).set_index("method")
    assert table.n.tolist() == [3] * 5
    assert table.spearman["gae"] == pytest.approx(-2 / 3) and table.density["gae"] < 0
    assert table.top["gae"] == pytest.approx(1 / 9)
    told = truth_tables.effects_told(table.reset_index())
    assert told["around_chance"] == {"count": 1, "titles": "T-MM"}


def test_a_constant_map_overlaps_as_a_map_of_ones_does():
    evidence = np.zeros((10, 10), bool)
    evidence[:2, :5] = True
    frame = truth_frame().assign(status="constant", evidence_area=0.1)
    row = compare.as_chance(frame).iloc[0]
    ones = plausibility(np.ones((10, 10)), evidence)
    assert row.iou_max == pytest.approx(soft_iou(np.ones((10, 10)), evidence, "max"))
    assert row.iou_sum == pytest.approx(soft_iou(np.ones((10, 10)), evidence, "sum"))
    assert row.rank_accuracy == pytest.approx(ones.rank_accuracy) and row["correlation"] == 0


def test_does_the_gap_know():
    """Gaps order the four as the energy ratio does; within a method nothing varies."""
    row = truth_tables.agreement(truth_frame(), EFFECTS).set_index("truth").loc["energy ratio"]
    assert (row.methods, row.methods_low, row["count"], row.n) == (1.0, 1.0, 4, 3)
    assert row.own is None  # two methods are too few to rank
    assert row["maps"] is None or np.isnan(row["maps"])


def test_within_items_and_within_methods():
    gap = pd.DataFrame({"a": [1.0, 2, 3], "b": [2.0, 3, 4], "c": [3.0, 4, 5]})
    truth = pd.DataFrame({"a": [3.0, 2, 1], "b": [4.0, 3, 2], "c": [5.0, 4, 3]})
    assert truth_tables.within_items(gap, truth)["value"] == pytest.approx(1.0)
    assert truth_tables.within_methods(gap, truth)["value"] == pytest.approx(-1.0)


def test_truth_summary():
    tree = truth_tables.truth_summary(truth_frame(), EFFECTS)["mini/a"]["sprites"]
    assert finite(tree) and tree["n"] == 3
    assert tree["best"]["auc"]["title"] == "iGOS"
    assert tree["best"]["auc"]["below_sobel"] == {"count": 1, "titles": "T-MM", "of": 2}
    best = tree["best"]["energy_ratio"]
    assert best["n"] == 3 and best["same"]["sobel"]["value"] == 2.0
    assert best["lead"]["difference"] == 2.5 and best["second"] == "T-MM"
    assert tree["effects"]["below_area"]["titles"] == "T-MM" and tree["effects"]["best"] == "iGOS"
    assert tree["turned"] == {"count": 1, "titles": "T-MM"}
    assert truth_tables.truth_summary(frames.maps(GAPS), pd.DataFrame()) == {}


def test_truth_without_effects():
    tree = truth_tables.truth_summary(truth_frame(), pd.DataFrame())["mini/a"]["sprites"]
    assert tree["effects"] == {} and "effect of objects" not in tree["agreement"]


# --- cost and flags


def test_costs_by_hand():
    seconds = {"igos": [2.0] * 8, "gae": [0.5] * 8, "random": [0.1] * 8}
    table = cost_tables.costs(frames.maps(GAPS, seconds=seconds)).set_index("method")
    assert table.index.tolist() == ["random", "gae", "igos"]
    assert table.times["gae"] == pytest.approx(0.25) and table.mib["igos"] == 1.0


def test_worth_its_time():
    table = pd.DataFrame({"method": ["a", "b", "c", "random"], "seconds": [1, 2, 3, 0]})
    assert cost_tables.pareto(table.assign(gap=[0.5, 0.4, 0.9, 2])) == ["a", "c"]


def test_flags_by_hand():
    """Ten maps of one method: 4 bad, 3 flagged, 2 of those bad."""
    gaps = {"tam": [-1.0, -1, -1] + [1.0] * 7, "random": [0.0] * 10, "sobel": [0.5] * 10}
    ratio = [0.5, 0.5, 2, 0.5, 0.5] + [2.0] * 5
    frame = frames.maps(
        gaps, evidence_area=0.1, pointing_near=1.0,
        energy_ratio={"tam": ratio, "random": [1.0] * 10, "sobel": [2.0] * 10},
    )  # fmt: skip
    row = cost_tables.flag_scores(frame).set_index("flag").loc["not_positive"]
    assert (row.n, row["items"]) == (10, 10)
    assert row.flagged == pytest.approx(0.3) and row.base == pytest.approx(0.4)
    assert row.precision == pytest.approx(2 / 3) and row.recall == pytest.approx(0.5)
    assert row.lift == pytest.approx(2 / 3 - 0.4) and row.lift_low < row.lift < row.lift_high
    assert cost_tables.flagged(frame).below_sobel.sum() == 3
    assert row.within == pytest.approx(row.lift)  # one method only


def test_a_flag_that_only_knows_the_method_knows_nothing_within_it():
    """All maps of tam are bad and flagged, none of igos: a perfect flag, and no help with a map."""
    gaps = {"tam": [-1.0] * 6, "igos": [1.0] * 6, "random": [0.0] * 6}
    ratio = {"tam": [0.5] * 6, "igos": [2.0] * 6, "random": [1.0] * 6}
    frame = frames.maps(gaps, evidence_area=0.1, pointing_near=1.0, energy_ratio=ratio)
    row = cost_tables.flag_scores(frame).set_index("flag").loc["not_positive"]
    assert (row.precision, row.recall, row.lift, row.within) == (1.0, 1.0, 0.5, 0.0)


def test_hours_are_the_times_between_rows_without_pauses():
    day = "2026-01-01T0"
    one = pd.DataFrame({"model": "a", "made": [f"{day}0:00:00", f"{day}0:05:00", f"{day}0:05:00"]})
    two = pd.DataFrame(
        {"model": ["a", "b", "b"], "made": [f"{day}0:10:00", f"{day}0:00:00", f"{day}1:00:00"]}
    )
    hours = cost_tables.hours_taken(one, two, pd.DataFrame())
    assert hours == pytest.approx({"a": 1 / 6, "b": 0.0, "all": 1 / 6})


def test_cost_summary():
    tree = cost_tables.cost_summary(truth_frame())["mini/a"]["sprites"]
    assert finite(tree)
    assert tree["statuses"] == {"ok": 16} and tree["cells"] == 16
    assert tree["flags"]["off_evidence"]["not_positive"]["precision"] == 100.0
    assert cost_tables.cost_summary(frames.maps(GAPS))["mini/a"]["sprites"]["flags"] == {}
