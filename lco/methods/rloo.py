"""RLOO: REINFORCE with the other samples' mean as baseline (arXiv 2402.14740).

    L = −A_i Σ_t ℓ   per row, mean over rows,   A_i = R_i − mean_{j≠i} R_j = G/(G − 1) (R_i − mean)

The whole response is one action, there is no clip. The baseline does not contain the sample's own reward, so the gradient
is unbiased for every G ≥ 2. A KL to the reference stands inside the reward: R_i ← R_i − β Σ_t (ℓ_old − ℓ_ref).
"""

from __future__ import annotations

from torch import Tensor

from lco.advantages import leave_one_out
from lco.losses import sequence_sum
from lco.methods.method import Hyper, Hyperparameter, Method, Preset
from lco.methods.objective import Needs, Signal
from lco.methods.reinforce import loss


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rewards = signal.rewards
    if hyper["beta_kl"]:
        assert signal.old_logprob is not None
        assert signal.ref_logprob is not None
        rewards = rewards - hyper["beta_kl"] * sequence_sum(signal.old_logprob - signal.ref_logprob, signal.mask)
    return {"advantage": leave_one_out(rewards, signal.groups)[:, None] * signal.mask}


def needs(hyper: Hyper) -> Needs:
    penalised = hyper["beta_kl"] > 0
    return Needs(group=True, reference=penalised, old_logprob=penalised)


RLOO = Method(
    name="rloo",
    page=__doc__,
    title="RLOO",
    paper="Back to Basics: Revisiting REINFORCE-Style Optimization (arXiv 2402.14740)",
    summary="REINFORCE with a leave-one-out baseline.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob",),
    reduction="seq_mean_token_sum",
    hyperparameters={
        "beta_kl": Hyperparameter(
            0.0, "weight of the KL to the reference inside the reward (0: none)", "common today", least=0
        )
    },
    paper_preset=Preset(
        hyper={"beta_kl": 0.03},
        settings={"lr": 1e-6, "samples": 4, "minibatches": 1, "epochs": 1},
        source="TRL's paper index",
    ),
    needs=needs,
    certainty="certain",
)
