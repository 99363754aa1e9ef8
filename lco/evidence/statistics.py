"""Estimators and tests on per-problem counts. Nothing here knows of files or models.

The unit of resampling is the problem: samples of one problem are correlated. With several training seeds, seeds are
resampled too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 10_000


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 − C(n − c, k)/C(n, k): the unbiased estimate from n samples of which c are right (Chen et al. 2021).

    Raises:
        ValueError: k > n, for which there is no unbiased estimate.
    """
    if not 0 < k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {n}")
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1)) if n - c >= k else 1.0


def standard_error(scores: Sequence[float] | Array) -> float:
    """Of the mean over problems, √(Var/M) with M − 1 in the variance: of avg@n, whose scores are c/n, it holds the noise of
    sampling already. One problem has none: not a number."""
    values = np.asarray(scores, dtype=np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def iqm(scores: Array) -> float:
    """Interquartile mean of [runs, tasks]: the mean of what is left when the lowest and the highest quarter of all entries are
    taken away (Agarwal et al. 2021, arXiv 2108.13264). Below four entries it is the mean."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def probability_of_improvement(a: Array, b: Array) -> float:
    """P(a run of the one scores above a run of the other), ties half, mean over tasks (the same paper, §4.3).

    Args:
        a, b: [runs, tasks]; runs are not paired, and may be unequally many.
    """
    above = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
    return float(above.mean())


def interval(scores: Sequence[float] | Array, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap of the mean over problems; one problem or equal scores give a point."""
    values = np.asarray(scores, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return percentiles(values[draws].mean(1), level)


def hierarchical_interval(scores: Array, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Bootstrap of the grand mean of [seeds, problems]: seeds resampled, and problems alike for all of them."""
    return percentiles(hierarchical_means(scores, seed), level)


def hierarchical_means(scores: Array, seed: int = 0) -> Array:
    """Grand means of resampled [seeds, problems]."""
    return stratified_means([scores], seed)


def stratified_means(tasks: Sequence[Array], seed: int = 0) -> Array:
    """Means over tasks of the grand means of resampled [seeds, problems]: seeds alike for all tasks, problems within each."""
    seeds = len(tasks[0])
    rng = np.random.default_rng(seed)
    chosen_seeds = rng.integers(seeds, size=(RESAMPLES, seeds))
    total = np.zeros(RESAMPLES)
    for scores in tasks:
        chosen_problems = rng.integers(scores.shape[1], size=(RESAMPLES, scores.shape[1]))
        means = [
            np.take_along_axis(scores[chosen_seeds[i : i + 500]].mean(1), chosen_problems[i : i + 500], 1).mean(1)
            for i in range(0, RESAMPLES, 500)
        ]
        total += np.concatenate(means)
    return total / len(tasks)


def hierarchical_difference(a: Array, b: Array, seed: int = 0) -> tuple[float, float, float, float]:
    """Mean of a − b over the same [seeds, problems], its 95 % interval, and a two-sided p-value (floor 1/10 001)."""
    return stratified_difference([(a, b)], seed)


def stratified_difference(tasks: Sequence[tuple[Array, Array]], seed: int = 0) -> tuple[float, float, float, float]:
    """The same of several tasks, each [seeds, problems] with problems of its own, whose differences are averaged."""
    differences = [a - b for a, b in tasks]
    means = stratified_means(differences, seed)
    mean = sum(float(difference.mean()) for difference in differences) / len(differences)
    return mean, *percentiles(means, 0.95), two_sided(means)


def two_sided(means: Array) -> float:
    """p of "no difference" from resampled mean differences."""
    means = np.round(means, 12)  # a tie is a tie, however a machine's sums round
    p = min(1.0, 2 * min(float((means <= 0).mean()), float((means >= 0).mean())))
    return max(p, 1 / (RESAMPLES + 1))


def percentiles(values: Array, level: float) -> tuple[float, float]:
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def mcnemar_mid_p(b: int, c: int) -> float:
    """Two-sided mid-p for b and c discordant problems: what is further from equal, and half of what is as far.

    The exact test is known to be too cautious (Fagerland et al. 2013, doi 10.1186/1471-2288-13-91). 1 where none is discordant.
    """
    n = b + c
    if n == 0:
        return 1.0
    at_least = sum(math.comb(n, i) for i in range(n + 1) if abs(2 * i - n) >= abs(b - c))
    equally = sum(math.comb(n, i) for i in {b, c})
    return (at_least - equally / 2) / 2**n


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
