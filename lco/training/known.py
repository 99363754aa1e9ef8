"""What is asked of the policies once a rollout, before its first update: old statistics, a critic's values, and the
hidden states of policies that do not learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lco.policy import Answer, FixedPolicy, Snapshot, Statistics
from lco.rollout.records import Batch, select
from lco.training.plan import MicroBatch, micro_batches

if TYPE_CHECKING:
    from lco.training.loop import Run

Known = Mapping[str, Mapping[int, FixedPolicy]]
"""name of a fixed policy → row → its hidden states and head"""


def unit(run: Run) -> int:
    """Rows that no minibatch may separate."""
    return 2 if run.method.scope == "pair" else 1


def micro_batches_of(run: Run, rows: Sequence[int]) -> list[MicroBatch]:
    """This rank's micro-batches of a minibatch."""
    engine = run.engine
    return list(micro_batches(rows, run.experiment.micro_batch, engine.rank, engine.world, unit(run)))


def before_updates(run: Run, batch: Batch, plan: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """What is asked once a rollout, [B, T, …] each: the critic's values, the reference's log-probabilities, and what the
    loss reads of π_old (`old_…`) where there will be more than one update.

    Of the rows in the plan; of all rows where advantages are computed from any of it.
    """
    needs = run.method.needs(run.hyper)
    wanted = list(run.method.old(run.hyper).statistics) if len(plan) > 1 else []
    if needs.old_logprob and "old_logprob" not in wanted:
        wanted.append("old_logprob")
    critic = run.method.critic(run.hyper)
    for_advantages = needs.old_logprob or needs.reference or critic
    rows = None if for_advantages else sorted({row for part in plan for row in part})
    if critic and run.critic is None:
        wanted.append("value")
    known = everywhere(run, batch, lambda part: run.engine.forward(part, Statistics(wanted)), rows) if wanted else {}
    if run.critic is not None:
        judge = run.critic
        known |= everywhere(run, batch, lambda part: judge.forward(part, Statistics(["value"])))
    if needs.reference:
        reference = run.fixed["reference"]
        found = everywhere(run, batch, lambda part: reference(part.to(run.engine.device), Statistics(["logprob"])))
        known["ref_logprob"] = found["logprob"]
    return known


def everywhere(
    run: Run, batch: Batch, ask: Callable[[Batch], Answer], rows: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Statistics [B, T, …] of all rows (or of some, 0 elsewhere) on every rank, each rank asking for its share."""
    mine = []
    rows = range(len(batch.input_ids)) if rows is None else rows
    for part in micro_batches(rows, run.experiment.micro_batch, run.engine.rank, run.engine.world):
        with torch.no_grad():
            answer = ask(select(batch, part.rows))
        if part.real:
            mine.append((part.rows, {name: value.cpu() for name, value in answer.statistics.items()}))
    found: dict[str, Tensor] = {}
    for share in run.engine.gather(mine):
        for indices, statistics in share:
            for name, value in statistics.items():
                if name not in found:
                    found[name] = value.new_zeros((*batch.response_mask.shape, *value.shape[2:]))
                found[name][list(indices), : value.shape[1]] = value
    return found


def snapshot(run: Run, batch: Batch, plan: Sequence[Sequence[int]]) -> dict[int, FixedPolicy]:
    """π_old of every row that this rank updates on after the first update; empty where nothing has to be kept."""
    if not run.method.old(run.hyper).whole or len(plan) == 1:
        return {}
    return remembered(run, batch, plan[1:], run.engine.forward)


def fixed_policies(run: Run, batch: Batch, plan: Sequence[Sequence[int]]) -> dict[str, dict[int, FixedPolicy]]:
    """The policies that the target reads, of every row that this rank updates on."""
    target = run.method.target(run.hyper) if run.method.target else None
    return {
        name: remembered(run, batch, plan, lambda part, asked, policy=run.fixed[name]: policy(part, asked))  # type: ignore[misc]
        for name in (target.fixed if target else ())
    }


def remembered(
    run: Run, batch: Batch, plan: Sequence[Sequence[int]], ask: Callable[[Batch, Snapshot], Answer]
) -> dict[int, FixedPolicy]:
    """Hidden states and head of a policy at the rows of `plan` that are this rank's."""
    engine, size = run.engine, run.experiment.micro_batch
    needed = sorted({row for rows in plan for part in micro_batches_of(run, rows) for row in part.rows})
    longest = max(engine.gather(len(needed)))
    kept: dict[int, FixedPolicy] = {}
    for start in range(0, longest, size):
        rows = needed[start : start + size]
        with torch.no_grad():
            old = ask(select(batch, rows or [0]).to(engine.device), Snapshot()).snapshot
        assert old is not None
        kept |= {row: old.rows([i]) for i, row in enumerate(rows)}
    return share_head(kept)


def share_head(kept: Mapping[int, FixedPolicy]) -> dict[int, FixedPolicy]:
    """One copy of the head for all rows: every snapshot of a rollout was taken from the same weights."""
    if not kept:
        return {}
    first = next(iter(kept.values()))
    return {row: replace(old, weight=first.weight, bias=first.bias) for row, old in kept.items()}


def of_rows(policy: Mapping[int, FixedPolicy], rows: Sequence[int]) -> FixedPolicy:
    first = policy[rows[0]]
    return FixedPolicy(tuple(h for row in rows for h in policy[row].hidden), first.weight, first.bias)
