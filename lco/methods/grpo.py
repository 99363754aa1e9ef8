"""GRPO: PPO's clipped surrogate with the group as baseline (arXiv 2402.03300 §4; methods.md B.7).

    L = −min(r A, clip(r, 1 − ε, 1 + ε) A)   per token, averaged over each row's tokens, then over rows

with r = π_θ(a)/π_old(a) and A = (R − mean)/(std + ε_std) within the group.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import standardised
from lco.heads.linear import TokenFunction
from lco.losses import clipped_surrogate, ratio
from lco.methods.method import Hyper, Hyperparameter, Method, Needs, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rows = standardised(signal.rewards, signal.groups, hyper["ddof"], hyper["epsilon_std"])
    return {"advantage": rows[:, None] * signal.mask}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        r = ratio(s["logprob"], s["old_logprob"])
        return clipped_surrogate(r, x["advantage"], hyper["clip"], hyper["clip"])

    return per_token


GRPO = Method(
    name="grpo",
    title="GRPO",
    paper="DeepSeekMath (arXiv 2402.03300)",
    summary="Clipped surrogate with group-standardised advantages, averaged per response.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_mean",
    hyperparameters={
        "clip": Hyperparameter(0.2, "ε: the ratio is clipped to [1 − ε, 1 + ε]", "common in the field"),
        "ddof": Hyperparameter(
            1, "1: sample standard deviation, 0: population", "verl and TRL; the paper only says std"
        ),
        "epsilon_std": Hyperparameter(1e-6, "added to the standard deviation", "verl and TRL use 1e-6 to 1e-4"),
    },
    needs=Needs(group=True),
)
