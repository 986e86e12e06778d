"""The judge protocol: what is sent, what is read from replies, and that nothing leaks a key."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

from lvlm_study.detector import judge_protocol as jp
from lvlm_study.errors import StudyError

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture
def server(monkeypatch):
    """A local server that answers what is put into `replies` and keeps what it was sent."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            self.server.seen.append((self.path, body, self.headers.get("Authorization")))
            status, reply = self.server.replies.pop(0)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *args):
            pass

    found = HTTPServer(("127.0.0.1", 0), Handler)
    found.seen, found.replies = [], []
    found.address = f"http://127.0.0.1:{found.server_address[1]}/v1"
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def said(text: str) -> tuple[int, str]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]})


def test_captions_are_scored_with_the_prompts_of_the_seed(server, monkeypatch):
    monkeypatch.setenv("A_KEY", "not-to-be-seen")
    server.replies += [said("7"), said("Score: 9."), said("I cannot tell.")]
    judge = jp.endpoint_judge(server.address + "/", "some-judge", "A_KEY")
    found = jp.judge_captions(judge, ["A cat.", "Two dogs.", "Fog."], images=[RGB] * 3)
    assert found.scores[:2].tolist() == [7, 9] and np.isnan(found.scores[2])
    assert found.mean.value == 8 and (found.mean.n, found.mean.skipped) == (2, 1)
    path, body, key = server.seen[1]
    assert path == "/v1/chat/completions" and key == "Bearer not-to-be-seen"
    assert body["model"] == "some-judge" and body["temperature"] == 0
    system, user = body["messages"]
    assert system["content"].startswith("Please act as an impartial judge")
    text, picture = user["content"]
    assert text["text"] == (
        "From 1 to 10, score this caption for the image: Two dogs.. "
        "Only answer with a number from 1 to 10."
    )
    sent = base64.b64decode(picture["image_url"]["url"].split(",")[1])
    assert (np.asarray(Image.open(io.BytesIO(sent))) == RGB).all()
    assert "not-to-be-seen" not in repr(found) + json.dumps([b for _, b, _ in server.seen])


def test_a_local_model_reads_what_the_picture_shows():
    prompts = []
    judge = jp.local_judge(lambda prompt: prompts.append(prompt) or "4")
    found = jp.judge_captions(judge, ["A cat."], truths=["a red bus by day"])
    assert found.scores.tolist() == [4]
    assert "score this caption for the image: A cat." in prompts[0]
    assert prompts[0].rstrip().endswith("What the image truly shows: a red bus by day")
    with pytest.raises(StudyError, match="sees no pictures"):
        jp.judge_captions(judge, ["A cat."], images=[RGB])


def test_what_cannot_be_judged():
    for given in ({}, {"images": [RGB, RGB]}, {"truths": []}):
        with pytest.raises(StudyError, match="give one of them|1 captions need as many"):
            jp.judge_captions(jp.local_judge(str), ["A cat."], **given)


def test_a_server_that_refuses_or_speaks_otherwise(server):
    judge = jp.endpoint_judge(server.address, "m")
    cases = [
        ((401, "{}"), "refused with status 401"),
        ((302, ""), "refused with status 302"),
        ((200, "no json"), "no usable reply"),
        ((200, "{}"), "does not answer as an OpenAI-compatible"),
    ]
    for reply, message in cases:
        server.replies.append(reply)
        with pytest.raises(StudyError, match=message):
            jp.judge_captions(judge, ["A cat."], images=[RGB])
    assert all(key is None for _, _, key in server.seen)


def test_addresses_and_keys(monkeypatch):
    for address in ("localhost:8000", "file:///etc/passwd", ""):
        with pytest.raises(StudyError, match="no address of a server"):
            jp.endpoint_judge(address, "m")
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(StudyError, match="A_KEY holds no key"):
        jp.endpoint_judge("https://example.org/v1", "m", "A_KEY")
    monkeypatch.setenv("A_KEY", "secret")
    with pytest.raises(StudyError, match="not sent to example.org without https"):
        jp.endpoint_judge("http://example.org/v1", "m", "A_KEY")
    jp.endpoint_judge("https://example.org/v1", "m", "A_KEY")
    judge = jp.endpoint_judge("http://127.0.0.1:1/v1", "m", "A_KEY")
    with pytest.raises(StudyError, match="no usable reply") as error:
        jp.judge_captions(judge, ["A cat."], images=[RGB])
    assert "secret" not in str(error.value)
