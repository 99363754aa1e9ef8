"""DeepSpeed makes the same steps as plain torch, on one rank and on two; its runs end when and how they should."""

import itertools
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from lco.disk import sha256
from lco.errors import UserError
from lco.training import launch
from lco.training.deepspeed import SHARED_MEMORY, read_restricted
from tests.conftest import START, lines

ROOT = Path(__file__).parents[2]
SHORT = {
    2: ["2-tied-token", "2-untied-row-resume", "2-untied-token-bucket", "3-untied-token-critic", "3-tied-row-sample-resume",
        "2-tied-token-nan", "3-tied-token-bf16", "2-tied-token-verifier", "3-untied-token-ratio",
        "2-untied-row-gspo", "2-tied-token-dapo", "2-untied-token-logprob-seq_mean_token_mean"],
    1: ["2-untied-token-critic", "3-tied-row"],
}  # fmt: skip
EXTRAS = ["", "-critic", "-bucket", "-bf16", "-bf16-critic", "-nan", "-sample-resume"]
ROW_LOSSES = [
    "2-tied-row-pmd",
    "3-untied-row-pmd",
    "3-tied-row-gspo",
    "3-untied-token-dapo",
    "3-tied-row-gspo-token_mean",
]
OTHER_LOSSES = ["-mse", "-logprob", "-lch", "-verifier", "-ratio", "-released"]
FULL = ["-".join(case) for case in itertools.product("23", ["tied", "untied"], ["token", "row"])]
LAUNCHES = [
    pytest.param(2, SHORT[2], id="2-ranks"),
    pytest.param(1, SHORT[1], id="1-rank"),
    pytest.param(
        2,
        [*(f + e for f in FULL for e in EXTRAS + OTHER_LOSSES), *ROW_LOSSES],
        id="2-ranks-all",
        marks=pytest.mark.long,
    ),
    pytest.param(1, [f + e for f in FULL for e in EXTRAS], id="1-rank-all", marks=pytest.mark.long),
]


@pytest.fixture
def ranks_find_the_code(monkeypatch):
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.mark.usefixtures("ranks_find_the_code")
@pytest.mark.parametrize(("processes", "cases"), LAUNCHES)
def test_steps_equal_plain_torchs(tmp_path, monkeypatch, processes, cases):
    """Several unequal micro-batches a step, other rows on every rank, on-policy and off-policy; one launch for all."""
    out = tmp_path / "found.json"
    command = ["--module", "tests.training.deepspeed_worker", str(out), str(tmp_path / "state"), *cases]
    port = launch.free_port()
    monkeypatch.setattr(launch, "free_port", lambda: port)  # in the names of the ranks' segments, and in no other run's
    assert launch.run_ranks(command, processes, cpu=True).code == 0
    assert not list(SHARED_MEMORY.glob(f"deepspeed_*_{port}_*"))
    found = json.loads(out.read_text())
    assert list(found) == cases
    for case, result in found.items():
        check = check_bfloat16 if "bf16" in case else check_float16_target if "released" in case else check_float32
        check(case, result["steps"])
        if "resume" in case:
            assert result["resumed_off"] == 0, case
            assert "is not the file that this run saved; nothing was loaded" in result["refusal"]


def check_float32(case, steps):
    """Deviations are float32's noise, after AdamW's division by √v, which makes most of it where a gradient is near its ε; none
    comes near an update's size (1e-3), and all of them together (`drift`) are a ten-thousandth of the way."""
    for number, step in enumerate(steps):
        skipped = "nan" in case and number == 1
        assert step["off"] < (2e-6 if number == 0 or skipped else 5e-6), (case, number, step)
        assert step["drift"] < 3e-5, (case, number, step)
        assert step["statistics"] < 5e-5, (case, number, step)
        # From the second step on they are those of parameters that differ by the noise above.
        check_scalars(case, number, step, 1e-5 if number == 0 else 5e-5)


def check_float16_target(case, steps):
    """The released code rounds old logits to float16, so noise of 1e-7 can move a target by 1e-3 of its size."""
    for number, step in enumerate(steps):
        assert step["off"] < 1e-4, (case, number, step)
        assert step["drift"] < 1e-3, (case, number, step)
        assert step["statistics"] < 1e-3, (case, number, step)
        check_scalars(case, number, step, 2e-4)


def check_bfloat16(case, steps):
    """Parameters are rounded to 8 bits; what is compared with has float32 masters too.

    The judge is the drift, relative to all that has changed: a wrong step has one near 1. The largest deviation of any
    token's statistic grows from step to step, and differs between CPUs with and without products of their own for bfloat16.
    """
    for number, step in enumerate(steps):
        assert step["drift"] < (0.002 if number == 0 else 0.1), (case, number, step)
        assert step["statistics"] < (0.1 if number == 0 else 0.5), (case, number, step)
        check_scalars(case, number, step, 0.1)


def check_scalars(case, number, step, tolerance):
    torch_norm, norm = step["norm"]
    skipped = "nan" in case and number == 1
    assert step["applied"] == [not skipped, not skipped], (case, number, step)
    if skipped:
        assert not math.isfinite(norm)
    else:
        assert norm == pytest.approx(torch_norm, rel=tolerance), (case, number, step)
    assert step["lr"][0] == step["lr"][1]
    assert step["loss"][1] == pytest.approx(step["loss"][0], rel=tolerance, abs=1e-6), (case, number, step)


@pytest.fixture
def training(request, tmp_path):
    """`lco train` on two ranks, in the middle of its run: (process, launcher, ranks, folder).

    With the parameter "background" it starts with SIGINT ignored, as a shell starts `lco train … &`.
    """
    folder = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "lco.cli", "train", "--engine", "deepspeed", "--model", str(START / "qwen")),
        *("--steps", "100000", "--prompts-per-step", "4", "--samples", "4", "--max-prompt-tokens", "24"),
        *("--device", "cpu", "--out", str(folder)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = {"env": environment, "stderr": subprocess.PIPE, "text": True, "process_group": 0}
    if getattr(request, "param", "") == "background":
        start["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen(command, **start) as process:
        wait_for(lambda: (folder / "metrics.jsonl").exists())
        (launcher,) = psutil.Process(process.pid).children()
        ranks = launcher.children()
        assert len(ranks) == 2
        yield process, launcher, ranks, folder
        for left in [process, launcher, *ranks]:
            if psutil.pid_exists(left.pid):
                left.kill()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["launcher", "train", "rank"])
def test_a_killed_process_takes_all_ranks_with_it(training, victim):
    process, launcher, ranks, _ = training
    {"launcher": launcher, "train": process, "rank": ranks[1]}[victim].kill()
    _, alive = psutil.wait_procs([launcher, *ranks], timeout=20)
    assert not alive
    assert process.wait(timeout=20) != 0


@pytest.mark.long
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("training", ["foreground", "background"], indirect=True)
def test_a_signal_stops_after_a_rollout_with_a_checkpoint(training, kind):
    process, launcher, ranks, folder = training
    process.send_signal(kind)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + kind
    assert said.count("continue with --resume") == 1
    assert not any(p.is_running() for p in [launcher, *ranks])
    assert list((folder / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("moment", ["the launcher starts", "the ranks load"])
def test_a_signal_before_the_ranks_train_ends_them_all(tmp_path, moment):
    """The launcher has the signals blocked: before it has a rank, it would keep one to itself, and the run would go on."""
    command = [
        *(sys.executable, "-m", "lco.cli", "train", "--engine", "deepspeed", "--model", str(START / "qwen")),
        *(
            "--max-prompt-tokens",
            "24",
            "--max-new-tokens",
            "8",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "a" / "run"),
        ),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        wait_for(lambda: psutil.Process(process.pid).children())
        (launcher,) = psutil.Process(process.pid).children()
        if moment == "the ranks load":
            wait_for(lambda: len(launcher.children()) == 2)
        started = [launcher, *launcher.children()]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said.splitlines()[-1]) == (143, "lco: ended by SIGTERM")
    assert not any(p.is_running() for p in started)
    assert not (tmp_path / "a").exists()


@pytest.mark.usefixtures("ranks_find_the_code")
def test_a_critic_on_the_policys_body_is_trained_under_zero_3(tmp_path):
    """ZeRO-3 expects every forward to visit the same modules, the comparison before the first rollout among them."""
    command = [
        *(sys.executable, "-m", "lco.cli", "train", "--method", "ppo", "--engine", "deepspeed", "--zero-stage", "3"),
        *("--device", "cpu", "--model", str(START / "llama"), "--problems", "arithmetic", "--extraction", "hash"),
        *("--limit", "50", "--max-prompt-tokens", "32", "--prompts-per-step", "4", "--samples", "4"),
        *("--minibatches", "2", "--steps", "2", "--lr", "1e-3", "--out", str(tmp_path / "run")),
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    logged = lines(tmp_path / "run")
    assert [line["updates"] for line in logged] == [2, 2]
    assert all(line["gradient_norm"] > 0 for line in logged)


class Payload:
    """What an unpickler without limits runs."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_builds_more_than_tensors_is_refused_and_not_run(tmp_path, zipped):
    marker, file = tmp_path / "marker", tmp_path / "states.pt"
    torch.save({"state": torch.ones(3), "more": Payload(marker)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"states.pt is not what DeepSpeed saves: it would build \S*mkdir"):
        read_restricted(str(file))
    file.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(UserError, match=r"states.pt is not what DeepSpeed saves"):
        read_restricted(str(file))
    assert not marker.exists()


@pytest.mark.long
@pytest.mark.usefixtures("ranks_find_the_code")
@pytest.mark.parametrize("stage", ["2", "3"])
def test_a_checkpoint_rewritten_together_with_its_hashes_is_not_run_on_resume(tmp_path, stage):
    run, marker = tmp_path / "run", tmp_path / "marker"
    train = [sys.executable, "-m", "lco.cli", "train"]
    start = [
        *("--method", "grpo", "--engine", "deepspeed", "--processes", "2", "--zero-stage", stage, "--device", "cpu"),
        *("--model", str(START / "llama"), "--problems", "arithmetic", "--extraction", "hash", "--limit", "50"),
        *("--max-prompt-tokens", "32", "--prompts-per-step", "4", "--samples", "4", "--steps", "1", "--out", str(run)),
    ]
    subprocess.run([*train, *start], check=True, cwd=ROOT)
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    for file in (checkpoint / "deepspeed").glob("*optim_states.pt"):
        torch.save(Payload(marker), file)
    rewrite_hashes(checkpoint)
    resumed = subprocess.run(
        [*train, "--resume", "--out", str(run), "--steps", "2"], cwd=ROOT, capture_output=True, text=True
    )
    assert resumed.returncode == 2
    assert "is not what DeepSpeed saves" in resumed.stderr
    assert not marker.exists()


def rewrite_hashes(checkpoint):
    """What somebody would do who wants a file of his own to be loaded."""
    for name, folder in {"engine.json": checkpoint / "deepspeed", "complete.json": checkpoint}.items():
        record = json.loads((checkpoint / name).read_text())
        record["files"] = {file: sha256(folder / file) for file in record["files"]}
        (checkpoint / name).write_text(json.dumps(record))
