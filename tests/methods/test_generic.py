"""What every registered method must do (methods handbook E.2), by the registry: a new method is covered at once.

The policy is a free table of logits [B, T, V] (hidden states with an identity head), in float64.
"""

import dataclasses

import pytest
import torch

from lco.advantages import degenerate
from lco.heads import LinearHead, OldHead, token_loss
from lco.losses import token_scale
from lco.methods import METHODS, Signal

V = 6


def spaces(method):
    """{} for most methods; one choice of hyper-parameters per target space where a method has several."""
    knob = method.hyperparameters.get("target_space")
    return [{"target_space": space} for space in knob.choices] if knob else [{}]


HYPERS = [(name, hyper) for name, method in METHODS.items() for hyper in spaces(method)]


def rollout(seed=0, rows=6, length=5):
    """Random old and new logits, sampled tokens, ragged rows (one of length 0, one of length 1), rewards in groups."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([length, 1, 0, length - 1, 3, 2])[:rows]
    mask = torch.arange(length) < lengths[:, None]
    z_old = torch.randn(rows, length, V, generator=g, dtype=torch.float64)
    # Ratios stay off the kinks of the clip: far inside or far outside 1 ± 0.2.
    z_new = z_old + 0.4 * torch.randn(rows, length, V, generator=g, dtype=torch.float64)
    tokens = torch.randint(V, (rows, length), generator=g)
    rewards = torch.tensor([1.0, 0, 1, 0, 1, 0])[:rows]
    groups = torch.tensor([0, 0, 0, 1, 1, 1])[:rows]
    values = torch.rand(rows, length, generator=g)
    signal = Signal(rewards, groups, mask, torch.zeros(rows, dtype=torch.bool), values)
    return z_old, z_new, tokens, signal


def loss_of(name, hyper, z_old, z_new, tokens, signal, scale=None, rows=None, chunk_size=None):
    """The method's policy loss as a function of the new logits; `rows` picks a micro-batch of the whole."""
    method = METHODS[name]
    knobs = method.hyper(hyper)
    inputs = method.advantage(signal, knobs)
    scale = token_scale(signal.mask, method.reduction) if scale is None else scale
    chosen = list(range(len(tokens))) if rows is None else rows
    mask = signal.mask[chosen]
    eye = torch.eye(V, dtype=torch.float64)
    old = None if z_old is None else OldHead(z_old[chosen][mask], LinearHead(eye))
    loss, _ = token_loss(
        z_new[chosen][mask], LinearHead(eye), tokens[chosen][mask], method.loss(knobs),
        {key: value[chosen][mask].double() for key, value in inputs.items()}, scale[chosen][mask].double(),
        method.statistics(knobs), old=old, chunk_size=chunk_size,
    )  # fmt: skip
    return loss


def gradient_of(name, hyper, z_old, z_new, tokens, signal, **options):
    z = z_new.clone().requires_grad_()
    return torch.autograd.grad(loss_of(name, hyper, z_old, z, tokens, signal, **options), z)[0]


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_gradient_equals_finite_differences(name, hyper):
    z_old, z_new, tokens, signal = rollout()
    gradient, step = gradient_of(name, hyper, z_old, z_new, tokens, signal), 1e-6

    def value(z):
        return float(loss_of(name, hyper, z_old, z, tokens, signal))

    for row, t, v in ((0, 0, 1), (0, 4, int(tokens[0, 4])), (1, 0, int(tokens[1, 0])), (3, 2, 0)):
        up, down = z_new.clone(), z_new.clone()
        up[row, t, v] += step
        down[row, t, v] -= step
        slope = (value(up) - value(down)) / (2 * step)
        assert slope == pytest.approx(float(gradient[row, t, v]), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_padding_changes_nothing(name, hyper):
    z_old, z_new, tokens, signal = rollout()
    clean = gradient_of(name, hyper, z_old, z_new, tokens, signal)
    pad = ~signal.mask
    for garbage in (float("nan"), float("inf"), 1e30):
        dirty_old, dirty_new, dirty_tokens = z_old.clone(), z_new.clone(), tokens.clone()
        dirty_old[pad], dirty_new[pad], dirty_tokens[pad] = garbage, garbage, 0
        values = signal.values.masked_fill(pad, garbage)
        dirty = dataclasses.replace(signal, values=values)
        found = gradient_of(name, hyper, dirty_old, dirty_new, dirty_tokens, dirty)
        torch.testing.assert_close(found[signal.mask], clean[signal.mask], rtol=1e-9, atol=1e-12)
        assert (found[pad] == 0).all()


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_row_order_changes_nothing(name, hyper):
    z_old, z_new, tokens, signal = rollout()
    clean = gradient_of(name, hyper, z_old, z_new, tokens, signal)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    moved = Signal(*(getattr(signal, f.name)[order] for f in dataclasses.fields(signal)))
    found = gradient_of(name, hyper, z_old[order], z_new[order], tokens[order], moved)
    torch.testing.assert_close(found, clean[order], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
@pytest.mark.parametrize("split", [[[0, 1, 2, 3, 4, 5]], [[0], [1, 2, 3, 4, 5]], [[3, 0], [5], [1, 2], [4]]])
def test_micro_batches_change_nothing(name, hyper, split):
    """Unequal micro-batches under the global divisor give the gradient of the whole."""
    z_old, z_new, tokens, signal = rollout()
    whole = gradient_of(name, hyper, z_old, z_new, tokens, signal)
    parts = sum(gradient_of(name, hyper, z_old, z_new, tokens, signal, rows=rows) for rows in split)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_bf16_gives_a_finite_float32_loss(name, hyper):
    z_old, z_new, tokens, signal = rollout()
    method = METHODS[name]
    knobs = method.hyper(hyper)
    mask, eye = signal.mask, torch.eye(V, dtype=torch.bfloat16)
    inputs = {key: value[mask] for key, value in method.advantage(signal, knobs).items()}
    loss, _ = token_loss(
        z_new[mask].bfloat16(), LinearHead(eye), tokens[mask], method.loss(knobs), inputs,
        token_scale(mask, method.reduction)[mask], method.statistics(knobs),
        old=OldHead(z_old[mask].bfloat16(), LinearHead(eye)),
    )  # fmt: skip
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [case for case in HYPERS if METHODS[case[0]].needs.group and METHODS[case[0]].source == "rollouts"],
)
def test_groups_without_signal_give_exactly_no_gradient_on_policy(name, hyper):
    z_old, _, tokens, signal = rollout()
    for rewards in (torch.ones(6), torch.zeros(6), torch.full((6,), 0.1)):
        flat = dataclasses.replace(signal, rewards=rewards)
        assert degenerate(rewards, signal.groups).all()
        assert (gradient_of(name, hyper, None, z_old, tokens, flat) == 0).all()


def weight(name, s, x):
    """The effective weight ω of E.2, from ∂loss/∂ℓ."""
    logprob = s["logprob"].clone().requires_grad_()
    loss = METHODS[name].loss(METHODS[name].hyper())({**s, "logprob": logprob}, x)
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
