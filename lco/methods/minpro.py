"""MinPRO: the smallest ratio of the prefix in place of the product of all (arXiv 2601.22718).

    L = −sg(clip(ρ̲_t ρ_t, 1 − ε_low, 1 + ε_high)) A ℓ_t   per token, mean over all tokens
    ρ_t = π_θ(a_t)/π_old(a_t)      ρ̲_t = min_{i<t} ρ_i, and 1 for the first token

A token is reached with the probability of its prefix, so its exact importance weight is ρ_1 ρ_2 … ρ_t, whose variance grows
with t and whose extremes stand at the ends of long responses. The minimum over the prefix does not accumulate. For the first
two tokens ρ̲_t ρ_t is the exact product, whatever follows; where every ratio so far was above 1 the weight exceeds the
token's own ratio. A response of one token is CISPO's, and the clip is CISPO's (the paper's own ε was not recovered).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.heads import TokenFunction
from lco.losses import LOG_RATIO_BOUND
from lco.methods.cispo import CISPO, bounded_shares
from lco.methods.grpo import advantage as grpo_advantage
from lco.methods.method import Hyper, Method
from lco.methods.objective import Needs, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    return {**grpo_advantage(signal, hyper), "mask": signal.mask.float()}


def prefix_minimum(log_ratio: Tensor) -> Tensor:
    """[B, T]: log ρ̲, the smallest log-ratio of the tokens before each one; 0 for the first."""
    lowest = log_ratio.cummin(1).values
    return torch.cat([torch.zeros_like(lowest[:, :1]), lowest[:, :-1]], 1)


def prefix_ratio(logprob: Tensor, old_logprob: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: ρ̲ ρ, bounded before the exponential; 1 where padded."""
    log_ratio = torch.where(mask.bool(), logprob - old_logprob, 0.0)
    return (prefix_minimum(log_ratio) + log_ratio).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def loss(hyper: Hyper) -> TokenFunction:
    def per_row(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        weight = prefix_ratio(s["logprob"], s["old_logprob"], x["mask"])
        bounded = weight.clamp(1 - hyper["clip_low"], 1 + hyper["clip_high"]).detach()
        return -bounded * x["advantage"] * s["logprob"]

    return per_row


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    """CISPO's shares, the mean of ρ̲, and the mean of |log ρ_{1:L}| over the rows: how far the exact weight has run away."""
    log_ratio = torch.where(mask, s["logprob"] - s["old_logprob"], 0.0)
    weight = prefix_ratio(s["logprob"], s["old_logprob"], mask)
    return {
        **bounded_shares(weight, mask, hyper["clip_low"], hyper["clip_high"]),
        "prefix_minimum": float((prefix_minimum(log_ratio).exp() * mask).sum() / mask.sum().clamp(min=1)),
        "log_product": float(log_ratio.sum(1).abs().sum() / mask.any(1).sum().clamp(min=1)),
    }


MINPRO = Method(
    name="minpro",
    page=__doc__,
    title="MinPRO",
    paper="A Step Back: Prefix Importance Ratio Stabilizes Policy Optimization (arXiv 2601.22718)",
    summary="CISPO whose weight is the token's ratio times the smallest ratio before it.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="token_mean",
    hyperparameters=CISPO.hyperparameters,
    needs=lambda hyper: Needs(group=True),
    scope="row",
    detached=lambda hyper: True,
    metrics=metrics,
    certainty="the weight is certain; its first token is derived; ε and the schedule are a reconstruction",
)
