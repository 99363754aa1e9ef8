"""How much work the caller's process may spend on a case before a worker with a hard deadline takes it over."""

from __future__ import annotations

import time

_STEPS = 64  # small steps between looks at the clock


class NeedsWorkerError(Exception):
    """The case is for a worker: it wants a proof, or more work than the caller's process may spend on it."""


class Effort:
    """Counts down the CPU time of this thread; `seconds` None sets no bound (in a worker, whose parent watches it).

    Who works in many small steps calls `step` in each; a step has to be short, because nothing interrupts it.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = 0.0 if seconds is None else time.thread_time() + seconds
        self._steps = 0

    def step(self) -> None:
        """One small step; raises NeedsWorkerError once the time is spent."""
        self._steps += 1
        if self._steps % _STEPS == 0:
            self.check()

    def check(self) -> None:
        """A larger step, or the beginning of one."""
        if self.seconds is not None and time.thread_time() > self._end:
            raise NeedsWorkerError
