"""The optimum of a KL-regularised problem: one function for LCO's log Z and for the soft value of a decision process."""

import pytest
import torch

from lco.heads.gibbs import tilted_policy
from lco.heads.mixture import sparse_target


def logs(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_the_golden_soft_value():
    """Q = (1, .5, −.2), π_ref = (.2, .5, .3), β = .5, by an independent script."""
    q = torch.tensor([1.0, 0.5, -0.2], dtype=torch.float64)
    log_policy, log_partition = tilted_policy(logs(0.2, 0.5, 0.3), q / 0.5)
    assert 0.5 * float(log_partition) == pytest.approx(0.555608, abs=1e-6)
    torch.testing.assert_close(
        log_policy.exp(), torch.tensor([0.486434, 0.447373, 0.066193]).double(), atol=1e-6, rtol=0
    )


def test_it_is_the_best_policy_and_attains_beta_log_z():
    """No policy of a fine grid does better, and π* attains exactly β log Z."""
    q, reference, beta = torch.tensor([0.3, -1.0, 0.9]).double(), logs(0.5, 0.2, 0.3), 0.7
    log_policy, log_partition = tilted_policy(reference, q / beta)

    def objective(log_pi):
        return (log_pi.exp() * (q - beta * (log_pi - reference))).sum(-1)

    assert float(objective(log_policy)) == pytest.approx(float(beta * log_partition), abs=1e-12)
    grid = torch.distributions.Dirichlet(torch.ones(3).double()).sample((4000,)).log()
    assert float(objective(grid).max()) <= float(beta * log_partition) + 1e-12


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.999])
@pytest.mark.parametrize("c", [-20.0, -0.5, 0.0, 0.5, 20.0])
def test_a_tilt_of_one_token_is_the_sparse_targets_closed_form(p, c):
    reference, tilt = logs(p, *([(1 - p) / 3] * 3)), torch.tensor([c, 0, 0, 0]).double()
    log_policy, log_partition = tilted_policy(reference, tilt)
    closed = sparse_target(reference[0], tilt[0], torch.tensor(1 - p, dtype=torch.float64))
    assert float(log_partition) == pytest.approx(float(closed.log_partition), rel=1e-9, abs=1e-12)
    assert float(log_policy[0]) == pytest.approx(float(closed.log_probability), rel=1e-9, abs=1e-12)


def test_tilts_of_thousands_and_excluded_actions_stay_finite():
    reference, tilt = logs(0.5, 0.5, 0.0), torch.tensor([4000.0, -4000.0, 9000.0]).double()
    log_policy, log_partition = tilted_policy(reference, tilt)
    assert log_policy.exp().tolist() == [1.0, 0.0, 0.0]
    assert float(log_partition) == pytest.approx(4000 + float(reference[0]))
