"""SFT: cross-entropy on demonstrations, the convex upper reference for stability.

    L = −ℓ   per token of the worked solution, the prompt left out

The demonstration ends with a token on which the sampler stops.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.method import Hyper, Method
from lco.methods.objective import Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return {"advantage": signal.mask.float()}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return -s["logprob"]

    return per_token


SFT = Method(
    name="sft",
    page=__doc__,
    title="SFT",
    family="imitation",
    paper="supervised fine-tuning",
    summary="Cross-entropy on worked solutions; sees reference solutions, so it stands apart from the RL methods.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="token_mean",
    source="demonstrations",
    certainty="certain",
)
