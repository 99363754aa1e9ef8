"""vLLM has the trainer's weights after a sync, and only then; its engine leaves nothing behind and outlives nobody."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import torch

from lco.errors import UserError
from lco.rollout.records import Sampling
from lco.rollout.vllm import VLLMSampler
from lco.rollout.vllm_process import surroundings
from tests.rollout.conftest import save, small_model, trainer_gap

PROMPTS = [("a", (1, 5, 6, 9)), ("b", (1, 8)), ("c", (1, 3, 4, 5, 6, 7, 8, 9, 10))]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=16, samples=4, stop_token_ids=(2, 5))
CASES = [
    pytest.param(("qwen", True, False), id="tied-in-process"),
    pytest.param(("llama", False, False), id="untied-in-process"),
    pytest.param(("qwen", True, True), id="tied-own-process"),
    pytest.param(("llama", False, True), id="untied-own-process", marks=pytest.mark.long),
]


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """A trainer's model and a vLLM engine that loaded the same folder."""
    kind, tied, separate = request.param
    model = small_model(kind, tied, seed=1)
    folder = save(model, tmp_path_factory.mktemp("model"))
    before = dict(os.environ), torch.set_num_threads
    sampler = VLLMSampler(folder, "float32", cache_gib=0.1, max_model_len=64, separate_process=separate)
    after = dict(os.environ), torch.set_num_threads
    yield model, sampler, before, after
    sampler.close()


def perturb(model, names, seed):
    """Noise of 30 % of each tensor's own size: far above anything that kernels differ by."""
    g = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for p in {id(parameters[name]): parameters[name] for name in names}.values():
            p.add_(torch.randn(p.shape, generator=g) * (0.3 * p.std().clamp(min=0.1)))


def gap(model, sampler):
    return trainer_gap(model, sampler.sample(PROMPTS, SAMPLING, seed=7))


def test_logprobs_follow_the_trainers_weights_and_two_controls_do_not(pair, record_property):
    """Body and head are perturbed apart; without a sync, and with one that lacks the head, the gap is enormous."""
    model, sampler, *_ = pair
    body = [name for name, _ in model.named_parameters() if "embed" not in name and "lm_head" not in name]
    sampler.sync(model.state_dict().items())
    found = {"before": gap(model, sampler)}
    perturb(model, body, seed=1)
    found["body, no sync"] = gap(model, sampler)
    sampler.sync(model.state_dict().items())
    found["body, synchronised"] = gap(model, sampler)
    perturb(model, ["lm_head.weight"], seed=2)
    found["head, no sync"] = gap(model, sampler)
    sampler.reload((name, w) for name, w in model.state_dict().items() if name != "lm_head.weight")
    found["head, left out of the sync"] = gap(model, sampler)
    sampler.sync(model.state_dict().items())
    found["head, synchronised"] = gap(model, sampler)
    print(json.dumps(found))
    record_property("gaps", found)
    for name, value in found.items():
        assert value < 1e-4 if name.endswith(("before", "synchronised")) else value >= 0.1, (name, value)


def test_a_sync_that_lacks_the_head_is_refused(pair):
    model, sampler, *_ = pair
    with pytest.raises(UserError, match=r"lack lm_head\.weight"):
        sampler.sync(model.named_parameters() if model.config.tie_word_embeddings else iter([]))


def test_a_seed_repeats_whatever_ran_before_and_another_one_does_not(pair):
    _, sampler, *_ = pair
    prompts = [(str(i), (1, 3 + i % 7, 4)) for i in range(64)]
    first = sampler.sample(prompts, SAMPLING, seed=3)
    sampler.sample(PROMPTS, SAMPLING, seed=9)
    assert sampler.sample(prompts, SAMPLING, seed=3) == first
    other = sampler.sample(prompts, SAMPLING, seed=4)
    assert [row.response_ids for row in other] != [row.response_ids for row in first]


def test_cached_prefixes_do_not_survive_a_sync(pair):
    """A prompt of several cache blocks, asked before and after the weights change."""
    model, sampler, *_ = pair
    long = [("a", (1, *range(3, 40)))]
    sampler.sync(model.state_dict().items())
    sampler.sample(long, SAMPLING, seed=1)
    perturb(model, ["model.layers.0.self_attn.k_proj.weight", "lm_head.weight"], seed=5)
    sampler.sync(model.state_dict().items())
    assert trainer_gap(model, sampler.sample(long, SAMPLING, seed=1)) < 1e-4


def test_the_engine_leaves_its_surroundings_as_they_were(pair):
    _, _, (variables, threads), (variables_after, threads_after) = pair
    assert threads_after is threads
    ours = {name: value for name, value in variables_after.items() if not name.startswith("VLLM_")}
    assert ours == {name: value for name, value in variables.items() if not name.startswith("VLLM_")}


def test_a_cache_too_small_for_one_row_is_said_and_the_next_engine_starts(tmp_path):
    folder = save(small_model(), tmp_path)
    with pytest.raises(UserError, match=r"vLLM refuses .*the cache is set by --vllm-cache-gib"):
        VLLMSampler(folder, "float32", cache_gib=1e-5, max_model_len=128, separate_process=False)
    sampler = VLLMSampler(folder, "bfloat16", cache_gib=0.01, max_model_len=None, separate_process=False)
    rows = sampler.sample(PROMPTS, SAMPLING, seed=1)
    sampler.close()
    sampler.close()
    assert 1e-4 < trainer_gap(small_model(), rows) < 0.3  # bfloat16 against float32


def test_a_users_own_settings_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("RANK", "1")
    with surroundings(tmp_path):
        assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
        assert "RANK" not in os.environ
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert os.environ["RANK"] == "1"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_the_folder_of_an_engines_sockets_is_no_later_processes(monkeypatch, tmp_path, before):
    """It goes with the engine, and a server that is started from here would not come up."""
    monkeypatch.delenv("VLLM_RPC_BASE_PATH", raising=False)
    if before is not None:
        monkeypatch.setenv("VLLM_RPC_BASE_PATH", before)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short enough for a socket's name
        with surroundings(Path(folder)):
            assert os.environ["VLLM_RPC_BASE_PATH"] == folder
        assert os.environ.get("VLLM_RPC_BASE_PATH") == before


def test_too_little_memory_is_said_before_anything_is_loaded(tmp_path):
    folder = save(small_model(), tmp_path)
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"vLLM needs 1000000\.0 GiB .* are free; lower --vllm-cache-gib"):
        VLLMSampler(folder, "float32", cache_gib=1e6, max_model_len=64, separate_process=False)
    assert time.perf_counter() - start < 1


OWNER = """
import sys, time
from lco.rollout.vllm import VLLMSampler
if __name__ == "__main__":
    sampler = VLLMSampler(sys.argv[1], "float32", 0.1, 64, separate_process=True)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.parametrize("moment", ["ready", "loading"])
def test_the_engine_ends_with_a_killed_trainer_and_outlives_ctrl_c(tmp_path, moment):
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    folder = save(small_model(), tmp_path / "model")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), folder]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, process_group=0) as owner:
        if moment == "ready":
            assert any("ready" in line for line in owner.stdout)
        else:
            while not psutil.Process(owner.pid).children():
                time.sleep(0.1)
            time.sleep(3)
        engine = psutil.Process(owner.pid).children(recursive=True)
        assert engine
        if moment == "ready":
            for process in engine:
                process.send_signal(signal.SIGINT)
            time.sleep(2)
            assert all(process.is_running() for process in engine)
        owner.kill()
        _, alive = psutil.wait_procs(engine, timeout=30)
        assert not alive
