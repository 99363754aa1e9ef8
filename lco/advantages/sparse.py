"""LCO's target for a sparse advantage, in closed form (methods.md A.7).

With p = π_old(a) and the tilt c = A/β of the sampled token a alone,

    Z = 1 + p expm1(c)      w = (Z − 1)/Z      q = π*(a) = p eᶜ/Z      π* = (1 − w) π_old + w e_a

so the target is a mixture of "stay" and "imitate the sample" with an explicit weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILT_BOUND = 20.0
"""|c| is clamped to this; the share of clamped tilts is logged as `tilt_clamped`."""

PROBABILITY_BOUND = 1 - 1e-6
"""p above this is taken as this: at p = 1 and c < 0 the mixture weights cancel catastrophically."""


def tilt(advantage: Tensor, beta: float, beta_negative_scale: float = 1.0) -> Tensor:
    """c = A/β, and A/(β · beta_negative_scale) where A < 0, clamped to ± TILT_BOUND. Any shape."""
    scale = torch.where(advantage < 0, beta * beta_negative_scale, beta)
    return (advantage / scale).clamp(-TILT_BOUND, TILT_BOUND)


@dataclass(frozen=True)
class SparseTarget:
    """π* at one position, as scalars per token.

    Attributes:
        stay: 1 − w = 1/Z, the weight on π_old.
        imitate: w, the weight on the sampled token; in [0, 1) for c ≥ 0, in (−p/(1 − p), 0] for c < 0.
        probability: q = π*(a).
        log_partition: log Z.
        kl: KL(π* ‖ π_old) = c q − log Z.
    """

    stay: Tensor
    imitate: Tensor
    probability: Tensor
    log_partition: Tensor
    kl: Tensor


def sparse_target(old_logprob: Tensor, c: Tensor) -> SparseTarget:
    """The target from log π_old(a) and the tilt; both of one shape, float32 or wider."""
    p = old_logprob.exp().clamp(max=PROBABILITY_BOUND)
    log_partition = torch.log1p(p * torch.expm1(c))
    q = torch.sigmoid(torch.logit(p) + c)
    return SparseTarget(
        stay=torch.exp(-log_partition),
        imitate=-torch.expm1(-log_partition),
        probability=q,
        log_partition=log_partition,
        kl=c * q - log_partition,
    )
