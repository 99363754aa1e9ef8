"""One worker process, seen from the parent: start it, give it a case, watch its time, end it."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lco.verifier.rules import Rules

_SCRIPT = Path(__file__).with_name("worker.py")
_POLL = 0.02  # seconds between looks at the clocks
_START_SECONDS = 60.0  # for a start on a machine that is very busy
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")


@dataclass
class Case:
    """A case on its way: `at` is its place in the batch, `handed` and `tries` how often it was given and begun."""

    at: int
    answer: str
    gold: str
    rules: Rules
    handed: int = 0
    tries: int = 0
    created: float = field(default_factory=time.perf_counter)


def _folders() -> list[str]:
    """Where the worker finds this package and the libraries, whatever the parent did to its own path."""
    folders = [str(Path(__file__).resolve().parents[3])]
    for library in ("mpmath", "sympy"):
        spec = importlib.util.find_spec(library)
        if spec is not None and spec.origin is not None:
            folders.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(folders))


class WorkerProcess:
    """A running worker and the case it is on."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), *_folders()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            start_new_session=True,  # the terminal's Ctrl-C is the parent's business
        )
        self.pid = self.process.pid
        self.case: Case | None = None
        self.ready = False
        self._buffer = b""
        self._started = time.monotonic()
        self._wall = 0.0
        self._cpu: float | None = None
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def fileno(self) -> int:
        """The file to wait on."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def begin(self, case: Case) -> None:
        """Hand over a case; its clocks start when the worker says that it has begun."""
        case.handed += 1
        self.case = case
        self._wall, self._cpu = time.monotonic(), None
        message = {"id": case.at, "answer": case.answer, "gold": case.gold, "rules": asdict(case.rules)}
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # it has died: outcome() finds out

    def outcome(self) -> tuple[bool, str, bool] | None:
        """(correct, reason, worker still usable) once the case is settled, or None while it is not."""
        ended = self._read()
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            message = json.loads(line)
            if "ready" in message:
                self.ready = True
            elif "begun" in message:
                self._wall, self._cpu = time.monotonic(), cpu_seconds(self.pid)
                if self.case is not None:
                    self.case.tries += 1
            else:
                self.case = None
                return bool(message["correct"]), str(message["reason"]), not ended
        if ended:
            return False, self._cause_of_death(), False
        if self.case is None:
            return None
        return self._overdue(self.case.rules)

    def _overdue(self, rules: Rules) -> tuple[bool, str, bool] | None:
        elapsed = time.monotonic() - self._wall
        if self._cpu is None:  # not begun: loading, on a busy machine
            return (False, "worker_died", False) if elapsed > _START_SECONDS else None
        if elapsed > rules.wall_seconds or cpu_seconds(self.pid) - self._cpu > rules.cpu_seconds:
            return False, "timeout", False
        return None

    def _cause_of_death(self) -> str:
        """The kernel's limit on CPU time ends a process by SIGXCPU; anything else is an accident."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "worker_died"
        return "timeout" if status == -24 else "worker_died"

    def _read(self) -> bool:
        """Take what the worker has written; True if it has closed its end."""
        while True:
            try:
                piece = os.read(self.fileno(), 65536)
            except BlockingIOError:
                return False
            if not piece:
                return True
            self._buffer += piece

    def wait_ready(self) -> None:
        """Wait until the worker has loaded."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.ready and time.monotonic() < deadline:
            wait_for_any([self])
            if self.outcome() is not None:
                raise RuntimeError("a verifier process ended while it started; does `import mpmath, sympy` work?")

    def kill(self) -> None:
        """End the process and give back its files."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def wait_for_any(workers: Sequence[WorkerProcess]) -> None:
    """Sleep until a worker has something to say or it is time to look at the clocks."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker, selectors.EVENT_READ)
        selector.select(_POLL)


def cpu_seconds(pid: int) -> float:
    """The CPU time a process has used, as the kernel counts it; 0 where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
