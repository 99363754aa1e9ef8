"""CISPO: clip the importance weight, keep the gradient (arXiv 2506.13585 §3).

    L = −sg(clip(r, 1 − ε_low, 1 + ε_high)) A ℓ   per token, mean over all tokens

PPO's clip drops a token from the update once its ratio is outside; the rare tokens of a reflection are dropped first. Here
the weight is bounded and every token keeps its gradient. The value of the loss means nothing, its gradient does: it is
unclipped importance-weighted policy gradient as ε_high → ∞, REINFORCE at r = 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lco.heads import TokenFunction
from lco.losses import ratio
from lco.methods.grpo import GRPO, advantage
from lco.methods.method import Hyper, Hyperparameter, Method, Preset
from lco.methods.objective import Needs


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        weight = ratio(s["logprob"], s["old_logprob"]).clamp(1 - hyper["clip_low"], 1 + hyper["clip_high"]).detach()
        return -weight * x["advantage"] * s["logprob"]

    return per_token


def bounded_shares(r: Tensor, mask: Tensor, low: float, high: float) -> dict[str, float]:
    """Of weights clip(r, 1 − low, 1 + high): the shares that are bounded, and their effective sample size (Σw)²/(N Σw²) as
    a share of the tokens."""
    count = mask.sum().clamp(min=1)
    weight = r.clamp(1 - low, 1 + high) * mask
    return {
        "weight_bounded_high": float(((r > 1 + high) & mask).sum() / count),
        "weight_bounded_low": float(((r < 1 - low) & mask).sum() / count),
        "weight_effective_share": float(weight.sum() ** 2 / (count * weight.square().sum()).clamp(min=1e-12)),
    }


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    return bounded_shares(ratio(s["logprob"], s["old_logprob"]), mask, hyper["clip_low"], hyper["clip_high"])


CISPO = Method(
    name="cispo",
    page=__doc__,
    title="CISPO",
    paper="MiniMax-M1 (arXiv 2506.13585)",
    summary="Policy gradient with bounded, detached importance weights: no token loses its gradient.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="token_mean",
    hyperparameters={
        "clip_low": Hyperparameter(
            1.0, "ε_low: the weight is at least 1 − ε_low (1: no lower bound)", "paper", least=0, most=1
        ),
        "clip_high": Hyperparameter(
            4.0,
            "ε_high: the weight is at most 1 + ε_high",
            "ScaleRL's bound of 5; the paper's own is not disclosed",
            least=0,
        ),
        "ddof": GRPO.hyperparameters["ddof"],
        "epsilon_std": GRPO.hyperparameters["epsilon_std"],
    },
    paper_preset=Preset(settings={"samples": 16}, source="TRL's paper index (ScaleRL)"),
    needs=lambda hyper: Needs(group=True),
    metrics=metrics,
    detached=lambda hyper: True,
    certainty="certain",
)
