"""GPUs of a machine that has none: nvidia-smi's answer is a script's, the locks and the processes are real."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lco.errors import UserError
from reproduce.common.gpus import runs_at_a_time, visible_gpus

HOLDER = (
    "import os, sys, time; from reproduce.common.gpus import with_gpus\n"
    "with_gpus(int(sys.argv[1]), lambda: print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)); time.sleep(60)"
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with four GPUs, its temporary folder of its own."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    lines = "\n".join(f"echo '{i}, GPU-{i:04d}'" for i in range(4))
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def hold(each):
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(each)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )


def test_what_is_visible_is_what_cuda_would_show(machine, monkeypatch):
    assert visible_gpus() == {str(i): f"GPU-{i:04d}" for i in range(4)}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-0003")
    assert visible_gpus() == {"2": "GPU-0002", "GPU-0003": "GPU-0003"}
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert visible_gpus() == {}


def test_a_machine_holds_so_many_runs_and_too_small_a_one_is_named(machine):
    assert [runs_at_a_time(each, visible_gpus()) for each in (1, 2, 3, 4)] == [4, 2, 1, 1]
    with pytest.raises(UserError, match="takes 8 GPUs, and 4 can be seen here; run it on a larger machine"):
        runs_at_a_time(8, visible_gpus())


def test_workers_share_no_gpu_and_a_killed_one_gives_its_back(machine):
    first, second = hold(2), hold(2)
    try:
        shown = [process.stdout.readline().strip().split(",") for process in (first, second)]
        assert sorted(shown[0] + shown[1]) == ["0", "1", "2", "3"]
        third = hold(1)
        assert third.stdout.readline().startswith("waiting for 1 free GPU")
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        deadline = time.monotonic() + 60
        line = third.stdout.readline()
        while line.startswith("waiting") and time.monotonic() < deadline:
            line = third.stdout.readline()
        assert line.strip() in shown[0]
    finally:
        for process in (first, second, third):
            process.kill()
            process.wait()
