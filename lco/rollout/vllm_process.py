"""The processes that vLLM runs in: what surrounds their start, how their end is noticed, what a killed one leaves behind.

- A process of its own ends with this one, also when that is killed; Ctrl-C is this one's affair.
- vLLM's client waits without a deadline for a process that is no longer there. Every call to one runs beside a look at
  the process, and its end ends the call.
- Its shared memory loses its names as soon as all processes have it mapped, and its sockets lie in a folder of this
  process, so that neither outlives a kill.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import connection, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from lco.errors import UserError

T = TypeVar("T")

LONGEST_FOLDER = 70
"""Characters of a folder for vLLM's sockets, whose names of 37 more must stay within the kernel's 107."""

LOOK_EVERY = 1.0
"""Seconds between two looks at a process that somebody waits for."""

LAST_WORDS = 5.0
"""Seconds that an engine gets to end after a call to it has failed, before the failure is taken for the call's own."""


def call_watched(call: Callable[[], T], processes: Sequence[BaseProcess], doing: str) -> T:
    """What the call returns, unless it fails or one of the processes that it waits for ends first.

    The call runs in a thread of its own, which is left behind, waiting, when a process has ended.

    Raises:
        UserError: a process ended, or the call failed; the message says which, how, and during what.
    """
    found: list[T] = []
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name=f"vllm-{doing}", daemon=True).start()
    while not done.wait(LOOK_EVERY):
        check_alive(processes, doing)
    if not raised:
        return found[0]
    if isinstance(raised[0], UserError):
        raise raised[0]
    # Where a process is about to end, what was raised is only a consequence.
    connection.wait([process.sentinel for process in processes], timeout=LAST_WORDS)
    check_alive(processes, doing)
    reason = " ".join(str(raised[0]).split())[:300]
    raise UserError(
        f"the vLLM engine failed during {doing} ({reason}); its own messages stand above, continue with --resume"
    ) from raised[0]


def check_alive(processes: Sequence[BaseProcess], doing: str) -> None:
    """
    Raises:
        UserError: one of the processes has ended.
    """
    ended = connection.wait([process.sentinel for process in processes], timeout=0)
    for process in processes:
        if process.sentinel in ended:
            raise UserError(
                f"the vLLM engine (pid {process.pid}) {ending(process)} during {doing}; where memory was short, "
                "lower --vllm-cache-gib or use a smaller batch, then continue with --resume"
            )


def ending(process: BaseProcess) -> str:
    """How a process ended."""
    for _ in range(20):
        if process.exitcode is not None:
            break
        time.sleep(0.05)  # another thread, which watches it too, has asked the kernel and is about to note the answer
    code = process.exitcode
    if code is None or code >= 0:
        return "ended" if code is None else f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def unlink_shared_memory(pids: Sequence[int], place: Path) -> None:
    """Takes the names of memory that these processes and their children share off the list, where they would outlive a
    kill. What is mapped stays until the last process ends."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                for mapped in {Path(found.path) for found in each.memory_maps()}:
                    if mapped.parent == place and mapped.name.startswith("psm_"):
                        mapped.unlink(missing_ok=True)


SOCKETS = "VLLM_RPC_BASE_PATH"
"""Where vLLM puts its sockets while it starts."""

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Names the launcher gives a trainer rank; vLLM's processes are none of its ranks."""

TORCHRUN = "TORCHELASTIC_"
"""How the others begin that torchrun gives. By one of them vLLM would look for its own store at torchrun's agent, for ever."""


@contextmanager
def surroundings(folder: Path | None) -> Iterator[None]:
    """What vLLM reads and changes while it is imported and started. Everything is put back but VLLM_… variables, and of these
    the folder of its sockets, which goes with the engine: processes that are started later would look for it.

    Args:
        folder: of the engine that is to be a process of its own, for its sockets; None for one in this process.
    """
    variables, set_num_threads = dict(os.environ), torch.set_num_threads
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if folder is None else "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would take the place of kv_cache_memory_bytes
    if folder is not None and len(str(folder)) <= LONGEST_FOLDER:
        os.environ[SOCKETS] = str(folder)
    try:
        with torch.random.fork_rng(), nullcontext() if folder is None else child_processes(folder):
            yield
    finally:
        torch.set_num_threads = set_num_threads
        for name in [name for name in os.environ if is_put_back(name) and name not in variables]:
            del os.environ[name]
        os.environ.update({name: value for name, value in variables.items() if is_put_back(name)})


def is_put_back(variable: str) -> bool:
    return variable == SOCKETS or not variable.startswith("VLLM_")


CHILD = """#!/bin/sh
exec {python} -I -S -c '
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
os.execv(sys.argv[1], sys.argv[1:])
' {python} "$@"
"""


@contextmanager
def child_processes(folder: Path) -> Iterator[None]:
    """Processes started inside end with this one, ignore Ctrl-C, and do not take themselves for a trainer's rank.

    A killed trainer runs no clean-up, and an engine that is still loading would wait five minutes for it. So the engine
    starts through a script that asks the kernel to end it when its parent ends (this outlives exec, but not a fork);
    vLLM's worker in turn watches the engine. Ctrl-C at a terminal goes to all processes, and is the trainer's affair.
    """
    for name in [name for name in os.environ if name in RANK_VARIABLES or name.startswith(TORCHRUN)]:
        del os.environ[name]
    python, mask = spawn.get_executable(), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    script = folder / "python"
    script.write_text(CHILD.format(python=shlex.quote(sys.executable)))
    script.chmod(0o700)
    spawn.set_executable(str(script))
    try:
        yield
    finally:
        spawn.set_executable(python)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
