"""LCO-MSE: squared error between the policy's logits and the optimal ones (arXiv 2603.00963).

The optimal logits are z* = z_old + c + const with the tilt c = A/β, of the sampled token a or of all tokens. With
d = z_θ − z_old the loss is ½‖residual‖², where `target_space` says what the residual is; these are different objectives:

    centred        P(d − c), P = I − 11ᵀ/V             shift-invariant; convex
    weighted       d − c under π_old: ½ Var            shift-invariant; convex; second order of LCO-KLD at the target
    raw            d − c on the tokens that carry an advantage (a dense c is centred under π_old first)
    logprob        log π_θ − log π* on all tokens      shift-invariant; not convex
    token_logprob  log π_θ(a) − log π*(a)              convex in z only below the target
    moving         z_θ(a) − sg(z_θ(a)) − c, times √2   what the released code computes: no fixed point, see below

`centred`, `weighted` and `logprob` have the target as only minimum (up to a shift); the divisor is 1, not V. `logprob` weighs
all V tokens alike, and log Z = log Σ π_old eᶜ reaches them all: on-policy its gradient is log Z − c e_a − π (V log Z − c).

`raw` is not invariant to shifts: a change that moves all logits alike leaves π alone and is penalised. In `moving` the target
is the current logit plus c, so the residual is −c at every step and the gradient −2c e_a never vanishes; the released code's
squared error has no factor ½.

V counts the rows of the head. Where a vocabulary is padded, `centred` averages over the padded rows too and pulls their
logits to z_old like any other's, though no token has them; `weighted` counts them with their probability under π_old.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads.mixture import sparse_target
from lco.methods.lco_common import (
    PAPER,
    TARGET_HYPERPARAMETERS,
    broadcast_advantage,
    needs,
    released_preset,
    target_of,
    value_loss,
)
from lco.methods.lco_residual import Penalty, Space, conflict, loss_in, space_of, spaces_of, target_space
from lco.methods.method import Method


def token_logprob(s: Mapping[str, Tensor]) -> Tensor:
    target = sparse_target(s["old_logprob"], s["tilt"], s["old_rest"])
    return 0.5 * (s["logprob"] - target.log_probability) ** 2


SQUARE = Penalty(lambda x: 0.5 * x**2, centred="sq_residual", raw="sq_gap_known", factor=0.5, moving=lambda x: x**2)

SPACES = {
    **spaces_of(SQUARE),
    "weighted": Space(lambda s: 0.5 * s["var_residual"], ("var_residual",)),
    "logprob": Space(lambda s: 0.5 * s["sq_logprob_residual"], ("sq_logprob_residual",)),
    "token_logprob": Space(token_logprob, ("logprob", "old_logprob", "old_rest", "tilt")),
}

LCO_MSE = Method(
    name="lco_mse",
    page=__doc__,
    title="LCO-MSE",
    family="lco",
    paper=PAPER,
    summary="Squared error between the policy's logits and the optimal ones.",
    advantage=broadcast_advantage,
    value_loss=value_loss,
    target=lambda hyper: target_of(hyper, centre_top=True),
    loss=loss_in(SPACES),
    statistics=lambda hyper: space_of(hyper, SPACES).statistics,
    reduction="token_mean",
    hyperparameters={**TARGET_HYPERPARAMETERS, "target_space": target_space(SPACES)},
    released_preset=released_preset(target_space="moving"),
    conflict=conflict,
    needs=needs,
    detached=lambda hyper: hyper["target_space"] == "moving",
    certainty="regression of logits on z_old + A/β certain; space and constants unknown",
)
