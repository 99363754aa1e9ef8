"""The bandit and the negative token: fixed points in closed form, and what runs away."""

import dataclasses

import pytest
import torch

from lco.lab.bandit import REWARDS, Z_OLD, course, data, divergence, optimum, truncated_entropies, verdicts
from lco.lab.descent import descend
from lco.lab.negative_only import PROBABILITY, negatives, target_probability
from lco.lab.negative_only import verdicts as negative_verdicts
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


def test_bandit_verdicts_and_that_they_can_fail():
    labels = ("LCO-KLD full", "LCO-MSE raw", "PPO", "REINFORCE")
    courses = [course(SUBJECTS[label], 150) for label in labels]
    found = [v.supported for v in verdicts(courses, truncated_entropies(50))]
    past, optimal, plateau, nearer, negative, _, collapse = found
    assert past
    assert plateau
    assert negative
    assert not optimal
    assert not nearer
    assert not collapse
    raw, ppo = courses[1:3]
    _, optimal, _, nearer, *_, collapse = (v.supported for v in verdicts([raw, ppo], [2.0, 0.1]))
    assert optimal
    assert nearer
    assert collapse
    disguised = [dataclasses.replace(courses[0], kind="open"), dataclasses.replace(courses[3], kind="clipped")]
    past, _, plateau, *_ = (v.supported for v in verdicts(disguised, [2.0, 2.0]))
    assert not past
    assert not plateau


def test_negative_token():
    expected = float(torch.sigmoid(torch.logit(torch.tensor(PROBABILITY)) - 1 / BETA))
    assert target_probability() == pytest.approx(expected, rel=1e-6)
    kld, ppo, reinforce = found = [negatives(SUBJECTS[label], 150) for label in ("LCO-KLD full", "PPO", "REINFORCE")]
    assert kld.probability[-1] == pytest.approx(expected, abs=1e-6)
    assert ppo.rest == 0
    assert ppo.probability[-1] < 0.8 * PROBABILITY
    assert reinforce.moved[-1] > 100
    assert reinforce.rest > 1
    assert [v.supported for v in negative_verdicts(found)] == [True, True, True]
    swapped = [dataclasses.replace(kld, kind="open"), dataclasses.replace(reinforce, kind="target")]
    assert [v.supported for v in negative_verdicts(swapped)] == [False, False, False]


@pytest.mark.parametrize("label", ["RFT", "SFT"])
def test_what_learns_from_right_rows_alone_sees_none(label):
    assert negatives(SUBJECTS[label]) is None
