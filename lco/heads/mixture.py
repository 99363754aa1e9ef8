"""LCO's target for an advantage of the sampled token alone: a mixture, in closed form (arXiv 2603.00963, sparse estimator).

With p = π_old(a) and the tilt c = A/β of the sampled token a,

    Z = 1 + p expm1(c)      w = (Z − 1)/Z      q = π*(a) = p eᶜ/Z      π* = (1 − w) π_old + w e_a

so the target is a mixture of "stay" and "imitate the sample" with an explicit weight, and a few scalars a token say all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILT_BOUND = 20.0
"""|c| is clamped to this unless a run says otherwise; the share of clamped tilts is logged as `tilt_clamped`."""


@dataclass(frozen=True)
class SparseTarget:
    """π* at one position, as scalars per token.

    Attributes:
        stay: 1 − w = 1/Z, the weight on π_old.
        imitate: w, the weight on the sampled token; in [0, 1) for c ≥ 0, in (−p/(1 − p), 0] for c < 0.
        probability: q = π*(a).
        others: 1 − q.
        log_probability: log q.
        log_partition: log Z.
        kl: KL(π* ‖ π_old) = c q − log Z.
        moved: q − p = w (1 − p); its absolute value is TV(π*, π_old) ≤ tanh(|c|/4).
    """

    stay: Tensor
    imitate: Tensor
    probability: Tensor
    others: Tensor
    log_probability: Tensor
    log_partition: Tensor
    kl: Tensor
    moved: Tensor


def sparse_target(old_logprob: Tensor, c: Tensor, rest: Tensor | None = None) -> SparseTarget:
    """The target from log π_old(a) and the tilt; all of one shape, float32 or wider.

    Args:
        rest: 1 − π_old(a) where the caller knows it better than 1 − exp(log p) does: for p → 1 and c ≪ 0 everything
            hangs on it.
    """
    p = old_logprob.exp()
    # Without the exact rest, p = 1 means "nearly 1": the last bit keeps the weights finite.
    rest = (1 - p).clamp(min=torch.finfo(p.dtype).eps) if rest is None else rest
    small = torch.log1p(p * torch.expm1(c.clamp(-1, 1)))
    log_partition = torch.where(c.abs() <= 1, small, torch.logaddexp(rest.log(), old_logprob + c))
    stay = torch.exp(-log_partition)
    imitate = -torch.expm1(-log_partition)
    log_probability = old_logprob + c - log_partition
    q = log_probability.exp()
    return SparseTarget(
        stay=stay,
        imitate=imitate,
        probability=q,
        others=rest * stay,
        log_probability=log_probability,
        log_partition=log_partition,
        kl=c * q - log_partition,
        moved=imitate * rest,
    )
