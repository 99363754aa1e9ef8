"""GSPO: the importance ratio of whole sequences, because the reward is one of whole sequences (arXiv 2507.18071).

    s_i = exp(mean_t (ℓ − ℓ_old))       L = −min(s_i A_i, clip(s_i, 1 − ε_low, 1 + ε_high) A_i)   per row, mean over rows

A row is clipped as a whole. Sequence ratios move far less than token ratios, so ε is a thousand times smaller than PPO's and
the clip binds a hundred times as often, as intended. GSPO-token writes the ratio of each token as sg(s_i) e^(ℓ − sg ℓ), which
has the same value and, for an advantage that is constant over the row, the same gradient, but admits one per token.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.advantages import standardised
from lco.heads import TokenFunction
from lco.losses import clip_shares, clipped_surrogate, sequence_mean, sequence_ratio
from lco.methods.grpo import GRPO
from lco.methods.method import Hyper, Hyperparameter, Method, Preset
from lco.methods.objective import Needs, Signal


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rows = standardised(signal.rewards, signal.groups, hyper["ddof"], hyper["epsilon_std"])
    return {"advantage": rows[:, None] * signal.mask, "mask": signal.mask.float()}


def loss(hyper: Hyper) -> TokenFunction:
    def per_row(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        ratios = sequence_ratio(s["logprob"], s["old_logprob"], x["mask"])
        advantages = sequence_mean(x["advantage"], x["mask"])
        rows = clipped_surrogate(ratios, advantages, hyper["clip_low"], hyper["clip_high"])
        return rows[:, None] * x["mask"]

    return per_row


def token_loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        ratios = sequence_ratio(s["logprob"], s["old_logprob"], x["mask"]).detach()
        per_token = ratios[:, None] * (s["logprob"] - s["logprob"].detach()).exp()
        return clipped_surrogate(per_token, x["advantage"], hyper["clip_low"], hyper["clip_high"]) * x["mask"]

    return per_token


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    """Clip shares of rows, not of tokens."""
    ratios = sequence_ratio(s["logprob"], s["old_logprob"], mask)
    advantages, rows = sequence_mean(x["advantage"], mask), mask.any(1)
    return clip_shares(ratios, advantages, rows, hyper["clip_low"], hyper["clip_high"])


HYPERPARAMETERS = {
    "clip_low": Hyperparameter(
        3e-4, "ε_low: the sequence ratio is clipped to at least 1 − ε_low", "paper", least=0, most=1
    ),
    "clip_high": Hyperparameter(4e-4, "ε_high: the sequence ratio is clipped to at most 1 + ε_high", "paper", least=0),
    "ddof": GRPO.hyperparameters["ddof"],
    "epsilon_std": GRPO.hyperparameters["epsilon_std"],
}
PAPER = "Group Sequence Policy Optimization (arXiv 2507.18071)"
PRESET = Preset(settings={"minibatches": 4}, source="paper; its learning rate is not known here")

GSPO = Method(
    name="gspo",
    page=__doc__,
    title="GSPO",
    paper=PAPER,
    summary="Clips the length-normalised ratio of whole responses.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_mean",
    hyperparameters=HYPERPARAMETERS,
    paper_preset=PRESET,
    needs=lambda hyper: Needs(group=True),
    scope="row",
    metrics=metrics,
    certainty="certain",
)

GSPO_TOKEN = Method(
    name="gspo_token",
    page=__doc__,
    title="GSPO-token",
    paper=PAPER,
    summary="GSPO's ratio with a gradient per token, for advantages that differ within a row.",
    advantage=advantage,
    loss=token_loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="seq_mean_token_mean",
    hyperparameters=HYPERPARAMETERS,
    paper_preset=PRESET,
    needs=lambda hyper: Needs(group=True),
    scope="row",
    metrics=metrics,
    certainty="certain",
)
