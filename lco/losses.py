"""What methods share: reductions, ratios of tokens and of sequences, clipping, KL estimators."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal[
    "token_mean",
    "token_mean_by_sign",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "seq_mean_token_sum_const",
    "pair_mean",
]

ALIKE = ("token_mean", "seq_mean_token_sum", "seq_mean_token_sum_const")
"""Reductions in which all tokens of a minibatch weigh the same, so that they differ by a factor."""

LOG_RATIO_BOUND = 20.0
"""ℓ − ℓ_old is clamped to ± this before exp, in token and in sequence ratios."""


def token_scale(mask: Tensor, reduction: Reduction, advantage: Tensor | None = None, limit: int = 0) -> Tensor:
    """[B, T] weights that turn per-token losses of a *whole* minibatch (all micro-batches, all ranks) into one number.

    - `token_mean`: Σ m·l / Σ m
    - `token_mean_by_sign`: the same over the tokens with A > 0 and over those with A < 0, added
    - `seq_mean_token_mean`: mean over rows of (Σ_t m·l / L_i)
    - `seq_mean_token_sum`: mean over rows of Σ_t m·l
    - `seq_mean_token_sum_const`: the same divided by `limit`, the configured longest response, whatever the rows' lengths
    - `pair_mean`: mean over pairs of rows of Σ_t m·l

    Rows without tokens contribute 0 and are left out of the row count.
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
        case "seq_mean_token_sum_const":
            assert limit > 0
            return weights / rows / limit
        case "pair_mean":
            return 2 * weights / rows
        case "token_mean_by_sign":
            assert advantage is not None
            signs = [weights * (sign * advantage > 0) for sign in (1, -1)]
            return signs[0] / signs[0].sum().clamp(min=1) + signs[1] / signs[1].sum().clamp(min=1)


def ratio(logprob: Tensor, old_logprob: Tensor) -> Tensor:
    """r = exp(ℓ − ℓ_old), bounded before the exponential."""
    return (logprob - old_logprob).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def clipped_surrogate(
    r: Tensor, advantage: Tensor, low: float | Tensor, high: float | Tensor, dual: float = 0.0
) -> Tensor:
    """−min(r A, clip(r, 1 − low, 1 + high) A), PPO's pessimistic bound, for ratios of tokens or of sequences.

    `dual` > 0 bounds the loss of A < 0 by −dual · A (dual clip, arXiv 1912.09729): no gradient where r > dual.
    """
    loss = -torch.minimum(r * advantage, r.clamp(1 - low, 1 + high) * advantage)  # type: ignore[arg-type]  # of one kind
    return torch.where(advantage < 0, torch.minimum(loss, -dual * advantage), loss) if dual else loss


def clip_shares(
    r: Tensor, advantage: Tensor, mask: Tensor, low: float | Tensor, high: float | Tensor, dual: float = 0.0
) -> dict[str, float]:
    """Shares of the masked entries whose gradient the clip has stopped, above (A > 0), below (A < 0) and by `dual`."""
    count = mask.sum().clamp(min=1)
    stopped = {"clip_high": (advantage > 0) & (r > 1 + high), "clip_low": (advantage < 0) & (r < 1 - low)}
    if dual:
        stopped["clip_dual"] = (advantage < 0) & (r > dual)
    return {name: float((where & mask).sum() / count) for name, where in stopped.items()}


def sequence_sum(values: Tensor, mask: Tensor) -> Tensor:
    """[B, T] → [B]: Σ over a row's tokens, whatever stands where it is padded."""
    return torch.where(mask.bool(), values, 0.0).sum(1)


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, T] → [B]: mean over a row's tokens, 0 for a row without any."""
    return sequence_sum(values, mask) / mask.sum(1).clamp(min=1)


def sequence_ratio(logprob: Tensor, old_logprob: Tensor, mask: Tensor) -> Tensor:
    """[B]: s = exp(mean_t (ℓ − ℓ_old)), the length-normalised ratio of whole responses, bounded before the exponential."""
    return sequence_mean(logprob - old_logprob, mask).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def k2(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """½ (ℓ_ref − ℓ)²: as a loss its gradient is, in expectation on samples of π, that of KL(π ‖ π_ref)."""
    return 0.5 * (reference_logprob - logprob).square()


def k3(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """eˣ − 1 − x with x = ℓ_ref − ℓ: ≥ 0, unbiased for KL(π ‖ π_ref) in value on samples of π.

    May stand in a loss (GRPO's choice), but its gradient through ℓ is not the gradient of the KL; k2's is.
    """
    x = (reference_logprob - logprob).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return torch.expm1(x) - x
