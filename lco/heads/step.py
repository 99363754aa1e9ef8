"""What the optimizer's coming step does to the logits of a token, predicted on the head alone (arXiv 2510.00819).

The hidden state h stays, the head W moves by Δ = −lr · G, so the logits move by δ = Δ h. For a token's own loss −A log π(a)
the gradient is g = −A (e_a − π) hᵀ; under Adam G = m̂/(√v̂ + ε) with the moments that g would leave,

    m̂ = (β₁ m + (1 − β₁) g) / (1 − β₁ᵗ⁺¹)        v̂ = (β₂ v + (1 − β₂) g²) / (1 − β₂ᵗ⁺¹)

and G = g without them. Weight decay is left out. From δ come the first and the second order of the change of log π(a):
`slope` = δ_a − Σ π δ and `spread` = Σ π δ² − (Σ π δ)², the variance of δ under π.

The square root lies between g and h, so Δ h has no factors that would be small: its entries are formed, `ENTRIES` of them at a
time, for the rows of the head that a token looks at. `top` rows and the sampled token's are V/top times less work than all V,
with π made a distribution on them; 0 takes all, which is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ENTRIES = 1 << 22
"""Entries of [tokens, rows, d] that exist at once: 16 MiB in float32, of which five are held."""


@dataclass(frozen=True)
class HeadStep:
    """The step to come, as far as it is the head's.

    Attributes:
        lr: its learning rate.
        first, second: [V, d] Adam's moments of the loss's gradient before it; None where there are none: plain descent.
        count: the steps that the moments have behind them.
        betas, epsilon: Adam's.
        gradient: [V, d] of the loss of the whole minibatch, one step for all tokens; None: each token has its own.
        top: likeliest tokens whose rows are followed, beside the sampled one; 0: all.
    """

    lr: float
    first: Tensor | None = None
    second: Tensor | None = None
    count: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    gradient: Tensor | None = None
    top: int = 0

    def scaled(self, g: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """G of a gradient, with the moments at the same entries."""
        (b1, b2), t = self.betas, self.count + 1
        mean = first.mul(b1).add(g, alpha=1 - b1).div_(1 - b1**t)
        square = second.mul(b2).addcmul(g, g, value=1 - b2).div_(1 - b2**t)
        return mean.div_(square.sqrt_().add_(self.epsilon))

    @functools.cached_property
    def whole(self) -> Tensor:
        """G of `gradient`, [V, d]."""
        assert self.gradient is not None
        if self.first is None or self.second is None:
            return self.gradient
        return self.scaled(self.gradient.to(self.first.dtype), self.first, self.second)


class Prediction(NamedTuple):
    """[C] each."""

    slope: Tensor
    spread: Tensor


def predict_step(step: HeadStep, probs: Tensor, tokens: Tensor, states: Tensor, advantage: Tensor) -> Prediction:
    """How the step moves log π of the sampled tokens.

    Args:
        probs: [C, V].
        tokens: [C] sampled tokens.
        states: [C, d] hidden states, divided by the temperature.
        advantage: [C] A; read where each token has a step of its own.
    """
    rows, p, onehot = support(probs, tokens, step.top)
    away = onehot - p  # v = e_a − π
    if step.gradient is not None:
        moved = states.to(step.whole.dtype) @ step.whole.T
        delta = -step.lr * (moved if rows is None else moved.gather(1, rows)).to(p.dtype)
    elif step.first is None or step.second is None:
        delta = step.lr * (advantage * states.square().sum(1))[:, None] * away
    else:
        delta = -step.lr * own_steps(step, rows, -advantage[:, None] * away, states)
    mean = (p * delta).sum(1)
    # The sampled token's weight in `onehot` is on exactly one of its rows.
    return Prediction((onehot * delta).sum(1) - mean, (p * (delta - mean[:, None]).square()).sum(1))


def support(probs: Tensor, tokens: Tensor, top: int) -> tuple[Tensor | None, Tensor, Tensor]:
    """(rows of the head [C, S], None for all V in order; π on them, a distribution; 1 at the sampled token, else 0)."""
    if not top or top >= probs.shape[1]:
        onehot = torch.zeros_like(probs).scatter_(1, tokens[:, None], 1.0)
        return None, probs, onehot
    p, rows = probs.topk(top, 1)
    inside = rows == tokens[:, None]
    outside = ~inside.any(1, keepdim=True)
    p = torch.cat([p, probs.gather(1, tokens[:, None]) * outside], 1)
    onehot = torch.cat([inside, outside], 1).to(p.dtype)
    return torch.cat([rows, tokens[:, None]], 1), p / p.sum(1, keepdim=True), onehot


def own_steps(step: HeadStep, rows: Tensor | None, slopes: Tensor, states: Tensor) -> Tensor:
    """G h at every row, [C, S], for G of each token's own gradient slopes hᵀ."""
    assert step.first is not None
    assert step.second is not None
    found = torch.empty_like(slopes)
    dtype = step.first.dtype
    states, slopes = states.to(dtype), slopes.to(dtype)
    for some, columns in blocks(slopes.shape[0], slopes.shape[1], states.shape[1]):
        where = columns if rows is None else rows[some, columns]
        h = states[some]
        g = slopes[some, columns, None] * h[:, None, :]
        scaled = step.scaled(g, step.first[where].expand_as(g), step.second[where].expand_as(g))
        found[some, columns] = torch.einsum("csd,cd->cs", scaled, h).to(found.dtype)
    return found


def blocks(tokens: int, rows: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Parts of [tokens, rows] that have `ENTRIES` entries with their width, or one row of one token."""
    per_token = min(rows, max(1, ENTRIES // width))
    at_once = max(1, ENTRIES // (per_token * width))
    for first in range(0, tokens, at_once):
        for column in range(0, rows, per_token):
            yield slice(first, first + at_once), slice(column, column + per_token)
