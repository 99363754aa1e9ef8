"""Exact robust planning: duals against linear programs, policies against enumeration, limits in β and ρ."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog, minimize_scalar

from lco.errors import UserError
from lco.robust.environments import ENVIRONMENTS, environment_named, random_rectangular, simulated_linear
from lco.robust.model import LinearMDP, uniform_policy
from lco.robust.planner import FORMS, Goal, divergence, evaluate, plan, soft_maximum, worst_case


def worst(values, probabilities, goal):
    """inf_μ E_μ[V] for one factor, as the planner has it."""
    values, factor = np.array(values, dtype=float), np.array([probabilities], dtype=float)
    return float(worst_case(lambda f: factor @ f, values, goal, np.array([True]))[0])


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        (Goal(0, "tv", 0.25), 0.8),
        (Goal(0, "tv_penalty", 0.5), 0.4),
        (Goal(0, "tv_penalty", 1.5), 1.05),
        (Goal(0, "kl_penalty", 0.5), 0.693631),
    ],
)
def test_golden_worst_cases(goal, expected):
    """V = (0, 1, 2), P = (.2, .3, .5), by an independent script."""
    assert worst((0, 1, 2), (0.2, 0.3, 0.5), goal) == pytest.approx(expected, abs=1e-6)


def primal(values, p, goal):
    """The same infimum as a linear program over (μ, t) with |μ − p| ≤ t."""
    n = len(values)
    above = np.block([[np.eye(n), -np.eye(n)], [-np.eye(n), -np.eye(n)]])
    limits = np.concatenate([p, -p])
    cost = np.concatenate([values, np.full(n, goal.size / 2 if goal.form == "tv_penalty" else 0.0)])
    if goal.form == "tv":
        above = np.vstack([above, np.concatenate([np.zeros(n), np.full(n, 0.5)])])
        limits = np.append(limits, goal.size)
    sums = np.concatenate([np.ones(n), np.zeros(n)])[None]
    return linprog(cost, A_ub=above, b_ub=limits, A_eq=sums, b_eq=[1.0]).fun


@pytest.mark.parametrize("form", ["tv", "tv_penalty"])
@pytest.mark.parametrize("seed", range(6))
def test_the_dual_is_the_linear_program(form, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    values, p = 3 * rng.random(n).round(1), rng.dirichlet(np.full(n, 0.4))  # ties among values, near-zeros in p
    for size in (0.05, 0.3, 1.0):
        goal = Goal(0, form, size)
        assert worst(values, p, goal) == pytest.approx(primal(values, p, goal), abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_the_kl_form_is_the_infimum_over_tilted_distributions(seed):
    """The minimiser of E_μ[V] + σ KL(μ ‖ p) lies on the path μ ∝ p e^{−tV}, which is searched here."""
    rng = np.random.default_rng(seed)
    values, p, size = 2 * rng.random(5), rng.dirichlet(np.ones(5)), 0.4

    def along(t):
        mu = p * np.exp(-t * values)
        mu /= mu.sum()
        return mu @ values + size * (mu * np.log(mu / p)).sum()

    found = minimize_scalar(along, bounds=(0, 50), method="bounded").fun
    assert worst(values, p, Goal(0, "kl_penalty", size)) == pytest.approx(found, abs=1e-6)


def test_a_whole_ball_is_the_worst_state_and_none_is_the_expectation():
    values, p = (0.5, 1.0, 2.0), (0.0, 0.4, 0.6)
    assert worst(values, p, Goal(0, "tv", 1.0)) == 0.5
    assert worst(values, p, Goal(0, "tv", 0.0)) == worst(values, p, Goal()) == pytest.approx(1.6)
    assert worst(values, p, Goal(0, "tv_penalty", 1e6)) == pytest.approx(1.6)


def tabular(seed=0, states=3, actions=2, horizon=3):
    """Every state and action has a factor of its own."""
    rng = np.random.default_rng(seed)
    size = states * actions
    features = np.eye(size).reshape(states, actions, size)
    factors = rng.dirichlet(np.ones(states), (horizon, size))
    uncertain = np.ones((horizon, size), dtype=bool)
    start, ended = rng.dirichlet(np.ones(states)), np.zeros(states, dtype=bool)
    return LinearMDP(features, rng.random((horizon, size)), factors, start, uncertain, ended)


def test_the_greedy_plan_beats_every_deterministic_policy():
    """Tabular robust planning: all 2^(3·3) policies, each evaluated by the linear program alone."""
    model, goal = tabular(), Goal(0, "tv", 0.3)
    states, actions, _ = model.features.shape

    def value(choice):
        values = np.zeros(states)
        for step in reversed(range(model.horizon)):
            at = [s * actions + choice[step * states + s] for s in range(states)]
            values = np.array([model.rewards[step, i] + robust[step, i](values) for i in at])
        return values @ model.start

    robust = {
        (h, i): (lambda v, p=model.factors[h, i]: primal_by_greed(v, p, goal.size))
        for h in range(model.horizon)
        for i in range(states * actions)
    }
    best = max(map(value, itertools.product(range(actions), repeat=states * model.horizon)))
    found = plan(model, goal, uniform_policy(model))
    assert found.values[0] @ model.start == pytest.approx(best, abs=1e-9)
    assert evaluate(model, found.policy, goal, uniform_policy(model)) == pytest.approx(best, abs=1e-9)


def primal_by_greed(values, p, radius):
    """Mass moves from the highest values to the lowest until the radius is used up."""
    p, left = p.copy(), radius
    lowest = int(values.argmin())
    for i in np.argsort(-values):
        moved = min(left, p[i]) if i != lowest else 0.0
        p[i], p[lowest], left = p[i] - moved, p[lowest] + moved, left - moved
    return p @ values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_a_plan_attains_the_value_that_it_states(form, beta):
    model = random_rectangular(3).model
    goal = Goal(beta, form, 0.4)
    reference = uniform_policy(model)
    found = plan(model, goal, reference)
    assert evaluate(model, found.policy, goal, reference) == pytest.approx(found.values[0] @ model.start, abs=1e-10)
    stacked = np.stack([found.policy, np.broadcast_to(reference, found.policy.shape)])
    best, plain = evaluate(model, stacked, goal, reference)  # leading axes pass through
    assert best == pytest.approx(found.values[0] @ model.start, abs=1e-10)
    assert plain < best


def test_no_policy_near_the_regularised_optimum_is_better():
    model, goal = random_rectangular(1).model, Goal(0.3, "tv", 0.4)
    reference = uniform_policy(model)
    best = plan(model, goal, reference)
    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(4), (50, *best.policy.shape[:2]))
    for weight in (1e-3, 0.1, 1.0):
        mixed = (1 - weight) * best.policy + weight * others
        assert (evaluate(model, mixed, goal, reference) < best.values[0] @ model.start).all()


def test_a_large_beta_keeps_the_reference_and_a_small_one_is_greedy():
    model = random_rectangular(2).model
    reference = np.random.default_rng(0).dirichlet(np.ones(4), 8)
    stays = plan(model, Goal(1e7, "tv", 0.3), reference)
    assert np.allclose(stays.policy, reference, atol=1e-6)
    held = evaluate(model, np.broadcast_to(reference, stays.policy.shape), Goal(0, "tv", 0.3), reference)
    assert stays.values[0] @ model.start == pytest.approx(float(held), abs=1e-5)
    greedy, sharp = (plan(model, Goal(beta, "tv", 0.3), reference) for beta in (0.0, 1e-6))
    assert np.allclose(greedy.policy, sharp.policy, atol=1e-6)
    assert np.allclose(greedy.values, sharp.values, atol=1e-4)


def test_a_larger_radius_or_a_smaller_penalty_is_worth_less():
    for name in ENVIRONMENTS:
        model = environment_named(name).model
        for form, sizes in (
            ("tv", (0, 0.1, 0.3, 0.6, 1)),
            ("tv_penalty", (9, 1, 0.3, 0.01)),
            ("kl_penalty", (9, 1, 0.3)),
        ):
            values = [plan(model, Goal(0.05, form, size), uniform_policy(model)).values for size in sizes]
            assert all((b <= a + 1e-12).all() for a, b in itertools.pairwise(values))
            if form == "kl_penalty" and name.startswith("linear"):
                assert np.allclose(
                    values[0], values[-1]
                )  # a factor that is certain has no other one within reach of a KL
            else:
                assert values[-1][0] @ model.start < values[0][0] @ model.start


def test_the_soft_maximum_lies_between_the_mean_and_the_maximum():
    rng = np.random.default_rng(0)
    q, reference = rng.random((7, 4)), rng.dirichlet(np.ones(4), 7)
    for beta in (0.01, 0.3, 5.0):
        policy, value = soft_maximum(q, reference, beta)
        best = q.argmax(-1)
        assert (value >= (reference * q).sum(-1) - 1e-12).all()
        assert (value <= q.max(-1) + 1e-12).all()
        assert (q.max(-1) - value <= -beta * np.log(reference[np.arange(7), best]) + 1e-12).all()
        assert np.allclose((policy * q).sum(-1) - beta * divergence(policy, reference), value)


def test_ties_are_shared_as_the_reference_has_them_and_excluded_actions_stay_out():
    policy, value = soft_maximum(np.array([1.0, 1.0, 2.0, 0.0]), np.array([0.2, 0.6, 0.0, 0.2]), 0.0)
    assert policy.tolist() == pytest.approx([0.25, 0.75, 0, 0])
    assert float(value) == 1.0


def test_what_robustness_is_for():
    """Where the first road to the goal may fail, the robust plan gives up some of the return to keep it."""
    for norm in (0.1, 0.2, 0.3):
        environment = simulated_linear(norm)
        reference = uniform_policy(environment.model)
        plans = [plan(environment.model, goal, reference).policy for goal in (Goal(), Goal(0, "tv", 0.5))]
        returns = np.array(
            [[evaluate(environment.perturb(q), p, Goal(), reference) for q in environment.levels] for p in plans]
        )
        assert returns[0, 0] > returns[1, 0]
        assert returns[0, -1] < returns[1, -1]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_is_a_process_at_every_level(name):
    environment = environment_named(name)
    for level in environment.levels:
        environment.perturb(level)  # the model checks itself
    assert np.allclose(environment.perturb(environment.nominal).factors, environment.model.factors)
    assert environment.model.ended.sum() <= 1
    for at in environment.model.ended.nonzero()[0]:
        assert not plan(environment.model, Goal(), uniform_policy(environment.model)).values[:, at].any()


def test_mistakes_are_one_sentence():
    with pytest.raises(UserError, match=r"form of robustness is 'tvv'.*tv"):
        Goal(0, "tvv")
    with pytest.raises(UserError, match=r"radius is 1\.5; a total variation lies between 0 and 1"):
        Goal(0, "tv", 1.5)
    with pytest.raises(UserError, match="penalty is 0; give a number above 0"):
        Goal(0, "tv_penalty", 0)
    with pytest.raises(UserError, match=r"beta is -1; give"):
        Goal(-1)
    with pytest.raises(UserError, match=r"no environment 'putt'.*put"):
        environment_named("putt")
