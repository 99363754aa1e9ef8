"""LCO against its definition: brute-force targets over the whole vocabulary, limits, descent to the target."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss
from lco.heads.mixture import sparse_target
from lco.methods import METHODS


def target_policy(z_old, action, c):
    """π* ∝ π_old exp(c e_a), by the definition."""
    return (z_old + c * torch.nn.functional.one_hot(action, z_old.shape[-1])).softmax(-1)


def gradient(name, z_new, z_old, action, c, **hyper):
    method, eye = METHODS[name], torch.eye(z_new.shape[-1], dtype=torch.float64)
    objective = method.bind(hyper)
    z = z_new.clone().requires_grad_()
    inputs = {"tilt": c, "advantage": c}
    old = None if z_old is None else FixedHead(z_old, LinearHead(eye))
    loss, _ = token_loss(
        z,
        LinearHead(eye),
        objective.loss,
        HeadRequest(action, objective.statistics, inputs, torch.ones_like(c), old=old),
    )
    return loss, torch.autograd.grad(loss, z)[0]


logits = st.lists(st.floats(-6, 6), min_size=5, max_size=5)


@settings(max_examples=150, deadline=None)
@given(logits, logits, st.integers(0, 4), st.floats(-8, 8))
def test_kld_is_the_divergence_from_the_target_and_its_gradient_the_difference(old, new, action, c):
    z_old, z_new = torch.tensor([old]).double(), torch.tensor([new]).double()
    a, tilt = torch.tensor([action]), torch.tensor([c]).double()
    loss, slope = gradient("lco_kld", z_new, z_old, a, tilt)
    target = target_policy(z_old, a, c)
    divergence = (target * (target.log() - z_new.log_softmax(-1))).sum()
    assert float(loss.detach()) == pytest.approx(float(divergence.detach()), rel=1e-9, abs=1e-9)
    torch.testing.assert_close(slope, z_new.softmax(-1) - target, rtol=1e-9, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-7, 1 - 1e-5), st.floats(-20, 20))
def test_sparse_target_is_a_distribution_and_its_divergence_is_not_negative(p, c):
    found = sparse_target(torch.tensor(p, dtype=torch.float64).log(), torch.tensor(c, dtype=torch.float64))
    assert float(found.stay * p + found.imitate) == pytest.approx(float(found.probability), rel=1e-6, abs=1e-9)
    assert float(found.stay + found.imitate) == pytest.approx(1, rel=1e-9)
    assert float(found.kl) >= -1e-9


def random_case(seed=0, n=6, v=7):
    g = torch.Generator().manual_seed(seed)
    z_old = torch.randn(n, v, generator=g, dtype=torch.float64) * 2
    z_new = z_old + torch.randn(n, v, generator=g, dtype=torch.float64)
    return z_old, z_new, torch.randint(v, (n,), generator=g), torch.randn(n, generator=g, dtype=torch.float64)


def test_a_huge_tilt_is_sft_on_the_sample():
    z_old, z_new, a, c = random_case()
    _, slope = gradient("lco_kld", z_new, z_old, a, torch.full_like(c, 40.0))
    expected = z_new.softmax(-1) - torch.nn.functional.one_hot(a, 7)
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-9)


def test_no_tilt_anchors_to_the_old_policy():
    z_old, z_new, a, c = random_case()
    _, slope = gradient("lco_kld", z_new, z_old, a, 0 * c)
    torch.testing.assert_close(slope, z_new.softmax(-1) - z_old.softmax(-1), rtol=1e-6, atol=1e-7)


def test_on_policy_a_small_tilt_is_reinforce_with_the_tokens_probability_as_weight():
    z, _, a, c = random_case()
    c = c * 1e-5
    _, slope = gradient("lco_kld", z, None, a, c)
    p = z.softmax(-1)
    onehot = torch.nn.functional.one_hot(a, 7)
    expected = -(p.gather(1, a[:, None]) * c[:, None]) * (onehot - p)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [("lco_kld", {}), ("lco_mse", {"target_space": "centred"}), ("lco_mse", {"target_space": "weighted"})]
    + [("lco_mse", {"target_space": s}) for s in ("raw", "logprob", "token_logprob")]
    + [("lco_lch", {"target_space": s}) for s in ("raw", "centred")],
)
def test_without_an_old_policy_the_current_one_takes_its_place(name, hyper):
    """On-policy the loss and gradient equal those with an explicit, equal old policy."""
    z, _, a, c = random_case(3)
    loss, slope = gradient(name, z, None, a, c, **hyper)
    with_old, slope_old = gradient(name, z, z.clone(), a, c, **hyper)
    torch.testing.assert_close(loss, with_old, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, slope_old, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "space", "reaches"),
    [("lco_kld", None, True), ("lco_mse", "centred", True), ("lco_mse", "weighted", True), ("lco_lch", "centred", True),
     ("lco_mse", "logprob", True),
     ("lco_mse", "raw", False), ("lco_lch", "raw", False)],
)  # fmt: skip
def test_descent_on_free_logits_reaches_the_target_from_anywhere(name, space, reaches):
    """Convexity at work; the raw spaces fix one logit and leave the others where they started."""
    z_old, z, a, _ = random_case(1)
    z = z + 0.5
    c = torch.full((6,), 1.0, dtype=torch.float64)
    hyper = {} if space is None else {"target_space": space}
    for _ in range(4000):
        z = z - 0.5 * gradient(name, z, z_old, a, c, **hyper)[1]
    off = (z.softmax(-1) - target_policy(z_old, a, 1.0)).abs().max()
    assert (off < 1e-3) == reaches


def test_shifting_all_logits_changes_nothing_but_in_raw_space():
    z_old, z_new, a, c = random_case(2)
    for name, space in (
        ("lco_kld", None),
        ("lco_mse", "centred"),
        ("lco_mse", "weighted"),
        ("lco_mse", "logprob"),
        ("lco_lch", "centred"),
    ):
        hyper = {} if space is None else {"target_space": space}
        plain, shifted = (gradient(name, z, z_old, a, c, **hyper) for z in (z_new, z_new + 3))
        torch.testing.assert_close(plain[1], shifted[1], rtol=1e-6, atol=1e-6)
    raw, moved = (gradient("lco_mse", z, z_old, a, c, target_space="raw")[0] for z in (z_new, z_new + 3))
    assert abs(float(raw - moved)) > 0.1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_convex_along_any_segment(seed):
    z_old, x, a, c = random_case(seed, n=1, v=5)
    y = x + torch.randn(1, 5, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) * 3
    for name in ("lco_kld", "lco_mse", "lco_lch"):
        fx, fy, middle = (float(gradient(name, z, z_old, a, c)[0]) for z in (x, y, (x + y) / 2))
        assert middle <= (fx + fy) / 2 + 1e-5


def test_lch_is_bounded_by_half_the_squared_residual_and_by_one():
    z_old, z_new, a, c = random_case(4)
    mse, _ = gradient("lco_mse", z_new, z_old, a, c)
    _, slope = gradient("lco_lch", z_new, z_old, a, 30 * c)
    near, _ = gradient("lco_lch", z_new, z_old, a, c)
    assert near <= mse
    assert slope.abs().max() <= 2 - 2 / 7
