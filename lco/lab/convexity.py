"""Convexity in the logits, measured: Hessians, their closed forms, the midpoint inequality.

The claim of arXiv 2603.00963 is that SFT's and LCO's losses are convex in the logits z and that PPO's is not. A loss is
convex iff its Hessian has no negative eigenvalue; the Hessian comes from central differences of the analytic gradient,

    H e_v ≈ (∇L(z + h e_v) − ∇L(z − h e_v)) / 2h          [V, V], V = 4…8, float64

and is compared with the closed forms in `forms`, which are derived from the losses' equations. With g = e_a − π,
F = diag π − ππᵀ and the ratio r = π(a)/p, the surrogate −A r has the Hessian −A r M, M = ggᵀ − F. M's only eigenvalue
that can be positive is positive iff π(a) < ½, hence the sign rule `surrogate_shape`.

Convex in z is not convex in the parameters θ, except for a linear head over fixed hidden states.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from lco.lab.position import BETA, Positions, Subject, slope
from lco.methods import METHODS

STEP = 1e-5
FLAT = 1e-7
"""Eigenvalues within ± this are zero: ten times what central differences of this step leave at most."""
BOUND = 1 + METHODS["cispo"].hyperparameters["clip_high"].default
"""Of the detached importance weight ŵ."""
AGREES = 1e-6
"""A closed form is recognised if every entry is this close."""


@dataclass(frozen=True)
class Curvature:
    """What was seen of one loss for one sign of A.

    Attributes:
        label, kind, sign: the loss, and the sign of A.
        demonstrated: whether its tokens are demonstrations.
        smallest, largest: extreme eigenvalues over all cases.
        cases: random positions.
        shapes: how many cases are convex, concave, indefinite or flat by their own Hessian.
        forms: how many cases each closed form explains.
        error: largest entry by which a recognised closed form missed.
        segments, violations: random segments, and those that break the midpoint inequality.
        convex: no negative eigenvalue and no violation.
        sign_rule: of the cases with Hessian −A r M, the share whose shape the sign rule predicts; None without such.
    """

    label: str
    kind: str
    sign: int
    demonstrated: bool
    smallest: float
    largest: float
    cases: int
    shapes: dict[str, int]
    forms: dict[str, int]
    error: float
    segments: int
    violations: int
    convex: bool
    sign_rule: float | None


def random_positions(size: int, count: int, sign: int, seed: int) -> tuple[Tensor, Positions]:
    """z [count, V] and their positions; in every second one the sampled token is likely, so that π(a) > ½ occurs."""
    g = torch.Generator().manual_seed(1000 * seed + size)
    z_old = 1.5 * torch.randn(count, size, generator=g, dtype=torch.float64)
    tokens = torch.randint(size, (count,), generator=g)
    z_old[torch.arange(0, count, 2), tokens[::2]] += 3
    z = z_old + 0.7 * torch.randn(count, size, generator=g, dtype=torch.float64)
    advantages = sign * (0.3 + 1.7 * torch.rand(count, generator=g, dtype=torch.float64))
    return z, Positions(z_old, tokens, advantages, advantages / BETA)


def hessians(subject: Subject, z: Tensor, at: Positions) -> Tensor:
    """[N, V, V], symmetrised, from 2 N V gradients in one call."""
    assert at.z_old is not None
    count, size = z.shape
    steps = STEP * torch.cat([torch.eye(size), -torch.eye(size)]).double()
    moved = (z[:, None] + steps).reshape(-1, size)
    repeated = Positions(*(field.repeat_interleave(2 * size, 0) for field in at if field is not None))
    up, down = slope(subject, moved, repeated).gradient.view(count, 2, size, size).unbind(1)
    found = (up - down) / (2 * STEP)
    return (found + found.transpose(1, 2)) / 2


def forms(z: Tensor, at: Positions, strength: float = 1.0) -> dict[str, Tensor]:
    """Closed-form Hessians, [N, V, V] each. u = π_old, d = z − z_old, P = I − 11ᵀ/V, x = log π − log π*, ρ = x(a), J = I − 1πᵀ.

    `strength` is τ of the losses ½ τ (A/τ − x)² that regress the log-ratio of the sampled token, there called x.
    """
    assert at.z_old is not None
    eye = torch.eye(z.shape[1], dtype=torch.float64)
    centre, onehot = eye - 1 / z.shape[1], eye[at.tokens]
    probs, old = z.softmax(1), at.z_old.softmax(1)
    optimal = (at.z_old + at.tilts[:, None] * onehot).log_softmax(1)
    apart, jacobian = z.log_softmax(1) - optimal, eye - probs[:, None]
    rho, ratio = ((apart * onehot).sum(1), ((probs / old) * onehot).sum(1))
    residual = z - at.z_old - at.tilts[:, None] * onehot
    fisher = torch.diag_embed(probs) - outer(probs)
    g = outer(onehot - probs)

    def times(k: Tensor, matrix: Tensor) -> Tensor:
        return k[:, None, None] * matrix

    bend = torch.diag_embed(torch.cosh(residual @ centre) ** -2)
    kept = torch.cosh((residual * onehot).sum(1)) ** -2
    return {
        "0": torch.zeros_like(fisher),
        "F": fisher,
        "A F": times(at.advantages, fisher),
        "−A r M": times(-at.advantages * ratio, g - fisher),
        "A ŵ F": times(at.advantages * ratio.clamp(max=BOUND), fisher),
        "τ ggᵀ + (A − τx) F": strength * g + times(at.advantages - strength * ratio.log(), fisher),
        "e eᵀ": outer(onehot),
        "P": centre.expand_as(fisher),
        "diag u − uuᵀ": torch.diag_embed(old) - outer(old),
        "P diag sech² P": centre @ bend @ centre,
        "sech² e eᵀ": times(kept, outer(onehot)),
        "ggᵀ − ρ F": g - times(rho, fisher),
        "JᵀJ − Σx F": jacobian.mT @ jacobian - times(apart.sum(1), fisher),
    }


def outer(x: Tensor) -> Tensor:
    return x[:, :, None] * x[:, None, :]


def shape(smallest: float, largest: float) -> str:
    match smallest < -FLAT, largest > FLAT:
        case False, False:
            return "flat"
        case False, True:
            return "convex"
        case True, False:
            return "concave"
    return "indefinite"


def surrogate_shape(advantage: float, probability: float) -> str:
    """The sign rule of −A r for V ≥ 3: indefinite while π(a) < ½, else convex for A > 0 and concave for A < 0."""
    return "indefinite" if probability < 0.5 else "convex" if advantage > 0 else "concave"


def curvature(subject: Subject, sign: int, count: int = 60, seed: int = 0) -> Curvature:
    """Measures one loss at `count` positions for each V = 4…8, and along as many segments."""
    low, high, error, violations, right = torch.inf, -torch.inf, 0.0, 0, []
    shapes: Counter[str] = Counter()
    explained: Counter[str] = Counter()
    for size in range(4, 9):
        z, at = random_positions(size, count, sign, seed)
        found = hessians(subject, z, at)
        eigenvalues = torch.linalg.eigvalsh(found)
        low, high = min(low, float(eigenvalues.min())), max(high, float(eigenvalues.max()))
        chosen = z.softmax(1).gather(1, at.tokens[:, None])[:, 0]
        strength = subject.objective.hyper.get("tau", 1.0)
        errors = {name: (form - found).abs().amax((1, 2)) for name, form in forms(z, at, strength).items()}
        for i in range(count):
            seen = shape(float(eigenvalues[i, 0]), float(eigenvalues[i, -1]))
            shapes[seen] += 1
            # The forms can coincide at single positions (A = 1, ρ = 0); the first that fits names it.
            name = next((name for name, e in errors.items() if e[i] < AGREES), "another")
            explained[name] += 1
            error = max(error, float(errors[name][i])) if name in errors else error
            if name == "−A r M":
                right.append(seen == surrogate_shape(float(at.advantages[i]), float(chosen[i])))
        other = random_positions(size, count, sign, seed + 1)[0]
        ends = (slope(subject, z, at).loss + slope(subject, other, at).loss) / 2
        violations += int((slope(subject, (z + other) / 2, at).loss > ends + 1e-9).sum())
    return Curvature(
        subject.label, subject.kind, sign, subject.objective.source == "demonstrations", low, high, 5 * count, dict(shapes),
        dict(explained), error, 5 * count, violations, low >= -FLAT and violations == 0,
        sum(right) / len(right) if right else None,
    )  # fmt: skip
