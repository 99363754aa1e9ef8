"""Judging batches: easy cases at once in this process, the others in worker processes with hard deadlines.

    with Pool(workers=2) as pool:
        verdicts = pool.verify_many(pairs, rules)

A worker is started when the first case needs one. It is killed when a case exceeds its CPU time (measured by the
kernel, so that a busy machine changes no verdict) or, as a backstop, its wall-clock time, and another takes its place.
A worker that dies for any other reason loses nothing: its case is given to the next one, up to three times.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType

from lco.verifier.find.extract import find_answer
from lco.verifier.judge import judge
from lco.verifier.numbers.ladder import NeedsProofError
from lco.verifier.rules import Rules, Verdict
from lco.verifier.workers.process import Case, WorkerProcess, wait_for_any

_DEFAULT = Rules()
_TRIES = 3  # workers that may die on one case
_HANDED = 10  # workers that may be given one case, those included that died before they began it


class Pool:
    """Worker processes kept between batches. Safe to use from several threads; a forked child starts its own.

    `counts` tells how often each reason has been given, time-outs among them; `replaced` how many workers were.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self.workers = workers
        self.counts: Counter[str] = Counter()
        self.replaced = 0
        self._running: list[WorkerProcess] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._closed = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start all workers and wait until they are ready; without this they start when first needed."""
        with self._lock:
            self._fill(self.workers)
            for worker in self._running:
                worker.wait_ready()

    def close(self) -> None:
        """End the worker processes; the pool may not be used afterwards."""
        with self._lock:
            self._closed = True
            if self._owner == os.getpid():
                for worker in self._running:
                    worker.kill()
            self._running = []

    def pids(self) -> list[int]:
        """The process ids of the workers that are running."""
        return [worker.pid for worker in self._running]

    def verify(self, response: str, gold: str, rules: Rules = _DEFAULT) -> Verdict:
        """The verdict on one response."""
        return self.verify_many([(response, gold)], rules)[0]

    def verify_many(self, pairs: Sequence[tuple[str, str]], rules: Rules = _DEFAULT) -> list[Verdict]:
        """Verdicts in the order of `pairs`."""
        verdicts: list[Verdict | None] = [_easily(response, gold, rules) for response, gold in pairs]
        hard = [at for at, verdict in enumerate(verdicts) if verdict is None]
        if hard:
            with self._lock:
                for at, verdict in self._work(pairs, hard, rules):
                    verdicts[at] = verdict
        done = [verdict for verdict in verdicts if verdict is not None]
        self.counts.update(verdict.reason for verdict in done)
        return done

    def _work(self, pairs: Sequence[tuple[str, str]], hard: list[int], rules: Rules) -> list[tuple[int, Verdict]]:
        if self._closed:
            raise RuntimeError("the pool is closed")
        waiting: deque[Case] = deque()
        for at in hard:
            answer = find_answer(pairs[at][0], rules)
            waiting.append(Case(at, answer or "", pairs[at][1], rules))
        results: list[tuple[int, Verdict]] = []
        self._fill(min(self.workers, len(waiting)))
        while len(results) < len(hard):
            for worker in self._running:
                if worker.case is None and waiting:
                    worker.begin(waiting.popleft())
            wait_for_any(self._running)
            for worker in list(self._running):
                self._collect(worker, results, waiting)
        return results

    def _collect(self, worker: WorkerProcess, results: list[tuple[int, Verdict]], waiting: deque[Case]) -> None:
        """Take a worker's result; replace the worker if it is dead or has to be."""
        case = worker.case
        outcome = worker.outcome()
        if outcome is None:
            return
        correct, reason, alive = outcome
        if not alive:
            worker.kill()
            self._running.remove(worker)
            self.replaced += 1
            self._fill(len(self._running) + 1)
            if reason == "worker_died" and case is not None and case.tries < _TRIES and case.handed < _HANDED:
                waiting.appendleft(case)
                return
        if case is not None:
            results.append((case.at, Verdict(correct, case.answer, reason, time.perf_counter() - case.created)))

    def _fill(self, count: int) -> None:
        if self._owner != os.getpid():  # after a fork: the workers are the parent's
            self._owner, self._running = os.getpid(), []
        while len(self._running) < count:
            self._running.append(WorkerProcess())


def _easily(response: str, gold: str, rules: Rules) -> Verdict | None:
    """The verdict if no worker is needed for it."""
    start = time.perf_counter()
    try:
        correct, extracted, reason = judge(response, gold, rules)
    except NeedsProofError:
        return None
    return Verdict(correct, extracted, reason, time.perf_counter() - start)


def verify_many(pairs: Sequence[tuple[str, str]], rules: Rules = _DEFAULT, *, workers: int = 1) -> list[Verdict]:
    """Verdicts in the order of `pairs`, with a pool for this call alone if any case needs one."""
    with Pool(workers) as pool:
        return pool.verify_many(pairs, rules)


def verify(response: str, gold: str, rules: Rules = _DEFAULT) -> Verdict:
    """The verdict on one response. A worker started for it ends with it; callers of many keep a Pool."""
    return verify_many([(response, gold)], rules)[0]
