"""Ranges of ranks: the places that a method may have, as far as its differences to the others are told from chance.

The p-value of a pair is that of the paired permutation test: were two methods the same, each problem's difference could as
well have the other sign. A method stands below those that are better at level α, above those that are worse, and anywhere
among the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lco.evidence.statistics import RESAMPLES, Array

EXACT = 13
"""Up to so many problems all signs are tried; above, so many random ones as a bootstrap has resamples."""
LEVEL = 0.05


def permutation_p(differences: Array, seed: int = 0) -> Array:
    """[pairs] two-sided p-values of "no difference" from [pairs, problems]; with all signs tried they are exact.

    With drawn signs the observed ones count as one of them, so that no p is 0.
    """
    problems = differences.shape[1]
    if problems <= EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=problems)))
        added = 0
    else:
        signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(RESAMPLES, problems))
        added = 1
    observed = np.abs(differences.sum(1))
    sums = np.abs(signs @ differences.T)
    as_far = (sums >= observed - 1e-9).sum(0)  # a tie is a tie, however a machine's sums round
    return (as_far + added) / (len(signs) + added)


def rank_ranges(scores: Sequence[Array], level: float = LEVEL) -> list[tuple[int, int]]:
    """[(best, worst) rank] of each method, from 1.

    Args:
        scores: for every method the score of each problem, mean over its seeds and samples: [problems], the same problems.
    """
    pairs = list(itertools.combinations(range(len(scores)), 2))
    if not pairs:
        return [(1, 1) for _ in scores]
    differences = np.array([scores[i] - scores[j] for i, j in pairs])
    told = permutation_p(differences) < level
    better, worse = [0] * len(scores), [0] * len(scores)
    for (i, j), sure, difference in zip(pairs, told, differences.sum(1), strict=True):
        if sure:
            winner, loser = (i, j) if difference > 0 else (j, i)
            better[loser] += 1
            worse[winner] += 1
    return [(1 + above, len(scores) - below) for above, below in zip(better, worse, strict=True)]
