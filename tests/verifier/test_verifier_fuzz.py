"""Mutated answers and random formulas: no exception, no hang, no reward for noise.

A case that takes more than ten seconds of CPU time ends the test by a signal: the clock is the processor's, so a busy
machine fails nothing.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from types import FrameType

import pytest
from verifier_helpers import all_cases

from lco.verifier import Pool, Rules
from lco.verifier.explain import MEANINGS
from lco.verifier.judge import Judgement, judge
from lco.verifier.numbers.ladder import NeedsProofError

PIECES = [
    "\\frac", "\\frac{", "}{", "}", "{", "\\sqrt", "\\sqrt[", "]", "[", "(", ")", "^", "^{", "_", "_{", "\\left(", "\\right]",
    "\\text{", "\\begin{pmatrix}", "\\end{pmatrix}", "\\begin{cases}", "\\end{cases}", "\\\\", "&", "\\{", "\\}", "|", "\\mid",
    "\\pm", "\\mp", "\\cup", "\\cap", "\\setminus", "\\in", "\\le", "<", ">", "=", "\\ne", "\\approx", ",", ";", ":", "!",
    "'", "%", "\\%", "$", "\\$", "^\\circ", "\\infty", "\\pi", "e", "i", "x", "y", "n", "f(x)", "f", "sin", "\\sin", "\\ln",
    "\\log_", "\\binom", "\\overline{", "\\lfloor", "\\rfloor", "0", "1", "2", "9", "10", "999999999", "0.5", ".", "...", "1e9",
    "+", "-", "*", "/", "\\cdot", " ", "\\,", "\\!", "and", "or", "not", "cm", "\\text{ or }", "×", "√", "½", "²", "−", "π",
    "\\boxed{", "####", "\\mathbb{R}", "\\emptyset", "\\vec{", "{,}", "\u200b", "é", "字", "\\frac{d}{dx}", "\\hat{i}", "_8",
]  # fmt: skip


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to six pieces put in, taken out, doubled or exchanged."""
    for _ in range(rng.randint(1, 6)):
        at, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        text = rng.choice(
            (
                text[:at] + rng.choice(PIECES) + text[at:],
                text[:at] + text[min(end, at + 5) :],
                text[:end] + text[at:end] * rng.randint(1, 3) + text[end:],
                text[:at] + rng.choice(PIECES) + text[end:],
            )
        )[:600]
    return text


def noise(rng: random.Random) -> str:
    """Pieces in any order."""
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 25)))


def pairs(seed: int) -> Iterator[tuple[str, str]]:
    """An endless stream of (response, gold)."""
    rng = random.Random(seed)
    cases = all_cases()
    while True:
        case = rng.choice(cases)
        answer = mutated(case.answer, rng) if rng.random() < 0.7 else noise(rng)
        gold = case.gold if rng.random() < 0.8 else mutated(case.gold, rng)
        response = f"so \\boxed{{{answer}}}" if rng.random() < 0.7 else mutated(f"The answer is ${answer}$.", rng)
        yield response, gold


@pytest.fixture
def watchdog() -> Iterator[None]:
    """Ten seconds of CPU time for a case; the test re-arms it."""

    def bark(number: int, frame: FrameType | None) -> None:
        raise AssertionError("a case took more than ten seconds of CPU time")

    previous = signal.signal(signal.SIGVTALRM, bark)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, previous)


def run(seed: int, count: int, seconds: float) -> list[tuple[str, str]]:
    """Judge the stream in this process until count or time is up; returns the pairs that want a worker."""
    hard: list[tuple[str, str]] = []
    end = time.monotonic() + seconds
    for index, (response, gold) in enumerate(pairs(seed)):
        if index >= count or time.monotonic() > end:
            break
        signal.setitimer(signal.ITIMER_VIRTUAL, 10)
        try:
            judgement = judge(response, gold, Rules(string_shortcut=index % 2 == 0))
        except NeedsProofError:
            hard.append((response, gold))
            continue
        assert isinstance(judgement, Judgement)
        assert judgement.reason in MEANINGS, (response, gold)
        assert not (judgement.correct and judgement.extracted is None), (response, gold)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return hard


@pytest.mark.usefixtures("watchdog")
def test_fuzz_for_twenty_seconds(pool: Pool) -> None:
    hard = run(seed=1, count=12_000, seconds=15)
    verdicts = pool.verify_many(hard[:60])
    assert {verdict.reason for verdict in verdicts} <= set(MEANINGS)
    assert pool.counts["worker_died"] == 0


@pytest.mark.long
@pytest.mark.usefixtures("watchdog")
def test_fuzz_for_five_minutes(pool: Pool) -> None:
    for seed in range(2, 12):
        hard = run(seed, count=60_000, seconds=22)
        verdicts = pool.verify_many(hard[:200])
        assert {verdict.reason for verdict in verdicts} <= set(MEANINGS)
    assert pool.counts["worker_died"] == 0


def test_noise_earns_nothing() -> None:
    """Random pieces against a number nobody would hit by chance."""
    rng = random.Random(3)
    for _ in range(1_500):
        text = noise(rng)
        try:
            judgement = judge(f"\\boxed{{{text}}}", "8675309", Rules())
        except NeedsProofError:
            continue
        assert not judgement.correct, text
