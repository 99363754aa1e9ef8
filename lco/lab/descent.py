"""Gradient descent on the logits of one state, on fixed data: the inner steps between two rollouts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lco.lab.position import Positions, Subject, slope

STEPS = 400


@dataclass(frozen=True)
class Data:
    """What was collected at one state, n distinct sampled tokens.

    Attributes:
        z_old: [V] logits of the policy that collected it.
        tokens: [n].
        weights: [n] how often each token was sampled.
        advantages, tilts: [n] A and c of each.
    """

    z_old: Tensor
    tokens: Tensor
    weights: Tensor
    advantages: Tensor
    tilts: Tensor

    def seen_by(self, subject: Subject) -> Data | None:
        """What the method keeps of it: verified rows and demonstrations are those with A > 0. None if nothing."""
        if -1 in subject.signs:
            return self
        kept = self.advantages > 0
        return (
            Data(self.z_old, *(x[kept] for x in (self.tokens, self.weights, self.advantages, self.tilts)))
            if kept.any()
            else None
        )


def gradient(subject: Subject, data: Data, z: Tensor, on_policy: bool = False) -> Tensor:
    """[V], the expected gradient Σ_n weight_n ∇L_n at z; `on_policy` takes z itself for the old policy."""
    count = len(data.tokens)
    z_old = None if on_policy else data.z_old.expand(count, -1)
    rows = Positions(z_old, data.tokens, data.advantages, data.tilts)
    return data.weights @ slope(subject, z.expand(count, -1), rows).gradient


def descend(subject: Subject, data: Data, steps: int, rate: float = 1.0, moving: bool = False) -> Tensor:
    """[steps + 1, V]: z_k, from z_0 = z_old. `moving` renews the old policy, and so the target, at every step."""
    path = [data.z_old]
    for _ in range(steps):
        path.append(path[-1] - rate * gradient(subject, data, path[-1], moving))
    return torch.stack(path)
