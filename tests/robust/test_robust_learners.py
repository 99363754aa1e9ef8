"""Learning online: what a plan is made of, where it goes with more data, and what it has of its seed."""

import dataclasses

import numpy as np
import pytest

from lco.errors import UserError
from lco.robust.environments import american_put, random_rectangular, simulated_linear
from lco.robust.learners import Learner, Seen, learn, nothing_seen, pick, plan_optimistically, play, width
from lco.robust.model import uniform_policy
from lco.robust.planner import Goal, evaluate, plan
from tests.robust.test_robust_planner import tabular


def expected_data(model, visits):
    """The sums after so many visits of every state and action, each leading to every state in its exact share."""
    flat = model.features.reshape(-1, model.features.shape[-1])
    gram = np.eye(flat.shape[1]) + visits * flat.T @ flat
    moved = visits * flat.T @ flat @ model.factors
    return Seen(np.tile(gram, (1, model.horizon, 1, 1)), moved[None])


@pytest.mark.parametrize(
    "goal",
    [
        Goal(),
        Goal(0, "tv", 0.4),
        Goal(0.1, "tv", 0.4),
        Goal(0.1, "tv_penalty", 1.0),
        Goal(0.1, "kl_penalty", 0.5),
        Goal(0.1),
    ],
)
@pytest.mark.parametrize("environment", [simulated_linear(0.3), random_rectangular()], ids=["linear", "random"])
def test_with_endless_data_and_no_bonus_the_plan_is_the_exact_one(goal, environment):
    model = environment.model
    reference = uniform_policy(model)
    found = plan_optimistically(model, expected_data(model, 1e9), Learner(goal, 0.0), reference)
    assert np.allclose(found.values[0], plan(model, goal, reference).values, atol=1e-5)
    value = evaluate(model, found.policy, goal, reference)[0]
    assert value == pytest.approx(plan(model, goal, reference).values[0] @ model.start, abs=1e-5)


def some_data(model, seed=0, episodes=30):
    """What a uniformly random policy has seen."""
    last = []
    learner = Learner(Goal(1e6), 0.0)  # so large a β is the reference policy
    seen = nothing_seen(model, 1, 1.0)
    for episode in range(episodes):
        play(model, plan_optimistically(model, seen, learner, uniform_policy(model)).policy, seen, [seed], episode)
        last.append(seen.moved.sum())
    assert last[-1] == pytest.approx(episodes * model.horizon)  # every transition once
    return seen


def test_without_radius_and_with_beta_to_zero_it_is_lsvi_ucb():
    """On any features without a bonus, and with one where the two bonuses are the same: one factor a state and action."""
    for model, bonus in ((random_rectangular().model, 0.0), (tabular(), 0.4)):
        seen, reference = some_data(model), uniform_policy(model)
        lsvi = plan_optimistically(model, seen, Learner(Goal(), bonus), reference)
        robust = plan_optimistically(model, seen, Learner(Goal(1e-7, "tv", 0.0), bonus), reference)
        assert np.allclose(lsvi.values, robust.values, atol=1e-5)
        assert np.allclose(lsvi.policy, robust.policy, atol=1e-3)


def test_the_two_bonuses_are_one_where_features_are_one_hot_and_the_robust_one_is_wider_elsewhere():
    for model, same in ((tabular(), True), (random_rectangular().model, False)):
        inverse = np.linalg.inv(some_data(model).gram)
        plain, robust = width(model, inverse, Goal()), width(model, inverse, Goal(0, "tv", 0.1))
        assert (robust >= plain - 1e-12).all()
        assert np.allclose(plain, robust) == same


def test_before_anything_is_seen_a_plan_is_all_bonus():
    model = random_rectangular().model
    found = plan_optimistically(
        model, nothing_seen(model, 1, 1.0), Learner(Goal(0, "tv", 0.2), 0.25), uniform_policy(model)
    )
    last = (model.expected_rewards[-1] + 0.25).max(-1)  # Σ φ_i √[Λ⁻¹]_ii = 1 for Λ = I
    assert np.allclose(found.values[0, -2], np.clip(last, 0, 1))
    assert found.bonus[0] == pytest.approx(0.25)


def test_values_stay_within_what_is_left_to_earn_and_ended_states_are_worth_nothing():
    model = american_put().model
    found = plan_optimistically(model, nothing_seen(model, 1, 1.0), Learner(Goal(), 50.0), uniform_policy(model))
    left = np.arange(model.horizon, -1, -1)
    assert (found.values[0] <= left[:, None]).all()
    assert found.values[0][0].max() == model.horizon
    assert not found.values[0][:, model.ended].any()


def test_seeds_repeat_whoever_runs_beside_them_and_differ_from_each_other():
    model = simulated_linear(0.2).model
    learner, reference = Learner(Goal(0.1, "tv", 0.5), 0.3), uniform_policy(model)
    together = learn(model, learner, reference, [0, 1, 2], 25, lambda *_: None)
    alone = learn(model, learner, reference, [1], 25, lambda *_: None)
    assert np.allclose(together.policy[1], alone.policy[0], atol=1e-12)
    assert not np.allclose(together.policy[0], together.policy[1])


def test_outcomes_come_as_often_as_they_are_likely():
    p = np.array([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    found = pick(np.tile(p, (10_000, 1)), (np.arange(10_000) + 0.5) / 10_000)
    assert np.allclose(np.bincount(found, minlength=6) / 10_000, p, atol=1e-4)
    assert pick(p[None], np.array([1.0]))[0] == 5  # beyond rounding of the last sum: some state, never an index too far


def test_regret_grows_ever_more_slowly():
    """DR-RPO on the simulated process: each episode of the last sixth loses less than half of what one of the first does."""
    model, goal = simulated_linear(0.3).model, Goal(0.1, "tv", 0.5)
    reference = uniform_policy(model)
    best, lost = plan(model, goal, reference).values[0] @ model.start, []
    learn(
        model, Learner(goal, 0.3), reference, range(5), 300,
        lambda _, found: lost.append(best - evaluate(model, found.policy, goal, reference)),
    )  # fmt: skip
    lost = np.array(lost)
    assert (lost > -1e-9).all()
    assert lost[-50:].mean() < 0.5 * lost[:50].mean()


def test_a_ridge_without_an_inverse_is_refused():
    learner = Learner(Goal(), 0.1)
    with pytest.raises(UserError, match=r"ridge is 0 and bonus 0\.1; give a ridge above 0"):
        dataclasses.replace(learner, ridge=0)
