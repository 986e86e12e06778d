"""The annotation widget: blind, saved at once, resumed, and agreement that can be checked by hand.

Almost everything is tested without a screen; the last test clicks and types in a real JupyterLab.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refusals import refuses

from lvlm_study.benchmarks import load_benchmark
from lvlm_study.chapters import annotate
from lvlm_study.chapters.annotate import Session, Task
from lvlm_study.chapters.compare import control_map
from lvlm_study.sweep.stored import enlarged, stored_maps

ROOT = Path(__file__).resolve().parents[2]


def task(n: int) -> Task:
    rgb = np.full((8, 12, 3), 20 * n, np.uint8)
    saliency = np.zeros((8, 12), np.float32)
    saliency[2:4, 3:6] = 1
    secret = {"model": f"mini/secret-{n}", "method": "igos", "item": f"sprites/x-{n}"}
    return Task(rgb, f"What is {n}?", f"It is <{n}>.", saliency, secret)


TASKS = [task(n) for n in range(5)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "annotations.csv"


# --- order and blindness


def test_the_order_is_seeded_and_the_annotators_own():
    orders = {
        (who, seed): [t.id for t in annotate.shuffled(TASKS, who, seed)]
        for who in ("a", "b")
        for seed in (0, 1)
    }
    assert orders["a", 0] == [t.id for t in annotate.shuffled(TASKS[::-1], "a", 0)]
    assert len({tuple(order) for order in orders.values()}) == 4
    assert all(sorted(o) == sorted(t.id for t in TASKS) for o in orders.values())


def test_nothing_on_screen_or_in_the_file_tells_the_model(path):
    session = Session(TASKS, path, "a")
    screen = annotate.Screen(session)
    seen = screen.pictures.value
    for choice in ("yes", "no"):
        session.choose(choice)
    told = seen + path.read_text() + repr(TASKS[0])
    for word in ("secret", "mini", "igos", "sprites/"):
        assert word not in told
    found = annotate.key(TASKS).set_index("task").model
    assert found[TASKS[3].id] == "mini/secret-3" and found.is_unique


def test_answers_are_escaped():
    assert "It is &lt;3&gt;." in TASKS[3].page()


# --- saving and resuming


def test_two_choices_make_a_task_and_each_is_saved_at_once(path):
    session = Session(TASKS, path, "a")
    first = session.task
    session.choose("yes")
    assert len(path.read_text().splitlines()) == 2 and session.task is first
    session.choose("unsure")
    assert session.task is not first and session.done == 1
    rows = annotate.read(path)
    assert rows[["task", "about", "choice"]].values.tolist() == [
        [first.id, "right", "yes"],
        [first.id, "covered", "unsure"],
    ]


def test_it_resumes_in_the_middle_of_a_task_and_stops_at_the_end(path):
    session = Session(TASKS, path, "a")
    for choice in ("yes", "no", "yes"):
        session.choose(choice)
    again = Session(TASKS, path, "a")
    assert (
        again.done == 1 and again.task is session.task and again.asked(again.place) == ["covered"]
    )
    for _ in range(7):
        again.choose("no")
    assert again.task is None and again.done == 5
    again.choose("yes")  # nothing left: nothing happens
    assert len(annotate.read(path)) == 10
    assert Session(TASKS, path, "b").done == 0


def test_a_choice_can_be_taken_back(path):
    session = Session(TASKS, path, "a")
    first = session.task
    session.choose("yes")
    session.choose("yes")
    session.undo()
    assert session.task is first and session.asked(session.place) == ["covered"]
    assert Session(TASKS, path, "a").task is first  # also after a restart
    session.choose("no")
    last = annotate.standing(annotate.read(path))
    assert last.choice.tolist() == ["yes", "no"]
    assert len(annotate.read(path)) == 4, "no line is ever changed"


def test_a_line_cut_by_a_crash_harms_no_other(path):
    Session(TASKS, path, "a").choose("yes")
    with path.open("a") as file:
        file.write("a,123456789012,cov")  # the machine stops here
    assert len(annotate.read(path)) == 1
    Session(TASKS, path, "a").choose("no")
    rows = annotate.read(path)
    assert rows.choice.tolist() == ["yes", "no"] and rows.about.tolist() == ["right", "covered"]


def test_two_writers_share_a_file(path):
    code = (
        "import sys; from pathlib import Path\n"
        "from lvlm_study.chapters.annotate import append, FIELDS\n"
        "for n in range(40):\n"
        "    row = dict.fromkeys(FIELDS, 'x') | {'annotator': sys.argv[2], 'about': 'right'}\n"
        "    append(Path(sys.argv[1]), row | {'task': str(n), 'choice': 'yes'})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code, path, who], env=environment) for who in "ab"
    ]
    assert [run.wait() for run in runs] == [0, 0]
    rows = annotate.read(path)
    assert len(rows) == 80 and len(path.read_text().splitlines()) == 81
    assert rows.groupby("annotator").task.nunique().to_dict() == {"a": 40, "b": 40}


def test_mistakes_get_one_sentence(path):
    refuses("did you mean yes", Session(TASKS, path, "a").choose, "yess")
    refuses("needs a name", Session, TASKS, path, " ")
    refuses("nothing to annotate", Session, [], path, "a")
    other = path.parent / "table.csv"
    other.parent.mkdir(exist_ok=True)
    other.write_text("model,value\na,1\n")
    refuses("no file of annotations", Session, TASKS, other, "a")
    (path.parent / "file").write_text("")
    refuses("Cannot write", Session(TASKS, path.parent / "file" / "a.csv", "a").choose, "yes")


# --- the screen, without a browser


def test_clicks_and_keys_do_the_same(tmp_path):
    clicked, typed = tmp_path / "clicked.csv", tmp_path / "typed.csv"
    screen = annotate.Screen(Session(TASKS, clicked, "a"))
    screen.buttons["covered", "no"].click()  # in any order
    assert screen.buttons["covered", "no"].button_style == "success"
    screen.buttons["right", "yes"].click()
    assert "1 of 5" in screen.head.value
    screen = annotate.Screen(Session(TASKS, typed, "a"))
    for text in ("1", "1x", "1x2"):  # other letters do nothing
        screen.keys.value = text
    a, b = (annotate.standing(annotate.read(p)).set_index("about").choice for p in (clicked, typed))
    assert a.to_dict() == b.to_dict() == {"right": "yes", "covered": "no"}


def test_deleting_a_key_takes_its_choice_back(path):
    screen = annotate.Screen(Session(TASKS, path, "a"))
    for text in ("1", "13", "132", "13"):
        screen.keys.value = text
    assert annotate.read(path).choice.tolist() == ["yes", "unsure", "no", "undone"]
    assert screen.session.done == 1 and not screen.back.disabled
    screen.back.click()
    assert screen.session.done == 0


def test_keys_that_arrive_together_are_each_counted_once(path):
    screen = annotate.Screen(Session(TASKS, path, "a"))
    screen.keys.value = "1213"
    screen.keys.value = "12131"
    assert annotate.read(path).choice.tolist() == ["yes", "no", "yes", "unsure", "yes"]


def test_the_end_is_said(path):
    screen = annotate.Screen(Session(TASKS[:1], path, "a"))
    screen.keys.value = "11"
    assert "All done" in screen.pictures.value
    assert all(button.disabled for button in screen.buttons.values())


# --- two maps, two answers


def pair(n: int, method: str = "ga", seed: int = 0) -> annotate.PairTask:
    rgb = np.full((8, 12, 3), 20 * n, np.uint8)
    maps = np.eye(2), np.ones((2, 2)) - np.eye(2)
    secret = {"method": method, "pair": f"sprites/x-{n}"}
    return annotate.pair_task(rgb, (f"The cat <{n}>?", "The bus?"), maps, secret, seed)


PAIRS = [pair(n, method) for n in range(6) for method in ("ga", "igos")]


def test_maps_change_sides_and_the_secret_knows():
    """A's map is bright in the upper left corner; on which side it stands is drawn for each."""
    sides = {task.secret["right"] for task in PAIRS}
    assert sides == {"left A", "left B"}
    for task in PAIRS:
        left, right = task.saliency
        own = left if task.secret["right"] == "left A" else right
        assert own.shape == (8, 12) and own[0, 0] == 1 and (left + right == 1).all()
    assert pair(3).secret == pair(3).secret and len({t.id for t in PAIRS}) == len(PAIRS)
    assert {pair(3, seed=s).secret["right"] for s in range(9)} == sides


def test_a_pair_is_one_click_and_tells_nothing(path):
    screen = annotate.Screen(Session(PAIRS, path, "a"))
    first, seen = screen.session.task, screen.pictures.value
    assert seen.count("<img") == 3 and "The cat &lt;" in seen
    assert [key for _, key in screen.buttons] == ["left A", "left B", "unsure"]
    screen.buttons["pair", "left B"].click()
    screen.keys.value = "1"
    assert screen.session.done == 2 and screen.session.task is not first
    rows = annotate.read(path)
    assert rows.choice.tolist() == ["left B", "left A"] and rows.task[0] == first.id
    told = seen + path.read_text() + repr(first)
    assert not [word for word in ("method", "igos", "sprites/", "secret") if word in told]
    screen.back.click()
    assert screen.session.done == 1 and Session(PAIRS, path, "a").done == 1


def test_pairs_and_single_maps_do_not_mix(path):
    refuses("need a session each", Session, [*TASKS, *PAIRS], path, "a")
    refuses("no choice named 'left'.*left A", Session(PAIRS, path, "a").choose, "left")


# --- agreement


def log(choices: dict[str, str], about: str = "right") -> pd.DataFrame:
    """One letter a task: y, n, u, or . for not judged."""
    words = {"y": "yes", "n": "no", "u": "unsure"}
    rows = [
        {"annotator": who, "task": str(n), "about": about, "choice": words[letter]}
        for who, letters in choices.items()
        for n, letter in enumerate(letters)
        if letter in words
    ]
    return pd.DataFrame(rows)


def test_kappa_by_hand():
    """Eight of ten alike; chance is 0.6 * 0.6 + 0.4 * 0.4 = 0.52; (0.8 - 0.52) / 0.48."""
    found = annotate.agreement(log({"a": "yyyyyynnnn", "b": "yyyyynnnny"})).iloc[0]
    assert found.n == 10 and found.same == pytest.approx(0.8)
    assert found.kappa == pytest.approx(0.28 / 0.48)
    assert found.kappa_low < found.kappa < found.kappa_high


def test_alpha_by_hand():
    """The same ten: 4 of 20 values stand in unlike pairs; 12 yes and 8 no among the 20 values.

    alpha = 1 - 19 * 4 / (2 * 12 * 8).
    """
    found = annotate.agreement(log({"a": "yyyyyynnnn", "b": "yyyyynnnny"})).iloc[0]
    assert found.alpha == pytest.approx(1 - 19 * 4 / 192)
    assert found.alpha_low < found.alpha < found.alpha_high


def test_alpha_of_the_published_example():
    """Krippendorff 2011, four observers, twelve units, values missing: 0.743 for nominal data."""
    rows = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3"]
    rows += [". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    table = np.array([row.split() for row in rows])
    counts = np.stack([(table == str(value)).sum(0) for value in range(1, 6)], -1)
    assert float(annotate.nominal_alpha(counts)) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize(
    ("choices", "alpha", "kappa"),
    [
        ({"a": "yynn", "b": "yynn"}, 1.0, 1.0),
        ({"a": "ynyn", "b": "nyny"}, 1 - 7 * 8 / 32, -1.0),
        ({"a": "yyyy", "b": "yyyy"}, np.nan, np.nan),
        ({"a": "yyun", "b": "yyun", "c": "yyun"}, 1.0, np.nan),
        ({"a": "yyn.", "b": "yyny", "c": "...n"}, None, np.nan),
    ],
)
def test_extremes_of_agreement(choices, alpha, kappa):
    found = annotate.agreement(log(choices)).iloc[0]
    if alpha is not None:
        np.testing.assert_allclose(found.alpha, alpha)
    np.testing.assert_allclose(found.kappa, kappa)


def test_chance_agreement_is_zero():
    random = np.random.default_rng(0)
    words = {who: "".join(random.choice(list("yn"), 4000)) for who in "ab"}
    found = annotate.agreement(log(words)).iloc[0]
    assert abs(found.alpha) < 0.05 and abs(found.kappa) < 0.05
    assert found.alpha_low < 0 < found.alpha_high


def test_questions_are_counted_apart_and_the_last_choice_counts():
    both = pd.concat([log({"a": "yy", "b": "ny"}), log({"a": "yn", "b": "yn"}, "covered")])
    changed = pd.concat([both, log({"b": "y"})])
    same = annotate.agreement(changed).set_index("question").same
    assert same.to_dict() == {"right": 1.0, "covered": 1.0}
    assert annotate.agreement(both).set_index("question").same["right"] == 0.5
    refuses("judged by two", annotate.agreement, log({"a": "yy"}))


# --- tasks from the committed results


def test_tasks_come_from_the_results():
    results = ROOT / "data" / "results" / "mini"
    found = annotate.tasks_from_results(results, count=6)
    assert len(found) == 6 and len({t.id for t in found}) == 6
    assert [t.id for t in found] == [t.id for t in annotate.tasks_from_results(results, count=6)]
    for each in found:
        assert each.saliency.shape == each.rgb.shape[:2]
        assert 0 <= each.saliency.min() < each.saliency.max() <= 1
    assert max(each.saliency.max() for each in found) > 0.5
    refuses("igos", annotate.tasks_from_results, results, methods=("igoss",))
    refuses("lvlm-study run", annotate.tasks_from_results, results / "nothing")


def test_maps_of_controls_are_drawn_again_and_numbered_as_their_rows():
    results = ROOT / "data" / "results" / "mini"
    found = annotate.tasks_from_results(results, methods=("sobel", "random"), count=6)
    items = {item.id: item for item in load_benchmark("sprites")}
    rows = {annotate.number_of(row): row for row in stored_maps(results).itertuples()}
    assert {task.secret["method"] for task in found} == {"sobel", "random"}
    for task in found:
        row = rows[task.id]
        assert (row.model, row.item) == (task.secret["model"], task.secret["item"])
        drawn = control_map(row.method, items[row.item], row.item_seed)
        drawn = enlarged(drawn, *task.rgb.shape[:2])
        below = task.saliency < 1  # the colour scale ends at a quantile
        assert np.corrcoef(drawn[below], task.saliency[below])[0, 1] > 0.999


# --- a real browser


NOTEBOOK = """
import numpy as np
from lvlm_study.chapters.annotate import Task, widget
rgb = np.full((64, 64, 3), 200, np.uint8)
tasks = [Task(rgb, f"What is {n}?", f"It is {n}.", np.eye(64)) for n in range(3)]
widget(tasks, "annotations.csv", "a")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab in a folder of its own, with the notebook above; yields its address."""
    pytest.importorskip("jupyterlab", reason="jupyterlab belongs to the book's environment")
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": meta}
    (tmp_path / "a.ipynb").write_text(json.dumps(book | {"cells": [cell | {"source": NOTEBOOK}]}))
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--IdentityProvider.token=", "--expose-app-in-browser"]
    command += ["--ServerApp.disable_check_xsrf=True", "--LabApp.news_url="]
    own = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": "s"}
    with open(tmp_path / "lab.log", "w") as said:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
    yield f"http://127.0.0.1:{port}/lab/tree/a.ipynb"
    server.terminate()
    server.wait(30)


def listening(address: str, seconds: float = 60) -> None:
    port, until = int(address.split(":")[2].split("/")[0]), time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError("JupyterLab did not start")


@pytest.mark.slow
def test_a_person_can_click_and_type_in_jupyterlab(lab, tmp_path, tab):
    listening(lab)
    tab.set_default_timeout(90_000)
    tab.set_viewport_size({"width": 1200, "height": 1000})
    tab.goto(lab)
    tab.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.isReady")
    tab.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel")
    tab.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    tab.get_by_role("button", name="yes (1)").first.click()
    tab.locator(".mod-success", has_text="yes (1)").wait_for()
    tab.get_by_placeholder("type 1, 2").click()
    tab.keyboard.press("2")
    tab.get_by_text("1 of 3 done").wait_for()
    tab.keyboard.press("1")
    tab.keyboard.press("3")
    tab.get_by_text("2 of 3 done").wait_for()
    assert tab.evaluate("document.activeElement.placeholder").startswith("type"), "focus"
    tab.keyboard.press("Backspace")
    tab.get_by_text("1 of 3 done").wait_for()
    pictures = tab.locator(".jp-OutputArea img")
    alt = pictures.evaluate_all("found => found.map(i => i.alt)")
    if "LVLM_STUDY_SHOT" in os.environ:
        tab.screenshot(path=os.environ["LVLM_STUDY_SHOT"])
    assert alt == ["the picture", "the picture under the map"]
    rows = annotate.read(tmp_path / "annotations.csv")
    assert rows.choice.tolist() == ["yes", "no", "yes", "unsure", "undone"]
