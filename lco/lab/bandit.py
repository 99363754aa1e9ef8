"""A bandit with eight arms, fixed rewards and exact expectations: five claims in seconds.

One state, π_old fixed, every arm v sampled with its exact frequency π_old(v), A(v) = R(v) − E_old[R], and plain gradient
descent on the logits. The optimum of the KL-regularised objective is π* ∝ π_old e^{A/β} (arXiv 2603.00963); progress is
⟨z − z_old, δ⟩ / ‖δ‖² with δ = P A/β, so 1 is as far as π*.

With an advantage on the sampled arm alone, one sample's target is exact, but the mean over samples is pulled only
π_old(v) A(v)/β up at v: the fixed point is another policy than π*. Tilts A/(β π_old) undo that ("unbiased" below).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lco.lab.descent import STEPS, Data, descend, gradient
from lco.lab.position import BETA, Subject
from lco.lab.ray import centred

REWARDS = torch.tensor([1.0, 0.8, 0.3, 0.1, -0.2, -0.4, -0.7, -1.0], dtype=torch.float64)
Z_OLD = torch.tensor([0.0, 0.6, -0.5, 1.0, 0.2, 0.9, -0.3, 0.4], dtype=torch.float64)
TOP = 5


@dataclass(frozen=True)
class Course:
    """Inner steps of one loss on the bandit.

    Attributes:
        label, kind: the loss.
        progress: [steps + 1] along δ; None where the method sees no row.
        divergence: [steps + 1] KL(π* ‖ π_k).
        rest: ‖P∇L‖ at the last step.
        negative: ‖P(z − z_old)‖ at half and at all of the steps with every reward below 0 and no baseline; None likewise.
        negative_rest: ‖P∇L‖ at the end of that.
        unbiased: KL(π* ‖ π) at the end with tilts A/(β π_old); None for losses without a target.
        moving: ‖P(z − z_old)‖ at half and at all of the steps if the target moves along; None likewise.
    """

    label: str
    kind: str
    progress: tuple[float, ...] | None
    divergence: tuple[float, ...] | None
    rest: float | None
    negative: tuple[float, float] | None
    negative_rest: float | None
    unbiased: float | None
    moving: tuple[float, float] | None


def data(rewards: Tensor, baseline: bool = True, unbiased: bool = False) -> Data:
    policy = Z_OLD.softmax(0)
    advantages = rewards - (policy @ rewards if baseline else 0)
    tilts = advantages / BETA / (policy if unbiased else 1)
    return Data(Z_OLD, torch.arange(len(rewards)), policy, advantages, tilts)


def optimum() -> Tensor:
    """log π*, [V]."""
    return (Z_OLD + REWARDS / BETA).log_softmax(0)


def divergence(z: Tensor) -> Tensor:
    """KL(π* ‖ softmax z), over the last axis."""
    best = optimum()
    return (best.exp() * (best - z.log_softmax(-1))).sum(-1)


def distances(path: Tensor) -> tuple[float, float]:
    half, whole = (float(centred(path[k] - path[0]).norm()) for k in (len(path) // 2, -1))
    return half, whole


def course(subject: Subject, steps: int = STEPS) -> Course:
    collected, losing = data(REWARDS).seen_by(subject), data(REWARDS - 1.2, baseline=False).seen_by(subject)
    path = None if collected is None else descend(subject, collected, steps)
    fallen = None if losing is None else descend(subject, losing, steps)
    chases = subject.kind == "target"
    delta = centred(REWARDS / BETA)
    return Course(
        subject.label, subject.kind,
        None if path is None else tuple(((path - Z_OLD) @ delta / (delta @ delta)).tolist()),
        None if path is None else tuple(divergence(path).tolist()),
        None if path is None or collected is None else still(subject, collected, path),
        None if fallen is None else distances(fallen),
        None if fallen is None or losing is None else still(subject, losing, fallen),
        float(divergence(descend(subject, data(REWARDS, unbiased=True), steps)[-1])) if chases else None,
        distances(descend(subject, data(REWARDS), steps, moving=True)) if chases else None,
    )  # fmt: skip


def still(subject: Subject, collected: Data, path: Tensor) -> float:
    return float(centred(gradient(subject, collected, path[-1])).norm())


def truncated_entropies(steps: int = STEPS, rounds: int = 4) -> tuple[float, ...]:
    """Entropy in nats over rounds of descent to a target that keeps the TOP likeliest old logits and has −100 elsewhere,
    at A = 0: the released code's storage of old logits. The gradient of KL(target ‖ π) is π − target."""
    z, found = Z_OLD, []
    for _ in range(rounds + 1):
        found.append(float(torch.distributions.Categorical(logits=z).entropy()))
        best = z.topk(TOP).indices
        target = torch.full_like(z, -100.0).scatter(0, best, z[best]).softmax(0)
        for _ in range(steps):
            z = z - (z.softmax(0) - target)
    return tuple(found)
