"""PMD-mean: policy mirror descent with the mean reward in place of the log-partition (arXiv 2602.05933).

    L = ½ τ (A_i/τ − S_i)² / L_i   per row, mean over rows,   S_i = Σ_t (ℓ − ℓ_old)

    mean             A_i = R_i − mean_{j≠i} R_j
    partition        A_i = R_i − τ log mean_{j≠i} exp(R_j/τ)
    partition_code   the same with the released code's clamp: 1e-8 inside the logarithm, after a shift by the maximum of the
                     whole group, the own reward included; where τ is small and only the own reward is high, it binds

The weight of every token is (A − τ S)/L_i. The paper shows that the mean amounts to a mixed KL and χ² regulariser. partition
→ mean as τ → ∞; the mean's first update has RLOO's gradient with 1/L_i. The loss is huge where τ is small: read the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.advantages import group_mean, leave_one_out, soft_leave_one_out
from lco.heads import TokenFunction
from lco.losses import sequence_mean, sequence_sum
from lco.methods.kimi import metrics
from lco.methods.method import Hyper, Hyperparameter, Method, Preset
from lco.methods.objective import Needs, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    if hyper["log_partition"] == "mean":
        rows = leave_one_out(signal.rewards, signal.groups)
    else:
        floor = 1e-8 if hyper["log_partition"] == "partition_code" else 0.0
        rows = soft_leave_one_out(signal.rewards, signal.groups, hyper["tau"], floor)
    lengths = signal.mask.sum(1, keepdim=True).clamp(min=1)
    divisor = lengths if hyper["divide_by"] == "length" else torch.full_like(lengths, signal.length_limit)
    return {
        "advantage": rows[:, None] * signal.mask,
        "mask": signal.mask.float(),
        "divisor": divisor * signal.mask.float(),
    }


def loss(hyper: Hyper) -> TokenFunction:
    def per_row(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        log_ratio = sequence_sum(s["logprob"] - s["old_logprob"], x["mask"])
        residual = sequence_mean(x["advantage"], x["mask"]) / hyper["tau"] - log_ratio
        divisor = sequence_mean(x["divisor"], x["mask"]).clamp(min=1)
        return (0.5 * hyper["tau"] * residual.square() / divisor)[:, None] * x["mask"]

    return per_row


def keep(signal: Signal, hyper: Hyper) -> Tensor:
    rate = group_mean(signal.rewards, signal.groups)
    return (rate >= hyper["least_success"]) & (rate <= hyper["most_success"])


PMD_MEAN = Method(
    name="pmd_mean",
    page=__doc__,
    title="PMD-mean",
    paper="Policy mirror descent with the mean reward (arXiv 2602.05933)",
    summary="Regresses each response's log-ratio on its leave-one-out advantage, divided by its length.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_mean",
    hyperparameters={
        "tau": Hyperparameter(
            0.01, "τ: strength of the pull to the old policy; gradient weight (A − τ S)/L", "released code", above=0
        ),
        "log_partition": Hyperparameter(
            "mean", "what stands for τ log Z", "paper", ("mean", "partition", "partition_code")
        ),
        "divide_by": Hyperparameter(
            "length", "the row's length or the longest allowed", "released code", ("length", "limit")
        ),
        "least_success": Hyperparameter(
            0.0, "groups with a lower mean reward are left out", "released code's option", least=0, most=1
        ),
        "most_success": Hyperparameter(
            1.0, "groups with a higher mean reward are left out", "released code's option", least=0, most=1
        ),
    },
    paper_preset=Preset(
        settings={"lr": 1e-6, "prompts_per_step": 512, "samples": 16, "minibatches": 256, "max_new_tokens": 8192},
        source="released code (minibatches of 32 rows)",
    ),
    needs=lambda hyper: Needs(group=True),
    keep=keep,
    conflict=lambda hyper: (
        f"least_success is {hyper['least_success']} and most_success {hyper['most_success']}: no group lies between; swap them"
        if hyper["least_success"] > hyper["most_success"]
        else None
    ),
    scope="row",
    metrics=metrics,
    certainty="read in the released code; theory from the abstract",
)

PMD_PARTITION = PMD_MEAN.variant(
    "pmd_partition",
    "PMD-partition",
    "PMD with the log-partition estimated from the group.",
    {"log_partition": "partition"},
    paper_preset=PMD_MEAN.paper_preset,
)
