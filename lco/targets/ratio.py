"""The ρ-target of the paper's earlier version: the sampled token's probability times a constant (OpenReview, withdrawn)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lco.heads.chunk import Chunk

CEILING = 0.99
"""ρ₊ p is capped here."""

FLOOR = 0.80
"""Where ρ₋ p is below this, a wrong token keeps its probability."""


@dataclass(frozen=True)
class RatioTilt:
    """c = logit(ρ p) − logit(p).

    Attributes:
        rho_positive, rho_negative: ρ where A > 0 and where A < 0.
    """

    rho_positive: float
    rho_negative: float
    dense = False
    tilt_bound = math.inf
    fixed = ()

    def tilt(self, chunk: Chunk) -> Tensor:
        p, advantage = chunk.old_logprob.exp().clamp(1e-7, 1 - 1e-6), chunk.inputs["advantage"]
        raised = (self.rho_positive * p).clamp(max=CEILING)
        lowered = torch.where(self.rho_negative * p >= FLOOR, self.rho_negative * p, p)
        wanted = torch.where(advantage > 0, raised, torch.where(advantage < 0, lowered, p))
        return torch.logit(wanted) - torch.logit(p)
