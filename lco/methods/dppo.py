"""DPPO: a trust region in the divergence of the two distributions, not in the ratio of one token (arXiv 2602.04879).

    L = −sg(min(r, c)) M A ℓ   per token, Σ_t / L_max, mean over rows,   r = π_θ(a)/μ(a),   A = R − mean of the group
    M = 0 where A > 0, r > 1, D > δ, and where A < 0, r < 1, D > δ; 1 elsewhere

The ratio of the sampled token misjudges a move: from 1e-4 to 1e-2 it is 100 for a hundredth of the mass, from .99 to .80 it
is .81 for a fifth. D is the divergence of μ and π, of the sampled token against the rest or over the sampler's K likeliest
tokens (`divergence`); an update that goes back towards μ is never masked. μ is the *sampler's* own distribution as it
recorded it, not one that the trainer computes again: the paper's ablation of that anchor collapses.

As c → ∞ the gradient is that of −M r A; with δ = ∞ too it is the plain importance-weighted one, with δ = ∞ alone CISPO's
without a lower bound. On the first update after a rollout r = 1 up to the engines' difference, and nothing is masked.

The paper's experiments differ in δ (TV, KL) and c: stability study .15, .05 and no cap (prompts 64 × 8, 4 updates); scaling
runs .2, .05 and c = 5 (dense 8B: 128 × 8, minibatches of 32 prompts; 30B-A3B: 256 × 16, of 32; LoRA: δ .15, lr 1e-5).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.divergence import (
    KL,
    TOP,
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
from lco.methods.dr_grpo import advantage
from lco.methods.method import Hyper, Hyperparameter, Method, Preset, When
from lco.methods.objective import Needs

ANCHORS = {"sampler": "sampler_logprob", "recomputed": "old_logprob"}
"""What μ is: the sampler's record, or the policy before the rollout's first update, computed again by the trainer."""


def masked(s: Mapping[str, Tensor], advantage: Tensor, hyper: Hyper) -> tuple[Tensor, Tensor]:
    """(whether the token's gradient is stopped, its divergence)."""
    anchor = ANCHORS[hyper["mask_anchor"]]
    divergence = measure(s, hyper, anchor)
    return moves_away(log_ratio(s, anchor), advantage) & (divergence > of_divergence(hyper, "delta")), divergence


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        weight = log_ratio(s, ANCHORS[hyper["weight_anchor"]]).exp()
        if hyper["cap"]:
            weight = weight.clamp(max=hyper["cap"])
        stopped, _ = masked(s, x["advantage"], hyper)
        return -weight * ~stopped * x["advantage"] * s["logprob"]

    return per_token


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    """Masked shares by sign, mean and largest divergence, the share of capped weights."""
    seen = {**s, **x}
    stopped, divergence = masked(seen, x["advantage"], hyper)
    found = shares(stopped, divergence, x["advantage"], mask)
    if hyper["cap"]:
        capped = log_ratio(seen, ANCHORS[hyper["weight_anchor"]]).exp() > hyper["cap"]
        found["weight_capped"] = float((capped & mask).sum() / mask.sum().clamp(min=1))
    return found


def anchors(hyper: Hyper) -> set[str]:
    return {hyper["mask_anchor"], hyper["weight_anchor"]}


def needs(hyper: Hyper) -> Needs:
    return Needs(group=True, sampler_logprob="sampler" in anchors(hyper), sampler_top=read_tokens(hyper))


def anchor_conflict(hyper: Hyper) -> str | None:
    if hyper["divergence"] in TOP and hyper["mask_anchor"] != "sampler":
        return (
            f"divergence={hyper['divergence']} reads the likeliest tokens that the sampler recorded; give mask_anchor=sampler, "
            "or a binary divergence"
        )
    return None


DPPO = Method(
    name="dppo",
    page=__doc__,
    title="DPPO",
    paper="Rethinking the Trust Region in LLM Reinforcement Learning (arXiv 2602.04879)",
    summary="Importance-weighted policy gradient that stops a token once its distribution has moved too far from the sampler's.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: (
        "logprob",
        *(name for anchor, name in ANCHORS.items() if anchor in anchors(hyper)),
        *statistics_read(hyper),
    ),
    reduction="seq_mean_token_sum_const",
    hyperparameters={
        "divergence": Hyperparameter(
            "binary_tv", "D: total variation or KL(μ ‖ π), of two cells or of the likeliest tokens", "paper", (*TV, *KL)
        ),
        "delta": Hyperparameter(
            0.15, "δ of a total variation", "paper: .10 to .20 behave alike", when=(When("divergence", TV),), least=0
        ),
        "delta_kl": Hyperparameter(
            0.05, "δ of a KL", "paper: .05 to .15 behave alike", when=(When("divergence", KL),), least=0
        ),
        "cap": Hyperparameter(
            20.0,
            "c: the weight is at most this (0: no bound)",
            "verl; paper: none, or 5; its released code: 10",
            least=0,
        ),
        "top": TOP_TOKENS,
        "mask_anchor": Hyperparameter("sampler", "μ of the mask", "paper", tuple(ANCHORS)),
        "weight_anchor": Hyperparameter("sampler", "μ of the weight", "paper", tuple(ANCHORS)),
    },
    paper_preset=Preset(
        hyper={"delta": 0.2, "cap": 5.0},
        settings={
            "lr": 1e-6,
            "prompts_per_step": 128,
            "samples": 8,
            "minibatches": 4,
            "max_prompt_tokens": 1024,
            "max_new_tokens": 8000,
            "temperature": 1.0,
        },
        source="paper, the scaling run on Qwen3-8B-Base",
    ),
    needs=needs,
    conflict=anchor_conflict,
    metrics=metrics,
    metric_statistics=measured_again,
    detached=lambda hyper: True,
    certainty="certain",
)

DPPO_RECOMPUTE = DPPO.variant(
    "dppo_recompute",
    "DPPO, recomputed mask",
    "DPPO whose mask compares with the policy that the trainer computes again; the paper's ablation, which collapses there.",
    {"mask_anchor": "recomputed"},
    certainty="read in the released code",
)
DPPO_VERL = DPPO.variant(
    "dppo_verl",
    "DPPO, verl",
    "DPPO as verl's example runs it: mask and weight both compare with the recomputed policy.",
    {"mask_anchor": "recomputed", "weight_anchor": "recomputed"},
    certainty="read in verl 0.9.1",
    released_preset=Preset(
        hyper={"cap": 10_000.0},
        settings={
            "lr": 1e-6,
            "prompts_per_step": 256,
            "samples": 16,
            "minibatches": 8,
            "max_prompt_tokens": 2048,
            "max_new_tokens": 8192,
        },
        source="verl's example script for Qwen3-30B-A3B-Base",
    ),
)
