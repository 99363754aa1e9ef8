"""REINFORCE: the plain score-function gradient (Williams 1992; methods.md B.3).

    L = −A ℓ   per token,   A = R − b

What LCO's on-policy step must be compared with: the effective weight is A itself, unbounded by the token's probability.
For A > 0 the loss is convex in the logits, for A < 0 concave: it has no minimum.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads.linear import TokenFunction
from lco.methods.method import Hyper, Hyperparameter, Method, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    baseline = signal.rewards.mean() if hyper["baseline"] == "batch_mean" else 0.0
    return {"advantage": (signal.rewards - baseline)[:, None] * signal.mask}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return -x["advantage"] * s["logprob"]

    return per_token


REINFORCE = Method(
    name="reinforce",
    title="REINFORCE",
    paper="Simple statistical gradient-following algorithms (Williams 1992)",
    summary="The plain score-function gradient with a constant baseline.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="seq_mean_token_sum",
    hyperparameters={
        "baseline": Hyperparameter("batch_mean", "what is subtracted from the reward", "suite", ("none", "batch_mean")),
    },
)
