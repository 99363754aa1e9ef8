"""What every method must do, whoever wrote it: checked by the tests for the suite's own and by `lco methods --check` for any.

The policy is a free table of logits [B, T, V] (hidden states with an identity head), in float64. Rows are ragged, one of them
empty; row 2i is right and row 2i + 1 wrong, as preference pairs are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lco.advantages import degenerate
from lco.errors import UserError
from lco.heads import FixedHead, HeadRequest, HeadStep, LinearHead, row_loss, spread, token_loss, token_statistics
from lco.losses import token_scale
from lco.methods.method import Hyper, Method
from lco.methods.objective import Objective, Signal

V = 6
FIXED = ("reference", "verifier", "dpo")

MICRO_BATCHES = ([[0, 1, 2, 3, 4, 5]], [[0], [1, 2, 3, 4, 5]], [[3, 0], [5], [1, 2], [4]])
MICRO_BATCHES_OF_PAIRS = ([[0, 1, 2, 3, 4, 5]], [[2, 3], [4, 5, 0, 1]])

OF_GROUPS = {None, "dr_grpo", "group_mean", "leave_one_out", "soft_leave_one_out", "group_std", "cispo"}
"""Values of LCO's knob `advantage` that compare the samples of a prompt; None where a method has no such knob."""


@dataclass(frozen=True)
class Setting:
    """A rollout under two policies.

    Attributes:
        z_old, z_new: [B, T, V] logits of the policy that sampled (None: it is the current one) and of the current one.
        tokens: [B, T] sampled.
        signal: rewards, groups, mask and the rest.
        fixed: {name: [B, T, V]} logits of the policies that a dense target reads.
    """

    z_old: Tensor | None
    z_new: Tensor
    tokens: Tensor
    signal: Signal
    fixed: Mapping[str, Tensor] = field(default_factory=dict)


def rollout(seed: int = 0, rows: int = 6, length: int = 5) -> tuple[Tensor, Tensor, Tensor, Signal]:
    """Random old and new logits [B, T, V], sampled tokens [B, T], ragged rows, rewards in groups."""
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


def fixed_logits(shape: Sequence[int]) -> dict[str, Tensor]:
    """Logits of the policies that a dense target reads, [B, T, V] each."""
    g = torch.Generator().manual_seed(11)
    return {name: torch.randn(*shape, V, generator=g, dtype=torch.float64) for name in FIXED}


def setting() -> Setting:
    z_old, z_new, tokens, signal = rollout()
    return Setting(z_old, z_new, tokens, signal, fixed_logits(tokens.shape))


def loss_of(
    method: Method,
    hyper: Hyper,
    at: Setting,
    rows: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
    scale: Tensor | None = None,
) -> Tensor:
    """The method's policy loss as a function of the new logits; `rows` picks a micro-batch of the whole.

    Args:
        scale: [B, T] weights of the tokens in place of those of the method's reduction.
    """
    objective = method.bind(hyper)
    inputs = {key: value.double() for key, value in objective.advantage(at.signal).items()}
    inputs |= prepared(objective, at, inputs, dtype)
    if scale is None:
        scale = token_scale(at.signal.mask, method.reduction, inputs["advantage"], at.signal.length_limit)
    chosen = list(range(len(at.tokens))) if rows is None else list(rows)
    mask = at.signal.mask[chosen]
    head = LinearHead(torch.eye(V, dtype=dtype))
    target = objective.target
    options: dict[str, Any] = {
        "old": None if at.z_old is None else FixedHead(at.z_old[chosen][mask].to(dtype), head),
        "target": target,
        "fixed": {n: FixedHead(at.fixed[n][chosen][mask].to(dtype), head) for n in (target.fixed if target else ())},
    }
    inputs = {key: value[chosen][mask] for key, value in inputs.items()}
    request = HeadRequest(
        at.tokens[chosen][mask], objective.statistics, inputs, scale[chosen][mask].double(), **options
    )
    hidden = at.z_new[chosen][mask].to(dtype)
    if method.scope == "token":
        return token_loss(hidden, head, objective.loss, request)[0]
    return row_loss(hidden, head, mask, objective.loss, request)[0]


def prepared(
    objective: Objective, at: Setting, inputs: Mapping[str, Tensor], dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """What the method makes of the whole minibatch before its first micro-batch, [B, T] each."""
    if not objective.prepare_statistics:
        return {}
    mask, head = at.signal.mask, LinearHead(torch.eye(V, dtype=dtype))
    old = None if at.z_old is None else FixedHead(at.z_old[mask].to(dtype), head)
    given = {key: value[mask] for key, value in inputs.items()}
    # A step at which some tokens are left out and some are not, of plain descent.
    step = HeadStep(lr=0.002) if objective.needs.head_step else None
    request = HeadRequest(at.tokens[mask], objective.prepare_statistics, given, old=old, step=step)
    found = token_statistics(at.z_new.detach()[mask].to(dtype), head, request)
    measured = {name: spread(value, mask) for name, value in found.items()}
    return {key: value.double() for key, value in objective.prepare_inputs(measured, inputs, mask).inputs.items()}


def gradient_of(method: Method, hyper: Hyper, at: Setting, **options: Any) -> Tensor:
    """[B, T, V] gradient of the loss with respect to the new logits."""
    z = at.z_new.clone().requires_grad_()
    return torch.autograd.grad(loss_of(method, hyper, dataclasses.replace(at, z_new=z), **options), z)[0]


def difference(found: Tensor, expected: Tensor, rtol: float, atol: float) -> str:
    """How far two tensors are apart where they are not equal within rtol and atol; "" where they are."""
    if torch.isclose(found, expected, rtol=rtol, atol=atol).all():
        return ""
    if not torch.isfinite(found).all():
        return "the gradient is no finite number"
    return f"the gradient is off by {float((found - expected).abs().max()):.2g}"


def misses_its_slope(method: Method, hyper: Hyper) -> str:
    at, step = setting(), 1e-6
    gradient = gradient_of(method, hyper, at)
    for row, t, v in ((0, 0, 1), (0, 4, int(at.tokens[0, 4])), (1, 0, int(at.tokens[1, 0])), (3, 2, 0)):
        moved = at.z_new.clone(), at.z_new.clone()
        moved[0][row, t, v] += step
        moved[1][row, t, v] -= step
        up, down = (float(loss_of(method, hyper, dataclasses.replace(at, z_new=z))) for z in moved)
        slope, claimed = (up - down) / (2 * step), float(gradient[row, t, v])
        if not abs(slope - claimed) <= max(1e-7, 1e-5 * abs(claimed)):
            return f"the loss changes by {slope:.6g} where its gradient says {claimed:.6g}"
    return ""


def reads_padding(method: Method, hyper: Hyper) -> str:
    at = setting()
    clean, pad = gradient_of(method, hyper, at), ~at.signal.mask
    assert at.z_old is not None
    for garbage in (float("nan"), float("inf"), 1e30):
        known = ("values", "ref_logprob", "old_logprob")
        filled: dict[str, Any] = {name: getattr(at.signal, name).masked_fill(pad, garbage) for name in known}
        dirty = Setting(
            at.z_old.masked_fill(pad[..., None], garbage),
            at.z_new.masked_fill(pad[..., None], garbage),
            at.tokens.masked_fill(pad, 0),
            dataclasses.replace(at.signal, **filled),
            at.fixed,
        )
        found = gradient_of(method, hyper, dirty)
        fault = difference(found[at.signal.mask], clean[at.signal.mask], 1e-9, 1e-12)
        if fault or not (found[pad] == 0).all():
            return f"with {garbage} where nothing was sampled {fault or 'padding has a gradient'}"
    return ""


def depends_on_row_order(method: Method, hyper: Hyper) -> str:
    at = setting()
    order = torch.tensor([4, 5, 2, 3, 0, 1]) if method.scope == "pair" else torch.tensor([4, 0, 5, 2, 1, 3])
    kept: dict[str, Any] = {name: value[order] for name, value in vars(at.signal).items() if isinstance(value, Tensor)}
    moved = dataclasses.replace(at.signal, **kept, responses=tuple(at.signal.responses[i] for i in order.tolist()))
    assert at.z_old is not None
    fixed = {key: z[order] for key, z in at.fixed.items()}
    found = gradient_of(method, hyper, Setting(at.z_old[order], at.z_new[order], at.tokens[order], moved, fixed))
    return difference(found, gradient_of(method, hyper, at)[order], 1e-5, 1e-8)


def depends_on_micro_batches(method: Method, hyper: Hyper) -> str:
    at = setting()
    whole = gradient_of(method, hyper, at)
    for split in MICRO_BATCHES_OF_PAIRS if method.scope == "pair" else MICRO_BATCHES:
        parts = torch.stack([gradient_of(method, hyper, at, rows=rows) for rows in split]).sum(0)
        if fault := difference(parts, whole, 1e-9, 1e-12):
            return f"in micro-batches of {', '.join(str(len(rows)) for rows in split)} rows {fault}"
    return ""


def loses_float32(method: Method, hyper: Hyper) -> str:
    loss = loss_of(method, hyper, setting(), dtype=torch.bfloat16)
    if loss.dtype != torch.float32:
        return f"the loss is {str(loss.dtype).removeprefix('torch.')}"
    return "" if torch.isfinite(loss) else f"the loss is {float(loss)}"


def moves_without_signal(method: Method, hyper: Hyper) -> str:
    at = setting()
    for rewards in (torch.ones(6), torch.zeros(6), torch.full((6,), 0.1)):
        assert degenerate(rewards, at.signal.groups).all()
        flat = dataclasses.replace(at.signal, rewards=rewards)
        assert at.z_old is not None
        found = gradient_of(method, hyper, Setting(None, at.z_old, at.tokens, flat, at.fixed))
        if not found.abs().max() < 1e-15:
            return f"with all rewards {float(rewards[0]):g} {difference(found, torch.zeros_like(found), 0, 1e-15)}"
    return ""


def compares_groups(method: Method, hyper: Hyper) -> bool:
    """Whether a group without a difference in rewards should move nothing. Not asked of preference pairs, dense estimators
    and ±1 without a baseline; and a truncated target, a KL to a reference and a penalty on length ask for no reward."""
    objective = method.bind(hyper)
    knobs = objective.hyper
    relative = knobs.get("advantage") in OF_GROUPS and knobs.get("estimator", "sparse") in {"sparse", "sparse_ips"}
    relative = relative and not (knobs.get("beta_kl") or objective.needs.reference or knobs.get("overlong_buffer"))
    return objective.needs.group and method.source == "rollouts" and relative and knobs.get("support") != "top_filled"


def follows_its_value(method: Method, hyper: Hyper) -> bool:
    """Whether the loss's value follows its gradient: no weight in it is detached, no target moves with the policy."""
    return not method.detached(method.read_values(hyper)[0])


def has_knob_without_range(method: Method, hyper: Hyper) -> str:
    for name, knob in method.hyperparameters.items():
        if isinstance(knob.default, bool) or not isinstance(knob.default, int | float) or knob.choices:
            continue
        if knob.least is None and knob.above is None:
            return f"{name} may be anything; give it `least` or `above`"
        knob.refuse_outside(name, knob.default)
    return ""


@dataclass(frozen=True)
class Invariant:
    """One of them.

    Attributes:
        name: a sentence that holds.
        fault: (method, hyper) → why it does not, or "".
        asked: (method, hyper) → whether it is a question for this method.
        once: it does not depend on the knobs' values.
    """

    name: str
    fault: Callable[[Method, Hyper], str]
    asked: Callable[[Method, Hyper], bool] = lambda method, hyper: True
    once: bool = False


INVARIANTS = (
    Invariant("the gradient equals finite differences", misses_its_slope, follows_its_value),
    Invariant("padding changes nothing", reads_padding),
    Invariant("the order of rows changes nothing", depends_on_row_order),
    Invariant("micro-batches change nothing", depends_on_micro_batches),
    Invariant("bfloat16 gives a finite float32 loss", loses_float32),
    Invariant("groups without a difference in rewards give no gradient", moves_without_signal, compares_groups),
    Invariant("every number has a range that holds its default", has_knob_without_range, once=True),
)


def binds(method: Method, hyper: Hyper) -> bool:
    try:
        return bool(method.bind(hyper))
    except UserError:
        return False


def variants(method: Method) -> list[dict[str, Any]]:
    """{}, and every choice of every knob that has choices, one at a time, as far as it goes with the other defaults."""
    cases = [{name: choice} for name, knob in method.hyperparameters.items() for choice in knob.choices]
    return [{}, *(hyper for hyper in cases if binds(method, hyper))]


@dataclass(frozen=True)
class Outcome:
    """What a check found: "holds", "fails" or "not asked", and the first fault with the knobs that it shows at."""

    invariant: str
    state: str
    fault: str = ""


def check_method(method: Method, hypers: Iterable[Hyper]) -> list[Outcome]:
    """Every invariant at every setting of the knobs; the first fault of each is told."""
    settings = list(hypers)
    return [outcome(invariant, method, settings) for invariant in INVARIANTS]


def outcome(invariant: Invariant, method: Method, hypers: Sequence[Hyper]) -> Outcome:
    asked = False
    for hyper in hypers[:1] if invariant.once else hypers:
        where = "with " + " ".join(f"{name}={value}" for name, value in hyper.items()) if hyper else "at its defaults"
        try:
            if not invariant.asked(method, hyper):
                continue
            asked = True
            fault = invariant.fault(method, hyper)
        except Exception as error:  # the method's own code, whatever it does
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        if fault:
            return Outcome(invariant.name, "fails", f"{where}: {fault}")
    return Outcome(invariant.name, "holds" if asked else "not asked")
