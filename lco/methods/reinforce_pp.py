"""REINFORCE++: PPO's stabilisers without a critic, one sample per prompt allowed (arXiv 2501.03262).

    L = −min(r A, clip(r, 1 − ε, 1 + ε) A)   per token, mean over all tokens
    A_t = (G_t − mean)/std over all tokens of the rollout,   G_t = Σ_{u≥t} (1[u = L] R − β (ℓ_old − ℓ_ref)_u)

`reinforce_pp_baseline` subtracts the group's mean from R first and puts the KL into the loss, as k2 = ½ (ℓ − ℓ_ref)².
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.advantages import centred, penalised_rewards, return_to_go, whiten
from lco.heads import TokenFunction
from lco.losses import clip_shares, clipped_surrogate, k2, ratio
from lco.methods.grpo import CLIP, with_reference
from lco.methods.method import Hyper, Hyperparameter, Method, Preset, When
from lco.methods.objective import Needs, Signal


def normalised(token_rewards: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: the returns, with mean 0 and standard deviation 1 over all tokens of the rollout."""
    returns = return_to_go(token_rewards, mask)
    # One token alone has no spread to be measured by: its normalised advantage is 0.
    return whiten(returns, mask) if int(mask.sum()) > 1 else torch.zeros_like(returns)


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    rewards = centred(signal.rewards, signal.groups) if hyper["baseline"] == "group_mean" else signal.rewards
    in_reward = hyper["beta_kl"] if hyper["kl_in"] == "reward" else 0.0
    token_rewards = penalised_rewards(rewards, signal.mask, in_reward, signal.old_logprob, signal.ref_logprob)
    return with_reference(signal, {"advantage": normalised(token_rewards, signal.mask)})


def loss(hyper: Hyper) -> TokenFunction:
    in_loss = hyper["beta_kl"] if hyper["kl_in"] == "loss" else 0.0

    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        r = ratio(s["logprob"], s["old_logprob"])
        surrogate = clipped_surrogate(r, x["advantage"], hyper["clip"], hyper["clip"])
        return surrogate + in_loss * k2(s["logprob"], x["ref_logprob"]) if in_loss else surrogate

    return per_token


def needs(hyper: Hyper) -> Needs:
    penalised = hyper["beta_kl"] > 0
    return Needs(
        group=hyper["baseline"] == "group_mean",
        reference=penalised,
        old_logprob=penalised and hyper["kl_in"] == "reward",
    )


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    return clip_shares(ratio(s["logprob"], s["old_logprob"]), x["advantage"], mask, hyper["clip"], hyper["clip"])


REINFORCE_PP = Method(
    name="reinforce_pp",
    page=__doc__,
    title="REINFORCE++",
    paper="REINFORCE++ (arXiv 2501.03262)",
    summary="PPO's clip without a critic; advantages normalised over all tokens of the rollout.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="token_mean",
    hyperparameters={
        "clip": CLIP,
        "baseline": Hyperparameter("none", "what is subtracted from R first", "paper", ("none", "group_mean")),
        "beta_kl": Hyperparameter(0.0, "weight of the KL to the reference (0: none)", "common today", least=0),
        "kl_in": Hyperparameter(
            "reward",
            "k1 in each token's reward, or k2 in the loss",
            "paper",
            ("reward", "loss"),
            when=(When("beta_kl"),),
        ),
    },
    paper_preset=Preset(hyper={"beta_kl": 0.01}, source="known in the field, not re-read"),
    needs=needs,
    metrics=metrics,
    certainty="structure certain, constants from memory of the field",
)

REINFORCE_PP_BASELINE = REINFORCE_PP.variant(
    "reinforce_pp_baseline",
    "REINFORCE++-baseline",
    "REINFORCE++ with the group's mean subtracted first and the KL in the loss.",
    {"baseline": "group_mean", "kl_in": "loss"},
    paper_preset=Preset(hyper={"beta_kl": 0.01}, source="1e-3 to 1e-2 are in use; not re-read"),
)
