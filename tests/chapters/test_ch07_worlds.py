"""Maps of right and of wrong answers in both worlds, beside controls that see no model."""

import numpy as np
import pandas as pd
import pytest

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import ch07_correctness as correctness
from lvlm_study.heatmaps.names import CONTROLS, PAPER_METHOD
from lvlm_study.metrics.quadrants import RULES
from lvlm_study.sweep.stored import BUSY, Tables

WORLDS = {  # (model, benchmark, what iGOS is called there)
    "hard": ("mini/llava-1.5-s-clutter4", "sprites_clutter-4", "igos[preset=fast]"),
    "busy": ("mini/llava-1.5-s-clutter2", "sprites_clutter-2", "igos[preset=fast]"),
    "flat": ("mini/llava-1.5", "sprites", PAPER_METHOD),
}
COUNT = 24
ITEMS = {name: load_benchmark(world[1])[:COUNT] for name, world in WORLDS.items()}

pytestmark = pytest.mark.usefixtures("few_have_ends")


def right(item) -> bool:
    """Every second question of a world has a right answer."""
    return ITEMS[world_of(item)].index(item) % 2 == 0


def world_of(item) -> str:
    return next(name for name, items in ITEMS.items() if item in items)


def row(name: str, item, **more) -> dict:
    about = {"model": WORLDS[name][0], "benchmark": WORLDS[name][1], "item": item.id}
    return about | {"category": item.category, "status": "ok"} | more


def map_row(name: str, item, method: str) -> dict:
    """Maps of right answers lie on the evidence, those of wrong ones beside it."""
    on, area = right(item), None if item.evidence is None else float(item.evidence.mean())
    found = {"pointing_near": float(on), "energy_ratio": 3.0 * on, "evidence_area": area}
    small = {"heatmap": np.eye(4, dtype=np.float16).ravel(), "heatmap_shape": [4, 4]}
    made = {"units": "grid", "fill": "blur", "commit": "c", "made": "2026-11-29"}
    return row(name, item, method=method, question=item.question) | found | small | made


def answer_row(name: str, item) -> dict:
    said = {"answer": item.reference, "verdict": "correct" if right(item) else "wrong"}
    said |= {"tokens": ["a"], "llr": [1.0], "crucial": [True], "total_drop": 0.9}
    return row(name, item, baseline="blur", truncated=False) | said


def effect_row(name: str, item) -> dict:
    """Object 0 matters most."""
    return row(name, item, effect=np.array([3.0, 2.0, 1.0]))


def rows_of(name: str) -> dict[str, list[dict]]:
    methods = (WORLDS[name][2], "occlusion")
    return {
        "maps": [map_row(name, item, m) for m in methods for item in ITEMS[name]],
        "reliance": [answer_row(name, item) for item in ITEMS[name]],
        "effects": [effect_row(name, item) for item in ITEMS[name]],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of a flat member, and of two busy ones in the folder inside."""
    root = tmp_path_factory.mktemp("results")
    for number, name in enumerate(WORLDS):
        for kind, rows in rows_of(name).items():
            place = (root if name == "flat" else root / BUSY) / kind
            place.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(place / f"{number}.parquet")
    return root


@pytest.fixture(scope="module")
def parts(folder):
    return correctness.grounds(correctness.busy_maps(folder), correctness.flat_maps(folder))


@pytest.fixture(scope="module")
def study(folder):
    return correctness.correctness_summary(Tables(folder))


def test_both_worlds_call_igos_by_one_name(parts):
    assert {name: len(rows) for name, rows in parts.items()} == {
        "hard": 2 * COUNT, "busy": 4 * COUNT, "flat": 2 * COUNT
    }  # fmt: skip
    assert all(set(rows.method) == {"igos", "occlusion"} for rows in parts.values())
    assert parts["busy"].groupby("picture").item.nunique().max() == 6  # of two levels, three each


def test_a_folder_without_busy_ground_has_the_flat_one(folder, tmp_path):
    assert correctness.busy_maps(tmp_path).empty
    assert list(
        correctness.grounds(correctness.busy_maps(tmp_path), correctness.flat_maps(folder))
    ) == ["flat"]
    assert correctness.correctness_summary(Tables(tmp_path)) == {}


def test_maps_of_right_answers_on_and_of_wrong_ones_off_the_evidence(study):
    ground = study["grounds"]["hard"]
    assert (ground["answers"], ground["err"], ground["n"]) == (COUNT, 0.5, COUNT)
    assert sum(ground["counts"].values()) == COUNT and ground["counts"]["right, off"] == 0
    for rule in RULES:
        cell = ground["methods"]["occlusion"][rule]
        assert (cell["right"]["value"], cell["wrong"]["value"]) == (1, 0)
        assert cell["apart"]["value"] == 1 == cell["within"]["value"]
    assert list(ground["methods"]) == [
        "igos",
        "occlusion",
        "difference",
        "sobel",
        "center",
        "random",
    ]


def test_controls_are_judged_on_the_answers_that_have_a_map(study):
    methods = study["grounds"]["flat"]["methods"]
    counts = {tuple(methods[name]["pointing"][kind]["n"] for kind in ("right", "wrong"))
              for name in methods}  # fmt: skip
    assert len(counts) == 1
    assert (
        methods["sobel"]["pointing"]["right"]["value"]
        > methods["random"]["pointing"]["right"]["value"]
    )


def test_what_chance_gives():
    """A blob in the centre points at the middle; a random map at any of its cells."""
    item = next(i for i in ITEMS["flat"] if i.evidence is not None and 0 < i.evidence.mean() < 0.5)
    found = correctness.blind("sprites", item.id)
    assert set(found) == set(CONTROLS) and all(set(one) == set(RULES) for one in found.values())
    near = correctness.widened(item.evidence)
    middle = near[tuple(n // 2 for n in near.shape)]
    assert found["center"]["pointing"] == float(middle)
    assert found["random"]["pointing"] * 20 == pytest.approx(
        round(found["random"]["pointing"] * 20)
    )
    assert found["random"]["mass"] == 0  # noise gives no place twice its share


def test_the_object_that_an_answer_rests_on(study):
    """A hit where object 0 is among the deciding ones."""
    asked = [i for i in ITEMS["hard"] if i.extra["objects"]]
    found = study["deciding"]["hard"]
    assert found["right"]["value"] == pytest.approx(
        np.mean([0 in i.extra["objects"] for i in asked if right(i)])
    )
    assert found["right"]["n"] + found["wrong"]["n"] == len(asked)
    assert found["chance"] == pytest.approx(np.mean([len(i.extra["objects"]) / 3 for i in asked]))


def test_tables_and_figures_of_the_page(study, parts):
    assert len(correctness.share_table(study)) == 3 * 6 * 2
    table = correctness.quadrant_table(parts)
    assert table.groupby("ground").n.sum().to_dict() == {"busy": 48, "flat": 24, "hard": 24}
    cell = study["grounds"]["flat"]["methods"]["igos"]["pointing"]
    axes = correctness.share_figure(study).axes
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes] == [
        correctness.GROUNDS["hard"], correctness.GROUNDS["flat"]
    ]  # fmt: skip
    assert f"{cell['right']['n']} + {cell['wrong']['n']}" in [t.get_text() for t in axes[1].texts]
    assert len(correctness.apart_figure(study).axes) == 2
    bars = correctness.quadrant_figure({"flat": parts["flat"]}).axes[0].containers
    widths = np.array([[bar.get_width() for bar in part] for part in bars])  # four kinds
    assert set(widths.sum(0).round(6)) <= {0, 1, 2} and widths[1].max() == 0 == widths[2].max()


def test_an_example_of_each_quadrant_that_there_is(parts):
    hard = parts["hard"]
    rows = correctness.sorted_rows(hard[hard.method == "occlusion"])
    titles = [ax.get_title() for ax in correctness.examples_figure(rows).axes]
    assert [title.endswith("none") for title in titles] == [False, True, True, False]
