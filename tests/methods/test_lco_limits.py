"""LCO's bounds, limits and identities: the target's trust region, small tilts, and the way to the target."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lco.heads import FixedHead, HeadRequest, token_statistics
from lco.targets import LogProbabilityTilt, PreferenceRatioTilt, SparseTilt
from tests.methods.test_lco_targets import EYE, TOKENS, N, V, draw, gradient

rows = st.lists(st.floats(-12, 12), min_size=V, max_size=V).map(lambda x: torch.tensor([x], dtype=torch.float64))
betas = st.floats(0.0625, 20, width=32)  # tilts are divided by β in float32, also where the head is wider


def centred(x):
    return x - x.mean(1, keepdim=True)


def divergence(log_p, log_q):
    return float((log_p.exp() * (log_p - log_q)).sum())


# --- the trust region --------------------------------------------------------------------------------------------------


def moved(z_old, target, fixed=None, **inputs):
    """(TV, KL) of π* from π_old, as every update logs them."""
    found = token_statistics(
        z_old,
        EYE,
        HeadRequest(
            TOKENS[:1],
            ["target_tv", "target_kl"],
            target=target,
            inputs=inputs,
            fixed={name: FixedHead(z, EYE) for name, z in (fixed or {}).items()},
        ),
    )
    return float(found["target_tv"]), float(found["target_kl"])


def assert_within(found, z_old, tilt):
    """The logged distances are those of π* ∝ π_old e^tilt, and within the bounds of the tilt's width."""
    log_target, log_old = (z_old + tilt).log_softmax(1), z_old.log_softmax(1)
    tv, kl = float((log_target.exp() - log_old.exp()).abs().sum()) / 2, divergence(log_target, log_old)
    assert found == pytest.approx((tv, kl), rel=1e-7, abs=1e-11)
    width = float(tilt.max() - tilt.min())
    assert found[0] <= math.tanh(width / 4) + 1e-11
    assert found[1] <= width**2 / 8 + 1e-11


@settings(max_examples=150, deadline=None)
@given(rows, rows, betas)
def test_a_verifiers_target_stays_within_the_trust_region_of_its_widest_advantage(z_old, scores, beta):
    """TV ≤ tanh(ΔA/(4β)) and KL ≤ (ΔA/β)²/8, ΔA = max A − min A over the vocabulary."""
    found = moved(z_old, LogProbabilityTilt(beta), {"verifier": scores})
    assert_within(found, z_old, scores / beta)


@settings(max_examples=100, deadline=None)
@given(rows, rows, rows, betas, st.floats(0.01, 2))
def test_a_preference_ratios_target_stays_within_it_too(z_old, dpo, reference, beta, beta_dpo):
    found = moved(z_old, PreferenceRatioTilt(beta, beta_dpo), {"dpo": dpo, "reference": reference})
    assert_within(found, z_old, beta_dpo * (dpo.log_softmax(1) - reference.log_softmax(1)) / beta)


@settings(max_examples=100, deadline=None)
@given(rows, st.floats(-12, 12), betas)
def test_an_advantage_of_the_sampled_token_stays_within_it_too(z_old, advantage, beta):
    """There ΔA = |A|: the other tokens have none. A/β beyond the clamp is held to the clamped bound."""
    found = moved(z_old, SparseTilt(beta), advantage=torch.tensor([advantage], dtype=torch.float64))
    c = max(-20.0, min(20.0, advantage / beta))
    assert_within(found, z_old, c * torch.nn.functional.one_hot(TOKENS[:1], V).double())


@pytest.mark.parametrize("width", [0.1, 1.0, 6.0])
def test_the_trust_region_is_no_wider_than_it_must_be(width):
    """TV attains its bound where half of the vocabulary has c = ΔA/β and π_old gives it σ(−c/2); KL's does as ΔA → 0."""
    high = torch.arange(V) < V // 2
    split = torch.where(high, -width / 2 - math.log(V // 2), -math.log(V - V // 2)).double()[None]
    scores = torch.where(high, width, 0.0).double()[None]
    assert moved(split, LogProbabilityTilt(1.0), {"verifier": scores})[0] == pytest.approx(math.tanh(width / 4))
    even = torch.where(high, -math.log(V // 2), -math.log(V - V // 2)).double()[None]
    _, kl = moved(even, LogProbabilityTilt(1000.0), {"verifier": scores})
    assert kl == pytest.approx((width / 1000) ** 2 / 8, rel=1e-2)


# --- small tilts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["centred", "raw"])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("size", [0.3, 1e-1, 1e-2, 1e-3])
def test_log_cosh_becomes_half_the_squared_error_as_the_residual_vanishes(space, dense, size):
    """log cosh x = x²/2 − x⁴/12 + …, so with ½x² for LCO-MSE the ratio is 1 − O(x²): between 1 − max x²/6 and 1."""
    z_old, scores = draw(1, N, V), draw(2, N, V).log_softmax(1)
    z = z_old + size * draw(3, N, V)
    options = {"beta": 1 / size, "estimator": "logprob"} if dense else {"beta": 1 / size}
    if dense:
        tilt = size * (scores - (z_old.softmax(1) * scores).sum(1, keepdim=True))
    else:
        tilt = size * torch.nn.functional.one_hot(TOKENS, V).double()
    residual = z - z_old - tilt
    residual = centred(residual) if space == "centred" else residual
    fixed = {"verifier": scores} if dense else None
    squared, _ = gradient("lco_mse", z, z_old, fixed, target_space=space, **options)
    found, _ = gradient("lco_lch", z, z_old, fixed, target_space=space, **options)
    ratio = found / squared
    assert ratio < 1 + 1e-8
    assert 1 - ratio <= float(residual.abs().max()) ** 2 / 6 + 1e-8
    assert ratio > 0.9999 or size > 0.01


def test_the_released_codes_log_cosh_becomes_half_its_squared_error():
    """Its squared error has no ½, so the same limit is ½ there."""
    z = draw(1, N, V)
    squared, found = (gradient(name, z, None, beta=1e3, target_space="moving")[0] for name in ("lco_mse", "lco_lch"))
    assert found / squared == pytest.approx(0.5, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.01, 100), st.floats(0.02, 10))
def test_each_logits_gradient_of_log_cosh_is_at_most_its_tokens_weight(seed, dense, reach, beta):
    """|tanh| ≤ 1 in the space of raw logits, however far the logits and the targets are away."""
    z_old, z = draw(seed, N, V), draw(seed + 1, N, V, scale=reach)
    a = draw(seed + 2, N, scale=5)
    options = {"target_space": "raw", "beta": beta, "estimator": "logprob" if dense else "sparse"}
    _, slope = gradient("lco_lch", z, z_old, {"verifier": draw(seed + 3, N, V, scale=9)}, advantage=a, **options)
    assert slope.abs().max() <= 1
    if not dense:  # and of one logit alone
        assert ((slope != 0).sum(1) <= 1).all()
        assert (slope.gather(1, TOKENS[:, None]) != 0).all()


@pytest.mark.parametrize("dense", [True, False])
def test_the_squared_error_weighted_by_the_old_policy_is_the_divergence_to_second_order(dense):
    """With d and c of size ε the losses are of size ε² and differ by ε³; their gradients are of size ε and differ by ε²."""
    z_old, way, scores, a = draw(1, N, V), draw(2, N, V), draw(3, N, V), draw(4, N)
    values, slopes = [], []
    for size in (1e-2, 1e-3):
        options = {"beta": 1 / size, "estimator": "logprob" if dense else "sparse"}
        kld, mse = (
            gradient(name, z_old + size * way, z_old, {"verifier": scores}, advantage=a, **options, **more)
            for name, more in (("lco_kld", {}), ("lco_mse", {"target_space": "weighted"}))
        )
        assert kld[0] == pytest.approx(mse[0], rel=5 * size)
        values.append(abs(kld[0] - mse[0]))
        slopes.append(float((kld[1] - mse[1]).norm()))
        assert slopes[-1] < 5 * size * float(mse[1].norm())
    assert values[0] / values[1] == pytest.approx(1000, rel=0.2)
    assert slopes[0] / slopes[1] == pytest.approx(100, rel=0.2)


# --- the way to the target ---------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(rows, rows, rows, st.floats(-8, 8), st.booleans(), st.floats(0.5, 10, width=32))
def test_the_gradients_product_with_the_way_from_the_target_is_both_divergences(z, z_old, scores, a, dense, beta):
    """⟨∇KL(π* ‖ π), z − z*⟩ = KL(π* ‖ π) + KL(π ‖ π*), so a step against the gradient never leads away from z*."""
    onehot = torch.nn.functional.one_hot(TOKENS[:1], V).double()
    optimal = z_old + (scores if dense else a * onehot) / beta
    options = {"beta": beta, "estimator": "logprob" if dense else "sparse"}
    fixed, advantage = {"verifier": scores}, torch.tensor([a], dtype=torch.float64)
    forward, slope = gradient("lco_kld", z, z_old, fixed, advantage=advantage, **options)
    backward, _ = gradient("lco_rkl", z, z_old, fixed, advantage=advantage, **options)
    product = float((slope * (z - optimal)).sum())
    log_target, log_new = optimal.log_softmax(1), z.log_softmax(1)
    both = divergence(log_target, log_new) + divergence(log_new, log_target)
    assert product == pytest.approx(both, rel=1e-8, abs=1e-8)
    assert product == pytest.approx(forward + backward, rel=1e-8, abs=1e-8)
    assert product >= -1e-10
