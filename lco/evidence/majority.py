"""Majority votes: what the largest group of equal answers is worth, from all samples of a problem or from k of them.

A problem is kept as the sizes of its groups of equal answers, negative where the answer is wrong: (5, −2) are five right
samples and two that agree on a wrong answer. Samples without an answer stand in no group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache


def group_answers(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> list[int | None]:
    """The number of each sample's group, in the order in which groups are met; None for a sample without an answer.

    Args:
        answers: what was extracted from each sample.
        same: the verifier's equality, asked of a group's first answer.
    """
    first: list[str] = []
    found: list[int | None] = []
    for answer in answers:
        home = None if answer is None else next((i for i, known in enumerate(first) if same(known, answer)), len(first))
        if answer is not None and home == len(first):
            first.append(answer)
        found.append(home)
    return found


def group_sizes(groups: Sequence[int | None], correct: Sequence[bool]) -> tuple[int, ...]:
    """Sizes of the groups, the largest first, negative where none of the group's samples is right."""
    right = {group for group, is_right in zip(groups, correct, strict=True) if is_right}
    counted = Counter(group for group in groups if group is not None)
    sizes = (size if group in right else -size for group, size in counted.items())
    return tuple(sorted(sizes, key=lambda size: (-abs(size), -size)))


def majority(groups: Sequence[int]) -> float:
    """maj@n of one problem: is its largest group right? Tied groups share the vote; no answer at all is wrong."""
    largest = max(map(abs, groups), default=0)
    tied = [size for size in groups if abs(size) == largest]
    return sum(size > 0 for size in tied) / len(tied) if tied else 0.0


@cache
def majority_at(groups: tuple[int, ...], n: int, k: int) -> float:
    """maj@k of one problem: the mean of `majority` over all C(n, k) choices of k of its n samples, counted exactly.

    A right group wins with t of its samples where every other group gives at most t, and shares the vote with those that
    give t. So for each right group and each t, the choices of the other groups are counted by how many samples they take
    and how many of them tie.

    Raises:
        ValueError: k > n, or more samples in the groups than n.
    """
    sizes = [abs(size) for size in groups]
    silent = n - sum(sizes)
    if not 0 < k <= n or silent < 0:
        raise ValueError(f"maj@{k} needs at least {k} samples, there are {n}, {sum(sizes)} of them with an answer")
    worth = 0.0
    for place, size in enumerate(groups):
        others = sizes[:place] + sizes[place + 1 :]
        for votes in range(1, min(size, k) + 1):  # none for a wrong group, whose size is negative
            for (taken, ties), ways in ways_below(others, votes, k - votes).items():
                rest = math.comb(silent, k - votes - taken)
                worth += math.comb(size, votes) * ways * rest / math.comb(n, k) / (1 + ties)
    return worth


def ways_below(sizes: Sequence[int], votes: int, room: int) -> dict[tuple[int, int], int]:
    """{(samples taken, groups that give exactly `votes`): number of ways} to take at most `votes` samples of each group and
    at most `room` in all."""
    found = {(0, 0): 1}
    for size in sizes:
        after: dict[tuple[int, int], int] = {}
        for (taken, ties), ways in found.items():
            for count in range(min(size, votes, room - taken) + 1):
                key = taken + count, ties + (count == votes)
                after[key] = after.get(key, 0) + ways * math.comb(size, count)
        found = after
    return found
