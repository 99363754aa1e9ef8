"""Where the learners are tried, and how the world differs at test time. All details are this suite's.

The literature names the first two (arXiv 2402.15399, 2510.14246) but their exact constants were not available:

simulated linear   Five states, actions {−1, 1}⁴, three steps. From a state on the way, x1 → x2 → x3, action a leads to the
                   goal with δ + ⟨ξ, a⟩, else on along the way. Past x3, and from the failed state, nothing is earned.
                   The goal pays 1 a step from the second on. Only the first step's road to the goal is uncertain: at test time
                   it leads to the failed state in a share `level` of the cases.
American put       Hold or exercise over 20 steps; a price moves by × 1.02 or × 0.98 with p₀ = ½, strike 100, start on
                   95 … 105. The features of holding are triangular between anchors 80, 85 … 140, so that this is the process
                   whose prices are interpolated between anchors after each move: linear exactly, and more volatile than a
                   put on the prices themselves. Exercising pays (100 − price)⁺ / 20, a price outside the anchors counting as the
                   outermost. At test time a price rises with another probability than ½.
random             φ, μ from Dirichlet distributions, θ uniform; every other factor is uncertain, by chance. At test time
                   these lead in a share `level` of the cases to the state that is nominally worth least.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lco.errors import UserError, nearest
from lco.randomness import derived_seed
from lco.robust.model import Array, LinearMDP, uniform_policy
from lco.robust.planner import Goal, plan

DELTA = 0.3
"""δ of the simulated linear process."""
ANCHORS = np.arange(80.0, 141.0, 5.0)
STARTS = np.arange(95.0, 106.0)
STRIKE, UP, DOWN, PUT_STEPS = 100.0, 1.02, 0.98, 20


@dataclass(frozen=True)
class Environment:
    """
    Attributes:
        model: the nominal process, which learners act in.
        perturb: level → the process at test time.
        levels: the perturbations that are looked at; `nominal` among them changes nothing.
        axis: what a level is.
    """

    title: str
    model: LinearMDP
    perturb: Callable[[float], LinearMDP]
    levels: tuple[float, ...]
    nominal: float
    axis: str


def simulated_linear(norm: float) -> Environment:
    """`norm` is ‖ξ‖₁, how much an action matters."""
    actions = np.array(list(itertools.product((-1.0, 1.0), repeat=4)))
    to_goal = DELTA + actions @ np.full(4, norm / 4)
    features = np.zeros((5, len(actions), 4))
    for state in range(3):
        features[state, :, state], features[state, :, 3] = 1 - to_goal, to_goal
    failed, goal = 3, 4
    features[failed, :, 2] = features[goal, :, 3] = 1
    rewards = np.array([[0.0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]])
    factors = np.zeros((3, 4, 5))
    for i, state in enumerate((1, 2, failed, goal)):
        factors[:, i, state] = 1
    uncertain = np.zeros((3, 4), dtype=bool)
    uncertain[0, 3] = True
    model = LinearMDP(features, rewards, factors, np.eye(5)[0], uncertain, np.arange(5) == failed)

    def perturb(level: float) -> LinearMDP:
        changed = factors.copy()
        changed[0, 3] = (1 - level) * np.eye(5)[goal] + level * np.eye(5)[failed]
        return model.with_factors(changed)

    levels = tuple(round(0.1 * i, 1) for i in range(11))
    return Environment(
        f"simulated linear, ‖ξ‖₁ = {norm:g}", model, perturb, levels, 0.0, "share of first roads that fail"
    )


def american_put() -> Environment:
    prices = np.unique(np.concatenate([ANCHORS * UP, ANCHORS * DOWN, STARTS]))
    states, held = len(prices) + 1, len(ANCHORS)
    exercised, deep, flat, over = states - 1, held, held + 1, held + 2
    features = np.zeros((states, 2, held + 3))
    features[:-1, 0, :held] = triangular(prices)
    payoff = np.clip((STRIKE - prices) / (STRIKE - ANCHORS[0]), 0, 1)
    features[:-1, 1, deep], features[:-1, 1, flat] = payoff, 1 - payoff
    features[exercised, :, over] = 1
    rewards = np.zeros((PUT_STEPS, held + 3))
    rewards[:, deep] = 1
    uncertain = np.tile(np.arange(held + 3) < held, (PUT_STEPS, 1))

    def factors(up: float) -> Array:
        found = np.zeros((held + 3, states))
        for i, anchor in enumerate(ANCHORS):
            found[i, np.searchsorted(prices, anchor * UP)] += up
            found[i, np.searchsorted(prices, anchor * DOWN)] += 1 - up
        found[held:, exercised] = 1
        return np.tile(found, (PUT_STEPS, 1, 1))

    start = np.append(np.isin(prices, STARTS) / len(STARTS), 0.0)
    model = LinearMDP(features, rewards, factors(0.5), start, uncertain, np.arange(states) == exercised)
    levels = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))
    return Environment(
        "American put",
        model,
        lambda up: model.with_factors(factors(up)),
        levels,
        0.5,
        "probability that the price rises",
    )


def triangular(prices: Array) -> Array:
    """[n] → [n, anchors], the weights of linear interpolation; the outermost anchor outside of them."""
    weights: Array = np.stack([np.interp(prices, ANCHORS, unit) for unit in np.eye(len(ANCHORS))], axis=-1)
    return weights


def random_rectangular(
    seed: int = 0, states: int = 8, actions: int = 4, size: int = 6, horizon: int = 5, spread: float = 0.3
) -> Environment:
    """`spread` is the parameter of the Dirichlet distributions: small ones give rows with few large entries."""
    rng = np.random.default_rng(derived_seed(seed, 0, "robust/model"))
    model = LinearMDP(
        features=rng.dirichlet(np.full(size, spread), (states, actions)),
        rewards=rng.random((horizon, size)),
        factors=rng.dirichlet(np.full(states, spread), (horizon, size)),
        start=np.full(states, 1 / states),
        uncertain=rng.random((horizon, size)) < 0.5,
        ended=np.zeros(states, dtype=bool),
    )
    nominal = plan(model, Goal(), uniform_policy(model))
    worst = np.eye(states)[nominal.values[1:].argmin(-1)]  # [H, S]

    def perturb(level: float) -> LinearMDP:
        share = level * model.uncertain[:, :, None]
        return model.with_factors((1 - share) * model.factors + share * worst[:, None, :])

    levels = tuple(round(0.1 * i, 1) for i in range(11))
    return Environment(
        f"random, {states} states, {size} factors", model, perturb, levels, 0.0, "share moved to the worst state"
    )


ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "linear-0.1": lambda: simulated_linear(0.1),
    "linear-0.2": lambda: simulated_linear(0.2),
    "linear-0.3": lambda: simulated_linear(0.3),
    "put": american_put,
    "random": random_rectangular,
}


def environment_named(name: str) -> Environment:
    """
    Raises:
        UserError: there is none of this name; names the nearest.
    """
    if name not in ENVIRONMENTS:
        raise UserError(f"there is no environment {name!r}{nearest(name, ENVIRONMENTS)}")
    return ENVIRONMENTS[name]()
