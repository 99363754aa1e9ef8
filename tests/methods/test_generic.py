"""What every registered method must do, by the registry: a new method is covered at once. `lco methods --check` asks the
same of any other (lco/methods/invariants.py)."""

import dataclasses

import pytest
import torch
from torch import Tensor

from lco.errors import UserError
from lco.methods import METHODS
from lco.methods.invariants import (
    INVARIANTS,
    Setting,
    check_method,
    compares_groups,
    depends_on_micro_batches,
    depends_on_row_order,
    fixed_logits,
    follows_its_value,
    has_knob_without_range,
    loses_float32,
    misses_its_slope,
    moves_without_signal,
    reads_padding,
    variants,
)
from lco.methods.invariants import gradient_of as gradient_at
from lco.methods.invariants import loss_of as loss_at
from lco.methods.lco_common import OTHER_ADVANTAGES, SIGN
from lco.methods.objective import Needs

ADVANTAGES = (*OTHER_ADVANTAGES, SIGN, "cispo", "rft")
SWITCHED_ON = {
    "ppo": [{"dual_clip": 3.0}, {"entropy_weight": 0.01}, {"beta_kl": 0.05}, {"whiten": False}],
    "grpo": [{"beta": 0.04}, {"dual_clip": 3.0}],
    "dr_grpo": [{"beta": 0.04}],
    "rloo": [{"beta_kl": 0.03}],
    "reinforce_pp": [{"beta_kl": 0.01}, {"beta_kl": 0.01, "kl_in": "loss"}],
    "dppo": [{"divergence": "top_tv", "top": 3}, {"divergence": "top_kl", "top": 3}, {"cap": 1.1, "delta": 0.02}],
    "cppo": [{"top": 3}, {"divergence": "binary_kl", "gate": "soft", "budget": "fixed"}],
    "dapo": [{"overlong": "shape", "overlong_buffer": 3}],
}


def binds(method, hyper):
    try:
        return bool(method.bind(hyper))
    except UserError:
        return False


def settings(method):
    """{}, every choice, every advantage that an LCO method may borrow, and what is off by default switched on."""
    borrowed = [{"advantage": name} for name in ADVANTAGES] if "advantage" in method.hyperparameters else []
    kept = [hyper for hyper in borrowed if binds(method, hyper)]
    return [*variants(method), *kept, *SWITCHED_ON.get(method.name, [])]


HYPERS = [(name, hyper) for name, method in METHODS.items() for hyper in settings(method)]


def loss_of(name, hyper, z_old, z_new, tokens, signal, *, fixed=None, **options):
    at = Setting(z_old, z_new, tokens, signal, fixed or fixed_logits(tokens.shape))
    return loss_at(METHODS[name], hyper, at, **options)


def gradient_of(name, hyper, z_old, z_new, tokens, signal, *, fixed=None, **options):
    at = Setting(z_old, z_new, tokens, signal, fixed or fixed_logits(tokens.shape))
    return gradient_at(METHODS[name], hyper, at, **options)


@pytest.mark.parametrize(("name", "hyper"), [(n, h) for n, h in HYPERS if follows_its_value(METHODS[n], h)])
def test_gradient_equals_finite_differences(name, hyper):
    assert not misses_its_slope(METHODS[name], hyper)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_padding_changes_nothing(name, hyper):
    assert not reads_padding(METHODS[name], hyper)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_row_order_changes_nothing(name, hyper):
    assert not depends_on_row_order(METHODS[name], hyper)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_micro_batches_change_nothing(name, hyper):
    """Unequal micro-batches under the global divisor give the gradient of the whole."""
    assert not depends_on_micro_batches(METHODS[name], hyper)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_bf16_gives_a_finite_float32_loss(name, hyper):
    assert not loses_float32(METHODS[name], hyper)


@pytest.mark.parametrize(("name", "hyper"), [(n, h) for n, h in HYPERS if compares_groups(METHODS[n], h)])
def test_groups_without_signal_give_exactly_no_gradient_on_policy(name, hyper):
    assert not moves_without_signal(METHODS[name], hyper)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_suite_says_how_certain_it_is(name):
    assert METHODS[name].certainty not in ("", "unset")


def test_only_losses_that_hold_a_part_of_themselves_constant_are_not_asked_for_their_slope():
    """What is declared as detached does miss its slope at some setting, so that nobody is excused without a reason."""
    excused = {(name, str(hyper)) for name, hyper in HYPERS if not follows_its_value(METHODS[name], hyper)}
    assert {name for name, _ in excused} >= {"cispo", "lco_mse_reference"}
    assert len(excused) < len(HYPERS) / 4
    assert misses_its_slope(METHODS["cispo"], {})


# --- every invariant notices its fault --------------------------------------------------------------------------------

BASE = METHODS["reinforce"]


def with_loss(per_token, **changes):
    return dataclasses.replace(BASE, name="broken", loss=lambda hyper: per_token, **changes)


def with_advantage(function, **changes):
    return dataclasses.replace(
        BASE, name="broken", advantage=lambda signal, hyper: {"advantage": function(signal)}, **changes
    )


def by_position(signal) -> Tensor:
    return torch.arange(len(signal.rewards))[:, None] * signal.mask.float()


FAULTY = {
    "the gradient equals finite differences": with_loss(
        lambda s, x: -x["advantage"] * s["logprob"].detach() * s["logprob"]
    ),
    "padding changes nothing": with_advantage(lambda signal: signal.old_logprob.sum(1, keepdim=True) * signal.mask),
    "the order of rows changes nothing": with_advantage(by_position),
    "micro-batches change nothing": with_loss(lambda s, x: x["advantage"] * (s["logprob"] - s["logprob"].mean())),
    "bfloat16 gives a finite float32 loss": with_loss(lambda s, x: -x["advantage"] * s["logprob"] / 0.0),
    "groups without a difference in rewards give no gradient": with_advantage(
        lambda signal: signal.rewards[:, None] * signal.mask, needs=lambda hyper: Needs(group=True)
    ),
    "every number has a range that holds its default": dataclasses.replace(
        BASE,
        name="broken",
        hyperparameters={**BASE.hyperparameters, "x": METHODS["grpo"].hyperparameters["ddof"].__class__(1.0, "x")},
    ),
}


@pytest.mark.parametrize("invariant", [found.name for found in INVARIANTS])
def test_every_invariant_notices_a_method_that_breaks_it(invariant):
    states = {found.invariant: found for found in check_method(FAULTY[invariant], variants(FAULTY[invariant]))}
    assert states[invariant].state == "fails"
    assert states[invariant].fault
    whole = check_method(BASE, variants(BASE))
    assert {found.state for found in whole} == {"holds", "not asked"}


def test_a_method_that_raises_fails_in_words():
    def fail(s, x):
        raise KeyError("reward")

    assert any("KeyError: 'reward'" in found.fault for found in check_method(with_loss(fail), [{}]))


def test_a_knob_without_a_range_is_named():
    assert has_knob_without_range(FAULTY["every number has a range that holds its default"], {}).startswith(
        "x may be anything"
    )


def weight(name, s, x):
    """The effective weight ω of a sampled token, from ∂loss/∂ℓ."""
    logprob = s["logprob"].clone().requires_grad_()
    loss = METHODS[name].bind().loss({**s, "logprob": logprob}, x)
    return -torch.autograd.grad(loss.sum(), logprob)[0]


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_clipped_surrogate_has_the_published_weight(name):
    """ω = rA, and exactly 0 where A > 0 and r > 1 + ε or A < 0 and r < 1 − ε."""
    r = torch.tensor([0.5, 0.79, 0.9, 1.0, 1.1, 1.21, 2.0], dtype=torch.float64)
    old = torch.full_like(r, -2.0)
    s = {"logprob": old + r.log(), "old_logprob": old}
    for a, clipped in ((1.5, r > 1.2), (-1.5, r < 0.8)):
        x = {"advantage": torch.full_like(r, a)}
        torch.testing.assert_close(weight(name, s, x), torch.where(clipped, 0.0, r * a))


def test_reinforce_and_imitation_weights():
    logprob = torch.tensor([-0.5, -3.0], dtype=torch.float64)
    x = {"advantage": torch.tensor([0.7, -0.2], dtype=torch.float64)}
    torch.testing.assert_close(weight("reinforce", {"logprob": logprob}, x), x["advantage"])
    torch.testing.assert_close(weight("sft", {"logprob": logprob}, x), torch.ones(2, dtype=torch.float64))
