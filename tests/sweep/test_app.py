"""The app: what one visitor asks stays with that visitor, can be stopped, and leaks no file."""

import hashlib
import json
import socket
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from refusals import refuses

from lvlm_study.models.planted import planted, planted_scene
from lvlm_study.sweep import app

SCENE = planted_scene((64, 96))


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A picture's file; every name is the planted reader's."""
    reader = planted("object")
    monkeypatch.setattr(app, "opened", lambda name: reader)
    Image.fromarray(SCENE).save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


def asked(scene) -> app.Sitting:
    return app.ask(scene, "What is it?", "planted", 8, app.Sitting())


def test_the_words_of_an_answer_can_be_chosen(scene):
    names = [name for name, _ in app.choices(asked(scene))]
    assert names == ["all words that depend on the picture •", "The", "shape", "is", "red •"]


def test_an_answer_that_no_picture_changes_says_so(scene, monkeypatch):
    blind = planted("blind")
    monkeypatch.setattr(app, "opened", lambda name: blind)
    sitting = asked(scene)
    names = [name for name, _ in app.choices(sitting)]
    assert names[0] == "no word depends on the picture" and "•" not in "".join(names)
    for word, said in (
        (app.VISUAL, "No word of this answer"),
        (3, "the chosen words by less than 0.05, so their map"),
    ):
        scores = app.look(sitting, word, "occlusion")[1]
        assert not app.table(scores) and said in app.unscored(scores)


def test_a_map_is_made_once(scene):
    sitting, counted = asked(scene), []
    first, scores = app.look(sitting, 3, "occlusion", lambda done, **_: counted.append(done))
    assert first.reliance.words == ("red",) and counted[-1][0] > 0
    rows = {row[0]: row[3] for row in app.table(scores)}
    assert rows["this map"] > rows["Random map"]
    before = len(counted)
    assert app.look(sitting, 3, "occlusion", counted.append)[0] is first and len(counted) == before


def test_stop_ends_a_map_and_the_next_one_works(scene):
    sitting = asked(scene)
    with pytest.raises(app.Stopped):
        app.look(sitting, 3, "occlusion", lambda *a, **k: sitting.stop.set())
    assert app.look(sitting, 3, "occlusion")[0].status == "ok"


def test_one_visitor_does_not_stop_or_see_another(scene):
    mine, yours, found = asked(scene), asked(scene), {}
    yours.stop.set()
    yours.answer = None

    def other():
        found["mine"] = app.look(mine, 3, "occlusion")[0]

    thread = threading.Thread(target=other)
    thread.start()
    refuses("Ask a question first", app.look, yours, 3, "occlusion")
    thread.join()
    assert found["mine"].status == "ok" and not yours.made


def test_the_files_are_those_of_the_command(scene):
    sitting = asked(scene)
    ex, scores = app.look(sitting, app.VISUAL, "occlusion")
    assert app.unscored(scores) == ""
    paths = app.files(sitting, app.VISUAL, ex, scores)
    assert [Path(p).name for p in paths] == ["overlay.png", "saliency.npz", "explanation.json"]
    assert np.array_equal(np.load(paths[1])["saliency"], ex.saliency)
    text = Path(paths[2]).read_text(encoding="utf-8")
    assert str(Path(scene).parent) not in text
    record, bytes_ = json.loads(text), Path(scene).read_bytes()
    assert record["image_sha256"] == hashlib.sha256(bytes_).hexdigest()
    assert record["max_new_tokens"] == 8
    assert record["choice"] == {"tokens": "llr", "word": None}
    again = json.loads(Path(app.files(sitting, 3, ex, scores)[2]).read_text(encoding="utf-8"))
    assert again["choice"] == {"tokens": [3], "word": "red"}


def test_a_mini_model_is_said_to_know_drawn_scenes_only():
    assert "drawn scenes only" in app.note("mini/llava") and app.note("llava-1.5-7b") == ""


@pytest.mark.parametrize(
    ("file", "question", "said"), [(None, "What?", "picture first"), ("x.png", " ", "question")]
)
def test_what_is_missing_is_told(scene, file, question, said):
    refuses(said, app.ask, file, question, "planted", 8, app.Sitting())


def test_an_upload_reaches_the_model_as_the_file_it_is(tmp_path):
    """Gradio would lay a clear picture on black, and write it and a turned photograph anew."""
    gradio = pytest.importorskip("gradio", reason="the app's tests need the extra app")
    clear, turned, text = (tmp_path / name for name in ("clear.png", "turned.jpg", "text.png"))
    Image.new("RGBA", (4, 6), (0, 0, 0, 0)).save(clear)
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 4)).save(turned, exif=exif)
    text.write_text("no picture", encoding="utf-8")
    component = app._untouched(gradio.Image(type="filepath"))
    for file in (clear, turned, text):
        sent = gradio.data_classes.ImageData(path=str(file), orig_name=file.name)
        assert component.preprocess(sent) == str(file)
    assert component.preprocess(None) is None
    assert (app.picture_of(str(clear)) == 255).all()
    assert app.picture_of(str(turned)).shape == (8, 4, 3)


def test_what_is_no_picture_is_told_by_its_name_alone(tmp_path):
    (tmp_path / "notes.png").write_text("no picture", encoding="utf-8")
    file = str(tmp_path / "notes.png")
    told = refuses("notes.png", app.ask, file, "What?", "planted", 8, app.Sitting())
    assert told == "The file notes.png is not an image in a known format; save it as PNG or JPEG."


def test_the_page_says_that_it_works_and_an_error_clears_it(scene, tmp_path):
    """The steps that a visitor sees, of an answer and of a file that is no picture."""
    gradio = pytest.importorskip("gradio", reason="the app's tests need the extra app")
    handler = app._told(gradio, app._asking, lambda text: app._blank(gradio, text))
    (tmp_path / "notes.png").write_text("no picture", encoding="utf-8")
    asking = ("What is it?", "planted", 8, app.Sitting())
    working, answered = handler(scene, *asking)
    _, refused = handler(str(tmp_path / "notes.png"), *asking)
    assert working[2] == answered[2] == app.WORKING and len(answered[1].choices) == 5
    assert "**The file notes.png is not an image" in refused[2]
    for sitting, word, _, seen, scores, found in (working, refused):
        assert sitting.answer is None and not seen and not found
        assert not word.choices and not word.visible and not scores.visible
        assert word.constructor_args["value"] is None  # else the browser keeps the old choice


@pytest.mark.slow
def test_the_page_serves_nobody_elses_files(scene):
    """A real server on this machine: no file outside its own, no upload over the limit."""
    pytest.importorskip("gradio", reason="the app's tests need the extra app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = app.serve("planted", port=port, limit="10kb", block=False)
    try:
        url = f"http://127.0.0.1:{port}"
        assert b"gradio" in urlopen(url, timeout=60).read()
        for path in ("/etc/passwd", scene, __file__):
            with pytest.raises(HTTPError, match="403|404"):
                urlopen(f"{url}/gradio_api/file={path}", timeout=60)
        with pytest.raises(HTTPError, match="413"):
            body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
            urlopen(_upload(f"{url}/gradio_api/upload", body + b"0" * 20_000 + b"\r\n--x--\r\n"))
    finally:
        blocks.close()


def _upload(url: str, body: bytes):
    from urllib.request import Request

    return Request(url, body, {"Content-Type": "multipart/form-data; boundary=x"}, method="POST")
