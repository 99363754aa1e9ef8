"""Learning online from episodes: LSVI-UCB, DR-LSVI-UCB and DR-RPO (arXiv 1907.05388, 2402.15399, 2510.14246).

Before every episode a plan is made backwards from the transitions seen so far, with Λ_h = λI + Σ_τ φ_τ φ_τᵀ:

    ζ_i(f) = [Λ_h⁻¹ Σ_τ φ_τ f(s'_τ)]_i                            the estimate of E_{μ_{h,i}}[f]
    ν_i    = the worst case under it, by the goal's form            of ζ_i(V_{h+1}): see planner.py
    Q_h    = clip(⟨φ, θ_h + ν⟩ + bonus, 0, H − h + 1)               bonus b Σ_i φ_i √[Λ⁻¹]_ii; nominally b √(φᵀ Λ⁻¹ φ)
    V_h, π_h                                                        soft where β > 0 (DR-RPO), greedy where β = 0

and the episode follows π. min V, which the worst case needs, is that of the estimated values over all states; it is 0 where a
state is known to earn nothing any more. Rewards are known, as in that literature. The shape of DR-RPO's algorithm is a
reconstruction from its abstract and DR-LSVI-UCB; the paper's text was not available.

Several seeds run side by side on a first axis R; none reads another's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lco.errors import UserError
from lco.randomness import derived_seed
from lco.robust.model import Array, LinearMDP
from lco.robust.planner import Goal, action_values, soft_maximum, worst_case


@dataclass(frozen=True)
class Learner:
    """
    Attributes:
        goal: what it plans for.
        bonus: b, how optimistic it is.
        ridge: λ.

    Raises:
        UserError: a ridge at which Λ may have no inverse.
    """

    goal: Goal
    bonus: float
    ridge: float = 1.0

    def __post_init__(self) -> None:
        if self.ridge <= 0 or self.bonus < 0:
            raise UserError(
                f"ridge is {self.ridge} and bonus {self.bonus}; give a ridge above 0 and a bonus at least 0"
            )


@dataclass(frozen=True)
class Seen:
    """The transitions so far, as sums.

    Attributes:
        gram: Λ, [R, H, d, d].
        moved: Σ_τ φ_τ e_{s'_τ}ᵀ, [R, H, d, S].
    """

    gram: Array
    moved: Array

    def add(self, step: int, features: Array, states: Array) -> None:
        """One transition of every seed: features [R, d] of where it acted, the states [R] that it came to."""
        seeds = np.arange(len(states))
        self.gram[:, step] += features[:, :, None] * features[:, None, :]
        self.moved[seeds, step, :, states] += features


@dataclass(frozen=True)
class Estimate:
    """
    Attributes:
        policy: [R, H, S, A].
        values: [R, H + 1, S].
        bonus: [R], its mean over steps and over the states and actions.
    """

    policy: Array
    values: Array
    bonus: Array


def nothing_seen(model: LinearMDP, seeds: int, ridge: float) -> Seen:
    states, _, size = model.features.shape
    gram = np.tile(ridge * np.eye(size), (seeds, model.horizon, 1, 1))
    return Seen(gram, np.zeros((seeds, model.horizon, size, states)))


def plan_optimistically(model: LinearMDP, seen: Seen, learner: Learner, reference: Array) -> Estimate:
    """The plan of the next episode. Of the model nothing but its factors is hidden from it."""
    goal, horizon, (states, actions, _) = learner.goal, model.horizon, model.features.shape
    seeds = len(seen.gram)
    inverse = np.linalg.inv(seen.gram)
    estimate = inverse @ seen.moved
    bonus = learner.bonus * width(model, inverse, goal)
    policy = np.zeros((seeds, horizon, states, actions))
    values = np.zeros((seeds, horizon + 1, states))
    for step in reversed(range(horizon)):

        def expect(functions: Array, step: int = step) -> Array:
            found: Array = estimate[:, step] @ functions
            return found

        worst = worst_case(expect, values[:, step + 1], goal, model.uncertain[step])
        q = np.clip(action_values(model, step, worst) + bonus[:, step], 0, horizon - step)
        q[:, model.ended] = 0
        policy[:, step], values[:, step] = soft_maximum(q, reference, goal.beta)
    return Estimate(policy, values, bonus.mean((1, 2, 3)))


def width(model: LinearMDP, inverse: Array, goal: Goal) -> Array:
    """How little is known of a state and action, [R, H, S, A], from Λ⁻¹: √(φᵀ Λ⁻¹ φ), or its robust form Σ_i φ_i √[Λ⁻¹]_ii."""
    states, actions, size = model.features.shape
    flat = model.features.reshape(-1, size)
    if goal.form == "nominal":
        found = np.sqrt(np.maximum(((flat @ inverse) * flat).sum(-1), 0))
    else:
        found = np.sqrt(np.diagonal(inverse, axis1=-2, axis2=-1)) @ flat.T
    return found.reshape(*inverse.shape[:2], states, actions)


def draws(seeds: Sequence[int], episode: int, purpose: str, count: int) -> Array:
    """Uniform numbers [R, count], each seed's from (seed, episode, purpose)."""
    found = [np.random.default_rng(derived_seed(seed, episode, f"robust/{purpose}")).random(count) for seed in seeds]
    return np.array(found)


def pick(probabilities: Array, uniform: Array) -> Array:
    """The outcome [R] at which the cumulated probabilities [R, n] pass a uniform number [R]."""
    passed = probabilities.cumsum(-1) <= uniform[:, None]
    return np.minimum(passed.sum(-1), probabilities.shape[-1] - 1)


def play(model: LinearMDP, policy: Array, seen: Seen, seeds: Sequence[int], episode: int) -> None:
    """One episode of every seed under its policy [R, H, S, A]; its transitions join what is seen."""
    rows = np.arange(len(seeds))
    acting = draws(seeds, episode, "actions", model.horizon)
    moving = draws(seeds, episode, "transitions", model.horizon + 1)
    at = pick(np.tile(model.start, (len(seeds), 1)), moving[:, -1])
    for step in range(model.horizon):
        actions = pick(policy[rows, step, at], acting[:, step])
        features = model.features[at, actions]
        at = pick(features @ model.factors[step], moving[:, step])
        seen.add(step, features, at)


def learn(
    model: LinearMDP,
    learner: Learner,
    reference: Array,
    seeds: Sequence[int],
    episodes: int,
    watch: Callable[[int, Estimate], None],
) -> Estimate:
    """Plays so many episodes with every seed; `watch(k, plan)` sees the plan of each before it is played. The last plan."""
    seen = nothing_seen(model, len(seeds), learner.ridge)
    for episode in range(episodes):
        estimate = plan_optimistically(model, seen, learner, reference)
        watch(episode, estimate)
        play(model, estimate.policy, seen, seeds, episode)
    return plan_optimistically(model, seen, learner, reference)
