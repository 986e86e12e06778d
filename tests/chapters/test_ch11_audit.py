"""The audit: values known by hand, swaps that undo themselves, verdicts that turn with results."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lvlm_study.chapters import ch11_audit as audit
from lvlm_study.chapters import compare
from lvlm_study.paths import data_dir

TABLE1 = pd.read_csv(data_dir() / "paper" / "table1.csv")
TABLE4 = pd.read_csv(data_dir() / "paper" / "table4.csv")


def test_table1_gap_by_hand():
    gaps = audit.table1_gaps(TABLE1).set_index(["lvlm", "method"])
    assert gaps.loc[("LLaVA-1.5-7b", "T-MM"), "mmvp"] == pytest.approx(0.418 - 0.778)


def test_flipped_distance_by_hand():
    apart = audit.flipped_distance(TABLE1, "LLaVA-1.5-7b", "T-MM", "IIA")
    assert len(apart) == 8
    assert apart["mmvp_del"] == pytest.approx(0.418 - 0.401)  # T-MM's insertion, IIA's deletion
    assert apart["mmstar_ins"] == pytest.approx(0.870 - 0.869)


def test_turning_a_map_over_swaps_the_scores():
    one, other = audit.orientation_demo().to_dict("records")
    assert one["deletion"] == pytest.approx(other["insertion"], abs=1e-6)
    assert one["gap"] == pytest.approx(-other["gap"], abs=1e-6) and one["gap"] > 0.5


# --- tiles


def test_one_by_two_tiles_by_hand():
    cells = np.arange(16).reshape(4, 4)
    got = audit.scrambled(cells, 1, 2)  # left tile: upper half of the map; right tile: lower half
    assert set(got[:, :2].ravel()) <= set(range(8)) and set(got[:, 2:].ravel()) <= set(range(8, 16))
    assert got[0, 0] in (0, 1) and got[-1, -1] in (14, 15)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_square_grids_are_right(n):
    cells = np.random.default_rng(0).random((12, 12))
    assert np.array_equal(audit.scrambled(cells, n, n), cells)


def test_swapping_back():
    blocks = np.kron(np.random.default_rng(0).random((6, 6)), np.ones((6, 6)))
    assert np.array_equal(audit.scrambled(audit.scrambled(blocks, 2, 3), 3, 2), blocks)


def test_every_unequal_grid_is_wrong():
    assert audit.wrong_grids(2) == (2, 4)
    assert audit.wrong_grids(6) == (30, 36)


def test_a_map_made_through_the_swap_scores_there_and_shows_nothing():
    right, through = audit.tile_demo().to_dict("records")
    assert right["on the picture"] > 0.8 and abs(right["through the swap"]) < 0.3
    assert through["through the swap"] > 0.8 and through["on the picture"] < 0.1
    assert right["energy"] == pytest.approx(1) and through["energy"] < 0.05


# --- sums


def test_both_sums_of_a_straight_line_by_hand():
    """Normalised curves 1 - x and x: the code gives del - 0.006, ins + 0.0096 (methods text)."""
    x = np.linspace(0, 1, 51)
    row = {
        "item": "a",
        "area": x,
        "deletion_curve": 0.9 - 0.8 * x,
        "insertion_curve": 0.1 + 0.8 * x,
    }
    got = audit.two_sums(pd.DataFrame([row | {"image_score": 0.9, "fill_score": 0.1}])).iloc[0]
    counts = np.append(np.arange(0, 1024, 20), 1024) / 1024
    width = np.diff(counts)
    want = sum(w * y for w, y in zip(width[:-1], counts[1:-1], strict=True)) + width[-1]
    want -= sum(w * (1 - y) for w, y in zip(width[:-1], counts[1:-1], strict=True)) + width[-1]
    assert got.trapezoid == pytest.approx(0, abs=1e-9)
    assert got.code == pytest.approx(want) and 0.014 < got.code < 0.017


def test_random_maps_gain_by_the_code_every_time():
    got = audit.random_maps_demo(draws=3)
    assert ((got.code - got.trapezoid) > 0.005).all()


# --- length, steps, people


def test_longer_answers_look_more_reliant_at_the_same_ratio():
    got = audit.length_demo()
    assert got.pale.is_monotonic_decreasing and got.pale.iloc[0] > 95 and got.pale.iloc[-1] < 1
    assert got.per_token.to_numpy() == pytest.approx(0.06, abs=0.002)


def test_pale_share_by_hand():
    llr = [[0.1, 0.1], [0.5], [0.0]]  # drops 0.18, 0.39, 0
    assert audit.pale_share(llr) == pytest.approx(200 / 3)
    assert audit.pale_share(llr, times=2) == pytest.approx(100 / 3)  # drops 0.33, 0.63, 0


def test_a_cell_jumps_between_its_ends_with_the_large_step():
    assert audit.cell_path(0.02, 1.0, 10.0)[-4:] == [1.0, 0.0, 1.0, 0.0]
    first = audit.cell_path(0.02, 1.0, 0.1)
    assert first[1] == pytest.approx(1 - 0.1 * 0.02) and np.all(np.diff(first) < 0)


def test_the_smaller_step_keeps_the_order_at_every_weight():
    got = audit.step_demo().set_index(["lr", "l2"])
    assert (got.loc[0.1].order > 0.999).all() and (got.loc[0.1].swing < 0.01).all()
    assert got.loc[(10, 1.0), "swing"] > 0.5 and math.isnan(got.loc[(10, 10.0), "order"])


def test_the_step_table_has_a_row_a_setting():
    got = audit.step_table()
    assert list(got["step size"]) == ["10", "0.1", "10"] and list(got.decay) == ["0.2", "0.2", "1"]
    assert got["L2 1"][2] > 0.95 > got["L2 1"][0]


def test_igos_on_a_planted_reader_bears_a_large_weight():
    assert (audit.igos_steps_demo(l2s=(0.1, 10.0)).gap > 0.8).all()


def test_the_sign_turns_with_the_map_and_the_scale_shrinks_the_overlap():
    one, other = audit.human_demo().to_dict("records")
    assert one["rank correlation"] == pytest.approx(-other["rank correlation"])
    assert one["rank correlation"] > 0.3 and one["iou_255"] < 0.01 < one["iou"]


def test_without_the_branch_fine_detail_is_not_seen():
    fine, coarse = audit.branch_demo().to_dict("records")
    assert fine["without"] == pytest.approx(0, abs=1e-7) and fine["with"] > 1e-4
    assert coarse["without"] > 1e-3


# --- units


def test_six_models_cannot_give_the_papers_p():
    tests = compare.table4_tests(TABLE4, "vision_arch", "vision")
    assert (tests.models == 6).all() and (tests.smallest > 0.0008).all()
    assert (tests["rank"] > 0.2).all() and (tests.anova < 0.01).all()


def test_three_sizes_of_two_families_can_never_be_significant():
    """6! / (2! 2! 2!) = 90 ways, of which the 6 that only rename the groups tie."""
    tests = compare.table4_tests(compare.with_factors(TABLE4), "llm_scale", "step")
    assert tests.smallest.to_numpy() == pytest.approx(6 / 90)


def test_items_as_units_raise_false_alarms():
    found = audit.false_alarms(runs=400)
    assert found["items"] > 0.2 and 0.02 < found["trainings"] < 0.1
    calm = audit.false_alarms(spread=0.0, runs=400)
    assert 0.02 < calm["items"] < 0.09  # without spread between trainings, both are right


# --- verdicts


def maps(models=("mini/llava-1.5", "mini/llava-ov"), igos=0.8, gae=0.3, n=20) -> pd.DataFrame:
    x = np.linspace(0, 1, 51)
    rows = []
    for model in models:
        for method, gap in (
            ("igos[preset=paper]", igos),
            ("gae", gae),
            ("iia", gae),
            ("random", 0.0),
        ):
            for k in range(n):
                curves = {"area": x, "deletion_curve": 1 - x, "insertion_curve": x}
                own = {
                    "model": model,
                    "item": f"i{k}",
                    "method": method,
                    "gap": gap + 0.01 * (k % 5),
                }
                own |= {"benchmark": "sprites", "units": "grid", "fill": "blur", "status": "ok"}
                rows.append(own | curves | {"image_score": 1.0, "fill_score": 0.0})
    return pd.DataFrame(rows).assign(correlation=0.4)


def reliance() -> pd.DataFrame:
    row = {"model": "mini/llava-1.5", "benchmark": "sprites", "baseline": "blur"}
    return pd.DataFrame([row | {"total_drop": 0.5, "llr": [0.1, 0.6]}] * 4)


def of(tree, claim: str) -> str:
    table = audit.verdicts(tree)
    (found,) = table.verdict[table.claim.str.contains(claim)]
    return found


def test_verdicts_follow_the_numbers():
    tree = audit.audit_summary(maps(), reliance())
    assert of(tree, "maps beat") == audit.ZOO and of(tree, "released sum") == audit.HOLDS
    assert of(tree, "T-MM misleads") == of(tree, "LLaVA-OV") == audit.NOT
    assert of(tree, "Grad-CAM misleads") == audit.OPEN  # not run
    behind = audit.audit_summary(maps(igos=0.2), reliance())
    assert of(behind, "maps beat") == audit.NOT
    below = audit.audit_summary(maps(gae=-0.5), reliance())
    assert of(below, "T-MM misleads") == audit.ZOO and of(below, "LLaVA-OV") == audit.OPEN


def found(tree, claim: str) -> str:
    table = audit.verdicts(tree)
    return table["what we found"][table.claim.str.contains(claim)].item()


def test_what_was_found_is_told_with_its_n():
    tree = audit.audit_summary(maps(), reliance())
    told = found(tree, "maps beat")
    assert "4 of 4 pairs" in told and "2 of 2 T-MM, 2 of 2 IIA" in told and "n = 20 to 20" in told
    assert found(tree, "rest on the picture").endswith("llava-1.5 0 (0) % (n = 4 each)")
    assert found(tree, "people do not").endswith(
        "llava-1.5 0.40 [0.40, 0.40], n = 20; llava-ov 0.40 [0.40, 0.40], n = 20"
    )
    smaller = audit.audit_summary(maps(models=("mini/llava-1.5", "mini/llava-1.5-m")), reliance())
    assert "llava-1.5-m" not in found(smaller, "people do not")


def test_grad_cam_below_chance_is_told():
    frame = maps(gae=-0.5).replace({"method": {"gae": "grad_cam"}})
    assert of(audit.audit_summary(frame, reliance()), "Grad-CAM misleads") == audit.ZOO


def test_what_was_not_run_cannot_be_told():
    tree = audit.audit_summary(maps(models=("mini/x",)), reliance())
    table, counted = audit.verdicts(tree), audit.counts(tree)
    assert of(tree, "T-MM misleads") == of(tree, "LLaVA-OV") == audit.OPEN
    assert table["what we found"].str.contains("not run on our llava-1.5").sum() == 2
    assert counted.pop("claims") == len(table) == sum(counted.values()) == 11


def test_a_handful_of_items_decides_nothing():
    tree = audit.audit_summary(maps(n=20).query("method != 'gae' or item < 'i13'"), reliance())
    assert tree["rivals"]["mini/llava-1.5"]["gae"]["n"] < 8
    assert of(tree, "T-MM misleads") == audit.OPEN


def test_the_l2_rule_reads_variants():
    frame = maps()
    large = frame[frame.method == "igos[preset=paper]"].assign(
        method="igos[l2=10,gamma=0.2,preset=paper]"
    )
    same = audit.audit_summary(pd.concat([frame, large]), reliance())
    assert of(same, "L2") == audit.OPEN
    worse = audit.audit_summary(pd.concat([frame, large.assign(gap=0.1)]), reliance())
    assert of(worse, "L2") == audit.ZOO
    assert "loss in 2 of 2 settings, n = 20: weight 10, decay 0.2 0.72 [0.71, 0.73]" in found(
        worse, "L2"
    )
    assert worse["steps"]["mini/llava-1.5"]["igos[l2=10,gamma=0.2]"]["difference"] > 0.6


def test_the_summary_is_json_and_empty_before_a_run():
    tables = SimpleNamespace(maps=pd.DataFrame(), reliance=pd.DataFrame())
    assert audit.summary(tables) == {}
    tables = SimpleNamespace(maps=maps(), reliance=reliance(), origin=lambda frame: {"n": 1})
    json.dumps(audit.summary(tables), allow_nan=False)


def test_only_the_default_scores_count():
    frame = maps()
    other = frame.assign(fill="mean", gap=-1.0)
    tree = audit.audit_summary(pd.concat([frame, other]), reliance())
    assert tree["rivals"]["mini/llava-1.5"]["gae"]["gap"]["value"] == pytest.approx(0.32)
