"""What every registered method must do, by the registry: a new method is covered at once.

The policy is a free table of logits [B, T, V] (hidden states with an identity head), in float64.
"""

import dataclasses

import pytest
import torch

from lco.advantages import degenerate
from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest, HeadStep, LinearHead, row_loss, spread, token_loss, token_statistics
from lco.losses import token_scale
from lco.methods import METHODS
from lco.methods.lco_common import OTHER_ADVANTAGES, SIGN
from lco.methods.objective import Signal

V = 6


CHOICES = (
    *("target_space", "support", "estimator", "baseline", "log_partition", "divide_by", "overlong"),
    *("divergence", "mask_anchor", "weight_anchor", "budget", "gate"),
    *("share_norm", "share_measure", "search", "hessian_rule", "norm_proxy"),
)
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


def variants(method):
    """{}, every other choice that makes another loss of the same method, and what is off by default switched on."""
    knobs = [knob for knob in CHOICES if knob in method.hyperparameters]
    cases = [{knob: choice} for knob in knobs for choice in method.hyperparameters[knob].choices]
    if "advantage" in method.hyperparameters:
        cases += [{"advantage": name} for name in ADVANTAGES]
    kept = [hyper for hyper in cases if binds(method, hyper)]
    return [{}, *kept, *SWITCHED_ON.get(method.name, [])]


HYPERS = [(name, hyper) for name, method in METHODS.items() for hyper in variants(method)]
FIXED = ("reference", "verifier", "dpo")
DETACHED = ("cispo", "minpro", "dppo", "dppo_recompute", "dppo_verl")
"""Methods whose weight carries no gradient, so that their value says nothing."""


def rollout(seed=0, rows=6, length=5):
    """Random old and new logits, sampled tokens, ragged rows (one of length 0, one of length 1), rewards in groups.

    Row 2i is right and row 2i + 1 wrong, as preference pairs are.
    """
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
    ref = -2 * torch.rand(rows, length, generator=g)
    old = z_old.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1).float()
    signal = Signal(
        rewards, groups, mask, torch.zeros(rows, dtype=torch.bool), length, tuple("abcdef"[:rows]), (0.5, 0.25),
        values, ref, old, torch.rand(rows, generator=g) * lengths,
    )  # fmt: skip
    return z_old, z_new, tokens, signal


def fixed_logits(shape):
    """Logits of the policies that a dense target reads, [B, T, V] each."""
    g = torch.Generator().manual_seed(11)
    return {name: torch.randn(*shape, V, generator=g, dtype=torch.float64) for name in FIXED}


def loss_of(name, hyper, z_old, z_new, tokens, signal, scale=None, rows=None, dtype=torch.float64, fixed=None):
    """The method's policy loss as a function of the new logits; `rows` picks a micro-batch of the whole."""
    method = METHODS[name]
    objective = method.bind(hyper)
    inputs = {key: value.double() for key, value in objective.advantage(signal).items()}
    inputs |= prepared(objective, z_old, z_new, tokens, signal.mask, inputs, dtype)
    if scale is None:
        scale = token_scale(signal.mask, method.reduction, inputs["advantage"], signal.length_limit)
    chosen = list(range(len(tokens))) if rows is None else rows
    mask = signal.mask[chosen]
    head = LinearHead(torch.eye(V, dtype=dtype))
    target = objective.target
    fixed = fixed or fixed_logits(tokens.shape)
    options = {
        "old": None if z_old is None else FixedHead(z_old[chosen][mask].to(dtype), head),
        "target": target,
        "fixed": {n: FixedHead(fixed[n][chosen][mask].to(dtype), head) for n in (target.fixed if target else ())},
    }
    hidden, ids = z_new[chosen][mask].to(dtype), tokens[chosen][mask]
    function, names = objective.loss, objective.statistics
    inputs = {key: value[chosen][mask] for key, value in inputs.items()}
    request = HeadRequest(ids, names, inputs, scale[chosen][mask].double(), **options)
    if method.scope == "token":
        return token_loss(hidden, head, function, request)[0]
    return row_loss(hidden, head, mask, function, request)[0]


def prepared(objective, z_old, z_new, tokens, mask, inputs, dtype=torch.float64):
    """What the method makes of the whole minibatch before its first micro-batch, [B, T] each."""
    if not objective.prepare_statistics:
        return {}
    head = LinearHead(torch.eye(V, dtype=dtype))
    old = None if z_old is None else FixedHead(z_old[mask].to(dtype), head)
    given = {key: value[mask] for key, value in inputs.items()}
    # A step at which some tokens are left out and some are not, of plain descent.
    step = HeadStep(lr=0.002) if objective.needs.head_step else None
    request = HeadRequest(tokens[mask], objective.prepare_statistics, given, old=old, step=step)
    found = token_statistics(z_new.detach()[mask].to(dtype), head, request)
    measured = {name: spread(value, mask) for name, value in found.items()}
    return {key: value.double() for key, value in objective.prepare_inputs(measured, inputs, mask).inputs.items()}


def gradient_of(name, hyper, z_old, z_new, tokens, signal, **options):
    z = z_new.clone().requires_grad_()
    return torch.autograd.grad(loss_of(name, hyper, z_old, z, tokens, signal, **options), z)[0]


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_gradient_equals_finite_differences(name, hyper):
    z_old, z_new, tokens, signal = rollout()
    gradient, step = gradient_of(name, hyper, z_old, z_new, tokens, signal), 1e-6

    def value(z):
        return float(loss_of(name, hyper, z_old, z, tokens, signal))

    knobs = METHODS[name].bind(hyper).hyper
    if name in DETACHED or knobs.get("target_space") == "moving" or knobs.get("gate") == "soft":
        return  # the value does not follow the gradient: a weight is detached, or the target moves with the policy
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
        known = ("values", "ref_logprob", "old_logprob")
        dirty = dataclasses.replace(signal, **{name: getattr(signal, name).masked_fill(pad, garbage) for name in known})
        found = gradient_of(name, hyper, dirty_old, dirty_new, dirty_tokens, dirty)
        torch.testing.assert_close(found[signal.mask], clean[signal.mask], rtol=1e-9, atol=1e-12)
        assert (found[pad] == 0).all()


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_row_order_changes_nothing(name, hyper):
    z_old, z_new, tokens, signal = rollout()
    clean = gradient_of(name, hyper, z_old, z_new, tokens, signal)
    order = torch.tensor([4, 5, 2, 3, 0, 1]) if METHODS[name].scope == "pair" else torch.tensor([4, 0, 5, 2, 1, 3])
    tensors = {name: value[order] for name, value in vars(signal).items() if isinstance(value, torch.Tensor)}
    moved = dataclasses.replace(signal, **tensors, responses=tuple(signal.responses[i] for i in order.tolist()))
    fixed = {key: z[order] for key, z in fixed_logits(tokens.shape).items()}
    found = gradient_of(name, hyper, z_old[order], z_new[order], tokens[order], moved, fixed=fixed)
    torch.testing.assert_close(found, clean[order], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
@pytest.mark.parametrize("split", [[[0, 1, 2, 3, 4, 5]], [[0], [1, 2, 3, 4, 5]], [[3, 0], [5], [1, 2], [4]]])
def test_micro_batches_change_nothing(name, hyper, split):
    """Unequal micro-batches under the global divisor give the gradient of the whole."""
    z_old, z_new, tokens, signal = rollout()
    if METHODS[name].scope == "pair":
        split = [[0, 1, 2, 3, 4, 5]] if len(split) == 1 else [[2, 3], [4, 5, 0, 1]]
    whole = gradient_of(name, hyper, z_old, z_new, tokens, signal)
    parts = sum(gradient_of(name, hyper, z_old, z_new, tokens, signal, rows=rows) for rows in split)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "hyper"), HYPERS)
def test_bf16_gives_a_finite_float32_loss(name, hyper):
    z_old, z_new, tokens, signal = rollout()
    loss = loss_of(name, hyper, z_old, z_new, tokens, signal, dtype=torch.bfloat16)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def follows_rewards_of_groups(name, hyper):
    """Not: preference pairs, dense estimators, ±1 without a baseline; and a truncated target moves without a reward."""
    objective = METHODS[name].bind(hyper)
    knobs = objective.hyper
    groups = {None, "dr_grpo", "group_mean", "leave_one_out", "soft_leave_one_out", "group_std", "cispo"}
    of_groups = knobs.get("advantage") in groups
    relative = of_groups and knobs.get("estimator", "sparse") in {"sparse", "sparse_ips"}
    # Nor does a KL to a reference, or a penalty on length, ask for a reward.
    relative = relative and not (knobs.get("beta_kl") or objective.needs.reference or knobs.get("overlong_buffer"))
    return METHODS[name].source == "rollouts" and relative and knobs.get("support") != "top_filled"


@pytest.mark.parametrize(
    ("name", "hyper"),
    [(n, h) for n, h in HYPERS if METHODS[n].bind(h).needs.group and follows_rewards_of_groups(n, h)],
)
def test_groups_without_signal_give_exactly_no_gradient_on_policy(name, hyper):
    z_old, _, tokens, signal = rollout()
    for rewards in (torch.ones(6), torch.zeros(6), torch.full((6,), 0.1)):
        flat = dataclasses.replace(signal, rewards=rewards)
        assert degenerate(rewards, signal.groups).all()
        assert gradient_of(name, hyper, None, z_old, tokens, flat).abs().max() < 1e-15


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
