"""LCO-MSE: squared error between the policy's logits and the optimal ones (arXiv 2603.00963; methods.md A.4).

The optimal logits are z* = z_old + A/β + const. With d = z_θ − z_old and the tilt c = A/β on the sampled token a, the
loss is ½‖residual‖², where `target_space` says what the residual is; these are different objectives:

    centred        P(d − c e_a), P = I − 11ᵀ/V       ½ (Σd² − 2c d_a + c² − (Σd − c)²/V)
    weighted       Var under π_old of d − c e_a        ½ (E[d²] − 2c p d_a + c² p − (E[d] − c p)²)
    raw            d_a − c                             not shift-invariant: also penalises changes that leave π alone
    token_logprob  log π_θ(a) − log π*(a)              convex in z only below the target

`centred` and `weighted` are convex in z with the target as only minimum (up to a shift); the divisor is 1, not V.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import sparse_target
from lco.heads.linear import TokenFunction
from lco.methods.lco_common import PAPER, TILT_HYPERPARAMETERS, tilted_advantage
from lco.methods.method import Hyper, Hyperparameter, Method, Needs

STATISTICS = {
    "centred": ("logit", "old_logit", "sq_gap", "sum_gap", "vocabulary_size"),
    "weighted": ("logit", "old_logit", "old_logprob", "old_mean_gap", "old_mean_sq_gap"),
    "raw": ("logit", "old_logit"),
    "token_logprob": ("logprob", "old_logprob"),
}


def centred(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    c, d = x["tilt"], s["logit"] - s["old_logit"]
    return 0.5 * (s["sq_gap"] - 2 * c * d + c**2 - (s["sum_gap"] - c) ** 2 / s["vocabulary_size"])


def weighted(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    c, d, p = x["tilt"], s["logit"] - s["old_logit"], s["old_logprob"].exp()
    return 0.5 * (s["old_mean_sq_gap"] - 2 * c * p * d + c**2 * p - (s["old_mean_gap"] - c * p) ** 2)


def raw(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    return 0.5 * (s["logit"] - s["old_logit"] - x["tilt"]) ** 2


def token_logprob(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    c = x["tilt"]
    log_partition = sparse_target(s["old_logprob"], c).log_partition
    return 0.5 * (s["logprob"] - s["old_logprob"] - c + log_partition) ** 2


SPACES = {"centred": centred, "weighted": weighted, "raw": raw, "token_logprob": token_logprob}


def loss(hyper: Hyper) -> TokenFunction:
    return SPACES[hyper["target_space"]]


LCO_MSE = Method(
    name="lco_mse",
    title="LCO-MSE",
    paper=PAPER,
    summary="Squared error between the policy's logits and the optimal ones.",
    advantage=tilted_advantage,
    loss=loss,
    statistics=lambda hyper: STATISTICS[hyper["target_space"]],
    reduction="token_mean",
    hyperparameters={
        **TILT_HYPERPARAMETERS,
        "target_space": Hyperparameter(
            "centred", "the space of the residual; see the equation", "suite: the paper does not say", tuple(SPACES)
        ),
    },
    needs=Needs(group=True, old="distribution"),
    certainty="regression of logits on z_old + A/β certain; space and constants unknown",
)
