"""What the LCO losses share: where the tilt c = A/β of the optimal policy π* ∝ π_old e^c comes from (arXiv 2603.00963).

sparse       A on the sampled token alone, from rewards
sparse_ips   the same divided by π_old(a), which makes its expectation A (this suite's, not the paper's)
logprob      A(v) = log π_ver(v), a verifier language model over the whole vocabulary
dpo_ratio    A(v) = β_dpo (log π_dpo(v) − log π_ref(v)), a DPO model and its reference
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from lco.advantages import (
    LogProbabilityTilt,
    PreferenceRatioTilt,
    SparseTilt,
    centred,
    leave_one_out,
    soft_leave_one_out,
    standardised,
    terminal_rewards,
)
from lco.heads import Target
from lco.methods.method import Hyper, Hyperparameter, Signal
from lco.methods.pmd import PMD_PARTITION
from lco.methods.ppo import PPO, estimated
from lco.methods.ppo import value_loss as critic_loss
from lco.methods.reinforce import advantage as with_baseline
from lco.methods.reinforce_pp import normalised
from lco.policy import ValueFunction

PAPER = "Stabilizing Policy Optimization via Logits Convexity (arXiv 2603.00963)"

RELEASED = "released code"

CRITIC_HYPERPARAMETERS = {
    name: replace(PPO.hyperparameters[name], help=f"advantage=gae: {PPO.hyperparameters[name].help}")
    for name in ("clip_value", "gamma", "lam", "value_weight", "whiten")
}

TARGET_HYPERPARAMETERS = {
    "beta": Hyperparameter(
        2.0,
        "KL weight of the RL objective; the tilt is A/beta, a trust region of TV tanh(|A|/(4 beta)) per token",
        "released code's runner default; the paper's value is unknown",
    ),
    "beta_negative_scale": Hyperparameter(
        1.0,
        "beta is multiplied by this where A < 0; 100 in the released code (in effect positive-only learning)",
    ),
    "advantage": Hyperparameter(
        "group_mean",
        "A of every token: R itself (reward), or minus the mean of the group, the others, the batch or earlier rollouts, or "
        "minus the others' soft maximum; standardised by group or by batch; ±1; a critic's GAE",
        "suite; the released code broadcasts ±1",
        (
            *("group_mean", "leave_one_out", "soft_leave_one_out", "group_std", "batch_mean", "batch_std"),
            *("running_mean", "reward", "sign_broadcast", "gae"),
        ),
    ),
    "tau": replace(
        PMD_PARTITION.hyperparameters["tau"],
        help="advantage=soft_leave_one_out: τ of τ log mean exp(R/τ) over the others; large: their mean, small: their maximum",
    ),
    "estimator": Hyperparameter(
        "sparse",
        "which tokens carry an advantage: the sampled one, the same unbiased, or all by a verifier or a DPO model",
        "paper (sparse, logprob, dpo_ratio); sparse_ips is the suite's",
        ("sparse", "sparse_ips", "logprob", "dpo_ratio"),
    ),
    "least_probability": Hyperparameter(0.05, "sparse_ips divides by max(π_old(a), this)"),
    "beta_dpo": Hyperparameter(0.1, "dpo_ratio: the β that the DPO model was trained with", "DPO's own default"),
    "dense_top": Hyperparameter(0, "dense estimators: restrict to so many tokens (0: none; 5 in the released code)"),
    "dense_scale": Hyperparameter(
        "none",
        "dense estimators: top_std divides by the standard deviation over the dense_top tokens",
        "suite: none; the released code: top_std",
        ("none", "top_std"),
    ),
    "agreement_scale": Hyperparameter(
        1.0, "logprob: beta is multiplied by this where policy and verifier are sure of the sampled token"
    ),
    **CRITIC_HYPERPARAMETERS,
}


def row_advantage(signal: Signal, hyper: Hyper) -> Tensor:
    """[B] advantages of whole rows."""
    match hyper["advantage"]:
        case "group_mean":
            return centred(signal.rewards, signal.groups)
        case "leave_one_out":
            return leave_one_out(signal.rewards, signal.groups)
        case "soft_leave_one_out":
            return soft_leave_one_out(signal.rewards, signal.groups, hyper["tau"])
        case "group_std":
            return standardised(signal.rewards, signal.groups)
        case _:
            return (signal.rewards > 0).float() * 2 - 1


def broadcast_advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    """{"advantage": [B, T]}: the row's advantage on each of its tokens, or a critic's; a dense estimator does not read it."""
    match hyper["advantage"]:
        case "gae":
            return estimated(terminal_rewards(signal.rewards, signal.mask), signal, hyper)
        case "batch_std":
            return {"advantage": normalised(terminal_rewards(signal.rewards, signal.mask), signal.mask)}
        case "reward":
            return with_baseline(signal, {"baseline": "none"})
        case "batch_mean" | "running_mean" as baseline:
            return with_baseline(signal, {"baseline": baseline})
        case _:
            return {"advantage": row_advantage(signal, hyper)[:, None] * signal.mask}


def value_loss(hyper: Hyper) -> ValueFunction | None:
    """PPO's critic where the advantage is its GAE, else none."""
    return critic_loss(hyper) if hyper["advantage"] == "gae" else None


def target_of(hyper: Hyper, centre_top: bool = False) -> Target:
    """The estimator that the hyper-parameters name."""
    match hyper["estimator"]:
        case "logprob":
            return LogProbabilityTilt(
                hyper["beta"], hyper["dense_top"], centre_top, hyper["dense_scale"], hyper["agreement_scale"]
            )
        case "dpo_ratio":
            return PreferenceRatioTilt(hyper["beta"], hyper["beta_dpo"], hyper["dense_top"], hyper["dense_scale"])
        case "sparse_ips":
            return SparseTilt(hyper["beta"], hyper["beta_negative_scale"], hyper["least_probability"])
        case _:
            return SparseTilt(hyper["beta"], hyper["beta_negative_scale"])


def is_dense(hyper: Hyper) -> bool:
    return hyper["estimator"] in {"logprob", "dpo_ratio"}


def unread_by_advantage(hyper: Hyper) -> dict[str, str]:
    """The critic's knobs where the advantage needs no critic, and the temperature that one advantage has."""
    critic = {} if hyper["advantage"] == "gae" else dict.fromkeys(CRITIC_HYPERPARAMETERS, "advantage=gae")
    return critic if hyper["advantage"] == "soft_leave_one_out" else {**critic, "tau": "advantage=soft_leave_one_out"}


def unread(hyper: Hyper) -> dict[str, str]:
    """Knobs that the estimator or the advantage leaves unread, and what would read them."""
    estimator = hyper["estimator"]
    found = {}
    if estimator != "sparse_ips":
        found["least_probability"] = "estimator=sparse_ips"
    if estimator != "logprob":
        found["agreement_scale"] = "estimator=logprob"
    if estimator != "dpo_ratio" or hyper["dense_scale"] == "top_std":
        found["beta_dpo"] = "estimator=dpo_ratio with dense_scale=none"
    if is_dense(hyper):
        found |= dict.fromkeys(("advantage", "beta_negative_scale"), "estimator=sparse or sparse_ips")
    else:
        found |= dict.fromkeys(("dense_scale", "dense_top"), "estimator=logprob or dpo_ratio")
    return found | unread_by_advantage(hyper)


def dense_conflict(hyper: Hyper) -> str | None:
    """Why the estimator's hyper-parameters do not go together, if they do not."""
    if hyper["dense_scale"] == "top_std" and not hyper["dense_top"]:
        return "dense_scale top_std is the spread over the dense_top tokens, but dense_top is 0; give dense_top=5"
    return None
