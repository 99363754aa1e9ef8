"""Behaviours are read from the later half of a run, and what was not recorded stays empty."""

from reproduce.miniature.behaviours import COLUMNS, cell, second_half, table


def record(method, seed, **curves):
    return {"method": method, "seed": seed, "curves": {"step": [1, 2, 3, 4], **curves}}


def test_the_second_half_counts_and_gaps_are_passed_over():
    run = record("grpo", 0, entropy=[9.0, 9.0, 1.0, 3.0], length_wrong=[None, 8.0, None, None])
    assert second_half(run, "entropy") == 2.0
    assert second_half(run, "length_wrong") is None
    assert second_half(run, "clip_high") is None


def test_a_row_has_mean_and_spread_over_the_seeds_that_recorded_it():
    runs = [record("grpo", 0, entropy=[0, 0, 1.0, 1.0]), record("grpo", 1, entropy=[0, 0, 3.0, 3.0]), record("grpo", 2)]
    assert cell(runs, "entropy") == "2.000 ± 1.414"
    assert cell(runs[:1], "entropy") == "1.000"
    (row,) = table(runs).split("\n")[2:]
    assert row.count("|") == len(COLUMNS) + 3
    assert row.startswith("| GRPO |")
    assert row.endswith("| 3 |")
