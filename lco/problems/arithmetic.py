"""Word problems with worked steps: the data of the miniature, made by a generator instead of a download.

A problem starts with 1…19 things and changes that number two, three or four times by 1…9; every total stays inside
0…20:

    Ann has 12 apples . eats 5 . finds 8 ?    →    12 - 5 = 7 ; 7 + 8 = 15 ; #### 15

What makes it a good miniature of mathematical reasoning: a model that writes the steps down gets each of them right
easily, a model that jumps to the answer mostly fails, and a program can check the result.

**Splits.** Names and objects do not change the mathematics, so the split of a problem depends on its numbers and signs
alone: a hash of them is 0 modulo 10 for the test problems, 1 for validation, anything else for training. The hash is
SHA-256, not Python's ``hash()``, which differs from one process to the next.

**Words.** Every number and every word is one token, separated by blanks (``VOCABULARY``).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

from lco.problems.progress import counted
from lco.problems.records import Problem

SPLITS = ("train", "validation", "test")

NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
OBJECTS = ("apples", "books", "coins", "eggs", "nuts", "pens", "shells", "stamps")
GAINS = ("finds", "buys", "gets", "wins")
LOSSES = ("eats", "loses", "sells", "gives")

LARGEST_TOTAL = 20  # of every total in a correct calculation
LARGEST_NUMBER = 40  # that has a token: wrong totals need room above the right ones
LARGEST_CHANGE = 9
LARGEST_ERROR = 9

VOCABULARY: tuple[str, ...] = (
    *(str(number) for number in range(LARGEST_NUMBER + 1)),
    *("+", "-", "=", ";", "####", ".", "?", "has"),
    *NAMES,
    *OBJECTS,
    *GAINS,
    *LOSSES,
)
"""Every word that a problem or a response can contain."""

CAREFUL_SHARE = 0.45  # of the pretraining responses that write all steps down
CAREFUL_SLIP = 0.01  # chance that a step of a careful response is wrong
SLOPPY_SLIP = 0.05
SLOPPY_RIGHT = 0.5  # chance that a sloppy response states the right answer anyway

TRIES_FOR_A_NEW_KEY = 1000

T = TypeVar("T")


@lru_cache(maxsize=100_000)
def split_of(key: str) -> str:
    """The split that a key belongs to, the same on every machine: 1/10 test, 1/10 validation, 8/10 training."""
    remainder = int.from_bytes(hashlib.sha256(key.encode()).digest(), "big") % 10
    return {0: "test", 1: "validation"}.get(remainder, "train")


def check_split(split: str) -> None:
    """Refuse a split that does not exist, naming those that do."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(map(repr, SPLITS))}")


def check_count(count: int) -> None:
    """Refuse to make a negative number of problems."""
    if count < 0:
        raise ValueError(f"count is {count}: ask for 0 or more problems")


@dataclass(frozen=True)
class Chain:
    """The mathematics of one problem: a start and the signed changes, without any words around them."""

    start: int
    changes: tuple[int, ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """The total after each change; the last one is the answer."""
        return tuple(accumulate(self.changes, initial=self.start))[1:]

    @property
    def key(self) -> str:
        """Numbers and signs alone, such as ``12-5+8``: what the split depends on."""
        return str(self.start) + "".join(f"{change:+d}" for change in self.changes)


def draw_chain(rng: random.Random) -> Chain:
    """A random chain of any split: 2, 3 or 4 changes, each uniform among those that keep the total inside 0…20."""
    start = total = rng.randint(1, LARGEST_TOTAL - 1)
    changes = []
    for _ in range(rng.randint(2, 4)):
        sizes = [size for size in range(-LARGEST_CHANGE, LARGEST_CHANGE + 1) if size != 0]
        changes.append(rng.choice([size for size in sizes if 0 <= total + size <= LARGEST_TOTAL]))
        total += changes[-1]
    return Chain(start, tuple(changes))


def draw_from_split(split: str, draw: Callable[[], T], key: Callable[[T], str], seen: set[str] | None) -> T:
    """Draw until something falls into the split and, if ``seen`` is given, has a key that was not drawn before.

    When no new key turns up for a thousand draws inside the split, the split counts as used up: ``seen`` is emptied,
    and keys come round a second time.
    """
    tries = 0
    while True:
        drawn = draw()
        name = key(drawn)
        if split_of(name) != split:
            continue
        if seen is None:
            return drawn
        if name not in seen:
            seen.add(name)
            return drawn
        tries += 1
        if tries == TRIES_FOR_A_NEW_KEY:
            seen.clear()


def problem_text(chain: Chain, rng: random.Random) -> str:
    """The chain in words, with a random name, object and verbs: ``Ann has 12 apples . eats 5 . finds 8 ?``."""
    changes = [f"{rng.choice(GAINS if change > 0 else LOSSES)} {abs(change)}" for change in chain.changes]
    return f"{rng.choice(NAMES)} has {chain.start} {rng.choice(OBJECTS)} . {' . '.join(changes)} ?"


def _step(before: int, change: int, after: int) -> str:
    return f"{before} {'+' if change > 0 else '-'} {abs(change)} = {after} ; "


def worked_solution(chain: Chain) -> str:
    """All steps without an error, then the answer: ``12 - 5 = 7 ; 7 + 8 = 15 ; #### 15``."""
    befores = (chain.start, *chain.totals)
    steps = [_step(*step) for step in zip(befores, chain.changes, chain.totals, strict=False)]
    return "".join(steps) + f"#### {chain.totals[-1]}"


def mixed_response(chain: Chain, rng: random.Random) -> str:
    """A response of mixed quality, what the start models learn from.

    45 % are careful: every step is written down, each wrong with 1 %, later steps go on from the wrong total. 55 % are
    sloppy: the first k steps (k below the number of changes, so possibly none), each wrong with 5 %, then a jump to an
    answer that is right in half of the cases and off by up to 9 in the others.
    """
    careful = rng.random() < CAREFUL_SHARE
    slip = CAREFUL_SLIP if careful else SLOPPY_SLIP
    written = len(chain.changes) if careful else rng.randrange(len(chain.changes))
    text, before, error = "", chain.start, 0
    for index in range(written):
        if rng.random() < slip:
            error += _error(tuple(total + error for total in chain.totals[index:]), rng)
        after = chain.totals[index] + error
        text += _step(before, chain.changes[index], after)
        before = after
    if careful:
        return f"{text}#### {before}"
    answer = chain.totals[-1]
    if rng.random() >= SLOPPY_RIGHT:
        answer += _error((answer,), rng)
    return f"{text}#### {answer}"


def _error(totals: tuple[int, ...], rng: random.Random) -> int:
    """An error between −9 and 9, not 0, after which all the given totals still have a token."""
    sizes = [size for size in range(-LARGEST_ERROR, LARGEST_ERROR + 1) if size != 0]
    return rng.choice([size for size in sizes if min(totals) + size >= 0 and max(totals) + size <= LARGEST_NUMBER])


def pretraining_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of a training problem and a response of mixed quality; validation and test problems never occur."""
    check_count(count)
    rng = random.Random(f"arithmetic/pretraining/{seed}")
    chains = [draw_from_split("train", lambda: draw_chain(rng), lambda chain: chain.key, None) for _ in range(count)]
    return [(problem_text(chain, rng), mixed_response(chain, rng)) for chain in chains]


def arithmetic_problems(split: str, count: int, seed: int) -> list[Problem]:
    """Make ``count`` problems of a split; the same arguments give the same problems, a larger count begins alike.

    Validation and test problems repeat no chain of numbers until the split is used up (there are about 85,000 in each),
    so that every problem is a new piece of evidence. Among very many problems two changes therefore become
    rarer: a split has only about 350 of those. Training problems may repeat.
    """
    check_split(split)
    check_count(count)
    rng = random.Random(f"arithmetic/{split}/{seed}")
    seen: set[str] | None = None if split == "train" else set()
    problems = []
    for index in counted(range(count), "making problems", count):
        chain = draw_from_split(split, lambda: draw_chain(rng), lambda drawn: drawn.key, seen)
        problems.append(
            Problem(
                id=f"arithmetic-{split}-{seed}-{index}",
                problem=problem_text(chain, rng),
                answer=str(chain.totals[-1]),
                solution=worked_solution(chain),
                level=str(len(chain.changes)),
                subject="arithmetic",
                source="lco.problems.arithmetic",
            )
        )
    return problems
