"""LCO-KLD: forward KL from the optimal target to the policy (arXiv 2603.00963; methods.md A.1, A.3, A.7).

The KL-regularised problem max_π Σ_v π(v) A(v) − β KL(π ‖ π_old) has the solution π* ∝ π_old exp(A/β). LCO-KLD minimises

    L = KL(π* ‖ π_θ) = (1 − w) KL(π_old ‖ π_θ) + w (ℓ_old − ℓ) + (c q − log Z)          per token

for an advantage on the sampled token only, with c = A/β and w, q, Z as in `lco.advantages.sparse`. Its logit gradient
is π_θ − π*: bounded, zero only at the target, and the Hessian diag π − ππᵀ is positive semi-definite everywhere.

On the first minibatch after a rollout π_old = π_θ: the KL term has neither value nor gradient, and what is left is
REINFORCE with the bounded weight w in place of A.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import sparse_target
from lco.heads.linear import TokenFunction
from lco.methods.lco_common import PAPER, TILT_HYPERPARAMETERS, tilted_advantage
from lco.methods.method import Hyper, Method, Needs


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        target = sparse_target(s["old_logprob"], x["tilt"])
        imitation = target.imitate * (s["old_logprob"] - s["logprob"])
        return target.stay * s["kl_old"] + imitation + target.kl

    return per_token


LCO_KLD = Method(
    name="lco_kld",
    title="LCO-KLD",
    paper=PAPER,
    summary="Forward KL from the closed-form optimal target to the policy.",
    advantage=tilted_advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "kl_old", "old_logprob"),
    reduction="token_mean",
    hyperparameters=TILT_HYPERPARAMETERS,
    needs=Needs(group=True, old="distribution"),
    certainty="direction of the KL and target certain; β, reduction and advantage scale of the paper's runs unknown",
)
