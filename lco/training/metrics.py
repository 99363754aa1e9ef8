"""What is logged of a rollout and its updates: pure functions of rows, statistics and advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lco.advantages import degenerate
from lco.heads.linear import HIDDEN_GRADIENT
from lco.losses import LOG_RATIO_BOUND
from lco.methods.objective import Prepared, Signal
from lco.training.state import Rollout, UpdateReport, VerifiedRow


def group_numbers(rows: Sequence[VerifiedRow]) -> Tensor:
    """[B]: rows with one group id share a number."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(row.row.group, len(numbers)) for row in rows])


def describe(rows: Sequence[VerifiedRow]) -> dict[str, Any]:
    """What the rollout looks like, before any update. Rows without a reward are counted and nothing more."""
    lost = sum(not math.isfinite(row.reward) for row in rows)
    drawn, rows = len(rows), [row for row in rows if math.isfinite(row.reward)]
    if not rows:
        return {"rows": drawn, "rewards_not_finite": lost, "tokens": 0}
    rewards = torch.tensor([row.earned for row in rows])
    right = torch.tensor([float(row.verdict.correct) for row in rows])
    lengths = torch.tensor([len(row.row.response_ids) for row in rows], dtype=torch.float32)
    groups = group_numbers(rows)
    flat = degenerate(rewards, groups)
    return {
        "accuracy": float(right.mean()),
        **mean_parts(rows),
        "response_length": float(lengths.mean()),
        "length_right": float(lengths[right > 0].mean()) if (right > 0).any() else None,
        "length_wrong": float(lengths[right == 0].mean()) if (right == 0).any() else None,
        "truncated": sum(row.row.finish_reason == "length" for row in rows) / len(rows),
        "no_answer": sum(row.verdict.extracted is None and not row.verdict.correct for row in rows) / len(rows),
        "degenerate_all_right": float((flat & (right > 0)).float().mean()),
        "degenerate_all_wrong": float((flat & (right == 0)).float().mean()),
        "tokens": int(lengths.sum()),
        "rows": drawn,
        **({"rewards_not_finite": lost} if lost else {}),
    }


def mean_parts(rows: Sequence[VerifiedRow]) -> dict[str, float]:
    """Mean reward and its parts by term, where it is more than the verdict."""
    if not rows or not rows[0].parts:
        return {}
    parts = {f"reward/{name}": sum(row.parts[name] for row in rows) / len(rows) for name in rows[0].parts}
    return {"reward": sum(row.reward for row in rows) / len(rows), **parts}


def sum_over_tokens(statistics: Mapping[str, Tensor], advantage: Tensor, mask: Tensor) -> dict[str, float]:
    """Sums over the tokens of a micro-batch (statistics are 0 where padded)."""
    sums = {name: float(value.double().sum()) for name, value in statistics.items() if name != HIDDEN_GRADIENT}
    slopes = statistics[HIDDEN_GRADIENT].double()
    sign = advantage[:, : slopes.shape[1]]
    # A padded 0 is no log-probability: its exponential would count as certain.
    sampled = statistics["logprob"].double().exp()[mask[:, : slopes.shape[1]]]
    return {
        "tokens": float(mask.sum()),
        "rows": float(len(mask)),
        **sums,
        "sampled_probability": float(sampled.sum()),
        "hidden_gradient_positive": float(slopes[sign > 0].sum()),
        "hidden_gradient_negative": float(slopes[sign < 0].sum()),
    }


def log_ratios(sampled: Sequence[VerifiedRow], rows: Sequence[int], logprobs: Mapping[int, Tensor]) -> Tensor:
    """log p of the trainer − log p of the sampler, one per sampled token of an update (empty for demonstrations).

    Args:
        logprobs: row → the trainer's log-probabilities of its sampled tokens.
    """
    known = [row for row in rows if sampled[row].row.logprobs]
    parts = [logprobs[row].float() - torch.tensor(sampled[row].row.logprobs) for row in known]
    return torch.cat(parts) if parts else torch.zeros(0)


def compare_with_sampler(
    rollout: Rollout, plan: Sequence[Sequence[int]], reports: Sequence[UpdateReport]
) -> dict[str, Any]:
    """What compares trainer and sampler, where the rows are the policy's own."""
    sampled, waited = rollout.compared, rollout.behaviour
    logprobs = reports[0].logprobs
    if waited is not None and waited.logprob is not None:  # the first update is under another policy than the sampler's
        logprobs = {row: waited.logprob[row, : len(sampled[row].row.response_ids)] for row in plan[0]}
    return {**agreement(sampled, plan[0], logprobs), **drift(sampled, plan[-1], reports[-1].logprobs)}


def agreement(sampled: Sequence[VerifiedRow], rows: Sequence[int], logprobs: Mapping[int, Tensor]) -> dict[str, Any]:
    """How far trainer and sampler are apart on the first update's tokens, where both are the same policy."""
    gap = log_ratios(sampled, rows, logprobs).abs()
    return {"sampler_gap_mean": float(gap.mean()), "sampler_gap_max": float(gap.max())} if len(gap) else {}


def drift(sampled: Sequence[VerifiedRow], rows: Sequence[int], logprobs: Mapping[int, Tensor]) -> dict[str, Any]:
    """How far the last update's policy has left the one that sampled: KL(π_old ‖ π) by its k3 estimate on the sampled
    tokens, r − 1 − log r, and the share of tokens whose ratio r left [0.8, 1.2]."""
    x = log_ratios(sampled, rows, logprobs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    if not len(x):
        return {}
    return {
        "kl_old": float((torch.expm1(x) - x).mean()),
        "ratio_outside": float(((x.exp() - 1).abs() > 0.2).float().mean()),
    }


def average_prepared(found: Sequence[Prepared]) -> dict[str, float]:
    """Of what the updates' minibatches were prepared with: means of the numbers, and how often each note came up."""
    numbers = {name: sum(one.numbers[name] for one in found) / len(found) for name in found[0].numbers}
    notes = [name for one in found for name in one.notes]
    return {**numbers, **{name: float(notes.count(name)) for name in notes}}


OF_THE_LAST = {"kl_old": "kl_old_exact", "kl_target": "kl_target"}
"""Divergences are the last update's, where they are largest; other statistics are means over all updates. `kl_old` in the
metrics is every method's estimate on sampled tokens, so the exact one has a name of its own."""

COUNTS = {"tokens", "rows"}

BY_SIGN = {"hidden_gradient_positive", "hidden_gradient_negative"}
"""‖∂L/∂h‖ over the tokens of one sign of advantage: root mean square over the updates."""


def summarise(
    reports: Sequence[UpdateReport], inputs: Mapping[str, Tensor], signal: Signal, rows: Sequence[int]
) -> dict[str, Any]:
    """Token-weighted means over the step's updates; the divergence is the last update's, where it is largest."""
    tokens = max(1.0, sum(s.totals["tokens"] for s in reports))

    def mean(name: str) -> float:
        return sum(s.totals[name] for s in reports) / tokens

    norms = [s.step.gradient_norm for s in reports]
    learnt = torch.zeros_like(signal.mask)
    learnt[list(rows)] = signal.mask[list(rows)]
    advantage = inputs["advantage"][learnt]
    metrics = {
        "loss": sum(s.loss for s in reports) / len(reports),
        "gradient_norm": sum(norms) / len(norms),
        "gradient_norm_max": max(norms),
        "updates_skipped": sum(not s.step.applied for s in reports),
        **{name: mean(name) for name in reports[-1].totals if name not in {*COUNTS, *OF_THE_LAST, *BY_SIGN}},
        **{
            shown: reports[-1].totals[name] / max(1.0, reports[-1].totals["tokens"])
            for name, shown in OF_THE_LAST.items()
            if name in reports[-1].totals
        },
        **{name: math.sqrt(sum(s.totals[name] for s in reports) / len(reports)) for name in BY_SIGN},
        "advantage_positive": float((advantage > 0).float().mean()) if len(advantage) else None,
        "lr": reports[-1].step.lr,
    }
    if "target_kl" in reports[-1].totals:
        rows_seen = max(1.0, sum(s.totals["rows"] for s in reports))
        metrics["target_kl_per_sequence"] = sum(s.totals["target_kl"] for s in reports) / rows_seen
    if "return" in inputs and signal.values is not None:
        target = inputs["return"][signal.mask]
        spread = float(target.var(correction=0)) if len(target) else 0.0
        left = float((target - signal.values[signal.mask]).var(correction=0)) if len(target) else 0.0
        metrics["explained_variance"] = 1 - left / spread if spread > 0 else None
    return metrics
