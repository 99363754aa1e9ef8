"""Kimi k1.5 / OPMD: mirror descent by regression of the sequence log-ratio (arXiv 2501.12599 eq. 3).

    L = ½ τ (A_i/τ − S_i)²   per row, mean over rows,   S_i = Σ_t (ℓ − ℓ_old),   A_i = R_i − mean of the group

The KL-regularised problem has log π*(y)/π_old(y) = (R − τ log Z)/τ, and the group's mean stands for τ log Z. The weight of
every token of a row is A_i − τ S_i: a policy gradient with a pull back on the log-ratio, stationary at S = A/τ, and the
nearest published relative of LCO-MSE. S grows with the length, so τ does too; PMD-mean divides by it.

`kimi_token` is the token-level form of a released implementation, ½ (A − β (ℓ − ℓ_old))² with GRPO's advantages: LCO-MSE in
`token_logprob` space without log Z, so that for A > 0 the target may be a probability above 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import centred
from lco.heads import TokenFunction
from lco.losses import sequence_mean, sequence_sum
from lco.methods.grpo import GRPO
from lco.methods.grpo import advantage as standardised_advantage
from lco.methods.method import Hyper, Hyperparameter, Method
from lco.methods.objective import Needs, Signal

PAPER = "Kimi k1.5 (arXiv 2501.12599)"


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rows = centred(signal.rewards, signal.groups)
    return {"advantage": rows[:, None] * signal.mask, "mask": signal.mask.float()}


def loss(hyper: Hyper) -> TokenFunction:
    def per_row(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        log_ratio = sequence_sum(s["logprob"] - s["old_logprob"], x["mask"])
        residual = sequence_mean(x["advantage"], x["mask"]) / hyper["tau"] - log_ratio
        return (0.5 * hyper["tau"] * residual.square())[:, None] * x["mask"]

    return per_row


def token_loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return 0.5 * (x["advantage"] - hyper["beta"] * (s["logprob"] - s["old_logprob"])).square()

    return per_token


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    """How far the sequence log-ratios are, and are from where the loss would rest."""
    log_ratio = sequence_sum(s["logprob"] - s["old_logprob"], mask)
    wanted = sequence_mean(x["advantage"], mask) / hyper["tau"]
    return {
        "log_ratio_abs": float(log_ratio.abs().mean()),
        "residual_abs": float((wanted - log_ratio).abs().mean()),
    }


KIMI = Method(
    name="kimi",
    page=__doc__,
    title="Kimi OPMD",
    paper=PAPER,
    summary="Regresses each response's log-ratio on its centred reward.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_mean",
    hyperparameters={
        "tau": Hyperparameter(
            0.1, "τ: strength of the pull to the old policy; gradient weight A − τ S", "suite; the paper names none", above=0
        )
    },
    needs=lambda hyper: Needs(group=True),
    scope="row",
    metrics=metrics,
    certainty="objective certain, constants not disclosed",
)  # fmt: skip

KIMI_TOKEN = Method(
    name="kimi_token",
    page=__doc__,
    title="Kimi, token level",
    paper=PAPER + ", token-level form of a released implementation",
    summary="Regresses each token's log-ratio on its group-standardised advantage.",
    advantage=standardised_advantage,
    loss=token_loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="token_mean",
    hyperparameters={
        "beta": Hyperparameter(
            1.0, "weight of the token's log-ratio; gradient weight β (A − β x)", "released code", above=0
        ),
        "ddof": GRPO.hyperparameters["ddof"],
        "epsilon_std": GRPO.hyperparameters["epsilon_std"],
    },
    needs=lambda hyper: Needs(group=True),
    certainty="read in the released code",
)
