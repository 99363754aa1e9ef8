"""LCO-LCH: log-cosh between the policy's logits and the optimal ones (arXiv 2603.00963; methods.md A.5).

    L = Σ_v log cosh(x_v),   x = P(z_θ − z_old − c e_a)   (`centred`)   or   x = z_θ,a − z_old,a − c alone (`raw`)

with c = A/β. Near 0 it equals half the squared residual, far away its absolute value, so each logit's gradient is
bounded: |tanh| ≤ 1 in `raw`, ≤ 2 − 2/V in `centred`. The Hessian diag sech² is positive semi-definite everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads import logcosh
from lco.heads.linear import TokenFunction
from lco.methods.lco_common import PAPER, TILT_HYPERPARAMETERS, tilted_advantage
from lco.methods.method import Hyper, Hyperparameter, Method, Needs


def centred(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    return s["logcosh_gap"]


def raw(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
    return logcosh(s["logit"] - s["old_logit"] - x["tilt"])


SPACES = {"centred": centred, "raw": raw}


def loss(hyper: Hyper) -> TokenFunction:
    return SPACES[hyper["target_space"]]


LCO_LCH = Method(
    name="lco_lch",
    title="LCO-LCH",
    paper=PAPER,
    summary="Log-cosh between the policy's logits and the optimal ones.",
    advantage=tilted_advantage,
    loss=loss,
    statistics=lambda hyper: ("logcosh_gap",) if hyper["target_space"] == "centred" else ("logit", "old_logit"),
    reduction="token_mean",
    hyperparameters={
        **TILT_HYPERPARAMETERS,
        "target_space": Hyperparameter(
            "centred", "the space of the residual; see the equation", "suite: the paper does not say", tuple(SPACES)
        ),
    },
    needs=Needs(group=True, old="distribution"),
    certainty="the function is certain; space and reduction as open as LCO-MSE's",
)
