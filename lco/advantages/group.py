"""Advantages from the rewards of a group: all rows that answer one prompt, keyed by group number, never by position."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _sums(values: Tensor, groups: Tensor) -> Tensor:
    """[B] → [B]: the sum of `values` over each row's group."""
    _, index = groups.unique(return_inverse=True)
    totals = values.new_zeros(int(index.max()) + 1 if len(index) else 0)
    return totals.index_add(0, index, values)[index]


def group_sizes(groups: Tensor) -> Tensor:
    """[B] float: members of each row's group."""
    return _sums(torch.ones_like(groups, dtype=torch.float32), groups)


def degenerate(rewards: Tensor, groups: Tensor) -> Tensor:
    """[B] bool: one member only, or all rewards of the group equal. Such groups carry no signal."""
    # Compared with the group's first reward, not with its mean: a mean of equal floats may differ in the last bit.
    _, index = groups.unique(return_inverse=True)
    first = torch.full((int(index.max()) + 1 if len(index) else 0,), len(rewards), device=groups.device)
    first = first.scatter_reduce(0, index, torch.arange(len(rewards), device=groups.device), "amin")
    differs = (rewards != rewards[first[index]]).float()
    return _sums(differs, groups) == 0


def group_mean(values: Tensor, groups: Tensor) -> Tensor:
    """[B] → [B]: the mean of each row's group."""
    return _sums(values, groups) / group_sizes(groups)


def centred(rewards: Tensor, groups: Tensor) -> Tensor:
    """R_i − mean of its group; exactly 0 in a degenerate group. [B] → [B]."""
    advantage = rewards - group_mean(rewards, groups)
    return advantage.masked_fill(degenerate(rewards, groups), 0)


def leave_one_out(rewards: Tensor, groups: Tensor) -> Tensor:
    """R_i − mean of the others of its group (RLOO, 2402.14740) = G/(G − 1) · centred; 0 in a degenerate group."""
    size = group_sizes(groups)
    return centred(rewards, groups) * size / (size - 1).clamp(min=1)


def weighted_leave_one_out(rewards: Tensor, groups: Tensor, weights: Tensor) -> Tensor:
    """R_i − Σ_{j≠i} w_j R_j / Σ_{j≠i} w_j within the group: with w = ‖∇ log π(y)‖² the baseline of least variance. [B] → [B].

    `leave_one_out` where all weights are equal, or those of all others are 0; 0 in a degenerate group.
    """
    w, r = weights.double(), rewards.double()
    others = _sums(w, groups) - w
    # A weight that is nearly all of the group's leaves rounding where the others have none.
    known = others > 1e-12 * w
    baseline = (_sums(w * r, groups) - w * r) / torch.where(known, others, 1.0)
    advantage = torch.where(known, (r - baseline).to(rewards.dtype), leave_one_out(rewards, groups))
    return advantage.masked_fill(degenerate(rewards, groups), 0)


def standardised(rewards: Tensor, groups: Tensor, ddof: int = 1, epsilon: float = 1e-6) -> Tensor:
    """(R_i − mean) / (std + ε) within the group (GRPO, 2402.03300); 0 in a degenerate group. ddof 1 as verl and TRL."""
    advantage = centred(rewards, groups)
    variance = _sums(advantage.square(), groups) / (group_sizes(groups) - ddof).clamp(min=1)
    return advantage / (variance.sqrt() + epsilon)


def soft_leave_one_out(rewards: Tensor, groups: Tensor, tau: float, floor: float = 0.0) -> Tensor:
    """R_i − τ log mean_{j≠i} exp(R_j/τ) within the group (PMD-partition, 2602.05933); 0 in a degenerate group.

    τ → ∞ gives `leave_one_out`, τ → 0 the distance to the best of the others. `floor` > 0 bounds the mean from below after a
    shift by the maximum of the whole group, own reward included, as the released code does.
    """
    baseline = torch.zeros_like(rewards)
    for group in groups.unique():
        (rows,) = (groups == group).nonzero(as_tuple=True)
        if len(rows) < 2:
            continue
        scaled = (rewards[rows] / tau).expand(len(rows), -1)
        others = scaled.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rewards.device), -torch.inf)
        log_mean = others.logsumexp(1) - math.log(len(rows) - 1)
        if floor:
            largest = scaled[0].max()
            log_mean = (log_mean - largest).clamp(min=math.log(floor)) + largest
        baseline[rows] = tau * log_mean
    return (rewards - baseline).masked_fill(degenerate(rewards, groups), 0)
