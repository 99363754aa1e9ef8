"""PPO with a critic (arXiv 1707.06347, GAE 1506.02438).

    policy  −min(r Â, clip(r, 1 − ε, 1 + ε) Â) − c_H H              per token; Â < 0 bounded by −dual_clip Â
    value   ½ max((V − R̂)², (V_old + clip(V − V_old, ±ε_v) − R̂)²)   per token, times c_v

with r_t = 1[t = L] R − β_kl (ℓ_old − ℓ_ref)_t, δ_t = r_t + γV_{t+1} − V_t, Â_t = δ_t + γλÂ_{t+1}, R̂ = Â + V_old, and V = 0
after the last sampled token (also where the length limit cut the row). V_t is read from the hidden state that predicts
token t, by a value head on the policy's body or by a model of its own (`--critic separate`). The first `critic_warmup`
rollouts train the critic alone; a shared body then stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.advantages import gae, penalised_rewards, whiten
from lco.heads import TokenFunction
from lco.losses import clip_shares, clipped_surrogate, ratio
from lco.methods.grpo import CLIP, DUAL_CLIP, dual_clip_conflict
from lco.methods.method import Hyper, Hyperparameter, Method, Preset
from lco.methods.objective import Needs, Signal
from lco.policy import ValueFunction


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    assert signal.values is not None
    rewards = penalised_rewards(signal.rewards, signal.mask, hyper["beta_kl"], signal.old_logprob, signal.ref_logprob)
    return estimated(rewards, signal, hyper)


def estimated(token_rewards: Tensor, signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    """GAE from rewards [B, T], with what the value loss reads."""
    assert signal.values is not None
    advantages, returns = gae(token_rewards, signal.values, signal.mask, hyper["gamma"], hyper["lam"])
    if hyper["whiten"]:
        advantages = whiten(advantages, signal.mask)
    return {"advantage": advantages, "return": returns, "old_value": signal.values}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        r = ratio(s["logprob"], s["old_logprob"])
        surrogate = clipped_surrogate(r, x["advantage"], hyper["clip"], hyper["clip"], hyper["dual_clip"])
        return surrogate - hyper["entropy_weight"] * s["entropy"] if hyper["entropy_weight"] else surrogate

    return per_token


def value_loss(hyper: Hyper) -> ValueFunction:
    def per_token(values: Tensor, x: Mapping[str, Tensor]) -> Tensor:
        near = x["old_value"] + (values - x["old_value"]).clamp(-hyper["clip_value"], hyper["clip_value"])
        worst = torch.maximum((values - x["return"]) ** 2, (near - x["return"]) ** 2)
        return hyper["value_weight"] * 0.5 * worst

    return per_token


def statistics(hyper: Hyper) -> tuple[str, ...]:
    return ("logprob", "old_logprob", *(["entropy"] if hyper["entropy_weight"] else []))


def needs(hyper: Hyper) -> Needs:
    penalised = hyper["beta_kl"] > 0
    return Needs(reference=penalised, old_logprob=penalised, critic_warmup=hyper["critic_warmup"])


def metrics(s: Mapping[str, Tensor], x: Mapping[str, Tensor], mask: Tensor, hyper: Hyper) -> dict[str, float]:
    r = ratio(s["logprob"], s["old_logprob"])
    return clip_shares(r, x["advantage"], mask, hyper["clip"], hyper["clip"], hyper["dual_clip"])


PPO = Method(
    name="ppo",
    page=__doc__,
    title="PPO",
    paper="Proximal Policy Optimization (arXiv 1707.06347)",
    summary="Clipped surrogate with a learned critic and GAE.",
    advantage=advantage,
    loss=loss,
    statistics=statistics,
    reduction="token_mean",
    hyperparameters={
        "clip": CLIP,
        "dual_clip": DUAL_CLIP,
        "clip_value": Hyperparameter(0.2, "ε_v: the value may leave its old value by this much", "TRL's paper index", above=0),
        "gamma": Hyperparameter(1.0, "discount per token", "TRL's paper index", least=0, most=1),
        "lam": Hyperparameter(0.95, "λ of GAE", "TRL's paper index", least=0, most=1),
        "value_weight": Hyperparameter(0.1, "c_v: weight of the value loss", "TRL's paper index", least=0),
        "entropy_weight": Hyperparameter(0.0, "c_H: weight of the entropy bonus", "common today", least=0),
        "beta_kl": Hyperparameter(0.0, "weight of the KL to the reference in each token's reward", "common today", least=0),
        "whiten": Hyperparameter(True, "advantages to mean 0 and standard deviation 1 over the rollout's tokens"),
        "critic_warmup": Hyperparameter(0, "so many first rollouts train the critic alone", least=0),
    },
    paper_preset=Preset(
        hyper={"beta_kl": 0.05}, settings={"lr": 1e-6, "critic_lr": 1e-5}, source="TRL's paper index (PPO for language models)"
    ),
    needs=needs,
    conflict=dual_clip_conflict,
    value_loss=value_loss,
    metrics=metrics,
    certainty="certain",
)  # fmt: skip
