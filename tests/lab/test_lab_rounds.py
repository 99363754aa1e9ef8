"""Round after round on the bandit: each round's target is made from the last one's policy, the advantages stay."""

import pytest
import torch

from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss
from lco.lab.bandit import REWARDS, Z_OLD
from lco.lab.descent import Data, descend, gradient
from lco.lab.position import BETA, subjects
from lco.methods import METHODS

SUBJECTS = {s.label: s for s in subjects()}
ARMS = len(REWARDS)
ADVANTAGES = REWARDS - Z_OLD.softmax(0) @ REWARDS


def entropy(z):
    return float(torch.distributions.Categorical(logits=z).entropy())


def next_round(name, z, beta):
    """log π* of a dense A(v), the verifier's scores: LCO-KLD's gradient is π − π*, and one step of 1 is exact for the
    centred squared error, whose Hessian is P."""
    method = METHODS[name]
    objective = method.bind({"estimator": "logprob", "beta": beta})
    head = LinearHead(torch.eye(ARMS, dtype=torch.float64))
    free = z[None].clone().requires_grad_()
    loss, _ = token_loss(
        free,
        head,
        objective.loss,
        HeadRequest(
            torch.zeros(1, dtype=torch.int64),
            objective.statistics,
            {"advantage": torch.zeros(1).double()},
            torch.ones(1).double(),
            old=FixedHead(z[None], head),
            target=objective.target,
            fixed={"verifier": FixedHead(REWARDS[None], head)},
        ),
    )
    slope = torch.autograd.grad(loss, free)[0][0]
    return ((z.softmax(0) - slope).log() if name == "lco_kld" else z - slope).log_softmax(0)


@pytest.mark.parametrize("name", ["lco_kld", "lco_mse"])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_exact_targets_multiply_up_to_the_tempered_advantage(name, beta):
    """π_{n+1} ∝ π_n e^{A/β}, so π_n = softmax(n A/β + log π_0), greedy in A whatever π_0 preferred."""
    z = Z_OLD.log_softmax(0)
    assert int(z.argmax()) != int(REWARDS.argmax())
    for n in range(1, 9):
        z = next_round(name, z, beta)
        torch.testing.assert_close(z, (n * REWARDS / beta + Z_OLD).log_softmax(0), rtol=1e-7, atol=1e-7)
    assert int(z.argmax()) == int(REWARDS.argmax())


def unbiased_round(z, beta, steps=1):
    """The centred squared error's minimum on arms sampled with their exact frequency, with tilts A/(β π_n) of those alone."""
    policy = z.softmax(0)
    collected = Data(z, torch.arange(ARMS), policy, ADVANTAGES, ADVANTAGES / beta / policy)
    return descend(SUBJECTS["LCO-MSE centred"], collected, steps)[-1]


def test_unbiased_tilts_of_sampled_arms_have_the_exact_rounds():
    """A/(β π_n) on the sampled arm: the centred squared error's mean over samples moves z by P A/β, as the dense one does."""
    z = Z_OLD
    for n in range(1, 13):
        z = unbiased_round(z, BETA, steps=2)
        torch.testing.assert_close(z.log_softmax(0), (n * REWARDS / BETA + Z_OLD).log_softmax(0), rtol=1e-7, atol=1e-7)


def test_the_entropy_falls_in_every_round_and_faster_for_a_smaller_beta():
    """From equal arms dH/dt = −t Var(A) along softmax(t A), so a smaller β is ahead after every round."""
    courses = {}
    for beta in (4.0, 2.0, 1.0, 0.5):
        z, courses[beta] = torch.zeros(ARMS, dtype=torch.float64), []
        for _ in range(10):
            z = unbiased_round(z, beta)
            courses[beta].append(entropy(z))
        assert all(later < earlier for earlier, later in zip(courses[beta], courses[beta][1:], strict=False))
    for slow, fast in ((4.0, 2.0), (2.0, 1.0), (1.0, 0.5)):
        assert all(x < y for x, y in zip(courses[fast], courses[slow], strict=True))
        # Twice the β needs twice the rounds.
        assert courses[slow][1::2] == pytest.approx(courses[fast][:5], abs=1e-9)


def test_plain_sparse_rounds_of_the_divergence_settle_on_one_arm_which_need_not_be_the_best():
    """LCO-KLD rests at the mean of the samples' targets, π_{n+1}(v) = π_n(v) (1 + w_v − Σ π_n w) with
    w = 1 − 1/(1 + π_n (e^{A/β} − 1)): a replicator whose fitness grows with the arm's own probability. From Z_OLD the arm
    that starts nearly twice as likely wins over the one with the larger advantage; from equal arms the best one wins."""
    subject, arms = SUBJECTS["LCO-KLD full"], torch.arange(ARMS)
    for start, winner in ((Z_OLD, 1), (torch.zeros(ARMS).double(), 0)):
        z = start
        for n in range(200):
            p = z.softmax(0)
            rounds = Data(z, arms, p, ADVANTAGES, ADVANTAGES / BETA)
            rest = (p - gradient(subject, rounds, z)).log()  # the mean gradient is π less the mean target
            if n == 0:
                w = 1 - 1 / (1 + p * torch.expm1(ADVANTAGES / BETA))
                torch.testing.assert_close(rest.exp(), p * (1 + w - p @ w))
                torch.testing.assert_close(
                    descend(subject, rounds, 250)[-1].softmax(0), rest.exp(), rtol=1e-5, atol=1e-7
                )
            z = rest
        assert float(z.softmax(0)[winner]) > 0.999
    assert int(ADVANTAGES.argmax()) == 0
