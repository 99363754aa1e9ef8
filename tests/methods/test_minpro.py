"""MinPRO's own invariants, golden values and limits."""

import dataclasses
import math

import pytest
import torch

from lco.methods import METHODS
from lco.methods.invariants import rollout
from lco.methods.minpro import prefix_minimum, prefix_ratio
from tests.methods.test_generic import gradient_of

P_OLD, P_NEW = torch.tensor([[0.5, 0.2, 0.9]]).double(), torch.tensor([[0.6, 0.15, 0.95]]).double()
FREE = {"clip_low": 1.0, "clip_high": 1e9}


def weights(log_ratios, mask=None, advantage=1.0, **hyper):
    """ω [B, T] of tokens with these log-ratios [B, T]."""
    x = torch.as_tensor(log_ratios, dtype=torch.float64)
    logprob = (x - 3).requires_grad_()
    mask = torch.ones_like(x) if mask is None else mask
    inputs = {"advantage": torch.full_like(x, advantage), "mask": mask}
    s = {"logprob": logprob, "old_logprob": torch.full_like(x, -3)}
    loss = METHODS["minpro"].bind(hyper).loss(s, inputs)
    return -torch.autograd.grad(loss.sum(), logprob)[0]


def test_weights_have_their_golden_values():
    whole = torch.ones(1, 3)
    expected = torch.tensor([[1.2, 0.9, 0.791667]]).double()
    torch.testing.assert_close(prefix_ratio(P_NEW.log(), P_OLD.log(), whole), expected, atol=1e-6, rtol=0)
    bounded = weights(P_NEW.log() - P_OLD.log(), clip_low=0.2, clip_high=0.28)
    torch.testing.assert_close(bounded, torch.tensor([[1.2, 0.9, 0.8]]).double(), atol=1e-6, rtol=0)


def test_up_to_two_tokens_the_weight_is_the_exact_product():
    x = torch.tensor([[0.4, -0.9], [-0.3, 0.7]]).double()
    torch.testing.assert_close(weights(x, **FREE), x.cumsum(1).exp())


def test_equal_ratios_below_one_weigh_their_square_from_the_second_token_on():
    found = weights([[math.log(0.8)] * 5])[0]
    torch.testing.assert_close(found, torch.tensor([0.8, 0.64, 0.64, 0.64, 0.64]).double())


def test_a_prefix_above_one_weighs_more_than_the_tokens_own_ratio():
    found = weights([[math.log(1.5), math.log(1.2), math.log(1.1)]])[0]
    torch.testing.assert_close(found, torch.tensor([1.5, 1.5 * 1.2, 1.2 * 1.1]).double())


def test_the_order_of_past_tokens_does_not_matter_and_the_minimum_never_rises():
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in range(1, 7):
        moved = torch.cat([x[:, :t].flip(1), x[:, t:]], 1)
        torch.testing.assert_close(weights(moved, **FREE)[:, t:], weights(x, **FREE)[:, t:])
    assert (prefix_minimum(x)[:, 1:].diff(dim=1) <= 0).all()


def test_no_later_token_and_no_padding_reaches_a_weight():
    x = torch.tensor([[0.3, -0.2, 0.5, 0.1]]).double()
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    later = torch.tensor([[0.3, -0.2, -9.0, float("nan")]]).double()
    torch.testing.assert_close(weights(later, mask, **FREE)[:, :2], weights(x, **FREE)[:, :2])
    torch.testing.assert_close(weights(x[:, :2], **FREE), weights(x, **FREE)[:, :2])


def test_rows_of_one_token_are_cispos():
    z_old, z_new, tokens, signal = rollout()
    one = dataclasses.replace(signal, mask=signal.mask[:, :1], values=None, ref_logprob=None, old_logprob=None)
    short = (z_old[:, :1], z_new[:, :1], tokens[:, :1], one)
    torch.testing.assert_close(gradient_of("minpro", {}, *short), gradient_of("cispo", {}, *short))
    longer = (z_old, z_new, tokens, signal)
    assert (gradient_of("minpro", {}, *longer) - gradient_of("cispo", {}, *longer)).abs().max() > 1e-3


def test_the_first_update_is_reinforce_over_all_tokens():
    z_old, _, tokens, signal = rollout()
    a = METHODS["minpro"].bind().advantage(signal)["advantage"]
    onehot = torch.nn.functional.one_hot(tokens, z_old.shape[-1])
    expected = -(a * signal.mask / signal.mask.sum())[..., None] * (onehot - z_old.softmax(-1))
    torch.testing.assert_close(gradient_of("minpro", {}, None, z_old, tokens, signal), expected, rtol=1e-6, atol=1e-9)


def test_the_weight_stays_finite_where_a_ratio_runs_away():
    found = weights([[300.0, 300.0, -700.0, 1.0]], advantage=-1.0)
    assert torch.isfinite(found).all()
    assert found[0].tolist() == pytest.approx([-5, -5, 0, 0], abs=1e-8)


def test_what_is_logged_of_the_weights():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    x = torch.tensor([[-0.5, 3.0, 0.2], [0.1, 7.0, 7.0]]).double()
    s = {"logprob": x - 3, "old_logprob": torch.full_like(x, -3)}
    found = METHODS["minpro"].bind().metrics(s, {}, mask)
    w = torch.tensor([-0.5, 2.5, -0.3, 0.1]).double().exp().clamp(0, 5)
    assert found["weight_bounded_high"] == pytest.approx(0.25)
    assert found["weight_bounded_low"] == 0
    assert found["weight_effective_share"] == pytest.approx(float(w.sum() ** 2 / (4 * w.square().sum())))
    assert found["prefix_minimum"] == pytest.approx((1 + 2 * math.exp(-0.5) + 1) / 4)
    assert found["log_product"] == pytest.approx((2.7 + 0.1) / 2)
