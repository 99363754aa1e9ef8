"""The sparse estimator: an advantage on the sampled token alone (arXiv 2603.00963)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lco.heads.chunk import Chunk
from lco.heads.mixture import TILT_BOUND


def tilt(advantage: Tensor, beta: float, beta_negative_scale: float = 1.0, bound: float = TILT_BOUND) -> Tensor:
    """c = A/β, and A/(β · beta_negative_scale) where A < 0, clamped to ± `bound`. Any shape."""
    scale = torch.where(advantage < 0, beta * beta_negative_scale, beta)
    return (advantage / scale).clamp(-bound, bound)


@dataclass(frozen=True)
class SparseTilt:
    """c = A/β on the sampled token.

    Attributes:
        beta: KL weight of the RL objective.
        beta_negative_scale: β is multiplied by this where A < 0.
        tilt_bound: |c| is clamped to this.
    """

    beta: float
    beta_negative_scale: float = 1.0
    tilt_bound: float = TILT_BOUND
    dense = False
    fixed = ()

    def tilt(self, chunk: Chunk) -> Tensor:
        return tilt(chunk.inputs["advantage"], self.beta, self.beta_negative_scale, self.tilt_bound)


@dataclass(frozen=True)
class UnbiasedSparseTilt:
    """c = A/(β max(p, least_probability)), whose expectation under π_old is A/β.

    The plain form's expectation is p·A/β: shrunk by the token's own probability. Dividing by p undoes that (this suite's,
    not the paper's), and the bound keeps rare tokens' tilts finite.

    Attributes:
        beta, beta_negative_scale, tilt_bound: as SparseTilt.
        least_probability: p counts as at least this.
    """

    beta: float
    beta_negative_scale: float = 1.0
    least_probability: float = 0.05
    tilt_bound: float = TILT_BOUND
    dense = False
    fixed = ()

    def tilt(self, chunk: Chunk) -> Tensor:
        advantage = chunk.inputs["advantage"] / chunk.old_logprob.exp().clamp(min=self.least_probability)
        return tilt(advantage, self.beta, self.beta_negative_scale, self.tilt_bound)
