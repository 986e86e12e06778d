"""The commands as a reader types them: what they print, what they write, what they refuse."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import odd_images
import pytest
from PIL import Image

import lvlm_study
from lvlm_study import benchmarks, cli, models
from lvlm_study.errors import StudyError
from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.pixels import images
from lvlm_study.sweep import catalogue, explain_files
from lvlm_study.zoo import train as training

QUESTION = "What colour is the shape?"


@pytest.fixture
def reader(monkeypatch):
    """Commands meet a planted reader instead of a checkpoint, under any model name."""
    monkeypatch.setattr(models, "load_model", lambda name, **options: planted("object"))


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(planted_scene((48, 64))).save(path)
    return path


def explain(image, *more, question=QUESTION):
    return cli.main(["explain", str(image), question, "--baseline", "black", *map(str, more)])


def refused(capsys, *words) -> str:
    """The one sentence with which a command ends, exit code 2."""
    assert cli.main([str(word) for word in words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lvlm-study: ") and told.count("\n") == 1 and "Traceback" not in told
    return told


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if ".lvlm-study-" in p.name)


# --- the package ---------------------------------------------------------------------------
def test_public_names():
    for name in lvlm_study.__all__:
        assert callable(getattr(lvlm_study, name)), name
    for gone in ("models", "benchmarks", "methods"):  # folders, and no functions besides
        assert not callable(getattr(lvlm_study, gone, None)), gone
    assert set(lvlm_study.__all__) <= set(dir(lvlm_study))
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        _ = lvlm_study.explian


# --- explain -------------------------------------------------------------------------------
def test_explain_prints_and_writes(reader, scene, tmp_path, capsys):
    out = tmp_path / "deep" / "er"
    assert explain(scene, "--out", out, "--seed", "3") == 0
    told = capsys.readouterr().out
    assert "The shape is [red]." in told and "\033" not in told
    assert "Status    ok" in told and "100 forward and 100 backward passes" in told
    assert "mean of 2 random maps" in told and "centre" in told and "difference" in told
    assert sorted(p.name for p in out.iterdir()) == sorted(explain_files.FILES)
    found = json.loads((out / "explanation.json").read_text())
    assert (found["device"], found["dtype"], found["attention"]) == ("cpu", "float32", None)
    assert found["device_name"] and found["versions"]["torch"] and found["cuda"] is None
    assert found["crucial"] == [False, False, False, True, False]
    assert found["llr"][3] == pytest.approx(3.98, abs=0.1)  # gain 4: the way from e = 0 to e = 1
    assert found["image_sha256"] == hashlib.sha256(scene.read_bytes()).hexdigest()
    assert (found["seed"], found["method"], found["status"]) == (3, "igos", "ok")
    assert found["command"].startswith("lvlm-study explain") and "'What colour" in found["command"]
    scores = found["scores"]
    assert scores["map"]["gap"] > 0.7 > abs(scores["random"]["gap"])
    assert (scores["map"]["steps"], scores["random"]["draws"]) == (50, 2)
    with Image.open(out / "overlay.png") as picture:
        assert min(picture.size) > 300
    saved = np.load(out / "saliency.npz")
    assert saved["saliency"].dtype == np.float32 and saved["saliency"].shape == (48, 64)
    assert saved["grid"].shape == (32, 32) and saved["llr"].shape == (5,)
    inside = planted("object").evidence((48, 64))
    assert saved["saliency"][inside].mean() > 5 * saved["saliency"][~inside].mean()


def test_an_answer_without_crucial_tokens_is_told(monkeypatch, scene, tmp_path, capsys):
    monkeypatch.setattr(models, "load_model", lambda name, **options: planted("blind"))
    assert explain(scene, "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "no crucial tokens" in told and "nothing to map" in told
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert found["scores"]["map"]["deletion"] is None
    assert not np.load(tmp_path / "out" / "saliency.npz")["saliency"].any()


CHOSEN = {
    "llr": "ok: the marked words depend on the image",
    "all": "ok: the map is of the whole answer, whether or not it needs the image (mean prob",
    "keywords": "ok: the map is of the text of the answer's keywords, whether",
}


@pytest.mark.parametrize("tokens", CHOSEN)
def test_a_status_says_what_was_chosen(tokens, reader, scene, capsys):
    if tokens == "keywords":
        pytest.importorskip("yake", reason="the package yake is optional")
    assert explain(scene, "--method", "center", "--tokens", tokens) == 0
    told = capsys.readouterr().out
    assert CHOSEN[tokens] in told and ("depend on" in told) == (tokens == "llr")


def test_no_gap_is_said_of_the_chosen_word_alone(reader, scene, capsys):
    """The answer as a whole needs the picture; this word of it is as likely without."""
    assert explain(scene, "--method", "center", "--word", "shape") == 0
    told = capsys.readouterr().out
    assert "no gap: the mean probability of the word that was asked for changes by less" in told
    assert "than 0.05 (1.000, on the black image 1.000)" in told and "nearly as likely" not in told
    assert explain(scene, "--method", "center[baseline=mean,tokens=all]") == 0
    assert "on the mean image" in capsys.readouterr().out  # the name's own option holds


def test_an_answer_without_keywords_is_no_answer_without_need_of_its_picture(
    reader, scene, tmp_path, capsys
):
    pytest.importorskip("yake", reason="the package yake is optional")
    options = ("--tokens", "keywords", "--answer", "is", "--out", tmp_path / "out")
    assert explain(scene, *options) == 0
    told = capsys.readouterr().out
    assert "the answer has no keyword, so there is nothing to map" in told
    assert "less likely on the black image, so" not in told


@pytest.mark.parametrize(
    ("size", "baseline", "side"),
    [((8, 3000), "blur", 501), ((2100, 8), "blur", 101), ((8, 2000), "blur", 0)]
    + [((8, 3000), "black", 0)],
)
def test_a_blur_that_is_weak_by_size_alone_is_told(
    size, baseline, side, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(models, "load_model", lambda name, **options: planted("blind"))
    Image.new("RGB", size[::-1]).save(tmp_path / "large.png")
    assert explain(tmp_path / "large.png", "--baseline", baseline, "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    note = f"Note      the blur is the paper's, {side} px here and 501 px at most, and weak"
    assert (note in told) == ("see the note" in told) == bool(side)
    assert ("--baseline mean" in told) == bool(side)
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert len(found["notes"]) == bool(side)


def test_a_closed_terminal_loses_no_files(reader, scene, tmp_path, monkeypatch):
    """`>&- 2>&-`, and services: Python has no stdout then."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert explain(scene, "--method", "center", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "explanation.json").is_file()
    assert cli.main(["summarise", "--results", str(tmp_path)]) == 2


def test_a_name_that_is_no_text_is_kept_in_the_record(reader, scene, tmp_path):
    """File names on Linux are bytes: an old one in Latin-1."""
    old = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    old.write_bytes(scene.read_bytes())
    assert explain(old, "--method", "center", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert found["image"] == str(old)


def test_a_box_for_every_sign_is_no_font_that_has_it(monkeypatch):
    """matplotlib brings such a font, and it is no help to a reader."""
    from matplotlib import font_manager

    fonts = font_manager.fontManager
    ours = [f for f in fonts.ttflist if "mpl-data" in f.fname]
    assert any(explain_files._last_resort(font.name) for font in ours)
    monkeypatch.setattr(fonts, "ttflist", ours)
    explain_files.fonts_with.cache_clear()
    try:
        assert explain_files.fonts_with("红 a")[1] == {"红"}
        assert explain_files._drawn("红 a", "answer") == "(answer: see explanation.json)"
        assert explain_files._drawn("a$é", "answer") == "a$é"
    finally:
        explain_files.fonts_with.cache_clear()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_a_terminal_cannot_show_is_replaced(encoding, reader, scene, tmp_path, monkeypatch):
    """The files are whole, the words stay in them, and the command ends well."""
    question = "兔子是什么颜色？ नमस्ते é"
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # also "Glyph missing from font(s)"
        assert explain(scene, "--method", "center", "--out", tmp_path / "o", question=question) == 0
    out.flush()
    assert b"Status    ok" in out.buffer.getvalue() and b"?" in out.buffer.getvalue()
    assert json.loads((tmp_path / "o" / "explanation.json").read_text())["question"] == question


def test_signs_without_a_font_are_told_where_they_stand():
    assert explain_files._drawn("What colour?", "question") == "What colour?"
    nobody = "\U0001f9ff\U0002fa1d\U000e0041"  # an amulet, a rare ideograph, a tag
    assert explain_files.fonts_with("What\U0002fa1d?")[1] <= {"\U0002fa1d"}
    shown = explain_files._drawn(nobody, "question")
    assert shown in ("(question: see explanation.json)", nobody[:2])


def test_files_are_there_before_anything_is_printed(reader, scene, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert explain(scene, "--method", "center", "--out", tmp_path / "out") == 141
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(explain_files.FILES)


def test_a_terminal_gets_colours(reader, scene, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert explain(scene, "--method", "center") == 0
    assert "\033[1;31mred\033[0m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "cut"), [(4, "4 tokens, before its end"), (1, "1 token, before"), (64, "")]
)
def test_a_cut_answer_is_told(reader, scene, tmp_path, capsys, limit, cut):
    out = tmp_path / "out"
    assert explain(scene, "--method", "center", "--max-new-tokens", limit, "--out", out) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "cut after" in line]
    assert len(told) == bool(cut)
    assert all(
        line.startswith(f"          cut after {cut}")
        and line.endswith(f"; allow more with --max-new-tokens {2 * limit}")
        for line in told
    )
    assert json.loads((out / "explanation.json").read_text())["truncated"] is bool(cut)


def test_the_terminal_names_signs_made_of_bytes(checkpoints, scene, capsys):
    options = ["--model", checkpoints("llava"), "--answer", "红🐇 é", "--method", "center"]
    assert explain(scene, *options, "--word", "🐇") == 0
    told = capsys.readouterr().out
    assert "Answer    红[🐇] é" in told and told.count("'🐇'") == 4 and "''" not in told


def test_any_answer_can_be_given(reader, scene, tmp_path, capsys):
    out, given = tmp_path / "out", "The shape is blue."
    assert explain(scene, "--method", "center", "--answer", given, "--out", out) == 0
    told = capsys.readouterr().out
    assert given in told and "given with --answer, not the model's own" in told
    found = json.loads((out / "explanation.json").read_text())
    assert (found["answer"], found["answer_given"], found["truncated"]) == (given, True, False)
    assert found["llr"][3] < -3 and f"--answer '{given}'" in found["command"]
    assert explain(scene, "--method", "center", "--word", "blue", "--answer", given) == 0
    assert "is [blue]." in capsys.readouterr().out
    assert explain(scene, "--method", "center", "--out", out) == 0
    assert "--answer" not in capsys.readouterr().out
    assert json.loads((out / "explanation.json").read_text())["answer_given"] is False


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_answer_is_refused(scene, text, monkeypatch, capsys):
    monkeypatch.setattr(models, "load_model", None)  # before anything is loaded
    assert "answer is empty" in refused(capsys, "explain", scene, QUESTION, "--answer", text)


def test_mini_models_say_what_they_know(monkeypatch, scene, capsys):
    mini = planted("object")
    mini.name = "mini/llava-1.5"
    monkeypatch.setattr(models, "load_model", lambda name, **options: mini)
    assert explain(scene, "--method", "center") == 0
    assert capsys.readouterr().out.count("drawn scenes only") == 1


def test_a_word_can_be_named(reader, scene, capsys):
    assert explain(scene, "--method", "center", "--word", "shape") == 0
    assert "The [shape] is red." in capsys.readouterr().out
    assert "not in the answer" in refused(capsys, "explain", scene, QUESTION, "--word", "cat")


def test_a_real_architecture(checkpoints, scene, tmp_path, capsys):
    options = ["--model", checkpoints("llava"), "--tokens", "all", "--max-new-tokens", 3]
    assert explain(scene, "--out", tmp_path / "out", *options) == 0
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    file = checkpoints("llava") / "model.safetensors"
    assert found["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found["dtype"] == "float32" and len(found["token_ids"]) <= 3


# --- bad input -----------------------------------------------------------------------------
def test_odd_images_are_explained(reader, tmp_path, monkeypatch):
    draw = explain_files.draw_overlay

    def quick(path, rgb, *rest):
        return draw(path, rgb, *rest) if rgb.shape[0] == 1 else path.write_bytes(b"")

    monkeypatch.setattr(explain_files, "draw_overlay", quick)
    for name, path in odd_images.readable(tmp_path).items():
        assert explain(path, "--method", "center", "--out", tmp_path / "out") == 0, name
        size = np.load(tmp_path / "out" / "saliency.npz")["saliency"].shape
        assert size == images.load_image(path).shape[:2], name
    assert images.load_image(tmp_path / "rotated.jpg").shape[:2] == odd_images.SIZE


def test_unreadable_images_are_refused(reader, tmp_path, capsys):
    for name, path in odd_images.unreadable(tmp_path).items():
        out = tmp_path / f"out-{name}"
        told = refused(capsys, "explain", path, QUESTION, "--out", out)
        assert name in told
        assert not out.exists()


def test_an_item_and_a_variant_can_be_named(reader, tmp_path, capsys):
    item, out = benchmarks.load_benchmark("sprites")[3], tmp_path / "out"
    assert explain(item.id, "--method", "random[cells=4]", "--tokens", "all", "--out", out) == 0
    found = json.loads((out / "explanation.json").read_text())
    assert (found["method"], found["options"]["cells"]) == ("random", 4)
    assert found["image_sha256"] == hashlib.sha256(item.rgb.tobytes()).hexdigest()
    assert np.load(out / "saliency.npz")["grid"].shape == (4, 4)
    assert "item of sprites" in refused(capsys, "explain", "sprites/attribute-0400", QUESTION)


def test_a_suggested_item_is_one_that_can_be_named(reader, tmp_path, capsys):
    """Also where the ids of the tables do not name their benchmark, and where two have one name."""
    for wrong in ("photos/astronaut-sui", "sprites_clutter/000-attribut"):
        told = refused(capsys, "explain", wrong, QUESTION)
        (near,) = re.findall(r"did you mean (\S+?)(?: or .*)?\?", told)
        assert cli._picture(near, {}).ndim == 3
    item = benchmarks.load_benchmark("photos")[0]
    assert explain(f"photos/{item.id}", "--method", "center", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert found["image_size"] == list(item.rgb.shape[:2])


def test_the_folder_that_an_item_asks_for_can_be_given(tmp_path, capsys):
    assert "give its folder, --data osie=FOLDER" in refused(capsys, "explain", "osie/1", QUESTION)
    told = refused(capsys, "explain", "osie/1", QUESTION, "--data", f"osie={tmp_path}")
    assert str(tmp_path) in told and "cannot be downloaded" not in told


WORDS = {
    "--tokens word": "--tokens word needs the word to explain; give it with --word.",
    "--tokens all --word red": "Give either --word red or --tokens all, not both.",
    "--method igos[tokens=all] --word red": "Give either --word red or --tokens all, not both.",
    "--word=": "--word is empty",
    "--word red --contrast=": "--contrast is empty",
    "--tokens all --contrast red": "choose one with --word",
}


@pytest.mark.parametrize("options", WORDS)
def test_words_are_refused_by_the_names_of_their_flags(options, reader, scene, capsys):
    assert WORDS[options] in refused(capsys, "explain", scene, QUESTION, *options.split())


def test_a_question_without_quotes_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main("explain a.png What color is it --seed 1".split())
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and "unrecognized arguments: color is it" in told
    assert 'put the question in quotes: "What color ..."' in told
    with pytest.raises(SystemExit):
        cli.main("explain a.png What --sed 1".split())
    assert "quotes" not in capsys.readouterr().err


def test_unknown_names_come_with_near_ones(scene, capsys):
    call = ["explain", scene, QUESTION]
    assert "did you mean igos" in refused(capsys, *call, "--method", "igoss")
    assert "did you mean blur" in refused(capsys, *call, "--baseline", "blurr")
    assert "There is no model" in refused(capsys, *call, "--model", "mini/llama")
    assert "no model folder" in refused(capsys, *call, "--model", "/nowhere/at/all")
    run = ["run", "--models", "x"]
    assert "did you mean sprites" in refused(capsys, *run, "--benchmarks", "sprite")
    assert "no method" in refused(capsys, *run, "--methods", "igoss")
    assert "did you mean sprites" in refused(capsys, "estimate", "--benchmark", "sprite")


@pytest.mark.parametrize("question", ["", "   ", "\n", "\u200b", "\u200e \ufeff", "\u2003"])
def test_a_question_that_nobody_sees_is_refused(scene, question, capsys):
    assert "question is empty" in refused(capsys, "explain", scene, question)


def test_bytes_that_are_no_text_are_not_called_empty(checkpoints, scene, capsys):
    """The shell hands over whatever bytes it was given."""
    folder = checkpoints("llava")
    capsys.readouterr()  # making it may have shown a bar
    for words in (["What\udcff?", "--model", folder], ["?", "--answer", "\udce7\udcba\udcff"]):
        assert "no UTF-8 text" in refused(capsys, "explain", scene, *words)


NO_NUMBERS = {
    "--threshold": (("1000", "nan", "inf", "much"), "a number of nats up to 700"),
    "--seed": (("-1", "1.5", "²", str(2**70)), f"a whole number from 0 to {2**32 - 1}"),
}


@pytest.mark.parametrize("option", NO_NUMBERS)
def test_a_number_that_is_none(option, capsys):
    words, message = NO_NUMBERS[option]
    for word in words:
        with pytest.raises(SystemExit):
            cli.main(["explain", "a.png", "What?", option, word])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("where", ["", "C"])
def test_words_of_the_shell_are_utf_8_whatever_the_locale(where):
    code = "from lvlm_study.cli import parser as p; import sys; o = p().parse_args(sys.argv[1:])\n"
    code += "print(ascii([o.question, o.answer, o.word]))"
    call = [sys.executable, "-c", code, *"explain a.png é? --answer 红色 --word 红".split()]
    modes = {"LC_ALL": where, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = subprocess.run(call, capture_output=True, text=True, env=os.environ | modes, check=True)
    assert run.stdout.strip() == ascii(["é?", "红色", "红"])


@pytest.mark.parametrize(
    "words",
    ["explain a.png What? --out", "run --results", "sanity --results", "train joint --work"],
)
def test_a_path_of_nothing_is_not_the_folder_one_is_in(words, capsys):
    """As a shell writes a variable that is not set."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words.split(), ""])
    assert stopped.value.code == 2 and "the path is empty" in capsys.readouterr().err


def test_what_is_not_there_is_named(scene, capsys, tmp_path):
    assert "no model named ''" in refused(capsys, "explain", scene, "What?", "--model", "")
    assert "path of the image is empty" in refused(capsys, "explain", "", "What?")
    assert "no tables" in refused(capsys, "summarise", "--results", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("words", "least"),
    [
        ("run --models x --items -1", 0),
        ("estimate --items 0", 1),
        ("estimate --items -3", 1),
        ("sanity --items 0", 1),
        ("detect --items 1", 2),
        ("train llava-1.5 --steps -2", 1),
        ("estimate --max-new-tokens 0", 1),
        ("run --models x --max-new-tokens -1", 1),
    ],
)
def test_counts_that_are_none(words, least, capsys):
    *_, option, value = words.split()
    assert f"{option} must be at least {least}, not {value}." in refused(capsys, *words.split())


def test_an_output_folder_that_cannot_be_written_to(reader, scene, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        told = refused(capsys, "explain", scene, QUESTION, "--out", tmp_path / place)
        assert str(tmp_path / "file") in told
    assert (tmp_path / "file").read_text() == "mine" and not left_behind(tmp_path)
    assert "Cannot write" in refused(capsys, "explain", scene, QUESTION, "--out", "/proc/nothing")
    (tmp_path / "out" / "overlay.png").mkdir(parents=True)
    assert "in the way" in refused(capsys, "explain", scene, QUESTION, "--out", tmp_path / "out")


def test_a_full_disc_leaves_the_old_files_alone(reader, scene, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert explain(scene, "--out", out, "--method", "center") == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    (out / "mine.txt").write_text("keep")

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(explain_files.np, "savez_compressed", full)
    capsys.readouterr()
    told = refused(capsys, "explain", scene, QUESTION, "--out", out)
    assert "full" in told and not left_behind(tmp_path)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before | {"mine.txt": b"keep"}


def test_earlier_results_are_replaced_and_other_files_kept(reader, scene, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    for method in ("center", "sobel"):
        assert explain(scene, "--out", out, "--method", method) == 0
        assert json.loads((out / "explanation.json").read_text())["method"] == method
    assert (out / "mine.txt").read_text() == "keep"
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize("name", explain_files.FILES)
@pytest.mark.parametrize("content", ["mine", "{}", "5"])
def test_files_of_somebody_else_are_not_replaced(name, content, scene, tmp_path, capsys):
    """Told before a model is loaded."""
    file = tmp_path / "out" / name
    file.parent.mkdir()
    file.write_text(content)
    told = refused(capsys, "explain", scene, QUESTION, "--out", tmp_path / "out")
    assert f"holds {name} that lvlm-study did not write" in told
    assert file.read_text() == content and not left_behind(tmp_path)


def test_an_interrupt_ends_with_130(scene, tmp_path, monkeypatch, capsys):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "load_model", stop)
    assert explain(scene, "--out", tmp_path / "out") == 130
    assert capsys.readouterr().err.strip() == "lvlm-study: stopped."
    assert not (tmp_path / "out").exists() and not left_behind(tmp_path)


@pytest.mark.parametrize("words", [["explian"], [], ["explain", "x", "y", "--seed", "-1"]])
def test_mistyped_commands_are_argparse_errors(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "usage: lvlm-study" in capsys.readouterr().err


def test_results_do_not_stay_private(tmp_path):
    mask = os.umask(0o022)
    try:
        with explain_files.staged(tmp_path / "out") as stage:
            for name in explain_files.FILES:
                (stage / name).write_text(name)
    finally:
        os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_files_come_together_or_not_at_all(tmp_path):
    with pytest.raises(StudyError, match="Cannot write"):
        with explain_files.staged(tmp_path / "out") as stage:
            (stage / explain_files.FILES[0]).write_text("half")
            raise PermissionError(13, "Permission denied")
    assert not list(tmp_path.iterdir())


# --- list, train ---------------------------------------------------------------------------
def test_list_names_everything(capsys, monkeypatch, checkpoints, tmp_path):
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "tiny").symlink_to(checkpoints("llava"))
    monkeypatch.setenv("LVLM_STUDY_DATA", str(tmp_path))
    assert cli.main(["list"]) == 0
    told = capsys.readouterr().out
    count = sum(p.numel() for p in models.load_model("mini/tiny").model.parameters())
    assert f"mini/tiny               {count / 1e6:.1f} M parameters" in told
    assert all(
        f"  {name} " in told for name in [*lvlm_study.list_methods(), *lvlm_study.list_benchmarks()]
    )
    assert "sprites                 not here: " in told  # this data folder holds a model alone


def test_the_columns_of_the_list_stand_apart(capsys, monkeypatch):
    """However long a name is: each begins a line, and two blanks follow the longest."""
    long = "mini/mini-gemini-l-seed1-and-more"
    monkeypatch.setattr(catalogue, "list_models", lambda: [long, "mini/llava-1.5"])
    monkeypatch.setattr(catalogue, "model_size", lambda name: "3.8 M parameters, 7.7 MB")
    assert cli.main(["list"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    starts = {len(row) - len(row[2:].split("  ", 1)[1].lstrip()) for row in rows}
    assert starts == {2 + len(long) + 2}


def test_train_hands_over_to_the_zoo(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr(
        training, "train", lambda name, work, say, **options: calls.append((name, work, options))
    )
    assert cli.main(["train", "mini/llava-1.5", "--work", str(tmp_path), "--steps", "7"]) == 0
    assert cli.main(["train", "llava-1.5", "--work", str(tmp_path)]) == 0
    assert calls == [("llava-1.5", tmp_path, {"steps": 7}), ("llava-1.5", tmp_path, {})]
    assert "did you mean llava-1.5" in refused(capsys, "train", "llava-15")
    assert "at least 1" in refused(capsys, "train", "llava-1.5", "--steps", "0")
    monkeypatch.setattr(training, "train", lambda name, work, **o: (work / "below").mkdir())
    (tmp_path / "file").write_text("mine")
    told = refused(capsys, "train", "llava-1.5", "--work", tmp_path / "file")
    assert "Cannot write: not a directory" in told and str(tmp_path / "file") in told
