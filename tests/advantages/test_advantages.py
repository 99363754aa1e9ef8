"""Advantages against their definitions."""

import pytest
import torch

from lco.advantages import centred, degenerate, gae, leave_one_out, standardised, terminal_rewards, whiten
from lco.losses import token_scale


def test_groups_are_keyed_not_positional():
    rewards, groups = torch.tensor([1.0, 0, 0, 1, 1, 0]), torch.tensor([7, 3, 7, 3, 3, 7])
    found = centred(rewards, groups)
    assert found.tolist() == pytest.approx([2 / 3, -2 / 3, -1 / 3, 1 / 3, 1 / 3, -1 / 3])
    keep = torch.tensor([0, 2, 5])
    torch.testing.assert_close(centred(rewards[keep], groups[keep]), found[keep])


@pytest.mark.parametrize("estimate", [centred, leave_one_out, standardised])
def test_no_signal_is_exactly_zero(estimate):
    rewards, groups = torch.tensor([0.1, 0.1, 0.1, 1.0]), torch.tensor([0, 0, 0, 1])
    assert degenerate(rewards, groups).all()
    assert (estimate(rewards, groups) == 0).all()


def test_leave_one_out_is_unbiased_and_the_centred_form_is_not():
    """Enumerates all pairs of a three-action bandit: the expected gradient is that of the expected reward."""
    p, r = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), torch.tensor([1.0, 0.3, -0.5], dtype=torch.float64)
    exact = p * (r - (p * r).sum())
    group = torch.zeros(2, dtype=torch.int64)
    found = {leave_one_out: torch.zeros(3).double(), centred: torch.zeros(3).double()}
    for i in range(3):
        for j in range(3):
            for estimate, total in found.items():
                a = estimate(r[[i, j]], group)
                score = [torch.eye(3).double()[k] - p for k in (i, j)]
                total += p[i] * p[j] * (a[0] * score[0] + a[1] * score[1]) / 2
    torch.testing.assert_close(found[leave_one_out], exact)
    assert (found[centred] - exact).abs().max() > 0.01


def test_gae_equals_its_quadratic_definition_and_ignores_padding():
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([4, 1, 0, 6])
    mask = torch.arange(6) < lengths[:, None]
    values, rewards = torch.randn(4, 6, generator=g), torch.tensor([1.0, -1, 1, 0.5])
    token_rewards = terminal_rewards(rewards, mask)
    gamma, lam = 0.9, 0.7
    advantages, returns = gae(token_rewards, values.masked_fill(~mask, float("nan")), mask, gamma, lam)
    for i, length in enumerate(lengths.tolist()):
        v = [*values[i, :length].tolist(), 0.0]
        deltas = [float(token_rewards[i, t]) + gamma * v[t + 1] - v[t] for t in range(length)]
        expected = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)]
        assert advantages[i, :length].tolist() == pytest.approx(expected, abs=1e-5)
    assert (advantages[~mask] == 0).all()
    assert (returns[~mask] == 0).all()


def test_terminal_reward_stands_on_the_last_sampled_token():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()
    found = terminal_rewards(torch.tensor([5.0, 7.0, 9.0]), mask)
    assert found.tolist() == [[0, 5, 0], [0, 0, 7], [0, 0, 0]]


def test_whitening():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = whiten(torch.tensor([[1.0, 2.0, 99.0], [6.0, float("nan"), 0]]), mask)
    assert float(found[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(found[mask].std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert (whiten(torch.full((2, 3), 0.3), mask) == 0).all()
    one = torch.tensor([[True, False]])
    assert whiten(torch.tensor([[4.0, 1.0]]), one)[0, 0] == 4.0


def test_reductions_name_what_they_divide_by():
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    loss = torch.tensor([[1.0, 2, 3, 4], [10, 0, 0, 0], [99, 99, 99, 99]])
    total = {kind: float((token_scale(mask, kind) * loss).sum()) for kind in
             ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum")}  # fmt: skip
    assert total == pytest.approx({"token_mean": 20 / 5, "seq_mean_token_mean": 12.5 / 2, "seq_mean_token_sum": 10})


def test_gae_passes_over_tokens_that_were_put_in():
    """The same as without them, whatever stands there: the value behind follows the one before."""
    rewards, values = torch.tensor([[0.1, 0.2, 1.0]]), torch.tensor([[0.5, -0.3, 0.7]])
    plain = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.9, 0.8)
    mask = torch.tensor([[True, True, False, False, True, False]])
    spread = [torch.full((1, 6), 99.0) for _ in range(2)]
    for wide, narrow in zip(spread, (rewards, values), strict=True):
        wide[mask] = narrow[0]
    for found, expected in zip(gae(*spread, mask, 0.9, 0.8), plain, strict=True):
        torch.testing.assert_close(found[mask], expected[0], rtol=0, atol=0)
        assert (found[~mask] == 0).all()
    assert terminal_rewards(torch.tensor([5.0]), mask).tolist() == [[0, 0, 0, 0, 5, 0]]
