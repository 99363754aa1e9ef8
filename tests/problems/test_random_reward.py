"""The control: rewards that are the verifier's in number and nobody's in place."""

import math

import pytest

from lco.problems.random_reward import deal_at_random


def test_rewards_keep_their_mean_and_lose_their_places():
    rewards = [1.0] * 30 + [0.0] * 70
    dealt = deal_at_random(rewards, 0, 3, "0")
    assert sorted(dealt) == sorted(rewards)
    assert dealt != rewards
    assert dealt == deal_at_random(rewards, 0, 3, "0")  # a resumed run deals the same
    others = [deal_at_random(rewards, *where) for where in ((1, 3, "0"), (0, 4, "0"), (0, 3, "32"))]
    assert all(other != dealt for other in others)


def test_a_right_answer_is_rewarded_as_often_as_a_wrong_one():
    """Over 400 rollouts of 30 right ones in 100, the share of right answers among the rewarded stays near 0.3."""
    rewards = [1.0] * 30 + [0.0] * 70
    kept = sum(sum(deal_at_random(rewards, 0, step, "0")[:30]) for step in range(400)) / 400 / 30
    assert kept == pytest.approx(0.3, abs=0.02)  # four standard errors: sqrt(0.3 * 0.7 / 30 * 70 / 99 / 400) = 0.0035


def test_a_response_without_a_reward_keeps_none_and_is_dealt_none():
    dealt = deal_at_random([1.0, math.nan, 0.0, math.nan], 0, 0, "0")
    assert [math.isnan(reward) for reward in dealt] == [False, True, False, True]
    assert sorted(reward for reward in dealt if not math.isnan(reward)) == [0.0, 1.0]
    assert deal_at_random([], 0, 0, "0") == []
