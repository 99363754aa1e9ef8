"""How strongly each LCO loss pushes the logit of the sampled token where the policy is still π_old (docs/lco.md)."""

import math

import pytest
import torch

from tests.methods.test_lco_theory import gradient

PROBABILITIES = (1e-4, 0.03, 0.5, 0.97, 0.9999)


def push(name, p, c, v=50, **hyper):
    """−∂L/∂z_a at π = π_old, where token 0 has probability p and the others share the rest."""
    z = torch.full((1, v), math.log((1 - p) / (v - 1)), dtype=torch.float64)
    z[0, 0] = math.log(p)
    _, slope = gradient(name, z, z, torch.tensor([0]), torch.tensor([c], dtype=torch.float64), **hyper)
    return -float(slope[0, 0])


@pytest.mark.parametrize("p", PROBABILITIES)
@pytest.mark.parametrize("c", [-3.0, -0.1, 0.1, 3.0])
def test_the_divergence_pushes_by_what_the_target_moves_the_probability(p, c):
    assert push("lco_kld", p, c) == pytest.approx(p * (1 - p) * math.expm1(c) / (1 + p * math.expm1(c)), rel=1e-9)


@pytest.mark.parametrize("p", PROBABILITIES)
@pytest.mark.parametrize("c", [-3.0, -0.1, 0.1, 3.0])
def test_the_residual_losses_push_by_the_tilt_whatever_the_probability(p, c):
    assert push("lco_mse", p, c, target_space="raw") == pytest.approx(c, rel=1e-9)
    assert push("lco_lch", p, c, target_space="raw") == pytest.approx(math.tanh(c), rel=1e-9)
    assert push("lco_mse", p, c, target_space="centred") == pytest.approx(c * (1 - 1 / 50), rel=1e-9)


@pytest.mark.parametrize("p", PROBABILITIES)
def test_for_small_tilts_the_divergence_pushes_p_times_one_minus_p_as_strongly(p):
    c = 1e-5
    ratio = push("lco_kld", p, c) / push("lco_mse", p, c, target_space="raw")
    assert ratio == pytest.approx(p * (1 - p), rel=1e-4)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8, 0.99])
def test_tilts_that_cancel_pull_a_likely_token_down_under_the_divergence_alone(p):
    """Equally often +c and −c on one token: the two pushes leave p(1 − p)(1 − 2p)c² for the divergence, and 0 for the others."""
    c = 1e-3
    left = push("lco_kld", p, c) + push("lco_kld", p, -c)
    assert left == pytest.approx(p * (1 - p) * (1 - 2 * p) * c**2, rel=1e-3, abs=1e-13)
    for name in ("lco_mse", "lco_lch"):
        assert abs(push(name, p, c) + push(name, p, -c)) < 1e-15


def drift(name, p, beta, length, wrong_scale=1.0):
    """Expected push on the right token of each of `length` positions, where every one has probability p, a response is right
    if all its tokens are, A = R − p^length, and π = π_old."""
    success, others = p**length, p ** (length - 1)
    right, wrong = (1 - success) / beta, -success / (beta * wrong_scale)
    kept = p * (others * push(name, p, right, v=2) + (1 - others) * push(name, p, wrong, v=2))
    return kept - (1 - p) * push(name, 1 - p, wrong, v=2)


def test_the_divergence_stops_before_certainty_and_the_residual_losses_do_not():
    """Eight tokens, β = ½: from p = .7 upwards, .9 and more, LCO-KLD's expected push turns round; at a larger β or with wrong
    answers weighed a hundredth it does not. LCO-MSE and LCO-LCH push on at every p."""
    assert drift("lco_kld", 0.7, 0.5, 8) > 0 > drift("lco_kld", 0.9, 0.5, 8)
    assert drift("lco_kld", 0.97, 0.5, 8) < 0 < drift("lco_kld", 0.97, 4.0, 8)
    assert drift("lco_kld", 0.97, 0.5, 8, wrong_scale=100) > 0
    for name in ("lco_mse", "lco_lch"):
        for p in (0.7, 0.9, 0.97, 0.999):
            assert drift(name, p, 0.5, 8) > 0, (name, p)


@pytest.mark.parametrize(("shorter", "longer"), [(2, 4), (4, 8), (8, 16)])
def test_the_longer_the_response_the_earlier_the_divergence_stops(shorter, longer):
    def stop(length):
        grid = [0.55 + 0.449 * i / 200 for i in range(201)]
        return next((p for p in grid if drift("lco_kld", p, 0.5, length) < 0), 1.0)

    assert stop(longer) < stop(shorter) < 1
