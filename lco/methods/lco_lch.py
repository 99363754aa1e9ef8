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

from lco.heads import logcosh
from lco.methods.lco_common import (
    PAPER,
    TARGET_HYPERPARAMETERS,
    broadcast_advantage,
    needs,
    released_preset,
    target_of,
    value_loss,
)
from lco.methods.lco_residual import Penalty, conflict, loss_in, space_of, spaces_of, target_space
from lco.methods.method import Method

SPACES = spaces_of(Penalty(logcosh, centred="logcosh_residual", raw="logcosh_gap_known", factor=1.0, moving=logcosh))

LCO_LCH = Method(
    name="lco_lch",
    page=__doc__,
    title="LCO-LCH",
    family="lco",
    paper=PAPER,
    summary="Log-cosh between the policy's logits and the optimal ones.",
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
    certainty="the function is certain; space and reduction as open as LCO-MSE's",
)
