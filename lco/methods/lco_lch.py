"""LCO-LCH: log-cosh between the policy's logits and the optimal ones (arXiv 2603.00963).

    L = Σ_v log cosh(x_v)

with the residual x = P(z_θ − z_old − c) (`centred`), or without P on the tokens that carry an advantage (`raw`), or
x = z_θ(a) − sg(z_θ(a)) − c as the released code has it (`moving`); c = A/β. Near 0 it equals half the squared residual,
far away its absolute value, so each logit's gradient is bounded: |tanh| ≤ 1 in `raw`, ≤ 2 − 2/V in `centred`. The Hessian
diag sech² is positive semi-definite everywhere, and flat far away.

V counts the rows of the head. Where a vocabulary is padded, `centred` averages and sums over the padded rows too, though no
token has them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads import logcosh
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
    return s["logcosh_residual"]


def raw(s: Mapping[str, Tensor]) -> Tensor:
    return logcosh(s["logit"] - s["old_logit"] - s["tilt"])


def raw_dense(s: Mapping[str, Tensor]) -> Tensor:
    return s["logcosh_gap_known"]


def moving(s: Mapping[str, Tensor]) -> Tensor:
    return logcosh(s["logit"] - s["logit"].detach() - s["tilt"])


SPACES = {
    "centred": (centred, ("logcosh_residual",)),
    "raw": (raw, ("logit", "old_logit", "old_logprob", "tilt")),
    "moving": (moving, ("logit", "old_logprob", "tilt")),
}
RAW_DENSE = (raw_dense, ("logcosh_gap_known",))


def space(hyper: Hyper) -> tuple:
    return RAW_DENSE if hyper["target_space"] == "raw" and is_dense(hyper) else SPACES[hyper["target_space"]]


def loss(hyper: Hyper) -> TokenFunction:
    error = space(hyper)[0]

    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return error(s)

    return per_token


def conflict(hyper: Hyper) -> str | None:
    if is_dense(hyper) and hyper["target_space"] == "moving":
        return f"target_space moving knows the sampled token only; use centred or raw with {hyper['estimator']}"
    return dense_conflict(hyper)


LCO_LCH = Method(
    name="lco_lch",
    title="LCO-LCH",
    family="lco",
    paper=PAPER,
    summary="Log-cosh between the policy's logits and the optimal ones.",
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
    certainty="the function is certain; space and reduction as open as LCO-MSE's",
)
