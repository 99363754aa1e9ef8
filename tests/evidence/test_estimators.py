"""Estimators against brute force, tabulated values and their invariants."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lco.evidence.majority import group_answers, group_sizes, majority, majority_at
from lco.evidence.statistics import (
    hierarchical_difference,
    hierarchical_interval,
    holm,
    interval,
    iqm,
    mcnemar_mid_p,
    pass_at_k,
    probability_of_improvement,
    standard_error,
)


def test_golden_values():
    found = [pass_at_k(8, 3, 1), pass_at_k(8, 3, 4), pass_at_k(8, 0, 4), pass_at_k(8, 6, 4)]
    assert found == pytest.approx([0.375, 0.928571, 0, 1], abs=1e-6)


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


def grouped(answers):
    return group_sizes(group_answers([a for a, _ in answers], equal), [right for _, right in answers])


@pytest.mark.parametrize(
    ("answers", "sizes", "score"),
    [
        ([], (), 0.0),
        ([("1", True)], (1,), 1.0),
        ([("1", False)], (-1,), 0.0),
        ([("0.5", True), (".5", True), ("2", False)], (2, -1), 1.0),
        ([("1", True), ("2", False)], (1, -1), 0.5),
        ([("1", True), (None, False), ("2", False), ("3", False)], (1, -1, -1), 1 / 3),
        ([("2", False), ("2.0", False), ("1", True)], (-2, 1), 0.0),
    ],
)
def test_majority_groups_by_equality_and_splits_ties(answers, sizes, score):
    assert grouped(answers) == grouped(answers[::-1]) == sizes
    assert majority(sizes) == pytest.approx(score)


def choices(groups, n, k):
    """maj@k by enumeration: every choice of k samples, grouped anew."""
    samples = [i for i, size in enumerate(groups) for _ in range(abs(size))]
    samples += [None] * (n - len(samples))
    for chosen in itertools.combinations(samples, k):
        sizes = group_sizes(chosen, [i is not None and groups[i] > 0 for i in chosen])
        yield majority(sizes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4).filter(bool), max_size=4), st.integers(0, 2), st.data())
def test_majority_of_k_is_the_mean_over_all_choices_of_k_samples(groups, silent, data):
    n = sum(map(abs, groups)) + silent
    groups = tuple(groups)
    if n:
        k = data.draw(st.integers(1, min(n, 9)))
        found = list(choices(groups, n, k))
        assert majority_at(groups, n, k) == pytest.approx(sum(found) / len(found))
        assert majority_at(groups, n, 1) == pytest.approx(sum(size for size in groups if size > 0) / n)
        assert majority_at(groups, n, n) == pytest.approx(majority(groups))


def test_majority_of_more_samples_than_there_are_is_refused():
    with pytest.raises(ValueError, match="maj@5 needs at least 5 samples, there are 4"):
        majority_at((3, -1), 4, 5)
    with pytest.raises(ValueError, match="5 of them with an answer"):
        majority_at((3, -2), 4, 2)


def test_mid_p_is_that_of_its_paper():
    """Bentur's children before and after transplantation, 7 and 1 discordant: Fagerland et al. print 0.0391 (0.0703 exact)."""
    assert round(mcnemar_mid_p(1, 7), 4) == 0.0391
    assert mcnemar_mid_p(0, 0) == 1


@given(st.integers(0, 12), st.integers(0, 12))
def test_mid_p_counts_what_is_further_from_equal_and_half_of_what_is_as_far(b, c):
    n = b + c
    if n:
        coins = [(abs(2 * heads - n), math.comb(n, heads) / 2**n) for heads in range(n + 1)]
        further = sum(p for distance, p in coins if distance > abs(b - c))
        as_far = sum(p for distance, p in coins if distance == abs(b - c))
        assert mcnemar_mid_p(b, c) == pytest.approx(further + as_far / 2)
        assert mcnemar_mid_p(b, c) < further + as_far  # the exact test's


def test_the_standard_error_is_lm_evals_and_known_for_one_greedy_run():
    from lm_eval.api.metrics import mean_stderr

    scores = np.random.default_rng(5).random(40)
    assert standard_error(scores) == pytest.approx(mean_stderr(list(scores)))
    assert 100 * standard_error([1.0] * 350 + [0.0] * 150) == pytest.approx(2.05, abs=0.005)  # MATH-500 at 70 %
    assert math.isnan(standard_error([1.0]))


def test_the_interquartile_mean_is_scipys_trimmed_mean():
    from scipy.stats import trim_mean

    rng = np.random.default_rng(6)
    for shape in ((1, 1), (3, 1), (5, 3), (4, 7)):
        scores = rng.random(shape)
        assert iqm(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None))
    assert iqm(np.array([[0.0, 1.0, 2.0, 100.0]])) == 1.5


def test_the_probability_of_improvement_is_mann_whitneys_u():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(7)
    a, b = rng.integers(0, 5, (5, 3)) / 5, rng.integers(0, 5, (4, 3)) / 5
    expected = np.mean([mannwhitneyu(a[:, m], b[:, m]).statistic / 20 for m in range(3)])
    assert probability_of_improvement(a, b) == pytest.approx(expected)
    assert probability_of_improvement(a, a) == pytest.approx(0.5)
    assert probability_of_improvement(a + 1, a) == 1


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


def test_the_difference_of_equal_scores_and_of_a_shift():
    column = np.random.default_rng(3).random((1, 100))
    assert hierarchical_difference(column, column) == (0, 0, 0, 1)
    mean, low, _, p = hierarchical_difference(column + 0.5, column)
    assert mean == pytest.approx(0.5)
    assert low > 0
    assert p == pytest.approx(1 / 10_001)


def test_holm_is_monotone_and_multiplies_the_smallest():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
