"""What keeps a page from being served is told in a sentence, before a model is loaded."""

import socket
import sys

import pytest
from refusals import refuses

from lvlm_study import cli
from lvlm_study.sweep import app
from lvlm_study.sweep.address import check_address, check_size


@pytest.fixture
def free():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_is_refused_while_another_program_listens(free, host):
    port = free.getsockname()[1]
    free.listen()
    refuses(f"Port {port} of .* is in use already; .*--port", check_address, host, port)
    free.close()
    check_address(host, port)


@pytest.mark.parametrize("size", ["20mb", "10KB", "1 gb", "500b"])
def test_sizes(size):
    check_size(size)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "99999"], "from 1 to 65535, not 99999"),
        (["--port", "-1"], "from 1 to 65535, not -1"),
        (["--port", "0"], "from 1 to 65535, not 0"),
        (["--upload-limit", "abc"], "as in 20mb, not 'abc'"),
        (["--upload-limit", "0mb"], "as in 20mb, not '0mb'"),
        (["--upload-limit", "20"], "as in 20mb, not '20'"),
        (["--host", "no.such.host.invalid"], "no host named 'no.such.host.invalid'"),
        (["--host", "x" * 80], "There is no host named"),
        (["--host", "192.0.2.1"], "192.0.2.1 is no address of this machine"),
    ],
)
def test_start_options_are_told_before_the_model_is_loaded(options, said, monkeypatch, capsys):
    monkeypatch.setattr(app, "_gradio", lambda: None)
    monkeypatch.setattr(app, "opened", lambda name: pytest.fail("the model was loaded"))
    assert cli.main(["app", "--port", "47861", *options]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_missing_gradio_is_told_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(app, "opened", lambda name: pytest.fail("the model was loaded"))
    refuses(r"The app needs Gradio; run pip install", app.serve, "mini/llava")
