"""Starts a training run in this process, or as several ranks under DeepSpeed's launcher.

The launcher starts one process per rank with the same command; ranks ask the kernel to end them when their parent dies,
so a launcher killed by −9 leaves no rank training on.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from lco.config import Experiment, dump
from lco.errors import UserError

PR_SET_PDEATHSIG = 1


def launch(experiment: Experiment, resume: bool) -> Path | None:
    """Runs the experiment; returns its folder (None in ranks other than the first)."""
    if experiment.engine == "deepspeed" and "LOCAL_RANK" not in os.environ:
        return launch_ranks(experiment, resume)
    if "LOCAL_RANK" in os.environ:
        die_with_parent()
    from lco.training.run import train

    folder = train(experiment, resume)
    return folder if int(os.environ.get("RANK", 0)) == 0 else None


def launch_ranks(experiment: Experiment, resume: bool) -> Path | None:
    """Re-starts `lco train` with the same configuration under DeepSpeed's launcher on this machine.

    Raises:
        UserError: a rank failed; its own message stands above.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(dump(experiment), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "deepspeed.launcher.launch"),
            f"--world_info={world_info(experiment.processes)}",
            *("--master_addr=127.0.0.1", f"--master_port={free_port()}", "--module", "--enable_each_rank_log=None"),
            *("lco.cli", "train", "--config", str(config)),
            *(["--resume"] if resume else []),
        ]
        environment = {**os.environ, "DS_ACCELERATOR": "cpu"} if experiment.device == "cpu" else dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", "1")
        process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
        code = wait(process)
    if code:
        raise UserError(f"training ended with exit code {code}; the rank's own message stands above")
    return experiment.folder


def wait(process: subprocess.Popen[bytes]) -> int:
    """Waits for the ranks; Ctrl-C reaches them too (one process group), so the first one is only waited out."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def world_info(processes: int) -> str:
    import base64

    return base64.urlsafe_b64encode(json.dumps({"localhost": list(range(processes))}).encode()).decode()


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def die_with_parent() -> None:
    """Asks the kernel to end this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
