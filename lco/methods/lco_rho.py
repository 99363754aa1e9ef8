"""The ρ-target of the paper's earlier version (Smooth Gradients, Stable Learning, OpenReview, withdrawn).

    π′(a) = ρ p, the other tokens rescaled by (1 − ρ p)/(1 − p)          L = |A| KL(π′ ‖ π_θ)   per token

with p = π_old(a), ρ = ρ₊ for A > 0, capped so that ρ p ≤ 0.99, and ρ₋ for A < 0 where ρ₋ p ≥ 0.80 (else p stays). It is
the mixture of LCO-KLD with q = ρ p, a tilt c = logit(ρ p) − logit(p); LCO replaced the fixed probability ratio by a fixed
logit shift. Tokens with A > 0 and with A < 0 are averaged separately and added. The released code builds π′ from the
current policy's logits; here p is the old policy's.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.lco_common import ADVANTAGE, PAPER, broadcast_advantage, needs, value_loss
from lco.methods.method import Hyper, Hyperparameter, Method
from lco.targets import RatioTilt


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return x["advantage"].abs() * s["kl_target"]

    return per_token


LCO_RHO = Method(
    name="lco_rho",
    page=__doc__,
    title="LCO, ρ-target",
    family="lco",
    paper=f"{PAPER}, earlier version (OpenReview)",
    summary="Forward KL to a target that multiplies the sampled token's probability by ρ: LCO's predecessor.",
    advantage=broadcast_advantage,
    value_loss=value_loss,
    target=lambda hyper: RatioTilt(hyper["rho_positive"], hyper["rho_negative"]),
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob", "kl_target"),
    reduction="token_mean_by_sign",
    reductions=(),
    own_reduction="averages tokens with A > 0 and with A < 0 apart",
    hyperparameters={
        "advantage": ADVANTAGE,
        "rho_positive": Hyperparameter(
            1.2, "ρ₊", "released code; its visualisation script and the reviewed paper: 1.8", least=1
        ),
        "rho_negative": Hyperparameter(0.8, "ρ₋", "released code; the reviewed paper: 0.9", above=0, most=1),
    },
    needs=needs,
    certainty="target and constants read in the released code; the averaging by sign too",
)
