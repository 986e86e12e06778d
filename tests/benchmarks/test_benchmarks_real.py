"""Loaders of the real benchmarks: tiny copies of each published layout, real rows if present."""

import io
import json
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.stats import spearmanr

from lvlm_study.benchmarks import load_benchmark, sources
from lvlm_study.benchmarks.cv_bench import cue_boxes, cv_bench, cv_bench_score
from lvlm_study.benchmarks.eye_tracking import fixation_map, human_agreement, osie, salicon
from lvlm_study.benchmarks.llava_bench import llava_bench
from lvlm_study.benchmarks.mmstar import mmstar
from lvlm_study.benchmarks.mmvp import CATEGORY, MENDED, mmvp, pair_scores
from lvlm_study.benchmarks.nlvr import named_objects, nlvr, object_mask
from lvlm_study.benchmarks.paper_sets import paper_sets
from lvlm_study.benchmarks.sources import read_table, split_options
from lvlm_study.benchmarks.vqa_hat import (
    center_map,
    human_maps,
    mean_and_error,
    rank_correlation_14,
    soft_iou,
    to_grid,
    vqa_hat,
)
from lvlm_study.errors import StudyError
from lvlm_study.judging import judge

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
LOADERS = [mmvp, mmstar, cv_bench, llava_bench, paper_sets]


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"shared/data/{name} is not here")
    return SHARED / name


def picture(value, size=(8, 6)):
    return Image.new("RGB", size, (value, 0, 255 - value))


def encoded(value):
    buffer = io.BytesIO()
    picture(value).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{value}.png"}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# --- MMVP -------------------------------------------------------------------------------------

MMVP_ROWS = [
    (1, "Are the wings open or closed?", "(a) Open (b) Closed", "(a)"),
    (2, "Are the wings open or closed?", "(a) Open (b) Closed", "(b)"),
    (99, "Does the elephant have long or short tusks?", "(a) Long (b) Short", "(a)"),
    (100, "Does the elephant have long or short tusks?", "(a) Long (b) Short", "(b)"),
    (279, "Is the person standing or sitting?", "(a) Standing (b) Sitting", "(a)"),
    (280, "Is the person standing or sitting?", "(a) Standing (b) Sitting", "(b)"),
]


def original_mmvp(folder, header="Index", rows=MMVP_ROWS):
    (folder / "MMVP Images").mkdir(parents=True)
    lines = [f"{header},Question,Options,Correct Answer"]
    for row in rows:
        lines.append(",".join(map(str, row)))
        picture(row[0] % 256).save(folder / "MMVP Images" / f"{row[0]}.jpg")
    (folder / "Questions.csv").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("header", ["Index", "lndex"])
def test_mmvp_in_the_original_layout(tmp_path, header):
    items = mmvp(original_mmvp(tmp_path / "m", header))
    assert [i.reference for i in items] == [
        "Open",
        "Closed",
        "Short",
        "Long",
        "Sitting",
        "Standing",
    ]
    assert [i.extra["mended"] for i in items] == [False, False, True, True, True, True]
    assert [i.extra["letter"] for i in items] == list("abbaba")
    assert items[2].extra["published"] == "Long" and items[2].options == ("Long", "Short")
    assert [i.extra["pair"] for i in items] == [1, 1, 50, 50, 140, 140]
    assert items[0].id == "mmvp/1" and items[0].rgb.shape == (6, 8, 3)
    assert items[0].extra["provenance"] == {"source": "m", "revision": None}


def test_mmvp_unmended_on_request(tmp_path):
    items = mmvp(original_mmvp(tmp_path / "m"), mend=False)
    assert [i.reference for i in items[2:]] == ["Long", "Short", "Standing", "Sitting"]
    assert not any(i.extra["mended"] for i in items)


def test_mmvp_parquet_copy_with_right_answers_stays_as_it_is(tmp_path):
    letters = {99: "(b)", 100: "(a)", 279: "(b)", 280: "(a)"}
    names = ("Index", "Question", "Options", "Correct Answer")
    rows = [
        dict(zip(names, (*row[:3], letters.get(row[0], row[3])), strict=True)) for row in MMVP_ROWS
    ]
    table = pa.Table.from_pylist([r | {"image": encoded(r["Index"] % 256)} for r in rows])
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-00000.parquet", row_group_size=4)
    items = mmvp(tmp_path)
    assert {i.extra["index"]: i.reference for i in items if i.extra["index"] in MENDED} == MENDED
    assert not any(i.extra["mended"] for i in items)
    assert [i.rgb[0, 0, 0] for i in items] == [r["Index"] % 256 for r in rows]  # two row groups


def test_mmvp_judged_end_to_end(tmp_path):
    items = mmvp(original_mmvp(tmp_path / "m"))
    said = ["Open.", "They are closed.", "It has long tusks.", "Long tusks.", "sitting", "?"]
    verdicts = [judge(text, item) for text, item in zip(said, items, strict=True)]
    assert verdicts == ["correct", "correct", "wrong", "correct", "correct", "undecided"]
    assert pair_scores(items, verdicts) == pytest.approx(
        {"pairs": 1 / 3, "rows_low": 4 / 6, "rows_high": 4 / 5, "undecided": 1 / 6}
    )


def test_mmvp_every_pair_has_one_of_the_five_kinds():
    kinds = {"spatial", "attribute", "counting", "global", "reasoning"}
    assert set(CATEGORY) == set(range(1, 151)) and set(CATEGORY.values()) == kinds


# --- MMStar -----------------------------------------------------------------------------------

HINT = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
HINT += "at the end.\nQuestion: "
MMSTAR_ROWS = [
    ("What color is it?\nOptions: A: Red, B: Blue, C: Green, D: nan", "B", "instance reasoning"),
    ("The cat is on\nOptions: A: a mat, B: a bed, C: a (b) c, D: D", "C", "coarse perception"),
    (HINT + "How many bars?\nChoices:\n(A) 1\n(B) 2\n(C) 3\n(D) 4", "D", "math"),
]
FINE = ["single-instance reasoning", "image scene and topic", "statistical reasoning"]


def mmstar_folder(folder):
    rows = [
        {
            "index": i,
            "question": q,
            "image": encoded(40 * i),
            "answer": a,
            "category": c,
            "l2_category": FINE[i],
            "meta_info": {"source": "MMBench", "split": "val", "image_path": f"{i}.jpg"},
        }
        for i, (q, a, c) in enumerate(MMSTAR_ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "mmstar.parquet")
    return folder


def test_mmstar_clean_and_paper(tmp_path):
    items = mmstar(mmstar_folder(tmp_path))
    assert [i.question for i in items] == ["What color is it?", "The cat is on", "How many bars?"]
    assert [i.reference for i in items] == ["Blue", "a (b) c", "4"]
    assert items[0].options == ("Red", "Blue", "Green") and items[2].options == tuple("1234")
    assert [i.category for i in items] == ["attribute", "global", "reasoning"]
    assert items[2].rgb[0, 0].tolist() == [80, 0, 175]
    flawed = [i.question for i in mmstar(tmp_path, relax="paper")]
    assert flawed[0] == "What color is it?" and flawed[1] == MMSTAR_ROWS[1][0] + "?"
    assert flawed[2] == HINT + "How many bars?"
    with pytest.raises(StudyError, match="did you mean clean"):
        mmstar(tmp_path, relax="clea")


def test_mmstar_real_rows():
    folder = shared("mmstar")
    paper, clean = mmstar(folder, relax="paper"), mmstar(folder)
    lists = {i.id for i in paper if "Options:" in i.question or "Choices:" in i.question}
    hints = {i.id for i in paper if "Question:" in i.question}
    assert (len(paper), len(lists), len(hints), len(lists | hints)) == (1500, 195, 345, 434)
    assert not any("Options:" in i.question or "Choices:" in i.question for i in clean)
    assert not any("at the end." in i.question for i in clean)
    assert sum(i.question.endswith("?") for i in clean) >= 1245
    assert all(i.options and i.reference in i.options for i in clean)
    assert all(i.options["ABCD".index(i.extra["letter"])] == i.reference for i in clean)
    per_kind = [sum(i.category == k for i in clean) for k in ("counting", "global", "attribute")]
    assert per_kind == [92, 250, 118 + 99 + 89]
    with pytest.raises(StudyError, match="holds only text"):
        _ = clean[0].rgb


# --- CV-Bench ---------------------------------------------------------------------------------

DEPTH = (
    "Which object is closer to the camera taking this photo, the bed (highlighted by a red box) or "
    "the chair (highlighted by a blue box)?"
)
CV_ROWS = [
    (0, "2D", "Count", "How many pens are in the image?", ["1", "2", "0"], "(B)", "ADE20K"),
    (
        1,
        "2D",
        "Relation",
        "where is the cat with respect to the dog?",
        ["left", "right"],
        "(A)",
        "COCO",
    ),
    (2, "3D", "Depth", DEPTH, ["bed", "chair"], "(B)", "Omni3D"),
]
CV_COLUMNS = ("idx", "type", "task", "question", "choices", "answer", "source")


def cv_rows():
    return [dict(zip(CV_COLUMNS, row, strict=True)) for row in CV_ROWS]


def test_cv_bench_parquet(tmp_path):
    for name, rows in (("test_2d", cv_rows()[:2]), ("test_3d", cv_rows()[2:])):
        table = pa.Table.from_pylist([r | {"image": encoded(r["idx"])} for r in rows])
        pq.write_table(table, tmp_path / f"{name}.parquet")
    items = cv_bench(tmp_path)
    assert [i.reference for i in items] == ["2", "left", "chair"]
    assert [i.category for i in items] == ["counting", "spatial", "spatial"]
    assert [i.extra["cue_boxes"] for i in items] == [(), (), ("red", "blue")]
    assert [i.rgb[0, 0, 0] for i in items] == [0, 1, 2]


def test_cv_bench_jsonl_beside_images(tmp_path):
    (tmp_path / "img").mkdir()
    write_jsonl(tmp_path / "test.jsonl", [r | {"filename": f"{r['idx']}.png"} for r in cv_rows()])
    for number in (0, 1):
        picture(number).save(tmp_path / "img" / f"{number}.png")
    items = cv_bench(tmp_path)
    assert [i.rgb[0, 0, 0] for i in items[:2]] == [0, 1]
    with pytest.raises(StudyError, match="no image file"):
        _ = items[2].rgb  # one missing picture costs one item


def test_cv_bench_score_by_hand(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", cv_rows())
    found = cv_bench_score(cv_bench(tmp_path), ["correct", "undecided", "correct"])
    assert (found["2D"], found["3D"], found["score"]) == (0.5, 1.0, 0.75)
    assert found["undecided"] == pytest.approx(1 / 3)
    assert cue_boxes("the lamp (annotated by the red box) and the red boxer") == ("red",)


# --- LLaVA-Bench and the paper's sets -----------------------------------------------------------


def test_llava_bench(tmp_path):
    (tmp_path / "images").mkdir()
    picture(7).save(tmp_path / "images" / "001.jpg", quality=100)
    question = {"question_id": 0, "image": "001.jpg", "text": "Which city?", "category": "conv"}
    write_jsonl(tmp_path / "questions.jsonl", [question, question | {"question_id": 1}])
    write_jsonl(tmp_path / "answers_gpt4.jsonl", [{"question_id": 0, "text": "It is Rome."}])
    write_jsonl(tmp_path / "context.jsonl", [{"id": 0, "image": "001.jpg", "caption": "A square."}])
    first, second = llava_bench(tmp_path)
    assert (first.question, first.reference, first.category) == (
        "Which city?",
        "It is Rome.",
        "conv",
    )
    assert first.extra["caption"] == "A square." and second.reference == ""
    assert first.rgb.shape == (6, 8, 3)
    assert judge("Rome", first) == "correct" and judge("Rome", second) == "undecided"


def test_paper_sets_takes_what_it_finds(tmp_path):
    original_mmvp(tmp_path / "mmvp")
    (tmp_path / "mmvp" / "Questions.csv").rename(tmp_path / "mmvp_filtered.csv")
    (tmp_path / "cv.json").write_text(
        json.dumps(
            [
                {
                    "idx": 5,
                    "prompt": "How many?",
                    "image_path": "a.png",
                    "choices": ["1", "2"],
                    "answer": "(B)",
                }
            ]
        )
    )
    (tmp_path / "info.json").write_text('{"licence": "none"}')
    picture(9).save(tmp_path / "a.png")
    items = paper_sets(tmp_path)
    assert len(items) == 7 and len(paper_sets(tmp_path, subset="CV")) == 1
    assert (items[0].question, items[0].reference) == ("How many?", "2")
    assert items[0].rgb[0, 0, 0] == 9 and items[0].extra["subset"] == "cv"
    assert [i.reference for i in items[3:]] == ["Short", "Long", "Sitting", "Standing"]
    with pytest.raises(StudyError, match="no subset named 'mmstar'"):
        paper_sets(tmp_path, subset="mmstar")


def test_paper_sets_refuses_pickles(tmp_path):
    (tmp_path / "filtered.pkl").write_bytes(b"x")
    with pytest.raises(StudyError, match="only pickles .filtered.pkl."):
        paper_sets(tmp_path)


# --- VQA-HAT ------------------------------------------------------------------------------------


def hat_folder(folder, ids=(420, 421, 430)):
    (folder / "maps").mkdir()
    questions = [{"question_id": q, "image_id": q // 10, "question": f"What is {q}?"} for q in ids]
    (folder / "OpenEnded_mscoco_val2014_questions.json").write_text(
        json.dumps({"info": {"v": 1}, "license": {}, "questions": questions})
    )
    answers = [{"answer": a} for a in ["red"] * 6 + ["crimson"] * 3 + ["pink"]]
    notes = [{"question_id": 420, "multiple_choice_answer": "red", "answers": answers}]
    (folder / "mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": notes}))
    ramp = np.tile(np.arange(28, dtype=np.uint8) * 9, (28, 1))
    Image.fromarray(ramp).save(folder / "maps" / "420_1.png")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "maps" / "420_2.png")  # constant
    (folder / "maps" / "420_3.png").write_bytes(b"not a png")
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(folder / "maps" / "421_1.png")  # constant
    Image.fromarray(ramp.T.copy()).save(folder / "maps" / "430_1.png")
    picture(3).save(folder / "COCO_val2014_000000000042.jpg")
    return folder


def test_vqa_hat(tmp_path):
    items = vqa_hat(hat_folder(tmp_path))
    assert [i.id for i in items] == ["vqa_hat/420", "vqa_hat/430"]
    assert len(items[0].extra["maps"]) == 1 and items[0].extra["dropped"] == 2
    assert (items[0].reference, items[0].accept) == ("red", ("red", "crimson"))
    assert items[0].rgb.shape == (6, 8, 3)
    (ramp,) = human_maps(items[0])
    assert ramp.shape == (28, 28) and ramp.max() == pytest.approx(27 * 9 / 255)
    with pytest.raises(StudyError, match="COCO_val2014_000000000043"):
        _ = items[1].rgb
    with pytest.raises(StudyError, match="by hand"):
        vqa_hat()


def test_vqa_hat_wants_v1_ids(tmp_path):
    hat_folder(tmp_path)
    rows = [{"question_id": 42001, "image_id": 42, "question": "v2?"}]
    file = tmp_path / "OpenEnded_mscoco_val2014_questions.json"
    file.write_text(json.dumps({"questions": rows}))
    with pytest.raises(StudyError, match="no VQA v1 questions"):
        vqa_hat(tmp_path)
    file.write_text(
        json.dumps({"questions": [rows[0] | {"question_id": 421 * 10, "image_id": 421}]})
    )
    with pytest.raises(StudyError, match="belongs to its questions"):
        vqa_hat(tmp_path)


def test_rank_correlation_is_spearman_of_cell_means():
    rng = np.random.default_rng(0)
    a, b = rng.random((28, 42)), rng.random((56, 28))
    pooled = [m.reshape(14, m.shape[0] // 14, 14, -1).mean((1, 3)) for m in (a, b)]
    assert np.allclose(to_grid(a), pooled[0])
    want = spearmanr(pooled[0].ravel(), pooled[1].ravel()).statistic
    assert rank_correlation_14(a, b) == pytest.approx(want, abs=1e-12)
    assert rank_correlation_14(a, np.exp(5 * to_grid(a))) == pytest.approx(1)
    assert rank_correlation_14(a, 1 - a) == pytest.approx(-1)
    assert np.isnan(rank_correlation_14(a, np.full((9, 9), 0.3)))


def test_soft_iou_two_normalisations_by_hand():
    a, b = np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[0.0, 4.0], [0.0, 4.0]])
    # min-max: [0 .5 1 .5] and [0 1 0 1], 1 / 3; to one: [0 .25 .5 .25] and [0 .5 0 .5], .5 / 1.5
    assert soft_iou(a, b, grid=2) == pytest.approx(1 / 3)
    assert soft_iou(a, b, "sum", grid=2) == pytest.approx(0.5 / 1.5)
    c = np.array([[1.0, 1.0], [1.0, 3.0]])  # min-max [0 0 0 1]; sum [1 1 1 3] / 6
    assert soft_iou(a, c, grid=2) == pytest.approx(0.5 / (0.5 + 1 + 1))
    assert soft_iou(a, c, "sum", grid=2) == pytest.approx(7 / 17)
    assert soft_iou(a, 255 * a, grid=2) == pytest.approx(1)
    with pytest.raises(StudyError, match="normalisation"):
        soft_iou(a, b, "max")


def test_center_map_and_error_of_the_mean():
    middle = center_map((14, 14))
    assert np.unravel_index(middle.argmax(), middle.shape) in set(product((6, 7), (6, 7)))
    assert middle[7, 7] / middle[7, 11] == pytest.approx(np.exp((4.5**2 - 0.5**2) / 32))
    assert mean_and_error([1, 2, 3, float("nan")]) == pytest.approx((2, 1 / np.sqrt(3)))


# --- gaze ---------------------------------------------------------------------------------------


def test_fixation_map_is_a_sum_of_gaussians():
    found = fixation_map([[3, 1], [3, 1], [8, 5]], (7, 10), sigma=2.0)
    want = sum(
        w * np.exp(-((np.arange(10)[None] - x) ** 2 + (np.arange(7)[:, None] - y) ** 2) / 8)
        for x, y, w in ((3, 1, 2), (8, 5, 1))
    )
    assert np.allclose(found, want)


def test_osie_matlab_and_salicon_layouts(tmp_path):
    viewer = {"fix_x": np.array([10.0, 20.0]), "fix_y": np.array([5.0, 6.0])}
    one = {"fix_x": 7.0, "fix_y": 8.0}
    cells = np.empty((1, 1), dtype=object)
    cells[0, 0] = {"img": "1.jpg", "subjects": [viewer, one]}
    (tmp_path / "o").mkdir()
    savemat(tmp_path / "o" / "fixations.mat", {"fixations": cells})
    picture(1).save(tmp_path / "o" / "1.jpg")
    (item,) = osie(tmp_path / "o")
    assert [f.tolist() for f in item.extra["fixations"]] == [[[10, 5], [20, 6]], [[7, 8]]]
    assert item.rgb.shape == (6, 8, 3)
    (tmp_path / "s").mkdir()
    tree = {
        "images": [{"id": 4, "file_name": "x.jpg"}],
        "annotations": [{"image_id": 4, "fixations": [[3, 8], [1, 1]]}],
    }
    (tmp_path / "s" / "fixations_train.json").write_text(json.dumps(tree))
    (item,) = salicon(tmp_path / "s")
    assert item.extra["fixations"][0].tolist() == [[7, 2], [0, 0]]  # column, row from 0


@pytest.mark.slow
def test_people_agree_on_real_photographs_as_others_measured():
    """Against specs/data.md 1.5 (200 OSIE pictures): one-vs-one .589, one-vs-rest .621."""
    items = osie(shared("osie"))
    scores = [human_agreement(item, (600, 800)) for item in items[:12]]
    mean = {name: np.mean([s[name] for s in scores]) for name in scores[0]}
    assert mean["one_vs_one"] == pytest.approx(0.589, abs=0.1)
    assert mean["one_vs_rest"] == pytest.approx(0.621, abs=0.1)
    # Viewers of other pictures are the independent baseline: less, though all look at the middle.
    mine = fixation_map(items[0].extra["fixations"][0], (600, 800), 19.0)
    others = [fixation_map(i.extra["fixations"][1], (600, 800), 19.0) for i in items[1:12]]
    strangers = np.mean([rank_correlation_14(mine, np.round(o / o.max() * 255)) for o in others])
    assert strangers < mean["one_vs_one"] - 0.1


def test_salicon_points_lie_in_their_pictures():
    items = salicon(shared("salicon"))
    viewers = [len(i.extra["fixations"]) for i in items]
    assert len(items) == 10 and sum(viewers) == 610 and min(viewers) > 40
    for item in items:
        height, width = item.rgb.shape[:2]
        points = np.concatenate(item.extra["fixations"])
        assert points.min() >= 0 and (points < [width, height]).all()


# --- NLVR ---------------------------------------------------------------------------------------

SQUARE = {"type": "square", "color": "#0099ff", "x_loc": 10, "y_loc": 20, "size": 20}
DISC = {"type": "circle", "color": "Yellow", "x_loc": 0, "y_loc": 70, "size": 30}


def test_nlvr_evidence_by_hand(tmp_path):
    row = {
        "sentence": "There is a blue square.",
        "label": "true",
        "identifier": "7-1",
        "directory": "0",
        "structured_rep": [[SQUARE], [DISC], []],
    }
    (tmp_path / "images" / "0").mkdir(parents=True)
    write_jsonl(tmp_path / "dev.json", [row, row | {"identifier": "8-1", "label": "false"}])
    picture(5, (400, 100)).save(tmp_path / "images" / "0" / "dev-7-1-0.png")
    first, second = nlvr(tmp_path)
    assert (first.reference, second.reference) == ("Yes", "No")
    assert first.question == "Is the following statement correct: There is a blue square?"
    mask = first.evidence
    assert mask.shape == (100, 400) and mask.sum() == 400 and mask[20:40, 10:30].all()
    objects = first.extra["objects"]
    assert objects[1]["box"] == (150, 70, 180, 100)
    disc = object_mask(objects, [1])
    assert disc.sum() == pytest.approx(np.pi * 15**2, rel=0.02) and not disc[:, :150].any()
    assert named_objects("There is a tower.", objects) == [0, 1]
    assert named_objects("a yellow item and a black square", objects) == [1]
    assert first.rgb.shape == (100, 400, 3)
    with pytest.raises(StudyError, match="no image file"):
        _ = second.rgb


def test_nlvr_real_geometry():
    """Masks from the file's numbers cover the drawn pixels, for every object of 50 pictures."""
    colours = {"blue": (0, 153, 255), "yellow": (255, 255, 0), "black": (0, 0, 0)}
    items = nlvr(shared("nlvr"))
    overlap = []
    for item in items[::3]:
        rgb, objects = item.rgb.astype(int), item.extra["objects"]
        near = {c: abs(rgb - v).max(2) < 60 for c, v in colours.items()}
        drawn = np.any(list(near.values()), axis=0)
        mask = object_mask(objects, list(range(len(objects))))
        overlap.append((mask & drawn).sum() / (mask | drawn).sum())
        for place, thing in enumerate(objects):
            assert near[thing["color"]][object_mask(objects, [place])].mean() > 0.85
    assert len(items) == 150 and np.mean(overlap) > 0.99 and min(overlap) > 0.95


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", LOADERS)
def test_missing_folder_and_wrong_files(loader, tmp_path):
    with pytest.raises(StudyError, match="There is no folder"):
        loader(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(StudyError, match="holds no"):
        loader(tmp_path)


@pytest.mark.parametrize("loader", [osie, salicon, nlvr])
def test_missing_folder_of_the_optional_ones(loader, tmp_path):
    with pytest.raises(StudyError, match="There is no folder"):
        loader(tmp_path / "nowhere")
    with pytest.raises(StudyError, match="holds no"):
        loader(tmp_path)


def test_hub_errors_are_one_sentence(monkeypatch):
    def refuse(repo, **options):
        raise OSError("401 Client Error\nlong trace")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        StudyError, match=r"MMVP/MMVP \(revision v9\).*401 Client Error\)"
    ) as caught:
        mmvp(revision="v9")
    assert "\n" not in str(caught.value)


def test_hub_revision_is_passed_on_and_recorded(monkeypatch, tmp_path):
    folder = original_mmvp(tmp_path / "snapshots" / "0a1b2c")
    asked = {}

    def fetch(repo, **options):
        asked.update(options, repo=repo)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    items = mmvp("somebody/mmvp", revision="main")
    assert (asked["repo"], asked["revision"]) == ("somebody/mmvp", "main")
    assert items[0].extra["provenance"] == {"source": "somebody/mmvp", "revision": "0a1b2c"}


def test_a_revision_in_the_name_is_passed_on(monkeypatch, tmp_path):
    folder, asked = original_mmvp(tmp_path / "0a1b2c"), {}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda repo, **o: asked.update(o) or str(folder)
    )
    assert len(load_benchmark("mmvp@v1.0")) == len(mmvp(folder))
    assert asked["revision"] == "v1.0"
    with pytest.raises(StudyError, match="sprites is no dataset of the hub"):
        load_benchmark("sprites@v1.0")
    with pytest.raises(StudyError, match="mmvq@v1"):
        load_benchmark("mmvq@v1")


def test_corrupt_tables(tmp_path):
    for name, content, reason in [
        ("a.parquet", b"PAR1 broken", "cannot be read"),
        ("b.jsonl", b'{"question": 1}\n{"question"\n', "line 2"),
        ("c.json", b"[1, 2]", "no list of records"),
        ("d.csv", b"question\n", "no rows"),
        ("e.csv", b"\xff\xfe\xff", "cannot be read"),
        ("f.pkl", b"x", "no table we read"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudyError, match=reason) as caught:
            read_table(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_columns_are_named(tmp_path):
    (tmp_path / "Questions.csv").write_text("Nummer,Frage\n1,Was?\n")
    with pytest.raises(StudyError, match="no column 'Index' or 'lndex'.*'Nummer', 'Frage'"):
        mmvp(tmp_path)


def test_unreadable_image_costs_one_item(tmp_path):
    rows = [r | {"image": encoded(r["idx"])} for r in cv_rows()]
    rows[1]["image"] = {"bytes": b"broken", "path": "1.png"}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    items = cv_bench(tmp_path)
    assert len(items) == 3 and items[2].rgb[0, 0, 0] == 2
    with pytest.raises(StudyError, match="row 1 of .*test.parquet cannot be read"):
        _ = items[1].rgb


def test_parquet_images_stay_on_disk(tmp_path):
    pq.write_table(
        pa.Table.from_pylist([{"question": str(i), "image": encoded(i)} for i in range(6)]),
        tmp_path / "t.parquet",
        row_group_size=2,
    )
    rows = read_table(tmp_path / "t.parquet")
    assert [type(r["image"]) for r in rows] == [sources.ParquetImage] * 6
    assert [rows[i]["image"]()[0, 0, 0] for i in (5, 0, 3)] == [5, 0, 3]


def test_split_options():
    assert split_options("(a) Open (b) Closed") == ("Open", "Closed")
    assert split_options("A: a cat (b), not a dog, B: none of A, B") == (
        "a cat (b), not a dog",
        "none of A, B",
    )
    assert split_options("\n(A) 1\n(B) 2,000\n(C) 3") == ("1", "2,000", "3")
    assert split_options("no choices here") == ()
