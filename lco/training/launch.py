"""Starts a training run in this process, or as several ranks under DeepSpeed's launcher.

    lco train ─┬─ deepspeed.launcher.launch ─┬─ rank 0: lco train --config …
               │                             └─ rank 1: lco train --config …

The launcher starts one process per rank with the same command and ends all when one fails. What is added here:

- Every process asks the kernel to end it when its parent ends, so `kill −9` of any of them leaves no rank training on.
- Ctrl-C is for the ranks, which stop after the current rollout and save: the launcher would kill them at once, so it is
  started with the signal blocked, in a process group of its own, and the ranks unblock it and get it exactly once.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

from lco.config import Experiment, dump
from lco.errors import UserError
from lco.training.extensions import ready_extensions

PR_SET_PDEATHSIG = 1


def launch(experiment: Experiment, resume: bool) -> Path | None:
    """Runs the experiment; returns its folder (None where another process has returned it: rank 0 does)."""
    is_rank = "LOCAL_RANK" in os.environ
    if experiment.engine == "deepspeed" and not is_rank:
        launch_ranks(experiment, resume)
        return None
    if is_rank:
        become_rank(experiment)
    from lco.training.run import train

    folder = train(experiment, resume)
    return folder if int(os.environ.get("RANK", 0)) == 0 else None


def launch_ranks(experiment: Experiment, resume: bool) -> None:
    """Re-starts `lco train` with the same configuration under DeepSpeed's launcher on this machine.

    Raises:
        UserError: a rank failed; its own message stands above.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(dump(experiment), encoding="utf-8")
        arguments = ["lco.cli", "train", "--config", str(config), *(["--resume"] if resume else [])]
        code = run_ranks(["--module", *arguments], experiment.processes, experiment.device == "cpu")
    if code:
        raise UserError(f"training ended with exit code {code}; the rank's own message stands above")


def run_ranks(arguments: list[str], processes: int, cpu: bool) -> int:
    """Runs `python ARGUMENTS` once per rank; returns the exit code when all have ended."""
    command = [
        *(sys.executable, "-m", "deepspeed.launcher.launch", f"--world_info={world_info(processes)}"),
        *("--master_addr=127.0.0.1", f"--master_port={free_port()}", "--no_local_rank", "--quiet"),
        *arguments,
    ]
    environment = dict(os.environ)
    # Several ranks share the cores; and DeepSpeed looks for ninja on PATH, where it lies beside this Python.
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    if cpu:
        environment["DS_ACCELERATOR"] = "cpu"

    def before_start() -> None:
        die_with_parent()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    ready_extensions(partial(print, file=sys.stderr), cpu)
    process = subprocess.Popen(command, env=environment, process_group=0, preexec_fn=before_start)
    return wait(process)


def wait(process: subprocess.Popen[bytes]) -> int:
    """Waits for the ranks and passes each Ctrl-C on to them; the launcher itself has the signal blocked.

    The handler is set here, because a shell starts a background command with the signal ignored.
    """

    def pass_on(*_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)

    before = signal.signal(signal.SIGINT, pass_on)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def become_rank(experiment: Experiment) -> None:
    """What a rank does before anything else; see the module's text."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if experiment.device != "cpu":
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def world_info(processes: int) -> str:
    """The launcher's description of its ranks: this machine, slots 0 … processes − 1."""
    return base64.urlsafe_b64encode(json.dumps({"localhost": list(range(processes))}).encode()).decode()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def die_with_parent() -> None:
    """Asks the kernel to end this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if "LOCAL_RANK" in os.environ and os.getppid() == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # the launcher ended before this rank could ask
