"""PPO with a critic on the shared body (arXiv 1707.06347, GAE 1506.02438; methods.md B.6).

    policy  −min(r Â, clip(r, 1 − ε, 1 + ε) Â)                      per token
    value   ½ max((V − R̂)², (V_old + clip(V − V_old, ±ε_v) − R̂)²)   per token, times c_v

with δ_t = r_t + γV_{t+1} − V_t, Â_t = δ_t + γλÂ_{t+1}, R̂ = Â + V_old, the verifier's reward on the last sampled token,
and V = 0 after it (also where the length limit cut the row). V_t is read from the hidden state that predicts token t.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.advantages import gae, terminal_rewards, whiten
from lco.heads.linear import TokenFunction
from lco.losses import clipped_surrogate, ratio
from lco.methods.method import Hyper, Hyperparameter, Method, Signal
from lco.policy import ValueFunction


def advantage(signal: Signal, hyper: Hyper) -> dict[str, Tensor]:
    assert signal.values is not None
    rewards = terminal_rewards(signal.rewards, signal.mask)
    advantages, returns = gae(rewards, signal.values, signal.mask, hyper["gamma"], hyper["lam"])
    if hyper["whiten"]:
        advantages = whiten(advantages, signal.mask)
    return {"advantage": advantages, "return": returns, "old_value": signal.values}


def loss(hyper: Hyper) -> TokenFunction:
    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        r = ratio(s["logprob"], s["old_logprob"])
        return clipped_surrogate(r, x["advantage"], hyper["clip"], hyper["clip"])

    return per_token


def value_loss(hyper: Hyper) -> ValueFunction:
    def per_token(values: Tensor, x: Mapping[str, Tensor]) -> Tensor:
        near = x["old_value"] + (values - x["old_value"]).clamp(-hyper["clip_value"], hyper["clip_value"])
        worst = torch.maximum((values - x["return"]) ** 2, (near - x["return"]) ** 2)
        return hyper["value_weight"] * 0.5 * worst

    return per_token


PPO = Method(
    name="ppo",
    title="PPO",
    paper="Proximal Policy Optimization (arXiv 1707.06347)",
    summary="Clipped surrogate with a learned critic and GAE.",
    advantage=advantage,
    loss=loss,
    statistics=lambda hyper: ("logprob", "old_logprob"),
    reduction="token_mean",
    hyperparameters={
        "clip": Hyperparameter(0.2, "ε: the ratio is clipped to [1 − ε, 1 + ε]", "paper"),
        "clip_value": Hyperparameter(0.2, "ε_v: the value may leave its old value by this much", "TRL's paper index"),
        "gamma": Hyperparameter(1.0, "discount per token", "TRL's paper index"),
        "lam": Hyperparameter(0.95, "λ of GAE", "TRL's paper index"),
        "value_weight": Hyperparameter(0.1, "c_v: weight of the value loss", "TRL's paper index"),
        "whiten": Hyperparameter(True, "advantages to mean 0 and standard deviation 1 over the rollout's tokens"),
    },
    value_loss=value_loss,
)
