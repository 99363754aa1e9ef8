"""Additions in plain English, easy enough that a model of 135 M parameters gets some of them right.

Reinforcement learning learns from groups that hold right and wrong answers. A small instruction-tuned model answers
almost no grade-school word problem, so such groups never occur; additions of one digit give it a fair chance.

    What is 3 + 4?    →    7

The problem comes without an instruction about the form of the answer: the caller adds one, for example "Reply with only
the number." Training, validation and test problems are kept apart by a hash of the two numbers, as in
``lco.problems.arithmetic``.
"""

from __future__ import annotations

import random

from lco.problems.arithmetic import check_count, check_split, draw_from_split
from lco.problems.progress import counted
from lco.problems.records import Problem


def addition_problems(split: str, count: int, seed: int, digits: int = 1) -> list[Problem]:
    """Make ``count`` additions of two numbers with up to ``digits`` digits each.

    The same arguments give the same problems. No pair of numbers comes a second time before the split is used up; with
    one digit that is soon: there are 100 pairs in all, about ten of them in the validation and the test set.
    """
    check_split(split)
    check_count(count)
    if digits < 1:
        raise ValueError(f"digits is {digits}: numbers need at least 1 digit")
    rng = random.Random(f"addition/{split}/{seed}/{digits}")
    largest = 10**digits - 1

    def draw() -> tuple[int, int]:
        return rng.randint(0, largest), rng.randint(0, largest)

    seen: set[str] = set()
    problems = []
    for index in counted(range(count), "making problems", count):
        left, right = draw_from_split(split, draw, lambda pair: f"{pair[0]}+{pair[1]}", seen)
        problems.append(
            Problem(
                id=f"addition-{digits}-{split}-{seed}-{index}",
                problem=f"What is {left} + {right}?",
                answer=str(left + right),
                solution=f"{left} + {right} = {left + right}",
                level=str(digits),
                subject="addition",
                source="lco.problems.addition",
            )
        )
    return problems
