"""The policy that solves a KL-regularised problem, and what it attains.

    max_π Σ_v π(v) A(v) − β KL(π ‖ π_ref)   is solved by   π* = π_ref e^{A/β} / Z   and attains   β log Z

LCO's dense targets are this with the old policy as π_ref (arXiv 2603.00963); the soft value of a regularised decision
process is β log Z with A = Q (arXiv 2510.14246). For a tilt of one token alone `mixture.py` has it in closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tilted_policy(reference: Tensor, tilt: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(log π*, log Z) from log π_ref and the tilt c = A/β, over the last axis: [..., V] and [...].

    Args:
        out: a buffer [..., V] that log π* is written to.
    """
    z = torch.add(reference, tilt, out=out)
    log_partition = torch.logsumexp(z, -1, keepdim=True)
    return z.sub_(log_partition), log_partition.squeeze(-1)
