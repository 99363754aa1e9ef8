"""The bandit and the negative token: fixed points in closed form, and what runs away."""

import pytest
import torch

from lco.lab.bandit import REWARDS, Z_OLD, data, divergence, optimum
from lco.lab.descent import descend
from lco.lab.negative_only import PROBABILITY, negatives, target_probability
from lco.lab.position import BETA, subjects

SUBJECTS = {s.label: s for s in subjects()}


def final(label, steps=250, **options):
    return descend(SUBJECTS[label], data(REWARDS, **options), steps)[-1]


def test_sparse_kld_rests_at_the_mean_of_the_samples_targets():
    """Σ_a π_old(a) (π − π*_a) = 0: the mean of the targets of single samples, which is not π*."""
    collected = data(REWARDS)
    targets = (Z_OLD + torch.diag(collected.tilts)).softmax(1)
    found = final("LCO-KLD full").softmax(0)
    torch.testing.assert_close(found, collected.weights @ targets, atol=1e-7, rtol=0)
    assert float(divergence(final("LCO-KLD full"))) > 0.03


def test_centred_squared_error_rests_at_tilts_shrunk_by_the_frequency_unless_they_are_unbiased():
    collected = data(REWARDS)
    shrunk = (Z_OLD + collected.weights * collected.tilts).softmax(0)
    torch.testing.assert_close(final("LCO-MSE centred", 50).softmax(0), shrunk, atol=1e-9, rtol=0)
    unbiased = final("LCO-MSE centred", 50, unbiased=True).softmax(0)
    torch.testing.assert_close(unbiased, optimum().exp(), atol=1e-9, rtol=0)


def test_raw_squared_error_has_the_optimum_as_its_fixed_point():
    assert abs(float(divergence(final("LCO-MSE raw")))) < 1e-9


def test_a_target_that_moves_along_lets_raw_logits_grow_linearly():
    """−Σ_a π_old(a) c_a e_a at every step, whatever z is."""
    collected, steps = data(REWARDS), 60
    path = descend(SUBJECTS["LCO-MSE raw"], collected, steps, moving=True)
    torch.testing.assert_close(path[-1] - path[0], steps * collected.weights * collected.tilts)


def test_negative_token():
    expected = float(torch.sigmoid(torch.logit(torch.tensor(PROBABILITY)) - 1 / BETA))
    assert target_probability() == pytest.approx(expected, rel=1e-6)
    kld, ppo, reinforce = [negatives(SUBJECTS[label], 150) for label in ("LCO-KLD full", "PPO", "REINFORCE")]
    assert kld.probability[-1] == pytest.approx(expected, abs=1e-6)
    assert ppo.rest == 0
    assert ppo.probability[-1] < 0.8 * PROBABILITY
    assert reinforce.moved[-1] > 100
    assert reinforce.rest > 1


@pytest.mark.parametrize("label", ["RFT", "SFT"])
def test_what_learns_from_right_rows_alone_sees_none(label):
    assert negatives(SUBJECTS[label]) is None
