"""Judging batches: easy cases at once in this process, the others in worker processes with hard deadlines.

    with Pool(workers=2) as pool:
        verdicts = pool.verify_many(pairs, rules)

A worker is started when the first case needs one. It is killed when a case exceeds its CPU time (measured by the kernel, so
that a busy machine changes no verdict), and another takes its place. A worker that is lost for any other reason (killed,
short of memory, or without processor time until the wall-clock backstop) loses nothing: its case is given to the next one,
up to three times, and has no verdict only after that.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType

from lco.verifier.find.extract import Found
from lco.verifier.judge import Judgement, find, judge_answer
from lco.verifier.numbers.effort import NeedsWorkerError
from lco.verifier.rules import NO_VERDICT, Rules, Verdict
from lco.verifier.workers.process import Case, WorkerProcess, wait_for_any

_DEFAULT = Rules()
_TRIES = 3  # workers that may be lost on one case
_HANDED = 10  # workers that may be given one case, those included that died before they began it
_PAUSES = (0.2, 1.0, 3.0)  # seconds between tries to start a process on a machine that has no room for one


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
        outcome = _judge_here(response, gold, rules)
        if isinstance(outcome, Found):
            with self._lock:
                outcome = self._work(deque((Case(0, outcome, gold, rules),)))[0]
        self.counts[outcome.reason] += 1
        return outcome

    def verify_many(self, pairs: Sequence[tuple[str, str]], rules: Rules = _DEFAULT) -> list[Verdict]:
        """Verdicts in the order of `pairs`."""
        outcomes = [_judge_here(response, gold, rules) for response, gold in pairs]
        cases = deque(
            Case(at, outcome, pairs[at][1], rules) for at, outcome in enumerate(outcomes) if isinstance(outcome, Found)
        )
        verdicts = {at: outcome for at, outcome in enumerate(outcomes) if isinstance(outcome, Verdict)}
        if cases:
            with self._lock:
                verdicts.update(self._work(cases))
        done = [verdicts[at] for at in range(len(pairs))]
        self.counts.update(verdict.reason for verdict in done)
        return done

    def _work(self, waiting: deque[Case]) -> dict[int, Verdict]:
        """The verdicts of all waiting cases, by their place in the batch."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        results: dict[int, Verdict] = {}
        wanted = len(waiting)
        while len(results) < wanted:
            self._fill(min(self.workers, wanted - len(results)))
            if not self._running:  # no process could be started
                results.update((case.at, case.verdict(False, "worker_died")) for case in waiting)
                break
            for worker in self._running:
                if worker.case is None and waiting:
                    worker.begin(waiting.popleft())
            wait_for_any(self._running)
            for worker in list(self._running):
                self._collect(worker, results, waiting)
        return results

    def _collect(self, worker: WorkerProcess, results: dict[int, Verdict], waiting: deque[Case]) -> None:
        """Take a worker's result; let go of the worker if it is dead or has to be."""
        case = worker.case
        outcome = worker.outcome()
        if outcome is None:
            return
        if not outcome.usable:
            worker.kill()
            self._running.remove(worker)
            self.replaced += 1
            self._fill(len(self._running) + 1)
        if case is None:
            return
        lost = outcome.reason in NO_VERDICT and outcome.reason != "failed"
        if lost and case.tries < _TRIES and case.handed < _HANDED:
            waiting.appendleft(case)
        else:
            results[case.at] = case.verdict(outcome.correct, outcome.reason)

    def _fill(self, count: int) -> None:
        """Start workers until `count` run. Where the machine starts none, try again for a while before giving up."""
        if self._owner != os.getpid():  # after a fork: the workers are the parent's
            self._owner, self._running = os.getpid(), []
        pauses = list(_PAUSES)
        while len(self._running) < count:
            try:
                self._running.append(WorkerProcess())
            except OSError:
                if self._running or not pauses:
                    return
                time.sleep(pauses.pop(0))


def _judge_here(response: str, gold: str, rules: Rules) -> Verdict | Found:
    """The verdict if no worker is needed for it, else the answer that a worker has to judge."""
    start = time.perf_counter()
    found: Found | Judgement | None = None
    try:
        found = find(response, rules)
        judgement = judge_answer(found, gold, rules) if isinstance(found, Found) else found
    except NeedsWorkerError:
        assert isinstance(found, Found)
        return found
    except Exception:  # a fault of the verifier must end no training run: the case has no verdict, and is counted
        judgement = Judgement(False, found.text if isinstance(found, Found) else None, "failed")
    return Verdict(*judgement, time.perf_counter() - start)


def verify_many(pairs: Sequence[tuple[str, str]], rules: Rules = _DEFAULT, *, workers: int = 1) -> list[Verdict]:
    """Verdicts in the order of `pairs`, with a pool for this call alone if any case needs one."""
    with Pool(workers) as pool:
        return pool.verify_many(pairs, rules)


def verify(response: str, gold: str, rules: Rules = _DEFAULT) -> Verdict:
    """The verdict on one response. A worker started for it ends with it; callers of many keep a Pool."""
    return verify_many([(response, gold)], rules)[0]
