"""CPPO: DPPO's threshold on every token, and a budget on what a row's prefix has used up (arXiv 2606.10968).

    L = −M_t r_t A   per token, Σ_t / L_max, mean over rows,   r = π_θ(a)/μ(a), A standardised within the group
    M_t = 1 where the update moves towards μ, or w_t D_t ≤ min(δ, δ + δ_b W_{t−1} − S_{t−1})
    S_t = Σ_{j≤t} w_j D_j      W_t = Σ_{j≤t} w_j      w_t = 1 − (1 − w_min)(t − 1)/(T − 1), T the row's own length

Early deviations reach every later state, so they weigh more: the threshold on D grows from δ to δ/w_min along the row. And
every token, masked or not, draws on a budget that grows by δ_b a token; after a prefix that has used it up nothing moves away
from μ until it has grown again. δ_b is a constant, or the row's own 90th percentile of D within [δ_b, 2 δ_b] (`p90`).
`gate=soft` weighs a token that would be masked by 1/x, x how many times it exceeds the tighter of its two bounds.

μ is the sampler's own distribution, D as DPPO measures it. With w_min = 1 and no budget this is DPPO's mask. Groups without
signal are left out of the update. The paper's settings: δ .15 (30B-A3B: .20), δ_b .02 with `p90` on base models, .015 fixed
on a post-trained one; for the KL form δ .1 and δ_b .002.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.advantages import degenerate
from lco.heads import TokenFunction
from lco.losses import ratio
from lco.methods.divergence import (
    KL,
    TOP_TOKENS,
    TV,
    log_ratio,
    measure,
    measured_again,
    moves_away,
    of_divergence,
    read_tokens,
    shares,
    statistics_read,
)
from lco.methods.grpo import GRPO
from lco.methods.grpo import advantage as group_advantage
from lco.methods.method import Hyper, Hyperparameter, Method, Preset, When
from lco.methods.objective import Needs, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rows = group_advantage(signal, hyper)
    return {**rows, "mask": signal.mask.float()}


def keep(signal: Signal, hyper: Hyper) -> Tensor:
    return ~degenerate(signal.rewards, signal.groups)


def position_weights(mask: Tensor, least: float) -> Tensor:
    """w [B, T], from 1 at a row's first token to `least` at its last; 1 for a row of one token."""
    steps = (mask.sum(1, keepdim=True) - 1).clamp(min=1)
    return 1 - (1 - least) * torch.arange(mask.shape[1], device=mask.device) / steps


def prefix_allowance(divergence: Tensor, mask: Tensor, kind: str, allowance: float) -> Tensor:
    """δ_b [B, 1]: the constant, or the 90th percentile of the row's divergences (interpolated linearly) within [it, twice it]."""
    if kind == "fixed":
        return divergence.new_full((len(divergence), 1), allowance)
    found = torch.nanquantile(divergence.masked_fill(~mask.bool(), torch.nan), 0.9, dim=1, keepdim=True)
    return found.nan_to_num(0.0).clamp(allowance, 2 * allowance)


def used_up(divergence: Tensor, mask: Tensor, hyper: Hyper) -> tuple[Tensor, Tensor]:
    """(w D, δ + δ_b W_{t−1}), [B, T] each: what a token takes of its row's budget, and what the budget has grown to."""
    mask = mask.to(divergence.dtype)
    weights = position_weights(mask, hyper["least_weight"])
    allowance = prefix_allowance(divergence, mask, hyper["budget"], of_divergence(hyper, "allowance"))
    grown = of_divergence(hyper, "delta") + allowance * (weights.cumsum(1) - weights)
    return weights * torch.where(mask > 0, divergence, 0.0), grown


def gates(divergence: Tensor, mask: Tensor, away: Tensor, hyper: Hyper) -> Tensor:
    """M [B, T] from the divergences of whole rows and from whether each token moves away from μ."""
    delta = of_divergence(hyper, "delta")
    used, budget = used_up(divergence, mask, hyper)
    if hyper["gate"] == "soft":
        excess = torch.maximum(used / delta, used.cumsum(1) / budget)
        return torch.where(away, 1 / excess.clamp(min=1), 1.0)
    left = budget - (used.cumsum(1) - used)
    return (~away | (used <= left.clamp(max=delta))).to(divergence.dtype)


def loss(hyper: Hyper) -> TokenFunction:
    def per_row(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        away = moves_away(log_ratio(s), x["advantage"])
        gate = gates(measure(s, hyper), x["mask"], away, hyper)
        return -gate * ratio(s["logprob"], s["sampler_logprob"]) * x["advantage"]

    return per_row


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    """Shares of the tokens that are masked (`gate=soft`: weakened) by sign, and of those that δ alone would mask; mean and
    largest divergence; the mean allowance δ_b of a row."""
    seen = {**s, **x}
    divergence, away, rows = measure(seen, hyper), moves_away(log_ratio(seen), x["advantage"]), mask.any(1)
    gate = gates(divergence, mask, away, hyper)
    alone = away & (used_up(divergence, mask, hyper)[0] > of_divergence(hyper, "delta"))
    allowance = prefix_allowance(divergence, mask, hyper["budget"], of_divergence(hyper, "allowance"))
    return {
        **shares(gate < 1, divergence, x["advantage"], mask),
        "masked_by_token": float((alone & mask).sum() / mask.sum().clamp(min=1)),
        "allowance_mean": float(allowance[rows].sum() / rows.sum().clamp(min=1)),
    }


CPPO = Method(
    name="cppo",
    page=__doc__,
    title="CPPO",
    paper="CPPO, Tencent Hunyuan (arXiv 2606.10968)",
    summary="DPPO with thresholds that widen along a row and a budget on the divergence of its prefix.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "sampler_logprob", *statistics_read(hyper)),
    reduction="seq_mean_token_sum_const",
    hyperparameters={
        "divergence": Hyperparameter(
            "top_tv", "D: total variation or KL(μ ‖ π), of the likeliest tokens or of two cells", "paper", (*TV, *KL)
        ),
        "delta": Hyperparameter(0.15, "δ of a total variation", "paper", when=(When("divergence", TV),), above=0),
        "delta_kl": Hyperparameter(0.1, "δ of a KL", "paper", when=(When("divergence", KL),), above=0),
        "budget": Hyperparameter(
            "p90",
            "what δ_b is: constant, or the row's 90th percentile of D",
            "paper: p90 on base models",
            ("p90", "fixed"),
        ),
        "allowance": Hyperparameter(
            0.02,
            "δ_b of a total variation; with p90 the least",
            "paper: .015 if fixed",
            when=(When("divergence", TV),),
            least=0,
        ),
        "allowance_kl": Hyperparameter(
            0.002, "δ_b of a KL; with p90 the least", "paper", when=(When("divergence", KL),), least=0
        ),
        "least_weight": Hyperparameter(0.8, "w_min: weight of a row's last token", "paper", above=0, most=1),
        "gate": Hyperparameter("hard", "mask a token, or weaken it by its excess", "paper", ("hard", "soft")),
        "top": TOP_TOKENS,
        "ddof": GRPO.hyperparameters["ddof"],
        "epsilon_std": GRPO.hyperparameters["epsilon_std"],
    },
    paper_preset=Preset(
        settings={
            "lr": 1e-6,
            "prompts_per_step": 128,
            "samples": 8,
            "minibatches": 4,
            "max_new_tokens": 8192,
            "temperature": 1.0,
        },
        source="paper, Qwen3-8B-Base",
    ),
    needs=lambda hyper: Needs(group=True, sampler_logprob=True, sampler_top=read_tokens(hyper)),
    keep=keep,
    scope="row",
    metrics=metrics,
    metric_statistics=measured_again,
    detached=lambda hyper: hyper["gate"] == "soft",
    certainty="certain",
)

CPPO_UNIRL = CPPO.variant(
    "cppo_unirl",
    "CPPO, UniRL",
    "CPPO as its authors' released code runs it: the sampled token against all others, always with the percentile, token mean.",
    {"divergence": "binary_tv", "delta": 0.2},
    reduction="token_mean",
    certainty="read in the released code; its divisor is a micro-batch's, here the minibatch's",
)
