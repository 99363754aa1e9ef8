"""A vLLM engine that is killed ends what waits for it, in one sentence, and leaves nothing behind."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from lco.errors import UserError
from lco.rollout.memory import SHARED_MEMORY
from lco.rollout.vllm_process import call_watched
from lco.scratch import PREFIX
from tests.conftest import START
from tests.rollout.conftest import save, small_model


@pytest.fixture
def child():
    found = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    found.start()
    yield found
    found.kill()
    found.join()


def end(process, how=signal.SIGKILL):
    os.kill(process.pid, how)
    process.join()


def refuse():
    raise UserError("a mistake")


def test_a_call_returns_and_raises_as_without_a_watch(child):
    assert call_watched(lambda: 7, [child], "counting") == 7
    with pytest.raises(UserError, match="a mistake"):
        call_watched(refuse, [child], "refusing")
    with pytest.raises(
        UserError, match=r"the vLLM engine failed during looking \('gone'\); its own messages stand above"
    ):
        call_watched(lambda: {}["gone"], [child], "looking")


def test_a_call_that_waits_for_a_dead_process_ends_with_its_name(child):
    def wait():
        end(child)
        threading.Event().wait()

    with pytest.raises(UserError, match=rf"pid {child.pid}\) was ended by SIGKILL during sampling; .*--resume"):
        call_watched(wait, [child], "sampling")


def test_what_a_call_raises_when_its_process_has_ended_is_not_the_reason(child):
    def fail():
        threading.Timer(0.5, end, [child, signal.SIGTERM]).start()  # a moment later
        raise RuntimeError("connection lost")

    with pytest.raises(UserError, match=r"was ended by SIGTERM during the synchronisation"):
        call_watched(fail, [child], "the synchronisation of weights")


OWNER = """
import os, sys
from lco.errors import UserError
from lco.rollout.records import Sampling
from lco.rollout.vllm import VLLMSampler
if __name__ == "__main__":
    sampler = VLLMSampler(sys.argv[1], "float32", 0.1, 128, separate_process=True)
    sampling = Sampling(1.0, 1.0, 0, 120, 8, ())
    prompts = [(str(i), (1, 3 + i % 9, 4)) for i in range(int(sys.argv[2]))]
    sampler.sample(prompts[:1], sampling, seed=0)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        sampler.sample(prompts, sampling, seed=1)
        print("sampled", flush=True)
    except UserError as error:
        print(error, flush=True)
    finally:
        sampler.close()
"""


@pytest.fixture
def temporary():
    """A folder for temporary files with a name that is short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def owner(tmp_path, temporary):
    """(process, its engine's processes): a trainer that samples with an engine of its own, at a sign."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    folder = save(small_model(), tmp_path / "model")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, str(script), folder, "4000"], env=environment, text=True, process_group=0,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert any("ready" in line for line in process.stdout)
        yield process, {p.name(): p for p in psutil.Process(process.pid).children(recursive=True)}
        process.kill()


@pytest.mark.long
@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("VLLM::EngineCore", r"the vLLM engine \(pid \d+\) was ended by SIGKILL during sampling; .*--resume"),
        ("VLLM::Worker", r"the vLLM engine (\(pid \d+\) .*ended|failed) .*during sampling.*--resume"),
    ],
)
def test_a_killed_engine_ends_the_rollout_that_waits_for_it(owner, temporary, which, words):
    process, engine = owner
    process.stdin.write("\n")
    process.stdin.flush()
    before = engine[which].cpu_times().user
    while engine[which].cpu_times().user < before + 1:  # until it is at work
        time.sleep(0.1)
    engine[which].kill()
    said, _ = process.communicate(timeout=120)
    assert re.search(words, said), said
    assert "sampled" not in said
    assert process.returncode == 0
    _, alive = psutil.wait_procs(engine.values(), timeout=30)
    assert not alive
    assert not list(temporary.glob(f"{PREFIX}*"))


@pytest.mark.long
def test_a_killed_trainer_leaves_no_shared_memory_and_its_folder_goes_with_the_next(owner, temporary):
    from lco.scratch import remove_abandoned

    process, engine = owner
    mapped = {
        Path(m.path.removesuffix(" (deleted)"))
        for p in engine.values()
        for m in p.memory_maps()
        if m.path.startswith(str(SHARED_MEMORY / "psm_"))
    }
    process.kill()
    _, alive = psutil.wait_procs(engine.values(), timeout=30)
    assert not alive
    assert mapped
    assert not [file for file in mapped if file.exists()]
    assert len(list(temporary.glob(f"{PREFIX}*"))) == 1
    remove_abandoned(temporary)
    assert not list(temporary.glob(f"{PREFIX}*"))


@pytest.mark.long
def test_training_of_two_ranks_ends_when_its_engine_is_killed(tmp_path):
    """What waits here is a rank; the others wait for it, and the launcher for all of them."""
    run = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "lco.cli", "train", "--engine", "deepspeed", "--processes", "2", "--device", "cpu"),
        *("--rollouts", "vllm", "--vllm-cache-gib", "0.1", "--model", str(START / "llama"), "--problems", "arithmetic"),
        *("--extraction", "hash", "--max-prompt-tokens", "32", "--prompts-per-step", "6", "--samples", "4"),
        *("--minibatches", "2", "--steps", "100000", "--save-every", "1", "--out", str(run)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, process_group=0) as training:
        while not (run / "checkpoints" / "step-000002").exists():
            assert training.poll() is None
            time.sleep(0.2)
        everyone = psutil.Process(training.pid).children(recursive=True)
        next(p for p in everyone if p.name() == "VLLM::EngineCore").kill()
        _, said = training.communicate(timeout=120)
        assert training.returncode == 2
        assert re.search(r"the vLLM engine \(pid \d+\) was ended by SIGKILL during .*--resume", said), said
        _, alive = psutil.wait_procs(everyone, timeout=30)
        assert not alive
