"""Forward passes made once per rollout, before its first optimizer step, without gradient.

`measure_behaviour` asks the policy that sampled it and its critic, which must happen while they are the current ones: π_old,
whole or by statistics, the critic's values, norms of rows. `ask_reference` and `snapshot_fixed_policies` ask models that never
change (reference, verifier, DPO), at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from lco.heads import FixedHead, HeadRequest, HeadStep
from lco.methods.objective import Objective, RowNorms
from lco.policy import FixedPolicy, HeadNorms, Snapshot, Statistics, TokenLoss
from lco.rollout.records import Batch, select
from lco.training.state import Behaviour, Policies, SnapshotsByRow

UpdatePlan = Sequence[Sequence[int]]
"""The rows of every optimizer step of a rollout, in order."""


def measure_behaviour(
    policies: Policies, objective: Objective, batch: Batch, plan: UpdatePlan, waits: bool = False
) -> Behaviour:
    """What is to be known of the current policy, which has sampled the batch, once it has moved.

    Of the rows in the plan; of all rows where advantages are computed from any of it.

    Args:
        waits: the policy will have moved before the rollout's first update already; else the first update is under the policy
            itself, and only the later ones need to know it.
    """
    off_policy = plan if waits else plan[1:]
    known = ask_statistics(policies, objective, batch, plan, bool(off_policy), waits)
    logprob = known.get("old_logprob") if waits else None
    if waits and not objective.needs.old_logprob and "old_logprob" not in objective.old.statistics:
        known.pop("old_logprob")  # a loss that reads the whole of π_old would take it in place of its own
    snapshots = snapshot_old_policy(policies, objective, batch, off_policy)
    return Behaviour(known, snapshots, ask_row_norms(policies, objective.needs.row_norms, batch), logprob)


def ask_statistics(
    policies: Policies, objective: Objective, batch: Batch, plan: UpdatePlan, moves: bool, compared: bool
) -> dict[str, Tensor]:
    """[B, T, …] each: the critic's values, and what the loss reads of π_old (`old_…`) where the policy `moves` before an update;
    `old_logprob` in any case where it is to be `compared` with the sampler's."""
    needs, engine = objective.needs, policies.engine
    wanted = list(objective.old.statistics) if moves else []
    if (needs.old_logprob or compared) and "old_logprob" not in wanted:
        wanted.append("old_logprob")
    for_advantages = needs.old_logprob or needs.reference or objective.critic
    rows = None if for_advantages else sorted({row for part in plan for row in part})
    if objective.critic and policies.critic is None:
        wanted.append("value")
    known = gather_statistics(policies, batch, wanted, engine.forward, rows)
    if policies.critic is not None:
        known |= gather_statistics(policies, batch, ["value"], policies.critic.forward)
    return known


def ask_reference(policies: Policies, objective: Objective, batch: Batch) -> Tensor | None:
    """[B, T] the reference policy's log-probabilities; None where the method needs none."""
    if not objective.needs.reference:
        return None
    reference, device = policies.fixed["reference"], policies.engine.device
    found = gather_statistics(policies, batch, ["logprob"], lambda part, asked: reference(part.to(device), asked))
    return found["logprob"]


def gather_statistics(
    policies: Policies,
    batch: Batch,
    names: Sequence[str],
    ask: Callable[[Batch, Statistics], Mapping[str, Tensor]],
    rows: Sequence[int] | None = None,
    constants: Mapping[str, Tensor] = MappingProxyType({}),
    step: HeadStep | None = None,
) -> dict[str, Tensor]:
    """Statistics [B, T, …] of all rows (or of some, 0 elsewhere) on every rank, each rank asking for its share.

    `constants` [B, T, …] are the inputs that they may read, `step` is the coming step on the head for those that predict it.
    """
    if not names:
        return {}
    mine = []
    for part in policies.share(range(len(batch.input_ids)) if rows is None else rows):
        chosen, device = list(part.rows), policies.engine.device
        mask = batch.response_mask[chosen]
        inputs = {name: value[chosen][mask].to(device) for name, value in constants.items()}
        with torch.no_grad():
            answer = ask(select(batch, part.rows), Statistics(names, inputs, step))
        if part.real:
            mine.append((part.rows, {name: value.cpu() for name, value in answer.items()}))
    found: dict[str, Tensor] = {}
    for share in policies.engine.gather(mine):
        for indices, statistics in share:
            for name, value in statistics.items():
                if name not in found:
                    found[name] = value.new_zeros((*batch.response_mask.shape, *value.shape[2:]))
                found[name][list(indices), : value.shape[1]] = value
    return found


def ask_row_norms(policies: Policies, kind: RowNorms, batch: Batch) -> Tensor | None:
    """[B] ‖∇ log π(y)‖² of every row on every rank, or what stands for it (`Needs.row_norms`); None where none is asked for."""
    engine, mask = policies.engine, batch.response_mask
    if not kind:
        return None
    if kind == "logit":
        found = gather_statistics(policies, batch, ["logprob", "sq_prob"], engine.forward)
        # ‖e_a − π‖² = 1 − 2π(a) + Σ π² of each token
        tokens = 1 - 2 * found["logprob"].double().exp() + found["sq_prob"].double()
        return torch.where(mask, tokens, 0.0).sum(1)
    norms = torch.zeros(len(mask), dtype=torch.float64)
    mine: list[tuple[Sequence[int], Tensor]] = []
    if kind == "exact":
        for row in range(len(mask)):
            one = select(batch, [row])
            sampled = one.response_ids[one.response_mask].to(engine.device)
            request = HeadRequest(sampled, ("logprob",), {}, torch.ones(len(sampled), device=engine.device))
            norms[row] = engine.probe(one, TokenLoss(log_probability, request)).whole ** 2
        return norms
    for part in policies.share(range(len(mask))):
        with torch.no_grad():
            answer = engine.forward(select(batch, part.rows), HeadNorms())
        if part.real:
            mine.append((part.rows, answer.cpu()))
    for share in engine.gather(mine):
        for rows, values in share:
            norms[list(rows)] = values
    return norms


def log_probability(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    return s["logprob"]


def snapshot_old_policy(
    policies: Policies, objective: Objective, batch: Batch, off_policy: UpdatePlan
) -> SnapshotsByRow:
    """π_old of every row that this rank updates on once the policy has moved; empty where nothing has to be kept."""
    if not objective.old.whole or not off_policy:
        return {}
    return snapshot_rows(policies, objective.unit, batch, off_policy, policies.engine.forward)


def snapshot_fixed_policies(
    policies: Policies, objective: Objective, batch: Batch, plan: UpdatePlan
) -> dict[str, SnapshotsByRow]:
    """The policies that the target reads, of every row that this rank updates on."""
    names = objective.target.fixed if objective.target else ()
    return {name: snapshot_rows(policies, objective.unit, batch, plan, policies.fixed[name]) for name in names}


def snapshot_rows(
    policies: Policies, unit: int, batch: Batch, plan: UpdatePlan, ask: Callable[[Batch, Snapshot], FixedPolicy]
) -> SnapshotsByRow:
    """Hidden states and head of a policy at the rows of `plan` that are this rank's."""
    engine, size = policies.engine, policies.micro_batch
    needed = sorted({row for rows in plan for part in policies.share(rows, unit) for row in part.rows})
    longest = max(engine.gather(len(needed)))
    kept: dict[int, Tensor] = {}
    head = None
    for start in range(0, longest, size):
        rows = needed[start : start + size]
        with torch.no_grad():
            found = ask(select(batch, rows or [0]).to(engine.device), Snapshot())
        kept |= dict(zip(rows, found.hidden, strict=False))
        head = head or found.head  # one copy for all rows: every snapshot of a rollout was taken from the same weights
    return {row: FixedHead(hidden, head) for row, hidden in kept.items() if head is not None}


def stack_rows(snapshots: SnapshotsByRow, rows: Sequence[int], device: torch.device) -> FixedHead:
    """The policy at the tokens of some rows, one row after another."""
    found = [snapshots[row] for row in rows]
    return FixedHead(torch.cat([one.hidden.to(device) for one in found]), found[0].head.to(device))
