"""Tasks side by side, each in one of a few worker processes, and what Ctrl-C does to them.

    this process ─┬─ worker 1: task after task      every message is a `Progress`, `Result`, `Failure` or `Interrupted`
                  └─ worker 2: task after task

A worker that fails at a task, or is killed, is replaced, and the other tasks go on. All workers end with this process,
even when it is killed. On Ctrl-C every worker gets the signal exactly once, so that a training run in it can write its
checkpoint, and no further task begins.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lco.errors import UserError
from lco.training.launch import die_with_parent

PATIENCE = 120.0
"""Seconds after Ctrl-C for a rollout, its validation and its checkpoint to end; they take five on a quiet machine."""
FAREWELL = 30.0
"""Seconds for a worker without a task to end; it takes one."""

Tick = Callable[[int, str], None]
"""tick(units, text): so many more units of the task are done; `text` says how it stands."""


@dataclass(frozen=True)
class Task:
    """Something to do, under a name that sentences call it by; `log` gets all that libraries print meanwhile."""

    name: str
    log: Path
    argument: Any


@dataclass(frozen=True)
class Progress:
    units: int
    text: str


@dataclass(frozen=True)
class Result:
    value: Any


@dataclass(frozen=True)
class Failure:
    text: str


@dataclass(frozen=True)
class Interrupted:
    """The worker alone was interrupted; this process then stops as if Ctrl-C had come here."""


Message = Progress | Result | Failure | Interrupted


@dataclass(frozen=True)
class Worker:
    process: BaseProcess
    tasks: Connection
    messages: Connection


def share_out(
    work: Callable[[Any, Tick], Any],
    tasks: Iterable[Task],
    processes: int,
    hear: Callable[[Task, Message], None],
    threads: int | None = 1,
) -> None:
    """Has every task done by `work(argument, tick)` in a worker, at most so many at a time, in their order.

    Args:
        work: a function of a module, since workers are spawned; what it returns comes back in the task's `Result`.
        hear: called here with each message: any number of `Progress`, then one `Result` or `Failure`.
        threads: of PyTorch in a worker; None leaves them to PyTorch, for a worker that has the machine to itself.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the workers have ended. What was not heard of is not done.
    """
    left, busy = deque(tasks), dict[Worker, Task]()
    started, idle = list[Worker](), list[Worker]()
    try:
        while left or busy:
            while left and len(busy) < processes:
                if not idle:
                    idle.append(start_worker(work, threads))
                    started.append(idle[0])
                worker = idle.pop()
                busy[worker] = left.popleft()
                with suppress(ConnectionError):  # it has ended in the meantime, which `receive` will say
                    worker.tasks.send(busy[worker])
            wait([x for worker in busy for x in (worker.messages, worker.process.sentinel)])
            for worker, task in list(busy.items()):
                message = receive(worker)
                if isinstance(message, Interrupted):
                    raise KeyboardInterrupt
                if isinstance(message, Result | Failure):
                    del busy[worker]
                    idle += [worker] if isinstance(message, Result) else []
                if message is not None:
                    hear(task, message)
        dismiss(idle)
    except KeyboardInterrupt:
        interrupt(started)
        raise
    finally:
        for worker in started:
            worker.process.terminate()
            worker.process.join()


def start_worker(work: Callable[[Any, Tick], Any], threads: int | None) -> Worker:
    """A worker that waits for tasks. Ctrl-C is held back until it can answer; during its imports it would be a traceback."""
    context = multiprocessing.get_context("spawn")
    tasks_out, tasks_in = context.Pipe(duplex=False)
    messages_out, messages_in = context.Pipe(duplex=False)
    # No daemon: those may not start processes of their own, as vLLM does.
    process = context.Process(target=serve, args=(work, tasks_out, messages_in, threads))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    tasks_out.close()
    messages_in.close()
    return Worker(process, tasks_in, messages_out)


def receive(worker: Worker) -> Message | None:
    """The worker's next message, None where there is none yet; a `Failure` if it ended in the middle of its task."""
    alive = worker.process.is_alive()  # asked first: its last message came before its end
    try:
        if worker.messages.poll():
            message: Message = worker.messages.recv()
            return message
    except (EOFError, ConnectionError):
        alive = False
    if alive:
        return None
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return Failure(f"its process {how} before the task was done")


def dismiss(workers: Sequence[Worker]) -> None:
    """Lets workers that wait for a task end by themselves, so that they clean up what libraries left open."""
    for worker in workers:
        worker.tasks.close()
    for worker in workers:
        worker.process.join(FAREWELL)


def interrupt(workers: Iterable[Worker]) -> None:
    """Passes Ctrl-C on and waits until every run is saved; a second Ctrl-C or the deadline ends the workers at once."""
    print("\nstopping after the rollouts in progress; press Ctrl-C again to stop at once", file=sys.stderr)
    alive = [(worker, worker.process.pid) for worker in workers if worker.process.is_alive()]
    try:
        for worker, pid in alive:
            if pid is not None:
                os.kill(pid, signal.SIGINT)
            worker.tasks.close()  # one whose task ends well all the same finds no other
        deadline = time.monotonic() + PATIENCE
        for worker, _ in alive:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        print("\nstopped at once: the runs in progress go back to their last checkpoints", file=sys.stderr)


def serve(work: Callable[[Any, Tick], Any], tasks: Connection, messages: Connection, threads: int | None) -> None:
    """A worker's life: one task after another, until there is no other, one fails, or Ctrl-C comes."""
    # The terminal's Ctrl-C goes to a whole group; out of it, this process gets the parent's alone, exactly once. A
    # second one would end a training run before its checkpoint.
    os.setpgrp()
    die_with_parent()
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        answer_ctrl_c()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            try:
                task = tasks.recv()
            except EOFError:
                return
            redirect_output(task.log)
            limit_threads(threads)
            messages.send(Result(work(task.argument, lambda units, text: messages.send(Progress(units, text)))))
    except KeyboardInterrupt:
        messages.send(Interrupted())
    except UserError as error:
        messages.send(Failure(str(error)))
    except Exception:
        messages.send(Failure(traceback.format_exc()))


def redirect_output(log: Path) -> None:
    """Appends everything that is printed in this process from now on to a file; the parent's progress bar stays readable."""
    sys.stdout.flush()
    sys.stderr.flush()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def limit_threads(threads: int | None) -> None:
    if threads is not None:
        import torch  # seconds, which only a worker pays

        torch.set_num_threads(threads)


def answer_ctrl_c() -> None:
    """Python leaves SIGINT ignored where it was at the start, as a shell starts `make reproduce &`; `kill -INT` counts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
