"""CPPO's budget, weights and gates: golden values, invariants and limits."""

import dataclasses
import math

import pytest
import torch

from lco.methods import METHODS
from lco.methods.cppo import gates, position_weights, prefix_allowance, used_up
from lco.methods.divergence import TOP
from lco.methods.invariants import Setting, rollout
from tests.methods.oracles import cppo
from tests.methods.test_dppo import DIVERGENCES
from tests.methods.test_generic import gradient_of

D = torch.tensor([[0.10, 0.02, 0.12, 0.02, 0.03]], dtype=torch.float64)
AWAY = torch.tensor([[True, True, True, False, True]])
ONES = torch.ones(1, 5)
FIXED = {
    "divergence": "top_tv",
    "delta": 0.15,
    "budget": "fixed",
    "allowance": 0.02,
    "least_weight": 0.8,
    "gate": "hard",
}


def values(**changes):
    return {**FIXED, **changes}


def left(hyper):
    """c_t = min(δ, δ + δ_b W_{t−1} − S_{t−1})."""
    used, budget = used_up(D, ONES, hyper)
    return (budget - used.cumsum(1) + used).clamp(max=hyper["delta"])[0].tolist()


def test_a_fixed_budget_has_its_golden_values():
    assert position_weights(ONES, 0.8)[0].tolist() == pytest.approx([1, 0.95, 0.9, 0.85, 0.8])
    assert left(FIXED) == pytest.approx([0.15, 0.07, 0.07, -0.02, -0.02], abs=1e-9)
    assert gates(D, ONES, AWAY, FIXED)[0].tolist() == [1, 1, 0, 1, 0]
    soft = gates(D, ONES, AWAY, values(gate="soft"))[0].tolist()
    assert soft == pytest.approx([1, 1, 0.832599, 1, 0.835821], abs=1e-6)


def test_a_percentile_budget_has_its_golden_values():
    hyper = values(budget="p90")
    assert float(prefix_allowance(D, ONES, "p90", 0.02)) == pytest.approx(0.04)
    assert float(prefix_allowance(D, ONES, "p90", 0.08)) == pytest.approx(0.112)
    assert left(hyper) == pytest.approx([0.15, 0.09, 0.109, 0.037, 0.054], abs=1e-9)
    assert gates(D, ONES, AWAY, hyper)[0].tolist() == [1] * 5


def test_the_percentile_is_the_rows_own_whatever_stands_in_its_padding():
    found = torch.tensor([[0.1, 0.3, 0.2, 9.0], [0.5, 9.0, 9.0, 9.0], [9.0] * 4]).double()
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert prefix_allowance(found, mask, "p90", 0.2)[:, 0].tolist() == pytest.approx([0.28, 0.4, 0.2])


def test_a_row_of_one_token_has_its_whole_weight_and_the_last_token_the_least():
    mask = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]])
    found = position_weights(mask, 0.6)
    assert found[0, 0] == 1
    assert found[1].tolist() == pytest.approx([1, 1 - 0.4 / 3, 1 - 0.8 / 3, 0.6])


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_with_equal_weights_and_no_budget_it_is_dppos_mask(kind):
    z_old, z_new, tokens, signal = rollout()
    delta = "delta_kl" if kind.endswith("kl") else "delta"
    allowance = delta.replace("delta", "allowance")
    top = {"top": 3} if kind in TOP else {}
    free = {"divergence": kind, delta: 0.004, "least_weight": 1.0, "budget": "fixed", allowance: 1e6, **top}
    ours = gradient_of("cppo", {**free, "ddof": 0}, z_old, z_new, tokens, signal)
    theirs = gradient_of("dppo", {"divergence": kind, delta: 0.004, "cap": 0, **top}, z_old, z_new, tokens, signal)
    std = math.sqrt(2) / 3  # of rewards 1, 0, 1 and of 0, 1, 0
    torch.testing.assert_close(ours, theirs / (std + 1e-6), rtol=1e-5, atol=1e-9)
    assert (ours == 0).all(-1)[signal.mask].any()
    p90 = gradient_of("cppo", {**free, "budget": "p90", "ddof": 0}, z_old, z_new, tokens, signal)
    torch.testing.assert_close(p90, ours)


@pytest.mark.parametrize("name", ["cppo", "cppo_unirl"])
def test_without_threshold_nothing_is_masked(name):
    z_old, z_new, tokens, signal = rollout()
    found = gradient_of(name, {"delta": 1e6}, z_old, z_new, tokens, signal)
    assert (found != 0).any(-1)[signal.mask].all()


def test_every_token_draws_on_the_budget_masked_or_not():
    """A far token that moves back towards the sampler leaves nothing for the next one."""
    hyper = values(allowance=0.01)
    far = torch.tensor([[0.3, 0.02, 0.02]]).double()
    away = torch.tensor([[False, True, True]])
    assert gates(far, torch.ones(1, 3), away, hyper)[0].tolist() == [1, 0, 0]
    assert gates(far * torch.tensor([0, 1, 1]), torch.ones(1, 3), away, hyper)[0].tolist() == [1, 1, 1]


def test_later_tokens_change_earlier_decisions_through_the_weights_alone():
    g = torch.Generator().manual_seed(1)
    longer = 0.2 * torch.rand(8, 12, generator=g, dtype=torch.float64)
    away, whole = torch.rand(8, 12, generator=g) < 0.7, torch.ones(8, 12)
    hyper = values(least_weight=1.0)
    assert torch.equal(gates(longer[:, :7], whole[:, :7], away[:, :7], hyper), gates(longer, whole, away, hyper)[:, :7])
    assert not torch.equal(position_weights(whole[:, :7], 0.8), position_weights(whole, 0.8)[:, :7])


def test_the_soft_gate_weakens_what_the_hard_one_masks_and_nothing_else():
    g = torch.Generator().manual_seed(2)
    found = 0.2 * torch.rand(16, 9, generator=g, dtype=torch.float64)
    away, mask = torch.rand(16, 9, generator=g) < 0.5, torch.ones(16, 9)
    hard, soft = (gates(found, mask, away, values(gate=gate)) for gate in ("hard", "soft"))
    assert torch.equal(soft < 1, hard == 0)
    assert (soft > 0).all()
    assert 0 < int((hard == 0).sum()) < hard.numel()


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("gate", ["hard", "soft"])
@pytest.mark.parametrize("budget", ["fixed", "p90"])
def test_the_gradient_equals_a_brute_force_over_the_vocabulary(kind, gate, budget):
    """Float64, token by token in order, as the paper's Algorithm 1 goes along a row."""
    z_old, z_new, tokens, signal = rollout(seed=4)
    delta, least, least_weight, k = 0.03, 0.004, 0.7, 2
    suffix = "_kl" if kind.endswith("kl") else ""
    hyper = {"divergence": kind, f"delta{suffix}": delta, f"allowance{suffix}": least, "least_weight": least_weight}
    hyper |= {"gate": gate, "budget": budget, **({"top": k} if kind in TOP else {})}
    found = gradient_of("cppo", hyper, z_old, z_new, tokens, signal)
    expected = cppo(Setting(z_old, z_new, tokens, signal), kind, gate, budget, k, delta, least, least_weight)
    assert 0 < expected.stopped < int(signal.mask.sum())
    torch.testing.assert_close(found, expected.gradient, rtol=1e-5, atol=1e-8)


def test_groups_without_signal_are_left_out():
    _, _, _, signal = rollout()
    kept = METHODS["cppo"].bind().keep
    assert kept(signal).all()
    flat = torch.tensor([1.0, 1, 1, 0, 1, 0])
    signal = dataclasses.replace(signal, rewards=flat)
    assert kept(signal).tolist() == [False] * 3 + [True] * 3


def test_what_is_logged_of_gates_and_budgets():
    objective = METHODS["cppo"].bind({"divergence": "binary_tv", "budget": "fixed"})
    mu = torch.full((1, 5), 0.3, dtype=torch.float64)
    x = {"advantage": torch.ones(1, 5).double(), "sampler_logprob": mu.log(), "mask": ONES}
    sign = torch.where(AWAY, 1, -1)
    found = objective.metrics({"logprob": (mu + sign * D).log()}, x, ONES.bool())
    assert found == pytest.approx({
        "masked_positive": 0.4, "masked_negative": 0, "masked_by_token": 0, "allowance_mean": 0.02,
        "divergence_mean": 0.058, "divergence_max": 0.12,
    })  # fmt: skip
