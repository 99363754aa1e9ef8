"""Hub ids: what the hub says of access is passed on with its remedy, and a hub that says nothing is not asked twice."""

import http.server
import shutil
import threading

import pytest
from huggingface_hub import constants

from lco import cli, hub, models
from lco.errors import UserError
from lco.problems import load_problems
from tests.conftest import START

ANSWERS = {"gated": (403, "GatedRepo"), "absent": (404, "RepoNotFound"), "open": (200, ""), "mirror": (404, "")}


class Answering(http.server.BaseHTTPRequestHandler):
    """A hub that knows `somebody/gated`, `somebody/absent`, `somebody/open` and nothing but them."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status, code = ANSWERS[self.path.removesuffix("/auth-check").rsplit("/", 1)[-1]]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def fresh():
    hub.answers.cache_clear()


@pytest.fixture
def server(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as found:
        found.asked = []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{found.server_port}")
        yield found
        found.shutdown()


@pytest.fixture
def silent(monkeypatch, tmp_path):
    """A hub at a port where nobody listens, and an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_gated_model_names_its_licence_and_the_token(server):
    with pytest.raises(UserError, match=r"somebody/gated is gated: accept its licence at .* and set HF_TOKEN"):
        models.load_config("somebody/gated")


def test_an_id_that_the_hub_does_not_know_is_said_in_one_question(server):
    with pytest.raises(UserError, match=r"the hub knows no model somebody/absent, or it is private.*HF_TOKEN"):
        models.load_tokenizer("somebody/absent")
    assert len(server.asked) == 1


def test_an_id_that_can_be_read_and_a_mirror_that_knows_no_such_question_pass(server):
    assert hub.answers("somebody/open")
    assert hub.answers("somebody/open")
    assert len(server.asked) == 1
    assert hub.answers("somebody/mirror")


def test_a_silent_hub_is_one_sentence_with_the_ways_out(silent, capsys):
    run = [
        "train",
        "--model",
        "somebody/model",
        "--problems",
        "addition",
        "--device",
        "cpu",
        "--out",
        str(silent / "run"),
    ]
    assert cli.main(run) == 2
    said = capsys.readouterr().err
    assert "the hub does not answer and somebody/model is not in the cache (HF_HOME)" in said
    assert "or give a local folder" in said
    assert "Retrying" not in said


def test_offline_mode_is_named_where_it_is_the_reason(silent, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set and somebody/model is not in the cache"):
        models.load_config("somebody/model")


def test_a_silent_hub_leaves_the_copy_in_the_cache(silent):
    snapshot = silent / "models--somebody--model" / "snapshots" / ("0" * 40)
    shutil.copytree(START / "llama", snapshot)
    references = silent / "models--somebody--model" / "refs"
    references.mkdir()
    (references / "main").write_text("0" * 40)
    loaded = models.load_model("somebody/model", "float32", "cpu")
    assert models.weights_sha256(loaded) == models.weights_sha256(
        models.load_model(str(START / "llama"), "float32", "cpu")
    )
    assert models.public_name("somebody/model") == "somebody/model"


def test_problems_of_a_silent_hub_are_one_sentence_too(silent, capsys):
    with pytest.raises(UserError, match=r"openai/gsm8k: the hub does not answer.*--data-dir"):
        load_problems("gsm8k", "test")
    assert "Retrying" not in capsys.readouterr().err
