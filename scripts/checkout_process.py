"""A process in which a checkout's `lco` runs command lines, one after the other, whatever its modules look like inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DRIVER = Path(__file__).resolve().with_name("train_in_turn.py")


@dataclass(frozen=True)
class Outcome:
    """`lco`'s exit code; and what it said, where that is not 0."""

    code: int
    message: str = ""


class CheckoutProcess:
    """Started with the first command line, and again after one that ended it.

    `threads` is the number that torch and its libraries use; `keep_open` are file descriptors that live as long as it.
    """

    def __init__(self, checkout: Path, threads: int = 1, keep_open: Sequence[int] = ()) -> None:
        self.checkout, self.threads, self.keep_open = checkout.resolve(), threads, keep_open
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([str(self.checkout), *([before] if before else [])])
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        return subprocess.Popen(
            [sys.executable, "-P", str(DRIVER)],
            cwd=self.checkout,
            env={**os.environ, **threads, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=self.keep_open,
        )

    def run(self, arguments: Sequence[str], log: Path) -> Outcome:
        """Runs `lco ARGUMENTS` in the checkout's folder; what it prints goes to `log`."""
        if self.process is None:
            self.process = self.start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": list(arguments), "log": str(log)}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            ended, self.process = self.process.wait(), None
            return Outcome(ended or 1, f"the process ended with exit code {ended}; its last words: {last_words(log)}")
        found = json.loads(answer)
        return Outcome(found["code"], (found["error"] or last_words(log)) if found["code"] else "")

    def close(self) -> None:
        """Ends it when the command line that it is on has ended."""
        if self.process is not None:
            self.process.communicate()
            self.process = None


def last_words(log: Path) -> str:
    """The sentences that `lco` refused with, else the last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    refusals = [line.removeprefix("lco: ") for line in lines if line.startswith("lco: ")]
    return "; ".join(refusals) or next((line for line in reversed(lines) if line.strip()), "nothing")
