"""All data negative: one token, A = −1, learned from again and again.

A concave loss has no minimum to come to rest at: −A log π(a) = log π(a) is unbounded below. A loss with a target removes
exactly as much probability as the target says, q = σ(logit p + c) (from π* ∝ π_old e^{A/β}, arXiv 2603.00963).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lco.lab.descent import STEPS, Data, descend, gradient
from lco.lab.position import BETA, Subject
from lco.lab.ray import centred, old_logits

PROBABILITY = 0.3


@dataclass(frozen=True)
class Negatives:
    """Inner steps on one negative token.

    Attributes:
        label, kind: the loss.
        moved: [steps + 1] ‖P(z_k − z_old)‖, how far the logits went.
        probability: [steps + 1] π_k(a).
        rest: ‖P∇L‖ at the last step; 0 means that it came to rest.
    """

    label: str
    kind: str
    moved: tuple[float, ...]
    probability: tuple[float, ...]
    rest: float


def target_probability() -> float:
    return float(torch.sigmoid(torch.logit(torch.tensor(PROBABILITY).double()) - 1 / BETA))


def negatives(subject: Subject, steps: int = STEPS) -> Negatives | None:
    """None for methods that see no negative row."""
    one = torch.ones(1, dtype=torch.float64)
    data = Data(old_logits(PROBABILITY), torch.tensor([0]), one, -one, -one / BETA).seen_by(subject)
    if data is None:
        return None
    path = descend(subject, data, steps)
    moved = centred(path - path[0]).norm(dim=1)
    rest = centred(gradient(subject, data, path[-1])).norm()
    return Negatives(
        subject.label, subject.kind, tuple(moved.tolist()), tuple(path.softmax(1)[:, 0].tolist()), float(rest)
    )
