"""LCO's target for an advantage of the sampled token alone, in closed form (arXiv 2603.00963, sparse estimator).

With p = π_old(a) and the tilt c = A/β of the sampled token a,

    Z = 1 + p expm1(c)      w = (Z − 1)/Z      q = π*(a) = p eᶜ/Z      π* = (1 − w) π_old + w e_a

so the target is a mixture of "stay" and "imitate the sample" with an explicit weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lco.heads.chunk import Chunk

TILT_BOUND = 20.0
"""|c| is clamped to this; the share of clamped tilts is logged as `tilt_clamped`."""


def tilt(advantage: Tensor, beta: float, beta_negative_scale: float = 1.0) -> Tensor:
    """c = A/β, and A/(β · beta_negative_scale) where A < 0, clamped to ± TILT_BOUND. Any shape."""
    scale = torch.where(advantage < 0, beta * beta_negative_scale, beta)
    return (advantage / scale).clamp(-TILT_BOUND, TILT_BOUND)


@dataclass(frozen=True)
class SparseTilt:
    """c = A/β on the sampled token; with `least_probability` the unbiased form, A/(β max(p, least_probability)).

    The plain form's expectation under π_old is p·A: shrunk by the token's own probability. Dividing by p undoes that
    (`sparse_ips`, this suite's, not the paper's), and the bound keeps rare tokens' tilts finite.
    """

    beta: float
    beta_negative_scale: float = 1.0
    least_probability: float | None = None
    dense = False
    fixed = ()

    def tilt(self, chunk: Chunk) -> Tensor:
        advantage = chunk.inputs["advantage"]
        if self.least_probability is not None:
            advantage = advantage / chunk.old_logprob.exp().clamp(min=self.least_probability)
        return tilt(advantage, self.beta, self.beta_negative_scale)


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
