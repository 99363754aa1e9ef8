"""LCO-KLD: forward KL from the optimal target to the policy (arXiv 2603.00963).

The KL-regularised problem max_π Σ_v π(v) A(v) − β KL(π ‖ π_old) has the solution π* ∝ π_old exp(A/β). LCO-KLD minimises

    L = KL(π* ‖ π_θ)                                                                              per token
      = (1 − w) KL(π_old ‖ π_θ) + w (ℓ_old − ℓ) + (c q − log Z)       for an advantage on the sampled token only

with c = A/β and w, q, Z as in `lco.heads.mixture`. Its logit gradient is π_θ − π*: bounded, zero only at the target,
and the Hessian diag π − ππᵀ is positive semi-definite everywhere. The head forms it as the statistic `kl_target`.

On the first minibatch after a rollout π_old = π_θ: the KL term has neither value nor gradient, and what is left is
REINFORCE with the bounded weight w in place of A.

`support` says over which tokens the divergence runs. `full` is the equation. `top_rest` sums over π_old's k likeliest
tokens, the sampled one, and one cell for all others: a lower bound of L that needs k numbers a token of the old policy in
place of its hidden states. `top_filled` is what the released code computes: old logits in float16, all but the k likeliest
set to −100. Its target has no mass elsewhere: even with A = 0 it sharpens the policy, and a right token that was not
among the k is pushed down.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lco.heads import TokenFunction
from lco.methods.lco_common import (
    PAPER,
    RELEASED,
    TARGET_HYPERPARAMETERS,
    broadcast_advantage,
    is_dense,
    needs,
    released_preset,
    target_of,
    value_loss,
)
from lco.methods.lco_common import conflict as conflict_of_target
from lco.methods.method import Hyper, Hyperparameter, Method, When


def full(s: Mapping[str, Tensor], x: Mapping[str, Tensor], top: int) -> Tensor:
    return s["kl_target"]


def top_rest(s: Mapping[str, Tensor], x: Mapping[str, Tensor], top: int) -> Tensor:
    old = s[f"old_logit_at_top/{top}"] - s["old_logsumexp"][..., None]
    new = s[f"logprob_at_top/{top}"]
    outside = s[f"outside_top/{top}"] > 0
    sampled = ~outside[..., None] & (s[f"old_top/{top}"] == s["token"][..., None])
    old, new = (
        _cells(table, table_sampled, outside) for table, table_sampled in ((old, s["old_logprob"]), (new, s["logprob"]))
    )
    tilt = torch.cat([sampled, outside[..., None], torch.zeros_like(outside)[..., None]], -1) * s["tilt"][..., None]
    target = (old + tilt).log_softmax(-1)
    return (target.exp() * (target - new)).sum(-1)


def _cells(at_top: Tensor, sampled: Tensor, outside: Tensor) -> Tensor:
    """Log-probabilities of [k likeliest, the sampled token if it is not among them, everything else], […, k + 2]."""
    nothing = torch.finfo(at_top.dtype).min / 4
    own = torch.where(outside, sampled, nothing)
    known = torch.cat([at_top, own[..., None]], -1)
    # 1 − Σ of the known; a rest below 10⁻⁷ is round-off, and bounding it keeps the logarithm's slope finite.
    rest = (1 - known.exp().sum(-1)).clamp(min=1e-7).log()
    return torch.cat([known, rest[..., None]], -1)


def top_filled(s: Mapping[str, Tensor], x: Mapping[str, Tensor], top: int) -> Tensor:
    # The fill's mass e⁻¹⁰⁰ per token is 0 in float32, so the k cells are the whole target.
    sampled = s[f"old_top/{top}"] == s["token"][..., None]
    logits = s[f"old_logit_at_top/{top}"].half().to(s["tilt"].dtype) + sampled * s["tilt"][..., None]
    target = logits.log_softmax(-1)
    return (target.exp() * (target - s[f"logprob_at_top/{top}"])).sum(-1)


SUPPORTS = {"full": full, "top_rest": top_rest, "top_filled": top_filled}


def loss(hyper: Hyper) -> TokenFunction:
    divergence, top = SUPPORTS[hyper["support"]], hyper["top"]

    def per_token(s: Mapping[str, Tensor], x: Mapping[str, Tensor]) -> Tensor:
        return divergence(s, x, top)

    return per_token


def statistics(hyper: Hyper) -> tuple[str, ...]:
    if hyper["support"] == "full":
        return ("logprob", "old_logprob", "kl_target")
    at_top = tuple(f"{n}/{hyper['top']}" for n in ("logprob_at_top", "old_logit_at_top", "old_top", "outside_top"))
    return ("logprob", "old_logprob", "old_logsumexp", "tilt", "token", *at_top)


def conflict(hyper: Hyper) -> str | None:
    if hyper["support"] != "full" and is_dense(hyper):
        return f"support {hyper['support']} knows only a tilt of the sampled token; use support=full with {hyper['estimator']}"
    return conflict_of_target(hyper)


LCO_KLD = Method(
    name="lco_kld",
    page=__doc__,
    title="LCO-KLD",
    family="lco",
    paper=PAPER,
    summary="Forward KL from the closed-form optimal target to the policy.",
    advantage=broadcast_advantage,
    value_loss=value_loss,
    target=target_of,
    loss=loss,
    statistics=statistics,
    reduction="token_mean",
    hyperparameters={
        **TARGET_HYPERPARAMETERS,
        "support": Hyperparameter(
            "full", "tokens that the divergence runs over", "suite; top_filled: " + RELEASED, tuple(SUPPORTS)
        ),
        "top": Hyperparameter(
            5, "k likeliest tokens", RELEASED, when=(When("support", ("top_rest", "top_filled")),), least=1
        ),
    },
    released_preset=released_preset(support="top_filled"),
    conflict=conflict,
    needs=needs,
    certainty="direction of the KL and target certain; β, reduction and advantage scale of the paper's runs unknown",
)
