"""Which prompts a step takes, which rows an update covers, which of them a rank's micro-batches hold.

All of it is a function of (seed, step), so a resumed run continues exactly, and the union over ranks does not depend on
how many there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lco.randomness import generator


def prompt_indices(total: int, per_step: int, step: int, seed: int) -> list[int]:
    """Positions [step·per_step, (step + 1)·per_step) of one permutation of the problems after another."""
    chosen: list[int] = []
    for position in range(step * per_step, (step + 1) * per_step):
        epoch, offset = divmod(position, total)
        if not chosen or offset == 0:
            order = torch.randperm(total, generator=generator(seed, epoch, "order")).tolist()
        chosen.append(order[offset])
    return chosen


def refill_indices(total: int, count: int, step: int, round_: int, seed: int, taken: set[int]) -> list[int]:
    """Up to `count` positions of problems that this rollout has not taken, at random by (seed, step, round)."""
    order = torch.randperm(total, generator=generator(seed, step, f"refill/{round_}")).tolist()
    return list(itertools.islice((i for i in order if i not in taken), count))


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass. A rank that has no row left repeats row 0 with weight zero, so that all ranks call
    forward equally often (ZeRO-3 gathers weights inside)."""

    rows: tuple[int, ...]
    real: bool


def minibatches(rows: Sequence[int], count: int, epochs: int, step: int, seed: int, unit: int = 1) -> list[list[int]]:
    """The rows of every optimizer step of a rollout, in order: `epochs` passes of `count` near-equal parts.

    `unit` neighbouring rows stay together (2 for preference pairs).
    """
    plan = []
    units = grouped(rows, unit)
    for epoch in range(epochs):
        order = units
        if count > 1:
            shuffle = torch.randperm(len(units), generator=generator(seed, step, f"minibatches/{epoch}"))
            order = [units[i] for i in shuffle.tolist()]
        bounds = [round(k * len(order) / count) for k in range(count + 1)]
        plan += [[row for rows in order[a:b] for row in rows] for a, b in itertools.pairwise(bounds) if b > a]
    return plan


def grouped(rows: Sequence[int], unit: int) -> list[tuple[int, ...]]:
    return [tuple(rows[i : i + unit]) for i in range(0, len(rows), unit)]


def micro_batches(rows: Sequence[int], size: int, rank: int, world: int, unit: int = 1) -> Iterator[MicroBatch]:
    """This rank's share of `rows` in parts of at most `size` (never less than one unit); the same number on every rank."""
    units = grouped(rows, unit)
    mine = units[rank::world]
    largest = -(-len(units) // world)
    parts = max(1, -(-largest // max(1, size // unit)))
    for part in range(parts):
        chosen = tuple(row for rows in mine[part::parts] for row in rows)
        yield MicroBatch(chosen or units[0], real=bool(chosen))
