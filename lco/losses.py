"""What methods share: reductions, ratios, clipping, KL estimators."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["token_mean", "token_mean_by_sign", "seq_mean_token_mean", "seq_mean_token_sum", "pair_mean"]

LOG_RATIO_BOUND = 20.0
"""ℓ − ℓ_old is clamped to ± this before exp, in token and in sequence ratios (methods.md 0.4)."""


def token_scale(mask: Tensor, reduction: Reduction, advantage: Tensor | None = None) -> Tensor:
    """[B, T] weights that turn per-token losses of a *whole* minibatch (all micro-batches, all ranks) into one number.

    - `token_mean`: Σ m·l / Σ m
    - `token_mean_by_sign`: the same over the tokens with A > 0 and over those with A < 0, added
    - `seq_mean_token_mean`: mean over rows of (Σ_t m·l / L_i)
    - `seq_mean_token_sum`: mean over rows of Σ_t m·l
    - `pair_mean`: mean over pairs of rows of Σ_t m·l

    Rows without tokens contribute 0 and are left out of the row count (methods.md 0.2).
    """
    weights = mask.float()
    lengths = weights.sum(1, keepdim=True)
    rows = (lengths > 0).sum().clamp(min=1)
    match reduction:
        case "token_mean":
            return weights / weights.sum().clamp(min=1)
        case "seq_mean_token_mean":
            return weights / torch.where(lengths > 0, lengths, torch.ones_like(lengths)) / rows
        case "seq_mean_token_sum":
            return weights / rows
        case "pair_mean":
            return 2 * weights / rows
        case "token_mean_by_sign":
            assert advantage is not None
            signs = [weights * (sign * advantage > 0) for sign in (1, -1)]
            return signs[0] / signs[0].sum().clamp(min=1) + signs[1] / signs[1].sum().clamp(min=1)


def ratio(logprob: Tensor, old_logprob: Tensor) -> Tensor:
    """r = exp(ℓ − ℓ_old), bounded before the exponential."""
    return (logprob - old_logprob).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def clipped_surrogate(r: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """−min(r A, clip(r, 1 − low, 1 + high) A), PPO's pessimistic bound, per token."""
    return -torch.minimum(r * advantage, r.clamp(1 - low, 1 + high) * advantage)


def k3(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """eˣ − 1 − x with x = ℓ_ref − ℓ: ≥ 0, unbiased for KL(π ‖ π_ref) in value on samples of π.

    May stand in a loss (GRPO's choice), but its gradient through ℓ is not the gradient of the KL; k2's is.
    """
    x = (reference_logprob - logprob).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return torch.expm1(x) - x
