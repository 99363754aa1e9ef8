"""REINFORCE: the plain score-function gradient (Williams 1992).

    L = −A ℓ   per token,   A = R − b

What LCO's on-policy step must be compared with: the effective weight is A itself, unbounded by the token's probability.
For A > 0 the loss is convex in the logits, for A < 0 concave: it has no minimum. The baseline b is 0, the mean of this
rollout's rewards, or a running mean of the rollouts before (decay 0.9), which alone of the three is independent of the
sample and nevertheless not 0. With b = 0 and rewards that are all equal, everything sampled gets likelier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.method import Hyper, Hyperparameter, Method
from lco.methods.objective import Signal

DECAY = 0.9


def running_mean(history: Sequence[float]) -> float:
    """Exponential moving average of the rollouts' mean rewards, oldest first, beginning with the first; 0 before it."""
    mean = history[0] if history else 0.0
    for reward in history[1:]:
        mean = DECAY * mean + (1 - DECAY) * reward
    return mean


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    baselines = {
        "none": 0.0,
        "batch_mean": float(signal.rewards.mean()),
        "running_mean": running_mean(signal.reward_history),
    }
    return {"advantage": (signal.rewards - baselines[hyper["baseline"]])[:, None] * signal.mask}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return -x["advantage"] * s["logprob"]

    return per_token


REINFORCE = Method(
    name="reinforce",
    page=__doc__,
    title="REINFORCE",
    paper="Simple statistical gradient-following algorithms (Williams 1992)",
    summary="The plain score-function gradient with a constant baseline.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="seq_mean_token_sum",
    hyperparameters={
        "baseline": Hyperparameter(
            "batch_mean", "what is subtracted from the reward", "suite", ("none", "batch_mean", "running_mean")
        ),
    },
    certainty="certain",
)
