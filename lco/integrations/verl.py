"""LCO inside verl 0.9: policy losses for its registry, made of the log-probabilities that verl hands to a loss.

    actor_rollout_ref.model.external_lib=lco.integrations.verl
    actor_rollout_ref.actor.policy_loss.loss_mode=lco_kld

verl gives a loss log π_θ(a) and log π_old(a) of the sampled tokens and nothing else, so of the suite's losses two can be had
(docs/verl.md says why not the others):

    lco_kld             KL(π* ‖ π_θ) without its term (1 − w) KL(π_old ‖ π_θ): value and gradient are exact while
                        π_θ = π_old, that is with one optimizer step a rollout. Later the anchor to π_old is missing.
    lco_token_logprob   ½ (log π_θ(a) − log π*(a))², LCO-MSE in the space `token_logprob`, which needs no more than this:
                        exact at every step.

Importing this module registers both with the suite's defaults. Other knobs, or several side by side: a module of your own with
`register_losses("_half", beta=0.5)`, named as `external_lib` in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lco.heads.mixture import SparseTarget, sparse_target
from lco.integrations.peers import bind_sparse_loss, require_release
from lco.methods.objective import Objective
from lco.targets.sparse import tilt

require_release("verl", "0.9.", "0.9.1")

from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss  # noqa: E402  (after the release is known)

TokenLosses = Callable[[Objective, Tensor, Tensor, Tensor, SparseTarget], Tensor]
"""(objective, log π_θ(a), log π_old(a), tilt c, target), all [B, T] → loss of each token"""


def kld_of_sampled_token(objective: Objective, logprob: Tensor, old: Tensor, c: Tensor, target: SparseTarget) -> Tensor:
    """w (ℓ_old − ℓ) + (c q − log Z): LCO-KLD less its anchor."""
    return target.imitate * (old - logprob) + target.kl


def squared_error_of_sampled_token(
    objective: Objective, logprob: Tensor, old: Tensor, c: Tensor, target: SparseTarget
) -> Tensor:
    statistics = {"logprob": logprob, "old_logprob": old, "old_rest": -torch.expm1(old), "tilt": c}
    return objective.loss(statistics, {})


LOSSES: dict[str, tuple[str, dict[str, Any], TokenLosses]] = {
    "lco_kld": ("lco_kld", {}, kld_of_sampled_token),
    "lco_token_logprob": ("lco_mse", {"target_space": "token_logprob"}, squared_error_of_sampled_token),
}
"""name in verl → (method, its knobs, the loss of each token)"""


def register_losses(suffix: str = "", beta: float = 2.0, beta_negative_scale: float = 1.0) -> None:
    """Puts both losses into verl's registry, each under its name and `suffix`.

    Args:
        beta, beta_negative_scale: as `lco methods lco_kld` lists them, and with its defaults.

    Raises:
        UserError: a value out of its range.
    """
    for name, (method, own, per_token) in LOSSES.items():
        objective = bind_sparse_loss(method, {"beta": beta, "beta_negative_scale": beta_negative_scale, **own})
        register_policy_loss(name + suffix)(policy_loss(objective, per_token))


def policy_loss(objective: Objective, per_token: TokenLosses) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """A loss as verl calls it; the reduction is verl's own, by its `loss_agg_mode` ("token-mean" is the suite's)."""
    beta, scale = objective.hyper["beta"], objective.hyper["beta_negative_scale"]

    def compute_policy_loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """[B, T] each → (scalar loss, metrics)."""
        mask = response_mask.bool()
        # Where nothing was sampled anything may stand, and 0 · NaN is NaN.
        old, new, advantage = (torch.where(mask, x, 0).float() for x in (old_log_prob.detach(), log_prob, advantages))
        c = tilt(advantage, beta, scale)
        target = sparse_target(old, c)
        losses = per_token(objective, new, old, c, target)
        if rollout_is_weights is not None:
            losses = losses * torch.where(mask, rollout_is_weights, 0)
        loss = agg_loss(losses, response_mask, loss_agg_mode, **({} if config is None else config.global_batch_info))
        count = mask.sum().clamp(min=1)
        metrics = {
            "actor/lco_target_tv": float((target.moved.abs() * mask).sum() / count),
            "actor/lco_moved": float(((new.detach() - old).abs() * mask).sum() / count),
        }
        return loss, metrics

    return compute_policy_loss


register_losses()
