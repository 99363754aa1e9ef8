"""Ratios of times: what interval is given, and of what work."""

import math
import random

import pytest
from compare_speed import interval, main, ratio_of, report


def test_an_interval_between_order_statistics_is_the_narrowest_that_is_sure_enough():
    values = [3.0, 1.0, 2.0, 6.0, 5.0, 4.0]
    assert interval(values[:5]) is None  # 2 / 2⁵ = 6 %
    assert interval(values) == (1.0, 6.0)  # 2 / 2⁶ = 3 %
    assert interval([float(n) for n in range(1, 10)]) == (2.0, 8.0)  # 2 · (1 + 9) / 2⁹ = 4 %


def test_the_interval_misses_the_median_as_seldom_as_it_says_whatever_the_distribution():
    rng, missed, tries = random.Random(0), 0, 4000
    for _ in range(tries):
        low, high = interval([rng.lognormvariate(0, 2) for _ in range(12)])
        missed += not low <= 1.0 <= high
    exact = 2 * (1 + 12 + 66) / 2**12
    assert missed / tries == pytest.approx(exact, abs=4 * math.sqrt(exact / tries))


def test_a_ratio_is_of_one_rounds_medians_by_phase():
    found = {
        "before": [{"total": 2.0, "sync": 0.0}, {"total": 4.0, "sync": 0.0}, {"total": 100.0, "sync": 0.0}],
        "after": [{"total": 5.0, "sync": 0.0}, {"total": 6.0, "sync": 0.0}, {"total": 7.0, "sync": 0.0}],
    }
    assert ratio_of(found, "total") == 1.5
    assert math.isnan(ratio_of(found, "sync"))
    found = {side: [{**step, "tokens": 9.0} for step in steps] for side, steps in found.items()}
    total, last = report([found] * 6).split("\n")[1:]
    assert total.split() == ["total", "4.000", "s", "6.000", "s", "1.500", "1.500", "and", "1.500"]
    assert last == "6 rounds, 3 steps each, 9 response tokens a step"


def test_both_run_in_every_round_and_the_one_that_begins_changes(make_checkout, tmp_path, capsys):
    # Both write into one file, in the order in which they are called.
    order = tmp_path / "order.txt"
    one, other = (
        make_checkout(name, f"open({str(order)!r}, 'a').write({name!r} + ' ')") for name in ("before", "after")
    )
    assert main([str(one), str(other), "--rounds", "2", "--steps", "3"]) == 0
    assert order.read_text().split() == ["before", "after", "after", "before"]
    assert "1.000   too few rounds" in capsys.readouterr().out


def test_times_of_different_work_are_refused(make_checkout, capsys):
    assert main([str(make_checkout("before")), str(make_checkout("after", tokens="99")), "--rounds", "1"]) == 2
    assert "BEFORE makes [100, 100, 100] tokens and AFTER [99, 99, 99]" in capsys.readouterr().err
