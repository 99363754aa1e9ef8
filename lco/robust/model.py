"""A linear decision process with finite states: rewards ⟨φ(s, a), θ_h⟩, transitions Σ_i φ_i(s, a) μ_{h,i} (arXiv 2510.14246).

Its uncertainty is d-rectangular: each factor μ_{h,i} may be another distribution near it, whatever the others are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LinearMDP:
    """
    Attributes:
        features: φ, [S, A, d], each row in the simplex.
        rewards: θ, [H, d]; ⟨φ, θ_h⟩ lies in [0, 1].
        factors: μ, [H, d, S], each row a distribution of the next state.
        start: [S], the distribution of the first state.
        uncertain: [H, d] bool, the factors that may be others than these.
        ended: [S] bool, states in which nothing is earned any more, as everybody knows: a failure, an exercised option.
    """

    features: Array
    rewards: Array
    factors: Array
    start: Array
    uncertain: Array
    ended: Array

    def __post_init__(self) -> None:
        states, _, size = self.features.shape
        horizon = len(self.rewards)
        assert self.rewards.shape == self.uncertain.shape == (horizon, size)
        assert self.factors.shape == (horizon, size, states)
        assert self.ended.shape == self.start.shape == (states,)
        for name in ("features", "factors", "start"):
            rows = getattr(self, name)
            assert (rows >= 0).all(), name
            assert np.allclose(rows.sum(-1), 1), name
        assert 0 <= self.expected_rewards.min() <= self.expected_rewards.max() <= 1 + 1e-12

    @property
    def horizon(self) -> int:
        return len(self.rewards)

    @property
    def expected_rewards(self) -> Array:
        """r, [H, S, A]."""
        found: Array = np.einsum("sad,hd->hsa", self.features, self.rewards)
        return found

    def with_factors(self, factors: Array) -> LinearMDP:
        return replace(self, factors=factors)


def uniform_policy(model: LinearMDP) -> Array:
    """[S, A], every action as likely as the others: the reference policy of all studies here."""
    states, actions, _ = model.features.shape
    return np.full((states, actions), 1 / actions)
