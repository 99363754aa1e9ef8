"""What is logged of a rollout and its updates: pure functions of rows, statistics and advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lco.advantages import degenerate
from lco.heads.linear import HIDDEN_GRADIENT
from lco.losses import LOG_RATIO_BOUND
from lco.methods import Signal
from lco.problems import Problem
from lco.rollout.records import Row
from lco.training.engine import Step
from lco.verifier import Verdict


@dataclass(frozen=True)
class Judged:
    """A row with its verdict and its text."""

    row: Row
    problem: Problem
    verdict: Verdict
    text: str = ""

    @property
    def reward(self) -> float:
        """1 for right, 0 for wrong; not a number where nothing could be said, and then nothing is learnt from the row."""
        return float(self.verdict.correct)


def group_numbers(judged: Sequence[Judged]) -> Tensor:
    """[B]: rows with one group id share a number."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(j.row.group, len(numbers)) for j in judged])


def describe(judged: Sequence[Judged]) -> dict[str, Any]:
    """What the rollout looks like, before any update. Rows without a reward are counted and nothing more."""
    lost = sum(not math.isfinite(j.reward) for j in judged)
    drawn, judged = len(judged), [j for j in judged if math.isfinite(j.reward)]
    if not judged:
        return {"rows": drawn, "rewards_not_finite": lost, "tokens": 0}
    rewards = torch.tensor([j.reward for j in judged])
    lengths = torch.tensor([len(j.row.response_ids) for j in judged], dtype=torch.float32)
    groups = group_numbers(judged)
    flat = degenerate(rewards, groups)
    return {
        "accuracy": float(rewards.mean()),
        "response_length": float(lengths.mean()),
        "length_right": float(lengths[rewards > 0].mean()) if (rewards > 0).any() else None,
        "length_wrong": float(lengths[rewards == 0].mean()) if (rewards == 0).any() else None,
        "truncated": sum(j.row.finish_reason == "length" for j in judged) / len(judged),
        "no_answer": sum(j.verdict.extracted is None and not j.verdict.correct for j in judged) / len(judged),
        "degenerate_all_right": float((flat & (rewards > 0)).float().mean()),
        "degenerate_all_wrong": float((flat & (rewards == 0)).float().mean()),
        "tokens": int(lengths.sum()),
        "rows": drawn,
        **({"rewards_not_finite": lost} if lost else {}),
    }


@dataclass(frozen=True)
class Seen:
    """What one optimizer step saw of the tokens of its minibatch, all ranks together.

    Attributes:
        totals: sums over tokens of every reported statistic, ‖∂L/∂h‖² by sign of advantage, and how many `tokens` and `rows`.
        logprobs: row → log-probabilities of its sampled tokens.
    """

    step: Step
    loss: float
    totals: dict[str, float]
    logprobs: dict[int, Tensor]


def totals_of(statistics: Mapping[str, Tensor], advantage: Tensor, mask: Tensor) -> dict[str, float]:
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


def log_ratios(judged: Sequence[Judged], rows: Sequence[int], seen: Seen) -> Tensor:
    """log p of the trainer − log p of the sampler, one per sampled token of an update (empty for demonstrations)."""
    known = [row for row in rows if judged[row].row.logprobs]
    parts = [seen.logprobs[row].float() - torch.tensor(judged[row].row.logprobs) for row in known]
    return torch.cat(parts) if parts else torch.zeros(0)


def from_the_policy(judged: Sequence[Judged], plan: Sequence[Sequence[int]], seen: Sequence[Seen]) -> dict[str, Any]:
    """What compares trainer and sampler, where the rows are the policy's own."""
    return {**agreement(judged, plan[0], seen[0]), **drift(judged, plan[-1], seen[-1])}


def agreement(judged: Sequence[Judged], rows: Sequence[int], seen: Seen) -> dict[str, Any]:
    """How far trainer and sampler are apart on the first update's tokens, where both are the same policy."""
    gap = log_ratios(judged, rows, seen).abs()
    return {"sampler_gap_mean": float(gap.mean()), "sampler_gap_max": float(gap.max())} if len(gap) else {}


def drift(judged: Sequence[Judged], rows: Sequence[int], seen: Seen) -> dict[str, Any]:
    """How far the last update's policy has left the one that sampled: KL(π_old ‖ π) by its k3 estimate on the sampled
    tokens, r − 1 − log r, and the share of tokens whose ratio r left [0.8, 1.2]."""
    x = log_ratios(judged, rows, seen).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    if not len(x):
        return {}
    return {
        "kl_old": float((torch.expm1(x) - x).mean()),
        "ratio_outside": float(((x.exp() - 1).abs() > 0.2).float().mean()),
    }


OF_THE_LAST = {"kl_old": "kl_old_exact", "kl_target": "kl_target"}
"""Divergences are the last update's, where they are largest; other statistics are means over all updates. `kl_old` in the
metrics is every method's estimate on sampled tokens, so the exact one has a name of its own."""

COUNTS = {"tokens", "rows"}

BY_SIGN = {"hidden_gradient_positive", "hidden_gradient_negative"}
"""‖∂L/∂h‖ over the tokens of one sign of advantage: root mean square over the updates."""


def summarise(
    seen: Sequence[Seen], inputs: Mapping[str, Tensor], signal: Signal, rows: Sequence[int]
) -> dict[str, Any]:
    """Token-weighted means over the step's updates; the divergence is the last update's, where it is largest."""
    tokens = max(1.0, sum(s.totals["tokens"] for s in seen))

    def mean(name: str) -> float:
        return sum(s.totals[name] for s in seen) / tokens

    norms = [s.step.gradient_norm for s in seen]
    learnt = torch.zeros_like(signal.mask)
    learnt[list(rows)] = signal.mask[list(rows)]
    advantage = inputs["advantage"][learnt]
    metrics = {
        "loss": sum(s.loss for s in seen) / len(seen),
        "gradient_norm": sum(norms) / len(norms),
        "gradient_norm_max": max(norms),
        "updates_skipped": sum(not s.step.applied for s in seen),
        **{name: mean(name) for name in seen[-1].totals if name not in {*COUNTS, *OF_THE_LAST, *BY_SIGN}},
        **{
            shown: seen[-1].totals[name] / max(1.0, seen[-1].totals["tokens"])
            for name, shown in OF_THE_LAST.items()
            if name in seen[-1].totals
        },
        **{name: math.sqrt(sum(s.totals[name] for s in seen) / len(seen)) for name in BY_SIGN},
        "advantage_positive": float((advantage > 0).float().mean()) if len(advantage) else None,
        "lr": seen[-1].step.lr,
    }
    if "target_kl" in seen[-1].totals:
        rows_seen = max(1.0, sum(s.totals["rows"] for s in seen))
        metrics["target_kl_per_sequence"] = sum(s.totals["target_kl"] for s in seen) / rows_seen
    if "return" in inputs and signal.values is not None:
        target = inputs["return"][signal.mask]
        spread = float(target.var(correction=0)) if len(target) else 0.0
        left = float((target - signal.values[signal.mask]).var(correction=0)) if len(target) else 0.0
        metrics["explained_variance"] = 1 - left / spread if spread > 0 else None
    return metrics
