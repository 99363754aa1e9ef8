"""Where gradients point: along the ray from the old policy through the optimal one, and at random positions.

For an advantage on the sampled token alone the optimal logits are z* = z_old + c e_a (arXiv 2603.00963: π* ∝ π_old e^{A/β}),
so the ray is

    z(s) = z_old + s (z* − z_old),   s ∈ [0, 2]

With g = −P∇L (P removes the mean over the vocabulary, which changes no policy) and the unit vector u along P(z* − z_old),
`push` = ⟨g, u⟩ is how hard a loss pushes on along the ray, and the cosine is that of g with P(z* − z). A loss with the
target as its minimum pushes forwards before s = 1 and backwards behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lco.lab.convexity import random_positions
from lco.lab.position import Positions, Subject, slope

PROBABILITIES = (0.05, 0.3, 0.9)
TILTS = (0.5, 2.0, -0.5, -2.0)
GRID = torch.linspace(0, 2, 2001, dtype=torch.float64)
SHOWN = 50
"""Every so many points of the grid are kept for figures."""
ZERO = 1e-10
SIZE = 8


@dataclass(frozen=True)
class Ray:
    """One loss along one ray.

    Attributes:
        label, kind: the loss.
        probability, tilt: p = π_old(a) and c.
        s, push, cosine: points of the ray; the cosine is None where a vector vanishes.
        outcome: what that means for an optimum at s = 1.
        stop: the first s at which the gradient vanishes or turns round; None if there is none up to 2.
        ratio: π(a)/p there.
        along: what the gradient is parallel to on the whole ray: "e_a − π_old", "e_a − 1/V" or "neither".
        shrinks: whether ‖g‖ never grows between s = 0 and s = 1.
        ahead: the smallest cosine at points with 0 ≤ s < 1 and gradient; None if it vanishes all the way.
        behind: the largest and smallest cosine at points with s > 1 and gradient; None likewise.
    """

    label: str
    kind: str
    probability: float
    tilt: float
    s: tuple[float, ...]
    push: tuple[float, ...]
    cosine: tuple[float | None, ...]
    outcome: str
    stop: float | None
    ratio: float | None
    along: str
    shrinks: bool
    ahead: float | None
    behind: tuple[float, float] | None


@dataclass(frozen=True)
class Alignment:
    """The cosine of −∇L with z* − z at random positions: how often there is none, how often it is positive, its quartiles."""

    label: str
    kind: str
    sign: int
    vanishing: float
    positive: float
    quartiles: tuple[float, float, float]


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """[N] cosines of rows, NaN where a row vanishes."""
    sizes = x.norm(dim=-1) * y.norm(dim=-1)
    vanish = (x.norm(dim=-1) < ZERO) | (y.norm(dim=-1) < ZERO)
    return torch.where(vanish, torch.nan, (x * y).sum(-1) / sizes)


def old_logits(probability: float) -> Tensor:
    """[V]: π_old(0) = p, the others' shares fixed and unequal."""
    rest = torch.linspace(0.5, 2, SIZE - 1, dtype=torch.float64)
    return torch.cat([torch.tensor([probability]).double(), (1 - probability) * rest / rest.sum()]).log()


def ray(subject: Subject, probability: float, tilt: float) -> Ray:
    z_old, count = old_logits(probability), len(GRID)
    direction = tilt * torch.eye(SIZE, dtype=torch.float64)[0]
    z = z_old + GRID[:, None] * direction
    c = torch.full((count,), tilt, dtype=torch.float64)
    rows = Positions(z_old.expand_as(z), torch.zeros(count, dtype=torch.int64), c.sign(), c)
    g = -centred(slope(subject, z, rows).gradient)
    norm, u = g.norm(dim=1), centred(direction) / centred(direction).norm()
    push, cosine = g @ u, cosines(g, centred((1 - GRID[:, None]) * direction))
    stop = first_stop(push, norm)
    candidates = {"e_a − π_old": direction / tilt - z_old.softmax(0), "e_a − 1/V": direction}
    angles = {name: cosines(g, centred(x).expand_as(g)).abs().nan_to_num(1.0).min() for name, x in candidates.items()}
    before, after = cosine[(GRID < 1) & ~cosine.isnan()], cosine[(GRID > 1) & ~cosine.isnan()]
    gone = None if stop is None else torch.log_softmax(z_old + stop * direction, 0)[0].exp() / probability
    return Ray(
        subject.label, subject.kind, probability, tilt, tuple(GRID[::SHOWN].tolist()), tuple(push[::SHOWN].tolist()),
        tuple(None if math.isnan(x) else x for x in cosine[::SHOWN].tolist()),
        outcome(stop), stop, None if gone is None else float(gone),
        next((name for name, angle in angles.items() if float(angle) > 1 - 1e-9), "neither"),
        bool((norm[GRID <= 1].diff() <= ZERO).all()),
        float(before.min()) if len(before) else None,
        (float(after.max()), float(after.min())) if len(after) else None,
    )  # fmt: skip


def outcome(stop: float | None) -> str:
    if stop is None:
        return "overshoots, no stop up to s = 2"
    if abs(stop - 1) < 1.5 * float(GRID[1]):
        return "stops exactly"
    return f"{'stops short' if stop < 1 else 'overshoots, stops'} at s = {stop:.3f}"


def first_stop(push: Tensor, norm: Tensor) -> float | None:
    """The first s of the grid with no gradient, or where the push changes sign."""
    halted = (norm < ZERO) | (push * push[0] < 0)
    return float(GRID[halted.int().argmax()]) if bool(halted.any()) else None


def rays(subject: Subject) -> list[Ray]:
    tilts = [tilt for tilt in TILTS if (1 if tilt > 0 else -1) in subject.signs]
    return [ray(subject, p, tilt) for tilt in tilts for p in PROBABILITIES]


def alignment(subject: Subject, sign: int, count: int = 1000) -> Alignment:
    z, rows = random_positions(SIZE, count, sign, seed=2)
    assert rows.z_old is not None
    optimal = rows.z_old.scatter_add(1, rows.tokens[:, None], rows.tilts[:, None])
    found = cosines(-centred(slope(subject, z, rows).gradient), centred(optimal - z))
    known = found[~found.isnan()]
    low, middle, high = known.quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    return Alignment(
        subject.label,
        subject.kind,
        sign,
        1 - len(known) / count,
        float((known > 0).double().mean()),
        (low, middle, high),
    )
