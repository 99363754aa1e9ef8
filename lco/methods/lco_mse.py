"""LCO-MSE: squared error between the policy's logits and the optimal ones (arXiv 2603.00963).

The optimal logits are z* = z_old + c + const with the tilt c = A/β, of the sampled token a or of all tokens. With
d = z_θ − z_old the loss is ½‖residual‖², where `target_space` says what the residual is; these are different objectives:

    centred        P(d − c), P = I − 11ᵀ/V             shift-invariant; convex
    weighted       d − c under π_old: ½ Var            shift-invariant; convex; second order of LCO-KLD at the target
    raw            d − c on the tokens that carry an advantage (a dense c is centred under π_old first)
    token_logprob  log π_θ(a) − log π*(a)              convex in z only below the target
    moving         z_θ(a) − sg(z_θ(a)) − c, times √2   what the released code computes: no fixed point, see below

`centred` and `weighted` have the target as only minimum (up to a shift); the divisor is 1, not V. `raw` is not invariant
to shifts: a change that moves all logits alike leaves π alone and is penalised. In `moving` the target is the current
logit plus c, so the residual is −c at every step and the gradient −2c e_a never vanishes; the released code's squared
error has no factor ½.

V counts the rows of the head. Where a vocabulary is padded, `centred` averages over the padded rows too and pulls their
logits to z_old like any other's, though no token has them; `weighted` counts them with their probability under π_old.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import sparse_target
from lco.heads.linear import TokenFunction
from lco.methods.lco_common import (
    PAPER,
    TARGET_HYPERPARAMETERS,
    broadcast_advantage,
    dense_conflict,
    is_dense,
    target_of,
    unread,
    value_loss,
)
from lco.methods.method import Hyper, Hyperparameter, Method, Needs


def centred(s: Mapping[str, Tensor]) -> Tensor:
    return 0.5 * s["sq_residual"]


def weighted(s: Mapping[str, Tensor]) -> Tensor:
    return 0.5 * s["var_residual"]


def raw(s: Mapping[str, Tensor]) -> Tensor:
    return 0.5 * (s["logit"] - s["old_logit"] - s["tilt"]) ** 2


def raw_dense(s: Mapping[str, Tensor]) -> Tensor:
    return 0.5 * s["sq_gap_known"]


def token_logprob(s: Mapping[str, Tensor]) -> Tensor:
    target = sparse_target(s["old_logprob"], s["tilt"], s["old_rest"])
    return 0.5 * (s["logprob"] - target.log_probability) ** 2


def moving(s: Mapping[str, Tensor]) -> Tensor:
    return (s["logit"] - s["logit"].detach() - s["tilt"]) ** 2


SPACES = {
    "centred": (centred, ("sq_residual",)),
    "weighted": (weighted, ("var_residual",)),
    "raw": (raw, ("logit", "old_logit", "old_logprob", "tilt")),
    "token_logprob": (token_logprob, ("logprob", "old_logprob", "old_rest", "tilt")),
    "moving": (moving, ("logit", "old_logprob", "tilt")),
}
RAW_DENSE = (raw_dense, ("sq_gap_known",))


def space(hyper: Hyper) -> tuple:
    return RAW_DENSE if hyper["target_space"] == "raw" and is_dense(hyper) else SPACES[hyper["target_space"]]


def loss(hyper: Hyper) -> TokenFunction:
    error = space(hyper)[0]

    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return error(s)

    return per_token


def conflict(hyper: Hyper) -> str | None:
    if is_dense(hyper) and hyper["target_space"] in {"token_logprob", "moving"}:
        return (
            f"target_space {hyper['target_space']} knows the sampled token only, but estimator {hyper['estimator']} gives "
            "every token an advantage; use centred, weighted or raw"
        )
    return dense_conflict(hyper)


LCO_MSE = Method(
    name="lco_mse",
    title="LCO-MSE",
    family="lco",
    paper=PAPER,
    summary="Squared error between the policy's logits and the optimal ones.",
    advantage=broadcast_advantage,
    value_loss=value_loss,
    target=lambda hyper: target_of(hyper, centre_top=True),
    loss=loss,
    statistics=lambda hyper: space(hyper)[1],
    reduction="token_mean",
    hyperparameters={
        **TARGET_HYPERPARAMETERS,
        "target_space": Hyperparameter(
            "centred", "the space of the residual; see the equation", "suite: the paper does not say", tuple(SPACES)
        ),
    },
    conflict=conflict,
    unread=unread,
    needs=lambda hyper: Needs(group=True),
    certainty="regression of logits on z_old + A/β certain; space and constants unknown",
)
