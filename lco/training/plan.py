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


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass. A rank that has no row left repeats row 0 with weight zero, so that all ranks call
    forward equally often (ZeRO-3 gathers weights inside)."""

    rows: tuple[int, ...]
    real: bool


def minibatches(rows: Sequence[int], count: int, epochs: int, step: int, seed: int) -> list[list[int]]:
    """The rows of every optimizer step of a rollout, in order: `epochs` passes of `count` near-equal parts."""
    plan = []
    for epoch in range(epochs):
        order = list(rows)
        if count > 1:
            shuffle = torch.randperm(len(rows), generator=generator(seed, step, f"minibatches/{epoch}"))
            order = [rows[i] for i in shuffle.tolist()]
        bounds = [round(k * len(order) / count) for k in range(count + 1)]
        plan += [order[a:b] for a, b in itertools.pairwise(bounds) if b > a]
    return plan


def micro_batches(rows: Sequence[int], size: int, rank: int, world: int) -> Iterator[MicroBatch]:
    """This rank's share of `rows` in parts of at most `size`; the same number of parts on every rank."""
    mine = rows[rank::world]
    largest = -(-len(rows) // world)
    parts = max(1, -(-largest // size))
    for part in range(parts):
        chosen = tuple(mine[part::parts])
        yield MicroBatch(chosen or (rows[0],), real=bool(chosen))
