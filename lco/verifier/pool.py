"""Judging many answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from lco.verifier.extract import find_answer
from lco.verifier.rules import Rules, Verdict


class Pool:
    """A context manager that judges batches of (response, gold) pairs."""

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self.workers = workers

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes; the pool may not be used afterwards."""

    def verify_many(self, pairs: Sequence[tuple[str, str]], rules: Rules = Rules()) -> list[Verdict]:
        """Verdicts in the order of `pairs`."""
        return [_judge(response, gold, rules) for response, gold in pairs]


def verify_many(pairs: Sequence[tuple[str, str]], rules: Rules = Rules(), *, workers: int = 1) -> list[Verdict]:
    """Verdicts in the order of `pairs`."""
    with Pool(workers) as pool:
        return pool.verify_many(pairs, rules)


def verify(response: str, gold: str, rules: Rules = Rules()) -> Verdict:
    """The verdict on one response."""
    return verify_many([(response, gold)], rules)[0]


def _judge(response: str, gold: str, rules: Rules) -> Verdict:
    start = time.perf_counter()
    answer = find_answer(response, rules)
    if answer is None:
        return Verdict(False, None, "no_answer", time.perf_counter() - start)
    same = answer.strip() == gold.strip()
    return Verdict(same, answer, "same_text" if same else "different", time.perf_counter() - start)
