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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from lco.config import Experiment, dump
from lco.console import say
from lco.errors import UserError
from lco.models.device import shown_gpus
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
        Stopped: a signal came before the last rollout; what was done is saved.
    """
    ready_extensions(say, experiment.device == "cpu")
    flags = [*(["--resume"] if resume else []), *(["--start-over"] if start_over else [])]
    ended = run_ranks(
        ["--module", "lco.cli", "train", *flags],
        experiment.processes,
        experiment.device == "cpu",
        {CONFIGURATION: dump(experiment)},
    )
    if ended.asked and (ended.code or finished_rollouts(experiment.folder) < experiment.steps):
        done = finished_rollouts(experiment.folder)
        raise Stopped(ended.asked, stopped_after(done, experiment) if done else "")
    if ended.code:
        raise UserError(explain_exit(ended.code))


def stopped_after(done: int, experiment: Experiment) -> str:
    """What a run says that was asked to end."""
    return f"stopped after {done} of {experiment.steps} rollouts; the run is in {experiment.folder}, continue with --resume"


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


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, and the signal that had asked it to (0: none)."""

    code: int
    asked: int


def run_ranks(arguments: list[str], processes: int, cpu: bool, variables: Mapping[str, str] | None = None) -> Ended:
    """Runs `python ARGUMENTS` once per rank with further environment variables, until all have ended."""
    command = [
        *(sys.executable, "-m", "deepspeed.launcher.launch", f"--world_info={world_info(processes, cpu)}"),
        *("--master_addr=127.0.0.1", f"--master_port={free_port()}", "--no_local_rank", "--quiet"),
        *arguments,
    ]
    environment = {**os.environ, **(variables or {})}
    # Several ranks share the cores.
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment["PATH"] = path_with_ninja(environment)
    if cpu:
        environment["DS_ACCELERATOR"] = "cpu"

    def before_start() -> None:
        die_with_parent()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP)

    ready_extensions(partial(print, file=sys.stderr), cpu)
    process = subprocess.Popen(command, env=environment, process_group=0, preexec_fn=before_start)
    return wait(process, lambda: has_children(process.pid))


def path_with_ninja(variables: Mapping[str, str]) -> str:
    """PATH with the folder of this Python first, where ninja lies, which DeepSpeed looks for."""
    return os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])


def wait(process: subprocess.Popen[bytes], has_ranks: Callable[[], bool] = lambda: True) -> Ended:
    """Waits for a process of a group of its own, and passes each Ctrl-C, SIGTERM or SIGHUP on to the group.

    Args:
        has_ranks: whether there is anybody in the group to hear it. The launcher has these signals blocked, and before it has
            started a rank it would keep them to itself for ever; it is ended then, and whom it is just starting with it.
    """
    asked = 0

    def pass_on(number: int, _: object) -> None:
        nonlocal asked
        asked = asked or number
        with suppress(OSError):  # it has just ended
            if has_ranks():
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.kill()

    # Set here, because a shell starts a background command with SIGINT ignored.
    with answered(pass_on):
        return Ended(process.wait(), asked)


def has_children(pid: int) -> bool:
    """Whether the process has started another one."""
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").strip())


def become_rank() -> None:
    """What a rank does before anything else; see the module's text."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    if CONFIGURATION not in os.environ:  # started by torchrun, or another launcher than this module's
        os.environ["PATH"] = path_with_ninja(os.environ)


def prepare_rank(cpu: bool) -> None:
    """Its GPU, and on a machine's first rank, where no launching process has done it, what DeepSpeed has compiled."""
    if CONFIGURATION not in os.environ and os.environ["LOCAL_RANK"] == "0":
        ready_extensions(say, cpu)
    if not cpu:
        import torch  # which the process that starts the ranks does without

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def end_rank(code: int = 0) -> NoReturn:
    """Ends a rank whose run is over, or refused, and whose files are closed, without closing the interpreter: gloo's threads
    still run, and one that lets go of a tensor meanwhile aborts the process (PyTorch's pull request 179291)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def world_info(processes: int, cpu: bool) -> str:
    """The launcher's description of its ranks: this machine, and a GPU for each of them, which the launcher shows them in place
    of what CUDA_VISIBLE_DEVICES said: so the first of those that it names, or 0 … processes − 1.

    Raises:
        UserError: it names fewer.
    """
    shown = shown_gpus() or ()
    if shown and len(shown) < processes and not cpu:
        raise UserError(
            f"processes is {processes}, and CUDA_VISIBLE_DEVICES shows {len(shown)} GPU(s), {', '.join(shown)}; name one for "
            "each process, or give --processes fewer"
        )
    slots = list(shown[:processes]) if len(shown) >= processes else list(range(processes))
    return base64.urlsafe_b64encode(json.dumps({"localhost": slots}).encode()).decode()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def die_with_parent() -> None:
    """Asks the kernel to end this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if "LOCAL_RANK" in os.environ and os.getppid() == 1 and not is_launcher(Path("/proc/1/cmdline").read_bytes()):
        os.kill(os.getpid(), signal.SIGKILL)  # the launcher ended before this rank could ask


def is_launcher(command: bytes) -> bool:
    """Whether a process's command starts ranks: torchrun is often the first process of a container, and everybody's parent."""
    return any(name in command for name in (b"torchrun", b"torch.distributed", b"deepspeed"))
