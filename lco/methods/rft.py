"""RFT: rejection-sampling fine-tuning, SFT on the policy's own verified answers (arXiv 2308.01825; methods.md B.2).

    L = −ℓ   per token of the rows with reward > 0

As a policy gradient its weight is 1[R > 0]: REINFORCE with A ∈ {0, 1}. Prompts without a right sample disappear (their
share is logged as coverage); a rollout without any right sample is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads.linear import TokenFunction
from lco.methods.method import Hyper, Method, Needs, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return {"advantage": (signal.rewards > 0).float()[:, None] * signal.mask}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return -x["advantage"] * s["logprob"]

    return per_token


RFT = Method(
    name="rft",
    title="RFT",
    paper="Scaling relationship on learning mathematical reasoning (arXiv 2308.01825)",
    summary="SFT on the policy's own verified answers: the positive-only control.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="token_mean",
    needs=Needs(verified_only=True),
)
