"""One learner in one environment: what every episode's plan was worth, exactly, and what its last one is worth elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lco.robust.environments import Environment, environment_named
from lco.robust.learners import Estimate, Learner, learn
from lco.robust.model import Array, uniform_policy
from lco.robust.planner import Goal, divergence, evaluate, plan

POINTS = 25
"""Points of a curve that are kept."""
TOGETHER = 20
"""Plans that are valued at once."""


def measure(
    environment: str, goal: Mapping[str, Any], bonus: float, radius: float, episodes: int, seeds: int
) -> dict[str, Any]:
    """Plays all seeds; a record's numbers, those of seeds as lists of lists, a seed's first.

    `regret` is by the learner's own goal, robust and regularised as that is; `robust_regret` for all learners by the
    worst case within the same radius without a KL term. Both are against the exact optimum.
    """
    world, learner = environment_named(environment), Learner(Goal(**goal), bonus)
    reference = uniform_policy(world.model)
    goals = {"regret": learner.goal, "robust_regret": Goal(0.0, "tv", radius)}
    best = {name: plan(world.model, by, reference).values[0] @ world.model.start for name, by in goals.items()}
    waiting, lost = list[Array](), {name: list[Array]() for name in goals}
    bonuses, kept_near = list[Array](), list[Array]()

    def value_plans() -> None:
        policies = np.stack(waiting)  # [plans, R, H, S, A]
        kept_near.append(divergence(policies, reference).mean((-1, -2)))
        for name, by in goals.items():
            lost[name].append(best[name] - evaluate(world.model, policies, by, reference))
        waiting.clear()

    def watch(episode: int, found: Estimate) -> None:
        waiting.append(found.policy)
        bonuses.append(found.bonus)
        if len(waiting) == TOGETHER or episode == episodes - 1:
            value_plans()

    last = learn(world.model, learner, reference, range(seeds), episodes, watch)
    at = np.unique(np.linspace(1, episodes, min(POINTS, episodes)).round().astype(int))
    suboptimality = {name: np.concatenate(found).T for name, found in lost.items()}  # [R, K]
    regret = {name: found.cumsum(-1) for name, found in suboptimality.items()}
    return {
        "episode": at.tolist(),
        **{name: found[:, at - 1].tolist() for name, found in regret.items()},
        "average_suboptimality": suboptimality["regret"].mean(-1).tolist(),
        "average_robust_suboptimality": suboptimality["robust_regret"].mean(-1).tolist(),
        "slope": [growth(found) for found in regret["regret"]],
        "bonus_size": np.stack(bonuses, 1)[:, at - 1].tolist(),
        "kl_reference": np.concatenate(kept_near).T[:, at - 1].tolist(),
        "level": list(world.levels),
        "returns": returns(world, last.policy).T.tolist(),
        "exact": exact(world, learner.goal, radius),
    }


def growth(regret: Array) -> float | None:
    """The exponent with which a regret curve [K] grows over its second half: the slope of log regret on log k. None where
    nothing was lost by then."""
    half = len(regret) // 2
    if half < 2 or regret[half - 1] <= 1e-9:
        return None
    episodes = np.arange(half, len(regret) + 1)
    return float(np.polyfit(np.log(episodes), np.log(regret[half - 1 :]), 1)[0])


def returns(world: Environment, policy: Array) -> Array:
    """Expected return of policies [..., H, S, A] in the world at every level, [levels, ...]; neither robust nor regularised."""
    reference = uniform_policy(world.model)
    return np.stack([evaluate(world.perturb(level), policy, Goal(), reference) for level in world.levels])


def exact(world: Environment, own: Goal, radius: float) -> dict[str, Any]:
    """What exact planning attains: its value by the learner's own goal, and the returns of three plans at every level."""
    reference = uniform_policy(world.model)
    plans = {"nominal": Goal(), "robust": Goal(0.0, "tv", radius), "own": own}
    solved = {name: plan(world.model, goal, reference) for name, goal in plans.items()}
    return {
        "value": float(solved["own"].values[0] @ world.model.start),
        "returns": {name: returns(world, found.policy).tolist() for name, found in solved.items()},
    }
