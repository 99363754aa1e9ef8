"""Estimators against brute force, tabulated values and their invariants."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lco.evidence.statistics import (
    hierarchical_interval,
    holm,
    interval,
    majority,
    mcnemar,
    paired_bootstrap,
    pass_at_k,
)


def test_golden_values():
    found = [pass_at_k(8, 3, 1), pass_at_k(8, 3, 4), pass_at_k(8, 0, 4), pass_at_k(8, 6, 4)]
    assert found == pytest.approx([0.375, 0.928571, 0, 1], abs=1e-6)
    assert [mcnemar(10, 3), mcnemar(5, 5), mcnemar(0, 0), mcnemar(0, 6)] == pytest.approx(
        [0.092285, 1, 1, 0.03125], abs=1e-6
    )


@given(st.integers(1, 8), st.data())
def test_pass_at_k_counts_the_subsets_with_a_right_one(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    samples = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(samples, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    if k > 1:
        assert pass_at_k(n, c, k) >= pass_at_k(n, c, k - 1) - 1e-12


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="needs at least 4 samples"):
        pass_at_k(2, 1, 4)


def equal(a, b):
    return float(a) == float(b)


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        ([], 0.0),
        ([("1", True)], 1.0),
        ([("1", False)], 0.0),
        ([("0.5", True), (".5", True), ("2", False)], 1.0),
        ([("1", True), ("2", False)], 0.5),
        ([("1", True), ("2", False), ("3", False)], 1 / 3),
        ([("2", False), ("2.0", False), ("1", True)], 0.0),
    ],
)
def test_majority_clusters_by_equality_and_splits_ties(answers, score):
    assert majority(answers, equal) == pytest.approx(score)
    assert majority(answers[::-1], equal) == pytest.approx(score)


def test_intervals_cover_the_mean_and_degenerate_cases_are_points():
    rng = np.random.default_rng(1)
    scores = rng.random(200)
    low, high = interval(scores)
    assert low < scores.mean() < high
    assert interval([1.0] * 5) == (1.0, 1.0)
    assert interval([0.3]) == (0.3, 0.3)
    assert interval(scores) == interval(scores)


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(2)
    problems = rng.random((1, 100)) * 0.2
    apart = np.clip(problems + np.array([[0.0], [0.3], [0.6]]), 0, 1)
    wide, narrow = hierarchical_interval(apart), interval(apart.mean(0))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_paired_bootstrap_of_equal_columns_and_of_a_shift():
    column = np.random.default_rng(3).random(100)
    mean, low, high, p = paired_bootstrap(column, column)
    assert (mean, low, high, p) == (0, 0, 0, 1)
    mean, low, _, p = paired_bootstrap(column + 0.5, column)
    assert mean == pytest.approx(0.5)
    assert low > 0
    assert p == pytest.approx(1 / 10_001)


def test_holm_is_monotone_and_multiplies_the_smallest():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
