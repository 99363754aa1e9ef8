"""Exact planning and evaluation in a known linear process, robust and regularised (arXiv 2510.14246, a reconstruction).

    Q_h(s, a) = r_h(s, a) + Σ_i φ_i(s, a) inf_μ E_μ[V_{h+1}]                   μ near μ_{h,i}, by the goal's form
    V_h(s)    = max_π { Σ_a π Q_h − β KL(π ‖ π_ref) } = β log Σ_a π_ref(a|s) e^{Q_h/β},      π_h ∝ π_ref e^{Q_h/β}

| form       | inf_μ E_μ[V]                                                                                   |
|------------|------------------------------------------------------------------------------------------------|
| nominal    | E_{μ_i}[V]                                                                                     |
| tv         | over TV(μ, μ_i) ≤ ρ: max_α { E_{μ_i}[min(V, α)] − ρ (α − min V) }; the maximum is at a value of V  |
| tv_penalty | of E_μ[V] + σ TV(μ, μ_i): E_{μ_i}[min(V, min V + σ)]                                           |
| kl_penalty | of E_μ[V] + σ KL(μ ‖ μ_i): −σ log E_{μ_i} e^{−V/σ}                                             |

β = 0 is the greedy maximum. Rewards, factors and features are those of `LinearMDP`; a policy is [H, S, A], and leading axes
(seeds, say) pass through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lco.errors import UserError, nearest
from lco.heads.gibbs import tilted_policy
from lco.robust.model import Array, LinearMDP

FORMS = ("nominal", "tv", "tv_penalty", "kl_penalty")

TIE = 1e-9
"""Action values that differ by less are equal."""

Expectation = Callable[[Array], Array]
"""n functions of the next state, [..., S, n] → their expectations under each of d factors, [..., d, n]; exact or estimated."""


@dataclass(frozen=True)
class Goal:
    """What a plan is the best for.

    Attributes:
        beta: weight of KL(π ‖ π_ref); 0 for none.
        form: how the model may differ, one of FORMS.
        size: the radius ρ of "tv", or the penalty σ of the others; "nominal" reads none.

    Raises:
        UserError: a value outside of these.
    """

    beta: float = 0.0
    form: str = "nominal"
    size: float = 0.0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"the form of robustness is {self.form!r}{nearest(self.form, FORMS)}")
        if self.beta < 0:
            raise UserError(f"beta is {self.beta}; give a number at least 0")
        if self.form == "tv" and not 0 <= self.size <= 1:
            raise UserError(f"the radius is {self.size}; a total variation lies between 0 and 1")
        if self.form.endswith("penalty") and self.size <= 0:
            raise UserError(f"the penalty is {self.size}; give a number above 0")


@dataclass(frozen=True)
class Solution:
    """
    Attributes:
        policy: [H, S, A].
        values: [H + 1, S]; the last row is 0.
        q: [H, S, A].
    """

    policy: Array
    values: Array
    q: Array


def soft_maximum(q: Array, reference: Array, beta: float) -> tuple[Array, Array]:
    """(π [..., A], V [...]) that attain max_π Σ π q − β KL(π ‖ π_ref); for β = 0 the limit of β → 0: π_ref among the largest q.

    Args:
        reference: π_ref, [..., A]; an action of probability 0 is never taken.
    """
    if beta == 0:
        allowed = np.where(reference > 0, q, -np.inf)
        best = allowed.max(-1)
        shared = reference * (allowed >= best[..., None] - TIE)
        return shared / shared.sum(-1, keepdims=True), best
    with np.errstate(divide="ignore"):
        logs = np.log(reference)
    log_policy, log_partition = tilted_policy(torch.from_numpy(logs), torch.from_numpy(q / beta))
    return log_policy.exp().numpy(), beta * log_partition.numpy()


def divergence(policy: Array, reference: Array) -> Array:
    """KL(π ‖ π_ref), [..., A] → [...]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = policy * (np.log(policy) - np.log(reference))
    found: Array = np.where(policy > 0, terms, 0.0).sum(-1)
    return found


def worst_case(expect: Expectation, values: Array, goal: Goal, uncertain: Array) -> Array:
    """inf_μ E_μ[V] for every factor, [..., d].

    Args:
        expect: under the factors; a learner's estimate need not be monotone, so that where nothing is uncertain it is taken
            as it is and no α is looked for.
        values: V, [..., S].
        uncertain: [d] bool, see `LinearMDP`.
    """
    plain = expect(values[..., None])[..., 0]
    if goal.form == "nominal":
        return plain
    lowest = values.min(-1)[..., None]
    if goal.form == "tv":
        at = values[..., None, :]  # α runs over the values of V
        capped = expect(np.minimum(values[..., :, None], at))
        robust = (capped - goal.size * (at - lowest[..., None])).max(-1)
    elif goal.form == "tv_penalty":
        robust = expect(np.minimum(values, lowest + goal.size)[..., None])[..., 0]
    else:
        # Shifted by the lowest value, so that the exponentials lie in (0, 1]; an estimate may leave that.
        shifted = values - lowest
        floor = np.exp(-shifted.max(-1) / goal.size)[..., None]
        mean = expect(np.exp(-shifted / goal.size)[..., None])[..., 0]
        robust = lowest - goal.size * np.log(np.clip(mean, floor, 1.0))
    return np.where(uncertain & (goal.size > 0), robust, plain)


def action_values(model: LinearMDP, step: int, worst: Array) -> Array:
    """r + ⟨φ, worst⟩ for a number per factor, [..., d] → [..., S, A]."""
    states, actions, size = model.features.shape
    flat = (model.rewards[step] + worst) @ model.features.reshape(-1, size).T
    return flat.reshape(*worst.shape[:-1], states, actions)


def back_up(model: LinearMDP, goal: Goal, step: int, values: Array) -> Array:
    """Q_h, [..., S, A], from V_{h+1}, [..., S]."""

    def expect(functions: Array) -> Array:
        found: Array = model.factors[step] @ functions
        return found

    return action_values(model, step, worst_case(expect, values, goal, model.uncertain[step]))


def plan(model: LinearMDP, goal: Goal, reference: Array) -> Solution:
    """The optimal policy by backward induction; `reference` is π_ref, [S, A]."""
    horizon, (states, actions, _) = model.horizon, model.features.shape
    policy, q = np.zeros((horizon, states, actions)), np.zeros((horizon, states, actions))
    values = np.zeros((horizon + 1, states))
    for step in reversed(range(horizon)):
        q[step] = back_up(model, goal, step, values[step + 1])
        policy[step], values[step] = soft_maximum(q[step], reference, goal.beta)
    return Solution(policy, values, q)


def evaluate(model: LinearMDP, policy: Array, goal: Goal, reference: Array) -> Array:
    """Σ_s start(s) V_1^π(s) of policies [..., H, S, A], robust and regularised by the goal: [...]."""
    values = np.zeros((*policy.shape[:-3], model.features.shape[0]))
    for step in reversed(range(model.horizon)):
        chosen = policy[..., step, :, :]
        values = (chosen * back_up(model, goal, step, values)).sum(-1)
        if goal.beta:
            values = values - goal.beta * divergence(chosen, reference)
    found: Array = values @ model.start
    return found
