"""LCO with the reverse KL, an ablation that a reviewer of the paper's earlier version asked for.

    L = KL(π_θ ‖ π*) = KL(π_θ ‖ π_old) − c π_θ(a) + log Z          for a tilt c = A/β of the sampled token

This is the negative of the KL-regularised RL objective itself, divided by β. Its gradient π (log π/π* − KL) vanishes at
the target too, but the loss is not convex in the logits.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.lco_common import (
    PAPER,
    TARGET_HYPERPARAMETERS,
    broadcast_advantage,
    conflict,
    needs,
    target_of,
    value_loss,
)
from lco.methods.method import Hyper, Method


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return s["kl_from_target"]

    return per_token


LCO_RKL = Method(
    name="lco_rkl",
    page=__doc__,
    title="LCO, reverse KL",
    family="lco",
    paper=PAPER,
    summary="Reverse KL from the policy to the closed-form optimal target: an ablation, not convex in the logits.",
    advantage=broadcast_advantage,
    value_loss=value_loss,
    target=target_of,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob", "kl_from_target"),
    reduction="token_mean",
    hyperparameters=TARGET_HYPERPARAMETERS,
    conflict=conflict,
    needs=needs,
    certainty="ablation of this suite; not in the paper as far as known",
)
