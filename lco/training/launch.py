"""Starts a training run as several ranks under DeepSpeed's launcher.

    lco train ─┬─ deepspeed.launcher.launch ─┬─ rank 0: lco train --config …
               │                             └─ rank 1: lco train --config …

The launcher starts one process per rank with the same command and ends all when one fails. What is added here:

- Every process asks the kernel to end it when its parent ends, so `kill −9` of any of them leaves no rank training on.
- Ctrl-C, and what schedulers and closed terminals send, is for the ranks, which stop after the current rollout and save: the
  launcher would kill them at once, so it is started with these signals blocked, in a process group of its own, and the
  ranks unblock them and get them exactly once.
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
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from lco.config import Experiment, dump
from lco.console import say
from lco.errors import UserError
from lco.stopping import STOP, Stopped, answered
from lco.training.extensions import ready_extensions
from lco.training.run_folder import finished_rollouts

PR_SET_PDEATHSIG = 1

CONFIGURATION = "LCO_TRAIN_CONFIGURATION"
"""The environment variable by which a rank gets its configuration: no file that a killed launch would leave behind."""


def launch_ranks(experiment: Experiment, resume: bool, start_over: bool = False) -> None:
    """Re-starts `lco train` with the same configuration under DeepSpeed's launcher on this machine.

    Raises:
        UserError: a rank failed; its own message stands above, where it could still write one.
        Stopped: the ranks were asked to end before the last rollout; they have said so, and saved.
    """
    ready_extensions(say, experiment.device == "cpu")
    flags = [*(["--resume"] if resume else []), *(["--start-over"] if start_over else [])]
    code = run_ranks(
        ["--module", "lco.cli", "train", *flags],
        experiment.processes,
        experiment.device == "cpu",
        {CONFIGURATION: dump(experiment)},
    )
    if code:
        raise UserError(explain_exit(code))
    if finished_rollouts(experiment.folder) < experiment.steps:
        raise Stopped(signal.SIGINT, f"the ranks have saved and ended; the run is in {experiment.folder}")


def explain_exit(code: int) -> str:
    """Why the ranks ended, as far as the launcher's exit code says."""
    # The launcher passes on a rank's code; a signal's arrives as −n, 256 − n or 128 + n.
    number = next((n for n in (-code, 256 - code, code - 128) if n in {s.value for s in signal.Signals}), None)
    if number is None:
        return f"training ended with exit code {code}; the rank's own message stands above"
    hint = " (the system does that when memory runs out)" if number == signal.SIGKILL else ""
    return (
        f"a rank was ended by {signal.Signals(number).name}{hint} and the others with it; continue with --resume from the "
        "newest checkpoint"
    )


def run_ranks(arguments: list[str], processes: int, cpu: bool, variables: Mapping[str, str] | None = None) -> int:
    """Runs `python ARGUMENTS` once per rank with further environment variables; returns the exit code when all have ended."""
    command = [
        *(sys.executable, "-m", "deepspeed.launcher.launch", f"--world_info={world_info(processes)}"),
        *("--master_addr=127.0.0.1", f"--master_port={free_port()}", "--no_local_rank", "--quiet"),
        *arguments,
    ]
    environment = {**os.environ, **(variables or {})}
    # Several ranks share the cores; and DeepSpeed looks for ninja on PATH, where it lies beside this Python.
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    if cpu:
        environment["DS_ACCELERATOR"] = "cpu"

    def before_start() -> None:
        die_with_parent()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP)

    ready_extensions(partial(print, file=sys.stderr), cpu)
    process = subprocess.Popen(command, env=environment, process_group=0, preexec_fn=before_start)
    return wait(process)


def wait(process: subprocess.Popen[bytes]) -> int:
    """Waits for the ranks and passes each Ctrl-C, SIGTERM or SIGHUP on to them; the launcher itself has these blocked.

    The handler is set here, because a shell starts a background command with the signal ignored.
    """

    def pass_on(*_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)

    with answered(pass_on):
        return process.wait()


def become_rank(experiment: Experiment) -> None:
    """What a rank does before anything else; see the module's text."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
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
