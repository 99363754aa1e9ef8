"""Real `vllm serve` processes, started by `lco serve` on the miniature's start model: weights, seeds, a server killed in the
middle of a rollout and started again, and a run that keeps their address to itself."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import torch

from lco import models
from lco.addresses import TOKEN, URLS, read_addresses
from lco.cli import main
from lco.rollout.records import Sampling
from lco.rollout.spread import Patience
from lco.rollout.vllm_server import VLLMServerSampler
from tests.conftest import START, lines, without_time
from tests.rollout.conftest import trainer_gap

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SECRET = "a-word-that-nobody-else-knows"
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=24, samples=4, stop_token_ids=(2,))
PROMPTS = [(f"p{i}", (1, 5 + i % 7, 9, 11 + i % 3)) for i in range(32)]
MANY = [(f"m{i}", (1, 5 + i % 7, 9, 11 + i % 3)) for i in range(96)]
"""So many that most are still to be sent when the first rows are back."""
PATIENCE = Patience(in_flight=4, retry=1.0, give_up=600.0)


class Served:
    """A server of its own process group."""

    def __init__(self):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = [sys.executable, "-m", "lco.cli", "serve", str(START / "llama"), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--vllm-cache-gib", "0.1"],
            env={**os.environ, "PYTHONPATH": str(ROOT), TOKEN: SECRET, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def wait(self):
        for _ in range(600):
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}"
            try:
                if httpx.get(f"{self.url}/health", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(1)
        raise AssertionError("the server does not come up")

    def kill(self):
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def servers():
    made = [Served(), Served()]
    try:
        for server in made:
            server.wait()
        yield made
    finally:
        for server in made:
            server.kill()


@pytest.fixture
def model():
    return models.load_model(str(START / "llama"), "float32", "cpu").eval()


@pytest.fixture
def make():
    made = []

    def sampler(*servers):
        variables = {URLS: " ".join(server.url for server in servers), TOKEN: SECRET}
        made.append(VLLMServerSampler(read_addresses(variables), "float32", PROMPTS[0][1], patience=PATIENCE))
        return made[-1]

    yield sampler
    for each in made:
        each.close()


def perturb(model, seed):
    """Noise of 30 % of each tensor's own size, embedding and head included."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.3 * p.std().clamp(min=0.1)))


def ids(rows):
    return [(row.group, row.response_ids) for row in rows]


def weights(model):
    return models.checkpoint_weights(model, model.state_dict().items())


@pytest.mark.timeout(2400)
def test_servers_follow_the_trainers_weights_and_without_a_synchronisation_do_not(servers, make, model):
    sampler = make(*servers)
    sampler.sync(weights(model))
    assert trainer_gap(model, sampler.sample(PROMPTS, SAMPLING, seed=1)) < 1e-4
    perturb(model, seed=1)
    assert trainer_gap(model, sampler.sample(PROMPTS, SAMPLING, seed=1)) > 0.1
    sampler.sync(weights(model))
    rows = sampler.sample(PROMPTS, SAMPLING, seed=1)
    assert trainer_gap(model, rows) < 1e-4
    assert {row.version for row in rows} == {2}
    for server in servers:  # each alone, so that neither hides behind the other
        alone = make(server)
        alone.sync(weights(model))
        assert trainer_gap(model, alone.sample(PROMPTS, SAMPLING, seed=1)) < 1e-4
        assert ids(alone.sample(PROMPTS, SAMPLING, seed=1)) == ids(rows)
        assert ids(alone.sample(PROMPTS, SAMPLING, seed=2)) != ids(rows)


@pytest.mark.timeout(2400)
def test_a_server_killed_in_the_middle_of_a_rollout_costs_no_row_and_returns_with_the_current_weights(
    servers, make, model, capsys
):
    perturb(model, seed=3)  # not what a server loads when it starts
    sampler = make(*servers)
    sampler.sync(weights(model))
    whole = sampler.sample(MANY, SAMPLING, seed=5)
    parts = []
    # Frozen first, so that what it was asked is certainly unanswered when it ends, however fast the machine is.
    os.killpg(servers[1].process.pid, signal.SIGSTOP)
    end = threading.Timer(3.0, servers[1].kill)
    end.start()
    again = sampler.sample(MANY, SAMPLING, 5, parts.extend)
    end.join()
    assert servers[1].process.poll() is not None
    assert parts == again
    assert ids(again) == ids(whole)
    said = capsys.readouterr().err
    assert "vLLM server 2 of 2" in said
    assert "is sampled again by the same seeds" in said

    servers[1].start()
    servers[1].wait()
    servers[0].kill()  # so that all rows are the returned one's
    rows = sampler.sample(MANY, SAMPLING, seed=5)
    assert trainer_gap(model, rows) < 1e-4
    assert ids(rows) == ids(whole)
    assert "vLLM server 2 of 2 is back, with the current weights" in capsys.readouterr().err
    servers[0].start()
    servers[0].wait()


def test_nobody_without_the_token_reaches_any_route(servers):
    for route in ("/health", "/collective_rpc", "/v1/models"):
        assert httpx.post(f"{servers[0].url}{route}", json={"method": "seed"}).status_code == 401
    given = {"Authorization": f"Bearer {SECRET}x"}
    assert httpx.get(f"{servers[0].url}/health", headers=given).status_code == 401


@pytest.mark.timeout(1200)
def test_a_run_samples_from_servers_and_leaves_neither_address_nor_token_anywhere(
    servers, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(TOKEN, SECRET)
    monkeypatch.setenv(URLS, "")
    out = tmp_path / "run"
    given = "--problems arithmetic --extraction hash --max-prompt-tokens 32 --max-new-tokens 16 --prompts-per-step 4 --samples 4"
    more = "--steps 2 --lr 1e-2 --limit 50 --device cpu --method grpo --rollouts vllm-server --vllm-url"
    urls = [server.url for server in servers]
    assert (
        main(["train", "--model", str(START / "llama"), "--out", str(out), *given.split(), *more.split(), *urls]) == 0
    )
    found = lines(out)
    assert len(found) == 2
    assert all(line["sampler_gap_max"] < 1e-3 for line in found)
    printed = "".join(capsys.readouterr())
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {"config.json", "manifest.json", "metrics.jsonl", "samples.jsonl"} <= {path.name for path in files}
    for secret in (SECRET, *(str(server.port) for server in servers), *urls):
        assert secret not in printed
        assert not [
            path for path, content in files.items() if f":{secret}".encode() in content or SECRET.encode() in content
        ]


@pytest.mark.timeout(2400)
def test_rollouts_of_servers_wait_too_and_survive_a_kill(servers, tmp_path):
    """With --staleness: every rollout is drawn with the weights of the moment, and after a kill of the trainer it is the saved
    rows, with the servers' own numbers, that are learnt from."""
    out = tmp_path / "run"
    given = "--problems arithmetic --extraction hash --max-prompt-tokens 32 --max-new-tokens 16 --prompts-per-step 4 --samples 4"
    more = (
        "--steps 5 --staleness 2 --save-every 1 --lr 1e-2 --limit 50 --device cpu --method cispo --rollouts vllm-server"
    )
    command = [sys.executable, "-m", "lco.cli", "train", "--model", str(START / "llama"), "--out", str(out)]
    command += [*given.split(), *more.split(), "--vllm-url", *(server.url for server in servers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), TOKEN: SECRET}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "metrics.jsonl").exists() or len((out / "metrics.jsonl").read_text().split("\n")) <= 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.kill()
        process.wait()
    before = lines(out)
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = lines(out)
    assert [without_time(line) for line in found[: len(before)]] == [without_time(line) for line in before]
    assert [(line["policy_version"], line["policy_age"]) for line in found] == [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]
    assert all(line["sampler_gap_max"] < 1e-3 for line in found)
    assert all(line["kl_old"] > 1e-6 for line in found[1:])
