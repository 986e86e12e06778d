"""Tables of methods, ablations, truth and cost: every number here can be worked out by hand."""

import json
import re
from pathlib import Path

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
from lvlm_study.sweep import results

EIGHT = [0.6, 0.7, 0.8, 0.9, 0.6, 0.7, 0.8, 0.9]  # mean 0.75
GAPS = {"igos": EIGHT, "gae": [g - 0.5 for g in EIGHT], "random": [0.1, -0.1] * 4}


def tree_of(chapter, maps, effects=None):
    """The summary of a chapter from these tables."""
    tables = compare.Tables(Path("nowhere"))
    tables.maps, tables.reliance = maps, pd.DataFrame()
    tables.effects = pd.DataFrame() if effects is None else effects
    return chapter.summary(tables)


def of_one(chapter, maps, effects=None):
    """What it says of the one model of these tables."""
    return tree_of(chapter, maps, effects)["models"]["mini/a"]["sprites"]


def finite(tree) -> bool:
    """JSON without NaN, and no numpy types in it."""
    return bool(json.dumps(tree, allow_nan=False))


# --- names


def test_titles():
    assert method_names.title("igos[l2=1,gamma=0.5]") == "iGOS (l2 1, gamma 0.5)"
    assert method_names.title("grad_cam[layer=auto]") == "Grad-CAM (chosen layer)"
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


def test_noise_has_the_mean_over_all_draws():
    """A map of noise and its inverse: deletion and insertion change places, and AUC turns round."""
    one = {"deletion": 0.4, "insertion": 0.6, "gap": 0.2, "auc": 0.6, "pointing": 1.0}
    one |= {"energy_ratio": 1.3, "evidence_area": 0.1, "iou_max": 0.05}
    noise = one | {"method": "random"}
    rows = pd.DataFrame([noise, one | {"method": "igos"}, noise | {"auc": np.nan}])
    found = compare.over_draws(rows)
    mean = {"deletion": 0.5, "insertion": 0.5, "gap": 0.0, "auc": 0.5, "pointing": 0.1}
    mean |= {"energy_ratio": 1.0, "evidence_area": 0.1, "iou_max": 0.05, "method": "random"}
    assert found.stored_gap.tolist() == [0.2] * 3
    found = found.drop(columns="stored_gap")
    assert found.loc[0].to_dict() == mean
    assert found.loc[1].to_dict() == rows.loc[1].to_dict()
    assert np.isnan(found.auc[2]) and found.gap[2] == 0  # no place is this one's evidence


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
    assert np.isnan([row.gap_low, row.gap_high]).all()  # too few items for ends
    assert table.index.tolist() == ["igos", "gae", "random"]  # best first


def test_models_without_rivals_are_left_out_of_the_long_tables():
    race = GAPS | {"tam": EIGHT}
    many, few = frames.maps({m: 2 * v for m, v in race.items()}, model="mini/z"), frames.maps(race)
    alone = frames.maps(GAPS, model="mini/c")  # one method beside iGOS: run for another question
    frame = compare.rows_of(pd.concat([few, alone, many]))
    found = compare.with_rivals(frame)
    assert [keys[0] for keys, _ in found] == ["mini/a", "mini/z"]
    assert [keys[0] for keys, _ in compare.most_items_first(found)] == ["mini/z", "mini/a"]
    alone = compare.with_rivals(compare.rows_of(alone))
    assert [keys[0] for keys, _ in alone] == ["mini/c"]


def test_two_settings_of_igos_are_no_rivals():
    two = {"igos": EIGHT, "igos[preset=paper]": EIGHT, "random": [0.0] * 8}
    race = frames.maps(GAPS | {"tam": EIGHT})
    frame = compare.rows_of(pd.concat([race, frames.maps(two, model="mini/c")]))
    assert set(frame[frame.model == "mini/c"].method) == set(two)
    assert [keys[0] for keys, _ in compare.with_rivals(frame)] == ["mini/a"]


def test_the_papers_table_by_hand():
    paper = pd.read_csv(data_dir() / "paper" / "table1.csv")
    found = method_tables.paper_table1(paper).set_index(["model", "method"])
    row = found.loc["LLaVA-1.5-7b", "T-MM"]
    assert row["MMVP"] == pytest.approx(0.418 - 0.778)
    assert row["ins − del"] == pytest.approx(
        np.mean([0.418, 0.283, 0.461, 0.378]) - np.mean([0.778, 0.869, 0.869, 0.808])
    )
    assert row.inverted == -row["ins − del"]


def test_scores_for_readers():
    table = method_tables.score_table(frames.maps(GAPS))
    assert (
        table.method.tolist() == ["iGOS", "T-MM", "Random map"] and table["n"].tolist() == [8] * 3
    )
    assert table["inverted"][0] == pytest.approx(-0.75) and table["same items"][0] == "0.75"
    assert table["ins − del"][0] == "0.75" and set(table["another seed"]) == {"–"}
    table = method_tables.score_table(frames.maps(GAPS), {("mini/a", "gae"): "1, no chance"})
    assert table["another seed"].tolist() == ["–", "1, no chance", "–"]


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
    assert found["lead"]["p_holm"] > compare.LEVEL
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
    assert found["apart"] == "RISE" and found["n"] == 8
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
    gaps = {"igos": [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, -0.4, 0.0], "difference": [0.5] * 7}
    frame = frames.maps(gaps, category=kinds | {"difference": ["a"] * 7})
    found = method_tables.weak_spots(frame)
    assert (found["pairs"], found["below_difference"]) == (7, 3)
    assert found["categories"] == "b 0.10 (n = 4), a 0.80 (n = 4)"


def test_other_tests_are_read_in_probability():
    """One map of 9 decides the normalised mean and not the raw one."""
    raw = {"igos": [0.5] * 8, "gae": [0.25] * 8, "random": [0.0] * 8}
    odd = GAPS | {"gae": [9.0] + [0.0] * 7}
    both = [frames.maps(GAPS, gap_raw=raw), frames.maps(odd, fill="mean", gap_raw=raw)]
    tables = compare.other_tests(pd.concat(both), "mini/a", "sprites")
    assert tables["grid, mean"]["gae"].mean() == 0.25
    told = of_one(method_tables, pd.concat(both))["tests"]
    assert told["grid, mean"]["best"] == "iGOS"  # gae by the normalised mean
    assert told["grid, mean"]["added"]["value"] is None  # the difference picture was not run


def test_over_all_models():
    one = frames.maps(GAPS | {"difference": [g - 0.25 for g in EIGHT]})
    other = frames.maps(GAPS | {"difference": [g - 0.5 for g in EIGHT]}, model="mini/b")
    other = other.assign(method=other.method.replace({"igos": "gae", "gae": "igos"}))
    found = tree_of(method_tables, pd.concat([one, other]))["overall"]
    assert found["models"] == found["clear_leads"] == 2
    assert found["added"] == {"least": pytest.approx(0, abs=1e-9), "most": pytest.approx(0.25)}


def test_what_a_method_adds_to_a_map_without_a_model():
    """igos is 0.25 above everywhere, gae 0.25 below, tam above as often as below."""
    gaps = GAPS | {"difference": [g - 0.25 for g in EIGHT]}
    gaps["tam"] = [g - 0.25 + (-1) ** n * 0.1 for n, g in enumerate(EIGHT)]
    frame = frames.maps(gaps)
    found = method_tables.margins(frame).set_index("method")
    assert found.difference["igos"] == pytest.approx(0.25) and found.clear["igos"]
    assert found.low.isna().all()  # eight pairs are too few for an interval
    assert method_tables.apart(frame, 1) == ["igos"]
    assert method_tables.apart(frame, -1) == ["gae"]
    told = of_one(method_tables, frame)
    assert told["above"]["titles"] == "iGOS" and told["below"]["count"] == 1
    assert told["margin"]["gae"]["value"] == pytest.approx(-0.25)
    assert method_tables.apart(frames.maps(GAPS), 1) == []


def test_the_ends_of_a_margin_by_hand():
    """Twenty pairs, ten with a margin of 0.2 and ten of 0.4: their mean with an interval."""
    gaps = {"igos": [0.7, 0.9] * 10, "difference": [0.5] * 20}
    row = method_tables.margins(frames.maps(gaps)).iloc[0]
    assert row.difference == pytest.approx(0.3) and 0.2 < row.low < 0.3 < row.high < 0.4
    table = method_tables.margin_table(frames.maps(gaps))
    assert table.columns.tolist() == ["method", "mini/a, n = 20"]
    assert table.iloc[0, 1].startswith("0.30 [0.2")


def test_margins_on_a_terminal_by_hand():
    """A constant difference: both ends are its value, p is the least of 10,000 signings."""
    gaps = {"difference": [0.75] * 20, "gae": [0.25] * 20, "igos[l2=1]": [1.0] * 6}
    few = frames.maps({"difference": [0.5] * 2, "tam": [0.25] * 2}, model="mini/b")
    other = frames.maps({"gae": [9.0] * 20, "difference": [0.0] * 20}, fill="mean")
    silent = {("gae", 0): "no_crucial_tokens", ("gae", 1): "constant"}
    parts = [frames.maps(gaps), few, other, frames.maps({"gae": EIGHT}, model="mini/c")]
    assert method_tables.margin_report(pd.concat(parts)).splitlines()[2:] == [
        "mini/a, sprites: igos[l2=1] − Difference picture: 0.25, n = 6: too few for an interval",
        "mini/a, sprites: gae − Difference picture: −0.50 [−0.50, −0.50], p = 0.0002, n = 20",
        "mini/b, sprites: tam − Difference picture: −0.25, n = 2: too few for an interval",
    ]
    told = method_tables.margin_report(frames.maps(gaps, status=silent)).splitlines()
    assert told[3].endswith("gae − Difference picture: −0.51, n = 19: too few for an interval")
    assert method_tables.control_report(frames.maps(gaps), "gae").splitlines() == [
        "mini/a: gae − Difference picture: −0.50 [−0.50, −0.50], p = 0.0002, n = 20",
        "mini/a: gae − Random map: 0.25 [0.25, 0.25], p = 0.0002, n = 20",
    ]
    assert method_tables.margin_report(parts[-1]) == "", "not where the control has not run"


def test_what_the_mean_of_all_masks_adds_to_the_last_one():
    """Shared items only: 0.1 on four of eight and 0.3 on the others; iGOS++ has one setting."""
    gaps = {"igos": [0.6, 0.8] * 4, "igos[preset=paper]": [0.5] * 8, "igos++": [0.9] * 8}
    frame = frames.maps(gaps)
    found = method_tables.averaged(frame)
    assert set(found) == {"igos"} and found["igos"]["n"] == 8
    assert found["igos"]["value"] == pytest.approx(0.2)
    lost = (frame.method == "igos") & (frame.item == frame.item.iloc[0])
    found = method_tables.averaged(frame[~lost])["igos"]
    assert found["n"] == 7 and found["value"] == pytest.approx((3 * 0.1 + 4 * 0.3) / 7)


def test_every_method_has_its_row_and_says_whether_it_was_swept():
    """The page's hand-written table against the methods and the stored scores."""
    page = (data_dir().parent / "notebooks" / "02_methods.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`" in line]
    swept = results.load(data_dir() / "results" / "mini" / "faithfulness.json")["models"]
    swept = {name for model in swept.values() for name in model.get("sprites", {})}
    named = {}
    for line in rows:
        first = line.split("|")[1]
        for name in re.findall(r"(?<!})`([\w+]+)(?:\[[^`]*\])?`", first):
            named[name] = "†" not in line
    assert set(named) - {"method"} == set(method_names.BY_NAME)
    assert {name for name, yes in named.items() if yes} - {"method"} == swept & set(named)


def test_methods_summary():
    both = [frames.maps(GAPS), frames.maps(GAPS, units="superpixels")]
    tree = of_one(method_tables, pd.concat(both))
    assert finite(tree)
    assert tree["winner"]["title"] == "iGOS" and tree["count"] == 2 and tree["items"] == 8
    assert tree["at_chance"] == {"titles": "none"}
    assert tree["methods"]["igos"]["gap"]["value"] == pytest.approx(0.75)
    assert tree["tests"]["superpixels, blur"]["best"] == "iGOS"
    assert tree["tests"]["superpixels, blur"]["own"]["methods"] == 2  # the random map left out
    assert tree_of(method_tables, pd.DataFrame()) == {}


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
    found = compare.differences(ablation_tables.variant_rows(variants)).set_index("method")
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
    assert "igos++[preset=paper]" not in set(compare.differences(frame).method)
    assert ablation_tables.choice_table(frame, "masks").method.tolist() == ["igos[preset=paper]"]
    tree = of_one(ablation_tables, few)
    assert "igos++" not in tree["variants"] and tree["count"] == 5
    none = of_one(ablation_tables, variants[variants.item < "i03"])
    assert none["count"] == 0 and none["variants"] == none["fast"] == {}


def test_the_default_stands_at_its_place(variants):
    frame = ablation_tables.variant_rows(variants)
    table = ablation_tables.choice_table(frame, "tokens")
    assert table["value"].tolist() == ["likelihood ratio (paper)", "all"]
    assert np.isnan(table.difference[0]) and table.difference[1] == pytest.approx(-0.25)
    shown = ablation_tables.shown(frame)
    assert shown["clear"].tolist()[:2] == ["", "yes"]
    assert set(shown["choice"]) >= {"which tokens are explained", "one mask or two"}


def test_variants_are_held_against_the_default_on_their_own_items(variants):
    """Four more items of the default, all 0: its own mean falls to 0.5, no comparison moves."""
    more = frames.maps({"igos[preset=paper]": [0.0] * 12}).iloc[8:]
    frame = ablation_tables.variant_rows(pd.concat([variants, more]))
    table = ablation_tables.choice_table(frame, "tokens")
    assert table.gap.tolist() == pytest.approx([0.5, 0.5])
    assert table.beside.tolist() == pytest.approx([0.5, 0.75])


def test_how_many_pairs_a_verdict_takes(variants):
    """Six variants: 2 / 2^8 x 6 = 0.047 can be clear, 2 / 2^7 x 6 = 0.094 cannot."""
    found = compare.differences(ablation_tables.variant_rows(variants))
    told = ablation_tables.power(found)
    assert told == {"fewest": 8, "most": 8, "needed": 8}
    assert ablation_tables.power(found.assign(n=[7, 8, 8, 8, 8, 9]))["fewest"] == 7
    assert ablation_tables.power(found.iloc[:0])["needed"] == 0


def test_the_bar_of_the_fast_preset():
    fast = "igos[preset=fast]"
    passes = {"igos": [100] * 8, fast: [40] * 8}
    rows = frames.maps({"igos": EIGHT, fast: [0.9 * g for g in EIGHT]}, forward=passes)
    told = ablation_tables.fast(ablation_tables.variant_rows(rows))
    assert (told["passes"], told["n"], told["kept"]["low"]) == (40, 8, None)
    assert told["kept"]["value"] == pytest.approx(90)
    assert told["difference"]["value"] == pytest.approx(-0.075)
    passes = {name: 3 * count for name, count in passes.items()}  # enough items for ends
    rows = frames.maps({"igos": 3 * EIGHT, fast: 3 * EIGHT[::-1]}, forward=passes)
    told = ablation_tables.fast(ablation_tables.variant_rows(rows))
    assert told["kept"]["low"] < 98 < told["kept"]["value"] < told["kept"]["high"]


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
    alike = compare.likeness(pd.DataFrame(rows)).set_index("method")
    apart = rank_correlation(ramp, other, 14)
    assert 0 < apart < 0.3 and set(alike.n) == {8}
    assert alike.value["igos++[preset=paper]"] == pytest.approx(1) and alike.value[
        "igos[lr=1,preset=paper]"
    ] == pytest.approx(-1)
    assert alike.value["igos[mask_size=16,preset=paper]"] == pytest.approx((1 + apart) / 2)
    assert alike.value[compare.OTHERS] == pytest.approx(apart)
    shown = cost_tables.settings_shown(pd.DataFrame(rows))
    assert shown.setting.tolist()[:2] == ["iGOS (lr 1)", "(two different items)"]


def test_ablations_summary(variants):
    tree = of_one(ablation_tables, variants)
    assert finite(tree)
    assert (tree["better"], tree["worse"]) == (1, 3)
    assert tree["fast"]["kept"]["value"] == 100 and "lr=1" not in tree["variants"]
    assert tree["variants"]["tokens=all"]["high"] is None  # 8 items
    assert tree["variants"]["l2=1,gamma=0.2"]["difference"] == pytest.approx(-0.5)
    assert {"paper", "default", "igos++", "tokens=all"} <= tree["variants"].keys()
    assert tree["count"] == 6 and tree["within_noise"] == 2
    assert tree["leaning"] == 0  # the two that are not clear are the same again
    assert tree["variants"]["tokens=all"]["moved"] == pytest.approx(0.25)
    assert tree["null"]["value"] is None  # the difference picture was not run
    more = frames.maps({"difference": [g + 0.1 for g in EIGHT]})
    told = of_one(ablation_tables, pd.concat([variants, more]))
    assert told["null"]["value"] == pytest.approx(0.1) and told["count"] == 6
    assert tree_of(ablation_tables, frames.maps(GAPS | {"igos[preset=paper]": EIGHT})) == {}


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
    assert told["around_chance"]["count"] == 2  # three items tell nothing from chance


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
    found = truth_tables.agreement(truth_frame(), EFFECTS)["energy ratio"]
    assert found["methods"] == {"value": 1.0, "low": None, "high": None, "n": 3, "methods": 4}
    assert found["own"]["value"] is None  # two methods are too few to rank
    assert found["maps"]["value"] is None


def test_truth_summary():
    tree = of_one(truth_tables, truth_frame(), EFFECTS)
    assert finite(tree)
    assert tree["best"]["auc"]["title"] == "iGOS"
    assert tree["best"]["auc"]["below_sobel"] == {"count": 1, "of": 2}
    best = tree["best"]["energy_ratio"]
    assert best["n"] == 3 and best["same"]["sobel"]["value"] == 2.0
    assert best["lead"]["difference"] == 2.5 and best["second"] == "T-MM"
    assert tree["effects"]["best"] == "iGOS" and tree["turned"] == {"titles": "none"}
    assert tree_of(truth_tables, frames.maps(GAPS)) == {}


def test_truth_without_effects():
    tree = of_one(truth_tables, truth_frame())
    assert tree["effects"] == {} and "effect of objects" not in tree["agreement"]


def test_a_correlation_over_few_methods_says_little():
    """Fisher's z by hand: atanh 0.5 = 0.5493, half a width of 1.96 / 4 for 19 methods."""
    assert truth_tables.over_methods(0.5, 19) == pytest.approx((0.0593, 0.7770), abs=1e-3)
    assert truth_tables.over_methods(None, 19) == truth_tables.over_methods(0.5, 3) == (None, None)


# --- cost and flags


def test_costs_by_hand():
    seconds = {"igos": [2.0] * 8, "gae": [0.5] * 8, "random": [0.1] * 8}
    table = cost_tables.costs(frames.maps(GAPS, seconds=seconds)).set_index("method")
    assert table.index.tolist() == ["random", "gae", "igos"]
    assert table.times["gae"] == pytest.approx(0.25) and table.mib["igos"] == 1.0


def test_worth_its_time():
    table = pd.DataFrame({"method": ["a", "b", "c", "random"], "seconds": [1, 2, 3, 0]})
    assert cost_tables.pareto(table.assign(gap=[0.5, 0.4, 0.9, 2])) == ["a", "c"]


def test_a_short_setting_beside_the_released_loop():
    """Eight items of one model: 0.3 more on each, in a quarter of the time; a ninth has no pair."""
    lean, released = cost_tables.SHORT[0], cost_tables.RELEASED
    gaps = {lean: [0.8] * 8, released: [0.5] * 8, "igos": [0.9] * 8}
    rows = frames.maps(gaps, seconds={lean: [1.0] * 8, released: [4.0] * 8, "igos": [4.0] * 8})
    alone = rows[rows.method == lean].head(1).assign(item="alone", gap=9.0)
    (row,) = cost_tables.beside_released(pd.concat([rows, alone])).to_dict("records")
    assert (row["n"], row["low"]) == (8, None) and row["times"] == pytest.approx(4)
    assert [row[k] for k in ("short", "released", "value")] == pytest.approx([0.8, 0.5, 0.3])
    assert cost_tables.beside_released(rows[rows.method == lean]).empty
    assert cost_tables._picture("sprites_clutter-4/017-counting") == "017"
    assert cost_tables._picture("sprites/attribute-011") == "sprites/attribute-011"


def test_the_bar_is_met_where_the_interval_stays_above_it():
    lean, released = cost_tables.SHORT[0], cost_tables.RELEASED
    good = frames.maps({lean: [0.5] * 24, released: [0.5] * 24})
    bad = frames.maps({lean: [0.4] * 24, released: [0.5] * 24}).assign(model="mini/other")
    told = cost_tables.released_told(pd.concat([good, bad]))
    assert (told["met"], told["of"], told["bar"]) == (1, 2, 0.02)
    assert told["mini/other"]["high"] == pytest.approx(-0.1)


def test_methods_above_a_control():
    """iGOS has a mean of 0.75, T-MM one of 0.25; the other control in between is no method."""
    rows = frames.maps(GAPS | {"difference": [0.4] * 8})
    told = cost_tables.above(rows, "difference")
    assert told == {"count": 1, "titles": "iGOS", "of": 2, "control": pytest.approx(0.4)}
    assert cost_tables.above(frames.maps(GAPS), "difference") == {}


def test_hours_are_the_times_between_rows_without_pauses():
    day = "2026-01-01T0"
    one = pd.DataFrame({"model": "a", "made": [f"{day}0:00:00", f"{day}0:05:00", f"{day}0:05:00"]})
    two = pd.DataFrame(
        {"model": ["a", "b", "b"], "made": [f"{day}0:10:00", f"{day}0:00:00", f"{day}1:00:00"]}
    )
    hours = cost_tables.hours_taken(one, two, pd.DataFrame())
    assert hours == pytest.approx({"a": 1 / 6, "b": 0.0, "all": 1 / 6})


def test_cost_summary():
    tree = of_one(cost_tables, truth_frame())
    assert finite(tree) and tree["worth_it"] == {"titles": "iGOS", "n": 4}
    assert tree["flags"]["off_evidence"]["not_positive"]["precision"] == 100.0
    assert of_one(cost_tables, frames.maps(GAPS))["flags"] == {}


def test_ours_beside_what_one_would_pick_instead(tmp_path):
    """A row a method, named; what is not ours is said to be; one line where nothing was raced."""
    assert cost_tables.instead_shown(tmp_path).iloc[0, 0] == "not yet run"
    row = {"forward": 100, "backward": 100, "seconds": 3.2, "mib": 40.7, "gap": 0.5}
    rows = {"igos_lean": row | {"forward": 20}, "plain_loop": row, "captum_occlusion": row}
    about = dict.fromkeys(results.PROVENANCE, "x")
    tree = {"provenance": about, "instead": {"n": 3, "rows": rows}}
    (tmp_path / "bench.json").write_text(json.dumps(tree))
    table = cost_tables.instead_shown(tmp_path)
    assert table[""].tolist() == ["ours", "instead", "instead"]
    assert table.method.tolist() == [
        "iGOS (preset lean)",
        "iGOS, a loop from its formulas",
        "occlusion (captum)",
    ]
    assert table.iloc[0, 2:].tolist() == [3, 20, 100, 3.2, 41, 0.5]
