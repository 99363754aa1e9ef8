"""What DPPO and CPPO share: how far a token's distribution has moved, D(μ, π), from what was recorded of μ (arXiv 2602.04879).

binary_tv   |π(a) − μ(a)|: the sampled token against all others
binary_kl   μ log(μ/π) + (1 − μ) log((1 − μ)/(1 − π)) of the same two cells
top_tv      ½ Σ |π − μ| over μ's K likeliest tokens, the sampled one where it is not among them, and one cell for the rest
top_kl      Σ μ log(μ/π) over these cells

Merging cells never raises a divergence, so binary ≤ top-K ≤ the whole vocabulary's; with K = V top-K is exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.losses import LOG_RATIO_BOUND
from lco.methods.method import Hyper, Hyperparameter, When

TOP = ("top_tv", "top_kl")
"""Those that read the sampler's likeliest tokens."""

TV, KL = ("binary_tv", "top_tv"), ("binary_kl", "top_kl")

GUARD = 1e-8
"""Added to both complements of the binary KL, as the released code does: π → 1 stays finite."""

LEAST_REST = 1e-12
"""Of the rest cell, which float32 may find negative."""

TOP_TOKENS = Hyperparameter(
    20, "K: the sampler's likeliest tokens that are told apart", "paper (vLLM's limit)", when=(When("divergence", TOP),), least=1
)  # fmt: skip


def read_tokens(hyper: Hyper) -> int:
    """How many of the sampler's likeliest tokens are read."""
    return hyper["top"] if hyper["divergence"] in TOP else 0


def of_divergence(hyper: Hyper, name: str) -> float:
    """A threshold by its name: total variations and KLs have their own."""
    return hyper[name] if hyper["divergence"] in TV else hyper[f"{name}_kl"]


def statistics_read(hyper: Hyper) -> tuple[str, ...]:
    """What `measure` reads besides the log-probabilities of the sampled token."""
    k = read_tokens(hyper)
    names = ("token", f"sampler_top/{k}", f"sampler_logprob_at_top/{k}", f"logprob_at_sampler_top/{k}")
    return names if k else ()


def measured_again(hyper: Hyper) -> tuple[str, ...]:
    """Those of them that are no inputs of a run."""
    return tuple(name for name in statistics_read(hyper) if not name.startswith("sampler_"))


def measure(s: Mapping[str, Tensor], hyper: Hyper, anchor: str = "sampler_logprob") -> Tensor:
    """D(μ, π) of every token, without gradient.

    Args:
        s: statistics, or statistics and inputs; 0 where padded.
        anchor: the name of log μ(a) among them.
    """
    logprob, sampler = s["logprob"].detach(), s[anchor].detach()
    match hyper["divergence"]:
        case "binary_tv":
            return (logprob.exp() - sampler.exp()).abs()
        case "binary_kl":
            others, others_now = -sampler.expm1(), -logprob.expm1()
            of_others = others * ((others + GUARD) / (others_now + GUARD)).log()
            return sampler.exp() * (sampler - logprob) + of_others
    k = hyper["top"]
    outside = (s[f"sampler_top/{k}"] != s["token"][..., None]).all(-1)
    before, log_before = cells(s[f"sampler_logprob_at_top/{k}"], sampler, outside)
    now, log_now = cells(s[f"logprob_at_sampler_top/{k}"].detach(), logprob, outside)
    if hyper["divergence"] == "top_tv":
        return (now - before).abs().sum(-1) / 2
    return (before * (log_before - log_now)).sum(-1)


def cells(at_top: Tensor, sampled: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and their logarithms [..., K + 2] of the K tokens, of the sampled one where it is outside of them (an empty
    cell where it is not), and of the rest.

    Args:
        at_top: [..., K] log-probabilities.
        sampled: [...] that of the sampled token.
    """
    alone = torch.where(outside, sampled, 0.0)
    mass = torch.where(outside, sampled.exp(), 0.0)
    rest = (1 - at_top.exp().sum(-1) - mass).clamp(min=LEAST_REST)
    probabilities = torch.cat([at_top.exp(), mass[..., None], rest[..., None]], -1)
    return probabilities, torch.cat([at_top, alone[..., None], rest.log()[..., None]], -1)


def log_ratio(s: Mapping[str, Tensor], anchor: str = "sampler_logprob") -> Tensor:
    """log π/μ of the sampled token, bounded, without gradient."""
    return (s["logprob"] - s[anchor]).detach().clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def moves_away(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """Whether the update takes the token further from μ: A > 0 and π > μ, or A < 0 and π < μ."""
    return advantage.sign() * log_ratio > 0


def shares(masked: Tensor, found: Tensor, advantage: Tensor, mask: Tensor) -> dict[str, float]:
    """Shares of the tokens whose gradient is masked, by the sign of their advantage; mean and largest divergence."""
    count = mask.sum().clamp(min=1)
    return {
        "masked_positive": float((masked & mask & (advantage > 0)).sum() / count),
        "masked_negative": float((masked & mask & (advantage < 0)).sum() / count),
        "divergence_mean": float(torch.where(mask, found, 0.0).sum() / count),
        "divergence_max": float(torch.where(mask, found, 0.0).max()),
    }
